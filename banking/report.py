"""What the banking results are called and how they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.experiment.reporting.comparison import comparison
from core.experiment.reporting.tables import AFTER, BEFORE, TRAINED, Gap, Results, stored_gap, summary_table
from core.experiment.runs.folders import RunFolder
from core.experiment.runs.run import Run

# Metrics are entries of info["episode_metrics"].
COLUMNS = (  # (header, metric, number format) of the printed table; the first is what the problem is about
    ("latency, ms", "latency_ms", "{:.1f}"),
    ("risk > 5 %, % of time", "risk_violation_percent", "{:.2f}"),
    ("$ a transaction", "cost_per_transaction", "{:.3f}"),
    ("team reward", "team_return", "{:.0f}"),
)
DATA_COLUMNS = (  # of the table on the user's own log
    ("latency, s of your log", "latency_log_s", "{:,.2f}"),
    ("above the risk limit, % of time", "risk_violation_percent", "{:.2f}"),
    *COLUMNS[2:],
)
GAPS = (("latency_ms", "faster", "slower"), ("cost_per_transaction", "cheaper", "dearer"))
RIVALS = ("as logged", "local index", "global index")
SHARES: dict[str, str] = {}  # metric that is a share -> the one that it is a share of
PLAIN_RULE = "size threshold"  # the closed gap counts from here
BOUNDS = Path(__file__).with_name("bounds.csv")  # made by tests/benchmarks/bounds.py

CHANNELS = ("internal", "external", "blockchain")


def tell(run: Run, results: Results, caution: str = "") -> None:
    """Print the comparison of all policies, after what must be read before it."""
    columns = COLUMNS if run.options.data is None else DATA_COLUMNS
    run.say(comparison(results, columns, GAPS, RIVALS, run.judged_on(), gap(run, results), caution))


def gap(run: Run, results: Results) -> Gap | None:
    """From the plain rule to the stored bound, which is known for the test episodes of drawn traffic."""
    if run.options.data is not None or run.options.validation:
        return None
    means = {rule: results.mean(rule, "team_return") for rule in results.baselines}
    return stored_gap(BOUNDS, run.options.difficulty, PLAIN_RULE, means)


def save_tables(folder: RunFolder, results: Results) -> None:
    """evaluation.csv, summary.csv, and one episode decision by decision."""
    folder.write_table("evaluation", results.evaluation)
    folder.write_table("summary", summary_table(results))
    folder.write_table("decisions", decisions_table(results.steps))


def clock(steps: Sequence[Mapping[str, Any]]) -> tuple[str, float, float | None]:
    """The unit of latencies, what a simulated ms is in it, and the seconds of the user's log in a simulated one."""
    speed = steps[0].get("log_speed")
    return ("ms", 1.0, None) if speed is None else ("s of your log", 0.001 * float(speed), float(speed))


