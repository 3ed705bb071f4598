"""What each order did to the team: the slope of an episode's cost, known once the episode is over.

Everything that a period does to an order is a sum, a product, a minimum or a maximum, so the cost of a played episode
has a slope in each order, exact but for the kinks. The periods of `MultiWarehouseEnv.step` are gone through backwards,
with the same numbers for their events (reverse accumulation; perturbation analysis in the words of inventory theory,
Glasserman and Tayur 1995).

What do later orders do meanwhile? Held as they were, they would let a warehouse that ordered a unit too many sit on it
to the end, which no policy does. So the slope is that of a unit ordered *now rather than at the next chance*: later
orders bring every warehouse's stock position, on hand and on order, back to where it was. `makes_up=False` holds them.

Shapes: T periods, E copies, N warehouses, slots: the longest lead time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retail.constants import RetailConstants


@dataclass(frozen=True)
class Played:
    """What is on record of E episodes, units, time first."""

    orders: np.ndarray  # (T, E, N)
    demand: np.ndarray  # (T, E, N)
    on_hand: np.ndarray  # (T, E, N) at the beginning of a period
    pipeline: np.ndarray  # (slots, E, N) under way when the episode began, arriving in period 0, 1, ...
    supply: np.ndarray  # (T,) units the supplier could ship


def consequences(c: RetailConstants, played: Played, makes_up: bool = True) -> np.ndarray:
    """Dollars that all warehouses together pay more for one more unit of each order. (T, E, N)

    makes_up: later orders bring the positions back where they were, each as soon as it can; False: they are held.
    """
    orders, demand, stock = played.orders, played.demand, played.on_hand
    T, _, N = orders.shape
    lead, storage = (np.broadcast_to(np.asarray(values), N) for values in (c.lead_times, c.storage))
    lead = lead.astype(int)
    after, before = np.roll(np.arange(N), -1), np.roll(np.arange(N), 1)  # ring neighbours i + 1 and i - 1

    # The episode forwards, all periods at once: which of the terms was the smallest?
    total = np.maximum(orders.sum(axis=-1, keepdims=True), 1e-12)
    fill = np.minimum(1.0, played.supply[:, None, None] / total)  # 1.
    arriving = np.array([_arriving(played.pipeline[:, :, i], (fill * orders)[:, :, i], lead[i]) for i in range(N)])
    arriving = np.moveaxis(arriving, 0, -1)  # (T, E, N)
    room = storage - stock
    fits = arriving <= np.maximum(room, 0.0)  # 2.
    stock = stock + np.where(fits, arriving, np.maximum(room, 0.0))
    served = demand <= stock  # 3., 4.
    stock, unmet = np.maximum(stock - demand, 0.0), np.maximum(demand - stock, 0.0)
    passes = []
    for giver, receiver in ((after, before), (before, after)):  # 5.
        moved = np.minimum(np.minimum(unmet, stock[..., giver]), c.lane_limit)
        passes.append((giver, receiver, moved == unmet, (moved == stock[..., giver]) & (moved < unmet)))
        unmet, stock = unmet - moved, stock - moved[..., receiver]

    # And backwards: slopes of the cost of this period and all after it, in what there was at the period's beginning.
    slopes, on_hand, pipeline = np.zeros(orders.shape), np.zeros(orders.shape[1:]), np.zeros(played.pipeline.shape)
    for t in reversed(range(T)):
        shipped = np.take_along_axis(pipeline, (lead - 1)[None, None], axis=0)[0]  # 7. (E, N)
        lost = (shipped * orders[t]).sum(axis=-1, keepdims=True) / total[t]  # what one unit more takes from everybody
        slopes[t] = np.where(fill[t] < 1.0, fill[t] * (shipped - lost), shipped)  # 1.
        left, short = on_hand + c.holding_cost, np.full(on_hand.shape, c.stockout_cost)  # 6.
        for giver, receiver, all_unmet, all_stock in reversed(passes):  # 5.
            move = c.transfer_cost - short - left[:, giver]
            short = short + all_unmet[t] * move
            left = left + (all_stock[t] * move)[:, receiver]
        shelf = np.where(served[t], left, -short)  # 4., 3.
        sent_back = ~fits[t] & (room[t] > 0.0)  # 2.
        arrived = np.where(fits[t], shelf, c.return_cost)
        made_up = slopes[t] if makes_up else 0.0
        on_hand = np.where(sent_back, c.return_cost, shelf) - made_up
        pipeline = np.concatenate([arrived[None], pipeline[:-1]]) - made_up
    return slopes


def _arriving(under_way: np.ndarray, shipped: np.ndarray, lead: int) -> np.ndarray:
    """Units that one warehouse is sent in each period: (slots, E) at the start, (T, E) shipped -> (T, E)."""
    return np.concatenate([under_way[:lead], shipped])[: len(shipped)]
