"""The gate of a refactoring: do two versions of the code train the same teams, bit for bit?

    python tests/same_training.py REVISION

trains the six shipped settings (three algorithms, two problems) for a few episodes, once with the files as they are
and once as of REVISION, through the command line alone. What must agree: every weight, whatever its name is now, and
every number of the history.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
EPISODES = {"retail": 40, "banking": 10}
ALGORITHMS = ("maddpg", "mappo", "qmix")
TIMES = ("seconds", "steps_per_second")  # of the history: they differ from run to run


def train(code: Path, problem: str, algorithm: str, out: Path) -> Path:
    """Run that version's train.py -> its run folder."""
    flags = ["--algo", algorithm, "--episodes", str(EPISODES[problem]), "--eval-episodes", "1", "--eval-every", "0"]
    command = [sys.executable, str(code / problem / "train.py"), *flags, "--quiet", "--no-plots", "--out", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out / (out / "latest").read_text(encoding="utf-8").strip()


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested dictionaries and lists."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors(part)


def sha256(parts: list[bytes]) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def weights(run: Path) -> str:
    """A fingerprint of all networks of a run's team, in any order and under any name."""
    (team,) = torch.load(run / "checkpoint.pt", weights_only=True)["agents"]  # one process, one team
    found = [tensor for tensor in tensors(team["networks"]) if tensor.is_floating_point()]
    return sha256(sorted(tensor.numpy().tobytes() for tensor in found))


def history(run: Path) -> str:
    """A fingerprint of progress.csv, without times."""
    with open(run / "progress.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kept = sorted(set(rows[0]) - set(TIMES))
    return sha256([",".join(row[name] for name in kept).encode() for row in rows])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision", help="the version to compare with: a commit, a tag or a branch")
    revision = parser.parse_args().revision
    differ = 0
    with tempfile.TemporaryDirectory() as name:
        folder, old = Path(name), Path(name) / "old"
        old.mkdir()
        archive = subprocess.run(["git", "archive", revision], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "x", "-C", str(old)], input=archive, check=True)
        for problem in EPISODES:
            for algorithm in ALGORITHMS:
                place = folder / problem / algorithm
                then, now = (train(code, problem, algorithm, place / code.name) for code in (old, ROOT))
                same = {"weights": weights(then) == weights(now), "history": history(then) == history(now)}
                differ += not all(same.values())
                words = ", ".join(f"{what} {'the same' if equal else 'DIFFERENT'}" for what, equal in same.items())
                print(f"{problem} {algorithm}: {words} ({weights(now)}, {history(now)})", flush=True)
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
