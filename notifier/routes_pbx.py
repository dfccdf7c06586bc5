"""Routes about rest and the PBX: an agent's own rest, and an administrator's view of the PBX."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel

from notifier.problems import Problem
from notifier.rest import Rest
from notifier.routes import STORED_WITHIN_S, IdentityDependency, NodeDependency, problems
from notifier.tokens import Identity

AgentId = Annotated[str, Path(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="[agents.ID]")]

care = APIRouter(prefix="/api/v1", responses=problems(401, 403, 404, 422, 429))


class RestState(BaseModel):
    """An agent's rest after a bad call, for a timer on the screen."""

    now: float
    """The node's clock, seconds since the epoch."""
    resting: bool
    until_ts: float | None = None
    """When it ends by itself, or when it ended; null when there was none."""
    call_id: str = ""
    reason: str = ""
    """``level`` or ``ended``."""
    by: str = ""
    """Who ended it: ``timer``, ``agent`` or ``pbx``."""


class ReadyAnswer(BaseModel):
    """What came of *ready*."""

    status: Literal["done", "already"]


class PhoneState(BaseModel):
    """Which phone an agent has."""

    agent_id: str
    model: str
    """A model or User-Agent; empty when nothing is known."""
    source: Literal["", "configuration", "pbx", "call"]
    reachable: str
    """What the PBX says of its contact."""


class PbxState(BaseModel):
    """The PBX beside this node, by its manager interface."""

    configured: bool
    connected: bool
    version: str
    failing: list[str]
    """What the connected PBX refuses to do."""
    phones: list[PhoneState]


def _own(agent_id: str, identity: Identity) -> None:
    """Rest is between the agent and the timer: nobody else sees it or ends it.

    Raises:
        Problem: 404 for another agent; other roles do not come as far as this.
    """
    if agent_id != identity.agent_id:
        raise Problem(404, "unknown_agent", "There is no such agent.")


@care.get("/agents/{agent_id}/rest")
async def show_rest(agent_id: AgentId, node: NodeDependency, who: IdentityDependency) -> RestState:
    """The agent's newest rest; later changes come as ``rest.changed``."""
    _own(agent_id, who)
    rest: Rest | None = node.pbx.rests.get(agent_id)
    if rest is None:
        return RestState(now=node.clock(), resting=False)
    return RestState(
        now=node.clock(),
        resting=rest.resting,
        until_ts=rest.until_ts if rest.ended_ts is None else rest.ended_ts,
        call_id=rest.call_id,
        reason=rest.reason,
        by=rest.ended_by,
    )


@care.post("/agents/{agent_id}/ready", responses=problems(503))
async def ready(agent_id: AgentId, node: NodeDependency, who: IdentityDependency) -> ReadyAnswer:
    """End the own rest now: the PBX's queues ring this agent again."""
    _own(agent_id, who)
    try:
        async with asyncio.timeout(STORED_WITHIN_S):
            ended = await node.pbx.ready(agent_id)
    except TimeoutError:
        raise Problem(
            503,
            "not_stored",
            "Your rest is over, but that could not be stored: the database does not answer. "
            "After a restart of the node it may begin again; press again then.",
            {"Retry-After": "2"},
        ) from None
    return ReadyAnswer(status="already" if ended is None else "done")


@care.get("/pbx")
async def show_pbx(node: NodeDependency, _who: IdentityDependency) -> PbxState:
    """The connection to the PBX, and the agents' phones as far as they are known; for admins."""
    state = node.pbx.state()
    state["phones"] = [PhoneState.model_validate(asdict(phone)) for phone in state["phones"]]
    return PbxState.model_validate(state)
