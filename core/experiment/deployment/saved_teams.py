"""The trained teams of a run, for those who use or question them.

run = open_run("retail/results/latest")
run.agents[0].select_action(observation)   # the team, each agent from its own observation
run.decide({"on hand": 3.0, ...})          # named inputs in units -> decisions in units
"""

from __future__ import annotations

import csv
import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from core.base_agent import AgentTeam
from core.experiment.deployment.policy import checked, unseen
from core.experiment.runs.checkpoint import load_checkpoint
from core.experiment.runs.command import RunError, UsageError
from core.experiment.runs.folders import ROOT, RunFolder, find_run
from core.experiment.runs.resume import stored_world
from core.team.files import read_json, refusing_other_shapes
from core.team.state import refuse_oversized


@dataclass(frozen=True)
class TrainedRun:
    """A run that was opened: its team, what that team sees and decides, and how it did. `open_run` makes it.

    Attributes:
        path, folder: of the training and of its run, which are the same unless the run trained several seeds.
        agents: the trained team; `agents[i].select_action(observation)` acts greedily.
        names: of the agents, in order.
        config: the run's config.json.
        world: "constants" of the environment that it was judged in, and what else `env.world()` told. No file of the
            user's is needed for them.
        units: `observations.Units` of the problem: named inputs -> observations, actions -> decisions.
        settings, words: the problem's settings.py and observations.py.
        low, typical, high: (N, O) what the training saw of every number of the observations.
        metrics: policy -> metric -> (mean, half the 95 % interval) on unseen episodes.
    """

    path: Path
    folder: Path
    agents: AgentTeam
    names: tuple[str, ...]
    config: dict[str, Any]
    world: dict[str, Any]
    units: Any
    settings: ModuleType
    words: ModuleType
    low: np.ndarray
    typical: np.ndarray
    high: np.ndarray
    metrics: dict[str, dict[str, tuple[float, float]]]

    @property
    def problem(self) -> str:
        """ "retail" or "banking"."""
        return self.config["problem"]

    @property
    def observations(self) -> dict[str, tuple]:
        """The named inputs: name -> (unit, (smallest, largest possible), meaning)."""
        return self.units.observations

    def begin_episode(self) -> None:
        """Before the first decision of a new sequence: recurrent agents forget the one before."""
        for agent in self.agents:
            agent.begin_episode()

    def decide(
        self, inputs: Mapping[str, Any], agent: int | str | None = None, whole_units: bool = False
    ) -> dict[str, Any]:
        """What the agents decide, each from its own inputs alone.

        Args:
            inputs: a value for every name of `observations`: one number, or N of them, one an agent.
            agent: its number or name, to ask one; all by default.
            whole_units: round orders.

        Returns:
            agent's name -> decision in units.

        Raises:
            ValueError: an input is missing, unknown, no finite number, or impossible; it is named.

        Warns of inputs outside of all that the training saw, by name.
        """
        decisions = {}
        for i in range(len(self.names)) if agent is None else [self.number_of(agent)]:
            observation = self.encode(
                {name: _own(value, name, i, len(self.names)) for name, value in inputs.items()}, i
            )
            notes = self.unseen(observation, i)
            if notes:
                warnings.warn(f"{self.names[i]}: {'; '.join(notes)}", stacklevel=2)
            action = self.agents[i].select_action(observation)
            decisions[self.names[i]] = self.units.decision(action, i, whole_units)
        return decisions

    def encode(self, inputs: Mapping[str, Any], agent: int) -> np.ndarray:
        """One agent's named inputs, one number each -> its observation (O,). Raises ValueError as `decide` does."""
        return self.units.encode(self.checked_inputs(inputs), agent)

    def checked_inputs(self, inputs: Mapping[str, Any]) -> dict[str, float]:
        """One agent's named inputs as floats, all of them. Raises ValueError as `decide` does."""
        usable, refused = checked(inputs, self.units.observations, self.units.defaults)
        if refused:
            raise ValueError("; ".join(refused.values()))
        return usable

    def typical_inputs(self, agent: int) -> dict[str, float]:
        """What the training saw on average of one agent's inputs, as far as that is possible.

        Raises:
            ValueError: the run's checkpoint does not tell.
        """
        if not np.isfinite(self.typical[agent]).all():
            raise ValueError(f"{self.path}: its checkpoint does not tell what the training saw; train a new run")
        shown = self.units.decode(self.typical[agent])
        return {name: float(np.clip(shown[name], *named[1])) for name, named in self.observations.items()}

    @cached_property
    def rule(self) -> tuple[str, Callable[[np.ndarray, int], Any]]:
        """The best classical rule that sees what an agent sees: its name, and (observation (O,), agent) -> action.

        On drawn episodes, the rule to beat; on the user's data, the best one that the run tuned on them (rules.json).
        Where there is none, the rule that needs no tuning (`FALLBACK` in observations.py).
        """
        name, tuned = self._tuned_rule()
        if tuned is None:
            return self.words.FALLBACK, lambda seen, agent: self.units.fallback(self.units.decode(seen), agent)
        agents = len(self.names)
        return name, lambda seen, agent: tuned(np.broadcast_to(seen, (agents, len(seen))))[agent]

    def _tuned_rule(self) -> tuple[str, Callable[[np.ndarray], np.ndarray] | None]:
        env = self.settings.make_env(difficulty=self.config["difficulty"], **self.world["constants"])
        if self.config["data"] is None:
            name = problem_module(self.problem, "report").BESIDE
            return name, self.settings.rules(env)[name]
        path = self.folder / "rules.json"
        with refusing_other_shapes(str(path)):
            stored = read_json(path)["rules"] if path.is_file() else {}
            for name in sorted(stored, key=lambda rule: -self.metrics[rule]["team_return"][0]):
                with suppress(ValueError):  # one that sees more than an agent, or draws lots
                    return name, self.settings.rule_of(env, self._by_number(stored[name]))
        return "", None

    def _by_number(self, stated: Any) -> Any:
        """Numbers by the names of agents -> in their order."""
        if isinstance(stated, dict):
            whole = stated.keys() == set(self.names)
            return [stated[n] for n in self.names] if whole else {k: self._by_number(v) for k, v in stated.items()}
        return [self._by_number(value) for value in stated] if isinstance(stated, list) else stated

    def unseen(self, observation: np.ndarray, agent: int) -> list[str]:
        """What in an observation (O,) lies outside of all that the training saw, by name."""
        return unseen(observation, self.low[agent], self.high[agent], self.units)

    def number_of(self, agent: int | str) -> int:
        """The number of an agent from its name, or from its number as it is."""
        if isinstance(agent, (int, np.integer)) and 0 <= agent < len(self.names):
            return int(agent)
        if agent not in self.names:
            raise ValueError(f"{agent!r} is no agent of this run: give one of {', '.join(self.names)}")
        return self.names.index(agent)


