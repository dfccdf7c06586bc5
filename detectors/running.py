"""The running and the sustained score of a call: windows averaged as log odds."""

from __future__ import annotations

import math

#: Weight of the newest window in the running score; the rest is what was heard before. A voice that
#: rises counts at once: what was calm before says nothing against it, and waiting costs the agent
#: half a second. One that falls counts less, so that a breath does not end a shout.
RISING_WEIGHT, FALLING_WEIGHT = 1.0, 0.7
#: Share of the sustained score's evidence that the next window keeps.
SUSTAINED_KEEP = 0.75
#: The sustained score begins with this much evidence, in windows, at these log odds: a call
#: begins calm, and one window is not yet a voice.
PRIOR_WINDOWS, PRIOR_LOG_ODDS = 1.0, -2.0
#: Keeps the logarithm of the odds finite.
_SCORE_MARGIN = 1e-4


class RunningScore:
    """The scores of a call's windows over time, averaged as log odds.

    Args:
        rising: weight of a window that scores above what was heard before, 0..1.
        falling: weight of another.
    """

    __slots__ = ("_evidence", "_falling", "_log_odds", "_rising", "_sum")

    def __init__(self, rising: float = RISING_WEIGHT, falling: float = FALLING_WEIGHT) -> None:
        self._rising, self._falling = rising, falling
        self._log_odds: float | None = None
        self._sum, self._evidence = 0.0, 0.0
        self.forget()

    def forget(self) -> None:
        """Begin anew: what comes next has nothing to do with what came before."""
        self._log_odds = None
        self._sum, self._evidence = PRIOR_LOG_ODDS * PRIOR_WINDOWS, PRIOR_WINDOWS

    def add(self, score: float) -> tuple[float, float]:
        """Take one window's score; returns the running and the sustained one, each 0..1."""
        bounded = min(1.0 - _SCORE_MARGIN, max(_SCORE_MARGIN, score))
        newest = math.log(bounded / (1.0 - bounded))
        before = newest if self._log_odds is None else self._log_odds
        weight = self._rising if newest > before else self._falling
        self._log_odds = weight * newest + (1.0 - weight) * before
        self._sum = SUSTAINED_KEEP * self._sum + newest
        self._evidence = SUSTAINED_KEEP * self._evidence + 1.0
        return _probability(self._log_odds), _probability(self._sum / self._evidence)


def _probability(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-log_odds))
