"""Which alert answers which shout or sentence, and how late it came: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from callshield.messages import RiskChanged

#: The level that alerts: serious.
ALERT_LEVEL = 2
#: A shout that made no alert within this time is missed.
SHOUT_WITHIN_S = 10.0
#: So is a sentence; speech that waits longer is dropped by the scheduler.
WORDS_WITHIN_S = 30.0
#: Speech of one caller that is transcribed at once; a message tells where the last of it ended.
_TURN_S = 9.4
#: By so much the detector's count of a call's audio may be off the load's, seconds.
_SLACK_S = 1.0
#: A level that fell, or evidence that ran out, is no alert.
_FALLS = frozenset({"calmed_down", "nothing_said", "no_more_words"})


@dataclass(frozen=True, slots=True)
class Cause:
    """A shout or an abusive sentence that the load sent; wall clock in ns."""

    kind: Literal["acoustic", "caution", "words"]
    """``caution``: the first step up that a shout makes, be it to level 1."""
    call_id: str
    begun_ns: int
    """Its first audible packet was sent."""
    ended_ns: int
    """Its last one was."""
    audio_s: float
    """Seconds of tapped audio of the call at its beginning."""
    aroused: bool
    """The caller has shouted before."""

    @property
    def zero_ns(self) -> int:
        """From where its alert's delay is counted: a shout's onset, a sentence's end."""
        return self.ended_ns if self.kind == "words" else self.begun_ns


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message at the bus reader; wall clock in ns."""

    at_ns: int
    message: RiskChanged


def _answers(cause: Cause, one: Arrived) -> bool:
    message = one.message
    if message.level < message.previous or (message.reasons and message.reasons[0].rule in _FALLS):
        return False
    if cause.kind != "words":
        level = ALERT_LEVEL if cause.kind == "acoustic" else 1
        return (
            message.level >= level > message.previous
            and any(reason.kind == "vocal_effort" for reason in message.reasons)
            and one.at_ns - cause.zero_ns <= SHOUT_WITHIN_S * 1e9
        )
    return (
        any(reason.kind == "words" for reason in message.reasons)
        and message.at_s >= cause.audio_s - _SLACK_S
        and message.at_s <= cause.audio_s + (cause.ended_ns - cause.begun_ns) / 1e9 + _TURN_S
        and one.at_ns - cause.zero_ns <= WORDS_WITHIN_S * 1e9
    )


def delays_ms(causes: Sequence[Cause], arrived: Sequence[Arrived]) -> list[float | None]:
    """Of each cause the delay of its alert; None where none came.

    Args:
        causes: in any order; one message answers one cause of a call and kind, the newest of those
            that it can answer.
        arrived: in order of arrival.
    """
    found: list[float | None] = [None] * len(causes)
    latest_first = sorted(range(len(causes)), key=lambda k: causes[k].begun_ns, reverse=True)
    for one in arrived:
        answered: set[str] = set()
        for number in latest_first:
            cause = causes[number]
            if (
                found[number] is None
                and cause.kind not in answered
                and one.message.call_id == cause.call_id
                and one.at_ns >= cause.begun_ns
                and _answers(cause, one)
            ):
                # The newest one: what came before it was not understood, or is still to be heard.
                answered.add(cause.kind)
                found[number] = (one.at_ns - cause.zero_ns) / 1e6
    return found


def summary(delays: Sequence[float | None]) -> dict[str, Any]:
    """``expected`` and ``raised`` alerts, ``p50`` and ``p95`` of those that came in ms; None
    where none came."""
    came = [one for one in delays if one is not None]
    return {
        "expected": len(delays),
        "raised": len(came),
        "p50": round(float(np.quantile(came, 0.5)), 1) if came else None,
        "p95": round(float(np.quantile(came, 0.95)), 1) if came else None,
    }
