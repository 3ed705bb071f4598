"""Teams and agents: acting from local observations, learning as members, gradient steps, memory."""

from __future__ import annotations

import copy
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from teams import (
    ACTION_DIM,
    ALGORITHMS,
    KINDS,
    NUM_AGENTS,
    STATE_DIM,
    make_team,
    members,
    moved_by_optimizers,
    networks,
    random_batch,
    random_transition,
    same,
    shake,
    wander,
)

from core.base_agent import as_team
from core.team.spread import SpreadMLP

each_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)
each_kind = pytest.mark.parametrize("kind", KINDS)
each_sharing = pytest.mark.parametrize("share", [False, True])
ACTOR = {"maddpg": "actor", "mappo": "actor", "qmix": "utility"}  # the network that acts


def observations(*leading: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(*leading, NUM_AGENTS, STATE_DIM)).astype(np.float32)


# --- acting -----------------------------------------------------------------------------------------------------------


@each_algorithm
@each_kind
@pytest.mark.parametrize("leading", [(), (1,), (5,)])
def test_actions_are_ready_for_the_environment(algorithm, kind, leading):
    team = make_team(algorithm, kind)
    for training in (False, True):
        actions = team.select_actions(observations(*leading), training)
        if kind == "discrete":
            assert actions.shape == (*leading, NUM_AGENTS) and actions.dtype == np.int64
            assert ((actions >= 0) & (actions < ACTION_DIM)).all()
        else:
            assert actions.shape == (*leading, NUM_AGENTS, ACTION_DIM) and actions.dtype == np.float32
            assert ((actions >= 0) & (actions <= 1)).all()


@each_algorithm
def test_observations_of_another_shape_are_refused(algorithm):
    team = make_team(algorithm)
    for wrong in (np.zeros((NUM_AGENTS, 9)), np.zeros((9, STATE_DIM)), np.zeros(STATE_DIM)):
        with pytest.raises(ValueError, match=r"observations: expected \(\.\.\., 2, 3\), found"):
            team.select_actions(wrong)
    with pytest.raises(ValueError, match=r"observation: expected \(3,\), found \(9,\)"):
        team[0].select_action(np.zeros(9))


@each_algorithm
@each_kind
def test_greedy_actions_are_without_noise_and_draw_no_random_numbers(algorithm, kind):
    team = make_team(algorithm, kind)
    shake(team, ACTOR[algorithm])
    before, seen = team.random_state(), observations(50)
    greedy = team.select_actions(seen, training=False)
    assert np.array_equal(greedy, team.select_actions(seen, training=False))
    assert torch.equal(before, team.random_state())
    assert not np.array_equal(greedy, team.select_actions(seen, training=True))  # but exploration is on in training


@each_algorithm
@each_kind
def test_the_same_randomness_gives_the_same_exploration(algorithm, kind):
    team, seen = make_team(algorithm, kind), observations(20)
    start = team.random_state()
    first = team.select_actions(seen)
    assert not np.array_equal(first, team.select_actions(seen))
    team.set_random_state(start)
    assert np.array_equal(first, team.select_actions(seen))
    team.seed(3)
    third = team.select_actions(seen)
    team.seed(3)
    assert np.array_equal(third, team.select_actions(seen))


@each_algorithm
@each_kind
@each_sharing
def test_an_agent_alone_acts_as_it_does_in_the_team(algorithm, kind, share):
    team, seen = make_team(algorithm, kind, share_parameters=share), observations()
    shake(team, ACTOR[algorithm])
    together = team.select_actions(seen, training=False)
    assert len(team) == NUM_AGENTS and [agent.index for agent in team] == [0, 1]
    for i, agent in enumerate(team):
        alone = agent.select_action(seen[i])
        assert isinstance(alone, int) if kind == "discrete" else alone.shape == (ACTION_DIM,)
        np.testing.assert_allclose(alone, together[i], rtol=1e-6)
        explored = np.array([agent.select_action(seen[i], training=True) for _ in range(40)])
        assert explored.std(axis=0).min() > 0


