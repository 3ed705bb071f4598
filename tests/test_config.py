"""Configuration: a plain dictionary whose every key is known, and whose every value is possible."""

from __future__ import annotations

import numpy as np
import pytest
from teams import ALGORITHMS, CREATE, make_team

each_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


@each_algorithm
def test_the_documented_keys_are_accepted_by_every_algorithm(algorithm):
    documented = {
        "num_agents": 3,
        "learning_rate": 0.01,
        "batch_size": 32,
        "gamma": 0.95,
        "tau": 0.01,
        "epsilon": 0.5,
        "epsilon_decay": 0.9,
        "buffer_size": 500,
    }
    team = CREATE[algorithm](4, 2, 3, documented)
    assert {key: getattr(team.config, key) for key in documented} == documented


@pytest.mark.parametrize("algorithm, kind, share", [("maddpg", "continuous", False), ("mappo", "discrete", True)])
def test_defaults_are_the_documented_ones(algorithm, kind, share):
    config = CREATE[algorithm](4, 2, 3).config
    assert (config.action_type, config.share_parameters) == (kind, share)


@each_algorithm
def test_an_unknown_key_names_the_closest_known_one(algorithm):
    with pytest.raises(ValueError, match="no key 'learning_rat'.*did you mean 'learning_rate'"):
        CREATE[algorithm](4, 2, 3, {"learning_rat": 0.1})
    with pytest.raises(ValueError, match="no key 'zzz'.*known keys: .*gamma"):
        CREATE[algorithm](4, 2, 3, {"zzz": 1})


@each_algorithm
def test_an_option_of_earlier_versions_is_refused_as_such(algorithm):
    with pytest.raises(ValueError, match="the option 'target_noise' was removed, as docs/CHANGELOG.md says"):
        CREATE[algorithm](4, 2, 3, {"target_noise": 0.0})


@each_algorithm
@pytest.mark.parametrize(
    "wrong",
    [
        {"gamma": 1.5},
        {"tau": -0.1},
        {"learning_rate": 0},
        {"learning_rate": float("nan")},
        {"learning_rate": "0.1"},
        {"batch_size": 0},
        {"batch_size": 2.5},
        {"batch_size": 100, "buffer_size": 50},
        {"hidden_sizes": [64, 0]},
        {"hidden_sizes": 64},
        {"share_parameters": 1},
        {"action_type": "both"},
        {"epsilon_decay_steps": 0},
        {"max_grad_norm": 0},
        {"num_agents": 5},
    ],
    ids=str,
)
def test_impossible_values_are_refused_by_name(algorithm, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)) + "|buffer_size"):
        CREATE[algorithm](4, 2, 3, wrong)


@pytest.mark.parametrize(
    "algorithm, wrong",
    [
        ("maddpg", {"actor_objective": "both"}),
        ("maddpg", {"temperature": 0}),
        ("maddpg", {"policy_delay": 0}),
        ("maddpg", {"critic_hidden_sizes": [0]}),
        ("mappo", {"gae_lambda": 1.1}),
        ("mappo", {"clip_range": 0}),
        ("qmix", {"mixer": "concave"}),
        ("qmix", {"action_levels": 1}),
    ],
    ids=str,
)
def test_impossible_values_of_one_algorithm_are_refused_by_name(algorithm, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CREATE[algorithm](4, 2, 3, wrong)


@each_algorithm
def test_impossible_sizes_are_refused_by_name(algorithm):
    for sizes, name in (((0, 2, 3), "state_dim"), ((4, 2.0, 3), "action_dim"), ((4, 2, -1), "num_agents")):
        with pytest.raises(ValueError, match=f"{name}: expected an integer of at least 1"):
            CREATE[algorithm](*sizes)


def test_numbers_and_flags_of_numpy_are_taken_as_pythons():
    given = {
        "hidden_sizes": np.array([8, np.int32(4)]),
        "gamma": np.float32(0.5),
        "batch_size": np.int64(16),
        "centralized": np.bool_(False),
        "seed": np.uint8(3),
        "action_type": np.str_("discrete"),
    }
    config = CREATE["qmix"](4, 2, 3, given).config
    assert {key: getattr(config, key) for key in given} == {
        "hidden_sizes": (8, 4),
        "gamma": 0.5,
        "batch_size": 16,
        "centralized": False,
        "seed": 3,
        "action_type": "discrete",
    }
    plain = [config.gamma, config.batch_size, config.centralized, config.seed, config.action_type, *config.hidden_sizes]
    assert {type(value) for value in plain} == {float, int, bool, str}, "a checkpoint holds plain values alone"
    with pytest.raises(ValueError, match="seed.*expected integer of 64 bits, or none, found 18446744073709551616"):
        CREATE["qmix"](4, 2, 3, {"seed": 2**64})


def test_numbers_from_json_take_the_type_of_their_key():
    config = make_team("maddpg", hidden_sizes=[8, 8], gamma=1, batch_size=16.0).config
    assert config.hidden_sizes == (8, 8) and type(config.gamma) is float and type(config.batch_size) is int
