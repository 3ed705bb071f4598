"""The folder of one run: all that is needed to read, repeat or continue it.

    <results>/20260131-142501-maddpg-seed0/
        config.json       what was run: configuration, seed, versions, commit, command
        progress.csv      a row per training episode
        evaluation.csv    a row per policy, training seed and evaluated episode
        summary.csv       a row per policy: mean and 95 % interval of every metric
        rules.json        the levels of every tuned rule
        checkpoint.pt     the newest state of the training, and the one before it
        *.png             pictures
    <results>/latest      the name of the newest run folder

Every file is written beside its place and moved there in one step, so that a crash leaves the old file or the new
one and never half of one.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from core.team.files import read_json, write_file

try:
    import fcntl
except ImportError:  # Windows has none: two processes that resume one run are not kept apart there
    fcntl = None

ROOT = Path(__file__).resolve().parents[3]  # of the repository: problems and their results are found in it
LATEST = "latest"
PACKAGES = ("torch", "numpy", "pandas", "matplotlib")


class RunFolder:
    """One run's folder. `create` makes a new one, `find` opens an old one."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._lock: Any = None  # the open file, while this process works on the run
        self._progress: tuple[list[str], int, int] = ([], 0, 0)  # columns, rows and bytes of progress.csv as written

    @classmethod
    def create(cls, results: str | Path, algorithm: str, seed: int | str, config: Mapping[str, Any]) -> RunFolder:
        """Make `<results>/<date-time>-<algorithm>-seed<seed>/` with its config.json, and name it the newest.

        It gets its name when it is complete, and is the newest only then: nobody ever finds half a run. It is locked.

        Raises OSError when `results` cannot be written.
        """
        results = Path(results)
        results.mkdir(parents=True, exist_ok=True)
        stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{algorithm}-seed{seed}"
        hidden = cls(tempfile.mkdtemp(prefix=f".{stem}-", dir=results))
        try:
            hidden.path.chmod(0o755)
            hidden.write_config(config)
            hidden.lock()  # before anybody can find it
            hidden._publish(results / stem)
        except BaseException:  # a full disk, a stop
            hidden.unlock()
            shutil.rmtree(hidden.path, ignore_errors=True)
            raise
        write_text(results / LATEST, hidden.path.name + "\n")
        return hidden

    def _publish(self, path: Path) -> None:
        """Take the name `path`, or `path` with a number behind: two runs may start within one second."""
        for attempt in range(1, 1000):
            name = path if attempt == 1 else path.with_name(f"{path.name}-{attempt}")
            if name.exists():
                continue
            try:
                self.path = self.path.rename(name)
                return
            except OSError:
                if not name.exists():
                    raise
        raise OSError(f"no free run folder name: {path.name} to {path.name}-999 exist in {path.parent}")

    def lock(self) -> None:
        """Keep other processes from working on this run until this one ends.

        Raises:
            ValueError: another process works on it; its number is named. Or something else has the lock's name.
        """
        if fcntl is None or self._lock is not None:
            return
        file = _opened(self.path / ".lock")  # until the process ends
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            owner = file.read(20).strip() or "unknown"
            file.close()
            raise ValueError(f"{self.path}: process {owner} is working on this run; wait for it, or stop it") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._lock = file

    def unlock(self) -> None:
        """Let others work on this run."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @classmethod
    def find(cls, results: str | Path, which: str = LATEST) -> RunFolder:
        """Open a run by "latest", by its folder name inside `results`, or by its path.

        Raises ValueError naming what was looked for and which runs there are.
        """
        results = Path(results)
        if len(Path(which).parts) > 1 and not Path(which).is_dir():  # retail/latest, retail/results/latest
            return find_run(which)
        name = which
        if which == LATEST:
            pointer = results / LATEST
            if not pointer.is_file():
                raise ValueError(f"no run to resume: {pointer} does not exist; start a run first, or name a run folder")
            name = pointer.read_text(encoding="utf-8").strip()
        for path in (results / name, Path(name)):
            if name and path.is_dir():
                return cls(path)
        entries = results.iterdir() if results.is_dir() else ()
        known = sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")
        newest = ", ".join(known[-3:]) if known else "none"
        raise ValueError(f"no run folder {name!r} in {results}; the newest there: {newest}")

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    def write_config(self, config: Mapping[str, Any]) -> None:
        write_text(self.path / "config.json", json.dumps(config, indent=2) + "\n")

    def read_config(self) -> dict[str, Any]:
        """The run's config.json. Raises ValueError when it is missing or no JSON object."""
        path = self.path / "config.json"
        try:
            return read_json(path)
        except OSError as error:
            raise ValueError(f"{self.path} is no run folder: cannot read its config.json ({error.strerror})") from None
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}; start a new run with the flags of your choice") from None

    def write_table(self, name: str, table) -> None:
        """Write a pandas table as `<name>.csv`. Names that a spreadsheet would run as a formula get a ' in front."""
        write_text(self.path / f"{name}.csv", _as_csv(table))

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        write_text(self.path / f"{name}.json", json.dumps(values, indent=2, ensure_ascii=False) + "\n")

    def write_progress(self, history) -> None:
        """Make progress.csv the whole history, a row per training episode; only what is new is formatted."""
        path, (columns, rows, size) = self.path / "progress.csv", self._progress
        if columns == list(history.columns) and path.is_file() and path.stat().st_size == size:
            content = path.read_bytes() + _as_csv(history.iloc[rows:], header=False).encode()
        else:
            content = _as_csv(history).encode()
            _set_aside(path, content)
        write_file(path, content)
        self._progress = list(history.columns), len(history), len(content)


