"""One agent, and the agents that learn together.

A `BaseAgent` is what runs in production: it turns its own local observation into an action. An `AgentTeam` is what
learns: it owns the networks of all agents (as stacks, see `networks.py`), is told what happened, and decides when to
learn. `team[i]` is agent i: a light view that reads slice i of the stacks.

Shapes: E environments, N agents, O observation, A action, S state, B batch.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import itertools
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from core.networks import SpreadMLP, StackedGRU, StackedMLP
from core.team.files import read_tensors, refuse_non_finite, write_tensors
from core.utils import resolve_device

Stack = StackedMLP | SpreadMLP


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


@dataclass
class TeamConfig:
    """Hyper-parameters that all three algorithms accept, used or not. Each algorithm's config adds its own."""

    num_agents: int = 0  # checked against the team's size when given; more agents = harder coordination
    action_type: str = "discrete"  # "discrete": one integer an agent; "continuous": floats in [0, 1]
    share_parameters: bool = True  # one network for all agents; the observation then carries the agent's id
    centralized: bool = True  # False: the critic (or Q) sees the own observation alone: IDDPG, IPPO, IQL
    hidden_sizes: tuple[int, ...] = (64, 64)  # widths of the hidden layers of actors and critics
    learning_rate: float = 1e-3  # Adam's step size; smaller = more stable but slower
    anneal_learning_rate: bool = False  # fall linearly to 0 over the training
    batch_size: int = 64  # joint transitions a gradient step; larger = smoother gradients
    gamma: float = 0.99  # discount: importance of future rewards, horizon about 1 / (1 - gamma)
    tau: float = 0.005  # share of the online network that enters the target network at each update
    epsilon: float = 1.0  # initial exploration: share of random actions, or factor on the noise
    epsilon_decay: float = 0.995  # exploration decays by this factor every epsilon_decay_steps environment steps
    epsilon_min: float = 0.05  # and never below this
    epsilon_decay_steps: int = 100  # environment steps for one factor of epsilon_decay
    buffer_size: int = 100_000  # joint transitions kept in the replay buffer
    max_grad_norm: float = 10.0  # gradients longer than this are scaled down to it
    reward_scale: float = 1.0  # fixed factor on every reward the learner sees
    state_size: int = 0  # size of env.state(), which joins the critic's input; 0: all observations alone
    seed: int | None = None  # initial weights and exploration; None: drawn from torch's global generator

    @classmethod
    def from_dict(cls, given: dict[str, Any] | None):
        """Merge a plain dictionary into the defaults.

        Raises:
            ValueError: an unknown key (the closest known one is named), a wrong type, or an impossible value.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        merged = {}
        for key, value in (given or {}).items():
            if key not in known:
                close = difflib.get_close_matches(str(key), known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else "known keys: " + ", ".join(sorted(known))
                raise ValueError(f"config: {cls.__name__} has no key {key!r} (value {value!r}); {hint}")
            merged[key] = _typed(key, value, known[key].type)
        config = cls(**merged)
        config.validate()
        return config

    def validate(self) -> None:
        """Refuse impossible values. Subclasses add their own checks."""
        self.require("action_type", self.action_type in ("discrete", "continuous"), "'discrete' or 'continuous'")
        self.require("hidden_sizes", all(width >= 1 for width in self.hidden_sizes), "positive widths")
        for key in ("learning_rate", "max_grad_norm", "reward_scale"):
            self.require(key, getattr(self, key) > 0, "a number above 0")
        for key in ("batch_size", "buffer_size", "epsilon_decay_steps"):
            self.require(key, getattr(self, key) >= 1, "an integer of at least 1")
        for key in ("num_agents", "state_size"):
            self.require(key, getattr(self, key) >= 0, "an integer of at least 0")
        for key in ("gamma", "tau", "epsilon", "epsilon_min", "epsilon_decay"):
            self.require(key, 0.0 <= getattr(self, key) <= 1.0, "a number in [0, 1]")
        self.require("buffer_size", self.buffer_size >= self.batch_size, f"at least batch_size ({self.batch_size})")

    def require(self, key: str, holds: bool, expected: str) -> None:
        """Raise the ValueError of a key whose value is impossible."""
        if not holds:
            raise ValueError(f"config[{key!r}]: expected {expected}, found {getattr(self, key)!r}; change or remove it")


def _typed(key: str, value: Any, annotation: str) -> Any:
    """Return `value` as its field's type; a JSON list becomes a tuple, an integer a float."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)
    accepts = {
        "bool": isinstance(value, bool),
        "int": number and float(value).is_integer(),
        "float": number,
        "str": isinstance(value, str),
        "int | None": value is None or (number and float(value).is_integer()),
        "float | None": value is None or number,
        "tuple[int, ...]": isinstance(value, (list, tuple)) and all(type(width) is int for width in value),
    }
    if not accepts[annotation]:
        raise ValueError(f"config[{key!r}]: expected {annotation}, found {value!r} of type {type(value).__name__}")
    convert = {"int": int, "float": float, "tuple[int, ...]": tuple}.get(annotation.removesuffix(" | None"))
    return value if value is None or convert is None else convert(value)


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
        """
        raise NotImplementedError

    def compute_loss(self, batch: Any) -> dict[str, Tensor]:
        """This agent's losses on a batch, as differentiable scalars. Uses GLOBAL information."""
        raise NotImplementedError

    def update(self, batch: Any) -> dict[str, float]:
        """One optimizer step on a batch that moves this agent and no other (shared parameters move for all).

        What counts updates, such as `policy_delay`, counts this agent's own.
        """
        with self.team.only_member(self.index):
            return self.team.update(batch)


