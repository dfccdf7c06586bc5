"""Routes about what follows a bad call: the agent's word, his rest and breaks, and call-backs."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from callshield.messages_care import CallbackState, SaidKind
from callshield.messages_evidence import RequestState
from notifier.aftercare import BeingErased
from notifier.callbacks import Callback
from notifier.care import NoteChoice, Said, may_still_be_said
from notifier.care_store import known_callback, said_by
from notifier.cluster import elsewhere
from notifier.evidence import Decision, state_of
from notifier.evidence_store import decisions
from notifier.live import Call
from notifier.node import Node
from notifier.problems import Problem
from notifier.routes import (
    STORED_WITHIN_S,
    CallId,
    IdentityDependency,
    NodeDependency,
    is_internal,
    problems,
)
from notifier.tokens import Identity

care_routes = APIRouter(prefix="/api/v1", responses=problems(400, 401, 403, 413, 422, 429))

#: Said of one agent's calls that are shown to him.
_SHOWN = 200

CallbackId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="32 hexadecimal digits")]


class AfterWord(BaseModel):
    """What the agent says of an own call, live or over for less than 24 hours."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["rest", "evidence", "abusive"]
    """``rest``: as after a severe call; ``evidence``: to be kept and handed out; ``abusive``: the
    same follows as if the machine had said level 3."""


class AfterNote(BaseModel):
    """A note by one tap."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["note"]
    note: NoteChoice
    """One of these; there is no free text."""


AfterRequest = Annotated[AfterWord | AfterNote, Field(discriminator="action")]


class AfterAnswer(BaseModel):
    """What came of it."""

    status: Literal["done", "already"]
    request_id: str
    """Under which it stands in ``/me/requests``."""
    resting: bool
    until_ts: float | None = None
    """When the rest ends by itself; null where there is none."""


class MyRest(BaseModel):
    """The agent's own rest, how much longer he may make it, and who offers counselling."""

    now: float
    """The node's clock, seconds since the epoch."""
    resting: bool
    until_ts: float | None = None
    """When it ends by itself, or when it ended; null when there was none."""
    call_id: str = ""
    reason: str = ""
    """``level``, ``ended``, ``asked`` or ``break``."""
    by: str = ""
    """Who ended it: ``timer``, ``agent`` or ``pbx``."""
    rest_s: float
    """How long a rest is here; 0: there is none."""
    extend_s: float
    """How much longer the next press makes it; 0: it is as long as it may be."""
    counselling: str
    counselling_number: str


class ExtendAnswer(BaseModel):
    """What came of making a rest longer."""

    status: Literal["done", "already"]
    """``already``: it is as long as it may be."""
    until_ts: float


class BreakState(BaseModel):
    """One planned break that a bad call touched."""

    begins_ts: float
    """As planned."""
    length_s: float
    call_id: str
    eaten_s: float
    moved_to_ts: float | None
    given_back_s: float
    owed_s: float


class MyBreaks(BaseModel):
    """What is owed to the agent of planned breaks."""

    now: float
    owed_s: float
    breaks: list[BreakState]
    """Oldest first; of calls that were not bad only those that delayed a break."""


class TakeAnswer(BaseModel):
    """Owed time begins."""

    status: Literal["done"]
    until_ts: float


class SaidState(BaseModel):
    """One thing that the agent said of an own call."""

    request_id: str
    call_id: str
    action: SaidKind
    note: str
    ts: float
    done_ts: float | None
    """Of ``evidence``: when it was settled; null: not yet."""
    state: RequestState | None = None
    """Of ``evidence``."""
    decided_ts: float | None = None
    reason: str = ""
    """Of a refusal: why."""
    held_until_ts: float | None = None
    """Of a refusal: until when the call stays as it is."""


class MyRequests(BaseModel):
    """What the agent said of own calls, newest first."""

    requests: list[SaidState]
    grievance_contact: str
    """Whom to turn to when a request for evidence was refused; empty where nobody is configured."""


class CallbackView(BaseModel):
    """A call-back. No number: the PBX knows it under its id of the call."""

    callback_id: str
    call_id: str
    pbx_call_id: str
    agent_id: str
    state: CallbackState
    owner: str
    """ID of ``[supervisors.ID]``."""
    promised_ts: float
    due_ts: float
    spoken: bool
    """The caller heard it to the end."""


