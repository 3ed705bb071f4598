"""Train routers to share channels: `python banking/train.py`, `--help` for all flags. What you may change is here.

An algorithm is one import line, one entry of ALGORITHMS and its hyper-parameters in CONFIGS. What happens in a run, in
what order, is in core/experiment/runs/run.py; the training loop is core/experiment/training.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository root: run from any folder

from banking.baselines import baselines
from banking.environment import TransactionRoutingEnv
from banking.replay import RecordedRouting, full_report, recorded_baselines, recorded_env, warning
from banking.report import REPORT
from core.experiment.runs import flags as cli
from core.maddpg import create_maddpg_agents
from core.mappo import create_mappo_agents
from core.qmix import create_qmix_agents

ALGORITHMS = {"mappo": create_mappo_agents, "qmix": create_qmix_agents, "maddpg": create_maddpg_agents}

# Hyper-parameters: any field of MAPPOConfig, QMIXConfig, MADDPGConfig. `--set key=value` changes one for one run.
CONFIGS = {
    "mappo": {
        "gamma": 0.99,
        "gae_lambda": 0.9,
        "rollout_length": 100,
        "minibatches": 4,
        "learning_rate": 2.5e-3,
        "anneal_learning_rate": True,
        "entropy_coefficient": 0.02,
        "anneal_entropy": True,
        "episodes_per_seed": 2,
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
        "actor_objective": "team",
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
# own_weight 0: in the training each router is paid the mean over routers, so that it does not gain by filling a queue
# in front of the others. The team reward is the same.
ENV_OPTIONS = {"mappo": {"own_weight": 0.0}, "qmix": {}, "maddpg": {}}


def make_env(
    num_envs: int | None = None,
    difficulty: str = "medium",
    seed: int | None = None,
    data: str | None = None,
    evaluation: bool = False,
    **options,
) -> TransactionRoutingEnv:
    """The routers, with drawn traffic or, given `data`, with the transactions of a CSV file (see data.py)."""
    if data is not None:
        return recorded_env(data, evaluation, num_envs, difficulty, seed=seed, **options)
    return TransactionRoutingEnv(num_envs, difficulty, seed=seed, **options)


def rules(env: TransactionRoutingEnv) -> dict:
    """The classical rules; on recorded transactions, tuned on their training days."""
    return recorded_baselines(env) if isinstance(env, RecordedRouting) else baselines(env)


PROBLEM = cli.Problem(
    name="banking",
    folder=Path(__file__).resolve().parent,
    algorithm="mappo",
    algorithms=ALGORITHMS,
    configs=CONFIGS,
    num_envs=NUM_ENVS,
    env_options=ENV_OPTIONS,
    make_env=make_env,
    baselines=rules,
    data_report=full_report,
    data_warning=warning,
    data_difficulty=True,
    report=REPORT,
    episodes=200,
    demo_episodes=200,
    fast_episodes=20,
    data_help="your own transactions instead of drawn ones: the columns timestamp, router, amount (see data.py)",
    story="""\
Three routers send 154 transactions a second over three channels. Internal is fast, cheap and risky, Blockchain slow,
dear and safe, and each is a queue that all routers fill. A router sees its own transactions alone and, at first, sends
them anywhere. The aim: fast (100 ms), safe (portfolio risk below 5 %) and cheap.""",
)


def main(argv: list[str] | None = None) -> int:
    return cli.main(PROBLEM, argv, demo=False)


if __name__ == "__main__":
    sys.exit(main())
