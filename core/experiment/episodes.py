"""E episodes side by side, from the reset to the end of the last one. Training and evaluation share this.

Here, and nowhere else, an environment's `dones` become `terminated` (nothing follows) and `truncated` (cut by the
clock), and it is decided who is still `active`. What cannot be true is refused at every step, not only in `check_env`.
Whatever is kept is a copy: an environment may go on writing into what it returned, and into the actions it was given.

Shapes: E environments, N agents, O observation, A action, S state.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from core.base_agent import Transition
from core.experiment.runs.waits import waiting_for
from core.experiment.vector_env import as_array, as_flags, as_metrics, as_truncated, reset, unpack_step

PATIENCE = 120.0  # seconds after which an episode that goes on is mentioned


class Episodes:
    """What is seen now, who is still active, and what each episode brought so far.

    Args:
        env: an environment with the axis E (see `as_stacked`).
        seeds: E seeds, one an episode.
        count: episodes that count, the first ones of the E; the others are never active. All by default.
        with_state: read `env.state()` too.
    """

    def __init__(self, env: Any, seeds: Sequence[int], count: int | None = None, with_state: bool = False):
        self.env, self.with_state = env, with_state
        self.shape = (env.num_envs, env.num_agents)
        active = np.zeros(self.shape, bool)
        active[:count] = True
        self._set_active(active)
        self.returns = np.zeros(env.num_envs)  # rewards summed over agents and time
        self.lengths = np.zeros(env.num_envs, int)  # steps
        self.metrics: list[dict[str, float]] = [{} for _ in range(env.num_envs)]
        self.mention_at = time.monotonic() + PATIENCE
        self.steps = 0  # the one under way counts: a message and `check_env` number steps from 1
        first = reset(env, [int(seed) for seed in seeds])
        self.observations = self._checked("observations of reset()", first, (*self.shape, env.observation_space_size))
        self.states, self.masks = self._extras(active)

    def _set_active(self, active: np.ndarray) -> None:
        """Who is active, (E, N), and what follows from it; it changes seldom, so it is not worked out every step."""
        self.active, self.alive = active, active.any(axis=1)  # (E, N), (E,)
        self.running = int(np.count_nonzero(self.alive))  # episodes that are not over
        self.everybody = bool(active.all())

    @contextmanager
    def told_where(self, what: str) -> Iterator[None]:
        """Put the number of the step before whatever is refused inside."""
        try:
            yield
        except ValueError as error:
            raise ValueError(f"{what}, step {self.steps}: {error}") from error

    def step(self, actions: np.ndarray) -> tuple[Transition, dict[str, Any]]:
        """Take one step with the actions (E, N) or (E, N, A). Returns what happened, and the environment's info."""
        self.steps += 1
        if self.steps % 16 == 0 and time.monotonic() > self.mention_at:
            self.mention_at = math.inf  # once
            found = f"step {self.steps} and no end: {self.running} episodes wait for their dones or truncated"
            warnings.warn(f"{found}; stop with Ctrl-C if that cannot be", stacklevel=3)
        observations, rewards, dones, info = self._answer(actions)
        before, active, alive = (self.observations, self.states, self.masks), self.active, self.alive
        self.observations = self._checked("observations", observations, before[0].shape)
        if not self.everybody:  # whatever an environment pays to those who have finished
            paid = as_array("rewards", rewards, self.shape)
            rewards = np.where(active, paid, np.float32(0.0))
            self._mention_unearned(paid)
        rewards = self._checked("rewards", rewards, self.shape)
        # Only who was active can end. A clock that says "truncated" ends the episode even if dones does not.
        truncated = active & as_truncated(info, self.shape)
        terminated = active & as_flags("dones", dones, self.shape) & ~truncated
        ended = terminated | truncated
        self.states, self.masks = self._extras(active & ~ended)
        self.returns += rewards.sum(axis=1, dtype=float)
        self.lengths += alive
        if ended.any():
            self._set_active(active & ~ended)
            self._read_metrics(info, np.flatnonzero(alive & ~self.alive))
        transition = Transition(
            observations=before[0],
            actions=actions,
            rewards=rewards,
            next_observations=self.observations,
            terminated=terminated,
            truncated=truncated,
            active=active,
            states=before[1],
            next_states=self.states,
            action_masks=before[2],
            next_action_masks=self.masks,
            consequences=self._consequences(info),
        )
        return transition, info

    def _answer(self, actions: np.ndarray) -> tuple[Any, Any, Any, dict[str, Any]]:
        with waiting_for("step {} of the environment", self.steps):
            return unpack_step(self.env.step(np.array(actions)))

    def _extras(self, active: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        """states (E, S) and action masks (E, N, A), where they are used. Who is `active` (E, N) must have a choice."""
        env, states, masks = self.env, None, None
        if self.with_state:
            states = self._checked("state()", env.state(), (self.shape[0], env.state_size))
        if hasattr(env, "action_masks"):
            masks = as_flags("action_masks()", env.action_masks(), (*self.shape, env.action_space_size))
            stuck = ~masks.any(axis=-1)
            if (stuck & active).any():
                where = [int(k) for k in np.argwhere(stuck & active)[0]]
                raise ValueError(
                    f"action_masks(): expected a legal action for every agent, found none at {where}; let an agent "
                    "that can do nothing have one action that does nothing"
                )
            masks = masks | stuck[..., None]  # a copy. Who has finished may have no choice, so that any is as good
        return states, masks

    def _consequences(self, info: dict[str, Any]) -> np.ndarray | None:
        """What every action of the episodes did, (E, T, N, A), where the environment reckons it. NaN: no choice."""
        if "consequences" not in info:
            return None
        found, (copies, agents) = np.asarray(info["consequences"], dtype=np.float32), self.shape
        expected = (copies, self.steps, agents, self.env.action_space_size)
        if found.shape != expected:
            raise ValueError(
                f"info['consequences']: expected (environments, steps, agents, actions) {expected}, found "
                f"{found.shape}; hand it over once, at the step at which all episodes end"
            )
        if np.isinf(found).any():
            raise ValueError(
                "info['consequences']: an infinite cost was found; give finite costs, NaN without a choice"
            )
        return found

    def _mention_unearned(self, paid: np.ndarray) -> None:
        """Say that a reward is left out, if it came after its agent's end while others of the episode go on."""
        if (paid[self.alive] != 0.0)[~self.active[self.alive]].any():
            warnings.warn("rewards of agents that have finished are not counted; pay them before", stacklevel=4)

    def _checked(self, name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
        array = np.array(as_array(name, value, shape))
        # A sum is finite unless an entry is not (or it overflows): the cheap look before the exact one.
        if not math.isfinite(array.sum()) and not np.isfinite(array).all():
            where = tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0])
            raise ValueError(f"{name}{list(where)} is {array[where]}; the environment must return finite numbers")
        return array

    def _read_metrics(self, info: dict[str, Any], ended: np.ndarray) -> None:
        for name, values in as_metrics(info, self.shape[0]).items():
            values = np.broadcast_to(values, self.shape[:1])  # one number, or (E,)
            for e in ended:
                self.metrics[e][name] = float(values[e])
