"""From scores to levels: a pure state machine for one call.

Evidence is counted in seconds of *speech*, not in decisions, so that one short shout, which
stays inside the analysis window for several decisions, counts once. Level 1 takes a raised
voice; level 2 takes a sustained one, or one window that leaves no doubt. Acoustic evidence alone
never goes further: loud is not abusive, so level 3 is left to words and to the agent's own press.

Levels fall one at a time, each after :attr:`Policy.hold_s` without a raised voice; a voice
between ``release`` and ``caution`` neither raises nor releases.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from callshield.messages import RiskLevel

#: The one category that sound without words can give.
SHOUTING = "shouting"
#: What acoustic evidence alone can reach.
ACOUSTIC_CEILING = RiskLevel.SERIOUS


class Rule(StrEnum):
    """Why a level changed."""

    RAISED_VOICE = "raised_voice"
    """Speech above ``caution``: level 1."""
    SUSTAINED_EFFORT = "sustained_effort"
    """Speech above ``serious`` for ``sustain_s``: level 2."""
    CALMED_DOWN = "calmed_down"
    """``hold_s`` without a raised voice: one level down."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Thresholds and times; scores 0..1, times in seconds."""

    caution: float
    serious: float
    release: float
    raise_s: float = 0.5
    """Speech above ``caution`` that makes level 1."""
    sustain_s: float = 0.95
    """Speech above ``serious`` that makes level 2."""
    sure: float = 1.0
    """Score from which one window makes level 2 by itself."""
    sure_s: float = 0.8
    """Voice that such a window must hold."""
    hold_s: float = 8.0
    """Calm time before a level falls. Silence counts half: while the caller listens, nothing
    says that the anger is gone."""
    memory_s: float = 10.0
    """A second of silence takes ``1 / memory_s`` seconds off the evidence."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the machine says after one piece of evidence."""

    level: int
    previous: int
    score: float
    """Highest score since the level last stood at 0, or of this evidence."""
    rule: Rule | None
    """Why the level changed; None when it did not."""
    effort_s: float
    """Seconds of shouted speech that the level rests on."""

    @property
    def changed(self) -> bool:
        """The level is not what it was."""
        return self.level != self.previous


class RiskMachine:
    """Level of one call.

    Args:
        policy: thresholds and times.
    """

    __slots__ = ("_calm_s", "_effort_s", "_peak", "_raised_s", "level", "policy")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.level = int(RiskLevel.CALM)
        self._raised_s = 0.0
        self._effort_s = 0.0
        self._calm_s = 0.0
        self._peak = 0.0

    def update(
        self, elapsed_s: float, speech_s: float, score: float | None, window_s: float = 0.0
    ) -> Decision:
        """Take one piece of evidence.

        Args:
            elapsed_s: time since the last one, at least ``speech_s``.
            speech_s: new speech in it.
            score: vocal effort, 0..1; None when there was too little speech to tell.
            window_s: speech in the window behind the score, of which ``speech_s`` is new.
        """
        policy, previous = self.policy, self.level
        silence_s = max(0.0, elapsed_s - speech_s)
        self._forget(silence_s / policy.memory_s)
        if score is None:
            self._calm_s += 0.5 * silence_s
        else:
            self._peak = max(self._peak, score)
            self._raised_s = _counted(
                self._raised_s, speech_s, score, policy.release, policy.caution
            )
            self._effort_s = _counted(
                self._effort_s, speech_s, score, policy.caution, policy.serious
            )
            if score >= policy.sure and window_s >= policy.sure_s - 5e-4:
                # So high a score takes a window that is full of shouting: what of it was heard
                # at the decision before, still mixed with calm speech, counts now. Of a window
                # that is half silence it does not: it may be the end of one short cry.
                self._effort_s = max(self._effort_s, policy.sustain_s)
            if score >= policy.caution:
                self._calm_s = 0.0
            elif score < policy.release:
                self._calm_s += speech_s + 0.5 * silence_s
        rule: Rule | None = None
        # Sums of many 20 ms frames: compare with half a millisecond to spare.
        if self._effort_s >= policy.sustain_s - 5e-4 and self.level < ACOUSTIC_CEILING:
            self.level, rule = int(ACOUSTIC_CEILING), Rule.SUSTAINED_EFFORT
        elif self._raised_s >= policy.raise_s - 5e-4 and self.level < RiskLevel.CAUTION:
            self.level, rule = int(RiskLevel.CAUTION), Rule.RAISED_VOICE
        elif self._calm_s >= policy.hold_s and self.level > RiskLevel.CALM:
            self.level, rule = self.level - 1, Rule.CALMED_DOWN
            self._calm_s = 0.0
            self._effort_s = 0.0
            if self.level == RiskLevel.CALM:
                self._raised_s = 0.0
        peak = self._peak
        if self.level == RiskLevel.CALM:
            self._peak = 0.0
        return Decision(self.level, previous, peak, rule, self._effort_s)

    def _forget(self, seconds: float) -> None:
        self._raised_s = max(0.0, self._raised_s - seconds)
        self._effort_s = max(0.0, self._effort_s - seconds)


#: More evidence than this makes no level surer, and would only be slower to forget.
ENOUGH_S = 3.0


def _counted(total_s: float, speech_s: float, score: float, low: float, high: float) -> float:
    """Add speech scored from ``high`` up, take off what is below ``low``, leave the rest."""
    if score >= high:
        return min(ENOUGH_S, total_s + speech_s)
    if score < low:
        return max(0.0, total_s - speech_s)
    return total_s
