"""The agent's own ear and voice, and the noise trend of groups.

``GET /api/v1/me/hearing`` is that agent's alone. ``GET /api/v1/reports/hearing`` names nobody, and
still is not for supervisors: who knows five people best must not be shown figures of five.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query
from pydantic import BaseModel
from sqlalchemy import select

from callshield.messages import EarDose
from callshield.messages_hearing import SHIFT_GAP_S
from notifier.node import Node
from notifier.problems import Problem
from notifier.routes import IdentityDependency, NodeDependency, problems
from notifier.schema import events
from notifier.weekly import parts

hearing_routes = APIRouter(prefix="/api/v1", responses=problems(401, 403, 422, 429, 503))


class OwnDose(BaseModel):
    """What your headset gave in this shift."""

    ts: float
    heard_s: float
    level_dba: float
    lex_8h_dba: float
    dose_pct: float
    """100: 85 dB(A) for eight hours."""
    action_value: Literal["none", "lower", "upper"]
    estimate: bool
    """Your headset was never calibrated."""
    warned_pct: float
    """The highest threshold that it reached; 0: none."""


class OwnVoice(BaseModel):
    """How long you have spoken without a pause; kept nowhere."""

    ts: float
    talked_s: float
    rest: bool
    """Time to rest the voice."""
    pause_s: float


class OwnHearing(BaseModel):
    """Your ear and your voice; nobody else is shown this."""

    dose: OwnDose | None
    voice: OwnVoice | None
    """Null: nothing to speak of since the last pause."""


class HearingTrend(BaseModel):
    """Weeks, the newest first; of groups of five agents and more."""

    weeks: list[dict[str, Any]]


@hearing_routes.get("/me/hearing")
async def own_hearing(node: NodeDependency, identity: IdentityDependency) -> OwnHearing:
    """The dose of your shift, and how long you have spoken without a pause."""
    if identity.role != "agent":
        raise Problem(403, "role", "Only the agent sees this.")
    dose = node.hearing.dose_of(identity.agent_id, node.clock())
    dose = dose or await _stored(node, identity.agent_id)
    voice = node.hearing.voice_of(identity.agent_id)
    return OwnHearing(
        dose=None if dose is None else _shown(node, dose),
        voice=None
        if voice is None
        else OwnVoice(ts=voice.ts, talked_s=voice.talked_s, rest=voice.rest, pause_s=voice.pause_s),
    )


async def _stored(node: Node, agent_id: str) -> EarDose | None:
    """Before this process was started: the dose at the end of the last call of this shift."""
    query = (
        select(events.c.body)
        .where(
            events.c.type == "ear.dose",
            events.c.agent_id == agent_id,
            events.c.ts >= node.clock() - SHIFT_GAP_S,
        )
        .order_by(events.c.id.desc())
        .limit(1)
    )
    rows = await node.store.rows(query)
    return msgspec.json.decode(rows[0]["body"], type=EarDose) if rows else None


def _shown(node: Node, dose: EarDose) -> OwnDose:
    thresholds = node.settings.hearing.dose_warnings_pct
    return OwnDose(
        ts=dose.ts,
        heard_s=dose.heard_s,
        level_dba=dose.level_dba,
        lex_8h_dba=dose.lex_8h_dba,
        dose_pct=dose.dose_pct,
        action_value=dose.action_value,
        estimate=dose.estimate,
        warned_pct=max((pct for pct in thresholds if pct <= dose.dose_pct), default=0.0),
    )


@hearing_routes.get("/reports/hearing")
async def hearing_trend(
    node: NodeDependency,
    _who: IdentityDependency,
    weeks: Annotated[int, Query(ge=1, le=520)] = 12,
) -> HearingTrend:
    """What headsets gave to ears by week and group, for whoever answers for safety at work."""
    found = [parts(row["body"])[1] for row in await node.fairness.store.reports(weeks)]
    return HearingTrend(weeks=[part for part in found if part is not None])
