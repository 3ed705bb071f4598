"""The constants of MultiWarehouseEnv: their meaning, their defaults, the three difficulties, and what is refused."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

DIFFICULTIES: dict[str, dict[str, Any]] = {
    "easy": dict(demand_cv=0.2, regime_redraw=0.015, regime_factors=(0.8, 1.0, 1.4)),
    "medium": {},  # the defaults of RetailConstants
    "hard": dict(
        demand_cv=0.6, regime_redraw=0.10, regime_factors=(0.4, 1.0, 2.2), season_amplitude=0.2, level_sd=0.10
    ),
}


@dataclass(frozen=True)
class RetailConstants:
    """Every constant of the environment, with the "medium" defaults.

    order_limit, lead_times and storage take one number a warehouse or one for all.
    """

    horizon: int = 30  # T, periods an episode
    mean_demand: Sequence[float] = (0.96, 0.48, 0.25, 0.15, 0.07)  # m, units a period; its length is N
    order_limit: float | Sequence[float] = 2.4  # units ordered by action 1
    supplier_capacity: float = 2.5  # units a period, shared
    lead_times: int | Sequence[int] = (1, 1, 1, 2, 2)  # an order of period t arrives in period t + lead time
    storage: float | Sequence[float] = (5.0, 4.0, 3.0, 2.0, 1.5)  # units that fit into a warehouse
    lane_limit: float = 0.08  # units a neighbour can send over one lane in one period; large values help random play
    stockout_cost: float = 10.0  # per unit of demand lost
    transfer_cost: float = 0.5  # per unit received from a neighbour
    return_cost: float = 0.5  # per unit that does not fit and goes back; free returns reward ordering without thought
    holding_cost: float = 0.1  # per unit left at the end of a period
    team_reward_weight: float = 1.0  # w: 1 rewards everybody with the mean cost, 0 everybody with its own
    mix_sd: float = 0.9  # how much the split of demand over warehouses differs between episodes (log scale)
    regime_factors: Sequence[float] = (0.6, 1.0, 1.9)  # slow, normal, fast sales; rescaled to mean 1
    regime_probabilities: Sequence[float] = (0.30, 0.45, 0.25)
    regime_redraw: float = 0.04  # probability a period that a warehouse draws a new regime
    season_amplitude: float = 0.10  # of the weekly sine
    demand_cv: float = 0.4  # coefficient of variation of the Gamma noise of a period
    level_sd: float = 0.05  # sd of an episode's common demand level, lognormal with mean 1
    start_range: Sequence[float] = (0.5, 1.5)  # on-hand at the start, in multiples of mean_demand
    average_weight: float = 0.4  # weight of the newest demand in the moving average

    def costs(self, unmet: Any, received: Any, returned: Any, on_hand: Any) -> dict[str, Any]:
        """Dollars of units that were lost, came from a neighbour, went back and were left over, by part of the cost."""
        return {
            "stockout_cost": self.stockout_cost * unmet,
            "transfer_cost": self.transfer_cost * received,
            "return_cost": self.return_cost * returned,
            "holding_cost": self.holding_cost * on_hand,
        }


def is_int(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def resolve(difficulty: str, explicit: dict[str, Any]) -> RetailConstants:
    """Difficulty and explicit constants -> checked constants. Unknown or impossible ones raise ValueError."""
    known = [field.name for field in fields(RetailConstants)]
    for name in explicit:
        if name not in known:
            close = difflib.get_close_matches(name, [*known, "state_lookahead", "num_envs", "difficulty"], n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known constants: {', '.join(known)}"
            raise ValueError(f"unknown argument {name!r}: {hint}")
    changes = {**DIFFICULTIES[difficulty], **explicit}
    changes = {name: tuple(v) if isinstance(v, (list, np.ndarray)) else v for name, v in changes.items()}
    constants = replace(RetailConstants(), **changes)
    _check(constants)
    return constants


def _check(c: RetailConstants) -> None:
    def need(condition: Any, name: str, wanted: str) -> None:
        if not condition:
            raise ValueError(f"{name} is {getattr(c, name)!r}: {wanted}")

    def numbers(name: str) -> np.ndarray:
        try:
            values = np.asarray(getattr(c, name), dtype=float)
        except (TypeError, ValueError):
            values = np.array(np.nan)
        need(np.all(np.isfinite(values)), name, "give finite numbers")
        return values

    need(is_int(c.horizon) and c.horizon >= 1, "horizon", "give a whole number of periods >= 1")
    means = numbers("mean_demand")
    need(means.ndim == 1 and means.size >= 1 and np.all(means > 0), "mean_demand", "give one mean > 0 a warehouse")
    per_warehouse = f"give one number or {means.size} (one a warehouse, as in mean_demand)"
    for name in ("order_limit", "lead_times", "storage"):
        need(numbers(name).shape in ((), means.shape), name, per_warehouse)
        need(np.all(numbers(name) > 0), name, "must be > 0")
    need(np.all(numbers("lead_times") % 1 == 0), "lead_times", "give whole numbers of periods >= 1")
    for name in (
        "supplier_capacity",
        "lane_limit",
        "stockout_cost",
        "transfer_cost",
        "return_cost",
        "holding_cost",
        "mix_sd",
        "level_sd",
        "season_amplitude",
        "demand_cv",
        "average_weight",
        "team_reward_weight",
        "regime_redraw",
    ):
        need(numbers(name).ndim == 0 and numbers(name) >= 0, name, "give one number >= 0")
    for name in ("team_reward_weight", "regime_redraw", "season_amplitude", "average_weight"):
        need(numbers(name) <= 1, name, "must lie in [0, 1]")
    need(c.demand_cv > 0, "demand_cv", "must be > 0")
    factors, chances = numbers("regime_factors"), numbers("regime_probabilities")
    need(factors.ndim == 1 and np.all(factors > 0), "regime_factors", "give one factor > 0 a regime")
    need(
        chances.shape == factors.shape and np.all(chances >= 0) and np.isclose(chances.sum(), 1.0),
        "regime_probabilities",
        f"give {factors.size} probabilities that sum to 1, one a regime factor",
    )
    low_high = numbers("start_range")
    need(low_high.shape == (2,) and 0 <= low_high[0] <= low_high[1], "start_range", "give 0 <= low <= high")
