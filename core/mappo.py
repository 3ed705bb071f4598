"""MAPPO: multi-agent proximal policy optimization (Yu et al. 2022, arXiv 2103.01955).

Each agent has a stochastic policy on its own observation. During training one centralized critic values the joint
situation; the advantage of what happened over that value, clipped as in PPO (Schulman et al. 2017, arXiv 1707.06347),
says which actions to make more likely.

Departures from the paper, each stated again where it happens: the critic of shared parameters has one output an agent
instead of one pass an agent; continuous actions are Gaussian before a sigmoid, with the exact density; with
`recurrent` the policy remembers, but not the critic, which sees all observations and the state.

Shapes: B batch, T time, E environments, N agents, O observation, A action, S central state, H memory.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.base_agent import AgentTeam, BaseAgent, TeamConfig, Transition
from core.replay_buffer import RolloutBuffer
from core.team.config import Count, NotNegative, Number, Positive, Share
from core.team.memory import add_memory, recall, remember
from core.team.spread import make_stack
from core.utils import ask, gumbel_noise, mask_logits, masked_mean, mean_of

# --- Config ---------------------------------------------------------------------------------------------------------


@dataclass
class MAPPOConfig(TeamConfig):
    """Hyper-parameters of MAPPO, on top of those all algorithms share."""

    rollout_length: Count = 25  # steps T of each environment between updates
    epochs: Count = 4  # passes over a rollout; the paper: 5 to 15
    minibatches: Count = 1  # pieces of a pass; the paper: as few as memory allows
    gae_lambda: Share = 0.95  # 1: return minus value; 0: one-step error
    known_consequences: bool = False  # advantages from info["consequences"] in place of the critic; discrete actions
    episodes_per_seed: Count = 1  # neighbouring copies that meet the same chance; their mean advantage is taken off
    clip_range: Positive = 0.2  # epsilon of the paper: how far the ratio may go
    value_clip_range: NotNegative = 0.2  # the same for the (normalized) value; 0: no clipping
    huber_delta: Positive = 10.0  # the value loss is linear beyond this
    entropy_coefficient: NotNegative = 0.01  # weight c of the entropy bonus
    anneal_entropy: bool = False  # let c fall linearly to 0 over the training
    normalize_values: bool = True  # critic learns normalized returns
    normalize_advantages: bool = True  # to mean 0 and deviation 1, once a rollout
    initial_log_std: Number = -0.5  # log deviation of the first Gaussian policy, before the sigmoid
    recurrent: bool = False  # a GRU of the last of hidden_sizes: the policy remembers the episode, see begin_episode

    def validate(self) -> None:
        """Refuse what does not go together."""
        super().validate()
        known = self.known_consequences and (self.recurrent or self.action_type == "continuous")
        self.require("known_consequences", not known, "false beside continuous actions or recurrent policies")


# --- Mathematics ------------------------------------------------------------------------------------------------------


@dataclass
class RolloutBatch:
    """Steps of a rollout with what GAE made of them, ready for the losses."""

    observations: Tensor  # (B, N, O)
    actions: Tensor  # (B, N) integers, or (B, N, A) floats before the sigmoid
    log_probs: Tensor  # (B, N), of acting time
    advantages: Tensor  # (B, N)
    returns: Tensor  # (B, N), the critic's targets, normalized
    values: Tensor  # (B, N), the critic's outputs of acting time, normalized
    active: Tensor  # (B, N), 0 for agents that had finished before
    states: Tensor | None = None  # (B, state_size)
    action_masks: Tensor | None = None  # (B, N, A) bool
    memories: Tensor | None = None  # (B, N, H), of recurrent agents before the step; 0 where an episode begins
    steps: int = 1  # T of recurrent agents, whose rows are (T, B / T) in order


def generalized_advantages(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """GAE(lambda) of Schulman et al. 2016 (arXiv 1506.02438), with the clock kept apart from the end of the task.

    A terminated step bootstraps nothing; a truncated one bootstraps its true next value; neither lets the advantage of
    the next episode leak in. All arguments and the result are (T, E, N).
    """
    delta = rewards + gamma * (1.0 - terminated) * next_values - values  # (MAPPO-2)
    carry = gamma * gae_lambda * (1.0 - torch.maximum(terminated, truncated))
    advantages, running = torch.empty_like(delta), torch.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        running = delta[t] + carry[t] * running  # (MAPPO-3)
        advantages[t] = running
    return advantages


def less_shared_luck(advantages: Tensor, active: Tensor, size: int) -> Tensor:
    """Advantages minus their mean over the `size` neighbouring copies that met the same chance events.

    What demand or traffic did to all of them says nothing about the actions; the difference between them does
    (input-driven baselines, Mao et al. 2019, arXiv 1807.02264). A copy that nobody living shares keeps its advantage.
    All (T, E, N) -> (T, E, N).
    """
    group = torch.arange(advantages.shape[1], device=advantages.device) // size  # (E,)
    zeros = torch.zeros_like(advantages[:, : int(group[-1]) + 1])  # (T, groups, N)
    total = zeros.index_add(1, group, advantages * active)
    count = zeros.index_add(1, group, active)
    shared = torch.where(count > 1, total / count.clamp(min=1.0), 0.0)
    return advantages - shared[:, group]  # (MAPPO-5)


def known_advantages(costs: Tensor, actions: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor]:
    """What each action was better by than what the policy would have done instead, all others held as they were.

    The counterfactual baseline of COMA (Foerster et al. 2018, arXiv 1705.08926), with Q known instead of learnt.

    Args:
        costs: (T, E, N, A) of every action, as `info["consequences"]` says; NaN where there was no choice.
        actions: (T, E, N) taken.
        log_probs: (T, E, N, A) of the policy that took them.

    Returns:
        (T, E, N) advantages, and 1 where there was a choice.
    """
    q = -costs.nan_to_num()
    expected = (log_probs.exp() * q).sum(dim=-1)
    taken = q.gather(-1, actions.long().unsqueeze(-1)).squeeze(-1)
    choice = (~costs.isnan().any(dim=-1)).float()
    return choice * (taken - expected), choice  # (MAPPO-7)


def policy_loss(ratio: Tensor, advantages: Tensor, active: Tensor, clip_range: float) -> Tensor:
    """The clipped surrogate, to be minimised: the smaller of the two gains counts. All (B, N) -> scalar."""
    clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
    return masked_mean(-torch.min(ratio * advantages, clipped * advantages), active)  # (MAPPO-9), slope (MAPPO-1)


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, active: Tensor, clip_range: float, delta: float
) -> Tensor:
    """Huber loss on normalized values, the larger of clipped and unclipped. All (B, N) -> scalar."""
    loss = F.huber_loss(values, returns, reduction="none", delta=delta)
    if clip_range > 0:
        near = old_values + (values - old_values).clamp(-clip_range, clip_range)
        loss = torch.max(loss, F.huber_loss(near, returns, reduction="none", delta=delta))  # (MAPPO-12)
    return masked_mean(loss, active)


def squashed_log_prob(raw: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log-density of a = sigmoid(raw), raw ~ Normal(mean, std), summed over action dimensions. (..., A) -> (...)."""
    normal = -0.5 * ((raw - mean) / log_std.exp()).square() - log_std - 0.5 * math.log(2.0 * math.pi)
    return (normal - log_sigmoid_slope(raw)).sum(dim=-1)  # (MAPPO-13)


