"""The line that a stopped run prints, run word for word, gives the run that was never stopped."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT

PYTHON = os.path.dirname(sys.executable)  # where `python` and `torchrun` of the printed lines are
ENVIRONMENT = {**os.environ, "PATH": f"{PYTHON}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
REST = "--num-envs 4 --eval-episodes 2 --eval-every 0 --save-every 4 --no-plots"
BUDGET, SHORT = f"--episodes 24 {REST}", f"--episodes 4 {REST}"
LEARN = "--set batch_size=8 learning_starts=20 updates_per_step=1"


def start(line: str) -> subprocess.Popen:
    """A command line, as from a terminal in the repository's root."""
    words = shlex.split(line)
    return subprocess.Popen(words, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(line: str) -> str:
    """Run it to its end -> what it said on stderr."""
    process = start(line)
    message = process.communicate(timeout=600)[1]
    assert process.returncode == 0, message
    return message


def stopped(line: str, out: Path, after: int) -> str:
    """Run it, stop it once more than `after` checkpoints have been written -> the line that it printed to go on."""
    process, seen, times = start(line), set(), 0
    deadline = time.monotonic() + 600
    while times <= after:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        new = {(path, path.stat().st_mtime_ns) for path in out.glob("2*/checkpoint.pt")} - seen
        seen, times = seen | new, times + len(new)
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    message = process.communicate(timeout=600)[1]
    assert "24 episodes are saved" in message, message
    return re.search(r"continue with: (.+)", message)[1]


def newest(out: Path) -> Path:
    return out / (out / "latest").read_text().strip()


def history(out: Path) -> pd.DataFrame:
    return pd.read_csv(newest(out) / "progress.csv").drop(columns="seconds")


@pytest.mark.parametrize("started_by", ["python", "torchrun --nproc-per-node=2"])
def test_the_printed_line_gives_the_run_that_was_never_stopped(tmp_path, started_by):
    line = f"{started_by} retail/train.py {BUDGET} --threads 2 {LEARN} --out"
    again = stopped(f"{line} {tmp_path}/cut", tmp_path / "cut", after=0)
    assert again.startswith(f"{started_by} retail/train.py --resume")
    assert len(history(tmp_path / "cut")) < 24
    finished(again)
    finished(f"{line} {tmp_path}/whole")
    pd.testing.assert_frame_equal(history(tmp_path / "cut"), history(tmp_path / "whole"), check_exact=True)


def test_the_printed_line_of_a_longer_resumption_goes_on_to_the_longer_end(tmp_path):
    out = tmp_path / "a name with spaces"
    finished(f"python retail/train.py {SHORT} {LEARN} --out '{out}'")
    again = stopped(f"python retail/train.py --resume latest --episodes 24 --out '{out}'", out, after=1)
    assert json.loads((newest(out) / "config.json").read_text())["episodes"] == 24
    finished(again)
    assert len(history(out)) == 24


def test_the_printed_line_of_a_demo_goes_on_with_the_demo(tmp_path):
    line = f"python retail/demo.py --episodes 24 --eval-episodes 2 --save-every 4 --no-plots {LEARN} --out {tmp_path}"
    again = stopped(line, tmp_path, after=0)
    assert again.startswith("python retail/demo.py --resume")
    finished(again)
    assert (newest(tmp_path) / "summary.csv").is_file()


def test_a_demo_runs_on_several_processes(tmp_path):
    finished(f"torchrun --nproc-per-node=2 retail/demo.py --episodes 20 --eval-episodes 2 --no-plots --out {tmp_path}")
    assert (newest(tmp_path) / "summary.csv").is_file() and len(history(tmp_path)) == 20


def test_a_demo_leaves_a_run_of_several_seeds_to_the_training_script(tmp_path):
    finished(f"python retail/train.py {SHORT} --seeds 0 1 --out {tmp_path}")
    process = start(f"python retail/demo.py --resume --out {tmp_path}")
    message = process.communicate(timeout=600)[1]
    assert process.returncode == 2 and "trains several seeds: resume it with retail/train.py" in message
