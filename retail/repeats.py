"""Rows of one day and warehouse: the same export again, another total of it, or single sales to be added up.

Nobody says which, and each is read otherwise, so the file has to show it; where it does not, it is refused. What shows
it: lines that are all there equally often (copies), days taken up again after later ones (exports one after another),
units that agree more often than chance lets them (repeated lines), and how many rows a day and warehouse has: single
sales come by chance, here none or one, there two or more.

Shapes: R rows of the file, N warehouses.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from core.experiment.reporting.csv_table import Table, counted, in_pandas, line_numbers

REPEATED = 0.05  # up to this share of repeated lines are mistakes of an export, whatever their units,
SELDOM = 0.3  # unless single sales that come at random days would bring no more than 1 / 0.3 times as many
CHANCE = 0.001  # what would come by chance more seldom than this does not come by chance
SHUFFLED = 0.3  # of the steps from a row to the next of its warehouse: so many go back, and order tells nothing
VARIED, FEW = 0.05, 20  # of the days with several rows (so many at least), those with three or more in a list of sales
FEWEST = 5  # different lines that are all there twice: fewer could be by chance
BLOCK = 3  # rows of a stretch that goes back: fewer are sales booked late, not an export


class Rows:
    """What decides, one entry a row: `key` tells day and warehouse, `line` the units too, and the time of day."""

    def __init__(self, table: Table, when: Any, place: np.ndarray, units: np.ndarray) -> None:
        import pandas as pd

        self.table, self.when, self.place, self.units, n = table, when, place, units, int(place.max()) + 1
        days = when.dt.normalize().to_numpy().astype("datetime64[D]").astype(np.int64)
        self.day = days - days.min()  # (R,)
        self.key, self.moment = self.day * n + place, pd.factorize(when)[0].astype(np.int64) * n + place
        self.unit = pd.factorize(units)[0]
        self.line = pd.factorize(self.moment * (self.unit.max() + 1) + self.unit)[0]

    def keep(self, rows: np.ndarray) -> Rows:
        when = self.when[rows].reset_index(drop=True)
        return Rows(self.table.keep(rows), when, self.place[rows], self.units[rows])


def without_repeats(table: Table, when: Any, place: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Which rows count, (R,) bool, and notes for the report.

    when: pandas Series of times; place: (R,) numbers of warehouses; units: (R,).
    Raises ValueError, naming lines, where two totals stand side by side, or where nothing shows what the rows are.
    """
    rows, counts, notes = Rows(table, when, place, units), np.ones(len(table), bool), []
    for rule in (_copies, _copied_days, _overlaps, _mistakes):
        if not _seen(rows.key).any():
            return counts, notes
        dropped, what = rule(rows)
        if dropped.any():
            lines = line_numbers(rows.table.lines[dropped])
            notes.append(f"duplicates: {what}{counted(int(dropped.sum()), 'repeated line')} dropped ({lines})")
            counts[np.flatnonzero(counts)[dropped]] = False
            rows = rows.keep(~dropped)
    again = int(_seen(rows.key).sum())
    if again:
        notes.append(f"a list of sales: {counted(again, 'row')} added to another of the same date and warehouse")
    return counts, notes


# --- rules: the rows to be dropped, (R,) bool, and why ----------------------------------------------------------------


def _copies(rows: Rows) -> tuple[np.ndarray, str]:
    """Every line is there equally often, in whatever order."""
    times = np.bincount(rows.line)
    often = int(np.gcd.reduce(times)) if len(times) >= FEWEST else 1
    dropped = _number(rows.line) >= times[rows.line] // often
    return dropped, f"the whole file is there {'twice' if often == 2 else f'{often} times'}, "


