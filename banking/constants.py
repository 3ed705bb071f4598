"""The constants of the banking problem, its difficulties, and the checks of what a user gives instead."""

from __future__ import annotations

import difflib
import math
import reprlib
from dataclasses import dataclass, fields, replace
from numbers import Real

import numpy as np


@dataclass(frozen=True)
class RoutingConstants:
    """The defaults are the medium difficulty. The length of per-router tuples is N, of per-channel tuples C."""

    episode_steps: int = 600  # T, a window of six seconds at a random hour
    step_ms: float = 10.0  # D
    # --- arrivals, one entry a router
    arrival_rates: tuple[float, ...] = (0.58, 0.42, 0.54)  # mean transactions a step
    load: float = 1.0  # factor on all arrival rates
    day_amplitude: float = 0.05  # rate is 1 + amplitude * cos(2 pi (hour - 14) / 24): the afternoon is busiest
    burst_factors: tuple[float, ...] = (1.2, 1.25, 1.4)  # rate factor inside a burst; outside it makes the mean 1
    burst_steps: float = 80.0  # mean length of a burst
    burst_share: float = 0.25  # share of the time inside a burst
    # --- transactions
    amount_medians: tuple[float, ...] = (100.0, 400.0, 150.0)  # dollars, one a router
    amount_sigma: float = 0.9  # of the logarithm
    amount_range: tuple[float, float] = (5.0, 5000.0)  # dollars
    size_reference: float = 87.0  # dollars at which the size factor is 1
    size_exponent: float = 0.30
    size_range: tuple[float, float] = (0.6, 2.4)
    urgent_probabilities: tuple[float, ...] = (0.3, 0.1, 0.2)  # one a router
    urgent_weight: float = 1.6  # weight of latency
    standard_weight: float = 0.8
    service_shape: float = 4.0  # service factor ~ Gamma(shape) / shape, mean 1
    # --- channels
    channel_names: tuple[str, ...] = ("internal", "external", "blockchain")
    base_latency_ms: tuple[float, ...] = (20.0, 80.0, 200.0)
    risk_rates: tuple[float, ...] = (0.03, 0.02, 0.01)
    fees: tuple[float, ...] = (0.10, 0.50, 2.00)  # dollars a transaction
    channel_rates: tuple[float, ...] = (70.0, 62.0, 41.0)  # transactions a second
    buffer_ms: tuple[float, ...] = (1000.0, 1500.0, 6000.0)  # a workload above it is refused
    initial_workload_ms: tuple[float, ...] = (50.0, 100.0, 620.0)  # uniform from 0 to this
    capacity_sd: tuple[float, ...] = (0.05, 0.10, 0.15)  # stationary, of the capacity factor around 1
    capacity_steps: float = 100.0  # time constant of the capacity factor
    capacity_range: tuple[float, float] = (0.25, 1.75)
    outage_probability: float = 0.0  # of one outage of a random channel in an episode
    outage_steps: tuple[int, int] = (40, 80)  # shortest and longest, inclusive
    # --- risk
    delay_risk: float = 1.2  # growth of a transaction's risk with each second until settlement
    delay_risk_limit_s: float = 3.0
    risk_memory_ms: float = 1000.0
    initial_risk: float = 0.028
    risk_limit: float = 0.05  # above it the step is a violation
    risk_target: float = 0.03  # below it risk costs nothing
    # --- reward and observation
    latency_target_ms: float = 100.0
    fee_weight: float = 0.3
    refusal_cost: float = 0.5
    violation_cost: float = 3.0
    risk_cost: float = 2.0  # times clip((R - target) / (limit - target), 0, 2)
    leftover_cost: float = 2.3  # each transaction still pending at the end
    own_weight: float = 0.5  # of a router's own reward; the rest is the mean over routers
    latency_memory: float = 0.3  # weight of a new acknowledgement in a router's latency average
    arrival_memory: float = 0.05  # weight of the last step in a router's arrival average
    refusal_memory: float = 0.9  # decay of the refused flag a step

    @property
    def num_routers(self) -> int:
        return len(self.arrival_rates)

    @property
    def num_channels(self) -> int:
        return len(self.channel_names)

    def price_of_risk(self, risk: np.ndarray) -> np.ndarray:
        """What every router pays a step for portfolio risk: dearer above the target, and more above the limit."""
        over_target = np.minimum(np.maximum((risk - self.risk_target) / (self.risk_limit - self.risk_target), 0.0), 2.0)
        return self.violation_cost * (risk > self.risk_limit) + self.risk_cost * over_target

    def exposure(self, delay_ms: np.ndarray) -> np.ndarray:
        """How a transaction's risk grows with the ms until it settles: a factor, 1 for none."""
        return 1.0 + self.delay_risk * np.minimum(delay_ms / 1000.0, self.delay_risk_limit_s)  # (BANKING-5)

    @property
    def work_ms(self) -> np.ndarray:
        """Mean work of a transaction on each channel, (C,) in ms."""
        return 1000.0 / np.asarray(self.channel_rates)

    @property
    def mean_amounts(self) -> np.ndarray:
        """Mean amount of each router before clipping, (N,) in dollars."""
        return np.asarray(self.amount_medians) * math.exp(0.5 * self.amount_sigma**2)


