"""What evaluations say: means with intervals, paired comparisons, and a table for the terminal.

The evaluation table has a row per policy, training seed and episode. Every policy met the same episodes, so two are
compared pair by pair: the differences vary far less than the costs do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.experiment.evaluation import half_width

BEFORE, AFTER = "before training", "after training"
KNOWN = "after training, known consequences"  # the same algorithm, but told what each action did; in training alone
TRAINED = (AFTER, KNOWN)
OWN = "your rule"  # of --rule
KEYS = ("policy", "training_seed", "episode", "seed")
WINDOW = "window"  # of recorded data: episodes with the same number share periods, those with another hardly do
BOUND = "clairvoyant bound"
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
        return [column for column in self.evaluation.columns if column not in (*KEYS, WINDOW)]

    def samples(self, policy: str, metric: str) -> np.ndarray:
        """Independent samples around the metric's mean: its episodes, or the means of training seeds when there are
        several. Episodes that share recorded periods (the same "window") are one sample together."""
        parts = self.by_seed(policy, metric)
        if len(parts) > 1:
            return np.array([values.mean() for values in parts.values()])
        return self._together(*parts.values())

    def by_seed(self, policy: str, metric: str) -> dict[Any, np.ndarray]:
        """Training seed -> values of the episodes, in order; their mean is the metric's.

        The mean of a share is taken over all that it is a share of: of a metric in `weights`, episodes weigh as much
        as they have of that. This is a ratio, whose error is that of the values returned (Cochran 1977, section 2.11).
        """
        import pandas as pd

        rows, found = self.evaluation[self.evaluation["policy"] == policy].sort_values("episode"), {}
        for seed, part in rows.groupby("training_seed", dropna=False):
            values = part[metric].to_numpy(dtype=float)
            if metric in self.weights:
                weights = part[self.weights[metric]].to_numpy(dtype=float)
                weights = weights / max(weights.mean(), 1e-12)
                values = (weights * values).mean() + weights * (values - (weights * values).mean())
            found[None if pd.isna(seed) else seed] = values
        return found

    def _together(self, values: np.ndarray) -> np.ndarray:
        if WINDOW not in self.evaluation:
            return values
        windows = self.evaluation.groupby("episode")[WINDOW].first().to_numpy()
        _, own = np.unique(windows, return_inverse=True)
        count, mean = own.max() + 1, values.mean()
        return mean + np.bincount(own, values - mean) * count / len(values)  # (windows,), with the mean of all episodes

    def mean(self, policy: str, metric: str) -> float:
        return float(self.samples(policy, metric).mean())

    def interval(self, policy: str, metric: str) -> float:
        """Half the width of the 95 % interval of the mean."""
        return half_width(self.samples(policy, metric))

    def gap(self, policy: str, rival: str, metric: str) -> tuple[float, float]:
        """How much lower `policy` is than `rival`, % of the rival's mean, and half its 95 % interval. Paired.

        Over several training seeds the pairs are the seeds, each seed's mean against the rival on the same episodes.
        The rival's mean is uncertain too: the interval is that of a ratio of two means.
        """
        own, others = self.by_seed(policy, metric), self.by_seed(rival, metric)
        one = next(iter(others.values()))  # of a rule, which has no seed
        pairs = [(values, others.get(seed, one)) for seed, values in own.items()]
        mine, reference = (float(np.mean([pair[k].mean() for pair in pairs])) for k in (0, 1))
        reference = reference if abs(reference) > 1e-12 else 1e-12
        errors = [(theirs * mine / reference - values) / abs(reference) for values, theirs in pairs]
        errors = np.array([error.mean() for error in errors]) if len(errors) > 1 else self._together(errors[0])
        return 100.0 * (reference - mine) / abs(reference), 100.0 * half_width(errors)

    def difference(self, policy: str, rival: str, metric: str) -> tuple[float, float]:
        """By how much `rival` is above `policy`, and half the 95 % interval. Paired, as in `gap`."""
        own, others = self.by_seed(policy, metric), self.by_seed(rival, metric)
        one = next(iter(others.values()))
        changes = [others.get(seed, one) - values for seed, values in own.items()]
        changes = np.array([c.mean() for c in changes]) if len(changes) > 1 else self._together(changes[0])
        return float(changes.mean()), half_width(changes)

    def on_the_way(self) -> Results:
        """The same, of the episodes alone that the team was evaluated on while it trained."""
        return replace(self, evaluation=self.evaluation[self.evaluation["episode"] < CURVE_EPISODES])

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
            samples = results.samples(policy, metric)
            row[metric], row[f"{metric}_ci95"] = samples.mean(), half_width(samples)
        rows.append(row)
    return pd.DataFrame(rows)


def policy_table(results: Results, columns: Sequence[tuple[str, str, str]], gap: Gap | None = None) -> str:
    """Policies from the worst team reward to the best, mean ± half the 95 % interval, aligned for a terminal."""
    order = sorted(results.policies, key=lambda policy: results.mean(policy, "team_return"))
    rows = [["", *(header for header, _, _ in columns), *(["gap closed, %"] if gap else [])]]
    for policy in order:
        mark = "> " if policy in (BEFORE, *TRAINED) else "  "
        cells = [
            f"{number.format(results.mean(policy, metric))} ± {number.format(results.interval(policy, metric))}"
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
    """Rows of cells as text: the first column to the left, the others to the right, a rule under the header."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]])


def gap_lines(
    results: Results, rivals: Sequence[str], gaps: Sequence[tuple[str, str, str]], policy: str = AFTER
) -> list[str]:
    """Sentences such as "46.1 % ± 2.0 cheaper than before training". No claim where the interval includes zero.

    Against the policy before the training, the rivals, and whichever classical rule is best.
    """
    lines = []
    best = max(results.baselines, key=lambda rule: results.mean(rule, "team_return"), default=BEFORE)
    for rival in dict.fromkeys([BEFORE, *(rival for rival in rivals if rival in results.policies), best]):
        words = []
        for metric, better, worse in gaps:
            percent, width = results.gap(policy, rival, metric)
            if not abs(percent) > width:
                words.append(f"not clearly {better} ({percent:+.1f} % ± {width:.1f})")
            else:
                words.append(f"{abs(percent):.1f} % ± {width:.1f} {better if percent > 0 else worse}")
        lines.append(f"{', '.join(words)} than {rival}" + (", the best rule" if rival == best else ""))
    return lines
