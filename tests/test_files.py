"""Files are written whole or not at all, and nothing damaged, endless or diverged is believed or saved."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from teams import make_team, same

from core.team.files import read_tensors, refuse_non_finite, remove_leftovers, write_file, write_tensors


@contextmanager
def limited_disk():
    """Files of this process can grow to 4 kB: the operating system's own error, as on a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:  # before pytest writes its own output, which may go to a file
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_an_oserror_with_the_path_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "team.pt"
    write_tensors(path, {"weights": torch.zeros(3)})
    for size in (2_000, 50_000, 1_000_000):
        with limited_disk(), pytest.raises(OSError, match="team.pt") as caught:
            write_tensors(path, {"weights": torch.zeros(size)})
        assert caught.value.errno == errno.EFBIG
        assert same(read_tensors(path), {"weights": torch.zeros(3)})
    assert [file.name for file in tmp_path.iterdir()] == ["team.pt"]


def test_no_flipped_bit_in_a_saved_team_becomes_another_policy(tmp_path):
    team, path = make_team("maddpg"), tmp_path / "team.pt"
    team.save(path)
    content, refused = path.read_bytes(), 0
    expected = team.state_dict(with_buffer=False)
    for position in np.random.default_rng(0).integers(len(content), size=100):
        damaged = bytearray(content)
        damaged[position] ^= 0x40
        path.write_bytes(damaged)
        try:
            loaded = type(team).load(path)
        except ValueError as error:
            assert "team.pt is damaged" in str(error)
            refused += 1
        else:  # the bit was padding
            assert same(loaded.state_dict(with_buffer=False), expected)
    assert refused > 80


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_half_a_file_is_refused_as_damaged(tmp_path, share):
    path = tmp_path / "team.pt"
    make_team("qmix").save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"team.pt is damaged"):
        type(make_team("qmix")).load(path)


def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(tmp_path):
    path = tmp_path / "huge.pt"
    torch.save({"weights": torch.zeros(1).expand(10**12)}, path)
    with pytest.raises(ValueError, match="weights claims 1000000000000 values and holds 1"):
        read_tensors(path)


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(tmp_path):
    path, packed = tmp_path / "team.pt", tmp_path / "packed.pt"
    torch.save({"weights": torch.zeros(1_000_000)}, path)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as small:
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    with pytest.raises(ValueError, match="compressed parts"):
        read_tensors(packed)


@pytest.mark.parametrize("kind", ["pipe", "link to a device", "folder"])
def test_only_regular_files_are_read(tmp_path, kind):
    path = tmp_path / "team.pt"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="team.pt is no regular file"):
        read_tensors(path)


def test_a_link_in_the_way_is_replaced_and_never_written_through(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "table.csv"
    victim.write_text("mine")
    path.symlink_to(victim)
    write_file(path, b"new")
    assert victim.read_text() == "mine" and path.read_text() == "new" and not path.is_symlink()


def test_only_what_dead_processes_left_is_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    kept = [tmp_path / name for name in (f"checkpoint.pt.{os.getpid()}.abc.tmp", "my.notes.tmp", "1.tmp")]
    left = [tmp_path / f"{name}.{dead.pid}.a_c.tmp" for name in ("checkpoint_new.pt", "progress.csv", "config.json")]
    for file in (*kept, *left):
        file.write_bytes(b"half")
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", ["weights", "optimizer"])
def test_a_diverged_team_is_not_saved_over_a_good_one(tmp_path, place, value):
    team, path = make_team("mappo"), tmp_path / "team.pt"
    team.save(path)
    content = path.read_bytes()
    if place == "weights":
        with torch.no_grad():
            team.networks["actor"].flat[3] = value
        with pytest.raises(FloatingPointError, match=r"networks\.actor\[0\] holds NaN or infinity"):
            team.save(path)
    else:
        with pytest.raises(FloatingPointError, match=r"optimizers\.state\.exp_avg holds NaN"):
            refuse_non_finite({"optimizers": {"state": {"exp_avg": torch.tensor([0.0, value])}}})
    assert path.read_bytes() == content


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_a_diverged_team_is_not_loaded_either(tmp_path, value):
    team, path = make_team("qmix"), tmp_path / "team.pt"
    state = team.state_dict(with_buffer=False)
    state["networks"]["mixer_target"][1].view(-1)[0] = value
    write_tensors(path, state)
    before = team.state_dict()
    for load in (lambda: type(team).load(path), lambda: team.load_state_dict(state)):
        with pytest.raises(ValueError, match=r"networks\.mixer_target\[1\] holds NaN or infinity, which no saved"):
            load()
    assert same(team.state_dict(), before), "and nothing of it is taken over"
