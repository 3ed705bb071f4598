"""One look at a user's file beyond its single lines: each check refuses what would be read wrongly, by name."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import numpy as np

from core.experiment.reporting.csv_table import Table, counted, in_pandas, some

CAUTION = "CAUTION: "  # begins a note that must be read beside every result
EMPTY = 0.1  # a test part with less than this share of the training part's busy periods holds no business
SUMS = 0.95  # share of periods in which a place is the sum of the others


def names_alike(table: Table, column: str) -> None:
    """Refuse names that differ only in how they are written."""
    groups: dict[str, list[str]] = {}
    for name in map(str, table.columns[column].unique()):
        groups.setdefault(_plainly(name), []).append(name)
    alike = [names for names in groups.values() if len(names) > 1]
    if alike:
        found = some(" and ".join(_with_line(table, column, name) for name in names) for names in alike)
        raise ValueError(f"{table.path}: {column} has {found}, the same name written differently; write it in one way")


def _with_line(table: Table, column: str, name: str) -> str:
    written = repr(name) if unicodedata.is_normalized("NFC", name) else ascii(name)  # the two would look the same
    return f"{written} (line {table.lines[(table.columns[column] == name).to_numpy().argmax()]})"


def _plainly(name: str) -> str:
    """A name without what exports change: case, composition, invisible signs, blanks, points, hyphens and quotes, and
    with 7 for 007 or 7.0."""
    letters = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    visible = "".join(
        sign for sign in letters if unicodedata.category(sign) not in ("Cf", "Cc") and sign not in "\"'’`´"
    )
    whole = re.sub(r"(?<=\d)[.,]0*$", "", visible)
    joined = re.sub(r"(?<!\d) +| +(?!\d)", "", re.sub(r"[\s._-]+", " ", whole))
    return re.sub(r"(?<!\d)0+(?=\d)", "", joined)


def no_thousands_points(table: Table, column: str) -> None:
    """Refuse 1.234 where every number with a point has three digits behind it: it may be a thousand, or one."""
    text = table.columns[column].cat.categories.to_series()
    points = text[text.str.contains(".", regex=False)]
    if len(points) and points.str.fullmatch(r"[+-]?[1-9]\d{0,2}\.\d{3}").all():
        there = table.columns[column].isin(points).to_numpy()
        found = f"{counted(int(there.sum()), 'number')} like {points.iloc[0]!r} (line {some(table.lines[there])})"
        raise ValueError(
            f"{table.path}: {column} has {found}: a thousand, or one and a part? Write thousands without a point"
            + in_pandas(table.path, 'thousands="."')
            + f"\nor, if parts are meant, one of them with another digit: {points.iloc[0]}0"
        )


def no_sums(path: Any, names: Any, units: np.ndarray) -> None:
    """Refuse a place that is the sum of all the others, (P, N) units."""
    if units.shape[1] < 3:
        return
    others = units.sum(axis=1, keepdims=True) - units
    busy = units > 0
    there = busy.sum(axis=0)  # the newest period may be without its sum yet
    equal = (np.isclose(others, units) & busy).sum(axis=0) >= SUMS * there
    equal &= 2 * there > (others > 0).sum(axis=0)
    if equal.any():
        raise ValueError(f"{path}: {str(names[equal.argmax()])!r} is the sum of the others; leave its rows out")


def business_in_the_test(path: Any, busy: np.ndarray, training: int, since: Any) -> None:
    """Refuse a test part in which next to nothing happens; busy: (P,) bool, periods with anything."""
    if busy[training:].mean() < EMPTY * busy[:training].mean():
        found = f"{int(busy[training:].sum())} of {counted(len(busy) - training, 'period')} have any"
        what = "correct dates far from the rest, or cut off what is padded"
        raise ValueError(f"{path}: almost nothing happens in the test part, since {since}: {found}; {what}")


def no_far_dates(path: Any, length: int, periods: int, begins: Any, lines: Any = ()) -> None:
    """Refuse a silence as long as the rest together: a date is mistyped far from the others (in `lines`)."""
    if 2 * length > periods:
        found = f"{counted(length, 'period')} of {periods:,} without any row, from {begins}"
        found += f" (far from the rest: line {some(lines)})" if len(lines) else ""
        raise ValueError(f"{path}: {found}: correct the dates far from the rest, or leave their rows out")


def far_values(table: Table, column: str, values: np.ndarray) -> list[str]:
    """A caution on numbers far above all others: 100 times the median of what is sold, and 10 times the next."""
    high = np.sort(values[values > 0])
    gaps = np.flatnonzero((high[1:] > 10 * high[:-1]) & (high[1:] > 100 * np.median(high))) if len(high) else []
    if not len(gaps):
        return []
    lines = table.lines[values >= high[gaps[0] + 1]]
    return [
        f"CAUTION: {column} is far above all others in line {some(lines)}: the results hang on it if it is a mistake"
    ]


def cautions(notes: Any) -> list[str]:
    """Those notes of a file that must be read beside every result."""
    return [note.removeprefix(CAUTION) for note in notes if note.startswith(CAUTION)]
