"""Begin with a rule: copy it into the actors, so that training improves a policy that is in use already.

A copy that only saw what the rule meets errs where its own errors lead. So the rule plays first, and then the copy
plays while the rule says what it would have done (Ross, Gordon and Bagnell 2011, arXiv 1011.0686).

Shapes: E environments, N agents, O observation, A action, B moments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from core.base_agent import AgentTeam
from core.experiment.episodes import Episodes
from core.experiment.training import BLOCK, episode_seeds
from core.experiment.vector_env import as_stacked
from core.utils import masked_mean

MOMENTS = 12_000  # that the rule plays, and as many that the copy plays
STEPS = 1_500  # of the optimizer, after each of the two
BATCH = 256  # moments of all agents

Policy = Callable[[np.ndarray], np.ndarray]


def imitate(env: Any, agents: AgentTeam, rule: Policy, seed: int = 0) -> float:
    """Copy `rule` into the actors.

    Args:
        env: the training environment; it plays the last episodes of the training seed's block.
        rule: (E, N, O) observations -> actions as the environment takes them; told of resets by `begin_episode(env)`
            if it has that.

    Returns:
        The last loss: cross-entropy of discrete actions, mean squared distance of continuous ones.

    Raises:
        ValueError: the agents have no actors (QMIX), or remember.
    """
    if "actor" not in agents.networks or agents.gru is not None:
        raise ValueError("agents begin with a rule if they have actors without a memory: take MADDPG or MAPPO")
    stacked, first, loss = as_stacked(env), BLOCK - 10_000, torch.zeros(())
    moments: list[list[np.ndarray]] = []  # observations (E, N, O), the rule's actions, who is active (E, N)
    generator = torch.Generator().manual_seed(seed)
    for part, player in enumerate((rule, lambda observations: agents.select_actions(observations, training=False))):
        while len(moments) * stacked.num_envs < MOMENTS * (part + 1):
            moments += _play(stacked, player, rule, episode_seeds(seed, first, stacked.num_envs))
            first += stacked.num_envs
        told = [agents.tensor(np.concatenate(column)) for column in zip(*moments, strict=True)]
        for _ in range(STEPS):
            rows = torch.randint(len(told[0]), (BATCH,), generator=generator).to(agents.device)
            loss = _imitation_loss(agents, *(column[rows] for column in told))
            agents.descend("actor", loss)
    agents.move_targets(1.0)  # of MADDPG
    return float(loss.detach())


def _play(env: Any, player: Policy, rule: Policy, seeds: Any) -> list[list[np.ndarray]]:
    """E episodes by `player`, and what the rule would have done at every moment."""
    now, moments = Episodes(env, seeds), []
    if hasattr(rule, "begin_episode"):
        rule.begin_episode(env)
    while now.running:
        answers = np.asarray(rule(now.observations))
        moments.append([now.observations, answers, now.active.copy()])
        now.step(answers if player is rule else player(now.observations))
    return moments


def _imitation_loss(agents: AgentTeam, observations: Tensor, actions: Tensor, active: Tensor) -> Tensor:
    """How far the actors are from the rule: (B, N, O), (B, N) or (B, N, A), (B, N) -> scalar."""
    outputs = agents.networks["actor"](agents.agent_inputs(observations)).transpose(0, 1)  # (B, N, out)
    if agents.action_type == "discrete":
        apart = F.cross_entropy(outputs.flatten(0, 1), actions.long().flatten(), reduction="none").view_as(active)
    else:  # a Gaussian actor's median is the sigmoid of its mean, which comes first
        apart = (torch.sigmoid(outputs[..., : agents.action_dim]) - actions).square().sum(dim=-1)
    return masked_mean(apart, active.float())
