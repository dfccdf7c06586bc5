"""The HTTP API, ``/api/v1``: live calls, alerts, actions. Audio has no route here."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from callshield import __version__
from callshield.messages import Action
from notifier.board import Call
from notifier.commands import TIMEOUT_S, BridgeAway
from notifier.node import WATCHED_ROLES, Node
from notifier.problems import MEDIA_TYPE, Problem
from notifier.tokens import Identity
from notifier.views import alert_view, call_view

#: How long a request waits until what it caused is stored.
STORED_WITHIN_S = 3.0
#: What concerns the agent alone: the request for help, the end of the agent's part, the ear.
_AGENT_ONLY = (Action.HELP, Action.HAND_OVER, Action.SOFTEN, Action.LEVELLING)

CallId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="32 hexadecimal digits")]


class ActionRequest(BaseModel):
    """What the person wants of the call."""

    model_config = ConfigDict(extra="forbid")

    action: Action
    target: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,64}$")
    """For *join* and *hand_over*: an ID of ``[supervisors.ID]``; empty for the first one, or for
    the responsible manager."""


class ActionAnswer(BaseModel):
    """What came of it."""

    status: Literal["done", "already"]
    detail: str = ""
    alert_id: str = ""
    """Of the alert that *help* raised."""


class CallState(BaseModel):
    """One live call. ``reasons`` and ``warnings`` only for its own agent."""

    call_id: str
    agent_id: str
    pbx_call_id: str
    direction: Literal["inbound", "outbound", "internal"]
    started_ts: float
    answered_ts: float | None
    notice: str
    tapped: bool
    level: int
    categories: list[str]
    ending: bool
    reasons: list[dict[str, Any]] | None = None
    warnings: int | None = None


class Calls(BaseModel):
    """Live calls, complete up to ``last_event_id``: open the WebSocket from there."""

    last_event_id: int
    now: float
    """The node's clock, seconds since the epoch."""
    calls: list[CallState]


class AlertState(BaseModel):
    """One alert; open while ``acknowledged_ts`` is null."""

    alert_id: str
    call_id: str
    agent_id: str
    kind: str
    level: int
    categories: list[str]
    reason: str
    raised_ts: float
    acknowledged_ts: float | None
    acknowledged_by: str
    """Token id of the person who took it."""


class Alerts(BaseModel):
    """Alerts, complete up to ``last_event_id``."""

    last_event_id: int
    alerts: list[AlertState]


class Component(BaseModel):
    """A part of the node that is down."""

    component: str
    reason: str
    since_ts: float


class NodeState(BaseModel):
    """How the node is, and who is asking."""

    node: str
    version: str
    language: str
    now: float
    role: str
    token_id: str
    agent_id: str
    last_event_id: int
    alert_level: int
    analysis: bool
    """Whether the detector is switched on."""
    warnings: int
    """How many graded warnings there are; the last one is the final one."""
    connected: dict[str, bool]
    degraded: list[Component]


_PROBLEM = {"content": {MEDIA_TYPE: {"schema": {"type": "object"}}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"description": "problem+json", **_PROBLEM} for status in statuses}


def node_of(request: Request) -> Node:
    node: Node = request.app.state.node
    return node


async def identity_of(request: Request, node: Annotated[Node, Depends(node_of)]) -> Identity:
    """The bearer of the request's token.

    Raises:
        Problem: 401 for a token that is missing, unknown, expired or revoked.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    identity = None
    if scheme.lower() == "bearer" and token:
        identity = await node.store.identity(token.strip(), node.clock())
    if identity is None:
        node.metrics.refused.labels("token").inc()
        raise Problem(
            401,
            "token",
            "Send a valid token as 'Authorization: Bearer cs_…' "
            "(callshield token create makes one).",
            {"WWW-Authenticate": 'Bearer realm="callshield"'},
        )
    return identity


NodeDependency = Annotated[Node, Depends(node_of)]
IdentityDependency = Annotated[Identity, Depends(identity_of)]

api = APIRouter(prefix="/api/v1", responses=problems(400, 401, 413, 422))
health = APIRouter()


@api.get("/calls")
async def list_calls(node: NodeDependency, identity: IdentityDependency) -> Calls:
    """Live calls: all for supervisors, without words; an agent's own for an agent."""
    calls = [
        CallState.model_validate(call_view(call, to_agent=not identity.watches_all))
        for call in node.board.calls.values()
        if identity.watches_all or call.agent_id == identity.agent_id
    ]
    return Calls(last_event_id=node.hub.last_id, now=node.clock(), calls=calls)


