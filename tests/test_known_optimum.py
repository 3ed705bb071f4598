"""The small inventory problems: the simulation agrees with the value iteration, and nobody beats the optimum."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from lost_sales import (
    MOST,
    OneWarehouse,
    TwoWarehouses,
    base_stock,
    best_local_rules,
    costs_of,
    each_for_itself,
    levels_as_rules,
    optimal_one,
    optimal_two,
    poisson,
    solve_one,
    solve_two,
)

from core.experiment.env_check import check_env
from core.experiment.evaluation import evaluate
from core.experiment.training import train
from core.qmix import create_qmix_agents

PERIODS = 500  # of an evaluated episode: the first few, from a given stock, weigh little


def cost(env_class, policy, episodes=40) -> float:
    return evaluate(env_class(episodes, horizon=PERIODS), policy, episodes)["cost_per_period"].mean()


@pytest.fixture(scope="module")
def one():
    return solve_one()


@pytest.fixture(scope="module")
def two():
    return solve_two()


def test_the_demand_is_poisson():
    chances = poisson(2.0, 30)
    assert chances.sum() == pytest.approx(1.0) and chances @ np.arange(31) == pytest.approx(2.0)


def test_the_best_policy_of_one_warehouse_costs_what_value_iteration_says(one):
    mean, best = one
    assert cost(OneWarehouse, optimal_one(best)) == pytest.approx(mean, rel=0.02)


def test_the_best_policy_of_two_warehouses_costs_what_value_iteration_says(two):
    mean, best = two
    assert cost(TwoWarehouses, optimal_two(best)) == pytest.approx(mean, rel=0.02)


def test_no_base_stock_rule_beats_the_optimum_of_one_warehouse_and_the_best_comes_near(one):
    costs = [cost(OneWarehouse, base_stock([level])) for level in range(3, 13)]
    assert one[0] * 0.99 < min(costs) < one[0] * 1.15, "base-stock is good and not optimal when sales are lost"


def test_no_base_stock_rule_beats_the_joint_optimum_of_two_warehouses(two):
    costs = [cost(TwoWarehouses, base_stock(pair), 10) for pair in itertools.product(range(2, 8), range(1, 6))]
    assert two[0] * 0.99 < min(costs) < two[0] * 1.1


def test_what_is_reckoned_for_two_local_rules_is_what_a_simulation_costs():
    exact = costs_of(levels_as_rules([6, 3])).sum()
    assert cost(TwoWarehouses, base_stock([6, 3])) == pytest.approx(exact, rel=0.02)


def test_who_minds_its_own_cost_alone_leaves_the_stock_to_its_neighbour():
    best, selfish = [6, 3], each_for_itself([6, 3])
    assert selfish == [5, 3]
    assert costs_of(levels_as_rules(selfish)).sum() > 1.02 * costs_of(levels_as_rules(best)).sum()


def test_the_best_local_rules_are_between_the_joint_optimum_and_base_stock(two):
    start = levels_as_rules([6, 3])
    found = costs_of(best_local_rules(start)).sum()
    assert two[0] < found < costs_of(start).sum()
    assert found < 1.01 * two[0], "the other shelf, unseen, costs less than 1 %"


def test_a_common_reward_is_the_mean_of_all_costs():
    apart, together = TwoWarehouses(3), TwoWarehouses(3, common=True)
    apart.reset(0), together.reset(0)
    for _ in range(5):
        orders = np.array([[1, 0], [2, 2], [0, 1]])
        own, paid = apart.step(orders)[1], together.step(orders)[1]
        np.testing.assert_allclose(paid, np.repeat(own.mean(axis=1, keepdims=True), 2, axis=1))
    assert np.abs(own[:, 0] - own[:, 1]).max() > 0, "own costs differ, or this shows nothing"


@pytest.mark.parametrize("env_class", [OneWarehouse, TwoWarehouses])
@pytest.mark.parametrize("discrete", [True, False])
def test_the_environments_keep_the_protocol(env_class, discrete):
    check_env(env_class(3, discrete))


@pytest.mark.slow
def test_a_short_training_comes_near_the_optimum_of_one_warehouse(one):
    config = {"gamma": 0.95, "reward_scale": 0.1, "learning_rate": 1e-3, "anneal_learning_rate": True, "seed": 0}
    config |= {"batch_size": 128, "tau": 0.01, "epsilon_decay": 0.98}
    env = OneWarehouse(10)
    team = create_qmix_agents(2, MOST + 1, 1, config)
    train(env, team, 400, seed=0, progress=False)
    assert cost(OneWarehouse, team) < 1.15 * one[0]
