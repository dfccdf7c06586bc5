"""Who came into calls: the agent's own list, and one without call and agent for oversight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query
from pydantic import BaseModel
from sqlalchemy import Select, select

from notifier.joins import Joined, joins
from notifier.node import Node
from notifier.problems import Problem
from notifier.routes import IdentityDependency, NodeDependency, problems
from notifier.schema import events, tokens

join_routes = APIRouter(prefix="/api/v1", responses=problems(401, 403, 422, 429, 503))

#: Lines of the log for each person shown: called, joined, left, took over.
_LINES = 4


class Join(BaseModel):
    """Somebody came into a call, announced."""

    ts: float
    """From when on they were heard."""
    left_ts: float | None
    """Null: until the call was over, or still there."""
    how: Literal["joined", "took_over"]
    role: str
    helper_id: str
    """Id of the configured person whose phone it is."""
    by: str
    """Token id of the supervisor who called that phone; empty on a hand over, which the agent
    makes."""
    asked_ts: float
    """When the call's agent asked for it; 0 in entries of a version that did not say."""


class OwnJoin(Join):
    """Somebody came into a call of yours."""

    call_id: str
    by_name: str
    """The name that the token was made for: you may know who it was."""


class Joins(BaseModel):
    """Newest first; neither the call nor its agent."""

    joins: list[Join]


class OwnJoins(BaseModel):
    """Newest first."""

    joins: list[OwnJoin]


@join_routes.get("/me/joined")
async def own_joins(
    node: NodeDependency,
    identity: IdentityDependency,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> OwnJoins:
    """Who came into your calls, when, and when you asked for it."""
    if identity.role != "agent":
        raise Problem(403, "role", "Only the agent sees this.")
    query = select(events.c.id, events.c.body).where(events.c.agent_id == identity.agent_id)
    found = await _newest(node, query, limit)
    names = await _names(node, {_token(one) for one in found})
    return OwnJoins(
        joins=[
            OwnJoin(**_shown(one), call_id=one.call_id, by_name=names.get(_token(one), ""))
            for one in found
        ]
    )


@join_routes.get("/oversight/joins")
async def all_joins(
    node: NodeDependency,
    _who: IdentityDependency,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Joins:
    """Who came into calls, when, and when the agent asked; neither the call nor its agent."""
    found = await _newest(node, select(events.c.id, events.c.body), limit)
    return Joins(joins=[Join(**_shown(one)) for one in found])


async def _newest(node: Node, query: Select[Any], limit: int) -> list[Joined]:
    query = query.where(events.c.type == "helper.changed")
    rows = await node.store.rows(query.order_by(events.c.id.desc()).limit(_LINES * limit))
    found = joins((row["id"], msgspec.json.decode(row["body"])) for row in reversed(rows))
    return list(reversed(found))[:limit]


def _token(one: Joined) -> str:
    role, _, token_id = one.by.partition(":")
    return token_id if role == "supervisor" else ""


def _shown(one: Joined) -> dict[str, Any]:
    return {
        "ts": one.ts,
        "left_ts": one.left_ts,
        "how": one.how,
        "role": one.role,
        "helper_id": one.helper_id,
        "by": _token(one),
        "asked_ts": one.asked_ts,
    }


async def _names(node: Node, token_ids: set[str]) -> Mapping[str, str]:
    query = select(tokens.c.token_id, tokens.c.name).where(tokens.c.token_id.in_(token_ids))
    return {row["token_id"]: row["name"] for row in await node.store.rows(query)}
