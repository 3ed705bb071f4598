"""The small inventory problems: the simulation agrees with the value iteration, and nobody beats the optimum."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from lost_sales import MOST, OneWarehouse, TwoWarehouses, base_stock, poisson, solve_one, solve_two

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

    def optimal(observations):
        stock, coming = np.moveaxis(np.rint(observations * MOST).astype(int), -1, 0)
        return best[np.minimum(stock, len(best) - 1), coming]

    assert cost(OneWarehouse, optimal) == pytest.approx(mean, rel=0.02)


def test_the_best_policy_of_two_warehouses_costs_what_value_iteration_says(two):
    mean, best = two

    def optimal(observations):
        first, second = np.minimum(np.rint(observations[..., 0] * MOST).astype(int), len(best) - 1).T
        return np.stack(np.divmod(best[first, second], MOST + 1), axis=-1)

    assert cost(TwoWarehouses, optimal) == pytest.approx(mean, rel=0.02)


def test_no_base_stock_rule_beats_the_optimum_of_one_warehouse_and_the_best_comes_near(one):
    costs = [cost(OneWarehouse, base_stock([level])) for level in range(3, 13)]
    assert one[0] * 0.99 < min(costs) < one[0] * 1.15, "base-stock is good and not optimal when sales are lost"


def test_no_base_stock_rule_beats_the_joint_optimum_of_two_warehouses(two):
    costs = [cost(TwoWarehouses, base_stock(pair), 10) for pair in itertools.product(range(2, 8), range(1, 6))]
    assert two[0] * 0.99 < min(costs) < two[0] * 1.1


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
