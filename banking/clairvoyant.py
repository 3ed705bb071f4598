"""What an episode could have earned: a proven upper bound on the team reward, and feasible play that knows the future.

Both know what no router can: every arrival, amount, service factor and capacity of the episode. `relaxed_bounds(env)`
is never below any policy's team reward. `clairvoyant_rollout` is played in the environment itself: the best play of
one who knows the episode lies between the two.

**The cost.** Summed over routers, minus the team reward of a step is the sum of the routers' own costs plus N times the
price of risk. A transaction that joins its router at step a and is sent to channel c at step d pays
0.1 (d - a) + u (base_c + wait) / 100 + 0.3 fee_c; one left over pays 0.1 (T - a) + 2.3; each refusal 0.5.

**Policies that are never refused** send the head of every queue at every step, so all dispatch steps d are known before
a decision is made, and with them the order of dispatch and the dollar mass W(t) under the portfolio risk N(t) / W(t).
What is left to decide is the channel of each transaction. Three things are relaxed (Lagrangian relaxation: Geoffrion
1974; whatever the multipliers, the value is a bound; they are sought by subgradient steps):

1. "One channel each": a multiplier mu of either sign pays for every time that a transaction is taken. The channels then
   decide apart from each other, and the best choice of one channel is found exactly, by dynamic programming over its
   workload in FIFO order, on the realised capacity, refusing above the buffer.
2. The price of risk f(R) is at least slope * (R' - target) * eta for every eta in [0, 1], where R' <= R counts no
   transaction's risk above `cap`. A weighted mean of values up to cap is at most cap, and up to there the line lies
   below f. The mass W being known, this is a price on each transaction's risk.
3. Workloads are rounded down to a grid: work down, capacity up by less than a cell altogether. Waits on the grid, read
   one cell lower, are at most the true ones.

**Policies that are refused at least once**: until the first refusal all of the above holds, risk being counted up to
there only, and then the workload of some channel is above its buffer. From there on only this is kept: a transaction is
sent no earlier than without refusals, a channel does one piece of work at a time, behind what it had at that moment,
and a millisecond of waiting costs the lesser of the prices at the router and in the channel (or the transaction is left
over). Capacity is relaxed with a price lambda on each channel and step. Any transaction may be the first that is
refused: the least cost counts.

The bound is the worse (larger reward) of the two cases. Shapes: E copies, K = T N slots in the order in which routers
are served (slot t N + turn), C channels, G cells of a workload grid.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from banking.baselines import Rule, play, tuned_rule
from banking.constants import RoutingConstants
from banking.environment import TransactionRoutingEnv
from banking.traffic import AMOUNT, ARRIVAL, HALF_SIZE, PRESENT, SERVICE, WEIGHT, WORK_GRID

LARGEST_WORKLOAD = 1600.0  # ms; higher workloads count as this one
FINE_CELL, ROUGH_CELL, ROUGH_CELLS = 0.25, 4.0, 256  # ms, ms: the grid of the bound, and that of the search
WINDOW = 80  # steps of waiting that are looked at one by one after a refusal
NUDGE = 1e-6  # ms: keeps a wait at the near end of an outage when a workload ends exactly there
COPIES = 10  # episodes at a time
FIRST_STEP, LAST_STEP = 2.0, 0.005  # of the search: the first, and the last as a share of it


@dataclass(frozen=True)
class Problem:
    """What is known of E episodes before any decision. Slots without a transaction have present = 0."""

    k: RoutingConstants
    fixed: np.ndarray  # (E,) cost of waiting at the routers and of leftovers, the same for all who are never refused
    present: np.ndarray  # (K, E) bool
    weight: np.ndarray  # (K, E) cost of a ms in a channel
    age: np.ndarray  # (K, E) ms at dispatch
    amount: np.ndarray  # (K, E) dollars
    size: np.ndarray  # (K, E) size factor m
    work: np.ndarray  # (K, E, C) ms
    curve: np.ndarray  # (T + 1, E, C) ms of work possible before each step
    start: np.ndarray  # (E, C) ms of work waiting at the start
    mass: np.ndarray  # (T, E) W, decayed dollars
    risk_start: np.ndarray  # (E,) N at the start
    slope: float  # of the price of risk, N routers together
    cap: float  # largest risk that R' counts

    @property
    def steps(self) -> np.ndarray:
        """Step of each slot, (K,)."""
        return np.arange(len(self.present)) // self.k.num_routers


def relaxed_bound(env: TransactionRoutingEnv, episode: int = 0, iterations: int = 120) -> dict[str, float]:
    """Upper bound on the team reward of any policy in the current episode of one copy; see `relaxed_bounds`."""
    return {name: float(values[0]) for name, values in relaxed_bounds(env, [episode], iterations).items()}


def relaxed_bounds(
    env: TransactionRoutingEnv, copies: Sequence[int] | None = None, iterations: int = 120
) -> dict[str, np.ndarray]:
    """Upper bounds on the team reward (summed over routers and steps) of any policy in the env's current episodes.

    copies: which ones (default: all). iterations: of the search for multipliers; any number from 0 is valid, more is
    tighter. Returns (E,) each: "team_return", the bound; "never refused" and "refused", its two cases; larger of both.
    A case that cannot happen is -inf. RuntimeError before the first reset, ValueError for other copies.
    """
    if iterations < 0:
        raise ValueError(f"iterations must be a whole number from 0, found {iterations}")
    parts = []
    for problem in _in_parts(env, copies):
        mu, eta = _multipliers(problem, iterations)
        after = [_after_refusal(problem, e, iterations // 3) for e in range(mu.shape[1])]
        free, refused = _at_least(problem, mu, eta, after)
        parts.append(np.stack([-np.minimum(free, refused), -free, -refused]))
    return dict(zip(("team_return", "never refused", "refused"), np.concatenate(parts, axis=1), strict=True))


def _in_parts(env: TransactionRoutingEnv, copies: Sequence[int] | None) -> list[Problem]:
    if getattr(env, "episodes", None) is None:
        raise RuntimeError("no episode has begun: call env.reset() before asking for its bound")
    count = env.episodes.counts.shape[1]
    copies = list(range(count)) if copies is None else [int(c) for c in copies]
    if not copies or min(copies) < 0 or max(copies) >= count:
        raise ValueError(f"copies must be whole numbers 0..{count - 1}, at least one; found {copies}")
    return [_problem(env, np.array(copies[i : i + COPIES])) for i in range(0, len(copies), COPIES)]


def _problem(env: TransactionRoutingEnv, copies: np.ndarray) -> Problem:
    k, episodes, E = env.constants, env.episodes, len(copies)
    T, N = int(k.episode_steps), k.num_routers
    nothing = len(episodes.transactions) - 1
    rows, fixed = np.full((T * N, E), nothing), np.zeros(E)
    for column, e in enumerate(copies):
        for i in range(N):
            number = np.arange(episodes.counts[:T, e, i].sum())
            arrival = episodes.transactions[episodes.first[e, i] + number, ARRIVAL].astype(np.int64)
            sent = np.maximum.accumulate(arrival - number) + number  # one a step, in order, none before it is there
            in_time = sent < T
            rows[sent[in_time] * N + (i - sent[in_time]) % N, column] = episodes.first[e, i] + number[in_time]
            waited = np.minimum(sent, T) - arrival
            fixed[column] += k.step_ms / k.latency_target_ms * waited.sum() + k.leftover_cost * (~in_time).sum()
    table = episodes.transactions[rows]  # (K, E, 8)
    curve = np.zeros((T + 1, E, k.num_channels))
    np.cumsum(episodes.served[:, copies], axis=0, out=curve[1:])
    slope, cap = _risk_line(k)
    keep = math.exp(-k.step_ms / k.risk_memory_ms)
    stationary = np.maximum(k.load * np.asarray(k.arrival_rates) * k.mean_amounts, 1e-9).sum() / (1.0 - keep)
    mass = table[..., AMOUNT].reshape(T, N, E).sum(axis=1)
    before = stationary
    for t in range(T):
        mass[t] = before = keep * before + mass[t]
    return Problem(
        k=k,
        fixed=fixed,
        present=table[..., PRESENT] == 1,
        weight=table[..., WEIGHT] / k.latency_target_ms,
        age=k.step_ms * (np.arange(T * N)[:, None] // N - table[..., ARRIVAL]),
        amount=table[..., AMOUNT],
        size=2.0 * table[..., HALF_SIZE],
        work=np.rint(k.work_ms * table[..., [SERVICE]] * WORK_GRID) / WORK_GRID,
        curve=curve,
        start=episodes.initial_workload[copies],
        mass=mass,
        risk_start=np.full(E, min(k.initial_risk, cap) * stationary),
        slope=slope,
        cap=cap,
    )


def _risk_line(k: RoutingConstants) -> tuple[float, float]:
    """(slope, cap): N f(R) >= slope (R - target) for 0 <= R <= cap. f is the price of risk in the environment: it
    rises on that line up to 2 risk_cost, from the limit on with violation_cost on top, and is flat after that."""
    width = k.risk_limit - k.risk_target
    if width <= 0 or k.risk_cost == 0:
        return 0.0, math.inf  # f >= 0 will do
    cap = k.risk_target + (2.0 + k.violation_cost / k.risk_cost) * width
    return k.num_routers * k.risk_cost / width, min(cap, 2.0 * k.risk_target)  # less is valid, and better once refused


# ----------------------------------------------------------------- the channels


def _risk_prices(problem: Problem, eta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """eta (T, E) -> price of a dollar times risk dispatched at each step (T, E), and what does not depend on it (E,).

    sum_t slope eta_t (N_t / W_t - target), and N_t = keep N_(t-1) + the dollars times risk of step t.
    """
    keep = math.exp(-problem.k.step_ms / problem.k.risk_memory_ms)
    price = problem.slope * eta / problem.mass
    for t in range(len(price) - 2, -1, -1):
        price[t] += keep * price[t + 1]
    return price, keep * price[0] * problem.risk_start - problem.slope * problem.k.risk_target * eta.sum(axis=0)


def _waits(problem: Problem, e: int, c: int, steps: np.ndarray, workloads: np.ndarray) -> np.ndarray:
    """Waits behind workloads (G,) ms at the given steps, on the realised capacity. (len(steps), G) ms."""
    D, curve = problem.k.step_ms, problem.curve[:, e, c]
    times = np.append(D * np.arange(len(curve)), 1e9 + D * (len(curve) - 1))  # after T: a ms of work a ms
    target = curve[steps, None] + workloads - NUDGE
    start = D * steps[:, None]
    return np.maximum(np.interp(target, np.append(curve, 1e9 + curve[-1]), times), start) - start


def _at_least(problem: Problem, mu: np.ndarray, eta: np.ndarray, after=None) -> tuple[np.ndarray, np.ndarray]:
    """Proven least costs for multipliers mu (K, E) and eta (T, E): never refused (E,), and refused at least once (E,).

    after: for each copy what `_after_refusal` says; without it the second is infinite.
    """
    k, E = problem.k, mu.shape[1]
    price, constant = _risk_prices(problem, eta)
    free, refused = problem.fixed + constant + (mu * problem.present).sum(axis=0), np.full(E, np.inf)
    for e in range(E):
        channels = [_channel(problem, e, c, mu, price, after and after[e]) for c in range(k.num_channels)]
        free[e] += sum(channel[0] for channel in channels)
        if after is not None:
            anywhere, above = (np.stack([channel[i] for channel in channels]) for i in (1, 2))  # (C, K)
            possible = problem.present[:, e] & np.isfinite(above).any(axis=0)
            others = np.where(possible, anywhere, 0.0).sum(axis=0) - np.where(possible, anywhere, 0.0)
            paid = np.where(problem.present[:, e], mu[:, e], 0.0)
            prices, least = after[e]
            later = np.cumsum(least[::-1])[::-1] - prices[-1].sum()  # of what is sent from here on
            total = np.cumsum(paid) - paid + (others + above).min(axis=0) + later
            total += problem.fixed[e] + k.refusal_cost + _risk_until(problem, e, eta, price)[problem.steps]
            refused[e] = total[possible].min(initial=np.inf)
    return free, refused


def _risk_until(problem: Problem, e: int, eta: np.ndarray, price: np.ndarray) -> np.ndarray:
    """What the price of risk says beyond the prices of the transactions when only the steps before t count, (T,).

    The prices of what was sent before t include the steps from t on: these are taken off, with N(t) at most cap W(t).
    """
    if problem.slope == 0 or not eta[:, e].any():
        return np.zeros(len(eta))
    keep = math.exp(-problem.k.step_ms / problem.k.risk_memory_ms)
    target = problem.slope * problem.k.risk_target * (np.cumsum(eta[:, e]) - eta[:, e])
    return keep * price[0, e] * problem.risk_start[e] - target - price[:, e] * problem.cap * problem.mass[:, e]


def _channel(problem: Problem, e: int, c: int, mu: np.ndarray, price: np.ndarray, after) -> tuple:
    """Forward dynamic programme of one channel of one copy: least[v] is the least cost of what it takes so far, minus
    the multipliers, with which its workload (in cells, rounded down) is v.

    Returns the least at the end, and for each slot the least before it plus the price of the work waiting then
    (`after`), at any workload and at those above the buffer, (K,) each.
    """
    k, N, h = problem.k, problem.k.num_routers, FINE_CELL
    G = int(LARGEST_WORKLOAD / h)
    lower = np.maximum(np.arange(G) - 1, 0) * h  # the true workload is above it
    room = min(int(k.buffer_ms[c] / h) + 2, G)  # cells from which a transaction may be accepted
    served = np.diff(np.ceil(problem.curve[:, e, c] / h).astype(np.int64))
    work = np.floor(problem.work[:, e, c] / h).astype(np.int64)
    least, top = np.full(G, np.inf), min(int(problem.start[e, c] / h), G - 1)  # top: highest cell that was reached
    least[top] = 0.0
    anywhere, above, taken = np.full(len(mu), np.inf), np.full(len(mu), np.inf), 0
    for t in range(len(served)):
        reach = min(top + 1 + int(work[t * N : (t + 1) * N].sum()), G)
        wait = _waits(problem, e, c, np.array([t]), lower[:reach])[0]
        if after is not None:
            prices = np.interp(problem.curve[t, e, c] + lower[:reach], problem.curve[:, e, c], after[0][:, c])
        for n in range(t * N, (t + 1) * N):
            if not problem.present[n, e]:
                continue
            now = least[: top + 1]
            if after is not None:
                whole = now + prices[: top + 1]
                anywhere[n] = whole.min()
                full = int(k.buffer_ms[c] / h) - taken - 2  # each was rounded down by a cell or less
                full = min(max(full, 0), G - 1)
                above[n] = whole[full:].min(initial=np.inf)
                taken += 1
            free = min(top + 1, room)
            cost = now[:free] + _cost(problem, n, e, c, price[t, e], wait[:free]) - mu[n, e]
            x, top = int(work[n]), max(top, min(free - 1 + int(work[n]), G - 1))
            fits = max(min(free, G - 1 - x), 0)
            np.minimum(least[x : x + fits], cost[:fits], out=least[x : x + fits])
            if fits < free:
                least[G - 1] = min(least[G - 1], cost[fits:].min())
        s = min(int(served[t]), top)
        if s:
            lowest = least[: s + 1].min()
            least[: top + 1 - s] = least[s : top + 1]
            least[top + 1 - s : top + 1] = np.inf
            least[0] = lowest
            top -= s
    return least.min(), anywhere, above


def _cost(problem: Problem, n: int, e: int, c: int, price: float, wait: np.ndarray) -> np.ndarray:
    """Cost of sending the transaction of slot n to channel c behind each of the waits."""
    k = problem.k
    cost = problem.weight[n, e] * (k.base_latency_ms[c] + wait) + k.fee_weight * k.fees[c]
    if price > 0:
        delay = np.minimum((problem.age[n, e] + wait) / 1000.0, k.delay_risk_limit_s)
        risk = k.risk_rates[c] * problem.size[n, e] * (1.0 + k.delay_risk * delay)
        cost += price * problem.amount[n, e] * np.minimum(risk, problem.cap)
    return cost


# ------------------------------------------------------- the search for multipliers


@dataclass
class RoughChannels:
    """All channels of all copies together on a rough grid, rounded to the nearest cell: quick, and no bound."""

    problem: Problem

    def __post_init__(self):
        p, h, G = self.problem, ROUGH_CELL, ROUGH_CELLS
        K, E, C = p.work.shape
        workloads, steps = np.arange(G) * h, np.arange(K // p.k.num_routers)
        self.wait = np.empty((len(steps), E, C, G), np.float32)
        for e in range(E):
            for c in range(C):
                self.wait[:, e, c] = _waits(p, e, c, steps, workloads)
        self.work = np.minimum(np.rint(p.work / h).astype(np.int64), G)  # (K, E, C) cells
        self.served = np.minimum(np.diff(np.rint(p.curve / h).astype(np.int64), axis=0), G)  # (T, E, C)
        self.start = np.minimum(np.rint(p.start / h).astype(np.int64), G - 1)
        self.full = np.arange(G) * h > np.asarray(p.k.buffer_ms)[:, None]  # (C, G)
        self.outside = self.full.any()
        # Values stand in the middle third of a row, their ends repeated left and right: any shift is one look-up.
        self.middle = (np.arange(E * C).reshape(E, C, 1) * 3 + 1) * G + np.arange(G)

    def play(self, mu, price, keep: list | None = None):
        """Backward programme for mu (K, E) and price (T, E), then the channels' best choices from the start.

        Returns value (E,), taken (K, E, C) bool and waits (K, E, C) ms. keep: a list that takes the values after each
        slot, (E, C, G), last slot first.
        """
        p, G, N = self.problem, ROUGH_CELLS, self.problem.k.num_routers
        K, E, C = self.work.shape
        k0, k1 = self._lines(mu, price)  # (K, E, C): cost is k0 + k1 * wait
        row = np.zeros((E, C, 3, G), np.float32)
        value, flat = row[:, :, 1], row.reshape(-1)
        choice = np.zeros((K, E, C, G), bool)
        for n in range(K - 1, -1, -1):
            if n % N == N - 1:
                row[:, :, 0] = value[..., :1]
                value[:] = flat.take(self.middle - self.served[n // N][..., None])
            if keep is not None:
                keep.append(value.copy())
            if not p.present[n].any():
                continue
            row[:, :, 2] = value[..., -1:]
            cost = self.wait[n // N] * k1[n][..., None]
            cost += k0[n][..., None]
            cost += flat.take(self.middle + self.work[n][..., None])
            if self.outside:
                cost[:, self.full] = np.inf
            np.less(cost, value, out=choice[n])
            np.minimum(cost, value, out=value)
        return self._follow(choice, value)

    def _lines(self, mu, price):
        p, k = self.problem, self.problem.k
        risk = np.repeat(price, k.num_routers, axis=0) * p.amount * p.size  # (K, E)
        risk = risk[..., None] * np.asarray(k.risk_rates)  # (K, E, C)
        k0 = p.weight[..., None] * np.asarray(k.base_latency_ms) + k.fee_weight * np.asarray(k.fees)
        k0 += risk * (1.0 + k.delay_risk * p.age[..., None] / 1000.0) - mu[..., None]
        k0[~p.present] = np.inf
        return k0.astype(np.float32), (p.weight[..., None] + risk * k.delay_risk / 1000.0).astype(np.float32)

    def _follow(self, choice, value):
        G, N, (K, E, C) = ROUGH_CELLS, self.problem.k.num_routers, self.work.shape
        e, c = np.ogrid[:E, :C]
        v, taken, waits = self.start.copy(), np.zeros((K, E, C), bool), np.zeros((K, E, C))
        total = value[e, c, v].sum(axis=1, dtype=np.float64)
        for n in range(K):
            taken[n] = choice[n, e, c, v]
            waits[n] = self.wait[n // N, e, c, v]
            v = np.minimum(v + taken[n] * self.work[n], G - 1)
            if n % N == N - 1:
                v = np.maximum(v - self.served[n // N], 0)
        return total, taken, waits


def _multipliers(problem: Problem, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Subgradient steps with momentum for mu (K, E) and eta (T, E): the best met for each copy.

    A transaction that no channel takes is paid more, one that several take less; eta grows where R' is above target.
    """
    k, (K, E), present = problem.k, problem.present.shape, problem.present
    T = K // k.num_routers
    factor = problem.work[..., 0] / k.work_ms[0]  # service factors
    mu = np.where(present, 1.0 + factor + 40.0 * problem.weight, 0.0)
    eta = np.full((T, E), 0.1 * (problem.slope > 0))
    best, best_mu, best_eta, momentum = np.full(E, -np.inf), mu.copy(), eta.copy(), np.zeros_like(mu)
    rough = RoughChannels(problem) if iterations else None
    length = FIRST_STEP
    for _ in range(iterations):
        price, constant = _risk_prices(problem, eta)
        value, taken, waits = rough.play(mu, price)
        value += constant + problem.fixed + mu.sum(axis=0)
        better = value > best
        best = np.where(better, value, best)
        best_mu[:, better], best_eta[:, better] = mu[:, better], eta[:, better]
        length *= LAST_STEP ** (1.0 / iterations)
        momentum = 0.7 * momentum + 0.3 * np.where(present, 1.0 - taken.sum(axis=2), 0.0)
        mu += length * momentum
        if problem.slope > 0:
            above = (_risk_path(problem, taken, waits) - k.risk_target) / (k.risk_limit - k.risk_target)
            eta = np.clip(eta + 2.0 * length * above, 0.0, 1.0)
    return best_mu, best_eta


