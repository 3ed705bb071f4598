"""What the retail results are called and how they are drawn."""

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
    ("cost, $", "total_cost", "{:.1f}"),
    ("stockouts, % of demand", "stockout_percent", "{:.1f}"),
    ("units moved", "units_moved", "{:.2f}"),
    ("stock, units", "on_hand", "{:.1f}"),
    ("imbalance, units", "inventory_balance", "{:.2f}"),
)
GAPS = (("total_cost", "cheaper", "dearer"), ("stockout_percent", "fewer stockouts", "more stockouts"))
RIVALS = ("base-stock, tuned jointly", "adaptive base-stock, tuned jointly")
SHARES = {"stockout_percent": "demand"}  # metric that is a share -> the one that it is a share of
PLAIN_RULE = "base-stock, tuned jointly"  # the closed gap counts from here
BOUNDS = Path(__file__).with_name("bounds.csv")  # made by tests/benchmarks/bounds.py

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
    run.say(comparison(results, COLUMNS, GAPS, RIVALS, run.judged_on(), gap(run, results), caution=caution))


def gap(run: Run, results: Results) -> Gap | None:
    """From the plain rule to the stored bound, which is known for the test episodes of drawn demand."""
    if run.options.data is not None or run.options.validation:
        return None
    means = {rule: results.mean(rule, "total_cost") for rule in results.baselines}
    return stored_gap(BOUNDS, run.options.difficulty, PLAIN_RULE, means)


def save_tables(folder: RunFolder, results: Results) -> None:
    """evaluation.csv, summary.csv, and one episode period by period."""
    folder.write_table("evaluation", results.evaluation)
    folder.write_table("summary", summary_table(results))
    folder.write_table("periods", periods_table(results.steps))


def periods_table(steps: Sequence[Mapping[str, Any]]):
    """One evaluated episode for an operations person: a row per day and warehouse, in units and dollars."""
    import pandas as pd

    rows = []
    for day, step in enumerate(steps, start=1):
        names = step.get("warehouse_names", np.arange(1, len(step["demand"]) + 1))
        for i, warehouse in enumerate(names):
            rows.append({"day": day, "warehouse": warehouse, **{name: step[name][i] for name in SHOWN}})
    return pd.DataFrame(rows).round(4)


def draw(run: Run, results: Results) -> None:
    """Three pictures: the learning curve, costs by part, and one evaluated episode."""
    from core.experiment.reporting import plotting

    folder, team = run.folder.path, results.trained[0]
    name = f"{results.algorithm.upper()}, {results.episodes} training episodes"
    before, after = (results.mean(policy, "total_cost") for policy in (BEFORE, team))
    early = results.on_the_way()
    closed, lines = gap(run, early), rivals(results)
    plotting.learning_curve(
        folder / "learning_curve.png",
        results.curves("total_cost"),
        {label: early.mean(label, "total_cost") for label in lines},
        title=f"{name}: an episode costs ${before:.0f} before, ${after:.0f} after",
        unit=f"cost of an episode, $, mean of the same {early.evaluated} unseen ones (log scale)",
        bound=None if closed is None else (BOUND, closed.bound),
        start=early.mean(BEFORE, "total_cost"),
    )
    labels = results.ranked("total_cost")
    plotting.stacked_bars(
        folder / "before_after.png",
        labels,
        {title: [results.mean(label, part) for label in labels] for part, title in PARTS.items()},
        [results.difference(team, label, "total_cost") for label in labels],
        team=labels.index(team),
        title=f"What the costs are made of: lost sales ${results.mean(BEFORE, 'stockout_cost'):.0f} before and "
        f"${results.mean(team, 'stockout_cost'):.0f} after the training",
        unit=f"$ an episode, mean of {results.evaluated} unseen ones; in brackets and as whiskers: how far from the\n"
        f"team after training (dotted), with the 95 % interval of that difference, paired on the same episodes",
        own=len([label for label in labels if label in (BEFORE, *TRAINED)]),
    )
    draw_episode(folder / "episode.png", results)


def rivals(results: Results) -> list[str]:
    """The rules that a learning curve is drawn beside: those to beat, and the best one."""
    best = max(results.baselines, key=lambda rule: results.mean(rule, "team_return"))
    return list(dict.fromkeys([*(rule for rule in RIVALS if rule in results.baselines), best]))


def draw_episode(path: Path, results: Results) -> None:
    """A row a warehouse: stock, orders, demand and lost sales of one evaluated episode, and what the rule ordered."""
    from core.experiment.reporting import plotting

    steps, by_rule = results.steps, results.rule_steps
    demand, unmet, stock, orders = (np.array([step[name] for step in steps]) for name in PLOTTED)  # (T, N)
    rule_unmet, rule_orders = (np.array([step[name] for step in by_rule]) for name in ("unmet", "orders"))
    names = steps[0].get("warehouse_names", [f"warehouse {i + 1}" for i in range(demand.shape[1])])
    largest = np.sort(np.argsort(-demand.sum(axis=0), kind="stable")[:ROWS])
    rule_order = "order by the rule, in its own course of this episode"
    panels = [
        plotting.Panel(
            f"{names[i]}: {demand[:, i].sum():.1f} units of demand, {unmet[:, i].sum():.2f} lost "
            f"(by the rule {rule_unmet[:, i].sum():.2f})",
            "units",
            {
                "stock at the end of the day": stock[:, i],
                "demand": demand[:, i],
                "order": orders[:, i],
                rule_order: rule_orders[:, i],
                "lost sales": unmet[:, i],
            },
        )
        for i in largest
    ]
    looks = {"stock at the end of the day": ("area", plotting.SKY), "demand": ("line", plotting.BLACK)}
    looks |= {"order": ("line", plotting.BLUE), rule_order: ("dashed", plotting.ORANGE)}
    looks |= {"lost sales": ("bars", plotting.VERMILLION)}
    cost, rule_cost = (sum(float(np.sum(step["cost"])) for step in which) for which in (steps, by_rule))
    served, total = 100 * (1 - unmet.sum() / max(demand.sum(), 1e-9)), demand.sum()
    title = f"One unseen episode, {results.trained[0]}: {served:.1f} % of {total:.0f} units are served, ${cost:.0f}; "
    title += f"by the rule '{results.rule}' ${rule_cost:.0f}"
    title += "" if len(largest) == demand.shape[1] else f". The {ROWS} largest of {demand.shape[1]} warehouses"
    plotting.time_panels(path, np.arange(1, len(steps) + 1), panels, title=title, xlabel="day", looks=looks)
