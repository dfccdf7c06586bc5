"""What one node may be asked for by another on a person's behalf, and the HTTP route of each.

Apart from what speaks to the bus, so that a node without others loads nothing of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar

#: This request came from another node: it is not sent on to a third one.
from_elsewhere: ContextVar[bool] = ContextVar("from_elsewhere", default=False)

#: What an operation is by HTTP, for the table of permissions.
ROUTES: Mapping[str, tuple[str, str]] = {
    "words": ("GET", "/api/v1/calls"),
    "act": ("POST", "/api/v1/calls/{call_id}/actions"),
    "after": ("POST", "/api/v1/calls/{call_id}/after"),
    "call_verdict": ("POST", "/api/v1/calls/{call_id}/verdict"),
    "acknowledge": ("POST", "/api/v1/alerts/{alert_id}/acknowledge"),
    "accept": ("POST", "/api/v1/alerts/{alert_id}/accept"),
    "refuse": ("POST", "/api/v1/alerts/{alert_id}/refuse"),
    "verdict": ("POST", "/api/v1/alerts/{alert_id}/verdict"),
    "callbacks": ("GET", "/api/v1/callbacks"),
    "callback_done": ("POST", "/api/v1/callbacks/{callback_id}/done"),
    "requests": ("GET", "/api/v1/requests"),
    "request_approve": ("POST", "/api/v1/requests/{request_id}/approve"),
    "request_refuse": ("POST", "/api/v1/requests/{request_id}/refuse"),
    "request_done": ("POST", "/api/v1/requests/{request_id}/done"),
}