class CallbackList(BaseModel):
    """Open call-backs, the one that is due first in front."""

    now: float
    callbacks: list[CallbackView]


class DoneAnswer(BaseModel):
    """What came of *done*."""

    status: Literal["done", "already"]


def _agent(identity: Identity) -> str:
    if identity.watches_all:
        raise Problem(403, "role", "This is between the agent and the node.")
    return identity.agent_id


def _waits(what: str) -> Problem:
    return Problem(
        503,
        "not_stored",
        f"{what} is kept but could not be stored yet: the database does not answer.",
        {"Retry-After": "2"},
    )


async def _own_call(call_id: str, node: Node, agent_id: str) -> Call:
    call = node.board.calls.get(call_id) or node.board.ended.get(call_id)
    if call is None:
        call = await node.store.ended_call(call_id)
    if call is None or call.agent_id != agent_id:
        raise Problem(404, "unknown_call", "There is no such call.")
    return call


@care_routes.post("/calls/{call_id}/after", responses=problems(404, 409, 503))
async def say_after(
    call_id: CallId, body: AfterRequest, node: NodeDependency, identity: IdentityDependency
) -> AfterAnswer:
    """The agent's word about an own call: at every level, in the call and up to 24 hours after."""
    agent_id = _agent(identity)
    note = body.note if isinstance(body, AfterNote) else ""
    call = await _own_call(call_id, node, agent_id)
    if not may_still_be_said(call, node.clock()):
        raise Problem(409, "too_late", "This call is over for more than 24 hours.")
    if body.action == "abusive" and is_internal(call):
        raise Problem(409, "not_now", "This is a call between colleagues: nothing judges it.")
    if body.action == "rest" and not node.settings.aftercare.rest_s:
        raise Problem(
            409, "no_rest", "No rest is configured here: an administrator sets aftercare.rest_s."
        )
    try:
        async with asyncio.timeout(STORED_WITHIN_S):
            status, request_id = await node.aftercare.say(call, body.action, note)
    except BeingErased:
        raise Problem(
            409,
            "being_erased",
            "This call is being erased on its caller's request: nothing more can be kept.",
        ) from None
    except TimeoutError:
        raise _waits("Your word") from None
    rest = node.pbx.rests.resting(agent_id)
    return AfterAnswer(
        status=status,
        request_id=request_id,
        resting=rest is not None,
        until_ts=rest.until_ts if rest else None,
    )


@care_routes.get("/me/rest")
async def my_rest(node: NodeDependency, identity: IdentityDependency) -> MyRest:
    """The own rest; later changes come as ``rest.changed``."""
    agent_id = _agent(identity)
    settings = node.settings.aftercare
    rest = node.pbx.rests.get(agent_id)
    state = MyRest(
        now=node.clock(),
        resting=False,
        rest_s=settings.rest_s,
        extend_s=0.0,
        counselling=settings.counselling,
        counselling_number=settings.counselling_number,
    )
    if rest is None:
        return state
    left_s = rest.began_ts + settings.longest_s - rest.until_ts
    return state.model_copy(
        update={
            "resting": rest.resting,
            "until_ts": rest.until_ts if rest.ended_ts is None else rest.ended_ts,
            "call_id": rest.call_id,
            "reason": rest.reason,
            "by": rest.ended_by,
            "extend_s": max(0.0, min(settings.extend_s, left_s)) if rest.resting else 0.0,
        }
    )


@care_routes.post("/me/rest/extend", responses=problems(409, 503))
async def extend_my_rest(node: NodeDependency, identity: IdentityDependency) -> ExtendAnswer:
    """Make the own rest longer by ``aftercare.extend_s``, up to ``aftercare.longest_s``."""
    agent_id = _agent(identity)
    try:
        async with asyncio.timeout(STORED_WITHIN_S):
            extended = await node.aftercare.extend_rest(agent_id)
    except TimeoutError:
        raise _waits("Your longer rest") from None
    if extended is None:
        raise Problem(409, "not_resting", "You are not resting.")
    rest, grown_s = extended
    return ExtendAnswer(status="done" if grown_s > 0 else "already", until_ts=rest.until_ts)


