"""Intervals of rates and shares, against published values and against chance."""

from __future__ import annotations

import math

import numpy as np
import pytest

from callshield.intervals import NONE_SEEN, poisson_interval, rate_interval, share_interval


@pytest.mark.parametrize(
    ("count", "low", "high"),
    # Garwood 1936; the same figures stand in every table of exact Poisson limits.
    [(0, 0.0, 3.6889), (1, 0.0253, 5.5716), (5, 1.6235, 11.6683), (10, 4.7954, 18.3904)],
)
def test_exact_poisson_limits_are_those_of_the_tables(count: int, low: float, high: float) -> None:
    assert poisson_interval(count) == pytest.approx((low, high), abs=1e-4)


def test_the_limits_hold_for_large_counts_too() -> None:
    low, high = poisson_interval(10_000)
    assert (low, high) == pytest.approx((10_000 - 196, 10_000 + 196), abs=4)


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_limits_are_the_published_ones(
    count: int, total: int, low: float, high: float
) -> None:
    assert share_interval(count, total) == pytest.approx((low, high), abs=1e-4)


def test_nothing_seen_says_nothing() -> None:
    assert share_interval(0, 0) == (0.0, 1.0)
    assert rate_interval(3, 0.0) == (0.0, math.inf)
    assert poisson_interval(0)[1] == pytest.approx(NONE_SEEN)
    with pytest.raises(ValueError, match="below 0"):
        poisson_interval(-1)
    with pytest.raises(ValueError, match="from 0 to 3"):
        share_interval(4, 3)


def test_the_true_rate_is_inside_at_least_95_times_in_100() -> None:
    """And an interval of half the width is not: the check can fail."""
    counts = np.random.default_rng(1).poisson(6.0, 4000)
    limits = {int(c): poisson_interval(int(c)) for c in np.unique(counts)}
    inside = np.mean([limits[c][0] <= 6.0 <= limits[c][1] for c in counts])
    narrow = np.mean(
        [(limits[c][0] + c) / 2 <= 6.0 <= (limits[c][1] + c) / 2 for c in counts.astype(int)]
    )
    assert inside >= 0.95
    assert narrow < 0.9
