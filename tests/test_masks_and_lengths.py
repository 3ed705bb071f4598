"""Illegal actions and finished agents, from the environment to the loss, for all three algorithms.

An illegal action is never taken, neither by a policy nor at random nor inside a target. What comes after an agent or an
episode has finished is in no loss and no sample.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from games import Game
from teams import ALGORITHMS, make_team, members, random_batch, random_transition, shake, zero_gradients

from core.experiment.env_check import check_env
from core.experiment.evaluation import evaluate
from core.experiment.training import train
from core.experiment.vector_env import VectorEnv

OFF_POLICY = ("maddpg", "qmix")
SHARE = pytest.mark.parametrize("share", [False, True], ids=["separate", "shared"])
EACH = pytest.mark.parametrize("algorithm", ALGORITHMS)


class Errands(Game):
    """Three agents with errands of different lengths, each step with other legal actions.

    An illegal action of a living agent raises. Who has finished is allowed nothing, and paid not-a-number: both must
    go nowhere. Even agents terminate, the odd one is cut by the clock.
    """

    num_agents, action_space_size, observation_space_size = 3, 4, 6

    def begin(self) -> None:
        self.lengths = self.random.integers(1, 8, size=3)
        self.legal = self.random.random((8, 3, 4)) < 0.4
        self.legal[..., 1] |= ~self.legal.any(axis=-1)

    def action_masks(self) -> np.ndarray:
        return self.legal[self.time] & (self.time < self.lengths)[:, None]

    def observe(self) -> np.ndarray:
        own = np.concatenate([self.legal[self.time], np.full((3, 1), self.time / 8), self.lengths[:, None] / 8], axis=1)
        return (own * (self.time < self.lengths)[:, None]).astype(np.float32)

    def step(self, actions: np.ndarray):
        alive = self.time < self.lengths
        if not self.action_masks()[np.arange(3), actions][alive].all():
            raise ValueError(f"illegal actions {actions} of {alive}, legal are {self.action_masks().tolist()}")
        self.time += 1
        dones = self.time >= self.lengths
        rewards = np.where(alive, 0.1 * actions, np.nan)
        return self.observe(), rewards, dones, {"truncated": dones & (np.arange(3) == 1)}


def errands_team(algorithm, **config):
    return make_team(algorithm, "discrete", 6, 4, 3, **config)


# --- masks ------------------------------------------------------------------------------------------------------------


def test_the_game_keeps_the_protocol():
    check_env(VectorEnv([Errands] * 3))


@SHARE
@EACH
def test_no_illegal_action_is_taken_in_training_at_random_or_in_evaluation(algorithm, share):
    team = errands_team(algorithm, share_parameters=share, epsilon_decay=0.5)  # from blind exploration to nearly none
    history = train(VectorEnv([Errands] * 4), team, 60, progress=False)  # an illegal action raises
    assert team.updates > 20 and np.isfinite(history.select_dtypes("number").iloc[-1]).all()
    assert team.epsilon < 0.1
    assert np.isfinite(evaluate(VectorEnv([Errands] * 4), team, 8)["team_return"]).all()


@EACH
def test_an_agent_alone_respects_its_mask(algorithm):
    team = errands_team(algorithm)
    shake(team, *team.networks, scale=2.0)
    draw = np.random.default_rng(0)
    for k in range(60):
        mask = draw.random(4) < 0.4
        mask[2] |= ~mask.any()
        action = team[k % 3].select_action(draw.normal(size=6), training=k % 2 == 0, action_mask=mask)
        assert mask[action]


def spoil(team, choice: int) -> None:
    """Let every policy and utility, online and target, overrate one choice enormously."""
    for name, network in team.networks.items():
        if name.startswith(("actor", "utility")):
            for stack in network.stacks():
                with torch.no_grad():
                    stack.layers[-1][1][..., choice] = 1e4


def masked_batch(team, banned: int):
    """A batch in which one action is never legal, before or after, and was never taken."""
    legal = torch.ones(32, 2, 3, dtype=torch.bool)
    legal[..., banned] = False
    masks = {"action_masks": legal} | ({} if hasattr(team, "prepare") else {"next_action_masks": legal})
    batch = random_batch(team)
    actions = torch.where(batch.actions == banned, (banned + 1) % 3, batch.actions)
    return dataclasses.replace(batch, actions=actions, **masks)


def losses(team, batch) -> dict[str, float]:
    """Every loss on the batch, with the same random draws each time; and every gradient as one more number."""
    team.seed(3)
    zero_gradients(team)
    if hasattr(team, "losses"):
        terms = {name: value for name, value in team.losses(batch, batch.active).items() if name != "kl"}
    elif hasattr(team, "loss"):
        terms = {"td_loss": team.loss(batch)}
    else:
        terms = {"critic_loss": team.critic_loss(batch), "actor_loss": team.actor_loss(batch)}
    sum(terms.values()).backward()
    found = {name: float(value.detach()) for name, value in terms.items()}
    for name, network in team.networks.items():
        for k, stack in enumerate(network.stacks()):
            found[f"gradient of {name} {k}"] = float(stack.flat.grad.norm())
    return found


@SHARE
@EACH
def test_what_an_illegal_action_seems_worth_is_in_no_loss_and_no_target(algorithm, share):
    team = make_team(algorithm, "discrete", action_dim=3, share_parameters=share)
    shake(team, *team.networks)
    batch = masked_batch(team, banned=1)
    honest = losses(team, batch)
    spoil(team, choice=1)
    assert losses(team, batch) == pytest.approx(honest, rel=1e-4, abs=1e-6)
    unmasked = dataclasses.replace(batch, **{name: None for name in vars(batch) if "mask" in name})
    free = losses(team, unmasked)
    assert any(abs(free[name] - honest[name]) > 1e-2 for name in honest), "the control: it is seen without masks"


def test_mappo_gives_illegal_actions_no_probability_and_no_gradient():
    team = make_team("mappo", "discrete", action_dim=3, share_parameters=False)
    batch = masked_batch(team, banned=2)
    team.losses(batch, batch.active)["policy_loss"].backward()
    bias = team.networks["actor"].layers[-1][1]
    assert (bias.grad[..., 2] == 0).all() and (bias.grad[..., :2] != 0).all()
    outputs = torch.randn(32, 2, 3)
    illegal = team.log_prob(outputs, torch.full((32, 2), 2), batch.action_masks)
    assert (illegal.exp() == 0).all()


# --- unequal lengths --------------------------------------------------------------------------------------------------

GARBAGE = {"rewards": 1e4, "terminated": 1.0, "log_probs": -50.0, "advantages": 1e4, "returns": 1e4, "values": -1e4}


@SHARE
@EACH
def test_what_a_finished_agent_is_paid_is_in_no_loss(algorithm, share):
    team = make_team(algorithm, "discrete", share_parameters=share)
    shake(team, *team.networks)
    active = (torch.rand(32, 2, generator=torch.Generator().manual_seed(1)) < 0.6).float()
    batch = random_batch(team, active=active)
    garbage = {
        name: torch.where(active.bool(), getattr(batch, name), value)
        for name, value in GARBAGE.items()
        if hasattr(batch, name)
    }
    assert losses(team, dataclasses.replace(batch, **garbage)) == pytest.approx(losses(team, batch), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    "algorithm, config",
    [
        ("maddpg", {}),
        ("maddpg", {"actor_objective": "team"}),
        ("maddpg", {"centralized": False}),
        ("mappo", {}),
        ("qmix", {}),
    ],
)
@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_the_networks_of_a_finished_agent_do_not_move(algorithm, config, kind):
    team = make_team(algorithm, kind, share_parameters=False, **config)
    shake(team, *team.networks)
    active = torch.ones(32, 2)
    active[:, 0] = 0.0
    losses(team, random_batch(team, active=active))
    acting = "utility" if algorithm == "qmix" else "actor"
    for name in (acting, "critic"):
        if name in team.networks:
            gradients = members(team, name, gradient=True)
            assert (gradients[0] == 0).all() and (gradients[1] != 0).any(), name


@EACH
def test_the_rows_of_finished_episodes_are_in_no_loss(algorithm):
    team = make_team(algorithm, "discrete")
    shake(team, *team.networks)
    batch, idle = random_batch(team, 24, seed=1), random_batch(team, 40, seed=2)
    idle.active.zero_()
    for name, value in GARBAGE.items():
        if hasattr(idle, name):
            getattr(idle, name).fill_(value)
    tensors = {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    both = {name: torch.cat([value, getattr(idle, name)]) for name, value in tensors.items()}
    alone, together = losses_without_draws(team, batch), losses_without_draws(team, dataclasses.replace(batch, **both))
    assert together == pytest.approx(alone, rel=1e-4, abs=1e-6)


def losses_without_draws(team, batch) -> dict[str, float]:
    """As `losses`, with Gumbel's noise off: its draws depend on the number of rows."""
    import core.maddpg

    noise, core.maddpg.gumbel_noise = core.maddpg.gumbel_noise, lambda shape, generator: torch.zeros(shape)
    try:
        return losses(team, batch)
    finally:
        core.maddpg.gumbel_noise = noise


