"""The three algorithms on the field's public tasks: level-based foraging and two worlds of particles.

    pip install -r tests/benchmarks/requirements.txt
    OMP_NUM_THREADS=1 python tests/benchmarks/public_tasks.py             # everything, an hour and a half of one core
    OMP_NUM_THREADS=1 python tests/benchmarks/public_tasks.py --missing   # only what is not in the CSV yet
    OMP_NUM_THREADS=1 python tests/benchmarks/public_tasks.py --table     # table and picture from the CSVs again

Writes docs/results/public_tasks.csv (a row a training), public_tasks_curves.csv (evaluations on the way) and
docs/images/public_tasks.png (the curves), and prints the table. A training's budget is a number of environment steps.
Every policy is judged twice on the same unseen episodes (seeds from 10,000): greedily, and exploring as it did at the
end of its training (MAPPO draws its actions, the others take 5 % of them at random), which is how some peers judge.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]
from public_worlds import Foraging, SpeakerListener, Spread  # noqa: E402

from core.experiment.evaluation import evaluate, interval  # noqa: E402
from core.experiment.training import train  # noqa: E402
from core.experiment.vector_env import VectorEnv  # noqa: E402
from core.maddpg import create_maddpg_agents  # noqa: E402
from core.mappo import create_mappo_agents  # noqa: E402
from core.qmix import create_qmix_agents  # noqa: E402

ALGORITHMS = {"maddpg": create_maddpg_agents, "mappo": create_mappo_agents, "qmix": create_qmix_agents}
# One setting an algorithm for all tasks, found in short runs with seed 9.
CONFIGS = {
    "maddpg": {
        "share_parameters": True,
        "actor_objective": "team",
        "learning_rate": 5e-4,
        "anneal_learning_rate": True,
        "batch_size": 256,
    },
    "mappo": {},  # the factory's
    "qmix": {"mixer": "shares", "learning_rate": 1e-3, "batch_size": 256, "tau": 0.01},
}
SEEDS = {"maddpg": [3, 4, 5], "mappo": [0, 1, 2], "qmix": [0, 1, 2]}  # MADDPG's 0 to 2 were seen with another setting
COPIES = {"maddpg": 25, "mappo": 10, "qmix": 25}  # side by side
DECAYS, DECAY = 500, 0.994  # of epsilon, to 0.05 over the first third of the budget
POINTS, GLANCE = 20, 100  # evaluations on the way, of so many episodes


@dataclass(frozen=True)
class Task:
    """A public task, how long each algorithm trains in it, and what others reached."""

    make: Callable[[int], Any]  # copies -> the environment
    steps: dict[str, int]
    others: dict[str, str]  # algorithm -> return, and after how many steps
    # Our returns, summed over agents, in the convention of the others.
    convert: Callable[[pd.Series], pd.Series] = lambda returns: returns


def foraging(name: str) -> Callable[[int], VectorEnv]:
    return lambda copies: VectorEnv([partial(Foraging, name)] * copies)


TASKS = {
    "Foraging-5x5-2p-2f-v3": Task(
        foraging("Foraging-5x5-2p-2f-v3"),
        {"mappo": 300_000, "qmix": 150_000},
        {"mappo": "0.76 drawn (300,000)", "qmix": "0.11 greedy (150,000)"},
    ),
    "Foraging-8x8-2p-2f-coop-v3": Task(
        foraging("Foraging-8x8-2p-2f-coop-v3"),
        {"mappo": 500_000, "qmix": 200_000},
        {"mappo": "0.63 drawn (500,000)", "qmix": "0.00 greedy (200,000)"},
    ),
    "simple_speaker_listener": Task(
        SpeakerListener,
        {"maddpg": 2_000_000, "mappo": 3_000_000, "qmix": 2_000_000},
        {"maddpg": "-13.6 (2 M)", "mappo": "-10.7 (20 M)", "qmix": "-11.6 (2 M)"},
    ),
    # There, every agent is paid -(sum of the landmarks' distances) - collisions, its own with itself included (-1 a
    # step), and returns are summed over agents. mpe2 pays half of both by default, and no collision with oneself.
    "simple_spread": Task(
        Spread,
        {"maddpg": 2_000_000, "mappo": 3_000_000, "qmix": 2_000_000},
        {"maddpg": "-141.7 (2 M)", "mappo": "-133.5 (20 M)", "qmix": "-126.6 (2 M)"},
        lambda returns: 2.0 * returns - Spread.horizon * Spread.num_agents,
    ),
}
RETURNS = ["greedy", "exploring"]  # sums over agents, in the task's convention
STILL = "greedy_stands_still"  # share of foraging's greedy episodes that ended so
REFERENCES = {"random play": ":", "a rule that sees everything": "--"}  # and their lines in the picture
CURVE = ["environment", "algorithm", "training_seed", "env_steps", *RETURNS, STILL]
COLUMNS = [*CURVE[:4], "cpu_seconds", "evaluated", *RETURNS, STILL]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--seeds", type=int, nargs="+", help=f"training seeds (default: {SEEDS})")
    parser.add_argument("--steps", type=int, help="environment steps of a training (default: those of its task)")
    parser.add_argument("--eval-episodes", type=int, default=500, help="unseen episodes at the end (default: 500)")
    parser.add_argument("--out", type=Path, help="folder of everything (default: docs/results and docs/images)")
    parser.add_argument("--missing", action="store_true", help="go on with the CSVs: train only what is not in them")
    parser.add_argument("--table", action="store_true", help="only make table and picture of an earlier run again")
    options = parser.parse_args()
    results, images = options.out or ROOT / "docs" / "results", options.out or ROOT / "docs" / "images"
    if options.table:
        draw(read(results, "_curves"), images)
    else:
        torch.set_num_threads(1)
        run(options, results, images)
    print(table(read(results)))
    return 0


def run(options: argparse.Namespace, results: Path, images: Path) -> None:
    """All trainings, one after the other; tables and picture are written anew after each."""
    for folder in (results, images):
        folder.mkdir(parents=True, exist_ok=True)
    rows, curves = pd.DataFrame(columns=COLUMNS), pd.DataFrame(columns=CURVE)
    if options.missing and (results / "public_tasks.csv").exists():
        rows, curves = read(results), read(results, "_curves")
    for name in options.environments:
        for policy in ("random", "rule") if hasattr(TASKS[name].make(1), "rule") else ("random",):
            if not len(chosen(rows, name, policy)):
                rows = joined(rows, [reference(name, policy, options.eval_episodes)])
                curves = joined(curves, [reference(name, policy, GLANCE)])
    seeds = [options.seeds or SEEDS[algorithm] for algorithm in options.algorithms]
    # Seed by seed: should time run short, all tasks and algorithms have as many trainings.
    turns = [list(zip(options.algorithms, each, strict=True)) for each in zip(*seeds, strict=True)]
    for name, (algorithm, seed) in ((name, own) for turn in turns for name in options.environments for own in turn):
        if algorithm not in TASKS[name].steps or seed in set(chosen(rows, name, algorithm)["training_seed"]):
            continue
        row, points = train_one(name, algorithm, seed, options.steps, options.eval_episodes)
        rows, curves = joined(rows, [row]), joined(curves, points)
        write(rows, curves, results, images)
        print(row, flush=True)
    write(rows, curves, results, images)


def chosen(rows: pd.DataFrame, name: str, algorithm: str) -> pd.DataFrame:
    return rows[(rows["environment"] == name) & (rows["algorithm"] == algorithm)]


def joined(rows: pd.DataFrame, more: list[dict]) -> pd.DataFrame:
    more = pd.DataFrame(more, columns=rows.columns)
    return pd.concat([rows, more], ignore_index=True) if len(rows) else more


def train_one(
    name: str, algorithm: str, seed: int, steps: int | None, evaluated: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Train one team for so many environment steps -> its row, and its curve."""
    steps = steps or TASKS[name].steps[algorithm]
    env, test = TASKS[name].make(COPIES[algorithm]), TASKS[name].make(20)
    decay = {"epsilon_decay": DECAY, "epsilon_decay_steps": max(1, steps // (3 * DECAYS))}
    config = {"action_type": "discrete", "seed": seed, **decay, **CONFIGS[algorithm]}
    team = ALGORITHMS[algorithm](env.observation_space_size, env.action_space_size, env.num_agents, config=config)
    what = {"environment": name, "algorithm": algorithm, "training_seed": seed}
    points, started = [], time.process_time()

    def look(_: Any = None) -> None:
        """The clock of what anneals counts steps here; and now and then the policy is judged."""
        team.set_progress(min(1.0, team.environment_steps / steps))
        if team.environment_steps >= len(points) * steps / POINTS:
            points.append({**what, "env_steps": team.environment_steps, **judged(name, test, team, GLANCE)})

    def enough() -> bool:
        return team.environment_steps >= steps

    episodes = min(steps, 1_000_000)  # an episode has a step at least
    train(env, team, episodes, seed, progress=False, on_round=look, stop=enough)
    row = {**what, "env_steps": team.environment_steps, "cpu_seconds": round(time.process_time() - started, 1)}
    return row | {"evaluated": evaluated, **judged(name, test, team, evaluated)}, points


def judged(name: str, env: Any, team: Any, episodes: int) -> dict[str, float]:
    """Mean returns of the greedy and of the exploring policy on the same episodes."""
    greedy, exploring = (evaluate(env, team, episodes, greedy=greedy) for greedy in (True, False))
    means = {key: TASKS[name].convert(of["team_return"]) for key, of in zip(RETURNS, (greedy, exploring), strict=True)}
    means |= {STILL: greedy["stands_still"]} if "stands_still" in greedy else {}
    return {key: round(float(values.mean()), 3) for key, values in means.items()}


def reference(name: str, policy: str, evaluated: int) -> dict[str, Any]:
    """For a scale: uniform random legal actions, or the rule of a particle world, which sees everything."""
    env, rng = TASKS[name].make(20), np.random.default_rng(0)

    def drawn(observations: np.ndarray) -> np.ndarray:
        chances = rng.random((*observations.shape[:2], env.action_space_size))
        return (chances * (env.action_masks() if hasattr(env, "action_masks") else 1.0)).argmax(axis=-1)

    play = evaluate(env, drawn if policy == "random" else env.rule, evaluated)
    mean = round(float(TASKS[name].convert(play["team_return"]).mean()), 3)
    row = {"environment": name, "algorithm": policy, "evaluated": evaluated}
    return row | {RETURNS[1] if policy == "random" else RETURNS[0]: mean}


# --- tables and picture -----------------------------------------------------------------------------------------------


def read(folder: Path, part: str = "") -> pd.DataFrame:
    """A CSV file of an earlier run."""
    return pd.read_csv(folder / f"public_tasks{part}.csv")


def write(rows: pd.DataFrame, curves: pd.DataFrame, results: Path, images: Path) -> None:
    """Both CSV files and the picture."""
    whole = dict.fromkeys(("training_seed", "env_steps"), "Int64")  # a reference has none
    rows, curves = rows.astype(whole), curves.astype(whole)
    rows.to_csv(results / "public_tasks.csv", index=False, lineterminator="\n")
    curves.to_csv(results / "public_tasks_curves.csv", index=False, lineterminator="\n")
    draw(read(results, "_curves"), images)


def table(rows: pd.DataFrame) -> str:
    """The comparison as Markdown; intervals are over training seeds."""
    lines = [
        "| task | policy | steps x trainings | greedy | exploring | greedy at a standstill | others |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, task in TASKS.items():
        of = rows[rows["environment"] == name]
        for policy in (a for a in ("random", "rule", *ALGORITHMS) if a in set(of["algorithm"])):
            group = of[of["algorithm"] == policy]
            steps = f"{group['env_steps'].min():,.0f} x {len(group)}" if policy in ALGORITHMS else ""
            still = f"{100 * group[STILL].mean():.0f} %" if group[STILL].notna().any() else ""
            cells = [*(number(group[key]) for key in RETURNS), still]
            lines.append(f"| {name} | {policy} | {steps} | {' | '.join(cells)} | {task.others.get(policy, '')} |")
    return "\n".join(lines)


def number(samples: pd.Series) -> str:
    """A mean with half its interval, if it has one."""
    value = interval(samples.dropna())
    digits = 2 if abs(value.mean) < 2 else 1
    spread = f" ± {value.half_width:.{digits}f}" if value.count > 1 else ""
    return f"{value.mean:.{digits}f}{spread}" if value.count else ""


def draw(curves: pd.DataFrame, images: Path) -> None:
    """A row of panels an environment: greedy and exploring returns over steps, mean and range of the seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D

    from core.experiment.reporting.plotting import GREY, SERIES

    names = [name for name in TASKS if name in set(curves["environment"])]
    figure, grid = plt.subplots(
        len(names), 2, figsize=(11, 1.1 + 2.6 * len(names)), layout="constrained", squeeze=False, sharey="row"
    )
    for name, pair in zip(names, grid, strict=True):
        for axes, key in zip(pair, RETURNS, strict=True):
            for algorithm, colour in zip(ALGORITHMS, SERIES, strict=False):
                own = chosen(curves, name, algorithm)
                own = own.assign(point=own.groupby("training_seed").cumcount(), value=own[key])
                points = own.groupby("point").agg(
                    steps=("env_steps", "mean"), mean=("value", "mean"), low=("value", "min"), high=("value", "max")
                )
                axes.plot(points["steps"], points["mean"], color=colour, label=algorithm.upper(), lw=1.8)
                axes.fill_between(points["steps"], points["low"], points["high"], color=colour, alpha=0.2, lw=0)
            levels = chosen(curves, name, "random")[RETURNS[1]], chosen(curves, name, "rule")[RETURNS[0]]
            for values, style in zip(levels, REFERENCES.values(), strict=True):
                for value in values:
                    axes.axhline(value, color=GREY, lw=1.2, ls=style)
            if len(levels[1]):  # the first policies run away, which would press the rest flat
                low, high = (float(values.iloc[0]) for values in levels)
                axes.set_ylim(low - 0.5 * (high - low), high + 0.1 * (high - low))
            axes.set_title(f"{name}, {key}", loc="left", fontsize=11)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:,.0f}")
            axes.set_xlim(left=0)
        pair[0].set_ylabel("return")
    for axes in grid[-1]:
        axes.set_xlabel("environment steps, thousands")
    handles = [*grid[0][0].get_lines()[: len(ALGORITHMS)]]
    handles += [Line2D([], [], color=GREY, lw=1.2, ls=style, label=label) for label, style in REFERENCES.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(images / "public_tasks.png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
