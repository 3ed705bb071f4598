"""A team as tensors and plain Python values, and back."""

from __future__ import annotations

import copy
import os
import zlib
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from core.team.files import read_tensors, refuse_non_finite, write_tensors

COUNTERS = ("environment_steps", "updates", "progress")


def snapshot(team: Any, with_buffer: bool = True) -> dict[str, Any]:
    """Everything that a bit-exact continuation of a team needs; see `AgentTeam.state_dict`."""
    return {
        "algorithm": type(team).__name__,
        "sizes": sizes(team),
        "config": team.config.as_dict(),
        "networks": {name: [s.flat.detach().clone() for s in net.stacks()] for name, net in team.networks.items()},
        "optimizers": {name: copy.deepcopy(optimizer.state_dict()) for name, optimizer in team.optimizers.items()},
        "buffer": team.buffer.state_dict() if with_buffer and team.buffer is not None else None,
        "counters": {name: getattr(team, name) for name in COUNTERS},
        "missed": [dict(missed) for missed in team.missed],
        "extra": team.extra_state(),
        "random": team.random_state(),
    }


def sizes(team: Any) -> dict[str, int]:
    """What a team was built for."""
    return {"state_dim": team.state_dim, "action_dim": team.action_dim, "num_agents": team.num_agents}


def restore(team: Any, state: dict[str, Any]) -> None:
    """Put a snapshot into a team of the same kind; see `AgentTeam.load_state_dict`."""
    if state.get("algorithm") != type(team).__name__ or state.get("sizes") != sizes(team):
        raise ValueError(
            f"expected the state of a {type(team).__name__} with {sizes(team)}, found that of a "
            f"{state.get('algorithm')} with {state.get('sizes')}; build the team that was saved"
        )
    for name, network in team.networks.items():
        saved = state["networks"].get(name, [])
        shapes, expected = [tuple(t.shape) for t in saved], [tuple(s.flat.shape) for s in network.stacks()]
        if shapes != expected:
            raise ValueError(f"network {name!r}: expected parameters {expected}, found {shapes}; use the same config")
        with torch.no_grad():
            for stack, tensor in zip(network.stacks(), saved, strict=True):
                stack.flat.copy_(tensor)
    for name, optimizer in team.optimizers.items():
        optimizer.load_state_dict(copy.deepcopy(state["optimizers"][name]))  # else it keeps the caller's tensors
    if state["buffer"] is not None:
        team.begin_rollouts(state["buffer"]["num_envs"])
        team.buffer.load_state_dict(state["buffer"])
    for name in COUNTERS:
        setattr(team, name, state["counters"][name])
    team.missed = [Counter(missed) for missed in state["missed"]]
    team.load_extra_state(state["extra"])
    team.set_random_state(state["random"])


def write(team: Any, path: str | os.PathLike) -> None:
    """Write a team without its experience to a file; see `AgentTeam.save`."""
    state = snapshot(team, with_buffer=False)
    refuse_non_finite(state)
    write_tensors(path, state)


def read(path: str | os.PathLike, algorithm: str) -> dict[str, Any]:
    """The snapshot in a file that `write` wrote; see `AgentTeam.load`."""
    state = read_tensors(path)
    if not isinstance(state, dict) or state.get("algorithm") != algorithm:
        found = f"a {state['algorithm']}" if isinstance(state, dict) and "algorithm" in state else "something else"
        raise ValueError(f"{path}: expected a {algorithm} that team.save wrote, found {found}")
    return state


def set_generator(generator: torch.Generator, state: Tensor) -> None:
    """Continue from a saved state of randomness. One of another kind of device can only seed this one anew."""
    if state.numel() == generator.get_state().numel():
        generator.set_state(state.cpu())
    else:
        generator.manual_seed(zlib.crc32(state.cpu().numpy().tobytes()))
