"""What a training has brought so far, a row an episode, at 8 bytes a number: a million episodes fit."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

COUNTS = ("episode", "round", "env_steps", "length")  # whole numbers; every row has them
CLOCK = "seconds"  # the one column that differs from run to run: it comes last
Row = dict[str, float]


class History:
    """Rows may differ in their names: what a row lacks is NaN. Columns stand in the order of their first appearance."""

    def __init__(self) -> None:
        self._columns: dict[str, array] = {COUNTS[0]: array("d")}

    def __len__(self) -> int:
        return len(self._columns[COUNTS[0]])

    def extend(self, rows: Sequence[Row]) -> None:
        """Add rows at the end."""
        for row in rows:
            for name in row:
                if name not in self._columns:
                    self._columns[name] = array("d", [math.nan]) * len(self)
            for name, column in self._columns.items():
                column.append(row.get(name, math.nan))

    def last(self, name: str) -> float:
        """The newest entry of a column; 0 before the first row."""
        return self._columns[name][-1] if len(self) else 0

    def to_table(self):
        """A pandas.DataFrame.

        Raises:
            ValueError: a count is no whole number, as in a checkpoint that somebody edited.
        """
        import pandas as pd

        return pd.DataFrame({name: self._columns[name] for name in self._names()}).astype(
            dict.fromkeys(COUNTS, "int64")
        )

    def state(self) -> dict[str, Any]:
        """For a checkpoint: {"columns": names, "values": (rows, columns) float64}."""
        columns = [torch.tensor(self._columns[name], dtype=torch.float64) for name in self._names()]
        return {"columns": self._names(), "values": torch.stack(columns, dim=1)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> History:
        """What `state` returned, read from a file.

        Raises:
            ValueError: it is none.
        """
        names, values = state["columns"], state["values"].double()
        if len(set(names)) != len(names) or not {*COUNTS, "team_return", CLOCK} <= set(names):
            raise ValueError(f"the columns of the history are {', '.join(map(str, names))}, which no training has")
        history = cls()
        for name, column in zip(names, values.T, strict=True):
            history._columns[name] = array("d", column.tolist())
        history.to_table()
        counts = values[:, [names.index(name) for name in COUNTS]]
        if not torch.equal(counts[:, 0], torch.arange(len(counts)).double()) or counts.min() < 0:
            raise ValueError("the history does not count its episodes in order, from 0")
        return history

    def _names(self) -> list[str]:
        return sorted(self._columns, key=CLOCK.__eq__)


class Seen:
    """What the observations of a training were like, number by number: its run is opened with it, to say where a team
    is asked about what it never saw. Of several processes, what the first one saw."""

    def __init__(self, agents: int, size: int):
        self.low, self.high = np.full((agents, size), np.inf), np.full((agents, size), -np.inf)
        self.sum, self.count = np.zeros((agents, size)), 0

    def add(self, observations: np.ndarray) -> None:
        """Take in (E, N, O)."""
        np.minimum(self.low, observations.min(axis=0), out=self.low)
        np.maximum(self.high, observations.max(axis=0), out=self.high)
        self.sum += observations.sum(axis=0)
        self.count += len(observations)

    def state(self) -> dict[str, Any]:
        """As a checkpoint holds it: the smallest, the sum and the largest, (N, O) each, and of how many."""
        return {name: torch.from_numpy(getattr(self, name).copy()) for name in ("low", "sum", "high")} | {
            "count": self.count
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        for name in ("low", "sum", "high"):
            getattr(self, name)[:] = state[name].numpy()
        self.count = int(state["count"])
