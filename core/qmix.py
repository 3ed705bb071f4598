"""QMIX: monotonic value function factorisation (Rashid et al. 2018, arXiv 1803.11485; JMLR 2020, arXiv 2003.08839).

Each agent has a utility for each of its actions, from its own observation. A mixing network joins the utilities of the
chosen actions into one Q_tot, with weights that the global state decides and that are never negative. So whatever
raises an agent's own utility cannot lower Q_tot, and the best joint action is the *tuple* of each agent's own best
action. The utilities are trained end to end, through the mixer, from the team's one reward.

Departures from the paper, each stated again where it happens: feed-forward utilities, unless `recurrent`; transitions
(or sequences, which begin with the memory of acting time) are replayed instead of whole episodes; targets move softly;
continuous actions are split into levels.

Shapes: B batch, E environments, N agents, O observation, A action, S central state, H memory, D utility heads an agent,
L choices a head, K = N * D utilities that are mixed, M mixing width.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from core.base_agent import AgentTeam, BaseAgent, TeamConfig
from core.networks import StackedMLP
from core.replay_buffer import Batch, ReplayBuffer
from core.team.config import Count, Levels, Positive, Whole
from core.team.memory import StackedGRU, add_memory, recall, remember, sample_sequences
from core.team.spread import make_stack
from core.utils import ask, mask_logits, masked_mean

# --- Config ---------------------------------------------------------------------------------------------------------


@dataclass
class QMIXConfig(TeamConfig):
    """Hyper-parameters of QMIX, on top of those all algorithms share."""

    learning_rate: Positive = 5e-4
    action_levels: Levels = 11  # levels of a continuous action dimension, evenly from 0 to 1
    # QMIX; its weights as shares of one whole, for states that make them huge; or VDN (arXiv 1706.05296), the plain sum
    mixer: Literal["monotonic", "shares", "additive"] = "monotonic"
    mixing_width: Count = 32  # hidden width M of the mixer
    hypernet_width: Count = 64  # hidden width of the networks that make the mixer's weights
    learning_starts: Whole = 1_000  # environment steps before the first update
    update_every: Count = 1  # steps of the (parallel) environments between updates
    updates_per_step: Count = 1  # updates then
    recurrent: bool = False  # a GRU of the last of hidden_sizes: the utilities remember the episode, see begin_episode
    sequence_length: Count = 10  # steps in a row that recurrent agents replay; the batch holds batch_size steps in all


# --- Networks and mathematics -----------------------------------------------------------------------------------------


class MonotonicMixer:
    """Q_tot from the chosen utilities: a two-layer network whose weights are made by the global state.

    The weights pass through an absolute value, so dQ_tot/dQ_i >= 0; the biases, and V(s), are free.

    Args:
        utilities: number K of mixed utilities.
        state_dim: size S of the global state.
    """

    def __init__(self, utilities: int, state_dim: int, config: QMIXConfig, generator: torch.Generator):
        k, m, h = utilities, config.mixing_width, config.hypernet_width
        one = functools.partial(make_stack, 1, generator=generator, devices=[generator.device], key="mixing_width")
        # Small outputs at the start. A random V(s) above the rewards is bootstrapped for ever in a task without an
        # end: in simple_spread Q_tot rose above 0 with negative rewards alone, and the agents ran away.
        self.hyper_w1 = one((state_dim, h, k * m), output_gain=0.3)
        self.hyper_b1 = one((state_dim, m), output_gain=0.1)
        self.hyper_w2 = one((state_dim, h, m), output_gain=0.3)
        self.hyper_v = one((state_dim, m, 1), output_gain=0.1)
        self.width = m

    def __call__(self, utilities: Tensor, states: Tensor) -> Tensor:
        """(B, K) utilities and (B, S) states -> (B,) Q_tot."""
        s, batch = states.unsqueeze(0), len(states)
        w1 = self.hyper_w1(s).abs().view(batch, -1, self.width)  # (B, K, M)  (QMIX-3) never negative
        w2 = self.hyper_w2(s).abs().view(batch, self.width, 1)  # (B, M, 1)
        b1 = self.hyper_b1(s).view(batch, 1, self.width)
        v = self.hyper_v(s).view(batch, 1, 1)
        hidden = F.elu(torch.baddbmm(b1, utilities.unsqueeze(1), w1))  # (B, 1, M), rising in every utility (QMIX-4)
        return torch.baddbmm(v, hidden, w2).view(batch)  # (QMIX-2)

    def stacks(self) -> list[StackedMLP]:
        """The networks that make the weights."""
        return [self.hyper_w1, self.hyper_b1, self.hyper_w2, self.hyper_v]


class SharesMixer(MonotonicMixer):
    """The same networks, but weights that are shares of a whole, and no ELU.

    However far a state lies from those that were learnt on, the slopes of the K utilities sum to K.
    """

    def __call__(self, utilities: Tensor, states: Tensor) -> Tensor:
        """(B, K) utilities and (B, S) states -> (B,) Q_tot."""
        s, (batch, k) = states.unsqueeze(0), utilities.shape
        w1 = k * self.hyper_w1(s).view(batch, k, self.width).softmax(dim=1)  # (B, K, M), one whole a hidden unit
        w2 = self.hyper_w2(s).view(batch, self.width, 1).softmax(dim=1)  # (B, M, 1)
        b1 = self.hyper_b1(s).view(batch, 1, self.width)
        v = self.hyper_v(s).view(batch, 1, 1)
        return torch.baddbmm(v, torch.baddbmm(b1, utilities.unsqueeze(1), w1), w2).view(batch)  # (QMIX-14)


class AdditiveMixer:
    """Q_tot as the plain sum of utilities (VDN, Sunehag et al. 2018): no parameters, no state."""

    def __call__(self, utilities: Tensor, states: Tensor) -> Tensor:
        """(B, K) -> (B,)"""
        return utilities.sum(dim=-1)  # (QMIX-13)

    def stacks(self) -> list[StackedMLP]:
        """Nothing to learn."""
        return []


def team_reward(rewards: Tensor, active: Tensor) -> Tensor:
    """What is paid to the living, divided by all N agents: to lose a poorly paid one must not pay. (B, N) -> (B,)"""
    return (rewards * active).sum(dim=-1) / rewards.shape[-1]  # (QMIX-6)


def td_target(rewards: Tensor, gamma: float, terminated: Tensor, next_values: Tensor) -> Tensor:
    """What Q_tot should say; a truncated step bootstraps, a terminated one does not. Tensors of one shape."""
    return rewards + gamma * (1.0 - terminated) * next_values  # (QMIX-8)


# --- Agent and team ---------------------------------------------------------------------------------------------------


class QMIXAgent(BaseAgent):
    """One QMIX agent: utilities of its own actions from the local observation."""

    team: QMIXTeam

    def compute_loss(self, batch: Batch) -> dict[str, Tensor]:
        """The team's loss: through the mixer, every agent is trained by the one error of Q_tot."""
        return {"td_loss": self.team.loss(batch)}


