"""Which role may use which route. Pure; a route that does not stand here answers nobody.

This says who may *ask*; that an agent gets no call but the own ones is decided at each route, with
the same answer for somebody else's and for one that never was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

AGENT: Final = "agent"
SUPERVISOR: Final = "supervisor"
AUDITOR: Final = "auditor"
ADMIN: Final = "admin"
#: Of the workers: reads policies, who opened what, and aggregates; changes nothing.
REPRESENTATIVE: Final = "representative"
ROLES = (AGENT, SUPERVISOR, AUDITOR, ADMIN, REPRESENTATIVE)

_EVERYBODY = frozenset(ROLES)
_FLOOR = frozenset({AGENT, SUPERVISOR, ADMIN})
_WATCH = frozenset({SUPERVISOR, ADMIN})
_OWN = frozenset({AGENT})
_OVERSIGHT = frozenset({AUDITOR, ADMIN, REPRESENTATIVE})

#: ``METHOD path`` as the application has it → roles. ``WS`` is a WebSocket.
TABLE: Mapping[str, frozenset[str]] = {
    "GET /api/v1/node": _EVERYBODY,
    "GET /api/v1/calls": _FLOOR,
    "POST /api/v1/calls/{call_id}/actions": _FLOOR,
    "GET /api/v1/alerts": _FLOOR,
    "POST /api/v1/alerts/{alert_id}/acknowledge": _WATCH,
    "POST /api/v1/alerts/{alert_id}/verdict": _FLOOR,
    "WS /api/v1/events": _FLOOR,
    # Rest is between the agent and the timer.
    "GET /api/v1/agents/{agent_id}/rest": _OWN,
    "POST /api/v1/agents/{agent_id}/ready": _OWN,
    "POST /api/v1/alerts/{alert_id}/accept": _WATCH,
    "POST /api/v1/alerts/{alert_id}/refuse": _WATCH,
    "GET /api/v1/policies": _EVERYBODY,
    "POST /api/v1/calls/{call_id}/verdict": _FLOOR,
    "GET /api/v1/wallboard": _EVERYBODY,
    "GET /api/v1/me/calls": _OWN,
    # The agent's own word of a call, and what follows from it.
    "POST /api/v1/calls/{call_id}/after": _OWN,
    "GET /api/v1/me/rest": _OWN,
    "POST /api/v1/me/rest/extend": _OWN,
    "GET /api/v1/me/breaks": _OWN,
    "POST /api/v1/me/breaks/take": _OWN,
    "GET /api/v1/me/requests": _OWN,
    "GET /api/v1/me/quality": _OWN,
    "GET /api/v1/me/opened": _OWN,
    "GET /api/v1/me/joined": _OWN,
    "GET /api/v1/me/hearing": _OWN,
    # Requests for evidence; nothing else that the agent said.
    "GET /api/v1/requests": _WATCH,
    "POST /api/v1/requests/{request_id}/approve": _WATCH,
    "POST /api/v1/requests/{request_id}/refuse": _WATCH,
    "POST /api/v1/requests/{request_id}/done": _WATCH,
    "GET /api/v1/callbacks": _WATCH,
    "POST /api/v1/callbacks/{callback_id}/done": _WATCH,
    "GET /api/v1/quality/months": _EVERYBODY,
    "GET /api/v1/quality/draws": _WATCH,
    "POST /api/v1/quality/scores": _WATCH,
    "POST /api/v1/quality/scores/{draw_id}/contest": _OWN,
    "GET /api/v1/quality/opened": _OVERSIGHT,
    "GET /api/v1/reports/weekly": _EVERYBODY,
    # Not for supervisors: who knows five people best must not be shown figures of five.
    "GET /api/v1/reports/hearing": _OVERSIGHT,
    "GET /api/v1/pbx": frozenset({ADMIN}),
    "GET /api/v1/deliveries": frozenset({ADMIN}),
    "POST /api/v1/deliveries/{letter_id}/retry": frozenset({ADMIN}),
    "POST /api/v1/deliveries/{letter_id}/drop": frozenset({ADMIN}),
    # What a caller may ask for; who does it is in the log.
    "POST /api/v1/privacy/access": frozenset({ADMIN}),
    "POST /api/v1/privacy/erase": frozenset({ADMIN}),
    "GET /api/v1/privacy/erasures": frozenset({ADMIN}),
    "GET /api/v1/privacy/retention": _OVERSIGHT,
    "POST /api/v1/callbacks/{callback_id}/number": _WATCH,
    "GET /api/v1/oversight/policies": _OVERSIGHT,
    "GET /api/v1/oversight/reads": _OVERSIGHT,
    "GET /api/v1/oversight/joins": _OVERSIGHT,
    "GET /api/v1/oversight/figures": _OVERSIGHT,
    "GET /api/v1/oversight/chain": _OVERSIGHT,
}

#: Routes that take no token: nothing of a call is behind them.
OPEN = frozenset(
    {
        "GET /",
        "GET /agent",
        "GET /supervisor",
        "GET /wallboard",
        "GET /api/v1/sign-in",
        "GET /docs",
        "GET /openapi.json",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
        "GET /api/v1/oidc/login",
        "GET /api/v1/oidc/callback",
        "POST /api/v1/oidc/token",
    }
)

#: What a role that may not is told.
REFUSALS: Mapping[str, str] = {
    "POST /api/v1/alerts/{alert_id}/acknowledge": "Alerts are taken by supervisors.",
    "GET /api/v1/agents/{agent_id}/rest": "An agent's rest is the agent's own.",
    "POST /api/v1/agents/{agent_id}/ready": "An agent's rest is the agent's own.",
    "GET /api/v1/pbx": "This is for administrators.",
    "POST /api/v1/privacy/access": "A caller's request is answered by administrators.",
    "POST /api/v1/privacy/erase": "A caller's request is answered by administrators.",
}


def allowed(role: str, method: str, path: str) -> bool:
    """True when ``role`` may use a route.

    Args:
        role: one of :data:`ROLES`.
        method: HTTP method, or ``WS``.
        path: as the route was declared, with its parameters' names.
    """
    return role in TABLE.get(f"{method} {path}", frozenset())


def refusal(method: str, path: str) -> str:
    """The sentence for a role that may not."""
    return REFUSALS.get(f"{method} {path}", "Your role does not include this.")