@api.get("/alerts")
async def list_alerts(
    node: NodeDependency,
    identity: IdentityDependency,
    state: Literal["open", "all"] = "open",
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Alerts:
    """Open alerts, oldest first; or the newest of all."""
    # Read before the list: what comes later is replayed, twice rather than never.
    last_id = node.hub.last_id
    own = None if identity.watches_all else identity.agent_id
    if state == "open":
        found = [a for a in node.board.alerts.values() if own is None or a.agent_id == own]
    else:
        found = await node.store.alert_history(own, limit)
    alerts = [AlertState.model_validate(alert_view(alert)) for alert in found]
    return Alerts(last_event_id=last_id, alerts=alerts)


@api.post("/alerts/{alert_id}/acknowledge", responses=problems(403, 404, 409, 503))
async def acknowledge(
    alert_id: CallId, node: NodeDependency, identity: IdentityDependency
) -> AlertState:
    """Take an alert. Exactly one person gets 200; everybody later 409 with the winner's id."""
    if not identity.watches_all:
        raise Problem(403, "role", "Alerts are taken by supervisors.")
    try:
        async with asyncio.timeout(STORED_WITHIN_S):
            taken = await node.acknowledge(alert_id, identity.token_id)
    except TimeoutError:
        raise _not_stored("Your acknowledgement") from None
    if taken is None:
        raise Problem(404, "unknown_alert", "There is no such alert.")
    alert, won = taken
    if not won:
        raise Problem(
            409,
            "already_acknowledged",
            "Somebody already took this alert.",
            acknowledged_by=alert.acknowledged_by,
            acknowledged_ts=alert.acknowledged_ts,
        )
    return AlertState.model_validate(alert_view(alert))


@api.post(
    "/calls/{call_id}/actions",
    responses=problems(403, 404, 409, 501, 503, 504),
    response_model_exclude_defaults=False,
)
async def act(
    call_id: CallId, body: ActionRequest, node: NodeDependency, identity: IdentityDependency
) -> ActionAnswer:
    """Do something with a live call: ``warn``, ``help``, ``end``, ``skip_notice``, …

    An agent acts on the own calls only; any other id is unknown to him. A supervisor acts on a
    call only after its agent asked for help, and can then ``join`` it, announced to both parties.
    """
    try:
        answer = await _act(call_id, body, node, identity)
    except Problem as problem:
        node.metrics.actions.labels(body.action, problem.kind).inc()
        raise
    node.metrics.actions.labels(body.action, answer.status).inc()
    return answer


async def _act(call_id: str, body: ActionRequest, node: Node, identity: Identity) -> ActionAnswer:
    action = body.action
    call = await _find(call_id, node, identity)
    if identity.watches_all and action in _AGENT_ONLY:
        raise Problem(403, "role", "Only the call's own agent does that.")
    if not identity.watches_all and action is Action.JOIN:
        raise Problem(403, "role", "A supervisor joins; an agent asks for help.")
    if identity.watches_all and not node.board.help_was_asked(call_id):
        status = 409 if action is Action.JOIN else 403
        raise Problem(status, "not_asked", "This call's agent has not asked for help.")
    if call.ended_ts is not None or (action is Action.END and call.ending_ts is not None):
        if action is Action.END:
            return ActionAnswer(status="already", detail="The call is already being ended.")
        raise Problem(409, "call_ended", "The call has ended.")
    if action is Action.HELP:
        return await _help(call_id, node)
    by = f"supervisor:{identity.token_id}" if identity.watches_all else "agent:console"
    try:
        result = await node.commands.ask(call_id, action, by, body.target)
    except BridgeAway as error:
        raise Problem(503, "bridge_away", _sentence(str(error)), {"Retry-After": "1"}) from None
    except TimeoutError:
        raise Problem(
            504, "bridge_late", f"The bridge did not answer within {TIMEOUT_S:g} s: press again."
        ) from None
    if action is Action.JOIN and result.status == "done":
        with contextlib.suppress(TimeoutError):  # it is queued: a slow disk keeps nobody waiting
            async with asyncio.timeout(STORED_WITHIN_S):
                await node.take_help(call_id, identity.token_id)
    match result.status:
        case "done" | "already":
            return ActionAnswer(status=result.status, detail=result.detail)
        case "unknown_call":
            raise _unknown_call()
        case "not_now":
            raise Problem(409, "not_now", result.detail or "That is not possible at this moment.")
        case "not_supported":
            raise Problem(501, "not_supported", result.detail or "This version cannot do that yet.")


async def _find(call_id: str, node: Node, identity: Identity) -> Call:
    """The call, live or of the past, if this person may know of it."""
    call = node.board.calls.get(call_id) or node.board.ended.get(call_id)
    if call is None:
        call = await node.store.ended_call(call_id)
    # The same answer for a call of somebody else and for one that never was.
    if call is None or not (identity.watches_all or call.agent_id == identity.agent_id):
        raise _unknown_call()
    return call


async def _help(call_id: str, node: Node) -> ActionAnswer:
    try:
        async with asyncio.timeout(STORED_WITHIN_S):
            asked = await node.ask_for_help(call_id)
    except TimeoutError:
        raise _not_stored("Your call for help") from None
    if asked is None:
        raise _unknown_call()
    alert, new = asked
    return ActionAnswer(
        status="done" if new else "already",
        detail="The supervisors were told." if new else "The supervisors are already told.",
        alert_id=alert.alert_id,
    )


def _unknown_call() -> Problem:
    return Problem(404, "unknown_call", "There is no such call.")


def _not_stored(what: str) -> Problem:
    return Problem(
        503,
        "not_stored",
        f"{what} is kept but could not be stored, so nobody was told yet: the database does not "
        "answer. It goes out as soon as it does; call by telephone meanwhile.",
        {"Retry-After": "2"},
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


@api.get("/node")
async def show_node(node: NodeDependency, identity: IdentityDependency) -> NodeState:
    """How the node is, and whom this token stands for."""
    return NodeState(
        node=node.settings.node.name,
        version=__version__,
        language=node.settings.node.language,
        now=node.clock(),
        role=identity.role,
        token_id=identity.token_id,
        agent_id=identity.agent_id,
        last_event_id=node.hub.last_id,
        alert_level=node.settings.alerts.level,
        analysis=node.settings.detector.enabled,
        warnings=len(node.settings.notice.warnings),
        connected={role: node.connected(role) for role in WATCHED_ROLES},
        degraded=[
            Component(component=item.component, reason=item.reason, since_ts=item.ts)
            for item in node.board.degraded.values()
        ],
    )


@health.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@health.get("/readyz", responses={503: {"description": "not ready; the body says which part"}})
async def readyz(node: NodeDependency) -> JSONResponse:
    """Everything a call needs is there: bridge on the bus with a media worker, store writable."""
    parts = {
        "bus": True,
        "bridge": node.connected("bridge"),
        "media": "media" not in node.board.degraded,
        "store": await node.store_is_writable(),
    }
    ready = all(parts.values())
    return JSONResponse({"ready": ready, **parts}, 200 if ready else 503)


@health.get("/metrics")
async def metrics(node: NodeDependency) -> PlainTextResponse:
    """Figures for Prometheus; no label names an agent or a call."""
    return PlainTextResponse(
        node.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8"
    )
