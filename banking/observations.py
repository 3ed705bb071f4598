"""What a router sees: named inputs in units, as a payments desk knows them, and the numbers that its network reads.

    units = Units(channel_names, ...)
    observation = units.encode({"amount": 120.0, ...}, agent=0)  # (10 + 3C,)
    units.decision(action)                                       # the name of the channel

NumPy alone, and no other file of the project: `main.py --export` lays a copy of this one beside a policy.
Shapes: N routers, C channels; `...` is nothing, or copies of the environment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

PERIODIC = "hour"  # goes round: nothing lies outside of what was seen of it
AGENT, DECISION, DECISION_UNIT = "router", "channel", ""
CURVE = "amount"  # the input that pictures of a decision vary
FALLBACK = "the channel with the fewest own transactions in flight; of equal ones, the first"  # see `Units.fallback`
PENDING_SCALE, PENDING_LIMIT = 0.3, 20  # counts in observations: 0.3 * min(count, 20)
LATENCY_SCALE, LATENCY_LIMIT = 200.0, 8.0  # times in observations: min(ms / 200, 8)
MAX_AGE_MS = 1000.0
CHANNELS = ("internal", "external", "blockchain")


class Named(NamedTuple):
    """A named input: the unit that it is given in, the smallest and largest possible value, and what it means."""

    unit: str
    range: tuple[float, float]
    meaning: str


def observations_of(channels: Sequence[str]) -> dict[str, Named]:
    """The named inputs, some of them one a channel."""
    count, share = (0.0, float("inf")), (0.0, 1.0)
    named = {
        "pending": Named(
            "transactions", (1.0, float("inf")), "waiting at this router, the one to be sent now included"
        ),
        "amount": Named("$", (1e-9, float("inf")), "of the transaction to be sent now"),
        "urgent": Named("0 or 1", share, "whether that transaction is urgent"),
        "head age": Named("ms", count, "since it arrived"),
    }
    for name in channels:
        meaning = f"own transactions sent to {name} and not acknowledged yet"
        named[f"{name} in flight"] = Named("transactions", count, meaning)
    for name in channels:
        meaning = f"of {name}: latency of own acknowledged transactions above the base latency; the newest weighs 0.3"
        named[f"{name} wait"] = Named("ms", count, meaning)
    for name in channels:
        named[f"{name} refused"] = Named(
            "0 to 1", share, f"1 when {name} has just refused, 0.9 times that a step later"
        )
    return named | {
        "arrival rate": Named("transactions a second", count, "moving average of the arrivals at this router"),
        "own risk": Named("share", share, "value-weighted risk of what this router sent in the last second; 0.03: 3 %"),
        "hour": Named("0 to 24", (0.0, 24.0), "of the day"),
    }


OBSERVATIONS = observations_of(CHANNELS)


class Units:
    """The constants that lie between units and the numbers of a network: those fields of `RoutingConstants`, and the
    seconds of the user's log in a simulated one, where transactions are recorded ones."""

    SCALES = ("channel_names", "step_ms", "size_reference", "size_exponent", "size_range", "risk_target", "log_speed")

    def __init__(
        self,
        channel_names: Sequence[str],
        step_ms: float,
        size_reference: float,
        size_exponent: float,
        size_range: Sequence[float],
        risk_target: float,
        log_speed: float = 1.0,
    ):
        self.channels, self.speed, self.step_s = tuple(channel_names), float(log_speed), step_ms / 1000.0
        self.size = size_reference, size_exponent, *size_range
        self.risk_target = risk_target
        self.observations, self.periodic = observations_of(self.channels), PERIODIC
        names = list(self.observations)
        # What each number shows: a named input, or what it makes of one.
        self.columns = ("pending", "pending", "amount", "amount", *names[2:], names[-1])
        self.groups = {name: (name,) for name in names}  # inputs that are explained together: those of all channels
        for what in ("in flight", "wait", "refused"):
            own = tuple(self.groups.pop(f"{channel} {what}")[0] for channel in self.channels)
            self.groups[what] = own
        self.defaults: dict[str, float] = {}  # inputs that may be left out

    @classmethod
    def of(cls, world: Mapping[str, Any]) -> Units:
        """Of what `env.world()` tells."""
        known = {"log_speed": 1.0, **world["constants"], **world}
        return cls(*(known[name] for name in cls.SCALES))

    def encode(self, inputs: Mapping[str, Any], agent: int | None = None) -> np.ndarray:
        """Named inputs, (..., N) each -> (..., N, 10 + 3C) float32; of one router, (...) -> (..., 10 + 3C)."""
        reference, exponent, low, high = self.size
        x, C = np.array([inputs[name] for name in self.observations], dtype=float), len(self.channels)  # (7 + 3C, ...)
        present, log_size = x[0] > 0, np.log(x[1] / reference)
        out = np.empty((len(self.columns), *x.shape[1:]), dtype=np.float32)
        out[0] = PENDING_SCALE * np.minimum(x[0], PENDING_LIMIT)
        out[1] = present
        out[2] = present * (log_size / math.log(10.0))
        out[3] = present * (0.5 * np.minimum(np.maximum(np.exp(exponent * log_size), low), high))
        out[4] = present * x[2]
        out[5] = present * np.minimum(x[3] / self.speed, MAX_AGE_MS) / LATENCY_SCALE
        out[6 : 6 + C] = PENDING_SCALE * np.minimum(x[4 : 4 + C], PENDING_LIMIT)
        out[6 + C : 6 + 2 * C] = np.minimum(x[4 + C : 4 + 2 * C] / self.speed / LATENCY_SCALE, LATENCY_LIMIT)
        out[6 + 2 * C : 6 + 3 * C] = x[4 + 2 * C : 4 + 3 * C]
        out[6 + 3 * C] = x[-3] * self.speed * self.step_s
        out[7 + 3 * C] = np.minimum(np.maximum(100.0 * (x[-2] - self.risk_target), -2.0), 5.0)
        out[8 + 3 * C] = np.sin(2.0 * np.pi * x[-1] / 24.0)
        out[9 + 3 * C] = np.cos(2.0 * np.pi * x[-1] / 24.0)
        return np.ascontiguousarray(np.moveaxis(out, 0, -1))

    def decode(self, observations: np.ndarray) -> dict[str, np.ndarray]:
        """(..., 10 + 3C) -> the named inputs, (...) each, as far as the numbers show them: some end at a limit."""
        o, C = np.asarray(observations, dtype=float), len(self.channels)
        shown = {"pending": o[..., 0] / PENDING_SCALE, "amount": self.size[0] * 10.0 ** o[..., 2]}
        shown |= {"urgent": o[..., 4], "head age": o[..., 5] * LATENCY_SCALE * self.speed}
        for c, name in enumerate(self.channels):
            shown[f"{name} in flight"] = o[..., 6 + c] / PENDING_SCALE
            shown[f"{name} wait"] = o[..., 6 + C + c] * LATENCY_SCALE * self.speed
            shown[f"{name} refused"] = o[..., 6 + 2 * C + c]
        shown["arrival rate"] = o[..., 6 + 3 * C] / (self.step_s * self.speed)
        shown["own risk"] = o[..., 7 + 3 * C] / 100.0 + self.risk_target
        shown["hour"] = np.arctan2(o[..., -2], o[..., -1]) * 24.0 / (2.0 * np.pi) % 24.0
        return shown

    def decision(self, action: Any, agent: int | None = None, whole: bool = False) -> Any:
        """Channel numbers, (..., N) or of one router (...) -> names of channels. `whole` means nothing here."""
        names = np.array(self.channels)[np.asarray(action)]
        return names if np.ndim(names) else str(names)

    def fallback(self, inputs: Mapping[str, Any], agent: int | None = None) -> np.ndarray:
        """The rule that needs no training and no tuning -> actions like those of a policy, (..., N) or (...)."""
        return np.stack([inputs[f"{name} in flight"] for name in self.channels], axis=-1).argmin(axis=-1)
