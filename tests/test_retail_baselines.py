"""The classical rules are local, tuned reproducibly, land in the published table, and stay above the clairvoyant."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core.experiment.tuning import cross_entropy
from retail import baselines as b
from retail.constants import DIFFICULTIES
from retail.environment import MultiWarehouseEnv
from retail.own_rule import from_levels

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["random", "constant 0.5", *b.RULES.values()]

# Cost an episode on medium and its 95 % half-width, stockouts in % of demand, from an independent implementation.
PUBLISHED = {
    "random": (193.6, 6.0, 27.4),
    "constant 0.5": (187.7, 6.0, 26.4),
    "base-stock, newsvendor": (67.0, 2.8, 7.5),
    "base-stock, tuned alone": (70.5, 2.8, 7.5),
    "base-stock, tuned jointly": (64.2, 2.8, 7.6),
    "(s, S), tuned jointly": (63.7, 2.8, 7.8),
    "adaptive base-stock, tuned alone": (38.0, 1.9, 4.6),
    "adaptive base-stock, tuned jointly": (37.4, 1.9, 4.7),
}


def seen_observations(copies=4, periods=6):
    env = MultiWarehouseEnv(num_envs=copies)
    observations = [env.reset(0)]
    actions = np.random.default_rng(0).random((periods, copies, 5, 1))
    observations += [env.step(action)[0] for action in actions]
    return env, observations


# -------------------------------------------------------------------------------------------------------- the rules


def test_all_rules_are_there_for_every_difficulty():
    for difficulty in DIFFICULTIES:
        assert list(b.baselines(difficulty)) == NAMES
        assert list(b.baselines(MultiWarehouseEnv(difficulty))) == NAMES


@pytest.mark.parametrize("name", NAMES[1:])
def test_rules_give_legal_orders_alike_for_one_and_for_stacked_observations(name):
    rule = b.baselines("medium")[name]
    for observations in seen_observations()[1]:
        actions = rule(observations)
        assert actions.shape == (4, 5, 1) and (actions >= 0).all() and (actions <= 1).all()
        np.testing.assert_array_equal(rule(observations[2]), actions[2])


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_rule_of_a_warehouse_uses_its_own_observation_only(name):
    rule = b.baselines("medium")[name]
    observations = seen_observations()[1][3]
    for i in range(5):
        others = np.random.default_rng(i).random(observations.shape).astype(np.float32)
        others[:, i] = observations[:, i]
        np.testing.assert_array_equal(rule(others)[:, i], rule(observations)[:, i])


def test_base_stock_orders_what_is_missing_from_the_level():
    env = MultiWarehouseEnv(num_envs=4)
    level = np.array([4.0, 3.0, 2.0, 1.5, 1.0])
    rule = b.order_up_to(env, {"level": level})
    orders = rule(env.reset(0))
    start = np.array([env.episode(e).on_hand + env.episode(e).pipeline.sum(axis=0) for e in range(4)])
    np.testing.assert_allclose(orders[..., 0], np.clip((level - start) / 2.4, 0, 1), atol=1e-6)
    _, _, _, info = env.step(orders)
    np.testing.assert_allclose(info["details"]["orders"], np.clip(level - start, 0, 2.4), atol=1e-5)


def test_s_s_orders_nothing_above_the_reorder_point_and_up_to_the_level_below():
    env = MultiWarehouseEnv()
    rule = b.order_up_to(env, {"level": 2.0, "gap": 0.5})
    observation = np.zeros((5, 14), dtype=np.float32)
    scale = 4 * 0.382
    for on_hand, pipeline, order in ((1.0, 0.6, 0.0), (1.0, 0.4, 0.6), (2.5, 0.0, 0.0), (0.0, 0.0, 2.0)):
        observation[:, 0], observation[:, 3] = on_hand / scale, pipeline / scale
        np.testing.assert_allclose(rule(observation)[:, 0] * 2.4, order, atol=1e-6)


def test_adaptive_base_stock_follows_the_demand_average():
    env = MultiWarehouseEnv()
    rule = b.order_up_to(env, {"mean_factor": 0.5, "average_factor": 2.0})
    observation = np.zeros((5, 14), dtype=np.float32)
    observation[:, 5] = np.array([0.9, 0.1, 0.2, 0.3, 0.4]) / 0.382
    expected = 0.5 * np.array([0.96, 0.48, 0.25, 0.15, 0.07]) + 2.0 * np.array([0.9, 0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(rule(observation)[:, 0] * 2.4, expected, rtol=1e-6)


def test_the_random_rule_repeats_with_its_seed():
    observations = seen_observations()[1][0]
    np.testing.assert_array_equal(b.UniformRandom(3)(observations), b.UniformRandom(3)(observations))
    assert not np.array_equal(b.UniformRandom(3)(observations), b.UniformRandom(4)(observations))


def test_an_unknown_parameter_of_a_rule_is_refused_with_the_closest_known_one():
    with pytest.raises(ValueError, match="no parameter 'levels'; did you mean 'level'"):
        b.order_up_to(MultiWarehouseEnv(), {"levels": [4, 3, 2, 2, 1]})


def test_constants_for_another_number_of_warehouses_are_refused():
    env = MultiWarehouseEnv(mean_demand=(1.0, 0.5), lead_times=1, storage=4.0)
    with pytest.raises(ValueError, match="tuned for 5 warehouses.*tune"):
        b.baselines(env)
    with pytest.raises(ValueError, match="easy, medium, hard"):
        b.tuned_parameters("simple")


# --------------------------------------------------------------------------------------------------------- tuning


def test_the_newsvendor_level_is_the_normal_quantile_of_demand_until_the_next_order_can_arrive():
    demand = np.random.default_rng(0).normal(10.0, 1.0, (38, 1))
    env = MultiWarehouseEnv(
        num_envs=2, demand_source=lambda rng: demand, mean_demand=(10.0,), lead_times=2, storage=99.0
    )
    windows = np.array([demand[t : t + 3].sum() for t in range(28)])  # lead time 2: three periods
    expected = windows.mean() + 2.3301 * windows.std()  # 10 / 10.1 of the standard normal lies below 2.3301
    assert b.newsvendor_levels(env)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("team", [False, True])
def test_the_cross_entropy_method_finds_a_known_minimum(team):
    target = np.array([[1.0, 3.0], [0.5, 2.0]])  # (K, N)

    def costs(_, samples):
        own = ((samples - target) ** 2).sum(axis=1)  # (P, K, N) -> (P, N)
        return np.broadcast_to(own.sum(axis=1, keepdims=True), own.shape) if team else own

    size = {"generations": 30, "candidates": 40, "kept": 6}
    rng = np.random.default_rng(0)
    found = cross_entropy(costs, np.ones((2, 2)), np.ones((2, 2)), **size, rng=rng, lowest=0.0, fading=0.02)
    np.testing.assert_allclose(found, target, atol=0.05)


def test_tuning_repeats_itself_and_improves_on_its_start():
    options = dict(episodes=60, population=8, iterations=4)
    first, again = b.tune("medium", **options), b.tune("medium", **options)
    assert first == again and list(first) == list(b.RULES)
    env = MultiWarehouseEnv(num_envs=60)

    def cost(key):
        policy = b.baselines(env, parameters=first)[b.RULES[key]]
        return b.run_policy(env, policy, env.reset(b.TUNING_SEED))["total_cost"].mean()

    assert cost("base_stock_joint") < cost("newsvendor")


def test_tuning_works_for_another_network():
    constants = dict(mean_demand=(1.0, 0.5), lead_times=(1, 2), storage=4.0)
    parameters = b.tune("easy", episodes=10, population=4, iterations=1, **constants)
    rules = b.baselines(MultiWarehouseEnv("easy", **constants), parameters=parameters)
    assert rules[b.RULES["adaptive_joint"]](np.zeros((2, 14))).shape == (2, 1)


def test_the_stored_constants_say_how_they_were_made():
    stored = json.loads(b.TUNED_FILE.read_text(encoding="utf-8"))
    assert list(stored) == list(DIFFICULTIES)
    for difficulty, entry in stored.items():
        assert entry["command"].startswith(f"python retail/baselines.py --tune {difficulty} ")
        assert entry["seeds"][0] == 900_000_000 and set(entry["versions"]) == {"python", "numpy"}
        assert list(entry["parameters"]) == list(b.RULES)


# ------------------------------------------------------------------------------------------------ what they reach


@pytest.fixture(scope="module")
def medium_table():
    return {row["policy"]: row for row in b.evaluation_rows("medium", episodes=2000)}


@pytest.mark.parametrize("name", NAMES)
def test_rules_land_in_the_published_table(medium_table, name):
    cost, half_width, stockouts = PUBLISHED[name]
    row = medium_table[name]
    assert abs(row["total_cost"] - cost) <= row["total_cost_ci95"] + half_width
    assert row["stockout_percent"] == pytest.approx(stockouts, abs=2 * row["stockout_percent_ci95"])


def test_harder_is_dearer_and_joint_tuning_helps():
    tables = {d: {r["policy"]: r["total_cost"] for r in b.evaluation_rows(d, episodes=1000)} for d in DIFFICULTIES}
    for table in tables.values():
        assert table["adaptive base-stock, tuned jointly"] < table["base-stock, tuned jointly"] < table["random"]
        assert table["base-stock, tuned jointly"] < table["base-stock, tuned alone"]
    for name in NAMES:
        assert tables["easy"][name] < tables["medium"][name] < tables["hard"][name]


def test_the_rules_are_evaluated_without_scipy_too(monkeypatch, capsys):
    def missing(env, episode):
        raise ImportError("clairvoyant_bound needs scipy (HiGHS): pip install scipy")

    monkeypatch.setattr(b, "clairvoyant_bound", missing)
    assert b.main(["--evaluate", "easy", "--episodes", "20"]) == 0
    printed = capsys.readouterr()
    assert "adaptive base-stock, tuned jointly" in printed.out and "pip install scipy" in printed.err


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_the_clairvoyant_bound_is_below_every_rule_on_every_episode(difficulty):
    pytest.importorskip("scipy")
    env = MultiWarehouseEnv(difficulty, num_envs=30)
    env.reset(10_000)
    bounds = [b.clairvoyant_bound(env, e) for e in range(30)]
    cost = np.array([bound["total_cost"] for bound in bounds])
    assert (cost > 0).all()
    for name, policy in b.baselines(env).items():
        figures = b.run_policy(env, policy, env.reset(10_000))
        assert (figures["total_cost"] >= cost - 1e-6).all(), name
    np.testing.assert_allclose([bound["demand"] for bound in bounds], figures["demand"].sum(axis=-1))


def test_the_clairvoyant_bound_of_an_episode_solved_by_hand():
    pytest.importorskip("scipy")
    # One warehouse with 1 on the shelf and 1 on its way, demand 1 a period: the order of period 0 can meet period 2,
    # so 1 unit is ordered, nothing is short and only the unit in between is ever left over: 1 unit in period 0.
    env = MultiWarehouseEnv(
        demand_source=lambda rng: np.ones((11, 1)),
        horizon=3,
        mean_demand=(1.0,),
        lead_times=1,
        storage=5.0,
        start_range=(1.0, 1.0),
    )
    env.reset(0)
    assert b.clairvoyant_bound(env)["total_cost"] == pytest.approx(0.1)
    # With room for 1 the unit on its way goes back in period 0 (0.50); what is ordered then fits exactly.
    tight = MultiWarehouseEnv(
        demand_source=lambda rng: np.ones((11, 1)),
        horizon=3,
        mean_demand=(1.0,),
        lead_times=1,
        storage=1.0,
        start_range=(1.0, 1.0),
    )
    tight.reset(0)
    assert b.clairvoyant_bound(tight)["total_cost"] == pytest.approx(0.5)


def test_without_scipy_the_bound_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    env = MultiWarehouseEnv()
    env.reset(0)
    with pytest.raises(ImportError, match="pip install scipy"):
        b.clairvoyant_bound(env)


def test_the_evaluate_command_prints_the_table_and_writes_it(tmp_path):
    command = [
        sys.executable,
        str(ROOT / "retail" / "baselines.py"),
        "--evaluate",
        "medium",
        "--episodes",
        "20",
        "--bound-episodes",
        "0",
        "--out",
        str(tmp_path / "table.csv"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, encoding="utf-8")
    assert "adaptive base-stock, tuned jointly" in done.stdout
    lines = (tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("difficulty,policy,episodes,total_cost,total_cost_ci95") and len(lines) == 1 + len(NAMES)
    nothing = subprocess.run(command[:2], cwd=tmp_path, capture_output=True, text=True)
    assert nothing.returncode == 2 and "--tune" in nothing.stderr


@pytest.mark.parametrize(
    "name", ["(s, S), tuned jointly", "base-stock, tuned alone", "adaptive base-stock, tuned jointly"]
)
def test_the_levels_of_a_rule_are_a_rule_again(name):
    """What rules.json holds is what --rule takes."""
    env = MultiWarehouseEnv("medium", num_envs=50)
    rule, observations = b.baselines(env)[name], env.reset(0)
    levels = rule.levels(env.world()["agents"])
    again = from_levels(env, levels)
    assert set(levels) <= set(b.MEANING) and list(next(iter(levels.values()))) == env.world()["agents"]
    np.testing.assert_allclose(again(observations), rule(observations), atol=2e-3)
