"""QMIX: monotonic mixing, targets by hand, and the values of tasks that can be computed."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from teams import KINDS, make_team, networks, random_batch, random_transition, shake, wander, zero_gradients

from core.experiment.evaluation import evaluate
from core.experiment.training import train
from core.qmix import td_target

each_kind = pytest.mark.parametrize("kind", KINDS)
each_sharing = pytest.mark.parametrize("share", [False, True])
MIXER = ("hyper_w1", "hyper_b1", "hyper_w2", "hyper_v")


def qmix(kind: str = "discrete", **config):
    team = make_team("qmix", kind, **{"action_levels": 3, **config})
    shake(team, "utility", "utility_target", *(["mixer", "mixer_target"] if team.networks["mixer"].stacks() else []))
    return team


def random_input(team, size: int = 500, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Utilities (B, K) and central states (B, S)."""
    rng = torch.Generator().manual_seed(1)
    k = team.num_agents * team.heads
    return scale * torch.randn(size, k, generator=rng), scale * torch.randn(size, team.central_dim, generator=rng)


# --- the mixer --------------------------------------------------------------------------------------------------------


@each_kind
def test_raising_one_utility_never_lowers_q_tot(kind):
    team = qmix(kind, num_agents=3)
    mixer = team.networks["mixer"]
    utilities, states = random_input(team)
    with torch.no_grad():
        before = mixer(utilities, states)
        for k, step in itertools.product(range(utilities.shape[1]), (0.01, 1.0, 20.0)):
            raised = utilities.clone()
            raised[:, k] += step
            change = mixer(raised, states) - before
            assert change.min() >= -1e-5 * before.abs().max() and change.max() > 0


def test_q_tot_is_convex_in_the_utilities_so_that_good_actions_only_reinforce_each_other():
    # What the published mixer cannot represent although it is monotonic: two actions each of which makes the other
    # needless. Non-negative weights around the convex ELU leave no way to express it.
    team = qmix()
    mixer, (utilities, states) = team.networks["mixer"], random_input(team)
    first, second = torch.tensor([4.0, 0.0]), torch.tensor([0.0, 4.0])
    with torch.no_grad():
        alone = mixer(utilities + first, states) + mixer(utilities + second, states)
        together = mixer(utilities + first + second, states) + mixer(utilities, states)
    assert (together - alone).min() >= -1e-5 * together.abs().max() and (together - alone).max() > 0


def test_weights_are_never_negative_and_biases_are_free():
    team = qmix()
    mixer, (utilities, states) = team.networks["mixer"], random_input(team)
    utilities.requires_grad_()
    mixer(utilities, states).sum().backward()
    assert utilities.grad.min() >= 0 and utilities.grad.max() > 0
    with torch.no_grad():
        signs = {name: getattr(mixer, name)(states.unsqueeze(0)).sign().unique().tolist() for name in MIXER}
    assert all(sign == [-1.0, 1.0] for sign in signs.values())  # before the absolute value, all take both signs
    depths = {name: len(getattr(mixer, name).layers) for name in MIXER}
    assert depths == {"hyper_w1": 2, "hyper_b1": 1, "hyper_w2": 2, "hyper_v": 2}


def test_a_new_mixer_says_little_of_its_own_and_neither_mutes_nor_shouts():
    """What it says at random is bootstrapped for as long as a task lasts, and drowned the rewards of simple_spread."""
    team = make_team("qmix", state_dim=18, num_agents=3, mixing_width=32, hypernet_width=64)
    utilities = torch.zeros(500, 3, requires_grad=True)
    states = torch.randn(500, team.central_dim, generator=torch.Generator().manual_seed(0))
    q_tot = team.networks["mixer"](utilities, states)
    slopes = torch.autograd.grad(q_tot.sum(), utilities)[0]
    assert q_tot.abs().mean() < 1.0
    assert 0.2 < slopes.mean() < 3.0


