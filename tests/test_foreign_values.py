"""What an environment or a policy of others hands over is copied or looked at, at every step and under every name."""

from __future__ import annotations

import pickle
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from games import ConstantReward, Leaving, Masked, MatrixGame
from teams import make_team

from core.base_agent import as_team
from core.experiment import episodes
from core.experiment.env_check import check_env
from core.experiment.evaluation import evaluate, record_episode
from core.experiment.runs import waits
from core.experiment.runs.checkpoint import load_checkpoint
from core.experiment.runs.command import Command
from core.experiment.runs.folders import RunFolder
from core.experiment.training import BLOCKS, episode_seeds, train
from core.experiment.vector_env import VectorEnv
from retail.environment import MultiWarehouseEnv

LATE = 30  # a step that check_env does not come to


def still(observations):
    return np.zeros(observations.shape[:-1], int)


class Rescales(ConstantReward):
    """Rescales the actions that it is given, in place."""

    def step(self, actions):
        if self.discrete_actions:
            actions -= 1
        else:
            actions *= 20.0
        return super().step(actions)


class OneArray(MultiWarehouseEnv):
    """Returns the same arrays from every step, with other contents."""

    def __init__(self):
        super().__init__(num_envs=2)
        self.seen, self.paid = np.zeros((2, 5, 14), np.float32), np.zeros((2, 5), np.float32)

    def reset(self, seed=None):
        self.seen[:] = super().reset(seed)
        return self.seen

    def step(self, actions):
        self.seen[:], self.paid[:], *rest = super().step(actions)
        return self.seen, self.paid, *rest


class Later(ConstantReward):
    """Sound until step LATE, where `change(observations, rewards, dones, info)` is returned."""

    def __init__(self, change):
        super().__init__(steps=40)
        self.change = change

    def step(self, actions):
        outcome = super().step(actions)
        return self.change(*outcome) if self.time == LATE else outcome


class StuckLater(ConstantReward):
    """From step LATE on, agent 1 may do nothing at all, or its masks are no flags."""

    def __init__(self, masks=0.0):
        super().__init__(steps=40)
        self.masks = masks

    def action_masks(self):
        masks = np.ones((2, 2), bool if self.time < LATE else float)
        masks[1] = masks[1] if self.time < LATE else self.masks
        return masks


class Dice(ConstantReward):
    """Draws from a global generator, at the reset and in every step."""

    draw = staticmethod(np.random.random)

    def observe(self):
        return np.full((2, 1), self.draw(), np.float32)


class SeedsNumPy(Dice):
    """The classic idiom: its seed seeds NumPy's global generator."""

    def reset(self, seed=None):
        np.random.seed(seed)
        return super().reset(seed)


class TakesNoSeed(Dice):
    draw = staticmethod(lambda: torch.rand(()).item() + np.random.random())

    def reset(self):
        return super().reset()


@pytest.mark.parametrize("discrete", [True, False])
@pytest.mark.parametrize("algorithm", ["maddpg", "qmix"])
def test_what_the_policy_chose_is_stored_whatever_the_environment_does_with_it(algorithm, discrete):
    team = make_team(algorithm, "discrete" if discrete else "continuous", state_dim=1)
    train(VectorEnv([lambda: Rescales(discrete=discrete)] * 2), team, 4, progress=False)
    stored = team.buffer.fields["actions"][: len(team.buffer)]
    assert stored.min() >= 0 and stored.max() <= 1 and stored.max() > 0


def test_what_is_kept_of_a_step_is_a_copy():
    ours, theirs = OneArray(), MultiWarehouseEnv(num_envs=2)
    half = lambda observations: np.full((*observations.shape[:-1], 1), 0.5, np.float32)  # noqa: E731
    for mine, other in zip(record_episode(ours, half), record_episode(theirs, half), strict=True):
        assert np.array_equal(mine["observations"], other["observations"])
        assert np.array_equal(mine["rewards"], other["rewards"])
    tables = [train(env, make_team("mappo", "continuous", 14, 1, 5), 4, progress=False) for env in (OneArray(), theirs)]
    assert tables[0].drop(columns="seconds").equals(tables[1].drop(columns="seconds"))


def test_a_policy_may_write_into_what_it_is_given():
    def rude(observations):
        observations[:] = np.nan
        return still(observations)

    for env in (ConstantReward(), VectorEnv([ConstantReward] * 2)):
        assert evaluate(env, rude, 3)["team_return"].tolist() == [20.0] * 3


