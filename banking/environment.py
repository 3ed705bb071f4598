"""TransactionRoutingEnv: three routers send payments over three shared channels, without seeing each other.

The fast channel is cheap and risky, the safe one slow and dear, and each is a queue that all routers fill: what is best
for one transaction depends on what the other routers just did. See constants.py and traffic.py first; here are the
rules of one step. The queues follow Lindley (1952), "The theory of queues with a single server".
Shapes: T steps, E environments (copies), N routers, C channels. Times are in ms, amounts and fees in dollars.

One step t: (1) each router in turn (router t mod N first) sends the head of its queue to a channel, unless that channel
is full; (2) channels work for D ms; (3) rewards; (4) arrivals of step t + 1 join, completions are acknowledged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from banking.consequences import Played, consequences
from banking.constants import checked_multiplier, checked_outage, routing_constants
from banking.metrics import episode_metrics
from banking.observations import LATENCY_LIMIT, LATENCY_SCALE, MAX_AGE_MS, PENDING_LIMIT, PENDING_SCALE
from banking.traffic import (
    AMOUNT,
    ARRIVAL,
    HALF_SIZE,
    PRESENT,
    SERVICE,
    URGENT,
    WEIGHT,
    WORK_GRID,
    TrafficSource,
    draw_episodes,
)


class TransactionRoutingEnv:
    """The banking problem, E copies at once in numpy.

    Protocol: `reset(seed) -> observations (N, 19)`, `step(actions (N,)) -> observations, rewards (N,), dones (N,),
    info`; with `num_envs=E` every array has a leading E. Actions are channel numbers 0..C-1. The episode is cut
    after T = 600 steps: `info["truncated"]`. No auto-reset.

    num_envs: None for one plain environment, or the number of copies. Copy e reset with seed k is a single environment
        reset with seed k, bit for bit.
    difficulty: "easy", "medium" or "hard". scenario: None or "outage" (one channel is down for 60-120 steps).
    seed: of the stream that `reset()` without a seed takes its episodes from.
    traffic_source: replaces the arrivals: a callable `rng -> dict` with "arrivals" (T, N) counts, and with "amounts",
        "urgent" and optionally "service" (service factors, mean 1): one entry a transaction, by step, then by router.
    arrival_multiplier: (T,) factor on the arrival rates. ack_delay_steps: acknowledgements arrive this many steps late.
    outage: (channel number or name, first step, number of steps) in every episode.
    consequences: hand over `info["consequences"]` at the last step: the cost of every channel for every decision, (T,
        N, C) or (E, T, N, C), NaN where nothing was pending (consequences.py). For training; no agent observes it.
    constants: any field of `RoutingConstants`. Errors: ValueError naming what is wrong, found and needed.
    """

    discrete_actions = True

    def __init__(
        self,
        num_envs: int | None = None,
        difficulty: str = "medium",
        scenario: str | None = None,
        seed: int | None = None,
        *,
        traffic_source: TrafficSource | None = None,
        arrival_multiplier: Sequence[float] | None = None,
        ack_delay_steps: int = 0,
        outage: tuple[int | str, int, int] | None = None,
        consequences: bool = False,
        **constants,
    ):
        if num_envs is not None and (int(num_envs) != num_envs or num_envs < 1):
            raise ValueError(f"num_envs must be None or a whole number from 1, found {num_envs!r}")
        if int(ack_delay_steps) != ack_delay_steps or ack_delay_steps < 0:
            raise ValueError(f"ack_delay_steps must be a whole number from 0, found {ack_delay_steps!r}")
        if traffic_source is not None and arrival_multiplier is not None:
            raise ValueError("arrival_multiplier acts on drawn traffic: leave it out, or traffic_source")
        self.num_envs = None if num_envs is None else int(num_envs)
        self.scenario, self.traffic_source, self.ack_delay_steps = scenario, traffic_source, int(ack_delay_steps)
        self._overrides, self._hands_over_consequences = constants, bool(consequences)
        self._entropy = np.random.default_rng(seed)
        self._t: int | None = None  # the step; None until the first reset
        self.set_difficulty(difficulty)
        k = self.constants = self._next_constants
        self.num_agents, self.action_space_size = k.num_routers, k.num_channels
        self.observation_space_size = 10 + 3 * k.num_channels
        self.state_size = k.num_routers + k.num_channels + 2
        self.arrival_multiplier = checked_multiplier(arrival_multiplier, int(k.episode_steps))
        self.outage = checked_outage(outage, k)

    def set_difficulty(self, name: str) -> None:
        """Take "easy", "medium" or "hard" from the next reset on; constants given to the constructor stay as given."""
        self._next_constants = routing_constants(name, self.scenario, self._overrides)
        self.difficulty = name

    def world(self) -> dict:
        """All that scales observations and tells channels here, as plain values: `TransactionRoutingEnv(**constants)`
        with those of "constants" is this world again. "agents": a name a router."""
        constants = {name: np.asarray(value).tolist() for name, value in asdict(self.constants).items()}
        return {"agents": [f"router {i + 1}" for i in range(self.num_agents)], "constants": constants}

    # ------------------------------------------------------------------ reset

    def reset(self, seed: int | Sequence[int] | None = None) -> np.ndarray:
        """Start new episodes; observations float32 (N, O) or (E, N, O). An int s means seeds s, s+1, ..., s+E-1."""
        seeds = self._seeds(seed)
        k = self.constants = self._next_constants
        self._t = None  # should drawing the episode fail
        self.episodes = draw_episodes(k, seeds, self.traffic_source, self.arrival_multiplier, self.outage)
        E, T, N, C = len(seeds), int(k.episode_steps), k.num_routers, k.num_channels
        self._E, self._T, self._N, self._C = E, T, N, C
        self._set_up_constants(k)
        self._set_up_capacity_curves()
        self._t = 0
        self._workload = self.episodes.initial_workload.copy()  # (E, C)
        self._pending = np.zeros((E, N), np.int64)
        self._next_row = self.episodes.first.copy()  # (E, N) row of the transaction at the head, if one is pending
        self._in_flight = np.zeros((E, N, C))  # dispatched and not yet acknowledged
        self._ack_wait = np.zeros((E, N, C))  # average acknowledged latency minus the base latency
        # Acknowledgements due at each step. Several are composed in order of completion: each moves the average by
        # average <- keep * average + (1 - keep) * latency, all together by keep^count * average + add. What is due
        # after the end goes to the last row, which nobody reads.
        self._ack_count = self._reused("_ack_count", (T + 2, E, N, C), np.int16, 0)
        self._ack_add = self._reused("_ack_add", (T + 2, E, N, C), np.float64, 0)
        self._refused_flag = np.zeros((E, N, C))
        self._arrival_average = np.tile(self._mean_arrivals, (E, 1))  # (E, N)
        self._mass = np.tile(self._stationary_mass, (E, 1))  # (E, N) decayed dollars
        self._risk_mass = k.initial_risk * self._mass  # (E, N) decayed dollars times risk
        self._latency_sum, self._latency_count = np.zeros(E), np.zeros(E)
        self._latencies = self._reused("_latencies", (T, E, N), np.float64, np.inf)  # records for the metrics; inf, -1:
        self._channels = self._reused("_channels", (T, E, N), np.int8, -1)  # nothing dispatched
        self._risks = self._reused("_risks", (T, E), np.float64, 0)
        self._refusals = np.zeros(E)
        self._busy = np.zeros((E, C))  # ms of work done
        self._played = Played.empty(T, E, N, C) if self._hands_over_consequences else None
        self._observed = np.empty((E, N, self.observation_space_size), np.float32)
        hours = 2.0 * np.pi * self.episodes.hours / 24.0  # (E,)
        self._observed[..., -2] = np.sin(hours)[:, None]
        self._observed[..., -1] = np.cos(hours)[:, None]
        self._begin_step()
        return self._unstacked(self._observations())

    def _seeds(self, seed) -> list[int]:
        copies = self.num_envs or 1
        if seed is None:
            return [int(s) for s in self._entropy.integers(2**63, size=copies)]
        if np.ndim(seed) == 0:
            if not isinstance(seed, (int, np.integer)) or seed < 0:
                raise ValueError(f"seed must be a whole number from 0, or one for each copy; found {seed!r}")
            return [int(seed) + e for e in range(copies)]
        if len(seed) != copies or any(not isinstance(s, (int, np.integer)) or s < 0 for s in seed):
            raise ValueError(f"seed must be one whole number from 0, or {copies} of them, one a copy; found {seed!r}")
        return [int(s) for s in seed]

    def _reused(self, name: str, shape: tuple, dtype, fill) -> np.ndarray:
        """Fresh contents in the array of the last episode: large new arrays cost more than filling old ones."""
        array = getattr(self, name, None)
        if array is None or array.shape != shape:
            return np.full(shape, fill, dtype)
        array.fill(fill)
        return array

    def _set_up_constants(self, k) -> None:
        self._base, self._fees = np.asarray(k.base_latency_ms), np.asarray(k.fees)
        self._rho, self._buffers, self._work = np.asarray(k.risk_rates), np.asarray(k.buffer_ms), k.work_ms
        self._mean_arrivals = k.load * np.asarray(k.arrival_rates)
        self._risk_keep = math.exp(-k.step_ms / k.risk_memory_ms)
        # The decayed dollars of a router that sends all that arrives, so that R starts where it usually is (and the
        # risk of a router without arrivals is not 0 / 0).
        self._stationary_mass = np.maximum(self._mean_arrivals * k.mean_amounts, 1e-9) / (1.0 - self._risk_keep)
        self._keep_powers = (1.0 - k.latency_memory) ** np.arange(self._T + 1)
        self._copy_row = np.arange(self._E) * self._C  # (E,) first entry of each copy in a flat (E, C) array
        self._router_row = np.arange(self._E * self._N).reshape(self._E, self._N) * self._C  # same for (E, N, C)

    def _set_up_capacity_curves(self) -> None:
        """One curve a queue: the work it can have done by each step, exact on the work grid, and a last point at
        infinity. A table says where each multiple of D falls on it; the search for a waiting time starts there."""
        T, queues, D = self._T, self._E * self._C, self.constants.step_ms
        served = np.ascontiguousarray(self.episodes.served.transpose(1, 2, 0)).reshape(queues, T)
        curve = np.full((queues, T + 2), np.inf)
        curve[:, 0] = 0.0
        np.cumsum(served, axis=1, out=curve[:, 1:-1])
        pace = np.ones((queues, T + 2))  # ms for one ms of work; after T a channel works at its mean capacity
        np.divide(D, served, out=pace[:, :T], where=served > 0)
        bins = (curve[:, :-1] * (1.0 / D)).astype(np.int64)
        self._num_bins = int(bins[:, -1].max()) + 2
        rows = np.arange(queues)[:, None]
        points = np.bincount((bins + self._num_bins * rows).ravel(), minlength=queues * self._num_bins).cumsum()
        # Last point of the curve before each bin. Curves follow each other in one flat array, T + 2 points each.
        self._point_before = (np.append(0, points[:-1]).reshape(queues, -1) + rows - 1).ravel().astype(np.int32)
        self._curve, self._pace = curve.ravel(), pace.ravel()
        self._plateau_end = None  # last point of the same height, when an outage makes a curve flat
        if (served == 0).any():
            rising = np.ones((queues, T + 2), bool)
            rising[:, :T] = served > 0
            end = np.where(rising.ravel(), np.arange(rising.size), rising.size)
            self._plateau_end = np.minimum.accumulate(end[::-1])[::-1]
        self._work_so_far = np.zeros((self._E, self._C))

    # ------------------------------------------------------------------- step

    def step(self, actions) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict]:
        """Route one step. actions: channel numbers, integers (N,) or (E, N); ignored where nothing is pending.

        Returns observations, rewards float32, dones bool and info: "truncated"; "details" of this step, as the routers
        met it (pending and workload before their decisions, risk after them); at the last step "episode_metrics" (see
        metrics.py). RuntimeError when the episode is over.
        """
        if self._t is None or self._t >= self._T:
            state = "has not been reset" if self._t is None else f"is over after {self._T} steps"
            raise RuntimeError(f"the environment {state}: call reset() before step()")
        k, t = self.constants, self._t
        chosen = self._checked_actions(actions)  # (E, N)
        workload_before, pending_before = self._workload.copy(), self._pending
        dispatched, work_ahead = self._dispatch(chosen)  # (E, N) bool, (E, N) ms
        refused = (pending_before > 0) & ~dispatched

        wait = self._waiting_time(work_ahead)  # (E, N)
        base = self._base.take(chosen)
        age = k.step_ms * (t - self._head[..., ARRIVAL])
        latency = age + base + wait
        self._acknowledge_later(chosen, dispatched, base + wait)
        risk = self._update_risk(chosen, dispatched, age + wait)  # (E,)

        served = self.episodes.served[t]
        workload_after = np.maximum(self._workload - served, 0.0)  # Lindley's recursion (BANKING-1)
        self._busy += self._workload - workload_after
        self._workload = workload_after
        self._work_so_far += served
        self._pending = pending_before - dispatched
        self._next_row += dispatched

        rewards = self._rewards(chosen, dispatched, refused, base + wait, risk)
        self._record(t, chosen, dispatched, refused, latency, risk)
        if self._played is not None:
            self._played.record(t, self._head, chosen, dispatched, workload_before, risk, _row_sum(self._mass))
        details = {
            "pending": pending_before,
            "action": chosen,
            "dispatched": dispatched,
            "amount": np.where(dispatched, self._head[..., AMOUNT], 0.0),
            "latency_ms": np.where(dispatched, latency, np.nan),
            "workload_ms": workload_before,
            "capacity": self.episodes.capacity[t],
            "risk": risk,
        }
        self._t += 1
        self._begin_step()
        over = self._t == self._T
        info = {"truncated": self._unstacked(np.full(self._E, over))}
        info["details"] = {name: self._unstacked(value) for name, value in details.items()}
        if over:
            metrics = episode_metrics(
                k,
                self._latencies,
                self._channels,
                self._risks,
                self._busy,
                self.episodes.served.sum(axis=0),
                self._refusals,
                self._pending.sum(axis=1),
            )
            info["episode_metrics"] = metrics if self.num_envs else {name: float(v[0]) for name, v in metrics.items()}
        if over and self._played is not None:
            costs = consequences(k, self._played, self.episodes.served)  # (T, E, N, C)
            info["consequences"] = self._unstacked(np.moveaxis(costs, 1, 0))
        dones = np.full((self._E, self._N), over)
        return self._unstacked(self._observations()), self._unstacked(rewards), self._unstacked(dones), info

    def _checked_actions(self, actions) -> np.ndarray:
        actions = np.asarray(actions)
        shape = (self._N,) if self.num_envs is None else (self._E, self._N)
        if actions.shape != shape:
            raise ValueError(f"actions must have shape {shape}, one channel number a router; found {actions.shape}")
        if actions.dtype.kind not in "iu":
            raise ValueError(f"actions must be integers 0..{self._C - 1}, found dtype {actions.dtype}")
        chosen = actions.astype(np.int64).reshape(self._E, self._N)
        if chosen.view(np.uint64).max() >= self._C:  # a negative number is a huge one here
            raise ValueError(f"actions must be 0..{self._C - 1}, found {actions.min()}..{actions.max()}")
        return chosen

    def _dispatch(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Serve the routers in rotating order; a full channel refuses. -> dispatched and the work ahead, (E, N)."""
        flat_workload = self._workload.reshape(-1)  # (E C), a view
        has_head = self._pending > 0
        work = self._work.take(chosen) * self._head[..., SERVICE]  # (E, N) ms
        work = np.rint(work * WORK_GRID) / WORK_GRID
        buffers = self._buffers.take(chosen)
        queue = chosen + self._copy_row[:, None]  # (E, N) flat index of the chosen channel
        ahead = np.empty((self._E, self._N))
        dispatched = np.empty((self._E, self._N), bool)
        for turn in range(self._N):
            i = (self._t + turn) % self._N
            q = queue[:, i]
            ahead[:, i] = found = flat_workload[q]
            dispatched[:, i] = accepted = has_head[:, i] & (found <= buffers[:, i])
            flat_workload[q] = found + accepted * work[:, i]  # one entry a copy: no index occurs twice
        self._queue = queue
        return dispatched, ahead

    def _waiting_time(self, work_ahead: np.ndarray) -> np.ndarray:
        """The smallest w in which the channel does the work ahead, exactly, on its realised capacity. (E, N) ms."""
        D, queue = self.constants.step_ms, self._queue.ravel()  # (E N,)
        target = self._work_so_far.take(queue) + work_ahead.ravel()  # on the queue's capacity curve
        bins = np.minimum((target * (1.0 / D)).astype(np.int64), self._num_bins - 1)
        now = queue * (self._T + 2) + self._t  # flat index of the present on the queue's curve
        point = np.maximum(self._point_before.take(queue * self._num_bins + bins), now)
        left = np.flatnonzero(self._curve.take(point + 1) < target)  # whose search has not ended: fewer and fewer
        while left.size:
            point[left] = step = point[left] + 1 if self._plateau_end is None else self._plateau_end[point[left] + 1]
            left = left[self._curve.take(step + 1) < target[left]]
        wait = D * (point - now) + (target - self._curve.take(point)) * self._pace.take(point)
        return wait.reshape(work_ahead.shape)

    def _acknowledge_later(self, chosen: np.ndarray, dispatched: np.ndarray, latency: np.ndarray) -> None:
        """Note the latency (without age) for the step at which the router learns it. One entry a router: no clash."""
        k, never = self.constants, self._T + 1
        due = np.ceil(latency / k.step_ms).astype(np.int64) + (self._t + self.ack_delay_steps)
        due = np.where(dispatched, np.minimum(due, never), never)
        own = self._router_row + chosen  # flat index into (E, N, C)
        self._in_flight.reshape(-1)[own] += dispatched
        slot = due * self._in_flight.size + own
        add, count = self._ack_add.reshape(-1), self._ack_count.reshape(-1)
        add[slot] = (1.0 - k.latency_memory) * add[slot] + k.latency_memory * (latency - self._base.take(chosen))
        count[slot] += dispatched

    def _update_risk(self, chosen: np.ndarray, dispatched: np.ndarray, delay_ms: np.ndarray) -> np.ndarray:
        """Portfolio risk R = N / W, value-weighted with exponential memory; every step decays, dispatch or not. (E,)"""
        exposure = self.constants.exposure(delay_ms)
        mass = self._head[..., AMOUNT] * dispatched  # (E, N) dollars
        risk_mass = mass * self._rho.take(chosen) * 2.0 * self._head[..., HALF_SIZE] * exposure
        self._mass = self._risk_keep * self._mass + mass
        self._risk_mass = self._risk_keep * self._risk_mass + risk_mass
        self._risk = _row_sum(self._risk_mass) / _row_sum(self._mass)  # (BANKING-6)
        return self._risk

    def _rewards(self, chosen, dispatched, refused, latency_ms, risk) -> np.ndarray:
        """Own cost of each router, mixed with the mean over routers, and the shared price of risk. (E, N) float32."""
        k = self.constants
        own = self._head[..., WEIGHT] * latency_ms / k.latency_target_ms + k.fee_weight * self._fees.take(chosen)
        own *= dispatched
        own += self._pending * (k.step_ms / k.latency_target_ms) + k.refusal_cost * refused
        if self._t == self._T - 1:
            own += k.leftover_cost * self._pending
        shared = k.price_of_risk(risk)  # (E,)
        mean = _row_sum(own) / self._N
        return -(k.own_weight * own + ((1.0 - k.own_weight) * mean + shared)[:, None]).astype(np.float32)  # (BANKING-2)

    def _begin_step(self) -> None:
        """Arrivals of step t join the queues, and what completed by now is acknowledged."""
        k, t = self.constants, self._t
        arrivals = self.episodes.counts[t]  # (E, N)
        self._pending = self._pending + arrivals
        if t < self._T:
            self._arrival_average += k.arrival_memory * (arrivals - self._arrival_average)
        nothing = len(self.episodes.transactions) - 1
        self._head = self.episodes.transactions.take(np.where(self._pending > 0, self._next_row, nothing), axis=0)
        acknowledged = self._ack_count[t]  # (E, N, C)
        self._ack_wait *= self._keep_powers.take(acknowledged)
        self._ack_wait += self._ack_add[t]
        self._in_flight -= acknowledged

    # ----------------------------------------------------------- what is seen

    def _observations(self) -> np.ndarray:
        """Local observations, float32 (E, N, 10 + 3C): the queue, its head, own experience of channels, the hour."""
        C, out, head = self._C, self._observed, self._head
        age = np.minimum((self._t - head[..., ARRIVAL]) * self.constants.step_ms, MAX_AGE_MS)
        own_risk = 100.0 * (self._risk_mass / self._mass - self.constants.risk_target)
        out[..., 0] = PENDING_SCALE * np.minimum(self._pending, PENDING_LIMIT)
        out[..., 1:5] = head[..., :4]  # present, log10(amount / 87), size factor / 2, urgent
        out[..., 5] = head[..., PRESENT] * age / LATENCY_SCALE
        out[..., 6 : 6 + C] = PENDING_SCALE * np.minimum(self._in_flight, PENDING_LIMIT)
        out[..., 6 + C : 6 + 2 * C] = np.minimum(self._ack_wait / LATENCY_SCALE, LATENCY_LIMIT)
        out[..., 6 + 2 * C : 6 + 3 * C] = self._refused_flag
        out[..., 6 + 3 * C] = self._arrival_average
        out[..., 7 + 3 * C] = np.minimum(np.maximum(own_risk, -2.0), 5.0)
        return out.copy()  # the last two, sine and cosine of the hour, were written at reset

    def named_inputs(self) -> dict[str, np.ndarray]:
        """What every router knows now, in units: the inputs of observations.py by name, (N,) or (E, N) each. That
        their `encode` equals `_observations`, which has no time for logarithms, is under test."""
        k, head = self.constants, self._head
        known = {
            "pending": self._pending,
            "amount": np.where(head[..., PRESENT] > 0, head[..., AMOUNT], k.size_reference),
            "urgent": head[..., URGENT],
            "head age": (self._t - head[..., ARRIVAL]) * k.step_ms,
        }
        per_channel = {"in flight": self._in_flight, "wait": self._ack_wait, "refused": self._refused_flag}
        for what, values in per_channel.items():
            known |= {f"{name} {what}": values[..., c] for c, name in enumerate(k.channel_names)}
        known["arrival rate"] = self._arrival_average / (k.step_ms / 1000.0)
        known["own risk"] = self._risk_mass / self._mass
        known["hour"] = np.broadcast_to(self.episodes.hours[:, None], (self._E, self._N))
        return {name: self._unstacked(np.array(values, dtype=float)) for name, values in known.items()}

    def state(self) -> np.ndarray:
        """What the central critic sees, float32 (8,) or (E, 8): pending of each router (scaled as in the observations),
        portfolio risk over its limit, work waiting at each channel / 200 ms (at most 8), and the average latency of the
        transactions dispatched lately (1 s memory) / 200 ms (at most 8)."""
        if self._t is None:
            raise RuntimeError("the environment has not been reset: call reset() before state()")
        N, C = self._N, self._C
        out = np.empty((self._E, self.state_size), np.float32)
        out[:, :N] = PENDING_SCALE * np.minimum(self._pending, PENDING_LIMIT)
        out[:, N] = _row_sum(self._risk_mass) / _row_sum(self._mass) / self.constants.risk_limit
        out[:, N + 1 : N + 1 + C] = np.minimum(self._workload / LATENCY_SCALE, LATENCY_LIMIT)
        average = self._latency_sum / np.maximum(self._latency_count, 1e-9)
        out[:, N + 1 + C] = np.minimum(average / LATENCY_SCALE, LATENCY_LIMIT)
        return self._unstacked(out)

    @property
    def workload_ms(self) -> np.ndarray:
        """Work waiting at each channel, (C,) or (E, C) in ms. For centralized references; agents do not see it."""
        return self._unstacked(self._workload.copy())

    @property
    def risk(self):
        """Portfolio risk R now, a float or (E,)."""
        return self._unstacked(_row_sum(self._risk_mass) / _row_sum(self._mass))

    @property
    def head_transactions(self) -> np.ndarray:
        """Head of each queue, (N, 8) or (E, N, 8): the columns named in traffic.py."""
        return self._unstacked(self._head.copy())

    @property
    def in_flight(self) -> np.ndarray:
        """Dispatched and not yet acknowledged, (N, C) or (E, N, C)."""
        return self._unstacked(self._in_flight.copy())

    # ---------------------------------------------------------------- metrics

    def _record(self, t, chosen, dispatched, refused, latency, risk) -> None:
        k = self.constants
        self._refused_flag *= k.refusal_memory
        if refused.any():
            self._refused_flag.reshape(-1)[(self._router_row + chosen)[refused]] = 1.0
            self._refusals += refused.sum(axis=1)
        self._latencies[t] = np.where(dispatched, latency, np.inf)
        self._channels[t] = np.where(dispatched, chosen, -1)
        self._risks[t] = risk
        self._latency_sum = self._risk_keep * self._latency_sum + _row_sum(np.where(dispatched, latency, 0.0))
        self._latency_count = self._risk_keep * self._latency_count + _row_sum(dispatched)

    def _unstacked(self, value):
        return value[0] if self.num_envs is None else value


def _row_sum(values: np.ndarray) -> np.ndarray:
    """Sum over the short last axis, in the same order for every number of copies. (E, N) -> (E,)"""
    total = values[:, 0].astype(np.float64)  # also of booleans
    for i in range(1, values.shape[1]):
        total = total + values[:, i]
    return total