class QMIXTeam(AgentTeam):
    """N utility networks as one stack, a mixer, their targets, and one replay buffer."""

    agent_class = QMIXAgent
    config_class = QMIXConfig
    config: QMIXConfig
    policy = "utility"

    def __init__(self, state_dim, action_dim, num_agents, config=None, device=None, devices=None):
        super().__init__(state_dim, action_dim, num_agents, config, device, devices)
        c = self.config
        # A continuous action of A dimensions is A heads of L levels. Each head is a utility of its own in the mixer, so
        # the greedy joint action stays the tuple of separate maxima. (QMIX-12)
        discrete = c.action_type == "discrete"
        self.heads, self.choices = (1, action_dim) if discrete else (action_dim, c.action_levels)
        self.levels = torch.linspace(0.0, 1.0, c.action_levels, dtype=torch.float32, device=self.device)
        self.gru = add_memory(self) if c.recurrent else None
        self.gru_target = add_memory(self, "_target") if c.recurrent else None
        inputs = self.input_dim + (self.gru.width if c.recurrent else 0)
        sizes = (inputs, *c.hidden_sizes, self.heads * self.choices)
        members = 1 if c.share_parameters else num_agents
        for suffix in ("", "_target"):
            self.networks["utility" + suffix] = make_stack(
                members, sizes, self.generator, self.devices, output_gain=0.1
            )
            self.networks["mixer" + suffix] = self.make_mixer()
        online = [name for name in self.networks if not name.endswith("_target")]
        self.add_optimizer("all", online, c.learning_rate)
        self.move_targets(1.0)

    def make_mixer(self) -> MonotonicMixer | AdditiveMixer:
        """The mixer that the config asks for; independent learners (centralized=False) mix nothing."""
        if self.config.mixer == "additive" or not self.config.centralized:
            return AdditiveMixer()
        mixer = SharesMixer if self.config.mixer == "shares" else MonotonicMixer
        return mixer(self.num_agents * self.heads, self.central_dim, self.config, self.generator)

    # --- acting -------------------------------------------------------------------------------------------------------

    def utilities(self, observations: Tensor, name: str = "utility", memory: Tensor | None = None) -> Tensor:
        """Every agent's utilities of its own choices: (B, N, O) -> (B, N, D, L)."""
        outputs = ask(self, name, observations, memory).transpose(0, 1)  # (B, N, D * L)
        return outputs.reshape(len(observations), self.num_agents, self.heads, self.choices)  # (QMIX-1)

    def act(self, observations: Tensor, training: bool, masks: Tensor | None) -> Tensor:
        """(E, N, O) -> (E, N) integers, or (E, N, A) floats in [0, 1]."""
        memory, before = remember(self, observations)
        if training:
            self.acting = before
        return self.decide(self.utilities(observations, memory=memory).flatten(2), training, masks)

    def decide(self, outputs: Tensor, training: bool, masks: Tensor | None) -> Tensor:
        """Utilities (..., D * L) and masks (..., L) -> integers (...), or levels (..., D) in [0, 1]."""
        utilities = outputs.unflatten(-1, (self.heads, self.choices))
        choices = self.epsilon_greedy(utilities, training, None if masks is None else masks.unsqueeze(-2))
        return choices.squeeze(-1) if self.action_type == "discrete" else self.levels[choices]

    def epsilon_greedy(self, utilities: Tensor, training: bool, masks: Tensor | None) -> Tensor:
        """One legal choice a head, each head for itself: (..., D, L) -> (..., D)."""
        greedy = mask_logits(utilities, masks).argmax(dim=-1)  # (QMIX-5)
        if not training:
            return greedy
        uniform = self.uniform(utilities.shape)
        random = mask_logits(uniform, masks).argmax(dim=-1)
        explore = self.uniform(greedy.shape) < self.epsilon
        return torch.where(explore, random, greedy)  # (QMIX-11)

    def stored_choices(self, actions: Tensor) -> Tensor:
        """Replayed actions as choices: (B, N) integers or (B, N, A) levels -> (B, N, D, 1)."""
        if self.action_type == "discrete":
            return actions.long().view(*actions.shape, 1, 1)
        return (actions * (self.config.action_levels - 1)).round().long().unsqueeze(-1)

    # --- learning -----------------------------------------------------------------------------------------------------

    def make_buffer(self, num_envs: int) -> ReplayBuffer:
        """See `AgentTeam.make_buffer`."""
        return ReplayBuffer(self.config.buffer_size, num_envs, self.device)

    def update(self, batch: Batch | None = None) -> dict[str, float]:
        """One step of utilities and mixer together, then of their targets."""
        c = self.config
        if batch is None and c.recurrent:
            count = math.ceil(c.batch_size / c.sequence_length)
            batch = sample_sequences(self.experience(), count, c.sequence_length, self.generator)
        elif batch is None:
            batch = self.experience().sample(c.batch_size, self.generator)
        loss = self.loss(batch)
        report = {"td_loss": float(loss.detach()), "gradient": self.descend("all", loss, jointly=True)}
        self.updates += 1
        self.move_targets(c.tau)  # (QMIX-10)
        return report

    def loss(self, batch: Batch) -> Tensor:
        """Squared error of Q_tot against the double-Q target, averaged over the batch."""
        active = batch.active.unsqueeze(-1)  # (B, N, 1), finished agents have nothing to add
        memory, next_memory = self.memories(batch, self.gru)
        u = self.utilities(batch.observations, memory=memory)  # (B, N, D, L)
        q = u.gather(-1, self.stored_choices(batch.actions)).squeeze(-1) * active  # (B, N, D)
        with torch.no_grad():
            masks = None if batch.next_action_masks is None else batch.next_action_masks.unsqueeze(2)
            # Double Q: the online network chooses the next action, the target network values it.
            next_u = self.utilities(batch.next_observations, memory=next_memory)
            best = mask_logits(next_u, masks).argmax(dim=-1, keepdim=True)  # (QMIX-7)
            _, next_memory = self.memories(batch, self.gru_target)
            next_q = self.utilities(batch.next_observations, "utility_target", next_memory)
            next_q = next_q.gather(-1, best).squeeze(-1)  # (B, N, D)
            alive = active * (1.0 - batch.terminated).unsqueeze(-1)  # (B, N, 1)
        rewards = self.config.reward_scale * batch.rewards  # (B, N)
        if not self.config.centralized:  # independent Q-learning: each head regresses its agent's own reward
            with torch.no_grad():
                y = td_target(rewards, self.config.gamma, batch.terminated, next_q.mean(dim=-1))
            return masked_mean((q.mean(dim=-1) - y).square(), batch.active)
        states = self.central_state(batch.observations, batch.states)
        q_tot = self.networks["mixer"](q.flatten(1), states)  # (B,)
        with torch.no_grad():
            next_states = self.central_state(batch.next_observations, batch.next_states)
            next_q_tot = self.networks["mixer_target"]((next_q * alive).flatten(1), next_states)
            # One team reward, and one end of the task: when nobody is left.
            ended = (batch.terminated.bool() | ~batch.active.bool()).all(dim=-1).float()
            y = td_target(team_reward(rewards, batch.active), self.config.gamma, ended, next_q_tot)
        return masked_mean((q_tot - y).square(), batch.active.amax(dim=-1))  # (QMIX-9)

    def memories(self, batch: Batch, gru: StackedGRU | None) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """What recurrent agents remember once they have seen the observations, and the next ones: (N, B, H) each."""
        memory = recall(self, batch, gru)
        if memory is None:
            return None, None
        return memory, gru(self.agent_inputs(batch.next_observations).unsqueeze(1), memory).squeeze(1)


QMIXAgent.team_class = QMIXTeam


def create_qmix_agents(state_dim, action_dim, num_agents, config=None, device=None, devices=None) -> QMIXTeam:
    """Create a team of QMIX agents: `QMIXTeam(...)`, whose `AgentTeam` says what the arguments are."""
    return QMIXTeam(state_dim, action_dim, num_agents, config, device, devices)