DIFFICULTIES: dict[str, dict] = {
    "easy": dict(load=0.90, day_amplitude=0.0, burst_factors=(1.0, 1.0, 1.0), capacity_sd=(0.02, 0.05, 0.08)),
    "medium": {},
    "hard": dict(
        day_amplitude=0.08,
        burst_factors=(1.4, 1.5, 1.8),
        capacity_sd=(0.08, 0.15, 0.22),
        capacity_steps=60.0,
        outage_probability=0.3,
    ),
}
SCENARIOS: dict[str, dict] = {"outage": dict(outage_probability=1.0, outage_steps=(60, 120))}


def routing_constants(difficulty: str, scenario: str | None, overrides: dict) -> RoutingConstants:
    """Medium, changed by the difficulty, then by the scenario, then by what the user gave. ValueError if impossible."""
    if difficulty not in DIFFICULTIES:
        raise ValueError(f"difficulty must be one of {sorted(DIFFICULTIES)}, found {difficulty!r}")
    if scenario is not None and scenario not in SCENARIOS:
        raise ValueError(f"scenario must be None or one of {sorted(SCENARIOS)}, found {scenario!r}")
    known = [field.name for field in fields(RoutingConstants)]
    for name in overrides:
        if name not in known:
            closest = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {closest[0]!r}?" if closest else f"known: {', '.join(known)}"
            raise ValueError(f"unknown constant {name!r} of TransactionRoutingEnv; {hint}")
    changes = {**DIFFICULTIES[difficulty], **(SCENARIOS[scenario] if scenario else {}), **overrides}
    changes = {name: tuple(v) if isinstance(v, (list, np.ndarray)) else v for name, v in changes.items()}
    constants = replace(RoutingConstants(), **changes)
    check_constants(constants)
    return constants


PER_ROUTER = ("arrival_rates", "burst_factors", "amount_medians", "urgent_probabilities")
PER_CHANNEL = tuple("base_latency_ms risk_rates fees channel_rates buffer_ms initial_workload_ms capacity_sd".split())
POSITIVE = (
    "episode_steps step_ms amount_medians amount_range size_reference size_range service_shape base_latency_ms "
    "channel_rates burst_steps capacity_steps capacity_range risk_memory_ms latency_target_ms outage_steps".split()
)
SHARES = (
    "burst_share urgent_probabilities outage_probability own_weight latency_memory arrival_memory "
    "refusal_memory day_amplitude risk_rates".split()
)


