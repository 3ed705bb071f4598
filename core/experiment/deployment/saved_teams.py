"""The trained teams of a run's folder, for those who question them: `audit.py`, `what_if.py`, your own scripts."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from core.base_agent import AgentTeam
from core.experiment.runs.checkpoint import load_checkpoint
from core.experiment.runs.flags import UsageError
from core.experiment.runs.folders import RunFolder


def trained(run: Path) -> list[tuple[Path, dict[str, Any], Any]]:
    """(checkpoint, config, problem) of every training in a run folder. Raises UsageError for what is none."""
    try:
        folder = RunFolder.find(run.parent) if run.name == "latest" else RunFolder(run)
        config = folder.read_config()
    except ValueError as error:
        raise UsageError(str(error)) from None
    files = [path for path in (folder.checkpoint, *sorted(folder.path.glob("seed*/checkpoint.pt"))) if path.exists()]
    if not files:
        raise UsageError(f"{folder.path} holds no checkpoint.pt yet; let the training reach its first save")
    return [(path, config, _problem(str(config.get("problem")))) for path in files]


def _problem(name: str) -> Any:
    """The PROBLEM that `<name>/train.py` of this repository describes; nothing else is ever imported."""
    train = Path(__file__).resolve().parents[3] / name / "train.py"
    if not name.isidentifier() or not train.is_file():
        raise UsageError(f"config.json names the problem {name!r}, but there is no {name}/train.py")
    return importlib.import_module(f"{name}.train").PROBLEM


def load_team(path: Path, config: dict[str, Any], problem: Any) -> AgentTeam:
    """The team of a checkpoint, without its experience. Raises ValueError for one that the problem cannot have made."""
    state = load_checkpoint(path)["agents"][0]
    make_team = problem.algorithms.get(config.get("algo"))
    if make_team is None:
        found = f"the algorithm {config.get('algo')!r}"
        raise ValueError(f"config.json names {found}; {problem.name}/train.py knows {', '.join(problem.algorithms)}")
    team = make_team(**state["sizes"], config=state["config"])
    team.load_state_dict({**state, "buffer": None})
    return team
