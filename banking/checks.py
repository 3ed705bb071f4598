"""One look at a user's transactions: each check refuses what would be read wrongly, or returns notes for the report.

A note that begins with CAUTION stands before the training and beside every result. What retail asks too:
core/experiment/reporting/checks.py. Shapes: K rows, in the order of the file.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import numpy as np

from banking.rows import Rows
from core.experiment.reporting import checks
from core.experiment.reporting.csv_table import counted, duration, some

FAR_DAYS = 7  # a silence of at least so many days, as long as all the rest together, makes a date a far one
MIDNIGHTS, FEWEST_MIDNIGHTS = 0.01, 20  # share and number of rows at 0:00:00 from which their time of day was lost
PERIOD = 3600.0  # seconds: coarser times than whole hours say nothing about queues
BATCHES = 3.0  # settlements that stand so many times as close together as the transactions do come in batches
BATCH_BINS = 10.0  # of a median time to settlement: how closely that is looked at
BATCHED = "routing changes no time to settlement there, do not rely on the results"
BATCH_ROWS = 100  # settled transactions that tell
FEW = 0.01  # share of the transactions below which a router that ends or begins is not worth a word
SILENT = 20.0  # mean times between its transactions, and a day, after which a router has ended
RENAMED_DAYS = 2  # from the end of one name to the beginning of another
QUIET = 0.5  # share of the training days' traffic below which the test days are told to be quiet
# What a status says about a payment that moved no money, or not yet; and about one that did.
FAILED = re.compile(
    r"fail|declin|reject|refus|den(?:y|ied)|revers|cancel|abort|error|time.?d?.?out|expire|void|charge.?(?:back|d.back)"
    r"|refund|return|disput|blocked|insufficient|invalid|unsuccess|\bno[nt]?\b.?(?:ok|paid|success|approv|accept|honou?r)"
    r"|\bko\b|\bnok\b|pending|processing|in.progress|queued|\bopen\b|hold|initiated|incomplete|unpaid",
    re.IGNORECASE,
)
PASSED = re.compile(
    r"\b(?:ok|paid|done|sent|booked)\b|succe|complet|settled|approv|accept|captur|authori|processed|clear|post|execut"
    r"|confirm|\bpass",
    re.IGNORECASE,
)
NOTHING = re.compile(r"(?:0*|200|ok|no|n|false|none|null|nan|approved)", re.IGNORECASE)  # wrong, by a code or a reason
FAULT = re.compile(r"\b(?:error|decline|failure|reject|rejection)( (?:code|reason|message|text))?$")  # such a column
NO, YES = ("0", "false", "no", "n", "f"), ("1", "true", "yes", "y", "t")
MOST_WORDS = 30  # different values of a column that is to be understood


# --- names ------------------------------------------------------------------------------------------------------------


def one_name_each(rows: Rows) -> list[str]:
    """Refuse names that differ only in how they are written."""
    for column in ("router", "channel"):
        if column in rows.columns:
            checks.names_alike(rows.names(column), column)
    return []


def no_router_of_sums(rows: Rows) -> list[str]:
    """Refuse a router that lists what the others send once more."""
    frame = rows.frame
    day = frame["timestamp"].dt.normalize()
    sums = frame.groupby([day, "router"], observed=True)["amount"].sum().unstack(fill_value=0.0)
    if sums.shape[1] == 2 and _mirrored(frame):
        raise ValueError(
            f"{rows.path}: {some(map(repr, sums.columns))} list the same payments, as both sides of an account do: "
            "leave the rows of one out"
        )
    if frame["amount"].min() < frame["amount"].max():  # sums of equal amounts are often equal
        checks.no_sums(rows.path, sums.columns.astype(str), sums.to_numpy())
    return []


def _mirrored(frame: Any) -> bool:
    """Whether two routers list the same amounts at the same times."""
    first = (frame["router"] == frame["router"].iloc[0]).to_numpy()
    one, other = (frame.loc[own, ["timestamp", "amount"]].value_counts() for own in (first, ~first))
    return bool(
        (one.eq(other.reindex(one.index)).mean() >= checks.SUMS) and abs(len(one) - len(other)) < FEW * len(one)
    )


# --- amounts ----------------------------------------------------------------------------------------------------------


def no_far_values(rows: Rows) -> list[str]:
    """Cautions on amounts, and on times to settlement, far above all others."""
    notes = checks.far_values(rows, "amount", rows.frame["amount"].to_numpy())
    if rows.fitted:
        took = (rows.frame["settled_at"] - rows.frame["timestamp"]).dt.total_seconds().fillna(0.0)
        notes += checks.far_values(rows, "the time to settlement", took.to_numpy())
    return notes


def one_currency(rows: Rows) -> list[str]:
    """A caution on amounts in several currencies."""
    several = {name: _counts(rows, name) for name in rows.currencies}
    return [
        f"{checks.CAUTION}amounts of several currencies ({name}: {_listed(counts)}) are taken as one: convert them"
        for name, counts in several.items()
        if 1 < len(counts) <= MOST_WORDS
    ]


def failed_payments(rows: Rows) -> list[str]:
    """A caution on payments that failed, or are not over, and on what a column of statuses says in unknown words."""
    found = []
    for name in rows.statuses:
        counts = _counts(rows, name)
        words = {word.casefold() for word in counts}
        bad = {word: count for word, count in counts.items() if _failed(name, word, words)}
        unknown = [word for word in counts if word and word not in bad and not PASSED.search(word)]
        if bad:
            share = f"{counted(sum(bad.values()), 'payment')} of {len(rows.frame):,}"
            found.append(
                f"{checks.CAUTION}{share} did not go through, or not yet ({name}: {_listed(bad)}), and count like the "
                "others: leave their rows out if nothing was sent"
            )
        elif unknown and 1 < len(counts) <= MOST_WORDS and re.search("status|result|outcome|response", name):
            found.append(f"{checks.CAUTION}{name} has {_listed(counts)}: all count as payments that went through")
    return found


def _failed(column: str, word: str, words: set[str]) -> bool:
    """Whether `word` says so in a column that has `words`: yes and no, codes (0 is good), or what FAILED knows."""
    column = re.sub("[_.-]", " ", column)
    if words <= {*NO, *YES, ""} and not re.search("code|response", column):
        return word.casefold() in (YES if FAILED.search(column) else NO)
    if FAULT.search(column) or all(re.fullmatch(r"\d*", word) for word in words):
        return not NOTHING.fullmatch(word)
    return bool(FAILED.search(word))


def _counts(rows: Rows, column: str) -> dict[str, int]:
    """How often each value of a column of categories is there, in whatever case, the most frequent first."""
    written, counts = {}, {}
    for name, count in rows.frame[column].value_counts().items():
        first = written.setdefault(str(name).casefold(), str(name))
        counts[first] = counts.get(first, 0) + int(count)
    return {name: count for name, count in counts.items() if count}


def _listed(counts: dict[str, int]) -> str:
    return some(f"{name or 'nothing'} {count:,}" for name, count in counts.items())


# --- times ------------------------------------------------------------------------------------------------------------


def times_of_day(rows: Rows) -> list[str]:
    """Refuse stamps without a time of day, in all rows or in some: a day's transactions would all come at midnight."""
    frame, form = rows.frame, "export the time with the date, YYYY-MM-DD HH:MM:SS"
    of_day = (frame["timestamp"] - frame["timestamp"].dt.normalize()).dt.total_seconds().to_numpy()
    bare, lost = frame["bare"].to_numpy(), of_day == 0
    if lost.all():
        raise ValueError(
            f"{rows.path}: no timestamp has a time of day, so that all transactions would come at midnight; {form}"
        )
    if bare.any():
        found = f"{counted(int(bare.sum()), 'timestamp')} without a time of day (line {some(rows.lines[bare])})"
        raise ValueError(f"{rows.path}: {found}; {form}")
    distinct = np.unique(of_day)
    if len(distinct) <= 2 or np.gcd.reduce(distinct.astype(np.int64)) > PERIOD:
        told = some(str(timedelta(seconds=second)) for second in distinct.tolist())
        raise ValueError(f"{rows.path}: the only times of day are {told}, too coarse to tell what comes when; {form}")
    if lost.sum() > max(MIDNIGHTS * len(lost), FEWEST_MIDNIGHTS, (of_day % 3600 == 0).sum() / 8):  # 1 of 24 by chance
        found = f"{counted(int(lost.sum()), 'timestamp')} at 0:00:00 exactly (line {some(rows.lines[lost])})"
        raise ValueError(f"{rows.path}: {found}: their time of day was lost; {form}, or leave these rows out")
    return []


