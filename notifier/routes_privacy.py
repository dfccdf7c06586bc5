"""Routes about what a caller may ask for, and the number of a call-back.

A number comes in the body of a request, never in an address; nothing of it is kept or logged. The
sound of recordings is not here: the command line adds it (``callshield privacy access``).
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from callshield.caller_pseudonym import load_caller_keys
from callshield.errors import CallshieldError
from callshield.messages_privacy import CallOutcome
from notifier.audit import begin_snapshot, read
from notifier.node import Node
from notifier.privacy import PrivacyRefused, Wanted, wanted_by_number
from notifier.problems import Problem
from notifier.reading import reading, shown_to_agent
from notifier.retention_table import table
from notifier.routes import STORED_WITHIN_S, IdentityDependency, NodeDependency, problems
from notifier.subject_access import collect

privacy = APIRouter(prefix="/api/v1", responses=problems(400, 401, 403, 413, 422, 429))

CallbackId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="32 hexadecimal digits")]
#: Calls of one answer: what they hold is in memory at once.
MOST_GIVEN = 200
#: An erasure waits for the bridge, call by call. What is not done by then goes on without whoever
#: asked, and the answer says so.
ERASED_WITHIN_S = 20.0
#: Beyond that the database does not answer.
_ANSWERED_WITHIN_S = 60.0


class SubjectRequest(BaseModel):
    """Which caller: by one call, or by the number; never both."""

    model_config = ConfigDict(extra="forbid")

    call_id: str = Field("", pattern=r"^([0-9a-f]{32})?$")
    number: str = Field("", max_length=40)
    """As a person writes it; it is hashed and not kept."""
    ref: str = Field("", max_length=64)
    """What the request is called in your files: no name of a person, no number. Of access never
    empty."""


class Outcome(BaseModel):
    """What came of one call."""

    call_id: str
    outcome: Literal["given", "erased", "waits", "already", "unknown"]
    sentence: str


class AccessAnswer(BaseModel):
    """What is held on the caller, without names and ids of staff."""

    outcomes: list[Outcome]
    other_nodes: list[str]
    """They answer for their own calls: ask each of them too. Empty for one call."""
    held: dict[str, Any]
    """``format``, ``calls``, ``marks_of_the_number``, ``not_given`` (docs/privacy.md)."""


class EraseAnswer(BaseModel):
    """What came of each call."""

    outcomes: list[Outcome]
    other_nodes: list[str]
    """They answer for their own calls: ask each of them too. Empty for one call."""
    marks: int
    """Marks of ``[ringback]`` of the number that went."""


class WaitingErasure(BaseModel):
    """An erasure that was asked for and waits."""

    call_id: str
    asked_ts: float
    ref: str
    waits: Literal["", "evidence", "call", "recordings"]
    sentence: str


class WaitingErasures(BaseModel):
    """The oldest first."""

    erasures: list[WaitingErasure]


class KeptKind(BaseModel):
    """One kind of data."""

    kind: str
    what: str
    days: int | None
    rule: str
    where: str


class RetentionAnswer(BaseModel):
    """What is kept for how long."""

    enabled: bool
    """The node deletes by itself."""
    kinds: list[KeptKind]


class NumberAnswer(BaseModel):
    """Whom to call."""

    callback_id: str
    number: str
    """E.164."""


def _outcomes(found: list[CallOutcome]) -> list[Outcome]:
    return [
        Outcome(call_id=one.call_id, outcome=one.outcome, sentence=one.sentence) for one in found
    ]


async def _wanted(body: SubjectRequest, node: Node) -> Wanted:
    if bool(body.call_id) == bool(body.number):
        raise Problem(409, "which", "Name a call or a number, one of them.")
    if body.call_id:
        return Wanted(body.call_id)
    try:
        return await asyncio.to_thread(wanted_by_number, node.settings, body.number)
    except PrivacyRefused as refused:
        raise Problem(409, "not_findable", _sentence(refused)) from None
    except CallshieldError as error:
        raise Problem(503, "no_keys", _sentence(error)) from None


def _others(node: Node, wanted: Wanted) -> list[str]:
    return [] if wanted.call_id else node.settings.cluster.others(node.name)


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


@privacy.post("/privacy/access", responses=problems(409, 503), response_model=AccessAnswer)
async def give_access(
    body: SubjectRequest, node: NodeDependency, identity: IdentityDependency
) -> Response:
    """What is held on a caller, for him: recorded for each call before it is read, and shown to
    the call's agent. Of many calls the oldest 200; the others wait, each with a sentence."""
    wanted = await _wanted(body, node)
    try:
        async with asyncio.timeout(STORED_WITHIN_S):
            found = await node.privacy.access(wanted, identity, body.ref, MOST_GIVEN)
    except PrivacyRefused as refused:
        raise Problem(409, "refused", _sentence(refused)) from None
    except TimeoutError:
        raise _late("That somebody reads this") from None
    given = [one.call_id for one in found if one.outcome == "given"]

    def gather(connection: Connection) -> bytes:
        begin_snapshot(connection)
        held = collect(connection, node.settings, given, list(wanted.ringback_marks))
        others = _others(node, wanted)
        answer = AccessAnswer(outcomes=_outcomes(found), other_nodes=others, held=held)
        return answer.model_dump_json().encode()

    try:
        # Beside the node's work: it is much to read, and calls go on meanwhile.
        told = await asyncio.to_thread(read, node.store.place, gather)
    except CallshieldError as error:
        raise Problem(503, "not_readable", _sentence(error)) from None
    await node.privacy.given(identity, wanted.scope, body.ref, found)
    return Response(told, media_type="application/json")


