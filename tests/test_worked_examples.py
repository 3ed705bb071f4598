"""The numbers that docs/MARL_THEORY.md works by hand are those of the code, and the answers of its exercises run."""

from __future__ import annotations

import re

import pytest
import torch
from conftest import ROOT
from torch import tensor

from core.maddpg import deterministic_policy_loss, squared_td_error
from core.maddpg import td_target as maddpg_target
from core.mappo import generalized_advantages, policy_loss, value_loss
from core.qmix import MonotonicMixer, QMIXConfig, team_reward
from core.qmix import td_target as qmix_target

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


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_answers_of_the_exercises_run(answer):
    exec(answer, {})
