"""What two or more files of `core` call. Nothing here decides anything about learning."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def resolve_device(device: str | torch.device | None) -> torch.device:
    """Return the `torch.device` meant by `None`, `"auto"`, `"cpu"`, `"cuda"`, `"cuda:1"`.

    `None` means the CPU, which is the faster choice for networks of this size; `"auto"` takes CUDA when there
    is one.

    Raises:
        ValueError: the name is not a device, or the machine does not have it.
    """
    if device is None:
        return torch.device("cpu")
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device: expected auto, cpu, cuda or cuda:N, found {device!r}") from error
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device: {device!r} was asked for, but this machine has {torch.cuda.device_count()} CUDA device(s) that "
            "PyTorch can use; take --device cpu, or install a CUDA build of PyTorch"
        )
    return resolved


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators (a user's environment may draw from any of them)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def global_generators_kept() -> Iterator[None]:
    """Whatever is drawn inside, the generators that `seed_everything` seeds go on as if it had not been."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def soft_update(targets: Iterable[Tensor], sources: Iterable[Tensor], tau: float) -> None:
    """Move each target towards its source in place: target <- (1 - tau) target + tau source (Lillicrap et al. 2016)."""
    with torch.no_grad():
        torch._foreach_lerp_(list(targets), list(sources), tau)


def masked_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean of `values` over the entries whose weight is not zero; 0 where there is none. Same shapes -> scalar."""
    return (values * weights).sum() / weights.sum().clamp(min=1.0)


def mask_logits(logits: Tensor, masks: Tensor | None) -> Tensor:
    """Give illegal actions (mask False) a logit so low that no softmax, argmax or Gumbel draw can pick them."""
    return logits if masks is None else logits.masked_fill(~masks, -1e9)


def gumbel_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise: `argmax(logits + noise)` is a draw from `softmax(logits)` (Gumbel 1954)."""
    uniform = torch.rand(shape, generator=generator, device=generator.device)
    return -torch.log(-torch.log(uniform.clamp(1e-20, 1.0 - 1e-7)))


def mean_of(dicts: Sequence[dict[str, float]]) -> dict[str, float]:
    """Average dictionaries of floats key by key; a key counts where it is present."""
    keys = dict.fromkeys(key for entry in dicts for key in entry)
    return {key: float(np.mean([entry[key] for entry in dicts if key in entry])) for key in keys}
