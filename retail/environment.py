"""Multi-warehouse inventory: N warehouses, one slow-moving item, one supplier that cannot serve a run on it.

Each warehouse orders from what it sees itself. Three things tie them together: the shared supplier rations everybody
when the orders add up to more than it can ship, a warehouse that runs out takes a little from its ring neighbours,
and the reward is the team's cost. Which warehouse sells well is drawn anew for every episode and drifts during it.

The order of events within a period is the comment column of `MultiWarehouseEnv.step`. Units are continuous (a unit is
a case, a fraction a part case), money is in dollars, a period is a day. The constants were searched so that untrained
policies cost 150-200 an episode: they are a design, not evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from retail.consequences import Played, consequences
from retail.constants import DIFFICULTIES, RetailConstants, is_int, resolve
from retail.observations import OBSERVATION_NAMES, WEEK, Units

MAX_LOOKAHEAD = 8  # periods of demand drawn beyond the horizon, always, so that a look-ahead cannot show the clock


@dataclass(frozen=True)
class Episode:
    """What chance decided at reset for one copy: all that a clairvoyant planner needs beside the constants."""

    demand: np.ndarray  # (T, N) units
    on_hand: np.ndarray  # (N,) units at the start
    pipeline: np.ndarray  # (max lead time, N) units arriving in period 0, 1, ...
    supply: np.ndarray  # (T,) units the supplier can ship


class MultiWarehouseEnv:
    """Five warehouses (by default) that order one item from one supplier, vectorised over `num_envs` copies.

    Args:
        difficulty: "easy", "medium" or "hard"; sets the constants in DIFFICULTIES. A constant given explicitly wins.
        num_envs: None for one episode at a time, or E: every array then has a leading axis E.
        seed: of the stream that seeds the episodes of `reset()` without a seed; None takes fresh entropy.
        state_lookahead: H in 0..8. H > 0 offers `state()`, a privileged state for the critic alone (see there).
        demand_multiplier: what-if, (T,) or (T, N) factors on the drawn demand; the last one holds beyond T.
        supplier_multiplier: what-if, (T,) factors on the supplier's capacity (0: it ships nothing).
        demand_source: callable rng -> (T + 8, N) units that replaces the demand generator, for instance by windows of
            recorded sales; the rest of the episode is drawn as before.
        consequences: hand over `info["consequences"]` at the last step: dollars that the team pays more for the whole
            order limit more, by the slope of each order, (T, N, 1) or (E, T, N, 1) (consequences.py). For training; no
            warehouse observes it.
        constants: any field of `RetailConstants`.

    Actions are (N, 1) floats in [0, 1], the order as a share of `order_limit`; observations (N, 14) float32, named in
    OBSERVATION_NAMES; rewards (N,) float32, dollars, summing to minus the period's cost for every team_reward_weight.
    All chance of an episode is drawn at reset from the copy's own generator: a copy seeded k is, bit for bit, the
    single environment seeded k, whatever the actions. The episode ends by truncation: the business goes on, and no
    observation tells the time left (an agent that knew it would empty the shelves on the last day).

    Raises ValueError for constants, seeds or actions that make no sense, RuntimeError for a step outside an episode.
    """

    observation_space_size = len(OBSERVATION_NAMES)
    action_space_size = 1
    discrete_actions = False

    def __init__(
        self,
        difficulty: str = "medium",
        num_envs: int | None = None,
        seed: int | None = None,
        *,
        state_lookahead: int = 0,
        demand_multiplier: np.ndarray | None = None,
        supplier_multiplier: np.ndarray | None = None,
        demand_source: Callable[[np.random.Generator], np.ndarray] | None = None,
        consequences: bool = False,
        **constants: Any,
    ) -> None:
        if num_envs is not None and (not is_int(num_envs) or num_envs < 1):
            raise ValueError(f"num_envs is {num_envs!r}: give None (one episode at a time) or a whole number >= 1")
        if not is_int(state_lookahead) or not 0 <= state_lookahead <= MAX_LOOKAHEAD:
            raise ValueError(f"state_lookahead is {state_lookahead!r}: give a whole number from 0 to {MAX_LOOKAHEAD}")
        if seed is not None and (not is_int(seed) or seed < 0):
            raise ValueError(f"seed is {seed!r}: give None or a whole number >= 0")
        self.num_envs, self.state_lookahead = num_envs, int(state_lookahead)
        self._explicit, self._hands_over_consequences = constants, bool(consequences)
        self.set_difficulty(difficulty)
        self._apply_constants(resolve(difficulty, constants))
        self._demand_source = demand_source
        self._demand_factor = self._multiplier("demand_multiplier", demand_multiplier)
        self._supply = self.constants.supplier_capacity * self._multiplier("supplier_multiplier", supplier_multiplier)
        self._seed_stream = np.random.default_rng(seed)
        self._period: int | None = None  # None: no episode yet

    # ------------------------------------------------------------------------------------------------ constants

    def set_difficulty(self, difficulty: str) -> None:
        """Choose the difficulty from the next reset on (curricula). Constants given to the constructor still win."""
        if not isinstance(difficulty, str) or difficulty not in DIFFICULTIES:
            raise ValueError(f"difficulty is {difficulty!r}: choose one of {', '.join(DIFFICULTIES)}")
        self.difficulty = difficulty

    def _apply_constants(self, constants: RetailConstants) -> None:
        """Turn the constants into arrays, once per change of difficulty."""
        self.constants, self._applied = constants, self.difficulty
        self._means = np.asarray(constants.mean_demand, dtype=float)  # (N,)
        self.num_agents = n = len(self._means)
        self._units = Units(constants.mean_demand, constants.lead_times, constants.order_limit)
        self._scale = self._units.scale
        self._order_limit, self._storage, self._lead = (
            np.broadcast_to(np.asarray(values), (n,))
            for values in (constants.order_limit, constants.storage, constants.lead_times)
        )
        self._lead = self._lead.astype(int)
        self._slots = int(self._lead.max())
        self._enters = np.arange(1, self._slots + 1)[:, None, None] == self._lead  # (slots, 1, N): slot of a new order
        self._next, self._previous = np.roll(np.arange(n), -1), np.roll(np.arange(n), 1)

    def _multiplier(self, name: str, values: Any) -> np.ndarray:
        """(T,) or (T, N) factors -> (T + 8, 1, 1 or N) for demand, (T + 8,) for the supplier."""
        horizon, n = self.constants.horizon, self.num_agents
        array = np.ones(horizon) if values is None else np.asarray(values, dtype=float)
        shapes = [(horizon,), (horizon, n)] if name == "demand_multiplier" else [(horizon,)]
        if array.shape not in shapes or not np.all(np.isfinite(array)) or np.any(array < 0):
            wanted = " or ".join(map(str, shapes))
            raise ValueError(f"{name} has shape {array.shape}: give finite factors >= 0 of shape {wanted}")
        array = np.concatenate([array, np.repeat(array[-1:], MAX_LOOKAHEAD, axis=0)])
        return array.reshape(len(array), 1, -1) if name == "demand_multiplier" else array

    def world(self) -> dict[str, Any]:
        """All that scales observations and limits actions here, as plain values: `MultiWarehouseEnv(**constants)` with
        those of "constants" is this world again. "agents": a name a warehouse."""
        constants = {name: np.asarray(value).tolist() for name, value in asdict(self.constants).items()}
        return {"agents": [f"warehouse {i + 1}" for i in range(self.num_agents)], "constants": constants}

    # -------------------------------------------------------------------------------------------------- episode

    def reset(self, seed: int | Sequence[int] | None = None) -> np.ndarray:
        """Draw a new episode in every copy. An int seed s means s, s + 1, ... over the copies.

        Returns the observations, (N, 14) or (E, N, 14).
        """
        if self.difficulty != self._applied:
            self._apply_constants(resolve(self.difficulty, self._explicit))
        self._draw_episodes([np.random.default_rng(s) for s in self._seeds(seed)])
        c, copies = self.constants, len(self._on_hand)
        shape = (copies, self.num_agents)
        self._pipeline = np.broadcast_to(self._means, (self._slots, *shape)) * (
            np.arange(1, self._slots + 1)[:, None, None] <= self._lead
        )  # (slots, E, N): m_i in every slot that warehouse i has
        self._start_on_hand, self._start_pipeline = self._on_hand, self._pipeline
        self._average = np.broadcast_to(self._means, shape)  # f
        zero = np.zeros(shape)
        self._last = dict(demand=self._average, unmet=zero, received=zero, sent=zero, fill=np.ones((copies, 1)))
        self._history = {name: np.empty((copies, c.horizon, self.num_agents)) for name in _HISTORY}
        self._period = 0
        return self._squeeze(self._observations())

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Live through one period with orders `actions` * order_limit.

        Returns observations (N, 14), rewards (N,), dones (N,), info; with E in front when stacked. info["details"]:
        units and dollars of the period, (N,) each; info["truncated"]: True at the end, where
        info["episode_metrics"] has the episode's figures (see `_episode_metrics`).
        """
        if self._period is None or self._period >= self.constants.horizon:
            state = "no episode has begun" if self._period is None else "the episode is over"
            raise RuntimeError(f"{state}: call reset() before step()")
        c, t = self.constants, self._period
        # 1. Orders; the supplier rations pro rata.
        orders = self._checked(actions) * self._order_limit  # (E, N)
        fill = np.minimum(1.0, self._supply[t] / np.maximum(orders.sum(axis=-1, keepdims=True), 1e-12))  # (E, 1)
        shipped = fill * orders  # (RETAIL-4)
        # 2. Arrivals; what does not fit into the storage is sent back.
        arriving = self._pipeline[0]
        accepted = np.minimum(arriving, np.maximum(self._storage - self._on_hand, 0.0))
        returned = arriving - accepted
        stock = self._on_hand + accepted
        # 3. and 4. Demand and local sales.
        demand = self._demand[t]
        sold = np.minimum(stock, demand)
        stock, unmet = stock - sold, demand - sold
        # 5. Reactive lateral transshipment over the ring, first from i + 1, then from i - 1 (such policies: Paterson
        # et al. 2011). Within a pass every warehouse gives to one neighbour only, so nothing is given away twice.
        received = sent = 0.0
        for giver, receiver in ((self._next, self._previous), (self._previous, self._next)):
            moved = np.minimum(np.minimum(unmet, stock[:, giver]), c.lane_limit)  # (RETAIL-5)
            given = moved[:, receiver]
            unmet, received = unmet - moved, received + moved
            stock, sent = stock - given, sent + given
        # 6. What is still unmet is lost.
        parts = c.costs(unmet, received, returned, stock)
        cost = parts["stockout_cost"] + parts["holding_cost"]
        cost += parts["transfer_cost"] + parts["return_cost"]
        # 7. The pipeline moves on, the new order enters it; the demand average follows.
        pipeline = shipped * self._enters  # (slots, E, N)
        pipeline[:-1] += self._pipeline[1:]
        self._pipeline, self._on_hand = pipeline, stock
        self._average = self._average + c.average_weight * (demand - self._average)
        self._last = dict(demand=demand, unmet=unmet, received=received, sent=sent, fill=fill)

        details = dict(
            demand=demand,
            orders=orders,
            shipped=shipped,
            received_transfer=received,
            sent_transfer=sent,
            unmet=unmet,
            on_hand=stock,
            returned=returned,
            cost=cost,
        )
        for name in _HISTORY:
            self._history[name][:, t] = details[name]
        self._period = t + 1
        return self._outcome(cost, details)

    def _outcome(self, cost: np.ndarray, details: dict[str, np.ndarray]) -> tuple[Any, Any, Any, dict[str, Any]]:
        """The period's (E, N) costs and details -> what `step` returns."""
        w, over = self.constants.team_reward_weight, self._period == self.constants.horizon
        rewards = (-w * cost.mean(axis=-1, keepdims=True) - (1.0 - w) * cost).astype(np.float32)  # (RETAIL-1)
        dones = np.full(cost.shape, over)
        info: dict[str, Any] = {"details": {name: self._squeeze(values).copy() for name, values in details.items()}}
        info["truncated"] = over if self.num_envs is None else dones[:, 0]
        if over:
            metrics = self._episode_metrics()
            info["episode_metrics"] = {k: float(v[0]) if self.num_envs is None else v for k, v in metrics.items()}
            if self._hands_over_consequences:
                slopes = consequences(self.constants, self._played()) * self._order_limit  # (T, E, N)
                info["consequences"] = self._squeeze(np.moveaxis(slopes, 1, 0)[..., None])
        return self._squeeze(self._observations()), self._squeeze(rewards), self._squeeze(dones), info

    def _played(self) -> Played:
        """The episode that is over."""
        orders, demand, on_hand = (self._history[name].swapaxes(0, 1) for name in ("orders", "demand", "on_hand"))
        on_hand = np.concatenate([self._start_on_hand[None], on_hand[:-1]])
        return Played(orders, demand, on_hand, self._start_pipeline, self._supply[: len(orders)])

    # ---------------------------------------------------------------------------------------- what is seen

    def named_inputs(self) -> dict[str, np.ndarray]:
        """What every warehouse knows now, in units: the inputs of observations.py by name, (N,) or (E, N) each."""
        return {name: self._squeeze(np.broadcast_to(v, self._on_hand.shape)) for name, v in self._inputs().items()}

    def _inputs(self) -> dict[str, np.ndarray]:
        """The same, (E, N), (E, 1) or one number each."""
        last = self._last
        return {
            "on hand": self._on_hand,
            "arriving tomorrow": self._pipeline[0],
            "arriving in two days": self._pipeline[1] if self._slots > 1 else 0.0,
            "arriving later": self._pipeline[2:].sum(axis=0) if self._slots > 2 else 0.0,
            "last demand": last["demand"],
            "demand average": self._average,
            "last unmet": last["unmet"],
            "received": last["received"],
            "sent": last["sent"],
            "day of week": (self._period + self._phase)[:, None] % WEEK,
            "supplier fill rate": last["fill"],
        }

    def _observations(self) -> np.ndarray:
        """(E, N, 14) float32: only what a warehouse knows itself."""
        return self._units.encode(self._inputs())

    @property
    def state_size(self) -> int:
        """Length of `state()`; 0 without a look-ahead."""
        return self.num_agents * (1 + self.state_lookahead) if self.state_lookahead else 0

    def state(self) -> np.ndarray:
        """Privileged state (N * (1 + H),) or (E, N * (1 + H)) float32, for the centralized critic during training only.

        Per warehouse: the true mean demand of the coming period, then the demand already drawn for it and the H - 1
        periods after it, over s = mean of mean_demand. Demand does not depend on the actions, so a critic that knows
        it explains away its noise without biasing the actors, which never see it (input-driven variance reduction,
        Mao et al. 2019, arXiv 1807.02264).
        """
        if not self.state_lookahead:
            raise AttributeError("state() needs MultiWarehouseEnv(state_lookahead=1..8); it is 0 here")
        if self._period is None:
            raise RuntimeError("no episode has begun: call reset() before state()")
        t = self._period
        known = np.concatenate([self._rate[t : t + 1], self._demand[t : t + self.state_lookahead]])  # (1 + H, E, N)
        flat = known.transpose(1, 2, 0).reshape(known.shape[1], -1) / self._scale
        return self._squeeze(flat.astype(np.float32))

    def episode(self, copy: int = 0) -> Episode:
        """What chance decided for one copy at the last reset."""
        if self._period is None:
            raise RuntimeError("no episode has begun: call reset() before episode()")
        t = self.constants.horizon
        return Episode(
            demand=self._demand[:t, copy],
            on_hand=self._start_on_hand[copy],
            pipeline=self._start_pipeline[:, copy],
            supply=self._supply[:t],
        )

    def _episode_metrics(self) -> dict[str, np.ndarray]:
        """name -> (E,), over the whole episode and all warehouses; unit costs in dollars, units in units."""
        c = self.constants
        h = self._history  # name -> (E, T, N)
        total = {name: values.sum(axis=(1, 2)) for name, values in h.items()}  # (E,)
        demand = np.maximum(total["demand"], 1e-12)
        variance = {name: h[name].var(axis=1).sum(axis=-1) for name in ("orders", "demand")}
        parts = c.costs(total["unmet"], total["received_transfer"], total["returned"], total["on_hand"])
        return {
            "total_cost": sum(parts.values()),
            **parts,
            "demand": total["demand"],
            "stockout_percent": 100.0 * total["unmet"] / demand,
            "fill_rate": 1.0 - total["unmet"] / demand,  # share of demand served, neighbours included
            "cycle_service_level": (h["unmet"] <= 1e-9).mean(axis=(1, 2)),  # share of periods without a stockout
            "units_moved": total["received_transfer"] + total["returned"],
            "inventory_balance": h["on_hand"].std(axis=-1).mean(axis=1),  # spread over warehouses, mean over time
            "on_hand": total["on_hand"] / c.horizon,  # units in the whole network
            "days_of_supply": total["on_hand"] / demand,
            "bullwhip": variance["orders"] / np.maximum(variance["demand"], 1e-12),  # Lee et al. 1997
        }

    # ------------------------------------------------------------------------------------------------ chance

    def _draw_episodes(self, generators: list[np.random.Generator]) -> None:
        """Draw start stock, week and T + 8 periods of demand. The loop only takes raw numbers from each generator."""
        c, n, copies, periods = self.constants, self.num_agents, len(generators), self.constants.horizon + MAX_LOOKAHEAD
        start, normal = np.empty((copies, n + 1)), np.empty((copies, n + 1))
        regime, noise = np.empty((copies, 2, periods, n)), np.empty((copies, periods, n))
        for e, rng in enumerate(generators):
            rng.random(out=start[e])
            if self._demand_source is not None:
                noise[e] = self._sourced_demand(rng)
                continue
            rng.standard_normal(out=normal[e])
            rng.random(out=regime[e])
            rng.standard_gamma(c.demand_cv**-2, out=noise[e])  # variance = mean = 1 / cv^2
        low, high = c.start_range
        self._on_hand = (low + (high - low) * start[:, :n]) * self._means  # (E, N)
        self._phase = (WEEK * start[:, n]).astype(int)  # (E,)
        if self._demand_source is None:
            rate = self._mean_rate(normal, regime)  # (E, T + 8, N)
            demand = rate * (noise * c.demand_cv**2)
        else:
            demand = noise
            rate = np.broadcast_to(demand.mean(axis=1, keepdims=True), demand.shape)  # the best guess there is
        self._rate, self._demand = (
            np.ascontiguousarray(values.transpose(1, 0, 2)) * self._demand_factor for values in (rate, demand)
        )  # (T + 8, E, N)

    def _mean_rate(self, normal: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Raw normals (E, N + 1) and uniforms (E, 2, T + 8, N) -> mean demand (E, T + 8, N) before the Gamma noise."""
        c, n, periods = self.constants, self.num_agents, uniform.shape[2]
        mix = self._means * np.exp(c.mix_sd * normal[:, :n])  # (E, N)
        mix *= self._means.sum() / mix.sum(axis=-1, keepdims=True)
        log_sd = np.sqrt(np.log1p(c.level_sd**2))
        level = np.exp(log_sd * normal[:, n] - 0.5 * log_sd**2)  # (E,), mean 1
        # A regime lasts until the next redraw: look up the candidate of the latest period that redrew.
        probabilities, factors = np.asarray(c.regime_probabilities), np.asarray(c.regime_factors, dtype=float)
        candidate = (factors / (probabilities @ factors))[
            np.searchsorted(probabilities.cumsum()[:-1], uniform[:, 0], side="right")
        ]
        redrawn = np.where(uniform[:, 1] < c.regime_redraw, np.arange(periods)[:, None], 0)
        factor = np.take_along_axis(candidate, np.maximum.accumulate(redrawn, axis=1), axis=1)
        week = self._units.week_sin[(np.arange(periods) + self._phase[:, None]) % WEEK]  # (E, T + 8)
        season = (1.0 + c.season_amplitude * week) * level[:, None]
        return mix[:, None, :] * factor * season[:, :, None]

    def _sourced_demand(self, rng: np.random.Generator) -> np.ndarray:
        demand = np.asarray(self._demand_source(rng), dtype=float)
        wanted = (self.constants.horizon + MAX_LOOKAHEAD, self.num_agents)
        if demand.shape != wanted or not np.all(np.isfinite(demand)) or np.any(demand < 0):
            raise ValueError(
                f"demand_source returned shape {demand.shape}: it must return finite units >= 0 of shape "
                f"(horizon + {MAX_LOOKAHEAD}, warehouses) = {wanted}"
            )
        return demand

    # ------------------------------------------------------------------------------------------------ arguments

    def _seeds(self, seed: int | Sequence[int] | None) -> list[int]:
        copies = self.num_envs or 1
        if seed is None:
            return self._seed_stream.integers(2**63, size=copies).tolist()
        seeds = [seed + e for e in range(copies)] if is_int(seed) else list(np.ravel(seed))
        if len(seeds) != copies or not all(is_int(s) and s >= 0 for s in seeds):
            raise ValueError(f"seed is {seed!r}: give a whole number >= 0, or {copies} of them (one a copy)")
        return [int(s) for s in seeds]

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        """Actions of the caller -> (E, N) float64."""
        actions = np.asarray(actions)
        wanted = (self.num_agents, 1) if self.num_envs is None else (self.num_envs, self.num_agents, 1)
        if actions.shape != wanted or actions.dtype.kind not in "fiu":
            raise ValueError(f"actions have shape {actions.shape}, type {actions.dtype}: give floats of shape {wanted}")
        if not (actions.min() >= 0.0 and actions.max() <= 1.0):  # also false for NaN
            bad = tuple(int(k) for k in np.argwhere(~((actions >= 0.0) & (actions <= 1.0)))[0])
            raise ValueError(f"actions{list(bad)} is {actions[bad]}: orders are shares of order_limit in [0, 1]")
        return actions.reshape(-1, self.num_agents).astype(float)

    def _squeeze(self, values: np.ndarray) -> np.ndarray:
        return values[0] if self.num_envs is None else values


_HISTORY = ("demand", "orders", "unmet", "received_transfer", "returned", "on_hand")
