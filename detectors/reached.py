"""How far a call went: what is left of it when it is over, so that thresholds can be judged.

No audio, no words, nobody's name: seconds and scores. The two figures that matter are thresholds
themselves: the highest ``caution`` at which this call would have reached level 1 and the highest
``serious`` at which sound alone would have taken it to level 2. With them ``callshield calibrate``
can say which calls another threshold would have left alone, without a second of stored audio.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from detectors.risk import ENOUGH_S, Policy, RiskMachine, Rule

#: Thresholds that are tried, 0.01 apart.
GRID: NDArray[np.float64] = np.round(np.arange(0.30, 0.995, 0.01), 2)
#: No score gets this high: a threshold that is out of reach.
_NEVER = 9.0


@dataclass(frozen=True, slots=True)
class Figures:
    """One call, or the part of it between two long silences."""

    analysed_s: float
    """Seconds of the caller's audio that were judged, silence in them included."""
    speech_s: float
    effort_peak: float
    """Highest running vocal-effort score, 0..1."""
    effort_sustained: float
    """Highest sustained score, 0..1; the ``acoustic`` of ``callshield analyze``."""
    caution_reached: float
    """Highest threshold of :data:`GRID` at which level 1 was reached; 0: none."""
    serious_reached: float
    """Highest threshold of :data:`GRID` at which level 2 was reached by sound; 0: none."""
    caution: float
    """The threshold in force."""
    serious: float
    """The threshold in force."""


class Reached:
    """Follows one call's :class:`~detectors.risk.RiskMachine` at every threshold of the grid.

    Each threshold is varied alone, the other stays as it is in force. Exact for thresholds not
    under those in force; a ``serious`` under the ``caution`` in force takes ``caution`` down with
    it, and there the moment at which old evidence is forgotten can differ.

    Args:
        policy: in force.
    """

    __slots__ = (
        "_analysed_s",
        "_effort_s",
        "_first",
        "_peak",
        "_raised_s",
        "_reached_1",
        "_reached_2",
        "_speech_s",
        "_sustained",
        "policy",
    )

    def __init__(self, policy: Policy) -> None:
        self._analysed_s = self._speech_s = 0.0
        self._peak = self._sustained = 0.0
        self._raised_s = np.zeros(len(GRID))
        self._effort_s = np.zeros(len(GRID))
        self._reached_1 = self._reached_2 = 0.0
        self.use(policy)

    def use(self, policy: Policy) -> None:
        """Go on with other thresholds; what was reached stays."""
        self.policy = policy
        # Level 1 and its end are the same for every ``serious``: one machine knows when.
        self._first = RiskMachine(replace(policy, serious=_NEVER, sure=_NEVER))

    def update(
        self,
        elapsed_s: float,
        speech_s: float,
        score: float | None,
        window_s: float = 0.0,
        sustained: float | None = None,
        *,
        heard: bool = True,
    ) -> None:
        """Take what the call's machine takes.

        Args:
            elapsed_s: time since the last one.
            speech_s: new speech in it.
            score: running vocal effort, 0..1, or None.
            window_s: speech in the window behind the score.
            sustained: sustained vocal effort, 0..1, or None.
            heard: there was audio; without, time passed and nobody sent any.
        """
        policy = self.policy
        if heard:
            self._analysed_s += elapsed_s
            self._speech_s += speech_s
        self._peak = max(self._peak, score or 0.0)
        self._sustained = max(self._sustained, sustained or 0.0)
        first = self._first.update(elapsed_s, speech_s, score, window_s)
        quiet = score is None or score < GRID[0]
        if quiet and not self._raised_s.any() and not self._effort_s.any():
            return  # nearly every window of a calm call
        forget_s = max(0.0, elapsed_s - speech_s) / policy.memory_s
        raised = np.maximum(0.0, self._raised_s - forget_s)
        effort = np.maximum(0.0, self._effort_s - forget_s)
        if score is not None:
            low = np.minimum(policy.release, GRID)
            raised = _counted(raised, speech_s, score, low)
            effort = _counted(effort, speech_s, score, np.minimum(policy.caution, GRID))
            if score >= policy.sure and window_s >= policy.sure_s - 5e-4:
                sure = score >= GRID
                effort[sure] = np.maximum(effort[sure], policy.sustain_s)
        self._reached_1 = max(self._reached_1, _highest(raised >= policy.raise_s - 5e-4))
        self._reached_2 = max(self._reached_2, _highest(effort >= policy.sustain_s - 5e-4))
        if first.rule is Rule.CALMED_DOWN:
            effort[:] = 0.0
        self._raised_s, self._effort_s = raised, effort

    @property
    def figures(self) -> Figures:
        """So far."""
        return Figures(
            analysed_s=round(self._analysed_s, 3),
            speech_s=round(self._speech_s, 3),
            effort_peak=round(self._peak, 4),
            effort_sustained=round(self._sustained, 4),
            # Sound that takes a call to level 2 took it to level 1 too.
            caution_reached=max(self._reached_1, self._reached_2),
            serious_reached=self._reached_2,
            caution=self.policy.caution,
            serious=self.policy.serious,
        )


def _counted(
    total_s: NDArray[np.float64], speech_s: float, score: float, low: NDArray[np.float64]
) -> NDArray[np.float64]:
    """As the machine's own counting, at each threshold of the grid."""
    more = np.minimum(ENOUGH_S, total_s + speech_s)
    less = np.where(score < low, np.maximum(0.0, total_s - speech_s), total_s)
    return np.where(score >= GRID, more, less)


def _highest(reached: NDArray[np.bool_]) -> float:
    found = np.flatnonzero(reached)
    return float(GRID[found[-1]]) if len(found) else 0.0