@each_algorithm
@each_kind
def test_an_agent_sees_nothing_but_its_own_observation(algorithm, kind):
    team, seen = make_team(algorithm, kind), observations(30)
    shake(team, ACTOR[algorithm])
    other = seen.copy()
    other[:, 1] = observations(30, seed=1)[:, 1]
    before, after = team.select_actions(seen, training=False), team.select_actions(other, training=False)
    assert np.array_equal(before[:, 0], after[:, 0]) and not np.array_equal(before[:, 1], after[:, 1])


@each_algorithm
def test_shared_parameters_tell_agents_apart_by_their_id(algorithm):
    team = make_team(algorithm, "continuous", share_parameters=True)
    shake(team, ACTOR[algorithm])
    seen = np.repeat(observations(30)[:, :1], 2, axis=1)  # both see the same
    inputs = team.agent_inputs(torch.from_numpy(seen))  # (N, E, O + N)
    assert torch.equal(inputs[..., STATE_DIM:], torch.eye(2).unsqueeze(1).expand(2, 30, 2))
    actions = team.select_actions(seen, training=False)
    assert not np.array_equal(actions[:, 0], actions[:, 1])
    alone = make_team(algorithm, share_parameters=False).agent_inputs(torch.from_numpy(seen))
    assert alone.shape == (2, 30, STATE_DIM)


@each_algorithm
def test_illegal_actions_are_never_taken(algorithm):
    team = make_team(algorithm, action_dim=5, epsilon=0.5)
    rng = np.random.default_rng(0)
    for training in (False, True):
        masks = rng.random((400, NUM_AGENTS, 5)) < 0.3
        masks[..., 2] |= ~masks.any(axis=-1)  # something is always legal
        actions = team.select_actions(observations(400), training, masks)
        assert np.take_along_axis(masks, actions[..., None], axis=-1).all()
        for row in range(20):
            action = team[1].select_action(observations()[1], training, masks[row, 1])
            assert masks[row, 1, action]


@pytest.mark.parametrize("algorithm", ["maddpg", "qmix"])
def test_epsilon_decays_by_environment_steps_and_by_nothing_else(algorithm):
    team = make_team(algorithm, epsilon=0.8, epsilon_decay=0.5, epsilon_decay_steps=10, epsilon_min=0.15)
    rng = np.random.default_rng(0)
    finished = np.array([[True, True], [True, False], [True, True], [False, False]])  # the last copy idles
    team.observe(random_transition(team, rng, 4, active=finished))
    assert team.environment_steps == 3 and team.epsilon == pytest.approx(0.8 * 0.5**0.3)
    team.select_actions(observations(7))
    team.update(random_batch(team))
    assert team.epsilon == pytest.approx(0.8 * 0.5**0.3)
    for _ in range(10):
        team.observe(random_transition(team, rng, 4))
    assert team.environment_steps == 43 and team.epsilon == 0.15
    assert make_team(algorithm, epsilon=0.0).epsilon == 0.0, "who asks for no exploration gets none"


# --- learning as a member ---------------------------------------------------------------------------------------------


@each_algorithm
@each_kind
def test_one_agent_learns_alone(algorithm, kind):
    team, whole = (make_team(algorithm, kind, share_parameters=False) for _ in range(2))
    batch, later = random_batch(team), random_batch(team, seed=1)
    whole.set_random_state(team.random_state())
    actor, start = ACTOR[algorithm], members(team, ACTOR[algorithm])
    team[0].update(batch)
    whole.update(batch)
    moved = members(team, actor)
    torch.testing.assert_close(moved[0], members(whole, actor)[0])  # it learns what it would learn in the team
    assert torch.equal(moved[1], start[1]) and not torch.equal(moved[0], start[0])
    # And agent 1 starts afresh later: nothing of the first batch is left in its optimizer.
    fresh = make_team(algorithm, kind, share_parameters=False)
    moments = team.optimizers["all" if algorithm == "qmix" else actor].state[team.networks[actor].flat]["exp_avg"]
    rows = torch.cat(team.networks[actor].by_member(moments), dim=1)
    assert rows[0].any() and not rows[1].any()
    team[1].update(later)
    assert torch.equal(members(team, actor)[0], moved[0])
    assert not torch.equal(members(team, actor)[1], members(fresh, actor)[1])