def _own(value: Any, name: str, agent: int, agents: int) -> Any:
    """One agent's value of an input that was given for all, or for each."""
    if isinstance(value, str) or np.ndim(value) == 0:
        return value
    if np.shape(value) != (agents,):
        raise ValueError(f"{name} has the shape {np.shape(value)}: give one number, or {agents}, one an agent")
    return value[agent]


def open_run(name: str | Path, problem: str | None = None) -> TrainedRun:
    """Open a run: its team, names, scales, limits, constants and metrics.

    Args:
        name: its folder (`retail/results/latest`), its name (`20260131-142501-maddpg-seed0`, `latest`), the same behind
            its problem (`retail/latest`), or a team that is shipped. Of a run of several seeds its first training is
            opened; `RUN/seed1` names another.
        problem: "retail" or "banking": names are looked for there alone.

    Raises:
        ValueError: there is none, several have that name, or its files are damaged (UsageError: none or several).
    """
    path, config, settings = trained(name, problem)[0]
    folder = RunFolder(path.parent if (path.parent / "config.json").exists() else path.parent.parent)
    with refusing_other_shapes(str(path)):
        saved = load_checkpoint(path)
        agents = _team_of(saved["agents"][0], config, settings)
        low, typical, high = _seen(saved.get("seen"), agents)
    world = _world(folder, config, settings)
    words = problem_module(config["problem"], "observations")
    with refusing_other_shapes(f"{folder.path}: world in config.json"):
        units = words.Units.of(world)
    names, metrics = tuple(map(str, world["agents"])), _metrics(folder.path / "summary.csv")
    if (len(names), len(units.columns)) != (agents.num_agents, agents.state_dim):
        raise ValueError(f"{folder.path}: the team of checkpoint.pt is none of the world that config.json tells of")
    return TrainedRun(
        path.parent, folder.path, agents, names, config, world, units, settings, words, low, typical, high, metrics
    )


def _seen(seen: dict[str, Any] | None, agents: AgentTeam) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The smallest, the mean and the largest of every number of the observations; NaN where nothing is known."""
    shape = (agents.num_agents, agents.state_dim)
    if seen is None:
        return (np.full(shape, np.nan, np.float32),) * 3
    arrays = [seen["low"], seen["sum"] / seen["count"], seen["high"]]
    low, typical, high = (array.numpy().astype(np.float32).reshape(shape) for array in arrays)
    return low, typical, high


def _world(folder: RunFolder, config: dict[str, Any], settings: ModuleType) -> dict[str, Any]:
    """What `env.world()` told when the run began; of a run that kept none, what it tells now."""
    if "world" in config:
        try:
            return stored_world(folder, config)
        except RunError as error:
            raise ValueError(str(error)) from None
    return settings.make_env(difficulty=config["difficulty"], data=config["data"], evaluation=True).world()


def _metrics(path: Path) -> dict[str, dict[str, tuple[float, float]]]:
    """Means and intervals of a run's summary.csv; nothing where the run has not come so far."""
    if not path.is_file():
        return {}
    with open(path, encoding="utf-8", newline="") as file, refusing_other_shapes(str(path)):
        return {
            row["policy"]: {
                metric: (float(row[metric] or "nan"), float(row[f"{metric}_ci95"] or "nan"))
                for metric in row
                if f"{metric}_ci95" in row
            }
            for row in csv.DictReader(file)
        }


# --- the files of a run -----------------------------------------------------------------------------------------------


def trained(run: str | Path, problem: str | None = None) -> list[tuple[Path, dict[str, Any], ModuleType]]:
    """(checkpoint, config, settings of the problem) of every training of a run, or of the one of `RUN/seed1`.

    Raises:
        UsageError: there is no such run, or several.
    """
    try:
        folder = find_run(run, problem)
        above = RunFolder(folder.path.parent)
        inside = not (folder.path / "config.json").exists() and (above.path / "config.json").exists()
        config = (above if inside else folder).read_config()
    except ValueError as error:
        raise UsageError(str(error)) from None
    files = [path for path in (folder.checkpoint, *sorted(folder.path.glob("*/checkpoint.pt"))) if path.exists()]
    settings = problem_module(str(config.get("problem")), "settings")
    if problem not in (None, config["problem"]):
        raise UsageError(f"{folder.path} is a run of {config['problem']}, not of {problem}")
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
