"""A team may begin with a copy of a rule, and ends no worse than the rule."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from games import GuessNumber
from teams import make_team

import banking.train
from banking.baselines import tuned_rule
from banking.settings import SETTINGS, make_env
from core.experiment import imitation
from core.experiment.evaluation import evaluate
from core.experiment.imitation import imitate
from core.experiment.runs.flags import parse
from core.experiment.training import train
from core.experiment.tuning import VALIDATION_SEED, half_width
from core.experiment.vector_env import VectorEnv


@pytest.fixture
def briefly(monkeypatch):
    """A copy of less, for less time."""
    monkeypatch.setattr(imitation, "MOMENTS", 300)
    monkeypatch.setattr(imitation, "STEPS", 600)


@pytest.mark.parametrize("algorithm", ["maddpg", "mappo"])
def test_continuous_actors_copy_a_rule(briefly, algorithm):
    team = make_team(algorithm, "continuous", 1, 1, hidden_sizes=[32], learning_rate=1e-2)
    loss = imitate(VectorEnv([GuessNumber] * 4), team, lambda seen: np.clip(0.2 + 0.5 * seen, 0.0, 1.0))
    seen = np.random.default_rng(0).random((50, team.num_agents, 1)).astype(np.float32)
    copied = team.select_actions(seen, training=False)
    assert loss < 1e-3 and np.abs(copied - (0.2 + 0.5 * seen)).mean() < 0.05


class GuessThird(GuessNumber):
    """The same with three answers: the lower, the middle and the upper third."""

    discrete_actions = True
    action_space_size = 3

    def step(self, actions: np.ndarray):
        return super().step(np.asarray(actions)[:, None] / 2.0)


@pytest.mark.parametrize("algorithm", ["maddpg", "mappo"])
def test_discrete_actors_copy_a_rule(briefly, algorithm):
    team = make_team(algorithm, "discrete", 1, 3, hidden_sizes=[32], learning_rate=1e-2)
    imitate(VectorEnv([GuessThird] * 4), team, lambda seen: np.minimum(3 * seen[..., 0], 2).astype(int))
    seen = np.random.default_rng(0).random((200, team.num_agents, 1)).astype(np.float32)
    agree = team.select_actions(seen, training=False) == np.minimum(3 * seen[..., 0], 2).astype(int)
    assert agree.mean() > 0.9


def test_agents_without_actors_or_with_a_memory_are_refused():
    env = VectorEnv([GuessNumber] * 2)
    for team in (make_team("qmix", "continuous", 1, 1), make_team("mappo", "continuous", 1, 1, recurrent=True)):
        with pytest.raises(ValueError, match="have actors without a memory"):
            imitate(env, team, lambda seen: seen)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_team_that_began_with_the_local_index_is_not_certainly_below_it(seed, monkeypatch):
    """In episodes of half the length, after a copy of half the moments."""
    monkeypatch.setattr(imitation, "MOMENTS", 6000)
    monkeypatch.setattr(imitation, "STEPS", 750)
    short = {"episode_steps": 300}
    line = ["--start-from", "local index", "--seed", str(seed)]
    setting = parse("banking/train.py", SETTINGS, "mappo", line, episodes=100).setting
    env, rule = make_env(10, seed=seed, **setting.env, **short), tuned_rule("local index", "medium")
    team = setting.team(env, {"seed": seed, "rollout_length": 300})
    imitate(env, team, rule, seed)
    train(env, team, 100, seed, progress=False)
    returns = [evaluate(make_env(60, **short), policy, 60, VALIDATION_SEED)["team_return"] for policy in (team, rule)]
    assert (returns[0] - returns[1]).mean() > -half_width(returns[0] - returns[1])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--start-from nonsense", "it is no rule here; there are 'uniform random'"),
        ("--start-from index --algo qmix", "--start-from: qmix has no form with known consequences here"),
        ("--start-from index --credit critic", "it needs --credit known"),
    ],
)
def test_a_rule_that_cannot_be_begun_with_is_refused(tmp_path, capsys, line, message):
    assert banking.train.main([*line.split(), "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_run_begins_with_a_rule_and_says_what_the_copy_reaches(briefly, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(banking.train, "make_env", functools.partial(make_env, episode_steps=60))
    line = "--episodes 2 --num-envs 2 --eval-episodes 2 --no-plots --set rollout_length=60 --out".split()
    assert banking.train.main(["--start-from", "local index", *line, str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "The actors copy local index first" in said and "the copy: latency" in said
