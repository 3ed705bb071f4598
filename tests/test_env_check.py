"""check_env: whatever breaks the protocol is refused with what was expected, what was found and what to do."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from games import ConstantReward, GuessNumber, Leaving, Masked, MatrixGame, OldStyle, TwoStepGame
from teams import make_team

from banking.environment import TransactionRoutingEnv
from core.experiment.env_check import check_env
from core.experiment.training import train
from core.experiment.vector_env import VectorEnv
from retail.environment import MultiWarehouseEnv

GAMES = [ConstantReward, GuessNumber, Leaving, Masked, MatrixGame, OldStyle, TwoStepGame]


@pytest.mark.parametrize("make", [*GAMES, MultiWarehouseEnv, TransactionRoutingEnv])
def test_sound_environments_pass_plain_and_stacked(make):
    check_env(make())
    check_env(VectorEnv([make] * 3))


@pytest.mark.parametrize("make", [MultiWarehouseEnv, TransactionRoutingEnv])
def test_both_demos_pass_natively_stacked(make):
    check_env(make(num_envs=4))


def test_the_environment_is_left_reset_and_the_global_generators_untouched():
    game = ConstantReward(steps=5)
    np.random.seed(0)
    random.seed(0)
    before = np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()
    check_env(OldStyle())
    check_env(game)
    assert np.array_equal(before[0], np.random.get_state()[1]) and before[1] == random.getstate()
    assert torch.equal(before[2], torch.get_rng_state())
    assert [bool(game.step([0, 0])[2].all()) for _ in range(5)] == [False] * 4 + [True]


def broken(base=ConstantReward, **changes):
    """A game in which one thing is wrong: an attribute, or what a method returns."""
    names = {name: staticmethod(value) if callable(value) else value for name, value in changes.items()}
    return type("Broken", (base,), names)


def changed_step(change, base=ConstantReward):
    """A game whose step returns `change(observations, rewards, dones, info)`."""
    return type("Broken", (base,), {"step": lambda self, actions: change(*base.step(self, actions))})


def without(name, **others):
    """The smallest environment, without one of its attributes."""
    attributes = {**vars(OldStyle), **others}
    del attributes[name], attributes["__dict__"]
    return type("Broken", (), attributes)


class Unrepeatable(ConstantReward):
    """Takes a seed and ignores it."""

    stream = np.random.default_rng(0)

    def observe(self):
        return self.stream.random((2, 1), dtype=np.float32)


class NothingLegal(Masked):
    def action_masks(self):
        return super().action_masks() & np.array([[True], [False]])


class RaisesInStep(ConstantReward):
    def step(self, actions):
        raise IndexError("too many indices")


FULL = np.ones((2, 1), np.float32)
BROKEN = {
    "no num_agents": (without("num_agents"), "num_agents: expected an attribute"),
    "no observation size": (without("observation_space_size"), "observation_space_size: expected an attribute"),
    "no action size": (without("action_space_size"), "action_space_size: expected an attribute"),
    "no reset": (without("reset"), r"reset\(\): expected a method"),
    "no step": (without("step"), r"step\(\): expected a method"),
    "fractional size": (broken(observation_space_size=1.5), "integer of at least 1, found float 1.5"),
    "zero actions": (broken(action_space_size=0), "action_space_size: expected an integer of at least 1, found int 0"),
    "kind as text": (broken(MatrixGame, discrete_actions="yes"), "discrete_actions: expected True or False"),
    "num_envs of zero": (broken(num_envs=0), "num_envs: expected None or an integer"),
    "negative state": (broken(state_size=-1), "state_size: expected an integer of at least 0"),
    "state without method": (broken(state_size=3), r"state\(\): expected a method, since state_size is 3"),
    "state too short": (broken(TwoStepGame, state_size=4), r"state\(\) .* shape \(4,\), found shape \(3,\)"),
    "gymnasium's reset": (broken(reset=lambda seed=None: (FULL, {})), r"shape \(2, 1\).*without info"),
    "observations of text": (broken(reset=lambda seed=None: [["a"], ["b"]]), "expected numbers of shape"),
    "ragged observations": (broken(reset=lambda seed=None: [[1.0], [1.0, 2.0]]), "expected numbers of shape"),
    "transposed observations": (broken(reset=lambda seed=None: FULL.T), r"found shape \(1, 2\) of float32"),
    "nothing observed": (broken(reset=lambda seed=None: None), "expected numbers of shape .* found NoneType None"),
    "infinite observations": (broken(reset=lambda seed=None: FULL / 0), r"observations of reset\(\): .*found inf at"),
    "gymnasium's step": (changed_step(lambda o, r, d, i: (o, r, d, d, i)), r"found 5 values.*info.*truncated"),
    "nothing returned": (changed_step(lambda o, r, d, i: None), "must return observations, rewards, dones, info"),
    "info missing": (changed_step(lambda o, r, d, i: (o, r, d, None)), "info: .*dictionary.*found NoneType"),
    "nan later": (changed_step(lambda o, r, d, i: (o * np.nan, r, d, i)), "observations at step 1: .*found nan at"),
    "one reward": (changed_step(lambda o, r, d, i: (o, 1.0, d, i)), "rewards at step 1: .*give each of the 2 agents"),
    "rewards of three": (changed_step(lambda o, r, d, i: (o, [1, 2, 3], d, i)), r"found a list of shape \(3,\)"),
    "nan reward": (changed_step(lambda o, r, d, i: (o, r * np.nan, d, i)), "rewards at step 1: expected finite"),
    "one done": (changed_step(lambda o, r, d, i: (o, r, False, i)), "dones at step 1: .*give each of the 2 agents"),
    "dones of 0.5": (changed_step(lambda o, r, d, i: (o, r, d + 0.5, i)), "dones at step 1: expected True or False"),
    "dones of text": (changed_step(lambda o, r, d, i: (o, r, ["no", "no"], i)), "dones at step 1: expected numbers"),
    "truncated of three": (changed_step(lambda o, r, d, i: (o, r, d, {"truncated": [0, 0, 1]})), r"one bool or \(2,\)"),
    "metrics as a list": (changed_step(lambda o, r, d, i: (o, r, d, {"episode_metrics": 1})), "expected a dictionary"),
    "metric of text": (
        changed_step(lambda o, r, d, i: (o, r, d, {"episode_metrics": {"cost": "low"}})),
        r"\['cost'\]: expected a number, found str 'low'",
    ),
    "masks of integers": (broken(Masked, action_masks=lambda: np.ones((2, 3), int)), "booleans of shape"),
    "masks too narrow": (broken(Masked, action_masks=lambda: np.ones((2, 2), bool)), r"shape \(2, 3\), found"),
    "nothing legal": (NothingLegal, r"a legal action for every agent, found none at \[1\]"),
    "wrong kind of actions": (broken(MatrixGame, discrete_actions=False), "to take floats.* found IndexError"),
    "step raises": (RaisesInStep, "found IndexError: too many indices"),
    "a class": (lambda: MatrixGame, "expected an environment, found the class MatrixGame; build one"),
    "other name of masks": (broken(Masked, action_masks=None, action_mask=lambda: 0), r"action_masks\(\): .*a method"),
    "near name of masks": (broken(action_mask=lambda: np.ones((2, 2), bool)), "only 'action_mask', which is not read"),
    "SMAC's name of masks": (broken(get_avail_actions=lambda: 0), "only 'get_avail_actions', which is not read"),
    "near name of copies": (broken(n_envs=4), "num_envs: .*only 'n_envs'"),
    "near name of agents": (without("num_agents", n_agents=2), "num_agents: .*found n_agents"),
    "gymnasium's truncation": (
        changed_step(lambda o, r, d, i: (o, r, d, {"TimeLimit.truncated": True})),
        r"info\['TimeLimit.truncated'\] is not read; rename it to 'truncated'",
    ),
    "near name of metrics": (changed_step(lambda o, r, d, i: (o, r, d, {"episode_metric": {}})), "'episode_metrics'"),
    "metric of a taken name": (
        changed_step(lambda o, r, d, i: (o, r, d, {"episode_metrics": {"length": 3.0}})),
        r"\['length'\]: the name is taken",
    ),
    "dones of nan": (changed_step(lambda o, r, d, i: (o, r, d * np.nan, i)), "dones at step 1: .*found nan"),
    "truncated of nan": (changed_step(lambda o, r, d, i: (o, r, d, {"truncated": np.nan})), "True or False, found nan"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_broken_promise_is_refused_by_name(case):
    make, complaint = BROKEN[case]
    with pytest.raises(ValueError, match=complaint):
        check_env(make())


def test_a_seed_that_is_not_honoured_is_mentioned_and_the_training_goes_on():
    class LateLuck(ConstantReward):
        """Honours its seed at the reset and forgets it afterwards."""

        def observe(self):
            return np.full((2, 1), self.time and Unrepeatable.stream.random(), np.float32)

    for make in (Unrepeatable, LateLuck):
        with pytest.warns(UserWarning, match="same seed gave two different episodes.*a resumed training is not"):
            check_env(make())
        with pytest.warns(UserWarning, match="same seed gave two different episodes"):
            train(make(), make_team("mappo", state_dim=1), 2, progress=False)


def test_observations_that_are_bytes_are_mentioned():
    camera = broken(observe=lambda: np.full((2, 1), 200, np.uint8))
    for env in (camera(), VectorEnv([camera] * 2)):
        with pytest.warns(UserWarning, match="bytes, 0 to 255, as in images; return them divided by 255"):
            check_env(env)


@pytest.mark.parametrize(
    ("team", "complaint"),
    [
        (dict(num_agents=3), "agents.num_agents: expected 2, as in the environment, found 3"),
        (dict(state_dim=4), "agents.state_dim: expected 3, as in the environment, found 4"),
        (dict(action_dim=5), "agents.action_dim: expected 2, as in the environment, found 5"),
        (dict(kind="continuous"), r"expected 'discrete', since env.discrete_actions is True, found 'continuous'"),
        (dict(state_size=2), r"config\['state_size'\]: expected 3 \(the environment's\), or 0"),
    ],
)
def test_agents_that_do_not_fit_are_refused(team, complaint):
    check_env(TwoStepGame(), make_team("qmix"))
    check_env(TwoStepGame(), make_team("qmix", state_size=3))
    with pytest.raises(ValueError, match=complaint):
        check_env(TwoStepGame(), make_team("qmix", **team))


def test_a_state_that_is_asked_for_but_missing_is_refused():
    with pytest.raises(ValueError, match="expected 0: it has no state"):
        check_env(MatrixGame(), make_team("qmix", state_dim=1, action_dim=3, state_size=2))
