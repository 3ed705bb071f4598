"""Your own sales: a CSV file with the columns date, warehouse, units becomes demand for MultiWarehouseEnv.

A row is what one warehouse sold on one day, or in one week: the spacing of the dates decides. The newest quarter of the
periods is the test part, the rest the training part, on which alone everything is fitted. What the file cannot say
(lead times, costs, limits) is assumed, or given in a file beside it: FILE.constants.json for FILE.csv, with any field
of RetailConstants, for instance {"lead_times": {"berlin": 1, "lyon": 3}, "stockout_cost": 25}.

Shapes: P periods in the file, T periods of an episode, N warehouses.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from core.experiment.reporting.checks import names_alike, no_thousands_points
from core.experiment.reporting.csv_table import (
    Complaints,
    Table,
    constants_path,
    counted,
    header_names,
    line_numbers,
    numbers,
    read_csv,
    some,
    stamps,
    stated_constants,
    texts,
    times,
)
from retail import checks
from retail.constants import RetailConstants, resolve
from retail.repeats import without_repeats

COLUMNS = ("date", "warehouse", "units")
TEST_SHARE = 0.25  # of the periods, the newest
HORIZON = {1: 30, 7: 13}  # T by days a period: a month of days, a quarter of weeks
TRAINING_EPISODES = 2  # that the training part holds at least, end to end
PERIOD = {1: "day", 7: "week"}
AVERAGE_WEIGHTS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6)  # tried for the demand average
FITTED = ("mean_demand", "horizon")  # constants that the file decides


@dataclass(frozen=True, eq=False)
class Sales:
    """What a file of sales holds, and what was fitted on its training part. Immutable: copies share it."""

    path: Path
    rows: int  # lines read
    warehouses: tuple[str, ...]  # N names; the order of all arrays
    first: date  # of the first period
    days: int  # of a period: 1 or 7
    units: np.ndarray  # (P, N) units sold
    training: int  # periods of the training part; the others are the test part
    constants: Mapping[str, Any]  # of MultiWarehouseEnv
    known: tuple[str, ...]  # those of them that FILE.constants.json gave
    notes: tuple[str, ...]  # lines of the report: what was dropped, added up or filled in, and why

    def __deepcopy__(self, memo: dict) -> Sales:
        return self

    @property
    def horizon(self) -> int:
        return self.constants["horizon"]

    def part(self, evaluation: bool) -> np.ndarray:
        """(periods, N) units of the test part or of the training part."""
        return self.units[self.training :] if evaluation else self.units[: self.training]

    def day(self, period: int) -> date:
        """The first day of a period."""
        return self.first + timedelta(days=self.days * int(period))


def load_sales(path: str | Path) -> Sales:
    """Read, check and split a file, and fit the constants. The same file is read once.

    Raises FileNotFoundError, or ValueError naming the lines that cannot be used, what was found and what to do.
    """
    path = Path(path).resolve()
    return _load(path, stamps(path))


@functools.lru_cache(maxsize=4)
def _load(path: Path, _: tuple) -> Sales:  # the stamps make a changed file another one
    checks.no_wide_file(path, COLUMNS)
    items = checks.item_columns(header_names(path))
    table = read_csv(path, COLUMNS, items)
    checks.no_other_items(table, items)
    complaints = Complaints(path)
    (when,) = times(table, ["date"], complaints)
    units = numbers(table, "units", complaints, "give the units sold, or returned with a minus", negative=True)
    names = texts(table, "warehouse", complaints)
    complaints.refuse()
    names_alike(table, "warehouse")
    no_thousands_points(table, "units")
    checks.no_missing_codes(table, "units", units)
    dates, notes = checks.local_days(table, "date", when)
    days = _spacing(table, dates, complaints)
    column, warehouses = names.factorize()  # in the order of the file: neighbours are neighbours in the ring
    warehouses = warehouses.to_numpy(str)
    if len(warehouses) < 2:
        raise ValueError(
            f"{path}: only the warehouse {str(warehouses[0])!r} was found; give two or more, by name in "
            "the column warehouse (one alone has nobody to share with)"
        )
    kind = column + len(warehouses) * (units < 0)  # a return is no other total of its date
    rows, repeats = without_repeats(table, dates + (when - when.dt.normalize()), kind, units)
    lines, column, units, dates = table.lines[rows], column[rows], units[rows], dates[rows]
    first = dates.min()
    period = ((dates - first).dt.days // days).to_numpy()
    matrix, returned = _matrix(period, column, units, lines)
    grid = checks.Grid(
        path, warehouses, matrix, first.date(), days, _split(path, len(matrix), days), period, column, lines
    )
    for check in checks.CHECKS:
        notes += check(grid)
    notes = [*notes, *returned, *_skipped(table), *repeats, *_gaps(grid)]
    notes = sorted(notes, key=lambda note: not note.startswith("CAUTION"))
    return _fitted(path, len(table), grid, notes)


# --- rows -> matrix ---------------------------------------------------------------------------------------------------


def _spacing(table: Table, dates: Any, complaints: Complaints) -> int:
    """Days a period: 1 or 7. Refuses dates that are neither daily nor on one day of the week."""
    distinct = dates.drop_duplicates().sort_values()
    gaps = distinct.diff().dt.days.dropna().to_numpy()
    weekdays = distinct.dt.day_of_week
    usual = weekdays.mode()[0]
    if len(distinct) >= 4 and (weekdays == usual).mean() >= 0.9:
        other = (dates.dt.day_of_week != usual).to_numpy()
        name = distinct[weekdays == usual].dt.day_name().iloc[0]
        text = f"date is {{!r}}, no {name} as most dates are: weeks must begin on the same weekday"
        complaints.add(table.lines[other], table.columns["date"][other], text)
        complaints.refuse()
        days = 7
    else:
        days = 1
    closest = int(gaps.min()) if len(gaps) else 0
    if closest != days:
        found = f"dates {closest} days apart" if closest else "a single date"
        raise ValueError(
            f"{table.path}: {found} were found, neither days nor weeks; add the sales up by day, or by "
            "week with the first day of the week as the date"
        )
    return days


def _skipped(table: Table) -> list[str]:
    """Notes on what of the file is not read."""
    notes = [f"skipped: {counted(table.blank, 'empty line')}"] if table.blank else []
    ignored = [*(table.written[name].strip() for name in table.columns if name not in COLUMNS), *table.ignored]
    if ignored:
        notes.append(f"ignored columns: {some(ignored)} (one item is planned: rows of several would be added up)")
    return notes


def _matrix(
    period: np.ndarray, column: np.ndarray, units: np.ndarray, lines: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Rows -> (P, N) units, and notes on returns: they are taken off the sales of their day, down to nothing."""
    matrix = np.zeros((period.max() + 1, column.max() + 1))
    np.add.at(matrix, (period, column), units)
    returns = units < 0
    if not returns.any():
        return matrix, []
    found = (
        f"returns: {counted(int(returns.sum()), 'row')} of negative units ({line_numbers(lines[returns])}) taken off"
    )
    notes, below = [f"{found} the sales of their date and warehouse"], matrix[period, column] < 0
    if below.any():
        where = line_numbers(lines[below & returns])
        notes.append(
            f"CAUTION: more is returned than sold on a day ({where}): {-matrix[matrix < 0].sum():g} units lost"
        )
    return np.maximum(matrix, 0.0), notes


