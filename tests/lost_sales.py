"""Inventory problems small enough to be solved exactly: the scale on which "learned" can be read.

`OneWarehouse`: lost sales, a lead time of two periods, Poisson demand, whole units (the textbook problem of Karlin and
Scarf 1958 and Zipkin 2008). `TwoWarehouses`: a lead time of one, and what one cannot serve its neighbour does, for a
fee; each sees its own shelf alone. Both are solved by value iteration over the joint state, for the mean cost a period.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

HOLDING, SHORTAGE, TRANSFER = 1.0, 9.0, 1.0  # $ a unit and period; a lost unit; a unit served by the neighbour
MOST = 8  # units an order can have


def poisson(mean: float, most: int) -> np.ndarray:
    """P(demand = 0..most), the last entry being P(demand >= most)."""
    found = np.array([math.exp(-mean) * mean**k / math.factorial(k) for k in range(most + 1)])
    found[-1] = 1.0 - found[:-1].sum()
    return found


class LostSales:
    """What both problems share: E copies side by side, whole orders, episodes cut by the clock.

    Args:
        num_envs: copies E; arrays have a leading E.
        discrete: actions are the units to order; else floats in [0, 1], rounded to whole units of `MOST`.
        horizon: periods an episode.
        common: every warehouse is paid the mean of all costs, instead of its own.
    """

    means: tuple[float, ...]  # of the demand a period, by warehouse

    def __init__(self, num_envs: int = 1, discrete: bool = True, horizon: int = 50, common: bool = False):
        self.num_envs, self.discrete_actions, self.horizon, self.common = num_envs, discrete, horizon, common
        self.num_agents = len(self.means)
        self.action_space_size = MOST + 1 if discrete else 1

    def reset(self, seed: int | Sequence[int] | None = None) -> np.ndarray:
        seeds = [seed + e for e in range(self.num_envs)] if isinstance(seed, (int, np.integer)) else seed
        seeds = [None] * self.num_envs if seeds is None else seeds
        drawn = [np.random.default_rng(s).poisson(self.means, (self.horizon, self.num_agents)) for s in seeds]
        self.demand, self.period = np.stack(drawn, axis=1), 0  # (T, E, N)
        self.total = np.zeros(self.num_envs)  # $ of the episode so far
        self.stock = np.full((self.num_envs, self.num_agents), 4)
        self.coming = np.full_like(self.stock, 2)  # arrives before the next period's order but one
        return self.observe()

    def step(self, actions: np.ndarray):
        orders = actions if self.discrete_actions else np.rint(actions[..., 0] * MOST).astype(int)
        costs = self.live(orders, self.demand[self.period])  # (E, N)
        self.period += 1
        over = self.period >= self.horizon
        self.total = self.total + costs.sum(axis=1)
        info = {"truncated": np.full(costs.shape, over)}
        if over:
            info["episode_metrics"] = {"cost_per_period": self.total / self.horizon}
        paid = np.broadcast_to(costs.mean(axis=1, keepdims=True), costs.shape) if self.common else costs
        return self.observe(), -paid, np.full(costs.shape, over), info


class OneWarehouse(LostSales):
    """State: on hand after the arrival, and what arrives one period later; an order arrives after two."""

    means = (2.0,)
    observation_space_size = 2

    def observe(self) -> np.ndarray:
        return np.stack([self.stock, self.coming], axis=-1).astype(np.float32) / MOST  # (E, 1, 2)

    def live(self, orders: np.ndarray, demand: np.ndarray) -> np.ndarray:
        left = np.maximum(self.stock - demand, 0)
        costs = HOLDING * left + SHORTAGE * np.maximum(demand - self.stock, 0)
        self.stock, self.coming = left + self.coming, orders
        return costs


class TwoWarehouses(LostSales):
    """State: the two shelves; an order arrives before the next period. An agent sees its own shelf alone."""

    means = (2.0, 1.0)
    observation_space_size = 1

    def observe(self) -> np.ndarray:
        return self.stock[..., None].astype(np.float32) / MOST  # (E, 2, 1)

    def live(self, orders: np.ndarray, demand: np.ndarray) -> np.ndarray:
        left, costs = period_of_two(self.stock, demand)
        self.stock = left + orders
        return costs


def period_of_two(stock: np.ndarray, demand: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., 2) stocks and demands -> what is left, and each warehouse's cost: the one that is short pays the fee."""
    short, left = np.maximum(demand - stock, 0), np.maximum(stock - demand, 0)
    helped = np.minimum(short, left[..., ::-1])
    left = left - helped[..., ::-1]
    return left, HOLDING * left + TRANSFER * helped + SHORTAGE * (short - helped)


# --- solved exactly ---------------------------------------------------------------------------------------------------


def solve(cost: np.ndarray, following: np.ndarray, chance: np.ndarray) -> tuple[float, np.ndarray]:
    """Relative value iteration (Puterman 1994, section 8.5) -> (least mean cost a period, best action of each state).

    Args:
        cost: (S,) expected cost of a period that begins in the state.
        following: (S, A, K) the next state after each of K events.
        chance: (K,) probabilities of the events.
    """
    value = np.zeros(len(cost))
    while True:
        ahead = value[following] @ chance  # (S, A, K) -> (S, A)
        fresh = cost + ahead.min(axis=1)
        change = fresh - value
        value = fresh - fresh[0]
        if change.max() - change.min() < 1e-9:
            return float(change.mean()), ahead.argmin(axis=1)


