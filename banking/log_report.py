"""What a transaction log holds and what was fitted on it, for a person to read before anything is trained."""

from __future__ import annotations

from datetime import timedelta

from banking.constants import RoutingConstants, routing_constants
from banking.data import BUSY_PERCENT, Log, constants_path
from core.experiment.reporting.csv_table import counted, duration


def data_report(log: Log) -> str:
    """What is in the file, what was dropped and why, the split and the fitted constants, for a person."""
    k, training, K = routing_constants("medium", None, dict(log.constants)), log.training, len(log.seconds)
    day = [(log.midnight + timedelta(seconds=log.seconds[i])).date() for i in (0, training - 1, training, K - 1)]
    step = log.speed * k.step_ms / 1000
    length = k.episode_steps * step
    target, apart = 0.001 * k.latency_target_ms * log.speed, int((log.seconds[-1] - log.seconds[training]) / length)
    lines = [
        f"Data report: {log.path}",
        f"  {counted(log.rows, 'row')}, {day[0]} to {day[3]}: {counted(K, 'transaction')} of "
        f"{counted(k.num_routers, 'router')}",
        *(f"  {note}" for note in log.notes),
        f"  training: {day[0]} to {day[1]} ({counted(training, 'transaction')}); test: {day[2]} to {day[3]} "
        f"({counted(K - training, 'transaction')})",
        f"  load 1: {log.busy:.0f} transactions an hour (the {BUSY_PERCENT}th percentile of the hours with traffic), "
        f"{sum(k.arrival_rates):.2f} a step; the training days have {_mean_load(log):.2f} on average",
        f"  clock: 1 simulated ms is {duration(0.001 * log.speed)} of your log; a step is {duration(step)}, an episode "
        f"{k.episode_steps} steps or {duration(length)}; the latency target is {duration(target)}",
        f"  The test days hold {counted(apart, 'episode')} without overlap: the intervals in the tables say how sure "
        "the means over these test days are, not how other days would turn out.",
        "  fitted on the training days:",
        *_router_lines(log, k),
        *_channel_lines(log, k),
    ]
    file = constants_path(log.path).name
    lines += [
        f"  known from {file}: {', '.join(log.known)}"
        if log.known
        else f"  What is assumed decides what is cheap and what is risky: put yours into {file}"
    ]
    return "\n".join(lines)


def _mean_load(log: Log) -> float:
    seconds = log.seconds[: log.training]
    return len(seconds) / (seconds[-1] - seconds[0]) * 3600 / log.busy


def _router_lines(log: Log, k: RoutingConstants) -> list[str]:
    width = max(8, *(len(name) for name in log.routers))
    lines = [f"     # {'router':{width}}  share  median amount  urgent"]
    for i, name in enumerate(log.routers):
        share = k.arrival_rates[i] / sum(k.arrival_rates)
        lines += [
            f"   {i + 1:3d} {name:{width}} {100 * share:4.0f} % {k.amount_medians[i]:14.2f} "
            f"{100 * k.urgent_probabilities[i]:5.0f} %"
        ]
    return lines


def _channel_lines(log: Log, k: RoutingConstants) -> list[str]:
    width = max(10, *(len(name) for name in k.channel_names))
    fees, risks = ("yours" if name in log.known else "assumed" for name in ("fees", "risk_rates"))
    if log.channel is None:
        source = f"latency and rate assumed, in the built-in proportions; fee {fees}, risk {risks}"
    else:
        fees = "from the column fee" if log.fees_given and fees == "assumed" else fees
        source = f"latency and rate fitted; fee {fees}, risk {risks}"
    lines = [f"     # {'channel':{width}}  base latency  transactions an hour   fee   risk  ({source})"]
    for c, name in enumerate(k.channel_names):
        base, hourly = duration(0.001 * k.base_latency_ms[c] * log.speed), 3600 * k.channel_rates[c] / log.speed
        lines += [
            f"   {c + 1:3d} {name:{width}} {base:>13} {hourly:21,.0f} {k.fees[c]:5.2f} {100 * k.risk_rates[c]:4.1f} %"
        ]
    return lines