def test_the_mixer_by_hand():
    team = qmix()
    mixer, (utilities, states) = team.networks["mixer"], random_input(team, 4)
    with torch.no_grad():
        for row in range(4):
            w1, b1, w2, v = (getattr(mixer, name).member(0, states[row : row + 1])[0] for name in MIXER)
            hidden = utilities[row] @ w1.abs().view(2, 8) + b1
            hidden = torch.where(hidden > 0, hidden, hidden.exp() - 1)  # ELU
            expected = hidden @ w2.abs() + v[0]
            torch.testing.assert_close(mixer(utilities[row : row + 1], states[row : row + 1])[0], expected)


def test_the_weights_of_the_mixer_depend_on_the_state():
    team = qmix(state_size=4)
    mixer, (utilities, states) = team.networks["mixer"], random_input(team)
    assert states.shape[1] == 2 * 3 + 4  # all observations, then env.state()
    slopes = []
    for moved in (0.0, 1.0):
        u, s = utilities.clone().requires_grad_(), states.clone().requires_grad_()
        s.data[:, -4:] += moved
        mixer(u, s).sum().backward()
        assert s.grad[:, -4:].any() and s.grad[:, :6].any()
        slopes.append(u.grad)
    assert (slopes[0] - slopes[1]).abs().max() > 0.01


@pytest.mark.parametrize("mixer", ["monotonic", "shares", "additive"])
@pytest.mark.parametrize("kind, num_agents, action_dim", [("discrete", 3, 3), ("continuous", 2, 2)])
def test_the_best_joint_action_is_the_tuple_of_each_agents_best(kind, num_agents, action_dim, mixer):
    team = qmix(kind, num_agents=num_agents, action_dim=action_dim, mixer=mixer)
    observations = torch.randn(40, team.num_agents, 3, generator=torch.Generator().manual_seed(0))
    greedy = torch.from_numpy(team.select_actions(observations.numpy(), training=False))
    heads, choices = team.num_agents * team.heads, team.choices
    joint = torch.tensor(list(itertools.product(range(choices), repeat=heads)))  # all of them, (3^3 or 3^4, K)
    with torch.no_grad():
        utilities = team.utilities(observations).reshape(40, heads, choices)
        for row in range(40):
            chosen = utilities[row].expand(len(joint), -1, -1).gather(2, joint.unsqueeze(2)).squeeze(2)
            q_tot = team.networks["mixer"](chosen, observations[row].flatten().expand(len(joint), -1))
            best = joint[q_tot.argmax()]
            if kind == "continuous":
                best = team.levels[best].view(team.num_agents, -1)
            assert torch.equal(best, greedy[row])


@each_kind
def test_shares_move_credit_between_agents_but_hand_out_no_more_of_it_in_any_state(kind):
    team = qmix(kind, num_agents=3, mixer="shares")
    utilities, states = random_input(team)
    slopes = {}
    for far in (1.0, 1000.0):
        u = utilities.clone().requires_grad_()
        slopes[far] = torch.autograd.grad(team.networks["mixer"](u, far * states).sum(), u)[0]
        assert slopes[far].min() >= 0
        torch.testing.assert_close(slopes[far].sum(dim=1), torch.full((500,), float(utilities.shape[1])))
    assert (slopes[1.0] - slopes[1.0][0]).abs().max() > 0.1, "the shares depend on the state"
    plain = qmix(kind, num_agents=3)  # what the published weights do there
    u = utilities.clone().requires_grad_()
    plain.networks["mixer"](u, 1000.0 * states).sum().backward()
    assert u.grad.sum(dim=1).max() > 1000.0 * u.shape[1]


# --- the loss ---------------------------------------------------------------------------------------------------------


def test_only_termination_cuts_the_future():
    ones, terminated = torch.ones(2), torch.tensor([0.0, 1.0])
    torch.testing.assert_close(td_target(ones, 0.9 * ones, terminated, 10.0 * ones), torch.tensor([10.0, 1.0]))


