"""MADDPG: multi-agent deep deterministic policy gradient (Lowe et al. 2017, arXiv 1706.02275).

Each agent has an actor that sees its own observation and, during training only, a critic that sees the observations and
actions of all agents. The critic's slope in the agent's own action says in which direction to move the actor.

Departures from the paper, each stated again where it happens: exploration noise is added before the sigmoid; discrete
actions are one-hot everywhere, with straight-through Gumbel gradients; `actor_objective="team"` lets all actors climb
the sum of all critics, for teams whose members bear separate parts of one cost; with shared parameters one critic
serves all agents and sees the joint situation from each agent's place; and three options that sharpen the critic's
slope, on which all of MADDPG rests: `critic_action_scale`, `critic_summary` and `pair_weight`.

Shapes: B batch, E environments, N agents, O observation, A action, S central state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from core.base_agent import AgentTeam, BaseAgent, TeamConfig, Transition
from core.replay_buffer import Batch, ReplayBuffer
from core.team.config import Count, NotNegative, Positive, Share, Whole, Widths
from core.team.spread import make_stack
from core.utils import ask, gumbel_noise, mask_logits

# --- Config ---------------------------------------------------------------------------------------------------------


@dataclass
class MADDPGConfig(TeamConfig):
    """Hyper-parameters of MADDPG, on top of those all algorithms share."""

    action_type: Literal["discrete", "continuous"] = "continuous"
    share_parameters: bool = False
    critic_hidden_sizes: Widths = ()  # hidden layers of the critics; empty: hidden_sizes
    state_per_agent: bool = False  # env.state() is N equal blocks, one an agent, which a shared critic may turn around
    critic_action_scale: Positive = 1.0  # factor on the actions a critic reads, so that it sees small changes of them
    critic_summary: Whole = 0  # a shared critic sees the others through so many numbers that it learns; 0: directly
    pair_weight: Share = 0.0  # share of the critic's loss on differences of two copies that meet the same chance
    actor_objective: Literal["own", "team"] = "own"  # agent i climbs Q_i (the paper), or all climb the sum of the Q_j
    known_consequences: bool = False  # the actors' slope from info["consequences"] in place of the critics'
    noise_std: NotNegative = 1.0  # exploration noise before the sigmoid, times epsilon
    temperature: Positive = 1.0  # of the Gumbel-softmax; lower = closer to one-hot, noisier gradients
    logit_penalty: NotNegative = 1e-3  # weight of the squared logits, against saturation
    learning_starts: Whole = 1_000  # environment steps before the first update
    update_every: Count = 1  # steps of the (parallel) environments between updates
    updates_per_step: Count = 1  # updates then
    policy_delay: Count = 1  # critic updates for one actor update

    def validate(self) -> None:
        """Refuse values that are possible alone but not together."""
        super().validate()
        self.require("batch_size", not self.pair_weight or self.batch_size >= 2, "2 or more, since pair_weight is set")


# --- Mathematics ------------------------------------------------------------------------------------------------------


def gumbel_softmax(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """A one-hot sample with the softmax's gradient (Jang et al. 2017, arXiv 1611.01144). (..., A) -> (..., A)"""
    soft = torch.softmax((logits + noise) / temperature, dim=-1)
    hard = F.one_hot(soft.argmax(dim=-1), logits.shape[-1]).to(soft)
    return hard + soft - soft.detach()  # (MADDPG-11) straight through: forward is hard, backward is soft


def td_target(rewards: Tensor, gamma: float, terminated: Tensor, next_values: Tensor) -> Tensor:
    """What a critic should say. A truncated step is not terminated, so it bootstraps. All (B, N) -> (B, N)."""
    return rewards + gamma * (1.0 - terminated) * next_values  # (MADDPG-4)


def squared_td_error(q: Tensor, y: Tensor, active: Tensor) -> Tensor:
    """Squared error, averaged over the batch and summed over critics: each is its own regression.

    All (N, B) -> scalar.
    """
    errors = (q - y).square() * active
    return (errors.sum(dim=-1) / active.sum(dim=-1).clamp(min=1.0)).sum()  # (MADDPG-5)


