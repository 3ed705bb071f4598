"""What two or more files of `core` call. Nothing here decides anything about learning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

MANY = 50  # agents, from which on a product with one-hot ids costs more than picking rows of the weights


def soft_update(targets: Iterable[Tensor], sources: Iterable[Tensor], tau: float) -> None:
    """Move each target towards its source in place: target <- (1 - tau) target + tau source (Lillicrap et al. 2016)."""
    targets = list(targets)
    if targets:
        with torch.no_grad():
            torch._foreach_lerp_(targets, list(sources), tau)


def ask(team: Any, name: str, observations: Tensor, memory: Tensor | None = None) -> Tensor:
    """What the network `name` answers every agent of a team on its own observation: (B, N, O) -> (N, B, out)."""
    if team.config.share_parameters and memory is None and team.num_agents >= MANY:
        return team.networks[name](observations.transpose(0, 1), ids=True)
    return team.networks[name](team.agent_inputs(observations, memory))


def masked_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean of `values` over the entries whose weight is not zero; 0 where there is none. Same shapes -> scalar."""
    return (values * weights).sum() / weights.sum().clamp(min=1.0)


def mask_logits(logits: Tensor, masks: Tensor | None) -> Tensor:
    """Give illegal actions (mask False) a logit so low that no softmax, argmax or Gumbel draw can pick them."""
    return logits if masks is None else logits.masked_fill(~masks, -1e9)


def gumbel_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise: `argmax(logits + noise)` is a draw from `softmax(logits)` (Gumbel 1954)."""
    uniform = torch.rand(shape, generator=generator, dtype=torch.float32, device=generator.device)
    return -torch.log(-torch.log(uniform.clamp(1e-20, 1.0 - 1e-7)))


def mean_of(dicts: Sequence[dict[str, float]]) -> dict[str, float]:
    """Average dictionaries of floats key by key; a key counts where it is present."""
    keys = dict.fromkeys(key for entry in dicts for key in entry)
    return {key: float(np.mean([entry[key] for entry in dicts if key in entry])) for key in keys}
