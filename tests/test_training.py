"""train: what a team is told, which episodes it meets, what is recorded, and that evaluations change nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from games import ConstantReward, GuessNumber, Leaving, Masked, MatrixGame, OldStyle, TwoStepGame
from teams import Folder, make_team, same, steady

from core.base_agent import AgentTeam
from core.experiment.evaluation import EVALUATION_SEED, evaluate
from core.experiment.runs.checkpoint import load_checkpoint
from core.experiment.training import episode_seeds, shared_seeds, train
from core.experiment.vector_env import VectorEnv
from retail.environment import MultiWarehouseEnv


class Recorder(AgentTeam):
    """Acts at random, learns nothing, and keeps all it is told."""

    losses: dict[str, float] = {}

    def __init__(self, env, **config):
        size = env.observation_space_size, env.action_space_size, env.num_agents
        super().__init__(*size, {"seed": 0, "share_parameters": False, **config})
        self.told = []

    def act(self, observations, training, masks):
        weights = torch.ones(*observations.shape[:2], self.action_dim) if masks is None else masks.float()
        draws = torch.multinomial(weights.flatten(0, 1), 1, generator=self.generator)
        return draws.view(observations.shape[:2])

    def observe(self, transition):
        self.told.append(transition)
        return self.losses

    def stack(self, name):
        """One field of all that was told, (T, E, N, ...)."""
        return np.stack([getattr(transition, name) for transition in self.told])


# --- what is recorded -------------------------------------------------------------------------------------------------


def test_a_row_an_episode_with_the_returns_of_those_episodes():
    env = VectorEnv([Leaving] * 4)
    history = train(env, Recorder(env), 8, seed=3)
    assert history["episode"].tolist() == list(range(8)) and history["round"].tolist() == [0] * 4 + [1] * 4
    for k, row in history.iterrows():
        game = Leaving()
        game.reset(seed=4_000_000 + k)
        assert (row["team_return"], row["length"]) == (game.expected_return(), game.lengths.max())
        assert row["longest"] == game.lengths.max()
    assert history["env_steps"].tolist() == history["length"].cumsum().tolist()


def test_surplus_episodes_of_the_last_round_are_neither_told_nor_recorded():
    env = VectorEnv([ConstantReward] * 4)
    team = Recorder(env)
    history = train(env, team, 6)
    assert len(history) == 6 and history["team_return"].tolist() == [20.0] * 6
    active = team.stack("active")  # (T, E, N)
    assert active[:10].all() and active[10:, :2].all() and not active[10:, 2:].any()
    assert not team.stack("rewards")[10:, 2:].any()


def test_a_natively_stacked_environment_and_a_plain_one_do_too():
    make = {"seed": 0, "batch_size": 8, "learning_starts": 10_000}
    for copies in (None, 3):
        env = MultiWarehouseEnv(num_envs=copies)
        history = train(env, make_team("maddpg", "continuous", 14, 1, 5, **make), 3)
        assert (history["length"] == 30).all()
        assert np.allclose(history["team_return"], -history["total_cost"], rtol=1e-5)


def test_losses_are_the_rounds_means_and_nan_while_nothing_is_learnt():
    env = VectorEnv([ConstantReward] * 2)
    history = train(env, make_team("maddpg", state_dim=1, learning_starts=30), 6)
    assert history["critic_loss"].isna().tolist() == [True] * 2 + [False] * 4
    assert history["critic_loss"][2] == history["critic_loss"][3] != history["critic_loss"][4]


def test_training_seeds_never_overlap_with_each_other_nor_with_any_other_use():
    reserved = [range(EVALUATION_SEED, EVALUATION_SEED + 900_000)]
    reserved += [range(first, first + 100_000_000) for first in (800_000_000, 900_000_000)]
    blocks = [episode_seeds(seed, 0, 1_000_000) for seed in range(1946)]
    for block in blocks:
        assert not any(block[0] < other.stop and other.start < block.stop for other in reserved)
    assert all(one.stop <= other.start for one, other in zip(blocks[:-1], blocks[1:], strict=True))
    assert episode_seeds(0, 5, 2) == range(1_000_005, 1_000_007) and episode_seeds(7, 0, 1)[0] == 8_000_000


def test_neighbours_that_share_a_seed_meet_the_same_episodes():
    assert shared_seeds(range(5, 10), 1) == [5, 6, 7, 8, 9]
    assert shared_seeds(range(5, 10), 2) == [5, 5, 7, 7, 9]
    numbers = []

    class Noting(GuessNumber):
        def reset(self, seed=None):
            numbers.append(seed)
            return super().reset(seed)

    team = make_team("mappo", "continuous", state_dim=1, action_dim=1, num_agents=2, episodes_per_seed=2)
    train(VectorEnv([Noting] * 4), team, 8)
    first = 1_000_000
    assert numbers[-8:] == [first, first, first + 2, first + 2, first + 4, first + 4, first + 6, first + 6]


# --- what the team is told --------------------------------------------------------------------------------------------


def test_every_agent_is_active_until_its_own_end_and_ends_once():
    env = VectorEnv([Leaving] * 5)
    team = Recorder(env)
    train(env, team, 5)
    lengths = np.stack([copy.lengths for copy in env.copies])  # (E, N), of the seeds just played
    for e, seed in enumerate(episode_seeds(0, 0, 5)):
        game = Leaving()
        game.reset(seed=seed)
        lengths[e] = game.lengths
    time = np.arange(len(team.told))[:, None, None]  # (T, 1, 1)
    last = time == lengths - 1  # (T, E, N)
    cut_by_the_clock = np.array([False, False, True])
    assert np.array_equal(team.stack("active"), time < lengths)
    assert np.array_equal(team.stack("terminated"), last & ~cut_by_the_clock)
    assert np.array_equal(team.stack("truncated"), last & cut_by_the_clock)
    assert np.array_equal(team.stack("rewards"), (time < lengths) * np.array([1.0, 2.0, 3.0]))


def test_a_cut_by_the_clock_is_truncated_and_an_end_is_terminated():
    for terminates in (False, True):
        env = VectorEnv([lambda ends=terminates: ConstantReward(4, terminates=ends)] * 2)
        team = Recorder(env)
        train(env, team, 2)
        ends = np.zeros((4, 2, 2), bool)
        ends[-1] = True
        assert np.array_equal(team.stack("terminated"), ends & terminates)
        assert np.array_equal(team.stack("truncated"), ends & (not terminates))


@pytest.mark.parametrize("truncated", [True, np.array([True, True])], ids=["bool", "(N,)"])
def test_a_clock_that_forgets_to_say_done_ends_the_episode_all_the_same(truncated):
    class Forgets(ConstantReward):
        def step(self, actions):
            observations, rewards, dones, info = super().step(actions)
            return observations, rewards, dones & False, {"truncated": truncated if dones.all() else False}

    team = Recorder(Forgets())
    assert train(Forgets(), team, 3)["length"].tolist() == [10, 10, 10]
    assert team.stack("truncated")[[9, 19, 29]].all() and not team.stack("terminated").any()


def test_observations_states_and_masks_follow_each_other():
    env = VectorEnv([TwoStepGame] * 3)
    team = Recorder(env, state_size=3)
    train(env, team, 6)
    seen, after = team.stack("observations"), team.stack("next_observations")
    assert np.array_equal(after[0], seen[1]) and not np.array_equal(after[1], seen[2]), "the next round starts anew"
    assert np.array_equal(team.stack("states"), seen[:, :, 0])
    assert np.array_equal(team.stack("next_states"), after[:, :, 0])
    env = VectorEnv([Masked] * 3)
    team = Recorder(env)
    train(env, team, 3)  # an illegal action would raise
    assert np.array_equal(team.stack("next_action_masks")[:-1], team.stack("action_masks")[1:])
    assert team.told[0].states is None


def test_actions_are_told_as_they_were_taken():
    env = VectorEnv([MatrixGame] * 3)
    team = Recorder(env)
    train(env, team, 30)
    actions, rewards = team.stack("actions"), team.stack("rewards")
    assert np.array_equal(rewards[..., 0], MatrixGame().payoff[actions[..., 0], actions[..., 1]])


def test_an_environment_with_the_documented_minimum_is_trained_and_repeats():
    first, again = (train(OldStyle(), make_team("qmix", state_dim=1), 5, seed=2) for _ in range(2))
    pd.testing.assert_frame_equal(steady(first), steady(again))
    assert first["team_return"].nunique() == 5, "every episode is another one"


def test_a_plain_list_of_agents_is_trained():
    team = make_team("maddpg", state_dim=1)
    train(ConstantReward(), list(team), 3)
    assert team.updates > 0


def test_training_depends_on_the_seed_alone():
    def weights(seed):
        team = make_team("maddpg", state_dim=1)
        torch.manual_seed(np.random.randint(1000))  # whatever else goes on in the process
        train(VectorEnv([ConstantReward] * 2), team, 8, seed=seed)
        return team.state_dict()

    assert same(weights(0), weights(0)) and not same(weights(0), weights(1))


# --- clocks -----------------------------------------------------------------------------------------------------------


def test_evaluation_changes_nothing_but_its_columns():
    def trained(options):
        team = make_team("mappo", "continuous", state_dim=1, action_dim=1)
        history = train(VectorEnv([GuessNumber] * 3), team, 30, **options(team))
        return team, history

    plain, alone = trained(lambda team: {})
    watched, history = trained(
        lambda team: {"evaluate_every": 7, "evaluation": lambda: evaluate(GuessNumber(), team, 4, greedy=False)}
    )
    assert same(plain.state_dict(), watched.state_dict())
    columns = [name for name in history if name.startswith("evaluation_")]
    assert columns == [f"evaluation_{name}" for name in ("team_return", "length", "squared_error", "number")]
    pd.testing.assert_frame_equal(steady(alone), steady(history.drop(columns=columns)))
    rows = history["evaluation_team_return"].dropna().index.tolist()
    assert rows == [8, 14, 20, 29], "after the rounds in which 7, 14, 21, 28 fall; the last one is the end"


def test_on_round_is_called_before_every_round_and_once_at_the_end():
    calls = []
    train(VectorEnv([ConstantReward] * 4), Recorder(ConstantReward()), 10, on_round=calls.append)
    found = [(call.episodes, call.rounds, call.fraction) for call in calls]
    assert found == [(0, 0, 0.0), (4, 1, 0.4), (8, 2, 0.8), (10, 3, 1.0)]


def test_a_stop_finishes_the_round_saves_and_returns_what_there_is(tmp_path):
    folder, asked = Folder(tmp_path), iter([False, True])
    env = VectorEnv([ConstantReward] * 3)
    history = train(env, make_team("maddpg", state_dim=1), 30, run=folder, stop=lambda: next(asked))
    assert len(history) == 6
    assert load_checkpoint(folder.checkpoint)["history"]["values"].shape[0] == 6
    pd.testing.assert_frame_equal(folder.progress, history)


def test_saves_come_when_they_are_due(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr("core.experiment.training.save_checkpoint", lambda path, payload: saved.append(payload))
    train(VectorEnv([ConstantReward] * 3), Recorder(ConstantReward()), 20, run=Folder(tmp_path), save_every=5)
    assert [len(payload["history"]["values"]) for payload in saved] == [6, 12, 15, 20]


def test_a_disk_that_is_full_for_a_while_costs_no_training(tmp_path, monkeypatch):
    def full(path, payload):
        raise OSError(28, "No space left on device")

    arguments = dict(run=Folder(tmp_path), save_every=4)
    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="not saved after episode 4 .*No space left"):
        patch.setattr("core.experiment.training.save_checkpoint", full)
        patch.setattr("core.experiment.training.LAST_SAVE_WAITS", (0, None))
        with pytest.raises(OSError, match="No space left"):  # the last save must succeed
            train(ConstantReward(), Recorder(ConstantReward()), 8, **arguments)
    assert len(train(ConstantReward(), Recorder(ConstantReward()), 8, **arguments)) == 8


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (dict(episodes=0), "episodes: expected a whole number from 1 to 1000000, found 0"),
        (dict(episodes=2.5), "episodes: .* found 2.5"),
        (dict(episodes=1_000_001), "episodes: .* found 1000001"),
        (dict(episodes=1, seed=-1), "seed: expected a whole number from 0"),
        (dict(episodes=1, save_every=-1), "save_every: expected a whole number from 0"),
        (dict(episodes=1, evaluate_every=5), "evaluate_every and evaluation belong together"),
        (dict(episodes=1, evaluation=lambda: None), "evaluate_every and evaluation belong together"),
    ],
)
def test_numbers_that_cannot_be_are_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        train(ConstantReward(), Recorder(ConstantReward()), **arguments)


def test_a_broken_environment_is_refused_before_anything_is_learnt():
    team = Recorder(ConstantReward())
    with pytest.raises(ValueError, match="environment check: agents.num_agents: expected 3"):
        train(ConstantReward(num_agents=3), team, 1)
    assert not team.told


def test_a_reward_that_is_not_a_number_stops_with_the_episode_and_the_value():
    class Breaks(ConstantReward):
        def step(self, actions):
            observations, rewards, dones, info = super().step(actions)
            return observations, rewards / (self.time != 25), dones, info

    team = Recorder(Breaks())
    with np.errstate(divide="ignore"), pytest.raises(ValueError, match=r"episodes 0 to 0, step 25 .*rewards.* is inf"):
        train(Breaks(steps=30), team, 3)
    assert len(team.told) == 24, "it was not told to the team"


def test_a_loss_that_is_not_a_number_stops():
    team = Recorder(ConstantReward())
    team.losses = {"critic_loss": float("nan")}
    with pytest.raises(FloatingPointError, match=r"episodes 0 to 0, step 1 .*critic_loss is nan"):
        train(ConstantReward(), team, 3)


def test_a_gradient_that_is_not_a_number_stops_too():
    team = make_team("maddpg", state_dim=1)
    with torch.no_grad():
        team.networks["critic"].stacks()[0].flat[0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"training stopped in episodes \d+ to \d+, step \d+"):
        train(ConstantReward(), team, 10)
