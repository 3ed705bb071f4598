"""evaluate: greedy, on unseen episodes that are the same for every policy, without disturbing anybody."""

from __future__ import annotations

import random

import numpy as np
import pandas as pd
import pytest
import torch
from games import GuessNumber, Leaving, Masked, MatrixGame, OldStyle
from teams import make_team

from core.experiment.evaluation import (
    evaluate,
    half_width,
    record_episode,
    summarize,
)
from core.experiment.tuning import student_t_quantile
from core.experiment.vector_env import VectorEnv
from retail.environment import MultiWarehouseEnv


def half(observations):
    """Say 0.5, in any number of environments."""
    return np.full((*observations.shape[:-1], 1), 0.5)


def test_a_row_an_episode_with_its_seed_return_length_and_metrics():
    table = evaluate(GuessNumber(), half, 7)
    assert list(table.columns) == ["episode", "seed", "team_return", "length", "squared_error", "number"]
    assert table["number"].tolist() == [GuessNumber().reset(seed=seed)[0, 0] for seed in table["seed"]]
    assert table["seed"].tolist() == list(range(10_000, 10_007)) and (table["length"] == 1).all()
    expected = [np.mean((0.5 - GuessNumber().reset(seed=seed)) ** 2) for seed in table["seed"]]
    assert np.allclose(table["squared_error"], expected, atol=1e-6)
    assert np.allclose(table["team_return"], -2 * table["squared_error"], atol=1e-6), "summed over two agents"


def test_stacked_and_plain_environments_give_the_same_table():
    one_by_one = evaluate(GuessNumber(), half, 7)
    stacked = evaluate(VectorEnv([GuessNumber] * 3), half, 7)  # the last round has two episodes too many
    pd.testing.assert_frame_equal(one_by_one, stacked)


def test_every_policy_meets_the_same_episodes():
    seen: dict[str, list[np.ndarray]] = {"low": [], "high": []}

    def policy(name, order):
        def act(observations):
            seen[name].append(observations[..., 4].copy())  # last demand: chance alone
            return np.full((*observations.shape[:-1], 1), order)

        return act

    for name, order in (("low", 0.1), ("high", 0.9)):
        evaluate(MultiWarehouseEnv(num_envs=4), policy(name, order), 4)
    assert np.array_equal(seen["low"], seen["high"])


def test_episodes_of_unequal_length_and_agents_that_leave_are_counted_right():
    table = evaluate(VectorEnv([Leaving] * 4), lambda observations: np.zeros(observations.shape[:-1], int), 10)
    for seed, total, length, longest in table[["seed", "team_return", "length", "longest"]].itertuples(index=False):
        game = Leaving()
        game.reset(seed=int(seed))
        assert (total, length, longest) == (game.expected_return(), game.lengths.max(), game.lengths.max())