@pytest.mark.parametrize("algorithm", OFF_POLICY)
def test_a_sample_holds_no_row_of_a_finished_episode(algorithm):
    team = errands_team(algorithm, learning_starts=10**6, buffer_size=4000)
    history = train(VectorEnv([Errands] * 8), team, 80, progress=False)
    stored = team.buffer.fields["active"][: len(team.buffer)]
    assert (stored.amax(dim=1) == 0).any(), "the game is one in which episodes wait for each other"
    batch = team.buffer.sample(3000, team.generator)
    assert (batch.active.amax(dim=1) == 1).all()
    living = int((stored.amax(dim=1) == 1).sum())
    assert living == team.environment_steps == history["env_steps"].iloc[-1]
    assert len(batch.rewards[:, 0].unique()) > 3 and batch.rewards.isfinite().all()


@pytest.mark.parametrize("algorithm", OFF_POLICY)
def test_sampling_the_living_is_uniform_and_resumes_exactly(algorithm):
    team = make_team(algorithm, learning_starts=10**6)
    rng = np.random.default_rng(0)
    for k in range(10):
        active = np.ones((2, 2), bool)
        active[1] = k % 2 == 0
        rewards = np.full((2, 2), 2.0 * k) + np.array([[0.0], [1.0]])
        team.observe(random_transition(team, rng, active=active, rewards=rewards.astype(np.float32)))
    drawn = team.buffer.sample(30_000, team.generator).rewards[:, 0].int()
    counts = torch.bincount(drawn, minlength=20) / 30_000
    expected = torch.tensor([1.0 if row % 2 == 0 or row % 4 == 1 else 0.0 for row in range(20)]) / 15
    assert torch.allclose(counts, expected, atol=0.01)
    twin = make_team(algorithm, learning_starts=10**6)
    twin.load_state_dict(team.state_dict())
    mine, its = (t.buffer.sample(64, t.generator) for t in (team, twin))
    assert torch.equal(mine.rewards, its.rewards)


