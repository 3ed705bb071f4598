"""The trained teams of a run's folder, for those who question them: `audit.py`, `what_if.py`, your own scripts."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from core.base_agent import AgentTeam
from core.experiment.runs.checkpoint import load_checkpoint
from core.experiment.runs.command import UsageError
from core.experiment.runs.folders import RunFolder
from core.team.files import refusing_other_shapes
from core.team.state import refuse_oversized

ROOT = Path(__file__).resolve().parents[3]


def trained(run: Path) -> list[tuple[Path, dict[str, Any], ModuleType]]:
    """(checkpoint, config, settings of the problem) of every training in a run folder.

    A run is named by its folder, by the folder's name inside a problem's results, or by `.../latest`.

    Raises:
        UsageError: it is none.
    """
    if run.name == str(run) and not run.exists():  # a folder's name alone
        places = [place / run for place in sorted(ROOT.glob("*/results"))]
        run = next((place for place in places if place.is_dir()), run)
    try:
        folder = RunFolder.find(run.parent) if run.name == "latest" else RunFolder(run)
        config = folder.read_config()
    except ValueError as error:
        raise UsageError(str(error)) from None
    files = [path for path in (folder.checkpoint, *sorted(folder.path.glob("*/checkpoint.pt"))) if path.exists()]
    settings = problem_module(str(config.get("problem")), "settings")
    for name, holds in (("algo", str), ("difficulty", str), ("data", (str, type(None)))):
        if not isinstance(config.get(name), holds):
            raise UsageError(f"{folder.path}: config.json has {name} {config.get(name)!r}, which no run has")
    if not files:
        raise UsageError(f"{folder.path} holds no checkpoint.pt yet; let the training reach its first save")
    return [(path, config, settings) for path in files]


def problem_module(problem: str, name: str) -> ModuleType:
    """`<problem>/<name>.py` of this repository, and no other file of that name.

    Raises:
        UsageError: there is none. A run's config.json names the problem, and may come from a stranger.
    """
    path = ROOT / problem / f"{name}.py"
    if not problem.isidentifier() or not path.is_file():
        raise UsageError(f"config.json names the problem {problem!r}, but there is no {problem}/{name}.py")
    if sys.path[0] != str(ROOT):  # another folder in front might hold a package of the same name
        sys.path.insert(0, str(ROOT))
    module = importlib.import_module(f"{problem}.{name}")
    if Path(module.__file__ or "").resolve() != path:
        raise UsageError(f"{problem}.{name} was imported from {module.__file__}: start Python from {ROOT}")
    return module


def load_team(path: Path, config: dict[str, Any], settings: ModuleType) -> AgentTeam:
    """The team of a checkpoint, without its experience. Raises ValueError for one that the problem cannot have made."""
    with refusing_other_shapes(str(path)):
        return _team_of(load_checkpoint(path)["agents"][0], config, settings)


def _team_of(state: dict[str, Any], config: dict[str, Any], settings: ModuleType) -> AgentTeam:
    setting = settings.SETTINGS.get(config.get("algo"))
    if setting is None:
        known = ", ".join(settings.SETTINGS)
        raise ValueError(f"config.json names the algorithm {config.get('algo')!r}; {settings.__name__} knows {known}")
    refuse_oversized(state)
    team = setting.create_agents(**state["sizes"], config=state["config"])
    team.load_state_dict({**state, "buffer": None})
    return team
