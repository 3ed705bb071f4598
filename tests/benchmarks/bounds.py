"""How much is left to gain: bounds on what any policy can reach, on the first evaluation episodes (seeds from 10,000).

    python tests/benchmarks/bounds.py                                # all: half an hour or more
    python tests/benchmarks/bounds.py --problems retail              # a minute
    python tests/benchmarks/bounds.py --difficulties medium --banking-episodes 10 --rollout-episodes 0

Retail: the linear programme of retail/clairvoyant.py (cost, $: nobody pays less). Banking: the relaxation of
banking/clairvoyant.py (team reward: nobody gets more), and the rollout there, which is no bound but can be played.
Writes retail/bounds.csv and banking/bounds.csv, a row a difficulty and name: mean and half 95 % width over the
episodes, the mean of the best tuned rule on exactly the same episodes, and the paired difference to it. The tuned rules
themselves are rows too. Rows that are in the file and not computed now stay. Retail needs scipy (pip install scipy).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from core.experiment.evaluation import half_width  # noqa: E402

SEED = 10_000
METRIC = {"retail": "total_cost", "banking": "team_return"}
BEST_RULE = {"retail": "adaptive base-stock, tuned jointly", "banking": "global index"}
RULES = {
    "retail": ("base-stock, tuned jointly", "adaptive base-stock, tuned jointly"),
    "banking": ("size threshold", "local index", "global index"),
}
KEYS = ["problem", "difficulty", "name"]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=["retail", "banking"], choices=["retail", "banking"])
    parser.add_argument(
        "--difficulties", nargs="+", default=["medium", "easy", "hard"], choices=["medium", "easy", "hard"]
    )
    parser.add_argument("--retail-episodes", type=int, default=200, help="default: 200")
    parser.add_argument("--banking-episodes", type=int, default=50, help="default: 50")
    parser.add_argument("--rollout-episodes", type=int, default=20, help="of banking's rollout, 0: none (default: 20)")
    parser.add_argument("--out", type=Path, default=ROOT, help="DIR/retail/bounds.csv, ... (default: the repository)")
    options = parser.parse_args(argv)
    if min(options.retail_episodes, options.banking_episodes) < 2 or options.rollout_episodes < 0:
        parser.error("an interval needs 2 episodes or more")
    for problem in options.problems:
        for difficulty in options.difficulties:
            started = time.perf_counter()
            if problem == "retail":
                values = retail(difficulty, options.retail_episodes)
            else:
                values = banking(difficulty, options.banking_episodes, options.rollout_episodes)
            table = keep(rows(problem, difficulty, values), options.out / problem / "bounds.csv")
            print(f"{problem}, {difficulty}: {time.perf_counter() - started:.0f} s", flush=True)
    print(table.to_string(index=False, float_format=lambda x: f"{x:.1f}"))


def retail(difficulty: str, episodes: int) -> dict[str, np.ndarray]:
    """Name -> cost of each episode."""
    from retail.baselines import baselines, run_policy
    from retail.clairvoyant import clairvoyant_bound
    from retail.environment import MultiWarehouseEnv

    env = MultiWarehouseEnv(difficulty, num_envs=episodes)
    rules = baselines(env)
    values = {name: run_policy(env, rules[name], env.reset(SEED))["total_cost"] for name in RULES["retail"]}
    env.reset(SEED)
    values["clairvoyant bound"] = np.array([clairvoyant_bound(env, e)["total_cost"] for e in range(episodes)])
    return values


def banking(difficulty: str, episodes: int, rollout_episodes: int) -> dict[str, np.ndarray]:
    """Name -> team reward of each episode; the rollout has the first `rollout_episodes`."""
    from banking.baselines import play, tuned_rule
    from banking.clairvoyant import clairvoyant_rollout, relaxed_bounds
    from banking.environment import TransactionRoutingEnv

    env = TransactionRoutingEnv(episodes, difficulty)
    values = {name: play(env, tuned_rule(name, difficulty), SEED)["team_return"] for name in RULES["banking"]}
    env.reset(SEED)
    values["clairvoyant bound"] = relaxed_bounds(env)["team_return"]
    if rollout_episodes:
        values["clairvoyant rollout"] = clairvoyant_rollout(TransactionRoutingEnv(rollout_episodes, difficulty), SEED)[
            "team_return"
        ]
    return values


def rows(problem: str, difficulty: str, values: dict[str, np.ndarray]) -> list[dict]:
    best = values[BEST_RULE[problem]]
    found = []
    for name, value in values.items():
        same = best[: len(value)]
        found.append(
            {
                "problem": problem,
                "difficulty": difficulty,
                "name": name,
                "metric": METRIC[problem],
                "episodes": len(value),
                "mean": value.mean(),
                "half_width": half_width(value),
                "best_rule": BEST_RULE[problem],
                "best_rule_mean": same.mean(),
                "difference": (value - same).mean(),
                "difference_half_width": half_width(value - same),
            }
        )
    return found


def keep(found: list[dict], path: Path):
    """Put rows into the table at path, in place of older ones."""
    import pandas as pd

    tables = ([pd.read_csv(path)] if path.exists() else []) + [pd.DataFrame(found)]
    whole = pd.concat(tables).drop_duplicates(KEYS, keep="last").sort_values(KEYS).round(3)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.to_csv(path, index=False)
    return whole


if __name__ == "__main__":
    main()
