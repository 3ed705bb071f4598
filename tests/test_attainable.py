"""The differentiable copy of the retail simulator costs what the simulator costs, and its slopes are the true ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import script

from core.experiment.evaluation import evaluate
from retail.baselines import baselines
from retail.environment import MultiWarehouseEnv

attainable = script("attainable")


@pytest.mark.parametrize("difficulty", ["easy", "medium", "hard"])
def test_the_copy_costs_what_the_environment_costs(difficulty):
    copy = attainable.DifferentiableWarehouses(20, difficulty)
    rule = baselines(copy.env)[attainable.RULE]
    cost = copy.total_cost(10_000, lambda seen: torch.from_numpy(rule(seen.numpy())).float()[..., 0])
    expected = evaluate(MultiWarehouseEnv(difficulty, 20), rule, 20)["total_cost"]
    np.testing.assert_allclose(cost.numpy(), expected, rtol=1e-4)


def test_the_slope_of_the_copy_is_that_of_the_environment():
    level = torch.tensor(0.1, requires_grad=True)
    copy = attainable.DifferentiableWarehouses(20)
    copy.total_cost(10_000, lambda seen: level.expand(seen.shape[:2])).mean().backward()

    def cost(share: float) -> float:
        policy = lambda seen: np.full((*seen.shape[:2], 1), share)  # noqa: E731
        return evaluate(MultiWarehouseEnv("medium", 20), policy, 20)["total_cost"].mean()

    slope = (cost(0.1005) - cost(0.0995)) / 0.001
    assert abs(slope) > 10.0
    assert level.grad.item() == pytest.approx(slope, rel=0.05)