def squared_pair_error(q: Tensor, y: Tensor, active: Tensor) -> Tensor:
    """Half the squared error of the *difference* between two copies of the environment that met the same chance events.

    What chance did to both drops out of the difference. What their actions did differently stays: the critic's slope.
    Row b of the first half of the batch and row b of the second are partners. Shapes as for `squared_td_error`.
    """
    (q_1, q_2), (y_1, y_2), (alive_1, alive_2) = (x.chunk(2, dim=-1) for x in (q, y, active))  # (..., B / 2) each
    return 0.5 * squared_td_error(q_1 - q_2, y_1 - y_2, alive_1 * alive_2)  # (MADDPG-13)


def deterministic_policy_loss(q: Tensor, logits: Tensor, active: Tensor, logit_penalty: float) -> Tensor:
    """Climb the critics, and keep the logits where the squashing still has a slope.

    q (N, B), logits (N, B, A), active (N, B) -> scalar, a sum over agents whose terms share no parameters.
    """
    objective = (-q + logit_penalty * logits.square().mean(dim=-1)) * active  # (N, B)
    return (objective.sum(dim=-1) / active.sum(dim=-1).clamp(min=1.0)).sum()  # (MADDPG-8)


def known_values(consequences: Tensor, actions: Tensor) -> Tensor:
    """What actions are worth where it is known what they did; only the slope means something.

    consequences: (N, B, A), slopes of the team's cost, or costs of the discrete actions, which is the same for one-hot
    `actions` (N, B, A); NaN where there was no choice. -> (N, B)
    """
    return -(consequences.nan_to_num() * actions).sum(dim=-1)  # (MADDPG-15)


def around_the_ring(blocks: Tensor) -> Tensor:
    """Row i: the blocks of agents i, i + 1, ..., as a window onto two rounds. (B, N, k) -> (B, N, N * k)"""
    n, k = blocks.shape[1:]
    return torch.cat([blocks, blocks], dim=1).flatten(1).unfold(1, n * k, k)[:, :n]


# --- Agent and team ---------------------------------------------------------------------------------------------------


class MADDPGAgent(BaseAgent):
    """One MADDPG agent: a deterministic actor on the local observation."""

    team: MADDPGTeam

    def compute_loss(self, batch: Batch) -> dict[str, Tensor]:
        """This agent's critic loss and actor loss on a batch of joint transitions.

        With `actor_objective="team"` the actor loss is this agent's term Q_i of the sum that every actor climbs.
        """
        mine = torch.zeros_like(batch.active)
        mine[:, self.index] = batch.active[:, self.index]
        return {
            "critic_loss": self.team.critic_loss(batch, mine),
            "actor_loss": self.team.actor_loss(batch, mine),
        }


