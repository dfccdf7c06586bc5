"""The HTTP API, ``/api/v1``: live calls, alerts, actions. Audio has no route here."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from callshield import __version__
from callshield.messages import Action, Direction
from callshield.messages_escalation import AcceptedHow
from notifier.cluster import elsewhere
from notifier.commands import TIMEOUT_S, BridgeAway
from notifier.live import Alert, Call
from notifier.node import Node
from notifier.node_bus import WATCHED_ROLES
from notifier.permissions import allowed, refusal
from notifier.problems import MEDIA_TYPE, Problem
from notifier.tokens import Identity
from notifier.views import alert_view, call_view

#: How long a request waits until what it caused is stored.
STORED_WITHIN_S = 3.0
#: What concerns the agent alone: the request for help, the end of the agent's part, the ear.
_AGENT_ONLY = (
    Action.HELP,
    Action.HAND_OVER,
    Action.SOFTEN,
    Action.LEVELLING,
    Action.ABUSIVE,
    Action.PROMISE_CALL_BACK,
    Action.EXTEND,
    Action.START_RECORDING,
)

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
    """One live call. ``warnings`` and what has no value otherwise only for its own agent,
    ``reasons`` for him and, once he asked for help, for supervisors."""

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
    acoustic_only: bool
    """The level rests on sound alone."""
    words_confirmed: bool
    """It rests on words that are no mishearing."""
    crisis: bool
    """The caller may be in danger."""
    ending: bool
    node: str = ""
    """The other node that has the call; empty: this one."""
    unreachable: bool = False
    """That node is not heard: how the call stands is not known."""
    reasons: list[dict[str, Any]] | None = None
    warnings: int | None = None
    paused: bool | None = None
    held: bool | None = None
    softening: bool | None = None
    recording: bool | None = None
    waits: bool | None = None
    """A key of the caller's may still decide whether the call is analysed."""
    choice: str | None = None
    """What changed it last: ``objection``, ``no_consent``, ``consent``, ``no_objection``,
    ``caller_changed`` or ``caller_back``."""
    spared: str | None = None
    """Why nothing is done automatically: ``never_automatic``, ``vulnerable``, ``relay_service``."""


class Calls(BaseModel):
    """Live calls, complete up to ``last_event_id``: open the WebSocket from there."""

    last_event_id: int
    now: float
    """The node's clock, seconds since the epoch."""
    calls: list[CallState]


class RefusalState(BaseModel):
    """Somebody could not come."""

    by: str
    reason: str
    ts: float


class EscalationState(BaseModel):
    """How far an open alert has got: docs/escalation.md."""

    step: int
    stage: Literal["person", "all", "manager", "nobody"]
    asking: str
    """Who is asked in turn now."""
    told: list[str]
    """Everybody who was told, by id."""
    refusals: list[RefusalState]
    next_in_s: float | None
    """Until somebody else is told; null when nobody else will be."""
    unanswered: bool
    """Nobody came within the limit: the agent is offered *end* and a call-back."""


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
    verdict: Literal["", "confirmed", "refuted"]
    """Whether the machine was right, as your role said last."""
    how: Literal["", "join", "take_over", "seen"]
    """How it was accepted."""
    supervisor_id: str
    """Who accepted it, of ``[supervisors.ID]``; empty for a token that is tied to nobody."""
    node: str = ""
    """The other node that has it; empty: this one."""
    escalation: EscalationState | None = None
    """While it is open."""


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
    supervisor_id: str
    last_event_id: int
    alert_level: int
    analysis: bool
    """Whether the detector is switched on."""
    warnings: int
    """How many graded warnings there are; the last one is the final one."""
    crisis_number: str
    """To hand a caller in danger over to."""
    crisis_name: str
    hand_over: bool
    record_on_request: bool
    """Calls are recorded from when their agent asks for it."""
    """Whether there is anybody to hand a call over to (``[supervisors.ID]``)."""
    connected: dict[str, bool]
    degraded: list[Component]


_PROBLEM = {"content": {MEDIA_TYPE: {"schema": {"type": "object"}}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"description": "problem+json", **_PROBLEM} for status in statuses}