def log_sigmoid_slope(raw: Tensor) -> Tensor:
    """log of the derivative of the sigmoid, a (1 - a), without overflow."""
    return F.logsigmoid(raw) + F.logsigmoid(-raw)


class ValueNormalizer:
    """Running mean and deviation of the returns, one pair an agent; part of the checkpoint.

    The averages forget slowly and are corrected for their start at zero, as Adam's are. They are float64: the deviation
    is a difference of squares, of which float32 keeps nothing where the mean is large.
    """

    def __init__(self, num_agents: int, device: torch.device, decay: float = 0.99):
        self.decay = decay
        self.sums = torch.zeros(3, num_agents, dtype=torch.float64, device=device)  # of x, x squared, 1

    def update(self, returns: Tensor, active: Tensor, average: Callable[[list[Tensor]], None] | None = None) -> None:
        """Take in a rollout's returns, (T, E, N); those of all processes, if `average` is their mean."""
        returns, active = returns.double(), active.double()
        weights = [returns * active, returns.square() * active, active]
        moments = torch.stack([weight.sum(dim=(0, 1)) for weight in weights])  # (3, N)
        if average is not None:
            average([moments])
        self.sums.lerp_(moments / moments[2].clamp(min=1.0), 1.0 - self.decay)  # 0, 0, 0 if never active

    @property
    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """(N,) each; 0 and 1 before the first update."""
        if not self.sums[2].any():
            return torch.zeros_like(self.sums[0]), torch.ones_like(self.sums[0])
        mean = self.sums[0] / self.sums[2]
        variance = self.sums[1] / self.sums[2] - mean.square()
        return mean, variance.clamp(min=1e-4).sqrt()

    def normalize(self, returns: Tensor) -> Tensor:
        """(..., N) returns -> (..., N) of about mean 0 and deviation 1."""
        mean, std = self.mean_and_std
        return ((returns - mean) / std).float()  # (MAPPO-11)

    def denormalize(self, values: Tensor) -> Tensor:
        """The inverse of `normalize`."""
        mean, std = self.mean_and_std
        return (values * std + mean).float()


