"""What happens to the routers whatever they decide: the randomness of one episode.

Every random number of an episode (arrivals, amounts, urgency, service times, capacity paths, outage, hour, initial
workloads) is drawn at reset from the copy's own generator. Replay, common random numbers and bit-exact stacking follow.
Shapes: T steps, E environments (copies), N routers, C channels, K transactions of all copies together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from banking.constants import RoutingConstants

# Workloads live on a grid of 2^-20 ms (about a nanosecond): sums of them are then exact in float64, so the workload
# balance holds without rounding and a waiting time cannot depend on how many copies are stacked.
WORK_GRID = 2.0**20


@dataclass(frozen=True)
class Episodes:
    """One episode for each of E copies. Transactions are sorted by copy, router and arrival, so a queue is a slice."""

    hours: np.ndarray  # (E,) in [0, 24)
    counts: np.ndarray  # (T + 1, E, N) arrivals at the start of each step; none at T, when the episode is over
    first: np.ndarray  # (E, N) row of each router's first transaction
    transactions: np.ndarray  # (K + 1, 8), columns below
    capacity: np.ndarray  # (T, E, C) capacity factor
    served: np.ndarray  # (T, E, C) ms of work a channel can do in a step, on the work grid
    initial_workload: np.ndarray  # (E, C) ms, on the work grid


# Columns of Episodes.transactions. The first four are observations as they stand: 1, log10(amount / 87), size factor
# m / 2, urgent; then dollars, weight of latency, service factor, arrival step.
PRESENT, LOG_AMOUNT, HALF_SIZE, URGENT, AMOUNT, WEIGHT, SERVICE, ARRIVAL = range(8)

TrafficSource = Callable[[np.random.Generator], dict]


def draw_episodes(
    constants: RoutingConstants,
    seeds: Sequence[int],
    traffic_source: TrafficSource | None = None,
    arrival_multiplier: np.ndarray | None = None,
    outage: tuple[int, int, int] | None = None,
) -> Episodes:
    """Draw one episode a seed. Copy e uses default_rng(seeds[e]) and nothing else, in the order written here.

    traffic_source: see TransactionRoutingEnv. arrival_multiplier: (T,) factor on the arrival rates.
    outage: (channel, first step, number of steps), in every episode, instead of the random outage.
    """
    k, T, N, C = constants, int(constants.episode_steps), constants.num_routers, constants.num_channels
    E = len(seeds)
    generators = [np.random.default_rng(seed) for seed in seeds]
    uniforms, normals = np.empty((E, 4 + C + (T + 1) * N)), np.empty((E, T * C))
    for e, rng in enumerate(generators):
        rng.random(out=uniforms[e])
        rng.standard_normal(out=normals[e])
    hours = 24.0 * uniforms[:, 0]
    capacity = _capacity_paths(k, normals.reshape(E, T, C), uniforms[:, 1:4], outage)  # (T, E, C)
    initial = uniforms[:, 4 : 4 + C] * k.initial_workload_ms
    if traffic_source is None:
        in_burst = _bursts(k, uniforms[:, 4 + C :].reshape(E, T + 1, N))  # (E, N, T)
        rates = _arrival_rates(k, hours, in_burst, arrival_multiplier)
        slots, amounts, urgent, service = _draw_traffic(k, generators, rates)
    else:
        users = [_user_traffic(k, rng, traffic_source) for rng in generators]
        slots, amounts, urgent, service = (list(parts) for parts in zip(*users, strict=True))
    counts = np.stack([np.bincount(copy, minlength=N * T) for copy in slots]).reshape(E, N, T)
    table = _transaction_table(k, np.concatenate(slots) % T, *(np.concatenate(p) for p in (amounts, urgent, service)))
    arrivals = np.zeros((T + 1, E, N), np.int64)
    arrivals[:T] = counts.transpose(2, 0, 1)
    return Episodes(
        hours=hours,
        counts=arrivals,
        first=_first_rows(counts.sum(axis=2)),
        transactions=table,
        capacity=capacity,
        served=np.rint(k.step_ms * capacity * WORK_GRID) / WORK_GRID,
        initial_workload=np.rint(initial * WORK_GRID) / WORK_GRID,
    )


def _capacity_paths(k: RoutingConstants, normals: np.ndarray, uniforms: np.ndarray, outage) -> np.ndarray:
    """AR(1) around 1, started in its stationary law, clipped; zero during an outage. (E, T, C) normals -> (T, E, C)."""
    memory = math.exp(-1.0 / k.capacity_steps)
    shock = math.sqrt(1.0 - memory**2)
    paths = np.ascontiguousarray(normals.transpose(1, 0, 2))  # (T, E, C)
    paths[1:] *= shock
    for t in range(1, len(paths)):
        paths[t] += memory * paths[t - 1]
    capacity = np.clip(1.0 + np.asarray(k.capacity_sd) * paths, *k.capacity_range)
    T, E, C = capacity.shape
    if outage is not None:
        channel, start, steps = outage
        capacity[start : start + steps, :, channel] = 0.0
    elif k.outage_probability > 0:
        shortest, longest = k.outage_steps
        steps = shortest + (uniforms[:, 1] * (longest - shortest + 1)).astype(np.int64)  # (E,)
        start = (uniforms[:, 2] * (T - steps + 1)).astype(np.int64)
        u = uniforms[:, 0]
        happens = u < k.outage_probability
        channel = (u / k.outage_probability * C).astype(np.int64)  # the same uniform, rescaled: exact and one draw less
        for e in np.flatnonzero(happens):
            capacity[start[e] : start[e] + steps[e], e, channel[e]] = 0.0
    return capacity


def _bursts(k: RoutingConstants, uniforms: np.ndarray) -> np.ndarray:
    """Two-state Markov chain of each router, started in its stationary law. (E, T + 1, N) -> (E, N, T) bool."""
    stay = 1.0 - 1.0 / k.burst_steps
    enter = k.burst_share / (1.0 - k.burst_share) / k.burst_steps
    u = np.ascontiguousarray(uniforms.transpose(1, 0, 2))  # (T + 1, E, N)
    in_burst = np.empty(u.shape, bool)
    in_burst[0] = u[0] < k.burst_share
    stays, enters = u < stay, u < enter
    for t in range(1, len(u)):
        in_burst[t] = np.where(in_burst[t - 1], stays[t], enters[t])
    return np.ascontiguousarray(in_burst[1:].transpose(1, 2, 0))


def _arrival_rates(k: RoutingConstants, hours, in_burst, multiplier) -> np.ndarray:
    """Mean arrivals of each router and step, (E, N, T)."""
    on = np.asarray(k.burst_factors)
    off = (1.0 - k.burst_share * on) / (1.0 - k.burst_share)  # the mean over time is 1
    daily = k.load * (1.0 + k.day_amplitude * np.cos(2.0 * np.pi * (hours - 14.0) / 24.0))  # (E,)
    calm = daily[:, None] * k.arrival_rates * off  # (E, N)
    busy = daily[:, None] * k.arrival_rates * on
    rates = np.where(in_burst, busy[:, :, None], calm[:, :, None])  # (E, N, T)
    return rates if multiplier is None else rates * multiplier


def _draw_traffic(k: RoutingConstants, generators, rates: np.ndarray):
    """Poisson arrivals at (E, N, T) rates: a Poisson total, and each arrival placed by the cumulated rate, which is the
    same law and quicker. Lists over copies of slots (router * T + step), amounts, urgent, service factors, (K_e,)."""
    E, N, T = rates.shape
    cumulated = np.cumsum(rates.reshape(E, N * T), axis=1)
    log_medians, urgency = np.log(k.amount_medians), np.asarray(k.urgent_probabilities)
    slots, amounts, urgent, service = [], [], [], []
    for e, rng in enumerate(generators):
        total = rng.poisson(cumulated[e, -1])
        places = np.sort(rng.random(total)) * cumulated[e, -1]
        slot = np.minimum(np.searchsorted(cumulated[e], places, side="right"), N * T - 1)
        router = slot // T
        log_amounts = k.amount_sigma * rng.standard_normal(total) + log_medians[router]
        slots.append(slot)
        amounts.append(np.minimum(np.maximum(np.exp(log_amounts), k.amount_range[0]), k.amount_range[1]))
        urgent.append(rng.random(total) < urgency[router])
        service.append(rng.standard_gamma(k.service_shape, total) / k.service_shape)
    return slots, amounts, urgent, service


def _user_traffic(k: RoutingConstants, rng: np.random.Generator, source: TrafficSource):
    """Call a user's source, check what it gives, and sort it by router (it gives transactions in order of time)."""
    given = source(rng)
    if not isinstance(given, dict) or not {"arrivals", "amounts", "urgent"} <= set(given):
        raise ValueError(
            "traffic_source must return a dict with arrivals, amounts and urgent; found "
            + (f"keys {sorted(given)}" if isinstance(given, dict) else repr(type(given)))
        )
    shape = (int(k.episode_steps), k.num_routers)
    counts = np.asarray(given["arrivals"])
    if counts.shape != shape or not np.issubdtype(counts.dtype, np.integer) or (counts < 0).any():
        raise ValueError(
            f"traffic_source: arrivals must be {shape} integers, none negative; found {counts.shape} "
            f"{counts.dtype}; give one count a step and router"
        )
    total = int(counts.sum())
    amounts = np.asarray(given["amounts"], dtype=np.float64)
    urgent = np.asarray(given["urgent"]).astype(bool)
    service = given.get("service")
    if service is None:
        service = rng.standard_gamma(k.service_shape, total) / k.service_shape
    service = np.asarray(service, dtype=np.float64)
    for name, values in (("amounts", amounts), ("urgent", urgent), ("service", service)):
        if values.shape != (total,):
            raise ValueError(f"traffic_source: {name} needs one entry a transaction, ({total},); found {values.shape}")
    if not np.isfinite(amounts).all() or (amounts <= 0).any():
        raise ValueError("traffic_source: amounts must be positive and finite; remove or repair the other rows")
    if not np.isfinite(service).all() or (service < 0).any():
        raise ValueError("traffic_source: service factors must be finite and not negative")
    slots = np.repeat(np.arange(counts.size).reshape(shape[1], shape[0]).T.ravel(), counts.ravel())
    order = np.argsort(slots, kind="stable")
    return slots[order], np.clip(amounts[order], *k.amount_range), urgent[order], service[order]


def _first_rows(totals: np.ndarray) -> np.ndarray:
    ends = np.cumsum(totals.ravel()).reshape(totals.shape)
    return ends - totals


def _transaction_table(k: RoutingConstants, steps, amounts, urgent, service) -> np.ndarray:
    """One row a transaction, and a last row of zeros for "no transaction". (K + 1, 8): one cache line a row."""
    log_size = np.log(amounts / k.size_reference)
    table = np.empty((amounts.size + 1, 8))
    table[-1] = 0.0
    rows = table[:-1]
    rows[:, PRESENT] = 1.0
    rows[:, LOG_AMOUNT] = log_size / math.log(10.0)
    rows[:, HALF_SIZE] = 0.5 * np.clip(np.exp(k.size_exponent * log_size), *k.size_range)  # (BANKING-4)
    rows[:, URGENT] = urgent
    rows[:, AMOUNT] = amounts
    rows[:, WEIGHT] = np.where(urgent, k.urgent_weight, k.standard_weight)
    rows[:, SERVICE] = service
    rows[:, ARRIVAL] = steps
    return table
