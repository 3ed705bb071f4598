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
    for name, numbers in {"num_agents": agents**2, "state_size": config.state_size}.items():  # ids are (N, N)
        refuse_too_large(name, numbers, "cpu")
    if config.num_agents not in (0, agents):
        raise ValueError(f"config['num_agents'] is {config.num_agents}, but the team has {agents} agents")
    if devices is not None and (not isinstance(devices, Sequence) or len(devices) != agents):
        raise ValueError(f"devices: expected one for each of {agents} agents, found {devices!r}")


def as_numbers(observations: Any) -> np.ndarray:
    """Observations as float32. Raises ValueError where they are no numbers."""
    try:
        return np.asarray(observations, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"observations: expected numbers, found a {type(observations).__name__} ({error})") from error


def as_masks(masks: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Action masks as booleans of this shape, (..., A), which leave everybody a choice; 0 and 1 are booleans too.

    Raises:
        ValueError: anything else. NaN and text would be true, and where nothing is legal, something is done all the
            same.
    """
    array = np.asarray(masks)
    if array.shape != shape or array.dtype.kind not in "biuf":
        raise ValueError(f"action masks: expected booleans of shape {shape}, found {array.dtype} of {array.shape}")
    legal = array == 1
    if array.dtype != bool and not (legal | (array == 0)).all():
        raise ValueError("action masks: expected True or False, found other numbers; return booleans")
    if not legal.any(axis=-1).all():
        where = [int(k) for k in np.argwhere(~legal.any(axis=-1))[0]] if legal.ndim > 1 else "this agent"
        raise ValueError(f"action masks: expected a legal action for every agent, found none for {where}")
    return legal


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
