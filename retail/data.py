"""Your own sales: what is in a file, for a person to read before anything is trained.

    python retail/data.py FILE.csv                # the data report alone: what is in it, what would be fitted
    python retail/train.py --data FILE.csv        # report, training, and the comparison on the test period
    python retail/data.py --example FILE.csv      # write the example file (retail/example_sales.csv)

What a file must hold, and what is fitted on it: records.py.
"""

from __future__ import annotations

import argparse
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository root: run from any folder

from core.experiment.reporting.csv_table import constants_path, counted, write_new  # noqa: E402
from core.experiment.reporting.windows import days_needed
from retail.constants import RetailConstants  # noqa: E402
from retail.records import PERIOD, Sales, blocks_by_default, load_sales  # noqa: E402

# --- the report -------------------------------------------------------------------------------------------------------


def data_report(sales: Sales) -> str:
    """What is in the file, what was dropped and why, the split and the fitted constants, for a person."""
    c, word, training = sales.constants, PERIOD[sales.days], sales.training
    test, last = len(sales.units) - training, len(sales.units)
    lines = [f"Data report: {sales.path}"]
    lines += [
        f"  {counted(sales.rows, 'row')}, {sales.day(0)} to {sales.day(last - 1)}: {counted(last, word)}, "
        f"{counted(len(sales.warehouses), 'warehouse')}, {sales.units.sum():,.0f} units"
    ]
    lines += [f"  {note}" for note in sales.notes]
    how = (
        "one period in a row after another"
        if not blocks_by_default(sales)
        else ("weeks of the same season put together at random, since it is short")
    )
    lines += [
        f"  training: {sales.day(0)} to {sales.day(training - 1)} ({counted(training, word)}); episodes of "
        f"{c['horizon']} {word}s: {how}",
        f"  test: {sales.day(training)} to {sales.day(last - 1)} ({counted(test, word)}); episodes are "
        f"consecutive {word}s",
    ]
    apart, needed = test // c["horizon"], days_needed(c["horizon"], by_day=True)
    lines += [
        f"  The test part holds {counted(apart, 'episode')} without overlap"
        + (
            ": the intervals in the tables hold the luck of such a period, not what a changed world brings."
            if test >= needed
            else f", too few for an interval: that takes {needed} {word}s of {4 * needed} in the file."
        )
    ]
    lines += ["  fitted on the training part (units a " + word + "):", *_warehouse_lines(sales)]
    shown = ("supplier_capacity", "lane_limit", "average_weight", "lead_times", "stockout_cost", "holding_cost")
    defaults = RetailConstants()
    values = {name: c.get(name, getattr(defaults, name)) for name in (*shown, *sales.known)}
    words = {name: value for name, value in values.items() if name not in ("order_limit", "storage")}
    lines += ["  " + "; ".join(f"{name} {_number(value)}" for name, value in words.items())]
    largest = float(sales.part(evaluation=False).max())
    if "supplier_capacity" not in sales.known and largest > c["supplier_capacity"]:
        lines += [
            f"  The supplier's capacity is assumed: {c['supplier_capacity']:.3g} a {word} for all warehouses "
            f"together, where one alone sold up to {largest:g}. If yours can deliver more, say so."
        ]
    known = (
        f"  known from {constants_path(sales.path).name}: {', '.join(sales.known)}"
        if sales.known
        else (
            f"  Limits, capacity, lead times and costs are assumed, and the results hang on them: put yours into "
            f"{constants_path(sales.path).name}"
        )
    )
    lines += [
        known,
        "  Sales are taken for demand: what an empty shelf could not sell is not in the file. Orders and "
        "transfers may be parts of a unit.",
    ]
    return "\n".join(lines)


def _warehouse_lines(sales: Sales, most: int = 20) -> list[str]:
    c, units = sales.constants, sales.part(evaluation=False)
    n, test = len(sales.warehouses), sales.part(evaluation=True)
    limit, storage = (np.broadcast_to(c[name], n) for name in ("order_limit", "storage"))
    width = max(9, *(len(name) for name in sales.warehouses[:most]))
    word = PERIOD[sales.days]
    lines = [f"     # {'warehouse':{width}}   mean  {word}s with sales  largest  order limit  storage  mean in test"]
    for i, name in enumerate(sales.warehouses[:most]):
        lines += [
            f"   {i + 1:3d} {name:{width}} {units[:, i].mean():6.2f} {100 * (units[:, i] > 0).mean():14.0f} % "
            f"{units[:, i].max():8.1f} {limit[i]:12.1f} {storage[i]:8.1f} {test[:, i].mean():13.2f}"
        ]
    return lines + ([f"   ... and {n - most} more"] if n > most else [])


def _number(value: Any) -> str:
    values = np.unique(np.ravel(value))
    return f"{values[0]:.3g}" if len(values) == 1 else f"{values.min():.3g} to {values.max():.3g}"


# --- the example ------------------------------------------------------------------------------------------------------


def write_example(path: str | Path, days: int = 730, seed: int = 0) -> None:
    """Two years of daily sales of five warehouses, whole units, with what real files have: slow warehouses that have
    no row on most days, a lost day, lines that are there twice. The same bytes every time."""
    rng = np.random.default_rng(seed)
    names, means = ("hamburg", "berlin", "munich", "leipzig", "rostock"), np.array([6.0, 4.5, 2.5, 0.8, 0.25])
    first, rows, regime = date(2023, 1, 2), [], np.ones(len(names))
    for day in range(days):
        today = first + timedelta(days=day)
        week = (1.0, 0.95, 0.95, 1.0, 1.2, 1.35, 0.55)[today.weekday()]
        year = 1.0 + 0.1 * np.cos(2 * np.pi * (day - 345) / 365.25)  # most in December
        redrawn = rng.random(len(names)) < 0.06
        regime = np.where(redrawn, rng.choice([0.5, 0.9, 1.7], len(names), p=[0.30, 0.45, 0.25]), regime)
        units = rng.poisson(means * week * year * regime * rng.gamma(8.0, 1 / 8.0, len(names)))
        # The slow two are recorded only when they sell; a day is lost in the second spring.
        rows += [
            (today, name, u) for name, m, u in zip(names, means, units, strict=True) if (u > 0 or m > 1) and day != 472
        ]
    rows[1001:1001] = rows[998:1001]  # an export that repeats three lines
    text = "".join(f"{day.isoformat()},{name},{units}\n" for day, name, units in rows)
    write_new(path, "date,warehouse,units\n" + text)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Print the data report of a file of sales, or write the example file.")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("file", nargs="?", metavar="FILE.csv", help="columns date, warehouse, units")
    which.add_argument("--example", metavar="FILE.csv", help="write the example file there")
    options = parser.parse_args(argv)
    try:
        if options.example:
            write_example(options.example)
        else:
            print(data_report(load_sales(options.file)))
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2 if isinstance(error, (ValueError, FileNotFoundError)) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