def test_agents_that_learn_one_by_one_keep_their_own_clocks_also_after_a_checkpoint():
    team, together = (make_team("maddpg", policy_delay=2, share_parameters=False) for _ in range(2))
    batch = random_batch(team)
    actors = members(team, "actor")
    for _ in range(2):  # an odd number of other updates lies between an agent's own
        for agent in team:
            agent.update(batch)
    moved = (members(team, "actor") - actors).abs().amax(dim=1)
    # Adam's first step is as long as the learning rate, whoever learnt before.
    torch.testing.assert_close(moved, torch.full((2,), team.config.learning_rate), rtol=1e-2, atol=0)

    resumed = make_team("maddpg", policy_delay=2, share_parameters=False)
    resumed.load_state_dict(team.state_dict())
    for each in (team, resumed):
        each[1].update(batch), each[1].update(batch), each[0].update(batch)
    assert same(networks(team), networks(resumed)) and team.missed == resumed.missed

    for _ in range(3):
        together.update(batch)
    assert together.updates == 3 and not any(map(len, together.missed)), "a team that learns as one misses nothing"


@pytest.mark.parametrize("algorithm", ["maddpg", "qmix"])
def test_learning_from_nothing_is_refused(algorithm):
    with pytest.raises(RuntimeError, match="call observe.transition. first"):
        make_team(algorithm).update()


@each_algorithm
def test_a_copy_of_a_team_is_a_team_of_its_own(algorithm):
    team = make_team(algorithm)
    team.update(random_batch(team))
    twin, before = copy.deepcopy(team), networks(team)
    batch = random_batch(make_team(algorithm))
    twin.update(batch)
    assert same(before, networks(team)) and not same(before, networks(twin))
    twin.load_state_dict(team.state_dict())
    seen = observations(5)
    assert np.array_equal(twin.select_actions(seen, training=False), team.select_actions(seen, training=False))
    team.update(batch), twin.update(batch)
    assert same(networks(team), networks(twin))


@each_algorithm
def test_on_a_team_spread_over_devices_an_agent_that_learns_leaves_the_others_alone(algorithm):
    team = make_team(algorithm, share_parameters=False, devices=["cpu", "cpu:0"])
    learner, other = team.networks[ACTOR[algorithm]].stacks()
    before = [part.flat.detach().clone() for part in (learner, other)]
    team[0].update(random_batch(team))
    assert not torch.equal(learner.flat, before[0]) and torch.equal(other.flat, before[1])


@each_algorithm
def test_shared_parameters_move_for_all(algorithm):
    team = make_team(algorithm, share_parameters=True)
    before = networks(team)[ACTOR[algorithm]]
    team[1].update(random_batch(team))
    assert not torch.equal(networks(team)[ACTOR[algorithm]], before)


@each_algorithm
def test_an_agents_own_losses_are_differentiable_and_together_are_the_teams(algorithm):
    team = make_team(algorithm, share_parameters=False)
    losses = team[0].compute_loss(random_batch(team))
    assert {"maddpg": "actor_loss", "mappo": "policy_loss", "qmix": "td_loss"}[algorithm] in losses
    for name, loss in losses.items():
        assert loss.ndim == 0 and torch.isfinite(loss) and (loss.requires_grad or name == "kl")


# --- agents built one by one ------------------------------------------------------------------------------------------


