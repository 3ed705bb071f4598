"""Games whose answers are known: what each algorithm can represent, and what it must find.

Full exploration with exact data tests what an algorithm *represents* (its projection); the rest is trained as a user
would, with `train` and `evaluate`. Payoffs are team rewards, so returns are divided by the number of agents.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch
from games import CLIMBING, ONE_SHOT, GuessNumber, MatrixGame, TwoStepGame, penalty
from teams import ALGORITHMS, CREATE

from core.base_agent import AgentTeam
from core.experiment.evaluation import evaluate
from core.experiment.training import train
from core.experiment.vector_env import VectorEnv
from core.replay_buffer import Batch

each_sharing = pytest.mark.parametrize("share", [False, True], ids=["separate", "shared"])
REPLAYING = {
    "learning_rate": 0.01,
    "gamma": 0.5,  # the repeated games have no memory: how the future is weighed does not change what is best
    "tau": 0.05,
    "hidden_sizes": [32],
    "batch_size": 64,
    "buffer_size": 5000,
    "learning_starts": 32,
    "epsilon_decay": 0.9,
    "epsilon_decay_steps": 200,
}
CONFIGS = {
    "maddpg": {**REPLAYING, "noise_std": 2.0},
    "mappo": {
        "learning_rate": 0.01,
        "gamma": 0.5,
        "hidden_sizes": [32],
        "rollout_length": 5,
        "epochs": 5,
        "entropy_coefficient": 0.02,
    },
    "qmix": {**REPLAYING, "mixing_width": 8, "hypernet_width": 16},
}


def payoff_of_trained_team(algorithm: str, make, rounds: int, share: bool, seed: int = 0, **config) -> float:
    """Train 16 copies of a game for some rounds; the greedy team's mean payoff an episode afterwards."""
    env = VectorEnv([make] * 16)
    kind = "discrete" if env.discrete_actions else "continuous"
    merged = {**CONFIGS[algorithm], "action_type": kind, "share_parameters": share, "seed": seed, **config}
    team = CREATE[algorithm](env.observation_space_size, env.action_space_size, env.num_agents, merged)
    train(env, team, 16 * rounds, seed=seed, progress=False)
    episodes = 200 if kind == "continuous" else 1  # the discrete games are the same every time
    table = evaluate(VectorEnv([make] * episodes), team, episodes)
    return table["team_return"].mean() / env.num_agents


# --- every algorithm finds what is there to be found ------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@each_sharing
def test_a_one_step_team_task_is_solved(algorithm, share):
    assert payoff_of_trained_team(algorithm, functools.partial(MatrixGame, ONE_SHOT), 60, share) == 12.0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@each_sharing
def test_the_repeated_penalty_game_without_penalty_is_solved(algorithm, share):
    # Two optima, 10 each, and 0 for mixing them up: the agents must agree. With shared parameters they can only because
    # the id in the observation lets one network choose differently for different agents.
    rounds, config = 12, {}
    if algorithm == "maddpg":  # keep actors from freezing on one action before the critics know the others
        rounds, config = 20, {"logit_penalty": 0.03}
    make = functools.partial(MatrixGame, penalty(0), steps=25, cut=True)
    payoff = payoff_of_trained_team(algorithm, make, rounds, share, **config)
    assert payoff >= 249.0  # of 250


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@each_sharing
def test_each_agent_says_the_number_that_only_it_sees(algorithm, share):
    # Always 0.5 brings -1/12 = -0.083. QMIX has 11 levels: at best -0.1^2 / 12 = -0.0008.
    rounds = 400 if algorithm == "maddpg" else 300
    assert payoff_of_trained_team(algorithm, GuessNumber, rounds, share) > -0.008


# --- what QMIX and VDN represent --------------------------------------------------------------------------------------