def settled_when(rows: Rows) -> list[str]:
    """Refuse settlements without a time of day."""
    bare = rows.frame["settled_bare"].to_numpy() if "settled_bare" in rows.columns else np.zeros(0, bool)
    if bare.any():
        found = f"{counted(int(bare.sum()), 'settled_at')} without a time of day (line {some(rows.lines[bare])})"
        raise ValueError(
            f"{rows.path}: {found}, as where payments settle in batches and routing changes nothing; export the time "
            "with the date, or leave the column out"
        )
    return []


def no_far_dates(rows: Rows) -> list[str]:
    """Refuse dates far from the rest, naming their lines."""
    day = rows.frame["timestamp"].to_numpy().astype("datetime64[D]")
    days = np.unique(day)
    silence = np.diff(days).astype(int) - 1
    if len(silence) and silence.max() >= FAR_DAYS:
        before = days[silence.argmax()]
        far = day <= before
        far = far if far.sum() < len(day) / 2 else ~far
        span = int((days[-1] - days[0]).astype(int)) + 1
        checks.no_far_dates(rows.path, int(silence.max()), span, before + 1, rows.lines[far])
    return []


def one_hour_twice(rows: Rows) -> list[str]:
    """A caution where the clock goes back by an hour, once, in a file that is in order otherwise."""
    step = np.diff(rows.frame["timestamp"].to_numpy()) / np.timedelta64(1, "s")
    back = np.flatnonzero(step < -60.0)
    if len(back) == 1 and -3600.0 <= step[back[0]] < -1200.0:
        line = rows.lines[back + 1][0]
        return [
            f"{checks.CAUTION}from line {line} on an hour is there twice, as where clocks are set back: both count as "
            "one hour; export the times in UTC"
        ]
    return []


