"""Small games with known answers, each a plain environment of the documented protocol: what a user would write.

Rewards are team rewards: every agent gets the same number, so `team_return` is N times the payoff. All take
`reset(seed)`; `VectorEnv([make] * E)` stacks them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

CLIMBING = ((11, -30, 0), (-30, 7, 0), (0, 6, 5))  # Claus and Boutilier 1998
ONE_SHOT = ((12, -0.1, -0.1), (-0.1, 0, 0), (-0.1, 0, 0))


def penalty(k: float) -> tuple[tuple[float, ...], ...]:
    """The penalty game (Claus and Boutilier 1998): two optima, and a punishment k for mixing them up."""
    return ((k, 0, 10), (0, 2, 0), (10, 0, k))


class Game:
    """What all games share: sizes, the step clock, and the arrays that the protocol asks for."""

    discrete_actions = True
    observation_space_size = 1
    action_space_size = 2
    num_agents = 2

    def reset(self, seed: int | None = None) -> np.ndarray:
        self.random = np.random.default_rng(seed)
        self.time = 0
        self.begin()
        return self.observe()

    def begin(self) -> None:
        """Draw what the episode needs."""

    def observe(self) -> np.ndarray:
        return np.ones((self.num_agents, self.observation_space_size), np.float32)

    def outcome(self, reward: float, done: bool, truncated: bool = False, **info: Any):
        self.time += 1
        rewards = np.full(self.num_agents, reward, np.float32)
        dones = np.full(self.num_agents, done or truncated)
        return self.observe(), rewards, dones, {"truncated": truncated, **info}


class MatrixGame(Game):
    """A team matrix game: agents choose a row, a column, ..., and share the payoff.

    Args:
        payoff: array with one axis an agent.
        steps: repetitions an episode; one-shot by default.
        cut: the last step truncates (the game would go on) instead of terminating.
    """

    def __init__(self, payoff: Any = CLIMBING, steps: int = 1, cut: bool = False):
        self.payoff, self.steps, self.cut = np.asarray(payoff, float), steps, cut
        self.num_agents, self.action_space_size = self.payoff.ndim, self.payoff.shape[0]

    def step(self, actions: np.ndarray):
        over = self.time + 1 >= self.steps
        return self.outcome(self.payoff[tuple(actions)], over and not self.cut, over and self.cut)


class TwoStepGame(Game):
    """The two-step game of the QMIX paper: agent 0 alone chooses between a safe 7 and a matrix whose best is 8."""

    PAYOFFS = {1: np.full((2, 2), 7.0), 2: np.array([[0.0, 1.0], [1.0, 8.0]])}
    observation_space_size = 3
    state_size = 3

    def begin(self) -> None:
        self.stage = 0

    def observe(self) -> np.ndarray:
        return np.tile(self.state(), (2, 1))

    def state(self) -> np.ndarray:
        return np.eye(3, dtype=np.float32)[self.stage]

    def step(self, actions: np.ndarray):
        if self.stage == 0:
            self.stage = 1 + int(actions[0])
            return self.outcome(0.0, done=False)
        return self.outcome(self.PAYOFFS[self.stage][tuple(actions)], done=True)


class ConstantReward(Game):
    """Reward 1 for ever, whatever is done. Cut by the clock its value is 1 / (1 - gamma); with an end it is less.

    Args:
        steps: length of an episode.
        terminates: the last step is an end, instead of a cut by the clock.
        discrete: kind of actions.
    """

    def __init__(self, steps: int = 10, terminates: bool = False, discrete: bool = True, num_agents: int = 2):
        self.steps, self.terminates, self.discrete_actions, self.num_agents = steps, terminates, discrete, num_agents

    def step(self, actions: np.ndarray):
        over = self.time + 1 >= self.steps
        return self.outcome(1.0, over and self.terminates, over and not self.terminates)


class GuessNumber(Game):
    """One step, continuous: every agent sees a number of its own and should say it. Reward -mean squared error <= 0.

    The optimum is 0; saying 0.5 whatever is seen brings -1/12.
    """

    discrete_actions = False
    action_space_size = 1

    def __init__(self, num_agents: int = 2):
        self.num_agents = num_agents

    def begin(self) -> None:
        self.numbers = self.random.random((self.num_agents, 1)).astype(np.float32)

    def observe(self) -> np.ndarray:
        return self.numbers.copy()

    def step(self, actions: np.ndarray):
        error = float(np.mean((np.asarray(actions) - self.numbers) ** 2))
        metrics = {"squared_error": error, "number": float(self.numbers[0, 0])}
        return self.outcome(-error, done=True, episode_metrics=metrics)


class Remember(Game):
    """A cue for both agents in the first step alone, and many steps later the team is paid if both act on it.

    Without a memory nothing tells the cues apart any more: whatever both do then is right with probability 1/4. The
    optimum is 1. Agent i's own cue is a row of the observation; the last observation says that it is time to act.
    """

    observation_space_size = 3  # cue is -1, cue is +1, act now

    def __init__(self, wait: int = 4):
        self.wait = wait

    def begin(self) -> None:
        self.cues = self.random.integers(2, size=2)

    def observe(self) -> np.ndarray:
        seen = np.zeros((2, 3), np.float32)
        if self.time == 0:
            seen[np.arange(2), self.cues] = 1.0
        seen[:, 2] = self.time == self.wait
        return seen

    def step(self, actions: np.ndarray):
        over = self.time == self.wait
        return self.outcome(float(over and np.array_equal(actions, self.cues)), done=over)


class Leaving(Game):
    """Agents finish at different times, drawn at reset; the episode is over when the last one has.

    Observations count the steps: (time, steps of this agent). Each living agent gets its own reward 1 + its number;
    finished ones would get 100, to show up in any sum that counts them. The last agent is cut by the clock.
    """

    observation_space_size = 2
    num_agents = 3

    def begin(self) -> None:
        self.lengths = self.random.integers(1, 7, size=self.num_agents)

    def observe(self) -> np.ndarray:
        return np.stack([np.full(self.num_agents, self.time), self.lengths], axis=1).astype(np.float32)

    def step(self, actions: np.ndarray):
        rewards = np.where(self.time < self.lengths, 1.0 + np.arange(self.num_agents), 100.0)
        self.time += 1
        dones = self.time >= self.lengths
        truncated = dones & (np.arange(self.num_agents) == self.num_agents - 1)
        info: dict[str, Any] = {"truncated": truncated, "details": {"alive": ~dones}}
        if dones.all():
            info["episode_metrics"] = {"longest": float(self.lengths.max())}
        return self.observe(), rewards, dones, info

    def expected_return(self) -> float:
        """The team return of the episode that was drawn."""
        return float((self.lengths * (1.0 + np.arange(self.num_agents))).sum())


class Masked(Game):
    """Only one of three actions is legal at a time, a new one each step; an illegal one raises."""

    action_space_size = 3

    def begin(self) -> None:
        self.legal = self.random.integers(3, size=(6, self.num_agents))

    def action_masks(self) -> np.ndarray:
        return np.arange(3) == self.legal[self.time][:, None]

    def step(self, actions: np.ndarray):
        if not np.array_equal(actions, self.legal[self.time]):
            raise ValueError(f"illegal actions {actions}, legal are {self.legal[self.time]}")
        return self.outcome(1.0, done=False, truncated=self.time + 1 == 5)


class OldStyle:
    """Nothing but the documented minimum: no seed, no flags, plain lists; it draws from the global generators of NumPy
    and PyTorch."""

    num_agents = 2
    observation_space_size = 1
    action_space_size = 2

    def reset(self):
        self.time = 0
        return [[float(np.random.random())], [0.0]]

    def step(self, actions):
        self.time += 1
        over = self.time == 4
        return [[float(np.random.random())], [0.0]], [float(torch.rand(())), 0.0], [over, over], {}


class Drift:
    """Eight steps in a world of noise that the actions push: observations, so that every moment differs."""

    num_agents, observation_space_size, action_space_size = 2, 3, 2

    def __init__(self, kind: str = "discrete", masked: bool = False):
        self.discrete_actions = kind == "discrete"
        if masked:  # agent 0 is free, agent 1 seldom
            self.action_masks = lambda: np.array([[True, True], [self.time % 3 == 0, True]])

    def reset(self, seed=None):
        self.random, self.time = np.random.default_rng(seed), 0
        return self.random.normal(size=(2, 3)).astype(np.float32)

    def step(self, actions):
        self.time += 1
        pushed = float(np.sum(actions)) + self.random.normal(size=(2, 3)).astype(np.float32)
        over = np.full(2, self.time == 8)
        return pushed, pushed[:, 0], over, {"truncated": over}


class Lights:
    """Two agents see a light each and should name it; the episode knows what every answer would have cost."""

    num_agents, observation_space_size, action_space_size, discrete_actions = 2, 3, 3, True

    def reset(self, seed=None):
        self.random, self.costs = np.random.default_rng(seed), []
        return self.observe()

    def step(self, actions):
        wrong = 1.0 - np.eye(3)[self.light]  # (N, A)
        self.costs.append(wrong)
        rewards = -wrong[np.arange(2), actions]
        over = len(self.costs) == 5
        info = {"truncated": over, **({"consequences": np.array(self.costs)} if over else {})}
        return self.observe(), rewards, np.full(2, over), info

    def observe(self):
        self.light = self.random.integers(3, size=2)
        return np.eye(3, dtype=np.float32)[self.light]
