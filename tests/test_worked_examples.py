"""The numbers that docs/MARL_THEORY.md works by hand are those of the code, and the answers of its exercises run."""

from __future__ import annotations

import importlib.util
import re
from itertools import permutations

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch import tensor

from banking.constants import RoutingConstants
from core.maddpg import deterministic_policy_loss, squared_td_error
from core.maddpg import td_target as maddpg_target
from core.mappo import generalized_advantages, policy_loss, value_loss
from core.qmix import MonotonicMixer, QMIXConfig, team_reward
from core.qmix import td_target as qmix_target
from retail.constants import RetailConstants

PAGE = (ROOT / "docs" / "MARL_THEORY.md").read_text(encoding="utf-8")
ANSWERS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def by_hand(name: str) -> dict[str, float]:
    """Quantity -> value, from the table of an example."""
    table = PAGE.split(f"<!-- example: {name} -->\n")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {quantity: float(value.replace("−", "-")) for quantity, _, value in rows}


def test_maddpg_by_hand():
    z = torch.zeros(2, requires_grad=True)

    def critics(actions):
        first, second = actions
        return torch.stack([1 + 2 * first - second, 0.5 - 0.4 * first + second])

    y = maddpg_target(tensor([1.0, -0.5]), tensor(0.9), torch.zeros(2), critics(torch.sigmoid(z)).detach())
    stored = tensor([0.8, 0.2])
    q = critics(stored)
    slopes = {}
    for objective in ("own", "team"):
        actions = torch.sigmoid(z)
        own = torch.stack([critics(torch.stack([actions[0], stored[1]]))[0], critics([stored[0], actions[1]])[1]])
        climbed = own if objective == "own" else critics(actions)
        loss = deterministic_policy_loss(climbed[:, None], z.view(2, 1, 1), torch.ones(2, 1), 1e-3)
        slopes[objective] = torch.autograd.grad(loss, z)[0]
    moved = -0.4 * slopes["own"][1]
    computed = [*y, *q, squared_td_error(q[:, None], y[:, None], torch.ones(2, 1)), *slopes["own"], *slopes["team"]]
    assert [*by_hand("maddpg").values()] == pytest.approx(
        [*map(float, [*computed, moved, torch.sigmoid(moved)])], abs=5e-4
    )


def test_mappo_by_hand():
    def column(*numbers):
        return tensor(numbers).view(2, 1, 1)

    rewards, values, following, cut = column(1.0, 0.0), column(0.5, 1.0), column(1.0, 2.0), column(0.0, 1.0)
    delta = generalized_advantages(rewards, values, following, 0 * cut, cut, 0.9, 0.0).flatten()
    advantages = generalized_advantages(rewards, values, following, 0 * cut, cut, 0.9, 0.5).flatten()
    ended = generalized_advantages(rewards, values, following, cut, 0 * cut, 0.9, 0.5).flatten()
    scaled = (advantages - advantages.mean()) / advantages.std(correction=0)
    ratio, everybody = tensor([[1.3, 1.1], [0.7, 1.1]]), torch.ones(2, 2)
    a = scaled[:, None].expand(2, 2)
    gains = [-policy_loss(ratio[t : t + 1, :1], a[t : t + 1, :1], torch.ones(1, 1), 0.2) for t in range(2)]
    logits = torch.zeros(2, 2, 2, requires_grad=True)
    taken = torch.log_softmax(logits, dim=-1)[..., 0]
    policy_loss((taken - taken.detach()).exp(), a, everybody, 0.2).backward()
    computed = [delta[1], delta[0], advantages[1], advantages[0], ended[0], advantages[0] + 0.5, *scaled, *gains]
    computed += [policy_loss(ratio, a, everybody, 0.2), logits.grad[0, 0, 0]]
    assert [*by_hand("mappo").values()] == pytest.approx([*map(float, computed)], abs=5e-4)
    one = torch.ones(1, 1)
    assert value_loss(0.2 * one, 0 * one, one, one, clip_range=0.1, delta=10.0).item() == pytest.approx(0.405)


def test_qmix_by_hand():
    mixer = MonotonicMixer(2, 1, QMIXConfig(mixing_width=1, hypernet_width=1), torch.Generator())
    constants = (mixer.hyper_w1, [1.0, 0.5]), (mixer.hyper_b1, [-1.0]), (mixer.hyper_w2, [2.0]), (mixer.hyper_v, [0.5])
    for network, numbers in constants:
        network.flat.data.zero_()
        network.layers[-1][1].data.copy_(tensor(numbers))
    state, q = torch.zeros(1, 1), tensor([[2.0, 1.0]], requires_grad=True)
    reward = team_reward(tensor([[1.0, 2.0]]), torch.ones(1, 2))
    following = mixer(tensor([[0.5, 1.0]]), state).detach()
    y = qmix_target(reward, tensor(0.9), torch.zeros(1), following)
    loss = (mixer(q, state) - y).square().mean()
    loss.backward()
    computed = [mixer(q, state), reward, following, y, loss, *q.grad[0]]
    assert [*by_hand("qmix").values()] == pytest.approx([float(x.detach()) for x in computed], abs=5e-4)


