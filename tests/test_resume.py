"""A training that was interrupted and resumed equals the uninterrupted one, to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from games import ConstantReward, Drift, GuessNumber, Leaving, Masked, OldStyle, TwoStepGame
from teams import ALGORITHMS, Folder, make_team, same, steady, without_seed

from banking.environment import TransactionRoutingEnv
from core.experiment.runs.checkpoint import load_checkpoint
from core.experiment.training import train
from core.experiment.vector_env import VectorEnv
from retail.environment import MultiWarehouseEnv

CASES = [
    ("maddpg", GuessNumber, "continuous", 3),
    ("maddpg", TwoStepGame, "discrete", 4),
    ("mappo", Leaving, "discrete", 3),
    ("mappo", GuessNumber, "continuous", 4),
    ("qmix", Masked, "discrete", 3),
    ("qmix", OldStyle, "discrete", 1),
]


def team_for(algorithm, game, kind, seed=0):
    env = game()
    sizes = env.observation_space_size, env.action_space_size, env.num_agents
    return make_team(algorithm, kind, *sizes, state_size=getattr(env, "state_size", 0), seed=seed)


@pytest.mark.parametrize(("algorithm", "game", "kind", "copies"), CASES)
@pytest.mark.parametrize("cut", [1, 4])
def test_a_resumed_training_equals_the_uninterrupted_one_bit_for_bit(algorithm, game, kind, copies, cut, tmp_path):
    whole, episodes = team_for(algorithm, game, kind), 7 * copies - 1
    history = train(VectorEnv([game] * copies), whole, episodes, seed=5)

    folder, rounds = Folder(tmp_path), iter([False] * (cut - 1) + [True])
    train(
        VectorEnv([game] * copies),
        team_for(algorithm, game, kind),
        episodes,
        seed=5,
        run=folder,
        stop=lambda: next(rounds),
    )
    np.random.seed(99)  # another process: nothing is as it was
    resumed = team_for(algorithm, game, kind, seed=77)
    payload = load_checkpoint(folder.checkpoint)
    continued = train(VectorEnv([game] * copies), resumed, episodes, seed=5, resume=payload)

    assert resumed.updates > 0 and len(payload["history"]["values"]) == cut * copies
    assert same(without_seed(resumed.state_dict()), without_seed(whole.state_dict()))
    pd.testing.assert_frame_equal(steady(continued), steady(history), check_exact=True)


class ManySaves(Folder):
    """Keeps every checkpoint under a name of its own."""

    def __init__(self, path: Path):
        self.path, self.saved = path, 0

    @property
    def checkpoint(self):
        self.saved += 1
        return self.path / f"{self.saved}.pt"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("problem", ["retail", "banking"])
def test_both_demos_resume_bit_for_bit_from_three_points(problem, algorithm, tmp_path):
    def prepared(seed):
        retail = problem == "retail"
        env = MultiWarehouseEnv(num_envs=2) if retail else TransactionRoutingEnv(num_envs=2, episode_steps=30)
        kind = "discrete" if env.discrete_actions else "continuous"
        sizes = env.observation_space_size, env.action_space_size, env.num_agents
        return env, make_team(algorithm, kind, *sizes, seed=seed, state_size=env.state_size)

    env, whole = prepared(seed=0)
    history = train(env, whole, 8, run=ManySaves(tmp_path), save_every=2)
    for cut in (1, 2, 3):
        env, resumed = prepared(seed=cut)
        payload = load_checkpoint(tmp_path / f"{cut}.pt")
        continued = train(env, resumed, 8, resume=payload)
        assert len(payload["history"]["values"]) == 2 * cut and resumed.updates > 0
        assert same(without_seed(resumed.state_dict()), without_seed(whole.state_dict()))
        pd.testing.assert_frame_equal(steady(continued), steady(history), check_exact=True)


def test_a_finished_training_can_be_continued(tmp_path):
    folder = Folder(tmp_path)
    train(ConstantReward(), make_team("maddpg", state_dim=1), 4, run=folder)
    history = train(ConstantReward(), make_team("maddpg", state_dim=1), 6, resume=load_checkpoint(folder.checkpoint))
    assert history["episode"].tolist() == list(range(6)) and history["seconds"].is_monotonic_increasing


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (dict(seed=1), "seed: checkpoint 0, now 1"),
        (dict(copies=3), "num_envs: checkpoint 2, now 3"),
        (dict(team=dict(gamma=0.5)), r"config\['gamma'\]: checkpoint 0.95, now 0.5"),
        (dict(resume={"weights": 1}), r"expected what load_checkpoint returned .* found \['weights'\]"),
        (dict(resume="checkpoint.pt"), "expected what load_checkpoint returned .* found str"),
    ],
)
def test_another_trainings_checkpoint_is_refused(change, complaint, tmp_path):
    folder = Folder(tmp_path)
    train(VectorEnv([ConstantReward] * 2), make_team("maddpg", state_dim=1), 4, run=folder)
    payload = change.get("resume", None) or load_checkpoint(folder.checkpoint)
    env = VectorEnv([ConstantReward] * change.get("copies", 2))
    team = make_team("maddpg", state_dim=1, **change.get("team", {}))
    with pytest.raises(ValueError, match=complaint):
        train(env, team, 8, seed=change.get("seed", 0), resume=payload)


def test_what_the_training_saw_is_saved_and_goes_on(tmp_path):
    """The smallest, the sum and the largest of every number that the team acted on, over both parts of a training."""

    class Watched(Drift):
        shown: list = []

        def reset(self, seed=None):
            self.shown.append(super().reset(seed))
            return self.shown[-1]

        def step(self, actions):
            observations, rewards, dones, info = super().step(actions)
            if not dones.all():  # the last one is seen, but nobody acts on it
                self.shown.append(observations)
            return observations, rewards, dones, info

    folder, whole = Folder(tmp_path), Folder(tmp_path / "whole")
    whole.checkpoint.parent.mkdir()
    train(Drift(), make_team("qmix"), 2, run=folder)
    train(Drift(), make_team("qmix"), 4, run=folder, resume=load_checkpoint(folder.checkpoint))
    train(Watched(), make_team("qmix"), 4, run=whole)
    seen, alone = (load_checkpoint(place.checkpoint)["seen"] for place in (folder, whole))
    for name in ("low", "sum", "high"):
        torch.testing.assert_close(seen[name], alone[name])
    assert seen["count"] == alone["count"] == 4 * 8
    shown = np.stack(Watched.shown[-4 * 8 :])
    np.testing.assert_allclose(alone["low"], shown.min(axis=0))
    np.testing.assert_allclose(alone["high"], shown.max(axis=0))
    np.testing.assert_allclose(alone["sum"], shown.sum(axis=0), rtol=1e-6)
