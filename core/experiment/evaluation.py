"""How good a policy is, on episodes that training never saw.

Episode k has the seed 10_000 + k whatever the policy, so that every policy meets the same demand or traffic (common
random numbers), and two policies are compared pair by pair: the differences vary far less than the returns do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from core.base_agent import AgentTeam, BaseAgent, as_team
from core.experiment.episodes import Episodes
from core.experiment.runs.seeds import global_generators_kept
from core.experiment.tuning import EVALUATION_SEED, half_width
from core.experiment.vector_env import LARGEST_SEED, as_dictionary, as_stacked

KEYS = ("episode", "seed")  # columns that are no metric

Policy = AgentTeam | Sequence[BaseAgent] | Callable[[np.ndarray], np.ndarray]


def evaluate(env: Any, policy: Policy, episodes: int, seed: int = EVALUATION_SEED, *, greedy: bool = True):
    """Run `policy` for whole episodes, without learning and without touching anybody's randomness.

    Args:
        env: plain or stacked (faster); it is reset, so give it another one than a training that is under way inside an
            episode. Between the rounds of `train` every environment is free.
        policy: a team (or a list of agents), or a function from observations to actions. It meets observations
            (E, N, O) if `env` is stacked and (N, O) if not, and if it has `begin_episode(env)`, that is called
            after every reset (centralized references and clairvoyant rules look at the environment there).
        episodes: number of episodes.
        seed: of episode 0; episode k has `seed + k`.
        greedy: False lets a team explore, as in training.

    Returns:
        pandas.DataFrame, a row an episode: episode, seed, team_return (rewards summed over agents and time), length
        (steps), and the environment's `episode_metrics`. If it is stacked and hands over `info["period_metrics"]`, with
        the number of the recorded "period" that it is in, `attrs["periods"]` is a table of their means, a row a period.

    Raises:
        ValueError: a number that cannot be, or an environment that breaks the protocol.
    """
    import pandas as pd

    for name, value, low in (("episodes", episodes, 1), ("seed", seed, 0)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not low <= value <= LARGEST_SEED:
            raise ValueError(f"{name}: expected a whole number of at least {low} and below 2**31, found {value!r}")
    stacked, rows, days = as_stacked(env), [], []
    act = _acting(policy, greedy, plain=stacked is not env)
    with _undisturbed(policy):
        for first in range(0, episodes, stacked.num_envs):
            count = min(stacked.num_envs, episodes - first)
            seeds = range(seed + first, seed + first + stacked.num_envs)
            running = _begin(env, stacked, policy, seeds, count)
            with running.told_where(f"evaluation stopped in episodes {first} to {first + count - 1}"):
                steps = []
                while running.running:
                    _, info = running.step(act(running))
                    steps += [info["period_metrics"]] if "period_metrics" in info else []
            days += [_by_period(steps, count)] if steps else []
            for e in range(count):
                row = {"episode": first + e, "seed": seeds[e], "team_return": running.returns[e]}
                rows.append({**row, "length": running.lengths[e], **running.metrics[e]})
    table = pd.DataFrame(rows)
    if days:
        sums = pd.concat(days).groupby("period").sum()
        table.attrs["periods"] = sums.div(sums["times"], axis=0).assign(times=sums["times"]).reset_index()
    return table


def _by_period(steps: Sequence[Mapping[str, Any]], count: int) -> Any:
    """info["period_metrics"] of every step, (E,) each -> sums over the first `count` copies, a row a copy and step."""
    import pandas as pd

    columns = {name: np.concatenate([np.atleast_1d(step[name])[:count] for step in steps]) for name in steps[0]}
    return pd.DataFrame(columns).assign(times=1.0)


def record_episode(env: Any, policy: Policy, seed: int = EVALUATION_SEED) -> list[dict[str, Any]]:
    """One greedy episode step by step, for pictures and for people.

    Returns:
        A dictionary a step: everything in info["details"], and "step", "observations" (N, O), "actions", "rewards"
        (N,) where the details have no such name. Of a stacked environment, its first copy.
    """
    stacked, steps = as_stacked(env), []
    act = _acting(policy, True, plain=stacked is not env)
    with _undisturbed(policy):
        running = _begin(env, stacked, policy, range(seed, seed + stacked.num_envs), 1)
        with running.told_where("the recording stopped"):
            while running.running:
                actions = np.array(act(running))
                happened, info = running.step(actions)
                details = {name: np.array(values)[0] for name, values in as_dictionary(info, "details").items()}
                seen = {"observations": happened.observations[0], "actions": actions[0]}
                steps.append({"step": running.steps - 1, **seen, "rewards": happened.rewards[0], **details})
    return steps


def _begin(env: Any, stacked: Any, policy: Policy, seeds: Sequence[int], count: int) -> Episodes:
    running = Episodes(stacked, seeds, count)
    policy = as_team(policy) if _is_team(policy) else policy
    if hasattr(policy, "begin_episode"):
        policy.begin_episode(env)
    return running


def _is_team(policy: Policy) -> bool:
    return isinstance(policy, AgentTeam) or (
        isinstance(policy, (list, tuple)) and isinstance([*policy, None][0], BaseAgent)
    )


def _acting(policy: Policy, greedy: bool, plain: bool) -> Callable[[Episodes], np.ndarray]:
    """The policy as a function from running episodes to actions with the axis E."""
    if _is_team(policy):
        team = as_team(policy)
        return lambda now: team.select_actions(now.observations, training=not greedy, action_masks=now.masks)
    if not callable(policy):
        raise ValueError(f"policy: expected a team or a function from observations to actions, found {policy!r}")
    if plain:
        return lambda now: np.asarray(policy(now.observations[0].copy()))[None]  # it may write into what it is given
    return lambda now: np.asarray(policy(now.observations.copy()))


@contextmanager
def _undisturbed(policy: Policy) -> Iterator[None]:
    """Whatever is drawn inside, the team and all global generators go on as if it had not been."""
    team = as_team(policy) if _is_team(policy) else None
    own = None if team is None else (team.random_state(), team.memory)
    with global_generators_kept():
        try:
            yield
        finally:
            if team is not None:
                team.set_random_state(own[0])
                team.memory = own[1]


# --- intervals --------------------------------------------------------------------------------------------------------


class Interval(NamedTuple):
    """A mean, and half the width of its confidence interval."""

    mean: float
    half_width: float
    count: int  # independent samples


def interval(samples: Any, confidence: float = 0.95) -> Interval:
    """Mean and t interval of independent samples; NaN among them (no value in that episode) are left out."""
    samples = np.asarray(samples, float)
    samples = samples[~np.isnan(samples)]
    mean = float(samples.mean()) if samples.size else float("nan")
    return Interval(mean, half_width(samples, confidence=confidence), int(samples.size))


def summarize(table: Any, over: str | None = None, confidence: float = 0.95):
    """Mean and half the 95 % interval of every metric.

    Args:
        table: from `evaluate`, or several of them below each other.
        over: a column that names independent groups, such as "training_seed": the interval is then over the means of
            the groups, since episodes of one training share its luck.

    Returns:
        pandas.DataFrame with a row a metric: mean, half_width, count.
    """
    import pandas as pd

    if over is not None and over not in table:
        raise ValueError(f"over: expected one of the columns {', '.join(table.columns)}, found {over!r}")
    samples = table.select_dtypes("number").drop(columns=[*KEYS, over or "", "training_seed"], errors="ignore")
    if over is not None:
        samples = samples.groupby(table[over]).mean()
    return pd.DataFrame({name: interval(samples[name], confidence)._asdict() for name in samples}).T
