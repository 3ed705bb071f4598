"""MADDPG: targets, gradients and exploration by hand, and the values of tasks that can be computed."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from games import Lights
from teams import KINDS, make_team, members, networks, random_batch, random_transition, shake, zero_gradients
from torch.nn import functional as F

from core.experiment.training import train
from core.maddpg import (
    create_maddpg_agents,
    deterministic_policy_loss,
    gumbel_softmax,
    known_values,
    squared_pair_error,
    squared_td_error,
    td_target,
)

each_kind = pytest.mark.parametrize("kind", KINDS)
each_sharing = pytest.mark.parametrize("share", [False, True])
each_objective = pytest.mark.parametrize("objective", ["own", "team"])


def team_of_three(kind: str = "continuous", **config):
    return make_team("maddpg", kind, num_agents=3, **config)


def with_targets_apart(team):
    """The targets differ clearly from the online networks, so that taking the wrong one shows."""
    shake(team, "actor", "critic", "actor_target", "critic_target")
    return team


def one_by_one(team, name: str, batch, actions, later: bool = False) -> torch.Tensor:
    """Q_i for every agent and row, (N, B), computed without any stacking from joint actions (N, B, A)."""
    observations = batch.next_observations if later else batch.observations
    states = batch.next_states if later else batch.states
    rows, n = len(observations), team.num_agents
    q = torch.zeros(n, rows)
    for i, row in itertools.product(range(n), range(rows)):
        shared = team.config.share_parameters  # one network, which sees agent i first and its id last
        order = [(i + j) % n for j in range(n)] if shared else range(n)
        parts = [observations[row, j] for j in order]
        if states is not None:
            blocks = states[row].view(n, -1) if shared and team.config.state_per_agent else states[row : row + 1]
            parts += [blocks[j] for j in order] if len(blocks) > 1 else [blocks[0]]
        parts += [actions[j, row] for j in order] + ([torch.eye(n)[i]] if shared else [])
        q[i, row] = team.networks[name].member(i, torch.cat(parts)[None])[0, 0]
    return q


def actions_of(team, name: str, observations) -> torch.Tensor:
    """Every agent's greedy action by network `name`, agent by agent, as the critics read it: (N, B, A)."""
    logits = []
    for i in range(team.num_agents):
        own = observations[:, i]
        if team.config.share_parameters:
            own = torch.cat([own, torch.eye(team.num_agents)[i].expand(len(own), -1)], dim=1)
        logits.append(team.networks[name].member(i, own))
    logits = torch.stack(logits)
    return torch.sigmoid(logits) if team.action_type == "continuous" else F.one_hot(logits.argmax(-1), 2).float()


# --- the target -------------------------------------------------------------------------------------------------------


def test_only_termination_cuts_the_future():
    ones, terminated = torch.ones(2), torch.tensor([0.0, 1.0])
    y = td_target(ones, 0.9 * ones, terminated, 10.0 * ones)
    torch.testing.assert_close(y, torch.tensor([10.0, 1.0]))


@each_kind
@each_sharing
@pytest.mark.parametrize("state", [{}, {"state_size": 6}, {"state_size": 6, "state_per_agent": True}], ids=str)
def test_the_target_takes_all_next_actions_from_target_actors(kind, share, state):
    config = {"share_parameters": share, "reward_scale": 0.5, **state}
    team = with_targets_apart(team_of_three(kind, **config))
    batch = random_batch(team, 12)
    next_actions = actions_of(team, "actor_target", batch.next_observations)
    next_q = one_by_one(team, "critic_target", batch, next_actions, later=True)  # (N, B)
    y = 0.5 * batch.rewards.T + team.config.gamma * (1 - batch.terminated.T) * next_q
    taken = batch.actions.transpose(0, 1)
    taken = taken if kind == "continuous" else F.one_hot(taken, 2).float()
    q = one_by_one(team, "critic", batch, taken)  # (N, B)
    expected = sum((q[i] - y[i]).square().mean() for i in range(3))
    assert batch.terminated.any() and next_q.std() > 0.1
    torch.testing.assert_close(team.critic_loss(batch), expected, rtol=1e-4, atol=1e-5)