def _copied_days(rows: Rows) -> tuple[np.ndarray, str]:
    """Every line of a day is there equally often, so many that it is no chance: exports that overlap, sorted."""
    first = np.unique(rows.line, return_index=True)[1]
    order = first[np.argsort(rows.day[first], kind="stable")]
    days, starts, size = np.unique(rows.day[order], return_index=True, return_counts=True)
    times = np.bincount(rows.line)
    often = np.gcd.reduceat(times[rows.line[order]], starts)
    often[size < np.log2(len(days) / CHANCE)] = 1
    of_day = np.ones(rows.day.max() + 1, int)
    of_day[days] = often
    dropped = _number(rows.line) >= times[rows.line] // of_day[rows.day]
    return dropped, f"{counted(int((often > 1).sum()), 'day')} there more than once, "


def _overlaps(rows: Rows) -> tuple[np.ndarray, str]:
    """Days that are taken up again after later ones: exports one after another that overlap, if both say the same."""
    import pandas as pd

    stretch = _stretches(rows)
    later = stretch > pd.Series(stretch).groupby(rows.key).transform("min").to_numpy()
    nothing, what = np.zeros(len(later), bool), "days are taken up again as they were, "
    if not later.any():
        return nothing, what
    if _single_sales(rows.keep(~later)):
        blocks = len(np.unique(np.stack([rows.place, stretch])[:, later], axis=1).T)
        alike = _listed_alike(rows, stretch, later) if later.sum() >= BLOCK * blocks else 0.0
        if alike < 0.5:  # sales that were booked late, or another till
            return nothing, what
        if alike < 1:
            found = f"{line_numbers(rows.table.lines[later])} take up days again that earlier lines have, most as there"
            advice = "lists of sales that overlap; leave out the lines of one of them"
            raise ValueError(f"{rows.table.path}: {found}: {advice}")
    elif (other := later & ~_seen(rows.line)).any():
        raise ValueError(_two_totals(rows, other))
    return later, what


def _mistakes(rows: Rows) -> tuple[np.ndarray, str]:
    """Repeated lines among totals; among single sales, those few that are alike to the time of day and in every other
    column too."""
    again = _seen(rows.key)
    if _single_sales(rows):
        told_apart = (rows.when != rows.when.dt.normalize()).any() and bool(rows.table.ignored)
        exact = rows.table.repeats & _seen(rows.line)
        return exact & told_apart & (exact.mean() <= REPEATED), "alike in every column, "
    alike = _seen(rows.line) & (rows.table.repeats | (not rows.table.ignored and len(rows.table.columns) == 3))
    if (again & ~alike).any():
        raise ValueError(_two_totals(rows, again & ~alike))
    expected = (np.bincount(rows.place) ** 2.0).sum() / (2 * rows.day.max() + 2)  # if each row came at a random day
    few = again.mean() <= REPEATED and again.sum() < SELDOM * expected
    if not few and np.log(_agreement(rows))[rows.place[again]].sum() > np.log(CHANCE):
        found = f"{counted(int(again.sum()), 'repeated line')} ({line_numbers(rows.table.lines[again])})"
        raise ValueError(f"{rows.table.path}: {found}: mistakes of an export, or sales of the same size?{_ways(rows)}")
    return again, ""


# --- what shows it ----------------------------------------------------------------------------------------------------


def _single_sales(rows: Rows) -> bool:
    """Whether something shows that the rows are single sales, not totals."""
    if (np.abs(rows.units) == 1).all():
        return True
    again = _seen(rows.key)
    if again.any() and not _seen(rows.moment)[again].any():
        return True  # at other times of the day
    several = (sizes := np.bincount(rows.key))[sizes > 1]
    if len(several) < FEW or (several > 2).mean() < VARIED or sizes[sizes > 0].min() == sizes.max():
        return False
    of_place = np.bincount(np.arange(len(sizes)) % (rows.place.max() + 1), weights=_pairs(sizes))
    chance = np.average(_agreement(rows), weights=of_place)
    agree = _pairs(np.bincount(rows.line)).sum() / of_place.sum()
    return bool(agree <= (1 + chance) / 2)


