"""Recurrent agents: what they remember, for how long, and that nothing else changes."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from games import Drift, Masked, Remember
from teams import KINDS, Folder, make_team, members, networks, random_transition, same, shake, steady, without_seed

from core.base_agent import as_team
from core.experiment.deployment.audit import audit_team
from core.experiment.evaluation import evaluate
from core.experiment.runs.checkpoint import load_checkpoint
from core.experiment.training import train
from core.experiment.vector_env import VectorEnv
from core.qmix import td_target
from core.team.memory import StackedGRU, recall, sample_sequences

each_algorithm = pytest.mark.parametrize("algorithm", ["mappo", "qmix"])
each_kind = pytest.mark.parametrize("kind", KINDS)
each_sharing = pytest.mark.parametrize("share", [False, True], ids=["separate", "shared"])


def recurrent(algorithm: str, kind: str = "discrete", **config):
    """A small recurrent team, away from its first weights, with which all actions are nearly the same."""
    team = make_team(algorithm, kind, **{"recurrent": True, **config})
    shake(team, *(name for name in team.networks if "mixer" not in name), scale=0.6)
    return team


def played(team, steps: int = 6, num_envs: int = 3, begins=(0, 4)):
    """Transitions (one a step) that the team stored, not yet learnt from; at `begins` the episodes begin anew."""
    rng, told = np.random.default_rng(0), []
    team.begin_rollouts(num_envs)
    for t in range(steps):
        if t in begins:
            team.begin_episode()
        ends = np.full((num_envs, team.num_agents), t + 1 in begins)
        told.append(random_transition(team, rng, num_envs, terminated=ends))
        team.buffer.add(told[-1], **team.acting)
    return told


# --- what it is for ---------------------------------------------------------------------------------------------------

REMEMBERING = {
    "mappo": {"learning_rate": 0.01, "rollout_length": 4, "epochs": 5, "minibatches": 1},
    "qmix": {
        "learning_rate": 0.005,
        "batch_size": 160,
        "sequence_length": 8,
        "tau": 0.05,
        "learning_starts": 100,
        "epsilon_decay": 0.9,
    },
}


@each_algorithm
def test_only_recurrent_agents_act_on_a_cue_that_is_gone(algorithm):
    # Paid are two right guesses of a coin each: 1/4 by chance, and without memory nothing is better. The optimum is 1.
    payoff = {}
    for memory in (False, True):
        config = {"gamma": 0.9, "hidden_sizes": [32], "recurrent": memory, **REMEMBERING[algorithm]}
        team = make_team(algorithm, "discrete", 3, 2, 2, **config)
        train(VectorEnv([partial(Remember, 3)] * 32), team, 32 * 30, progress=False)
        payoff[memory] = evaluate(VectorEnv([partial(Remember, 3)] * 200), team, 400)["team_return"].mean() / 2
    assert payoff[True] == 1.0
    assert payoff[False] < 0.25 + 3 * np.sqrt(0.25 * 0.75 / 400)


# --- the memory -------------------------------------------------------------------------------------------------------


def test_the_stacked_units_are_those_of_pytorch():
    generator = torch.Generator().manual_seed(0)
    gru = StackedGRU(2, 3, 4, generator, [torch.device("cpu")] * 2)
    inputs, memory = torch.randn(2, 5, 6, 3, generator=generator), torch.randn(2, 6, 4, generator=generator)
    ours = gru(inputs, memory)
    for i in range(2):
        theirs = torch.nn.GRU(3, 4)
        (w_x, b_x), (w_h, b_h) = ((w[i].detach().T, b[i, 0].detach()) for w, b in gru.reads.layers + gru.recalls.layers)
        for name, value in (("weight_ih_l0", w_x), ("weight_hh_l0", w_h), ("bias_ih_l0", b_x), ("bias_hh_l0", b_h)):
            getattr(theirs, name).data.copy_(value)
        torch.testing.assert_close(ours[i], theirs(inputs[i], memory[i : i + 1])[0])
        torch.testing.assert_close(ours[i, 0], gru.member(i, inputs[i, 0], memory[i]))


def test_gradients_flow_back_through_time_but_not_into_the_episode_before():
    gru = StackedGRU(1, 3, 4, torch.Generator().manual_seed(0), [torch.device("cpu")])
    inputs, memory = torch.randn(1, 5, 2, 3, requires_grad=True), torch.randn(1, 2, 4, requires_grad=True)
    kept = torch.ones(1, 5, 2, 1)
    kept[:, 2, 0] = 0.0  # in environment 0 an episode begins at step 2
    after = gru(inputs, memory, kept)
    slopes, first = torch.autograd.grad(after[:, 4].sum(), (inputs, memory))
    reached = slopes[0].abs().amax(dim=-1) > 0  # (T, B)
    assert reached[:, 0].tolist() == [False, False, True, True, True] and reached[:, 1].all()
    assert not first[0, 0].any() and first[0, 1].any()
    fresh = gru(inputs[:, 2:, :1], torch.zeros(1, 1, 4))
    torch.testing.assert_close(after[:, 2:, :1], fresh)


@each_algorithm
@each_kind
@each_sharing
def test_an_agent_alone_remembers_what_it_does_in_the_team(algorithm, kind, share):
    team = recurrent(algorithm, kind, share_parameters=share)
    seen = np.random.default_rng(0).normal(size=(40, 2, 3)).astype(np.float32)
    for _ in range(2):  # two episodes
        team.begin_episode()
        together = np.array([team.select_actions(o, training=False) for o in seen])
        for i, agent in enumerate(team):
            agent.begin_episode()
            alone = np.array([agent.select_action(o[i]) for o in seen])
            np.testing.assert_allclose(alone, together[:, i], rtol=1e-5)
    forgetful = []
    for o in seen:
        team.begin_episode()
        forgetful.append(team.select_actions(o, training=False))
    assert not np.array_equal(forgetful, together)  # the past matters


@each_algorithm
def test_an_agent_built_alone_forgets_when_an_episode_begins(algorithm):
    agent = type(recurrent(algorithm)[0])(3, 2, 2, {"recurrent": True, "seed": 0}, index=1)
    seen = np.ones(3, np.float32)
    agent.select_action(seen)
    first = agent.memory.clone()
    agent.select_action(seen)
    assert not torch.equal(agent.memory, first)  # it remembers the first step
    agent.begin_episode()
    agent.select_action(seen)
    assert torch.equal(agent.memory, first)


@pytest.mark.parametrize("algorithm, share", [("mappo", True), ("qmix", False)])
def test_execution_is_decentralized(algorithm, share):
    report = audit_team(recurrent(algorithm, share_parameters=share), Drift(), separately=share)
    assert report.passed, str(report)


# --- learning ---------------------------------------------------------------------------------------------------------


@each_kind
@each_sharing
def test_the_replayed_rollout_says_what_was_said_while_acting_also_after_a_checkpoint(kind, share):
    config = {"share_parameters": share, "rollout_length": 6, "minibatches": 2}
    team = recurrent("mappo", kind, **config)
    played(team, begins=(4,))  # the first four steps go on with an episode whose beginning is not in the chunk
    resumed = make_team("mappo", kind, recurrent=True, **{**config, "seed": 8})
    resumed.load_state_dict(team.state_dict())
    for restored in (team, resumed):
        rollout = restored.prepare()
        parts = restored.minibatches(rollout)
        assert sorted(torch.cat(parts).tolist()) == list(range(18)) and len(parts) == 2
        for rows in parts:
            assert len({int(row) % 3 for row in rows}) == len(rows) / 6  # whole sequences of some environments
            picked = {name: field[rows] for name, field in vars(rollout).items() if torch.is_tensor(field)}
            batch = dataclasses.replace(rollout, **picked)
            outputs = restored.networks["actor"](
                restored.agent_inputs(batch.observations, recall(restored, batch, restored.gru))
            )
            log_probs = restored.log_prob(outputs.transpose(0, 1), batch.actions, None)
            torch.testing.assert_close(log_probs, batch.log_probs, rtol=1e-5, atol=1e-5)


def test_a_chunk_begins_with_the_memory_of_acting_and_an_episode_with_none():
    team = recurrent("mappo", rollout_length=6)
    played(team, steps=5, begins=(0,))
    team.buffer.clear()
    told = played(team, begins=(4,))
    stored = team.buffer.filled()["memories"]  # (T, E, N, H)
    assert stored[:4].any(dim=-1).all() and not stored[4].any()
    assert told[3].terminated.all()


@pytest.mark.parametrize("mixer", ["monotonic", "additive"])
def test_the_loss_of_a_sequence_is_that_of_its_steps_one_by_one(mixer):
    team = recurrent("qmix", mixer=mixer, sequence_length=6)
    played(team, num_envs=1)
    batch = sample_sequences(team.buffer, 1, 6, team.generator)
    errors = []
    with torch.no_grad():
        for t in range(6):
            if t in (0, 4):
                memory = {name: torch.zeros(2, 1, 16) for name in ("", "_target")}
            u, later = {}, {}
            for suffix, gru in (("", team.gru), ("_target", team.gru_target)):
                now, after = (team.agent_inputs(o[t : t + 1]) for o in (batch.observations, batch.next_observations))
                memory[suffix] = gru(now[:, None], memory[suffix])[:, 0]
                next_memory = gru(after[:, None], memory[suffix])[:, 0]
                u[suffix] = team.utilities(batch.observations[t : t + 1], "utility" + suffix, memory[suffix])
                later[suffix] = team.utilities(batch.next_observations[t : t + 1], "utility" + suffix, next_memory)
            q = u[""].gather(-1, batch.actions[t].view(1, 2, 1, 1)).flatten(1)
            best = later[""].argmax(-1, keepdim=True)
            over = batch.terminated[t].max()
            value = later["_target"].gather(-1, best).flatten(1) * (1.0 - over)
            states = [o[t : t + 1].flatten(1) for o in (batch.observations, batch.next_observations)]
            q_tot, next_q_tot = team.networks["mixer"](q, states[0]), team.networks["mixer_target"](value, states[1])
            errors.append(q_tot - td_target(batch.rewards[t].mean(), team.config.gamma, over, next_q_tot))
    torch.testing.assert_close(team.loss(batch).detach(), torch.cat(errors).square().mean(), rtol=1e-4, atol=1e-5)


def test_sequences_are_consecutive_steps_of_one_environment_also_where_the_buffer_begins_again():
    team = recurrent("qmix", buffer_size=30, batch_size=16)
    told = played(team, steps=14, begins=(0, 5, 9))  # capacity 10 steps of 3 environments: the first 4 are gone
    batch = sample_sequences(team.buffer, 200, 4, team.generator)
    assert batch.steps == 4 and len(batch.rewards) == 800
    age = {tuple(step.rewards[e]): (t, e) for t, step in enumerate(told) for e in range(3)}
    places = np.array([age[tuple(row.tolist())] for row in batch.rewards]).reshape(4, 200, 2)
    assert (places[1:, :, 0] - places[:-1, :, 0] == 1).all() and (places[:, :, 1] == places[0, :, 1]).all()
    assert set(places[0, :, 0]) == set(range(4, 11)) and set(places[0, :, 1]) == {0, 1, 2}
    begins = torch.from_numpy(np.isin(places[..., 0], (5, 9))).flatten()
    assert torch.equal(~batch.memories.any(dim=-1).any(dim=-1), begins)


@each_algorithm
@each_sharing
def test_learning_moves_the_memory_and_an_agents_own_step_its_own_alone(algorithm, share):
    team = (
        recurrent(algorithm, share_parameters=share, sequence_length=4)
        if algorithm == "qmix"
        else recurrent(algorithm, share_parameters=share, rollout_length=6)
    )
    played(team)
    batch = team.prepare() if algorithm == "mappo" else sample_sequences(team.buffer, 8, 4, team.generator)
    for name in ("gru_reads", "gru_recalls"):
        before, vectors = members(team, name), networks(team)
        team[0].update(batch)
        moved = (members(team, name) != before).any(dim=1).tolist()
        assert moved == ([True] if share else [True, False])
        team.update(batch)
        assert not torch.equal(networks(team)[name], vectors[name])


# --- everything around it ---------------------------------------------------------------------------------------------

CONFIGS = {"mappo": {"rollout_length": 7}, "qmix": {"sequence_length": 4}}  # no multiple of an episode's 5 steps


@each_algorithm
@pytest.mark.parametrize("game, sizes", [(Remember, (3, 2, 2)), (Masked, (1, 3, 2))])
def test_a_resumed_training_equals_the_uninterrupted_one_and_evaluations_change_nothing(
    algorithm, game, sizes, tmp_path
):
    def team_and_env(seed):
        config = {"recurrent": True, "seed": seed, **CONFIGS[algorithm]}
        return VectorEnv([game] * 3), make_team(algorithm, "discrete", *sizes, **config)

    env, whole = team_and_env(0)
    history = train(env, whole, 24)
    folder, rounds = Folder(tmp_path), iter([False, False, True])
    env, broken = team_and_env(0)
    evaluation = {"evaluate_every": 3, "evaluation": lambda: evaluate(game(), broken, 2)}
    train(env, broken, 24, run=folder, stop=lambda: next(rounds), **evaluation)
    env, resumed = team_and_env(77)
    continued = train(env, resumed, 24, resume=load_checkpoint(folder.checkpoint))
    assert resumed.updates > 0
    assert same(without_seed(resumed.state_dict()), without_seed(whole.state_dict()))
    pd.testing.assert_frame_equal(steady(continued)[steady(history).columns], steady(history), check_exact=True)


@each_algorithm
def test_an_evaluation_in_the_middle_of_an_episode_leaves_the_memory_alone(algorithm):
    team, seen = recurrent(algorithm), np.random.default_rng(0).normal(size=(4, 3, 2, 3)).astype(np.float32)
    team.select_actions(seen[0])
    before = team.memory.clone()
    first, second = (evaluate(VectorEnv([Drift] * 2), team, 4) for _ in range(2))
    assert torch.equal(team.memory, before)
    pd.testing.assert_frame_equal(first, second)


def test_agents_built_one_by_one_on_devices_of_their_own_keep_their_memory():
    team = recurrent("mappo", share_parameters=False)
    alone = [
        type(team[0])(3, 2, 2, dataclasses.asdict(team.config), device, i) for i, device in enumerate(["cpu", "cpu:0"])
    ]
    for agent in alone:
        agent.team.load_state_dict(team.state_dict())
    seen = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    joined = as_team(alone)
    assert len(joined.networks["gru_reads"].stacks()) == 2
    for o in seen:
        assert np.array_equal(joined.select_actions(o, training=False), team.select_actions(o, training=False))


@each_algorithm
def test_what_cannot_be_is_refused(algorithm):
    with pytest.raises(ValueError, match=r"config\['recurrent'\]: .* hidden_sizes\[-1\]; give at least one"):
        make_team(algorithm, recurrent=True, hidden_sizes=[])
    with pytest.raises(ValueError, match="MADDPGConfig has no key 'recurrent'"):
        make_team("maddpg", recurrent=True)
    team = recurrent(algorithm)
    team.select_actions(np.zeros((3, 2, 3)))
    with pytest.raises(ValueError, match=r"acted in 3 environments, then 1; call begin_episode\(\)"):
        team.select_actions(np.zeros((2, 3)))
    team.begin_episode()
    assert team.select_actions(np.zeros((2, 3))).shape == (2,)
