"""What belongs to one algorithm on one problem, in one entry (see `retail/settings.py`, `banking/settings.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from core.base_agent import AgentTeam

CURRICULUM = ((0.5, "hard"), (0.1, "medium"), (0.0, "easy"))  # from this share of the training on


@dataclass(frozen=True)
class Setting:
    """An algorithm, and what it is given on a problem."""

    create_agents: Callable[..., AgentTeam]  # its factory
    num_envs: int = 10  # training episodes side by side
    env: Mapping[str, Any] = field(default_factory=dict)  # arguments of the training environment; evaluation has none
    config: Mapping[str, Any] = field(default_factory=dict)  # hyper-parameters
    start: Mapping[str, Any] = field(default_factory=dict)  # changes to them where training begins with a rule
    known: Setting | None = None  # the same algorithm where the consequences of every action are known in training

    def team(self, env: Any, changes: Mapping[str, Any], device: str | None = None) -> AgentTeam:
        """The untrained team for an environment, with `changes` to the hyper-parameters."""
        config = {"action_type": "discrete" if env.discrete_actions else "continuous", "state_size": env.state_size}
        config |= getattr(env, "hyperparameters", {})  # those that go with the size of what was recorded
        config |= {**self.config, **changes}
        sizes = env.observation_space_size, env.action_space_size, env.num_agents
        return self.create_agents(*sizes, config=config, device=device)


def name_of(create_agents: Callable[..., AgentTeam], settings: Mapping[str, Setting]) -> str:
    """The algorithm that a factory makes, as `--algo` calls it.

    Raises:
        ValueError: no entry of `settings` has this factory.
    """
    for name, setting in settings.items():
        if setting.create_agents is create_agents:
            return name
    found = getattr(create_agents, "__name__", create_agents)
    raise ValueError(f"{found} has no entry in SETTINGS; add one that says what it is given: Setting({found})")


def curriculum_level(fraction: float) -> str:
    """The difficulty that `--curriculum` trains on once this share of the training is done."""
    return next(name for share, name in CURRICULUM if fraction >= share)