@privacy.post("/privacy/erase", responses=problems(409, 503))
async def erase(
    body: SubjectRequest, node: NodeDependency, identity: IdentityDependency
) -> EraseAnswer:
    """Erase a call, or all that is held of a number. What is held as evidence waits. Of many calls
    those that are not gone within 20 seconds are erased afterwards (`waits`)."""
    wanted = await _wanted(body, node)
    try:
        async with asyncio.timeout(_ANSWERED_WITHIN_S):
            found, marks = await node.privacy.erase(wanted, identity, body.ref, ERASED_WITHIN_S)
    except PrivacyRefused as refused:
        raise Problem(409, "refused", _sentence(refused)) from None
    except TimeoutError:
        raise _late("What you asked for") from None
    others = _others(node, wanted)
    return EraseAnswer(outcomes=_outcomes(found), other_nodes=others, marks=marks)


@privacy.get("/privacy/erasures")
async def waiting_erasures(node: NodeDependency, _who: IdentityDependency) -> WaitingErasures:
    """Erasures that were asked for and wait, and for what."""
    return WaitingErasures(
        erasures=[
            WaitingErasure(
                call_id=item.asked.call_id,
                asked_ts=item.asked.asked_ts,
                ref=item.asked.ref,
                waits=item.waits,
                sentence=item.sentence,
            )
            for item in node.privacy.erasing.pending
        ]
    )


@privacy.get("/privacy/retention")
async def show_retention(node: NodeDependency, _who: IdentityDependency) -> RetentionAnswer:
    """What is kept for how long, and which rule says so."""
    return RetentionAnswer(
        enabled=node.settings.retention.enabled,
        kinds=[KeptKind.model_validate(row.as_json()) for row in table(node.settings)],
    )


@privacy.post("/callbacks/{callback_id}/number", responses=problems(404, 409, 503))
async def number_of_callback(
    callback_id: CallbackId, node: NodeDependency, identity: IdentityDependency
) -> NumberAnswer:
    """The number to call back, where it is kept (``callbacks.keep_number``); recorded before it is
    told, and in the list of what was opened of the agent whose call it was. Gone when the
    call-back is done."""
    item = node.aftercare.callbacks.get(callback_id)
    if item is None or not identity.sees(item.agent_id):
        raise Problem(404, "unknown_callback", "There is no such open call-back.")
    if not item.sealed_number:
        raise Problem(
            409, "no_number", "No number is kept of this call: the PBX has it, by its own id."
        )
    try:
        keys = await asyncio.to_thread(load_caller_keys, node.settings.caller_keys_path, make=False)
        number = keys.open(item.sealed_number, item.call_id)
    except CallshieldError as error:
        raise Problem(503, "no_keys", _sentence(error)) from None
    entry = reading(
        node.clock(),
        item.call_id,
        item.agent_id,
        "number",
        identity.role,
        identity.token_id,
        "callback",
    )
    try:
        async with asyncio.timeout(STORED_WITHIN_S):
            await node.journal.stored([shown_to_agent(entry, "number", callback_id)])
    except TimeoutError:
        raise _late("That somebody reads this") from None
    return NumberAnswer(callback_id=callback_id, number=number)


def _late(what: str) -> Problem:
    return Problem(
        503,
        "not_stored",
        f"{what} could not be stored yet: the database does not answer.",
        {"Retry-After": "2"},
    )
