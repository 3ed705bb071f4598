"""Files that a crash cannot halve.

A checkpoint is first written in full beside its place and flushed to the disk; then the old one is renamed to
`..._previous.pt` and the new one takes its place. Whenever the power goes, at least one whole file is there, and
reading takes the newest whole one. It holds tensors and plain values alone and is read with `weights_only=True`, so
that a checkpoint from a stranger can be wrong but cannot run code.
"""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from core.base_agent import AgentTeam
from core.team.files import read_tensors, remove_leftovers, write_tensors
from core.team.state import refuse_other_version


def save_checkpoint(path: str | os.PathLike, payload: dict[str, Any]) -> None:
    """Replace the checkpoint at `path` and keep the one before it.

    Args:
        path: the file, such as `run/checkpoint.pt`.
        payload: a dictionary of tensors and plain Python values.

    Raises:
        OSError: the folder is missing, full or not writable. The earlier checkpoint is then still there.
    """
    path = Path(path)
    fresh, previous = _fresh(path), _previous(path)
    remove_leftovers(path.parent)
    write_tensors(fresh, payload)
    with suppress(FileNotFoundError):  # the first checkpoint has none before it
        os.replace(path, previous)
    os.replace(fresh, path)
    with suppress(OSError):  # the renames themselves must reach the disk; not every system can flush a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def load_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Read the newest whole checkpoint at `path`; tensors come to the CPU.

    Falls back to the one before it with a warning that says why.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are files, but none is whole.
    """
    path = Path(path)
    # `fresh` exists only after a crash between its last byte and its renaming; it is whole then, and the newest.
    found = [file for file in (_fresh(path), path, _previous(path)) if file.exists()]
    if not found:
        raise FileNotFoundError(f"there is no checkpoint {path}; train with save_every, or name another file")
    problems = [] if path.exists() else [f"{path} is missing"]
    for file in found:
        try:
            payload = read_tensors(file)
            if not isinstance(payload, dict):
                raise ValueError(f"{file} is damaged (a {type(payload).__name__} instead of a dictionary)")
        except (ValueError, OSError) as error:
            problems.append(str(error))
            continue
        if problems:
            warnings.warn(f"{'; '.join(problems)}: continuing from {file}", stacklevel=2)
        return payload
    raise ValueError(f"no usable checkpoint: {'; '.join(problems)}; restore one from a backup, or train anew")


def refuse_other_team(state: dict[str, Any], agents: AgentTeam) -> None:
    """Raise ValueError if `state` was saved by a team of another algorithm, size or config, naming what differs.

    `config["seed"]` may differ: it decided the initial weights alone, which the state replaces.
    """
    refuse_other_version(state)
    expected = {"algorithm": type(agents).__name__, "state_dim": agents.state_dim, "action_dim": agents.action_dim}
    expected |= {"num_agents": agents.num_agents}
    found = {"algorithm": state.get("algorithm"), **state.get("sizes", {})}
    config = {f"config[{key!r}]": value for key, value in agents.config.as_dict().items() if key != "seed"}
    saved = {f"config[{key!r}]": value for key, value in state.get("config", {}).items() if key != "seed"}
    if found["algorithm"] == expected["algorithm"]:  # of another algorithm, the config says nothing more
        expected, found = expected | config, found | saved
    names = list(dict.fromkeys([*expected, *found]))
    different = [
        f"{name}: checkpoint {found.get(name)}, now {expected.get(name)}"
        for name in names
        if found.get(name) != expected.get(name)
    ]
    if different:
        raise ValueError(f"the checkpoint is of another team ({'; '.join(different)}); build the team that was saved")


def _fresh(path: Path) -> Path:
    return path.with_name(f"{path.stem}_new{path.suffix}")


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}_previous{path.suffix}")
