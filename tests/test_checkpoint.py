"""Checkpoints survive what happens to files: kills while writing, cut and flipped bytes, full disks, strangers."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time
import warnings

import numpy as np
import pytest
import torch
from teams import make_team, same

from core.experiment.runs.checkpoint import load_checkpoint, refuse_other_team, save_checkpoint

FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def payload(number: int, size: int = 2000) -> dict:
    """A checkpoint whose parts all tell its number, so that a mixture of two would show."""
    values = torch.full((size,), float(number))
    return {"number": number, "parts": [values, {"deep": values.double()}], "text": f"save {number}"}


def whole(found: dict) -> bool:
    return same(found, payload(found["number"]))


@pytest.fixture
def saved_twice(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, payload(1))
    save_checkpoint(path, payload(2))
    return path


def test_what_was_saved_is_read_and_the_one_before_is_kept(saved_twice):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(load_checkpoint(saved_twice), payload(2))
        assert same(load_checkpoint(saved_twice.with_name("checkpoint_previous.pt")), payload(1))
    assert sorted(file.name for file in saved_twice.parent.iterdir()) == ["checkpoint.pt", "checkpoint_previous.pt"]


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.3, 0.6, 0.9, 0.99, 0.9999])
def test_a_cut_file_is_noticed_and_the_one_before_continues(saved_twice, keep):
    content = saved_twice.read_bytes()
    saved_twice.write_bytes(content[: int(keep * len(content))])
    with pytest.warns(UserWarning, match=r"checkpoint\.pt is damaged \(.+\): continuing from .*_previous\.pt"):
        assert same(load_checkpoint(saved_twice), payload(1))


def test_no_flipped_byte_ever_becomes_a_wrong_value(saved_twice):
    content, noticed = saved_twice.read_bytes(), 0
    positions = np.random.default_rng(0).integers(len(content), size=150)
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        saved_twice.write_bytes(damaged)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = load_checkpoint(saved_twice)
        # Either the flip hit padding and everything is there, or it was noticed and the one before continues.
        assert same(found, payload(1 if caught else 2)), f"byte {position}"
        noticed += bool(caught)
    assert noticed > 0.8 * len(positions)


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x05\x06" + b"\0" * 18], ids=["empty", "text", "empty zip"])
def test_foreign_content_is_damage(saved_twice, content):
    saved_twice.write_bytes(content)
    with pytest.warns(UserWarning, match="continuing from"):
        assert same(load_checkpoint(saved_twice), payload(1))


def test_a_checkpoint_cannot_run_code(saved_twice, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    torch.save({"number": Attack()}, saved_twice)
    with pytest.warns(UserWarning, match="continuing from"):
        assert same(load_checkpoint(saved_twice), payload(1))
    assert not (tmp_path / "attacked").exists()


def test_both_damaged_is_said_with_both_reasons(saved_twice):
    previous = saved_twice.with_name("checkpoint_previous.pt")
    for file in (saved_twice, previous):
        file.write_bytes(b"gone")
    with pytest.raises(ValueError, match=r"no usable checkpoint: .*point\.pt is damaged .*_previous\.pt is damaged"):
        load_checkpoint(saved_twice)


def test_no_checkpoint_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint .*checkpoint.pt"):
        load_checkpoint(tmp_path / "checkpoint.pt")


def test_between_the_two_renames_nothing_is_lost(saved_twice):
    # The state of the folder after a crash there: the old file has moved, the new one not yet.
    os.replace(saved_twice, saved_twice.with_name("checkpoint_new.pt"))
    with pytest.warns(UserWarning, match="is missing: continuing from .*checkpoint_new.pt"):
        assert same(load_checkpoint(saved_twice), payload(2))
    save_checkpoint(saved_twice, payload(3))
    assert same(load_checkpoint(saved_twice), payload(3))


def test_the_newest_counts_also_before_the_first_of_the_two_renames(saved_twice):
    other = saved_twice.with_name("other.pt")
    save_checkpoint(other, payload(3))
    os.replace(other, saved_twice.with_name("checkpoint_new.pt"))
    assert same(load_checkpoint(saved_twice), payload(3))


def save_forever(path, told):
    for number in itertools.count(1):
        save_checkpoint(path, payload(number))
        told.value = number


@FORK
@pytest.mark.filterwarnings("ignore")
def test_a_process_killed_while_it_writes_leaves_the_newest_whole_checkpoint(tmp_path):
    path, context = tmp_path / "checkpoint.pt", multiprocessing.get_context("fork")
    rng = np.random.default_rng(0)
    for _ in range(25):
        told = context.Value("i", 0, lock=False)  # a process that is killed must take no lock with it
        writer = context.Process(target=save_forever, args=(path, told))
        writer.start()
        while told.value < 2:
            time.sleep(0.001)
        time.sleep(rng.uniform(0.0, 0.01))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        found = load_checkpoint(path)
        assert whole(found) and found["number"] >= told.value
    save_checkpoint(path, payload(7))
    assert not list(tmp_path.glob("*.tmp")), "what killed writers left is cleared away"


def save_on_a_full_disk(path, told):
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))  # the 5001st byte is an OSError, as on a full disk
    try:
        save_checkpoint(path, payload(3))
    except OSError:
        told.value = 1


@FORK
def test_a_full_disk_is_an_oserror_and_costs_nothing(saved_twice):
    context = multiprocessing.get_context("fork")
    told = context.Value("i", 0, lock=False)
    writer = context.Process(target=save_on_a_full_disk, args=(saved_twice, told))
    writer.start()
    writer.join()
    assert told.value == 1 and writer.exitcode == 0
    assert same(load_checkpoint(saved_twice), payload(2))
    assert len(list(saved_twice.parent.iterdir())) == 2, "nothing half-written stays behind"


def test_a_missing_folder_is_an_oserror(tmp_path):
    with pytest.raises(OSError):
        save_checkpoint(tmp_path / "missing" / "checkpoint.pt", payload(1))


# --- whose checkpoint it is -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("saved", "complaint"),
    [
        (lambda: make_team("maddpg", gamma=0.5), r"config\['gamma'\]: checkpoint 0.5, now 0.95"),
        (lambda: make_team("maddpg", hidden_sizes=[8, 8]), r"config\['hidden_sizes'\]: checkpoint \[8, 8\]"),
        (lambda: make_team("qmix"), "algorithm: checkpoint QMIXTeam, now MADDPGTeam"),
        (lambda: make_team("maddpg", num_agents=3), "num_agents: checkpoint 3, now 2"),
        (lambda: make_team("maddpg", state_dim=9), "state_dim: checkpoint 9, now 3"),
    ],
)
def test_another_teams_checkpoint_is_refused_with_what_differs(saved, complaint):
    with pytest.raises(ValueError, match=complaint):
        refuse_other_team(saved().state_dict(), make_team("maddpg"))


def test_the_same_team_is_accepted_even_from_other_initial_weights(tmp_path):
    save_checkpoint(tmp_path / "checkpoint.pt", make_team("maddpg", seed=5).state_dict())
    refuse_other_team(load_checkpoint(tmp_path / "checkpoint.pt"), make_team("maddpg", seed=6))
