"""What evaluations say: means with intervals, paired comparisons, and a table for the terminal.

The evaluation table has a row per policy, training seed and episode. Every policy met the same episodes, so two are
compared pair by pair: the differences vary far less than the costs do. An interval holds the luck of the episodes and,
over several trainings, theirs too.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.experiment.reporting.windows import days_needed, independent
from core.experiment.tuning import half_width, plus_minus

BEFORE, AFTER = "before training", "after training"
KNOWN = "after training, known consequences"  # the same algorithm, but told what each action did; in training alone
TRAINED = (AFTER, KNOWN)
OWN = "your rule"  # of --rule
KEYS = ("policy", "training_seed", "episode", "seed")
START, LENGTH = "window_start", "window_length"  # of an episode cut out of recorded data, in periods of the test part
BOUND = "clairvoyant bound"
HUNDREDFOLD = 10_000.0  # %
CURVE_EPISODES = 100  # of each evaluation on the way, the first of the unseen ones: enough for a point of the curve


@dataclass
class Results:
    """Everything that a run leaves behind for its report."""

    algorithm: str
    episodes: int  # of training
    histories: Mapping[int, Any]  # training seed -> history, a row per training episode
    evaluation: Any  # pandas table, a row per policy, training seed and episode
    steps: Sequence[Mapping[str, Any]]  # one evaluated episode of the team, step by step
    weights: Mapping[str, str] = field(default_factory=dict)  # metric that is a share -> the one that it is a share of
    known: Mapping[int, Any] = field(default_factory=dict)  # as histories, of the trainings with known consequences
    rule: str = ""  # whose decisions stand beside the team's
    rule_steps: Sequence[Mapping[str, Any]] = ()  # the same episode by that rule
    period: str = "day"  # of recorded data
    by_period: Any = None  # of recorded data: a row a policy, training seed and period, where metrics are known by it
    levels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # tuned rule -> its numbers, by name
    all_seeing: Sequence[str] = ()  # rules that need more than an agent sees
    plays: int = 1  # times that each training episode is played where consequences are known

    @property
    def evaluated(self) -> int:
        """Episodes a policy was evaluated on."""
        return int(self.evaluation["episode"].nunique())

    @property
    def policies(self) -> list[str]:
        return list(dict.fromkeys(self.evaluation["policy"]))

    @property
    def baselines(self) -> list[str]:
        return [policy for policy in self.policies if policy not in (BEFORE, *TRAINED)]

    @property
    def metrics(self) -> list[str]:
        return [column for column in self.evaluation.columns if column not in (*KEYS, START, LENGTH)]

    @functools.cached_property
    def _of_windows(self) -> np.ndarray | None:
        """Weights that make independent samples of episodes that are overlapping windows; None where too few."""
        episodes = self.evaluation.groupby("episode")[[START, LENGTH]].first()
        return independent(episodes[START].to_numpy(float), float(episodes[LENGTH].iloc[0]))

    @functools.cached_property
    def _of_periods(self) -> np.ndarray | None:
        """The same of the values that `by_seed` gives of periods."""
        there, needed = self._covered
        if there < needed:
            return None
        met = self.by_period.groupby("period")["times"].first()  # the same for every policy
        times = met.to_numpy(float)
        weights = independent(met.index.to_numpy(float), 1.0, times)
        return None if weights is None else weights / (len(times) * times / times.sum())

    @property
    def _covered(self) -> tuple[float, int]:
        """How many periods the windows cover, and how many it takes for an interval."""
        length = float(self.evaluation[LENGTH].iloc[0])
        return float(np.ptp(self.evaluation[START])) + length, days_needed(length, self.by_period is not None)

    def _periods(self, policy: str, metric: str) -> tuple[dict[Any, np.ndarray], np.ndarray]:
        """Training seed -> (P,) values of the periods that were met; and how often they were, (P,)."""
        import pandas as pd

        rows, found = self.by_period[self.by_period["policy"] == policy].sort_values("period"), {}
        for seed, part in rows.groupby("training_seed", dropna=False):
            times, values = part["times"].to_numpy(), part[metric].to_numpy()
            if metric in self.weights:
                weights = part[self.weights[metric]].to_numpy()
                mean = (times @ values) / max(times @ weights, 1e-12)
                values = mean + (values - mean * weights) * times.sum() / max(times @ weights, 1e-12)
            found[None if pd.isna(seed) else seed] = values
        return found, times

    def _told_by_period(self, metric: str) -> bool:
        return self.by_period is not None and metric in self.by_period

    @property
    def no_interval(self) -> str:
        """Why no interval can be given, and what would give one; "" where there are intervals."""
        if START not in self.evaluation:
            found = "One episode has no interval: give --eval-episodes 2 or more, best 100."
            return found if self.evaluated < 2 else ""
        if (self._of_windows if self.by_period is None else self._of_periods) is not None:
            return ""
        there, needed = self._covered
        length = float(self.evaluation[LENGTH].iloc[0])
        few = f"{there:.3g} {self.period}s with episodes of {length:.3g}"
        if there >= needed:
            return f"No interval: too few episodes over {few}; give --eval-episodes 100 or more."
        return (
            f"No interval: episodes cover {few}, too few to tell luck from merit. "
            f"It takes a test part of {needed} {self.period}s, the newest quarter of a file of {4 * needed}."
        )

    @property
    def luck(self) -> str:
        """Which luck the intervals hold, that of the episodes and that of the trainings, and which they lack."""
        seeds, what = len(self.histories), "the test period" if START in self.evaluation else "the episodes"
        one = "the luck of training is not in it; train.py --seeds 0 1 2 puts it in."
        if self.no_interval:
            return self.no_interval + (f" Of the one training: {one}" if seeds == 1 else "")
        if seeds > 1:
            return f"The interval holds the luck of {what} and, of trained teams, that of {seeds} trainings."
        return f"The interval holds the luck of {what}. Of the one training: {one}"

    def samples(self, policy: str, metric: str) -> np.ndarray:
        """Independent samples around the metric's mean: its episodes, or the means of training seeds when there are
        several. Windows of recorded data become as many samples as they are worth: one, where they allow no interval.
        """
        parts = self.by_seed(policy, metric)
        if len(parts) > 1:
            return np.array([values.mean() for values in parts.values()])
        return self._together(*parts.values(), metric)

    def by_seed(self, policy: str, metric: str) -> dict[Any, np.ndarray]:
        """Training seed -> values of the episodes, in order; their mean is the metric's. Of recorded data whose metric
        is known by period: values of the periods, which count as often as episodes met them.

        The mean of a share is taken over all that it is a share of: of a metric in `weights`, episodes weigh as much
        as they have of that. This is a ratio, whose error is that of the values returned (Cochran 1977, section 2.11).
        """
        if self._told_by_period(metric):
            of_seeds, times = self._periods(policy, metric)
            return {seed: values * len(times) * times / times.sum() for seed, values in of_seeds.items()}
        found = {}
        for seed, part in self._trainings.get(policy, ()):
            values = part[metric].to_numpy(dtype=float)
            if metric in self.weights:
                weights = part[self.weights[metric]].to_numpy(dtype=float)
                weights = weights / max(weights.mean(), 1e-12)
                values = (weights * values).mean() + weights * (values - (weights * values).mean())
            found[seed] = values
        return found

    @functools.cached_property
    def _trainings(self) -> dict[str, list[tuple[Any, Any]]]:
        """Policy -> (training seed, rows of its episodes in order) of each training; every figure asks for them."""
        import pandas as pd

        found: dict[str, list[tuple[Any, Any]]] = {}
        ordered = self.evaluation.sort_values("episode")
        for (policy, seed), part in ordered.groupby(["policy", "training_seed"], dropna=False):
            found.setdefault(policy, []).append((None if pd.isna(seed) else seed, part))
        return found

    def _together(self, values: np.ndarray, metric: str) -> np.ndarray:
        if START not in self.evaluation:
            return values
        weights = self._of_periods if self._told_by_period(metric) else self._of_windows
        return values.mean(keepdims=True) if weights is None else weights @ values

    def _half_width(self, seeds: Sequence[np.ndarray], metric: str) -> float:
        """Half the 95 % interval of the mean of the values that `by_seed` gives of each training; NaN where none.

        The trainings share the luck of the episodes, and each has its own: two errors that add up.
        """
        sources = [self._together(np.mean(seeds, axis=0), metric)]
        return half_width(*sources, *([np.array([v.mean() for v in seeds])] if len(seeds) > 1 else []))

    def mean(self, policy: str, metric: str) -> float:
        return float(np.mean([values.mean() for values in self.by_seed(policy, metric).values()]))

    def interval(self, policy: str, metric: str) -> float:
        """Half the width of the 95 % interval of the mean; NaN where there is none (see `no_interval`)."""
        return self._half_width(list(self.by_seed(policy, metric).values()), metric)

    def gap(self, policy: str, rival: str, metric: str) -> tuple[float, float]:
        """How much lower `policy` is than `rival`, % of the rival's mean, and half its 95 % interval. Paired.

        Over several training seeds, each seed's values against the rival's on the same episodes. The rival's mean is
        uncertain too: the interval is that of a ratio of two means.
        """
        own, others = self.by_seed(policy, metric), self.by_seed(rival, metric)
        one = next(iter(others.values()))  # of a rule, which has no seed
        pairs = [(values, others.get(seed, one)) for seed, values in own.items()]
        mine, reference = (float(np.mean([pair[k].mean() for pair in pairs])) for k in (0, 1))
        reference = reference if abs(reference) > 1e-12 else 1e-12
        errors = [(theirs * mine / reference - values) / abs(reference) for values, theirs in pairs]
        return 100.0 * (reference - mine) / abs(reference), 100.0 * self._half_width(errors, metric)

    def difference(self, policy: str, rival: str, metric: str) -> tuple[float, float]:
        """By how much `rival` is above `policy`, and half the 95 % interval. Paired, as in `gap`."""
        own, others = self.by_seed(policy, metric), self.by_seed(rival, metric)
        one = next(iter(others.values()))
        changes = [others.get(seed, one) - values for seed, values in own.items()]
        return float(np.mean([change.mean() for change in changes])), self._half_width(changes, metric)

    def on_the_way(self) -> Results:
        """The same, of the episodes alone that the team was evaluated on while it trained."""
        return replace(self, evaluation=self.evaluation[self.evaluation["episode"] < CURVE_EPISODES], by_period=None)

    @property
    def trained(self) -> list[str]:
        """The trained forms of the team, the better one first."""
        found = [policy for policy in TRAINED if policy in self.policies]
        return sorted(found, key=lambda policy: -self.mean(policy, "team_return"))

    def ranked(self, metric: str) -> list[str]:
        """Before, after, then the baselines from the worst to the best by a metric of which less is better."""
        team = [policy for policy in (BEFORE, *TRAINED) if policy in self.policies]
        return [*team, *sorted(self.baselines, key=lambda policy: -self.mean(policy, metric))]

    def curves(self, metric: str, sign: float = 1.0):
        """The learning curves of each form and training, for `plotting.learning_curve`; values times `sign`."""
        from core.experiment.reporting.plotting import Curve

        forms = {}
        for name, histories in ((AFTER, self.histories), (KNOWN, self.known)):
            for history in histories.values():
                episodes, values = history["episode"].to_numpy() + 1, sign * history[metric].to_numpy(dtype=float)
                unseen = sign * np.asarray(history.get(f"evaluation_{metric}", np.full(len(history), np.nan)))
                there = np.flatnonzero(np.isfinite(unseen))
                forms.setdefault(name, []).append(Curve(episodes, values, (episodes[there], unseen[there])))
        return forms


def summary_table(results: Results):
    """A row per policy: seeds, episodes, and for every metric its mean and half its 95 % interval."""
    import pandas as pd

    rows = []
    for policy in results.policies:
        own = results.evaluation[results.evaluation["policy"] == policy]
        row = {"policy": policy, "training_seeds": max(1, own["training_seed"].nunique()), "episodes": len(own)}
        for metric in results.metrics:
            row[metric], row[f"{metric}_ci95"] = results.mean(policy, metric), results.interval(policy, metric)
        rows.append(row)
    return pd.DataFrame(rows)


def policy_table(results: Results, columns: Sequence[tuple[str, str, str]], gap: Gap | None = None) -> str:
    """Policies from the worst team reward to the best, mean ± half the 95 % interval, aligned for a terminal."""
    order = sorted(results.policies, key=lambda policy: results.mean(policy, "team_return"))
    rows = [["", *(header for header, _, _ in columns), *(["gap closed, %"] if gap else [])]]
    for policy in order:
        mark = "> " if policy in (BEFORE, *TRAINED) else "  "
        cells = [
            plus_minus(number, results.mean(policy, metric), results.interval(policy, metric))
            for _, metric, number in columns
        ]
        cells += [gap.closed(results.mean(policy, gap.metric))] if gap else []
        rows.append([mark + policy, *cells])
    return aligned(rows)


@dataclass(frozen=True)
class Gap:
    """From a plain rule to what no policy can beat on average."""

    plain: str  # the plain rule
    metric: str
    rule: float  # mean of the plain rule
    bound: float  # mean of the bound
    half_width: float  # of the bound's 95 % interval

    def closed(self, value: float, rule: float | None = None) -> str:
        """(rule - value) / (rule - bound), %: 0 the plain rule (or another), 100 the bound; below 0 is worse."""
        rule = self.rule if rule is None else rule
        return f"{round(100.0 * (rule - value) / (rule - self.bound))}"  # an integer: no "-0"


def stored_gap(table: Path, difficulty: str, plain: str, means: Mapping[str, float]) -> Gap | None:
    """The gap above a plain rule, from the bounds that tests/benchmarks/bounds.py stored; None if they do not tell it.

    A bound is known on the first evaluation episodes only. There are two estimates of its mean over those that the
    policies of `means` (of each rule, in the bound's metric) were judged on: the mean over the first, and the best
    tuned rule's mean over all plus the bound's mean distance to that rule on the first. The one with the smaller
    interval is taken: the distance where bound and rule rise and fall together.
    """
    import pandas as pd

    stored = pd.read_csv(table)
    found = stored[(stored["difficulty"] == difficulty) & (stored["name"] == BOUND)]
    if found.empty or plain not in means:
        return None
    row = found.iloc[0]
    if row["best_rule"] not in means or row["half_width"] <= row["difference_half_width"]:
        return Gap(plain, row["metric"], means[plain], float(row["mean"]), float(row["half_width"]))
    bound = means[row["best_rule"]] + row["difference"]
    return Gap(plain, row["metric"], means[plain], float(bound), float(row["difference_half_width"]))


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text: the first column to the left, the others to the right, a rule under the header.

    A header that is longer than what stands under it takes several lines.
    """
    head, body = rows[0], rows[1:]
    widths = [max([1, *(len(row[i]) for row in body), *map(len, head[i].split())]) for i in range(len(head))]
    wrapped = [textwrap.wrap(text, width) for text, width in zip(head, widths, strict=True)]
    tall = max(map(len, wrapped))
    wrapped = [[""] * (tall - len(lines)) + lines for lines in wrapped]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in [*zip(*wrapped, strict=True), *body]
    ]
    return "\n".join([*lines[:tall], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[tall:]])


