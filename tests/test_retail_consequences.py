"""What is reckoned in hindsight of an order, against the simulator and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from core.experiment.evaluation import evaluate
from core.experiment.training import train
from core.maddpg import create_maddpg_agents
from retail.consequences import Played, consequences
from retail.constants import DIFFICULTIES, resolve
from retail.environment import MultiWarehouseEnv
from retail.replay import recorded_env
from retail.settings import SETTINGS, make_env

SIZE = 1e-5  # of the change of an order, as a share of the order limit


def played(actions: np.ndarray, positions: list[np.ndarray] | None = None, **options):
    """Play orders (T, E, N); given `positions`, each is changed so that it brings the stock position back to them.

    Returns the cost of each episode (E,), the positions before each order, and the info of the last step.
    """
    env = MultiWarehouseEnv(num_envs=actions.shape[1], consequences=True, **options)
    env.reset(seed=5)
    cost, found = 0.0, []
    for t, action in enumerate(actions):
        found.append(env._on_hand + env._pipeline.sum(axis=0))
        if positions is not None:
            action = action - (found[t] - positions[t]) / env._order_limit
        _, _, _, info = env.step(action[..., None])
        cost = cost + info["details"]["cost"].sum(axis=-1)
    return cost, found, info, env


WORLDS = {name: {"difficulty": name} for name in DIFFICULTIES}
WORLDS["tight"] = {"storage": 0.7, "supplier_capacity": 1.5, "lead_times": (1, 2, 3, 2, 1), "lane_limit": 0.3}


@pytest.mark.parametrize("makes_up", [False, True])
@pytest.mark.parametrize("world", WORLDS)
def test_slopes_are_those_of_the_simulator(world, makes_up):
    """One order a little more and a little less, the later ones held, or made to bring all positions back."""
    random = np.random.default_rng(0)
    actions = random.uniform(0.02, 0.45, size=(30, 4, 5))
    _, positions, _, env = played(actions, **WORLDS[world])
    slopes = consequences(env.constants, env._played(), makes_up) * env._order_limit
    for _ in range(25):
        t, i = random.integers(30), random.integers(5)
        costs = []
        for sign in (1, -1):
            changed = actions.copy()
            changed[t, :, i] += sign * SIZE
            costs.append(played(changed, positions if makes_up else None, **WORLDS[world])[0])
        np.testing.assert_allclose((costs[0] - costs[1]) / (2 * SIZE), slopes[t, :, i], rtol=1e-4, atol=1e-4)


def one_warehouse(orders, demand, on_hand) -> Played:
    """No rationing, nothing under way at first: columns of one copy and one warehouse."""
    orders, demand, on_hand = (np.array(values, dtype=float)[:, None, None] for values in (orders, demand, on_hand))
    return Played(orders, demand, on_hand, np.zeros((1, 1, 1)), np.full(len(orders), 100.0))


def test_four_orders_by_hand():
    """The unit ordered first would have been sold on the day that ran out, every other one waits on the shelf.

    Shelf at the end of the days: 0.5, 0 (0.2 lost), 0.6, 1.6. What is ordered arrives on the day after.
    """
    c = resolve("medium", {"mean_demand": (1.0,), "lead_times": 1, "storage": 5.0})
    record = one_warehouse([0.5, 1.0, 2.0, 0.0], [1.0, 1.2, 0.4, 1.0], [1.5, 0.5, 0.0, 0.6])
    held = consequences(c, record, makes_up=False).flatten()
    np.testing.assert_allclose(held, [-10.0, 0.2, 0.1, 0.0])
    # Made up for at the next order: the second day's unit is on the shelf one night and not two; and the first one's
    # sale leaves the shelf as it was, while the order after it was one less, which saves a night.
    np.testing.assert_allclose(consequences(c, record).flatten(), [-10.1, 0.1, 0.1, 0.0])


def test_a_unit_of_a_rationed_order_is_taken_from_the_others():
    """Both order 2 and the supplier has 2: one unit more brings a quarter, and costs the other one a quarter."""
    c = resolve("medium", {"mean_demand": (1.0, 1.0), "lead_times": 1, "storage": 9.0, "lane_limit": 0.0})
    orders, on_hand = np.full((2, 1, 2), 2.0), np.array([[[1.0, 1.0]], [[0.0, 5.0]]])
    demand = np.array([[[1.0, 1.0]], [[3.0, 1.0]]])  # on the second day one runs out, the other has plenty
    slopes = consequences(c, Played(orders, demand, on_hand, np.zeros((1, 1, 2)), np.full(2, 2.0)))
    np.testing.assert_allclose(slopes[0, 0], [0.25 * (-10.0 - 0.1), 0.25 * (0.1 + 10.0)])


def test_copies_side_by_side_have_the_consequences_of_single_ones():
    actions = np.random.default_rng(1).uniform(0.0, 0.5, size=(30, 3, 5))
    together = played(actions)[2]["consequences"]
    assert together.shape == (3, 30, 5, 1)
    for e in range(3):
        env = MultiWarehouseEnv(consequences=True)
        env.reset(seed=5 + e)
        for action in actions[:, e]:
            _, _, _, info = env.step(action[:, None])
        np.testing.assert_allclose(info["consequences"], together[e], rtol=1e-9)


@pytest.mark.parametrize("asked", [False, True])
def test_consequences_are_handed_over_once_and_only_when_asked_for(asked):
    env = MultiWarehouseEnv(consequences=asked)
    env.reset(seed=0)
    found = ["consequences" in env.step(np.full((5, 1), 0.1))[3] for _ in range(30)]
    assert found == [False] * 29 + [asked]


def test_recorded_sales_have_consequences_too():
    env = recorded_env("retail/example_sales.csv", num_envs=2, consequences=True)
    env.reset(seed=0)
    for _ in range(env.constants.horizon):
        _, _, _, info = env.step(np.full((2, env.num_agents, 1), 0.2))
    found = info["consequences"]
    assert found.shape == (2, env.constants.horizon, env.num_agents, 1) and np.isfinite(found).all() and found.any()


def test_a_short_training_with_known_consequences_is_below_the_plain_rule():
    """The jointly tuned base-stock rule costs 65 on these episodes; the learnt critic needs ten times as many."""
    setting = SETTINGS["maddpg"].known
    env = make_env(setting.num_envs, **setting.env)
    team = setting.team(env, {"seed": 0})
    history = train(env, team, 200, progress=False)
    assert evaluate(make_env(100), team, 100)["total_cost"].mean() < 60
    assert history["env_steps"].iloc[-1] == 200 * 30 * team.config.plays and "critic_loss" not in history


def test_a_team_without_told_consequences_says_what_is_missing():
    team = create_maddpg_agents(14, 1, 5, {"known_consequences": True})
    with pytest.raises(ValueError, match=r"step 30 .*an episode ended without info\['consequences'\]"):
        train(MultiWarehouseEnv(), team, 1, progress=False)
