"""Your own transactions: what is in a file, for a person to read before anything is trained.

    python banking/data.py FILE.csv               # the data report alone: what is in it, what would be fitted
    python banking/train.py --data FILE.csv       # report, training, and the comparison on the test days
    python banking/data.py --example FILE.csv     # write the example file (banking/example_transactions.csv)

What a file must hold, and what is fitted on it: records.py.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository root: run from any folder

from banking.constants import RoutingConstants, routing_constants  # noqa: E402
from banking.records import BUSY_PERCENT, Log, load_log  # noqa: E402
from banking.replay import BADLY, WELL, latency_check  # noqa: E402
from banking.rows import OPTIONAL, REQUIRED  # noqa: E402
from core.experiment.reporting.checks import cautions  # noqa: E402
from core.experiment.reporting.csv_table import constants_path, counted, duration, write_new  # noqa: E402
from core.experiment.reporting.windows import days_needed

# --- the report -----------------------------------------------------------------------------------------------------


def data_report(log: Log) -> str:
    """What is in the file, what was dropped and why, the split and the fitted constants, for a person."""
    k, training, K = routing_constants("medium", None, dict(log.constants)), log.training, len(log.seconds)
    day = [(log.midnight + timedelta(seconds=log.seconds[i])).date() for i in (0, training - 1, training, K - 1)]
    step = log.speed * k.step_ms / 1000
    length = k.episode_steps * step
    target, apart = 0.001 * k.latency_target_ms * log.speed, int((log.seconds[-1] - log.seconds[training]) / length)
    needed = days_needed(length / 86400.0)
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
        f"  The test days hold {counted(apart, 'episode')} without overlap"
        + (
            ": the intervals in the tables hold the luck of such days, not what a changed world brings."
            if log.seconds[-1] - log.seconds[training] >= 86400.0 * needed
            else f", too few for an interval: that takes {needed} test days of {4 * needed} in the file."
        ),
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


def full_report(path: str | Path) -> str:
    """The data report, and where channels were fitted, the simulated latency against the logged one."""
    log = load_log(path)
    return "\n".join([data_report(log), *([] if log.channel is None else latency_check(log)[0])])


def warning(path: str | Path) -> str:
    """What must be read beside every result: the file's cautions, and fitted channels that are not the logged ones."""
    log = load_log(path)
    found = cautions(log.notes)
    worst = 0.0 if log.channel is None else latency_check(log)[1]
    if worst < WELL:
        return "; ".join(found)
    how = "read these results with care" if worst < BADLY else "do not rely on these results"
    missed = f"the simulated channels miss the logged times to settlement by up to {100 * worst:.0f} %: {how}"
    return "; ".join([*found, missed])


# --- the example ------------------------------------------------------------------------------------------------------


def write_example(path: str | Path, days: int = 10, seed: int = 0) -> None:
    """Ten days of a small bank: three routers that send by amount over three channels, each a queue. With what real
    files have: lines that are there twice, one line out of order. The same bytes every time."""
    rng = np.random.default_rng(seed)
    routers, medians, urgency = ("north", "centre", "south"), np.array([100.0, 400.0, 150.0]), np.array([0.3, 0.1, 0.2])
    channels, fees = ("internal", "external", "blockchain"), ("0.10", "0.50", "2.00")
    base, work = np.array([420.0, 1500.0, 3900.0]), np.array([300.0, 340.0, 515.0])  # seconds
    hourly = 16.5 * (1 + 0.4 * np.cos(2 * np.pi * (np.arange(24 * days) - 14) / 24))
    counts = rng.poisson(hourly * rng.gamma(20.0, 1 / 20.0, len(hourly)))
    seconds = np.sort(np.concatenate([3600 * h + rng.uniform(0, 3600, n) for h, n in enumerate(counts)]))
    router = rng.choice(3, len(seconds), p=[0.38, 0.27, 0.35])
    amounts = np.clip(medians[router] * np.exp(0.9 * rng.standard_normal(len(seconds))), 5.0, 5000.0)
    by_amount = np.digitize(amounts, [105.0, 390.0])
    channel = np.where(rng.random(len(seconds)) < 0.25, rng.choice(3, len(seconds), p=[0.4, 0.35, 0.25]), by_amount)
    urgent, service = rng.random(len(seconds)) < urgency[router], rng.gamma(4.0, 0.25, len(seconds))
    free, lines, first = np.zeros(3), [], datetime(2024, 3, 4)
    for t, i, amount, hurry, c, x in zip(seconds, router, amounts, urgent, channel, service, strict=True):
        start = max(t, free[c])  # when the channel turns to it
        free[c] = start + work[c] * x
        sent, settled = (first + timedelta(seconds=int(s)) for s in (t, start + base[c]))
        lines.append(f"{sent},{routers[i]},{amount:.2f},{int(hurry)},{channels[c]},{settled},{fees[c]}\n")
    lines[700:700] = lines[697:700]  # an export that repeats three lines
    lines[1500], lines[1504] = lines[1504], lines[1500]
    header = ",".join((*REQUIRED, *OPTIONAL)) + "\n"
    write_new(path, header + "".join(lines))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Print the data report of a transaction log, or write the example.")
    which = parser.add_mutually_exclusive_group(required=True)
    columns = f"columns {', '.join(REQUIRED)}, and if known {', '.join(OPTIONAL)}"
    which.add_argument("file", nargs="?", metavar="FILE.csv", help=columns)
    which.add_argument("--example", metavar="FILE.csv", help="write the example file there")
    options = parser.parse_args(argv)
    try:
        if options.example:
            write_example(options.example)
        else:
            print(full_report(options.file))
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2 if isinstance(error, (ValueError, FileNotFoundError)) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
