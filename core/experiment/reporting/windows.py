"""How sure a mean over windows of one recorded period is, where the windows overlap.

Episodes that are cut out of the same test days share days: a thousand of them are not a thousand samples. Where the
environment tells what every day cost, a day is what counts (a window of one day, as often as episodes met it); else a
window's value is taken as the mean over its days. The days are a series whose memory is short against the test part, so
that two windows covary as they overlap. The mean m then has the variance s V, with s the series' long-run variance and
V known from the overlaps. s is estimated from contrasts: sums of the values weighted by slow cosines of the windows'
starts, which see neither m nor what goes on from day to day or within a week. In place of one number a block, as in a
block bootstrap, a cosine has no edges that lose days (Lazarus, Lewis, Stock and Watson 2018, "HAR inference"); with B
of them, (m - true mean) / standard error is Student's t with B degrees. Because m and contrasts are linear in the
values, two policies judged on the same windows are compared by the same weights: pair by pair.

tests/benchmarks/coverage.py measures how often such intervals hold the true mean, beside a moving-block bootstrap.

Shapes: n windows, S distinct starts, B contrasts.
"""

from __future__ import annotations

import numpy as np

FEWEST = 2  # contrasts: with one, an interval is 13 standard errors wide
GRID = 1000  # distinct starts at most; finer differences are nothing in an overlap


def count_of_contrasts(span: float, length: float) -> int:
    """B for starts over `span` days and windows of `length`: 0.4 P^(2/3) over P days (Lazarus et al. 2018), less where
    the windows leave few starts: a cosine that is as fast as a window is long shows nothing but noise in its mean."""
    return int(min(0.4 * span * (span + length) ** (-1 / 3), span / length)) if span > 0 else 0


def days_needed(length: float, by_day: bool = False) -> int:
    """The shortest test part that gives windows of this length an interval. `by_day`: it is known what a day cost. Then
    windows must begin on so many days that none is always the first, or the last, of its episode."""
    days = int(np.ceil(length))
    while (0.4 * (days - length) * days ** (-1 / 3) if by_day else count_of_contrasts(days - length, length)) < FEWEST:
        days += 1
    return days


def independent(starts: np.ndarray, length: float, times: np.ndarray | None = None) -> np.ndarray | None:
    """Weights that turn the values of windows into samples as sure as independent ones.

    Args:
        starts: (n,) when each window begins, in days (or other periods) of the test part.
        length: of a window, in the same unit.
        times: (n,) how often each counts; once by default.

    Returns:
        (B + 1, n): times the values, it gives B + 1 samples with the mean of all values, whose ordinary t interval
        is that of the mean. None where the starts leave fewer than FEWEST contrasts.
    """
    span, times = float(np.ptp(starts)), np.ones(len(starts)) if times is None else times
    if count_of_contrasts(span, length) < FEWEST:
        return None
    place = np.rint((GRID - 1) * (starts - starts.min()) / span) / (GRID - 1)  # in 0..1
    first, own = np.unique(place, return_inverse=True)  # (S,), (n,)
    size = min(count_of_contrasts(span, length), (len(first) - 1) // 2)
    if size < FEWEST:
        return None
    share = np.bincount(own, times) / times.sum()  # (S,), of all windows
    overlap = np.maximum(0.0, 1.0 - span / length * np.abs(first[:, None] - first))  # (S, S)
    cosines = np.cos(np.pi * np.outer(first, np.arange(1, size + 2)))  # (S, B + 1)
    contrasts = share[:, None] * (cosines - share @ cosines)  # each sums to 0: it does not see the mean
    covariance = contrasts.T @ overlap @ contrasts  # (B + 1, B + 1), in units of s
    values, vectors = np.linalg.eigh(covariance)
    whiten = (vectors / np.sqrt(np.maximum(values, 1e-12 * values.max()))).T  # (B + 1, B + 1)
    with_mean = whiten @ contrasts.T @ overlap @ share  # (B + 1,) what each has in common with m
    scale = np.sqrt(share @ overlap @ share)  # sqrt(V)
    errors = scale * across(with_mean) @ whiten @ contrasts.T  # (B, S): independent, each as large as m's error
    samples = np.sqrt(size + 1) * across(np.ones(size + 1)).T @ errors  # (B + 1, S), their mean is 0
    return (1.0 + (samples / np.maximum(share, 1e-12))[:, own]) * times / times.sum()


def across(vector: np.ndarray) -> np.ndarray:
    """(k,) -> (k - 1, k) orthonormal rows, each orthogonal to the vector."""
    return np.linalg.svd(vector[None])[2][1:]
