"""Recorded transactions as episodes: windows of the log on the environment's clock, the routing that the log shows as
a policy, a check of the simulated latency against the logged one, and the classical rules, tuned on the training days.

Shapes: K transactions of a part, T steps, E copies, N routers, C channels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from banking.baselines import (
    TUNED,
    Always,
    GlobalJoinShortestQueue,
    GreedyCheapest,
    OwnJoinShortestQueue,
    Policy,
    RoundRobin,
    ShortestExpectedDelay,
    TuningPlan,
    UniformRandom,
    tune_rule,
)
from banking.checks import BATCHED
from banking.constants import RoutingConstants
from banking.environment import TransactionRoutingEnv
from banking.records import Log, load_log
from banking.traffic import WORK_GRID
from core.experiment.reporting.csv_table import duration
from core.experiment.tuning import TUNING_SEED

TUNING = dict(generations=12, candidates=24, episodes=8)  # of each of four rules: half a minute in all
DAY = 86400.0  # seconds
CHECKED_EPISODES = 48  # of the simulated latency
WELL, BADLY = 0.25, 0.5  # relative differences to the logged one, up to and from which


class Windows:
    """A part of a log as `traffic_source`: called with a generator, it returns the T steps after a random transaction.

    Every transaction is as likely to open a window, so that busy hours come up as often as customers meet them.
    `drawn` notes what else belongs to each window: its hour of the day, its rows in the environment's order, where
    channels were fitted the work (C,) in ms that waits at each of them when it opens, and the seconds from the part's
    first transaction to its opening.
    """

    def __init__(self, log: Log, evaluation: bool, step_ms: float, steps: int):
        part = log.part(evaluation)
        self.log, self.steps, self.step = log, steps, log.speed * step_ms / 1000.0  # seconds of the log
        self._seconds, self._first = log.seconds[part], part.start
        self._openings = int(np.searchsorted(self._seconds, self._seconds[-1] - steps * self.step, side="right"))
        if self._openings == 0:
            raise ValueError(
                f"{steps} steps are {duration(steps * self.step)} of the log, longer than the "
                f"{'test' if evaluation else 'training'} part; give fewer episode_steps"
            )
        self._last = _last_waits(log)
        self.drawn: list[tuple[float, np.ndarray, list[float], float]] = []

    def __call__(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        start = self._seconds[rng.integers(self._openings)]
        first, last = np.searchsorted(self._seconds, [start, start + self.steps * self.step])
        rows = np.arange(first, last)
        when = np.minimum((self._seconds[rows] - start) / self.step, self.steps - 1).astype(np.int64)
        rows += self._first
        routers = self.log.router[rows]
        arrivals = np.zeros((self.steps, len(self.log.routers)), np.int64)
        np.add.at(arrivals, (when, routers), 1)
        given = rows[np.lexsort((routers, when))]  # by step, then by router
        by_router = rows[np.lexsort((when, routers))]  # by router, then by step
        waiting = [self._waiting(start, *last) for last in self._last]
        self.drawn.append((start / 3600.0 % 24.0, by_router, waiting, start - self._seconds[0]))
        return {"arrivals": arrivals, "amounts": self.log.amounts[given], "urgent": self.log.urgent[given]}

    def _waiting(self, start: float, seconds: np.ndarray, waits: np.ndarray) -> float:
        """What the transactions before `start` left to do, in ms."""
        last = np.searchsorted(seconds, start) - 1
        left = waits[last] - (start - seconds[last]) if last >= 0 else 0.0
        return 1000.0 * max(0.0, float(left)) / self.log.speed


def _last_waits(log: Log) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each fitted channel: when its settled transactions came, and the wait that each left to the next one."""
    if log.channel is None:
        return []
    known, found = np.isfinite(log.latency), []
    channels = zip(log.constants["base_latency_ms"], log.constants["channel_rates"], strict=True)
    for c, (base, rate) in enumerate(channels):
        own = known & (log.channel == c)
        wait = np.maximum(log.latency[own] - 0.001 * base * log.speed, 0.0)
        found.append((log.seconds[own], wait + log.speed / rate))
    return found