@pytest.mark.parametrize("kind, masked", [("discrete", False), ("discrete", True), ("continuous", False)])
@each_sharing
def test_the_target_is_the_target_mixer_of_target_values_of_the_online_choice(kind, share, masked):
    team = qmix(kind, share_parameters=share, state_size=4, action_dim=3, reward_scale=0.5)
    masks = torch.rand(12, 2, 3, generator=torch.Generator().manual_seed(5)) < 0.5
    masks[..., 0] |= ~masks.any(-1)
    batch = random_batch(team, 12, **({"next_action_masks": masks} if masked else {}))
    batch.terminated = (torch.arange(12) % 4 == 0).float()[:, None].repeat(1, 2)
    total, different = 0.0, 0
    with torch.no_grad():
        online = team.utilities(batch.observations)  # (B, N, D, L)
        later_online = team.utilities(batch.next_observations)
        later_target = team.utilities(batch.next_observations, "utility_target")
        for b in range(12):
            chosen, following = [], []
            for i, d in itertools.product(range(2), range(team.heads)):
                action = int(batch.actions[b, i]) if kind == "discrete" else round(float(batch.actions[b, i, d]) * 2)
                chosen.append(online[b, i, d, action])
                legal = [a for a in range(team.choices) if not masked or masks[b, i, a]]
                best = max(legal, key=lambda a, row=later_online[b, i, d]: float(row[a]))
                different += best != max(legal, key=lambda a, row=later_target[b, i, d]: float(row[a]))
                following.append(later_target[b, i, d, best] * (1 - batch.terminated[b, i]))
            x = torch.cat([batch.observations[b].flatten(), batch.states[b]])[None]
            next_x = torch.cat([batch.next_observations[b].flatten(), batch.next_states[b]])[None]
            q_tot = team.networks["mixer"](torch.stack(chosen)[None], x)[0]
            next_q_tot = team.networks["mixer_target"](torch.stack(following)[None], next_x)[0]
            discount = team.config.gamma * (1 - float(batch.terminated[b, 0]))
            y = 0.5 * batch.rewards[b].mean() + discount * next_q_tot
            total += float((q_tot - y) ** 2) / 12
    assert different > 0  # so that choosing by the target network would show
    assert float(team.loss(batch).detach()) == pytest.approx(total, rel=1e-4)


def test_the_team_reward_is_the_livings_share_of_a_mean_over_all_and_the_loss_a_mean_over_living_teams():
    team = qmix()
    batch = random_batch(team, 4)
    batch.terminated, batch.rewards = torch.ones(4, 2), torch.tensor([[2.0, 4.0], [2.0, 9.0], [9.0, 9.0], [0.0, 0.0]])
    batch.active = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    with torch.no_grad():
        chosen = team.utilities(batch.observations).gather(-1, batch.actions.view(4, 2, 1, 1)).view(4, 2) * batch.active
        q_tot = team.networks["mixer"](chosen, batch.observations.flatten(1))
    expected = ((q_tot[0] - 3) ** 2 + (q_tot[1] - 1) ** 2 + q_tot[3] ** 2) / 3
    torch.testing.assert_close(team.loss(batch).detach(), expected)


class Quit:
    """Agent 0 earns 1 a step. Agent 1 earns 1/2 a step while it stays (action 1); action 0 makes it leave for good."""

    num_agents, observation_space_size, action_space_size, discrete_actions = 2, 2, 2, True

    def reset(self, seed=None):
        self.t, self.here = 0, True
        return self.see()

    def see(self):
        return np.array([[self.t / 10, 1], [self.t / 10, self.here]], np.float32)

    def step(self, actions):
        paid = np.array([1.0, 0.5 if self.here else 0.0])
        self.here = bool(self.here and actions[1] == 1)
        self.t += 1
        over = self.t >= 10
        return self.see(), paid, np.array([over, over or not self.here]), {}


def test_losing_a_poorly_paid_agent_does_not_pay():
    config = {"learning_starts": 200, "gamma": 0.95, "learning_rate": 2e-3, "epsilon_decay": 0.9, "tau": 0.02}
    team = make_team("qmix", state_dim=2, hidden_sizes=[64, 64], batch_size=64, buffer_size=10_000, **config)
    train(Quit(), team, episodes=400, progress=False)
    assert evaluate(Quit(), team, 1)["team_return"].tolist() == [15.0]  # 10.5 by leaving at once


