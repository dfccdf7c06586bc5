"""Routes about requests for evidence: what supervisors must keep and hand out."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel

from notifier.care_store import known_request
from notifier.problems import Problem
from notifier.routes import STORED_WITHIN_S, IdentityDependency, NodeDependency, problems
from notifier.routes_care import DoneAnswer

evidence_routes = APIRouter(prefix="/api/v1", responses=problems(400, 401, 403, 413, 422, 429))

RequestId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="32 hexadecimal digits")]


class EvidenceRequest(BaseModel):
    """An agent asks for the evidence of a call. Nothing else that he said, no level, no words."""

    request_id: str
    """Opens this call's recording: ``callshield recordings play --request``."""
    call_id: str
    pbx_call_id: str
    agent_id: str
    ts: float


class EvidenceRequestList(BaseModel):
    """Open requests, the oldest in front."""

    now: float
    requests: list[EvidenceRequest]


@evidence_routes.get("/requests")
async def list_requests(node: NodeDependency, identity: IdentityDependency) -> EvidenceRequestList:
    """Open requests for evidence of the supervisor's teams; later ones come as
    ``evidence.requested`` and ``evidence.changed``."""
    return EvidenceRequestList(
        now=node.clock(),
        requests=[
            EvidenceRequest(
                request_id=item.said.request_id,
                call_id=item.said.call_id,
                pbx_call_id=item.pbx_call_id,
                agent_id=item.said.agent_id,
                ts=item.said.ts,
            )
            for item in node.aftercare.evidence.open
            if identity.sees(item.said.agent_id)
        ],
    )


@evidence_routes.post("/requests/{request_id}/done", responses=problems(404, 503))
async def request_done(
    request_id: RequestId, node: NodeDependency, identity: IdentityDependency
) -> DoneAnswer:
    """The evidence was kept and handed out, or there is none. The agent sees that it is settled,
    and the recording is deleted in its time again."""
    found = node.aftercare.evidence.get(request_id)
    said = found.said if found else await known_request(node.store, request_id)
    if said is None or not identity.sees(said.agent_id):
        raise Problem(404, "unknown_request", "There is no such request.")
    try:
        async with asyncio.timeout(STORED_WITHIN_S):
            done = await node.aftercare.evidence_done(request_id, identity.token_id)
    except TimeoutError:
        raise Problem(
            503,
            "not_stored",
            "That it is settled is kept but could not be stored yet: the database does not answer.",
            {"Retry-After": "2"},
        ) from None
    return DoneAnswer(status="already" if done is None else "done")
