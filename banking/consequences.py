"""What each decision did to the team, and what the other channels would have done: known once an episode is over.

Queues and risk are on record then, so the cost of every channel for every dispatch can be reckoned without one further
step, all other decisions held as they were:

- own: the wait behind the work found in the channel, the fee, the refusal where its buffer is passed;
- others: what is sent to the channel later waits for the work put there, until the channel would have been idle; that
  is Lindley's recursion (1952) followed from one change (perturbation analysis, Cao and Ho 1983);
- risk: the changed risk decays with its memory and is priced by the reward's own formula.

Left out: later decisions that would have reacted, changing capacity in the waits, and what the delay of others does to
refusals and risk. The tests compare the result with the simulator.
Shapes: T steps, E copies, N routers, C channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from banking.constants import RoutingConstants
from banking.traffic import AMOUNT, ARRIVAL, HALF_SIZE, SERVICE, WEIGHT

DISCOUNT = 0.99  # a step: of what a decision does later
REACH = 150  # steps in which its effect is followed
RISK_STRIDE = 5  # risk changes slowly: so many steps are priced as their first


@dataclass(frozen=True)
class Played:
    """What the environment records of E episodes, time first."""

    heads: np.ndarray  # (T, E, N, 8) transactions at the head of the queues, columns as in traffic.py; 0: none
    chosen: np.ndarray  # (T, E, N) channel numbers
    dispatched: np.ndarray  # (T, E, N) bool, False where nothing was pending or the channel was full
    workload: np.ndarray  # (T, E, C) ms, before the decisions of the step
    risk: np.ndarray  # (T, E) after the step
    mass: np.ndarray  # (T, E) decayed dollars that the risk is weighted by, all routers together

    @classmethod
    def empty(cls, T: int, E: int, N: int, C: int) -> Played:
        heads, chosen, dispatched = np.zeros((T, E, N, 8)), np.zeros((T, E, N), np.int64), np.zeros((T, E, N), bool)
        return cls(heads, chosen, dispatched, np.zeros((T, E, C)), np.zeros((T, E)), np.zeros((T, E)))

    def record(self, t: int, *values: np.ndarray) -> None:
        """Fill row t, values in the order of the fields."""
        for field, value in zip(vars(self).values(), values, strict=True):
            field[t] = value


def consequences(k: RoutingConstants, played: Played, served: np.ndarray) -> np.ndarray:
    """Cost to the team (rewards summed over routers, with the sign changed) of each channel for each decision.

    Only differences between channels mean something. served: (T, E, C) ms of work that a channel can do in a step.
    Returns (T, E, N, C), NaN where nothing was pending, so that nothing was decided.
    """
    heads, T = played.heads, len(served)
    weight = heads[..., WEIGHT, None]  # (T, E, N, 1)
    sent = played.dispatched[..., None] & (played.chosen[..., None] == np.arange(k.num_channels))  # (T, E, N, C)
    work = heads[..., SERVICE, None] * k.work_ms  # (T, E, N, C) ms that the transaction is, in each channel
    ahead, weight_behind = _within_the_step(played.workload, work * sent, weight * sent)
    refused = ~sent & (ahead > k.buffer_ms)
    latency = np.asarray(k.base_latency_ms) + ahead
    own = weight * latency / k.latency_target_ms + k.fee_weight * np.asarray(k.fees) + k.refusal_cost * refused

    idle = np.maximum(served - played.workload - (work * sent).sum(axis=2), 0.0)  # (T, E, C) ms of work not done
    waiting = (weight * sent).sum(axis=2) / k.latency_target_ms  # (T, E, C) price of one ms for what is sent there
    delay = np.where(refused, 0.0, work)  # (T, E, N, C) ms that what comes next in the channel waits longer
    others = weight_behind / k.latency_target_ms * delay
    for ahead_by in range(1, min(REACH + 1, T)):
        delay = delay[: T - ahead_by]
        delay = np.where(
            sent[: T - ahead_by],
            np.minimum(delay, played.workload[ahead_by:, :, None]),  # taken away: no more than what waits there
            np.maximum(delay - idle[ahead_by - 1 : T - 1, :, None], 0.0),  # added: less what fits into idle time
        )
        others[: T - ahead_by] += DISCOUNT**ahead_by * waiting[ahead_by:, :, None] * delay
    cost = own + others + _price_of_risk(k, played, ahead)
    return np.where(heads[..., :1] > 0, cost, np.nan)


def _within_the_step(workload: np.ndarray, put: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Work found in each channel at a router's turn, and the weight of what enters it after, in the same step.

    workload (T, E, C); put and weight (T, E, N, C), 0 where a router did not send. Both results are (T, E, N, C).
    """
    T, _, N, _ = put.shape
    turn = (np.arange(N) - np.arange(T)[:, None]) % N  # (T, N): router t mod N is first
    ahead = np.broadcast_to(workload[:, :, None], put.shape).copy()
    behind = np.zeros(put.shape)
    for j in range(N):
        earlier = (turn[:, j, None] < turn)[:, None, :, None]  # (T, 1, N, 1)
        later = (turn[:, j, None] > turn)[:, None, :, None]
        ahead += earlier * put[:, :, j, None]
        behind += later * weight[:, :, j, None]
    return ahead, behind


def _price_of_risk(k: RoutingConstants, played: Played, ahead: np.ndarray) -> np.ndarray:
    """What the team pays for portfolio risk, more than it did, had each channel been chosen. (T, E, N, C)"""
    heads, T = played.heads, len(ahead)
    delay_ms = k.step_ms * (np.arange(T)[:, None, None] - heads[..., ARRIVAL])[..., None] + ahead
    size = (heads[..., AMOUNT] * 2.0 * heads[..., HALF_SIZE])[..., None]
    mass = size * np.asarray(k.risk_rates) * k.exposure(delay_ms)  # dollars times risk
    change = mass - np.take_along_axis(mass, played.chosen[..., None], axis=-1)  # (T, E, N, C)

    cost, paid = np.zeros(mass.shape), k.price_of_risk(played.risk)  # (T, E)
    for later in range(0, min(REACH + 1, T), RISK_STRIDE):
        kept = math.exp(-later * k.step_ms / k.risk_memory_ms) * change[: T - later]
        risk = played.risk[later:, :, None, None] + kept / played.mass[later:, :, None, None]
        cost[: T - later] += RISK_STRIDE * DISCOUNT**later * (k.price_of_risk(risk) - paid[later:, :, None, None])
    return k.num_routers * cost  # every router pays it
