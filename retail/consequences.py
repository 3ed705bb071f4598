"""What a little more of each order would have cost all warehouses together: known once an episode is over.

Everything that the environment does to an order is a sum, a product, a minimum or a maximum, so the cost of an episode
has a slope in every order that was given (but for kinks). Here the steps of `MultiWarehouseEnv.step` are gone through
backwards, from the last period to the first. Each derivative is named after what it belongs to: `d_stock` is what one
unit more of `stock` would have cost from there on.

Later orders are held as they were (the open loop) unless the environment was told how they answer to what is observed
(`note_reactions`): then each later order moves as its policy would have moved it, and the slopes are those that the
deterministic policy gradient asks for.
Shapes: T periods, E copies, N warehouses, O observations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Played:
    """What the environment records of one period, before anything happens in it."""

    on_hand: np.ndarray  # (E, N) units
    pipeline: np.ndarray  # (slots, E, N) units
    average: np.ndarray  # (E, N) demand average
    orders: np.ndarray  # (E, N) units
    fill: np.ndarray  # (E, 1) share of all orders that is shipped
    reactions: np.ndarray | None  # (E, N, O) slope of each action in its own observation; None: it does not react


def consequences(env: Any, played: Sequence[Played]) -> np.ndarray:
    """Dollars of the whole episode for one more of each action (a whole order limit): (E, T, N, 1).

    env: the MultiWarehouseEnv that played the periods `played`.
    """
    c, slopes = env.constants, np.empty((len(played), *played[0].on_hand.shape))  # (T, E, N)
    # What one unit more in the next period's beginning would have cost; nothing is paid after the last.
    nothing = np.zeros_like(played[0].on_hand)
    d_on_hand, d_pipeline = nothing, np.zeros_like(played[0].pipeline)
    d_seen = dict(unmet=nothing, received=nothing, sent=nothing, fill=nothing[:, :1])
    for t in reversed(range(len(played))):
        p = played[t]
        # Orders and rationing: what is shipped enters the pipeline.
        d_shipped = (d_pipeline * env._enters).sum(axis=0)  # (E, N)
        d_fill = (d_shipped * p.orders).sum(axis=-1, keepdims=True) + d_seen["fill"]
        total = np.maximum(p.orders.sum(axis=-1, keepdims=True), 1e-12)  # (E, 1)
        d_orders = p.fill * d_shipped - np.where(p.fill < 1.0, p.fill / total, 0.0) * d_fill
        slopes[t] = d_orders * env._order_limit
        # The day itself: dollars of the period, and what is left over for the next.
        d_arriving, d_on_hand = _through_the_day(
            env, p, env._demand[t], c.holding_cost + d_on_hand, c.stockout_cost + d_seen["unmet"], d_seen
        )
        d_pipeline = np.concatenate([d_arriving[None], d_pipeline[:-1]])
        # What the policy saw before it ordered.
        d_seen = dict.fromkeys(d_seen, 0.0)
        if p.reactions is not None:
            d_observed = slopes[t][..., None] * p.reactions  # (E, N, O)
            d_on_hand, d_pipeline, d_seen = _through_the_observation(env, p, d_observed, d_on_hand, d_pipeline)
    return np.moveaxis(slopes, 1, 0)[..., None]


def _through_the_day(
    env: Any, p: Played, demand: np.ndarray, d_stock: np.ndarray, d_unmet: np.ndarray, d_seen: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """From the evening back to the morning: derivatives of the arrivals and of the stock on hand, (E, N) each.

    d_stock, d_unmet: of what is left over, and of the demand that is lost. d_seen: of the transfers observed.
    """
    c, arriving = env.constants, p.pipeline[0]
    room = np.maximum(env._storage - p.on_hand, 0.0)
    stock = p.on_hand + np.minimum(arriving, room)
    unmet, left = np.maximum(demand - stock, 0.0), np.maximum(stock - demand, 0.0)
    lanes = ((env._next, env._previous), (env._previous, env._next))  # (giver, receiver) of the two passes
    before = []
    for giver, receiver in lanes:
        moved = np.minimum(np.minimum(unmet, left[:, giver]), c.lane_limit)
        before.append((unmet, left[:, giver]))
        unmet, left = unmet - moved, left - moved[:, receiver]
    for (giver, receiver), (unmet, offered) in zip(reversed(lanes), reversed(before), strict=True):
        d_moved = c.transfer_cost + d_seen["received"] - d_unmet + (d_seen["sent"] - d_stock)[:, giver]
        by_need = (unmet <= offered) & (unmet < c.lane_limit)  # what limits the transfer is what moves it
        by_stock = (offered < unmet) & (offered < c.lane_limit)
        d_unmet = d_unmet + by_need * d_moved
        d_stock = d_stock + (by_stock * d_moved)[:, receiver]
    d_stock = np.where(stock > demand, d_stock, -d_unmet)
    fits = arriving <= room
    full = p.on_hand >= env._storage
    return np.where(fits, d_stock, c.return_cost), np.where(fits | full, d_stock, c.return_cost)


def _through_the_observation(
    env: Any, p: Played, d_observed: np.ndarray, d_on_hand: np.ndarray, d_pipeline: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Add what the policies' answers to their observations (columns as in OBSERVATION_NAMES) cost.

    d_observed: (E, N, O). Returns the derivatives of the stock on hand, of the pipeline, and of what was observed of
    the period before. Demand and its average do not depend on orders.
    """
    s, d = env._scale, np.moveaxis(d_observed, -1, 0)  # (O, E, N)
    covered = (p.on_hand + p.pipeline.sum(axis=0)) / np.maximum(p.average, 1e-9) < 20.0
    d_position = d[12] / (4 * s) + covered * d[13] / (10.0 * np.maximum(p.average, 1e-9))
    d_pipeline = d_pipeline + d_position + d[3] / (4 * s)
    d_pipeline[0] += d[1] / s
    if len(d_pipeline) > 1:
        d_pipeline[1] += d[2] / s
    seen = dict(unmet=d[6] / s, received=d[7] / s, sent=d[8] / s, fill=d[11].sum(axis=-1, keepdims=True))
    return d_on_hand + d_position + d[0] / (4 * s), d_pipeline, seen
