"""Saving and loading: a team that was interrupted goes on, to the last bit, as if it had not been."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from teams import ALGORITHMS, KINDS, make_team, networks, random_batch, same, shake, wander

each_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)
each_kind = pytest.mark.parametrize("kind", KINDS)
ACTOR = {"maddpg": "actor", "mappo": "actor", "qmix": "utility"}
EXTRAS = {  # everything that could be forgotten is in use
    "maddpg": {"policy_delay": 2, "update_every": 3},
    "mappo": {},
    "qmix": {"update_every": 3},
}


@each_algorithm
@each_kind
@pytest.mark.parametrize("share", [False, True])
def test_an_interrupted_team_goes_on_to_the_last_bit(algorithm, kind, share, tmp_path):
    make = {"algorithm": algorithm, "kind": kind, "share_parameters": share, "state_size": 2, **EXTRAS[algorithm]}
    team = make_team(**make)
    wander(team, 22, seed=0)  # ends within an update interval, a rollout and a policy delay
    torch.save(team.state_dict(), tmp_path / "team.pt")
    resumed = make_team(**make, **{"seed": 99})
    assert not same(networks(team), networks(resumed))
    resumed.load_state_dict(torch.load(tmp_path / "team.pt", weights_only=True))
    assert same(team.state_dict() | {"config": 0}, resumed.state_dict() | {"config": 0})
    updates = team.updates
    wander(team, 20, seed=1)
    wander(resumed, 20, seed=1)
    assert team.updates > updates
    assert same(team.state_dict() | {"config": 0}, resumed.state_dict() | {"config": 0})


@each_algorithm
def test_a_state_is_a_snapshot_that_training_leaves_alone(algorithm):
    team, other = make_team(algorithm), make_team(algorithm, seed=5)
    wander(team, 24)
    state = team.state_dict()
    before = copy.deepcopy(state)
    wander(team, 24, seed=1)
    assert same(state, before)
    other.load_state_dict(state)
    wander(other, 24, seed=1)
    assert same(state, before)
    assert same(team.state_dict() | {"config": 0}, other.state_dict() | {"config": 0})


@each_algorithm
@each_kind
def test_a_saved_team_acts_the_same_and_needs_no_other_information(algorithm, kind, tmp_path):
    team = make_team(algorithm, kind, share_parameters=False, state_size=2)
    wander(team, 30)
    shake(team, ACTOR[algorithm])
    path = tmp_path / "agents.pt"
    team.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["agents.pt"]  # no temporary file is left
    loaded = type(team).load(path)
    seen = np.random.default_rng(1).normal(size=(20, 2, 3))
    assert np.array_equal(team.select_actions(seen, training=False), loaded.select_actions(seen, training=False))
    assert loaded.config == team.config and same(networks(team), networks(loaded))
    assert (loaded.updates, loaded.environment_steps) == (team.updates, team.environment_steps) != (0, 0)
    content = torch.load(path, weights_only=True)
    assert content["buffer"] is None  # experience is for checkpoints


@each_algorithm
def test_a_team_that_never_learnt_can_be_saved(algorithm, tmp_path):
    team = make_team(algorithm)
    team.save(tmp_path / "agents.pt")
    assert same(networks(type(team).load(tmp_path / "agents.pt")), networks(team))


def test_what_does_not_fit_is_refused(tmp_path):
    team, path = make_team("maddpg"), tmp_path / "agents.pt"
    team.save(path)
    with pytest.raises(ValueError, match="expected a QMIXTeam that team.save wrote, found a MADDPGTeam"):
        type(make_team("qmix")).load(path)
    torch.save({"version": 1}, tmp_path / "other.pt")  # as a run's checkpoint.pt is
    with pytest.raises(ValueError, match=r"other.pt: expected a MADDPGTeam that team.save wrote, found something else"):
        type(team).load(tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("no team")
    with pytest.raises(ValueError, match=r"text.pt is damaged"):
        type(team).load(tmp_path / "text.pt")
    wander(team, 20)
    with pytest.raises(ValueError, match="buffer_size: expected room for 1000 rows as in what was saved, found 500"):
        make_team("maddpg", buffer_size=500).load_state_dict(team.state_dict())
    with pytest.raises(ValueError, match="expected the state of a QMIXTeam.*found that of a MADDPGTeam"):
        make_team("qmix").load_state_dict(team.state_dict())
    with pytest.raises(ValueError, match="'state_dim': 9.*found that of.*'state_dim': 3"):
        make_team("maddpg", state_dim=9).load_state_dict(team.state_dict())
    with pytest.raises(ValueError, match="network 'actor': expected parameters .*use the same config"):
        make_team("maddpg", hidden_sizes=[8]).load_state_dict(team.state_dict())
    with pytest.raises(FileNotFoundError):
        type(team).load(tmp_path / "missing.pt")


def test_a_team_of_an_earlier_version_is_refused_by_name(tmp_path):
    team, path = make_team("maddpg"), tmp_path / "agents.pt"
    state = team.state_dict(with_buffer=False)
    state["config"]["twin_critics"] = False  # as all were saved once, with a key and without a counter of today
    del state["counters"]["steps"]
    torch.save(state, path)
    for load in (lambda: type(team).load(path), lambda: team.load_state_dict(state)):
        with pytest.raises(ValueError, match="an earlier version of this project saved this MADDPGTeam.*train it anew"):
            load()


def test_the_value_statistics_are_saved(tmp_path):
    team = make_team("mappo")
    wander(team, 12, rewards=np.full((2, 2), 50.0, np.float32))
    assert team.normalizer.mean_and_std[0].min() > 10
    team.save(tmp_path / "agents.pt")
    assert torch.equal(type(team).load(tmp_path / "agents.pt").normalizer.sums, team.normalizer.sums)


@each_algorithm
def test_a_loaded_team_learns_on_with_the_config_it_was_saved_with(algorithm, tmp_path):
    team = make_team(algorithm, learning_rate=0.0123)
    team.save(tmp_path / "agents.pt")
    loaded = type(team).load(tmp_path / "agents.pt")
    batch = random_batch(team)
    loaded.set_random_state(team.random_state())
    assert team.update(batch) == loaded.update(batch)
    assert same(networks(team), networks(loaded))


@each_algorithm
@pytest.mark.parametrize(
    ("key", "value"), [("eps", torch.ones(1)), ("lr", 1e30), ("lr", True), ("lr", -1e-3), ("betas", 3), ("eps", 0)]
)
def test_the_options_of_an_edited_optimizer_are_refused(algorithm, key, value):
    team = make_team(algorithm)
    wander(team, 24)
    state = team.state_dict()
    next(iter(state["optimizers"].values()))["param_groups"][0][key] = value
    with pytest.raises(ValueError, match="optimizer|the state does not hold what was saved"):
        team.load_state_dict(state)


@each_algorithm
@pytest.mark.parametrize("key", ["step", "exp_avg", "exp_avg_sq"])
def test_the_averages_of_an_edited_optimizer_are_refused(algorithm, key):
    team = make_team(algorithm)
    wander(team, 24)
    state = team.state_dict()
    for moments in next(iter(state["optimizers"].values()))["state"].values():
        moments[key] = torch.full((3,), -1.0)
    with pytest.raises(ValueError, match="optimizer .*: expected the options"):
        team.load_state_dict(state)