@each_algorithm
@each_sharing
@pytest.mark.parametrize("indices", [(0, 1), (0, 0)], ids=["numbered", "not numbered"])
def test_agents_built_one_by_one_become_a_team_and_keep_their_weights(algorithm, share, indices):
    kind = type(make_team(algorithm)[0])
    config = {"action_type": "continuous", "share_parameters": share, "hidden_sizes": [16]}
    agents = [
        kind(STATE_DIM, ACTION_DIM, 2, config | {"seed": seed}, device=device, index=index)
        for seed, device, index in zip((3, 4), ("cpu", "cpu:0"), indices, strict=True)
    ]
    for agent in agents:
        shake(agent.team, ACTOR[algorithm])
    seen = observations()
    before = [agent.select_action(seen[i]) for i, agent in enumerate(agents)]
    team = as_team(agents)
    assert list(team) == agents and all(agent.team is team and agent.index == i for i, agent in enumerate(agents))
    after = team.select_actions(seen, training=False)
    np.testing.assert_allclose(after[0], before[0], rtol=1e-6)
    if not share:  # what all share comes from the first
        np.testing.assert_allclose(after[1], before[1], rtol=1e-6)
        assert isinstance(team.networks[ACTOR[algorithm]], SpreadMLP)
    report = team.update(random_batch(team))
    assert all(np.isfinite(list(report.values())))


@each_algorithm
def test_a_part_of_a_team_or_its_agents_in_another_order_are_no_team(algorithm):
    team = make_team(algorithm)
    assert as_team(list(team)) is team
    for agents in (team[:1], [team[1], team[0]], [team[0], team[0]]):
        with pytest.raises(ValueError, match="each once and in order.*pass the team itself"):
            as_team(agents)


@each_algorithm
def test_a_team_is_already_a_team(algorithm):
    team = make_team(algorithm)
    assert as_team(team) is team and as_team(list(team)) is team


@each_algorithm
def test_agents_that_do_not_fit_together_are_refused_by_position(algorithm):
    for other in ({"action_dim": 3}, {"num_agents": 3}, {"hidden_sizes": [8]}, {"gamma": 0.5}):
        with pytest.raises(ValueError, match="agent 1: expected"):
            as_team([make_team(algorithm)[0], make_team(algorithm, **other)[1]])


@each_algorithm
def test_a_team_on_two_devices_learns_what_it_learns_on_one(algorithm):
    one = make_team(algorithm, "continuous", share_parameters=False)
    two = make_team(algorithm, "continuous", share_parameters=False, devices=["cpu", "cpu:0"])
    for name, network in one.networks.items():  # one stack -> the parts of a spread one
        parts = two.networks[name].stacks()
        if not isinstance(two.networks[name], SpreadMLP):
            for part, source in zip(parts, network.stacks(), strict=True):
                part.copy_from(source)
            continue
        for part in parts:
            whole = network.by_member(network.flat.data)
            for mine, all_rows in zip(part.by_member(part.flat.data), whole, strict=True):
                mine.copy_(all_rows[part.owners])
    batch = random_batch(one)
    two.set_random_state(one.random_state())
    for _ in range(3):
        assert one.update(batch) == pytest.approx(two.update(batch), rel=1e-4, abs=1e-6)
    greedy = [team.select_actions(observations(), training=False) for team in (one, two)]
    np.testing.assert_allclose(*greedy, rtol=1e-4)


# --- what would do harm later -----------------------------------------------------------------------------------------


@each_algorithm
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_observations_that_are_no_numbers_are_refused_with_agent_and_field(algorithm, poison):
    team, seen = make_team(algorithm), np.zeros((4, 2, 3), np.float32)
    seen[3, 1, 2] = poison
    for act in (lambda: team.select_actions(seen), lambda: team[1].select_action(seen[3, 1])):
        with pytest.raises(ValueError, match=f"field 2 of agent 1 is {poison}, expected a finite number"):
            act()


