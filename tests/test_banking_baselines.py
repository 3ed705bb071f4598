"""The classical rules: what they see, what they choose, and the figures they reach on medium."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from banking import baselines as b
from banking.constants import DIFFICULTIES, routing_constants
from banking.environment import TransactionRoutingEnv
from banking.own_rule import from_thresholds

MEDIUM = routing_constants("medium", None, {})

# An independent prototype of the environment and its rules, 1024 episodes: mean and 95 % half-width.
PROTOTYPE = {
    "uniform random": {
        "latency_ms": (510.8, 10.7),
        "risk_violation_percent": (8.85, 0.90),
        "team_return": (-7329, 183),
    },
    "round robin": {"latency_ms": (487.9, 9.8), "team_return": (-6856, 165)},
    "static split": {"latency_ms": (222.1, 5.3)},
    "size threshold": {"latency_ms": (218.0, 5.5), "risk_violation_percent": (0.0, 0.1)},
    "join shortest queue, own": {"latency_ms": (163.0, 4.1), "team_return": (-3722, 97)},
    "join shortest queue, global": {"latency_ms": (152.0, 4.0), "team_return": (-3232, 99)},
    "local index": {"latency_ms": (162.0, 4.3), "risk_violation_percent": (0.08, 0.11), "team_return": (-1685, 62)},
    "global index": {"latency_ms": (148.1, 4.3), "risk_violation_percent": (0.04, 0.11), "team_return": (-1504, 55)},
}


@pytest.fixture(scope="module")
def figures():
    """Each rule on 256 episodes of medium."""
    rules = b.baselines("medium")
    return {name: b.evaluate_rule(rules[name], "medium", 256) for name in PROTOTYPE}


@pytest.mark.parametrize("name", PROTOTYPE)
def test_intervals_overlap_those_of_the_prototype(figures, name):
    for metric, (published, half) in PROTOTYPE[name].items():
        values = figures[name][metric]
        distance = abs(values.mean() - published)
        assert distance <= half + b.half_width(values) + 1e-9, f"{name} {metric}: {values.mean():.2f}, not {published}"


def test_the_rules_come_in_the_known_order(figures):
    reward = {name: values["team_return"].mean() for name, values in figures.items()}
    worse_to_better = [
        "uniform random",
        "round robin",
        "static split",
        "join shortest queue, own",
        "size threshold",
        "local index",
        "global index",
    ]
    assert [reward[name] for name in worse_to_better] == sorted(reward[name] for name in worse_to_better)
    assert figures["uniform random"]["cost_per_transaction"].mean() == pytest.approx(2.6 / 3, abs=0.005)
    for name in ("local index", "global index"):
        assert figures[name]["cost_per_transaction"].mean() == pytest.approx(0.63, abs=0.02)


# ------------------------------------------------------------------ single rules, by hand


def observation(**values):
    """One router's observation: 87 dollars, standard, nothing in flight, except for what is given."""
    o = np.zeros((1, 19), np.float32)
    o[0, :2] = 0.3, 1.0
    o[0, 2] = math.log10(values.get("amount", 87.0) / 87.0)
    o[0, 3] = 0.5 * min(max((values.get("amount", 87.0) / 87.0) ** 0.3, 0.6), 2.4)
    o[0, 6:9] = 0.3 * np.array(values.get("in_flight", (0, 0, 0)))
    o[0, 9:12] = np.array(values.get("wait_ms", (0, 0, 0))) / 200
    o[0, 12:15] = values.get("refused", (0, 0, 0))
    return o


def test_a_rule_reads_back_what_the_environment_wrote():
    env = TransactionRoutingEnv(8)
    observations = env.reset(seed=0)
    for _ in range(20):
        view = b.LocalView(MEDIUM, observations)
        head = env.head_transactions
        present = head[..., 0] == 1
        np.testing.assert_array_equal(view.has_head, present)
        np.testing.assert_allclose(view.amount[present], head[present][:, 4], rtol=1e-5)
        np.testing.assert_allclose(view.weight[present], head[present][:, 5])
        np.testing.assert_allclose(view.in_flight, env.in_flight, rtol=1e-5, atol=1e-5)
        observations, *_ = env.step(np.random.default_rng(0).integers(0, 3, (8, 3)))


