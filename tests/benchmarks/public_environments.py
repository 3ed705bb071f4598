"""The three algorithms in public environments, through the PettingZoo adapter.

    pip install -r tests/benchmarks/requirements.txt
    OMP_NUM_THREADS=1 python tests/benchmarks/public_environments.py             # 3 seeds, at most 25 minutes of a core
    OMP_NUM_THREADS=1 python tests/benchmarks/public_environments.py --table     # table and picture from the CSVs again

Writes docs/results/public_environments.csv (a row a training), public_environments_curves.csv (means of 50 training
episodes) and docs/images/public_environments.png (the curves), and prints the table. A training takes the EPISODES of
its algorithm, or what its equal share of --minutes allows, and is judged greedily on unseen episodes (seeds from
10,000). The budget is a small part of that of the published numbers: this shows that the adapter and the algorithms
work on tasks that are not ours, and how far they come so soon; it is no race.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from core.experiment.evaluation import evaluate, interval  # noqa: E402
from core.experiment.pettingzoo_adapter import from_parallel_env  # noqa: E402
from core.experiment.training import train  # noqa: E402
from core.experiment.vector_env import VectorEnv  # noqa: E402
from core.maddpg import create_maddpg_agents  # noqa: E402
from core.mappo import create_mappo_agents  # noqa: E402
from core.qmix import create_qmix_agents  # noqa: E402

ALGORITHMS = {"maddpg": create_maddpg_agents, "mappo": create_mappo_agents, "qmix": create_qmix_agents}
# One setting an algorithm for all environments, found in a few short runs with seed 9; not tuned further.
CONFIGS = {
    "maddpg": {"learning_rate": 1e-3, "batch_size": 256, "epsilon_decay": 0.98, "tau": 0.01, "update_every": 1},
    "mappo": {"learning_rate": 1e-3, "rollout_length": 25, "epochs": 10, "gamma": 0.95},
    "qmix": {"learning_rate": 1e-3, "batch_size": 128, "epsilon_decay": 0.98, "tau": 0.01, "gamma": 0.95},
}
NUM_ENVS = {"maddpg": 4, "mappo": 16, "qmix": 4}
# Of a training. MAPPO uses every step once and then forgets it, so that its steps cost less and it needs more of them.
EPISODES = {"maddpg": 500, "mappo": 1500, "qmix": 500}
STEPS, AGENTS = 25, 3  # of an episode; in simple_spread
BLOCK = 50  # training episodes of one point of a curve


@dataclass(frozen=True)
class Task:
    """A public environment, and what was published about it."""

    published: dict[str, float]  # algorithm -> mean return, Papoudakis et al. 2021, quoted
    convert: Callable[[float], float]  # our return, summed over agents -> in the convention of the published numbers
    convention: str
    padded: bool = False


TASKS = {
    # There, every agent is paid -(sum of the landmarks' distances) - collisions, its own with itself included (-1 a
    # step), and returns are summed over agents. mpe2 pays half of both by default, and no collision with oneself.
    "simple_spread_v3": Task(
        {"maddpg": -141.7, "mappo": -133.5, "qmix": -126.6},
        lambda total: 2.0 * total - STEPS * AGENTS,
        "2 x sum - 75",
    ),
    "simple_speaker_listener_v4": Task(
        {"maddpg": -13.6, "mappo": -10.7, "qmix": -11.6}, lambda total: total, "sum", padded=True
    ),
    "simple_reference_v3": Task({}, lambda total: total, "sum"),
}
COLUMNS = (
    "environment",
    "fork",
    "algorithm",
    "training_seed",
    "episodes",
    "env_steps",
    "cpu_seconds",
    "evaluated",
    "return_sum",
    "return_mean",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, help=f"of a training of 25 steps each (default: {EPISODES})")
    parser.add_argument("--minutes", type=float, default=25.0, help="of CPU time for everything (default: 25)")
    parser.add_argument("--eval-episodes", type=int, default=200, help="unseen episodes (default: 200)")
    parser.add_argument("--out", type=Path, help="folder of everything (default: docs/results and docs/images)")
    parser.add_argument("--table", action="store_true", help="only make table and picture of an earlier run again")
    options = parser.parse_args()
    results, images = options.out or ROOT / "docs" / "results", options.out or ROOT / "docs" / "images"
    if options.table:
        write(*(read(results / f"public_environments{part}.csv") for part in ("", "_curves")), results, images)
    else:
        torch.set_num_threads(1)
        run(options, results, images)
    print(table(read(results / "public_environments.csv")))
    return 0


def run(options: argparse.Namespace, results: Path, images: Path) -> None:
    """All trainings, one after the other; tables and picture are written anew after each."""
    import pandas as pd

    for folder in (results, images):
        folder.mkdir(parents=True, exist_ok=True)
    deadline = time.process_time() + 60.0 * options.minutes
    rows, curves = [random_row(name, options.eval_episodes) for name in options.environments], []
    # The seed is the outer loop: should time run short, the environments and algorithms lose alike.
    plan = [(name, a, seed) for seed in options.seeds for name in options.environments for a in options.algorithms]
    for k, (name, algorithm, seed) in enumerate(plan):
        share, episodes = (deadline - time.process_time()) / (len(plan) - k), options.episodes or EPISODES[algorithm]
        row, history = train_one(name, algorithm, seed, episodes, options.eval_episodes, share)
        rows.append(row)
        curves.append(curve(row, history))
        write(pd.DataFrame(rows, columns=COLUMNS), pd.concat(curves), results, images)
        print({key: row[key] for key in COLUMNS if key != "fork"}, flush=True)


def make_env(name: str, copies: int) -> VectorEnv:
    """The public environment with our protocol, stacked."""
    module = import_module(f"mpe2.{name}")
    return VectorEnv([lambda: from_parallel_env(module.parallel_env(), pad_unequal=TASKS[name].padded)] * copies)


def train_one(name: str, algorithm: str, seed: int, episodes: int, evaluated: int, seconds: float):
    """Train one team within `seconds` of CPU time -> its row and its history."""
    env, started = make_env(name, NUM_ENVS[algorithm]), time.process_time()
    config = {"action_type": "discrete", "seed": seed, **CONFIGS[algorithm]}
    sizes = env.observation_space_size, env.action_space_size, env.num_agents
    team = ALGORITHMS[algorithm](*sizes, config=config)
    judging = 0.0005 * evaluated * STEPS  # seconds, about
    history = train(
        env, team, episodes, seed, progress=False, stop=lambda: time.process_time() - started > seconds - judging
    )
    row = scores(name, algorithm, evaluate(env, team, evaluated), env.num_agents)
    row |= {"training_seed": seed, "episodes": len(history), "env_steps": int(history["env_steps"].iloc[-1])}
    return row | {"cpu_seconds": round(time.process_time() - started, 1)}, history


def random_row(name: str, evaluated: int) -> dict:
    """Uniform random legal actions, for a scale."""
    env, draw = make_env(name, 1), np.random.default_rng(0)

    def act(observations: np.ndarray) -> np.ndarray:
        chances = draw.random((*observations.shape[:2], env.action_space_size))
        return (chances * (env.action_masks() if hasattr(env, "action_masks") else 1.0)).argmax(axis=-1)

    return scores(name, "random", evaluate(env, act, evaluated), env.num_agents)


def scores(name: str, policy: str, table, agents: int) -> dict:
    """A row without what only a training has."""
    total = float(table["team_return"].mean())
    fork = f"mpe2 {version('mpe2')}"
    row = {"environment": name, "fork": fork, "algorithm": policy, "evaluated": len(table)}
    return row | {"return_sum": round(total, 2), "return_mean": round(total / agents, 2)}


def curve(row: dict, history):
    """Means of blocks of training episodes."""
    block = (history["episode"] // BLOCK).rename("block")
    means = history.groupby(block).agg(env_steps=("env_steps", "last"), return_sum=("team_return", "mean"))
    means.insert(0, "environment", row["environment"])
    means.insert(1, "algorithm", row["algorithm"])
    means.insert(2, "training_seed", row["training_seed"])
    return means.round(2).reset_index(drop=True)


# --- tables and picture -----------------------------------------------------------------------------------------------


def read(path: Path):
    """A CSV file of an earlier run."""
    import pandas as pd

    return pd.read_csv(path)


def write(rows, curves, results: Path, images: Path) -> None:
    """Both CSV files and the picture."""
    rows = rows.astype(dict.fromkeys(("training_seed", "episodes", "env_steps"), "Int64"))  # random play has none
    rows.to_csv(results / "public_environments.csv", index=False, lineterminator="\n")
    curves.to_csv(results / "public_environments_curves.csv", index=False, lineterminator="\n")
    draw(curves, images / "public_environments.png")


def table(rows) -> str:
    """The comparison as Markdown; intervals are over training seeds."""
    lines = [
        "| environment (fork) | policy | training steps x seeds | return, sum over agents | mean over agents "
        "| in the published convention | published (quoted) |",
        "|---|---|---|---|---|---|---|",
    ]
    for (name, policy), group in rows.groupby(["environment", "algorithm"], sort=False):
        task, trained = TASKS[name], policy != "random"
        total, mean = interval(group["return_sum"]), interval(group["return_mean"])
        steps = f"{group['env_steps'].min():,.0f} x {len(group)}" if trained else "none"
        converted = task.convert(total.mean)
        published = f"{task.published[policy]}" if policy in task.published else "-"
        lines.append(
            f"| {name} ({group['fork'].iloc[0]}) | {policy} | {steps} | {number(total)} | {number(mean)} "
            f"| {converted:.1f} ({task.convention}) | {published} |"
        )
    judged = int(rows["evaluated"].iloc[0])
    return "\n".join(lines) + f"\n\n{NOTES.format(judged=judged)}\n"


NOTES = """Greedy, {judged} unseen episodes of 25 steps; ± is half the 95 % interval over the training seeds, where
there are several. Rewards are those of mpe2's defaults. In simple_speaker_listener_v4 the agents have unequal shapes:
the speaker's observation is filled up with zeros and its two missing actions are masked (pad_unequal=True). In
simple_reference_v3 an agent's 50 actions are the pairs of a move and a word.