def node_of(request: Request) -> Node:
    node: Node = request.app.state.node
    return node


async def identity_of(request: Request, node: Annotated[Node, Depends(node_of)]) -> Identity:
    """The bearer of the request's token, whose role includes this route.

    Raises:
        Problem: 401 for a token that is missing, unknown, expired or revoked; 403 for a role that
            :mod:`notifier.permissions` does not let in.
        AnsweredElsewhere: the request is about what another node has, and that node answered.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    identity = None
    if scheme.lower() == "bearer" and token:
        identity = await node.identity(token.strip())
    if identity is None:
        node.metrics.refused.labels("token").inc()
        raise Problem(
            401,
            "token",
            "Send a valid token as 'Authorization: Bearer cs_…' "
            "(callshield token create makes one).",
            {"WWW-Authenticate": 'Bearer realm="callshield"'},
        )
    request.app.state.limits.found_good(request.headers)
    path = request.scope["route"].path
    if not allowed(identity.role, request.method, path):
        raise Problem(403, "role", refusal(request.method, path))
    await elsewhere.answer_elsewhere(request, node, identity)
    return identity


def alert_state(alert: Alert, identity: Identity, node: Node) -> AlertState:
    """An alert as this person may see it."""
    view = alert_view(alert, to_agent=not identity.watches_all)
    view["escalation"] = node.escalating.state(alert.alert_id)
    return AlertState.model_validate(view)


NodeDependency = Annotated[Node, Depends(node_of)]
IdentityDependency = Annotated[Identity, Depends(identity_of)]

api = APIRouter(prefix="/api/v1", responses=problems(400, 401, 413, 422, 429))
health = APIRouter(responses=problems(429))


@api.get("/calls")
async def list_calls(node: NodeDependency, identity: IdentityDependency) -> Calls:
    """Live calls: all for supervisors, without words; an agent's own for an agent.

    The words of a call whose agent asked for help are shown when it is stored that they were.
    """
    told = await _words_may_be_shown(node, identity)
    calls = [
        CallState.model_validate(
            call_view(
                call,
                to_agent=not identity.watches_all,
                help_asked=told and node.board.help_was_asked(call.call_id),
            )
        )
        for call in node.board.calls.values()
        if identity.sees(call.agent_id)
    ]
    # Read before the others are asked for what they have: twice rather than never.
    last_id = node.hub.last_id
    there = await elsewhere.calls(node, identity)
    calls += [CallState.model_validate(view) for view in there]
    return Calls(last_event_id=last_id, now=node.clock(), calls=calls)


async def _words_may_be_shown(node: Node, identity: Identity) -> bool:
    try:
        async with asyncio.timeout(STORED_WITHIN_S):
            await node.show_words(identity)
    except TimeoutError:
        return False
    return True


@api.get("/alerts")
async def list_alerts(
    node: NodeDependency,
    identity: IdentityDependency,
    state: Literal["open", "all"] = "open",
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Alerts:
    """Open alerts, oldest first (of more than ``limit``, calls for help and callers in danger
    before all others, then the newest); or the newest of all."""
    # Read before the list: what comes later is replayed, twice rather than never.
    last_id = node.hub.last_id
    own = None if identity.watches_all else identity.agent_id
    if state == "open":
        found = node.board.open_alerts(limit, identity.sees)
    else:
        found = await node.store.alert_history(own, limit, identity.hidden)
    alerts = [alert_state(alert, identity, node) for alert in found]
    there = elsewhere.alerts(node, identity)
    alerts += [AlertState.model_validate(view) for view in there[: limit - len(alerts)]]
    return Alerts(last_event_id=last_id, alerts=alerts)


@api.post("/alerts/{alert_id}/acknowledge", responses=problems(403, 404, 409, 503))
async def acknowledge(
    alert_id: CallId, node: NodeDependency, identity: IdentityDependency
) -> AlertState:
    """Take an alert. Exactly one person gets 200; everybody later 409 with the winner's id. The
    same as to accept it as ``seen``."""
    await alert_for(alert_id, node, identity)
    return await take(alert_id, "seen", node, identity)


async def alert_for(alert_id: str, node: Node, identity: Identity) -> Alert:
    """An alert that this person may take or refuse.

    Raises:
        Problem: 403 for agents, 404 where there is none or it is another team's.
    """
    if not identity.watches_all:
        raise Problem(403, "role", "Alerts are taken by supervisors.")
    alert = await node.known_alert(alert_id)
    # The same answer for another team's alert and for one that never was.
    if alert is None or not identity.sees(alert.agent_id):
        raise Problem(404, "unknown_alert", "There is no such alert.")
    return alert


async def take(alert_id: str, how: AcceptedHow, node: Node, identity: Identity) -> AlertState:
    """Acknowledge an alert for this person.

    Raises:
        Problem: 409 when somebody has it, 503 when it could not be stored in time.
    """
    if node.escalating.held_by(alert_id) not in ("", identity.token_id):
        raise Problem(
            409,
            "being_accepted",
            "Somebody else is accepting this alert at this moment.",
            {"Retry-After": "1"},
        )
    try:
        async with asyncio.timeout(STORED_WITHIN_S):
            taken = await node.acknowledge(alert_id, identity.token_id, how, identity.supervisor_id)
    except TimeoutError:
        raise not_stored("Your acknowledgement") from None
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
    return alert_state(alert, identity, node)


@api.post(
    "/calls/{call_id}/actions",
    responses=problems(403, 404, 409, 501, 503, 504),
    response_model_exclude_defaults=False,
)
async def act(
    call_id: CallId,
    body: ActionRequest,
    node: NodeDependency,
    identity: IdentityDependency,
    request: Request,
) -> ActionAnswer:
    """Do something with a live call: ``warn``, ``help``, ``end``, ``skip_notice``, …

    An agent acts on the own calls only; any other id is unknown to him. A supervisor acts on a
    call only after its agent asked for help, and can then ``join`` it, announced to both parties.
    """
    too_many = request.app.state.limits.action_refusal(request.headers, body.action)
    if too_many is not None:
        node.metrics.refused.labels("too_many").inc()
        raise too_many
    try:
        answer = await do(call_id, body, node, identity)
    except Problem as problem:
        node.metrics.actions.labels(body.action, problem.kind).inc()
        raise
    node.metrics.actions.labels(body.action, answer.status).inc()
    return answer


async def _extend(call: Call, node: Node) -> ActionAnswer:
    try:
        async with asyncio.timeout(STORED_WITHIN_S):
            extended = await node.extend(call)
    except TimeoutError:
        raise not_stored("Your press") from None
    if not extended:
        raise Problem(409, "not_now", "This call has no limit that could be extended.")
    return ActionAnswer(status="done")


async def do(
    call_id: str,
    body: ActionRequest,
    node: Node,
    identity: Identity,
    how: AcceptedHow = "join",
) -> ActionAnswer:
    """What :func:`act` does; ``how`` a supervisor who joins has accepted.

    Raises:
        Problem: why not.
    """
    action = body.action
    call = await find_call(call_id, node, identity)
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
    if action is Action.PROMISE_CALL_BACK:
        return await _promise(call_id, node)
    if action is Action.EXTEND:
        return await _extend(call, node)
    if action is Action.ABUSIVE:
        return await _abusive(call, node)
    by = f"supervisor:{identity.token_id}" if identity.watches_all else "agent:console"
    # Who joins means the own phone, where the token says whose that is.
    target = body.target or (identity.supervisor_id if action is Action.JOIN else "")
    try:
        result = await node.commands.ask(call_id, action, by, target)
    except BridgeAway as error:
        raise Problem(503, "bridge_away", _sentence(str(error)), {"Retry-After": "1"}) from None
    except TimeoutError:
        raise Problem(
            504, "bridge_late", f"The bridge did not answer within {TIMEOUT_S:g} s: press again."
        ) from None
    if action is Action.JOIN and result.status == "done":
        with contextlib.suppress(TimeoutError):  # it is queued: a slow disk keeps nobody waiting
            async with asyncio.timeout(STORED_WITHIN_S):
                await node.take_help(call_id, identity.token_id, how, identity.supervisor_id)
    match result.status:
        case "done" | "already":
            return ActionAnswer(status=result.status, detail=result.detail)
        case "unknown_call":
            raise _unknown_call()
        case "not_now":
            raise Problem(409, "not_now", result.detail or "That is not possible at this moment.")
        case "not_supported":
            raise Problem(501, "not_supported", result.detail or "This version cannot do that yet.")


async def find_call(call_id: str, node: Node, identity: Identity) -> Call:
    """The call, live or of the past, if this person may know of it."""
    call = node.board.calls.get(call_id) or node.board.ended.get(call_id)
    if call is None:
        call = await node.store.ended_call(call_id)
    # The same answer for a call of somebody else and for one that never was.
    if call is None or not identity.sees(call.agent_id):
        raise _unknown_call()
    return call


async def _help(call_id: str, node: Node) -> ActionAnswer:
    try:
        async with asyncio.timeout(STORED_WITHIN_S):
            asked = await node.ask_for_help(call_id)
    except TimeoutError:
        raise not_stored("Your call for help") from None
    if asked is None:
        raise _unknown_call()
    alert, new = asked
    return ActionAnswer(
        status="done" if new else "already",
        detail="The supervisors were told." if new else "The supervisors are already told.",
        alert_id=alert.alert_id,
    )


async def _promise(call_id: str, node: Node) -> ActionAnswer:
    try:
        # The bridge has TIMEOUT_S to answer, after the promise is stored.
        async with asyncio.timeout(STORED_WITHIN_S + TIMEOUT_S):
            promised = await node.aftercare.promise_call_back(call_id, "agent:console")
    except TimeoutError:
        raise not_stored("Your promise to call back") from None
    if promised is None:
        raise Problem(
            409, "no_callbacks", "No call-backs are promised here (callbacks.within_s is 0)."
        )
    return ActionAnswer(
        status=promised[0], detail="Somebody will call back; the caller is told so."
    )


async def _abusive(call: Call, node: Node) -> ActionAnswer:
    """The agent's own word, the same as at ``after``: level 3 and all that follows."""
    if is_internal(call):
        raise Problem(409, "not_now", "This is a call between colleagues: nothing judges it.")
    try:
        async with asyncio.timeout(STORED_WITHIN_S):
            await node.aftercare.say(call, "abusive")
    except TimeoutError:
        raise not_stored("Your word") from None
    return ActionAnswer(status="done", detail="Level 3: you say that it is severe.")


