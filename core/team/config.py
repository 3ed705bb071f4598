"""Hyper-parameters: every key is known, every value is possible, and the type of a field is its range.

`tau: Share = 0.005` says that `tau` is a number from 0 to 1; what is refused, what the message says and what
QUICKSTART's tables show all follow from that one word.
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np


class Range(NamedTuple):
    """Which numbers a field takes, and how to say it."""

    words: str
    holds: Callable[[Any], bool]


Count = Annotated[int, Range("integer >= 1", lambda value: value >= 1)]
Whole = Annotated[int, Range("integer >= 0", lambda value: value >= 0)]
Levels = Annotated[int, Range("integer >= 2", lambda value: value >= 2)]
Seed = Annotated[int, Range("integer of 64 bits", lambda value: -(2**63) <= value < 2**63)]
Number = Annotated[float, Range("number", lambda value: True)]
Positive = Annotated[float, Range("> 0", lambda value: value > 0.0)]
NotNegative = Annotated[float, Range(">= 0", lambda value: value >= 0.0)]
Share = Annotated[float, Range("0 to 1", lambda value: 0.0 <= value <= 1.0)]
Widths = tuple[Count, ...]


REMOVED = {
    "n_steps",
    "twin_critics",
    "target_noise",
    "target_kl",
    "target_update_interval",
    "actor_learning_rate",
    "critic_learning_rate",
}


@dataclass
class TeamConfig:
    """Hyper-parameters that all three algorithms accept, used or not. Each algorithm's config adds its own."""

    num_agents: Whole = 0  # checked against the team's size when given; more agents = harder coordination
    action_type: Literal["discrete", "continuous"] = "discrete"  # one integer an agent, or floats in [0, 1]
    share_parameters: bool = True  # one network for all agents; the observation then carries the agent's id
    centralized: bool = True  # False: the critic (or Q) sees the own observation alone: IDDPG, IPPO, IQL
    hidden_sizes: Widths = (64, 64)  # widths of the hidden layers of actors and critics
    learning_rate: Positive = 1e-3  # Adam's step size; smaller = more stable but slower
    anneal_learning_rate: bool = False  # fall linearly to 0 over the training
    batch_size: Count = 64  # joint transitions a gradient step; larger = smoother gradients
    gamma: Share = 0.95  # discount: importance of future rewards, horizon about 1 / (1 - gamma)
    tau: Share = 0.005  # share of the online network that enters the target network at each update
    epsilon: Share = 1.0  # initial exploration: share of random actions, or factor on the noise
    epsilon_decay: Share = 0.995  # exploration decays by this factor every epsilon_decay_steps environment steps
    epsilon_min: Share = 0.05  # and never below this
    epsilon_decay_steps: Count = 100  # environment steps for one factor of epsilon_decay
    buffer_size: Count = 100_000  # joint transitions kept in the replay buffer, at least batch_size
    max_grad_norm: Positive = 10.0  # gradients longer than this are scaled down to it
    reward_scale: Positive = 1.0  # fixed factor on every reward the learner sees
    plays: Count = 1  # times that each training episode is played and learnt from, its chance the same
    state_size: Whole = 0  # size of env.state(), which joins the critic's input; 0: all observations alone
    seed: Seed | None = None  # initial weights and exploration; None: drawn from torch's global generator

    @classmethod
    def from_dict(cls, given: dict[str, Any] | None):
        """Merge a plain dictionary into the defaults. NumPy's numbers and flags are taken as Python's.

        Raises:
            ValueError: no dictionary, an unknown key (the closest known one is named), a wrong type, or an impossible
                value.
        """
        if given is not None and not isinstance(given, Mapping):
            raise ValueError(f"config: expected a dictionary, found {given!r}")
        kinds = get_type_hints(cls, include_extras=True)
        merged = {}
        for key, value in (given or {}).items():
            if key not in kinds:
                if key in REMOVED:
                    raise ValueError(
                        f"config: the option {key!r} was removed, as docs/CHANGELOG.md says; delete it, or go on with "
                        "the version that wrote it, which the run's config.json names"
                    )
                close = difflib.get_close_matches(str(key), kinds, n=1)
                hint = f"did you mean {close[0]!r}?" if close else "known keys: " + ", ".join(sorted(kinds))
                raise ValueError(f"config: {cls.__name__} has no key {key!r} (value {value!r}); {hint}")
            merged[key] = converted(value, kinds[key])
            if merged[key] is IMPOSSIBLE:
                raise ValueError(
                    f"config[{key!r}]: expected {range_of(kinds[key])}, found {value!r} of type "
                    f"{type(value).__name__}; change or remove it"
                )
        config = cls(**merged)
        config.validate()
        return config

    def validate(self) -> None:
        """Refuse values that are possible alone but not together. Subclasses add their own checks."""
        self.require("buffer_size", self.buffer_size >= self.batch_size, f"at least batch_size ({self.batch_size})")

    def require(self, key: str, holds: bool, expected: str) -> None:
        """Raise the ValueError of a key whose value is impossible."""
        if not holds:
            raise ValueError(f"config[{key!r}]: expected {expected}, found {getattr(self, key)!r}; change or remove it")

    def as_dict(self) -> dict[str, Any]:
        """All keys and values as JSON would hold them, for `from_dict`."""
        values = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


IMPOSSIBLE = object()  # what `converted` makes of a value outside its range; None is a value


def converted(value: Any, kind: Any) -> Any:
    """`value` as the plain Python value of its field's type, or `IMPOSSIBLE`."""
    origin, inner = get_origin(kind), get_args(kind)
    value = value.item() if isinstance(value, np.generic) else value
    if origin is Annotated:
        plain = converted(value, inner[0])
        return plain if plain is not IMPOSSIBLE and inner[1].holds(plain) else IMPOSSIBLE
    if origin is Literal:
        return value if isinstance(value, str) and value in inner else IMPOSSIBLE
    if origin in (Union, UnionType):  # `... | None`
        return None if value is None else converted(value, inner[0])
    if origin is tuple:
        several = isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value) == 1
        parts = tuple(converted(part, inner[0]) for part in value) if several else (IMPOSSIBLE,)
        return IMPOSSIBLE if IMPOSSIBLE in parts else parts
    if kind is bool:
        return value if isinstance(value, bool) else IMPOSSIBLE
    finite = isinstance(value, Real) and not isinstance(value, bool) and abs(value) <= sys.float_info.max  # nor NaN
    if not finite:
        return IMPOSSIBLE
    if kind is float:
        return float(value)
    return int(value) if value == int(value) and abs(value) < 2**63 else IMPOSSIBLE


def range_of(kind: Any) -> str:
    """A field's range in words, such as "0 to 1"; `None` is a value of those that say so."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return inner[1].words
    if origin is Literal:
        return ", ".join(inner)
    if origin in (Union, UnionType):
        return f"{range_of(inner[0])}, or none"
    return "list of positive widths" if origin is tuple else "true, false"
