"""No policy gets more than the relaxed bound, enumeration included; knowing the future plays in between."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from banking import baselines as b
from banking import clairvoyant
from banking.clairvoyant import ClairvoyantRollout, clairvoyant_rollout, relaxed_bound, relaxed_bounds
from banking.environment import TransactionRoutingEnv

ROUNDING = 1e-3  # rewards are float32

TWO = dict(
    arrival_rates=(0.9, 0.7),
    burst_factors=(1.0, 1.2),
    amount_medians=(100.0, 900.0),
    urgent_probabilities=(0.5, 0.2),
    channel_names=("a", "b"),
    base_latency_ms=(20.0, 90.0),
    risk_rates=(0.04, 0.01),
    fees=(0.1, 1.0),
    channel_rates=(70.0, 40.0),
    buffer_ms=(900.0, 900.0),
    initial_workload_ms=(40.0, 30.0),
    capacity_sd=(0.2, 0.3),
)
TINY = {
    "as it is": {},
    "small buffers": dict(buffer_ms=(12.0, 30.0)),
    "one small buffer": dict(buffer_ms=(0.0, 900.0), initial_workload_ms=(0.0, 80.0)),
    "full from the start": dict(buffer_ms=(20.0, 20.0), initial_workload_ms=(90.0, 90.0)),
    "risk is high": dict(initial_risk=0.055, risk_rates=(0.12, 0.02), risk_memory_ms=40.0),
    "risk is dear": dict(initial_risk=0.03, risk_memory_ms=30.0, risk_cost=40.0, violation_cost=90.0),
    "no price of risk": dict(risk_cost=0.0, risk_rates=(0.2, 0.1)),
    "urgent before all": dict(urgent_weight=9.0, urgent_probabilities=(0.5, 0.5), buffer_ms=(25.0, 25.0)),
    "more than can be sent": dict(load=2.5, leftover_cost=0.4, buffer_ms=(20.0, 900.0)),
    "waiting pays": dict(
        load=0.4,
        refusal_cost=0.0,
        urgent_weight=9.0,
        urgent_probabilities=(1.0, 1.0),
        initial_workload_ms=(40.0, 40.0),
        buffer_ms=(5.0, 5.0),
        leftover_cost=9.0,
    ),
    "best left over": dict(
        load=0.4,
        refusal_cost=0.0,
        base_latency_ms=(900.0, 900.0),
        buffer_ms=(5.0, 5.0),
        initial_workload_ms=(90.0, 90.0),
    ),
    "nearly nothing": dict(load=0.1),
    "slow, then nothing": dict(channel_rates=(9.0, 11.0), outage=("a", 1, 3)),
    "long steps": dict(step_ms=70.0, latency_target_ms=40.0, size_exponent=1.0),
}


def every_play(seed: int, steps: int, **constants):
    """Each sequence of joint actions of two routers and two channels, in copies of one episode -> reward, refusals."""
    sequences = np.array(list(itertools.product(range(2), repeat=2 * steps))).reshape(-1, steps, 2)
    env = TransactionRoutingEnv(len(sequences), episode_steps=steps, **{**TWO, **constants})
    env.reset(seed=[seed] * len(sequences))
    reward = 0.0
    for t in range(steps):
        _, rewards, _, info = env.step(sequences[:, t])
        reward = reward + rewards.sum(axis=1, dtype=np.float64)
    return env, reward, info["episode_metrics"]["refusals"]


@pytest.mark.parametrize("name", TINY)
def test_no_sequence_of_actions_beats_the_bound(name):
    for seed in range(3):
        env, reward, refusals = every_play(seed, 4, **TINY[name])
        bound = relaxed_bound(env, iterations=(0, 120, 20)[seed])
        assert reward.max() <= bound["team_return"] + ROUNDING
        assert bound["team_return"] == max(bound["never refused"], bound["refused"])
        for case, members in (("never refused", refusals == 0), ("refused", refusals > 0)):  # each case by itself
            assert reward[members].max(initial=-np.inf) <= bound[case] + ROUNDING, case


@pytest.mark.parametrize("name", ["as it is", "full from the start", "risk is high", "risk is dear"])
def test_any_multipliers_give_a_bound(name):
    for seed in range(3):
        env, reward, refusals = every_play(seed, 4, **TINY[name])
        problem = clairvoyant._in_parts(env, [0])[0]
        rng = np.random.default_rng(seed)
        mu = rng.normal(2.0, 1.0, problem.present.shape)
        eta = [rng.random((4, 1)), np.ones((4, 1)), np.array([[0.0], [0.0], [1.0], [1.0]])][seed]
        free, refused = clairvoyant._at_least(problem, mu, eta, [clairvoyant._after_refusal(problem, 0, 10 * seed)])
        assert reward[refusals == 0].max(initial=-np.inf) <= -free[0] + ROUNDING
        assert reward[refusals > 0].max(initial=-np.inf) <= -refused[0] + ROUNDING


def test_the_bound_is_close_to_the_best_of_all_sequences():
    gaps, spreads = [], []
    for seed in range(4):
        env, reward, _ = every_play(seed, 5)
        gaps.append(relaxed_bound(env)["team_return"] - reward.max())
        spreads.append(reward.max() - reward.min())
    assert np.mean(gaps) < 0.1 * np.mean(spreads)


def test_the_bound_is_the_reward_where_there_is_nothing_to_decide():
    # One channel, 20 ms of work a transaction and 20 ms of capacity a step: works are whole cells of both grids, so the
    # only error is the cell by which waits are read too low.
    def two_a_step(rng):
        arrivals = np.zeros((40, 2), int)
        arrivals[:15] = 1
        return {
            "arrivals": arrivals,
            "amounts": np.full(30, 50.0),
            "urgent": np.arange(30) % 3 == 0,
            "service": np.ones(30),
        }

    env = TransactionRoutingEnv(
        1,
        traffic_source=two_a_step,
        episode_steps=40,
        arrival_rates=(1.0, 1.0),
        burst_factors=(1.0, 1.0),
        amount_medians=(50.0, 50.0),
        urgent_probabilities=(0.3, 0.3),
        channel_names=("only",),
        base_latency_ms=(20.0,),
        risk_rates=(0.01,),
        fees=(0.1,),
        channel_rates=(50.0,),
        buffer_ms=(5000.0,),
        initial_workload_ms=(0.0,),
        capacity_sd=(0.0,),
        step_ms=20.0,
    )
    reward = b.play(env, b.Always(0), 0)["team_return"][0]
    bound = relaxed_bound(env)
    assert 0 <= bound["never refused"] - reward + ROUNDING <= 30 * 0.25 * 1.6 / 100 + 2 * ROUNDING
    # 300 ms wait at most: the buffer is never full, and the case of a refusal is impossible.
    assert bound["refused"] == -np.inf and bound["team_return"] == bound["never refused"]


@pytest.mark.parametrize(
    "difficulty, extra",
    [
        ("easy", {}),
        ("medium", dict(scenario="outage", outage_steps=(10, 20))),
        ("hard", dict(load=1.4, outage_steps=(10, 30))),
    ],
)
def test_every_rule_and_the_rollout_stay_below_the_bound(difficulty, extra):
    env = TransactionRoutingEnv(3, difficulty, episode_steps=50, **extra)
    env.reset(10_000)
    bound = relaxed_bounds(env, iterations=25)["team_return"]
    assert (bound < 0).all()
    for name, rule in b.baselines(env).items():
        assert (b.play(env, rule, 10_000)["team_return"] <= bound + ROUNDING).all(), name
    assert (clairvoyant_rollout(env, 10_000, horizon=4)["team_return"] <= bound + ROUNDING).all()


def test_the_bound_does_not_depend_on_the_copies_beside_it_nor_on_the_steps_played():
    env = TransactionRoutingEnv(3, "hard", episode_steps=30, outage_steps=(5, 9))
    env.reset(5)
    together = relaxed_bounds(env, iterations=20)["team_return"]
    env.step(np.zeros((3, 3), int))
    assert relaxed_bound(env, 2, iterations=20)["team_return"] == pytest.approx(together[2], rel=1e-6)
    single = TransactionRoutingEnv(None, "hard", episode_steps=30, outage_steps=(5, 9))
    single.reset(6)
    assert relaxed_bound(single, iterations=20)["team_return"] == pytest.approx(together[1], rel=1e-6)


# ------------------------------------------------------------------ rollout


def test_a_rollout_to_the_end_is_no_worse_than_the_rule_that_it_continues_with():
    env = TransactionRoutingEnv(4, "hard", episode_steps=40, outage_steps=(9, 19))
    rule = b.tuned_rule("global index", "hard")
    alone = b.play(env, rule, 20)["team_return"]
    rolled = b.play(env, ClairvoyantRollout(rule, horizon=40), 20)["team_return"]
    assert (rolled >= alone - ROUNDING).all() and rolled.mean() > alone.mean() + 1


def test_a_rollout_of_one_step_finds_the_best_joint_action_of_the_last_step():
    env, reward, _ = every_play(3, 1, arrival_rates=(3.0, 3.0), fees=(1.0, 0.1))
    single = TransactionRoutingEnv(None, episode_steps=1, **{**TWO, "arrival_rates": (3.0, 3.0), "fees": (1.0, 0.1)})
    observations = single.reset(3)
    rollout = ClairvoyantRollout(b.GlobalIndex(single.constants, np.zeros(4)), horizon=5)
    rollout.begin_episode(single)
    _, rewards, _, _ = single.step(rollout(observations))
    assert rewards.sum() == pytest.approx(reward.max(), abs=ROUNDING) and reward.max() > reward.min()


def test_trying_actions_does_not_touch_the_environment():
    env, plain = (TransactionRoutingEnv(2, "hard", episode_steps=25, outage_steps=(5, 9)) for _ in range(2))
    observations, other = env.reset(4), plain.reset(4)
    rollout = ClairvoyantRollout(b.tuned_rule("global index", "hard"), horizon=6)
    rollout.begin_episode(env)
    for _ in range(25):
        actions = rollout(observations)
        observations, rewards, _, _ = env.step(actions)
        other, others, _, _ = plain.step(actions)
        np.testing.assert_array_equal(observations, other)
        np.testing.assert_array_equal(rewards, others)


def test_what_makes_no_sense_is_refused():
    env = TransactionRoutingEnv(2, "easy", episode_steps=5)
    with pytest.raises(RuntimeError, match="call env.reset"):
        relaxed_bounds(env)
    env.reset(0)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        relaxed_bound(env, 2)
    with pytest.raises(ValueError, match="iterations"):
        relaxed_bounds(env, iterations=-1)
    with pytest.raises(ValueError, match="horizon"):
        ClairvoyantRollout(b.tuned_rule("global index", "easy"), horizon=0)
    with pytest.raises(ValueError, match="acknowledgements"):
        ClairvoyantRollout(b.tuned_rule("local index", "easy"))
