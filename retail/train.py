"""Train warehouses to order: `python retail/train.py`, `--help` for all flags. All that you may want to change is here.

An algorithm is one import line, one entry of ALGORITHMS and its hyper-parameters in CONFIGS. What happens in a run, in
what order, is in core/experiment/runs/run.py; the training loop is core/experiment/training.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository root: run from any folder

from core.experiment.runs import flags as cli
from core.maddpg import create_maddpg_agents
from core.mappo import create_mappo_agents
from core.qmix import create_qmix_agents
from retail.baselines import baselines
from retail.data import data_report, load_sales
from retail.environment import MultiWarehouseEnv
from retail.replay import RecordedWarehouses, recorded_baselines, recorded_env
from retail.report import REPORT

ALGORITHMS = {"maddpg": create_maddpg_agents, "mappo": create_mappo_agents, "qmix": create_qmix_agents}

# Hyper-parameters: any field of MADDPGConfig, MAPPOConfig, QMIXConfig. `--set key=value` changes one for one run.
CONFIGS = {
    "maddpg": {
        "actor_objective": "team",  # the critics split the cost by warehouse, the actors lower the sum
        "share_parameters": True,
        "gamma": 0.96,
        "batch_size": 256,
        "updates_per_step": 9,
        "policy_delay": 3,
        "tau": 0.01,
        "state_per_agent": True,
        "critic_hidden_sizes": [128, 64],
        "critic_action_scale": 8.0,
        "critic_summary": 8,
        "pair_weight": 0.98,
        "anneal_learning_rate": True,
        "logit_penalty": 3e-4,
    },
    "mappo": {
        "gamma": 0.9,
        "rollout_length": 30,
        "minibatches": 4,
        "learning_rate": 1.5e-3,
        "anneal_learning_rate": True,
        "initial_log_std": 0.0,
        "episodes_per_seed": 2,
    },
    "qmix": {
        "gamma": 0.9,
        "batch_size": 256,
        "updates_per_step": 4,
        "tau": 0.01,
        "learning_rate": 1e-3,
        "anneal_learning_rate": True,
    },
}
# Training episodes that run side by side.
NUM_ENVS = {"maddpg": 20, "mappo": 10, "qmix": 20}
# Arguments of the training environment: any of MultiWarehouseEnv's. Evaluation always takes the defaults.
# team_reward_weight 0: each critic learns its own warehouse's cost; 0.25: mixed with the mean over warehouses.
# state_lookahead 8: the critics, and only they, see the demand of the next 8 days that the simulator has drawn already.
ENV_OPTIONS = {
    "maddpg": {"team_reward_weight": 0.0, "state_lookahead": 8},
    "mappo": {"state_lookahead": 6, "team_reward_weight": 0.25},
    "qmix": {"state_lookahead": 6},
}


def make_env(
    num_envs: int | None = None,
    difficulty: str = "medium",
    seed: int | None = None,
    data: str | None = None,
    evaluation: bool = False,
    **options,
) -> MultiWarehouseEnv:
    """The warehouses, with drawn demand or, given `data`, with the sales of a CSV file (see data.py)."""
    if data is not None:
        return recorded_env(data, evaluation, difficulty, num_envs, seed, **options)
    return MultiWarehouseEnv(difficulty, num_envs, seed, **options)


def rules(env: MultiWarehouseEnv) -> dict:
    """The classical rules; on recorded sales, tuned on their training part."""
    return recorded_baselines(env) if isinstance(env, RecordedWarehouses) else baselines(env)


PROBLEM = cli.Problem(
    name="retail",
    folder=Path(__file__).resolve().parent,
    algorithm="maddpg",
    algorithms=ALGORITHMS,
    configs=CONFIGS,
    num_envs=NUM_ENVS,
    env_options=ENV_OPTIONS,
    make_env=make_env,
    baselines=rules,
    data_report=lambda path: data_report(load_sales(path)),
    report=REPORT,
    episodes=1000,
    demo_episodes=1000,
    fast_episodes=200,
    data_help="your own sales instead of drawn demand: the columns date, warehouse, units (see data.py)",
    story="""\
Five warehouses order one item from one supplier every day for 30 days. Running out costs $10 a unit, moving a unit
$0.50, keeping it overnight $0.10. A warehouse sees its own shelves alone and, at first, orders anything. The aim: to
serve the customers at the lowest cost of all five together.""",
)


def main(argv: list[str] | None = None) -> int:
    return cli.main(PROBLEM, argv, demo=False)


if __name__ == "__main__":
    sys.exit(main())
