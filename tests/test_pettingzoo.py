"""PettingZoo both ways: its environments keep our protocol, and ours keep its API."""

from __future__ import annotations

import pickle
import sys
import warnings

import numpy as np
import pytest
import torch

pytest.importorskip("pettingzoo")
from games import ConstantReward, GuessNumber, Leaving, Masked, TwoStepGame
from gymnasium import spaces
from pettingzoo import ParallelEnv
from pettingzoo.test import parallel_api_test, parallel_seed_test
from pettingzoo.utils import parallel_to_aec
from teams import ALGORITHMS, make_team

from banking.environment import TransactionRoutingEnv
from core.experiment.env_check import check_env
from core.experiment.evaluation import evaluate
from core.experiment.pettingzoo_adapter import from_parallel_env, to_parallel_env
from core.experiment.training import train
from core.experiment.vector_env import VectorEnv
from retail.environment import MultiWarehouseEnv


class Toy(ParallelEnv):
    """Agents count the steps. Who is named in `ends` terminates at that step; all others are cut at step 4."""

    metadata = {"name": "toy"}
    render_mode = None

    def __init__(self, seen=None, acts=None, ends=(), names=("zoe", "adam"), mask=None, in_infos=False):
        self.possible_agents = list(names)
        self.ends, self.mask, self.in_infos = dict(ends), mask, in_infos
        seen = seen or {name: spaces.Box(-1.0, 9.0, (2,), np.float32) for name in names}
        if mask is not None and not in_infos:
            masks = spaces.MultiBinary(3)
            seen = {name: spaces.Dict({"observation": seen[name], "action_mask": masks}) for name in names}
        self.seen, self.acts = seen, acts or {name: spaces.Discrete(3) for name in names}
        self.taken = []

    def observation_space(self, agent):
        return self.seen[agent]

    def action_space(self, agent):
        return self.acts[agent]

    def reset(self, seed=None, options=None):
        self.agents, self.time, self.start = self.possible_agents[:], 0, 0 if seed is None else seed % 5
        return self.told()

    def told(self):
        infos = {agent: {} for agent in self.agents}
        observations = {}
        for agent in self.agents:
            own = np.full(self.plain(agent).shape, self.start + self.time, np.float32)
            observations[agent] = own
            if self.mask is not None and self.in_infos:
                infos[agent]["action_mask"] = self.mask(agent, self.time)
            elif self.mask is not None:
                observations[agent] = {"observation": own, "action_mask": self.mask(agent, self.time)}
        return observations, infos

    def plain(self, agent):
        space = self.seen[agent]
        return space["observation"] if isinstance(space, spaces.Dict) else space

    def step(self, actions):
        assert set(actions) == set(self.agents), "exactly the living agents act"
        assert all(self.acts[agent].contains(action) for agent, action in actions.items()), actions
        self.taken.append(actions)
        if self.mask is not None:
            assert all(self.mask(agent, self.time)[action] for agent, action in actions.items()), "illegal"
        self.time += 1
        observations, infos = self.told()
        terminations = {agent: self.ends.get(agent) == self.time for agent in self.agents}
        truncations = {agent: self.time == 4 for agent in self.agents}
        rewards = {agent: 1.0 + k for k, agent in enumerate(self.possible_agents)}  # some go on paying the finished
        self.agents = [a for a in self.agents if not terminations[a] and not truncations[a]]
        return observations, rewards, terminations, truncations, infos


def spread(**options):
    return pytest.importorskip("mpe2.simple_spread_v3").parallel_env(**options)


def speaker_listener(**options):
    return pytest.importorskip("mpe2.simple_speaker_listener_v4").parallel_env(**options)


# --- PettingZoo -> here -----------------------------------------------------------------------------------------------


def test_agents_keep_the_order_of_possible_agents():
    toy = Toy(ends={"zoe": 2})
    env = from_parallel_env(toy)
    env.reset(seed=0)
    _, rewards, _, _ = env.step(np.array([2, 1]))
    assert toy.taken == [{"zoe": 2, "adam": 1}] and rewards.tolist() == [1.0, 2.0]
    assert (env.num_agents, env.observation_space_size, env.action_space_size, env.discrete_actions) == (2, 2, 3, True)