def test_a_buffer_of_finished_episodes_alone_is_refused():
    team = make_team("qmix")
    team.observe(random_transition(team, np.random.default_rng(0), active=np.zeros((2, 2), bool)))
    with pytest.raises(ValueError, match="holds no transitions: observe some"):
        team.buffer.sample(4, team.generator)


def test_a_rollout_of_mappo_is_learnt_the_same_whatever_follows_the_end():
    def learnt(after: float):
        team = make_team("mappo", minibatches=1, rollout_length=8)
        rng = np.random.default_rng(0)
        team.begin_rollouts(2)
        for k in range(8):
            active = np.ones((2, 2), bool)
            active[1] = k < 3 or k >= 6  # episode 1 is over after step 2; the next round begins at step 6
            step = random_transition(team, rng, active=active)
            for values in (step.rewards, step.next_observations, step.observations):
                values[~active] += after
            ends = np.zeros((2, 2), bool)
            ends[1] = k in (2, 7)
            report = team.observe(dataclasses.replace(step, terminated=ends))
        return report, team.normalizer.sums

    (one, statistics), (other, same_statistics) = learnt(0.0), learnt(5.0)
    assert other == pytest.approx(one, rel=1e-4) and torch.allclose(statistics, same_statistics)


class Staggered(Game):
    """Everybody earns 1 a step; agent 0 ends after 1 step, agent 1 after 3; agent 2 is cut after 6."""

    num_agents, observation_space_size = 3, 7
    lengths = np.array([1, 3, 6])

    def observe(self) -> np.ndarray:
        return np.tile(np.eye(7, dtype=np.float32)[self.time], (3, 1)) * (self.time < self.lengths)[:, None]

    def step(self, actions: np.ndarray):
        rewards = np.where(self.time < self.lengths, 1.0, np.nan)
        self.time += 1
        dones = self.time >= self.lengths
        return self.observe().astype(np.float32), rewards, dones, {"truncated": dones & (np.arange(3) == 2)}


GAMMA = 0.5
VALUES = [1.0, 1.0 + GAMMA + GAMMA**2, 1.0 / (1.0 - GAMMA)]  # of the first step: an end, an end, a time limit


@EACH
def test_values_of_agents_with_unequal_lengths_are_the_known_ones(algorithm):
    config = {"gamma": GAMMA, "learning_rate": 5e-3, "tau": 0.05}
    config |= {"rollout_length": 12, "epochs": 4, "gae_lambda": 0.5} if algorithm == "mappo" else {}
    team = make_team(algorithm, "discrete", 7, 2, 3, **config)
    env = VectorEnv([Staggered] * 2)
    train(env, team, 200 if algorithm != "mappo" else 400, progress=False)
    first = torch.from_numpy(env.reset(seed=0)[:1])
    with torch.no_grad():
        if algorithm == "mappo":
            found = team.normalizer.denormalize(team.values(first, None))[0].tolist()
        elif algorithm == "maddpg":
            actions = team.stored_actions(torch.zeros(1, 3, dtype=torch.int64))
            found = team.q_values("critic", first, None, actions[None])[:, 0].tolist()
        else:  # one team reward, what the living are paid divided by all
            utilities = team.utilities(first).amax(dim=-1).flatten(1)
            found = team.networks["mixer"](utilities, team.central_state(first, None)).tolist()
    assert found == pytest.approx(VALUES if algorithm != "qmix" else [np.mean(VALUES)], abs=0.1)