def _stretches(rows: Rows) -> np.ndarray:
    """How often the rows of a warehouse have gone back in time before each, (R,); 0 where no order is to be seen."""
    order = np.argsort(rows.place, kind="stable")
    step = np.diff(rows.day[order], prepend=0)
    step[np.flatnonzero(np.diff(rows.place[order], prepend=-1))] = 0  # the first of each warehouse
    back, forth = step < 0, step > 0
    if back.sum() > forth.sum():  # the newest first
        back, forth = forth, back
    stretch = np.zeros(len(order), int)
    if back.sum() < SHUFFLED * max(1, back.sum() + forth.sum()):
        stretch[order] = np.cumsum(back)
    return stretch


def _listed_alike(rows: Rows, stretch: np.ndarray, later: np.ndarray) -> float:
    """Share of the days listed first, within the span of a later stretch of the warehouse, that it lists alike."""
    import pandas as pd

    told = np.random.default_rng(0).integers(2**40, size=rows.line.max() + 1)[rows.line]  # a sum tells which lines
    frame = pd.DataFrame({"place": rows.place, "stretch": stretch, "day": rows.day, "told": told, "later": later})
    listed = frame.groupby(["place", "stretch", "day"], as_index=False).agg(
        told=("told", "sum"), later=("later", "any")
    )
    again = listed[listed["later"]]
    spans = again.groupby(["place", "stretch"], as_index=False)["day"].agg(["min", "max"])
    first = listed[~listed["later"]].merge(spans, on="place", suffixes=("", "_later"))
    inside = (first["stretch"] < first["stretch_later"]) & first["day"].between(first["min"], first["max"])
    first = first[inside].drop(columns="stretch").rename(columns={"stretch_later": "stretch"})
    both = first.merge(again, on=["place", "stretch", "day"], how="left", suffixes=("", "_again"))
    return float((both["told"] == both["told_again"]).mean())


def _agreement(rows: Rows) -> np.ndarray:
    """Chance that two rows of a warehouse have the same units, (N,)."""
    n, kinds = int(rows.place.max()) + 1, int(rows.unit.max()) + 1
    pair, times = np.unique(rows.place * kinds + rows.unit, return_counts=True)
    same = np.bincount(pair // kinds, weights=times.astype(float) ** 2, minlength=n)
    return same / np.maximum(np.bincount(rows.place, minlength=n), 1.0) ** 2


def _pairs(sizes: np.ndarray) -> np.ndarray:
    return sizes * (sizes - 1.0) / 2


def _seen(values: np.ndarray) -> np.ndarray:
    """Whether an earlier entry is the same, (R,) bool."""
    import pandas as pd

    return pd.Series(values).duplicated().to_numpy()


def _number(values: np.ndarray) -> np.ndarray:
    """How many earlier entries are the same, (R,)."""
    import pandas as pd

    return pd.Series(values).groupby(values).cumcount().to_numpy()


# --- words ------------------------------------------------------------------------------------------------------------


def _two_totals(rows: Rows, other: np.ndarray) -> str:
    row = int(other.argmax())
    before = int((rows.key == rows.key[row]).argmax())
    table, more = rows.table, int(other.sum()) - 1
    found = f"line {table.lines[row]} has {rows.units[row]:g}, line {table.lines[before]} has {rows.units[before]:g}"
    found += f"; and {counted(more, 'more line')} like it" if more else ""
    return f"{table.path}: another total of the same date and warehouse was found ({found})" + _ways(rows)


def _ways(rows: Rows) -> str:
    pair = [rows.table.written[name] for name in ("date", "warehouse")]
    summed = f".groupby({pair!r}, as_index=False, sort=False)[{rows.table.written['units']!r}].sum()"
    keep = in_pandas(rows.table.path, then=f".drop_duplicates({pair!r}, keep='last')")
    return f"\nkeep the one that holds{keep}\nor add them up, if they are sales, items or shifts: {summed}"