def test_a_time_limit_is_a_truncation_and_an_end_is_not():
    env = from_parallel_env(Toy(ends={"zoe": 2}))
    env.reset()
    flags = []
    for _ in range(4):
        _, _, dones, info = env.step(np.zeros(2, int))
        flags.append((dones.tolist(), info["truncated"].tolist()))
    alive, zoe_ended = ([False, False], [False, False]), ([True, False], [False, False])
    assert flags == [alive, zoe_ended, zoe_ended, ([True, True], [False, True])]


def test_an_end_in_the_moment_of_the_time_limit_is_an_end():
    env = from_parallel_env(Toy(ends={"zoe": 4}))
    env.reset()
    for _ in range(4):
        _, _, dones, info = env.step(np.zeros(2, int))
    assert dones.all() and info["truncated"].tolist() == [False, True]


def test_who_finishes_is_seen_once_more_and_is_then_zero_and_done_and_does_not_act():
    toy = Toy(ends={"zoe": 2})
    env = from_parallel_env(toy)
    assert env.reset(seed=3).tolist() == [[3, 3], [3, 3]]
    seen, paid = [], []
    for _ in range(4):
        observations, rewards, dones, _ = env.step(np.array([1, 2]))
        seen.append(observations[0].tolist())
        paid.append(rewards[0])
    assert seen == [[4, 4], [5, 5], [0, 0], [0, 0]], "the true last observation, then nothing"
    assert paid == [1.0, 1.0, 0.0, 0.0] and toy.taken[2:] == [{"adam": 2}] * 2
    assert observations[1].tolist() == [7, 7], "the observation to bootstrap from, at the time limit"


def test_a_step_outside_an_episode_and_wrong_actions_are_refused():
    env = from_parallel_env(Toy())
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(np.zeros(2, int))
    env.reset()
    for wrong in (np.zeros(3, int), np.zeros(2), np.array([0, 3]), np.array([-1, 0])):
        with pytest.raises(ValueError, match="actions: "):
            env.step(wrong)
    for _ in range(4):
        env.step(np.zeros(2, int))
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(np.zeros(2, int))


@pytest.mark.parametrize("in_infos", [False, True], ids=["in observations", "in infos"])
def test_action_masks_come_from_observations_or_infos(in_infos):
    def legal(agent, time):
        return np.eye(3, dtype=np.int8)[(time + (agent == "adam")) % 3]

    env = from_parallel_env(Toy(mask=legal, in_infos=in_infos, ends={"zoe": 1}))
    env.reset()
    assert env.observation_space_size == 2, "the mask is no part of the observation"
    assert env.action_masks().tolist() == [[True, False, False], [False, True, False]]
    env.step(np.array([0, 1]))
    assert env.action_masks().tolist() == [[False, True, False], [False, False, True]], "of the last observation, too"
    env.step(np.array([0, 2]))
    assert env.action_masks().tolist() == [[True, True, True], [True, False, False]], "the dead may do anything"
    check_env(env)


def test_a_finished_agent_that_is_allowed_nothing_is_no_problem_and_a_late_mask_is_refused():
    env = from_parallel_env(Toy(mask=lambda agent, time: np.full(3, time < 4, np.int8), in_infos=True))
    env.reset()
    for _ in range(4):
        env.step(np.zeros(2, int))
    assert env.action_masks().all()
    late = Toy(in_infos=True)
    env = from_parallel_env(late)
    late.mask = lambda agent, time: np.ones(3, np.int8)
    with pytest.raises(ValueError, match="no info held one at the first reset"):
        env.reset()


def test_without_masks_there_is_no_action_masks():
    assert not hasattr(from_parallel_env(Toy()), "action_masks")


