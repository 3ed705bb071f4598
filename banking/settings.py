"""What each algorithm is given on the routers, and the environments that scripts make. Change the numbers here."""

from __future__ import annotations

from banking.baselines import LocalIndex, Policy, baselines
from banking.environment import TransactionRoutingEnv
from banking.own_rule import from_thresholds
from banking.replay import RecordedRouting, recorded_baselines, recorded_env
from core.experiment.runs.settings import Setting
from core.maddpg import create_maddpg_agents
from core.mappo import create_mappo_agents
from core.qmix import create_qmix_agents

# One entry an algorithm. env: any argument of TransactionRoutingEnv, for training alone; config: any field of
# MAPPOConfig, QMIXConfig, MADDPGConfig (`--set key=value` changes one for one run).
# own_weight 0: in the training each router is paid the mean over routers, so that it does not gain by filling a queue
# in front of the others. The team reward is the same.
SETTINGS = {
    "mappo": Setting(
        create_mappo_agents,
        num_envs=10,
        env={"own_weight": 0.0},
        config={
            "gamma": 0.99,
            "gae_lambda": 0.9,
            "rollout_length": 100,
            "epochs": 10,
            "minibatches": 4,
            "learning_rate": 2.5e-3,
            "anneal_learning_rate": True,
            "entropy_coefficient": 0.02,
            "anneal_entropy": True,
            "episodes_per_seed": 2,
        },
        known=Setting(
            create_mappo_agents,
            num_envs=10,
            env={"own_weight": 0.0, "consequences": True},
            config={
                "known_consequences": True,
                "rollout_length": 600,  # an episode: its consequences are known when it is over
                "epochs": 10,
                "minibatches": 24,
                "learning_rate": 2.5e-3,
                "anneal_learning_rate": True,
                "entropy_coefficient": 0.02,
                "anneal_entropy": True,
            },
            start={"learning_rate": 1e-3},  # larger steps would leave the rule before they improve on it
        ),
    ),
    "qmix": Setting(
        create_qmix_agents,
        num_envs=20,
        config={
            "mixer": "shares",  # (QMIX-14): with the published weights a channel that overfills can spoil a training
            "gamma": 0.97,
            "batch_size": 64,
            "tau": 0.01,
            "learning_rate": 1e-3,
            "anneal_learning_rate": True,
            "reward_scale": 0.1,
            "max_grad_norm": 1.0,
        },
    ),
    "maddpg": Setting(
        create_maddpg_agents,
        num_envs=10,
        config={
            "actor_objective": "team",
            "gamma": 0.97,
            "batch_size": 256,
            "tau": 0.01,
            "share_parameters": True,
            "anneal_learning_rate": True,
            "reward_scale": 0.1,
        },
    ),
}
EPISODES = 200  # of a training
LOCAL_RULE = "local index"  # the best of `rules` that decides from what an agent sees


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


def rule_of(env: TransactionRoutingEnv, levels: dict) -> Policy:
    """A classical rule that sees what a router sees, from its entry in a run's rules.json. Raises ValueError for what
    is none."""
    return from_thresholds(env, levels) if "thresholds" in levels else LocalIndex.from_levels(env.constants, levels)