class AgentTeam(Sequence):
    """The agents that learn together: a sequence of `BaseAgent`, and the owner of their networks.

    Subclasses fill `networks` and `optimizers`, and implement `act`, `observe` and `update`.

    Args:
        state_dim, action_dim, num_agents: as for `BaseAgent`.
        config: dictionary merged into `config_class`.
        device: one device for the team.
        devices: or one device for each agent; the team then keeps one stack a device.
    """

    agent_class: ClassVar[type[BaseAgent]] = BaseAgent
    config_class: ClassVar[type[TeamConfig]] = TeamConfig

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        num_agents: int,
        config: dict[str, Any] | None = None,
        device: str | torch.device | None = None,
        devices: Sequence[str | torch.device] | None = None,
    ):
        for name, value in (("state_dim", state_dim), ("action_dim", action_dim), ("num_agents", num_agents)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name}: expected an integer of at least 1, found {value!r}")
        self.config = self.config_class.from_dict(config)
        if self.config.num_agents not in (0, num_agents):
            raise ValueError(f"config['num_agents'] is {self.config.num_agents}, but the team has {num_agents} agents")
        if devices is not None and len(devices) != num_agents:
            raise ValueError(f"devices: expected one for each of {num_agents} agents, found {len(devices)}")
        self.state_dim, self.action_dim, self.num_agents = int(state_dim), int(action_dim), int(num_agents)
        self.action_type = self.config.action_type
        self.devices = [resolve_device(d) for d in (devices if devices is not None else [device] * num_agents)]
        self.device = self.devices[0]
        self.generator = torch.Generator(self.device)
        self.seed(int(torch.randint(2**31, ())) if self.config.seed is None else self.config.seed)
        # A shared network tells its agents apart by a one-hot id behind the observation.
        self.agent_ids = torch.eye(num_agents, device=self.device)
        self.input_dim = self.state_dim + (self.num_agents if self.config.share_parameters else 0)
        self.networks: dict[str, Any] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.gru: StackedGRU | None = None  # recurrent agents only
        self.memory: Tensor | None = None  # (N, E, H), what they remember while they act together
        self.trained: dict[str, list[StackedMLP]] = {}  # the stacks that each optimizer moves
        self.buffer: Any = None
        self.environment_steps = 0  # joint steps seen, summed over parallel environments
        self.updates = 0
        self.progress = 0.0  # share of the training that is done, for what anneals
        self.missed = [Counter() for _ in range(num_agents)]  # what the clocks of updates counted without agent i
        # Of processes that learn together: how many, and what replaces tensors by their mean over them.
        self.processes = 1
        self.average_hook: Callable[[list[Tensor]], None] | None = None
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
            ValueError: the observations have another shape.
        """
        observations = np.asarray(observations, dtype=np.float32)
        if observations.ndim not in (2, 3) or observations.shape[-2:] != (self.num_agents, self.state_dim):
            raise ValueError(
                f"observations: expected (..., {self.num_agents}, {self.state_dim}), found {observations.shape}; "
                "pass what env.reset() or env.step() returned"
            )
        stacked = observations.reshape(-1, self.num_agents, self.state_dim)  # (E, N, O)
        masks = None
        if action_masks is not None:
            masks = self.tensor(np.asarray(action_masks, dtype=bool).reshape(-1, self.num_agents, self.action_dim))
        with torch.no_grad():
            actions = self.act(self.tensor(stacked), training, masks).cpu().numpy()
        return actions.reshape(observations.shape[:-2] + actions.shape[1:])

    def act(self, observations: Tensor, training: bool, masks: Tensor | None) -> Tensor:
        """(E, N, O) observations -> (E, N) or (E, N, A) actions. The algorithm's own rule."""
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
        inputs = self.tensor(np.asarray(observation, dtype=np.float32)).reshape(1, -1)
        if inputs.shape[1] != self.state_dim:
            raise ValueError(f"observation: expected ({self.state_dim},), found {np.shape(observation)}")
        inputs = torch.cat([inputs, self.agent_ids[index : index + 1]], -1) if self.config.share_parameters else inputs
        if self.gru is None:
            return inputs
        agent = self[index]
        before = inputs.new_zeros(1, self.gru.width) if agent.memory is None else agent.memory
        agent.memory = self.gru.member(index, inputs, before)
        return torch.cat([inputs, agent.memory], dim=-1)

    # --- memory: recurrent agents only ----------------------------------------------------------------------------

    def make_memory(self, suffix: str = "") -> StackedGRU:
        """A memory of H = `hidden_sizes[-1]` numbers an agent, which its policy sees beside its inputs."""
        if not self.config.hidden_sizes:
            raise ValueError("config['recurrent']: the memory is as wide as hidden_sizes[-1]; give at least one")
        width = self.config.hidden_sizes[-1]
        members = 1 if self.config.share_parameters else self.num_agents
        gru = StackedGRU(members, self.input_dim, width, self.generator, self.devices)
        self.networks |= {f"gru_reads{suffix}": gru.reads, f"gru_recalls{suffix}": gru.recalls}
        return gru

    def begin_episode(self, env: Any = None) -> None:
        """Told after every reset, as all policies are: recurrent agents forget what was before. `env` is not used."""
        self.memory = None

    def remember(self, observations: Tensor) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Acting: take one step of the memory. (E, N, O) -> (N, E, H), and {"memories": (E, N, H)}, those before."""
        if self.gru is None:
            return None, {}
        inputs = self.agent_inputs(observations)
        before = inputs.new_zeros(*inputs.shape[:2], self.gru.width) if self.memory is None else self.memory
        if before.shape[:2] != inputs.shape[:2]:
            found = f"{before.shape[1]} environments, then {inputs.shape[1]}"
            raise ValueError(f"recurrent agents acted in {found}; call begin_episode() after every reset")
        self.memory = self.gru(inputs.unsqueeze(1), before).squeeze(1)
        return self.memory, {"memories": before.transpose(0, 1)}

    def recall(self, batch: Any, gru: StackedGRU | None) -> Tensor | None:
        """Learning: the memory (N, T * B, H) after each of a batch's T steps, from the stored one before the first.

        An episode begins where the stored memory is all 0. Gradients flow back through time as far as that, or to the
        first step.
        """
        if gru is None:
            return None
        inputs = self.agent_inputs(batch.observations)
        stored = batch.memories.transpose(0, 1).unflatten(1, (batch.steps, -1))  # (N, T, B, H)
        kept = stored.any(dim=-1, keepdim=True)
        return gru(inputs.unflatten(1, (batch.steps, -1)), stored[:, 0], kept).flatten(1, 2)

    # --- learning: global information -----------------------------------------------------------------------------

    @property
    def episodes_per_seed(self) -> int:
        """How many neighbouring environments the training should give the same seed: 1, each its own."""
        return 1

    def begin_rollouts(self, num_envs: int) -> None:
        """Told once before the first step: E environments will run side by side. Prepares the experience buffer."""

    def experience(self) -> Any:
        """The experience buffer. Raises RuntimeError where nothing was observed yet."""
        if self.buffer is None:
            raise RuntimeError("there is nothing to learn from yet: call observe(transition) first, or give a batch")
        return self.buffer

    def observe(self, transition: Transition) -> dict[str, float]:
        """Store what happened, and learn if it is time. Returns the losses; empty when nothing was learnt."""
        raise NotImplementedError

    def update(self, batch: Any = None) -> dict[str, float]:
        """One learning step on `batch`, or on the team's own experience. Returns losses and gradient norms."""
        raise NotImplementedError

    def set_progress(self, fraction: float) -> None:
        """Told how much of the training is done (0 to 1): the clock of everything that anneals."""
        self.progress = fraction
        if self.config.anneal_learning_rate:
            for optimizer in self.optimizers.values():
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * max(0.0, 1.0 - fraction)

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
        """Move the clock of environment steps: by those of one process times the processes that learn together."""
        self.environment_steps += self.processes * int(transition.active.any(axis=1).sum())

    def add_optimizer(self, name: str, networks: Sequence[Stack], learning_rate: float, eps: float = 1e-8) -> None:
        """Create the Adam optimizer `name` over these networks."""
        self.trained[name] = [stack for network in networks for stack in network.stacks()]
        parameters = [stack.flat for stack in self.trained[name]]
        optimizer = torch.optim.Adam(parameters, lr=learning_rate, eps=eps, fused=True)
        for group in optimizer.param_groups:
            group["initial_lr"] = learning_rate
        self.optimizers[name] = optimizer

    def descend(self, name: str, loss: Tensor, jointly: bool = False) -> float:
        """Minimise `loss` by one step of optimizer `name`; returns the largest gradient norm before clipping.

        Each member of each stack is clipped by the norm of its own gradient, a memory or a summary apart from the
        network that reads it; `jointly` clips by one norm over all parameters of the optimizer.

        Raises:
            FloatingPointError: the gradient is not finite. Nothing has been changed then.
        """
        optimizer = self.optimizers[name]
        for stack in self.trained[name]:
            stack.flat.grad.zero_()
        loss.backward()
        if self.average_hook is not None:
            self.average_hook([stack.flat.grad for stack in self.trained[name]])
        norms = [stack.gradient_norms() for stack in self.trained[name]]  # (members,) each
        if jointly:
            total = torch.stack([norm.square().sum() for norm in norms]).sum().sqrt()
            norms = [total.expand_as(norm) for norm in norms]
        largest = float(torch.cat(norms).max())
        if not np.isfinite(largest):
            raise FloatingPointError(
                f"{type(self).__name__}: the gradient of {name!r} is {largest} at update {self.updates} (loss "
                f"{float(loss.detach())}); lower learning_rate or reward_scale, or look for huge observations, rewards"
            )
        if largest > self.config.max_grad_norm:
            for stack, norm in zip(self.trained[name], norms, strict=True):
                stack.scale_gradients((self.config.max_grad_norm / norm).clamp(max=1.0))
        optimizer.step()
        return largest

    @contextmanager
    def only_member(self, index: int) -> Iterator[None]:
        """Whatever is learnt inside, keep it for member `index` alone; shared networks keep it all.

        Inside, the clocks of updates (the team's, and Adam's of each optimizer) show what this member took part in.
        """
        before = {key: vector.detach().clone() for key, (_, vector) in self._learnt_vectors().items()}
        counts = self._counts()
        own = {name: count - self.missed[index][name] for name, count in counts.items()}
        self._set_counts(own)
        yield
        fresh = {name: count - own[name] for name, count in self._counts().items()}
        self._set_counts({name: count + fresh[name] for name, count in counts.items()})
        for other in range(self.num_agents):
            if other != index:
                self.missed[other].update(fresh)  # adds
        with torch.no_grad():
            for key, (stack, vector) in self._learnt_vectors().items():
                old = before.get(key, torch.zeros_like(vector))  # Adam's moments appear, from 0, at its first step
                if not stack.shared:
                    others = [k for k in range(stack.members) if stack.owners[k] % self.num_agents != index]
                    for rows, old_rows in zip(stack.by_member(vector), stack.by_member(old), strict=True):
                        rows[others] = old_rows[others]

    def _counts(self) -> dict[str, float]:
        """How often the team learnt, and how often each optimizer stepped for networks that are not shared."""
        steps = {name: [float(state["step"]) for state in self._own_states(name)] for name in self.optimizers}
        return {"updates": self.updates} | {name: max(counts, default=0.0) for name, counts in steps.items()}

    def _set_counts(self, counts: dict[str, float]) -> None:
        self.updates = int(counts["updates"])
        for name in self.optimizers:
            for state in self._own_states(name):
                state["step"].fill_(counts[name])

    def _own_states(self, name: str) -> list[dict[str, Tensor]]:
        """Adam's state for each stack of optimizer `name` that is not shared and has learnt."""
        states = self.optimizers[name].state
        return [states[s.flat] for s in self.trained[name] if not s.shared and s.flat in states]

    def _learnt_vectors(self) -> dict[tuple, tuple[StackedMLP, Tensor]]:
        """Every vector laid out like a stack's parameters that learning moves, with its stack."""
        vectors = {}
        for name, stacks in self.trained.items():
            for k, stack in enumerate(stacks):
                vectors[name, k, "parameters"] = stack, stack.flat
                for key, moment in self.optimizers[name].state.get(stack.flat, {}).items():
                    if key.startswith("exp_avg"):
                        vectors[name, k, key] = stack, moment
        for name, network in self.networks.items():
            if "target" in name:
                vectors |= {(name, k, "target"): (s, s.flat) for k, s in enumerate(network.stacks())}
        return vectors

    # --- randomness, saving, loading ------------------------------------------------------------------------------

    def seed(self, seed: int) -> None:
        """Restart the randomness of exploration and of replay sampling."""
        self.generator.manual_seed(seed)

    def random_state(self) -> Tensor:
        """The state of that randomness, to be given back to `set_random_state`."""
        return self.generator.get_state()

    def set_random_state(self, state: Tensor) -> None:
        """Continue from a saved state of randomness. One of another kind of device can only seed this one anew."""
        if state.numel() == self.generator.get_state().numel():
            self.generator.set_state(state.cpu())
        else:
            self.generator.manual_seed(zlib.crc32(state.cpu().numpy().tobytes()))

    def parameters(self) -> list[Tensor]:
        """All tensors that optimizers move."""
        return [p for optimizer in self.optimizers.values() for p in optimizer.param_groups[0]["params"]]

    def extra_state(self) -> dict[str, Any]:
        """What an algorithm must remember besides networks, optimizers, buffer, counters and randomness."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Take back what `extra_state` returned."""

    def state_dict(self, with_buffer: bool = True) -> dict[str, Any]:
        """A snapshot of everything that a bit-exact continuation needs, as tensors and plain Python values."""
        return {
            "algorithm": type(self).__name__,
            "sizes": {"state_dim": self.state_dim, "action_dim": self.action_dim, "num_agents": self.num_agents},
            "config": {key: _plain(value) for key, value in dataclasses.asdict(self.config).items()},
            "networks": {name: [s.flat.detach().clone() for s in net.stacks()] for name, net in self.networks.items()},
            "optimizers": {name: copy.deepcopy(optimizer.state_dict()) for name, optimizer in self.optimizers.items()},
            "buffer": self.buffer.state_dict() if with_buffer and self.buffer is not None else None,
            "counters": {name: getattr(self, name) for name in ("environment_steps", "updates", "progress")},
            "missed": [dict(missed) for missed in self.missed],
            "extra": self.extra_state(),
            "random": self.random_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken.

        Raises:
            ValueError: the state belongs to another algorithm, or to a team of other sizes or networks.
        """
        sizes = {"state_dim": self.state_dim, "action_dim": self.action_dim, "num_agents": self.num_agents}
        if state.get("algorithm") != type(self).__name__ or state.get("sizes") != sizes:
            raise ValueError(
                f"expected the state of a {type(self).__name__} with {sizes}, found that of a "
                f"{state.get('algorithm')} with {state.get('sizes')}; build the team that was saved"
            )
        for name, network in self.networks.items():
            saved = state["networks"].get(name, [])
            shapes, expected = [tuple(t.shape) for t in saved], [tuple(s.flat.shape) for s in network.stacks()]
            if shapes != expected:
                raise ValueError(
                    f"network {name!r}: expected parameters {expected}, found {shapes}; use the same config"
                )
            with torch.no_grad():
                for stack, tensor in zip(network.stacks(), saved, strict=True):
                    stack.flat.copy_(tensor)
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(copy.deepcopy(state["optimizers"][name]))  # else it keeps the caller's tensors
        if state["buffer"] is not None:
            self.begin_rollouts(state["buffer"]["num_envs"])
            self.buffer.load_state_dict(state["buffer"])
        self.environment_steps = state["counters"]["environment_steps"]
        self.updates = state["counters"]["updates"]
        self.progress = state["counters"].get("progress", 0.0)
        self.missed = [Counter(missed) for missed in state.get("missed", [{}] * self.num_agents)]
        self.load_extra_state(state["extra"])
        self.set_random_state(state["random"])

    def save(self, path: str | os.PathLike) -> None:
        """Write the team, without its experience, to one file; atomic, readable with `weights_only=True`.

        Raises:
            OSError: the file cannot be written.
            FloatingPointError: the team holds NaN or infinity.
        """
        state = self.state_dict(with_buffer=False)
        refuse_non_finite(state)
        write_tensors(path, state)

    @classmethod
    def load(cls, path: str | os.PathLike, device: str | torch.device | None = None) -> AgentTeam:
        """Read a team that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or holds another algorithm or no team.
        """
        state = read_tensors(path)
        if not isinstance(state, dict) or state.get("algorithm") != cls.__name__:
            found = f"a {state['algorithm']}" if isinstance(state, dict) and "algorithm" in state else "something else"
            raise ValueError(f"{path}: expected a {cls.__name__} that team.save wrote, found {found}")
        team = cls(**state["sizes"], config=state["config"], device=device)
        team.load_state_dict(state)
        return team

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
    if isinstance(agents, AgentTeam):
        return agents
    first = agents[0]
    if all(agent.team is first.team for agent in agents):
        if [agent.index for agent in agents] != list(range(len(first.team))):
            raise ValueError(
                f"agents: expected those of a team of {len(first.team)}, each once and in order; "
                f"found numbers {[agent.index for agent in agents]}; pass the team itself"
            )
        return first.team
    kind, config = type(first.team), dataclasses.asdict(first.team.config)
    for position, agent in enumerate(agents):
        same = type(agent.team) is kind and agent.team.state_dim == first.team.state_dim
        if same and dataclasses.asdict(agent.team.config) | {"seed": config["seed"]} != config:
            raise ValueError(f"agent {position}: expected the config of agent 0, {config}; found {agent.team.config}")
        if not same or agent.team.action_dim != first.team.action_dim or agent.team.num_agents != len(agents):
            raise ValueError(
                f"agent {position}: expected a {kind.agent_class.__name__} with state_dim {first.team.state_dim}, "
                f"action_dim {first.team.action_dim} and num_agents {len(agents)}; found a {type(agent).__name__} with "
                f"{agent.team.state_dim}, {agent.team.action_dim} and {agent.team.num_agents}"
            )
    team = kind(
        first.team.state_dim, first.team.action_dim, len(agents), config, devices=[agent.device for agent in agents]
    )
    for position, agent in enumerate(agents):
        for name, network in team.networks.items():
            _copy_member(agent.team.networks[name], network, agent.index, position, len(agents))
        agent.team, agent.index = team, position
    team._agents = list(agents)
    return team


def _copy_member(source: Stack, target: Stack, old_index: int, new_index: int, num_agents: int) -> None:
    """Copy what belongs to an agent from its old place to its new one; what all agents share comes from agent 0."""
    spread = isinstance(source, SpreadMLP) or isinstance(target, SpreadMLP)  # else stacks correspond one to one
    olds, news = source.stacks(), target.stacks()
    stacks = itertools.product(olds, news) if spread else zip(olds, news, strict=True)
    with torch.no_grad():
        for old, new in stacks:
            if not spread and new.shared:
                if new_index == 0:
                    new.copy_from(old)
                continue
            for (a, x), (b, y) in itertools.product(enumerate(old.owners), enumerate(new.owners)):
                # Member k belongs to agent k modulo n; a twin critic stays the twin it was.
                if divmod(x, num_agents) == (y // num_agents, old_index) and y % num_agents == new_index:
                    for mine, theirs in zip(new.by_member(new.flat), old.by_member(old.flat), strict=True):
                        mine[b].copy_(theirs[a])


def _plain(value: Any) -> Any:
    """A config value as JSON would hold it."""
    return list(value) if isinstance(value, tuple) else value
