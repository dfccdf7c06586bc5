"""Letters to webhooks and by mail, for administrators: what waits, what was put aside."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel

from notifier.problems import Problem
from notifier.routes import IdentityDependency, NodeDependency, problems

LetterId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="32 hexadecimal digits")]


class LetterState(BaseModel):
    """One letter; its body is not shown."""

    letter_id: str
    """``webhook-id`` of its requests."""
    channel: str
    """``webhook:NAME`` or ``mail``."""
    event_id: int
    type: str
    ts: float
    """Of the event."""
    state: Literal["waiting", "dead"]
    attempts: int
    next_ts: float
    """When it is tried again; of a dead one when it would have been."""
    failure: str
    """Why the last attempt failed."""


class ChannelState(BaseModel):
    """One webhook, or the mail."""

    channel: str
    configured: bool
    waiting: int
    dead: int


class Deliveries(BaseModel):
    """Channels, and letters, newest first."""

    now: float
    channels: list[ChannelState]
    letters: list[LetterState]


class LetterAnswer(BaseModel):
    """What came of it."""

    status: Literal["done"]


def admin(identity: IdentityDependency) -> None:
    """Refuse everybody else.

    Raises:
        Problem: 403.
    """
    if identity.role != "admin":
        raise Problem(403, "role", "This is for administrators.")


deliveries = APIRouter(
    prefix="/api/v1/deliveries",
    responses=problems(400, 401, 403, 422, 429),
    dependencies=[Depends(admin)],
)


@deliveries.get("")
async def list_letters(
    node: NodeDependency,
    state: Literal["dead", "waiting"] = "dead",
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Deliveries:
    """What is under way to webhooks and by mail, or was put aside."""
    counts = await node.outbox.counts()
    names = sorted({*node.post.channels, *(channel for channel, _ in counts)})
    return Deliveries(
        now=node.clock(),
        channels=[
            ChannelState(
                channel=name,
                configured=name in node.post.channels,
                waiting=counts.get((name, "waiting"), 0),
                dead=counts.get((name, "dead"), 0),
            )
            for name in names
        ],
        letters=[LetterState(**row) for row in await node.outbox.letters(state, limit)],
    )


@deliveries.post("/{letter_id}/retry", responses=problems(404))
async def retry_letter(letter_id: LetterId, node: NodeDependency) -> LetterAnswer:
    """Send a letter that was put aside once more."""
    if not await node.outbox.retry(letter_id):
        raise _unknown()
    node.post.look()
    return LetterAnswer(status="done")


@deliveries.post("/{letter_id}/drop", responses=problems(404))
async def drop_letter(letter_id: LetterId, node: NodeDependency) -> LetterAnswer:
    """Delete a letter that was put aside."""
    if not await node.outbox.drop(letter_id):
        raise _unknown()
    return LetterAnswer(status="done")


def _unknown() -> Problem:
    return Problem(404, "unknown_letter", "There is no such letter that was put aside.")
