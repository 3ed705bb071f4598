"""Lines of a user's log that are there again: exports that were put together count once, equal payments as they are.

Shapes: K rows, in the order of the file.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from banking.rows import Rows
from core.experiment.reporting.checks import CAUTION
from core.experiment.reporting.csv_table import counted, some

BLOCK = 3  # lines that are there again one under the other: a part of an export
COPIED, MUCH = 0.05, 10.0  # share of lines that are there again, and that many times chance: copies,
FEW_COPIES = 4  # which are there at most that often
TOLD = 10  # copies, too few to be dropped, that are told
KEY = re.compile(r"(?<!pa)(?<!val)id\b|uuid|\bref|number|num\b|\bno\b|key|hash")  # a column that names a payment


def without_repeats(rows: Rows) -> tuple[Rows, list[str]]:
    """The rows that count, and notes on the lines that are dropped because they are there again, or kept."""
    notes = []
    while found := repeated_exports(rows):  # an export that is there four times is there twice, twice
        rows, more = found
        notes.append(more)
    rows, more = repeated_lines(rows)
    return rows, [*notes, *more]


def repeated_exports(rows: Rows) -> tuple[Rows, str] | None:
    """Drop what is there again because exports were put together; two payments of one second may well be alike.

    Chance makes single lines alike, not blocks of them. So lines are dropped that repeat BLOCK earlier ones or more
    one under the other, or that in order of time belong to a stretch in which every line is there twice (three
    times, ...), longer than chance makes one; and all of them, where they are many. Refused where the repeats differ in
    other columns.
    """
    import pandas as pd

    frame = rows.frame
    code = _codes(frame)
    if code.max() == len(code) - 1:  # none is there again
        return None
    number = pd.Series(code).groupby(code).cumcount().to_numpy()  # of this line among the equal ones, from 0
    when = frame["timestamp"].to_numpy()
    again = _blocks(code, number, when) | _stretches(code, number, when)
    copies = _copies(frame, code)
    if copies.sum() > COPIED * len(code):
        again |= copies
    if not again.any():
        return None
    lines = some(_ranges(rows.lines[again]))
    if (again & ~frame["again"].to_numpy()).any():
        raise ValueError(
            f"{rows.path}: {counted(int(again.sum()), 'payment')} (line {lines}) are there already, with the same "
            "timestamp, router and amount one after the other, but written differently or with other values "
            "beside: overlapping exports, or both sides of an account; keep one line a payment"
        )
    found = counted(int(again.sum()), "repeated line")
    return rows.keep(~again), f"duplicates: an export is there again, {found} dropped (line {lines})"


def _codes(frame: Any) -> np.ndarray:
    """(K,) numbers from 0, the same where time, router and amount are, in the order in which they come."""
    import pandas as pd

    return pd.factorize(pd.util.hash_pandas_object(frame[["timestamp", "router", "amount"]], index=False).to_numpy())[0]


def _copies(frame: Any, code: np.ndarray) -> np.ndarray:
    """(K,) bool: lines that are there again, not often, if they are more than chance makes: of two payments of one
    moment, MUCH more are alike than of any two. (The many equal payments of a payroll are none.)"""

    def pairs(counts: np.ndarray) -> float:
        return float((counts.astype(float) * (counts - 1)).sum())

    counts = np.bincount(code)
    few = counts <= FEW_COPIES
    by_moment = frame["timestamp"].value_counts().to_numpy()
    alike = frame[["router", "amount"]].value_counts().to_numpy() / len(frame)
    much = pairs(counts[few]) > MUCH * (alike**2).sum() * pairs(by_moment)
    return frame["again"].to_numpy() & few[code] & much


def _blocks(code: np.ndarray, number: np.ndarray, when: np.ndarray) -> np.ndarray:
    """(K,) bool: lines of a block of BLOCK or more, not of one moment, that follow each other as earlier ones do."""
    order = np.argsort(code, kind="stable")
    earlier = np.full(len(code), -1)
    same = code[order[1:]] == code[order[:-1]]
    earlier[order[1:][same]] = order[:-1][same]
    lag = np.where(number > 0, np.arange(len(code)) - earlier, 0)
    return _runs(np.where(lag > 1, lag, 0), BLOCK, when)


def _runs(value: np.ndarray, least: int, when: np.ndarray) -> np.ndarray:
    """(K,) bool: where `value` is not 0 and the same `least` times or more in succession, not all at one moment."""
    starts = np.flatnonzero(np.concatenate([[True], value[1:] != value[:-1]]))
    ends = np.concatenate([starts[1:], [len(value)]])
    long = (ends - starts >= least) & (when[starts] != when[ends - 1])
    return np.repeat(long, ends - starts) & (value != 0)


def _stretches(code: np.ndarray, number: np.ndarray, when: np.ndarray) -> np.ndarray:
    """(K,) bool: lines that are there again in a stretch of time in which every count is a multiple of 2, 3, 5 or 7."""
    counts, again = np.bincount(code), np.zeros(len(code), bool)  # of each distinct line
    first = number == 0
    sorting = np.argsort(when[first], kind="stable")
    order, when = code[first][sorting], when[first][sorting]  # distinct lines in order of time
    for factor in (7, 5, 3, 2):
        multiple = counts[order] % factor == 0
        chance = min(0.5, max(multiple.mean(), 1e-6))
        least = max(BLOCK, int(np.ceil((np.log(len(order)) + 7.0) / -np.log(chance))))
        copied = np.zeros(len(counts), bool)
        copied[order[_runs(multiple.astype(int), least, when)]] = True
        again |= copied[code] & (number >= counts[code] // factor)
    return again


def _ranges(lines: np.ndarray) -> list[str]:
    """Sorted numbers -> '3', '7 to 9'."""
    cuts = np.flatnonzero(np.diff(lines) > 1)
    starts, ends = np.concatenate([[0], cuts + 1]), np.concatenate([cuts, [len(lines) - 1]])
    pairs = zip(lines[starts].tolist(), lines[ends].tolist(), strict=True) if len(lines) else ()
    return [f"{a} to {b}" if b > a else f"{a}" for a, b in pairs]


def repeated_lines(rows: Rows) -> tuple[Rows, list[str]]:
    """Drop single lines that are there again, unless chance may have made two payments of one second alike."""
    again = rows.frame["again"].to_numpy()
    if not again.any():
        return rows, []
    when, found = rows.frame["timestamp"], counted(int(again.sum()), "repeated line")
    key = any(KEY.search(name.casefold()) for name in rows.ignored)
    if key or "settled_at" in rows.columns or (when != when.dt.floor("s")).any():
        return rows.keep(~again), [f"duplicates: {found} dropped (line {some(rows.lines[again])})"]
    told = f"duplicates: {found} kept: payments of one second may be alike (line {some(rows.lines[again])})"
    if _copies(rows.frame, _codes(rows.frame)).sum() > TOLD:
        told = f"{CAUTION}{told}, but these are more than chance makes: is the export right?"
    return rows, [told]
