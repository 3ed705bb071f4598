"""PettingZoo's parallel environments for our agents, and our environments for PettingZoo's agents.

PettingZoo (Terry et al. 2021, arXiv 2009.14471) speaks in dictionaries from agent names to values, and drops an agent
that has finished from them. Here an environment speaks in arrays with one row an agent, always in the same order. The
library is optional (`pip install pettingzoo`) and imported only when one of the two functions is called.

Shapes: N agents, O observation, A action, S state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from core.experiment.vector_env import as_array, as_truncated, describe, reset, unpack_step


def from_parallel_env(penv: Any, *, pad_unequal: bool = False) -> FromParallel:
    """Give a PettingZoo `ParallelEnv` the protocol of this repository; several copies are stacked by `VectorEnv`.

    - Agents keep the order of `possible_agents`. All must be there after a reset.
    - `truncations` become `info["truncated"]`; an agent that is both terminated and truncated is terminated.
    - An agent that finishes still gets its true last observation, to bootstrap from. From the next step on it is dead:
      observation and reward 0, done True, and its action is ignored.
    - `Discrete` actions are counted from 0, `Box` actions are rescaled from [0, 1] to the box and flattened.
    - Observations are flattened (`gymnasium.spaces.flatten`: a `Discrete` one becomes one-hot).
    - Action masks are taken from observations {"observation": ..., "action_mask": ...} or from the infos.
    - `state()` is offered where the environment declares a `state_space`.

    Args:
        penv: the environment; it is reset once, to see whether its infos hold action masks.
        pad_unequal: accept agents whose observations or actions differ in size. Shorter observations are filled up
            with zeros, superfluous discrete actions are masked as illegal, and superfluous continuous action dimensions
            are ignored. With shared parameters, the agent's id then also says which entries mean anything.

    Raises:
        ImportError: PettingZoo is not installed.
        ValueError: agents of different shapes without `pad_unequal`, or spaces that have no counterpart here.
    """
    _require("from_parallel_env")
    if not callable(getattr(penv, "step", None)) or hasattr(penv, "agent_iter"):
        raise ValueError(f"expected a ParallelEnv, found {describe(penv)}; call its module's parallel_env()")
    return FromParallel(penv, pad_unequal)


def to_parallel_env(env: Any, discrete_actions: bool | None = None) -> Any:
    """Make a PettingZoo `ParallelEnv` of an environment of this repository's protocol, a single copy.

    Agents are called agent_0, agent_1, ... Discrete actions become `Discrete`, continuous ones `Box(0, 1)`. Action
    masks join the observation, {"observation": ..., "action_mask": ...}, as PettingZoo's own environments do it. At its
    last step every agent's info holds the environment's `episode_metrics`.

    Args:
        env: built without `num_envs`.
        discrete_actions: needed if the environment itself does not say.

    Raises:
        ImportError: PettingZoo is not installed.
        ValueError: a stacked environment, or one that does not tell its kind of actions.
    """
    _require("to_parallel_env")
    from pettingzoo import ParallelEnv

    class ParallelView(ToParallel, ParallelEnv):
        """`ToParallel` as a subclass of what PettingZoo's wrappers expect."""

    return ParallelView(env, discrete_actions)


def _require(function: str) -> None:
    try:
        import gymnasium  # noqa: F401
        import pettingzoo  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{function} needs PettingZoo, which is not installed: pip install pettingzoo") from error


# --- PettingZoo -> here -----------------------------------------------------------------------------------------------