# --- Agent and team ---------------------------------------------------------------------------------------------------


class MAPPOAgent(BaseAgent):
    """One MAPPO agent: a stochastic policy on the local observation."""

    team: MAPPOTeam

    def compute_loss(self, batch: RolloutBatch) -> dict[str, Tensor]:
        """This agent's policy, value and entropy terms on a batch."""
        mine = torch.zeros_like(batch.active)
        mine[:, self.index] = batch.active[:, self.index]
        return self.team.losses(batch, mine)


class MAPPOTeam(AgentTeam):
    """N policies as one stack, one centralized critic, and the rollout they are learning from."""

    agent_class = MAPPOAgent
    config_class = MAPPOConfig
    config: MAPPOConfig
    experience_key = "rollout_length"

    def __init__(self, state_dim, action_dim, num_agents, config=None, device=None, devices=None):
        super().__init__(state_dim, action_dim, num_agents, config, device, devices)
        c = self.config
        self.known: Tensor | None = None  # (T, E, N, A), costs of the actions of the episodes that have just ended
        # A Gaussian policy has a mean and a log deviation for each action dimension.
        outputs = 2 * action_dim if c.action_type == "continuous" else action_dim
        members = 1 if c.share_parameters else num_agents
        trunk = c.share_parameters and c.centralized  # V(s) has one output an agent
        critic_inputs = self.central_dim if c.centralized else self.input_dim
        critic_sizes = (critic_inputs, *c.hidden_sizes, num_agents if trunk else 1)
        make = {"generator": self.generator, "devices": self.devices, "activation": torch.tanh_}
        self.gru = add_memory(self) if c.recurrent else None
        actor_inputs = self.input_dim + (self.gru.width if c.recurrent else 0)
        self.networks["actor"] = make_stack(members, (actor_inputs, *c.hidden_sizes, outputs), output_gain=0.01, **make)
        self.networks["critic"] = make_stack(members, critic_sizes, output_gain=1.0, **make)
        policy = [name for name in self.networks if name != "critic"]
        self.add_optimizer("actor", policy, c.learning_rate, eps=1e-5)
        self.add_optimizer("critic", ["critic"], c.learning_rate, eps=1e-5)
        self.normalizer = ValueNormalizer(num_agents, self.device)

    # --- acting -------------------------------------------------------------------------------------------------------

    def act(self, observations: Tensor, training: bool, masks: Tensor | None) -> Tensor:
        """(E, N, O) -> (E, N) integers, or (E, N, A) floats in [0, 1]."""
        memory, before = remember(self, observations)
        outputs = ask(self, "actor", observations, memory).transpose(0, 1)  # (E, N, out)
        drawn = self.draw(outputs, training, masks)
        if training:  # the ratio of the update needs the probabilities of this moment, not of a later one
            self.acting = {"actions": drawn, "log_probs": self.log_prob(outputs, drawn, masks), **before}
        return self.to_environment(drawn)

    def draw(self, outputs: Tensor, training: bool, masks: Tensor | None) -> Tensor:
        """Sample from the policy if `training`, else take its mode (median, if continuous), before the sigmoid."""
        if self.action_type == "discrete":
            logits = mask_logits(outputs, masks)
            return (logits + gumbel_noise(logits.shape, self.generator) if training else logits).argmax(dim=-1)
        mean, log_std = self.gaussian(outputs)
        noise = self.normal(mean.shape) if training else 0.0
        return mean + log_std.exp() * noise

    def decide(self, outputs: Tensor, training: bool, masks: Tensor | None) -> Tensor:
        """See `AgentTeam.decide`."""
        return self.to_environment(self.draw(outputs, training, masks))

    def to_environment(self, drawn: Tensor) -> Tensor:
        """Discrete actions as they are, continuous ones squashed into [0, 1]."""
        return drawn if self.action_type == "discrete" else torch.sigmoid(drawn)

    def gaussian(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Network outputs (..., 2A) -> mean and log deviation, (..., A) each."""
        mean, log_std = outputs.chunk(2, dim=-1)
        return mean, (log_std + self.config.initial_log_std).clamp(-5.0, 2.0)

    def log_prob(self, outputs: Tensor, drawn: Tensor, masks: Tensor | None) -> Tensor:
        """One log-probability an agent, also when an action has many dimensions. -> (..., N)"""
        if self.action_type == "continuous":
            return squashed_log_prob(drawn, *self.gaussian(outputs))
        log_probs = torch.log_softmax(mask_logits(outputs, masks), dim=-1)
        return log_probs.gather(-1, drawn.long().unsqueeze(-1)).squeeze(-1)

    def entropy(self, outputs: Tensor, masks: Tensor | None) -> Tensor:
        """Entropy of the policy; of a squashed Gaussian, estimated from one draw. -> (..., N)"""
        if self.action_type == "discrete":
            log_probs = torch.log_softmax(mask_logits(outputs, masks), dim=-1)
            return -(log_probs.exp() * log_probs).sum(dim=-1)
        mean, log_std = self.gaussian(outputs)
        draw = mean + log_std.exp() * self.normal(mean.shape)
        gaussian = log_std + 0.5 * math.log(2.0 * math.pi * math.e)
        return (gaussian + log_sigmoid_slope(draw)).sum(dim=-1)  # (MAPPO-14)

    # --- learning -----------------------------------------------------------------------------------------------------

    @property
    def episodes_per_seed(self) -> int:
        """See `AgentTeam.episodes_per_seed`."""
        return self.config.episodes_per_seed

    def make_buffer(self, num_envs: int) -> RolloutBuffer:
        """See `AgentTeam.make_buffer`."""
        return RolloutBuffer(self.config.rollout_length, num_envs, self.device)

    def observe(self, transition: Transition) -> dict[str, float]:
        """Store a step; learn when the rollout is full."""
        if not self.acting:
            raise RuntimeError("MAPPO learns from its own actions: call select_actions(..., training=True) first")
        if self.config.known_consequences and transition.consequences is not None:
            self.known = self.tensor(transition.consequences).transpose(0, 1)
        report = super().observe(transition)
        self.acting = {}
        return report

    def updates_due(self) -> int:
        """One, when the rollout is full."""
        return int(self.buffer.full)

    def update(self, batch: RolloutBatch | None = None) -> dict[str, float]:
        """Learn from `batch` in one step, or from the stored rollout in `epochs` passes, and forget it."""
        if batch is not None:
            return self.learn(batch)
        if not self.buffer:  # none, or an empty one
            return {}
        rollout, reports = self.prepare(), []
        for _ in range(self.config.epochs):
            reports += [self.learn(_rows(rollout, rows)) for rows in self.minibatches(rollout)]
        self.buffer.clear()
        return mean_of(reports)

    def minibatches(self, rollout: RolloutBatch) -> list[Tensor]:
        """The rows of each minibatch of one pass. Recurrent agents need the steps of an environment together."""
        rows = torch.arange(len(rollout.log_probs), device=self.device).view(rollout.steps, -1)
        order = torch.randperm(rows.shape[1], generator=self.generator, device=self.device)
        return [rows[:, some].flatten() for some in order.chunk(self.config.minibatches)]

    @torch.no_grad()
    def prepare(self) -> RolloutBatch:
        """Turn the stored chunk into a batch of T * E steps with advantages and value targets."""
        c, f = self.config, self.buffer.filled()  # (T, E, ...) each
        if c.known_consequences:
            return self.prepare_known(f)
        active, terminated, truncated = f["active"], f["terminated"], f["truncated"]
        outputs, next_outputs = self.rollout_values(f)  # normalized
        values, next_values = self.normalizer.denormalize(outputs), self.normalizer.denormalize(next_outputs)
        advantages = generalized_advantages(
            c.reward_scale * f["rewards"], values, next_values, terminated, truncated, c.gamma, c.gae_lambda
        )
        returns = advantages + values  # (MAPPO-4)
        if c.normalize_values:
            self.normalizer.update(returns, active, self.average_hook)
        fields = {
            "observations": f["observations"],
            "actions": f["actions"],
            "log_probs": f["log_probs"],
            "advantages": self.comparable(advantages, active),
            "returns": self.normalizer.normalize(returns),
            "values": outputs,  # as the critic said them: the update of the statistics must not look like a step of it
            "active": active,
        }
        if c.state_size:
            fields["states"] = f["states"]
        return self.batch_of(f, fields)

    def prepare_known(self, f: dict[str, Tensor]) -> RolloutBatch:
        """The same of whole episodes whose consequences are known: no critic, and no moment without a choice."""
        steps = len(f["rewards"])
        if self.known is None or len(self.known) != steps:
            found = "none" if self.known is None else f"an episode of {len(self.known)} steps"
            raise ValueError(
                f"known_consequences: a rollout of {steps} steps wants info['consequences'] of as many, found {found}; "
                "set rollout_length to the length of an episode, and let the environment hand them over"
            )
        outputs = ask(self, "actor", f["observations"].flatten(0, 1)).transpose(0, 1)  # (T * E, N, A)
        outputs = outputs.view(self.known.shape)  # (T, E, N, A)
        log_probs = torch.log_softmax(mask_logits(outputs, f.get("action_masks")), dim=-1)
        advantages, choice = known_advantages(self.known, f["actions"], log_probs)
        active, self.known = f["active"] * choice, None
        nothing = torch.zeros_like(active)  # in the critic's place
        taken = {"observations": f["observations"], "actions": f["actions"], "log_probs": f["log_probs"]}
        advantages = self.comparable(advantages, active)
        return self.batch_of(
            f, {**taken, "advantages": advantages, "returns": nothing, "values": nothing, "active": active}
        )

    def batch_of(self, f: dict[str, Tensor], fields: dict[str, Tensor]) -> RolloutBatch:
        """Steps of the rollout `f`, one after the other."""
        fields |= {name: f[name] for name in ("action_masks", "memories") if name in f}
        flat = {name: field.flatten(0, 1) for name, field in fields.items()}  # (T, E, ...) -> (B, ...)
        return RolloutBatch(**flat, steps=len(f["active"]) if self.config.recurrent else 1)

    def comparable(self, advantages: Tensor, active: Tensor) -> Tensor:
        """Advantages as the policy's loss takes them: without shared luck, of one size. All (T, E, N)."""
        c = self.config
        if c.episodes_per_seed > 1:
            advantages = less_shared_luck(advantages, active, c.episodes_per_seed)
        if c.normalize_advantages and active.sum() > 1:  # once a rollout, over living agents; one has no deviation
            mean = masked_mean(advantages, active)
            std = masked_mean((advantages - mean).square(), active).sqrt()
            advantages = (advantages - mean) / (std + 1e-8)  # (MAPPO-6)
        return advantages

    def rollout_values(self, f: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The critic's outputs for the stored steps, and for what came after each: (T, E, N) both."""
        states, next_states = (f[name] if self.config.state_size else None for name in ("states", "next_states"))
        flat = self.values(f["observations"].flatten(0, 1), None if states is None else states.flatten(0, 1))
        values = flat.view(f["rewards"].shape)
        # The next value is that of the next row, except where the chunk or an episode ends.
        next_values = torch.cat([values[1:], values[-1:]])
        ends = torch.maximum(f["terminated"], f["truncated"]).amax(dim=-1) > 0  # (T, E)
        ends[-1] = True
        next_values[ends] = self.values(
            f["next_observations"][ends], None if next_states is None else next_states[ends]
        )
        return values, next_values

    def values(self, observations: Tensor, states: Tensor | None) -> Tensor:
        """Normalized V_i(s) of every agent, or V_i(o_i) when not centralized: (B, N, O) -> (B, N)."""
        critic = self.networks["critic"]
        if not self.config.centralized:
            return critic(self.agent_inputs(observations)).squeeze(-1).T
        outputs = critic(self.central_state(observations, states).unsqueeze(0))  # (1, B, N) or (N, B, 1)
        return outputs[0] if self.config.share_parameters else outputs.squeeze(-1).T

    def losses(self, batch: RolloutBatch, active: Tensor) -> dict[str, Tensor]:
        """Policy, value and entropy terms over the agents marked in `active` (B, N), and how far the policy moved."""
        c = self.config
        outputs = ask(self, "actor", batch.observations, recall(self, batch, self.gru)).transpose(0, 1)  # (B, N, out)
        log_ratio = self.log_prob(outputs, batch.actions, batch.action_masks) - batch.log_probs
        ratio = log_ratio.exp()  # (MAPPO-8)
        found = {"policy_loss": policy_loss(ratio, batch.advantages, active, c.clip_range)}
        if not c.known_consequences:
            values, clip = self.values(batch.observations, batch.states), c.value_clip_range
            found["value_loss"] = value_loss(values, batch.values, batch.returns, active, clip, c.huber_delta)
        return found | {
            "entropy": masked_mean(self.entropy(outputs, batch.action_masks), active),
            "kl": masked_mean((ratio - 1.0 - log_ratio).detach(), active),  # unbiased, low variance
        }

    def learn(self, batch: RolloutBatch) -> dict[str, float]:
        """One optimizer step of the policies and of the critic."""
        loss = self.losses(batch, batch.active)
        c = self.config.entropy_coefficient * (1.0 - self.progress if self.config.anneal_entropy else 1.0)
        actor_objective = loss["policy_loss"] - c * loss["entropy"]  # (MAPPO-10)
        report = {name: float(value.detach()) for name, value in loss.items()}
        report["actor_gradient"] = self.descend("actor", actor_objective)
        if "value_loss" in loss:
            report["critic_gradient"] = self.descend("critic", loss["value_loss"])
        self.updates += 1
        return report

    def extra_state(self) -> dict[str, Any]:
        """The value statistics."""
        return {"normalizer": self.normalizer.sums.clone()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Take the value statistics back."""
        self.normalizer.sums.copy_(state["normalizer"])


MAPPOAgent.team_class = MAPPOTeam


def _rows(rollout: RolloutBatch, rows: Tensor) -> RolloutBatch:
    """A minibatch: the same rows of every field."""
    picked = {name: field.index_select(0, rows) for name, field in vars(rollout).items() if isinstance(field, Tensor)}
    return dataclasses.replace(rollout, **picked)


def create_mappo_agents(state_dim, action_dim, num_agents, config=None, device=None, devices=None) -> MAPPOTeam:
    """Create a team of MAPPO agents: `MAPPOTeam(...)`, whose `AgentTeam` says what the arguments are."""
    return MAPPOTeam(state_dim, action_dim, num_agents, config, device, devices)
