"""Execution for real: `python main.py --deploy RUN` lets every agent act in a process of its own.

A process holds one agent's exported files and is sent that agent's observations alone; nothing else reaches it. First
all of them play the team's unseen episodes, which must come out as the team's do. Then one process is killed in the
middle of the first episode: the others go on, the rule that the contract documents acts in its place, and what that
costs is told.

Shapes: N agents, O observation.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.experiment.deployment.export import ROUNDING, export
from core.experiment.deployment.saved_teams import TrainedRun, open_run, problem_module
from core.experiment.evaluation import evaluate
from core.experiment.runs.command import UsageError
from core.experiment.runs.flags import MAX_EVAL_EPISODES
from core.experiment.runs.waits import waiting_for
from core.experiment.tuning import EVALUATION_SEED

EPISODES = 5
DRIFT = 1e-4  # of a metric, relative, into which roundings of continuous actions may add up


class Fleet:
    """Agents in processes of their own, as a policy: observations (N, O) -> actions (N,) or (N, A).

    Where a process is gone, the fallback rule acts for its agent, from the same observation.

    Args:
        run: the run that was exported; its units serve the rule.
        folders: of the exported agents, one each.
        killed: (agent, step) at which that agent's process is killed; None: nobody's.

    Use it in a `with` statement: no process outlives it. Should this process itself be killed, each of them finds its
    input closed and ends.
    """

    def __init__(self, run: TrainedRun, folders: Sequence[Path], killed: tuple[int, int] | None = None):
        self.run, self.folders, self.killed = run, folders, killed
        self.steps, self.by_rule = 0, np.zeros(len(folders), int)
        self.actions: list[np.ndarray] = []
        self.processes: list[subprocess.Popen] = []

    def __enter__(self) -> Fleet:
        try:
            for folder in self.folders:
                command = [sys.executable, "-I", str(folder / "policy.py"), "--observations"]
                pipe = subprocess.PIPE
                self.processes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
            for stream in (process.stdin, process.stdout):
                try:
                    stream.close()
                except OSError:  # what was still to be written to a process that is gone
                    pass

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        if self.killed is not None and self.steps == self.killed[1]:
            self.processes[self.killed[0]].kill()
            self.processes[self.killed[0]].wait()
        self.steps += 1
        asked = [self._send(i, observation) for i, observation in enumerate(observations)]  # all think at once
        answers = [self._receive(i) if sent else "" for i, sent in enumerate(asked)]
        self.actions.append(np.stack([self._action(i, a, observations[i]) for i, a in enumerate(answers)]))
        return self.actions[-1]

    def _send(self, agent: int, observation: np.ndarray) -> bool:
        """Did its process take the agent's own observation?"""
        try:
            self.processes[agent].stdin.write(" ".join(map(repr, observation.tolist())) + "\n")
        except OSError:
            return False
        return True

    def _receive(self, agent: int) -> str:
        try:
            with waiting_for("the process of {}", self.run.names[agent], advice="it may be frozen; stop with Ctrl-C"):
                return self.processes[agent].stdout.readline().strip()
        except OSError:
            return ""

    def _action(self, agent: int, answer: str, observation: np.ndarray) -> np.ndarray:
        if answer.startswith("refused"):
            raise ValueError(f"{self.run.names[agent]}: {answer}")
        if answer:
            discrete = self.run.agents.action_type == "discrete"
            return np.array(int(answer)) if discrete else np.array(answer.split(), dtype=np.float32)
        self.by_rule[agent] += 1
        return np.asarray(self.run.units.fallback(self.run.units.decode(observation), agent))


class _Together:
    """The team in one process, which notes what it did."""

    def __init__(self, team: Any):
        self.team, self.actions = team, []

    def begin_episode(self, env: Any) -> None:
        self.team.begin_episode(env)

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        self.actions.append(self.team.select_actions(observations, training=False))
        return self.actions[-1]


def deploy(name: str | Path, episodes: int = EPISODES, seed: int = EVALUATION_SEED) -> bool:
    """Play unseen episodes with the team together, apart, and with one process killed; print what each costs -> did the
    agents apart do what the team does?

    Args:
        name: of the run.
        episodes: how many; seed: of the first of them.

    Raises:
        ValueError: there is no such run, a number that cannot be (UsageError), or a team that cannot be exported.
    """
    if not 1 <= episodes <= MAX_EVAL_EPISODES:
        raise UsageError(f"--episodes {episodes}: give a whole number from 1 to {MAX_EVAL_EPISODES}")
    run = open_run(name)
    config = run.config
    env = run.settings.make_env(difficulty=config["difficulty"], data=config["data"], evaluation=True)
    header, metric, number = problem_module(run.problem, "report").COLUMNS[0]
    team = _Together(run.agents)
    table = evaluate(env, team, episodes, seed)
    middle, agents = int(table["length"][0]) // 2, len(run.names)
    first = np.array(table[metric])
    print(f"{run.path.name}: {agents} agents, mean of {episodes} unseen episodes, {header}", flush=True)
    _say("the team, in one process", first, number)
    with tempfile.TemporaryDirectory() as place:
        folders = export(run, Path(place) / "agents")
        with Fleet(run, folders) as fleet:
            apart = np.array(evaluate(env, fleet, episodes, seed)[metric])
        same, found = _compare(team.actions, fleet.actions, first, apart)
        _say(f"{agents} processes, each with its own files and observations", apart, number, found)
        with Fleet(run, folders, killed=(0, middle)) as fleet:
            hurt = np.array(evaluate(env, fleet, episodes, seed)[metric])
        change = number.replace("{:", "{:+").format(hurt.mean() - apart.mean())
        _say(f"{run.names[0]} killed after {middle} steps, the rule in its place", hurt, number, change)
        print(f"The rule acted {fleet.by_rule[0]} times: {run.words.FALLBACK}.", flush=True)
    return same


def _say(what: str, values: np.ndarray, number: str, found: str = "") -> None:
    print(f"  {what:62} {number.format(values.mean()):>8}  {found}".rstrip(), flush=True)


def _compare(
    one: Sequence[np.ndarray], other: Sequence[np.ndarray], first: np.ndarray, apart: np.ndarray
) -> tuple[bool, str]:
    """Did two plays take the same actions and cost the same? And how to say so."""
    if len(one) != len(other):
        return False, f"NOT the same: {len(other)} steps, not {len(one)}"
    difference = float(np.abs(np.stack(one).astype(float) - np.stack(other)).max())
    cost = float((np.abs(first - apart) / np.maximum(np.abs(first), 1.0)).max())
    discrete = one[0].dtype.kind in "iu"
    if difference == 0.0 and cost == 0.0:
        return True, "the same, bit for bit"
    if not discrete and difference <= 10 * ROUNDING and cost <= DRIFT:
        return True, f"the same (actions differ by {difference:.0e} at most: sums of another order)"
    return False, f"NOT the same: actions differ by up to {difference:.2g}"
