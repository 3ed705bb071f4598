"""The one training loop, for every algorithm and every environment.

`train` knows no algorithm: the team acts, is told what happened, and decides itself when to learn. Training goes in
rounds: E environments are reset with their seeds and run until the last one is over. Evaluations, checkpoints and stops
fall between rounds, where an environment holds nothing that its next reset does not set anew. So a checkpoint needs no
environment, and a resumed run continues bit for bit.

Shapes: E environments, N agents.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.base_agent import AgentTeam, BaseAgent, as_team
from core.experiment.env_check import check_env
from core.experiment.episodes import Episodes
from core.experiment.history import History, Row, Seen
from core.experiment.runs import distributed as ranks
from core.experiment.runs.checkpoint import refuse_other_team, save_checkpoint
from core.experiment.vector_env import as_stacked
from core.team.files import refuse_non_finite, refusing_other_shapes

BLOCK = 1_000_000  # seeds of one training, so episodes at most
RESERVED = range(800, 1000)  # blocks of the seeds for tuning (900_000_000 + k) and validation (800_000_000 + k)
BLOCKS = (2**31 // BLOCK - 1) - len(RESERVED)  # that fit below 2**31, which every simulator takes as a seed
LAST_SAVE_WAITS = (1, 5, 20, 30, None)  # seconds between tries; then the failure is told
SAVE_SECONDS = 300.0  # a long training loses no more than this


@dataclass(frozen=True)
class Progress:
    """What `on_round` is told."""

    episodes: int  # trained so far
    total: int  # to be trained in all
    rounds: int  # done so far

    @property
    def fraction(self) -> float:
        """Share of the training that is done, 0 to 1: the clock of a curriculum."""
        return self.episodes / self.total


def train(
    env: Any,
    agents: AgentTeam | Sequence[BaseAgent],
    episodes: int,
    seed: int = 0,
    *,
    run: Any = None,
    evaluate_every: int = 0,
    evaluation: Callable[[], Any] | None = None,
    save_every: int = 0,
    resume: dict[str, Any] | None = None,
    on_round: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
    progress: bool | str = True,
):
    """Train `agents` in `env`.

    Args:
        env: an environment of the documented protocol; with `num_envs=E` it runs E episodes a round, else one. A
            stacked one is stepped until its last episode is over; what it returns for the others is not used. If it
            takes no seed, NumPy's and Python's global generators are seeded in its stead.
        agents: a team, or a list of agents that becomes one.
        episodes: episodes in all, those before a resumption included. If E does not divide them, the surplus episodes
            of the last round are neither learnt from nor recorded.
        seed: training episode k gets the environment seed 1_000_000 * (seed + 1) + k (200 blocks that are kept for
            tuning and validation are skipped; from seed 1946 on the blocks are used again, see `episode_seeds`), and
            the team's exploration is seeded from the same block. A team with
            `episodes_per_seed` > 1 gets the same seed for so many neighbouring copies. A team whose `plays` is above 1
            plays every round so often, with the same seeds; the history has the last time.
        run: where to save: an object with `checkpoint` (a path) and `write_progress(table)`, such as `RunFolder`.
        evaluate_every, evaluation: after so many episodes, and at the end, call `evaluation()` -> table. The means of
            its number columns join that round's last row as evaluation_<name>.
        save_every: save to `run` after so many episodes, and every five minutes. The end of the training, and a stop,
            are always saved.
        resume: what `load_checkpoint` returned: continue there, as if there had been no break.
        on_round: called before every round, and once more after the last, for instance to set the difficulty.
        stop: asked after every round; True ends the training early.
        progress: show a bar, on a terminal only; a string names the metric beside it (default: team_return).

    Returns:
        pandas.DataFrame, a row an episode: episode, round, env_steps (all so far), team_return (rewards summed over
        agents and time), length (steps), the environment's episode_metrics, the round's mean losses (NaN when nothing
        was learnt), the evaluation, and the wall-clock seconds since the training began.

    Raises:
        ValueError: arguments, an environment or a checkpoint that do not fit; the message says what to do.
        FloatingPointError: a loss or gradient is not finite; earlier checkpoints are left as they are.
    """
    _check_arguments(episodes, seed, evaluate_every, evaluation, save_every)
    agents = as_team(agents)
    check_env(env, agents)
    stacked = as_stacked(env)
    ranks.require_multiple(episodes, stacked.num_envs)
    history, seen = _begin(agents, stacked, seed, resume, episodes)
    started = time.perf_counter() - (history.last("seconds") if history else 0.0)
    saved = time.perf_counter()

    def tell() -> None:
        if on_round is not None:
            on_round(Progress(len(history), episodes, int(history.last("round")) + 1 if history else 0))

    with _Bar(episodes, len(history), progress) as bar:
        while len(history) < episodes:
            done = len(history)
            agents.set_progress(done / episodes)
            tell()
            fresh = _play_round(stacked, agents, seed, history, episodes, seen)
            for row in fresh:
                row["seconds"] = time.perf_counter() - started
            if evaluation is not None and ranks.is_main() and _due(evaluate_every, done, done + len(fresh), episodes):
                table = evaluation().select_dtypes("number").drop(columns=["episode", "seed"], errors="ignore")
                fresh[-1].update({f"evaluation_{name}": float(value) for name, value in table.mean().items()})
            history.extend(fresh)
            bar.advance(fresh)
            stopping = ranks.any_rank(stop is not None and stop())
            last = stopping or len(history) >= episodes
            late = save_every > 0 and ranks.any_rank(time.perf_counter() - saved > SAVE_SECONDS)
            if run is not None and (last or late or _due(save_every, done, len(history), episodes)):
                _save(run, agents, stacked, seed, history, episodes, last, seen)
                saved = time.perf_counter()
            if stopping:
                break
    tell()
    return history.to_table()


def _play_round(env: Any, agents: AgentTeam, seed: int, history: History, episodes: int, seen: Seen) -> list[Row]:
    """Play E episodes, and learn from them -> a row an episode, those of the other processes included."""
    first = len(history)
    own = first + ranks.rank() * env.num_envs  # this process's first episode
    count = min(env.num_envs, episodes - own)
    losses: list[dict[str, float]] = []
    seeds = shared_seeds(episode_seeds(seed, own, env.num_envs), agents.episodes_per_seed)
    env_steps = np.zeros(env.num_envs, int)
    for _ in range(agents.config.plays):
        now = Episodes(env, seeds, count, with_state=agents.config.state_size > 0)
        _play(now, agents, seen, losses, f"episodes {own} to {own + count - 1}", seed)
        env_steps += now.lengths
    means = {name: float(np.mean([entry[name] for entry in losses if name in entry])) for name in _names(losses)}
    fresh = []
    for e in range(count):
        both = means.keys() & now.metrics[e].keys()
        if both:
            raise ValueError(f"info['episode_metrics']: {sorted(both)} name losses of the agents too; rename them")
        row = {"episode": own + e, "round": history.last("round") + 1 if history else 0, "env_steps": int(env_steps[e])}
        row |= {"team_return": float(now.returns[e]), "length": int(now.lengths[e])}
        fresh.append(row | {name: v for name, v in (now.metrics[e] | means).items() if name not in row})
    fresh = [row for part in ranks.gather(fresh) for row in part]
    steps = history.last("env_steps")
    for row in fresh:
        steps += row["env_steps"]
        row["env_steps"] = steps
    return fresh


def _play(now: Episodes, agents: AgentTeam, seen: Seen, losses: list[dict[str, float]], which: str, seed: int) -> None:
    """Play one round of episodes to its end; what is learnt on the way joins `losses`."""
    agents.begin_episode()
    try:
        while ranks.agreed(now.running, "running episodes"):
            seen.add(now.observations)
            actions = agents.select_actions(now.observations, training=True, action_masks=now.masks)
            happened, _ = now.step(actions)
            learnt = agents.observe(happened)
            if learnt:
                losses.append(learnt)
                _require_finite(learnt)
    except (ValueError, FloatingPointError) as error:
        where = f"training stopped in {which}, step {now.steps} (seed {seed})"
        kind = FloatingPointError if isinstance(error, FloatingPointError) else ValueError
        raise kind(f"{where}: {error}") from error


def episode_seeds(seed: int, first: int, count: int) -> Sequence[int]:
    """Environment seeds of the training episodes `first` to `first + count - 1` of the training seed `seed`.

    All are below 2**31. Training seeds less than 1946 apart have no environment seed in common; others may share a
    block, in which they begin at different places.
    """
    lap, place = divmod(seed, BLOCKS)
    block = place + 1 if place + 1 < RESERVED.start else place + 1 + len(RESERVED)
    if lap == 0:
        return range(BLOCK * block + first, BLOCK * block + first + count)
    begin = lap * 618_033 + first  # the golden section of the block: laps lie far from each other
    return [BLOCK * block + (begin + k) % BLOCK for k in range(count)]


def shared_seeds(seeds: Sequence[int], size: int) -> list[int]:
    """Neighbours in groups of `size` take the seed of the first of them, so that they meet the same chance events."""
    return [seeds[k - k % size] for k in range(len(seeds))]


def _names(rows: Sequence[dict[str, float]]) -> list[str]:
    """All keys in the order of their first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


