"""Public tasks with this repository's protocol: level-based foraging, and two worlds of particles.

Foraging wraps the public package, copy by copy. The particle worlds are written out for E copies side by side, since
the public package (mpe2) takes most of a training's time: the same seed and the same actions give its observations and
rewards, which tests/test_public_worlds.py holds.

Shapes: E copies, N agents, O observation.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np


class Foraging:
    """Level-based foraging, one copy: the return of an episode is 1 if all food was taken.

    All agents are paid the mean of what the agents earn (peers pay the sum). `stands_still` is 1 for an episode that
    was cut while the last step had changed nothing.
    """

    discrete_actions = True

    def __init__(self, name: str):
        import gymnasium
        import lbforaging  # noqa: F401, registers its tasks

        self.env = gymnasium.make(name).unwrapped
        self.num_agents = len(self.env.action_space)
        self.observation_space_size = self.env.observation_space[0].shape[0]
        self.action_space_size = int(self.env.action_space[0].n)

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Begin an episode -> observations (N, O)."""
        for player in self.env.players:
            player.position = None  # else nobody is put where somebody stood at the end of the episode before
        self.seen = np.stack(self.env.reset(seed=seed)[0])
        return self.seen

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take one step with the actions (N,). The task ends with the last food; the clock, after 50 steps, cuts it."""
        before, (observed, rewards, over, _, _) = self.seen, self.env.step(actions.tolist())
        self.seen, left = np.stack(observed), bool(self.env.field.any())
        paid, info = np.full(self.num_agents, np.mean(rewards), np.float32), {"truncated": over and left}
        if over:
            info["episode_metrics"] = {"stands_still": float(left and np.array_equal(before, self.seen))}
        return self.seen, paid, np.full(self.num_agents, over), info


class ParticleWorld:
    """Agents that push themselves over a plane, at landmarks that do not move (Lowe et al. 2017; constants of mpe2).

    Args:
        num_envs: copies E; arrays have a leading E.
    """

    discrete_actions = True
    action_space_size = 5  # stay, left, right, down, up
    horizon = 25  # steps of an episode, which the clock cuts
    movers: slice = slice(None)  # which agents move

    def __init__(self, num_envs: int = 1):
        self.num_envs = num_envs

    def reset(self, seed: int | Sequence[int] | None = None) -> np.ndarray:
        """Begin an episode in every copy -> observations (E, N, O). An int s seeds the copies s, ..., s + E - 1."""
        seeds = [seed + e for e in range(self.num_envs)] if isinstance(seed, (int, np.integer)) else seed
        self.period = 0
        self.draw([np.random.default_rng(s) for s in seeds or [None] * self.num_envs])
        self.velocities = np.zeros_like(self.positions)
        return self.observe()

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Actions (E, N) -> observations (E, N, O), rewards (E, N), dones (E, N), info."""
        self.hear(actions)
        force = PUSHES[actions[:, self.movers]] + self.contacts()  # (E, movers, 2), of unit masses
        self.positions = self.positions + TICK * self.velocities
        self.velocities = (1 - DAMPING) * self.velocities + TICK * force
        self.period += 1
        over = np.full((self.num_envs, self.num_agents), self.period >= self.horizon)
        return self.observe(), self.rewards(), over, {"truncated": over}

    def rule(self, observations: np.ndarray) -> np.ndarray:
        """Actions (E, N) of a rule that sees everything: along the axis on which the goal is missed by more."""
        missed = self.goals() - self.positions - TICK / DAMPING * self.velocities  # where each would glide to a halt
        axis = np.abs(missed).argmax(axis=-1)  # (E, movers)
        by = np.take_along_axis(missed, axis[..., None], axis=-1)[..., 0]
        actions = np.zeros((self.num_envs, self.num_agents), int)
        actions[:, self.movers] = np.where(np.abs(by) < NEAR, 0, 1 + 2 * axis + (by > 0))
        return actions

    def hear(self, actions: np.ndarray) -> None:
        """What the actions say to others."""

    def contacts(self) -> np.ndarray | float:
        """Forces between agents that touch, (E, movers, 2)."""
        return 0.0