@each_algorithm
@pytest.mark.parametrize(
    "masks", [np.full((2, 2), np.nan), np.full((2, 2), 0.5), np.full((2, 2), "no"), np.ones((2, 3))]
)
def test_masks_that_are_no_flags_or_of_another_shape_are_refused(algorithm, masks):
    team, seen = make_team(algorithm), np.zeros((2, 3), np.float32)
    for act in (lambda: team.select_actions(seen, True, masks), lambda: team[0].select_action(seen[0], True, masks[0])):
        with pytest.raises(ValueError, match="action masks: expected (booleans of shape|True or False)"):
            act()


@each_algorithm
def test_an_agent_that_may_do_nothing_at_all_is_named(algorithm):
    team, seen = make_team(algorithm), np.zeros((4, 2, 3), np.float32)
    masks = np.ones((4, 2, 2), bool)
    masks[3, 1] = False
    with pytest.raises(ValueError, match=r"a legal action for every agent, found none for \[3, 1\]"):
        team.select_actions(seen, False, masks)
    with pytest.raises(ValueError, match="a legal action for every agent, found none for this agent"):
        team[1].select_action(seen[3, 1], False, masks[3, 1])


@each_algorithm
def test_what_does_not_fit_into_memory_is_refused_by_its_key(algorithm):
    key = "rollout_length" if algorithm == "mappo" else "buffer_size"
    size = {"state_size": 2**62} if algorithm != "qmix" else {"mixing_width": 2**62}
    for wrong in ({key: 10**15}, {"hidden_sizes": [10**7] * 2}, {"batch_size": 10**15, "buffer_size": 10**15}, size):
        with pytest.raises(ValueError, match=r"config\['\w+'\]: [\d,]+ GiB or more do not fit into memory"):
            make_team(algorithm, **wrong)


@each_algorithm
@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"config": [1]}, r"config: expected a dictionary, found \[1\]"),
        ({"config": "gamma"}, "config: expected a dictionary, found 'gamma'"),
        ({"device": 1.5}, "device: expected auto, cpu, cuda or cuda:N, found 1.5"),
        ({"devices": 2}, "devices: expected one for each of 2 agents, found 2"),
        ({"num_agents": 2**40}, "num_agents.* do not fit into memory"),
    ],
)
def test_what_no_team_can_be_made_of_is_a_value_error(algorithm, wrong, complaint):
    sizes = {"state_dim": 3, "action_dim": 2, "num_agents": 2}
    with pytest.raises(ValueError, match=complaint):
        type(make_team(algorithm))(**{**sizes, **wrong})


@each_algorithm
@pytest.mark.parametrize("state", [None, [], {}, {"algorithm": "x"}, "text"])
def test_what_is_no_state_of_a_team_is_a_value_error(algorithm, state):
    with pytest.raises(ValueError):
        make_team(algorithm).load_state_dict(state)


@each_algorithm
@each_kind
def test_torchs_default_type_changes_nothing(algorithm, kind):
    learnt = []
    try:
        for dtype in (torch.float32, torch.float64):
            torch.set_default_dtype(dtype)
            team = make_team(algorithm, kind)
            wander(team, 20)
            assert team.updates > 0
            learnt.append(networks(team))
    finally:
        torch.set_default_dtype(torch.float32)
    assert same(*learnt)


# --- gradient steps ---------------------------------------------------------------------------------------------------


def linear_loss(team, slopes=(3.0, 0.01)) -> torch.Tensor:
    """A loss whose gradient is `slopes[i]` in every parameter of member i of the actors."""
    slope = torch.tensor(slopes).view(-1, 1, 1)
    return sum((leaf * slope).sum() for layer in team.networks["actor"].layers for leaf in layer)


def test_each_members_gradient_is_clipped_by_its_own_norm():
    team = make_team("maddpg", share_parameters=False, max_grad_norm=0.5)
    size = members(team, "actor").shape[1]
    largest = team.descend("actor", linear_loss(team))
    norms = members(team, "actor", gradient=True).norm(dim=1)
    assert largest == pytest.approx(3.0 * size**0.5, rel=1e-4)  # reported as it was before
    torch.testing.assert_close(norms, torch.tensor([0.5, 0.01 * size**0.5]))


