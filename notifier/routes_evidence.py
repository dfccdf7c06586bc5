"""Routes about requests for evidence: what supervisors decide on, must keep, and hand out."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from callshield.messages_evidence import RequestState
from notifier.care import Said
from notifier.cluster import elsewhere
from notifier.evidence import Verdict, Wanted
from notifier.evidence_store import known_request, was_handed_out
from notifier.node import Node
from notifier.problems import Problem
from notifier.routes import STORED_WITHIN_S, IdentityDependency, NodeDependency, problems
from notifier.routes_care import DoneAnswer
from notifier.routes_escalation import kept_reason
from notifier.tokens import Identity

evidence_routes = APIRouter(prefix="/api/v1", responses=problems(400, 401, 403, 413, 422, 429))

RequestId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="32 hexadecimal digits")]
_WHY_NOT = {
    "not_an_approver": "Requests for evidence are decided by the people in evidence.approvers.",
    "own_request": "Nobody decides on an own request: ask another supervisor or an administrator.",
}


class EvidenceRequest(BaseModel):
    """An agent asks for the evidence of a call. Nothing else that he said, no level, no words."""

    request_id: str
    """Opens this call's recording once approved: ``callshield recordings export --request``."""
    call_id: str
    pbx_call_id: str
    agent_id: str
    ts: float
    state: RequestState
    decided_ts: float | None = None
    reason: str = ""
    """Of a refusal."""
    held_until_ts: float | None = None
    """Of a refusal: until then it can be approved after all, and everything stays."""
    may_decide: bool
    """You may approve or refuse it."""


class EvidenceRequestList(BaseModel):
    """Requests that hold their calls, the oldest in front."""

    now: float
    requests: list[EvidenceRequest]


class RefuseEvidence(BaseModel):
    """Why the agent does not get the evidence; he reads it, with whom he may turn to."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[
        str,
        # A sentence: a grievance is decided on it.
        Field(min_length=10, max_length=500, pattern=r"\w[\s\S]*\w"),
        AfterValidator(kept_reason),
    ]


@evidence_routes.get("/requests")
async def list_requests(node: NodeDependency, identity: IdentityDependency) -> EvidenceRequestList:
    """Requests for evidence of the supervisor's teams that are not settled; later ones come as
    ``evidence.requested`` and ``evidence.changed``."""
    desk = node.aftercare.evidence_desk
    return EvidenceRequestList(
        now=node.clock(),
        requests=[
            _view(item, may_decide=not await desk.why_not(identity, item.said.agent_id))
            for item in node.aftercare.evidence.open
            if identity.sees(item.said.agent_id)
        ]
        + await elsewhere.listed(node, "requests", EvidenceRequest, "request_id", identity),
    )


def _view(item: Wanted, *, may_decide: bool) -> EvidenceRequest:
    decision = item.decision
    return EvidenceRequest(
        request_id=item.said.request_id,
        call_id=item.said.call_id,
        pbx_call_id=item.pbx_call_id,
        agent_id=item.said.agent_id,
        ts=item.said.ts,
        state=item.state,
        decided_ts=decision.ts if decision else None,
        reason=decision.reason if decision else "",
        held_until_ts=decision.held_until_ts if decision else None,
        may_decide=may_decide,
    )


async def _known(request_id: str, node: Node, identity: Identity) -> Said:
    found = node.aftercare.evidence.get(request_id)
    said = found.said if found else await known_request(node.store, request_id)
    if said is None or not identity.sees(said.agent_id):
        raise Problem(404, "unknown_request", "There is no such request.")
    return said


async def _decide(
    request_id: str, verdict: Verdict, reason: str, node: Node, identity: Identity
) -> DoneAnswer:
    said = await _known(request_id, node, identity)
    desk = node.aftercare.evidence_desk
    why_not = await desk.why_not(identity, said.agent_id)
    if why_not:
        raise Problem(403, why_not, _WHY_NOT[why_not])
    held = node.aftercare.evidence.get(request_id)
    if held is not None and held.state == verdict:
        return DoneAnswer(status="already")
    try:
        async with asyncio.timeout(STORED_WITHIN_S):
            decided = await desk.decide(request_id, verdict, identity, reason)
    except TimeoutError:
        raise _not_stored("Your decision") from None
    if decided is None:
        raise Problem(
            409,
            "already_decided",
            "This request was decided or settled already: an approval is not taken back.",
        )
    return DoneAnswer(status="done")


def _not_stored(what: str) -> Problem:
    return Problem(
        503,
        "not_stored",
        f"{what} is kept but could not be stored yet: the database does not answer.",
        {"Retry-After": "2"},
    )


@evidence_routes.post("/requests/{request_id}/approve", responses=problems(404, 409, 503))
async def approve_request(
    request_id: RequestId, node: NodeDependency, identity: IdentityDependency
) -> DoneAnswer:
    """Approve: the package can be made (``callshield evidence export``). Also of a request that was
    refused, as long as it is held."""
    return await _decide(request_id, "approved", "", node, identity)


@evidence_routes.post("/requests/{request_id}/refuse", responses=problems(404, 409, 503))
async def refuse_request(
    request_id: RequestId, body: RefuseEvidence, node: NodeDependency, identity: IdentityDependency
) -> DoneAnswer:
    """Refuse, with a reason that the agent reads beside the grievance contact. The call stays held
    for ``evidence.hold_after_refusal_days``."""
    return await _decide(request_id, "refused", body.reason, node, identity)


@evidence_routes.post("/requests/{request_id}/done", responses=problems(404, 409, 503))
async def request_done(
    request_id: RequestId, node: NodeDependency, identity: IdentityDependency
) -> DoneAnswer:
    """The package of an approved request was handed out. The agent sees that it is settled, and the
    call is deleted in its time again; so this needs a package, or an export of the recording."""
    said = await _known(request_id, node, identity)
    if said.done_ts is not None:
        return DoneAnswer(status="already")
    held = node.aftercare.evidence.get(request_id)
    if held is not None and held.state == "approved":
        if await node.aftercare.evidence_desk.why_not(identity, said.agent_id) == "own_request":
            raise Problem(403, "own_request", _WHY_NOT["own_request"])
        if not await was_handed_out(node.store, said):
            # Else the two presses would be a refusal without a reason, and nothing left to judge
            # it by.
            raise Problem(
                409,
                "not_handed_out",
                "Nothing was handed out yet: make the package first, with callshield evidence "
                "export and the id of the call.",
            )
    try:
        async with asyncio.timeout(STORED_WITHIN_S):
            done = await node.aftercare.evidence_desk.done(request_id, identity.token_id)
    except TimeoutError:
        raise _not_stored("That it is settled") from None
    if done is None:
        raise Problem(409, "not_approved", "Approve the request first, or refuse it with a reason.")
    return DoneAnswer(status="done")
