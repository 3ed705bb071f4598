"""What an environment must keep to, checked before every training.

A broken environment rarely stops a training; it makes it learn something else. So each promise of the protocol is tried
out for a few steps, and the first that is broken is refused, with what was expected, what was found and what to do.
What is cheap to look at, `Episodes` looks at in every later step too.

Shapes: E environments (absent if `num_envs` is), N agents, O observation, A action, S state.
"""

from __future__ import annotations

import difflib
import warnings
from typing import Any

import numpy as np

from core.base_agent import AgentTeam, as_team
from core.experiment.runs.seeds import global_generators_kept
from core.experiment.runs.waits import waiting_for
from core.experiment.vector_env import (
    VectorEnv,
    as_array,
    as_dictionary,
    as_flags,
    as_metrics,
    as_truncated,
    describe,
    repeats,
    reset,
    unpack_step,
)

STEPS = 20  # tried out at most; an episode may end before
SEED = 7  # of the trial; any would do
OPTIONAL = ("action_masks", "state_size", "num_envs", "discrete_actions")
# What other libraries call them. An environment that uses such a name would be trained without what it means.
MEANT = dict.fromkeys(("get_action_masks", "get_action_mask", "get_avail_actions", "available_actions"), "action_masks")
MEANT |= {"n_envs": "num_envs", "is_discrete": "discrete_actions"}


def check_env(env: Any, agents: Any = None) -> None:
    """Refuse an environment that breaks the protocol, or that the agents do not fit.

    The environment is stepped with random legal actions, twice with the same seed, and reset at the end. The global
    generators of NumPy, Python and PyTorch stay as they were. A warning says so where the same seed does not give the
    same episode, and where observations look like images of 0 to 255.

    Args:
        env: plain, or stacked with `num_envs`.
        agents: a team or list of agents that shall act in it; without them only the environment is checked.

    Raises:
        ValueError: naming what was expected, what was found, and what to do.
    """
    with global_generators_kept():
        _check_attributes(env)
        team = None if agents is None else as_team(agents)
        if team is not None:
            _check_team(env, team)
        _mention_images(env)
        _mention_other_episodes(env, _check_steps(env, team), _check_steps(env, team))
        reset(env, None)


def _check_attributes(env: Any) -> None:
    if isinstance(env, type):
        raise _broken("env", "an environment", f"the class {env.__name__}", f"build one: {env.__name__}(...)")
    for name in ("num_agents", "observation_space_size", "action_space_size"):
        if not hasattr(env, name):
            close = difflib.get_close_matches(name, dir(env), n=1, cutoff=0.7)
            raise _broken(name, "an attribute of the environment", close[0] if close else "none", "set it in __init__")
        if not _whole(getattr(env, name), 1):
            raise _broken(name, "an integer of at least 1", describe(getattr(env, name)), "correct it")
    for name in ("reset", "step"):
        if not callable(getattr(env, name, None)):
            raise _broken(f"{name}()", "a method of the environment", "none", "add it")
    flag, copies, size = _optional(env)
    if not isinstance(flag, (bool, np.bool_, type(None))):
        raise _broken("discrete_actions", "True or False", describe(flag), "correct it, or leave it out")
    if copies is not None and not _whole(copies, 1):
        raise _broken("num_envs", "None or an integer of at least 1", describe(copies), "correct it, or leave it out")
    if not _whole(size, 0):
        raise _broken("state_size", "an integer of at least 0", describe(size), "correct it, or leave it out")
    if size and not callable(getattr(env, "state", None)):
        raise _broken("state()", f"a method, since state_size is {size}", "none", "add it, or leave state_size out")
    if hasattr(env, "action_masks") and not callable(env.action_masks):
        raise _broken("action_masks()", "a method", describe(env.action_masks), "make it one")
    _check_names(_single(env))


def _check_names(env: Any) -> None:
    """Refuse a public name that was probably meant to be an optional one of the protocol."""
    for name in dir(env):
        meant = MEANT.get(name) or next(iter(difflib.get_close_matches(name, OPTIONAL, n=1, cutoff=0.9)), None)
        if not name.startswith("_") and meant and not hasattr(env, meant):
            raise _broken(meant, "the environment to have it or not", f"only {name!r}, which is not read", "rename it")


def _check_team(env: Any, team: AgentTeam) -> None:
    flag, _, size = _optional(env)
    sizes = (
        ("num_agents", team.num_agents, env.num_agents),
        ("state_dim", team.state_dim, env.observation_space_size),
        ("action_dim", team.action_dim, env.action_space_size),
    )
    for name, own, wanted in sizes:
        if own != wanted:
            raise _broken(f"agents.{name}", f"{wanted}, as in the environment", own, "create the agents with its sizes")
    if flag is not None and team.action_type != ("discrete" if flag else "continuous"):
        wanted = f"{'discrete' if flag else 'continuous'!r}, since env.discrete_actions is {flag}"
        raise _broken("agents.action_type", wanted, repr(team.action_type), "set config['action_type']")
    if team.config.state_size not in (0, size):
        wanted = f"{size} (the environment's), or 0 to leave state() unused" if size else "0: it has no state()"
        raise _broken("config['state_size']", wanted, team.config.state_size, "correct it")


def _mention_images(env: Any) -> None:
    single = _single(env)
    if getattr(reset(single, _seeds(single)), "dtype", None) == np.uint8:
        warnings.warn("observations are bytes, 0 to 255, as in images; return them divided by 255", stacklevel=3)


