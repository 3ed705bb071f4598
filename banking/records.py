"""Your own transactions: a CSV file with timestamp, router, amount becomes traffic for TransactionRoutingEnv.

Optional columns: urgent, channel, settled_at, fee. The newest quarter of the days is the test part, the rest the
training part, on which alone everything is fitted. Where channel and settled_at are given, so are the channels (see
channels.py). What the file cannot say is assumed, or given beside it: FILE.constants.json for FILE.csv, with any field
of RoutingConstants, times in ms of the log, for instance {"latency_target_ms": 60000, "risk_rates": {"sepa": 0.01}}.

**The clock.** The busy hour (the 90th percentile of the hours with traffic) is load 1: the environment's clock runs at
the speed at which that hour brings as many transactions a step as the built-in problem does, 1.54, or slower, where a
step would be long against the latency of the fastest channel. One simulated second is `speed` seconds of the log; all
times of the log are divided by it.

Shapes: K transactions, N routers, C channels, T steps of an episode.
"""

from __future__ import annotations

import functools
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from banking import checks
from banking.channels import fastest_base, fit_channels, unknown_channels
from banking.constants import PER_CHANNEL, PER_ROUTER, RoutingConstants, routing_constants
from banking.repeats import without_repeats
from banking.rows import Rows, read_rows
from core.experiment.reporting.checks import CAUTION
from core.experiment.reporting.csv_table import constants_path, counted, duration, some, stamps, stated_constants

NEW = 0.5  # share of the test transactions of routers that the training days lack, from which nothing is left
FINE, COARSE = 10_000, 900_000_000  # microseconds: finer stamps leave nothing open, coarser ones are cautioned of
ROUNDED = 0.01  # share of stamps that are whole minutes, beyond chance, from which they were rounded
COARSER = ((3_600_000_000, 60_000_000), (60_000_000, 1_000_000), (1_000_000, 1000))  # and the next finer unit
UNITS = {3_600_000_000: "whole hours", 60_000_000: "whole minutes", 1_000_000: "whole seconds"}
TEST_SHARE = 0.25  # of the days, the newest
BUSY_PERCENT = 90  # the hour of this percentile is load 1
ROUTER_LIMIT = 0.58  # transactions a step of the busiest router: it can send one a step
BASE_STEPS = 2.0  # steps that the base latency of the fastest channel lasts at least, as in the built-in problem,
SLOWEST = 0.1  # unless the busy hour would then bring less than this share of the transactions a step
STEPS = (150, 600)  # T: fewest (in a small file) and most
TEST_EPISODES, TRAINING_EPISODES = 4, 8  # that the parts hold at least, end to end
FEWEST = 200  # transactions of the test part
# How a constant given in time of the log becomes one of the simulation: divided by the speed, or multiplied.
DIVIDED = "base_latency_ms buffer_ms initial_workload_ms latency_target_ms risk_memory_ms delay_risk_limit_s".split()
MULTIPLIED = ("channel_rates", "delay_risk")
FITTED = (
    "step_ms",
    "episode_steps",
    "arrival_rates",
    "load",
    "channel_names",
    "amount_medians",
    "amount_sigma",
    "amount_range",
    "urgent_probabilities",
)  # constants that the file decides


@dataclass(frozen=True, eq=False)
class Log:
    """What a file of transactions holds, in order of time, and what was fitted on its training part. Immutable."""

    path: Path
    rows: int  # lines read
    routers: tuple[str, ...]  # N names; the order of all arrays
    midnight: datetime  # of the first day
    seconds: np.ndarray  # (K,) since `midnight`
    router: np.ndarray  # (K,) numbers
    amounts: np.ndarray  # (K,)
    urgent: np.ndarray  # (K,) bool
    channel: np.ndarray | None  # (K,) numbers, where channels were fitted
    latency: np.ndarray | None  # (K,) seconds to settlement, NaN where it is not known
    training: int  # transactions of the training part; the others are the test part
    speed: float  # seconds of the log in one simulated second
    busy: float  # transactions in the hour that is load 1
    constants: Mapping[str, Any]  # of TransactionRoutingEnv
    known: tuple[str, ...]  # those of them that FILE.constants.json gave
    notes: tuple[str, ...]  # lines of the report: what was dropped, sorted or filled in, and why
    fees_given: bool  # by a column, for every channel

    def __deepcopy__(self, memo: dict) -> Log:
        return self

    def part(self, evaluation: bool) -> slice:
        """The transactions of the test part or of the training part."""
        return slice(self.training, None) if evaluation else slice(0, self.training)


