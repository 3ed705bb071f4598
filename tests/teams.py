"""Small teams, made-up experience and where it is saved, for the tests of `core`.

Shapes: B batch, E environments, N agents, O observation, A action, S state.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.base_agent import AgentTeam, Transition
from core.maddpg import create_maddpg_agents
from core.mappo import RolloutBatch, create_mappo_agents
from core.qmix import create_qmix_agents
from core.replay_buffer import Batch

CREATE = {"maddpg": create_maddpg_agents, "mappo": create_mappo_agents, "qmix": create_qmix_agents}
ALGORITHMS = tuple(CREATE)
KINDS = ("discrete", "continuous")
SMALL: dict[str, dict[str, Any]] = {
    "maddpg": {"batch_size": 16, "buffer_size": 1000, "learning_starts": 16},
    "mappo": {"batch_size": 16, "rollout_length": 6, "epochs": 2, "minibatches": 2},
    "qmix": {"batch_size": 16, "buffer_size": 1000, "learning_starts": 16, "mixing_width": 8, "hypernet_width": 16},
}
STATE_DIM, ACTION_DIM, NUM_AGENTS = 3, 2, 2


def make_team(
    algorithm: str,
    kind: str = "discrete",
    state_dim: int = STATE_DIM,
    action_dim: int = ACTION_DIM,
    num_agents: int = NUM_AGENTS,
    devices=None,
    **config,
) -> AgentTeam:
    """A small seeded team; keyword arguments override its config."""
    merged = {"seed": 0, "hidden_sizes": [16], "action_type": kind, **SMALL[algorithm], **config}
    return CREATE[algorithm](state_dim, action_dim, num_agents, merged, devices=devices)


def random_transition(team: AgentTeam, rng: np.random.Generator, num_envs: int = 2, act=None, **fields) -> Transition:
    """One step of a world without sense, in which `act(observations)` or the exploring team acts."""
    shape = (num_envs, team.num_agents)
    observations = fields.pop("observations", rng.normal(size=(*shape, team.state_dim)).astype(np.float32))
    actions = team.select_actions(observations, training=True) if act is None else act(observations)
    size = team.config.state_size
    given = {
        "observations": observations,
        "actions": actions,
        "rewards": rng.normal(size=shape).astype(np.float32),
        "next_observations": rng.normal(size=(*shape, team.state_dim)).astype(np.float32),
        "terminated": rng.random(shape) < 0.1,
        "truncated": np.zeros(shape, bool),
        "active": np.ones(shape, bool),
        "states": rng.normal(size=(num_envs, size)).astype(np.float32) if size else None,
        "next_states": rng.normal(size=(num_envs, size)).astype(np.float32) if size else None,
    }
    return Transition(**{**given, **fields})


def wander(team: AgentTeam, steps: int, seed: int = 0, num_envs: int = 2, **fields) -> None:
    """Let the team act, observe and learn in that world."""
    rng = np.random.default_rng(seed)
    team.begin_rollouts(num_envs)
    for _ in range(steps):
        team.observe(random_transition(team, rng, num_envs, **fields))


def random_batch(team: AgentTeam, size: int = 32, seed: int = 0, **fields) -> Batch | RolloutBatch:
    """A batch for `team.update`; MAPPO's is what it makes of a rollout of `size` steps."""
    rng = np.random.default_rng(seed)
    if "advantages" in (field.name for field in dataclasses.fields(batch_class(team))):
        team.begin_rollouts(size)
        team.buffer.clear()
        transition = random_transition(team, rng, size)
        team.buffer.add(transition, **team.acting)
        batch = team.prepare()
        team.buffer.clear()
    else:
        step = random_transition(team, rng, size)
        names = {field.name for field in dataclasses.fields(Batch)} - {"memories", "steps", "pairs"}
        arrays = {name: getattr(step, name) for name in names if getattr(step, name) is not None}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        tensors |= {name: tensors[name].float() for name in ("terminated", "active")}
        batch = Batch(**tensors)
    return dataclasses.replace(batch, **fields)


def batch_class(team: AgentTeam) -> type:
    """What the team's `update` takes."""
    return RolloutBatch if hasattr(team, "prepare") else Batch


def networks(team: AgentTeam) -> dict[str, Tensor]:
    """A copy of every network's parameters, by name."""
    return {
        name: torch.cat([stack.flat.detach().clone() for stack in network.stacks()])
        for name, network in team.networks.items()
        if network.stacks()
    }


def moved_by_optimizers(team: AgentTeam) -> list[Tensor]:
    """All parameters that learning moves, themselves."""
    return [stack.flat for stacks in team.trained.values() for stack in stacks]


def members(team: AgentTeam, name: str, gradient: bool = False) -> Tensor:
    """A copy of each member's parameters (or gradient) in one stack, (members, k)."""
    stack = team.networks[name].stacks()[0]
    vector = stack.flat.grad if gradient else stack.flat.detach()
    return torch.cat(stack.by_member(vector), dim=1).clone()


def shake(team: AgentTeam, *names: str, scale: float = 0.3) -> None:
    """Move networks at random, so that (say) targets differ clearly from the online networks."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name in names:
            for stack in team.networks[name].stacks():
                stack.flat.add_(scale * torch.randn(stack.flat.shape, generator=generator))


def zero_gradients(team: AgentTeam) -> None:
    """Forget all gradients."""
    for network in team.networks.values():
        for stack in network.stacks():
            stack.flat.grad.zero_()


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit, through dictionaries and lists of tensors and plain values."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other


class Folder:
    """Where a training saves, as `train` needs it."""

    def __init__(self, path: Path):
        self.checkpoint = path / "checkpoint.pt"

    def write_progress(self, table):
        self.progress = table


def steady(table):
    """A history without the one column that is never the same."""
    assert table.columns[-1] == "seconds"
    return table.drop(columns="seconds")


def without_seed(state):
    """A state of a team, but for the seed that decided its first weights."""
    return {**state, "config": {**state["config"], "seed": None}}