def projection(payoff, mixer: str, seed: int = 0, updates: int = 800) -> tuple[np.ndarray, tuple[int, ...]]:
    """Q_tot of every joint action after regression on all of them equally, and the greedy joint action."""
    payoff = np.asarray(payoff, float)
    n, actions = payoff.ndim, payoff.shape[0]
    joint = torch.tensor(list(itertools.product(range(actions), repeat=n)))  # (B, N), B = A^N
    ones = torch.ones(len(joint), n)
    rewards = torch.from_numpy(payoff.reshape(-1, 1)).float().expand(-1, n)
    batch = Batch(ones[..., None], joint, rewards, ones[..., None], ones, ones[:, :1], ones)
    config = {"mixer": mixer, "learning_rate": 0.02, "anneal_learning_rate": True, "hidden_sizes": [32], "seed": seed}
    team = CREATE["qmix"](1, actions, n, config | {"mixing_width": 16, "hypernet_width": 16})
    for update in range(updates):
        team.set_progress(update / updates)
        team.update(batch)
    return q_table(team, joint, np.ones((n, 1))).reshape(payoff.shape), greedy(team, np.ones((n, 1)))


def q_table(team: AgentTeam, joint: torch.Tensor, observations: np.ndarray, state=()) -> np.ndarray:
    """Q_tot (B,) of joint actions (B, N), all taken after the same observations (N, O)."""
    seen = torch.from_numpy(np.asarray(observations, np.float32)).expand(len(joint), -1, -1)
    states = torch.tensor(np.asarray(state, np.float32)).expand(len(joint), -1) if team.config.state_size else None
    with torch.no_grad():
        chosen = team.utilities(seen).gather(-1, team.stored_choices(joint)).flatten(1)
        return team.networks["mixer"](chosen, team.central_state(seen, states)).numpy()


def greedy(team: AgentTeam, observations: np.ndarray) -> tuple[int, ...]:
    return tuple(int(a) for a in team.select_actions(observations, training=False))


def additive_fit(payoff) -> np.ndarray:
    """The least-squares fit of a sum of one number an agent, in closed form."""
    payoff = np.asarray(payoff, float)
    return payoff.mean(1, keepdims=True) + payoff.mean(0, keepdims=True) - payoff.mean()


def best_fit(payoff, supermodular: bool = False) -> tuple[np.ndarray, float]:
    """The least-squares fit that rises with every agent's action, in the best order of the actions; and its error.

    The exact answer for a *class* of mixers, whatever network is in it: a quadratic programme for each order, solved by
    projected gradient steps on its dual. `supermodular` keeps only the tables in which an agent's better action gains
    more when the other's is better, too.
    """
    payoff = np.asarray(payoff, float)
    k = len(payoff)
    corner = np.eye(k * k).reshape(k, k, k * k)  # corner[i, j] picks entry (i, j) of a flattened table
    rises = [corner[1:] - corner[:-1], corner[:, 1:] - corner[:, :-1]]
    if supermodular:
        rises.append(corner[1:, 1:] - corner[1:, :-1] - corner[:-1, 1:] + corner[:-1, :-1])
    constraint = np.concatenate([r.reshape(-1, k * k) for r in rises])  # constraint @ table >= 0
    orders = [(r, c) for r in itertools.permutations(range(k)) for c in itertools.permutations(range(k))]
    tables = np.array([payoff[np.ix_(r, c)].ravel() for r, c in orders])  # (orders, k * k)
    dual = np.zeros((len(orders), len(constraint)))
    step = 1.0 / np.linalg.norm(constraint, 2) ** 2
    for _ in range(5000):
        dual = np.maximum(0.0, dual - step * (tables + dual @ constraint) @ constraint.T)
    errors = np.square(dual @ constraint).sum(axis=1)
    best = int(errors.argmin())
    fit = np.empty((k, k))
    fit[np.ix_(*orders[best])] = (tables + dual @ constraint)[best].reshape(k, k)
    return fit, float(errors[best])


@pytest.mark.parametrize(
    "payoff, error, worth", [(CLIMBING, 997.42, 5), (penalty(0), 69.87, 10), (penalty(-25), 816.67, 2)], ids=str
)
def test_the_best_monotonic_fits_miss_the_optimum_of_climbing_and_of_harsh_penalties(payoff, error, worth):
    # Monotonic mixing is sufficient for decentralized choice, not necessary: these optima, 11 and 10, are no maximum of
    # any monotonic table fitted to uniform data, except without a penalty.
    fit, squared = best_fit(payoff)
    assert squared == pytest.approx(error, abs=0.01)
    assert np.asarray(payoff)[np.unravel_index(fit.argmax(), fit.shape)] == worth


