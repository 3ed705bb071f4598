"""MAPPO and QMIX in level-based foraging, a public task where a greedy policy and a drawn one differ as day and night.

    pip install -r tests/benchmarks/requirements.txt
    OMP_NUM_THREADS=1 python tests/benchmarks/foraging.py             # 12 trainings, about half an hour of a core
    OMP_NUM_THREADS=1 python tests/benchmarks/foraging.py --missing   # only what is not in the CSV yet
    OMP_NUM_THREADS=1 python tests/benchmarks/foraging.py --table     # table and picture from the CSVs again

Writes docs/results/foraging.csv (a row a training), foraging_curves.csv (evaluations on the way) and
docs/images/foraging.png (the curves), and prints the table. A training's budget is a number of environment steps. Every
policy is judged twice on the same unseen episodes (seeds from 10,000): greedily, and exploring as it did at the end of
its training (MAPPO draws its actions, QMIX takes 5 % of them at random), which is how some peers judge.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from core.experiment.evaluation import evaluate, interval  # noqa: E402
from core.experiment.training import train  # noqa: E402
from core.experiment.vector_env import VectorEnv  # noqa: E402
from core.mappo import create_mappo_agents  # noqa: E402
from core.qmix import create_qmix_agents  # noqa: E402

ALGORITHMS = {"mappo": create_mappo_agents, "qmix": create_qmix_agents}
# One setting an algorithm, found in a few short runs with seed 9 on the smaller task.
CONFIGS = {
    "mappo": {"learning_rate": 1e-3, "rollout_length": 25, "epochs": 4, "gamma": 0.95},
    "qmix": {"learning_rate": 1e-3, "batch_size": 800, "update_every": 5, "tau": 0.01, "gamma": 0.95},
}
COPIES = {"mappo": 10, "qmix": 5}  # side by side
DECAYS, DECAY = 500, 0.994  # of epsilon, to 0.05 over the first third of the budget
POINTS = 10  # evaluations on the way


class Foraging:
    """Level-based foraging with this repository's protocol: the return of an episode is 1 if all food was taken.

    All agents are paid the mean of what the agents earn, as peers train it (they pay the sum). `stands_still` is 1 for
    an episode that was cut while the last step had changed nothing.
    """

    discrete_actions = True

    def __init__(self, name: str):
        import gymnasium
        import lbforaging  # noqa: F401, registers its tasks

        self.env = gymnasium.make(name).unwrapped
        self.num_agents = len(self.env.action_space)
        self.observation_space_size = self.env.observation_space[0].shape[0]
        self.action_space_size = int(self.env.action_space[0].n)

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Begin an episode -> observations (N, O)."""
        self.seen = np.stack(self.env.reset(seed=seed)[0])
        return self.seen

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take one step with the actions (N,). The task ends with the last food; the clock, after 50 steps, cuts it."""
        before, (observed, rewards, over, _, _) = self.seen, self.env.step(actions.tolist())
        self.seen, left = np.stack(observed), bool(self.env.field.any())
        paid, info = np.full(self.num_agents, np.mean(rewards), np.float32), {"truncated": over and left}
        if over:
            info["episode_metrics"] = {"stands_still": float(left and np.array_equal(before, self.seen))}
        return self.seen, paid, np.full(self.num_agents, over), info


@dataclass(frozen=True)
class Task:
    """How long each algorithm trains in it, and what one training of a peer reached."""

    steps: dict[str, int]
    peer: dict[str, str]  # EPyMARL: the return, and after how many steps


TASKS = {
    "Foraging-5x5-2p-2f-v3": Task(
        {"mappo": 100_000, "qmix": 100_000}, {"mappo": "0.76 drawn (300,000)", "qmix": "0.11 greedy (150,000)"}
    ),
    "Foraging-8x8-2p-2f-coop-v3": Task(
        {"mappo": 100_000, "qmix": 100_000}, {"mappo": "0.63 drawn (500,000)", "qmix": "0.00 greedy (200,000)"}
    ),
}
COLUMNS = ["environment", "version", "algorithm", "training_seed", "env_steps", "cpu_seconds", "evaluated"]
RETURNS = ["greedy", "exploring"]  # sums over agents
STILL = "greedy_stands_still"  # share of the greedy episodes that ended so
CURVE = ["environment", "algorithm", "training_seed", "env_steps", *RETURNS, STILL]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="environment steps of a training (default: those of its task)")
    parser.add_argument("--eval-episodes", type=int, default=200, help="unseen episodes at the end (default: 200)")
    parser.add_argument("--out", type=Path, help="folder of everything (default: docs/results and docs/images)")
    parser.add_argument("--missing", action="store_true", help="go on with the CSVs: train only what is not in them")
    parser.add_argument("--table", action="store_true", help="only make table and picture of an earlier run again")
    options = parser.parse_args()
    results, images = options.out or ROOT / "docs" / "results", options.out or ROOT / "docs" / "images"
    if options.table:
        draw(*(read(results, part) for part in ("_curves", "")), images)
    else:
        torch.set_num_threads(1)
        run(options, results, images)
    print(table(read(results)))
    return 0


def run(options: argparse.Namespace, results: Path, images: Path) -> None:
    """All trainings, one after the other; tables and picture are written anew after each."""
    for folder in (results, images):
        folder.mkdir(parents=True, exist_ok=True)
    rows, curves = pd.DataFrame(columns=[*COLUMNS, *RETURNS, STILL]), pd.DataFrame(columns=CURVE)
    if options.missing and (results / "foraging.csv").exists():
        rows, curves = read(results), read(results, "_curves")
    for name in options.environments:
        if not len(chosen(rows, name, "random")):
            rows = pd.concat([rows, pd.DataFrame([random_row(name, options.eval_episodes)])])
        for seed in options.seeds:
            for algorithm in (a for a in options.algorithms if a in TASKS[name].steps):
                if seed in set(chosen(rows, name, algorithm)["training_seed"]):
                    continue
                steps = options.steps or TASKS[name].steps[algorithm]
                row, points = train_one(name, algorithm, seed, steps, options.eval_episodes)
                rows, curves = pd.concat([rows, pd.DataFrame([row])]), pd.concat([curves, points])
                write(rows, curves, results, images)
                print({key: row[key] for key in row if key != "version"}, flush=True)


def chosen(rows: pd.DataFrame, name: str, algorithm: str) -> pd.DataFrame:
    return rows[(rows["environment"] == name) & (rows["algorithm"] == algorithm)]


def train_one(name: str, algorithm: str, seed: int, steps: int, evaluated: int, changes: dict | None = None):
    """Train one team for so many environment steps -> its row, and its curve."""
    env, test = (VectorEnv([partial(Foraging, name)] * copies) for copies in (COPIES[algorithm], 20))
    decay = {"epsilon_decay": DECAY, "epsilon_decay_steps": max(1, steps // (3 * DECAYS))}
    config = {"action_type": "discrete", "seed": seed, **decay, **CONFIGS[algorithm], **(changes or {})}
    team = ALGORITHMS[algorithm](env.observation_space_size, env.action_space_size, env.num_agents, config=config)
    points, started = [], time.process_time()

    def look(_: Any = None) -> None:
        """The clock of what anneals counts steps here; and now and then the policy is judged."""
        team.set_progress(min(1.0, team.environment_steps / steps))
        if team.environment_steps >= len(points) * steps / POINTS:
            points.append({"env_steps": team.environment_steps, **judged(test, team, 40)})

    def enough() -> bool:
        return team.environment_steps >= steps

    train(env, team, steps, seed, progress=False, on_round=look, stop=enough)  # an episode has a step at least
    row = {"environment": name, "version": version("lbforaging"), "algorithm": algorithm, "training_seed": seed}
    row |= {"env_steps": team.environment_steps, "cpu_seconds": round(time.process_time() - started, 1)}
    row |= {"evaluated": evaluated, **judged(test, team, evaluated)}
    return row, pd.DataFrame([{**{key: row[key] for key in CURVE[:3]}, **point} for point in points])


def judged(env: VectorEnv, team: Any, episodes: int) -> dict[str, float]:
    """Mean returns of the greedy and of the exploring policy on the same episodes."""
    greedy, exploring = (evaluate(env, team, episodes, greedy=greedy) for greedy in (True, False))
    means = {RETURNS[0]: greedy["team_return"], RETURNS[1]: exploring["team_return"], STILL: greedy["stands_still"]}
    return {name: round(float(values.mean()), 3) for name, values in means.items()}


def random_row(name: str, evaluated: int) -> dict[str, Any]:
    """Uniform random actions, for a scale."""
    env, draw = VectorEnv([partial(Foraging, name)] * 20), np.random.default_rng(0)

    def act(observations: np.ndarray) -> np.ndarray:
        return draw.integers(env.action_space_size, size=observations.shape[:2])

    mean = round(float(evaluate(env, act, evaluated)["team_return"].mean()), 3)
    row = {"environment": name, "version": version("lbforaging"), "algorithm": "random"}
    return row | {"evaluated": evaluated, RETURNS[1]: mean}


# --- tables and picture -----------------------------------------------------------------------------------------------


def read(folder: Path, part: str = "") -> pd.DataFrame:
    """A CSV file of an earlier run."""
    return pd.read_csv(folder / f"foraging{part}.csv")


def write(rows: pd.DataFrame, curves: pd.DataFrame, results: Path, images: Path) -> None:
    """Both CSV files and the picture."""
    rows = rows.astype(dict.fromkeys(("training_seed", "env_steps"), "Int64"))  # random play has none
    rows.to_csv(results / "foraging.csv", index=False, lineterminator="\n")
    curves.to_csv(results / "foraging_curves.csv", index=False, lineterminator="\n")
    draw(read(results, "_curves"), read(results), images)


def table(rows: pd.DataFrame) -> str:
    """The comparison as Markdown; intervals are over training seeds."""
    lines = [
        "| environment | policy | steps x trainings | greedy | at a standstill | exploring | EPyMARL, one training |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, task in TASKS.items():
        of = rows[rows["environment"] == name]
        for policy in (a for a in ("random", *ALGORITHMS) if a in set(of["algorithm"])):
            group = of[of["algorithm"] == policy]
            steps = f"{group['env_steps'].min():,.0f} x {len(group)}" if policy != "random" else ""
            still = "" if policy == "random" else f"{100 * group[STILL].mean():.0f} %"
            cells = [number(group[RETURNS[0]]), still, number(group[RETURNS[1]])]
            lines.append(f"| {name} | {policy} | {steps} | {' | '.join(cells)} | {task.peer.get(policy, '')} |")
    return "\n".join(lines)


def number(samples: pd.Series) -> str:
    """A mean with half its interval, if it has one."""
    value = interval(samples)
    spread = f" ± {value.half_width:.2f}" if value.count > 1 else ""
    return f"{value.mean:.2f}{spread}" if value.count else ""


def draw(curves: pd.DataFrame, rows: pd.DataFrame, images: Path) -> None:
    """A row of panels an environment: greedy and exploring returns over steps, mean and range of the seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    from core.experiment.reporting.plotting import GREY, SERIES

    names = [name for name in TASKS if name in set(curves["environment"])]
    figure, grid = plt.subplots(
        len(names), 2, figsize=(11, 1.1 + 2.6 * len(names)), layout="constrained", squeeze=False, sharey="row"
    )
    for name, pair in zip(names, grid, strict=True):
        for axes, key in zip(pair, RETURNS, strict=True):
            for algorithm, colour in zip(ALGORITHMS, SERIES[1:], strict=False):
                own = chosen(curves, name, algorithm)
                own = own.assign(point=own.groupby("training_seed").cumcount(), value=own[key])
                points = own.groupby("point").agg(
                    steps=("env_steps", "mean"), mean=("value", "mean"), low=("value", "min"), high=("value", "max")
                )
                if len(points):
                    axes.plot(points["steps"], points["mean"], color=colour, label=algorithm.upper(), lw=1.8)
                    axes.fill_between(points["steps"], points["low"], points["high"], color=colour, alpha=0.2, lw=0)
            random = chosen(rows, name, "random")[RETURNS[1]].iloc[0]
            axes.axhline(random, color=GREY, lw=1.2, ls=":", label="random play")
            axes.set_title(f"{name}, {key}", loc="left", fontsize=11)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:,.0f}")
            axes.set_xlim(left=0)
        pair[0].set_ylabel("return (1: all food)")
    for axes in grid[-1]:
        axes.set_xlabel("environment steps, thousands")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(images / "foraging.png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