@pytest.mark.parametrize("algorithm", ["maddpg", "mappo", "qmix"])
def test_teams_act_greedily_unless_told_otherwise(algorithm):
    team = make_team(algorithm, "continuous", state_dim=1, action_dim=1)
    first, second = (evaluate(GuessNumber(), team, 5) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    sampled = evaluate(GuessNumber(), team, 5, greedy=False)
    assert not np.allclose(first["team_return"], sampled["team_return"])


def test_masks_reach_the_team():
    team = make_team("qmix", state_dim=1, action_dim=3)
    assert (evaluate(Masked(), team, 3)["team_return"] == 10.0).all(), "five legal steps, two agents"


def test_a_list_of_agents_is_a_team_too():
    team = make_team("maddpg", state_dim=1, action_dim=3)
    pd.testing.assert_frame_equal(evaluate(MatrixGame(), list(team), 3), evaluate(MatrixGame(), team, 3))


def test_nobodys_randomness_is_touched():
    team = make_team("maddpg", state_dim=1, action_dim=2)
    np.random.seed(1)
    random.seed(2)
    torch.manual_seed(3)
    before = team.random_state().clone(), np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()
    evaluate(OldStyle(), team, 3, greedy=False)  # draws from the global generators
    after = team.random_state(), np.random.get_state()[1], random.getstate(), torch.get_rng_state()
    assert torch.equal(before[0], after[0]) and np.array_equal(before[1], after[1])
    assert before[2] == after[2] and torch.equal(before[3], after[3])


def test_an_environment_without_a_seed_repeats_all_the_same():
    team = make_team("maddpg", state_dim=1, action_dim=2)
    pd.testing.assert_frame_equal(evaluate(OldStyle(), team, 3), evaluate(OldStyle(), team, 3))


def test_a_reference_that_looks_at_the_environment_is_told_of_every_episode():
    class Clairvoyant:
        calls = 0

        def begin_episode(self, env):
            self.calls += 1
            self.answer = np.stack([copy.numbers for copy in env.copies])  # (E, N, 1)

        def __call__(self, observations):
            return self.answer

    policy = Clairvoyant()
    table = evaluate(VectorEnv([GuessNumber] * 2), policy, 6)
    assert policy.calls == 3 and np.allclose(table["team_return"], 0.0)


def test_a_function_meets_observations_shaped_like_the_environment():
    shapes = []

    def act(observations):
        shapes.append(observations.shape)
        return half(observations)

    evaluate(GuessNumber(), act, 1)
    evaluate(VectorEnv([GuessNumber] * 3), act, 1)
    assert shapes == [(2, 1), (3, 2, 1)]


def test_record_episode_tells_every_step():
    steps = record_episode(MultiWarehouseEnv(), half, seed=10_003)
    assert len(steps) == 30 and [step["step"] for step in steps] == list(range(30))
    total = sum(float(step["cost"].sum()) for step in steps)
    assert total == pytest.approx(evaluate(MultiWarehouseEnv(), half, 1, seed=10_003)["total_cost"][0])
    assert steps[0]["observations"].shape == (5, 14) and steps[0]["rewards"].shape == (5,)
    stacked = record_episode(MultiWarehouseEnv(num_envs=3), half, seed=10_003)
    assert np.array_equal(stacked[-1]["on_hand"], steps[-1]["on_hand"])


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: evaluate(GuessNumber(), half, 0), "episodes: expected a whole number of at least 1"),
        (lambda: evaluate(GuessNumber(), half, 1, seed=-1), "seed: expected a whole number of at least 0"),
        (lambda: evaluate(GuessNumber(), "greedy", 1), "expected a team or a function"),
    ],
)
def test_what_makes_no_sense_is_refused(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()


# --- intervals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("degrees", "probability", "published"),
    [
        (1, 0.975, 12.706),
        (2, 0.975, 4.303),
        (3, 0.975, 3.182),
        (4, 0.975, 2.776),
        (9, 0.975, 2.262),
        (29, 0.975, 2.045),
        (60, 0.975, 2.000),
        (120, 0.975, 1.980),
        (10**6, 0.975, 1.960),
        (1, 0.95, 6.314),
        (4, 0.995, 4.604),
        (9, 0.995, 3.250),
        (30, 0.9, 1.310),
    ],
)
def test_quantiles_of_student_t_agree_with_the_published_table(degrees, probability, published):
    assert student_t_quantile(degrees, probability) == pytest.approx(published, abs=6e-4)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    samples = np.random.default_rng(0).normal(3.0, 2.0, size=(2000, 5))
    covered = np.mean([abs(row.mean() - 3.0) <= half_width(row) for row in samples])
    assert covered == pytest.approx(0.95, abs=0.015)  # three standard errors


def test_one_sample_says_nothing_about_its_spread():
    assert np.isnan(half_width([4.0]))


def test_summarize_gives_every_metric_and_leaves_out_what_is_missing():
    table = pd.DataFrame({"episode": [0, 1, 2], "seed": [7, 8, 9], "cost": [1.0, 2.0, 3.0], "p": [1.0, np.nan, 3.0]})
    summary = summarize(table)
    assert list(summary.index) == ["cost", "p"]
    assert summary.loc["cost", "mean"] == 2.0
    assert summary.loc["cost", "half_width"] == pytest.approx(4.303 / np.sqrt(3), abs=1e-3)
    assert summary.loc["p", "mean"] == 2.0 and summary.loc["p", "count"] == 2


def test_over_training_seeds_the_interval_is_that_of_the_seeds():
    rng = np.random.default_rng(0)
    parts = [pd.DataFrame({"training_seed": s, "cost": s + 0.01 * rng.normal(size=500)}) for s in range(5)]
    summary = summarize(pd.concat(parts), over="training_seed")
    assert summary.loc["cost", "count"] == 5
    assert summary.loc["cost", "half_width"] == pytest.approx(half_width(np.arange(5)), rel=0.02)
    with pytest.raises(ValueError, match="'seeds'"):
        summarize(parts[0], over="seeds")
