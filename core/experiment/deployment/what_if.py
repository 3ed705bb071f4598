"""What if? `python main.py --what-if RUN` disturbs the world that a trained team meets.

Demand surges, suppliers and channels fail, lead times grow, acknowledgements come late, one agent is replaced by a rule
that the others never met. `<problem>/scenarios.py` says which, as data. The trained team (greedily) and the classical
rules meet the same unseen episodes in every scenario, and nobody is trained or tuned anew: what is measured is how far
each falls from its own undisturbed result, paired over the episodes.

Shapes: E environments, N agents, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from core.experiment.deployment.saved_teams import load_team, problem_module, trained
from core.experiment.evaluation import evaluate, half_width
from core.experiment.reporting.plotting import Panel, dot_panels
from core.experiment.reporting.tables import Results
from core.experiment.runs.command import UsageError
from core.experiment.runs.flags import MAX_EVAL_EPISODES
from core.experiment.runs.folders import RunFolder, require_writable
from core.experiment.runs.run import COPIES

NONE = "none"  # the scenario that disturbs nothing


@dataclass(frozen=True)
class Scenario:
    """One disturbance; with the defaults, none."""

    meaning: str  # one line, with its strength and why it is chosen so
    options: Mapping[str, Any] = field(default_factory=dict)  # arguments of the evaluation environment
    replaced: tuple[int, str] | None = None  # (agent, rule): this agent acts by that rule, whoever the others are


class Mixed:
    """A policy in which one agent acts by another policy: observations (..., N, O) -> actions (..., N) or (..., N, A).

    Args:
        policy: a team, which acts greedily, or a function from observations to actions; so is `rule`.
        agent: number of the one that acts by `rule`.
    """

    def __init__(self, policy: Any, rule: Any, agent: int):
        self.policies, self.agent = (policy, rule), agent

    def begin_episode(self, env: Any) -> None:
        """Called after every reset: rules may clear their memory or look at the environment."""
        for policy in self.policies:
            getattr(policy, "begin_episode", lambda env: None)(env)

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        whole, rule = (np.asarray(_acting(policy)(observations)) for policy in self.policies)
        mine = (slice(None),) * (observations.ndim - 2) + (self.agent,)
        actions = whole.copy()
        actions[mine] = rule[mine]
        return actions


def _acting(policy: Any) -> Callable[[np.ndarray], np.ndarray]:
    select = getattr(policy, "select_actions", None)
    return policy if select is None else lambda seen: select(seen, training=False)


@dataclass(frozen=True)
class Study:
    """A trained run and what it is to meet. `make_env(**options)` makes the evaluation environment of the run."""

    problem: str
    settings: ModuleType  # of the problem: what makes its environments and rules
    report: ModuleType  # of the problem: its columns
    algorithm: str
    difficulty: str
    teams: Mapping[int, Any]  # training seed -> team
    scenarios: Mapping[str, Scenario]
    rules: Sequence[str]  # names of the classical rules that take part
    more_rules: Callable[[Any], Mapping[str, Any]]  # those of them that the problem's baselines do not hold
    columns: Sequence[tuple[str, str, str]]  # of the report, for the printed tables and the picture
    episodes: int

    def evaluate(self, scenario: Scenario):
        """A row per policy, training seed and episode."""
        import pandas as pd

        env = self.settings.make_env(min(COPIES, self.episodes), self.difficulty, evaluation=True, **scenario.options)
        tables = []
        for name, seed in [*((self.algorithm, seed) for seed in self.teams), *((name, None) for name in self.rules)]:
            # Anew for every policy, so that what a rule draws repeats too.
            rules = self.settings.rules(env) | self.more_rules(env)
            policy = rules[name] if seed is None else self.teams[seed]
            agent, rule = scenario.replaced or (None, name)
            table = evaluate(env, policy if rule == name else Mixed(policy, rules[rule], agent), self.episodes)
            table.insert(0, "policy", name)
            table.insert(1, "training_seed", pd.array([seed] * len(table), dtype="Int64"))
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def run(self):
        """What becomes of every policy in every scenario: a row each.

        Of every metric in the problem's report: its mean, half the 95 % interval (`_ci95`), the mean change against the
        same policy undisturbed on the same episodes (`_change`), and half the interval of that (`_change_ci95`). Over
        several training seeds the intervals are those of the seeds' means.
        """
        import pandas as pd
        from tqdm import tqdm

        rows, undisturbed = [], None
        metrics = [metric for _, metric, _ in self.report.COLUMNS]
        for name, scenario in tqdm(self.scenarios.items(), "scenarios", leave=False, disable=None):
            level = Results(self.algorithm, 0, {}, self.evaluate(scenario), (), self.report.SHARES)
            undisturbed = level if undisturbed is None else undisturbed
            for policy in level.policies:
                seeds = len(self.teams) if policy == self.algorithm else 0
                row = {"scenario": name, "policy": policy, "training_seeds": seeds, "episodes": self.episodes}
                for metric in metrics:
                    samples = level.samples(policy, metric)
                    change = samples - undisturbed.samples(policy, metric)
                    row[metric], row[f"{metric}_ci95"] = samples.mean(), half_width(samples)
                    row[f"{metric}_change"], row[f"{metric}_change_ci95"] = change.mean(), half_width(change)
                rows.append(row)
        return pd.DataFrame(rows)


def markdown(table: Any, columns: Sequence[tuple[str, str, str]]) -> str:
    """A Markdown table a column of the report: scenarios below each other, policies side by side."""

    def cell(row: Any, metric: str, number: str) -> str:
        text = f"{number.format(row[metric])} ± {number.format(row[f'{metric}_ci95'])}"
        change = number.replace("{:", "{:+").format(row[f"{metric}_change"])
        return text if row["scenario"] == NONE else f"{text} ({change} ± {number.format(row[f'{metric}_change_ci95'])})"

    parts, policies = [], list(dict.fromkeys(table["policy"]))
    for header, metric, number in columns:
        lines = [["scenario", *policies], ["---"] * (1 + len(policies))]
        for name, rows in table.groupby("scenario", sort=False):
            lines.append([name, *(cell(row, metric, number) for _, row in rows.iterrows())])
        seeds = int(table["training_seeds"].max())
        over = f"over {seeds} training seeds, of rules over episodes" if seeds > 1 else "over episodes"
        what = f"**{header}**: mean ± half the 95 % interval {over} (change against the same policy undisturbed)\n"
        parts.append("\n".join([what, *(f"| {' | '.join(line)} |" for line in lines)]))
    return "\n\n".join(parts)


def draw(path: Path, table: Any, columns: Sequence[tuple[str, str, str]], title: str) -> None:
    """Every policy's fall, a panel a column of the report."""
    by_policy = dict(list(table.groupby("policy", sort=False)))

    def values(column: str) -> dict[str, np.ndarray]:
        return {policy: rows[column].to_numpy() for policy, rows in by_policy.items()}

    panels = [Panel("", header, values(metric), values(f"{metric}_ci95")) for header, metric, _ in columns]
    dot_panels(path, list(dict.fromkeys(table["scenario"])), panels, title=title)