class RecordedRouting(TransactionRoutingEnv):
    """TransactionRoutingEnv on recorded transactions: constants, hours and first queues are those of the log.

    log: from `load_log`. evaluation: windows of the test part, or of the training part. The rest as in
    TransactionRoutingEnv, but for `arrival_multiplier`: recorded traffic is what it is.
    """

    def __init__(
        self,
        log: Log,
        evaluation: bool = False,
        num_envs: int | None = None,
        difficulty: str = "medium",
        scenario: str | None = None,
        seed: int | None = None,
        **options: Any,
    ):
        if options.get("arrival_multiplier") is not None:
            raise ValueError("arrival_multiplier acts on drawn traffic, and this is recorded: leave it out")
        self.log = log
        constants = {**log.constants, **options}
        super().__init__(num_envs, difficulty, scenario, seed, **constants)
        self.traffic_source = Windows(log, evaluation, self.constants.step_ms, int(self.constants.episode_steps))
        self._opened = float(log.seconds[log.part(evaluation)][0])  # when the part begins

    def reset(self, seed: int | Sequence[int] | None = None) -> np.ndarray:
        self.traffic_source.drawn.clear()
        super().reset(seed)
        hours, self._rows, waiting, self._starts = zip(*self.traffic_source.drawn, strict=True)
        self.episodes.hours[:] = hours  # what was drawn at random gives way to what the log shows
        angle = 2.0 * np.pi * self.episodes.hours / 24.0
        self._observed[..., -2], self._observed[..., -1] = np.sin(angle)[:, None], np.cos(angle)[:, None]
        if waiting[0]:
            self.episodes.initial_workload[:] = np.rint(np.array(waiting) * WORK_GRID) / WORK_GRID  # (E, C)
            self._workload[:] = self.episodes.initial_workload
        self._log_rows = np.concatenate([*self._rows, [0]])  # of episodes.transactions, the last one being none
        k, E = self.constants, self._E
        shown = {"channel_names": np.broadcast_to(np.array(k.channel_names), (E, self._C))}
        shown |= {name: np.full(E, getattr(k, name)) for name in ("latency_target_ms", "risk_limit")}
        shown["log_speed"] = np.full(E, self.log.speed)
        shown["router_names"] = np.broadcast_to(np.array(self.log.routers), (E, self._N))
        self._for_pictures = {name: self._unstacked(value) for name, value in shown.items()}
        return self._unstacked(self._observations())

    def step(self, actions) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict]:
        observations, rewards, dones, info = super().step(actions)
        now = 1000 * (self._opened + np.array(self._starts) + (self._t - 1) * self.traffic_source.step)  # ms of the log
        time = np.datetime64(self.log.midnight, "ms") + now.astype(np.int64)  # (E,)
        info["details"] |= self._for_pictures | {"time": self._unstacked(time)}
        if "episode_metrics" in info:  # in days: episodes of the same ones are not independent (reporting/windows.py)
            start = np.array(self._starts) / DAY
            length = self.traffic_source.steps * self.traffic_source.step / DAY
            window = {"window_start": start, "window_length": np.full(len(start), length)}
            info["episode_metrics"] |= {name: v if self.num_envs else float(v[0]) for name, v in window.items()}
            info["episode_metrics"]["latency_log_s"] = 0.001 * self.log.speed * info["episode_metrics"]["latency_ms"]
        return observations, rewards, dones, info

    def world(self) -> dict[str, Any]:
        """As in TransactionRoutingEnv, with the names of the file, the seconds of the log in a simulated one, and when
        the training part, the test part and the last transaction are."""
        log = self.log
        moments = (log.midnight + timedelta(seconds=float(log.seconds[k])) for k in (0, log.training, -1))
        since = [moment.isoformat(" ", "seconds") for moment in moments]
        return {**super().world(), "agents": list(log.routers), "log_speed": log.speed, "since": since}

    @property
    def logged_channels(self) -> np.ndarray:
        """The channel that each head of queue took in the log, (N,) or (E, N)."""
        head = np.minimum(self._next_row, len(self._log_rows) - 1)
        return self._unstacked(self.log.channel[self._log_rows[head]])

    @property
    def window_rows(self) -> tuple[np.ndarray, ...]:
        """The transactions of each copy's window, numbers of the log."""
        return self._rows


class AsLogged:
    """Sends every transaction where the log sent it: the routing of today, in the simulation."""

    def begin_episode(self, env: RecordedRouting) -> None:
        self.env = env

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        return self.env.logged_channels


def recorded_env(path: str | Path, evaluation: bool = False, *args: Any, **options: Any) -> RecordedRouting:
    """The environment of a CSV file (records.py). Raises FileNotFoundError, or ValueError for a bad file."""
    return RecordedRouting(load_log(path), evaluation, *args, **options)


