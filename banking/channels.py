"""Channels from a log: what settlement times say about base latency, work and queues.

A channel is taken for one first-come-first-served server with a fixed latency behind it, as in the environment: the
time to settlement is base + wait, and waits follow Lindley's recursion W <- max(0, W + work - gap), gap being the time
to the next transaction. The base is the smallest latency seen (its 2nd percentile, against strays). The work a
transaction makes is what gives the logged mean wait when the logged arrivals go through the recursion: one number, by
bisection, whatever the load was. Whether the model fits is told by days it was not fitted on (see `replay.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from banking.constants import RoutingConstants
from core.experiment.reporting.checks import CAUTION

BASE_PERCENT = 2.0
FEWEST = 30  # settled transactions of a channel on the training days
SHORTEST_BASE = 0.001  # seconds
DRAWS = 8  # of the service factors, when the work is fitted
IDLE_FACTOR = 20.0  # a channel that never has a queue is taken to carry this many times the whole traffic
BUFFER_FACTOR = 1.2  # a channel's buffer holds at least the longest wait seen, times this


def fastest_base(before: Any) -> float:
    """The smallest base latency of all channels, in seconds; infinite if nothing was settled."""
    settled = before.dropna(subset="latency")
    each = settled.groupby("channel", observed=True)["latency"].quantile(BASE_PERCENT / 100.0)
    return max(float(each.min()), SHORTEST_BASE) if len(each) else np.inf


def fit_channels(path: Path, before: Any, speed: float, total: float) -> tuple[tuple[str, ...], dict[str, Any], list]:
    """Channels of the training rows -> names from the fastest to the slowest, constants, notes for the report.

    before: pandas table with seconds, channel, latency (seconds, NaN: not settled) and perhaps fee, in order of time.
    speed: seconds of the log in a simulated second. total: transactions a step at load 1.
    """
    k, notes = RoutingConstants(), []
    open_rows = int(before["latency"].isna().sum())
    if open_rows:
        notes.append(f"not settled: {open_rows:,} training transactions; they arrive, and say nothing about channels")
    settled = before.dropna(subset="latency")
    names = settled["channel"].unique()
    if len(names) < 2:
        raise ValueError(
            f"{path}: only the channel {names[0] if len(names) else None!r} was found among the settled "
            "transactions of the training days; give two or more, or leave the column out"
        )
    found = []
    for name in names:
        rows = settled[settled["channel"] == name]
        if len(rows) < FEWEST:
            raise ValueError(
                f"{path}: the channel {name!r} has {len(rows)} settled transactions on the training days; "
                f"{FEWEST} are needed to fit it: leave its rows out, or give more days"
            )
        found.append(_fit_channel(str(name), rows, 0.001 * k.step_ms * speed / (IDLE_FACTOR * total)))
    found.sort(key=lambda channel: channel["base"])
    column = {key: np.array([channel[key] for channel in found]) for key in found[0]}
    names = tuple(column["name"].tolist())
    ranks = np.linspace(0, k.num_channels - 1, len(names))  # what the log cannot say goes by speed, as in the defaults

    def by_rank(defaults) -> np.ndarray:
        return np.interp(ranks, np.arange(k.num_channels), defaults)

    idle = [channel["name"] for channel in found if channel["idle"]]
    if idle:
        caution = CAUTION if len(idle) == len(found) else ""  # then no routing changed anything in this log
        notes.append(f"{caution}no queue was ever seen at {', '.join(idle)}: its capacity is a guess")
    in_ms = 1000.0 / speed
    fees = np.where(np.isfinite(column["fee"]), column["fee"], by_rank(k.fees))
    most = by_rank(np.asarray(k.buffer_ms) / k.work_ms) * column["work"]  # as many transactions as in the defaults
    constants = {
        "channel_names": names,
        "base_latency_ms": column["base"] * in_ms,
        "channel_rates": speed / column["work"],
        "fees": fees,
        "risk_rates": by_rank(k.risk_rates),
        "buffer_ms": np.maximum(most, BUFFER_FACTOR * column["longest"]) * in_ms,
        "initial_workload_ms": 2.0 * column["wait"] * in_ms,  # drawn uniformly from 0: the mean is the mean wait
        "capacity_sd": np.zeros(len(names)),  # what varies in the log is in the fitted work already
    }
    return names, constants, notes


def _fit_channel(name: str, rows: Any, least_work: float) -> dict[str, Any]:
    """Base latency, mean and longest wait and mean work in seconds, median fee (NaN: none) of one channel."""
    latency = rows["latency"].to_numpy()
    base = max(float(np.percentile(latency, BASE_PERCENT)), SHORTEST_BASE)
    waits = np.maximum(latency - base, 0.0)
    work = fit_work(rows["seconds"].to_numpy(), float(waits.mean()))
    fee = float(rows["fee"].median()) if "fee" in rows else np.nan
    return {
        "name": name,
        "base": base,
        "wait": float(waits.mean()),
        "longest": float(waits.max()),
        "work": max(work, least_work),
        "idle": work < least_work,
        "fee": fee,
    }


def fit_work(seconds: np.ndarray, mean_wait: float, seed: int = 0) -> float:
    """Mean work of a transaction, in seconds, with which arrivals at sorted `seconds` (K,) wait `mean_wait` on average.

    The average is over DRAWS of the service factors, which the environment draws from the same law.
    """
    k = RoutingConstants()
    service = np.random.default_rng(seed).standard_gamma(k.service_shape, (DRAWS, len(seconds))) / k.service_shape
    gaps = np.diff(seconds)

    def too_short(work: float) -> bool:
        return waits(work * service, gaps).mean() < mean_wait

    low = high = max(1e-6, 1e-3 * float(np.median(gaps)))
    while too_short(high):
        low, high = high, 2.0 * high
    while high - low > 1e-4 * high:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if too_short(middle) else (low, middle)
    return 0.5 * (low + high)


def waits(work: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """Lindley's recursion from an empty queue: work (..., K) and gaps (K - 1,) -> waits (..., K)."""
    sums = np.zeros(work.shape)
    np.cumsum(work[..., :-1] - gaps, axis=-1, out=sums[..., 1:])
    return sums - np.minimum.accumulate(sums, axis=-1)


def unknown_channels(total: float) -> dict[str, Any]:
    """The built-in channels, for logs without: their capacities keep their ratio to the traffic of load 1."""
    k = RoutingConstants()
    return {"channel_rates": np.asarray(k.channel_rates) * total / sum(k.arrival_rates)}
