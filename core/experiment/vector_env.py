"""Copies of an environment side by side, and what an environment may return.

An algorithm always meets E environments at once, so every array has a leading axis E. An environment built with
`num_envs=E` brings that axis itself; `VectorEnv` gives it to copies of any other one.

Shapes: E environments, N agents, O observation, A action, S state.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from core.experiment.runs.seeds import global_random_state, seed_everything, set_global_random_state
from core.experiment.runs.waits import waiting_for

INFO = ("truncated", "episode_metrics", "details", "consequences")  # what is read of `info`; other names are free
# Names that mean the same elsewhere. Passed over in silence, they would change what is learnt.
MEANT = dict.fromkeys(("TimeLimit.truncated", "truncation", "truncations", "is_truncated", "time_limit"), "truncated")
# Columns of the tables that train and evaluate return, which a metric of the same name would hide.
RESERVED_METRICS = ("episode", "round", "env_steps", "team_return", "length", "seconds", "seed", "training_seed")
LARGEST_SEED = 2**31 - 1  # what every generator and simulator takes


class VectorEnv:
    """E copies of an environment as one, with the same protocol and `num_envs = E`.

    Copy e that is seeded k does what the single environment seeded k does, also where its randomness comes from the
    global generators of Python, NumPy or PyTorch: each copy then has their states for itself. A copy whose episode is
    over is frozen until the next reset: it is not stepped, its observation stays, its reward is 0 and its dones are
    True.

    Args:
        makers: one function a copy that builds it: `VectorEnv([make] * 8)`.

    Raises:
        ValueError: no maker; the copies differ in size, are stacked themselves, or are one and the same object.
    """

    def __init__(self, makers: Sequence[Callable[[], Any]]):
        if not isinstance(makers, (list, tuple)) or not makers or not all(map(callable, makers)):
            wanted = "at least one function that builds an environment, as in VectorEnv([make] * 8)"
            raise ValueError(f"VectorEnv: expected a list of {wanted}, found {describe(makers)}")
        self.copies = [make() for make in makers]
        if len({id(copy) for copy in self.copies}) < len(self.copies):
            raise ValueError("VectorEnv: a function returned the same object twice; let it build a new environment")
        first = self.copies[0]
        sizes = [_sizes(copy) for copy in self.copies]
        for e, found in enumerate(sizes):
            if found != sizes[0]:
                raise ValueError(f"VectorEnv: copy {e} has {found}, copy 0 has {sizes[0]}; stack equal copies")
        if sizes[0]["num_envs"] is not None:
            raise ValueError(f"VectorEnv: the copies have num_envs={first.num_envs} themselves; build them without it")
        self.num_envs = len(self.copies)
        self.num_agents, self.observation_space_size = first.num_agents, first.observation_space_size
        self.action_space_size = first.action_space_size
        self.discrete_actions = getattr(first, "discrete_actions", None)  # None: the environment does not say
        self.state_size = getattr(first, "state_size", 0)
        if hasattr(first, "state"):
            self.state = self._stacked_state
        if hasattr(first, "action_masks"):
            self.action_masks = self._stacked_masks
        self._over: np.ndarray | None = None  # (E,) bool; None before the first reset

    def reset(self, seed: int | Sequence[int] | None = None) -> np.ndarray:
        """Begin an episode in every copy -> (E, N, O). An int s seeds the copies s, s + 1, ..., s + E - 1."""
        shape = (self.num_agents, self.observation_space_size)
        self._observations = np.empty((self.num_envs, *shape), np.float32)
        self._global_states: list[Any] = [None] * self.num_envs  # of copies that draw from the global generators
        for e, (copy, own_seed) in enumerate(zip(self.copies, self._seeds(seed), strict=True)):
            first = self._reset_apart(e, copy, own_seed)
            self._observations[e] = as_array(self._name("observations of reset()", e), first, shape)
        self._over = np.zeros(self.num_envs, bool)
        self._done = np.zeros((self.num_envs, self.num_agents), bool)
        self._details: list[dict[str, Any] | None] = [None] * self.num_envs
        return self._observations.copy()

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the copies that are not over.

        Args:
            actions: (E, N) integers or (E, N, A) floats.

        Returns:
            observations (E, N, O), rewards (E, N), dones (E, N) and info: "truncated" (E, N); "details", name ->
            (E, ...), if the copies give them; "episode_metrics", name -> (E,), when episodes ended now, NaN elsewhere.
        """
        if self._over is None or self._over.all():
            raise RuntimeError("every episode is over (or none has begun): call reset() before step()")
        if np.shape(actions)[:2] != (self.num_envs, self.num_agents):
            wanted = f"({self.num_envs}, {self.num_agents}, ...)"
            raise ValueError(f"actions: expected shape {wanted}, found {np.shape(actions)}; give each copy its own")
        rewards = np.zeros(self._done.shape, np.float32)
        truncated = np.zeros(self._done.shape, bool)
        metrics: dict[str, np.ndarray] = {}
        consequences: list[Any] = []
        for e in np.flatnonzero(~self._over):
            observations, reward, done, info = unpack_step(self._step_apart(e, np.array(actions[e])))  # its own copy
            self._observations[e] = as_array(self._name("observations", e), observations, self._observations.shape[1:])
            rewards[e] = as_array(self._name("rewards", e), reward, (self.num_agents,))
            truncated[e] = as_truncated(info, (self.num_agents,))
            self._done[e] |= as_flags(self._name("dones", e), done, (self.num_agents,)) | truncated[e]
            self._details[e] = as_dictionary(info, "details")
            self._over[e] = self._done[e].all()
            if self._over[e]:
                for name, value in as_metrics(info, None).items():
                    metrics.setdefault(name, np.full(self.num_envs, np.nan))[e] = value
                consequences += [info["consequences"]] if "consequences" in info else []
        info = {"truncated": truncated}
        if all(self._details):
            info["details"] = {name: self._stacked_detail(name) for name in self._details[0]}
        if metrics:
            info["episode_metrics"] = metrics
        if consequences:  # of copies that end together: (T, N, A) each
            info["consequences"] = np.stack(consequences)
        return self._observations.copy(), rewards, self._done.copy(), info

    def _stacked_state(self) -> np.ndarray:
        own, found = (self.state_size,), [copy.state() for copy in self.copies]
        return np.stack([as_array(self._name("state()", e), s, own) for e, s in enumerate(found)])  # (E, S)

    def _stacked_masks(self) -> np.ndarray:
        own, found = (self.num_agents, self.action_space_size), [copy.action_masks() for copy in self.copies]
        return np.stack([as_flags(self._name("action_masks()", e), m, own) for e, m in enumerate(found)])  # (E, N, A)

    def _stacked_detail(self, name: str) -> np.ndarray:
        try:
            return np.stack([details[name] for details in self._details])
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(f"info['details'][{name!r}]: expected one shape in all copies ({error})") from error

    def _reset_apart(self, e: int, copy: Any, seed: int | None) -> Any:
        """Reset copy e. If that moves the global generators, the copy keeps their states for its own steps."""
        if seed is None:
            return reset(copy, None)
        outside = global_random_state()
        first = reset(copy, seed)
        inside = global_random_state()
        if not _takes_seed(copy) or not _same_state(outside, inside):
            self._global_states[e] = inside
            set_global_random_state(outside)
        return first

    def _step_apart(self, e: int, actions: np.ndarray) -> Any:
        if self._global_states[e] is None:
            return self.copies[e].step(actions)
        outside = global_random_state()
        set_global_random_state(self._global_states[e])
        try:
            return self.copies[e].step(actions)
        finally:
            self._global_states[e] = global_random_state()
            set_global_random_state(outside)

    def _seeds(self, seed: int | Sequence[int] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        seeds = [seed + e for e in range(self.num_envs)] if np.ndim(seed) == 0 else [int(s) for s in seed]
        if len(seeds) != self.num_envs:
            raise ValueError(f"seed: expected one integer, or {self.num_envs} (one a copy), found {len(seeds)}")
        return seeds

    def _name(self, name: str, e: int) -> str:
        return name if self.num_envs == 1 else f"copy {e}: {name}"


def as_stacked(env: Any) -> Any:
    """`env` with the axis E: itself if it was built with `num_envs`, else as the only copy of a VectorEnv."""
    _sizes(env)
    return env if getattr(env, "num_envs", None) is not None else VectorEnv([lambda: env])


def _sizes(env: Any) -> dict[str, Any]:
    if isinstance(env, type):
        raise ValueError(f"expected an environment, found the class {env.__name__}; build one: {env.__name__}(...)")
    names = ("num_agents", "observation_space_size", "action_space_size")
    missing = [name for name in names if not hasattr(env, name)]
    if missing:
        raise ValueError(f"{type(env).__name__} has no attribute {missing[0]!r}; it needs {', '.join(names)}")
    return {name: getattr(env, name) for name in names} | {"num_envs": getattr(env, "num_envs", None)}


# --- reading what an environment returns ----------------------------------------------------------------------------


def repeats(env: Any) -> bool:
    """True if the environment promises the same episode for the same seed."""
    return all(map(_takes_seed, env.copies)) if isinstance(env, VectorEnv) else _takes_seed(env)


def _same_state(one: Any, other: Any) -> bool:
    """Whether two states of the global generators are the same."""
    same_numpy = all(np.array_equal(a, b) for a, b in zip(one[1], other[1], strict=True))
    return same_numpy and one[0] == other[0] and bool((one[2] == other[2]).all())


def _takes_seed(env: Any) -> bool:
    parameters = inspect.signature(env.reset).parameters.values()
    return any(p.name == "seed" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def reset(env: Any, seed: int | Sequence[int] | None) -> Any:
    """Reset `env` with `seed`; returns what it returned.

    An environment that takes no seed may still draw from the global generators of NumPy, Python or PyTorch: these are
    seeded in its stead, so that its episodes repeat too. (One that keeps a generator of its own and takes no seed
    cannot be repeated.)
    """
    with waiting_for("reset() of the environment"):
        return _reset(env, seed)


def _reset(env: Any, seed: int | Sequence[int] | None) -> Any:
    if seed is None:
        return env.reset()
    if _takes_seed(env):
        return env.reset(seed=seed)
    if np.size(seed) > 1:
        raise ValueError(
            f"reset(): expected to take seed, a list of {np.size(seed)}, one a copy; found no such argument"
        )
    seed_everything(int(np.ravel(seed)[0]))
    return env.reset()


def unpack_step(outcome: Any) -> tuple[Any, Any, Any, dict[str, Any]]:
    """What `step` returned, as (observations, rewards, dones, info). Raises ValueError if it is not that."""
    if not isinstance(outcome, (tuple, list)) or len(outcome) != 4:
        gymnasium = isinstance(outcome, (tuple, list)) and len(outcome) == 5
        hint = '; put "truncated" into info, and terminated | truncated into dones' if gymnasium else ""
        found = f"{len(outcome)} values" if isinstance(outcome, (tuple, list)) else f"a {type(outcome).__name__}"
        raise ValueError(f"step() must return observations, rewards, dones, info (4 values), found {found}{hint}")
    if not isinstance(outcome[3], dict):
        raise ValueError(f"info: step() must return a dictionary as its 4th value, found {describe(outcome[3])}")
    return tuple(outcome)


def as_array(name: str, value: Any, shape: tuple[int, ...], dtype: type | None = np.float32) -> np.ndarray:
    """`value` as an array of this shape and type (None: its own); lists and tensors are converted.

    It may be the very array that was given: who keeps it for longer makes a copy.

    Raises:
        ValueError: naming both shapes.
    """
    array = value if type(value) is np.ndarray else _converted(value)
    if array is None or array.shape != shape or array.dtype.kind not in "fiub":
        hint = ""
        if array is not None and array.shape == () and len(shape) == 1:
            hint = f"; give each of the {shape[0]} agents its own"
        elif isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], dict):
            hint = "; return the observations alone, without info"
        raise ValueError(f"{name}: expected numbers of shape {shape}, found {describe(value)}{hint}")
    return array if dtype is None else array.astype(dtype, copy=False)


