"""What the detector's level changes in a call, and whether it is news."""

from __future__ import annotations

from collections.abc import Iterable

from callshield.messages import Reason, RiskChanged
from notifier.live import Call

#: Rules by which a level falls.
_FALLS = frozenset({"calmed_down", "nothing_said", "no_more_words"})


def take_level(call: Call, event: RiskChanged) -> None:
    """The call has this level from now on, for these reasons."""
    call.level = event.level
    call.peak_level = max(call.peak_level, event.level)
    call.categories = list(event.categories)
    call.reasons = list(event.reasons)
    call.acoustic_only = event.acoustic_only
    call.words_confirmed = event.words_confirmed
    call.may_trigger = event.may_trigger and call.crisis_ts is None


def is_known(call: Call, event: RiskChanged) -> bool:
    """Nothing in this event is news."""
    return (
        (event.level, event.categories, event.reasons)
        == (call.level, call.categories, call.reasons)
        and event.words_confirmed == call.words_confirmed
        and (event.may_trigger == call.may_trigger or call.crisis_ts is not None)
    )


def tells_of_words(event: RiskChanged) -> bool:
    """It rests on words, and is no fall."""
    return (
        event.level >= event.previous
        and bool(event.reasons)
        and event.reasons[0].rule not in _FALLS
        and any(reason.kind == "words" for reason in event.reasons)
    )


def highest_score(reasons: Iterable[Reason], kind: str) -> float:
    """Of the reasons of one kind, 0..1; 0 where there are none."""
    return max((reason.score for reason in reasons if reason.kind == kind), default=0.0)