def _as_csv(table, header: bool = True) -> str:
    harmless = table.rename(columns=_no_formula)
    for column in harmless.select_dtypes(["object", "string"]):
        harmless[column] = harmless[column].map(_no_formula)
    return harmless.to_csv(index=False, header=header, lineterminator="\n")


def _opened(path: Path) -> Any:
    """A file to be read and written, made if it is not there; never through a link that somebody laid."""
    try:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise ValueError(f"{path} is no file that can be locked ({error.strerror}); remove it") from None
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise ValueError(f"{path} is no regular file; remove it")
    return open(number, "r+", encoding="utf-8")


def _set_aside(path: Path, content: bytes) -> None:
    """Keep a table that somebody changed, as a spreadsheet does, under another name: `content` will take its place."""
    if not path.is_file():
        return
    found = path.read_bytes()
    names, own = (set(table.split(b"\n", 1)[0].split(b",")) for table in (found, content))
    if not (content.startswith(found) or found.startswith(content) or names < own):  # fewer rows, more, or columns
        aside = path.with_name(f"{path.stem}_changed{path.suffix}")
        path.replace(aside)
        warnings.warn(f"{path} is not what was written there; it is {aside.name} now, and written anew", stacklevel=4)


def find_run(name: str | Path, problem: str | None = None) -> RunFolder:
    """The folder of a run that was named in any of the ways in which runs are named.

    Args:
        name: a folder; `retail/results/latest`; a folder's name, or `latest`, alone or behind its problem
            (`retail/latest`); a team that is shipped, by the name of its folder in `<problem>/teams`.
        problem: where names are looked for; None: in every problem.

    Raises:
        ValueError: there is none, or several problems have one of that name.
    """
    path = Path(name)
    for place in (path, ROOT / path):
        if place.is_dir():
            return RunFolder(place)
        if place.name == LATEST and place.is_file():
            return RunFolder.find(place.parent)
    alone = path.name
    if len(path.parts) == 2:
        problem = path.parts[0]
    places = [place for kind in ("results", "teams") for place in sorted(ROOT.glob(f"*/{kind}"))]
    places = [place for place in places if problem in (None, place.parent.name)]
    holds = [place for place in places if (place / alone).is_dir() or (alone == LATEST and (place / alone).is_file())]
    found = holds if len(path.parts) <= 2 else []
    if not found:
        raise ValueError(
            f"{str(name)!r} is no run folder, and none in {problem or 'any problem'}'s results has that name"
        )
    if len(found) > 1:
        both = " or ".join(f"{place.parent.name}/{alone}" for place in found)
        raise ValueError(f"{str(name)!r} is the name of {len(found)} runs; say {both}")
    return RunFolder.find(found[0], alone)


def printable(text: str) -> str:
    """The text without control characters, which names of others may hold and a terminal would obey."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "?" for sign in text)


def _no_formula(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return ("'" if value[:1] in tuple("=+-@\t\r") else "") + printable(value)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step; OSError leaves the old file as it was."""
    write_file(path, text.encode("utf-8"))


def require_writable(results: str | Path) -> None:
    """Raise OSError before any work is done when run folders cannot be made in `results`."""
    results = Path(results)
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"cannot write results to {results}: {reason}; choose another folder with --out") from None


def provenance() -> dict[str, Any]:
    """Where a result comes from: command, versions, commit and platform."""
    return {
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "commit": _commit(),
        "platform": platform.platform(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """The commit of this code, with "+changes" when files differ from it; "unknown" outside a git checkout."""
    folder = Path(__file__).resolve().parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True, timeout=10)
    return done.stdout.strip()