def as_flags(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """`value` as booleans of this shape; 0 and 1 are booleans too. Raises ValueError for anything else."""
    array = as_array(name, value, shape, None)
    if array.dtype == bool:
        return array
    odd = (array != 0) & (array != 1)  # NaN among them
    if odd.any():
        where = [int(k) for k in np.argwhere(odd)[0]]
        raise ValueError(f"{name}: expected True or False, found {array[odd][0]} at {where}; return booleans")
    return array.astype(bool)


def as_truncated(info: dict[str, Any], shape: tuple[int, ...]) -> np.ndarray | bool:
    """info["truncated"] as booleans that broadcast to `shape`, (N,) or (E, N); absent means False."""
    for name in info:
        if name not in INFO and (meant := _meant(name)) and meant not in info:
            raise ValueError(f"info[{name!r}] is not read; rename it to {meant!r}, or leave it out")
    value = info.get("truncated", False)
    if value is False or value is True or value is None:
        return bool(value)
    found = np.shape(_converted(value))
    if found == ():
        return as_flags('info["truncated"]', value, ())
    if found == shape:
        return as_flags('info["truncated"]', value, shape)
    if len(shape) == 2 and found == shape[:1]:
        return as_flags('info["truncated"]', value, found)[:, None]  # (E,) -> (E, 1)
    one = f"one bool, ({shape[0]},) or {shape}" if len(shape) == 2 else f"one bool or {shape}"
    raise ValueError(f'info["truncated"]: expected {one}, found {describe(value)}')


@functools.cache
def _meant(name: Any) -> str | None:
    """Which name of INFO was meant by another one, if any."""
    return MEANT.get(name) or next(iter(difflib.get_close_matches(str(name), INFO, n=1, cutoff=0.85)), None)


def as_dictionary(info: dict[str, Any], name: str) -> dict[str, Any]:
    """info[name], where there is one; absent and None mean empty."""
    found = info.get(name)
    if found is not None and not isinstance(found, dict):
        raise ValueError(f"info[{name!r}]: expected a dictionary, found {describe(found)}; correct it, or leave it out")
    return found or {}


def as_metrics(info: dict[str, Any], copies: int | None) -> dict[str, np.ndarray]:
    """info["episode_metrics"] as float64 numbers, each of shape () or, of a stacked environment, (E,).

    Raises:
        ValueError: something else than numbers, or a name that a table uses for its own columns.
    """
    metrics = {}
    for name, value in as_dictionary(info, "episode_metrics").items():
        label, array = f"info['episode_metrics'][{name!r}]", _converted(value)
        if not isinstance(name, str) or name in RESERVED_METRICS or name.startswith("evaluation_"):
            reserved = ", ".join(RESERVED_METRICS)
            raise ValueError(f"{label}: the name is taken ({reserved}, evaluation_...); call the metric something else")
        if array is None or array.dtype.kind not in "fiub" or array.shape not in ((), (copies,)):
            wanted = "a number" if copies is None else f"numbers of shape ({copies},)"
            raise ValueError(f"{label}: expected {wanted}, found {describe(value)}; correct it, or leave it out")
        metrics[name] = array.astype(float)
    return metrics


def describe(value: Any) -> str:
    """A value in an error message: shape and type of an array, the beginning of anything else."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"shape {tuple(value.shape)} of {value.dtype}"
    array = _converted(value) if isinstance(value, (list, tuple)) else None
    if array is not None and array.dtype.kind in "fiub":
        return f"a {type(value).__name__} of shape {array.shape}"
    text = " ".join(repr(value).split())  # arrays print over several lines
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def _converted(value: Any) -> np.ndarray | None:
    try:
        return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, RuntimeError):  # ragged lists
        return None