# --- beginning, saving, checking --------------------------------------------------------------------------------------


def _begin(
    agents: AgentTeam, env: Any, seed: int, resume: dict[str, Any] | None, episodes: int
) -> tuple[History, Seen]:
    """Make the team ready: new, or as it was when `resume` was saved. Returns the history and what was seen so far."""
    agents.begin_rollouts(env.num_envs)
    history, seen = History(), Seen(env.num_agents, env.observation_space_size)
    if resume is None:
        agents.seed(episode_seeds(seed, ranks.rank(), 1)[0])
    else:
        with refusing_other_shapes("the checkpoint"):
            history = _continued(agents, env, seed, resume)
            seen.load_state(resume["seen"])
            _mention_schedules(agents, len(history), resume.get("total", episodes), episodes)
    ranks.share_learning(agents)
    return history, seen


def _continued(agents: AgentTeam, env: Any, seed: int, resume: dict[str, Any]) -> History:
    """Take the state of `resume`, which must be of this training -> the history so far."""
    expected = _settings(env, seed)
    if not isinstance(resume, dict) or not {"settings", "agents", "history"} <= resume.keys():
        raise ValueError(
            "resume: expected what load_checkpoint returned for a checkpoint of train(), found "
            f"{sorted(resume) if isinstance(resume, dict) else type(resume).__name__}"
        )
    different = [
        f"{name}: checkpoint {resume['settings'].get(name)}, now {value}"
        for name, value in expected.items()
        if resume["settings"].get(name) != value
    ]
    if different:
        raise ValueError(f"resume: the checkpoint is of another training ({'; '.join(different)}); use its values")
    state = resume["agents"][ranks.rank()]
    refuse_other_team(state, agents)
    agents.load_state_dict(state)
    return History.from_state(resume["history"])


