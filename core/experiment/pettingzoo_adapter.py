"""PettingZoo's parallel environments for our agents, and our environments for PettingZoo's agents.

PettingZoo (Terry et al. 2021, arXiv 2009.14471) speaks in dictionaries from agent names to values, and drops an agent
that has finished from them. Here an environment speaks in arrays with one row an agent, always in the same order. The
library is optional (`pip install pettingzoo`) and imported only when one of the two functions is called.

Shapes: N agents, O observation, A action, S state.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np

from core.experiment.vector_env import as_array, as_flags, as_stacked, as_truncated, describe, reset, unpack_step

MASKS = ("action_mask", "action_masks", "avail_actions", "available_actions", "legal_actions")  # read as action masks
ALL = "__all__"  # under which some libraries say that the episode ended for everybody
NO_BOUND = 1e15  # a bound this far out means that there is none


def from_parallel_env(penv: Any, *, pad_unequal: bool = False) -> FromParallel:
    """Give a PettingZoo `ParallelEnv` the protocol of this repository; several copies are stacked by `VectorEnv`.

    - Agents keep the order of `possible_agents`. All must be there after a reset, and none comes back after its end.
    - `truncations` become `info["truncated"]`; an agent that is both terminated and truncated is terminated. A flag
      under "__all__" stands for every agent.
    - An agent that finishes still gets its true last observation, to bootstrap from. From the next step on it is dead:
      observation and reward 0, done True, and its action is ignored.
    - `Discrete` actions are counted from 0, `Box` actions are rescaled from [0, 1] to the box and flattened.
    - Observations are flattened (`gymnasium.spaces.flatten`: a `Discrete` one becomes one-hot). Images, bytes of 0 to
      255, are divided by 255.
    - Action masks are taken from observations that are a `Dict` with one of the keys of `MASKS`, the rest of which is
      then what the agent observes, or from the infos.
    - `state()` is offered where the environment declares a `state_space`.

    Whatever a living agent is owed (observation, reward, flags, its mask if it had one) must be there under its name.

    Args:
        penv: the environment; it is reset once, to see whether its infos hold action masks.
        pad_unequal: accept agents whose observations or actions differ in size. Shorter observations are filled up
            with zeros, superfluous discrete actions are masked as illegal, and superfluous continuous action dimensions
            are ignored. With shared parameters, the agent's id then also says which entries mean anything.

    Raises:
        ImportError: PettingZoo is not installed.
        ValueError: agents of different shapes without `pad_unequal`, spaces that have no counterpart here, or an
            environment of PettingZoo's API before 1.24.
    """
    _require("from_parallel_env")
    if isinstance(penv, type) or not callable(getattr(penv, "step", None)) or hasattr(penv, "agent_iter"):
        raise ValueError(f"expected a ParallelEnv, found {describe(penv)}; call its module's parallel_env()")
    for name in ("observation_space", "action_space", "reset"):
        if not callable(getattr(penv, name, None)):
            raise ValueError(f"{name}: expected a method of the environment, as in PettingZoo from 1.24 on, found none")
    if not getattr(penv, "possible_agents", None):
        raise ValueError("possible_agents: expected the names of all agents, found none; set it in the environment")
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

        def __reduce__(self):  # pickle finds no class that was made inside a function
            return to_parallel_env, (self.env, self.discrete), vars(self)

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
        for own, act in zip(seen, acts, strict=True):
            own.find_mask(act)
        _refuse_differences(self.agents, seen, acts, pad_unequal)
        self._seen, self._acts = seen, acts
        self.discrete_actions = acts[0].discrete
        self.observation_space_size = max(space.size for space in seen)
        self.action_space_size = max(space.size for space in acts)
        self._own_actions = np.arange(self.action_space_size) < np.array([[space.size] for space in acts])  # (N, A)
        if getattr(penv, "state_space", None) is not None:
            self._state_space = _Seen(penv.state_space, "everybody (state_space)")
            self.state_size, self.state = self._state_space.size, self._state
        _, infos = self._begin(None)
        self._in_infos = [_mask_key(infos.get(a), f"infos of {a!r}") is not None for a in self.agents]
        if self.discrete_actions and (
            any(self._in_infos) or any(own.mask_key for own in seen) or not self._own_actions.all()
        ):
            self.action_masks = self._action_masks
        self._alive: np.ndarray | None = None  # (N,) bool; None before the first reset

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Begin an episode -> observations (N, O)."""
        observed, infos = self._begin(None if seed is None else int(seed))
        self._alive, self._left = np.ones(self.num_agents, bool), set()
        return self._read(observed, infos, self._alive)

    def _begin(self, seed: int | None) -> tuple[dict, dict]:
        """Reset the environment -> observations and infos by agent."""
        outcome = reset(self.penv, seed)
        if not isinstance(outcome, (tuple, list)) or len(outcome) != 2:
            raise ValueError(
                f"reset() must return two dictionaries, observations and infos, as in PettingZoo from 1.24 on; found "
                f"{describe(outcome)}; bring the environment up to date"
            )
        if not hasattr(self.penv, "agents"):
            raise ValueError("agents: expected the names of those who live, found no such attribute after reset()")
        absent = [agent for agent in self.agents if agent not in self.penv.agents]
        if absent:
            raise ValueError(f"agents {absent} are absent after reset(); every agent must take part from the start")
        return _by_agent("observations of reset()", outcome[0]), _by_agent("infos of reset()", outcome[1] or {})

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take one step with actions (N,) integers or (N, A) floats in [0, 1].

        Returns:
            observations (N, O), rewards (N,), dones (N,), and info with "truncated" (N,).
        """
        if self._alive is None or not self._alive.any():
            raise RuntimeError("the episode is over (or none has begun): call reset() before step()")
        actions, alive = self._checked(actions), self._alive
        chosen = {a: self._acts[i].convert(actions[i]) for i, a in enumerate(self.agents) if alive[i]}
        outcome = self.penv.step(chosen)
        if not isinstance(outcome, (tuple, list)) or len(outcome) != 5:
            found = f"{len(outcome)} values" if isinstance(outcome, (tuple, list)) else describe(outcome)
            raise ValueError(
                "step() must return five dictionaries, observations, rewards, terminations, truncations and infos, as "
                f"in PettingZoo from 1.24 on; found {found}; bring the environment up to date"
            )
        names = ("observations", "rewards", "terminations", "truncations")
        observed, rewards, terminations, truncations = map(_by_agent, names, outcome[:4])
        infos = _by_agent("infos", outcome[4] or {})
        gone = np.array([agent not in self.penv.agents for agent in self.agents])  # finished, whatever the flags say
        ended = self._flags("terminations", terminations, alive, gone)
        cut = self._flags("truncations", truncations, alive, gone)
        dead = [agent for i, agent in enumerate(self.agents) if not alive[i]]
        self._refuse_comers(gone, [a for a in dead if terminations.get(a) is False and truncations.get(a) is False])
        truncated = alive & cut & ~ended
        self._alive = alive & ~(ended | cut | gone)
        info: dict[str, Any] = {"truncated": truncated}
        metrics = next((own["episode_metrics"] for own in infos.values() if own and "episode_metrics" in own), None)
        if metrics is not None and not self._alive.any():
            info["episode_metrics"] = metrics
        paid = np.zeros(self.num_agents, np.float32)
        for i in np.flatnonzero(alive):
            paid[i] = self._reward(i, rewards)
        return self._read(observed, infos, alive, truncated), paid, ~self._alive, info

    def _flags(self, name: str, flags: dict, alive: np.ndarray, gone: np.ndarray) -> np.ndarray:
        """One flag an agent, (N,). Only who has left `agents` may lack one."""
        everybody = ALL in flags and _flag(f"{name}[{ALL!r}]", flags[ALL])
        found = np.full(self.num_agents, everybody)
        for i in np.flatnonzero(alive):
            agent = self.agents[i]
            if agent in flags:
                found[i] |= _flag(f"{name}[{agent!r}]", flags[agent])
            elif ALL not in flags and not gone[i]:
                raise _owed(name, agent, flags, f" or {ALL!r}")
        return found

    def _reward(self, i: int, rewards: dict) -> float:
        agent = self.agents[i]
        if agent in rewards:
            return _number(f"rewards[{agent!r}]", rewards[agent])
        if self._alive[i]:
            raise _owed("rewards", agent, rewards)
        return 0.0  # it left, and was paid nothing

    def _refuse_comers(self, gone: np.ndarray, playing: list[Any]) -> None:
        """Who was not there from the start, or comes back after its end, has no place in the episode."""
        strangers = [agent for agent in self.penv.agents if agent not in self.agents]
        if strangers:
            raise ValueError(f"agents {strangers} are not among possible_agents, {self.agents}; name them there")
        back = [agent for agent in self.penv.agents if agent in self._left or agent in playing]
        if back:
            raise ValueError(f"agents {back} came back after their end; an agent takes part once in an episode")
        self._left |= {agent for i, agent in enumerate(self.agents) if gone[i]}

    def _read(
        self, observed: dict, infos: dict, present: np.ndarray, truncated: np.ndarray | None = None
    ) -> np.ndarray:
        """Observations (N, O) of those who are `present` (N,), zeros for the others; and the masks, to keep."""
        observations = np.zeros((self.num_agents, self.observation_space_size), np.float32)
        self._masks = self._own_actions.copy()
        for i in np.flatnonzero(present):
            agent, own = self.agents[i], self._seen[i]
            seen, told = observed.get(agent), infos.get(agent)
            if seen is not None:
                observations[i, : own.size] = own.flat(seen)
            elif self._alive[i]:
                raise _owed("observations", agent, observed)
            elif truncated is not None and truncated[i]:
                raise ValueError(f"agent {agent!r} is truncated without a last observation; its value would be lost")
            if not self.discrete_actions:
                continue
            if own.mask_key is not None:
                self._read_mask(i, None if seen is None else seen.get(own.mask_key))
            else:
                key = _mask_key(told, f"infos of {agent!r}")
                if key is not None or self._in_infos[i]:
                    self._read_mask(i, None if key is None else told[key])
        return observations

    def _read_mask(self, i: int, mask: Any) -> None:
        agent, size = self.agents[i], self._acts[i].size
        if mask is None:
            if self._alive[i]:
                raise ValueError(f"agent {agent!r} is alive, but the environment returned no action mask for it")
            return
        if not hasattr(self, "action_masks"):
            raise ValueError(f"infos[{agent!r}] holds an action_mask now, but no info held one at the first reset()")
        legal = as_flags(f"action_mask of {agent!r}", mask, (size,))
        if self._alive[i] and not legal.any():
            raise ValueError(
                f"action_mask of {agent!r}: expected a legal action, found none; allow one that does nothing"
            )
        if legal.any():  # many environments allow a finished agent nothing
            self._masks[i, :size] = legal

    def _action_masks(self) -> np.ndarray:
        return self._masks  # (N, A), a new array every step

    def _state(self) -> np.ndarray:
        return self._state_space.flat(self.penv.state())  # (S,)

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


def _by_agent(name: str, value: Any) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected a dictionary with a value for each agent, found {describe(value)}")
    return value


def _number(name: str, value: Any) -> float:
    return float(as_array(name, value, _alone(value)).sum())


def _flag(name: str, value: Any) -> bool:
    return bool(as_flags(name, value, _alone(value)).any())


def _alone(value: Any) -> tuple[int, ...]:
    """The shape of one number, which some write as a list of one."""
    return (1,) if tuple(np.shape(value)) == (1,) else ()


def _owed(name: str, agent: Any, found: dict, other: str = "") -> ValueError:
    keys = ", ".join(map(repr, found)) or "none"
    return ValueError(f"{name}: expected the key {agent!r}{other}, since that agent lives; found the keys {keys}")


def _mask_key(values: Any, where: str) -> str | None:
    """The key under which `values` hold an action mask. One that is only similar is refused."""
    names = [str(name) for name in values] if isinstance(values, dict) else []
    found = [name for name in names if name in MASKS]
    near = [name for name in names if name not in MASKS and difflib.get_close_matches(name, MASKS, n=1, cutoff=0.8)]
    if len(found) > 1 or (near and not found):
        accepted = ", ".join(MASKS)
        raise ValueError(
            f"{where}: expected one action mask, under one of {accepted}; found {[*found, *near]}; rename it"
        )
    return found[0] if found else None


class _Seen:
    """One agent's observation space: its flat size, and whether it carries an action mask."""

    def __init__(self, space: Any, agent: Any):
        from gymnasium import spaces

        self.agent = agent
        self.mask_key = _mask_key(getattr(space, "spaces", None), f"observations of {agent!r}")
        self.declared = self.space = space
        self.only: str | None = None  # the one part that is left of a Dict without its mask
        if self.mask_key is not None:
            parts = {name: part for name, part in space.spaces.items() if name != self.mask_key}
            if not parts:
                raise ValueError(f"observations of {agent!r}: expected more than {self.mask_key!r}, found {space}")
            self.only = next(iter(parts)) if len(parts) == 1 else None
            self.space = spaces.Dict(parts) if self.only is None else parts[self.only]
        if not getattr(self.space, "is_np_flattenable", False):
            raise ValueError(f"observations of {agent!r}: expected a space with a flat form, found {space}")
        self.shape, self.is_box = self.space.shape, isinstance(self.space, spaces.Box)
        self.size = int(spaces.flatdim(self.space))
        bytes_of_images = self.is_box and self.space.dtype == np.uint8 and self.space.high.min() == 255
        self.scale = np.float32(255 if bytes_of_images else 1)

    def find_mask(self, act: _Acts) -> None:
        """Refuse a mask of another size than the agent's choices."""
        if self.mask_key is None or not act.discrete:
            return
        found = self.declared[self.mask_key].shape
        if found != (act.size,):
            wanted = f"expected {self.mask_key!r} to hold {act.size} entries, one a choice"
            raise ValueError(f"observations of {self.agent!r}: {wanted}, found shape {found}")

    def flat(self, observed: Any) -> np.ndarray:
        """(size,) float32"""
        from gymnasium import spaces

        name = f"observations of {self.agent!r}"
        if self.mask_key is not None:
            missing = set(self.declared.spaces) - set(observed if isinstance(observed, dict) else ())
            if missing:
                raise ValueError(f"{name}: expected the keys {list(self.declared.spaces)}, found {describe(observed)}")
            rest = {key: value for key, value in observed.items() if key in self.declared.spaces}
            own = rest[self.only] if self.only is not None else {key: rest[key] for key in self.space.spaces}
        else:
            own = observed
        if self.is_box:
            return np.array(as_array(name, own, self.shape)).ravel() / self.scale
        try:
            return np.asarray(spaces.flatten(self.space, own), np.float32).reshape(self.size)
        except (KeyError, ValueError, TypeError, IndexError, AssertionError) as error:
            raise ValueError(f"{name}: expected a value of {self.space}, found {describe(own)}") from error


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
        # In float64, since high - low overflows in the box's own type where the bounds are its largest numbers.
        self.low, self.high, self.dtype = space.low.ravel().astype(float), space.high.ravel().astype(float), space.dtype
        largest = min(NO_BOUND, 0.99 * float(np.finfo(space.dtype).max))
        if not (np.maximum(abs(self.low), abs(self.high)) < largest).all() or (self.low > self.high).any():
            raise ValueError(f"actions of {agent!r}: expected a Box with finite bounds, found {space}; clip it first")
        self.size = self.low.size

    def convert(self, action: Any) -> Any:
        """Our action, an integer or (A,) floats in [0, 1], as one of this space."""
        if self.discrete:
            return self.start + int(action)
        share = np.asarray(action[: self.size], float)
        scaled = self.low * (1.0 - share) + self.high * share
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

        as_stacked(env)  # refuses what is no environment
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
        terminated = as_flags("dones", dones, (count,)) & ~truncated
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
        return np.array(as_array("state()", self.env.state(), (self.env.state_size,)))

    def _gathered(self, actions: dict[str, Any]) -> np.ndarray:
        """Actions by name -> (N,) or (N, A); those of finished agents mean nothing."""
        if set(actions) != set(self.agents):
            raise ValueError(f"actions: expected one of each living agent, {self.agents}, found {list(actions)}")
        shape = () if self.discrete else (self.env.action_space_size,)
        joint = np.zeros((len(self.possible_agents), *shape), np.int64 if self.discrete else np.float32)
        if hasattr(self.env, "action_masks"):
            joint[:] = np.asarray(self.env.action_masks()).argmax(axis=-1)  # something legal for the finished
        for agent, action in actions.items():
            found, name = as_array(f"actions[{agent!r}]", action, shape, None), f"actions[{agent!r}]"
            if self.discrete and (found.dtype.kind not in "iu" or not 0 <= found < self.env.action_space_size):
                choices = self.env.action_space_size
                raise ValueError(f"{name}: expected an integer from 0 to {choices - 1}, found {describe(action)}")
            if not self.discrete and not ((found >= 0) & (found <= 1)).all():
                raise ValueError(f"{name}: expected floats in [0, 1], found {found.tolist()}")
            joint[self._index(agent)] = found
        return joint

    def _told(self, observations: Any, agents: Sequence[str]) -> dict[str, Any]:
        """What each of `agents` is told, from (N, O)."""
        seen = as_array("observations", observations, (len(self.possible_agents), self.env.observation_space_size))
        rows = {agent: seen[self._index(agent)].copy() for agent in agents}
        if not hasattr(self.env, "action_masks"):
            return rows
        wanted = (len(self.possible_agents), self.env.action_space_size)
        masks = as_flags("action_masks()", self.env.action_masks(), wanted).astype(np.int8)
        return {a: {"observation": row, "action_mask": masks[self._index(a)]} for a, row in rows.items()}

    def _index(self, agent: str) -> int:
        return self.possible_agents.index(agent)
