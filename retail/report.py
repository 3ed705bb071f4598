"""What the retail results are called and how they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.experiment.reporting.comparison import comparison
from core.experiment.reporting.report import Frame, Stepper, page
from core.experiment.reporting.tables import BEFORE, BOUND, OWN, TRAINED, Gap, Results, stored_gap, summary_table
from core.experiment.runs.flags import Options
from core.experiment.runs.folders import RunFolder
from core.experiment.runs.run import Run
from retail.baselines import MEANING

# Metrics are entries of info["episode_metrics"].
COLUMNS = (  # (header, metric, number format) of the printed table; the first is what the problem is about
    ("cost, $", "total_cost", "{:.1f}"),
    ("stockouts, % of demand", "stockout_percent", "{:.1f}"),
    ("units moved", "units_moved", "{:.2f}"),
    ("stock, units", "on_hand", "{:.1f}"),
    ("imbalance, units", "inventory_balance", "{:.2f}"),
)
PRINTED = (*COLUMNS[:2], ("units moved", "units_moved", "{:.1f}"), COLUMNS[4])  # as wide as a terminal
GAPS = (("total_cost", "cheaper", "dearer"), ("stockout_percent", "stockouts {:.1f} % of demand, there {:.1f} %"))
RIVALS = (OWN, "base-stock, tuned jointly", "adaptive base-stock, tuned jointly")
SHARES = {"stockout_percent": "demand"}  # metric that is a share -> the one that it is a share of
PLAIN_RULE = "base-stock, tuned jointly"  # the closed gap counts from here
BOUNDS = Path(__file__).with_name("bounds.csv")  # made by tests/benchmarks/bounds.py

CURVE = ("total_cost", 1.0)  # metric of learning curves, and its sign: less is better there
PARTS = {  # of the total cost: what pictures call them
    "stockout_cost": "lost sales",
    "holding_cost": "holding",
    "transfer_cost": "transfers",
    "return_cost": "returns",
}
BESIDE = "adaptive base-stock, tuned jointly"  # the rule whose orders stand beside the team's in one episode
ROWS = 6  # warehouses of the picture of one episode, at most
PLOTTED = ("demand", "unmet", "on_hand", "orders")
SHOWN = ("demand", "orders", "shipped", "on_hand", "unmet", "received_transfer", "sent_transfer", "returned", "cost")


def tell(run: Run, results: Results, caution: str = "") -> None:
    """Print the comparison of all policies, after what must be read before it."""
    run.say(comparison(results, PRINTED, GAPS, RIVALS, run.judged_on(), gap(run.options, results), caution=caution))


def gap(options: Options, results: Results) -> Gap | None:
    """From the plain rule to the stored bound, which is known for the test episodes of drawn demand."""
    if options.data is not None or options.validation:
        return None
    means = {rule: results.mean(rule, "total_cost") for rule in results.baselines}
    return stored_gap(BOUNDS, options.difficulty, PLAIN_RULE, means)


def save_tables(folder: RunFolder, results: Results) -> None:
    """evaluation.csv, summary.csv, rules.json, and one episode period by period."""
    folder.write_table("evaluation", results.evaluation)
    folder.write_table("summary", summary_table(results))
    folder.write_json("rules", {"rules": results.levels, "meaning": MEANING})
    folder.write_table("periods", periods_table(results.steps))


def periods_table(steps: Sequence[Mapping[str, Any]]):
    """One evaluated episode for an operations person: a row per day and warehouse, in units and dollars."""
    import pandas as pd

    rows = []
    for day, step in enumerate(steps, start=1):
        names = step.get("warehouse_names", np.arange(1, len(step["demand"]) + 1))
        when = {"date": str(step["date"])} if "date" in step else {"day": day}
        for i, warehouse in enumerate(names):
            rows.append(when | {"warehouse": warehouse, **{name: step[name][i] for name in SHOWN}})
    return pd.DataFrame(rows).round(4)


def write_page(run: Run, results: Results, caution: str = "", data_report: str = "") -> None:
    """report.html: everything in one file, after the pictures are drawn."""
    options = run.options
    title = f"Warehouses: {options.algo.upper()}, {options.episodes} training episodes, {run.judged_on()}"
    arguments = title, results, COLUMNS, GAPS, RIVALS, stepper(results), run.folder.read_config()
    texts = {"judged_on": run.judged_on(), "caution": caution, "data_report": data_report}
    run.write("report.html", page(*arguments, folder=run.folder.path, **texts))


def stepper(results: Results) -> Stepper:
    """The evaluated episode day by day, a row a warehouse."""
    columns = ("warehouse", "stock in the evening", "order", "demand", "lost sales", "order by the rule", "it lost")
    frames, so_far = [], np.zeros(2)
    for day, (step, other) in enumerate(zip(results.steps, results.rule_steps, strict=True), start=1):
        so_far += np.sum(step["cost"]), np.sum(other["cost"])
        names = step.get("warehouse_names", [f"warehouse {i + 1}" for i in range(len(step["demand"]))])
        shown = [step[name] for name in ("on_hand", "orders", "demand", "unmet")] + [other["orders"], other["unmet"]]
        rows = [[str(name), *(round(float(v[i]), 2) for v in shown)] for i, name in enumerate(names)]
        when = f"{results.period.capitalize()} {day} of {len(results.steps)}"
        when += f", {step['date']}" if "date" in step else ""
        title = f"{when}: {np.sum(step['demand']):.1f} units were asked for, "
        title += f"{np.sum(step['unmet']):.1f} lost. Cost so far ${so_far[0]:.1f}; by the rule '{results.rule}', which "
        frames.append(Frame(f"{title}went its own way from the first day, ${so_far[1]:.1f}.", rows))
    return Stepper(columns, frames)


def draw(run: Run, results: Results) -> None:
    """Three pictures: the learning curve, costs by part, and one evaluated episode."""
    from core.experiment.reporting import plotting

    folder, team = run.folder.path, results.trained[0]
    name = f"{results.algorithm.upper()}, {results.episodes} training episodes"
    before, after = (results.mean(policy, "total_cost") for policy in (BEFORE, team))
    title = f"{name}: an episode costs ${before:.0f} before, ${after:.0f} after"
    draw_curve(folder / "learning_curve.png", results.curves(*CURVE), results, run.options, title)
    labels = results.ranked("total_cost")
    plotting.stacked_bars(
        folder / "before_after.png",
        labels,
        {title: [results.mean(label, part) for label in labels] for part, title in PARTS.items()},
        [results.difference(team, label, "total_cost") for label in labels],
        team=labels.index(team),
        title=f"What the costs are made of: lost sales ${results.mean(BEFORE, 'stockout_cost'):.0f} before and "
        f"${results.mean(team, 'stockout_cost'):.0f} after the training",
        unit=f"$ an episode, mean of {results.evaluated} unseen ones; in brackets and as whiskers: how far from\n"
        "the team after training (dotted), and the 95 % interval of that, paired on the same episodes",
        own=len([label for label in labels if label in (BEFORE, *TRAINED)]),
    )
    draw_episode(folder / "episode.png", results)


def draw_curve(path: Path, forms: Mapping[str, Sequence[Any]], results: Results, options: Options, title: str) -> None:
    """Learning curves by name, beside the rules to beat, the best one, and the bound, on the same episodes."""
    from core.experiment.reporting import plotting

    early = results.on_the_way()
    closed, best = gap(options, early), max(early.baselines, key=lambda rule: early.mean(rule, "team_return"))
    rules = dict.fromkeys([best, *(rule for rule in RIVALS if rule in early.baselines)])
    plotting.learning_curve(
        path,
        forms,
        {rule: early.mean(rule, "total_cost") for rule in rules},
        title=title,
        unit=f"cost of an episode, $, mean of {early.evaluated} unseen ones",
        bound=None if closed is None else (BOUND, closed.bound),
        start=early.mean(BEFORE, "total_cost"),
    )


def draw_episode(path: Path, results: Results) -> None:
    """A row a warehouse: stock, orders, demand and lost sales of one evaluated episode, and what the rule ordered."""
    from core.experiment.reporting import plotting

    steps, by_rule = results.steps, results.rule_steps
    xlabel = results.period + (f" (the first is {steps[0]['date']})" if "date" in steps[0] else "")
    demand, unmet, stock, orders = (np.array([step[name] for step in steps]) for name in PLOTTED)  # (T, N)
    rule_unmet, rule_orders = (np.array([step[name] for step in by_rule]) for name in ("unmet", "orders"))
    names = steps[0].get("warehouse_names", [f"warehouse {i + 1}" for i in range(demand.shape[1])])
    largest = np.sort(np.argsort(-demand.sum(axis=0), kind="stable")[:ROWS])
    panels = [
        plotting.Panel(
            f"{names[i]}: {demand[:, i].sum():.1f} units of demand, {unmet[:, i].sum():.2f} lost "
            f"(by the rule {rule_unmet[:, i].sum():.2f})",
            "units",
            {
                "stock in the evening": stock[:, i],
                "demand": demand[:, i],
                "order": orders[:, i],
                "the rule's order": rule_orders[:, i],
                "lost sales": unmet[:, i],
            },
        )
        for i in largest
    ]
    looks = {"stock in the evening": ("area", plotting.SKY), "demand": ("line", plotting.BLACK)}
    looks |= {"order": ("line", plotting.BLUE), "the rule's order": ("dashed", plotting.ORANGE)}
    looks |= {"lost sales": ("bars", plotting.VERMILLION)}
    cost, rule_cost = (sum(float(np.sum(step["cost"])) for step in which) for which in (steps, by_rule))
    served, total = 100 * (1 - unmet.sum() / max(demand.sum(), 1e-9)), demand.sum()
    title = f"One unseen episode, {results.trained[0]}: {served:.1f} % of {total:.0f} units are served, ${cost:.0f}; "
    title += f"the rule '{results.rule}', in its own course, ${rule_cost:.0f}"
    title += "" if len(largest) == demand.shape[1] else f". The {ROWS} largest of {demand.shape[1]} warehouses"
    plotting.time_panels(path, np.arange(1, len(steps) + 1), panels, title=title, xlabel=xlabel, looks=looks)


def animate(path: Path, name: str, steps: Sequence[Mapping[str, Any]], by_rule: Sequence[Mapping[str, Any]]) -> None:
    """A GIF of one episode, a frame a day: what every warehouse has, sells and orders, and what it has cost so far."""
    from core.experiment.reporting import plotting

    demand, unmet, stock, orders = (np.array([step[name] for step in steps]) for name in PLOTTED)  # (T, N)
    names = steps[0].get("warehouse_names", [f"{i + 1}" for i in range(demand.shape[1])])
    largest = np.sort(np.argsort(-demand.sum(axis=0), kind="stable")[:ROWS])
    cost, rule_cost = (np.cumsum([np.sum(step["cost"]) for step in which]) for which in (steps, by_rule))
    titles = [
        f"{name}. Day {day + 1}: {demand[day].sum():.1f} units asked for, {unmet[day].sum():.1f} lost. So far "
        f"${cost[day]:.1f}; by the rule '{BESIDE}' ${rule_cost[day]:.1f}"
        for day in range(len(steps))
    ]
    bars = {"stock in the evening": stock, "demand": demand, "order": orders, "lost sales": unmet}
    colours = dict(zip(bars, (plotting.SKY, plotting.BLACK, plotting.BLUE, plotting.VERMILLION), strict=True))
    plotting.animation(
        path,
        {label: values[:, largest] for label, values in bars.items()},
        {"the team": cost, "the rule": rule_cost},
        titles,
        places=[str(names[i]) for i in largest],
        units=("units", "$"),
        headings=("Warehouses", "Cost so far"),
        xlabel="day",
        x=np.arange(1, len(steps) + 1),
        colours=colours | {"the team": plotting.BLUE, "the rule": plotting.ORANGE},
    )
