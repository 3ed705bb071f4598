"""Train routers to share channels: `python banking/train.py`, `--help` for all flags. What you may change is here.

An algorithm is one import line, one entry of ALGORITHMS and its hyper-parameters in CONFIGS. What happens in a run, in
what order, is in core/experiment/runs.py; the training loop is core/experiment/training.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository root: run from any folder

from banking.baselines import baselines
from banking.environment import TransactionRoutingEnv
from banking.report import REPORT
from core.experiment import cli
from core.maddpg import create_maddpg_agents
from core.mappo import create_mappo_agents
from core.qmix import create_qmix_agents

ALGORITHMS = {"mappo": create_mappo_agents, "qmix": create_qmix_agents, "maddpg": create_maddpg_agents}

# Hyper-parameters: any field of MAPPOConfig, QMIXConfig, MADDPGConfig. `--set key=value` changes one for one run.
CONFIGS = {
    "mappo": {
        "gamma": 0.99,
        "rollout_length": 100,
        "minibatches": 4,
        "learning_rate": 1.5e-3,
        "anneal_learning_rate": True,
        "entropy_coefficient": 0.02,
        "anneal_entropy": True,
    },
    "qmix": {
        "gamma": 0.97,
        "batch_size": 256,
        "tau": 0.01,
        "learning_rate": 1e-3,
        "anneal_learning_rate": True,
        "reward_scale": 0.1,
    },
    "maddpg": {
        "gamma": 0.97,
        "batch_size": 256,
        "tau": 0.01,
        "share_parameters": True,
        "anneal_learning_rate": True,
        "reward_scale": 0.1,
    },
}
# Training episodes that run side by side.
NUM_ENVS = {"mappo": 10, "qmix": 10, "maddpg": 10}
# Arguments of the training environment: any of TransactionRoutingEnv's. Evaluation always takes the defaults.
ENV_OPTIONS = {"mappo": {}, "qmix": {}, "maddpg": {}}

HELD_OUT = 0.25  # share of recorded traffic that is kept for evaluation: the newest
COLUMNS = ["seconds", "router", "amount", "urgent"]


def make_env(
    num_envs: int | None = None,
    difficulty: str = "medium",
    seed: int | None = None,
    data: str | None = None,
    evaluation: bool = False,
    **options,
) -> TransactionRoutingEnv:
    """The routers, with drawn traffic or, given `data`, with windows of recorded traffic (see `recorded_traffic`)."""
    if data is not None:
        constants = TransactionRoutingEnv(difficulty=difficulty, **options).constants
        options["traffic_source"] = recorded_traffic(data, constants, evaluation)
    return TransactionRoutingEnv(num_envs, difficulty, seed=seed, **options)


def recorded_traffic(path: str, constants, evaluation: bool):
    """Recorded transactions as traffic: a CSV with the columns seconds, router (0, 1, ...), amount, urgent (0 or 1).

    An episode is a window of the recording at random; training takes the older three quarters of the time, evaluation
    the newest. Returns a traffic source (see TransactionRoutingEnv). Raises ValueError for a file that cannot be that.
    """
    import numpy as np

    rows = cli.read_data(path)
    if not set(COLUMNS) <= set(rows.columns):
        found = ", ".join(map(str, rows.columns))
        raise ValueError(f"{path}: the columns {found} were found; give {', '.join(COLUMNS)}")
    if any(rows[name].dtype.kind not in "fiub" for name in COLUMNS) or rows[COLUMNS].isna().any(axis=None):
        raise ValueError(f"{path}: missing values or text were found; give numbers in {', '.join(COLUMNS)}")
    rows = rows[COLUMNS].sort_values(["seconds", "router"], kind="stable")
    if not rows["router"].isin(range(constants.num_routers)).all() or (rows["amount"] <= 0).any():
        wrong = f"a router outside 0..{constants.num_routers - 1} or an amount of 0 or less"
        raise ValueError(f"{path}: {wrong} was found; number the routers from 0, and leave such rows out")
    step, steps = constants.step_ms / 1000.0, int(constants.episode_steps)
    length = step * steps
    begin, end = rows["seconds"].iloc[0], rows["seconds"].iloc[-1]
    border = begin + (1 - HELD_OUT) * (end - begin)
    begin, end = (border, end) if evaluation else (begin, border)
    if end - begin < length:
        found = rows["seconds"].iloc[-1] - rows["seconds"].iloc[0]
        need = f"give at least {length / HELD_OUT:.0f}, a quarter is kept for evaluation"
        raise ValueError(f"{path}: {found:.1f} seconds were found; {need}")
    seconds, router, amount, urgent = (rows[name].to_numpy() for name in COLUMNS)

    def window(rng):
        start = rng.uniform(begin, end - length)
        inside = slice(*np.searchsorted(seconds, [start, start + length]))
        when = np.minimum((seconds[inside] - start) / step, steps - 1).astype(int)
        order = np.lexsort((router[inside], when))  # in order of step, then router
        arrivals = np.zeros((steps, constants.num_routers), dtype=int)
        np.add.at(arrivals, (when, router[inside].astype(int)), 1)
        return {"arrivals": arrivals, "amounts": amount[inside][order], "urgent": urgent[inside][order]}

    return window


PROBLEM = cli.Problem(
    name="banking",
    folder=Path(__file__).resolve().parent,
    algorithm="mappo",
    algorithms=ALGORITHMS,
    configs=CONFIGS,
    num_envs=NUM_ENVS,
    env_options=ENV_OPTIONS,
    make_env=make_env,
    baselines=baselines,
    report=REPORT,
    episodes=200,
    demo_episodes=200,
    fast_episodes=20,
    data_help="recorded traffic instead of drawn: the columns seconds, router, amount, urgent",
    story="""\
Three routers send 154 transactions a second over three channels. Internal is fast, cheap and risky, Blockchain slow,
dear and safe, and each is a queue that all routers fill. A router sees its own transactions alone and, at first, sends
them anywhere. The aim: fast (100 ms), safe (portfolio risk below 5 %) and cheap.""",
)


def main(argv: list[str] | None = None) -> int:
    return cli.main(PROBLEM, argv, demo=False)


if __name__ == "__main__":
    sys.exit(main())