def limits(steps: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The latency target in ms and the risk limit in %; recorded transactions may have their own."""
    target, limit = steps[0].get("latency_target_ms", 100.0), steps[0].get("risk_limit", 0.05)
    return float(target), 100.0 * float(limit)


def decisions_table(steps: Sequence[Mapping[str, Any]]):
    """One evaluated episode for an operations person: a row per step and router that had something to send."""
    import pandas as pd

    rows = []
    for number, step in enumerate(steps):
        channels = step.get("channel_names", CHANNELS)
        shared = {"portfolio_risk_percent": 100 * float(step["risk"])}
        shared |= {f"{name}_queue_ms": step["workload_ms"][c] for c, name in enumerate(channels)}
        for router in np.flatnonzero(step["pending"]):
            row = {"time_ms": 10 * number, "router": router, "pending": step["pending"][router]}
            row |= {"channel": channels[step["action"][router]], "accepted": bool(step["dispatched"][router])}
            rows.append(row | {name: step[name][router] for name in ("amount", "latency_ms")} | shared)
    return pd.DataFrame(rows).round(3)


def draw(folder: Path, results: Results) -> None:
    """Three pictures: the learning curve; latency, risk and fees; one evaluated episode."""
    from core.experiment.reporting import plotting

    unit, factor, speed = clock(results.steps)
    latency = "latency_ms" if speed is None else "latency_log_s"
    before, after = (results.mean(policy, latency) for policy in (BEFORE, AFTER))
    name = f"{results.algorithm.upper()}, {results.episodes} training episodes"
    plotting.learning_curve(
        folder / "learning_curve.png",
        results.curves(latency),
        {label: results.mean(label, latency) for label in results.baselines},
        title=f"{name}: {before:,.0f} {unit} before, {after:,.0f} after",
        unit=f"latency, {unit}",
        log=True,
    )

    best = max((p for p in TRAINED if p in results.policies), key=lambda policy: results.mean(policy, "team_return"))

    def change(metric: str, number: str) -> str:
        return " → ".join(number.format(results.mean(policy, metric)) for policy in (BEFORE, best))

    # Rules that overload a channel would hide the others: their latency is in the learning curve and in summary.csv.
    labels = [label for label in results.ranked(latency) if results.mean(label, latency) < 1.5 * before]
    target, limit = limits(results.steps)

    def panel(title: str, metric: str, unit: str, number: str, limit: tuple[str, float] | None = None):
        values = [results.mean(label, metric) for label in labels]
        errors = [results.interval(label, metric) for label in labels]
        return plotting.Panel(title, unit, values, errors, limit, number=number)

    plotting.bar_panels(
        folder / "before_after.png",
        labels,
        [
            panel("Latency", latency, unit, "{:,.0f}", (f"target {target * factor:,.0f}", target * factor)),
            panel(f"Risk above {limit:g} %", "risk_violation_percent", "% of the time", "{:.2f}"),
            panel("Fees", "cost_per_transaction", "$ a transaction", "{:.3f}"),
        ],
        title=f"Latency {change(latency, '{:,.0f}')} {unit}, time above {limit:g} % risk "
        f"{change('risk_violation_percent', '{:.2f}')} %, fees ${change('cost_per_transaction', '{:.2f}')}",
        own=len([label for label in labels if label in (BEFORE, *TRAINED)]),
    )
    draw_episode(folder / "episode.png", results.steps)


def draw_episode(path: Path, steps: Sequence[Mapping[str, Any]]) -> None:
    """Queues, latency and portfolio risk in one evaluated episode."""
    from core.experiment.reporting import plotting

    unit, factor, speed = clock(steps)
    times, (target, limit) = 0.01 * np.arange(len(steps)), limits(steps)  # seconds
    times, xlabel = (times, "seconds") if speed is None else (times * speed / 3600.0, "hours of your log")
    target *= factor
    workload = factor * np.array([step["workload_ms"] for step in steps])  # (T, C)
    risk = 100 * np.array([float(step["risk"]) for step in steps])
    action, latency = (np.array([step[name] for step in steps]) for name in ("action", "latency_ms"))  # (T, N)
    latency = factor * latency
    by_channel, channels = {}, [str(name) for name in steps[0].get("channel_names", CHANNELS)]
    for c, channel in enumerate(channels):
        mine = np.where((action == c) & np.isfinite(latency), latency, np.nan)
        counted = np.isfinite(mine).sum(axis=1)
        by_channel[channel] = np.where(counted > 0, np.nansum(mine, axis=1) / np.maximum(counted, 1), np.nan)
    panels = [
        plotting.Panel("Work waiting in each channel", unit, {c: workload[:, i] for i, c in enumerate(channels)}),
        plotting.Panel(
            "Latency of transactions, by channel",
            unit,
            by_channel,
            limit=(f"target\n{target:,.0f}", target),
            points=True,
        ),
        plotting.Panel("Portfolio risk", "%", {"all channels": risk}, limit=(f"limit\n{limit:g} %", limit)),
    ]
    mean = np.nanmean(latency)
    title = f"One unseen episode of many: {mean:,.0f} {unit} on average, risk at most {risk.max():.1f} %"
    plotting.time_panels(path, times, panels, title=title, xlabel=xlabel)
