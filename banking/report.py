"""What the banking results are called and how they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.experiment.reporting.comparison import comparison
from core.experiment.reporting.tables import BEFORE, BOUND, TRAINED, Gap, Results, stored_gap, summary_table
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

BESIDE = "local index"  # the rule whose course stands beside the team's in one episode
ROWS = 4  # channels of the picture of one episode, at most
LATELY = 20  # steps of a mean latency there
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


def draw(run: Run, results: Results) -> None:
    """Three pictures: the learning curve; latency, risk and fees; one evaluated episode."""
    from core.experiment.reporting import plotting

    folder, team = run.folder.path, results.trained[0]
    unit, factor, speed = clock(results.steps)
    latency = "latency_ms" if speed is None else "latency_log_s"
    before, after = (results.mean(policy, latency) for policy in (BEFORE, team))
    name = f"{results.algorithm.upper()}, {results.episodes} training episodes"
    early = results.on_the_way()
    closed = gap(run, early)
    plotting.learning_curve(
        folder / "learning_curve.png",
        results.curves("team_return", sign=-1.0),
        {label: -early.mean(label, "team_return") for label in rivals(results)},
        title=f"{name}: latency {before:,.0f} {unit} before, {after:,.0f} after. The team's reward weighs it with "
        "fees and risk:",
        unit=f"minus team reward, mean of the same {early.evaluated} unseen episodes (log scale)",
        bound=None if closed is None else (BOUND, -closed.bound),
        start=-early.mean(BEFORE, "team_return"),
    )

    def change(metric: str, number: str) -> str:
        return " → ".join(number.format(results.mean(policy, metric)) for policy in (BEFORE, team))

    # Rules that overload a channel would hide the others: their latency is in the table and in summary.csv.
    labels = [
        label for label in results.ranked(latency) if results.mean(label, latency) < 1.5 * before or label == team
    ]
    target, limit = limits(results.steps)

    def panel(title: str, metric: str, unit: str, number: str, limit: tuple[str, float] | None = None):
        values = [results.mean(label, metric) for label in labels]
        errors = [results.difference(team, label, metric)[1] for label in labels]
        return plotting.Panel(title, unit, values, errors, limit, number=number)

    plotting.bar_panels(
        folder / "before_after.png",
        labels,
        [
            panel("Latency", latency, unit, "{:,.0f}", (f"target {target * factor:,.0f}", target * factor)),
            panel(f"Risk above {limit:g} %", "risk_violation_percent", "% of the time", "{:.2f}"),
            panel("Fees", "cost_per_transaction", "$ a transaction", "{:.3f}"),
        ],
        team=labels.index(team),
        title=f"Latency {change(latency, '{:,.0f}')} {unit}, time above {limit:g} % risk "
        f"{change('risk_violation_percent', '{:.2f}')} %, fees ${change('cost_per_transaction', '{:.2f}')}",
        note=f"Mean of {results.evaluated} unseen episodes. Whiskers: 95 % interval of the difference from '{team}' "
        "(dotted), paired on the same episodes",
        own=len([label for label in labels if label in (BEFORE, *TRAINED)]),
    )
    draw_episode(folder / "episode.png", results)


def rivals(results: Results) -> list[str]:
    """The rules that a learning curve is drawn beside: those to beat, the plain one, and the best one."""
    best = max(results.baselines, key=lambda rule: results.mean(rule, "team_return"))
    return list(dict.fromkeys([*(rule for rule in (*RIVALS, PLAIN_RULE) if rule in results.baselines), best]))


def draw_episode(path: Path, results: Results) -> None:
    """Queues, latency and portfolio risk in one evaluated episode, by the team and by the rule beside it."""
    from core.experiment.reporting import plotting

    steps = results.steps
    unit, factor, speed = clock(steps)
    times, (target, limit) = 0.01 * np.arange(len(steps)), limits(steps)  # seconds
    times, xlabel = (times, "seconds") if speed is None else (times * speed / 3600.0, "hours of your log")
    team, rule = results.trained[0], f"rule: {results.rule}"
    who = {team: steps, rule: results.rule_steps}
    work = {name: factor * np.array([step["workload_ms"] for step in which]) for name, which in who.items()}  # (T, C)
    panels = [
        plotting.Panel(f"Work waiting in channel {channel}", unit, {name: work[name][:, c] for name in who})
        for c, channel in list(enumerate(steps[0].get("channel_names", CHANNELS)))[:ROWS]
    ]
    waits = {name: factor * np.array([step["latency_ms"] for step in which]) for name, which in who.items()}  # (T, N)
    panels.append(
        plotting.Panel(
            f"Latency, mean of the transactions of {LATELY} steps",
            unit,
            {name: lately(values) for name, values in waits.items()},
            limit=(f"target\n{target * factor:,.0f}", target * factor),
        )
    )
    risk = {name: 100 * np.array([float(step["risk"]) for step in which]) for name, which in who.items()}
    panels.append(plotting.Panel("Portfolio risk", "%", risk, limit=(f"limit\n{limit:g} %", limit)))
    said = [f"{np.nanmean(waits[n]):,.0f} {unit} on average, risk at most {risk[n].max():.1f} %" for n in who]
    title = f"One unseen episode of many, {team}: {said[0]}; by the rule '{results.rule}': {said[1]}"
    looks = {team: ("line", plotting.BLUE), rule: ("dashed", plotting.ORANGE)}
    plotting.time_panels(path, times, panels, title=title, xlabel=xlabel, looks=looks)


def lately(latency: np.ndarray) -> np.ndarray:
    """(T, N) latencies, NaN where nothing was sent -> (T,) mean of what was sent in the last LATELY steps."""
    sums = np.nancumsum(np.nansum(latency, axis=1))
    counts = np.cumsum(np.isfinite(latency).sum(axis=1))
    for values in (sums, counts):
        values[LATELY:] = values[LATELY:] - values[:-LATELY]
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