NAN = float("nan")
LATER = {
    "a reward that is not finite": (lambda o, r, d, i: (o, r * NAN, d, i), "rewards.* is nan"),
    "an observation that is not finite": (lambda o, r, d, i: (o * NAN, r, d, i), "observations.* is nan"),
    "dones of nan": (lambda o, r, d, i: (o, r, d * NAN, i), "dones: expected True or False, found nan"),
    "dones of 0.5": (lambda o, r, d, i: (o, r, d + 0.5, i), "dones: expected True or False, found 0.5"),
    "dones of text": (lambda o, r, d, i: (o, r, ["a", "b"], i), "dones: expected numbers"),
    "truncated of nan": (lambda o, r, d, i: (o, r, d, {"truncated": NAN}), "truncated.*expected True or False"),
    "truncated of 2": (lambda o, r, d, i: (o, r, d, {"truncated": [0, 2]}), "truncated.*found 2"),
    "gymnasium's name": (lambda o, r, d, i: (o, r, d, {"TimeLimit.truncated": True}), "rename it to 'truncated'"),
    "five values": (lambda o, r, d, i: (o, r, d, d, i), "found 5 values"),
    "a taken name": (lambda o, r, d, i: (o, r, ~d, {"episode_metrics": {"team_return": 9.0}}), "name is taken"),
    "a metric of text": (lambda o, r, d, i: (o, r, ~d, {"episode_metrics": {"cost": "low"}}), "expected a number"),
    "a list of metrics": (lambda o, r, d, i: (o, r, ~d, {"episode_metrics": [1]}), "expected a dictionary"),
}


@pytest.mark.parametrize("case", LATER)
@pytest.mark.parametrize("copies", [0, 2])
def test_a_promise_that_is_broken_late_is_refused_with_the_number_of_the_step(case, copies):
    change, complaint = LATER[case]
    env = VectorEnv([lambda: Later(change)] * copies) if copies else Later(change)
    with pytest.raises(ValueError, match=rf"training stopped in episodes 0 to \d, step {LATE} .*{complaint}"):
        train(env, make_team("mappo", state_dim=1), 2, progress=False)
    with pytest.raises(ValueError, match=rf"evaluation stopped in episodes 0 to \d, step {LATE}: .*{complaint}"):
        evaluate(env, still, 2)
    with pytest.raises(ValueError, match=rf"the recording stopped, step {LATE}: .*{complaint}"):
        record_episode(env, still)


@pytest.mark.parametrize("algorithm", ["maddpg", "mappo", "qmix"])
@pytest.mark.parametrize(
    ("masks", "complaint"), [(0.0, "a legal action .* none at"), (NAN, "True or False, found nan")]
)
def test_a_mask_that_allows_nothing_late_names_agent_and_step(algorithm, masks, complaint):
    team = make_team(algorithm, state_dim=1)
    with pytest.raises(ValueError, match=rf"step {LATE} .*{complaint}"):
        train(StuckLater(masks), team, 2, progress=False)
    with pytest.raises(ValueError, match=rf"step {LATE}: .*{complaint}"):
        evaluate(StuckLater(masks), team, 2)


def test_who_has_finished_may_have_no_choice():
    class Over(Masked):
        def action_masks(self):
            return super().action_masks() & (self.time < 5)

    for algorithm in ("maddpg", "mappo", "qmix"):
        history = train(Over(), make_team(algorithm, state_dim=1, action_dim=3), 6, progress=False)
        assert np.isfinite(history.select_dtypes("number").iloc[-1]).all()


@pytest.mark.filterwarnings("ignore:rewards of agents that have finished")
def test_a_reward_that_comes_after_the_end_is_mentioned_and_not_counted():
    game = Leaving()
    game.reset(seed=10_000)
    with pytest.warns(UserWarning, match="rewards of agents that have finished are not counted"):
        assert evaluate(Leaving(), still, 1)["team_return"][0] == game.expected_return()


def test_a_metric_with_the_name_of_a_loss_is_refused():
    class Own(ConstantReward):
        def step(self, actions):
            outcome = super().step(actions)
            return *outcome[:3], outcome[3] | {"episode_metrics": {"entropy": -5.0}}

    with pytest.raises(ValueError, match=r"\['entropy'\] name losses of the agents too; rename"):
        train(Own(), make_team("mappo", state_dim=1), 4, progress=False)


