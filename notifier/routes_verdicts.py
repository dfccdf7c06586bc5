"""``POST /api/v1/alerts/{id}/verdict``: was the machine right?

What is said here judges the machine's thresholds (``callshield calibrate``) and nothing else: no
page, no report and no event shows it, and no id of a person is kept beside it.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from callshield.messages import AlertVerdict
from notifier.board import AGENT_PRESS
from notifier.live import JudgeRole
from notifier.problems import Problem
from notifier.routes import (
    STORED_WITHIN_S,
    AlertState,
    CallId,
    IdentityDependency,
    NodeDependency,
    alert_state,
    problems,
)

verdicts = APIRouter(prefix="/api/v1", responses=problems(400, 401, 413, 422, 429))


class VerdictRequest(BaseModel):
    """What the person says of the alert."""

    model_config = ConfigDict(extra="forbid")

    verdict: AlertVerdict


@verdicts.post("/alerts/{alert_id}/verdict", responses=problems(404, 409, 503))
async def say_verdict(
    alert_id: CallId, body: VerdictRequest, node: NodeDependency, identity: IdentityDependency
) -> AlertState:
    """Say whether an alert of the machine was right; the newest word of each role counts."""
    alert = await node.known_alert(alert_id)
    # The same answer for somebody else's alert and for one that never was.
    if alert is None or not identity.sees(alert.agent_id):
        raise Problem(404, "unknown_alert", "There is no such alert.")
    if alert.kind != "risk" or alert.reason == AGENT_PRESS:
        raise Problem(
            409,
            "not_judged",
            "Only what the machine found is judged; a person's own word is not.",
        )
    role: JudgeRole = "supervisor" if identity.watches_all else "agent"
    try:
        async with asyncio.timeout(STORED_WITHIN_S):
            await node.judge(alert, body.verdict, role)
    except TimeoutError:
        raise Problem(
            503,
            "verdict_waits",
            "Your word is kept but could not be stored yet: the database does not answer.",
            {"Retry-After": "2"},
        ) from None
    return alert_state(alert, identity, node)
