"""Recorded sales as episodes: windows of consecutive periods, or weeks of one season put together; all warehouses
always together, so that what sells well at the same time still does. And the classical rules, tuned on them.

Shapes: P periods of a part (training or test), T periods of an episode, N warehouses.
"""

from __future__ import annotations

import functools
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from retail.baselines import Policy, baselines, tune
from retail.constants import RetailConstants
from retail.environment import MAX_LOOKAHEAD, WEEK, MultiWarehouseEnv
from retail.records import Sales, blocks_by_default, load_sales

PARTS = ("demand", "unmet", "received_transfer", "returned", "on_hand")
BLOCK = {1: 7, 7: 4}  # periods of a block by days a period: a week, four weeks
SEASON_DAYS = 45  # a block comes from so many days around the same day of any year
YEAR_DAYS = 365.25
# Of tuning the classical rules: about half a minute, whatever the number of warehouses.
TUNING = dict(population=20, iterations=14)
TUNING_CELLS = 750  # episodes times warehouses


class Windows:
    """A part of the sales as `demand_source`: called with a generator, it returns (T + 8, N) units.

    blocks: False replays a window of consecutive periods; True puts one together of blocks (a season-stratified block
    bootstrap, after Künsch 1989): a random period is where the episode begins, and each block of it is replaced by one
    with the same weekday and season of any year. `starts` notes the period each drawn episode begins with.
    """

    def __init__(self, units: np.ndarray, horizon: int, days: int = 1, blocks: bool = False):
        if len(units) < horizon:
            raise ValueError(
                f"{len(units)} periods were found: an episode needs {horizon}; give more, or a smaller horizon"
            )
        self.units, self.horizon, self.days, self.blocks = units, horizon, days, blocks
        self.starts: list[int] = []
        # The 8 periods after the episode are for critics that look ahead; beyond the part's end nothing is known.
        beyond = np.broadcast_to(units.mean(axis=0), (MAX_LOOKAHEAD, units.shape[1]))
        self._padded = np.concatenate([units, beyond])  # (P + 8, N)

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        if self.blocks:
            start = int(rng.integers(len(self.units)))
            demand = self._put_together(start, rng)
        else:
            start = int(rng.integers(len(self.units) - self.horizon + 1))
            demand = self._padded[start : start + self.horizon + MAX_LOOKAHEAD]
        self.starts.append(start)
        return demand

    def _put_together(self, start: int, rng: np.random.Generator) -> np.ndarray:
        size, length = BLOCK[self.days], self.horizon + MAX_LOOKAHEAD
        blocks = []
        for target in range(start, start + length, size):
            candidates = self.candidates(target)
            block = int(candidates[rng.integers(len(candidates))])
            blocks.append(self.units[block : block + size])
        return np.concatenate(blocks)[:length]  # (T + 8, N)

    def candidates(self, target: int) -> np.ndarray:
        """First periods of the blocks that may stand where the period `target` is (it may lie beyond the part)."""
        first = np.arange(len(self.units) - BLOCK[self.days] + 1)
        if self.days == 1:
            first = first[(first - target) % WEEK == 0]
        apart = np.abs(((first - target) * self.days + YEAR_DAYS / 2) % YEAR_DAYS - YEAR_DAYS / 2)  # days, any year
        return first[apart <= max(SEASON_DAYS, apart.min())]