def test_one_loss_for_all_is_clipped_by_one_norm():
    team = make_team("maddpg", share_parameters=False, max_grad_norm=0.5)
    team.descend("actor", linear_loss(team), jointly=True)
    norms = members(team, "actor", gradient=True).norm(dim=1)
    torch.testing.assert_close(norms.norm(), torch.tensor(0.5))
    torch.testing.assert_close(norms[0] / norms[1], torch.tensor(300.0), rtol=1e-3, atol=0)


@each_algorithm
@pytest.mark.parametrize("share", [False, True])
def test_clipping_groups_are_each_network_of_maddpg_and_mappo_and_all_of_qmix(algorithm, share):
    team = make_team(algorithm, share_parameters=share, max_grad_norm=1e-4)
    team.update(random_batch(team))
    stacks = [stack for group in team.trained.values() for stack in group]
    norms = torch.cat([stack.gradient_norms() for stack in stacks])
    if algorithm == "qmix":  # one error trains utilities and mixer end to end
        norms = norms.norm().unsqueeze(0)
    torch.testing.assert_close(norms, torch.full_like(norms, 1e-4), rtol=1e-3, atol=0)


@each_algorithm
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_the_run_and_changes_nothing(algorithm, poison):
    team = make_team(algorithm)
    batch = random_batch(team)
    (batch.advantages if algorithm == "mappo" else batch.rewards)[0, 0] = poison
    before, updates = networks(team), team.updates
    with pytest.raises(FloatingPointError, match="gradient of .* at update 0.*lower learning_rate"):
        team.update(batch)
    assert same(before, networks(team)) and team.updates == updates


@each_algorithm
def test_averaging_over_processes_comes_before_clipping_and_decides(algorithm):
    team, seen = make_team(algorithm, max_grad_norm=1e-3), []

    def stop_everything(gradients):
        seen.extend(float(gradient.norm()) for gradient in gradients)
        for gradient in gradients:
            gradient.zero_()

    team.average_hook = stop_everything
    trained = [p.detach().clone() for p in moved_by_optimizers(team)]
    team.update(random_batch(team))
    assert max(seen) > 2e-3 and all(map(torch.equal, trained, moved_by_optimizers(team)))


@each_algorithm
def test_the_learning_rate_falls_to_zero_only_when_asked(algorithm):
    for anneal, expected in ((True, 0.25), (False, 1.0)):
        team = make_team(algorithm, anneal_learning_rate=anneal, learning_rate=0.02)
        team.set_progress(0.75)
        rates = [group["lr"] for optimizer in team.optimizers.values() for group in optimizer.param_groups]
        assert rates == pytest.approx([0.02 * expected] * len(rates))
    team = make_team(algorithm, anneal_learning_rate=True)
    team.set_progress(1.0)
    before = [p.detach().clone() for p in moved_by_optimizers(team)]
    team.update(random_batch(team))
    assert all(map(torch.equal, before, moved_by_optimizers(team)))


@each_algorithm
@each_kind
def test_learning_from_the_world_reports_finite_losses(algorithm, kind):
    team = make_team(algorithm, kind, state_size=2)
    wander(team, 30)
    assert team.updates > 0 and all(torch.isfinite(p).all() for p in moved_by_optimizers(team))


# --- memory -----------------------------------------------------------------------------------------------------------

FRESH_PAGES = """
import resource, sys
sys.path[:0] = sys.argv[1:]
import torch
torch.set_num_threads(1)
from core.mappo import create_mappo_agents
from scaling import rolling
update = rolling(create_mappo_agents(8, 5, 25, {"rollout_length": 25, "epochs": 4, "seed": 0}))
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    update()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc to keep what was freed")
def test_a_large_team_fetches_no_fresh_memory_at_every_update():
    command = [sys.executable, "-c", FRESH_PAGES, str(ROOT), str(ROOT / "tests" / "benchmarks")]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert int(found[0]) > 500 and int(found[-1]) < 500, "about 5000 pages at every update, left to glibc alone"
