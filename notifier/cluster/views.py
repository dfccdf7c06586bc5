"""What leaves a node for the bus: what a supervisor may see before the agent asks for help, ever.

Words, reasons and scores are taken out of every event whatever was asked for: a stream keeps what
it is given, on another machine's disk, and no deletion of ours reaches it. Who may read words asks
the owning node for them, signs for it, and is recorded there (:mod:`notifier.cluster.service`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from callshield.messages import CrisisHint, Event, NodeDegraded, RiskChanged
from callshield.messages_care import CallMarked
from callshield.messages_cluster import AlertState, CallState
from callshield.messages_evidence import EvidenceChanged
from notifier.live import Alert, Call
from notifier.views import SUPERVISOR_TYPES, alert_view, call_view

#: Parts that each node judges by itself.
OWN_PARTS = ("cluster", "node:")
_EVENTS: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def read_event(body: bytes | str | msgspec.Raw) -> Event | None:
    """An event as it was stored or sent; ``None`` for a type that this version does not know, or
    that is none."""
    try:
        return _EVENTS.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def may_travel(event: Event) -> bool:
    """Whether an event of this type goes to other nodes at all."""
    if isinstance(event, NodeDegraded) and event.component.startswith(OWN_PARTS):
        return False
    return str(type(event).__struct_config__.tag) in SUPERVISOR_TYPES


def without_words(event: Event) -> Event:
    """The event without what only the call's own agent, or somebody who was asked, may read."""
    match event:
        case RiskChanged():
            return msgspec.structs.replace(event, reasons=[], score=0.0)
        case CrisisHint():
            return msgspec.structs.replace(event, words=[], detail="")
        case CallMarked():
            return msgspec.structs.replace(event, by="")
        case EvidenceChanged():
            # Why somebody refused: whoever may read it finds it in the list of requests.
            return msgspec.structs.replace(event, reason="")
        case _:
            return event


def call_state(call: Call, *, help_asked: bool) -> CallState:
    """A live call for the other nodes."""
    view = call_view(call, to_agent=False)
    view["pbx_call_id"] = view["pbx_call_id"][:256]
    return msgspec.convert(
        {**view, "help_asked": help_asked, "hidden": call.shadow and not help_asked}, CallState
    )


def alert_state(alert: Alert, escalation: dict[str, Any] | None) -> AlertState:
    """An alert for the other nodes."""
    view = alert_view(alert, to_agent=False)
    return msgspec.convert({**view, "escalation": escalation}, AlertState)
