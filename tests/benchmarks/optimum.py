"""How good is "learned"? All three algorithms on inventory problems whose optimum is known (tests/lost_sales.py).

    OMP_NUM_THREADS=1 python tests/benchmarks/optimum.py            # half an hour -> docs/results/optimum.csv
    OMP_NUM_THREADS=1 python tests/benchmarks/optimum.py --table    # print the table from the CSV again

One warehouse is solved by value iteration; of two warehouses, the joint optimum sees both shelves, which no local
policy does. Base-stock levels are searched exhaustively on training demand; everybody is judged on other demand.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from lost_sales import MOST, OneWarehouse, TwoWarehouses, base_stock, solve_one, solve_two  # noqa: E402

from core.experiment.evaluation import evaluate, half_width  # noqa: E402
from core.experiment.training import train  # noqa: E402
from core.maddpg import create_maddpg_agents  # noqa: E402
from core.mappo import create_mappo_agents  # noqa: E402
from core.qmix import create_qmix_agents  # noqa: E402

PROBLEMS = {"one warehouse": (OneWarehouse, solve_one), "two warehouses": (TwoWarehouses, solve_two)}
ALGORITHMS = {"maddpg": create_maddpg_agents, "mappo": create_mappo_agents, "qmix": create_qmix_agents}
COPIES, PERIODS, EPISODES = 10, 500, 100  # side by side in training; periods of an evaluated episode; evaluated
TUNING = 700_000  # seeds of the demand that base-stock levels are chosen on; evaluation takes the usual ones
# One setting an algorithm for both problems and both kinds of action: first guesses, looked at on training seed 5.
SHARED = {"gamma": 0.95, "reward_scale": 0.1, "anneal_learning_rate": True, "share_parameters": True}
REPLAYING = {"batch_size": 128, "epsilon_decay": 0.98, "epsilon_decay_steps": 100, "tau": 0.01}
CONFIGS = {
    "maddpg": {**SHARED, **REPLAYING, "actor_objective": "team", "learning_rate": 1e-3},
    "mappo": {
        **SHARED,
        "learning_rate": 1e-3,
        "rollout_length": 50,
        "epochs": 10,
        "minibatches": 4,
        "anneal_entropy": True,
    },
    "qmix": {**SHARED, **REPLAYING, "learning_rate": 1e-3},
}
COLUMNS = ["problem", "policy", "actions", "seed", "cost", "seconds"]


def judged(env_class, policy, discrete: bool = True, seed: int = 10_000) -> float:
    """Mean cost a period, $."""
    env = env_class(EPISODES, discrete, PERIODS)
    return float(evaluate(env, policy, EPISODES, seed)["cost_per_period"].mean())


def references(name: str) -> list[dict]:
    """The optimum, and the best base-stock rule."""
    env_class, solve = PROBLEMS[name]
    levels = itertools.product(range(1, 13), repeat=env_class(1).num_agents)
    best = min(levels, key=lambda pair: judged(env_class, base_stock(pair), seed=TUNING))
    return [
        {"problem": name, "policy": "optimum", "actions": "joint", "cost": solve()[0]},
        {"problem": name, "policy": "base-stock", "actions": "discrete", "cost": judged(env_class, base_stock(best))},
    ]


def trained(name: str, algorithm: str, discrete: bool, seed: int, episodes: int) -> dict:
    """Train one team -> its row."""
    env, started = PROBLEMS[name][0](COPIES, discrete), time.perf_counter()
    kind = "discrete" if discrete else "continuous"
    config = {**CONFIGS[algorithm], "action_type": kind, "seed": seed}
    if algorithm == "qmix" and not discrete:
        config["action_levels"] = MOST + 1
    sizes = env.observation_space_size, env.action_space_size, env.num_agents
    team = ALGORITHMS[algorithm](*sizes, config)
    train(env, team, episodes, seed)
    cost = judged(PROBLEMS[name][0], team, discrete)
    row = {"problem": name, "policy": algorithm, "actions": kind, "seed": seed, "cost": cost}
    return row | {"seconds": round(time.perf_counter() - started, 1)}


def table(rows: pd.DataFrame) -> str:
    """Per cent above the optimum, mean ± half the 95 % interval over training seeds, as Markdown."""
    names = list(dict.fromkeys(rows["problem"]))
    lines = ["| policy | " + " | ".join(f"{name}, % above the optimum" for name in names) + " |"]
    lines += ["|---" * (len(names) + 1) + "|"]
    for policy, kind in dict.fromkeys(zip(rows["policy"], rows["actions"], strict=True)):
        cells = []
        for name in names:
            of = rows[rows["problem"] == name]
            optimum = of.loc[of["policy"] == "optimum", "cost"].iloc[0]
            costs = of.loc[(of["policy"] == policy) & (of["actions"] == kind), "cost"].to_numpy()
            above = 100 * (costs / optimum - 1)
            spread = f" ± {half_width(above):.1f}" if len(above) > 1 else ""
            cells.append(f"${optimum:.3f} a period" if policy == "optimum" else f"{np.mean(above):.1f}{spread}")
        lines.append(f"| {policy}{'' if policy == 'optimum' else ', ' + kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[10, 11, 12, 13, 14], help="training seeds")
    parser.add_argument("--episodes", type=int, default=2000, help="of 50 periods each (default: 2000)")
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "optimum.csv", help="the CSV")
    parser.add_argument("--table", action="store_true", help="only print the table of the CSV")
    options = parser.parse_args()
    if not options.table:
        torch.set_num_threads(1)
        rows = [row for name in options.problems for row in references(name)]
        cells = itertools.product(options.seeds, options.problems, options.algorithms, (True, False))
        for seed, name, algorithm, discrete in cells:
            rows.append(trained(name, algorithm, discrete, seed, options.episodes))
            print(rows[-1], flush=True)
            pd.DataFrame(rows, columns=COLUMNS).round(4).to_csv(options.out, index=False)
    print(table(pd.read_csv(options.out)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
