"""MAPPO: advantages, ratios and densities by hand, and the values of tasks that can be computed."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from games import Lights
from teams import KINDS, make_team, members, networks, random_batch, random_transition, shake, zero_gradients
from torch import distributions

from core.experiment.training import train
from core.mappo import (
    ValueNormalizer,
    create_mappo_agents,
    generalized_advantages,
    known_advantages,
    less_shared_luck,
    policy_loss,
    squashed_log_prob,
    value_loss,
)

each_kind = pytest.mark.parametrize("kind", KINDS)
each_sharing = pytest.mark.parametrize("share", [False, True])


def mappo(kind: str = "discrete", **config):
    return make_team("mappo", kind, **config)


def collected(team, steps: int = 5, num_envs: int = 2, seed: int = 0, **fields):
    """The team with a rollout in its buffer, not yet learnt from."""
    rng = np.random.default_rng(seed)
    team.begin_rollouts(num_envs)
    for _ in range(steps):
        step = random_transition(team, rng, num_envs, **{name: make(rng) for name, make in fields.items()})
        team.buffer.add(step, **team.acting)
    return team


def column(*numbers: float) -> torch.Tensor:
    """A (T, 1, 1) tensor."""
    return torch.tensor(numbers).view(-1, 1, 1)


# --- advantages -------------------------------------------------------------------------------------------------------


def test_advantages_by_hand_with_an_end_a_cut_and_the_end_of_the_chunk():
    advantages = generalized_advantages(
        rewards=column(1, 2, 3, 4, 5),
        values=column(10, 20, 30, 40, 50),
        next_values=column(20, 999, 8, 50, 60),  # after an end: ignored; after a cut: of the true last observation
        terminated=column(0, 1, 0, 0, 0),
        truncated=column(0, 0, 1, 0, 0),
        gamma=0.5,
        gae_lambda=0.5,
    )
    # Errors: 1 + 10 - 10 = 1; 2 - 20 = -18; 3 + 4 - 30 = -23; 4 + 25 - 40 = -11; 5 + 30 - 50 = -15; gamma lambda = 1/4.
    torch.testing.assert_close(advantages, column(1 - 18 / 4, -18, -23, -11 - 15 / 4, -15))


def test_lambda_one_is_the_return_minus_the_value_and_lambda_zero_the_one_step_error():
    rng = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(6, 2, 3, generator=rng), torch.randn(6, 2, 3, generator=rng)
    next_values, none = torch.cat([values[1:], torch.randn(1, 2, 3, generator=rng)]), torch.zeros(6, 2, 3)
    returns, running = torch.zeros(6, 2, 3), next_values[-1]
    for t in reversed(range(6)):
        running = returns[t] = rewards[t] + 0.9 * running
    table = (rewards, values, next_values, none, none, 0.9)
    torch.testing.assert_close(generalized_advantages(*table, 1.0), returns - values)
    torch.testing.assert_close(generalized_advantages(*table, 0.0), rewards + 0.9 * next_values - values)


@each_sharing
@pytest.mark.parametrize("normalize", [False, True])
def test_a_rollout_bootstraps_from_true_last_observations_with_denormalized_values(share, normalize):
    team = mappo(
        share_parameters=share, gamma=0.99, normalize_values=normalize, normalize_advantages=False, reward_scale=0.5
    )
    if normalize:
        team.normalizer.update(torch.tensor([[[1.0, 20.0]], [[5.0, 40.0]]]), torch.ones(2, 1, 2))
    mean, std = team.normalizer.mean_and_std
    ends = {name: lambda rng: np.repeat(rng.random((2, 1)) < 0.3, 2, axis=1) for name in ("terminated", "truncated")}
    collected(team, 5, **ends)
    step = {name: tensor.clone() for name, tensor in team.buffer.fields.items()}
    expected = torch.zeros(6, 2, 2)
    with torch.no_grad():
        for t, e in itertools.product(reversed(range(5)), range(2)):
            value = team.values(step["observations"][t, e : e + 1], None)[0] * std + mean
            after = team.values(step["next_observations"][t, e : e + 1], None)[0] * std + mean
            if t < 4 and not (step["terminated"] + step["truncated"])[t, e].any():
                after = team.values(step["observations"][t + 1, e : e + 1], None)[0] * std + mean
            open_end = 1.0 - step["terminated"][t, e].float()
            carry = open_end * (1.0 - step["truncated"][t, e].float()) * 0.99 * 0.95
            error = 0.5 * step["rewards"][t, e] + 0.99 * open_end * after - value
            expected[t, e] = error + (carry * expected[t + 1, e] if t < 4 else 0.0)
    assert step["terminated"].any() and step["truncated"].any()
    torch.testing.assert_close(team.prepare().advantages, expected[:5].flatten(0, 1), rtol=1e-4, atol=1e-5)


def test_advantages_are_normalized_once_over_living_agents():
    team = collected(mappo(), 6, active=lambda rng: rng.random((2, 2)) < 0.7)
    batch = team.prepare()
    alive = batch.advantages[batch.active.bool()]
    assert 5 < len(alive) < 24
    torch.testing.assert_close(alive.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(alive.std(correction=0), torch.tensor(1.0))
    # ... and not again in a minibatch: shifted advantages are taken as they are.
    shifted = dataclasses.replace(batch, advantages=batch.advantages + 3.0)
    losses = [team.losses(b, b.active)["policy_loss"] for b in (batch, shifted)]
    torch.testing.assert_close(losses[0] - losses[1], torch.tensor(3.0), rtol=1e-3, atol=0)  # at ratio 1


def test_shared_luck_is_the_mean_over_living_copies_of_one_seed():
    advantages = torch.tensor([1.0, 3.0, 10.0, 20.0, 7.0]).view(1, 5, 1)  # five copies: two pairs and one alone
    active = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0]).view(1, 5, 1)  # the fourth has finished, so the third is alone too
    rest = less_shared_luck(advantages, active, 2)
    assert rest[active > 0].tolist() == [-1.0, 1.0, 10.0, 7.0]


def test_luck_that_all_copies_of_a_seed_share_does_not_move_the_policy():
    luck = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(1)).repeat_interleave(2, dim=1)  # (T, E, N)
    batches = []
    no_end = dict.fromkeys(("terminated", "truncated"), lambda rng: np.zeros((4, 3), bool))
    for bonus in (0.0, luck):
        team = collected(mappo(episodes_per_seed=2, rollout_length=6, num_agents=3), 6, num_envs=4, **no_end)
        team.buffer.filled()["rewards"].add_(bonus)
        batches.append(team.prepare())
    torch.testing.assert_close(batches[0].advantages, batches[1].advantages, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(batches[0].returns, batches[1].returns, atol=0.01)  # the critic is told all the same


# --- losses -----------------------------------------------------------------------------------------------------------


def test_the_clipped_surrogate_by_hand():
    ratio, advantages = torch.tensor([[1.5, 0.5, 1.5, 0.5, 7.0]]), torch.tensor([[1.0, 1.0, -1.0, -1.0, 100.0]])
    active = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]])
    # Gains: min(1.5, 1.2), min(0.5, 0.8), min(-1.5, -1.2), min(-0.5, -0.8).
    torch.testing.assert_close(policy_loss(ratio, advantages, active, 0.2), torch.tensor(-(1.2 + 0.5 - 1.5 - 0.8) / 4))


def test_the_value_loss_is_the_larger_of_clipped_and_unclipped_and_linear_far_away():
    def loss(value, old, target, clip=0.2):
        tensors = (torch.tensor([[float(x)]]) for x in (value, old, target))
        return float(value_loss(*tensors, torch.ones(1, 1), clip, 10.0))

    assert loss(0.5, 0.0, 0.6) == pytest.approx(0.5 * 0.4**2)  # clipped to 0.2, which is further from 0.6
    assert loss(1.0, 0.0, 0.5) == pytest.approx(0.5 * 0.5**2)  # unclipped is further
    assert loss(0.5, 0.0, 0.6, clip=0.0) == pytest.approx(0.5 * 0.1**2)
    assert loss(20.0, 20.0, 0.0) == pytest.approx(10 * (20 - 5))


def test_values_that_have_not_moved_are_not_clipped_even_when_the_statistics_have():
    team = collected(mappo(), 6, rewards=lambda rng: np.full((2, 2), 100.0, np.float32))
    batch = team.prepare()  # here the first returns, of hundreds, enter the statistics
    outputs = team.values(batch.observations, None)
    assert team.normalizer.mean_and_std[0].min() > 100
    torch.testing.assert_close(batch.values, outputs)
    clipped, free = (value_loss(outputs, batch.values, batch.returns, batch.active, c, 10.0) for c in (0.2, 0.0))
    torch.testing.assert_close(clipped, free)


@each_kind
@each_sharing
def test_the_ratio_is_one_before_the_first_step_also_after_a_checkpoint(kind, share):
    team = mappo(kind, share_parameters=share)
    shake(team, "actor")
    collected(team)
    resumed = mappo(kind, share_parameters=share, seed=8)
    resumed.load_state_dict(team.state_dict())
    for restored in (team, resumed):
        batch = restored.prepare()
        outputs = restored.networks["actor"](restored.agent_inputs(batch.observations)).transpose(0, 1)
        ratio = (restored.log_prob(outputs, batch.actions, None) - batch.log_probs).exp()
        torch.testing.assert_close(ratio, torch.ones(10, 2), rtol=1e-4, atol=0)
        assert abs(float(restored.losses(batch, batch.active)["kl"].detach())) < 1e-6
    batch = dataclasses.replace(batch, advantages=torch.ones(10, 2))
    before = restored.losses(batch, batch.active)["kl"]
    restored.learn(batch)
    assert restored.losses(batch, batch.active)["kl"] > before + 1e-7


@each_kind
def test_more_likely_becomes_what_was_better_than_expected(kind):
    team = mappo(kind, entropy_coefficient=0.0, learning_rate=0.005)
    batch = random_batch(team, 64)
    better = batch.actions == 0 if kind == "discrete" else batch.actions[..., 0] > 0
    batch.advantages = torch.where(better, 1.0, -1.0)
    for _ in range(5):
        team.learn(batch)
    outputs = team.networks["actor"](team.agent_inputs(batch.observations)).transpose(0, 1)
    gain = team.log_prob(outputs, batch.actions, None) - batch.log_probs
    assert gain[better].mean() > 0.01 and gain[~better].mean() < -0.01


@each_kind
def test_the_entropy_bonus_makes_the_policy_more_uniform(kind):
    team = mappo(kind, entropy_coefficient=1.0, initial_log_std=-2.0)
    shake(team, "actor", scale=1.0)
    batch = random_batch(team, 64)
    batch.advantages = torch.zeros(64, 2)
    entropies = [team.learn(batch)["entropy"] for _ in range(30)]
    assert entropies[-1] > entropies[0] + 0.01


def test_the_entropy_bonus_falls_with_the_training_when_asked_also_after_a_checkpoint():
    team = mappo(anneal_entropy=True, entropy_coefficient=0.5, learning_rate=0.01)
    shake(team, "actor", scale=1.0)
    batch = random_batch(team)
    batch.advantages = torch.zeros(32, 2)
    team.set_progress(1.0)
    resumed = mappo(anneal_entropy=True, entropy_coefficient=0.5, learning_rate=0.01, seed=8)
    resumed.load_state_dict(team.state_dict())
    before = networks(resumed)["actor"]
    resumed.learn(batch)
    assert torch.equal(networks(resumed)["actor"], before)  # nothing is left to climb
    resumed.set_progress(0.5)
    resumed.learn(batch)
    assert not torch.equal(networks(resumed)["actor"], before)


def test_rollouts_are_learnt_from_when_full_in_epochs_of_minibatches_and_then_forgotten():
    team = mappo(rollout_length=6, epochs=3, minibatches=2)
    rng, reports = np.random.default_rng(0), []
    for _ in range(12):
        team.select_actions(np.zeros((2, 2, 3)))
        reports.append(team.observe(random_transition(team, rng)))
    assert [bool(report) for report in reports] == ([False] * 5 + [True]) * 2
    assert team.updates == 12 and len(team.buffer) == 0


def test_it_learns_from_its_own_actions_only():
    team = mappo()
    step = random_transition(team, np.random.default_rng(0))
    team.observe(step)
    with pytest.raises(RuntimeError, match="call select_actions"):
        team.observe(step)


@each_kind
def test_agents_that_had_finished_teach_nothing(kind):
    team = mappo(kind, share_parameters=False)
    batch = random_batch(team)
    batch.active[:, 1] = 0.0
    zero_gradients(team)
    losses = team.losses(batch, batch.active)
    (losses["policy_loss"] + losses["value_loss"] + losses["entropy"]).backward()
    for name in ("actor", "critic"):
        first, second = members(team, name, gradient=True)
        assert first.any() and not second.any()


# --- the policy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean, log_std", [(0.0, -0.5), (1.5, -1.0), (-2.0, 0.3)])
def test_the_squashed_gaussian_is_a_density_on_the_unit_interval(mean, log_std):
    edges = torch.linspace(0.0, 1.0, 200_001, dtype=torch.float64)
    action = (edges[1:] + edges[:-1]) / 2
    raw = torch.logit(action).unsqueeze(-1)
    parameters = (torch.full_like(raw, mean), torch.full_like(raw, log_std))
    density = squashed_log_prob(raw, *parameters).exp()
    assert float(density.mean()) == pytest.approx(1.0, abs=1e-4)
    draws = torch.sigmoid(mean + math.exp(log_std) * torch.randn(200_000, generator=torch.Generator().manual_seed(0)))
    assert float((density * action).mean()) == pytest.approx(float(draws.mean()), abs=0.003)


def test_the_log_probability_of_many_dimensions_is_one_number_an_agent():
    rng = torch.Generator().manual_seed(0)
    raw, mean, log_std = (torch.randn(5, 2, 4, generator=rng) for _ in range(3))
    squashed = distributions.TransformedDistribution(
        distributions.Normal(mean, log_std.exp()), distributions.SigmoidTransform()
    )
    expected = squashed.log_prob(torch.sigmoid(raw)).sum(dim=-1)
    torch.testing.assert_close(squashed_log_prob(raw, mean, log_std), expected, rtol=1e-4, atol=1e-4)
    team = mappo("continuous", action_dim=4)
    team.select_actions(np.zeros((5, 2, 3)))
    assert team.acting["log_probs"].shape == (5, 2) and team.acting["actions"].shape == (5, 2, 4)


def test_far_from_the_middle_the_density_is_still_finite():
    raw = torch.tensor([[60.0], [-60.0]])
    assert torch.isfinite(squashed_log_prob(raw, torch.zeros(2, 1), torch.zeros(2, 1))).all()


def test_what_is_stored_is_the_raw_action_and_what_is_played_is_squashed():
    team = mappo("continuous")
    actions = team.select_actions(np.zeros((5, 2, 3)))
    torch.testing.assert_close(torch.sigmoid(team.acting["actions"]), torch.from_numpy(actions))


def test_the_estimated_entropy_of_the_squashed_gaussian_is_right_on_average():
    team = mappo("continuous", action_dim=1, initial_log_std=0.0)
    outputs = torch.tensor([0.7, -0.4]).expand(100_000, 1, 2)  # mean and log deviation
    raw = torch.logit((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000).unsqueeze(-1)
    log_prob = squashed_log_prob(raw, torch.full_like(raw, 0.7), torch.full_like(raw, -0.4))
    exact = -float((log_prob.exp() * log_prob).mean())
    assert float(team.entropy(outputs, None).mean()) == pytest.approx(exact, abs=0.01)


def test_illegal_actions_have_no_probability_no_entropy_and_no_gradient():
    team = mappo(action_dim=4)
    outputs = torch.randn(50, 2, 4, requires_grad=True)
    masks = torch.tensor([True, True, False, False]).expand(50, 2, 4)
    legal = torch.log_softmax(outputs[..., :2], dim=-1)
    log_prob = team.log_prob(outputs, torch.ones(50, 2, dtype=torch.int64), masks)
    torch.testing.assert_close(log_prob, legal[..., 1])
    entropy = team.entropy(outputs, masks)
    torch.testing.assert_close(entropy, -(legal.exp() * legal).sum(-1))
    (log_prob + entropy).sum().backward()
    assert outputs.grad[..., :2].any() and not outputs.grad[..., 2:].any()


def test_masks_travel_with_the_rollout_into_the_update():
    team, rng = mappo(action_dim=4), np.random.default_rng(0)
    seen = rng.normal(size=(2, 2, 3)).astype(np.float32)
    masks = np.broadcast_to([True, False, True, False], (2, 2, 4))
    for _ in range(5):
        actions = team.select_actions(seen, True, masks)
        step = random_transition(team, rng, observations=seen, act=lambda _, played=actions: played, action_masks=masks)
        team.buffer is None and team.begin_rollouts(2)
        team.buffer.add(step, **team.acting)
    batch = team.prepare()
    assert abs(float(team.losses(batch, batch.active)["kl"].detach())) < 1e-6  # probabilities are those of acting


def test_decentralized_critics_see_the_own_observation_and_centralized_ones_all_and_the_state():
    observations = torch.randn(5, 2, 3, requires_grad=True)
    mappo(centralized=False).values(observations, None)[:, 0].sum().backward()
    assert observations.grad[:, 0].any() and not observations.grad[:, 1].any()
    for share in (False, True):
        observations.grad, states = None, torch.randn(5, 4, requires_grad=True)
        mappo(share_parameters=share, state_size=4).values(observations, states)[:, 0].sum().backward()
        assert observations.grad[:, 0].any() and observations.grad[:, 1].any() and states.grad.any()


# --- value statistics -------------------------------------------------------------------------------------------------


def test_normalizing_is_undone_by_denormalizing_and_first_statistics_are_those_of_the_first_rollout():
    normalizer = ValueNormalizer(2, torch.device("cpu"))
    returns = torch.randn(50, 4, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 0.5]) + 7.0
    assert torch.equal(normalizer.normalize(returns), returns)  # before there are any
    normalizer.update(returns, torch.ones(50, 4, 2))
    normalized = normalizer.normalize(returns)
    torch.testing.assert_close(normalized.mean(dim=(0, 1)), torch.zeros(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(normalized.std(dim=(0, 1), correction=0), torch.ones(2), atol=1e-2, rtol=0)
    torch.testing.assert_close(normalizer.denormalize(normalized), returns)


def test_finished_agents_do_not_enter_the_statistics():
    normalizer, returns = ValueNormalizer(2, torch.device("cpu")), torch.full((10, 1, 2), 4.0)
    active = torch.ones(10, 1, 2)
    active[5:, :, 0], returns[5:, :, 0] = 0.0, 1000.0
    normalizer.update(returns, active)
    active[:, :, 0] = 0.0  # agent 0 is absent from a whole rollout
    normalizer.update(returns, active)
    torch.testing.assert_close(normalizer.mean_and_std[0].float(), torch.tensor([4.0, 4.0]))


@pytest.mark.parametrize("mean", [0.0, 1e3, 1e6])
def test_the_deviation_of_the_returns_is_right_whatever_their_mean(mean):
    normalizer, generator = ValueNormalizer(1, torch.device("cpu")), torch.Generator().manual_seed(0)
    returns = mean + torch.randn(512, 4, 1, generator=generator)
    normalizer.update(returns, torch.ones_like(returns))
    assert float(normalizer.mean_and_std[1]) == pytest.approx(1.0, abs=0.03)
    assert float(normalizer.normalize(returns).std()) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("living", [1, 2])
def test_an_advantage_alone_keeps_its_size(living):
    team = mappo()
    advantages, active = torch.tensor([[[3.0, -5.0]]]), torch.zeros(1, 1, 2)
    active[..., :living] = 1.0
    expected = advantages if living == 1 else torch.tensor([[[1.0, -1.0]]])
    torch.testing.assert_close(team.comparable(advantages, active), expected)


# --- values that can be computed --------------------------------------------------------------------------------------


def learnt_values(kind: str, share: bool, rollouts: int = 30, **of_step) -> torch.Tensor:
    """V of every agent after learning from a task whose observation never changes; `of_step(t)` fills each step."""
    team = mappo(
        kind, share_parameters=share, gamma=0.8, rollout_length=10, epochs=5, minibatches=1, learning_rate=0.01
    )
    rng, same = np.random.default_rng(0), np.ones((2, 2, 3), np.float32)
    for t in range(10 * rollouts):
        fields = {name: np.broadcast_to(make(t), (2, 2)) for name, make in of_step.items()}
        team.observe(random_transition(team, rng, observations=same, next_observations=same, **fields))
    with torch.no_grad():
        return team.normalizer.denormalize(team.values(torch.ones(1, 2, 3), None))[0]


@each_kind
@each_sharing
def test_constant_reward_cut_by_the_clock_is_worth_one_over_one_minus_gamma(kind, share):
    values = learnt_values(
        kind, share, rewards=lambda t: np.float32(1), terminated=lambda t: False, truncated=lambda t: t % 5 == 4
    )
    torch.testing.assert_close(values, torch.full((2,), 5.0), rtol=0.03, atol=0)  # 2.8 if the cut were an end


@each_kind
def test_the_terminal_step_is_learnt_and_what_follows_it_is_not(kind):
    values = learnt_values(
        kind,
        False,
        rewards=lambda t: np.float32(3 if t % 2 == 0 else 1000),  # padding after the end must not count
        terminated=lambda t: True,
        active=lambda t: t % 2 == 0,
    )
    torch.testing.assert_close(values, torch.full((2,), 3.0), rtol=0.03, atol=0)


def test_a_critic_step_and_an_actor_step_are_separate():
    team = mappo()
    batch, before = random_batch(team), networks(team)
    team.descend("critic", team.losses(batch, batch.active)["value_loss"])
    after = networks(team)
    assert torch.equal(before["actor"], after["actor"]) and not torch.equal(before["critic"], after["critic"])


# --- known consequences -----------------------------------------------------------------------------------------------


KNOWING = {"known_consequences": True, "rollout_length": 5, "learning_rate": 0.01, "seed": 0}


def test_known_advantages_by_hand():
    """(MAPPO-7): the action's value less what the policy would have got; nothing where there was no choice."""
    costs = torch.tensor([[1.0, 3.0, 5.0], [float("nan")] * 3]).view(2, 1, 1, 3)
    actions = torch.tensor([1, 0]).view(2, 1, 1)
    log_probs = torch.tensor([0.5, 0.25, 0.25]).log().expand(2, 1, 1, 3)
    advantages, choice = known_advantages(costs, actions, log_probs)
    assert advantages.flatten().tolist() == pytest.approx([-3.0 + 0.5 + 0.75 + 1.25, 0.0])
    assert choice.flatten().tolist() == [1.0, 0.0]