def test_the_task_ends_when_nobody_is_left():
    team = qmix(gamma=0.9)
    batch = random_batch(team, 3)
    batch.rewards, batch.active = torch.zeros(3, 2), torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    batch.terminated = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])  # both end; one goes on; the last one ends
    with torch.no_grad():
        q = team.utilities(batch.observations).gather(-1, batch.actions.view(3, 2, 1, 1)).view(3, 2) * batch.active
        q_tot = team.networks["mixer"](q, batch.observations.flatten(1))
        best = team.utilities(batch.next_observations).argmax(-1, keepdim=True)
        value = team.utilities(batch.next_observations, "utility_target").gather(-1, best).view(3, 2)
        value[1, 0] = 0.0
        y = 0.9 * team.networks["mixer_target"](value[1:2], batch.next_observations[1:2].flatten(1))
    expected = (q_tot[0] ** 2 + (q_tot[1] - y[0]) ** 2 + q_tot[2] ** 2) / 3
    torch.testing.assert_close(team.loss(batch).detach(), expected)


def test_one_error_trains_utilities_and_mixer_end_to_end_and_no_target():
    team = qmix(share_parameters=False)
    before = networks(team)
    zero_gradients(team)
    team.loss(random_batch(team)).backward()
    for name in ("utility", "mixer"):
        assert all(stack.flat.grad.any() for stack in team.networks[name].stacks())
        assert not any(stack.flat.grad.any() for stack in team.networks[f"{name}_target"].stacks())
    team.descend("all", team.loss(random_batch(team)), jointly=True)
    moved = {name for name, vector in networks(team).items() if not torch.equal(vector, before[name])}
    assert moved == {"utility", "mixer"}


def test_the_mixer_gives_each_agent_credit_for_its_action():
    team = qmix(share_parameters=False)
    batch = dataclasses.replace(random_batch(team), terminated=torch.ones(32, 2), rewards=torch.full((32, 2), 50.0))
    chosen = team.stored_choices(batch.actions)
    before = team.utilities(batch.observations).gather(-1, chosen).detach()
    for _ in range(20):  # whatever they did was better than thought
        team.update(batch)
    raised = team.utilities(batch.observations).gather(-1, chosen).detach() - before
    assert raised.mean(dim=0).min() > 0.01


def test_targets_follow_softly():
    team = qmix(tau=0.1, learning_rate=0.01)
    for _ in range(2):
        before = networks(team)
        team.update(random_batch(team))
        after = networks(team)
        for name in ("utility", "mixer"):
            expected = 0.9 * before[f"{name}_target"] + 0.1 * after[name]
            torch.testing.assert_close(after[f"{name}_target"], expected)


def test_learning_starts_and_repeats_as_configured():
    team = make_team("qmix", learning_starts=10, update_every=3, updates_per_step=2)
    rng, updates = np.random.default_rng(0), []
    for _ in range(12):  # two environment steps each
        team.observe(random_transition(team, rng))
        updates.append(team.updates)
    assert updates == [0, 0, 0, 0, 0, 2, 2, 2, 4, 4, 4, 6]


# --- contrasts --------------------------------------------------------------------------------------------------------


def test_the_additive_mixer_is_the_sum_and_has_nothing_to_learn():
    team = qmix(mixer="additive")
    utilities, states = random_input(team)
    torch.testing.assert_close(team.networks["mixer"](utilities, states), utilities.sum(dim=1))
    assert len(team.trained["all"]) == 1
    wander(team, 20)
    assert team.updates > 0


@each_kind
def test_independent_learners_regress_their_own_rewards(kind):
    team = qmix(kind, centralized=False, share_parameters=False, action_dim=2)
    batch = random_batch(team)
    batch.active[:, 1] = 0.0
    zero_gradients(team)
    team.loss(batch).backward()
    first, second = team.networks["utility"].gradient_norms()
    assert first > 0 and second == 0
    other = dataclasses.replace(batch, rewards=batch.rewards + torch.tensor([0.0, 100.0]))
    torch.testing.assert_close(team.loss(other), team.loss(batch))  # the other's reward is not its concern


