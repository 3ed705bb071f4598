"""What each algorithm is given on the warehouses, and the environments that scripts make. Change the numbers here."""

from __future__ import annotations

from core.experiment.runs.settings import Setting
from core.maddpg import create_maddpg_agents
from core.mappo import create_mappo_agents
from core.qmix import create_qmix_agents
from retail.baselines import Policy, baselines
from retail.environment import MultiWarehouseEnv
from retail.own_rule import from_levels
from retail.replay import RecordedWarehouses, recorded_baselines, recorded_env

# One entry an algorithm. env: any argument of MultiWarehouseEnv, for training alone; config: any field of MADDPGConfig,
# MAPPOConfig, QMIXConfig (`--set key=value` changes one for one run).
# team_reward_weight 0: each critic learns its own warehouse's cost; 0.25: mixed with the mean over warehouses.
# state_lookahead 8: the critics, and only they, see the demand of the next 8 days that the simulator has drawn already.
SETTINGS = {
    "maddpg": Setting(
        create_maddpg_agents,
        num_envs=20,
        env={"team_reward_weight": 0.0, "state_lookahead": 8},
        config={
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
        known=Setting(
            create_maddpg_agents,
            num_envs=20,
            env={"consequences": True},
            config={
                "known_consequences": True,
                "share_parameters": True,
                "plays": 4,
                "noise_std": 0.0,  # the slope is that of what was ordered
                "buffer_size": 600,  # the episodes that have just ended: older slopes are of another team
                "batch_size": 150,
                "updates_per_step": 8,
                "learning_rate": 3e-3,
                "anneal_learning_rate": True,
                "max_grad_norm": 0.33,
                "logit_penalty": 0.0,
            },
            start={"learning_rate": 1e-3},  # larger steps would leave the rule before they improve on it
        ),
    ),
    "mappo": Setting(
        create_mappo_agents,
        num_envs=10,
        env={"state_lookahead": 6, "team_reward_weight": 0.25},
        config={
            "gamma": 0.9,
            "rollout_length": 30,
            "epochs": 10,
            "minibatches": 4,
            "learning_rate": 1.5e-3,
            "anneal_learning_rate": True,
            "initial_log_std": 0.0,
            "episodes_per_seed": 2,
        },
    ),
    "qmix": Setting(
        create_qmix_agents,
        num_envs=20,
        env={"state_lookahead": 6},
        config={
            "gamma": 0.9,
            "batch_size": 256,
            "updates_per_step": 2,
            "tau": 0.01,
            "learning_rate": 1e-3,
            "anneal_learning_rate": True,
            "epsilon_decay": 0.98,  # while orders are random it pays to hoard: end that early
        },
    ),
}
EPISODES = 1000  # of a training
LOCAL_RULE = "adaptive base-stock, tuned jointly"  # the best of `rules` that decides from what an agent sees


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


def rule_of(env: MultiWarehouseEnv, levels: dict) -> Policy:
    """A classical rule from its entry in a run's rules.json. Raises ValueError for what is none."""
    return from_levels(env, levels)
