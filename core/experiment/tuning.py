"""How rules are tuned and judged, the same for both problems: seeds of their own, one search, one interval.

Rules know nothing of learning, and this file imports nothing that does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

EVALUATION_SEED = 10_000  # of the first unseen episode; training seeds begin at 1_000_000
VALIDATION_SEED = 800_000_000  # the same, of the episodes that settings are chosen on
TUNING_SEED = 900_000_000  # the same, of the episodes that rules are tuned on


def cross_entropy(
    costs: Callable[[int, np.ndarray], np.ndarray],
    mean: np.ndarray,
    sd: np.ndarray,
    *,
    generations: int,
    candidates: int,
    kept: int,
    rng: np.random.Generator,
    lowest: float = -np.inf,
    fading: float = 0.0,
    floor: float = 0.0,
    averaged: int = 1,
) -> np.ndarray:
    """Cross-entropy method (Rubinstein 1999): sample, keep the best, refit.

    Args:
        costs: (generation, samples (P, ..., N)) -> what each sample costs, (P,). Or (P, N), where the parameters
            [..., i] are judged by the cost i alone: each is then searched by itself, but all in the same simulations.
        mean, sd: (..., N) of the first samples.
        candidates, kept: P samples a generation, and how many of the best the next distribution is fitted to.
        lowest: no parameter is tried below.
        fading: extra spread in multiples of `sd`, less every generation; it keeps the search from freezing early
            (Szita and Lorincz 2006).
        floor: least spread in multiples of `sd`.
        averaged: the means of so many last generations are averaged.

    Returns:
        (..., N) parameters.
    """
    keep = 0.3  # of the old fit, against fitting the luck of the best
    first, means = sd, []
    for generation in range(generations):
        samples = np.maximum(mean + sd * rng.standard_normal((candidates, *mean.shape)), lowest)
        samples[0] = mean
        order = np.argsort(costs(generation, samples), axis=0, kind="stable")[:kept]  # (kept,) or (kept, N)
        order = order.reshape(kept, *(1,) * (mean.ndim - 1), -1)
        best = np.take_along_axis(samples, order, axis=0)  # (kept, ..., N)
        mean = keep * mean + (1 - keep) * best.mean(axis=0)
        extra = fading * first * (1 - generation / generations)
        sd = np.maximum(keep * sd + (1 - keep) * best.std(axis=0) + extra, floor * first)
        means.append(mean)
    return np.mean(means[-averaged:], axis=0)


@functools.cache
def student_t_quantile(degrees: float, probability: float = 0.975) -> float:
    """Quantile of Student's t distribution (Student 1908), to 4 digits; `probability` in (0.5, 1).

    With t = sqrt(degrees) tan(angle), the density of the angle is cos(angle)^(degrees - 1): a smooth function on a
    bounded interval, which is summed up numerically.
    """
    if degrees < 1 or not 0.5 < probability < 1.0:
        raise ValueError(f"expected degrees >= 1 and 0.5 < probability < 1, found {degrees} and {probability}")
    angle = np.linspace(0.0, min(np.pi / 2, 12.0 / np.sqrt(degrees)), 20_001)  # beyond 12 deviations is nothing
    density = np.cos(angle) ** (degrees - 1.0)
    area = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])  # trapezoids
    return float(np.sqrt(degrees) * np.tan(np.interp(2.0 * probability - 1.0, area / area[-1], angle)))


def half_width(*sources: Any, confidence: float = 0.95) -> float:
    """Half the width of the t interval of a mean; NaN where a source of its error has fewer than two samples.

    sources: independent samples of the mean, (samples,); or several, one for each of the errors that add up in it,
    with the degrees of freedom of Satterthwaite (1946).
    """
    sources = [np.asarray(samples, float) for samples in sources]
    if min(samples.size for samples in sources) < 2:
        return float("nan")
    variances = np.array([samples.var(ddof=1) / samples.size for samples in sources])
    total = variances.sum()
    if total == 0.0:
        return 0.0
    degrees = total**2 / np.sum(variances**2 / [samples.size - 1 for samples in sources])
    return float(student_t_quantile(round(degrees, 1), 0.5 + confidence / 2) * np.sqrt(total))


def plus_minus(number: str, mean: float, half: float, unit: str = "") -> str:
    """'39.0 ± 0.6', or the mean alone where there is no interval. A sign in the format is the mean's."""
    return number.format(mean) + unit + ("" if np.isnan(half) else f" ± {number.replace('{:+', '{:').format(half)}")


def rounded(values: Any, names: Any) -> dict[str, float]:
    """(N,) numbers -> an object by name, to four digits."""
    return {str(name): float(f"{value:.4g}") for name, value in zip(names, np.ravel(values), strict=True)}
