"""Intervals of rates and shares: how sure a figure is that rests on so many cases.

Pure; used where alerts are counted (:mod:`notifier.calibration`) and where made calls are
(:mod:`detectors.calls_report`).
"""

from __future__ import annotations

import math

#: Two-sided 95 %: this much on either side.
_TAIL = 0.025
_Z = 1.959963984540054


def _poisson_at_most(count: int, mean: float) -> float:
    """Chance of ``count`` or fewer events where ``mean`` are expected."""
    if mean <= 0:
        return 1.0
    logs = [k * math.log(mean) - mean - math.lgamma(k + 1) for k in range(count + 1)]
    top = max(logs)
    return min(1.0, math.exp(top) * math.fsum(math.exp(value - top) for value in logs))


def _solve(count: int, chance: float) -> float:
    """The mean at which ``count`` or fewer events have this chance."""
    low, high = 0.0, 10.0 + 2.0 * count + 10.0 * math.sqrt(count)
    for _ in range(100):
        middle = (low + high) / 2
        if _poisson_at_most(count, middle) > chance:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def poisson_interval(count: int) -> tuple[float, float]:
    """Exact 95 % interval of the mean behind a count (Garwood, Biometrika 28, 1936).

    Raises:
        ValueError: a count below 0.
    """
    if count < 0:
        raise ValueError(f"a count is not below 0: {count}")
    low = _solve(count - 1, 1.0 - _TAIL) if count else 0.0
    return low, _solve(count, _TAIL)


def rate_interval(count: int, hours: float) -> tuple[float, float]:
    """95 % interval of events an hour; ``(0, inf)`` without an hour."""
    if hours <= 0:
        return 0.0, math.inf
    low, high = poisson_interval(count)
    return low / hours, high / hours


def share_interval(count: int, total: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, JASA 22, 1927); ``(0, 1)`` of nothing.

    Raises:
        ValueError: more than all, or fewer than none.
    """
    if not 0 <= count <= total:
        raise ValueError(f"a count from 0 to {total}: {count}")
    if not total:
        return 0.0, 1.0
    share = count / total
    spread = _Z * _Z / total
    middle = (share + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    low = 0.0 if count == 0 else max(0.0, middle - half)
    high = 1.0 if count == total else min(1.0, middle + half)
    return low, high


#: Expected events of which none being seen is as unlikely as 2.5 %: the upper end for a count of 0.
NONE_SEEN = -math.log(_TAIL)
