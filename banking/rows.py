"""The rows of a user's file of transactions, read: text becomes numbers, times and categories.

Shapes: K rows, in the order of the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.experiment.reporting.checks import no_thousands_points
from core.experiment.reporting.csv_table import (
    Complaints,
    Table,
    booleans,
    header_names,
    numbers,
    of_rows,
    read_csv,
    texts,
    times,
)

REQUIRED, OPTIONAL = ("timestamp", "router", "amount"), ("urgent", "channel", "settled_at", "fee")
# Columns that nothing is computed from, looked at because they tell rows apart; blanks stand for _ . and - in names.
CURRENCY = re.compile(r"currency|\bccy\b|\bcurr?\b|\biso( code)?$")
STATUS = re.compile(
    r"status|\bstate\b|result|outcome|response|error|\b(return|reason) code|success|approved|fail|declin|reject|revers"
    r"|charge ?back|refund|cancel|void|\btype\b|\bkind\b"
)


@dataclass(eq=False)
class Rows:
    """What a file holds, line by line.

    `frame`: pandas table (K, ...) with line, again (the same text as an earlier line), timestamp, bare (no time of day
    was written), router (categories), amount and, where the file has them, urgent, channel (categories), settled_at,
    settled_bare, fee, and the columns of `currencies` and `statuses` (categories).
    """

    path: Path
    frame: Any
    unused: list[str]  # columns of OPTIONAL that say nothing without another
    ignored: list[str]  # columns that nobody looks at
    blank: int  # empty lines that were skipped
    currencies: list[str]
    statuses: list[str]

    @property
    def columns(self) -> set[str]:
        return set(self.frame.columns)

    @property
    def fitted(self) -> bool:
        """Whether channels can be fitted."""
        return {"channel", "settled_at"} <= self.columns

    @property
    def lines(self) -> np.ndarray:
        """(K,) where each row ends in the file."""
        return self.frame["line"].to_numpy()

    def keep(self, rows: np.ndarray) -> Rows:
        """These rows (bool) alone."""
        return replace(self, frame=self.frame[rows])

    def names(self, column: str) -> Table:
        """A table with the first row of each name in a column of categories."""
        import pandas as pd

        first = np.flatnonzero(~self.frame[column].duplicated().to_numpy())
        text = pd.Series(self.frame[column].to_numpy()[first], dtype=object)
        return Table(self.path, {column: text}, self.lines[first], self.ignored, self.blank, np.zeros(len(first), bool))


def read_rows(path: Path) -> Rows:
    """All rows of a file. Raises FileNotFoundError, or ValueError naming the lines that cannot be used."""
    names = header_names(path)
    currencies, statuses = ([n for n in names if like.search(re.sub("[_.-]", " ", n))] for like in (CURRENCY, STATUS))
    statuses = [name for name in statuses if name not in (*REQUIRED, *OPTIONAL, *currencies)]
    table = read_csv(path, REQUIRED, (*OPTIONAL, *currencies, *statuses))
    frame, unused = _parsed(table)
    no_thousands_points(table, "amount")
    for name in (*currencies, *statuses):
        frame[name] = table.columns[name]
    return Rows(path, frame, unused, table.ignored, table.blank, currencies, statuses)


def _parsed(table: Table) -> tuple[Any, list[str]]:
    """Text -> numbers, times and categories, and the columns that cannot be used."""
    import pandas as pd

    complaints, there = Complaints(table.path), table.columns
    fitted = "channel" in there and "settled_at" in there
    moments = ["timestamp", "settled_at"] if "settled_at" in there else ["timestamp"]
    columns = {"line": table.lines, "again": table.repeats}
    columns |= dict(zip(moments, times(table, moments, complaints, empty=["settled_at"]), strict=True))
    columns["bare"] = _without_time(there.pop("timestamp"))
    columns["router"] = texts(table, "router", complaints).astype("category")
    columns["amount"] = numbers(table, "amount", complaints, "give what is paid, above 0 (no refunds)", positive=True)
    if "urgent" in there:
        columns["urgent"] = booleans(table, "urgent", complaints)
    if "settled_at" in there:
        columns["settled_bare"] = _without_time(there["settled_at"])
        early = (columns["settled_at"] < columns["timestamp"]).to_numpy() & ~columns["settled_bare"]
        complaints.add(table.lines[early], there["settled_at"][early], "settled_at is {!r}, before its timestamp")
    if fitted:
        columns["channel"] = texts(table, "channel", complaints).astype("category")
    if "fee" in there:
        columns["fee"] = numbers(table, "fee", complaints, "give the fee, 0 or more", empty=True)
    complaints.refuse()
    unused = [] if fitted else [name for name in ("channel", "settled_at", "fee") if name in there]
    return pd.DataFrame(columns, copy=False), unused


def _without_time(text: Any) -> np.ndarray:
    return of_rows(text, [len(written) == len("YYYY-MM-DD") for written in text.cat.categories])