def test_qmix_fits_the_one_shot_matrix():
    table, choice = projection(ONE_SHOT, "monotonic")
    expected = np.where(np.arange(9).reshape(3, 3) == 0, 12.0, -0.05)
    np.testing.assert_allclose(table, expected, atol=0.1)
    np.testing.assert_allclose(best_fit(ONE_SHOT)[0], expected, atol=1e-6)
    assert choice == (0, 0)


@pytest.mark.parametrize("payoff, worth", [(CLIMBING, (5, 6)), (penalty(-25), (2, 10))], ids=["climbing", "penalty"])
def test_qmix_cannot_fit_better_than_its_class(payoff, worth):
    # The published mixer is smaller than the monotonic class. Weights are not negative and ELU is convex, so Q_tot is a
    # convex function of sums of utilities, which makes its tables supermodular. Within that class the exact choice is 5
    # in climbing and 10 in the penalty game; gradients may stop at the neighbours 6 and 2, never at the 11 of climbing.
    table, choice = projection(payoff, "monotonic")
    error, limit = float(np.square(table - np.asarray(payoff)).sum()), best_fit(payoff, supermodular=True)[1]
    assert best_fit(payoff)[1] < limit
    assert 0.999 * limit < error < 1.5 * limit
    assert np.asarray(payoff)[choice] in worth


@pytest.mark.parametrize(
    "payoff, best",
    [(CLIMBING, {(2, 2)}), (penalty(0), {(0, 0), (0, 2), (2, 0), (2, 2)}), (penalty(-25), {(1, 1)})],
    ids=["climbing", "penalty 0", "penalty -25"],
)
def test_the_additive_mixer_fits_by_least_squares(payoff, best):
    table, choice = projection(payoff, "additive", updates=500)
    exact = additive_fit(payoff)
    np.testing.assert_allclose(table, exact, atol=0.1)
    assert choice in best and all(exact[joint] == pytest.approx(exact.max()) for joint in best)
    if payoff == penalty(0):  # four joint actions tie, two of them worth nothing
        assert exact.max() == pytest.approx(4.22, abs=0.01)


# --- the two-step game of the QMIX paper ------------------------------------------------------------------------------


@functools.cache
def two_step(mixer: str, seed: int = 0) -> tuple[list[np.ndarray], float]:
    """Q_tot in the first state, in 2A and in 2B, after 5000 episodes at random; and the greedy return."""
    env = VectorEnv([TwoStepGame] * 50)
    config = {
        "mixer": mixer,
        "state_size": 3,
        "epsilon_min": 1.0,
        "learning_starts": 500,
        "updates_per_step": 6,
        "batch_size": 64,
        "buffer_size": 10_000,
        "tau": 0.02,
        "gamma": 0.99,
        "hidden_sizes": [32],
        "mixing_width": 16,
        "hypernet_width": 32,
        "learning_rate": 0.005,
        "anneal_learning_rate": True,
        "seed": seed,
    }
    team = CREATE["qmix"](3, 2, 2, config)
    train(env, team, 5000, seed=seed, progress=False)
    joint, tables = torch.tensor(list(itertools.product(range(2), repeat=2))), []
    for stage in range(3):
        state = np.eye(3)[stage]
        tables.append(q_table(team, joint, np.tile(state, (2, 1)), state).reshape(2, 2))
    return tables, float(evaluate(TwoStepGame(), team, 1)["team_return"].iloc[0]) / 2


def test_qmix_finds_8_in_the_two_step_game_with_the_exact_table():
    (first, safe, matrix), payoff = two_step("monotonic")
    np.testing.assert_allclose(matrix, [[0, 1], [1, 8]], atol=0.1)
    np.testing.assert_allclose(safe, 7.0, atol=0.1)
    np.testing.assert_allclose(first, [[0.99 * 7] * 2, [0.99 * 8] * 2], atol=0.1)
    assert payoff == 8.0


def test_the_additive_mixer_settles_for_7_in_the_two_step_game():
    (first, safe, matrix), payoff = two_step("additive")
    np.testing.assert_allclose(matrix, [[-1.5, 2.5], [2.5, 6.5]], atol=0.3)  # exact under exactly uniform data
    np.testing.assert_allclose(safe, 7.0, atol=0.1)
    assert first[0].max() > first[1].max() + 0.2  # 0.99 * 7 against 0.99 * 6.5
    assert payoff == 7.0
