"""VectorEnv: E copies of a user's environment behave exactly like E environments."""

from __future__ import annotations

import numpy as np
import pytest
from games import GuessNumber, Leaving, Masked, MatrixGame, OldStyle, TwoStepGame

from core.experiment.vector_env import VectorEnv, as_stacked, reset
from retail.environment import MultiWarehouseEnv

ONE_GAME = MatrixGame()


def play(env, seed):
    """Every array of one round of random play, the finished copies included."""
    rng, rounds = np.random.default_rng(3), []
    observations, done = env.reset(seed=seed), np.zeros(1, bool)
    while not done.all():
        actions = rng.integers(2, size=(env.num_envs, env.num_agents))
        observations, rewards, done, info = env.step(actions)
        rounds.append((observations, rewards, done, info))
    return rounds


def test_a_copy_that_is_seeded_k_is_the_single_environment_seeded_k():
    stacked, single = VectorEnv([Leaving] * 4), Leaving()
    first = stacked.reset(seed=20)
    for e in range(4):
        assert np.array_equal(first[e], single.reset(seed=20 + e))
    assert np.array_equal(stacked.reset(seed=[5, 9, 5, 7])[1], single.reset(seed=9))


def test_stacked_copies_equal_a_natively_stacked_environment():
    native, copies = MultiWarehouseEnv(num_envs=3), VectorEnv([MultiWarehouseEnv] * 3)
    assert np.array_equal(native.reset(seed=11), copies.reset(seed=11))
    rng = np.random.default_rng(0)
    for _ in range(30):
        actions = rng.random((3, 5, 1), dtype=np.float32)
        ours, theirs = copies.step(actions), native.step(actions)
        for mine, other in zip(ours[:3], theirs[:3], strict=True):
            assert np.array_equal(mine, other) and mine.dtype == other.dtype
        for name, values in theirs[3]["details"].items():
            assert np.array_equal(ours[3]["details"][name], values), name
    assert ours[3]["truncated"].all()
    for name, values in theirs[3]["episode_metrics"].items():
        assert np.array_equal(ours[3]["episode_metrics"][name], values), name


def test_a_finished_copy_is_frozen_until_the_next_reset():
    env = VectorEnv([Leaving] * 5)
    env.reset(seed=0)
    ends = [int(copy.lengths.max()) for copy in env.copies]
    assert len(set(ends)) > 1, "the test needs episodes of different lengths"
    rounds = play(env, seed=0)
    assert len(rounds) == max(ends)
    for e, end in enumerate(ends):
        assert env.copies[e].time == end, "a finished copy was stepped"
        for observations, rewards, done, _ in rounds[end:]:
            assert np.array_equal(observations[e], rounds[end - 1][0][e])
            assert not rewards[e].any() and done[e].all()


def test_metrics_arrive_when_an_episode_ends_and_nan_stands_elsewhere():
    env = VectorEnv([Leaving] * 5)
    rounds = play(env, seed=0)
    found = {}
    for step, (*_, info) in enumerate(rounds, start=1):
        values = info.get("episode_metrics", {}).get("longest", np.full(5, np.nan))
        found |= {e: (step, values[e]) for e in np.flatnonzero(~np.isnan(values))}
    assert found == {e: (int(copy.lengths.max()), copy.lengths.max()) for e, copy in enumerate(env.copies)}


def test_state_and_masks_are_stacked_where_the_copies_have_them():
    two_step, masked = VectorEnv([TwoStepGame] * 3), VectorEnv([Masked] * 2)
    two_step.reset(seed=0)
    two_step.step(np.array([[0, 0], [1, 0], [0, 1]]))
    assert two_step.state_size == 3 and two_step.state().argmax(axis=1).tolist() == [1, 2, 1]
    masked.reset(seed=0)
    assert masked.action_masks().shape == (2, 2, 3) and masked.action_masks().dtype == bool
    assert not hasattr(masked, "state") and not hasattr(two_step, "action_masks")


def test_a_plain_environment_gets_the_axis_and_a_stacked_one_keeps_its_own():
    native = MultiWarehouseEnv(num_envs=2)
    assert as_stacked(native) is native
    stacked = as_stacked(GuessNumber())
    assert stacked.num_envs == 1 and stacked.discrete_actions is False
    assert stacked.reset(seed=4).shape == (1, 2, 1)
    assert stacked.step(np.full((1, 2, 1), 0.5))[1].shape == (1, 2)


def test_an_environment_of_lists_and_without_a_seed_is_converted_and_repeats():
    env = VectorEnv([OldStyle] * 2)
    first, again = reset(env, [3, 4]), None
    step = env.step(np.zeros((2, 2), int))
    again = reset(env, [3, 4])
    assert first.dtype == np.float32 and np.array_equal(first, again)
    assert [array.dtype for array in step[:3]] == [np.float32, np.float32, bool] and env.discrete_actions is None
    assert all(np.array_equal(a, b) for a, b in zip(step[:3], env.step(np.zeros((2, 2), int))[:3], strict=True))


def test_returned_arrays_are_not_overwritten_later():
    env = VectorEnv([Leaving] * 2)
    first = env.reset(seed=1)
    kept = first.copy()
    second = env.step(np.zeros((2, 3), int))[0]
    assert np.array_equal(first, kept) and not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: VectorEnv([]), "at least one function"),
        (lambda: VectorEnv([lambda env=ONE_GAME: env] * 2), "same object twice"),
        (lambda: VectorEnv([MatrixGame, GuessNumber]), "copy 1 has"),
        (lambda: VectorEnv([lambda: MultiWarehouseEnv(num_envs=2)]), "num_envs=2 themselves"),
        (lambda: VectorEnv([object]), "no attribute 'num_agents'"),
        (lambda: VectorEnv([MatrixGame] * 2).reset(seed=[1]), "or 2 \\(one a copy\\), found 1"),
    ],
)
def test_what_cannot_be_stacked_is_refused(build, complaint):
    with pytest.raises(ValueError, match=complaint):
        build()


def test_a_broken_copy_is_named():
    class Short(Leaving):
        def observe(self):
            return super().observe()[:, :1] if self.time else super().observe()

    env = VectorEnv([Leaving, Short])
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"copy 1: observations: expected numbers of shape \(3, 2\), found .*\(3, 1\)"):
        env.step(np.zeros((2, 3), int))


def test_actions_for_the_wrong_number_of_copies_and_steps_after_the_end_are_refused():
    env = VectorEnv([MatrixGame] * 2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"expected shape \(2, 2, \.\.\.\), found \(3, 2\)"):
        env.step(np.zeros((3, 2), int))
    env.step(np.zeros((2, 2), int))
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(np.zeros((2, 2), int))
