"""What is reckoned in hindsight of a routing decision, against the simulator and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from banking.consequences import DISCOUNT, Played, consequences
from banking.constants import RoutingConstants
from banking.environment import TransactionRoutingEnv
from banking.traffic import AMOUNT, HALF_SIZE, PRESENT, SERVICE, WEIGHT

STEPS = 300


def played(actions: np.ndarray, copies: int = 1, **options):
    """Play fixed actions (T, E, N) -> (info of the last step, rewards (T, E) summed over routers)."""
    env = TransactionRoutingEnv(copies, episode_steps=len(actions), consequences=True, **options)
    env.reset(seed=7)
    rewards = []
    for action in actions:
        _, reward, _, info = env.step(action)
        rewards.append(reward.sum(axis=-1))
    return info, np.array(rewards)


def spread(copies: int, seed: int = 0, steps: int = STEPS) -> np.ndarray:
    """A reasonable way to send: a little more to the faster channels."""
    return np.random.default_rng(seed).choice(3, p=[0.44, 0.36, 0.2], size=(steps, copies, 3))


def test_a_single_deviation_costs_what_is_reckoned_while_all_other_decisions_are_held():
    actions, random = spread(1), np.random.default_rng(1)
    info, rewards = played(actions)
    costs = info["consequences"][0]  # (T, N, C)
    reckoned, simulated = [], []
    moments = np.argwhere(~np.isnan(costs[: STEPS - 150]).any(axis=-1))
    for t, i in moments[random.choice(len(moments), 150, replace=False)]:
        channel = (actions[t, 0, i] + random.integers(1, 3)) % 3
        other = actions.copy()
        other[t, 0, i] = channel
        _, changed = played(other)
        later = DISCOUNT ** np.arange(150)
        simulated.append((later * (rewards - changed)[t : t + 150, 0]).sum())
        reckoned.append(costs[t, i, channel] - costs[t, i, actions[t, 0, i]])
    assert np.corrcoef(reckoned, simulated)[0, 1] > 0.85


def test_copies_side_by_side_have_the_consequences_of_single_ones():
    actions = spread(3, steps=80)
    together, _ = played(actions, 3)
    for e in range(3):
        env = TransactionRoutingEnv(episode_steps=80, consequences=True)
        env.reset(seed=7 + e)
        for action in actions[:, e]:
            _, _, _, info = env.step(action)
        np.testing.assert_allclose(info["consequences"], together["consequences"][e], rtol=1e-9, equal_nan=True)


def test_nothing_pending_is_no_choice_and_has_no_consequences():
    info, _ = played(spread(2, steps=40), 2)
    env = TransactionRoutingEnv(2, episode_steps=40)
    env.reset(seed=7)
    pending = []
    for action in spread(2, steps=40):
        pending.append(env.step(action)[3]["details"]["pending"] > 0)
    nothing = np.isnan(info["consequences"]).all(axis=-1)  # (E, T, N)
    np.testing.assert_array_equal(nothing, ~np.moveaxis(np.array(pending), 0, 1))


def test_two_transactions_in_one_channel_by_hand():
    """The second waits for what the first leaves: 14.29 ms of work, less the 10 ms that are done in a step."""
    k, shape = RoutingConstants(), (3, 1, 3)  # (T, E, N)
    heads = np.zeros((*shape, 8))
    heads[:2, 0, 0, [PRESENT, AMOUNT, SERVICE]] = 1.0, 100.0, 1.0
    heads[:2, 0, 0, WEIGHT] = 1.6, 0.8
    heads[:2, 0, 0, HALF_SIZE] = 0.5
    sent = heads[..., AMOUNT] > 0
    left = 1000 / 70 - 10  # ms
    workload = np.zeros((3, 1, 3))
    workload[1, 0, 0] = left
    risk, mass = np.full((3, 1), 0.02), np.full((3, 1), 1e6)  # far below the target, and heavy
    record = Played(heads, np.zeros(shape, int), sent, workload, risk, mass)
    costs = consequences(k, record, np.full((3, 1, 3), 10.0))
    fees = 0.3 * np.array([0.10, 0.50, 2.00])
    first = 1.6 * np.array([20, 80, 200]) / 100 + fees
    first[0] += DISCOUNT * 0.8 * left / 100  # what the second waits for the first
    second = 0.8 * np.array([20 + left, 80, 200]) / 100 + fees
    np.testing.assert_allclose(costs[:2, 0, 0], [first, second], rtol=1e-6)
    assert np.isnan(costs[2]).all() and np.isnan(costs[:, :, 1:]).all()


@pytest.mark.parametrize("asked", [False, True])
def test_consequences_are_handed_over_once_and_only_when_asked_for(asked):
    env = TransactionRoutingEnv(episode_steps=20, consequences=asked)
    env.reset(seed=0)
    found = ["consequences" in env.step(np.zeros(3, int))[3] for _ in range(20)]
    assert found == [False] * 19 + [asked]