# --- settlements ------------------------------------------------------------------------------------------------------


def no_batches(rows: Rows) -> list[str]:
    """A caution where payments settle together, at few moments: then no routing changes when.

    How closely times stand together is the number of bins that they are spread over, 1 / sum(share^2), bins being a
    tenth of the median time to settlement: in a queue, payments settle as spread out as they came.
    """
    if not rows.fitted:
        return []
    frame = rows.frame[rows.frame["settled_at"].notna()]
    came, settled = (1e-6 * _microseconds(frame[name]) for name in ("timestamp", "settled_at"))
    batched = []  # groups of one column
    for column in ("channel", "router"):
        groups = {name: (frame[column] == name).to_numpy() for name in frame[column].cat.categories}
        groups = {name: own for name, own in groups.items() if own.sum() >= BATCH_ROWS}
        found = [name for name, own in groups.items() if _closer(came[own], settled[own]) >= BATCHES]
        if found:
            told = f"those of {column} {some(map(repr, found))}" if len(found) < len(groups) else "all payments"
            batched.append((len(found) / len(groups), told))
    return [f"{checks.CAUTION}{min(batched)[1]} settle together, in batches: {BATCHED}"] if batched else []


def _closer(came: np.ndarray, settled: np.ndarray) -> float:
    """How many times as close together `settled` stands as `came`, (K,) seconds each."""
    width = max(float(np.median(settled - came)) / BATCH_BINS, 1.0)

    def spread(times: np.ndarray) -> float:
        counts = np.unique(times // width, return_counts=True)[1].astype(float)
        return counts.sum() ** 2 / (counts**2).sum()

    return spread(came) / spread(settled)


def coarse_settlements(rows: Rows) -> list[str]:
    """A caution where times are written too coarsely to tell how long a payment took."""
    if not rows.fitted:
        return []
    took = (rows.frame["settled_at"] - rows.frame["timestamp"]).dt.total_seconds().median()
    found = []
    for name in ("timestamp", "settled_at"):
        unit = 1e-6 * int(np.gcd.reduce(_microseconds(rows.frame[name].dropna())))
        if unit >= 1.0 and 2 * unit > took:
            told = f"{name} is written in steps of {duration(unit)}, and a payment takes {duration(took)}"
            found.append(f"{checks.CAUTION}{told}: times to settlement are rounded, do not rely on them")
    return found


def _microseconds(times: Any) -> np.ndarray:
    return times.to_numpy().astype("datetime64[us]").astype(np.int64)


# --- the two parts ----------------------------------------------------------------------------------------------------


def business_in_the_test(path: Any, when: Any, in_training: np.ndarray, first: Any) -> list[str]:
    """Refuse test days without traffic; a caution where they have much less, or more, than the training days."""
    hour = when.to_numpy().astype("datetime64[h]").astype(np.int64)
    cut = int(np.datetime64(first, "h").astype(np.int64) - hour.min())
    checks.business_in_the_test(path, np.bincount(hour - hour.min()) > 0, cut, first.date())
    day = when.dt.normalize()
    training, test = (int(part.sum()) / day[part].nunique() for part in (in_training, ~in_training))
    if QUIET <= test / training <= 1.0 / QUIET:
        return []
    found = (
        f"the test days, since {first.date()}, have {test:,.0f} transactions a day, the training days {training:,.0f}"
    )
    return [f"{checks.CAUTION}{found}: what was learnt on one may not hold on the other"]


def names_that_last(path: Any, frame: Any, first: Any) -> list[str]:
    """A caution on a router or channel that ends before the test days, or where another begins: renamed? Refused where
    that is on the test days, `first` being the first of them."""
    notes, whole = [], frame["timestamp"]
    for column in (name for name in ("router", "channel") if name in frame):
        seen = frame.groupby(column, observed=True)["timestamp"].agg(["min", "max", "count"])
        seen = seen[seen["count"] >= FEW * len(frame)]
        begins, ends = seen["min"], seen["max"]
        silence = (SILENT * (ends - begins) / seen["count"]).clip(lower=np.timedelta64(1, "D"))
        late = begins[begins - whole.min() > silence]
        for old, last in ends[whole.max() - ends > silence].items():
            heirs = late[(late - last).abs() <= np.timedelta64(RENAMED_DAYS, "D")]
            told = f"{column} {old!r} ends on {last.date()}, where {some(map(repr, heirs.index))} begins: renamed?"
            if (heirs >= first).any():
                raise ValueError(f"{path}: {told} Write one name throughout")
            if len(heirs):
                notes.append(f"{checks.CAUTION}{told} One name throughout would be one {column}")
            elif last < first:
                notes.append(f"{checks.CAUTION}{column} {old!r} has nothing on the test days, the last is of {last}")
    return notes


CHECKS = (
    one_name_each,
    times_of_day,
    settled_when,
    no_far_dates,
    no_far_values,
    one_currency,
    failed_payments,
    no_batches,
    coarse_settlements,
)  # on the whole file, in this order
