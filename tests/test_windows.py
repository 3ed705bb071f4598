"""Means over overlapping windows of one recorded period: how sure they are."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import script

from core.experiment.reporting.windows import count_of_contrasts, days_needed, independent
from core.experiment.tuning import half_width

coverage = script("coverage")


@pytest.mark.parametrize("kind", coverage.KINDS)
@pytest.mark.parametrize(("days", "length"), [(60, 30), (91, 30), (182, 30), (39, 13)])
def test_the_interval_holds_the_true_mean_in_95_of_100_test_parts(kind, days, length):
    found = coverage.covered(kind, days, length, 500, bootstrap=False)
    assert found["windows"] == pytest.approx(95.0, abs=3.0)  # three standard errors: 2.9
    assert found["half_width"] < 3.5 * found["deviation"], "2 is what a known deviation would give"


def test_a_thousand_windows_of_short_episodes_are_not_a_thousand_samples():
    """Episodes of minutes: those of one day share its luck."""
    rng, hits = np.random.default_rng(0), []
    for _ in range(300):
        days = rng.standard_normal(60)
        starts = rng.uniform(0, 59.99, 1000)
        values = days[starts.astype(int)] + rng.standard_normal(1000)
        samples = independent(starts, 0.01) @ values
        assert len(samples) == count_of_contrasts(np.ptp(starts), 0.01) + 1
        hits.append(abs(samples.mean()) <= half_width(samples))
    assert np.mean(hits) == pytest.approx(0.95, abs=0.04)


def test_the_samples_are_linear_in_the_values_and_keep_their_mean():
    rng = np.random.default_rng(0)
    starts, a, b = rng.integers(100, size=500), rng.standard_normal(500), rng.standard_normal(500)
    weights = independent(starts, 30)
    np.testing.assert_allclose(weights.mean(axis=0), 1 / 500)
    assert half_width(weights @ (a - b)) == pytest.approx(half_width(weights @ a - weights @ b))
    assert half_width(weights @ np.full(500, 7.0)) == pytest.approx(0, abs=1e-9), "what is the same everywhere is sure"


def test_too_few_days_or_windows_give_none():
    rng = np.random.default_rng(0)
    assert independent(np.zeros(500), 30) is None, "a single stretch"
    assert (
        independent(rng.integers(60, size=500), 30) is None and independent(rng.integers(61, size=500), 30) is not None
    )
    assert independent(np.array([0.0, 90.0, 150.0]), 30) is None
    assert days_needed(30) == 90 and days_needed(0.01) == 12
    assert days_needed(30, by_day=True) == 49 and days_needed(13, by_day=True) == 29


def test_a_value_that_counts_twice_is_two_values():
    starts, values = np.arange(60.0), np.random.default_rng(0).standard_normal(60)
    times = np.arange(60) % 3 + 1
    whole, short = independent(np.repeat(starts, times), 1.0), independent(starts, 1.0, times)
    assert half_width(whole @ np.repeat(values, times)) == pytest.approx(half_width(short @ values))
    assert (short @ values).mean() == pytest.approx(times @ values / times.sum())
