"""What leaves the node by webhook: no words, and nothing that sets an agent beside a score.

An event type is told outside when a supervisor's screen may see it, without words even where the
agent has asked for help; and, of the types that only the agent sees, those that another system
must act upon (queues, recorders, quality and survey systems), with the fields that this takes and
no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from notifier.views import SUPERVISOR_TYPES, for_supervisor

_CALL = ("call_id", "agent_id", "pbx_call_id")
#: Types for machines, and what they are told. Not among them: who asked for something, and why.
MACHINE_TYPES: dict[str, tuple[str, ...]] = {
    # To pause and resume the agent in the queues of a PBX without manager interface.
    "rest.changed": ("agent_id", "state", "until_ts"),
    # To pause another recorder.
    "pause.changed": (*_CALL, "paused"),
    # To leave a call out of quality, handling time and survey.
    "call.marked": (*_CALL, "exclude"),
    # To plan the call-back.
    "callback.changed": (*_CALL, "callback_id", "state", "owner", "due_ts"),
    # To erase what was told of the call before.
    "call.erased": ("call_id",),
}
#: About alerts, and for supervisors, whatever their screens make of them.
_ALERTS = frozenset(
    {
        "alert.raised",
        "alert.acknowledged",
        "alert.escalated",
        "alert.refused",
        "alert.unanswered",
    }
)
#: Never outside, also without words: what a person wrote.
_HIDDEN = frozenset({"words", "detail", "reasons", "score"})


def may_be_told(kind: str) -> bool:
    """Whether events of this type may leave the node at all."""
    return kind in SUPERVISOR_TYPES or kind in MACHINE_TYPES or kind in _ALERTS


def told(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """An event as it may be told outside, or ``None``.

    Args:
        event: as it is stored.
    """
    kind = event["type"]
    fields = MACHINE_TYPES.get(kind)
    if fields is not None:
        return {key: event[key] for key in ("id", "type", "ts", *fields) if key in event}
    if kind in _ALERTS:
        seen: dict[str, Any] | None = dict(event)
        if kind == "alert.refused":
            # Why a supervisor refused is for the people of this place.
            seen = {key: value for key, value in event.items() if key != "reason"}
    else:
        seen = for_supervisor(dict(event))
    if seen is not None and kind == "evidence.changed":
        # What was decided, not who wrote what about whom.
        seen = {key: value for key, value in seen.items() if key not in ("reason", "by")}
    if seen is None:
        return None
    return {key: value for key, value in seen.items() if key not in _HIDDEN}
