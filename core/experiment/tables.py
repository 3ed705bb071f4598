"""What evaluations say: means with intervals, paired comparisons, and a table for the terminal.

The evaluation table has a row per policy, training seed and episode. Every policy met the same episodes, so two are
compared pair by pair: the differences vary far less than the costs do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.experiment.evaluation import half_width

BEFORE, AFTER = "before training", "after training"
KEYS = ("policy", "training_seed", "episode", "seed")


@dataclass
class Results:
    """Everything that a run leaves behind for its report."""

    algorithm: str
    episodes: int  # of training
    histories: Mapping[int, Any]  # training seed -> history, a row per training episode
    evaluation: Any  # pandas table, a row per policy, training seed and episode
    steps: Sequence[Mapping[str, Any]]  # one evaluated episode, step by step
    labels: Mapping[str, str]  # names of baselines as shown

    @property
    def evaluated(self) -> int:
        """Episodes a policy was evaluated on."""
        return int(self.evaluation["episode"].nunique())

    @property
    def policies(self) -> list[str]:
        return list(dict.fromkeys(self.evaluation["policy"]))

    @property
    def baselines(self) -> list[str]:
        return [policy for policy in self.policies if policy not in (BEFORE, AFTER)]

    @property
    def metrics(self) -> list[str]:
        return [column for column in self.evaluation.columns if column not in KEYS]

    def samples(self, policy: str, metric: str) -> np.ndarray:
        """Independent samples of a metric: its episodes, or the means of training seeds when there are several."""
        rows = self.evaluation[self.evaluation["policy"] == policy]
        by_seed = rows.groupby("training_seed")[metric].mean()
        return (by_seed if len(by_seed) > 1 else rows[metric]).to_numpy()

    def mean(self, policy: str, metric: str) -> float:
        return float(self.samples(policy, metric).mean())

    def interval(self, policy: str, metric: str) -> float:
        """Half the width of the 95 % interval of the mean."""
        return half_width(self.samples(policy, metric))

    def gap(self, policy: str, rival: str, metric: str) -> tuple[float, float]:
        """How much lower `policy` is than `rival`, % of the rival's mean, and half its 95 % interval. Paired.

        Over several training seeds the pairs are the seeds, each seed's mean against the rival on the same episodes.
        """
        rows = self.evaluation[self.evaluation["policy"] == policy]
        other = self.evaluation[self.evaluation["policy"] == rival]
        reference = other.groupby("episode")[metric].mean()  # a baseline has one row, "before" one a training seed
        lower = reference.reindex(rows["episode"]).to_numpy() - rows[metric].to_numpy()
        seeds = rows["training_seed"].to_numpy()
        if len(np.unique(seeds)) > 1:
            lower = np.array([lower[seeds == seed].mean() for seed in np.unique(seeds)])
        scale = 100.0 / max(abs(float(reference.mean())), 1e-12)
        return scale * float(lower.mean()), scale * half_width(lower)

    def title(self, policy: str) -> str:
        """The name of a policy as shown."""
        return self.labels.get(policy, policy)

    def ranked(self, metric: str) -> list[str]:
        """Before, after, then the baselines from the worst to the best by a metric of which less is better."""
        return [BEFORE, AFTER, *sorted(self.baselines, key=lambda policy: -self.mean(policy, metric))]

    def curves(self, metric: str):
        """The learning curves of the training seeds, for `plotting.learning_curve`."""
        from core.experiment.plotting import Curve

        curves = []
        for history in self.histories.values():
            episodes, values = history["episode"].to_numpy() + 1, history[metric].to_numpy(dtype=float)
            unseen = history.get(f"evaluation_{metric}", np.full(len(history), np.nan))
            there = np.flatnonzero(np.isfinite(unseen))
            curves.append(Curve(episodes, values, (episodes[there], np.asarray(unseen)[there])))
        return curves


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


def policy_table(results: Results, columns: Sequence[tuple[str, str, str]]) -> str:
    """Policies from the worst team reward to the best, mean ± half the 95 % interval, aligned for a terminal."""
    order = sorted(results.policies, key=lambda policy: results.mean(policy, "team_return"))
    rows = [["", *(header for header, _, _ in columns)]]
    for policy in order:
        mark = "> " if policy in (BEFORE, AFTER) else "  "
        cells = [
            f"{number.format(results.mean(policy, metric))} ± {number.format(results.interval(policy, metric))}"
            for _, metric, number in columns
        ]
        rows.append([mark + results.title(policy), *cells])
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text: the first column to the left, the others to the right, a rule under the header."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]])


def gap_lines(results: Results, rivals: Sequence[str], gaps: Sequence[tuple[str, str, str]]) -> list[str]:
    """Sentences such as "46.1 % ± 2.0 cheaper than before training". No claim where the interval includes zero."""
    lines = []
    for rival in [BEFORE, *(rival for rival in rivals if rival in results.policies)]:
        words = []
        for metric, better, worse in gaps:
            percent, width = results.gap(AFTER, rival, metric)
            if not abs(percent) > width:
                words.append(f"not clearly {better} ({percent:+.1f} % ± {width:.1f})")
            else:
                words.append(f"{abs(percent):.1f} % ± {width:.1f} {better if percent > 0 else worse}")
        lines.append(f"{', '.join(words)} than {results.title(rival)}")
    return lines