# --- the command ------------------------------------------------------------------------------------------------------


def what_if(run: Path, episodes: int = 1000, out: Path | None = None) -> None:
    """Study the trained teams of a run folder; print and write the tables and the picture.

    Args:
        run: the run folder, or `results/latest`.
        episodes: unseen ones for every policy and scenario.
        out: where what_if.csv and what_if.png go; the run's folder by default.

    Raises:
        ValueError: a run that cannot be studied, or a number that cannot be (UsageError).
        OSError: the results cannot be written.
    """
    if not 2 <= episodes <= MAX_EVAL_EPISODES:
        wanted = f"give a whole number from 2 (an interval needs two) to {MAX_EVAL_EPISODES}"
        raise UsageError(f"--episodes {episodes}: {wanted}")
    torch.set_num_threads(1)  # more threads only wait for each other in networks of this size
    study, folder = _open(run, episodes)
    place = RunFolder(out or folder)
    require_writable(place.path)
    table, columns = study.run(), study.columns
    place.write_table("what_if", table)
    what = f"{study.problem}, {study.difficulty}, {study.episodes} unseen episodes"
    seeds = len(study.teams)
    over = f"{seeds} training seeds (rules: episodes)" if seeds > 1 else "episodes, one training"
    title = f"{what}: mean, 95 % interval over {over}; lines start at undisturbed"
    draw(place.path / "what_if.png", table, columns, title)
    print("\n".join(f"- {name}: {scenario.meaning}" for name, scenario in study.scenarios.items()))
    print(f"\n{what}\n\n{markdown(table, columns)}\n\nResults: {place.path / 'what_if.csv'}, what_if.png", flush=True)


def _open(run: Path, episodes: int) -> tuple[Study, Path]:
    """The study of a run, and the run's folder. Raises UsageError or ValueError for a run that cannot be studied."""
    found = trained(run)
    path, config, settings = found[0]
    if config.get("data") is not None:
        raise UsageError(f"{run} learnt from your own data, and scenarios disturb drawn episodes: give another run")
    problem = config["problem"]
    module, report = problem_module(problem, "scenarios"), problem_module(problem, "report")
    teams = {
        _seed(path, config): load_team(path, config, settings) for path, _, _ in found if path.parent.name != "known"
    }
    difficulty = config.get("difficulty")
    env = settings.make_env(difficulty=difficulty, evaluation=True)
    scenarios = {NONE: Scenario("nothing is disturbed"), **module.scenarios(env)}
    columns = [column for column in report.COLUMNS if column[1] in module.SHOWN]
    more = getattr(module, "more_rules", lambda env: {})
    algorithm, rules = config["algo"], module.RULES
    study = Study(problem, settings, report, algorithm, difficulty, teams, scenarios, rules, more, columns, episodes)
    return study, path.parent if _is_single(path) else path.parents[1]


def _is_single(path: Path) -> bool:
    """Is this the checkpoint of a run with one training seed? Of several, each is in a folder of the run's."""
    return (path.parent / "config.json").exists()


def _seed(path: Path, config: Mapping[str, Any]) -> int:
    return int(config.get("seed", 0) if _is_single(path) else path.parent.name.removeprefix("seed"))