class FromParallel:
    """A PettingZoo environment behind the documented protocol; see `from_parallel_env`."""

    def __init__(self, penv: Any, pad_unequal: bool = False):
        self.penv = penv
        self.agents = list(penv.possible_agents)
        self.num_agents = len(self.agents)
        seen = [_Seen(penv.observation_space(agent), agent) for agent in self.agents]
        acts = [_Acts(penv.action_space(agent), agent) for agent in self.agents]
        _refuse_differences(self.agents, seen, acts, pad_unequal)
        self._seen, self._acts = seen, acts
        self.discrete_actions = acts[0].discrete
        self.observation_space_size = max(space.size for space in seen)
        self.action_space_size = max(space.size for space in acts)
        self._own_actions = np.arange(self.action_space_size) < np.array([[space.size] for space in acts])  # (N, A)
        state_space = getattr(penv, "state_space", None)
        if getattr(state_space, "shape", None) is not None:
            self.state_size = int(np.prod(state_space.shape))
            self.state = self._state
        _, infos = penv.reset()
        in_infos = any("action_mask" in info for info in infos.values())
        if self.discrete_actions and (in_infos or any(s.masked for s in seen) or not self._own_actions.all()):
            self.action_masks = self._action_masks
        self._alive: np.ndarray | None = None  # (N,) bool; None before the first reset

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Begin an episode -> observations (N, O)."""
        observed, infos = self.penv.reset() if seed is None else self.penv.reset(seed=int(seed))
        absent = [agent for agent in self.agents if agent not in self.penv.agents]
        if absent:
            raise ValueError(f"agents {absent} are absent after reset(); every agent must take part from the start")
        self._alive = np.ones(self.num_agents, bool)
        return self._read(observed, infos, self._alive)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take one step with actions (N,) integers or (N, A) floats in [0, 1].

        Returns:
            observations (N, O), rewards (N,), dones (N,), and info with "truncated" (N,).
        """
        if self._alive is None or not self._alive.any():
            raise RuntimeError("the episode is over (or none has begun): call reset() before step()")
        actions, alive = self._checked(actions), self._alive
        chosen = {a: self._acts[i].convert(actions[i]) for i, a in enumerate(self.agents) if alive[i]}
        observed, rewards, terminations, truncations, infos = self.penv.step(chosen)
        ended = np.array([bool(terminations.get(agent, False)) for agent in self.agents])
        cut = np.array([bool(truncations.get(agent, False)) for agent in self.agents])
        gone = np.array([agent not in self.penv.agents for agent in self.agents])  # finished, whatever the flags say
        truncated = alive & cut & ~ended
        self._alive = alive & ~(ended | cut | gone)
        info: dict[str, Any] = {"truncated": truncated}
        metrics = next((own["episode_metrics"] for own in infos.values() if "episode_metrics" in own), None)
        if metrics is not None and not self._alive.any():
            info["episode_metrics"] = metrics
        paid = np.array([rewards.get(agent, 0.0) for agent in self.agents], np.float32) * alive
        return self._read(observed, infos, alive), paid, ~self._alive, info

    def _read(self, observed: dict, infos: dict, present: np.ndarray) -> np.ndarray:
        """Observations (N, O) of those who are `present` (N,), zeros for the others; and the masks, to keep."""
        observations = np.zeros((self.num_agents, self.observation_space_size), np.float32)
        self._masks = self._own_actions.copy()
        for i in np.flatnonzero(present):
            agent, own = self.agents[i], self._seen[i]
            if agent in observed:
                observations[i, : own.size] = own.flat(observed[agent])
            elif self._alive[i]:
                raise ValueError(f"agent {agent!r} is alive, but the environment returned no observation of it")
            mask = infos.get(agent, {}).get("action_mask")
            if own.masked and agent in observed:
                mask = observed[agent]["action_mask"]
            if mask is not None and self.discrete_actions:
                self._read_mask(i, mask)
        return observations

    def _read_mask(self, i: int, mask: Any) -> None:
        agent, size = self.agents[i], self._acts[i].size
        legal = as_array(f"action_mask of {agent!r}", mask, (size,), bool)
        if not hasattr(self, "action_masks"):
            raise ValueError(f"infos[{agent!r}] holds an action_mask now, but no info held one at the first reset()")
        if legal.any() or self._alive[i]:  # many environments allow a finished agent nothing
            self._masks[i, :size] = legal

    def _action_masks(self) -> np.ndarray:
        return self._masks  # (N, A), a new array every step

    def _state(self) -> np.ndarray:
        return np.asarray(self.penv.state(), np.float32).reshape(self.state_size)  # (S,)

    def _checked(self, actions: Any) -> np.ndarray:
        n, size, found = self.num_agents, self.action_space_size, np.asarray(actions)
        if self.discrete_actions:
            if found.shape != (n,) or found.dtype.kind not in "iu":
                raise ValueError(f"actions: expected {n} integers, one an agent, found {describe(actions)}")
            for i in np.flatnonzero(self._alive):
                if not 0 <= found[i] < self._acts[i].size:
                    where = f"of {self.agents[i]!r} (0 to {self._acts[i].size - 1})"
                    raise ValueError(f"actions: {int(found[i])} is no action {where}; respect action_masks()")
            return found
        if found.shape != (n, size) or found.dtype.kind not in "fiu" or not ((found >= 0) & (found <= 1)).all():
            outside = " with entries outside" if found.shape == (n, size) else ""
            wanted = f"floats in [0, 1] of shape {(n, size)}"
            raise ValueError(f"actions: expected {wanted}, found {describe(actions)}{outside}")
        return found

    def close(self) -> None:
        """Free what the environment holds."""
        self.penv.close()