def gap_words(results: Results, policy: str, rival: str, metric: str, lower: str, higher: str) -> str:
    """'46.1 % ± 2.0 cheaper', and where the interval holds zero '3.0 % ± 8.0 dearer (may be luck)'."""
    percent, width = results.gap(policy, rival, metric)
    if round(percent, 1) == 0.0 and not width > 0.05:
        return f"no {lower}"
    word = lower if percent > 0 else higher
    if abs(percent) > HUNDREDFOLD:  # beside next to nothing a percentage says little
        return f"more than a hundred times {word}"
    luck = " (may be luck)" if abs(percent) <= width else ""
    return f"{plus_minus('{:.1f}', abs(percent), width, ' %')} {word}{luck}"


def gap_lines(
    results: Results, rivals: Sequence[str], gaps: Sequence[tuple[str, ...]], policy: str = AFTER
) -> list[str]:
    """Sentences such as "46.1 % ± 2.0 cheaper than before training".

    Against the policy before the training, the rivals, and whichever classical rule is best. gaps: (metric, word where
    the policy has less of it, word where it has more); or (metric, sentence with its mean and the rival's in braces),
    of one in % already, of which no percentage is made.
    """
    lines = []
    best = max(results.baselines, key=lambda rule: results.mean(rule, "team_return"), default=BEFORE)
    for rival in dict.fromkeys([BEFORE, *(rival for rival in rivals if rival in results.policies), best]):
        words = [gap_words(results, policy, rival, *gap) for gap in gaps if len(gap) == 3]
        line = f"{', '.join(words)} than {rival}" + (", the best rule" if rival == best else "")
        levels = [gap for gap in gaps if len(gap) == 2]
        line += "".join(f"; {text.format(*(results.mean(p, m) for p in (policy, rival)))}" for m, text in levels)
        lines.append(line)
    return lines
