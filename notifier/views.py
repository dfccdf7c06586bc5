"""What each role may see of events, calls and alerts."""

from __future__ import annotations

from typing import Any

import msgspec

from notifier.board import Alert, Call

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
        "risk.changed",
        "helper.changed",
        "alert.raised",
        "alert.acknowledged",
        "alert.escalated",
        "node.degraded",
    }
)
#: Fields that only the call's own agent gets: evidence and score, not level and category.
_AGENT_ONLY = {"risk.changed": ("reasons", "score")}


def for_supervisor(body: dict[str, Any]) -> dict[str, Any] | None:
    """An event as a supervisor may see it (level, category, time; no words), or ``None``."""
    kind = body["type"]
    if kind not in SUPERVISOR_TYPES:
        return None
    hidden = _AGENT_ONLY.get(kind)
    if hidden is None:
        return body
    return {key: value for key, value in body.items() if key not in hidden}


def call_view(call: Call, *, to_agent: bool) -> dict[str, Any]:
    """A live call as JSON for its own agent, or for a supervisor (no reasons, no warnings)."""
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
        "ending": call.ending_ts is not None,
    }
    if to_agent:
        view["reasons"] = msgspec.to_builtins(call.reasons)
        view["warnings"] = call.warnings
    return view


def alert_view(alert: Alert) -> dict[str, Any]:
    """An alert as JSON."""
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
    }