def _mention_schedules(agents: AgentTeam, done: int, before: int, now: int) -> None:
    """Say so if another number of episodes in all moves what anneals, which hangs on the share that is done."""
    if before == now or not any(value is True for key, value in vars(agents.config).items() if "anneal" in key):
        return
    rates = []
    for total in (before, now):
        agents.set_progress(min(1.0, done / total))
        rates.append(max(group["lr"] for optimizer in agents.optimizers.values() for group in optimizer.param_groups))
    warnings.warn(
        f"{now} episodes in all instead of {before}: what anneals goes from {done / before:.0%} of its way to "
        f"{done / now:.0%}, the learning rate from {rates[0]:.3g} to {rates[1]:.3g}",
        stacklevel=4,
    )


def _settings(env: Any, seed: int) -> dict[str, Any]:
    return {"seed": seed, "num_envs": env.num_envs, "processes": ranks.world_size()}


def _save(
    run: Any, agents: AgentTeam, env: Any, seed: int, history: History, episodes: int, last: bool, seen: Seen
) -> None:
    """Write the checkpoint and the history; in a distributed training only the first process writes.

    A disk that is full for a while costs no training: only the last save must succeed, and it tries for a minute.
    """
    state = agents.state_dict()
    refuse_non_finite(state)
    states = ranks.gather(state)
    if not ranks.is_main():
        return
    checkpoint = {"settings": _settings(env, seed), "agents": states, "history": history.state()}
    checkpoint |= {"total": episodes, "seen": seen.state()}
    for wait in LAST_SAVE_WAITS if last else [None]:
        try:
            save_checkpoint(run.checkpoint, checkpoint)
            run.write_progress(history.to_table())
            return
        except OSError as error:
            what = f"not saved after episode {len(history)} ({error})"
            if not last:
                warnings.warn(f"{what}; the training goes on", stacklevel=3)
            elif wait is None:
                raise OSError(f"{what}; the save before it is whole: make room, and continue from there") from error
            else:
                warnings.warn(f"{what}; trying again in {wait} s", stacklevel=3)
                time.sleep(wait)


def _due(every: int, before: int, after: int, total: int) -> bool:
    """A clock that strikes every `every` episodes struck in this round, or the training ended; 0: never."""
    return every > 0 and (before // every < after // every or after >= total)


def _check_arguments(episodes: int, seed: int, evaluate_every: int, evaluation: Any, save_every: int) -> None:
    """Refuse numbers that cannot be."""
    allowed = {"episodes": (episodes, 1, BLOCK), "seed": (seed, 0, 10**9)}
    allowed |= {"evaluate_every": (evaluate_every, 0, BLOCK), "save_every": (save_every, 0, BLOCK)}
    for name, (value, low, high) in allowed.items():
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or not low <= value <= high:
            raise ValueError(f"{name}: expected a whole number from {low} to {high}, found {value!r}")
    if bool(evaluate_every) != (evaluation is not None):
        raise ValueError(
            "evaluate_every and evaluation belong together: give both, such as evaluate_every=100, "
            "evaluation=lambda: evaluate(other_env, agents, 200)"
        )


def _require_finite(losses: dict[str, float]) -> None:
    for name, value in losses.items():
        if not math.isfinite(value):
            raise FloatingPointError(f"{name} is {value}; lower learning_rate, or look for huge rewards")


class _Bar:
    """A progress bar with the newest round's mean of one metric and the time left; silent where nobody looks."""

    def __init__(self, total: int, done: int, progress: bool | str):
        from tqdm import tqdm

        self.metric = progress if isinstance(progress, str) else "team_return"
        shown = bool(progress) and ranks.is_main()
        self.bar = tqdm(total=total, initial=done, unit="episode", disable=None if shown else True, leave=False)

    def advance(self, rows: Sequence[Row]) -> None:
        values = [row[self.metric] for row in rows if self.metric in row]
        if values and not self.bar.disable:
            self.bar.set_postfix_str(f"{self.metric} {np.mean(values):.4g}", refresh=False)
        self.bar.update(len(rows))

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