def solve_one() -> tuple[float, np.ndarray]:
    """-> (optimal mean cost a period, order (on hand, coming) of `OneWarehouse`)."""
    shelf, orders = 2 * MOST + 1, MOST + 1  # more is never held by the best policy
    demand = poisson(OneWarehouse.means[0], 30)
    stock, coming = np.meshgrid(np.arange(shelf), np.arange(orders), indexing="ij")
    left = np.maximum(stock[..., None] - np.arange(31), 0)
    short = np.maximum(np.arange(31) - stock[..., None], 0)
    cost = ((HOLDING * left + SHORTAGE * short) @ demand).ravel()
    after = np.minimum(left + coming[..., None], shelf - 1).reshape(-1, 1, 31)  # (S, 1, K)
    mean, best = solve(cost, after * orders + np.arange(orders)[:, None], demand)
    return mean, best.reshape(shelf, orders)


SHELF = 2 * MOST + 1  # units a shelf of `TwoWarehouses` holds in what follows; good rules never hold more
STOCK = np.array(list(itertools.product(range(SHELF), repeat=2)))  # (S, 2)
DEMAND = np.array(list(itertools.product(range(16), repeat=2)))  # (K, 2)
CHANCE = np.outer(*(poisson(mean, 15) for mean in TwoWarehouses.means)).ravel()  # (K,)


def after_orders(orders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orders (S, A, 2) -> expected costs (S, 2) of a period, and the next state (S, A, K)."""
    left, costs = period_of_two(STOCK[:, None], DEMAND)  # (S, K, 2)
    stock = np.minimum(left[:, None] + orders[:, :, None], SHELF - 1)  # (S, A, K, 2)
    return np.einsum("skn,k->sn", costs, CHANCE), stock[..., 0] * SHELF + stock[..., 1]


def solve_two() -> tuple[float, np.ndarray]:
    """-> (optimal mean cost a period if both shelves are seen, joint order 9 q_1 + q_2 of (stock 1, stock 2))."""
    orders = np.array(list(itertools.product(range(MOST + 1), repeat=2)))  # (A, 2)
    costs, following = after_orders(np.broadcast_to(orders, (len(STOCK), *orders.shape)))
    mean, best = solve(costs.sum(axis=1), following, CHANCE)
    return mean, best.reshape(SHELF, SHELF)


def costs_of(rules: np.ndarray) -> np.ndarray:
    """Each warehouse's mean cost a period if it orders by its own shelf alone: rules (2, SHELF) -> (2,), exactly."""
    costs, following = after_orders(np.stack([rules[i, STOCK[:, i]] for i in (0, 1)], axis=-1)[:, None])
    moves = np.zeros((len(STOCK), len(STOCK)))
    np.add.at(moves, (np.arange(len(STOCK))[:, None], following[:, 0]), CHANCE)
    equations = moves.T - np.eye(len(STOCK))  # of the share of periods that begin in each state
    equations[-1] = 1.0  # shares sum to 1, in place of an equation that follows from the others
    return np.linalg.solve(equations, np.eye(len(STOCK))[-1]) @ costs


def levels_as_rules(levels: Sequence[int]) -> np.ndarray:
    """Base-stock levels -> rules (2, SHELF)."""
    return np.clip(np.asarray(levels)[:, None] - np.arange(SHELF), 0, MOST)


def each_for_itself(levels: Sequence[int]) -> list[int]:
    """From these base-stock levels to a pair that neither warehouse would leave to save cost of its own."""
    levels, before = list(levels), None
    while levels != before:
        before = list(levels)
        for i in (0, 1):
            pairs = [levels[:i] + [level] + levels[i + 1 :] for level in range(1, 13)]
            levels = min(pairs, key=lambda pair: costs_of(levels_as_rules(pair))[i])
    return levels


def best_local_rules(rules: np.ndarray) -> np.ndarray:
    """Orders by the own shelf alone, improved one by one until none can be: at least as good as the rules given."""
    least, before = costs_of(rules).sum(), np.inf
    while least < before:
        before = least
        for i, stock, order in itertools.product((0, 1), range(MOST + 1), range(MOST + 1)):
            changed = rules.copy()
            changed[i, stock] = order
            cost = costs_of(changed).sum()
            if cost < least - 1e-9:
                least, rules = cost, changed
    return rules


def optimal_one(best: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """What `solve_one` found as a policy: observations to actions (discrete)."""

    def act(observations: np.ndarray) -> np.ndarray:
        stock, coming = np.moveaxis(np.rint(observations * MOST).astype(int), -1, 0)
        return best[np.minimum(stock, len(best) - 1), coming]

    return act


def optimal_two(best: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """What `solve_two` found as a policy that sees both shelves: observations to actions (discrete)."""

    def act(observations: np.ndarray) -> np.ndarray:
        first, second = np.minimum(np.rint(observations[..., 0] * MOST).astype(int), len(best) - 1).T
        return np.stack(np.divmod(best[first, second], MOST + 1), axis=-1)

    return act


def local(rules: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Rules (2, SHELF) as a policy: observations to actions (discrete)."""

    def act(observations: np.ndarray) -> np.ndarray:
        stock = np.minimum(np.rint(observations[..., 0] * MOST).astype(int), SHELF - 1)
        return rules[np.arange(len(rules)), stock]

    return act


def base_stock(levels: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
    """The rule that orders up to a level, counting what is on its way. -> observations to actions (discrete)."""

    def act(observations: np.ndarray) -> np.ndarray:
        position = np.rint(observations.sum(axis=-1) * MOST).astype(int)
        return np.clip(np.asarray(levels) - position, 0, MOST)

    return act
