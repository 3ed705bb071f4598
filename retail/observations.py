"""What a warehouse sees: named inputs in units, as a planner knows them, and the 14 numbers that its network reads.

    units = Units(mean_demand, lead_times, order_limit)
    observation = units.encode({"on hand": 3.0, ...}, agent=0)  # (14,)
    units.decision(action, agent=0)                             # the order in units

NumPy alone, and no other file of the project: `main.py --export` lays a copy of this one beside a policy.
Shapes: N warehouses; `...` is nothing, or copies of the environment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

WEEK = 7
PERIODIC = "day of week"  # goes round: nothing lies outside of what was seen of it
AGENT, DECISION, DECISION_UNIT = "warehouse", "order", "units"
CURVE = "on hand"  # the input that pictures of a decision vary
FALLBACK = "order up to twice the demand average for each day of lead time + 1"  # see `Units.fallback`


class Named(NamedTuple):
    """A named input: the unit that it is given in, the smallest and largest possible value, and what it means."""

    unit: str
    range: tuple[float, float]
    meaning: str


ANY = (0.0, float("inf"))
OBSERVATIONS = {
    "on hand": Named("units", ANY, "stock at the end of the day, when the order is placed"),
    "arriving tomorrow": Named("units", ANY, "shipped by the supplier, and here before tomorrow's demand"),
    "arriving in two days": Named("units", ANY, "the same, a day later; 0 where the lead time is one day"),
    "arriving later": Named("units", ANY, "the same, in three days and more; left out where no lead time is so long"),
    "last demand": Named("units", ANY, "what customers asked for today"),
    "demand average": Named("units a day", ANY, "moving average of the demand, today's included (average_weight)"),
    "last unmet": Named("units", ANY, "today's demand that nobody could serve"),
    "received": Named("units", ANY, "got from neighbours today"),
    "sent": Named("units", ANY, "given to neighbours today"),
    "day of week": Named("0 to 6", (0.0, 6.0), "of tomorrow's demand; with dates, 0 is Monday"),
    "supplier fill rate": Named("share", (0.0, 1.0), "shipped of ordered on the last delivery note; 1: all"),
}
SHOWN = {  # of each of the 14 numbers: its name, and the input that it shows, or what it makes of several
    "on_hand/4s": "on hand",
    "arriving_in_1/s": "arriving tomorrow",
    "arriving_in_2/s": "arriving in two days",
    "pipeline/4s": "in transit",
    "last_demand/s": "last demand",
    "demand_average/s": "demand average",
    "last_unmet/s": "last unmet",
    "received/s": "received",
    "sent/s": "sent",
    "week_sin": "day of week",
    "week_cos": "day of week",
    "supplier_fill_rate": "supplier fill rate",
    "projected_net_stock/4s": "projected net stock",
    "cover/10": "days of cover",
}  # s: mean of mean_demand
OBSERVATION_NAMES, COLUMNS = tuple(SHOWN), tuple(SHOWN.values())


class Units:
    """The constants that lie between units and the numbers of a network: those fields of `RetailConstants`."""

    SCALES = ("mean_demand", "lead_times", "order_limit")

    def __init__(
        self, mean_demand: Sequence[float], lead_times: int | Sequence[int], order_limit: float | Sequence[float]
    ):
        means, week = np.asarray(mean_demand, dtype=float), 2.0 * np.pi * np.arange(WEEK) / WEEK
        self.scale = float(means.mean())
        self.lead = np.broadcast_to(np.asarray(lead_times, dtype=int), means.shape)  # (N,) days
        self.limit = np.broadcast_to(np.asarray(order_limit, dtype=float), means.shape)  # (N,) units
        self.week_sin, self.week_cos = np.sin(week), np.cos(week)
        self.observations, self.columns, self.periodic = OBSERVATIONS, COLUMNS, PERIODIC
        self.groups = {name: (name,) for name in OBSERVATIONS}  # inputs that are explained together
        # Inputs that may be left out, since they can have one value only.
        self.defaults = {"arriving later": 0.0} if self.lead.max() <= 2 else {}

    @classmethod
    def of(cls, world: Mapping[str, Any]) -> Units:
        """Of what `env.world()` tells."""
        return cls(*(world["constants"][name] for name in cls.SCALES))

    def encode(self, inputs: Mapping[str, Any], agent: int | None = None) -> np.ndarray:
        """Named inputs, (..., N) each -> (..., N, 14) float32; of one warehouse, (...) -> (..., 14)."""
        s, lead = self.scale, self.lead if agent is None else int(self.lead[agent])
        on_hand, average = inputs["on hand"], inputs["demand average"]
        in_transit = inputs["arriving tomorrow"] + inputs["arriving in two days"] + inputs["arriving later"]
        position = on_hand + in_transit
        day = np.asarray(inputs["day of week"]).astype(int) % WEEK
        columns = (
            on_hand / (4 * s),
            inputs["arriving tomorrow"] / s,
            inputs["arriving in two days"] / s,
            in_transit / (4 * s),
            inputs["last demand"] / s,
            average / s,
            inputs["last unmet"] / s,
            inputs["received"] / s,
            inputs["sent"] / s,
            self.week_sin[day],
            self.week_cos[day],
            inputs["supplier fill rate"],
            (position - (lead + 1) * average) / (4 * s),
            np.minimum(position / np.maximum(average, 1e-9), 20.0) / 10.0,
        )
        observations = np.empty((*np.shape(position), len(columns)), dtype=np.float32)
        for k, column in enumerate(columns):
            observations[..., k] = column
        return observations

    def decode(self, observations: np.ndarray) -> dict[str, np.ndarray]:
        """(..., 14) -> what each number shows in units, (...) by the names of COLUMNS, and the named inputs."""
        s, o = self.scale, np.asarray(observations, dtype=float)
        factors = np.array([4 * s, s, s, 4 * s, *([s] * 5), 1.0, 1.0, 1.0, 4 * s, 10.0])
        shown = {name: o[..., k] * factors[k] for k, name in enumerate(COLUMNS)}
        shown["day of week"] = np.rint(np.arctan2(o[..., 9], o[..., 10]) * WEEK / (2 * np.pi)) % WEEK
        near = shown["arriving tomorrow"] + shown["arriving in two days"]
        shown["arriving later"] = np.maximum(shown["in transit"] - near, 0.0) * (self.lead.max() > 2)
        return shown

    def decision(self, action: Any, agent: int | None = None, whole: bool = False) -> Any:
        """Actions, shares of the order limit (..., N, 1) or of one warehouse (..., 1) -> orders in units, (..., N) or
        (...); `whole`: rounded to whole units within the limit."""
        limit = self.limit if agent is None else self.limit[agent]
        orders = np.asarray(action, dtype=float)[..., 0] * limit
        orders = np.minimum(np.rint(orders), np.floor(limit)) if whole else orders
        return orders if np.ndim(orders) else float(orders)

    def fallback(self, inputs: Mapping[str, Any], agent: int | None = None) -> np.ndarray:
        """The rule that needs no training and no tuning -> actions like those of a policy, (..., N, 1) or (..., 1)."""
        lead, limit = (self.lead, self.limit) if agent is None else (self.lead[agent], self.limit[agent])
        position = inputs["on hand"] + inputs["arriving tomorrow"] + inputs["arriving in two days"]
        missing = 2.0 * (lead + 1) * inputs["demand average"] - position - inputs["arriving later"]
        return np.clip(missing / limit, 0.0, 1.0)[..., None]
