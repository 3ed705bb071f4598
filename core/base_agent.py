"""One agent, and the agents that learn together.

A `BaseAgent` is what runs in production: it turns its own local observation into an action. An `AgentTeam` is what
learns: it owns the networks of all agents (as stacks, see `networks.py`), is told what happened, and decides when to
learn. `team[i]` is agent i: a light view that reads slice i of the stacks.

Shapes: E environments, N agents, O observation, A action, S state, B batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from core.networks import StackedMLP
from core.team import checks
from core.team.adam import Adam
from core.team.config import TeamConfig
from core.team.descent import Descent
from core.team.members import joined, only_member
from core.team.memory import StackedGRU, remember_alone
from core.team.spread import resolve_device
from core.team.state import SavedTeam
from core.utils import mean_of


@dataclass(frozen=True)
class Transition:
    """One step of E environments, as the training loop tells it to a team.

    `terminated` means that the task itself ended: nothing follows, so nothing is bootstrapped. `truncated` means
    that the clock cut the episode: the task goes on from `next_observations`, so targets bootstrap from there.
    """

    observations: np.ndarray  # (E, N, O)
    actions: np.ndarray  # (E, N) integers, or (E, N, A) floats in [0, 1]
    rewards: np.ndarray  # (E, N)
    next_observations: np.ndarray  # (E, N, O), the true last observation where the episode ended
    terminated: np.ndarray  # (E, N) bool
    truncated: np.ndarray  # (E, N) bool
    active: np.ndarray  # (E, N) bool, False for an agent that had already finished before this step
    states: np.ndarray | None = None  # (E, S) extra state for the centralized critic
    next_states: np.ndarray | None = None  # (E, S)
    action_masks: np.ndarray | None = None  # (E, N, A) bool, True where an action is legal
    next_action_masks: np.ndarray | None = None  # (E, N, A)
    consequences: np.ndarray | None = None  # (E, T, N, A) when episodes end: what each action did


class BaseAgent:
    """One agent: it acts from its local observation, and learns as a member of a team.

    Extend it for an algorithm of your own (QUICKSTART.md shows one in full). An agent built alone, with its own
    `device=`, brings a team of its own; `as_team` joins such agents.

    Args:
        state_dim: size O of the local observation.
        action_dim: number of discrete actions, or of continuous action dimensions, A.
        num_agents: size N of the team that the critic will see.
        config: dictionary merged into the algorithm's config.
        device: where this agent's networks live.
        index: this agent's place in the team, 0 <= index < num_agents.
    """

    team_class: ClassVar[type[AgentTeam]]

    def __init__(
        self,
        state_dim: int = 0,
        action_dim: int = 0,
        num_agents: int = 1,
        config: dict[str, Any] | None = None,
        device: str | torch.device | None = None,
        index: int = 0,
        team: AgentTeam | None = None,
    ):
        self.team = team if team is not None else self.team_class(state_dim, action_dim, num_agents, config, device)
        if not 0 <= index < self.team.num_agents:
            raise ValueError(f"index: expected 0 to {self.team.num_agents - 1}, found {index}")
        self.index = index
        self.memory: Tensor | None = None  # (1, H), of a recurrent agent that acts alone
        if team is None:
            self.team._agents[index] = self

    def begin_episode(self) -> None:
        """Tell an agent that acts alone of a reset: a recurrent one forgets the episode before."""
        self.memory = None

    @property
    def device(self) -> torch.device:
        """Where this agent's networks live."""
        return self.team.devices[self.index]

    def select_action(
        self, observation: np.ndarray, training: bool = False, action_mask: np.ndarray | None = None
    ) -> Any:
        """Choose one action from the LOCAL observation alone. Tell a recurrent agent of resets: `begin_episode()`.

        Args:
            observation: (O,).
            training: explore, instead of acting greedily.
            action_mask: (A,) bool, True where an action is legal.

        Returns:
            An `int` (discrete), or floats of shape (A,) in [0, 1] (continuous).

        Raises:
            ValueError: an observation or a mask of another shape, numbers that are not finite, no legal action.
        """
        team = self.team
        with torch.no_grad():
            outputs = team.networks[team.policy].member(self.index, team.own_inputs(self.index, observation))  # (1, ·)
            mask = None
            if action_mask is not None:
                mask = team.tensor(checks.as_masks(action_mask, (team.action_dim,))).unsqueeze(0)
            action = team.decide(outputs, training, mask)[0].cpu().numpy()
        return action if team.action_type == "continuous" else int(action)

    def compute_loss(self, batch: Any) -> dict[str, Tensor]:
        """This agent's losses on a batch, as differentiable scalars. Uses GLOBAL information."""
        raise NotImplementedError

    def update(self, batch: Any) -> dict[str, float]:
        """One optimizer step on a batch that moves this agent and no other (shared parameters move for all).

        What counts updates, such as `policy_delay`, counts this agent's own.
        """
        with only_member(self.team, self.index):
            return self.team.update(batch)


