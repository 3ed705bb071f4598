"""How often the interval of a mean over overlapping windows of recorded data holds the true mean: 95 % is right.

    python tests/benchmarks/coverage.py            # a few minutes -> docs/results/coverage.csv
    python tests/benchmarks/coverage.py --series 200

Series with a known mean are cut into random windows, as evaluation cuts a test part into episodes, and three intervals
are made of each: that of core/experiment/reporting/windows.py, which counts each day as often as windows met it; the
percentiles of a moving-block bootstrap over the same days (blocks of a week; Künsch 1989); and the t interval over
stretches as long as an episode, which came before.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from core.experiment.reporting.windows import independent  # noqa: E402
from core.experiment.tuning import half_width  # noqa: E402

PARTS = ((60, 30), (75, 30), (91, 30), (120, 30), (182, 30), (364, 30), (39, 13), (52, 13))  # (days or weeks, episode)
KINDS = ("independent", "AR(1), 0.5", "weekly season")
EPISODES, BLOCK, DRAWS = 1000, 7, 400


def series(kind: str, days: int, rng: np.random.Generator) -> np.ndarray:
    """(days,) values with mean 0."""
    noise = rng.standard_normal(days + 100)
    if kind.startswith("AR"):
        for t in range(1, len(noise)):
            noise[t] += 0.5 * noise[t - 1]
    if kind == "weekly season":
        noise += 2.0 * np.sin(2 * np.pi * (np.arange(len(noise)) + rng.integers(7)) / 7)
    return noise[100:]


def windows(values: np.ndarray, length: int, episodes: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Starts and means of random windows, (episodes,) each."""
    starts = rng.integers(len(values) - length + 1, size=episodes)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return starts, (sums[starts + length] - sums[starts]) / length


def by_stretches(starts: np.ndarray, means: np.ndarray, length: int) -> tuple[float, float]:
    """The interval of before: what begins in one stretch is one sample."""
    _, own = np.unique(starts // length, return_inverse=True)
    count, mean = own.max() + 1, means.mean()
    half = half_width(mean + np.bincount(own, means - mean) * count / len(means))
    return mean - half, mean + half


def by_bootstrap(values: np.ndarray, starts: np.ndarray, length: int, rng: np.random.Generator) -> tuple[float, float]:
    """Percentiles of the mean over the same windows of days drawn anew in blocks."""
    days, blocks = len(values), -(-len(values) // BLOCK)
    first = rng.integers(days - BLOCK + 1, size=(DRAWS, blocks))
    drawn = values[(first[..., None] + np.arange(BLOCK)).reshape(DRAWS, -1)[:, :days]]  # (draws, days)
    begun = np.bincount(starts, minlength=days)
    weight = np.convolve(begun, np.ones(length))[:days] / (length * len(starts))
    low, high = np.percentile(drawn @ weight, [2.5, 97.5])
    return float(low), float(high)


def covered(kind: str, days: int, length: int, count: int, seed: int = 0, bootstrap: bool = True) -> dict[str, float]:
    """% of `count` series whose true mean lies in each interval; our median half width, and the mean's deviation."""
    rng = np.random.default_rng([seed, days, length, KINDS.index(kind)])
    hits: dict[str, list[bool]] = {"windows": [], "bootstrap": [], "stretches": []}
    halves, means = [], []
    for _ in range(count):
        values = series(kind, days, rng)
        starts, found = windows(values, length, EPISODES, rng)
        met = np.convolve(np.bincount(starts, minlength=days), np.ones(length))[:days]  # how often each day was
        half, mean = half_width(independent(np.arange(days), 1.0, met) @ values), found.mean()
        hits["windows"].append(abs(mean) <= half)
        low, high = by_stretches(starts, found, length)
        hits["stretches"].append(low <= 0.0 <= high)
        if bootstrap:
            low, high = by_bootstrap(values, starts, length, rng)
            hits["bootstrap"].append(low <= 0.0 <= high)
        halves.append(half)
        means.append(mean)
    row = {name: 100.0 * float(np.mean(hit)) for name, hit in hits.items() if hit}
    return row | {"half_width": float(np.median(halves)), "deviation": float(np.std(means))}


def table(rows) -> str:
    """Markdown of the CSV, a row a kind of series and length."""
    lines = ["| series | test part | episode | here, % | block bootstrap, % | stretches, % |", "|" + " --- |" * 6]
    for _, row in rows.iterrows():
        cells = (f"{row[name]:.1f}" for name in ("windows", "bootstrap", "stretches"))
        lines.append(f"| {row['series']} | {row['periods']} | {row['episode']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    import pandas as pd

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=1000, help="of each kind and length (default: 1000)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/coverage.csv", help="where the table goes")
    options = parser.parse_args(argv)
    rows = []
    for kind in KINDS:
        for days, length in PARTS:
            row = {"series": kind, "periods": days, "episode": length, "count": options.series}
            rows.append(row | {k: round(v, 4) for k, v in covered(kind, days, length, options.series).items()})
            print(*rows[-1].values(), sep="  ", flush=True)
    pd.DataFrame(rows).to_csv(options.out, index=False, lineterminator="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
