"""MultiWarehouseEnv does what its description says: units, dollars, chance, observations and refusals."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from retail.constants import DIFFICULTIES, RetailConstants
from retail.environment import MAX_LOOKAHEAD, OBSERVATION_NAMES, MultiWarehouseEnv

METRICS = [
    "total_cost",
    "stockout_cost",
    "transfer_cost",
    "return_cost",
    "holding_cost",
    "demand",
    "stockout_percent",
    "fill_rate",
    "cycle_service_level",
    "units_moved",
    "inventory_balance",
    "on_hand",
    "days_of_supply",
    "bullwhip",
]
DETAILS = [
    "demand",
    "orders",
    "shipped",
    "received_transfer",
    "sent_transfer",
    "unmet",
    "on_hand",
    "returned",
    "cost",
]


def play(env, seed, actions):
    """One episode with actions (T, ...) -> observations (T + 1, ...), rewards, details by name (T, ...), last info."""
    observations, rewards, details = [env.reset(seed)], [], []
    for action in actions:
        observation, reward, _, info = env.step(action)
        observations.append(observation)
        rewards.append(reward)
        details.append(info["details"])
    stacked = {name: np.array([period[name] for period in details]) for name in details[0]}
    return np.array(observations), np.array(rewards), stacked, info


def random_actions(*shape, seed=0):
    return np.random.default_rng(seed).random(shape)


def scripted(demand, **constants):
    """An environment whose demand is `demand` (T, N); on-hand starts at mean_demand."""
    demand = np.asarray(demand, dtype=float)
    rest = np.ones((MAX_LOOKAHEAD, demand.shape[1]))
    constants = dict(start_range=(1.0, 1.0), horizon=len(demand)) | constants
    return MultiWarehouseEnv(demand_source=lambda rng: np.concatenate([demand, rest]), **constants)


# ----------------------------------------------------------------------------------------------------- interface


def test_shapes_types_and_the_end_of_an_episode():
    for env, lead in ((MultiWarehouseEnv(), ()), (MultiWarehouseEnv(num_envs=3), (3,))):
        assert (env.num_agents, env.observation_space_size, env.action_space_size) == (5, 14, 1)
        assert env.discrete_actions is False and len(OBSERVATION_NAMES) == 14
        observations, rewards, details, info = play(env, 1, random_actions(30, *lead, 5, 1))
        assert observations.shape == (31, *lead, 5, 14) and observations.dtype == np.float32
        assert rewards.shape == (30, *lead, 5) and rewards.dtype == np.float32
        assert np.isfinite(observations).all()
        assert sorted(details) == sorted(DETAILS) and all(v.shape == (30, *lead, 5) for v in details.values())
        assert list(info["episode_metrics"]) == METRICS
        assert all(np.shape(v) == lead for v in info["episode_metrics"].values())
        assert np.shape(info["truncated"]) == lead and np.all(info["truncated"])


def test_only_the_last_step_is_done_and_has_metrics():
    env = MultiWarehouseEnv(num_envs=2)
    env.reset(0)
    for t in range(30):
        _, _, dones, info = env.step(np.full((2, 5, 1), 0.5))
        last = t == 29
        assert dones.dtype == bool and dones.shape == (2, 5) and (dones == last).all()
        assert (info["truncated"] == last).all() and ("episode_metrics" in info) == last


def test_stepping_outside_an_episode_says_to_reset():
    env = MultiWarehouseEnv(horizon=1)
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros((5, 1)))
    env.reset(0)
    env.step(np.zeros((5, 1)))
    with pytest.raises(RuntimeError, match="over.*reset"):
        env.step(np.zeros((5, 1)))


# -------------------------------------------------------------------------------------------------------- chance


def test_the_same_seed_is_the_same_episode_and_another_seed_another():
    actions = random_actions(30, 5, 1)
    first, again, other = (play(MultiWarehouseEnv(), seed, actions) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[2]["demand"], other[2]["demand"])


@pytest.mark.parametrize("copies", [1, 2, 7])
@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_stacked_copies_equal_single_environments_bit_for_bit(copies, difficulty):
    stacked = MultiWarehouseEnv(difficulty, num_envs=copies, state_lookahead=3, team_reward_weight=0.3)
    actions = random_actions(30, copies, 5, 1)
    observations, rewards, details, info = play(stacked, 11, actions)
    final_state = stacked.state()
    for e in range(copies):
        single = MultiWarehouseEnv(difficulty, state_lookahead=3, team_reward_weight=0.3)
        one = play(single, 11 + e, actions[:, e])
        np.testing.assert_array_equal(one[0], observations[:, e])
        np.testing.assert_array_equal(one[1], rewards[:, e])
        for name in DETAILS:
            np.testing.assert_array_equal(one[2][name], details[name][:, e])
        for name in METRICS:
            assert one[3]["episode_metrics"][name] == info["episode_metrics"][name][e], name
        np.testing.assert_array_equal(single.state(), final_state[e])


def test_a_sequence_of_seeds_seeds_each_copy():
    actions = random_actions(30, 2, 5, 1)
    run = play(MultiWarehouseEnv(num_envs=2), [40, 3], actions)
    np.testing.assert_array_equal(run[0][:, 1], play(MultiWarehouseEnv(), 3, actions[:, 1])[0])


def test_without_a_seed_episodes_differ_and_repeat_with_the_constructor_seed():
    first, again = MultiWarehouseEnv(num_envs=2, seed=5), MultiWarehouseEnv(num_envs=2, seed=5)
    a, b = first.reset(), first.reset()
    assert not np.array_equal(a, b) and not np.array_equal(a[0], a[1])
    np.testing.assert_array_equal(a, again.reset())
    np.testing.assert_array_equal(b, again.reset())


def test_demand_does_not_depend_on_the_actions_or_the_lookahead():
    nothing, everything = np.zeros((30, 5, 1)), np.ones((30, 5, 1))
    one = play(MultiWarehouseEnv(), 2, nothing)[2]["demand"]
    two = play(MultiWarehouseEnv(state_lookahead=8), 2, everything)[2]["demand"]
    np.testing.assert_array_equal(one, two)


def rates_and_demand(copies=2000, steps=1, **constants):
    """True mean demand and demand of the first `steps` periods, (steps, E, N) each, in units, by the public state."""
    env = MultiWarehouseEnv(num_envs=copies, state_lookahead=1, **constants)
    env.reset(0)
    scale = np.mean(env.constants.mean_demand)
    seen = []
    for _ in range(steps):
        seen.append(env.state().reshape(copies, -1, 2) * scale)
        env.step(np.zeros((copies, env.num_agents, 1)))
    return np.moveaxis(np.array(seen, dtype=float), -1, 0)


@pytest.mark.parametrize("difficulty,cv", [("easy", 0.2), ("medium", 0.4), ("hard", 0.6)])
def test_demand_has_the_documented_mean_and_noise(difficulty, cv):
    rate, demand = rates_and_demand(copies=4000, difficulty=difficulty, steps=3)
    assert demand.sum(axis=-1).mean() == pytest.approx(1.91, rel=0.025)
    noise = demand / rate
    assert noise.mean() == pytest.approx(1.0, abs=0.01)
    assert noise.std() == pytest.approx(cv, rel=0.03)


def test_the_mix_moves_between_episodes_but_keeps_its_sum():
    quiet = dict(regime_factors=(1.0,), regime_probabilities=(1.0,), season_amplitude=0.0, level_sd=0.0)
    rate, _ = rates_and_demand(**quiet)
    np.testing.assert_allclose(rate[0].sum(axis=-1), 1.91, rtol=1e-6)
    ratio = np.log(rate[0][:, 0] / rate[0][:, 1]) - np.log(0.96 / 0.48)  # difference of two N(0, 0.9)
    assert ratio.mean() == pytest.approx(0.0, abs=0.1)
    assert ratio.std() == pytest.approx(0.9 * np.sqrt(2), rel=0.05)


def test_regimes_have_the_documented_shares_and_persistence():
    rate, _ = rates_and_demand(copies=1000, steps=30, mix_sd=0.0, season_amplitude=0.0, level_sd=0.0)
    factor = rate / np.array([0.96, 0.48, 0.25, 0.15, 0.07])  # (T, E, N)
    regimes = np.array([0.6, 1.0, 1.9]) / 1.105  # 1.105: their mean
    kind = np.abs(factor[..., None] - regimes).argmin(axis=-1)
    np.testing.assert_allclose(factor, regimes[kind], rtol=1e-5)
    np.testing.assert_allclose([(kind == k).mean() for k in range(3)], [0.30, 0.45, 0.25], atol=0.015)
    changes = (kind[1:] != kind[:-1]).mean()
    assert changes == pytest.approx(0.04 * (1 - 0.30**2 - 0.45**2 - 0.25**2), rel=0.05)


def test_the_week_in_the_observation_is_the_week_of_demand():
    env = MultiWarehouseEnv(
        num_envs=64,
        state_lookahead=1,
        mix_sd=0.0,
        level_sd=0.0,
        regime_factors=(1.0,),
        regime_probabilities=(1.0,),
        season_amplitude=0.2,
    )
    observations = env.reset(0)
    phases = set()
    for _ in range(9):
        rate = env.state().reshape(64, 5, 2)[:, 0, 0] * 0.382 / 0.96
        sine = observations[:, 0, OBSERVATION_NAMES.index("week_sin")]
        np.testing.assert_allclose(rate, 1 + 0.2 * sine, rtol=1e-5)
        phases |= set(np.round(sine, 4))
        observations, *_ = env.step(np.zeros((64, 5, 1)))
    assert len(phases) == 7


def test_levels_are_common_to_all_warehouses_with_mean_one():
    rate, _ = rates_and_demand(
        mix_sd=0.0, season_amplitude=0.0, level_sd=0.1, regime_factors=(1.0,), regime_probabilities=(1.0,)
    )
    level = rate[0] / np.array([0.96, 0.48, 0.25, 0.15, 0.07])
    np.testing.assert_allclose(level, level[:, :1] * np.ones(5), rtol=1e-5)
    assert level[:, 0].mean() == pytest.approx(1.0, abs=0.01)
    assert level[:, 0].std() == pytest.approx(0.1, rel=0.06)


# ------------------------------------------------------------------------------------------------ units and dollars


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_units_are_conserved_in_every_warehouse(difficulty):
    env = MultiWarehouseEnv(difficulty, num_envs=20)
    env.reset(3)
    start = [env.episode(e) for e in range(20)]
    stock = np.array([episode.on_hand for episode in start])  # (E, N)
    transit = np.array([episode.pipeline.sum(axis=0) for episode in start])
    for action in random_actions(30, 20, 5, 1) ** 3:
        observations, _, _, info = env.step(action)
        d = {name: values for name, values in info["details"].items()}
        new_transit = 4 * 0.382 * observations[..., OBSERVATION_NAMES.index("pipeline/4s")].astype(float)
        sold = d["demand"] - d["unmet"] - d["received_transfer"]  # from the own shelf
        arrived = transit + d["shipped"] - new_transit
        gone = sold + d["sent_transfer"] + d["returned"]
        np.testing.assert_allclose(stock + arrived, d["on_hand"] + gone, atol=1e-5)
        np.testing.assert_allclose(d["sent_transfer"].sum(axis=-1), d["received_transfer"].sum(axis=-1), atol=1e-12)
        assert min(values.min() for values in d.values()) >= 0
        assert (d["on_hand"] <= np.array([5, 4, 3, 2, 1.5]) + 1e-12).all()
        assert (d["shipped"].sum(axis=-1) <= 2.5 + 1e-9).all()
        stock, transit = d["on_hand"], new_transit


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_rewards_sum_to_minus_the_total_cost(weight):
    _, rewards, details, info = play(MultiWarehouseEnv(team_reward_weight=weight), 5, random_actions(30, 5, 1))
    assert rewards.sum() == pytest.approx(-info["episode_metrics"]["total_cost"], rel=1e-5)
    own = details["cost"]
    expected = -(weight * own.mean(axis=-1, keepdims=True) + (1 - weight) * own)
    np.testing.assert_allclose(rewards, expected, rtol=1e-5)


def test_metrics_follow_from_the_details():
    _, _, d, info = play(MultiWarehouseEnv(), 6, random_actions(30, 5, 1))
    m = info["episode_metrics"]
    assert m["total_cost"] == pytest.approx(d["cost"].sum())
    assert m["stockout_cost"] == pytest.approx(10 * d["unmet"].sum())
    assert m["transfer_cost"] == pytest.approx(0.5 * d["received_transfer"].sum())
    assert m["return_cost"] == pytest.approx(0.5 * d["returned"].sum())
    assert m["holding_cost"] == pytest.approx(0.1 * d["on_hand"].sum())
    assert m["stockout_percent"] == pytest.approx(100 * d["unmet"].sum() / d["demand"].sum())
    assert m["fill_rate"] == pytest.approx(1 - m["stockout_percent"] / 100)
    assert m["cycle_service_level"] == pytest.approx((d["unmet"] == 0).mean())
    assert m["units_moved"] == pytest.approx((d["received_transfer"] + d["returned"]).sum())
    assert m["inventory_balance"] == pytest.approx(d["on_hand"].std(axis=1).mean())
    assert m["on_hand"] == pytest.approx(d["on_hand"].sum(axis=1).mean())
    assert m["days_of_supply"] == pytest.approx(m["on_hand"] / d["demand"].sum(axis=1).mean())
    assert m["bullwhip"] == pytest.approx(d["orders"].var(axis=0).sum() / d["demand"].var(axis=0).sum())


def test_one_period_by_hand():
    env = scripted(
        [[1.5, 1.6], [0.0, 0.0]],
        mean_demand=(1.0, 0.6),
        order_limit=2.0,
        supplier_capacity=2.0,
        lead_times=(1, 2),
        storage=(2.0, 1.5),
        lane_limit=0.1,
    )
    first = env.reset(0)
    s = 0.8
    sin, cos = first[0, 9], first[0, 10]
    day = np.arctan2(sin, cos)
    np.testing.assert_allclose(
        first,
        [
            [1 / (4 * s), 1 / s, 0, 1 / (4 * s), 1 / s, 1 / s, 0, 0, 0, sin, cos, 1, 0, 0.2],
            [0.6 / (4 * s), 0.6 / s, 0.6 / s, 1.2 / (4 * s), 0.6 / s, 0.6 / s, 0, 0, 0, sin, cos, 1, 0, 0.3],
        ],
        atol=1e-6,
    )
    # Orders 1.0 and 1.5 meet a capacity of 2.0: 80 % are shipped. Stock after arrivals 2.0 and 1.2; after sales 0.5
    # and 0 with 0.4 short; the ring's two lanes (both from warehouse 0 when there are two) bring 0.1 each.
    observations, _, _, info = env.step(np.array([[0.5], [0.75]]))
    d = info["details"]
    np.testing.assert_allclose(d["orders"], [1.0, 1.5])
    np.testing.assert_allclose(d["shipped"], [0.8, 1.2])
    np.testing.assert_allclose(d["unmet"], [0.0, 0.2], atol=1e-12)
    np.testing.assert_allclose(d["received_transfer"], [0.0, 0.2])
    np.testing.assert_allclose(d["sent_transfer"], [0.2, 0.0])
    np.testing.assert_allclose(d["on_hand"], [0.3, 0.0])
    np.testing.assert_allclose(d["cost"], [0.03, 10 * 0.2 + 0.5 * 0.2])
    later = day + 2 * np.pi / 7
    average = [1.0 + 0.4 * 0.5, 0.6 + 0.4 * 1.0]
    position = [0.3 + 0.8, 0.0 + 0.6 + 1.2]
    np.testing.assert_allclose(
        observations,
        [
            [
                0.3 / 3.2,
                1.0,
                0.0,
                0.25,
                1.5 / s,
                average[0] / s,
                0,
                0,
                0.25,
                np.sin(later),
                np.cos(later),
                0.8,
                (position[0] - 2 * average[0]) / 3.2,
                position[0] / average[0] / 10,
            ],
            [
                0.0,
                0.6 / s,
                1.2 / s,
                1.8 / 3.2,
                2.0,
                average[1] / s,
                0.25,
                0.25,
                0,
                np.sin(later),
                np.cos(later),
                0.8,
                (position[1] - 3 * average[1]) / 3.2,
                position[1] / average[1] / 10,
            ],
        ],
        atol=1e-6,
    )


def test_an_order_arrives_after_its_lead_time_and_what_does_not_fit_goes_back():
    env = scripted(
        np.zeros((5, 2)),
        mean_demand=(1.0, 1.0),
        lead_times=(1, 3),
        storage=(1.5, 9.0),
        order_limit=1.0,
        supplier_capacity=9.0,
    )
    actions = np.zeros((5, 2, 1))
    actions[0] = 1.0
    _, _, d, info = play(env, 0, actions)
    # Warehouse 0 starts with 1.0, room for 0.5: half of the unit on its way fits, the order of period 0 does not.
    np.testing.assert_allclose(d["on_hand"][:, 0], [1.5, 1.5, 1.5, 1.5, 1.5])
    np.testing.assert_allclose(d["returned"][:, 0], [0.5, 1.0, 0, 0, 0])
    # Warehouse 1: one unit in each of three slots, then the order of period 0 in period 3.
    np.testing.assert_allclose(d["on_hand"][:, 1], [2, 3, 4, 5, 5])
    assert info["episode_metrics"]["return_cost"] == pytest.approx(0.5 * 1.5)


def test_two_receivers_of_one_giver_cannot_take_the_same_unit():
    # Warehouse 1 keeps 0.1: warehouse 0 takes a lane's worth from its i + 1, warehouse 2 the rest from its i - 1.
    env = scripted([[9.0, 1.9, 9.0]], mean_demand=(1.0, 1.0, 1.0), lead_times=1, storage=5.0, lane_limit=0.08)
    _, _, d, _ = play(env, 0, np.zeros((1, 3, 1)))
    np.testing.assert_allclose(d["received_transfer"][0], [0.08, 0.0, 0.02], atol=1e-12)
    np.testing.assert_allclose(d["sent_transfer"][0], [0.0, 0.1, 0.0], atol=1e-12)
    np.testing.assert_allclose(d["on_hand"][0], 0.0, atol=1e-12)


def test_every_constant_order_is_expensive_on_medium():
    env = MultiWarehouseEnv(num_envs=300)
    for action in np.linspace(0.0, 1.0, 21):
        metrics = play(env, 10_000, np.full((30, 300, 5, 1), action))[3]["episode_metrics"]
        assert metrics["total_cost"].mean() > 150, action


# -------------------------------------------------------------------------------- difficulty, state and scenarios


def test_difficulties_set_the_documented_constants_and_explicit_ones_win():
    easy, medium, hard = (MultiWarehouseEnv(name).constants for name in ("easy", "medium", "hard"))
    assert medium == RetailConstants()
    assert (easy.demand_cv, easy.regime_redraw, easy.regime_factors) == (0.2, 0.015, (0.8, 1.0, 1.4))
    assert (hard.demand_cv, hard.regime_redraw, hard.regime_factors) == (0.6, 0.10, (0.4, 1.0, 2.2))
    assert (hard.season_amplitude, hard.level_sd) == (0.2, 0.10)
    explicit = MultiWarehouseEnv("hard", demand_cv=0.3)
    assert explicit.constants.demand_cv == 0.3 and explicit.constants.level_sd == 0.10


def test_a_new_difficulty_holds_from_the_next_reset():
    env, actions = MultiWarehouseEnv("easy"), random_actions(30, 5, 1)
    env.reset(4)
    env.set_difficulty("hard")
    assert env.constants.demand_cv == 0.2
    np.testing.assert_array_equal(play(env, 4, actions)[0], play(MultiWarehouseEnv("hard"), 4, actions)[0])


def test_the_state_is_the_mean_demand_and_what_was_drawn_for_the_next_periods():
    env = MultiWarehouseEnv(state_lookahead=4)
    assert env.state_size == 5 * 5
    env.reset(9)
    states = [env.state()]
    demand = []
    for action in random_actions(30, 5, 1):
        demand.append(env.step(action)[3]["details"]["demand"])
        states.append(env.state())
    states = np.array(states).reshape(31, 5, 5) * 0.382  # (T + 1, N, 1 + H) units
    for t in range(27):
        np.testing.assert_allclose(states[t, :, 1:].T, demand[t : t + 4], rtol=1e-6)
    assert (states[30] > 0).all()  # beyond the horizon demand goes on: the state hides the clock too
    stacked = MultiWarehouseEnv(num_envs=3, state_lookahead=8)
    stacked.reset(0)
    assert stacked.state().shape == (3, 45) and stacked.state().dtype == np.float32


def test_without_lookahead_there_is_no_state():
    env = MultiWarehouseEnv()
    env.reset(0)
    assert env.state_size == 0
    with pytest.raises(AttributeError, match="state_lookahead"):
        env.state()


def test_demand_and_supplier_multipliers_change_only_what_they_name():
    actions = np.ones((30, 5, 1))
    plain = play(MultiWarehouseEnv(), 3, actions)[2]
    double = np.ones((30, 5))
    double[10:20, 2] = 2.0
    factors = np.ones(30)
    factors[5] = 0.0
    what_if = play(MultiWarehouseEnv(demand_multiplier=double, supplier_multiplier=factors), 3, actions)[2]
    np.testing.assert_allclose(what_if["demand"], plain["demand"] * double)
    np.testing.assert_allclose(what_if["shipped"].sum(axis=-1), 2.5 * factors)
    common = play(MultiWarehouseEnv(demand_multiplier=np.full(30, 1.5)), 3, actions)[2]
    np.testing.assert_allclose(common["demand"], 1.5 * plain["demand"])


def test_a_demand_source_replaces_demand_and_nothing_else():
    def source(rng):
        return rng.random((38, 5))

    env, plain = MultiWarehouseEnv(num_envs=2, demand_source=source), MultiWarehouseEnv(num_envs=2)
    np.testing.assert_array_equal(env.reset(3), plain.reset(3))
    demand = env.step(np.zeros((2, 5, 1)))[3]["details"]["demand"]
    assert (demand < 1).all() and not np.array_equal(demand[0], demand[1])
    repeated = play(env, 3, np.zeros((30, 2, 5, 1)))[2]["demand"]
    np.testing.assert_array_equal(repeated[0], demand)


def test_other_sizes_of_network():
    for n in (1, 2, 9):
        env = MultiWarehouseEnv(mean_demand=np.full(n, 0.4), lead_times=3, storage=2.0, num_envs=2, horizon=4)
        observations, _, _, _ = play(env, 0, random_actions(4, 2, n, 1))
        assert observations.shape == (5, 2, n, 14) and np.isfinite(observations).all()


def test_a_caller_cannot_change_the_episode_through_what_it_was_given():
    env, twin = MultiWarehouseEnv(), MultiWarehouseEnv()
    env.reset(0), twin.reset(0)
    for action in random_actions(5, 5, 1):
        observations, rewards, dones, info = env.step(action)
        expected = twin.step(action)
        np.testing.assert_array_equal(observations, expected[0])
        for array in (observations, rewards, dones, *info["details"].values()):
            array[...] = 99


def test_a_deep_copy_goes_on_alike():
    env = MultiWarehouseEnv()
    env.reset(0)
    env.step(np.full((5, 1), 0.2))
    twin, action = copy.deepcopy(env), np.full((5, 1), 0.3)
    np.testing.assert_array_equal(env.step(action)[0], twin.step(action)[0])


# ------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "arguments,message",
    [
        (dict(difficulty="impossible"), "difficulty.*easy, medium, hard"),
        (dict(difficulty=3), "difficulty"),
        (dict(num_envs=0), "num_envs"),
        (dict(num_envs=2.0), "num_envs"),
        (dict(num_envs=True), "num_envs"),
        (dict(seed=-1), "seed"),
        (dict(seed="today"), "seed"),
        (dict(state_lookahead=9), "state_lookahead.*0 to 8"),
        (dict(horizon=0), "horizon"),
        (dict(horizon=2.5), "horizon"),
        (dict(mean_demand=()), "mean_demand"),
        (dict(mean_demand=(1.0, -1.0)), "mean_demand"),
        (dict(mean_demand=(1.0, 1.0)), "lead_times|storage"),
        (dict(mean_demand="much"), "mean_demand"),
        (dict(storage=(1.0, 2.0)), "storage.*5"),
        (dict(order_limit=0.0), "order_limit"),
        (dict(lead_times=(1, 1, 1, 2, 0)), "lead_times"),
        (dict(lead_times=1.5), "lead_times.*whole"),
        (dict(supplier_capacity=-1.0), "supplier_capacity"),
        (dict(stockout_cost=float("nan")), "stockout_cost"),
        (dict(demand_cv=0.0), "demand_cv"),
        (dict(team_reward_weight=1.5), "team_reward_weight"),
        (dict(regime_redraw=2.0), "regime_redraw"),
        (dict(regime_probabilities=(0.5, 0.5)), "regime_probabilities"),
        (dict(regime_probabilities=(0.5, 0.5, 0.5)), "regime_probabilities.*sum to 1"),
        (dict(start_range=(2.0, 1.0)), "start_range"),
        (dict(demand_multiplier=np.ones(29)), "demand_multiplier.*30"),
        (dict(demand_multiplier=-np.ones(30)), "demand_multiplier"),
        (dict(supplier_multiplier=np.ones((30, 5))), "supplier_multiplier"),
        (dict(stockout_costs=1.0), "did you mean 'stockout_cost'"),
        (dict(lookahead=1), "state_lookahead"),
    ],
)
def test_bad_constructor_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiWarehouseEnv(**arguments)


@pytest.mark.parametrize(
    "actions,message",
    [
        (np.zeros(5), r"shape \(5,\).*\(5, 1\)"),
        (np.zeros((4, 1)), "shape"),
        (np.zeros((5, 2)), "shape"),
        (np.full((5, 1), -0.1), r"actions\[0, 0\] is -0.1"),
        (np.array([[0.0], [0.5], [1.01], [0.0], [0.0]]), r"actions\[2, 0\] is 1.01"),
        (np.array([[0.0], [np.nan], [0.0], [0.0], [0.0]]), r"actions\[1, 0\] is nan"),
        (np.zeros((5, 1), dtype=bool), "bool"),
        (np.array([["a"]] * 5), "floats"),
        (None, "floats"),
    ],
)
def test_bad_actions_are_refused_and_leave_the_episode_alone(actions, message):
    env = MultiWarehouseEnv()
    env.reset(0)
    with pytest.raises(ValueError, match=message):
        env.step(actions)
    undisturbed = play(MultiWarehouseEnv(), 0, np.zeros((1, 5, 1)))[0][1]
    np.testing.assert_array_equal(env.step(np.zeros((5, 1)))[0], undisturbed)


@pytest.mark.parametrize("seed", [-1, 1.5, "x", [1, 2, 3], [1, -2], True])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(ValueError, match="seed"):
        MultiWarehouseEnv(num_envs=2).reset(seed)


@pytest.mark.parametrize("demand", [np.ones((30, 5)), np.ones((38, 4)), -np.ones((38, 5)), np.full((38, 5), np.nan)])
def test_bad_sources_of_demand_are_refused(demand):
    with pytest.raises(ValueError, match=r"demand_source.*\(38, 5\)"):
        MultiWarehouseEnv(demand_source=lambda rng: demand).reset(0)
