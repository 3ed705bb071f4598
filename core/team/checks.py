"""What is refused before it can do harm: sizes, observations, and what no memory holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from core.team.config import TeamConfig


def refuse_sizes(config: TeamConfig, devices: Sequence[Any] | None, **sizes: Any) -> None:
    """Raise ValueError if a team cannot be of these sizes: `state_dim`, `action_dim` and `num_agents`."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name}: expected an integer of at least 1, found {value!r}")
    agents = sizes["num_agents"]
    if config.num_agents not in (0, agents):
        raise ValueError(f"config['num_agents'] is {config.num_agents}, but the team has {agents} agents")
    if devices is not None and len(devices) != agents:
        raise ValueError(f"devices: expected one for each of {agents} agents, found {len(devices)}")


def refuse_observations(observations: np.ndarray, num_agents: int, state_dim: int) -> None:
    """Raise ValueError unless they are (N, O) or (E, N, O), and finite numbers."""
    if observations.ndim not in (2, 3) or observations.shape[-2:] != (num_agents, state_dim):
        raise ValueError(
            f"observations: expected (..., {num_agents}, {state_dim}), found {observations.shape}; "
            "pass what env.reset() or env.step() returned"
        )
    if not np.isfinite(observations).all():
        agent = int(np.argwhere(~np.isfinite(observations))[0, -2])
        for observation in observations.reshape(-1, num_agents, state_dim)[:, agent]:
            refuse_observation(observation, state_dim, agent)


def refuse_observation(observation: np.ndarray, state_dim: int, agent: int) -> None:
    """Raise ValueError unless one agent's observation is (O,), and finite numbers."""
    if observation.shape != (state_dim,):
        raise ValueError(f"observation: expected ({state_dim},), found {observation.shape}")
    finite = np.isfinite(observation)
    if not finite.all():
        field = int(finite.argmin())
        raise ValueError(
            f"observations: field {field} of agent {agent} is {observation[field]}, expected a finite number; look at "
            "what measured it"
        )


def refuse_too_large(key: str, numbers: int, device: torch.device | str) -> None:
    """Raise ValueError if so many float32 numbers, which hyper-parameter `key` asks for, do not fit into memory.

    A trial on the CPU costs nothing, since memory is only taken when it is written to.
    """
    if torch.device(device).type == "cuda":
        fits = 4 * numbers <= torch.cuda.get_device_properties(device).total_memory
    else:
        try:
            fits = numbers < 2**60 and torch.empty(numbers, dtype=torch.float32) is not None
        except RuntimeError:
            fits = False
    if not fits:
        gigabytes = 4 * numbers / 2**30
        raise ValueError(f"config[{key!r}]: {gigabytes:,.0f} GiB or more do not fit into memory; take a smaller value")
