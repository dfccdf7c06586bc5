"""Who came into which call, when, and on whose request: read from the log of events. Pure.

``helper.changed`` is stored before anybody sees it, and chained; here its lines become one a
person: joined (a supervisor, on the agent's request for help) or took over (a manager, on the
agent's hand over), until when, and when the agent asked. :func:`unasked` is the check from the
other side: whoever joined must have a request of this call's agent before it in the same log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

#: Types of the events that this is read from.
TYPES = ("call.started", "alert.raised", "helper.changed", "call.ended")


@dataclass(slots=True)
class Joined:
    """One person in one call."""

    event_id: int
    ts: float
    """Both parties (on a hand over: the caller) had heard the announcement to its end."""
    call_id: str
    agent_id: str
    how: Literal["joined", "took_over"]
    role: str
    helper_id: str
    """Id of the configured person whose phone it is."""
    by: str
    """Who called that phone: ``supervisor:<token id>``, or ``agent:…`` on a hand over."""
    asked_ts: float
    """When the agent asked for it; 0 in events of a version that did not say."""
    left_ts: float | None = None
    """``None``: until the call was over, or still there."""

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def joins(events: Iterable[tuple[int, Mapping[str, Any]]]) -> list[Joined]:
    """Everybody who came into a call.

    Args:
        events: number and body, oldest first; of other types than ``helper.changed`` none matters.

    Returns:
        In the order of the log.
    """
    found: list[Joined] = []
    there: dict[str, Joined] = {}
    for event_id, body in events:
        if body["type"] != "helper.changed":
            continue
        call_id, state = body["call_id"], body["state"]
        if state in ("joined", "took_over"):
            one = Joined(
                event_id,
                body["ts"],
                call_id,
                body["agent_id"],
                state,
                body["role"],
                body["helper_id"],
                body["by"],
                body.get("asked_ts", 0.0),
            )
            found.append(one)
            if state == "joined":
                there[call_id] = one
            else:
                there.pop(call_id, None)
        elif state == "left" and call_id in there:
            there.pop(call_id).left_ts = body["ts"]
    return found


def unasked(events: Iterable[tuple[int, Mapping[str, Any]]]) -> list[int]:
    """Numbers of the events by which somebody came whom no agent had asked for.

    Each request for help lets one person in; a hand over is the agent's own press. Calls whose
    beginning is not in the log any more (retention) are passed over.

    Args:
        events: number and body of :data:`TYPES`, oldest first.
    """
    open_requests: dict[str, int] = {}
    wrong: list[int] = []
    for event_id, body in events:
        call_id = body.get("call_id", "")
        match body["type"]:
            case "call.started":
                open_requests.setdefault(call_id, 0)
            case "call.ended":
                open_requests.pop(call_id, None)
            case "alert.raised" if body["kind"] == "help" and call_id in open_requests:
                open_requests[call_id] += 1
            case "helper.changed" if call_id in open_requests:
                by_agent = str(body["by"]).startswith("agent:")
                if body["state"] == "took_over" and not by_agent:
                    wrong.append(event_id)
                elif body["state"] == "joined":
                    if not open_requests[call_id]:
                        wrong.append(event_id)
                    open_requests[call_id] = max(0, open_requests[call_id] - 1)
    return wrong