def _gaps(grid: checks.Grid) -> list[str]:
    """Notes on what has no row: it counts as no sales."""
    there = np.zeros(grid.units.shape, bool)
    there[grid.period, grid.place] = True
    if there.all():
        return []
    word, share = PERIOD[grid.days], f"{int((~there).sum()):,} of {there.size:,}"
    notes = [f"gaps: {share} pairs of {word} and warehouse have no row: counted as no sales"]
    start, length = _longest_run(~there.any(axis=1))
    if length:
        longest = f"longest stretch without any row: {counted(length, word)} from {grid.day(start)}"
        notes.append(f"{longest}; fill it if it was an outage of the export")
    return notes


def _longest_run(true: np.ndarray) -> tuple[int, int]:
    """Start and length of the longest run of True in (P,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], true.astype(int), [0]])))
    lengths = edges[1::2] - edges[::2]
    return (int(edges[2 * lengths.argmax()]), int(lengths.max())) if len(lengths) else (0, 0)


def _split(path: Path, periods: int, days: int) -> int:
    """Periods of the training part: older than every one of the test part."""
    horizon, word = HORIZON[days], PERIOD[days]
    test = max(int(periods * TEST_SHARE), horizon)
    if periods - test < TRAINING_EPISODES * horizon:
        least = (TRAINING_EPISODES + 1) * horizon
        raise ValueError(
            f"{path}: {counted(periods, word)} were found, too little data; give at least {least} {word}s "
            f"(an episode has {horizon}; the newest part is kept for the test)"
        )
    return periods - test


# --- constants --------------------------------------------------------------------------------------------------------


def _fitted(path: Path, rows: int, grid: checks.Grid, notes: list[str]) -> Sales:
    """Drop warehouses that sold nothing in training, fit the constants, take what the user knows."""
    warehouses, matrix, days, training = grid.names, grid.units, grid.days, grid.training
    sold = matrix[:training].sum(axis=0) > 0
    if not sold.all():
        notes = [*notes, f"dropped: {some(warehouses[~sold])}, which sold nothing in the training part"]
        warehouses, matrix = warehouses[sold], matrix[:, sold]
    if len(warehouses) < 2:
        raise ValueError(
            f"{path}: {counted(len(warehouses), 'warehouse')} sold anything in the training part (the "
            "older three quarters); give two or more that did"
        )
    names = tuple(map(str, warehouses))
    fitted = fit_constants(matrix[:training], days)
    known = _known_constants(path, names, fitted)
    constants = fitted | known
    return Sales(path, rows, names, grid.first, days, matrix, training, constants, tuple(known), tuple(notes))


def fit_constants(units: np.ndarray, days: int = 1) -> dict[str, Any]:
    """Constants of MultiWarehouseEnv from (P, N) units of the training part.

    Where the defaults stand in a ratio to the mean demand, the ratio is kept: the supplier's capacity to the total,
    order limit and storage to each warehouse's own mean, the lanes to the mean of the warehouses. Sparse demand comes
    in lumps that are larger than that, so an order limit covers at least the largest demand of one period seen in
    training, and a storage that of lead time + 1 = 2 periods; the report tells where one lump is more than the supplier
    can ship. Holding costs are by day. Lead times are not in the data: one period. The weight of the demand average is
    the one that predicts the next period best.
    """
    default = RetailConstants()
    means, total = units.mean(axis=0), float(np.sum(default.mean_demand))
    pairs = units[1:] + units[:-1]
    return {
        "horizon": HORIZON[days],
        "mean_demand": means.tolist(),
        "order_limit": np.maximum(
            default.order_limit * len(default.mean_demand) / total * means, units.max(axis=0)
        ).tolist(),
        "supplier_capacity": default.supplier_capacity / total * float(means.sum()),
        "storage": np.maximum(float(np.sum(default.storage)) / total * means, pairs.max(axis=0)).tolist(),
        "lane_limit": default.lane_limit * len(default.mean_demand) / total * float(means.mean()),
        "lead_times": [1] * len(means),
        "holding_cost": default.holding_cost * days,
        "average_weight": _best_average_weight(units, means),
    }


def _best_average_weight(units: np.ndarray, means: np.ndarray) -> float:
    """Weight of exponential smoothing with the least squared error one period ahead, warehouses standardised."""
    weights = np.array(AVERAGE_WEIGHTS)[:, None]
    average, error = np.broadcast_to(means, (len(weights), len(means))), np.zeros((len(weights), len(means)))
    for demand in units:
        error = error + (demand - average) ** 2
        average = average + weights * (demand - average)
    return float(AVERAGE_WEIGHTS[(error / np.maximum(units.var(axis=0), 1e-12)).sum(axis=1).argmin()])


def _known_constants(path: Path, warehouses: tuple[str, ...], fitted: dict[str, Any]) -> dict[str, Any]:
    """Constants of a JSON file; one number, or one a warehouse by name. Refuses what the environment would refuse."""
    known, path = stated_constants(path, FITTED, '{"stockout_cost": 25}'), constants_path(path)
    for name, value in known.items():
        if isinstance(value, dict):
            if set(value) != set(warehouses):
                raise ValueError(f"{path}: {name!r} is given for {some(value)}; give it for {some(warehouses, 50)}")
            known[name] = [value[warehouse] for warehouse in warehouses]
    try:
        resolve("medium", fitted | known)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
    return known


def blocks_by_default(sales: Sales) -> bool:
    """Whether training episodes are put together of blocks: the training part holds fewer than 20 end to end."""
    return sales.training < 20 * sales.horizon