def load_log(path: str | Path) -> Log:
    """Read, check and split a file, and fit the constants. The same file is read once.

    Raises FileNotFoundError, or ValueError naming the lines that cannot be used, what was found and what to do.
    """
    path = Path(path).resolve()
    return _load(path, stamps(path))


@functools.lru_cache(maxsize=4)
def _load(path: Path, _: tuple) -> Log:  # the stamps make a changed file another one
    rows = read_rows(path)
    count, notes = len(rows.frame), [note for check in checks.CHECKS for note in check(rows)]
    rows, repeats = without_repeats(rows)
    notes += [*checks.one_hour_twice(rows), *checks.no_router_of_sums(rows), *_about(rows), *repeats]
    frame, more = _in_order(rows.frame)
    frame, training, dropped = _split(path, frame)
    return _fitted(path, count, frame, training, [*notes, *more, *dropped])


# --- rows -------------------------------------------------------------------------------------------------------------


def _about(rows: Rows) -> list[str]:
    """Notes on what of the file is not used."""
    notes = [f"skipped: {counted(rows.blank, 'empty line')}"] if rows.blank else []
    if rows.unused:
        notes.append(f"not used: {some(rows.unused)} (channels are fitted where both channel and settled_at are given)")
    if ignored := [name for name in (*rows.ignored, *rows.currencies, *rows.statuses) if name]:
        notes.append(f"ignored columns: {some(ignored)}")
    if "urgent" not in rows.columns:
        notes.append("no column urgent: every transaction counts as standard")
    return notes


def _in_order(frame: Any) -> tuple[Any, list[str]]:
    """Sorted by time, spread over what the stamps leave open; a column `seconds` since the first midnight."""
    notes, when = [], frame["timestamp"]
    late = int((np.diff(when.to_numpy()) < np.timedelta64(0)).sum())
    if late:
        notes.append(f"order: {counted(late, 'row')} older than the one above; sorted by time")
    written = (when - when.min().normalize()).to_numpy().astype("timedelta64[us]").astype(np.int64)
    open_us, more = left_open(written)
    notes += more
    seconds = 1e-6 * written
    if open_us.any():
        seconds += 1e-6 * open_us * np.random.default_rng(0).random(len(seconds))
    if (np.diff(seconds) < 0).any():
        order = np.argsort(seconds, kind="stable")
        frame, seconds = frame.iloc[order], seconds[order]
    frame = frame.reset_index(drop=True)
    if "settled_at" in frame:
        frame["latency"] = (frame["settled_at"] - frame["timestamp"]).dt.total_seconds()
    frame = frame.drop(columns=["line", "again", "bare", "settled_at", "settled_bare"], errors="ignore")
    frame["seconds"] = seconds
    frame["urgent"] = frame["urgent"] if "urgent" in frame else False
    hours = seconds // 3600
    silent = int(hours[-1] - hours[0] + 1 - len(np.unique(hours)))
    if silent:
        longest = int(np.diff(seconds).argmax())
        long = timedelta(seconds=round(seconds[longest + 1] - seconds[longest]))
        start = frame["timestamp"][longest]
        notes.append(f"gaps: {counted(silent, 'hour')} without a transaction, the longest silence {long} from {start}")
    return frame, notes