def test_greedy_avoids_a_channel_that_refused_it_lately():
    rule = b.GreedyCheapest(MEDIUM)
    assert rule(observation()) == [0]
    assert rule(observation(refused=(0.9**6, 0, 0))) == [1]
    assert rule(observation(refused=(0.9**7, 0, 0))) == [0]
    assert rule(observation(refused=(1, 1, 1))) == [0]


def test_shortest_expected_delay_takes_the_smallest_latency():
    rule = b.ShortestExpectedDelay(MEDIUM)
    assert rule(observation()) == [0]
    assert rule(observation(wait_ms=(70, 0, 0))) == [1]
    assert rule(observation(wait_ms=(300, 200, 0))) == [2]


def test_join_shortest_queue_breaks_ties_at_random():
    rule = b.OwnJoinShortestQueue(MEDIUM)
    assert rule(observation(in_flight=(2, 1, 3))) == [1]
    chosen = [int(rule(observation(in_flight=(1, 2, 1)))[0]) for _ in range(200)]
    assert set(chosen) == {0, 2} and 60 < chosen.count(0) < 140


def test_global_join_shortest_queue_reads_the_true_workloads():
    rule, env = b.GlobalJoinShortestQueue(MEDIUM), TransactionRoutingEnv(16)
    observations = env.reset(seed=0)
    rule.begin_episode(env)
    np.testing.assert_array_equal(rule(observations), np.argmin(env.workload_ms, axis=1)[:, None].repeat(3, axis=1))


def test_round_robin_counts_dispatches_only():
    rule = b.RoundRobin(MEDIUM)
    rule.begin_episode(None)
    three = np.repeat(observation(), 3, axis=0)
    three[2, 1] = 0  # router 2 has nothing
    assert [rule(three).tolist() for _ in range(3)] == [[0, 1, 2], [1, 2, 2], [2, 0, 2]]


def test_size_threshold_sends_larger_amounts_to_safer_channels():
    rule = b.SizeThreshold(MEDIUM, np.tile(np.log10([100.0, 500.0]), 3))
    three = np.concatenate([observation(amount=a) for a in (99, 300, 501)])
    assert rule(three).tolist() == [0, 1, 2]


def test_static_split_draws_its_shares():
    shares = np.array([0.5, 0.3, 0.2])
    rule = b.StaticSplit(MEDIUM, np.tile(np.log(shares[1:] / shares[0]), 3))
    drawn = rule(np.zeros((20_000, 3, 19), np.float32))
    np.testing.assert_allclose([(drawn == c).mean() for c in range(3)], shares, atol=0.01)


def test_index_price_by_hand():
    # g = 0.01, 0.02, 0.03; constants 0, 0.5, -0.5; price of risk 0.1; in flight 1, x = 1; acknowledged waits, y = 1/2.
    parameters = np.r_[np.log([0.01, 0.02, 0.03]), 0.5, -0.5, np.log(0.1), np.zeros(3), np.full(3, np.log(0.5))]
    rule = b.LocalIndex(MEDIUM, parameters)
    o = observation(amount=870.0, in_flight=(1, 0, 2), wait_ms=(40, 20, 0))
    W = np.array([1000 / 70 + 20, 10, 2000 / 41])
    price = 0.8 * (np.array([20, 80, 200]) + W) / 100 + [0.01, 0.02, 0.03] * W + 0.3 * np.array([0.1, 0.5, 2.0])
    price += [0, 0.5, -0.5] + 0.1 * np.array([0.03, 0.02, 0.01]) * 870 * 10**0.3
    np.testing.assert_allclose(rule.prices(b.LocalView(MEDIUM, o), W)[0], price, rtol=1e-5)
    assert rule(o)[0] == np.argmin(price)


def test_each_copy_may_play_its_own_parameters():
    env = TransactionRoutingEnv(4)
    observations = env.reset(seed=0)
    for rule in b.TUNED.values():
        mean, sd = rule.prior(MEDIUM)
        points = mean + sd * np.random.default_rng(0).standard_normal((4, mean.size))
        together, rules = rule(MEDIUM, points), [rule(MEDIUM, point) for point in points]
        for one in (together, *rules):
            one.begin_episode(env)
        if rule is b.StaticSplit:  # random: the shapes only
            assert together(observations).shape == (4, 3)
            continue
        expected = [rules[e](observations)[e] for e in range(4)]
        np.testing.assert_array_equal(together(observations), expected)


# ------------------------------------------------------------------ protocol and tuning