# --- acting -----------------------------------------------------------------------------------------------------------


def test_continuous_actions_are_levels_and_find_back_to_their_choices():
    for levels in (2, 3, 11, 101):
        team = make_team("qmix", "continuous", action_levels=levels)
        actions = team.select_actions(np.random.default_rng(0).normal(size=(300, 2, 3)))
        distinct = np.unique(actions)
        assert distinct[0] == 0.0 and distinct[-1] == 1.0 and len(distinct) <= levels
        np.testing.assert_allclose(distinct * (levels - 1), np.round(distinct * (levels - 1)), atol=1e-4)
        choices = team.stored_choices(torch.from_numpy(actions)).squeeze(-1)
        assert torch.equal(team.levels[choices], torch.from_numpy(actions))


def test_exploration_is_uniform_over_legal_actions_with_probability_epsilon():
    team = qmix(action_dim=4, epsilon=0.6, share_parameters=False)
    seen = np.repeat(np.random.default_rng(0).normal(size=(1, 2, 3)), 20_000, axis=0)
    legal = np.array([True, False, True, True])
    masks = np.broadcast_to(legal, (20_000, 2, 4))
    greedy = team.select_actions(seen[:1], False, masks[:1])[0]
    frequencies = np.bincount(team.select_actions(seen, True, masks)[:, 0], minlength=4) / 20_000
    expected = 0.6 * legal / 3 + 0.4 * (np.arange(4) == greedy[0])
    np.testing.assert_allclose(frequencies, expected, atol=0.015)
    free = team.select_actions(seen, True)
    chance = np.mean(free[:, 0] != team.select_actions(seen[:1], False)[0, 0])
    assert chance == pytest.approx(0.6 * 3 / 4, abs=0.015)


# --- values that can be computed --------------------------------------------------------------------------------------


def learnt_values(kind: str, share: bool, updates: int = 250, steps: int = 60, **of_step) -> torch.Tensor:
    """Q_tot of the stored actions in a task whose observation never changes; `of_step(t)` fills each step."""
    rates = {"gamma": 0.8, "tau": 0.1, "learning_rate": 0.005, "learning_starts": 10**6}
    team = make_team("qmix", kind, share_parameters=share, action_levels=3, **rates)
    rng, same = np.random.default_rng(0), np.ones((2, 2, 3), np.float32)
    for t in range(steps):
        fields = {name: np.broadcast_to(make(t), (2, 2)) for name, make in of_step.items()}
        team.observe(random_transition(team, rng, observations=same, next_observations=same, **fields))
    for _ in range(updates):
        team.update()
    batch = team.buffer.sample(50, team.generator)
    with torch.no_grad():
        chosen = team.utilities(batch.observations).gather(-1, team.stored_choices(batch.actions)).flatten(1)
        return team.networks["mixer"](chosen, batch.observations.flatten(1))


@each_kind
@each_sharing
def test_constant_reward_cut_by_the_clock_is_worth_one_over_one_minus_gamma(kind, share):
    q_tot = learnt_values(
        kind, share, rewards=lambda t: np.float32(1), terminated=lambda t: False, truncated=lambda t: t % 5 == 4
    )
    torch.testing.assert_close(q_tot.mean(), torch.tensor(5.0), rtol=0.03, atol=0)  # 2.8 if the cut were an end


@each_kind
def test_the_terminal_step_is_learnt_and_what_follows_it_is_not(kind):
    q_tot = learnt_values(
        kind,
        False,
        rewards=lambda t: np.float32(3 if t % 2 == 0 else 1000),  # padding after the end must not count
        terminated=lambda t: True,
        active=lambda t: t % 2 == 0,
    )
    torch.testing.assert_close(q_tot.mean(), torch.tensor(3.0), rtol=0.03, atol=0)
