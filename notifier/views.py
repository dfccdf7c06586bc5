"""What each role may see of events, calls and alerts."""

from __future__ import annotations

from typing import Any

import msgspec

from notifier.live import Alert, Call
from notifier.shadow import calm

#: What a supervisor's screen gets. Not in it: the agent's own actions and presence
#: (``warning.played``, ``media.silent``, ``ear.changed``), so that no screen sets them against a
#: level.
SUPERVISOR_TYPES = frozenset(
    {
        "call.started",
        "call.answered",
        "call.ending",
        "call.ended",
        "notice.started",
        "notice.finished",
        "tap.started",
        "protection.changed",
        "risk.changed",
        "crisis.hint",
        "helper.changed",
        "alert.raised",
        "alert.acknowledged",
        "alert.escalated",
        "call.marked",
        "callback.changed",
        "evidence.requested",
        "evidence.changed",
        "alert.refused",
        "alert.unanswered",
        "node.degraded",
    }
)
#: Fields that only the call's own agent gets: evidence and score, not level and category; after
#: he asked for help, supervisors get them too (design principle 4).
_AGENT_ONLY = {"risk.changed": ("reasons", "score"), "crisis.hint": ("words", "detail")}
#: Fields that nobody but the call's own agent ever gets: who marked a call is not set beside its
#: level on anybody's screen.
_NEVER = {"call.marked": ("by",)}


def for_supervisor(body: dict[str, Any], *, help_asked: bool = False) -> dict[str, Any] | None:
    """An event as a supervisor may see it, or ``None``.

    Args:
        body: the whole event.
        help_asked: the call's agent has asked for help; until then a supervisor sees level,
            category and time, no words.
    """
    kind = body["type"]
    if kind not in SUPERVISOR_TYPES:
        return None
    if body.get("shadow") and not help_asked:
        return None
    hidden = _NEVER.get(kind, () if help_asked else _AGENT_ONLY.get(kind, ()))
    if not hidden:
        return body
    return {key: value for key, value in body.items() if key not in hidden}


def call_view(call: Call, *, to_agent: bool, help_asked: bool = False) -> dict[str, Any]:
    """A live call as JSON for its own agent, or for a supervisor (no warnings; reasons only after
    the agent asked for help)."""
    view: dict[str, Any] = {
        "call_id": call.call_id,
        "agent_id": call.agent_id,
        "pbx_call_id": call.pbx_call_id,
        "direction": call.direction.value,
        "started_ts": call.started_ts,
        "answered_ts": call.answered_ts,
        "notice": call.notice,
        "tapped": call.tapped,
        "level": call.level,
        "categories": call.categories,
        "acoustic_only": call.acoustic_only,
        "words_confirmed": call.words_confirmed,
        "crisis": call.crisis_ts is not None,
        "ending": call.ending_ts is not None,
    }
    if call.shadow and not (to_agent or help_asked):
        view = calm(view)
    if to_agent or help_asked:
        view["reasons"] = msgspec.to_builtins(call.reasons)
    if to_agent:
        view["warnings"] = call.warnings
        view["paused"] = call.paused
        view["held"] = call.held
        view["waits"] = call.waits
        view["choice"] = call.choice
        view["recording"] = call.recording
        view["spared"] = call.spared
        view["softening"] = call.softening
    return view


def alert_view(alert: Alert, *, to_agent: bool) -> dict[str, Any]:
    """An alert as JSON, with the verdict of the reader's own role: what the agent thinks of it no
    supervisor sees, nor the other way round."""
    return {
        "alert_id": alert.alert_id,
        "call_id": alert.call_id,
        "agent_id": alert.agent_id,
        "kind": alert.kind,
        "level": alert.level,
        "categories": alert.categories,
        "reason": alert.reason,
        "raised_ts": alert.raised_ts,
        "acknowledged_ts": alert.acknowledged_ts,
        "acknowledged_by": alert.acknowledged_by,
        "how": alert.how,
        "supervisor_id": alert.supervisor_id,
        "verdict": alert.agent_verdict if to_agent else alert.supervisor_verdict,
    }
