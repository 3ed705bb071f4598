"""The history of a training: rows that differ in their names, at 8 bytes a number, on the disk as in the memory."""

from __future__ import annotations

import tracemalloc
import warnings

import pytest

from core.experiment.history import History
from core.experiment.runs.folders import RunFolder


def row(k: int, **more: float) -> dict[str, float]:
    return {
        "episode": k,
        "round": k // 2,
        "env_steps": 3 * (k + 1),
        "length": 3,
        "team_return": 1.0,
        "seconds": 0.1 * k,
        **more,
    }


def test_what_a_row_lacks_is_nan_and_the_clock_comes_last():
    history = History()
    history.extend([row(0), row(1, loss=2.5)])
    table = history.to_table()
    assert list(table.columns) == ["episode", "round", "env_steps", "length", "team_return", "loss", "seconds"]
    assert table["loss"].isna().tolist() == [True, False] and table["env_steps"].tolist() == [3, 6]
    assert table["env_steps"].dtype == "int64" and history.last("loss") == 2.5 and len(history) == 2


def test_a_history_comes_back_from_its_state():
    history = History()
    history.extend([row(0), row(1, loss=2.5)])
    again = History.from_state(history.state())
    assert again.to_table().equals(history.to_table())


@pytest.mark.parametrize(
    ("column", "value"), [("length", float("nan")), ("env_steps", float("inf")), ("round", -1.0), ("episode", 0.0)]
)
def test_counts_that_are_none_are_refused(column, value):
    history = History()
    history.extend([row(0), row(1)])
    state = history.state()
    state["values"][1, state["columns"].index(column)] = value
    with pytest.raises(ValueError, match="NaN|NA|in order, from 0"):
        History.from_state(state)


@pytest.mark.parametrize("name", ["episode", "round", "env_steps", "length", "team_return", "seconds"])
@pytest.mark.parametrize("found", ["another", "loss"])
def test_a_history_without_its_columns_is_refused(name, found):
    history = History()
    history.extend([row(0, loss=1.0)])
    state = history.state()
    state["columns"][state["columns"].index(name)] = found
    with pytest.raises(ValueError, match=f"the columns of the history are .*{found}.*, which no training has"):
        History.from_state(state)


def test_ten_thousand_episodes_take_less_than_two_megabytes():
    history = History()
    history.extend([row(0, **{f"metric{m}": 0.0 for m in range(12)})])
    tracemalloc.start()
    for k in range(1, 10_001):
        history.extend([row(k, **{f"metric{m}": k / 7 for m in range(12)})])
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 2e6


def test_progress_grows_at_its_end_and_is_the_whole_history(tmp_path):
    folder, history = RunFolder(tmp_path), History()
    for k in range(4):
        history.extend([row(2 * k, loss=k / 3), row(2 * k + 1)])
        folder.write_progress(history.to_table())
    assert (tmp_path / "progress.csv").read_text() == history.to_table().to_csv(index=False)


@pytest.mark.parametrize("content", ["opened, and saved by a spreadsheet", "episode;round\n0;0\n", "", "\0" * 9])
def test_progress_that_somebody_changed_is_named_set_aside_and_written_anew(tmp_path, content):
    history = History()
    history.extend([row(0)])
    RunFolder(tmp_path).write_progress(history.to_table())
    (tmp_path / "progress.csv").write_text(content)
    history.extend([row(1, loss=1.0)])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        RunFolder(tmp_path).write_progress(history.to_table())  # of a process that resumes
    assert (tmp_path / "progress.csv").read_text() == history.to_table().to_csv(index=False)
    if content:
        assert "progress.csv is not what was written there; it is progress_changed.csv now" in str(told[0].message)
        assert (tmp_path / "progress_changed.csv").read_text() == content


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_progress_of_a_save_earlier_or_later_is_taken_as_it_is(tmp_path, rows):
    history, other = History(), History()
    history.extend([row(0), row(1, loss=1.0)])
    other.extend([row(0), row(1, loss=1.0), row(2)][:rows])
    RunFolder(tmp_path).write_progress(other.to_table())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RunFolder(tmp_path).write_progress(history.to_table())
    assert [file.name for file in tmp_path.iterdir()] == ["progress.csv"]
