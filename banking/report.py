"""What the banking results are called and how they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from banking.baselines import MEANING
from core.experiment.reporting.comparison import comparison
from core.experiment.reporting.report import Frame, Stepper, page
from core.experiment.reporting.tables import BEFORE, BOUND, OWN, TRAINED, Gap, Results, stored_gap, summary_table
from core.experiment.runs.flags import Options
from core.experiment.runs.folders import RunFolder
from core.experiment.runs.run import Run

# Metrics are entries of info["episode_metrics"].
COLUMNS = (  # (header, metric, number format) of the printed table; the first is what the problem is about
    ("latency, ms", "latency_ms", "{:.1f}"),
    ("risk > 5 %, % of time", "risk_violation_percent", "{:.2f}"),
    ("$ a transaction", "cost_per_transaction", "{:.3f}"),
    ("team reward", "team_return", "{:.0f}"),
)
PRINTED = (("latency, ms", "latency_ms", "{:.0f}"), *COLUMNS[1:])  # as wide as a terminal
DATA_COLUMNS = (  # of the table on the user's own log
    ("latency, s of your log", "latency_log_s", "{:,.2f}"),
    ("above the risk limit, % of time", "risk_violation_percent", "{:.2f}"),
    *COLUMNS[2:],
)
GAPS = (
    ("team_return", "worse team reward", "better team reward"),
    ("latency_ms", "faster", "slower"),
    ("cost_per_transaction", "cheaper", "dearer"),
    ("risk_violation_percent", "over the risk limit {:.2f} % of the time, there {:.2f} %"),
)
RIVALS = (OWN, "as logged", "local index", "global index")
SHARES: dict[str, str] = {}  # metric that is a share -> the one that it is a share of
PLAIN_RULE = "size threshold"  # the closed gap counts from here
BOUNDS = Path(__file__).with_name("bounds.csv")  # made by tests/benchmarks/bounds.py

CURVE = ("team_return", -1.0)  # metric of learning curves, and its sign: less is better there
BESIDE = "local index"  # the rule whose course stands beside the team's in one episode
ROWS = 4  # channels of the picture of one episode, at most
LATELY = 20  # steps of a mean latency there
CHANNELS = ("internal", "external", "blockchain")


def tell(run: Run, results: Results, caution: str = "") -> None:
    """Print the comparison of all policies, after what must be read before it."""
    columns = PRINTED if run.options.data is None else DATA_COLUMNS
    run.say(comparison(results, columns, GAPS, RIVALS, run.judged_on(), gap(run.options, results), caution))


def gap(options: Options, results: Results) -> Gap | None:
    """From the plain rule to the stored bound, which is known for the test episodes of drawn traffic."""
    if options.data is not None or options.validation:
        return None
    means = {rule: results.mean(rule, "team_return") for rule in results.baselines}
    return stored_gap(BOUNDS, options.difficulty, PLAIN_RULE, means)


def save_tables(folder: RunFolder, results: Results) -> None:
    """evaluation.csv, summary.csv, rules.json, and one episode decision by decision."""
    folder.write_table("evaluation", results.evaluation)
    folder.write_table("summary", summary_table(results))
    folder.write_json("rules", {"rules": results.levels, "meaning": MEANING})
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

    rows, (unit, factor, _) = [], clock(steps)
    unit = unit.split()[0]  # ms, or s of the log
    for number, step in enumerate(steps):
        channels = step.get("channel_names", CHANNELS)
        shared = {"portfolio_risk_percent": 100 * float(step["risk"])}
        shared |= {f"{name}_queue_{unit}": factor * step["workload_ms"][c] for c, name in enumerate(channels)}
        when = {"timestamp": str(step["time"]).replace("T", " ")} if "time" in step else {"time_ms": 10 * number}
        names = step.get("router_names", range(len(step["pending"])))
        for router in np.flatnonzero(step["pending"]):
            row = when | {"router": names[router], "pending": step["pending"][router]}
            row |= {"channel": channels[step["action"][router]], "accepted": bool(step["dispatched"][router])}
            row |= {"amount": step["amount"][router], f"latency_{unit}": factor * step["latency_ms"][router]}
            rows.append(row | shared)
    return pd.DataFrame(rows).round(3)


def write_page(run: Run, results: Results, caution: str = "", data_report: str = "") -> None:
    """report.html: everything in one file, after the pictures are drawn."""
    options, columns = run.options, COLUMNS if run.options.data is None else DATA_COLUMNS
    title = f"Payments: {options.algo.upper()}, {options.episodes} training episodes, {run.judged_on()}"
    arguments = title, results, columns, GAPS, RIVALS, stepper(results), run.folder.read_config()
    texts = {"judged_on": run.judged_on(), "caution": caution, "data_report": data_report}
    run.write("report.html", page(*arguments, folder=run.folder.path, **texts))


def stepper(results: Results, every: int = 10) -> Stepper:
    """The evaluated episode, a moment every so many steps, a row a channel."""
    unit, factor, _ = clock(results.steps)
    channels = [str(name) for name in results.steps[0].get("channel_names", CHANNELS)]
    columns = ("channel", f"work waiting, {unit}", "sent", f"by the rule: work waiting, {unit}", "sent by it")
    both = results.steps, results.rule_steps
    latency = [lately(factor * np.array([step["latency_ms"] for step in which])) for which in both]
    frames = []
    for end in range(every, len(results.steps) + 1, every):
        cells = []
        for which in both:
            steps = which[end - every : end]
            sent = sum(np.bincount(s["action"][s["dispatched"]], minlength=len(channels)) for s in steps)
            cells += [np.round(factor * steps[-1]["workload_ms"], 2), sent]
        risk, rule_risk = (100 * float(which[end - 1]["risk"]) for which in both)
        title = f"After {0.01 * end:.1f} simulated seconds: latency lately {latency[0][end - 1]:,.0f} {unit} (the rule "
        title += f"'{results.rule}' {latency[1][end - 1]:,.0f}), portfolio risk {risk:.1f} % ({rule_risk:.1f} %)."
        frames.append(Frame(title, [[name, *(float(v[c]) for v in cells)] for c, name in enumerate(channels)]))
    return Stepper(columns, frames)


def draw(run: Run, results: Results) -> None:
    """Three pictures: the learning curve; latency, risk and fees; one evaluated episode."""
    from core.experiment.reporting import plotting

    folder, team = run.folder.path, results.trained[0]
    unit, factor, speed = clock(results.steps)
    latency = "latency_ms" if speed is None else "latency_log_s"
    before, after = (results.mean(policy, latency) for policy in (BEFORE, team))
    name = f"{results.algorithm.upper()}, {results.episodes} training episodes"
    title = f"{name}: latency {before:,.0f} {unit} before, {after:,.0f} after (rewarded with fees and risk)"
    draw_curve(folder / "learning_curve.png", results.curves(*CURVE), results, run.options, title)

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


def draw_curve(path: Path, forms: Mapping[str, Sequence[Any]], results: Results, options: Options, title: str) -> None:
    """Learning curves by name, beside the rules to beat, the plain and the best one, and the bound, on the same
    episodes."""
    from core.experiment.reporting import plotting

    early = results.on_the_way()
    closed, best = gap(options, early), max(early.baselines, key=lambda rule: early.mean(rule, "team_return"))
    rules = dict.fromkeys([best, *(rule for rule in (*RIVALS, PLAIN_RULE) if rule in early.baselines)])
    plotting.learning_curve(
        path,
        forms,
        {rule: -early.mean(rule, "team_return") for rule in rules},
        title=title,
        unit=f"minus team reward, mean of {early.evaluated} unseen episodes",
        bound=None if closed is None else (BOUND, -closed.bound),
        start=-early.mean(BEFORE, "team_return"),
    )


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


def animate(path: Path, name: str, steps: Sequence[Mapping[str, Any]], by_rule: Sequence[Mapping[str, Any]]) -> None:
    """A GIF of one episode, a frame ten steps: the work waiting in every channel, and the latency lately."""
    from core.experiment.reporting import plotting

    unit, factor, speed = clock(steps)
    shown = np.arange(9, len(steps), 10)
    times, xlabel = 0.01 * (shown + 1), "seconds" if speed is None else "seconds of the simulation"
    who = {"the team": steps, f"the rule '{BESIDE}'": by_rule}
    work = {who_: factor * np.array([step["workload_ms"] for step in which])[shown] for who_, which in who.items()}
    latency = {
        who_: lately(factor * np.array([step["latency_ms"] for step in which]))[shown] for who_, which in who.items()
    }
    risk = {who_: 100 * np.array([float(step["risk"]) for step in which])[shown] for who_, which in who.items()}
    (team, rule), (of_team, of_rule) = latency.values(), risk.values()
    titles = [
        f"{name}. After {times[k]:.1f} s: latency lately {team[k]:,.0f} {unit}, by the rule {rule[k]:,.0f}; risk "
        f"{of_team[k]:.1f} %, by the rule {of_rule[k]:.1f} %"
        for k in range(len(shown))
    ]
    plotting.animation(
        path,
        work,
        latency,
        titles,
        places=[str(channel) for channel in steps[0].get("channel_names", CHANNELS)],
        units=(unit, unit),
        headings=("Work waiting in each channel", f"Latency, mean of the transactions of {LATELY} steps"),
        xlabel=xlabel,
        x=times,
        colours=dict(zip(who, (plotting.BLUE, plotting.ORANGE), strict=True)),
        seconds=0.15,
    )