class _Seen:
    """One agent's observation space: its flat size, and whether it carries an action mask."""

    def __init__(self, space: Any, agent: Any):
        from gymnasium import spaces

        self.masked = isinstance(space, spaces.Dict) and set(space.spaces) == {"observation", "action_mask"}
        self.space = space["observation"] if self.masked else space
        if not getattr(self.space, "is_np_flattenable", False):
            raise ValueError(f"observations of {agent!r}: expected a space with a flat form, found {space}")
        self.shape, self.is_box = self.space.shape, isinstance(self.space, spaces.Box)
        self.size = int(spaces.flatdim(self.space))

    def flat(self, observed: Any) -> np.ndarray:
        """(size,) float32"""
        from gymnasium import spaces

        own = observed["observation"] if self.masked else observed
        values = np.asarray(own) if self.is_box else spaces.flatten(self.space, own)
        return values.reshape(self.size).astype(np.float32)


class _Acts:
    """One agent's action space: its size, and the way from our actions to its own."""

    def __init__(self, space: Any, agent: Any):
        from gymnasium import spaces

        self.discrete = isinstance(space, spaces.Discrete)
        self.shape = space.shape
        if self.discrete:
            self.start, self.size = int(space.start), int(space.n)
            return
        if not isinstance(space, spaces.Box) or space.dtype.kind != "f":
            raise ValueError(f"actions of {agent!r}: expected Discrete or a Box of floats, found {space}")
        if not space.is_bounded():
            raise ValueError(f"actions of {agent!r}: expected a Box with finite bounds, found {space}; clip it first")
        self.low, self.high, self.dtype = space.low.ravel(), space.high.ravel(), space.dtype
        self.size = self.low.size

    def convert(self, action: Any) -> Any:
        """Our action, an integer or (A,) floats in [0, 1], as one of this space."""
        if self.discrete:
            return self.start + int(action)
        scaled = self.low + np.asarray(action[: self.size], self.dtype) * (self.high - self.low)
        return np.clip(scaled, self.low, self.high).astype(self.dtype).reshape(self.shape)  # rounding may leave the box


def _refuse_differences(agents: Sequence[Any], seen: Sequence[_Seen], acts: Sequence[_Acts], padded: bool) -> None:
    """Raise ValueError for no agents, for mixed kinds of actions, and (unless padded) for different sizes."""
    if not agents:
        raise ValueError("possible_agents is empty; a parallel environment names its agents there")
    listed = "; ".join(
        f"{agent}: observation {space.shape or (space.size,)}, {act.size} {'choices' if act.discrete else 'floats'}"
        for agent, space, act in zip(agents, seen, acts, strict=True)
    )
    if len({act.discrete for act in acts}) > 1:
        raise ValueError(f"expected agents with one kind of actions, found {listed}")
    if not padded and (len({space.size for space in seen}) > 1 or len({act.size for act in acts}) > 1):
        raise ValueError(f"expected agents with equal shapes, found {listed}; pad_unequal=True fills them up")


# --- here -> PettingZoo -----------------------------------------------------------------------------------------------