def test_discrete_target_actions_are_one_hot_greedy_and_legal():
    team = make_team("maddpg", "discrete", action_dim=4)
    shake(team, "actor_target")
    seen = random_batch(team).next_observations
    masks = torch.rand(32, 2, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    masks[..., 0] |= ~masks.any(-1)
    actions = team.target_actions(seen, masks)  # (N, B, A)
    assert torch.equal(actions.sum(-1), torch.ones(2, 32)) and set(actions.unique().tolist()) == {0.0, 1.0}
    assert (masks.transpose(0, 1) & actions.bool()).any(-1).all()
    assert not torch.equal(actions, team.target_actions(seen, None))


# --- the losses -------------------------------------------------------------------------------------------------------


def test_the_critic_loss_is_a_mean_over_active_rows_and_a_sum_over_critics():
    q, y = torch.tensor([[[1.0, 2.0], [0.0, 0.0]]]), torch.tensor([[0.0, 0.0], [3.0, 100.0]])
    active = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    assert squared_td_error(q, y, active) == (1 + 4) / 2 + 9


def test_the_paired_loss_is_half_the_squared_error_of_differences_where_both_live():
    q, y = torch.tensor([[[5.0, 7.0, 1.0, 2.0]]]), torch.tensor([[1.0, 1.0, 0.0, 0.0]])  # differences 4, 5 and 1, 1
    assert squared_pair_error(q, y, torch.ones(1, 4)) == 0.5 * (3**2 + 4**2) / 2
    assert squared_pair_error(q, y, torch.tensor([[1.0, 0.0, 1.0, 1.0]])) == 0.5 * 3**2


def test_luck_that_both_copies_share_teaches_the_paired_loss_nothing():
    generator = torch.Generator().manual_seed(0)
    q, y, luck = (torch.randn(*shape, generator=generator) for shape in ((1, 3, 8), (3, 8), (3, 4)))
    active = torch.ones(3, 8)
    lucky = y + 100.0 * torch.cat([luck, luck], dim=1)
    with_luck = squared_pair_error(q, lucky, active)
    torch.testing.assert_close(with_luck, squared_pair_error(q, y, active), rtol=1e-4, atol=0)
    assert squared_td_error(q, lucky, active) > 100 * squared_td_error(q, y, active)


def test_pair_weight_mixes_the_two_losses_and_asks_for_pairs():
    plain, mixed = team_of_three(), team_of_three(pair_weight=0.75)
    mixed.load_state_dict(plain.state_dict())
    pairs = random_batch(plain, 8, pairs=True)
    alone = dataclasses.replace(pairs, pairs=False)
    level = mixed.critic_loss(alone)
    apart = (mixed.critic_loss(pairs) - 0.25 * level) / 0.75
    torch.testing.assert_close(level, plain.critic_loss(alone))  # a batch without pairs has the plain loss
    torch.testing.assert_close(apart, all_pairs_by_hand(plain, pairs))
    assert (plain.episodes_per_seed, mixed.episodes_per_seed) == (1, 2)
    with pytest.raises(ValueError, match="pair_weight.*num_envs >= 2"):
        mixed.begin_rollouts(1)


def all_pairs_by_hand(team, batch) -> torch.Tensor:
    """(MADDPG-13) agent by agent and pair by pair."""
    half = len(batch.rewards) // 2
    next_actions = actions_of(team, "actor_target", batch.next_observations)
    next_q = one_by_one(team, "critic_target", batch, next_actions, later=True)
    y = batch.rewards.T + team.config.gamma * (1 - batch.terminated.T) * next_q
    error = one_by_one(team, "critic", batch, batch.actions.transpose(0, 1)) - y  # (N, B)
    return sum(0.5 * (error[i, b] - error[i, b + half]) ** 2 / half for i in range(3) for b in range(half))


def test_a_pair_learns_as_a_team_does_and_moves_no_other_network():
    team = team_of_three(pair_weight=0.9, share_parameters=True, critic_summary=2)
    before = networks(team)
    team.begin_rollouts(4)
    rng = np.random.default_rng(0)
    for _ in range(4):
        team.observe(random_transition(team, rng, num_envs=4))
    assert team.updates == 1 and all(not torch.equal(before[name], after) for name, after in networks(team).items())


@each_kind
@each_sharing
def test_a_critic_with_an_action_scale_is_a_critic_of_scaled_actions(kind, share):
    team = team_of_three(kind, share_parameters=share)
    scaled = team_of_three(kind, share_parameters=share, critic_action_scale=6.0)
    scaled.load_state_dict(team.state_dict())
    seen, actions = torch.randn(5, 3, 3), torch.rand(1, 3, 5, 2)
    expected = team.q_values("critic", seen, None, 6.0 * actions)
    torch.testing.assert_close(scaled.q_values("critic", seen, None, actions), expected)
    assert not torch.allclose(team.q_values("critic", seen, None, actions), expected, rtol=0.1)


@pytest.mark.parametrize("state", [{}, {"state_size": 6}, {"state_size": 6, "state_per_agent": True}], ids=str)
@pytest.mark.parametrize("name", ["critic", "critic_target"])
def test_a_critic_with_a_summary_sees_its_own_agent_directly_and_all_others_through_the_summary(name, state):
    team = team_of_three(share_parameters=True, critic_summary=2, **state)
    summary = team.networks[name.replace("critic", "summary")]
    generator = torch.Generator().manual_seed(0)
    seen, actions = torch.randn(5, 3, 3, generator=generator), torch.rand(1, 3, 5, 2, generator=generator)
    states = torch.randn(5, 6, generator=generator) if state else None

    def slopes() -> tuple[torch.Tensor, ...]:
        """How much Q_1 changes with the observation, action and block of the state of each agent, (N,) each."""
        inputs = [x.clone().requires_grad_() for x in (seen, actions, *([] if states is None else [states]))]
        q = team.q_values(name, inputs[0], inputs[2] if state else None, inputs[1])
        gradients = torch.autograd.grad(q[1].sum(), inputs)
        blocks = [gradients[0].abs().sum(dim=(0, 2)), gradients[1].abs().sum(dim=(0, 2, 3))]
        return (*blocks, gradients[2].abs().view(5, 3, -1).sum(dim=(0, 2))) if state else tuple(blocks)

    assert all(size.all() for size in slopes())  # through the summary everything is seen
    with torch.no_grad():
        summary.flat.zero_()
    for position, size in enumerate(slopes()):
        own_alone = position < 2 or state.get("state_per_agent", False)
        assert size[1] > 0 and (not (size[0] or size[2])) == own_alone  # a state without blocks stays as it is


def test_only_a_shared_central_critic_has_a_summary():
    for config in ({"share_parameters": False}, {"share_parameters": True, "centralized": False}):
        assert "summary" not in team_of_three(critic_summary=4, **config).networks


def test_the_actor_loss_climbs_q_and_keeps_logits_small():
    q, active = torch.tensor([[1.0, 3.0], [5.0, 100.0]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    logits = torch.tensor([[[1.0, 1.0], [0.0, 2.0]], [[0.0, 4.0], [9.0, 9.0]]])
    assert deterministic_policy_loss(q, logits, active, 0.0) == -(1 + 3) / 2 - 5
    penalty = 0.01 * ((1 + 2) / 2 + 8)
    torch.testing.assert_close(deterministic_policy_loss(q, logits, active, 0.01), torch.tensor(-7.0 + penalty))


@each_kind
def test_the_logit_penalty_reaches_the_teams_loss(kind):
    losses = []
    for weight in (0.0, 1.0):
        team = make_team("maddpg", kind, logit_penalty=weight)
        shake(team, "actor")
        batch = random_batch(team)
        logits = team.networks["actor"](team.agent_inputs(batch.observations))
        team.seed(1)  # the same Gumbel noise
        losses.append(team.actor_loss(batch))
    torch.testing.assert_close(losses[1] - losses[0], logits.square().mean(dim=(1, 2)).sum())


@each_sharing
def test_in_the_own_objective_only_the_own_action_is_new(share):
    team = with_targets_apart(team_of_three(share_parameters=share, logit_penalty=0.0))
    batch = random_batch(team, 8)
    new, stored = actions_of(team, "actor", batch.observations), batch.actions.transpose(0, 1)
    expected = 0.0
    for i in range(3):
        joint = torch.stack([new[j] if j == i else stored[j] for j in range(3)])
        expected -= one_by_one(team, "critic", batch, joint)[i].mean()
    torch.testing.assert_close(team.actor_loss(batch), expected, rtol=1e-4, atol=1e-5)
    together = team_of_three(share_parameters=share, logit_penalty=0.0, actor_objective="team")
    together.load_state_dict(team.state_dict())
    expected = -one_by_one(team, "critic", batch, new).mean(dim=-1).sum()
    torch.testing.assert_close(together.actor_loss(batch), expected, rtol=1e-4, atol=1e-5)


@each_kind
@each_objective
def test_an_agents_own_loss_moves_only_its_actor(kind, objective):
    team = team_of_three(kind, actor_objective=objective)
    batch = random_batch(team)
    for i in range(3):
        zero_gradients(team)
        team[i].compute_loss(batch)["actor_loss"].backward()
        lengths = members(team, "actor", gradient=True).norm(dim=1)
        others = [length for j, length in enumerate(lengths) if j != i]
        assert lengths[i] > 0
        if objective == "own":
            assert not any(others)  # exactly 0
        else:
            assert all(others)  # (MADDPG-10): Q_i is climbed by everybody's action


@each_objective
def test_the_agents_losses_add_up_to_the_teams(objective):
    team = team_of_three(actor_objective=objective)
    batch = random_batch(team)
    batch.active[:10, 1] = 0.0
    for name in ("critic_loss", "actor_loss"):
        parts = [agent.compute_loss(batch)[name] for agent in team]
        torch.testing.assert_close(sum(parts), getattr(team, name)(batch))


def test_a_state_that_cannot_be_shared_out_is_refused():
    with pytest.raises(ValueError, match="state_size.*a multiple of num_agents"):
        team_of_three(state_size=4, state_per_agent=True)


@each_kind
@each_sharing
@each_objective
def test_the_actors_step_leaves_the_critics_alone(kind, share, objective):
    team = team_of_three(kind, share_parameters=share, actor_objective=objective)
    batch, before = random_batch(team), networks(team)
    zero_gradients(team)
    team.descend("actor", team.actor_loss(batch))
    after = networks(team)
    assert not team.networks["critic"].flat.grad.any() and not team.networks["critic_target"].flat.grad.any()
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["actor"]


@each_kind
def test_the_critics_step_leaves_actors_and_targets_alone(kind):
    team = team_of_three(kind)
    before = networks(team)
    team.descend("critic", team.critic_loss(random_batch(team)))
    after = networks(team)
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["critic"]


@each_kind
def test_agents_that_had_finished_teach_nothing(kind):
    team = make_team("maddpg", kind)
    batch = random_batch(team)
    batch.active[:, 1] = 0.0
    zero_gradients(team)
    (team.critic_loss(batch) + team.actor_loss(batch)).backward()
    for name in ("critic", "actor"):
        first, second = members(team, name, gradient=True)
        assert first.any() and not second.any()


def test_decentralized_critics_see_the_own_observation_and_action_alone():
    team = make_team("maddpg", "continuous", centralized=False)
    observations = torch.randn(5, 2, 3, requires_grad=True)
    actions = torch.rand(1, 2, 5, 2, requires_grad=True)
    team.q_values("critic", observations, None, actions)[0].sum().backward()
    assert observations.grad[:, 0].any() and not observations.grad[:, 1].any()
    assert actions.grad[0, 0].any() and not actions.grad[0, 1].any()


def test_the_centralized_critic_sees_the_global_state_and_the_actors_do_not():
    team = make_team("maddpg", "continuous", state_size=2)
    batch = random_batch(team)
    other = dataclasses.replace(batch, states=batch.states + 1.0)
    assert not torch.allclose(team.critic_loss(batch), team.critic_loss(other))
    assert team.networks["actor"].sizes[0] == 3


# --- one update -------------------------------------------------------------------------------------------------------


@each_kind
@each_sharing
def test_targets_follow_by_tau_after_everything_has_moved(kind, share):
    config = {"share_parameters": share, "critic_summary": 2, "tau": 0.1, "learning_rate": 0.05}
    team = with_targets_apart(team_of_three(kind, **config))
    before = networks(team)
    team.update(random_batch(team))
    after = networks(team)
    for name in ("actor", "critic", "summary") if share else ("actor", "critic"):
        assert (after[name] - before[name]).abs().max() > 0.01
        torch.testing.assert_close(after[f"{name}_target"], 0.9 * before[f"{name}_target"] + 0.1 * after[name])


def test_delayed_actors_and_targets_move_at_every_second_update_of_the_critics():
    team = make_team("maddpg", policy_delay=2)
    batch, states = random_batch(team), [networks(team)]
    for _ in range(4):
        team.update(batch)
        states.append(networks(team))
    for step in range(4):
        moved = {name for name in states[0] if not torch.equal(states[step][name], states[step + 1][name])}
        assert moved == ({"critic"} if step % 2 == 0 else {"critic", "actor", "critic_target", "actor_target"})


def test_learning_starts_and_repeats_as_configured():
    team = make_team("maddpg", learning_starts=10, update_every=3, updates_per_step=2)
    rng = np.random.default_rng(0)
    updates = []
    for _ in range(12):  # two environment steps each
        report = team.observe(random_transition(team, rng))
        assert bool(report) == (len(updates) + 1 in (6, 9, 12))
        updates.append(team.updates)
    assert updates == [0, 0, 0, 0, 0, 2, 2, 2, 4, 4, 4, 6]


# --- acting -----------------------------------------------------------------------------------------------------------


def test_the_replay_holds_the_executed_action_which_lies_within_the_bounds():
    team = make_team("maddpg", "continuous", noise_std=5.0)  # noise as large as this would leave any bounds
    rng, executed = np.random.default_rng(0), []
    for _ in range(6):
        step = random_transition(team, rng)
        executed.append(step.actions)
        team.observe(step)
    stored = team.buffer.fields["actions"][:12].numpy()
    assert np.array_equal(stored, np.concatenate(executed)) and 0 <= stored.min() < 0.1 and 0.9 < stored.max() <= 1
    batch = team.buffer.sample(50, team.generator)
    assert torch.equal(team.stored_actions(batch.actions), batch.actions.transpose(0, 1))


def test_continuous_exploration_is_gaussian_before_the_sigmoid_and_shrinks_with_epsilon():
    team = make_team("maddpg", "continuous", noise_std=0.8, epsilon=0.5)
    seen = np.repeat(np.random.default_rng(0).normal(size=(1, 2, 3)), 5000, axis=0)
    greedy, explored = (torch.from_numpy(team.select_actions(seen, training)).logit() for training in (False, True))
    noise = explored - greedy
    torch.testing.assert_close(noise.std(dim=0), torch.full((2, 2), 0.4), rtol=0.05, atol=0)
    assert noise.mean(dim=0).abs().max() < 0.03


@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_discrete_exploration_is_uniform_over_legal_actions_with_epsilon_else_from_the_softmax(epsilon):
    team = make_team("maddpg", "discrete", action_dim=4, epsilon=epsilon, epsilon_min=0.0)
    shake(team, "actor", scale=1.0)
    seen = np.repeat(np.random.default_rng(0).normal(size=(1, 2, 3)), 20_000, axis=0)
    legal = np.array([True, True, False, True])
    actions = team.select_actions(seen, True, np.broadcast_to(legal, (20_000, 2, 4)))
    frequencies = np.bincount(actions[:, 0], minlength=4) / 20_000
    logits = team.networks["actor"].member(0, torch.from_numpy(seen[:1, 0]).float())[0].detach()
    softmax = torch.softmax(logits.masked_fill(~torch.from_numpy(legal), -torch.inf), -1).numpy()
    expected = legal / 3 if epsilon else softmax
    assert np.abs(softmax - legal / 3).max() > 0.1  # the two differ
    np.testing.assert_allclose(frequencies, expected, atol=0.015)


def test_gumbel_softmax_is_one_hot_forward_and_the_softmax_backward():
    logits, noise, weights = (torch.randn(6, 4, generator=torch.Generator().manual_seed(s)) for s in (0, 1, 2))
    hard_logits, soft_logits = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    hard, soft = gumbel_softmax(hard_logits, noise, 0.7), torch.softmax((soft_logits + noise) / 0.7, dim=-1)
    torch.testing.assert_close(hard, F.one_hot((logits + noise).argmax(-1), 4).float())
    (hard * weights).sum().backward()
    (soft * weights).sum().backward()
    torch.testing.assert_close(hard_logits.grad, soft_logits.grad)


def test_the_actors_new_discrete_actions_are_one_hot_and_legal_like_the_stored_ones():
    team = make_team("maddpg", "discrete", action_dim=4)
    masks = torch.rand(200, 2, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    masks[..., 0] |= ~masks.any(-1)
    actions = team.differentiable_actions(torch.randn(2, 200, 4), masks)  # (N, B, A)
    torch.testing.assert_close(actions, F.one_hot(actions.argmax(-1), 4).float())
    assert (masks.transpose(0, 1) & (actions > 0.5)).any(-1).all()


# --- values that can be computed --------------------------------------------------------------------------------------


def learnt_values(kind: str, share: bool, updates: int = 250, steps: int = 60, **of_step) -> torch.Tensor:
    """Q of every agent after learning from a task whose observation never changes; `of_step(t)` fills each step.

    The actors stay, so that the critics are judged alone.
    """
    rates = {"learning_rate": 0.005, "tau": 0.1}
    team = make_team("maddpg", kind, share_parameters=share, gamma=0.8, learning_starts=10**6, **rates)
    team.optimizers["actor"].param_groups[0]["lr"] = 0.0
    rng = np.random.default_rng(0)
    same = np.ones((2, 2, 3), np.float32)
    for t in range(steps):
        fields = {name: np.broadcast_to(make(t), (2, 2)) for name, make in of_step.items()}
        team.observe(random_transition(team, rng, observations=same, next_observations=same, **fields))
    for _ in range(updates):
        team.update()
    batch = team.buffer.sample(50, team.generator)
    with torch.no_grad():
        q = team.q_values("critic", batch.observations, None, team.stored_actions(batch.actions)[None])
    return q.mean(dim=1)  # (N, B) -> (N,)


@each_kind
@each_sharing
def test_constant_reward_cut_by_the_clock_is_worth_one_over_one_minus_gamma(kind, share):
    q = learnt_values(
        kind, share, rewards=lambda t: np.float32(1), terminated=lambda t: False, truncated=lambda t: t % 5 == 4
    )
    torch.testing.assert_close(q, torch.full_like(q, 5.0), rtol=0.03, atol=0)  # 2.8 if the cut were an end


@each_kind
def test_the_terminal_step_is_learnt_and_what_follows_it_is_not(kind):
    q = learnt_values(
        kind,
        False,
        rewards=lambda t: np.float32(3 if t % 2 == 0 else 1000),  # padding after the end must not count
        terminated=lambda t: True,
        active=lambda t: t % 2 == 0,
    )
    torch.testing.assert_close(q, torch.full_like(q, 3.0), rtol=0.03, atol=0)


# --- known consequences -----------------------------------------------------------------------------------------------


class Levels:
    """Two agents see a number each and should answer with it: half the squared miss is lost, and the slope known."""

    num_agents, observation_space_size, action_space_size, discrete_actions = 2, 1, 1, False

    def reset(self, seed=None):
        self.random, self.slopes = np.random.default_rng(seed), []
        return self.observe()

    def step(self, actions):
        miss = np.asarray(actions) - self.level  # (N, A)
        self.slopes.append(miss)
        over = len(self.slopes) == 5
        info = {"truncated": over, **({"consequences": np.array(self.slopes)} if over else {})}
        return self.observe(), -0.5 * miss[:, 0] ** 2, np.full(2, over), info

    def observe(self):
        self.level = self.random.uniform(0.1, 0.9, (2, 1)).astype(np.float32)
        return self.level


KNOWING = {"known_consequences": True, "buffer_size": 5, "batch_size": 5, "updates_per_step": 4, "learning_rate": 0.01}


def test_known_values_by_hand():
    """(MADDPG-15): slope times action with the sign changed; nothing where there was no choice."""
    consequences = torch.tensor([[2.0, -1.0], [float("nan"), float("nan")]]).view(1, 2, 2)
    actions = torch.tensor([[0.5, 0.25], [0.5, 0.5]]).view(1, 2, 2).requires_grad_()
    q = known_values(consequences, actions)
    (slope,) = torch.autograd.grad(q.sum(), actions)
    assert q.flatten().tolist() == [-0.75, 0.0]
    assert slope.flatten().tolist() == [-2.0, 1.0, 0.0, 0.0]


@each_kind
def test_any_environment_may_offer_known_consequences(kind):
    """Slopes of continuous actions, or the costs of discrete ones: either teaches the actors, and no critic learns."""
    env, sizes = (Levels(), (1, 1, 2)) if kind == "continuous" else (Lights(), (3, 3, 2))
    team = create_maddpg_agents(*sizes, {**KNOWING, "action_type": kind, "noise_std": 0.1, "epsilon": 0.1, "seed": 0})
    before = networks(team)
    history = train(env, team, 150, progress=False)
    first, last = history["team_return"].iloc[:10].mean(), history["team_return"].iloc[-10:].mean()
    assert last > 0.3 * first and first < 0, "a loss of less than a third of the first one"
    assert torch.equal(before["critic"], networks(team)["critic"]) and "critic_loss" not in history
