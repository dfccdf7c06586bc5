"""``/api/v1/oversight``: rules in force, who read what, totals, and the head of the hash chain."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel

from notifier.oversight import figures, policies
from notifier.routes import IdentityDependency, NodeDependency, problems

oversight = APIRouter(prefix="/api/v1/oversight", responses=problems(401, 403, 422, 429, 503))

_DAY_S = 86_400.0


class Reading(BaseModel):
    """Somebody was shown words, or opened a recording; not whose call it was."""

    id: int
    ts: float
    what: str
    by_role: str
    by: str
    """Token id, or ``user:UID`` of the command line."""
    why: str


class Readings(BaseModel):
    """The newest first."""

    readings: list[Reading]


class GroupFigures(BaseModel):
    """Totals of one group of at least five people."""

    group: str
    agents: int
    calls: int
    by_level: dict[str, int]
    """Calls by their highest level."""
    ended_with_announcement: int
    alerts: dict[str, int]
    """By kind."""


class FiguresAnswer(BaseModel):
    """Totals by group; a group of fewer than five people is part of *other*, or not shown."""

    days: int
    groups: list[GroupFigures]


class ChainState(BaseModel):
    """End of the hash chain: note it where nobody of this node can write."""

    last_event_id: int
    hash: str


@oversight.get("/policies")
async def show_policies(node: NodeDependency, _who: IdentityDependency) -> dict[str, Any]:
    """The rules that are in force on this node."""
    return policies(node.settings)


@oversight.get("/reads")
async def show_reads(
    node: NodeDependency,
    _who: IdentityDependency,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Readings:
    """Who was shown words or opened a recording, by role and token id, and why."""
    found = await node.store.readings(limit)
    fields = ("id", "ts", "what", "by_role", "by", "why")
    return Readings(readings=[Reading(**{name: row[name] for name in fields}) for row in found])


@oversight.get("/figures")
async def show_figures(
    node: NodeDependency,
    _who: IdentityDependency,
    days: Annotated[int, Query(ge=7, le=366)] = 28,
) -> FiguresAnswer:
    """Totals of the last days; at least a week, so that no two answers differ by one person's
    day."""
    # Whole days: asked again a minute later, no single call comes or goes.
    until = node.clock() // _DAY_S * _DAY_S
    calls, alerts = await node.store.totals(until - days * _DAY_S, until)
    group_of = {name: agent.group for name, agent in node.settings.agents.items()}
    groups = [GroupFigures(**item.as_json()) for item in figures(calls, alerts, group_of)]
    return FiguresAnswer(days=days, groups=groups)


@oversight.get("/chain")
async def show_chain(node: NodeDependency, _who: IdentityDependency) -> ChainState:
    """How far the hash chain goes; ``callshield audit verify --head`` checks against it."""
    head = node.store.head
    assert head is not None, "read when the node started"
    return ChainState(last_event_id=head.last_id, hash=head.hash)
