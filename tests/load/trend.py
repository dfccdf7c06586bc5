"""Does a figure grow? Slope with confidence, and a verdict: pure.

Theil-Sen: the median of the slopes between all pairs of points, with the confidence interval of
Sen (J. Am. Stat. Assoc. 63 (1968) 1379), which rests on the ranks alone. It assumes nothing about
the noise's shape, and a few outliers (a snapshot taken while a batch was in hand) do not move it.
Neighbouring samples of a process' memory are no independent draws, so the points are medians of
blocks, few enough to be far apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

#: Blocks into which a series is cut; fewer samples than two a block make fewer blocks.
BLOCKS = 24
#: Below this the interval of ranks is as wide as the data.
FEWEST_BLOCKS = 6


@dataclass(frozen=True, slots=True)
class Trend:
    """Growth per unit of what it was measured over (hours, calls)."""

    slope: float
    low: float
    high: float
    """Bounds of the interval of confidence."""
    first: float
    last: float
    """The line's value at both ends."""

    def grows_more_than(self, limit: float) -> bool:
        """With confidence."""
        return self.low > limit

    def grows_less_than(self, limit: float) -> bool:
        """With confidence: that a growth was not shown is not this."""
        return self.high < limit


def blocks(
    at: Sequence[float], values: Sequence[float], count: int = BLOCKS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Medians of consecutive stretches of about as many samples each."""
    count = max(1, min(count, len(at) // 2))
    pairs = [
        (np.median(x), np.median(y))
        for x, y in zip(
            np.array_split(np.asarray(at, np.float64), count),
            np.array_split(np.asarray(values, np.float64), count),
            strict=True,
        )
    ]
    x, y = np.array(pairs, np.float64).T
    return x, y


def trend(
    at: Sequence[float],
    values: Sequence[float],
    *,
    confidence: float = 0.95,
    count: int = BLOCKS,
) -> Trend:
    """How a series grows.

    Args:
        at: hours, or calls so far; rising.
        values: the figure at each.
        confidence: of the interval, two-sided.
        count: blocks.

    Raises:
        ValueError: too few samples to say anything.
    """
    x, y = blocks(at, values, count)
    n = len(x)
    if n < FEWEST_BLOCKS:
        raise ValueError(f"{len(at)} samples are too few for a trend: measure for longer")
    first, second = np.triu_indices(n, 1)
    apart = x[second] - x[first]
    first, second, apart = first[apart > 0], second[apart > 0], apart[apart > 0]
    slopes = np.sort((y[second] - y[first]) / apart)
    if not len(slopes):
        raise ValueError("nothing to count the growth over: no call was begun meanwhile")
    middle = float(np.median(slopes))
    # Of Kendall's S under "no trend" (Sen 1968, equation 2.6 without ties).
    spread = NormalDist().inv_cdf(0.5 + confidence / 2) * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    below = max(0, math.floor((len(slopes) - spread) / 2) - 1)
    above = min(len(slopes) - 1, math.ceil((len(slopes) + spread) / 2))
    offset = float(np.median(y - middle * x))
    return Trend(
        slope=middle,
        low=float(slopes[below]),
        high=float(slopes[above]),
        first=offset + middle * float(x[0]),
        last=offset + middle * float(x[-1]),
    )