Published: Papoudakis et al. 2021 (arXiv 2006.07869), shared parameters, 5 seeds, quoted from memory; trained for
millions of steps, on another fork of the original environments. The convention is inferred: there every agent is paid
the sum over agents, returns are divided by the number of agents (an author in uoe-agents/epymarl issue 29), and an
agent collides with itself at every step (openai/multiagent-particle-envs issue 67), which mpe2 corrected. The same
issue 29 reports about -700 for random play, -233 after the division: compare the random row here. Nothing comparable
is known to us for simple_reference_v3."""


def number(value) -> str:
    """A mean with half its interval, if it has one."""
    return f"{value.mean:.1f}" + (f" ± {value.half_width:.1f}" if value.count > 1 else "")


def draw(curves, path: Path) -> None:
    """Training returns over environment steps, a panel an environment, the mean of the seeds."""
    from core.experiment.reporting.plotting import Panel, time_panels

    per_step = BLOCK * STEPS
    curves = curves[curves["env_steps"] % per_step == 0]  # whole blocks
    if curves.empty:
        return
    wide = curves.pivot_table("return_sum", "env_steps", ["environment", "algorithm"])
    panels = [
        Panel(name, "return", {a: wide[name, a].to_numpy() for a in ALGORITHMS if (name, a) in wide})
        for name in wide.columns.unique(0)
    ]
    title = "Returns in training, with exploration: sum of agents, mean of 3 trainings"
    time_panels(path, wide.index.to_numpy(), panels, title=title, xlabel="environment steps")


if __name__ == "__main__":
    sys.exit(main())