class ToParallel:
    """An environment of the documented protocol with PettingZoo's methods; see `to_parallel_env`."""

    render_mode = None

    def __init__(self, env: Any, discrete_actions: bool | None = None):
        from gymnasium import spaces

        if getattr(env, "num_envs", None) is not None:
            raise ValueError(f"expected a single environment, found num_envs={env.num_envs}; build it without num_envs")
        discrete = getattr(env, "discrete_actions", None)
        discrete = discrete_actions if discrete is None else discrete
        if discrete is None:
            raise ValueError("the environment has no discrete_actions; say to_parallel_env(env, discrete_actions=...)")
        self.env, self.discrete = env, bool(discrete)
        self.metadata = {"name": type(env).__name__, "render_modes": [], "is_parallelizable": True}
        self.possible_agents = [f"agent_{i}" for i in range(env.num_agents)]
        self.agents: list[str] = []
        size, choices = env.observation_space_size, env.action_space_size
        self._observation_spaces, self._action_spaces = {}, {}
        for agent in self.possible_agents:  # an object each: a space holds the random stream of its samples
            own = spaces.Box(-np.inf, np.inf, (size,), np.float32)
            if hasattr(env, "action_masks"):
                own = spaces.Dict({"observation": own, "action_mask": spaces.Box(0, 1, (choices,), np.int8)})
            self._observation_spaces[agent] = own
            self._action_spaces[agent] = (
                spaces.Discrete(choices) if self.discrete else spaces.Box(0.0, 1.0, (choices,), np.float32)
            )
        if getattr(env, "state_size", 0):
            self.state_space = spaces.Box(-np.inf, np.inf, (env.state_size,), np.float32)

    def observation_space(self, agent: str) -> Any:
        """What this agent sees."""
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> Any:
        """What this agent can do."""
        return self._action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Begin an episode -> observations and infos. There are no options."""
        observations = reset(self.env, seed)
        self.agents = self.possible_agents[:]
        return self._told(observations, self.agents), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        """Take one step with the actions of the living agents.

        Returns:
            observations, rewards, terminations, truncations, infos of those who were alive before the step.
        """
        if not self.agents:
            return {}, {}, {}, {}, {}
        observations, rewards, dones, info = unpack_step(self.env.step(self._gathered(actions)))
        count = len(self.possible_agents)
        truncated = np.broadcast_to(as_truncated(info, (count,)), (count,))
        terminated = as_array("dones", dones, (count,), bool) & ~truncated
        rewards, agents = as_array("rewards", rewards, (count,)), self.agents
        self.agents = [a for a in agents if not (terminated | truncated)[self._index(a)]]
        over = not self.agents and "episode_metrics" in info
        return (
            self._told(observations, agents),
            {agent: float(rewards[self._index(agent)]) for agent in agents},
            {agent: bool(terminated[self._index(agent)]) for agent in agents},
            {agent: bool(truncated[self._index(agent)]) for agent in agents},
            {agent: {"episode_metrics": info["episode_metrics"]} if over else {} for agent in agents},
        )

    def state(self) -> np.ndarray:
        """The state for a centralized critic, (S,). Raises NotImplementedError where the environment has none."""
        if not getattr(self.env, "state_size", 0):
            raise NotImplementedError(f"{self.metadata['name']} has no state()")
        return np.asarray(self.env.state(), np.float32)

    def _gathered(self, actions: dict[str, Any]) -> np.ndarray:
        """Actions by name -> (N,) or (N, A); those of finished agents mean nothing."""
        if set(actions) != set(self.agents):
            raise ValueError(f"actions: expected one of each living agent, {self.agents}, found {list(actions)}")
        shape = () if self.discrete else (self.env.action_space_size,)
        joint = np.zeros((len(self.possible_agents), *shape), np.int64 if self.discrete else np.float32)
        if hasattr(self.env, "action_masks"):
            joint[:] = np.asarray(self.env.action_masks()).argmax(axis=-1)  # something legal for the finished
        for agent, action in actions.items():
            if np.shape(action) != shape:
                raise ValueError(f"actions[{agent!r}]: expected shape {shape}, found {describe(action)}")
            joint[self._index(agent)] = action
        return joint

    def _told(self, observations: Any, agents: Sequence[str]) -> dict[str, Any]:
        """What each of `agents` is told, from (N, O)."""
        seen = as_array("observations", observations, (len(self.possible_agents), self.env.observation_space_size))
        rows = {agent: seen[self._index(agent)].copy() for agent in agents}
        if not hasattr(self.env, "action_masks"):
            return rows
        masks = np.asarray(self.env.action_masks()).astype(np.int8)
        return {a: {"observation": row, "action_mask": masks[self._index(a)]} for a, row in rows.items()}

    def _index(self, agent: str) -> int:
        return self.possible_agents.index(agent)