@care_routes.get("/me/breaks")
async def my_breaks(node: NodeDependency, identity: IdentityDependency) -> MyBreaks:
    """What bad calls ate of the own planned breaks; nobody else sees it."""
    agent_id = _agent(identity)
    ledger = node.aftercare.ledger
    return MyBreaks(
        now=node.clock(),
        owed_s=ledger.owed_s(agent_id),
        breaks=[
            BreakState(
                begins_ts=row.break_ts,
                length_s=row.length_s,
                call_id=row.call_id,
                eaten_s=row.eaten_s,
                moved_to_ts=row.moved_to_ts,
                given_back_s=row.paid_s,
                owed_s=row.owed_s,
            )
            for row in ledger.rows(agent_id)
            if row.bad or row.moved_to_ts is not None
        ],
    )


@care_routes.post("/me/breaks/take", responses=problems(409, 503))
async def take_my_break(node: NodeDependency, identity: IdentityDependency) -> TakeAnswer:
    """Take what is owed, now: the queues leave the agent alone for that long."""
    agent_id = _agent(identity)
    try:
        async with asyncio.timeout(STORED_WITHIN_S):
            rest = await node.aftercare.take_break(agent_id)
    except TimeoutError:
        raise _waits("Your break") from None
    if rest is None:
        raise Problem(409, "nothing_to_take", "Nothing is owed to you, or you are resting already.")
    return TakeAnswer(status="done", until_ts=rest.until_ts)


@care_routes.get("/me/requests")
async def my_requests(node: NodeDependency, identity: IdentityDependency) -> MyRequests:
    """What the agent said of own calls."""
    found = await said_by(node.store, _agent(identity), _SHOWN)
    asked = [item.request_id for item in found if item.kind == "evidence"]
    decided = await decisions(node.store, asked)
    return MyRequests(
        requests=[_said_state(item, decided.get(item.request_id)) for item in found],
        grievance_contact=node.settings.law.grievance_contact,
    )


def _said_state(item: Said, decision: Decision | None) -> SaidState:
    state = SaidState(
        request_id=item.request_id,
        call_id=item.call_id,
        action=item.kind,
        note=item.choice,
        ts=item.ts,
        done_ts=item.done_ts,
    )
    if item.kind != "evidence":
        return state
    state.state = state_of(item, decision)
    if decision is not None:
        state.decided_ts = decision.ts
        state.reason = decision.reason
        state.held_until_ts = decision.held_until_ts
    return state


def _sees(item: Callback, identity: Identity) -> bool:
    """Of the own teams, or owed by this person."""
    owes = bool(identity.supervisor_id) and item.owner == identity.supervisor_id
    return owes or identity.sees(item.agent_id)


def _supervises(identity: Identity) -> None:
    if identity.role not in ("supervisor", "admin"):
        raise Problem(403, "role", "Call-backs are the supervisors'.")


@care_routes.get("/callbacks")
async def list_callbacks(node: NodeDependency, identity: IdentityDependency) -> CallbackList:
    """Open call-backs of the supervisor's teams."""
    _supervises(identity)
    return CallbackList(
        now=node.clock(),
        callbacks=[
            CallbackView(
                callback_id=item.callback_id,
                call_id=item.call_id,
                pbx_call_id=item.pbx_call_id,
                agent_id=item.agent_id,
                state=item.state,
                owner=item.owner,
                promised_ts=item.promised_ts,
                due_ts=item.due_ts,
                spoken=item.spoken_ts is not None,
            )
            for item in node.aftercare.callbacks.open
            if _sees(item, identity)
        ]
        + await elsewhere.listed(node, "callbacks", CallbackView, "callback_id", identity),
    )


@care_routes.post("/callbacks/{callback_id}/done", responses=problems(404, 503))
async def callback_done(
    callback_id: CallbackId, node: NodeDependency, identity: IdentityDependency
) -> DoneAnswer:
    """Somebody called back."""
    _supervises(identity)
    item = node.aftercare.callbacks.get(callback_id)
    past = item or await known_callback(node.store, callback_id)
    if past is None or not _sees(past, identity):
        raise Problem(404, "unknown_callback", "There is no such call-back.")
    try:
        async with asyncio.timeout(STORED_WITHIN_S):
            done = await node.aftercare.callback_done(callback_id, identity.token_id)
    except TimeoutError:
        raise _waits("That you called back") from None
    return DoneAnswer(status="already" if done is None else "done")