def _risk_path(problem: Problem, taken: np.ndarray, waits: np.ndarray) -> np.ndarray:
    """R' of what the channels take, (T, E)."""
    k, keep = problem.k, math.exp(-problem.k.step_ms / problem.k.risk_memory_ms)
    delay = 1.0 + k.delay_risk * (problem.age[..., None] + waits) / 1000.0
    risk = problem.amount * problem.size * (taken * np.asarray(k.risk_rates) * delay).sum(axis=2)  # (K, E)
    risk = risk.reshape(-1, k.num_routers, risk.shape[1]).sum(axis=1)
    before = problem.risk_start
    for t in range(len(risk)):
        risk[t] = before = keep * before + risk[t]
    return risk / problem.mass


# ------------------------------------------------------------------ after a refusal


def _after_refusal(problem: Problem, e: int, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Cumulated prices of channel work at the start of each step (T + 1, C), and the least that each transaction then
    pays, beyond the fixed cost, (K,). Subgradient steps for prices; any prices that do not fall below 0 are valid."""
    curve, K = problem.curve[:, e], len(problem.present)
    served = np.diff(curve, axis=0)
    price = np.full(served.shape, 1.0) / problem.k.work_ms  # of a ms of work in each step
    best, found = -np.inf, None
    slots = np.flatnonzero(problem.present[:, e])
    for iteration in range(max(iterations, 1)):
        cumulated = np.concatenate([np.zeros((1, served.shape[1])), np.cumsum(price * served, axis=0)])
        least, channel, place = _cheapest_places(problem, e, slots, cumulated)
        value = least.sum() - cumulated[-1].sum()
        if value > best:
            whole = np.zeros(K)
            whole[slots] = least
            best, found = value, (cumulated, whole)
        used = np.zeros_like(curve)
        for c in range(served.shape[1]):
            here = channel == c
            work = problem.work[slots[here], e, c]
            used[:, c] = np.clip(curve[:, c, None] - place[here], 0.0, work).sum(axis=1)
        excess = (np.diff(used, axis=0) - served) / problem.k.step_ms
        price = np.maximum(price + 0.03 * 0.03 ** (iteration / max(iterations, 1)) * excess, 0.0)
    return found


def _cheapest_places(problem: Problem, e: int, slots: np.ndarray, cumulated: np.ndarray):
    """For each transaction the cheapest channel and place in its work, alone: least cost, channel (-1: left over) and
    place (ms on the channel's curve), (J,) each.

    Wait and price are piecewise linear in the place, with corners where the transaction's work begins or ends at the
    start of a step: only these are tried, for WINDOW steps; what comes later waits at least as long as the last of
    them, and its price counts as nothing.
    """
    k, D, T = problem.k, problem.k.step_ms, len(cumulated) - 1
    first = slots // k.num_routers
    steps = np.minimum(first[:, None] + np.arange(WINDOW + 1), T)  # (J, WINDOW + 1)
    per_ms = np.minimum(problem.weight[slots, e], 1.0 / k.latency_target_ms)  # in the channel, or pending
    least = k.leftover_cost + (D / k.latency_target_ms) * (T - first)
    channel, place = np.full(len(slots), -1), np.zeros(len(slots))
    each = np.arange(len(slots))
    for c in range(k.num_channels):
        curve, work = problem.curve[:, e, c], problem.work[slots, e, c][:, None]
        longer, times = np.append(curve, 1e9 + curve[-1]), np.append(D * np.arange(T + 1), 1e9 + D * T)
        prices = np.append(cumulated[:, c], cumulated[-1, c])
        begins = curve[steps]
        ends = np.maximum(curve[steps] - work, begins[:, :1])  # where work begins that ends at the start of a step
        waits = np.maximum(np.interp(ends - NUDGE, longer, times) - D * first[:, None], 0.0)
        pays = [np.interp(x + work, longer, prices) - np.interp(x, longer, prices) for x in (begins, ends)]
        pays[1][steps[:, -1] < T, -1] = 0.0  # stands for all that comes later
        cost = per_ms[:, None] * np.concatenate([D * (steps - first[:, None]), waits], axis=1)
        cost += np.concatenate(pays, axis=1)
        choice = cost.argmin(axis=1)
        total = cost[each, choice] + problem.weight[slots, e] * k.base_latency_ms[c] + k.fee_weight * k.fees[c]
        better = total < least
        least = np.where(better, total, least)
        channel = np.where(better, c, channel)
        place = np.where(better, np.concatenate([begins, ends], axis=1)[each, choice], place)
    return least, channel, place


# ------------------------------------------------------------------ play that knows the future

STATE = (
    "_workload _pending _next_row _head _in_flight _ack_wait _refused_flag _arrival_average _mass _risk_mass "
    "_latency_sum _latency_count _refusals _busy _observed _work_so_far"
).split()


class ClairvoyantRollout:
    """Feasible play with knowledge that no router has: a policy for `play` and `evaluate`.

    At every step each joint action (C^N) is tried on copies of the simulator, which go on with `rule` for `horizon`
    steps and meet what really follows; the one with the largest team reward is played (rollout: Bertsekas 1997).

    rule: must look at the environment's workloads and the heads of the queues alone, as the global index does; the
    copies' acknowledgements are not those of the environment. ValueError for more than 243 joint actions.
    """

    def __init__(self, rule: Rule, horizon: int = 30):
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1 step, found {horizon}")
        if not rule.needs_env:
            raise ValueError(
                f"{type(rule).__name__} decides from acknowledgements, which the copies do not carry: "
                "give a rule that reads the environment, such as the global index"
            )
        self.rule, self.horizon = rule, horizon

    def begin_episode(self, env: TransactionRoutingEnv) -> None:
        k = env.constants
        count = k.num_channels**k.num_routers
        if count > 243:
            raise ValueError(
                f"{k.num_channels} channels and {k.num_routers} routers have {count} joint actions; a "
                "rollout tries them all and takes at most 243"
            )
        self.env = env
        joint = np.stack(np.meshgrid(*[np.arange(k.num_channels)] * k.num_routers, indexing="ij"), axis=-1)
        self.joint = joint.reshape(count, k.num_routers)  # (A, N)
        self.copies = _repeated(env, count)
        self.rule.begin_episode(self.copies)

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """Observations are not looked at. -> the best joint action, (N,) or (E, N)."""
        env, copies, count = self.env, self.copies, len(self.joint)
        for name in STATE:
            setattr(copies, name, np.repeat(getattr(env, name), count, axis=0))
        copies._t, total, actions = env._t, 0.0, np.tile(self.joint, (env._E, 1))  # (E A, N)
        for _ in range(min(self.horizon, env._T - env._t)):
            seen, rewards, _, _ = copies.step(actions)
            total = total + rewards.sum(axis=1, dtype=np.float64)
            if copies._t < copies._T:
                actions = self.rule(seen)
        best = self.joint[total.reshape(env._E, count).argmax(axis=1)]
        return best if env.num_envs else best[0]


def clairvoyant_rollout(env: TransactionRoutingEnv, seeds, horizon: int = 30) -> dict[str, np.ndarray]:
    """Metrics and team_return (E,) of `ClairvoyantRollout` of the tuned global index; env stacked, as in `play`."""
    rule = tuned_rule("global index", env.difficulty, env.constants)
    return play(env, ClairvoyantRollout(rule, horizon), seeds)


def _repeated(env: TransactionRoutingEnv, count: int) -> TransactionRoutingEnv:
    """An environment with `count` copies of each copy of env, next to each other, in the same episodes."""
    first = {
        name: np.repeat(getattr(env.episodes, name), count, axis=0) for name in ("hours", "first", "initial_workload")
    }
    second = {name: np.repeat(getattr(env.episodes, name), count, axis=1) for name in ("counts", "capacity", "served")}
    copies = copy.copy(env)
    copies.episodes = replace(env.episodes, **first, **second)
    copies.num_envs = copies._E = env._E * count
    copies._set_up_constants(env.constants)
    copies._set_up_capacity_curves()
    for name in ("_ack_count", "_ack_add", "_latencies", "_channels", "_risks"):  # records: rows, then copies
        old = getattr(env, name)
        setattr(copies, name, np.zeros((old.shape[0], copies._E, *old.shape[2:]), old.dtype))
    return copies