# --- the check of the simulation --------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4)
def latency_check(log: Log, episodes: int = CHECKED_EPISODES, seed: int = TUNING_SEED) -> tuple[list[str], float]:
    """Route windows of the test days as logged; lines that compare simulated and logged times to settlement, and the
    largest relative difference.

    The simulated ones have one part that the log has not: a router sends one transaction a step.
    """
    logged, simulated = latencies(log, episodes, seed)
    width = max(10, *(len(name) for name in logged))
    lines = [
        f"  simulated against logged time to settlement, test days routed as logged ({episodes} windows):",
        f"       {'channel':{width}}  mean: logged  simulated   95th percentile: logged  simulated",
    ]
    worst = 0.0
    for name in logged:
        cells = [f(x[name]) for f in (np.mean, lambda v: np.percentile(v, 95)) for x in (logged, simulated)]
        worst = max(worst, abs(cells[1] / cells[0] - 1.0), abs(cells[3] / cells[2] - 1.0))
        a, b, c, d = map(duration, cells)
        lines.append(f"       {name:{width}}  {a:>12}  {b:>9}   {c:>23}  {d:>9}")
    verdict = "the queues do NOT describe your channels, do not rely on the results"
    for limit, words in ((BADLY, "read the results with care"), (WELL, "the queues describe your channels well")):
        verdict = words if worst < limit else verdict
    if any(BATCHED in note for note in log.notes):  # the means may agree all the same
        verdict = "but no queue settles in batches, do not rely on the results"
    return [*lines, f"  they differ by at most {100 * worst:.0f} %: {verdict}"], worst


def latencies(log: Log, episodes: int, seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Times to settlement in seconds of the log by channel: as logged, and as simulated with the logged routing."""
    env, policy = RecordedRouting(log, True, episodes), AsLogged()
    observations = env.reset(seed)
    policy.begin_episode(env)
    rows = np.concatenate(env.window_rows)
    channel, latency, over = [], [], False
    while not over:
        observations, _, dones, info = env.step(policy(observations))
        sent = info["details"]["dispatched"]
        channel.append(info["details"]["action"][sent])
        latency.append(info["details"]["latency_ms"][sent])
        over = bool(dones.all())
    channel, latency = np.concatenate(channel), 0.001 * log.speed * np.concatenate(latency)
    logged, simulated = {}, {}
    for c, name in enumerate(env.constants.channel_names):
        own = log.latency[rows[log.channel[rows] == c]]
        own, made = own[np.isfinite(own)], latency[channel == c]
        if len(own) and len(made):
            logged[name], simulated[name] = own, made
    return logged, simulated


# --- the classical rules ----------------------------------------------------------------------------------------------


def recorded_baselines(env: RecordedRouting, **budget: int) -> dict[str, Policy]:
    """The classical rules by name, tuned on the training days of the environment's log for its constants, and, where
    the log tells the channels, the routing as logged. budget: of `tuned_on`."""
    k = env.constants
    parameters = tuned_on(env.log, k, **{**TUNING, **budget})
    rules: dict[str, Policy] = {"uniform random": UniformRandom(k), "round robin": RoundRobin(k)}
    rules[f"always {k.channel_names[0]}"] = Always(0)
    rules["greedy cheapest"], rules["shortest expected delay"] = GreedyCheapest(k), ShortestExpectedDelay(k)
    rules["join shortest queue, own"] = OwnJoinShortestQueue(k)
    rules["join shortest queue, global"] = GlobalJoinShortestQueue(k)
    rules |= {name: TUNED[name](k, values) for name, values in parameters.items()}
    return rules if env.log.channel is None else {"as logged": AsLogged(), **rules}


@functools.lru_cache(maxsize=4)
def tuned_on(
    log: Log, constants: RoutingConstants, generations: int, candidates: int, episodes: int
) -> dict[str, list[float]]:
    """Parameters of the rules, tuned on windows of the training part alone. The same log is tuned on once."""
    env = RecordedRouting(log, False, candidates * episodes, **asdict(constants))
    # Of the few candidates a larger share is kept.
    plan = TuningPlan(generations, candidates, episodes, elite_share=0.2, averaged=max(1, generations // 3))
    return {name: tune_rule(rule, env, plan) for name, rule in TUNED.items()}