def check_constants(constants: RoutingConstants) -> None:
    """ValueError for constants that describe no routing problem: which one, what was found, what it needs."""
    k = constants
    for field in fields(k):
        _check_kind(field.name, getattr(k, field.name), field.default)
    if not k.risk_target < k.risk_limit:  # between them the price of risk rises
        raise ValueError(f"risk_limit must be above risk_target ({k.risk_target!r}), found {k.risk_limit!r}")
    sizes = dict.fromkeys(PER_ROUTER, ("arrival_rates", k.num_routers))
    sizes |= dict.fromkeys(PER_CHANNEL, ("channel_names", k.num_channels))
    for name, (of, size) in sizes.items():
        value = getattr(k, name)
        if not isinstance(value, tuple) or len(value) != size or size == 0:
            raise ValueError(f"{name} needs {size} entries, as many as {of}; found {value!r}")
    for field in fields(k):
        if field.name == "channel_names":
            continue
        value = np.asarray(getattr(k, field.name), dtype=np.float64)
        if not np.isfinite(value).all() or (value < 0).any():
            raise ValueError(f"{field.name} must be finite and not negative, found {getattr(k, field.name)!r}")
        if field.name in POSITIVE and (value <= 0).any():
            raise ValueError(f"{field.name} must be positive, found {getattr(k, field.name)!r}")
        if field.name in SHARES and (value > 1).any():
            raise ValueError(f"{field.name} must lie in [0, 1], found {getattr(k, field.name)!r}")
        if field.name.endswith("_range") or field.name == "outage_steps":
            if value.shape != (2,) or value[0] > value[1]:
                raise ValueError(f"{field.name} must be (smallest, largest), found {getattr(k, field.name)!r}")
    if int(k.episode_steps) != k.episode_steps:
        raise ValueError(f"episode_steps must be a whole number, found {k.episode_steps!r}")
    if k.burst_share * max(k.burst_factors) > 1 or k.burst_share == 1:
        raise ValueError(
            f"burst_share {k.burst_share} times the largest of burst_factors {k.burst_factors} must stay "
            "at most 1, or the arrival rate outside bursts would be negative"
        )
    if k.outage_probability > 0 and k.outage_steps[1] > k.episode_steps:
        raise ValueError(f"outage_steps {k.outage_steps} must fit in episode_steps {k.episode_steps}")


def _check_kind(name: str, value, default) -> None:
    """ValueError for what is no number, or none of several, where the default is; or no name of a channel."""
    several = isinstance(default, tuple)
    wanted = str if name == "channel_names" else Real
    entries = value if several and isinstance(value, tuple) else (value,)
    fits = several == isinstance(value, tuple) and all(
        isinstance(v, wanted) and not isinstance(v, bool) for v in entries
    )
    try:
        fits = fits and (wanted is str or all(isinstance(float(v), float) for v in entries))
    except OverflowError:
        fits = False
    if not fits:
        kind = "names" if wanted is str else "numbers"
        raise ValueError(
            f"{name} must be {f'several {kind}' if several else 'one number'}, found {reprlib.repr(value)}"
        )


def checked_multiplier(multiplier, steps: int) -> np.ndarray | None:
    """(T,) factors as an array, or a ValueError."""
    if multiplier is None:
        return None
    multiplier = np.asarray(multiplier, dtype=np.float64)
    if multiplier.shape != (steps,) or not np.isfinite(multiplier).all() or (multiplier < 0).any():
        raise ValueError(f"arrival_multiplier must be ({steps},) finite factors, none negative; found {multiplier!r}")
    return multiplier


def checked_outage(outage, k: RoutingConstants) -> tuple[int, int, int] | None:
    """(channel number, first step, number of steps), or a ValueError."""
    if outage is None:
        return None
    if not isinstance(outage, (tuple, list)) or len(outage) != 3:
        raise ValueError(f"outage must be (channel, first step, number of steps), found {outage!r}")
    channel, start, steps = outage
    if isinstance(channel, str):
        if channel not in k.channel_names:
            raise ValueError(f"outage: channel must be one of {k.channel_names}, found {channel!r}")
        channel = k.channel_names.index(channel)
    if not 0 <= channel < k.num_channels or start < 0 or steps < 1 or start + steps > k.episode_steps:
        raise ValueError(
            f"outage must be a channel 0..{k.num_channels - 1} and a window inside the {k.episode_steps} "
            f"steps of an episode, found {outage!r}"
        )
    return int(channel), int(start), int(steps)
