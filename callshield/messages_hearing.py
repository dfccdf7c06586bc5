"""Messages about the agent's ear and voice. Each is for that agent alone."""

from __future__ import annotations

from callshield.message_base import Message

#: Silence at the ear that ends a shift.
SHIFT_GAP_S = 8 * 3600.0


class EarWarning(Message, tag="ear.warning", frozen=True, kw_only=True):
    """The dose of this shift reached a share of the daily one; once a shift for each threshold of
    ``hearing.dose_warnings_pct``. Shown to this agent only."""

    ts: float
    call_id: str
    agent_id: str
    dose_pct: float
    """100: 85 dB(A) for eight hours."""
    threshold_pct: float
    """Which threshold it was, the highest where several were passed at once."""
    lex_8h_dba: float
    estimate: bool
    """The headset was never calibrated."""


class VoiceTalk(Message, tag="voice.talk", frozen=True, kw_only=True):
    """How long the agent has spoken without a pause; shown to this agent only.

    No event: it has no number, and no store takes it (design principle 2).
    """

    ts: float
    agent_id: str
    talked_s: float
    """Own speech since the last pause; 0: the agent has paused."""
    rest: bool
    """It is so much that the voice should have a rest (``hearing.voice_hint_after_s``)."""
    pause_s: float
    """How long a rest counts as a pause."""