@pytest.mark.parametrize("kind", [SeedsNumPy, TakesNoSeed])
def test_copies_that_draw_from_a_global_generator_do_what_the_single_environment_does(kind):
    def seen(env):
        episodes = []
        evaluate(env, lambda observations: episodes.append(observations.reshape(-1, 2)) or still(observations), 6)
        return np.concatenate([e.reshape(10, -1, 2).swapaxes(0, 1) for e in np.split(np.stack(episodes), 6 // copies)])

    copies = 1
    one = seen(kind())
    for copies in (1, 2, 3):
        assert np.array_equal(seen(VectorEnv([kind] * copies)), one)
    twins = VectorEnv([kind] * 2)
    assert np.ptp(twins.reset(seed=[5, 5]), axis=0).max() == 0
    assert all(np.ptp(twins.step(np.zeros((2, 2), int))[0], axis=0).max() == 0 for _ in range(3))


def test_a_policy_that_draws_does_not_disturb_copies_that_draw():
    loud = lambda observations: np.random.randint(2, size=observations.shape[:-1])  # noqa: E731
    finals = [record_episode(VectorEnv([SeedsNumPy] * 2), policy)[-1]["observations"] for policy in (still, loud)]
    assert np.array_equal(*finals)


def test_seeds_fit_31_bits_and_trainings_stay_disjoint():
    every = [0, 798, 799, BLOCKS - 1, BLOCKS, BLOCKS + 1, 4293, 4294, 12345, 20261125, 10**9]
    parts = {seed: episode_seeds(seed, 0, 2000) for seed in every}
    assert all(0 <= min(part) and max(part) < 2**31 and len(set(part)) == 2000 for part in parts.values())
    assert len(set().union(*parts.values())) == 2000 * len(every)
    neighbours = [episode_seeds(seed, 0, 1)[0] // 1_000_000 for seed in range(10**6, 10**6 + BLOCKS)]
    assert len(set(neighbours)) == BLOCKS, "seeds less than BLOCKS apart have blocks of their own"
    assert not set(neighbours) & {0, *range(800, 1000)}, "evaluation, validation and tuning keep theirs"
    assert list(episode_seeds(5000, 7, 3)) == list(episode_seeds(5000, 0, 10))[7:], "a resumed training goes on"


def test_arguments_are_looked_at_before_they_are_used():
    team = make_team("mappo", state_dim=1, action_dim=3)
    for call, complaint in (
        (lambda: VectorEnv(MatrixGame), "expected a list of at least one function"),
        (lambda: VectorEnv([MatrixGame()]), "expected a list of at least one function"),
        (lambda: check_env(MatrixGame), "found the class MatrixGame; build one"),
        (lambda: train(MatrixGame, team, 1, progress=False), "found the class MatrixGame; build one"),
        (lambda: evaluate(MatrixGame, still, 1), "found the class MatrixGame; build one"),
        (lambda: evaluate(MatrixGame(), still, 1.5), "episodes: expected a whole number"),
        (lambda: evaluate(MatrixGame(), still, 1, seed=2**40), r"seed: expected .* below 2\*\*31"),
        (lambda: evaluate(MatrixGame(), [], 1), "policy: expected a team or a function"),
        (lambda: as_team([]), "agents: expected"),
        (lambda: as_team([1, 2]), "agents: expected"),
        (lambda: as_team(None), "agents: expected"),
    ):
        with pytest.raises(ValueError, match=complaint):
            call()


def test_a_stack_of_copies_can_be_pickled():
    again = pickle.loads(pickle.dumps(VectorEnv([MatrixGame] * 2)))
    assert again.reset(seed=0).shape == (2, 2, 1)


def test_names_of_others_are_no_formulas_and_no_commands_to_a_terminal(tmp_path, capsys):
    names = ["=HYPERLINK(1)", "+1", "-1", "@x", "\x1b[2Jgone", "Zürich"]
    RunFolder(tmp_path).write_table("t", pd.DataFrame({"warehouse": names, "=cost": range(6)}))
    table = pd.read_csv(tmp_path / "t.csv")
    assert table["warehouse"].tolist() == ["'=HYPERLINK(1)", "'+1", "'-1", "'@x", "?[2Jgone", "Zürich"]
    assert table.columns.tolist() == ["warehouse", "'=cost"]
    with Command("script") as command:
        raise ValueError("the name \x1b[2J is odd")
    assert command.exit_code == 2 and capsys.readouterr().err == "script: the name ?[2J is odd\n"


def test_a_longer_resumption_says_what_it_does_to_schedules(tmp_path):
    folder = SimpleNamespace(checkpoint=tmp_path / "checkpoint.pt", write_progress=lambda table: None)

    def team(**config):
        return make_team("mappo", state_dim=1, **config)

    train(ConstantReward(), team(anneal_learning_rate=True), 10, run=folder, progress=False)
    saved = load_checkpoint(folder.checkpoint)
    with pytest.warns(UserWarning, match="20 episodes in all instead of 10: .* from 100% .* to 50%, the .* from 0 to "):
        train(ConstantReward(), team(anneal_learning_rate=True), 20, resume=saved, progress=False)


def test_an_episode_without_an_end_is_mentioned(monkeypatch):
    monkeypatch.setattr(episodes, "PATIENCE", 0.0)
    with pytest.warns(UserWarning, match="step 16 and no end: 1 episodes wait for their dones or truncated"):
        evaluate(ConstantReward(steps=40), still, 1)


class Frozen(ConstantReward):
    """Answers late, from one of its methods."""

    def __init__(self, slow):
        super().__init__(steps=3)
        self.slow = slow

    def reset(self, seed=None):
        time.sleep(0.3 * (self.slow == "reset"))
        return super().reset(seed)

    def step(self, actions):
        time.sleep(0.3 * (self.slow == "step"))
        return super().step(actions)


@pytest.mark.parametrize(
    ("slow", "use", "told"),
    [
        ("reset", lambda env: evaluate(env, still, 1), "reset() of the environment"),
        ("step", lambda env: evaluate(env, still, 1), "step 1 of the environment"),
        ("step", check_env, "step 1 of the environment, which is tried out"),
    ],
)
def test_an_environment_that_does_not_answer_is_mentioned(monkeypatch, capsys, slow, use, told):
    monkeypatch.setattr(waits, "PATIENCE", 0.05)
    monkeypatch.setattr(waits, "_watch", None)  # which would look once a second
    use(Frozen(slow))
    assert f"warning: {told}: no answer for 0 s; stop with Ctrl-C" in capsys.readouterr().err