@pytest.mark.parametrize("num_envs", [None, 3])
def test_every_rule_plays_plain_and_stacked_environments(num_envs):
    env = TransactionRoutingEnv(num_envs, "hard", episode_steps=80)
    for name, policy in b.baselines(env).items():
        observations = env.reset(seed=0)
        if hasattr(policy, "begin_episode"):
            policy.begin_episode(env)
        for _ in range(12):
            actions = policy(observations)
            assert actions.shape == observations.shape[:-1] and actions.dtype.kind == "i", name
            observations, *_ = env.step(actions)


def test_local_rules_act_from_the_observation_alone():
    observations = TransactionRoutingEnv(8).reset(seed=4)
    for name, policy in b.baselines("medium").items():
        if not getattr(policy, "needs_env", False):
            assert policy(observations).shape == (8, 3), name
            assert getattr(policy, "env", None) is None, name


def test_the_stored_parameters_say_where_they_come_from():
    stored = json.loads(b.TUNED_PATH.read_text(encoding="utf-8"))
    assert set(stored) == set(DIFFICULTIES)
    for difficulty, entry in stored.items():
        generations, rules = entry["method"]["generations"], entry["rules"]
        command = f"python banking/baselines.py --tune {difficulty} --generations {generations}"
        assert entry["command"] == command and set(entry["versions"]) == {"python", "numpy"}
        assert entry["seeds"]["first"] == b.TUNING_SEED >= 900_000_000
        assert set(rules) == set(b.TUNED)
        for name, rule in b.TUNED.items():
            assert len(rules[name]["parameters"]) == rule.prior(MEDIUM)[0].size


def test_tuning_improves_on_its_prior_and_reproduces(tmp_path, monkeypatch):
    monkeypatch.setattr(b, "TUNED", {"size threshold": b.SizeThreshold})
    plan = b.TuningPlan(generations=3, candidates=12, episodes=4, averaged=1)
    stored = b.tune(["easy"], plan, tmp_path / "a.json", quiet=True)
    b.tune(["easy"], plan, tmp_path / "b.json", quiet=True)
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()
    assert stored == json.loads((tmp_path / "a.json").read_text())
    easy = routing_constants("easy", None, {})
    tuned = b.SizeThreshold(easy, stored["easy"]["rules"]["size threshold"]["parameters"])
    prior = b.SizeThreshold(easy, b.SizeThreshold.prior(easy)[0])
    scores = [b.evaluate_rule(rule, "easy", 32)["team_return"].mean() for rule in (prior, tuned)]
    assert scores[1] > scores[0]


def test_missing_or_unfitting_parameters_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="are for 3 routers and 3 channels, found 2"):
        two = dict(arrival_rates=(1, 1), burst_factors=(1, 1), amount_medians=(9, 9), urgent_probabilities=(0, 0))
        b.baselines(TransactionRoutingEnv(**two))
    monkeypatch.setattr(b, "TUNED_PATH", tmp_path / "nothing.json")
    with pytest.raises(ValueError, match="--tune easy"):
        b.baselines("easy")


def test_command_line_prints_the_table(capsys, monkeypatch):
    monkeypatch.setattr(b, "baselines", lambda difficulty: {"always external": b.Always(1)})
    assert b.main(["--evaluate", "easy", "--episodes", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "seeds 10000..10001" in lines[0] and len(lines) == 3 and lines[2].startswith("always external")
    with pytest.raises(SystemExit) as stop:
        b.main(["--evaluate", "--episodes", "0"])
    assert stop.value.code == 2


def test_the_levels_of_the_tuned_rules_name_routers_and_channels():
    env = TransactionRoutingEnv(4)
    names, rules = env.world()["agents"], b.baselines(env)
    observations = env.reset(0)
    for _ in range(50):
        observations, *_ = env.step(rules["round robin"](observations))
    table = rules["size threshold"].levels(names)
    np.testing.assert_array_equal(from_thresholds(env, table)(observations), rules["size threshold"](observations))
    shares = rules["static split"].levels(names)["shares"]
    assert list(shares) == names and all(sum(row.values()) == pytest.approx(1.0, abs=1e-3) for row in shares.values())
    index = rules["local index"].levels(names)
    assert set(index) == {"delay_price", "constant", "risk_price", "own_work", "own_wait"} <= set(b.MEANING)
    assert list(index["own_wait"]) == ["internal", "external", "blockchain"] and index["constant"]["internal"] == 0.0