class MADDPGTeam(AgentTeam):
    """N actors and N centralized critics, each as one stack, and one replay buffer."""

    agent_class = MADDPGAgent
    config_class = MADDPGConfig
    config: MADDPGConfig

    def __init__(self, state_dim, action_dim, num_agents, config=None, device=None, devices=None):
        super().__init__(state_dim, action_dim, num_agents, config, device, devices)
        c, n = self.config, self.num_agents
        divides = not c.state_per_agent or c.state_size % n == 0
        c.require("state_size", divides, f"a multiple of num_agents ({n}), since state_per_agent is set")
        critic_inputs = self.central_dim + n * action_dim if c.centralized else self.state_dim + action_dim
        critic_inputs += n if c.share_parameters else 0  # the id
        shared_homes = self.devices[:1] if c.share_parameters else self.devices
        self.summarizes = bool(c.critic_summary and c.share_parameters and c.centralized)
        self.own_state_size = c.state_size // n if c.state_per_agent else c.state_size
        if self.summarizes:
            sizes = (critic_inputs, 4 * c.critic_summary, c.critic_summary)
            for name in ("summary", "summary_target"):
                self.networks[name] = make_stack(1, sizes, self.generator, shared_homes)
            critic_inputs = self.state_dim + self.own_state_size + action_dim + n + c.critic_summary
        actor_sizes = (self.input_dim, *c.hidden_sizes, action_dim)
        critic_sizes = (critic_inputs, *(c.critic_hidden_sizes or c.hidden_sizes), 1)
        members = 1 if c.share_parameters else n
        for name in ("actor", "actor_target"):
            self.networks[name] = make_stack(members, actor_sizes, self.generator, self.devices, output_gain=0.1)
        for name in ("critic", "critic_target"):
            self.networks[name] = make_stack(members, critic_sizes, self.generator, shared_homes)
        self.move_targets(1.0)
        critic = [name for name in ("summary", "critic") if name in self.networks]
        self.add_optimizer("actor", ["actor"], c.learning_rate)
        self.add_optimizer("critic", critic, c.learning_rate)
        self.own_action = torch.eye(n, dtype=torch.bool, device=self.device).view(n, n, 1, 1)  # critic i, action i
        # Agent i's place: itself first, then i + 1, i + 2, ... around the ring.
        self.places = torch.tensor([[(i + j) % n for j in range(n)] for i in range(n)], device=self.device)  # (N, N)

    # --- acting -------------------------------------------------------------------------------------------------------

    def act(self, observations: Tensor, training: bool, masks: Tensor | None) -> Tensor:
        """(E, N, O) -> (E, N) integers, or (E, N, A) floats in [0, 1]."""
        logits = ask(self, "actor", observations).transpose(0, 1)  # (E, N, A)
        return self.decide(logits, training, masks)

    def decide(self, logits: Tensor, training: bool, masks: Tensor | None) -> Tensor:
        """Turn the actors' outputs (..., A) into actions, with exploration if `training`."""
        if self.action_type == "continuous":
            if training:  # noise before the sigmoid respects the bounds, and stays small near them
                noise = self.normal(logits.shape)
                logits = logits + self.config.noise_std * self.epsilon * noise  # (MADDPG-2)
            return torch.sigmoid(logits)  # (MADDPG-1)
        if not training:
            return mask_logits(logits, masks).argmax(dim=-1)
        # Uniform with probability epsilon, else a draw from the softmax: both are an argmax under Gumbel noise.
        random = self.uniform(logits.shape[:-1]) < self.epsilon
        logits = mask_logits(torch.where(random.unsqueeze(-1), 0.0, logits), masks)
        return (logits + gumbel_noise(logits.shape, self.generator)).argmax(dim=-1)  # (MADDPG-3)

    # --- learning -----------------------------------------------------------------------------------------------------

    @property
    def episodes_per_seed(self) -> int:
        """See `AgentTeam.episodes_per_seed`."""
        return 2 if self.config.pair_weight else 1

    def make_buffer(self, num_envs: int) -> ReplayBuffer:
        """See `AgentTeam.make_buffer`."""
        if self.config.pair_weight and num_envs < 2:
            raise ValueError("pair_weight compares two copies: give num_envs >= 2, or --set pair_weight=0")
        return ReplayBuffer(self.config.buffer_size, num_envs, self.device)

    def observe(self, transition: Transition) -> dict[str, float]:
        """Store a step, and learn if it is time: with known consequences, when they are told."""
        self.told = transition.consequences is not None
        if self.config.known_consequences and not self.told and (transition.terminated | transition.truncated).any():
            raise ValueError("known_consequences: an episode ended without info['consequences']; hand them over then")
        return super().observe(transition)

    def updates_due(self) -> int:
        """See `AgentTeam.updates_due`."""
        return self.told * self.config.updates_per_step if self.config.known_consequences else super().updates_due()

    def update(self, batch: Batch | None = None) -> dict[str, float]:
        """One step of all critics, then of all actors, then of all targets; with known consequences, no critics."""
        c, report = self.config, {}
        if batch is None:
            batch = self.experience().sample(c.batch_size, self.generator, pairs=c.pair_weight > 0)
        if not c.known_consequences:
            loss = self.critic_loss(batch)
            report = {"critic_loss": float(loss.detach()), "critic_gradient": self.descend("critic", loss)}
        self.updates += 1
        if self.updates % c.policy_delay == 0:
            loss = self.actor_loss(batch)
            report |= {"actor_loss": float(loss.detach()), "actor_gradient": self.descend("actor", loss)}
            self.move_targets(c.tau)  # (MADDPG-6) only after all agents have moved
        return report

    def critic_loss(self, batch: Batch, active: Tensor | None = None) -> Tensor:
        """Loss of the critics of all agents marked in `active` (B, N); all living ones by default."""
        active = batch.active if active is None else active
        with torch.no_grad():
            # Every next action comes from that agent's own target policy.
            next_actions = self.target_actions(batch.next_observations, batch.next_action_masks)  # (N, B, A)
            next_q = self.q_values("critic_target", batch.next_observations, batch.next_states, next_actions[None])
            rewards = self.config.reward_scale * batch.rewards
            y = td_target(rewards, self.config.gamma, batch.terminated, next_q.T)
        q = self.q_values("critic", batch.observations, batch.states, self.stored_actions(batch.actions)[None])
        loss, w = squared_td_error(q, y.T, active.T), self.config.pair_weight
        return (1.0 - w) * loss + w * squared_pair_error(q, y.T, active.T) if batch.pairs else loss

    def actor_loss(self, batch: Batch, active: Tensor | None = None) -> Tensor:
        """Loss of the actors of all agents marked in `active` (B, N). The critics are left alone."""
        active = batch.active if active is None else active
        logits = ask(self, "actor", batch.observations)  # (N, B, A)
        pi = self.differentiable_actions(logits, batch.action_masks)  # (N, B, A), where (MADDPG-7) takes the slope
        if self.config.known_consequences:
            q = known_values(self.config.reward_scale * batch.consequences.transpose(0, 1), pi)
        elif self.config.actor_objective == "own":
            # Agent i's critic sees i's new action and the others' stored ones, so loss i moves only agent i.
            stored = self.stored_actions(batch.actions)  # (N, B, A)
            joint = torch.where(self.own_action, pi[None], stored[None])  # (N, N, B, A)  (MADDPG-9)
            q = self.q_values("critic", batch.observations, batch.states, joint, frozen=True)  # (N, B)
        else:
            # All actions are new, the sum of all critics is climbed: one pass gives every agent its slope. (MADDPG-10)
            # Who has finished has only the stored one, so that the others' critics cannot move it.
            pi = torch.where(batch.active.T.unsqueeze(-1) > 0, pi, self.stored_actions(batch.actions))
            q = self.q_values("critic", batch.observations, batch.states, pi[None], frozen=True)
        if batch.action_masks is not None:  # illegal actions need no logits in any range
            logits = logits.masked_fill(~batch.action_masks.transpose(0, 1), 0.0)
        return deterministic_policy_loss(q, logits, active.T, self.config.logit_penalty)

    def q_values(
        self, name: str, observations: Tensor, states: Tensor | None, actions: Tensor, frozen: bool = False
    ) -> Tensor:
        """Every agent's critics: Q_i(x, a_1..a_n), or Q_i(o_i, a_i) when not centralized.

        Args:
            name: "critic" or "critic_target".
            observations: (B, N, O).
            states: (B, state_size) or None.
            actions: (1, N, B, A), one joint action shown to all critics; or (N, N, B, A), one for each agent's critic.
            frozen: let no gradient reach the critics.

        Returns:
            (N, B).
        """
        actions = self.config.critic_action_scale * actions  # (MADDPG-12)
        if not self.config.centralized:
            own = actions[0] if len(actions) == 1 else actions[range(len(actions)), range(len(actions))]  # (N, B, A)
            inputs = torch.cat([self.agent_inputs(observations), own], dim=-1)  # (N, B, O + A)
        elif self.config.share_parameters:
            inputs = self.seen_from_each_place(observations, states, actions)  # (N, B, S + N * A + N)
            inputs = self.with_summary(name, inputs, frozen) if self.summarizes else inputs
        else:
            joint = actions.transpose(1, 2).flatten(2)  # (1 or N, B, N * A)
            x = self.central_state(observations, states).unsqueeze(0).expand(len(joint), -1, -1)
            inputs = torch.cat([x, joint], dim=-1)  # (1 or N, B, S + N * A)
        return self.networks[name](inputs, frozen).squeeze(-1)

    def seen_from_each_place(self, observations: Tensor, states: Tensor | None, actions: Tensor) -> Tensor:
        """The joint situation as a shared critic reads it for agent i: i itself first, then around the ring.

        Seen so, what was learnt about one agent and its neighbours holds for the others too: n times the data. The id
        behind it tells what still differs. Arguments as for `q_values`; -> (N, B, S + N * A + N).
        """
        n, batch = self.num_agents, observations.shape[0]
        parts = [around_the_ring(observations)]  # (B, N, O) -> (B, N, N * O)
        if self.config.state_size and self.config.state_per_agent:
            parts.append(around_the_ring(states.view(batch, n, -1)))  # (B, N, state_size)
        elif self.config.state_size:
            parts.append(states.unsqueeze(1).expand(-1, n, -1))
        actions = actions.expand(n, -1, -1, -1)  # (N critics, N agents, B, A)
        turned = actions[torch.arange(n).unsqueeze(1), self.places].permute(2, 0, 1, 3)  # (B, N, N, A)
        parts += [turned.flatten(2), self.agent_ids.expand(batch, n, n)]
        return torch.cat([part.transpose(0, 1) for part in parts], dim=-1)

    def with_summary(self, critic: str, inputs: Tensor, frozen: bool) -> Tensor:
        """What a shared critic sees from an agent's place, with all that is not the agent's own made narrow.

        Own observation, block of the state, action and id stay. Of the joint situation a learnt summary is left, of
        `critic_summary` numbers: much of it matters little to one agent's cost, and a critic that reads it all finds
        patterns in its noise. (N, B, S + N * A + N) -> (N, B, O + own S + A + N + summary).
        """
        n, (o, s, a) = self.num_agents, (self.state_dim, self.config.state_size, self.action_dim)
        everything = inputs.reshape(1, -1, inputs.shape[-1])  # (1, N * B, ...)
        summary = self.networks[critic.replace("critic", "summary")](everything, frozen).view(*inputs.shape[:2], -1)
        observations, states, actions, ids = inputs.split([n * o, s, n * a, n], dim=-1)
        # Agent i comes first: its place.
        own = [observations[..., :o], states[..., : self.own_state_size], actions[..., :a], ids]
        return torch.cat([*own, summary], dim=-1)  # (MADDPG-14)

    def target_actions(self, observations: Tensor, masks: Tensor | None) -> Tensor:
        """The target policies' actions, as the critics read them: (B, N, O) -> (N, B, A)."""
        logits = ask(self, "actor_target", observations)
        if self.action_type == "continuous":
            return torch.sigmoid(logits)
        # Greedy, like the policy that is evaluated, and one-hot, like the actions in the replay buffer.
        masks = None if masks is None else masks.transpose(0, 1)
        return F.one_hot(mask_logits(logits, masks).argmax(dim=-1), self.action_dim).float()

    def differentiable_actions(self, logits: Tensor, masks: Tensor | None) -> Tensor:
        """The current policies' actions with a gradient to the logits: (N, B, A) -> (N, B, A)."""
        if self.action_type == "continuous":
            return torch.sigmoid(logits)
        masks = None if masks is None else masks.transpose(0, 1)
        return gumbel_softmax(
            mask_logits(logits, masks), gumbel_noise(logits.shape, self.generator), self.config.temperature
        )

    def stored_actions(self, actions: Tensor) -> Tensor:
        """Replayed actions as the critics read them: (B, N) integers or (B, N, A) floats -> (N, B, A)."""
        if self.action_type == "discrete":
            actions = F.one_hot(actions.long(), self.action_dim).float()
        return actions.transpose(0, 1)


MADDPGAgent.team_class = MADDPGTeam


def create_maddpg_agents(state_dim, action_dim, num_agents, config=None, device=None, devices=None) -> MADDPGTeam:
    """Create a team of MADDPG agents: `MADDPGTeam(...)`, whose `AgentTeam` says what the arguments are."""
    return MADDPGTeam(state_dim, action_dim, num_agents, config, device, devices)