def test_discrete_actions_count_from_zero_and_boxes_are_rescaled_from_the_unit_interval():
    toy = Toy(acts={name: spaces.Discrete(3, start=5) for name in ("zoe", "adam")})
    env = from_parallel_env(toy)
    env.reset()
    env.step(np.array([0, 2]))
    assert toy.taken == [{"zoe": 5, "adam": 7}]
    low, high = np.array([[-2, 0], [1, 1]], np.float32), np.array([[2, 0.1], [4, 1]], np.float32)
    box = spaces.Box(low, high)
    toy = Toy(acts={"zoe": box, "adam": box})
    env = from_parallel_env(toy)
    assert not env.discrete_actions and env.action_space_size == 4
    env.reset()
    env.step(np.array([[0.0, 0.5, 1.0, 0.3], [1.0, 1.0, 0.0, 0.0]], np.float32))
    assert np.allclose(toy.taken[0]["zoe"], [[-2.0, 0.05], [4.0, 1.0]])
    assert np.allclose(toy.taken[0]["adam"], [[2.0, 0.1], [1.0, 1.0]])
    for wrong in (np.full((2, 4), 1.1), np.full((2, 4), np.nan), np.zeros((2, 3))):
        with pytest.raises(ValueError, match=r"floats in \[0, 1\] of shape \(2, 4\)"):
            env.step(wrong)


def test_observations_of_any_flat_kind_become_rows():
    seen = {name: spaces.Tuple([spaces.Discrete(3), spaces.Box(0, 255, (2, 2), np.uint8)]) for name in ("zoe", "adam")}
    toy = Toy(seen=seen)
    toy.told = lambda: ({a: (1, np.full((2, 2), 200, np.uint8)) for a in toy.agents}, {a: {} for a in toy.agents})
    env = from_parallel_env(toy)
    assert env.reset().tolist() == [[0, 1, 0, 200, 200, 200, 200]] * 2


UNEQUAL = {
    "seen": {"zoe": spaces.Box(-1, 9, (2,), np.float32), "adam": spaces.Box(-1, 9, (3,), np.float32)},
    "acts": {"zoe": spaces.Discrete(2), "adam": spaces.Discrete(4)},
}


def test_unequal_shapes_are_refused_with_the_shapes_and_padded_when_asked():
    listed = r"zoe: observation \(2,\), 2 choices; adam: observation \(3,\), 4 choices; pad_unequal=True"
    with pytest.raises(ValueError, match=listed):
        from_parallel_env(Toy(**UNEQUAL))
    env = from_parallel_env(Toy(**UNEQUAL), pad_unequal=True)
    assert env.reset(seed=1).tolist() == [[1, 1, 0], [1, 1, 1]]
    legal = [[True, True, False, False], [True] * 4]
    assert env.action_masks().tolist() == legal
    with pytest.raises(ValueError, match=r"2 is no action of 'zoe' \(0 to 1\)"):
        env.step(np.array([2, 3]))
    for _ in range(4):
        env.step(np.array([1, 3]))
    assert env.action_masks().tolist() == legal, "a target at the time limit must not use an action that does not exist"
    check_env(env)


def test_padded_box_actions_ignore_what_an_agent_does_not_have():
    acts = {"zoe": spaces.Box(0, 2, (1,), np.float32), "adam": spaces.Box(0, 1, (2,), np.float32)}
    toy = Toy(acts=acts)
    env = from_parallel_env(toy, pad_unequal=True)
    env.reset()
    env.step(np.array([[0.5, 0.9], [0.5, 1.0]]))
    assert toy.taken[0]["zoe"] == [1.0] and toy.taken[0]["adam"].tolist() == [0.5, 1.0]
    assert not hasattr(env, "action_masks")


@pytest.mark.parametrize(
    "acts, message",
    [
        ({"zoe": spaces.Discrete(2), "adam": spaces.Box(0, 1, (2,), np.float32)}, "one kind of actions"),
        ({name: spaces.MultiDiscrete([2, 2]) for name in ("zoe", "adam")}, "expected Discrete or a Box of floats"),
        ({name: spaces.Box(0, np.inf, (1,), np.float32) for name in ("zoe", "adam")}, "finite bounds"),
    ],
)
def test_actions_without_a_counterpart_are_refused(acts, message):
    with pytest.raises(ValueError, match=message):
        from_parallel_env(Toy(acts=acts), pad_unequal=True)


def test_turn_based_environments_and_latecomers_are_refused():
    with pytest.raises(ValueError, match="expected a ParallelEnv"):
        from_parallel_env(parallel_to_aec(Toy()))
    toy = Toy()
    env = from_parallel_env(toy)
    toy.possible_agents = ["zoe"]
    with pytest.raises(ValueError, match=r"\['adam'\] are absent after reset"):
        env.reset()


