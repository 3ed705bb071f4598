"""One look at all sales together: each check refuses what would be trained on or judged wrongly, or tells it.

A check is given a `Grid`, and returns notes for the report; those that begin with CAUTION stand beside every result.
It raises ValueError where nothing right can come of the file. `CHECKS` lists them all.

Shapes: R rows of the file that count, P periods, N warehouses.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from core.experiment.reporting import checks
from core.experiment.reporting.csv_table import Table, counted, in_pandas, line_numbers, some

WORD = {1: "day", 7: "week"}
MONTH = 31  # days: where a name ends, another may begin so much later and be the same place
ALIKE = 3.0  # and sell up to so many times as much, or as little
FEW = 2  # sales that a silence before or after must have left out, at a warehouse's rate, to be none by chance
LARGE = 0.1  # share of the test part's units from which new names are refused, and not only told
PADDED = 0.25  # share of the test part from which silence at the end is refused, and not only told
HALF = 0.5  # of the units of the training part, or of the test part
SILENT = 3  # times the longest silence of a warehouse: so long a one is told
CLEAR, MAYBE = 0.01, 0.2  # chance of as good a sum: refused below the first, told below the second
SUBSETS = 12  # warehouses of which every subset is tried for being a sum
SUM_NAMES = re.compile(r"(?<![a-z])(sub-?|grand )?(total|sum|summe|all|alle|overall|gesamt|insgesamt)(?![a-z])")
CODE = r"(?:[ _-]?(?:id|no|nr|nbr|num|number|code|key|name|desc|description))?"
ITEM = re.compile(f"(?:item|sku|product|article|artikel|produkt|material|stock ?code|upc|ean|gtin|asin){CODE}")
KIND = re.compile(f"(?:family|category|categorie|cat|dept|department|class|brand){CODE}")
PLACE = re.compile(f"(?:warehouse|store|shop|site|location|depot|filiale|branch|plant|outlet){CODE}")
NUMBER = re.compile(r"(?:units?|qty|quantity|sales|sold|demand|amount|price|revenue|customers|value)(?:[ _-].*)?")
DAY = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ].*)?|d_?\d+|(\d{1,2})[./-](\d{1,2})[./-](?:\d{2}|\d{4})")


@dataclass(frozen=True)
class Grid:
    """The sales of a file by period and warehouse, and the rows they come from."""

    path: Path
    names: np.ndarray  # (N,) of warehouses
    units: np.ndarray  # (P, N)
    first: date  # of the first period
    days: int  # of a period: 1 or 7
    training: int  # periods of the training part
    period: np.ndarray  # (R,)
    place: np.ndarray  # (R,) numbers of warehouses
    line: np.ndarray  # (R,) in the file

    def day(self, period: int) -> str:
        return (self.first + timedelta(days=self.days * int(period))).isoformat()

    def lines(self, rows: np.ndarray) -> str:
        return line_numbers(np.sort(self.line[rows]))

    def named(self, places: Any) -> str:
        return some(repr(str(self.names[place])) for place in np.flatnonzero(places))

    def selling(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First and last period with sales, and the longest silence between two of them, each (N,)."""
        first, last, gap = np.zeros((3, len(self.names)), int)
        for i, units in enumerate(self.units.T):
            sold = np.flatnonzero(units)
            if len(sold):
                first[i], last[i], gap[i] = sold[0], sold[-1], np.diff(sold, prepend=sold[0] - 1).max()
        return first, last, gap

    def quiet(self) -> np.ndarray:
        """Warehouses that have ended: a silence up to the end longer than any before, or as long as the test, (N,)."""
        _, last, gap = self.selling()
        left, test = len(self.units) - 1 - last, len(self.units) - self.training
        long = (left > SILENT * gap) & (left >= max(7 // self.days, LARGE * test))
        return (long | (left >= test)) & self.units.any(axis=0)


# --- dates ------------------------------------------------------------------------------------------------------------


def far_dates(grid: Grid) -> list[str]:
    """Refuse few dates far from all others."""
    there = np.unique(grid.period)
    gaps = np.diff(there)
    if not len(gaps):
        return []
    k, usual = int(gaps.argmax()), np.sort(gaps)[-2] if len(gaps) > 1 else 1
    few = min(k + 1, len(there) - k - 1) <= max(1, 0.02 * len(there))
    if 2 * gaps[k] > len(grid.units) or (few and gaps[k] > max(SILENT * usual, MONTH / grid.days)):
        early = k + 1 < len(there) - k - 1
        far = grid.period <= there[k] if early else grid.period > there[k]
        silence = f"{counted(int(gaps[k]) - 1, WORD[grid.days])} without any row, from {grid.day(there[k] + 1)}"
        found = f"{silence}, {'before it' if early else 'and then'} {grid.lines(far)}"
        raise ValueError(f"{grid.path}: {found}: correct the dates far from the rest, or leave their rows out")
    return []


def padded(grid: Grid) -> list[str]:
    """Refuse, or tell, a test part that ends with lines without sales: padded on, or not booked yet."""
    active = np.flatnonzero(grid.units.any(axis=1))
    if not len(active):
        return []
    end, silence = len(grid.units) - 1 - int(active[-1]), int(np.diff(active, prepend=active[0] - 1).max()) - 1
    nothing = grid.units[grid.period, grid.place] == 0
    alone = not (nothing & (grid.period <= active[-1])).any()  # elsewhere, days without sales have no line
    if not end or not (end > max(2, silence) or alone):
        return []
    since, word = grid.day(active[-1] + 1), WORD[grid.days]
    found = f"nothing is sold in the last {counted(end, word)}, since {since} ({grid.lines(grid.period > active[-1])})"
    if end >= PADDED * (len(grid.units) - grid.training):
        raise ValueError(f"{grid.path}: almost nothing happens in the test part: {found}; cut off what is padded")
    return [f"CAUTION: {found}: padded, or not booked yet?"]


def empty_test(grid: Grid) -> list[str]:
    checks.business_in_the_test(grid.path, grid.units.any(axis=1), grid.training, grid.day(grid.training))
    return []


def silent(grid: Grid) -> list[str]:
    """Tell warehouses that sell nothing for long at the end; refuse if they are the larger half."""
    quiet, test = grid.quiet(), len(grid.units) - grid.training
    if not quiet.any() or quiet.all():
        return []
    last = grid.selling()[1]
    left = len(grid.units) - 1 - last
    since = ", ".join(f"{str(grid.names[i])!r} after {grid.day(last[i])}" for i in np.flatnonzero(quiet)[:5])
    share = grid.units[: grid.training, quiet].sum() / max(grid.units[: grid.training].sum(), 1e-9)
    found = f"nothing is sold by {since}{f' and {quiet.sum() - 5} more' if quiet.sum() > 5 else ''}"
    if share > HALF and (left[quiet] >= PADDED * test).all():
        raise ValueError(
            f"{grid.path}: {found}, to the end of the file: cut it off there, or leave these warehouses out"
        )
    return [f"CAUTION: {found}: closed, or not booked yet?"]


# --- names ------------------------------------------------------------------------------------------------------------


def renamed(grid: Grid) -> list[str]:
    """Refuse names that begin where others end, as after a change of systems; told where they sell little."""
    first, last, gap = grid.selling()
    sold, test = grid.units.any(axis=0), grid.units[grid.training :].sum(axis=0)
    ended, new = grid.quiet(), sold & (first >= grid.training)
    rate = grid.units.sum(axis=0) / np.maximum(last - first + 1, 1)
    after = first[None, :] - last[:, None]  # (N, N) periods from the end of one to the beginning of another
    near = (after > 0) & (after <= np.maximum(MONTH / grid.days, 2 * gap)[:, None])
    alike = (rate[None, :] <= ALIKE * rate[:, None]) & (rate[:, None] <= ALIKE * rate[None, :])
    often, length = (grid.units > 0).sum(axis=0), len(grid.units)
    left_out = (
        often / (last + 1) * (length - 1 - last),
        often / (length - first) * first,
    )  # sales one would expect there
    ended_for_sure, begun_for_sure = ((often > 1) & (expected >= FEW) for expected in left_out)
    pairs = near & alike & (ended & ended_for_sure)[:, None] & (sold & begun_for_sure)[None, :]
    begun = new | pairs.any(axis=0)
    if not begun.any():
        return []
    share = test[begun].sum() / max(test.sum(), 1e-9)
    ends = pairs.any(axis=1) if pairs.any() else ended
    found = [f"{grid.named(begun)} {'begins' if begun.sum() == 1 else 'begin'} on {grid.day(first[begun].min())}"]
    if ends.any():
        found.append(
            f"{grid.named(ends)} {'sells' if ends.sum() == 1 else 'sell'} nothing after {grid.day(last[ends].max())}"
        )
    found = f"{' and '.join(found)}, and the test part begins on {grid.day(grid.training)}"
    what = f"{100 * share:.0f} % of its units are of new names"
    if share > (LARGE if ends.any() else HALF):
        way = "give a place one name throughout, or leave out the rows of those that are not there all the time"
        raise ValueError(f"{grid.path}: {found}; {what}: {way}")
    return [f"CAUTION: {found}; {what}"]


# --- sums -------------------------------------------------------------------------------------------------------------


def sums(grid: Grid) -> list[str]:
    """Refuse warehouses that are the sum of others, whole or rounded, also where they have a row on some days alone."""
    busy = grid.units > 0
    typical = grid.units.sum(axis=0) / np.maximum(busy.sum(axis=0), 1)
    known, notes, refused = np.zeros(len(grid.names), bool), [], []
    for c in np.argsort(typical, kind="stable"):
        others = np.flatnonzero(~known & (np.arange(len(known)) != c))
        parts, chance = _parts(grid.units[busy[:, c]][:, others], grid.units[busy[:, c], c])
        hint = SUM_NAMES.search(str(grid.names[c]).casefold().replace("_", " "))
        members = grid.named(np.isin(np.arange(len(known)), others[parts]))
        found = f"{str(grid.names[c])!r} is the sum of "
        found += f"the others ({members})" if len(parts) == len(others) else members
        if len(parts) and (chance < CLEAR or hint):
            known[c] = True
            refused.append(found)
        elif len(parts) and chance < MAYBE:
            notes.append(f"CAUTION: {found} whenever it sells: a sum, counted as a warehouse?")
        elif hint and busy[:, c].any():
            notes.append(f"CAUTION: {str(grid.names[c])!r} is counted as a warehouse: is it a sum, as its name says?")
    if refused:
        raise ValueError(f"{grid.path}: {'; '.join(refused)}; leave its rows out")
    return notes


def _parts(others: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, float]:
    """Which columns of (P, K) add up to (P,), none if no two do; and the chance of it among numbers as large."""
    none = np.zeros(0, int)
    if len(total) < 2:
        return none, 1.0
    near = np.maximum(_grain(total) / 2, 0.005 * total) + 1e-9
    fits = np.flatnonzero(((others > (total + near)[:, None]).mean(axis=0) <= 1 - checks.SUMS) & others.any(axis=0))
    inside = others[:, fits]
    if len(fits) < 2 or (inside.sum(axis=1) < total - near).mean() > 1 - checks.SUMS:
        return none, 1.0
    if len(fits) <= SUBSETS:
        chosen = (np.arange(2 ** len(fits))[:, None] >> np.arange(len(fits))) % 2  # (S, K), every subset
        chosen = chosen[chosen.sum(axis=1) > 1]
    else:
        gram = inside.T @ inside
        weights = np.linalg.solve(gram + 1e-9 * np.trace(gram) * np.eye(len(fits)), inside.T @ total)
        chosen = np.stack([weights > 0.5, np.ones(len(fits), bool)]).astype(int)
    apart = np.abs(chosen @ inside.T - total)  # (S, P)
    right = (apart <= near).mean(axis=1)
    best = int(right.argmax())
    if right[best] < checks.SUMS:
        return none, 1.0
    # A number around `total` is hit by a sum of its size with this chance (the deviation of a count is its root), or as
    # often as the sums of other days hit it, where these differ more.
    hit = np.minimum(1.0, 0.4 * (2 * near + 0.9) / np.sqrt(np.maximum(total, 0.16)))
    some_days = np.random.default_rng(0).permutation(len(total))[:300]
    other_days = np.abs(total[some_days] - (inside @ chosen[best])[some_days, None]) <= near[some_days]  # (days, days)
    other = max(1, other_days.sum() - len(some_days)) / max(1, other_days.size - len(some_days))
    chance = len(chosen) * float(np.exp(np.log(np.minimum(hit, other)).sum()))
    return fits[chosen[best] > 0], chance


def _grain(values: np.ndarray) -> float:
    """What all are multiples of, and small against: 10 where they are rounded to tens."""
    for grain in 10.0 ** np.arange(4, -4, -1):
        if values.mean() >= 5 * grain and np.allclose(values / grain, np.round(values / grain), atol=1e-6):
            return float(grain)
    return 0.0


# --- numbers ----------------------------------------------------------------------------------------------------------


def outliers(grid: Grid) -> list[str]:
    """Tell numbers far above all others of a warehouse."""
    rows = np.zeros(len(grid.line), bool)
    for i, units in enumerate(grid.units.T):
        high = np.sort(units[units > 0])
        if len(high) < 4:
            continue
        far = np.flatnonzero((high[1:] > 5 * high[:-1]) & (high[1:] > 30 * np.median(high)))
        if len(far):
            rows |= (grid.place == i) & (grid.units[grid.period, grid.place] >= high[far[0] + 1])
    if not rows.any():
        return []
    largest = grid.units[grid.period[rows], grid.place[rows]].max()
    found = f"units is far above all others in {grid.lines(rows)}, up to {largest:,.0f}"
    return [f"CAUTION: {found}: the results hang on it if it is a mistake"]


CHECKS = (far_dates, sums, renamed, padded, empty_test, silent, outliers)


# --- a file of another form -------------------------------------------------------------------------------------------


def no_wide_file(path: Path, columns: Sequence[str]) -> None:
    """Refuse a column a day, or a column a warehouse, with what makes rows of them; whatever else is wrong is not said
    here."""
    if not path.is_file():
        return
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        try:
            header, *rows = itertools.islice(csv.reader(file), 20)
        except (ValueError, csv.Error):
            return
    plain = [name.strip().lower() for name in header]
    rows = [row for row in rows if len(row) == len(header)]
    if set(columns) <= set(plain) or not rows:
        return
    days = [name for name, text in zip(header, plain, strict=True) if DAY.fullmatch(text)]
    if len(days) > 1 and len(days) < len(header):
        _refuse_days(path, header, days)
    dated = [k for k in range(len(header)) if all(DAY.fullmatch(row[k].strip()) for row in rows)]
    others = [k for k in range(len(header)) if k not in dated]
    named = any(re.fullmatch(kind, plain[k]) for k in others for kind in (ITEM, PLACE, NUMBER))
    if len(dated) == 1 and len(others) > 1 and not named and all(_number(row[k]) for row in rows for k in others):
        date_column, places = header[dated[0]], some(repr(header[k]) for k in others)
        then = f".melt({[date_column]!r}, var_name='warehouse', value_name='units').dropna(subset=['units'])"
        then += f".rename(columns={{{date_column!r}: 'date'}})" if plain[dated[0]] != "date" else ""
        found = f"a column a warehouse was found ({places}); give a row for each date and warehouse"
        raise ValueError(f"{path}: {found}{in_pandas(path, then=then)}")


def _refuse_days(path: Path, header: list[str], days: list[str]) -> None:
    ids = [name for name in header if name not in days]
    place = next((name for name in ids if PLACE.fullmatch(name.strip().lower())), ids[0])
    then = f".melt({ids!r}, var_name='date', value_name='units').dropna(subset=['units'])"
    then += f".rename(columns={{{place!r}: 'warehouse'}})" if place.strip().lower() != "warehouse" else ""
    parts = [match for day in days if (match := DAY.fullmatch(day.strip().lower())) and match[1]]
    first = ""
    if parts:
        dayfirst = not any(int(match[2]) > 12 for match in parts)
        then += f".assign(date=lambda rows: pd.to_datetime(rows['date'], dayfirst={dayfirst}))"
    elif days[0].strip().lower().startswith("d"):
        number = "rows['date'].str.extract(r'(\\d+)')[0].astype(int) - 1"
        then += f".assign(date=lambda rows: pd.Timestamp('2024-01-01') + pd.to_timedelta({number}, unit='D'))"
        first = f"\nwith the date of {days[0]} in the place of 2024-01-01"
    found = f"a column a day was found ({some(map(repr, days), 3)}); give a row for each date and warehouse"
    raise ValueError(f"{path}: {found}{in_pandas(path, then=then)}{first}")


def _number(text: str) -> bool:
    return not text.strip() or re.fullmatch(r"\s*-?\d+(?:\.\d*)?\s*", text) is not None


def item_columns(names: Sequence[str]) -> list[str]:
    """Those names of a header that tell items apart."""
    return [name for name in names if ITEM.fullmatch(name) or KIND.fullmatch(name)]


def no_other_items(table: Table, columns: Sequence[str]) -> None:
    """Refuse several items in one file: one is planned at a time."""
    found = {name: table.columns[name].value_counts() for name in columns if name in table.columns}
    found = {name: counts[counts > 0] for name, counts in found.items() if (counts > 0).sum() > 1}
    if not found:
        return
    name = max(found, key=lambda name: (bool(ITEM.fullmatch(name)), len(found[name])))
    items, column = found[name].index, table.written[name]
    chosen = in_pandas(
        table.path, f"dtype={{{column!r}: str}}", f".loc[lambda rows: rows[{column!r}].str.strip() == {items[0]!r}]"
    )
    pair, units = [table.written[key] for key in ("date", "warehouse")], table.written["units"]
    raise ValueError(
        f"{table.path}: {column} has {counted(len(items), 'item')} ({some(map(repr, items), 3)}), and one is planned "
        f"at a time: keep its rows{chosen}\nor, if they are to be planned as one, add them up in place of .loc[...]: "
        f".groupby({pair!r}, as_index=False, sort=False)[{units!r}].sum()"
    )


# --- before the rows are sales of a day -------------------------------------------------------------------------------


def local_days(table: Table, column: str, when: Any) -> tuple[Any, list[str]]:
    """Dates of the rows, pandas Series, and notes. Local midnights that were written in UTC become local dates again.

    Such stamps have one time of day, or two an hour apart where the clock changes with the summer.
    """
    clock = when - when.dt.normalize()
    hours = np.unique(clock.dt.total_seconds().to_numpy()) / 3600
    text = table.columns[column].cat.categories.to_series()
    utc = text.str.contains(r"(?:Z|UTC|[+-]00(?::?00)?)$").all()
    summer = len(hours) == 2 and hours[1] - hours[0] in (1, 23)
    if not hours.any() or not (len(hours) == 1 or summer) or (hours * 4 % 1).any():
        return when.dt.normalize(), []
    at = " and ".join(f"{int(hour):02d}:{round(60 * (hour % 1)):02d}" for hour in hours)
    if not utc and not summer:
        late = f"CAUTION: every {column} is at {at}: a local midnight in UTC would be of the next day"
        return when.dt.normalize(), [late] if hours[0] > 12 else []
    east = hours.max() >= 12  # of Greenwich, the day begins before midnight in UTC
    day = when.dt.ceil("D") if east else when.dt.normalize()
    read = "the dates are read as the next day's" if east else "the dates are read as they are written"
    return day, [f"CAUTION: every {column} is at {at}{' in UTC' if utc else ''}, which is a local midnight: {read}"]


def no_missing_codes(table: Table, column: str, values: np.ndarray) -> None:
    """Refuse -9, -999 and the like, which stand for a missing number; other negative units are returns."""
    coded = table.columns[column].str.fullmatch(r"-9+(?:\.0*)?").to_numpy(bool) & (values < 0)
    if coded.any() and (values[coded] < -99).any() or coded.sum() > 1 and coded.sum() == (values < 0).sum():
        found = f"{line_numbers(table.lines[coded])}: {column} is {table.columns[column][coded].iloc[0]}"
        raise ValueError(f"{table.path}: {found}, which stands for a missing number; leave these rows out")
