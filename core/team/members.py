"""One member of a team by itself: it learns while the others stay, or it was built alone and joins.

Works on an `AgentTeam` from outside: on its stacks (`trained`, `networks`), its optimizers and its clocks.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from core.networks import StackedMLP
from core.team.spread import SpreadMLP

# --- learning alone ---------------------------------------------------------------------------------------------------


@contextmanager
def only_member(team: Any, index: int) -> Iterator[None]:
    """Whatever the team learns inside, keep it for member `index` alone; shared networks keep it all.

    Inside, the clocks of updates (the team's, and Adam's of each optimizer) show what this member took part in.
    """
    before = {key: vector.detach().clone() for key, (_, vector) in _learnt_vectors(team).items()}
    counts = _counts(team)
    own = {name: count - team.missed[index][name] for name, count in counts.items()}
    _set_counts(team, own)
    yield
    fresh = {name: count - own[name] for name, count in _counts(team).items()}
    _set_counts(team, {name: count + fresh[name] for name, count in counts.items()})
    for other in range(team.num_agents):
        if other != index:
            team.missed[other].update(fresh)  # adds
    with torch.no_grad():
        for key, (stack, vector) in _learnt_vectors(team).items():
            old = before.get(key, torch.zeros_like(vector))  # Adam's moments appear, from 0, at its first step
            if not stack.shared:
                others = [k for k in range(stack.members) if stack.owners[k] != index]
                for rows, old_rows in zip(stack.by_member(vector), stack.by_member(old), strict=True):
                    rows[others] = old_rows[others]


def _counts(team: Any) -> dict[str, float]:
    """How often the team learnt, and how often each optimizer stepped for networks that are not shared."""
    steps = {name: [float(state["step"]) for state in _own_states(team, name)] for name in team.optimizers}
    return {"updates": team.updates} | {name: max(counts, default=0.0) for name, counts in steps.items()}


def _set_counts(team: Any, counts: dict[str, float]) -> None:
    team.updates = int(counts["updates"])
    for name in team.optimizers:
        for state in _own_states(team, name):
            state["step"].fill_(counts[name])


def _own_states(team: Any, name: str) -> list[dict[str, Tensor]]:
    """Adam's state for each stack of optimizer `name` that is not shared and has learnt."""
    states = team.optimizers[name].state
    return [states[s.flat] for s in team.trained[name] if not s.shared and s.flat in states]


def _learnt_vectors(team: Any) -> dict[tuple, tuple[StackedMLP, Tensor]]:
    """Every vector laid out like a stack's parameters that learning moves, with its stack."""
    vectors = {}
    for name, stacks in team.trained.items():
        for k, stack in enumerate(stacks):
            vectors[name, k, "parameters"] = stack, stack.flat
            for key, moment in team.optimizers[name].state.get(stack.flat, {}).items():
                if key.startswith("exp_avg"):
                    vectors[name, k, key] = stack, moment
    for name, network in team.networks.items():
        if "target" in name:
            vectors |= {(name, k, "target"): (s, s.flat) for k, s in enumerate(network.stacks())}
    return vectors


# --- built alone ------------------------------------------------------------------------------------------------------


def joined(agents: Sequence[Any]) -> Any:
    """The team that a list of agents forms; see `core.base_agent.as_team`."""
    if not isinstance(agents, Sequence) or not agents or not all(hasattr(agent, "team") for agent in agents):
        raise ValueError(f"agents: expected a team, or a list of at least one agent, found {agents!r}")
    first = agents[0]
    if all(agent.team is first.team for agent in agents):
        if [agent.index for agent in agents] != list(range(len(first.team))):
            raise ValueError(
                f"agents: expected those of a team of {len(first.team)}, each once and in order; "
                f"found numbers {[agent.index for agent in agents]}; pass the team itself"
            )
        return first.team
    kind, config = type(first.team), dataclasses.asdict(first.team.config)
    for position, agent in enumerate(agents):
        same = type(agent.team) is kind and agent.team.state_dim == first.team.state_dim
        if same and dataclasses.asdict(agent.team.config) | {"seed": config["seed"]} != config:
            raise ValueError(f"agent {position}: expected the config of agent 0, {config}; found {agent.team.config}")
        if not same or agent.team.action_dim != first.team.action_dim or agent.team.num_agents != len(agents):
            raise ValueError(
                f"agent {position}: expected a {kind.agent_class.__name__} with state_dim {first.team.state_dim}, "
                f"action_dim {first.team.action_dim} and num_agents {len(agents)}; found a {type(agent).__name__} with "
                f"{agent.team.state_dim}, {agent.team.action_dim} and {agent.team.num_agents}"
            )
    devices = [agent.device for agent in agents]
    team = kind(first.team.state_dim, first.team.action_dim, len(agents), config, devices=devices)
    for position, agent in enumerate(agents):
        for name, network in team.networks.items():
            _copy_member(agent.team.networks[name], network, agent.index, position)
        agent.team, agent.index = team, position
    team._agents = list(agents)
    return team


def _copy_member(
    source: StackedMLP | SpreadMLP, target: StackedMLP | SpreadMLP, old_index: int, new_index: int
) -> None:
    """Copy what belongs to an agent from its old place to its new one; what all agents share comes from agent 0."""
    spread = isinstance(source, SpreadMLP) or isinstance(target, SpreadMLP)  # else stacks correspond one to one
    olds, news = source.stacks(), target.stacks()
    with torch.no_grad():
        for old, new in itertools.product(olds, news) if spread else zip(olds, news, strict=True):
            if not spread and new.shared:
                if new_index == 0:
                    new.copy_from(old)
            elif old_index in old.owners and new_index in new.owners:
                here, there = new.owners.index(new_index), old.owners.index(old_index)
                for mine, theirs in zip(new.by_member(new.flat), old.by_member(old.flat), strict=True):
                    mine[here].copy_(theirs[there])