def _mention_other_episodes(env: Any, once: list[np.ndarray], again: list[np.ndarray]) -> None:
    """Say what is lost if the same seed and actions gave two different episodes."""
    pairs = zip(once, again, strict=False)
    same = len(once) == len(again) and all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)
    if repeats(env) and not same:
        warnings.warn(
            "reset(seed): the same seed gave two different episodes. So a resumed training is not the one that never "
            "stopped, and policies are compared on different luck; draw all randomness from "
            "np.random.default_rng(seed)",
            stacklevel=3,
        )


def _check_steps(env: Any, team: AgentTeam | None) -> list[np.ndarray]:
    """Returns all observations and rewards of the trial, copied."""
    shape, draw = _shape(env), np.random.default_rng(SEED)
    active = np.ones(shape, bool)
    seen = [_observations(env, reset(env, _seeds(env)), "of reset()").copy()]
    _check_extras(env, team, "after reset()")
    for step in range(1, STEPS + 1):
        when = f"at step {step}"
        with waiting_for("step {} of the environment, which is tried out", step):
            observed, rewards, dones, info = unpack_step(_try_step(env, team, active, draw, when))
        seen.append(_observations(env, observed, when).copy())
        rewards = as_array(f"rewards {when}", rewards, shape)
        _require_finite(f"rewards {when}", np.where(active, rewards, 0.0))
        seen.append(rewards.copy())
        flags = as_flags(f"environment check: dones {when}", dones, shape)
        as_metrics(info, _optional(env)[1])
        as_dictionary(info, "details")
        active = active & ~(flags | as_truncated(info, shape))
        _check_extras(env, team, when)
        if not active.any():
            break
    return seen


def _extras(env: Any, team: AgentTeam | None) -> dict[str, Any]:
    """What state() and action_masks() return, where there are any and they will be used."""
    has_state = _optional(env)[2] and (team is None or team.config.state_size)
    found = {"state()": env.state()} if has_state else {}
    return found | ({"action_masks()": env.action_masks()} if hasattr(env, "action_masks") else {})


def _check_extras(env: Any, team: AgentTeam | None, when: str) -> None:
    shape, found = _shape(env), _extras(env, team)
    if "state()" in found:
        size = (*shape[:-1], _optional(env)[2])
        _require_finite(f"state() {when}", as_array(f"state() {when}", found["state()"], size))
    if "action_masks()" in found:
        masks, wanted = np.asarray(found["action_masks()"]), (*shape, env.action_space_size)
        if masks.shape != wanted or masks.dtype != bool:
            expected = f"booleans of shape {wanted}"
            raise _broken(f"action_masks() {when}", expected, describe(masks), "return one row of choices an agent")


def _try_step(env: Any, team: AgentTeam | None, active: np.ndarray, draw: np.random.Generator, when: str) -> Any:
    """Step with random legal actions, of the kind that the environment or the team names."""
    shape, size = active.shape, env.action_space_size
    discrete = _optional(env)[0]
    if discrete is None and team is not None:
        discrete = team.action_type == "discrete"
    masks = np.asarray(env.action_masks()) if hasattr(env, "action_masks") else np.ones((*shape, size), bool)
    if not masks[active].any(axis=-1).all():
        where = np.argwhere(active & ~masks.any(axis=-1))[0].tolist()
        remedy = "let an agent that can do nothing have one action that does nothing"
        raise _broken(f"action_masks() {when}", "a legal action for every agent", f"none at {where}", remedy)
    integers = (draw.random((*shape, size)) * masks).argmax(axis=-1)  # (..., N)
    floats = draw.random((*shape, size), dtype=np.float32)  # (..., N, A)
    if discrete is None:  # nobody says: one of the two kinds must do
        try:
            return env.step(integers)
        except Exception:
            reset(env, _seeds(env))
            return env.step(floats)
    actions = integers if discrete else floats
    try:
        return env.step(actions)
    except Exception as error:
        kind = f"integers from 0 to {size - 1}" if discrete else "floats in [0, 1]"
        remedy = "correct step(), discrete_actions or action_space_size"
        wanted = f"to take {kind} of shape {actions.shape}"
        raise _broken(f"step() {when}", wanted, f"{type(error).__name__}: {error}", remedy) from error


def _observations(env: Any, value: Any, when: str) -> np.ndarray:
    observations = as_array(f"observations {when}", value, (*_shape(env), env.observation_space_size))
    _require_finite(f"observations {when}", observations)
    return observations


def _require_finite(name: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        where = tuple(int(k) for k in np.argwhere(~np.isfinite(values))[0])
        raise _broken(name, "finite numbers", f"{values[where]} at {list(where)}", "look for a division by zero")


def _single(env: Any) -> Any:
    """The first copy as its maker built it; of any other environment, itself."""
    return env.copies[0] if isinstance(env, VectorEnv) else env


def _optional(env: Any) -> tuple[Any, Any, Any]:
    """discrete_actions, num_envs and state_size, or what their absence means."""
    return getattr(env, "discrete_actions", None), getattr(env, "num_envs", None), getattr(env, "state_size", 0)


def _shape(env: Any) -> tuple[int, ...]:
    """(N,), or (E, N) of a stacked environment."""
    copies = _optional(env)[1]
    return (env.num_agents,) if copies is None else (copies, env.num_agents)


def _seeds(env: Any) -> int | list[int]:
    copies = _optional(env)[1]
    return SEED if copies is None else [SEED + e for e in range(copies)]


def _whole(value: Any, low: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_)) and value >= low


def _broken(name: str, expected: str, found: Any, remedy: str) -> ValueError:
    return ValueError(f"environment check: {name}: expected {expected}, found {found}; {remedy}")
