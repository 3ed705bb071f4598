"""How good is "learned"? All three algorithms on inventory problems whose optimum is known (tests/lost_sales.py).

    OMP_NUM_THREADS=1 python tests/benchmarks/optimum.py            # an hour -> docs/results/optimum.csv
    OMP_NUM_THREADS=1 python tests/benchmarks/optimum.py --missing  # only what is not in the CSV yet
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
from lost_sales import (  # noqa: E402
    OneWarehouse,
    TwoWarehouses,
    base_stock,
    best_local_rules,
    each_for_itself,
    levels_as_rules,
    local,
    optimal_one,
    optimal_two,
    solve_one,
    solve_two,
)

from core.experiment.evaluation import evaluate, half_width  # noqa: E402
from core.experiment.training import train  # noqa: E402
from core.maddpg import create_maddpg_agents  # noqa: E402
from core.mappo import create_mappo_agents  # noqa: E402
from core.qmix import create_qmix_agents  # noqa: E402

PROBLEMS = {
    "one warehouse": (OneWarehouse, solve_one, optimal_one),
    "two warehouses": (TwoWarehouses, solve_two, optimal_two),
}
ALGORITHMS = {"maddpg": create_maddpg_agents, "mappo": create_mappo_agents, "qmix": create_qmix_agents}
# QMIX splits continuous orders into the same nine levels: to train that as well would be the same training, to the bit.
KINDS = {"maddpg": ("discrete", "continuous"), "mappo": ("discrete", "continuous"), "qmix": ("discrete",)}  # of orders
COPIES, PERIODS, EPISODES = 10, 500, 100  # side by side in training; periods of an evaluated episode; evaluated
TUNING = 700_000  # seeds of the demand that base-stock levels are chosen on; evaluation takes the usual ones
# One setting an algorithm for both problems and both kinds of action, looked at on training seeds 5 and 6. The learning
# rate falls, which averages out the chance in the demand; gamma 0.95 looks 20 periods ahead.
SHARED = {"gamma": 0.95, "anneal_learning_rate": True, "share_parameters": True}
REPLAYING = {"batch_size": 128, "epsilon_decay": 0.98, "epsilon_decay_steps": 100, "tau": 0.01}
CONFIGS = {
    # An untrained team orders 4 a period and stock piles up: a small buffer forgets that time. The noise must move an
    # order by a whole unit, or the critic has no slope to learn; the penalty keeps several units in a policy's draws.
    "maddpg": {
        **SHARED,
        **REPLAYING,
        "actor_objective": "team",
        "buffer_size": 20_000,
        "noise_std": 4.0,
        "logit_penalty": 0.01,
    },
    "mappo": SHARED,
    "qmix": {**SHARED, **REPLAYING, "learning_rate": 1e-3, "reward_scale": 0.1},
}
BUDGETS = {"maddpg": 2000, "mappo": 6000, "qmix": 2000}  # episodes of 50 periods: about the same time of the processor
# MADDPG's actors climb the sum of all critics, and QMIX knows one reward. MAPPO's policies climb what they are paid: by
# its own cost, a warehouse lets its neighbour hold the stock.
PAID_TOGETHER = {"mappo"}
COLUMNS = ["problem", "policy", "actions", "seed", "cost", "seconds"]


def judged(env_class, policy, discrete: bool = True, seed: int = 10_000) -> float:
    """Mean cost a period, $."""
    env = env_class(EPISODES, discrete, PERIODS)
    return float(evaluate(env, policy, EPISODES, seed)["cost_per_period"].mean())


def references(name: str) -> list[dict]:
    """The optimum, and rules: the best base-stock; and of two warehouses, those that each sees and wants for itself."""
    env_class, solve, optimal = PROBLEMS[name]
    mean, found = solve()
    levels = itertools.product(range(1, 13), repeat=env_class(1).num_agents)
    best = min(levels, key=lambda pair: judged(env_class, base_stock(pair), seed=TUNING))
    rules = {"the optimal rule, judged": optimal(found), "base-stock": base_stock(best)}
    if len(best) == 2:
        rules["base-stock, each for itself"] = base_stock(each_for_itself(best))
        rules["best rule found, own shelf alone"] = local(best_local_rules(levels_as_rules(best)))
    judgements = [{"policy": rule, "cost": judged(env_class, policy)} for rule, policy in rules.items()]
    return [{"problem": name, "actions": "", **row} for row in [{"policy": "optimum", "cost": mean}, *judgements]]


def trained(name: str, algorithm: str, kind: str, seed: int) -> dict:
    """Train one team -> its row."""
    started, discrete = time.process_time(), kind == "discrete"
    env = PROBLEMS[name][0](COPIES, discrete, common=algorithm in PAID_TOGETHER)
    config = {**CONFIGS[algorithm], "action_type": kind, "seed": seed}
    sizes = env.observation_space_size, env.action_space_size, env.num_agents
    team = ALGORITHMS[algorithm](*sizes, config)
    train(env, team, BUDGETS[algorithm], seed)
    cost = judged(PROBLEMS[name][0], team, discrete)
    row = {"problem": name, "policy": algorithm, "actions": kind, "seed": seed, "cost": cost}
    return row | {"seconds": round(time.process_time() - started, 1)}


def table(rows: pd.DataFrame) -> str:
    """Per cent above the optimum, mean ± half the 95 % interval over training seeds, as Markdown."""
    rows = rows.fillna({"actions": ""})
    names = list(dict.fromkeys(rows["problem"]))
    lines = ["| policy | " + " | ".join(f"{name}, % above the optimum" for name in names) + " |"]
    lines += ["|---" * (len(names) + 1) + "|"]
    rules = rows[rows["seed"].isna()]  # first, whenever they were judged
    order = pd.concat([rules, rows.drop(rules.index)])
    for policy, kind in dict.fromkeys(zip(order["policy"], order["actions"], strict=True)):
        cells = []
        for name in names:
            of = rows[rows["problem"] == name]
            optimum = of.loc[of["policy"] == "optimum", "cost"].iloc[0]
            costs = of.loc[(of["policy"] == policy) & (of["actions"] == kind), "cost"].to_numpy()
            cells.append(f"${optimum:.3f} a period" if policy == "optimum" else percent(100 * (costs / optimum - 1)))
        lines.append(f"| {policy}{kind and ', ' + kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def percent(above: np.ndarray) -> str:
    """One cell: nothing, one number, or a mean with its interval."""
    spread = f" ± {half_width(above):.1f}" if len(above) > 1 else ""
    return f"{np.mean(above):.1f}{spread}" if len(above) else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[10, 11, 12, 13, 14], help="training seeds")
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "optimum.csv", help="the CSV")
    parser.add_argument("--missing", action="store_true", help="go on with the CSV: train only what is not in it")
    parser.add_argument("--table", action="store_true", help="only print the table of the CSV")
    options = parser.parse_args()
    if not options.table:
        torch.set_num_threads(1)
        run(options)
    print(table(pd.read_csv(options.out)))
    return 0


def run(options: argparse.Namespace) -> None:
    """Train what is asked for; the CSV is written after every training. Seed by seed, so a stop leaves whole tables."""
    going_on = options.missing and options.out.exists()
    rows = pd.read_csv(options.out).to_dict("records") if going_on else []
    for name in options.problems:
        if not any(row["problem"] == name for row in rows):
            rows += references(name)
    there = {(row["seed"], row["problem"], row["policy"], row["actions"]) for row in rows if "seed" in row}
    for seed, name, algorithm in itertools.product(options.seeds, options.problems, options.algorithms):
        for kind in (k for k in KINDS[algorithm] if (seed, name, algorithm, k) not in there):
            rows.append(trained(name, algorithm, kind, seed))
            print(rows[-1], flush=True)
            pd.DataFrame(rows, columns=COLUMNS).round(4).to_csv(options.out, index=False)


if __name__ == "__main__":
    sys.exit(main())