def test_any_environment_may_offer_known_consequences():
    team = create_mappo_agents(3, 3, 2, KNOWING)
    history = train(Lights(), team, 60, progress=False)
    assert history["team_return"].iloc[-10:].mean() > -1.0 > history["team_return"].iloc[:3].mean()
    assert "value_loss" not in history and "policy_loss" in history


def test_consequences_of_another_shape_or_length_are_refused():
    with pytest.raises(ValueError, match="a rollout of 4 steps wants .* of as many, found none"):
        train(Lights(), create_mappo_agents(3, 3, 2, {**KNOWING, "rollout_length": 4}), 2, progress=False)

    class Short(Lights):
        def step(self, actions):
            *rest, info = super().step(actions)
            return *rest, {name: value[1:] if name == "consequences" else value for name, value in info.items()}

    with pytest.raises(ValueError, match=r"expected \(environments, steps, agents, actions\) \(1, 5, 2, 3\), found"):
        train(Short(), create_mappo_agents(3, 3, 2, KNOWING), 2, progress=False)


@pytest.mark.parametrize("change", [{"action_type": "continuous"}, {"recurrent": True}])
def test_known_consequences_are_refused_where_they_say_nothing(change):
    with pytest.raises(ValueError, match="known_consequences.*false beside"):
        create_mappo_agents(3, 3, 2, {**KNOWING, **change})