TICK, DAMPING, CONTACT, MARGIN = 0.1, 0.25, 100.0, 1e-3
PUSHES = 5.0 * np.array([[0.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
NEAR = 0.05  # a rule pushes no more; the best of four on episodes that are not reported
OTHERS = np.array([[1, 2], [0, 2], [0, 1]])  # of each of three agents
ASSIGNMENTS = np.array(list(itertools.permutations(range(3))))


class Spread(ParticleWorld):
    """simple_spread: three agents shall stand at three landmarks, whoever at which, without touching.

    Rewards as mpe2 pays by default: half the sum over landmarks of minus the distance of the nearest agent, and minus
    a half for everybody one touches.
    """

    num_agents, observation_space_size = 3, 18
    touching = 0.3  # distance of two centres

    def draw(self, rngs: Sequence[np.random.Generator]) -> None:
        places = np.stack([rng.uniform(-1.0, 1.0, (6, 2)) for rng in rngs])  # (E, 6, 2)
        self.positions, self.landmarks = places[:, :3], places[:, 3:]

    def goals(self) -> np.ndarray:
        """A landmark for each (E, N, 2): the assignment with the shortest way in all."""
        away = np.linalg.norm(self.landmarks[:, None] - self.positions[:, :, None], axis=-1)  # (E, N, landmarks)
        shortest = away[:, np.arange(3), ASSIGNMENTS].sum(axis=-1).argmin(axis=1)  # (E,)
        return np.take_along_axis(self.landmarks, ASSIGNMENTS[shortest][..., None], axis=1)

    def apart(self) -> tuple[np.ndarray, np.ndarray]:
        """From the two others to each agent (E, N, 2, 2), and how far it is (E, N, 2)."""
        apart = self.positions[:, :, None] - self.positions[:, OTHERS]
        return apart, np.sqrt((apart**2).sum(axis=-1))

    def contacts(self) -> np.ndarray:
        apart, far = self.apart()
        depth = MARGIN * np.logaddexp(0.0, (self.touching - far) / MARGIN)  # a smooth max(0, overlap)
        return (CONTACT * (depth / far)[..., None] * apart).sum(axis=2)

    def rewards(self) -> np.ndarray:
        away = self.landmarks[:, :, None] - self.positions[:, None]  # (E, landmarks, N, 2)
        nearest = np.sqrt((away**2).sum(axis=-1)).min(axis=2).sum(axis=1)  # (E,)
        return -0.5 * (nearest[:, None] + (self.apart()[1] < self.touching).sum(axis=2))

    def observe(self) -> np.ndarray:
        """Own velocity and place, where landmarks and others are from here, and two words that nobody says."""
        landmarks = self.landmarks[:, None] - self.positions[:, :, None]  # (E, N, 3, 2)
        flat = (self.num_envs, self.num_agents, -1)
        parts = self.velocities, self.positions, landmarks.reshape(flat), -self.apart()[0].reshape(flat)
        return np.concatenate([*parts, np.zeros((*flat[:2], 4))], axis=-1, dtype=np.float32)


class SpeakerListener(ParticleWorld):
    """simple_speaker_listener: the speaker sees which of three landmarks is meant, the listener can go there.

    Both are paid minus the square of the listener's distance from it. The speaker's observation of 3 numbers is filled
    up with zeros, and 2 of its actions are masked.
    """

    num_agents, observation_space_size = 2, 11
    movers = slice(1, 2)
    colours = 0.15 + 0.5 * np.eye(3)  # by which the speaker knows the landmark

    def draw(self, rngs: Sequence[np.random.Generator]) -> None:
        self.meant = np.array([rng.integers(3) for rng in rngs])  # (E,)
        places = np.stack([rng.uniform(-1.0, 1.0, (5, 2)) for rng in rngs])  # the speaker's comes first
        self.positions, self.landmarks = places[:, 1:2], places[:, 2:]
        self.words = np.zeros((self.num_envs, 3))

    def goals(self) -> np.ndarray:
        """The landmark that is meant (E, 1, 2)."""
        return self.landmarks[np.arange(self.num_envs), self.meant][:, None]

    def action_masks(self) -> np.ndarray:
        legal = np.ones((self.num_envs, 2, 5), dtype=bool)
        legal[:, 0, 3:] = False
        return legal

    def hear(self, actions: np.ndarray) -> None:
        self.words = np.eye(3)[actions[:, 0]]

    def rewards(self) -> np.ndarray:
        return np.repeat(-((self.positions - self.goals()) ** 2).sum(axis=-1), 2, axis=1)  # (E, 2)

    def observe(self) -> np.ndarray:
        """The speaker: the colour. The listener: its velocity, where the landmarks are from here, the last word."""
        observations = np.zeros((self.num_envs, 2, 11), np.float32)
        observations[:, 0, :3] = self.colours[self.meant]
        landmarks = (self.landmarks - self.positions).reshape(self.num_envs, 6)
        observations[:, 1] = np.concatenate([self.velocities[:, 0], landmarks, self.words], axis=-1)
        return observations