@pytest.mark.parametrize("module", ["pettingzoo", "gymnasium"])
def test_a_missing_library_is_named(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    for adapt in (from_parallel_env, to_parallel_env):
        with pytest.raises(ImportError, match="pip install pettingzoo"):
            adapt(Toy())


# --- a public environment ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize("make", [spread, speaker_listener])
def test_public_environments_keep_the_protocol_and_repeat(make, continuous):
    env = from_parallel_env(make(continuous_actions=continuous), pad_unequal=True)
    check_env(env)
    check_env(VectorEnv([lambda: from_parallel_env(make(continuous_actions=continuous), pad_unequal=True)] * 2))
    assert env.state().shape == (env.state_size,)

    def episode():
        draw, rows = np.random.default_rng(1), [env.reset(seed=11)]
        for _ in range(25):
            floats = draw.random((env.num_agents, env.action_space_size), np.float32)
            actions = floats if continuous else (floats * getattr(env, "action_masks", lambda: 1)()).argmax(-1)
            observations, rewards, dones, info = env.step(actions)
            rows += [observations, rewards]
        assert dones.all() and info["truncated"].all(), "25 steps are a time limit"
        return np.concatenate([row.ravel() for row in rows])

    assert np.array_equal(episode(), episode())


@pytest.mark.parametrize("make, padded", [(spread, False), (speaker_listener, True)])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_three_algorithms_train_in_a_public_environment_and_repeat(algorithm, make, padded):
    env = VectorEnv([lambda: from_parallel_env(make(max_cycles=8), pad_unequal=padded)] * 2)
    sizes = {"state_dim": env.observation_space_size, "action_dim": 5, "num_agents": env.num_agents}

    def trained():
        team = make_team(algorithm, "discrete", state_size=env.state_size, **sizes)
        return train(env, team, 4, seed=1, progress=False), evaluate(env, team, 2)

    (history, scores), (again, same_scores) = trained(), trained()
    assert (history["length"] == 8).all() and (history["team_return"] < 0).all()
    assert history.drop(columns="seconds").equals(again.drop(columns="seconds")) and scores.equals(same_scores)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_three_algorithms_train_with_masks_and_agents_that_finish_early(algorithm):
    def legal(agent, time):
        return np.eye(3, dtype=np.int8)[(time + (agent == "adam")) % 3]

    env = VectorEnv([lambda: from_parallel_env(Toy(mask=legal, ends={"zoe": 2}))] * 2)
    team = make_team(algorithm, "discrete", 2, 3, 2)
    history = train(env, team, 10, progress=False)  # the environment itself refuses illegal actions
    assert (history["team_return"] == 2 * 1.0 + 4 * 2.0).all() and team.updates > 0


# --- what other environments return -----------------------------------------------------------------------------------


class Odd(Toy):
    """`Toy`, but for what `change(self, outcome)` makes of each step's five dictionaries."""

    def __init__(self, change, **options):
        super().__init__(**options)
        self.change = change

    def step(self, actions):
        return self.change(self, list(super().step(actions)))


def replaced(k, value):
    """Put `value(agent)` for every agent of the k-th dictionary of a step."""

    def change(toy, outcome):
        outcome[k] = {agent: value(agent) for agent in outcome[k]}
        return outcome

    return change


def put(k, value):
    def change(toy, outcome):
        outcome[k] = value
        return outcome

    return change


def revive(toy, outcome):
    if toy.time == 3:
        toy.agents.append("zoe")
    return outcome


def no_last_observation(toy, outcome):
    if toy.time == 4:
        outcome[0]["adam"] = None
    return outcome


ODD = {
    "rewards of shape (1,)": (replaced(1, lambda a: np.ones(1)), None),
    "rewards of torch": (replaced(1, lambda a: torch.ones(1, requires_grad=True)), None),
    "rewards of integers": (replaced(1, lambda a: 1), None),
    "observations of lists": (replaced(0, lambda a: [1.0, 1.0]), None),
    "observations of torch": (replaced(0, lambda a: torch.ones(2, requires_grad=True)), None),
    "infos of None": (replaced(4, lambda a: None), None),
    "no infos": (put(4, None), None),
    "empty infos": (put(4, {}), None),
    "flags of arrays": (replaced(2, lambda a: np.array([False])), None),
    "__all__ alone": (put(2, {"__all__": False}), None),
    "rewards of None": (replaced(1, lambda a: None), r"rewards\['zoe'\]: expected numbers"),
    "rewards of text": (replaced(1, lambda a: "1"), r"rewards\['zoe'\]: expected numbers"),
    "rewards under other names": (put(1, {0: 1.0}), "rewards: expected the key 'zoe'.*found the keys 0"),
    "no rewards": (put(1, {}), "rewards: expected the key 'zoe'.*found the keys none"),
    "flags under other names": (put(2, {"a": False}), "terminations: expected the key 'zoe' or '__all__'.*'a'"),
    "no flags": (put(3, {}), "truncations: expected the key 'zoe' or '__all__'"),
    "flags of 0.5": (replaced(2, lambda a: 0.5), r"terminations\['zoe'\]: expected True or False, found 0.5"),
    "flags of None": (replaced(2, lambda a: None), r"terminations\['zoe'\]: expected numbers"),
    "a bool for all": (put(3, False), "truncations: expected a dictionary"),
    "a list of infos": (put(4, [{}, {}]), "infos: expected a dictionary"),
    "observations of another shape": (replaced(0, lambda a: np.ones(3)), r"observations of 'zoe': .*shape \(2,\)"),
    "no observations": (put(0, {}), "observations: expected the key 'zoe'"),
    "cut without a last observation": (no_last_observation, "'adam' is truncated without a last observation"),
    "the old step": (lambda toy, outcome: outcome[:4], r"step\(\) must return five .* from 1.24 on; found 4 values"),
    "a stranger": (lambda toy, outcome: toy.agents.append("eve") or outcome, "'eve'.* not among possible_agents"),
    "one who comes back": (revive, "'zoe'.* came back after their end"),
}


@pytest.mark.parametrize("case", ODD)
def test_what_is_plain_is_read_and_the_rest_is_refused_by_name(case):
    change, complaint = ODD[case]
    env = from_parallel_env(Odd(change, ends={"zoe": 2}))
    if complaint is None:
        table = evaluate(env, lambda seen: np.zeros(seen.shape[:-1], int), 2)
        assert len(table) == 2 and np.isfinite(table["team_return"]).all() and (table["length"] == 4).all()
    else:
        with pytest.raises(ValueError, match=complaint):
            evaluate(env, lambda seen: np.zeros(seen.shape[:-1], int), 2)


@pytest.mark.parametrize("key", ["obs", "observations", "vector"])
@pytest.mark.parametrize("mask_key", ["action_mask", "action_masks", "avail_actions"])
def test_masks_are_found_whatever_the_rest_of_the_observation_is_called(key, mask_key):
    class Renamed(Toy):
        def observation_space(self, agent):
            parts = {key: spaces.Box(-1, 9, (2,), np.float32), mask_key: spaces.MultiBinary(3)}
            return spaces.Dict(parts | {"clock": spaces.Box(0, 9, (1,), np.float32)})

        def told(self):
            seen, infos = super().told()
            clock = np.array([self.time], np.float32)
            return {a: {key: v, mask_key: self.mask(a, self.time), "clock": clock} for a, v in seen.items()}, infos

        def plain(self, agent):
            return self.seen[agent]

    penv = Renamed(mask=lambda agent, time: np.arange(3) == time % 3, in_infos=True)
    env = from_parallel_env(penv)
    assert env.observation_space_size == 3
    team = make_team("mappo", state_dim=3, action_dim=3)
    check_env(env, team)
    assert (evaluate(env, team, 4)["length"] == 4).all(), "the environment asserts that every action is legal"


def test_names_that_are_only_similar_to_a_mask_are_refused():
    with pytest.raises(ValueError, match="expected one action mask, under one of action_mask,.*found .'actions_mask'"):
        from_parallel_env(
            Toy(seen=dict.fromkeys(("zoe", "adam"), spaces.Dict({"actions_mask": spaces.MultiBinary(3)})))
        )


def test_a_mask_that_stays_away_later_is_missed():
    class Forgets(Toy):
        def told(self):
            seen, infos = super().told()
            return seen, infos if self.time < 2 else {agent: {} for agent in infos}

    with pytest.raises(ValueError, match="evaluation stopped .*, step 2: agent 'zoe' is alive, but .* no action mask"):
        env = from_parallel_env(Forgets(mask=lambda agent, time: np.ones(3, np.int8), in_infos=True))
        evaluate(env, lambda seen: np.zeros(seen.shape[:-1], int), 1)


def test_images_are_divided_by_255():
    photo = dict.fromkeys(("zoe", "adam"), spaces.Box(0, 255, (2, 2, 3), np.uint8))
    env = from_parallel_env(Replies(seen=photo))
    assert env.reset(seed=0).max() == np.float32(200 / 255) and env.observation_space_size == 12


class Replies(Toy):
    def told(self):
        seen, infos = super().told()
        return {agent: np.full(value.shape, 200, np.uint8) for agent, value in seen.items()}, infos


LARGEST = np.finfo(np.float32).max


@pytest.mark.parametrize(
    "box",
    [
        spaces.Box(-LARGEST, LARGEST, (1,), np.float32),
        spaces.Box(-1e30, 1e30, (1,), np.float64),
        spaces.Box(-65504, 65504, (1,), np.float16),
        spaces.Box(0, np.inf, (1,), np.float32),
    ],
)
def test_bounds_that_mean_no_bound_are_refused(box):
    with pytest.raises(ValueError, match="expected a Box with finite bounds"):
        from_parallel_env(Toy(acts=dict.fromkeys(("zoe", "adam"), box)))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_actions_are_reckoned_in_float64_between_the_bounds(kind):
    box = spaces.Box(-60000, 60000, (1,), kind)
    toy = Toy(acts=dict.fromkeys(("zoe", "adam"), box))
    env = from_parallel_env(toy)
    env.reset()
    env.step(np.array([[0.25], [1.0]], np.float32))
    assert [float(action[0]) for action in toy.taken[0].values()] == pytest.approx([-30000.0, 60000.0], rel=1e-3)


def test_other_versions_of_the_api_and_things_that_are_no_environment_are_refused():
    class OldReset(Toy):
        def reset(self, seed=None, options=None):
            return super().reset(seed)[0]

    class NoSeed(Toy):
        def reset(self):
            return super().reset()

    for build, complaint in (
        (OldReset, r"reset\(\) must return two dictionaries.*from 1.24 on"),
        (lambda: Toy, "expected a ParallelEnv, found type"),
        (lambda: Toy(names=()), "possible_agents: expected the names of all agents"),
        (lambda: type("Old", (), {"step": print, "reset": print, "observation_space": {}})(), "observation_space: .*"),
    ):
        with pytest.raises(ValueError, match=complaint):
            from_parallel_env(build())
    assert from_parallel_env(NoSeed()).reset(seed=3).shape == (2, 2), "an environment without a seed is taken as it is"


def test_our_environments_refuse_actions_that_they_do_not_have():
    discrete, continuous = to_parallel_env(ConstantReward()), to_parallel_env(GuessNumber())
    for view, action in ((discrete, 1.5), (discrete, 7), (discrete, -1), (continuous, [np.nan]), (continuous, [2.0])):
        view.reset(seed=0)
        with pytest.raises(ValueError, match=r"actions\['agent_0'\]: expected"):
            view.step({"agent_0": action, "agent_1": action})
    with pytest.raises(ValueError, match="build one"):
        to_parallel_env(ConstantReward)


def test_our_environments_for_pettingzoo_can_be_pickled():
    view = to_parallel_env(ConstantReward())
    view.reset(seed=0)
    again = pickle.loads(pickle.dumps(view))
    assert isinstance(again, ParallelEnv) and again.step({"agent_0": 0, "agent_1": 1})[1] == {
        "agent_0": 1,
        "agent_1": 1,
    }


# --- here -> PettingZoo -----------------------------------------------------------------------------------------------

OURS = {
    "retail": lambda **more: MultiWarehouseEnv("hard", **more),
    "banking": lambda **more: TransactionRoutingEnv(difficulty="hard", **more),
}
THOUSAND = {"retail": {"horizon": 1000}, "banking": {"episode_steps": 1000}}


@pytest.mark.parametrize("name", OURS)
def test_our_environments_pass_the_api_test_of_pettingzoo_for_1000_cycles(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what the test only warns about is wrong, too
        parallel_api_test(to_parallel_env(OURS[name](**THOUSAND[name])), num_cycles=1000)
        parallel_api_test(to_parallel_env(OURS[name]()), num_cycles=1000)  # with a whole episode and its end


@pytest.mark.parametrize("make", [Masked, Leaving, TwoStepGame, GuessNumber])
def test_environments_with_masks_ends_states_and_other_actions_pass_it_too(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(to_parallel_env(make()), num_cycles=50)


@pytest.mark.parametrize("name", OURS)
def test_whole_episodes_of_our_environments_repeat(name):
    parallel_seed_test(lambda: to_parallel_env(OURS[name]()), num_cycles=50)
    penv = to_parallel_env(OURS[name]())

    def episode(seed):
        observations, _ = penv.reset(seed=seed)
        for k, agent in enumerate(penv.possible_agents):
            penv.action_space(agent).seed(k)
        log = [observations]
        while penv.agents:
            log.append(penv.step({agent: penv.action_space(agent).sample() for agent in penv.agents}))
        return log

    one, other, different = episode(5), episode(5), episode(6)
    assert len(one) == len(other) == {"retail": 31, "banking": 601}[name]
    np.testing.assert_equal(one, other)
    with pytest.raises(AssertionError):
        np.testing.assert_equal(one, different)


@pytest.mark.parametrize("name", OURS)
def test_there_and_back_again_is_the_same_environment(name):
    ours, round_trip = OURS[name](), from_parallel_env(to_parallel_env(OURS[name]()))
    sizes = ("num_agents", "observation_space_size", "action_space_size", "discrete_actions")
    assert [getattr(ours, s) for s in sizes] == [getattr(round_trip, s) for s in sizes]
    draw = np.random.default_rng(0)
    assert np.array_equal(ours.reset(seed=3), round_trip.reset(seed=3))
    done = False
    while not done:
        floats = draw.random((ours.num_agents, ours.action_space_size), np.float32)
        actions = floats.argmax(axis=-1) if ours.discrete_actions else floats
        mine, theirs = ours.step(actions), round_trip.step(actions)
        assert all(np.array_equal(a, b) for a, b in zip(mine[:3], theirs[:3], strict=True))
        assert np.all(theirs[3]["truncated"] == mine[3]["truncated"])
        if ours.state_size:
            assert np.array_equal(ours.state(), round_trip.state())
        done = mine[2].all()
    assert mine[3]["episode_metrics"] == theirs[3]["episode_metrics"]


def test_masks_join_the_observation_and_the_finished_leave():
    penv = to_parallel_env(Masked())
    observations, infos = penv.reset(seed=0)
    assert observations["agent_1"]["action_mask"].tolist() == penv.env.action_masks()[1].tolist()
    assert infos == {"agent_0": {}, "agent_1": {}}
    penv = to_parallel_env(Leaving())
    penv.reset(seed=0)
    lengths, leaving = penv.env.lengths, {}
    while penv.agents:
        _, _, terminated, truncated, _ = penv.step(dict.fromkeys(penv.agents, 0))
        leaving |= {agent: (penv.env.time, cut) for agent, cut in truncated.items() if cut or terminated[agent]}
    assert leaving == {f"agent_{i}": (int(lengths[i]), i == 2) for i in range(3)}, "the last agent alone is cut"
    assert penv.step({}) == ({}, {}, {}, {}, {})


def test_what_has_no_counterpart_in_pettingzoo_is_refused():
    with pytest.raises(ValueError, match="build it without num_envs"):
        to_parallel_env(MultiWarehouseEnv(num_envs=2))
    silent = ConstantReward()
    silent.discrete_actions = None
    with pytest.raises(ValueError, match="no discrete_actions"):
        to_parallel_env(silent)
    penv = to_parallel_env(silent, discrete_actions=True)
    penv.reset(seed=0)
    with pytest.raises(NotImplementedError, match=r"no state\(\)"):
        penv.state()
    for wrong in ({"agent_0": 0}, {"agent_0": 0, "agent_1": 0, "agent_2": 0}, {"agent_0": [0], "agent_1": 0}):
        with pytest.raises(ValueError, match="actions"):
            penv.step(wrong)
