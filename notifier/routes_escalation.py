"""Accepting and refusing alerts, and the policies in force."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from callshield.messages import Action
from notifier.problems import Problem
from notifier.routes import (
    STORED_WITHIN_S,
    ActionRequest,
    AlertState,
    CallId,
    IdentityDependency,
    NodeDependency,
    alert_for,
    alert_state,
    do,
    not_stored,
    problems,
    take,
)

escalation = APIRouter(prefix="/api/v1", responses=problems(400, 401, 413, 422, 429))

#: Long enough for a caller's number, written in whatever groups.
_NUMBER = re.compile(r"\d(?:[ .()/-]{0,2}\d){6,}")


def kept_reason(text: str) -> str:
    """A reason as it is stored: one line, without anything that may be a caller's number.

    Raises:
        ValueError: nothing is left of it.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(line) < 2:
        raise ValueError("a reason in words")
    return _NUMBER.sub("***", line)


class AcceptRequest(BaseModel):
    """How you come."""

    model_config = ConfigDict(extra="forbid")

    how: Literal["join", "take_over", "seen"] = "seen"
    """``join``: my phone is called and I come into the call, announced to both; ``take_over``: the
    same, and the agent hands the call over to me; ``seen``: I take care of it otherwise."""
    target: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,64}$")
    """Whose phone, of ``[supervisors.ID]``; empty: one's own, or the first one where the token is
    tied to nobody."""


class RefuseRequest(BaseModel):
    """Why you cannot come."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[
        str,
        # Two letters or digits at least: a reason in words.
        Field(min_length=2, max_length=200, pattern=r"\w[\s\S]*\w"),
        AfterValidator(kept_reason),
    ]


class TeamPolicy(BaseModel):
    """What is in force for one team."""

    team: str
    """Empty: agents without a team."""
    supervisors: list[str]
    on_duty: list[str]
    """Now."""
    manager: str
    order: Literal["fixed", "fair"]
    next_after_s: float
    manager_after_s: float
    limit_s: float
    preset: str
    policy: dict[str, Any]


class TeamPolicies(BaseModel):
    """The policies in force."""

    teams: list[TeamPolicy]


@escalation.post("/alerts/{alert_id}/accept", responses=problems(403, 404, 409, 503, 504))
async def accept(
    alert_id: CallId, body: AcceptRequest, node: NodeDependency, identity: IdentityDependency
) -> AlertState:
    """Accept an alert: exactly one person gets 200, two at once included; the others 409.

    *join* and *take_over* need a live call whose agent asked for help; the phone is called first,
    and only when that worked is the alert accepted.
    """
    alert = await alert_for(alert_id, node, identity)
    if body.how == "seen" or alert.acknowledged_ts is not None:
        return await take(alert_id, body.how, node, identity)
    with node.escalating.claim(alert_id, identity.token_id) as mine:
        if not mine:
            raise Problem(
                409,
                "being_accepted",
                "Somebody else is accepting this alert at this moment.",
                {"Retry-After": "1"},
            )
        request = ActionRequest(action=Action.JOIN, target=body.target)
        answer = await do(alert.call_id, request, node, identity, body.how)
        if answer.status == "already":
            raise Problem(409, "already_acknowledged", "Somebody is on the way already.")
        if alert.acknowledged_by == identity.token_id:
            # It was this call's request for help, which joining takes.
            return alert_state(alert, identity, node)
        return await take(alert_id, body.how, node, identity)


@escalation.post("/alerts/{alert_id}/refuse", responses=problems(403, 404, 409, 503))
async def refuse(
    alert_id: CallId, body: RefuseRequest, node: NodeDependency, identity: IdentityDependency
) -> AlertState:
    """Say that you cannot come, and why: the next person is asked at once. The alert stays open
    whoever refuses; a second refusal of the same person changes nothing."""
    alert = await alert_for(alert_id, node, identity)
    by = identity.supervisor_id or identity.token_id
    try:
        async with asyncio.timeout(STORED_WITHIN_S):
            kept = await node.refuse(alert_id, by, body.reason)
    except TimeoutError:
        raise not_stored("Your refusal") from None
    if kept is None:
        raise Problem(
            409,
            "already_acknowledged",
            "Somebody already took this alert.",
            acknowledged_by=alert.acknowledged_by,
            acknowledged_ts=alert.acknowledged_ts,
        )
    return alert_state(alert, identity, node)


@escalation.get("/policies")
async def policies(node: NodeDependency, identity: IdentityDependency) -> TeamPolicies:
    """The policies in force: an agent's own team's, everybody's for the other roles."""
    only = identity.agent_id if identity.role == "agent" else None
    return TeamPolicies(
        teams=[TeamPolicy.model_validate(one) for one in node.escalating.in_force(only)]
    )