class RecordedWarehouses(MultiWarehouseEnv):
    """MultiWarehouseEnv on recorded sales: its constants are the fitted ones, its weekdays those of the calendar.

    sales: from `load_sales`. evaluation: episodes of the test part, always consecutive periods, or of the training
    part. blocks: of the training part, see `Windows`; None: if it is short. The rest as in MultiWarehouseEnv.
    """

    def __init__(
        self,
        sales: Sales,
        evaluation: bool = False,
        difficulty: str = "medium",
        num_envs: int | None = None,
        seed: int | None = None,
        *,
        blocks: bool | None = None,
        **options: Any,
    ) -> None:
        self.sales = sales
        constants = {**sales.constants, **options}
        self._windows = _windows(sales, evaluation, constants["horizon"], blocks)
        self._first = sales.training if evaluation else 0  # period of the file
        self._weekday = sales.day(self._first).weekday()
        super().__init__(difficulty, num_envs, seed, demand_source=self._windows, **constants)

    @property
    def hyperparameters(self) -> dict[str, float]:
        """What learning has to know of the sizes here: rewards are brought to those of the built-in problem."""
        default, here = RetailConstants(), self.constants
        costs = (float(np.sum(c.mean_demand)) * c.stockout_cost for c in (default, here))
        return {"reward_scale": next(costs) / max(next(costs), 1e-9)}

    def world(self) -> dict[str, Any]:
        """As in MultiWarehouseEnv, with the names of the file, the days of a period, and the dates with which the
        training part begins, the test part begins, and the file ends."""
        sales = self.sales
        since = [sales.day(period).isoformat() for period in (0, sales.training, len(sales.units) - 1)]
        return {**super().world(), "agents": list(sales.warehouses), "days": sales.days, "since": since}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        observations, rewards, dones, info = super().step(actions)
        names = np.array(self.sales.warehouses)
        info["details"]["warehouse_names"] = np.broadcast_to(names, info["details"]["demand"].shape)
        if not self._windows.blocks:  # those that are put together have no date
            day = np.array(self._windows.starts) + self._first + self._period - 1
            info["details"]["date"] = self._squeeze(np.datetime64(self.sales.first) + self.sales.days * day)
        start = np.array(self._windows.starts, float)
        info["period_metrics"] = self._period_metrics(info["details"]) | {"period": start + self._period - 1}
        if "episode_metrics" in info:  # in periods: episodes that share some are not independent (reporting/windows.py)
            window = {"window_start": start, "window_length": np.full(len(start), float(self.constants.horizon))}
            info["episode_metrics"] |= {name: v if self.num_envs else float(v[0]) for name, v in window.items()}
        return observations, rewards, dones, info

    def _period_metrics(self, details: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Those metrics of the episode that are means over its periods, of this period, (E,) each; of a sum, as if all
        periods were like this one. The share that is lost is told as units, to be divided by the demand."""
        c, d = self.constants, {name: np.atleast_2d(details[name]) for name in PARTS}  # (E, N)
        total = {name: values.sum(axis=-1) for name, values in d.items()}
        parts = c.costs(total["unmet"], total["received_transfer"], total["returned"], total["on_hand"])
        cost, moved = sum(parts.values()), total["received_transfer"] + total["returned"]
        sums = {"total_cost": cost, "team_return": -cost, **parts, "demand": total["demand"], "units_moved": moved}
        return {name: c.horizon * value for name, value in sums.items()} | {
            "stockout_percent": c.horizon * 100.0 * total["unmet"],
            "on_hand": total["on_hand"],
            "inventory_balance": d["on_hand"].std(axis=-1),
        }

    def _draw_episodes(self, generators: list[np.random.Generator]) -> None:
        self._windows.starts.clear()
        super()._draw_episodes(generators)
        if self.sales.days == 1:  # Monday is 0; weeks have no weekday, and keep a random phase
            self._phase = (self._weekday + np.array(self._windows.starts)) % WEEK  # (E,)


def _windows(sales: Sales, evaluation: bool, horizon: int, blocks: bool | None) -> Windows:
    blocks = not evaluation and (blocks_by_default(sales) if blocks is None else blocks)
    return Windows(sales.part(evaluation), horizon, sales.days, blocks)


def recorded_env(path: str | Path, evaluation: bool = False, *args: Any, **options: Any) -> RecordedWarehouses:
    """The environment of a CSV file (see retail/records.py). Raises FileNotFoundError, or ValueError for a bad file."""
    return RecordedWarehouses(load_sales(path), evaluation, *args, **options)


def recorded_baselines(env: RecordedWarehouses, **budget: int) -> dict[str, Policy]:
    """The classical rules by name, tuned on the training part of the environment's sales for its constants. budget: of
    `tune`."""
    budget = {"episodes": int(np.clip(TUNING_CELLS // env.num_agents, 30, 150)), **TUNING, **budget}
    return baselines(env, parameters=tuned_on(env.sales, env.constants, **budget))


@functools.lru_cache(maxsize=4)
def tuned_on(sales: Sales, constants: RetailConstants, **budget: int) -> dict[str, dict[str, list[float]]]:
    """Parameters of the rules, tuned on episodes of the training part alone. The same sales are tuned on once."""
    source = _windows(sales, False, constants.horizon, None)
    return tune(demand_source=source, **asdict(constants), **budget)
