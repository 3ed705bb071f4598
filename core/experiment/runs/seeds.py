"""The global generators of Python, NumPy and PyTorch, which a user's environment may draw from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators (a user's environment may draw from any of them)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def global_random_state() -> tuple:
    """The states of the three generators that `seed_everything` seeds."""
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def set_global_random_state(state: tuple) -> None:
    """Take back what `global_random_state` returned."""
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])


@contextmanager
def global_generators_kept() -> Iterator[None]:
    """Whatever is drawn inside, the global generators go on as if it had not been."""
    before = global_random_state()
    try:
        yield
    finally:
        set_global_random_state(before)
