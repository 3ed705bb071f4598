"""What the retail results are called and how they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.experiment.reporting.comparison import comparison
from core.experiment.reporting.tables import AFTER, BEFORE, Gap, Results, stored_gap, summary_table
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


def draw(folder: Path, results: Results) -> None:
    """Three pictures: the learning curve, costs by part, and one evaluated episode."""
    from core.experiment.reporting import plotting

    before, after = (results.mean(policy, "total_cost") for policy in (BEFORE, AFTER))
    name = f"{results.algorithm.upper()}, {results.episodes} training episodes"
    plotting.learning_curve(
        folder / "learning_curve.png",
        results.curves("total_cost"),
        {label: results.mean(label, "total_cost") for label in results.baselines},
        title=f"{name}: an episode costs ${before:.0f} before, ${after:.0f} after",
        unit="total cost of an episode, $",
    )
    labels = results.ranked("total_cost")
    plotting.stacked_bars(
        folder / "before_after.png",
        [label for label in labels],
        {title: [results.mean(label, part) for label in labels] for part, title in PARTS.items()},
        [results.interval(label, "total_cost") for label in labels],
        title=f"What the costs are made of: lost sales ${results.mean(BEFORE, 'stockout_cost'):.0f} before and "
        f"${results.mean(AFTER, 'stockout_cost'):.0f} after the training",
        unit=f"$ an episode, mean of {results.evaluated} unseen episodes with 95 % interval",
    )
    draw_episode(folder / "episode.png", results.steps)


def draw_episode(path: Path, steps: Sequence[Mapping[str, Any]]) -> None:
    """Stock, orders, demand and transfers of every warehouse in one evaluated episode."""
    from core.experiment.reporting import plotting

    days = np.arange(1, len(steps) + 1)

    def series(name: str) -> dict[str, np.ndarray]:
        values = np.array([step[name] for step in steps])  # (T, N)
        names = steps[0].get("warehouse_names", [f"warehouse {i + 1}" for i in range(values.shape[1])])
        return {str(warehouse): values[:, i] for i, warehouse in enumerate(names)}

    demand = np.array([step["demand"] for step in steps])
    unmet = np.array([step["unmet"] for step in steps])
    served = 100 * (1 - unmet.sum() / max(demand.sum(), 1e-9))
    panels = [
        plotting.Panel("Stock at the end of the day", "units", series("on_hand")),
        plotting.Panel("Orders", "units", series("orders")),
        plotting.Panel("Demand", "units", series("demand")),
        plotting.Panel("Received from neighbours", "units", series("received_transfer")),
    ]
    title = f"One unseen episode after the training: {served:.1f} % of {demand.sum():.0f} units of demand are served"
    plotting.time_panels(path, days, panels, title=title, xlabel="day")
