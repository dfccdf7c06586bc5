"""``GET /api/v1/me/calls``: the agent's own calls of the last day.

What an agent did not say of a call at once can be said for 24 hours; this is the list to choose
from. For that agent alone: there is no such list of anybody's calls for anybody else.
"""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import and_, select

from notifier.problems import Problem
from notifier.routes import IdentityDependency, NodeDependency, problems
from notifier.schema import calls

own_calls = APIRouter(prefix="/api/v1", responses=problems(400, 401, 403, 429))

#: The time in which an agent can still say something of a call.
_SAYABLE_S = 24 * 3600.0
_SHOWN = 50


class OwnCall(BaseModel):
    """A call of yours that is over."""

    call_id: str
    ended_ts: float
    duration_s: float
    reason: str
    """Of its end, as in ``call.ended``."""
    peak_level: int
    notice: str
    tapped: bool
    warnings: int


class OwnCalls(BaseModel):
    """Newest first, 50 at most."""

    calls: list[OwnCall]


@own_calls.get("/me/calls")
async def list_own_calls(node: NodeDependency, identity: IdentityDependency) -> OwnCalls:
    """Your own answered calls of the last 24 hours."""
    if identity.role != "agent":
        raise Problem(403, "role", "Only the agent sees this.")
    recent = and_(
        calls.c.agent_id == identity.agent_id,
        calls.c.answered_ts.is_not(None),
        calls.c.ended_ts > node.clock() - _SAYABLE_S,
    )
    rows = await node.store.rows(
        select(calls).where(recent).order_by(calls.c.ended_ts.desc()).limit(_SHOWN)
    )
    return OwnCalls(
        calls=[
            OwnCall(
                call_id=row["call_id"],
                ended_ts=row["ended_ts"],
                duration_s=row["duration_s"],
                reason=row["end_reason"],
                peak_level=row["peak_level"],
                notice=row["notice"],
                tapped=row["tapped"],
                warnings=row["warnings"],
            )
            for row in rows
        ]
    )