def left_open(written: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Times (K,) in whole microseconds -> how much of each its stamp leaves open, in microseconds, and notes.

    Otherwise everything of a second, or of an hour, would arrive in one step. All stamps may be whole minutes; or some,
    where they are many more than stamps of seconds would be by chance.
    """
    unit = int(np.gcd.reduce(written[:1000]))
    unit = int(np.gcd.reduce(written)) if unit >= FINE else unit
    wide, notes = np.full(len(written), float(unit if unit >= FINE else 0)), []
    if unit >= FINE:
        notes.append(f"{CAUTION if unit >= COARSE else ''}timestamps are {_unit(unit)}: spread evenly within them")
    rest = np.ones(len(written), bool)
    for coarse, finer in COARSER:
        whole = (written % coarse == 0) & rest
        among = written[(written % finer == 0) & rest]
        chance = len(among) * int(np.gcd.reduce(among)) / coarse
        if unit < coarse and whole.sum() - chance > max(ROUNDED * len(written), 5.0 * chance**0.5):
            width = int(np.gcd.reduce(written[whole]))
            wide[whole], rest = width, rest & ~whole
            found = f"{counted(int(whole.sum()), 'timestamp')} are {_unit(width)}, others finer"
            notes.append(f"{CAUTION}{found}: spread evenly within them")
    return wide, notes


def _unit(microseconds: int) -> str:
    return UNITS.get(microseconds, f"in steps of {duration(1e-6 * microseconds)}")


def _split(path: Path, frame: Any) -> tuple[Any, int, list[str]]:
    """The rows, how many of them are of the training days, and notes on what differs between the two parts."""
    day = frame["timestamp"].dt.normalize()
    days = day.drop_duplicates()
    if len(days) < 2:
        raise ValueError(
            f"{path}: all transactions are of {days.iloc[0].date()}, too little data; give two days or "
            "more, the newest quarter of the days is kept for the test"
        )
    first = days.iloc[-max(1, int(TEST_SHARE * len(days) + 0.5))]
    in_training = (day < first).to_numpy()
    routers = frame["router"][in_training].unique()
    if len(routers) < 2:
        raise ValueError(
            f"{path}: only the router {routers[0]!r} was found (in training, before {first.date()}); give "
            "two or more, one name each in the column router"
        )
    notes = checks.business_in_the_test(path, frame["timestamp"], in_training, first)
    new = ~frame["router"].isin(routers).to_numpy()
    if new[~in_training].mean() > NEW:
        raise ValueError(
            f"{path}: {some(frame['router'][new].unique())} begin on the test days, since {first.date()}, with most of "
            "their transactions; give the routers one name each throughout"
        )
    notes += checks.names_that_last(path, frame, first)
    if new.any():
        names = some(frame["router"][new].unique())
        notes += [f"{CAUTION}dropped: {counted(int(new.sum()), 'transaction')} of {names}, first seen on the test days"]
        frame = frame[~new].reset_index(drop=True)
    return frame, int(in_training.sum()), notes


# --- constants --------------------------------------------------------------------------------------------------------


def _fitted(path: Path, rows: int, frame: Any, training: int, notes: list[str]) -> Log:
    """Fit everything on the first `training` rows."""
    before = frame[:training]
    routers = tuple(sorted(map(str, before["router"].unique())))
    router = frame["router"].cat.set_categories(routers).cat.codes.to_numpy(np.int64)
    shares = np.bincount(router[:training], minlength=len(routers)) / training  # (N,)
    busy, speed, total = _clock(before, shares.max())
    seconds = frame["seconds"].to_numpy()
    constants = {"arrival_rates": total * shares, "load": 1.0, "burst_factors": np.ones(len(routers))}
    constants |= {"episode_steps": _steps(path, seconds, training, speed)}
    constants |= _amount_constants(before, router[:training], len(routers))
    channel = latency = None
    if "channel" in frame:
        names, fitted, more = fit_channels(path, before, speed, total)
        missing = ~frame["channel"].isin(names).to_numpy()
        if missing.any():
            raise ValueError(
                f"{path}: the channel {frame['channel'][missing].iloc[0]!r} is on the test days alone, so "
                "nothing is known of it; leave its rows out, or give more days"
            )
        channel = frame["channel"].cat.set_categories(names).cat.codes.to_numpy(np.int64)
        latency = frame["latency"].to_numpy()
        constants, notes = constants | fitted, [*notes, *more]
    else:
        constants |= unknown_channels(total)
    fees_given = {"channel", "fee"} <= set(before) and bool(
        (before.groupby("channel", observed=True)["fee"].count() > 0).all()
    )
    channels = constants.get("channel_names", RoutingConstants().channel_names)
    names = {**dict.fromkeys(PER_ROUTER, routers), **dict.fromkeys(PER_CHANNEL, channels)}
    known = _known_constants(path, names, speed)
    constants = {name: tuple(v.tolist()) if isinstance(v, np.ndarray) else v for name, v in (constants | known).items()}
    try:
        routing_constants("medium", None, constants)
    except ValueError as error:
        raise ValueError(f"{constants_path(path) if known else path}: {error}") from None
    midnight = frame["timestamp"].iloc[0].normalize().to_pydatetime()
    return Log(
        path,
        rows,
        routers,
        midnight,
        seconds,
        router,
        frame["amount"].to_numpy(),
        frame["urgent"].to_numpy(bool),
        channel,
        latency,
        training,
        speed,
        busy,
        constants,
        tuple(known),
        tuple(sorted(notes, key=lambda note: not note.startswith(CAUTION))),  # what must be read first
        fees_given,
    )


def _clock(before: Any, largest_share: float) -> tuple[float, float, float]:
    """Training rows -> transactions in the busy hour, seconds of the log in a simulated one, transactions a step then.

    largest_share: of the busiest router, which can send one transaction a step.
    """
    k, hours = RoutingConstants(), np.bincount((before["seconds"].to_numpy() // 3600).astype(int))
    busy = float(np.percentile(hours[hours > 0], BUSY_PERCENT))
    total = min(sum(k.arrival_rates), ROUTER_LIMIT / largest_share)
    step = total / (busy / 3600.0)  # seconds of the log
    if "channel" in before:
        step = np.clip(fastest_base(before) / BASE_STEPS, SLOWEST * step, step)
    return busy, float(step / (0.001 * k.step_ms)), float(step * busy / 3600.0)


def _steps(path: Path, seconds: np.ndarray, training: int, speed: float) -> int:
    """T, and a ValueError where the parts hold too few episodes."""
    test, train = seconds[training:], seconds[:training]
    step = speed * 0.001 * RoutingConstants().step_ms  # seconds of the log
    steps = [int((part[-1] - part[0]) / step) if len(part) else 0 for part in (train, test)]
    fewest = STEPS[0] * np.array([TRAINING_EPISODES, TEST_EPISODES])
    if len(test) < FEWEST or len(train) < 2 * FEWEST or (steps < fewest).any():
        found = [f"{len(part):,} transactions in {n:,} steps" for part, n in zip((train, test), steps, strict=True)]
        raise ValueError(
            f"{path}: {found[0]} were found on the training days and {found[1]} on the test days, too "
            f"little data; give more days: at least {2 * FEWEST} in {fewest[0]}, and {FEWEST} in "
            f"{fewest[1]} (a step is {duration(step)} of your log)"
        )
    return int(np.clip(steps[1] // TEST_EPISODES, *STEPS))


def _amount_constants(before: Any, router: np.ndarray, n: int) -> dict[str, Any]:
    """Amounts and urgency of each router. The amount of size 1 stays in the default ratio to the geometric mean."""
    k, logs = RoutingConstants(), np.log(before["amount"].to_numpy())
    medians = np.array([np.median(logs[router == i]) for i in range(n)])  # (N,) of the logarithm
    typical = np.average(np.log(k.amount_medians), weights=k.arrival_rates)
    urgent = before["urgent"].to_numpy(float)
    return {
        "amount_medians": np.exp(medians),
        "amount_sigma": float((logs - medians[router]).std()),
        "amount_range": (float(np.exp(logs.min())), float(np.exp(logs.max()))),
        "size_reference": float(k.size_reference * np.exp(logs.mean() - typical)),
        "urgent_probabilities": np.array([urgent[router == i].mean() for i in range(n)]),
    }


def _known_constants(path: Path, names: Mapping[str, tuple[str, ...]], speed: float) -> dict[str, Any]:
    """Constants of a JSON file in time of the log -> in time of the simulation. Some are given by name."""
    known, path = stated_constants(path, FITTED, '{"latency_target_ms": 60000}'), constants_path(path)
    for name, value in known.items():
        if isinstance(value, dict):
            members = names.get(name, ())
            if set(value) != set(members):
                raise ValueError(
                    f"{path}: {name!r} is given for {some(value)}; give "
                    + (f"it for {some(members, 50)}" if members else "one number")
                )
            value = [value[member] for member in members]
        if name in DIVIDED or name in MULTIPLIED:
            try:
                value = np.asarray(value, dtype=float) * (speed if name in MULTIPLIED else 1.0 / speed)
            except (TypeError, ValueError, OverflowError):
                raise ValueError(f"{path}: {name!r} is {reprlib.repr(value)}; give numbers") from None
            value = value.tolist()
        known[name] = tuple(value) if isinstance(value, list) else value
    return known