def is_internal(call: Call) -> bool:
    """Between colleagues; of a call of the past only the notice tells it."""
    return call.direction is Direction.INTERNAL or call.notice == "internal"


def _unknown_call() -> Problem:
    return Problem(404, "unknown_call", "There is no such call.")


def not_stored(what: str) -> Problem:
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
        supervisor_id=identity.supervisor_id,
        last_event_id=node.hub.last_id,
        alert_level=node.settings.alerts.level,
        analysis=node.settings.detector.enabled,
        warnings=len(node.settings.notice.warnings),
        crisis_number=node.settings.crisis_line[0],
        crisis_name=node.settings.crisis_line[1],
        hand_over=bool(node.settings.supervisors),
        record_on_request=node.settings.recording.enabled
        and node.settings.recording.begin == "on_request",
        connected={role: node.bus.connected(role) for role in WATCHED_ROLES},
        degraded=[
            Component(component=item.component, reason=item.reason, since_ts=item.ts)
            for item in [
                *node.board.degraded.values(),
                *([] if node.cluster is None else node.cluster.degraded()),
            ]
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
        "bridge": node.bus.connected("bridge"),
        "media": "media" not in node.board.degraded,
        "store": await node.store_is_writable(),
    }
    ready = all(parts.values())
    return JSONResponse({"ready": ready, **parts}, 200 if ready else 503)


@health.get("/metrics", response_class=PlainTextResponse)
async def metrics(node: NodeDependency) -> PlainTextResponse:
    """Figures for Prometheus; no label names an agent or a call."""
    return PlainTextResponse(
        node.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8"
    )