class AgentTeam(SavedTeam, Descent, Sequence):
    """The agents that learn together: a sequence of `BaseAgent`, and the owner of their networks.

    What no loss needs is in `core/team`: the optimizer step, `descend`, in `descent.py`; saving, loading and randomness
    in `state.py`.

    Subclasses fill `networks` and `optimizers`, and implement `act` and `decide`, `make_buffer` and `update`.

    Args:
        state_dim, action_dim, num_agents: as for `BaseAgent`.
        config: dictionary merged into `config_class`.
        device: one device for the team.
        devices: or one device for each agent; the team then keeps one stack a device.
    """

    agent_class: ClassVar[type[BaseAgent]] = BaseAgent
    config_class: ClassVar[type[TeamConfig]] = TeamConfig
    experience_key: ClassVar[str] = "buffer_size"  # the hyper-parameter that decides how much is kept
    policy: ClassVar[str] = "actor"  # the network that acts, and all that an executing agent needs

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        num_agents: int,
        config: dict[str, Any] | None = None,
        device: str | torch.device | None = None,
        devices: Sequence[str | torch.device] | None = None,
    ):
        self.config = self.config_class.from_dict(config)
        checks.refuse_sizes(self.config, devices, state_dim=state_dim, action_dim=action_dim, num_agents=num_agents)
        self.state_dim, self.action_dim, self.num_agents = int(state_dim), int(action_dim), int(num_agents)
        self.action_type = self.config.action_type
        self.devices = [resolve_device(d) for d in (devices if devices is not None else [device] * num_agents)]
        self.device = self.devices[0]
        self.generator = torch.Generator(self.device)
        self.seed(int(torch.randint(2**31, ())) if self.config.seed is None else self.config.seed)
        # A shared network tells its agents apart by a one-hot id behind the observation.
        self.agent_ids = torch.eye(num_agents, dtype=torch.float32, device=self.device)
        self.input_dim = self.state_dim + (self.num_agents if self.config.share_parameters else 0)
        self.networks: dict[str, Any] = {}
        self.optimizers: dict[str, Adam] = {}
        self.trained: dict[str, list[StackedMLP]] = {}  # the stacks that each optimizer moves
        self.gru: StackedGRU | None = None  # recurrent agents only
        self.memory: Tensor | None = None  # (N, E, H), what they remember while they act together
        self.buffer: Any = None
        self.acting: dict[str, Tensor] = {}  # what the agents alone knew as they explored; stored with the step
        self.environment_steps = 0  # joint steps seen, summed over parallel environments
        self.steps = 0  # the same, parallel environments counted as one
        self.updates = 0
        self.progress = 0.0  # share of the training that is done, for what anneals
        self.missed = [Counter() for _ in range(num_agents)]  # what the clocks of updates counted without agent i
        # Of processes that learn together: how many, and what replaces tensors by their mean over them.
        self.processes = 1
        self.average_hook: Callable[[list[Tensor]], None] | None = None
        for key in (self.experience_key, "batch_size"):  # two observations a row, and more
            checks.refuse_too_large(key, 2 * getattr(self.config, key) * num_agents * state_dim, self.device)
        self._agents = [self.agent_class(index=i, team=self) for i in range(num_agents)]

    # --- a sequence of agents -------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.num_agents

    def __getitem__(self, index):
        return self._agents[index]

    # --- acting: local observations only --------------------------------------------------------------------------

    def select_actions(
        self, observations: np.ndarray, training: bool = True, action_masks: np.ndarray | None = None
    ) -> np.ndarray:
        """Actions of all agents, agent i's from `observations[..., i, :]` alone.

        Args:
            observations: (N, O) or (E, N, O).
            training: explore, instead of acting greedily.
            action_masks: (N, A) or (E, N, A) bool, True where an action is legal.

        Returns:
            (N,) or (E, N) int64 actions if discrete; (N, A) or (E, N, A) float32 in [0, 1] if continuous.

        Raises:
            ValueError: observations or masks of another shape, numbers that are not finite, an agent without a legal
                action.
        """
        observations = checks.as_numbers(observations)
        checks.refuse_observations(observations, self.num_agents, self.state_dim)
        if action_masks is not None:
            action_masks = checks.as_masks(action_masks, (*observations.shape[:-1], self.action_dim))
        return self.actions_for(observations, training, action_masks)

    def actions_for(self, observations: np.ndarray, training: bool, action_masks: np.ndarray | None) -> np.ndarray:
        """As `select_actions`, of float32 observations and boolean masks that were looked at."""
        stacked = observations.reshape(-1, self.num_agents, self.state_dim)  # (E, N, O)
        masks = None
        if action_masks is not None:
            masks = self.tensor(action_masks.reshape(-1, self.num_agents, self.action_dim))
        with torch.no_grad():
            actions = self.act(self.tensor(stacked), training, masks).cpu().numpy()
        return actions.reshape(observations.shape[:-2] + actions.shape[1:])

    def act(self, observations: Tensor, training: bool, masks: Tensor | None) -> Tensor:
        """(E, N, O) observations -> (E, N) integers, or (E, N, A) floats in [0, 1]."""
        raise NotImplementedError

    def decide(self, outputs: Tensor, training: bool, masks: Tensor | None) -> Tensor:
        """The algorithm's own rule from the policy network's outputs (..., out) to actions (...) or (..., A)."""
        raise NotImplementedError

    def agent_inputs(self, observations: Tensor, memory: Tensor | None = None) -> Tensor:
        """What each agent's network sees: (B, N, O) -> (N, B, O), with the id behind it if parameters are shared, and
        with what the agent remembers, (N, B, H), if it is recurrent."""
        inputs = observations.transpose(0, 1)  # (N, B, O)
        if self.config.share_parameters:
            ids = self.agent_ids.unsqueeze(1).expand(-1, inputs.shape[1], -1)  # (N, B, N)
            inputs = torch.cat([inputs, ids], dim=-1)  # (N, B, O + N)
        return inputs if memory is None else torch.cat([inputs, memory], dim=-1)

    def own_inputs(self, index: int, observation: np.ndarray) -> Tensor:
        """What agent `index` alone feeds its network: (O,) -> (1, O), or (1, O + N) with its id.

        A recurrent agent takes one step of its memory and sees it too, (1, ... + H).
        """
        observation = checks.as_numbers(observation).reshape(-1)
        checks.refuse_observation(observation, self.state_dim, index)
        inputs = self.tensor(observation).unsqueeze(0)
        inputs = torch.cat([inputs, self.agent_ids[index : index + 1]], -1) if self.config.share_parameters else inputs
        if self.gru is None:
            return inputs
        return torch.cat([inputs, remember_alone(self[index], inputs)], dim=-1)

    def begin_episode(self, env: Any = None) -> None:
        """Told after every reset, as all policies are: recurrent agents forget what was before. `env` is not used."""
        self.memory = None

    # --- learning: global information -----------------------------------------------------------------------------

    @property
    def episodes_per_seed(self) -> int:
        """How many neighbouring environments the training should give the same seed: 1, each its own."""
        return 1

    def begin_rollouts(self, num_envs: int) -> None:
        """Told once before the first step: E environments will run side by side. Prepares the experience buffer."""
        if self.buffer is None or self.buffer.num_envs != num_envs:
            self.buffer = self.make_buffer(num_envs)

    def make_buffer(self, num_envs: int) -> Any:
        """The experience buffer of E environments; None: this algorithm keeps none."""
        return None

    def experience(self) -> Any:
        """The experience buffer. Raises RuntimeError where nothing was observed yet."""
        if self.buffer is None:
            raise RuntimeError("there is nothing to learn from yet: call observe(transition) first, or give a batch")
        return self.buffer

    def observe(self, transition: Transition) -> dict[str, float]:
        """Store what happened, and learn if it is time. Returns the losses; empty when nothing was learnt."""
        if self.buffer is None:
            self.begin_rollouts(len(transition.rewards))
        self.buffer.add(transition, **self.acting)
        self.count_steps(transition)
        return mean_of([self.update() for _ in range(self.updates_due())])

    def updates_due(self) -> int:
        """How many updates follow this step; of off-policy algorithms, by their keys."""
        c = self.config
        early = self.environment_steps < c.learning_starts
        return 0 if early or self.steps % c.update_every else c.updates_per_step

    def update(self, batch: Any = None) -> dict[str, float]:
        """One learning step on `batch`, or on the team's own experience. Returns losses and gradient norms."""
        raise NotImplementedError

    @property
    def central_dim(self) -> int:
        """Size S of the centralized input: all observations, then `env.state()` if it is used."""
        return self.num_agents * self.state_dim + self.config.state_size

    def central_state(self, observations: Tensor, states: Tensor | None) -> Tensor:
        """What only training sees: (B, N, O) and (B, state_size) -> (B, S)."""
        flat = observations.flatten(1)
        return torch.cat([flat, states], dim=-1) if self.config.state_size else flat

    @property
    def epsilon(self) -> float:
        """Exploration now: it decays with environment steps, not with updates, so that more updates explore no less."""
        decays = self.environment_steps / self.config.epsilon_decay_steps
        floor = min(self.config.epsilon_min, self.config.epsilon)  # who starts lower stays there
        return max(floor, self.config.epsilon * self.config.epsilon_decay**decays)

    def count_steps(self, transition: Transition) -> None:
        """Move the clocks of steps: by those of one process times the processes that learn together."""
        self.steps += 1
        self.environment_steps += self.processes * int(transition.active.any(axis=1).sum())

    def tensor(self, array: np.ndarray) -> Tensor:
        """The array as a tensor on the team's device."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def as_team(agents: AgentTeam | Sequence[BaseAgent]) -> AgentTeam:
    """Return the team that these agents form.

    A team is returned as it is. A list of agents that were built one by one, each with its own `device=`, becomes a
    team with one stack a device; agent i keeps the weights it was built with.

    Raises:
        ValueError: the agents are of different algorithms, sizes or configs, or are part of a team or in another order.
    """
    return agents if isinstance(agents, AgentTeam) else joined(agents)