# --- Numbers of the text ----------------------------------------------------------------------------------------------


def says(*numbers: str) -> bool:
    """The page has these words, however its lines are broken."""
    text = " ".join(PAGE.split())
    return all(number in text for number in numbers)


def test_what_a_critic_settles_at_if_the_cut_is_taken_for_an_end():
    gamma, steps = 0.99, 30
    assert 1 / (1 - gamma) == pytest.approx(100)
    whole = [(1 - gamma**k) / (1 - gamma) for k in range(1, steps + 1)]
    assert whole[-1] == pytest.approx(26, abs=0.1) and sum(whole) / steps == pytest.approx(14.1, abs=0.05)
    assert 1 / (1 - gamma * (steps - 1) / steps) == pytest.approx(23.3, abs=0.05)
    assert says("29/30) = 23.3`$", "mean, 14.1.")


def figures():
    spec = importlib.util.spec_from_file_location("figures", ROOT / "docs" / "figures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_greedy_pairs_is_that_of_the_best_monotone_fits():
    module, best = figures(), {}
    orders = [(p[-1], q[-1]) for p in permutations(range(3)) for q in permutations(range(3))]  # the best action is last
    for pair, (error, _) in zip(orders, module.monotone_fits(np.array(module.CLIMBING, float), False), strict=True):
        best[pair] = min(error, best.get(pair, np.inf))
    rows = re.findall(r"^\| \*\*row (\d)\*\* \|(.*)\|$", PAGE, re.MULTILINE)
    shown = {(int(i), j): float(cell.strip(" *")) for i, row in rows for j, cell in enumerate(row.split("|"))}
    assert len(shown) == 9
    assert shown == pytest.approx(best, abs=0.06)


@pytest.mark.parametrize(("epsilon", "on_top"), [(0.25, True), (0.26, False)])
def test_data_around_the_optimum_of_climbing_keep_it_on_top_up_to_a_quarter_of_exploration(epsilon, on_top):
    module = figures()
    own = np.full(3, epsilon / 3) + [1 - epsilon, 0, 0]
    fits = module.monotone_fits(np.array(module.CLIMBING, float), False, np.outer(own, own))
    _, fit = min(fits, key=lambda pair: pair[0])
    assert (fit.max() == pytest.approx(11)) == on_top  # beyond, row 0 is pooled with row 2


def test_the_climbing_game_has_two_equilibria():
    payoff = np.array(figures().CLIMBING)
    stable = (payoff >= payoff.max(axis=0)) & (payoff >= payoff.max(axis=1, keepdims=True))
    assert {tuple(map(int, pair)): int(payoff[pair]) for pair in zip(*np.nonzero(stable), strict=True)} == {
        (0, 0): 11,
        (1, 1): 7,
    }


def test_the_queues_by_hand_are_those_of_the_constants():
    k = RoutingConstants()
    offered = sum(k.arrival_rates) * 1000 / k.step_ms / k.num_channels  # transactions a second to each channel
    load = offered * k.work_ms / 1000
    second_moment = k.work_ms**2 * (1 + 1 / k.service_shape)
    wait = offered / 1000 * second_moment / (2 * (1 - load))  # Pollaczek and Khinchine
    assert wait[:2] == pytest.approx([24.6, 48.5], abs=0.05) and load[:2] == pytest.approx([0.73, 0.83], abs=0.005)
    growth = 1000 * (load[2] - 1)
    assert growth == pytest.approx(252, abs=0.5) and 310 + growth * 3 == pytest.approx(1067, abs=1)
    latency = np.asarray(k.base_latency_ms) + [*wait[:2], 310 + growth * 3]
    assert latency == pytest.approx([45, 129, 1267], abs=1) and latency.mean() == pytest.approx(480, abs=1)
    held = sum(buffer / work for buffer, work in zip(k.buffer_ms[:2], k.work_ms[:2], strict=True))
    assert held == pytest.approx(163, abs=0.5) and 6 * (sum(k.arrival_rates) * 100 - 132) == pytest.approx(132)
    assert says("24.6 and 48.5 ms", "252 ms every second", "mean is 1067 ms", "hold 163 transactions")


def test_the_newsvendor_by_hand_is_that_of_the_constants():
    c = RetailConstants()
    assert c.stockout_cost / (c.stockout_cost + c.holding_cost) == pytest.approx(0.990, abs=5e-4)
    assert sum(c.mean_demand) / c.supplier_capacity == pytest.approx(0.76, abs=0.005)
    assert (np.exp(c.mix_sd), np.exp(-c.mix_sd)) == pytest.approx((2.5, 0.4), abs=0.05)
    assert says("10/10.1 = 0.990", "a load of 76 %", "2.5 times the usual demand, one down is 0.4 times")


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_answers_of_the_exercises_run(answer):
    exec(answer, {})
