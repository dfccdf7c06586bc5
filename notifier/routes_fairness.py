"""Routes of fairness: scores and contests, who opened what, verdicts of calls, weekly reports.

An agent sees the own draws, scores and openings. Nobody else is shown scores of anybody: a reviewer
gets the calls to score, without what others gave.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from callshield.messages_fairness import CallVerdict, ShownReason
from notifier import quality
from notifier.live import JudgeRole
from notifier.problems import Problem
from notifier.quality_desk import ScoreRefused
from notifier.routes import (
    STORED_WITHIN_S,
    CallId,
    IdentityDependency,
    NodeDependency,
    find_call,
    problems,
)
from notifier.tokens import Identity
from notifier.weekly import WEEK, parts

fairness = APIRouter(prefix="/api/v1", responses=problems(400, 401, 413, 422, 429))

DrawId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="32 hexadecimal digits")]
#: Who scores calls.
REVIEWERS = frozenset({"supervisor", "admin"})
#: Who sees who opened recordings: no agent and no call beside it.
WATCHERS = frozenset({"admin", "auditor", "representative"})
_STATUS = {
    "unknown_draw": 404,
    "points": 409,
    "same_reviewer": 403,
}


class Month(BaseModel):
    """A month's draw: its seed by hash, fixed beforehand, and the seed once it is done."""

    month: str
    commitment: str
    """SHA-256; ``docs/fairness.md`` says of what."""
    begin_ts: float
    """Calls before this are not drawn."""
    end_ts: float
    time_zone: str
    per_agent: int
    drawn_ts: float | None
    secret: str
    """Empty until it is drawn."""


class Months(BaseModel):
    """Months with a fixed seed, oldest first."""

    months: list[Month]


class ToScore(BaseModel):
    """A drawn call that you may score."""

    draw_id: str
    month: str
    call_id: str
    due_ts: float | None
    """By when; null where nobody waits for it."""


class Draws(BaseModel):
    """What you may score, and by which criteria."""

    criteria: list[str]
    points: int
    """The most that one criterion can get."""
    draws: list[ToScore]


class ScoreRequest(BaseModel):
    """Numbers alone: no text about anybody."""

    model_config = ConfigDict(extra="forbid")

    draw_id: str = Field(pattern=r"^[0-9a-f]{32}$")
    points: dict[
        Annotated[str, Field(min_length=1, max_length=32)], Annotated[int, Field(ge=0, le=100)]
    ] = Field(max_length=64)


class ScoreAnswer(BaseModel):
    """The score is kept."""

    draw_id: str
    review: Literal[1, 2]


class ContestAnswer(BaseModel):
    """Somebody else scores the call by then, or the score is void."""

    draw_id: str
    due_ts: float


class Review(BaseModel):
    """One score."""

    review: Literal[1, 2]
    ts: float
    points: dict[str, int]


class OwnDraw(BaseModel):
    """A call of yours that was drawn."""

    draw_id: str
    month: str
    call_id: str
    reviews: list[Review]
    counts: int | None
    """The sum that counts: after a contest the better of the two; null while there is none."""
    contest_until_ts: float | None
    contested_ts: float | None
    due_ts: float | None
    void_ts: float | None
    void_reason: Literal["", "marked_abusive", "no_second_review"]


class OwnDraws(BaseModel):
    """Your drawn calls, the newest month first."""

    draws: list[OwnDraw]


class Opening(BaseModel):
    """Somebody opened a recording, or gave what is held to the caller, or read his number."""

    ts: float
    by_role: str
    by: str
    """Token id."""
    why: ShownReason
    """``access``: its caller asked what is held on him, and was given it; ``number``: somebody was
    shown the number of the promised call-back."""
    ref: str


class OwnOpening(Opening):
    """The same of a call of yours."""

    call_id: str
    by_name: str
    """The name that the token was made for: you may know who it was."""
    reason: str
    """Of a complaint: what was written."""


class Openings(BaseModel):
    """Newest first."""

    openings: list[Opening]


class OwnOpenings(BaseModel):
    """Newest first."""

    openings: list[OwnOpening]


class CallVerdictRequest(BaseModel):
    """What the person says of the call."""

    model_config = ConfigDict(extra="forbid")

    verdict: CallVerdict


class CallVerdictAnswer(BaseModel):
    """What your role said last."""

    call_id: str
    verdict: CallVerdict


def _own(identity: Identity) -> str:
    if identity.role != "agent":
        raise Problem(403, "role", "Only the agent sees this.")
    return identity.agent_id


def _reviewer(identity: Identity) -> str:
    if identity.role not in REVIEWERS:
        raise Problem(403, "role", "Calls are scored by supervisors.")
    return identity.token_id


def _refused(refused: ScoreRefused) -> Problem:
    return Problem(_STATUS.get(refused.kind, 409), refused.kind, str(refused))


def _late(what: str) -> Problem:
    return Problem(
        503,
        "not_stored",
        f"{what} is kept but could not be stored yet: the database does not answer.",
        {"Retry-After": "2"},
    )


@fairness.get("/quality/months")
async def list_months(node: NodeDependency, identity: IdentityDependency) -> Months:
    """Seeds of the monthly draws, for everybody: each fixed by its hash before the first call."""
    return Months(
        months=[
            Month(
                month=row["month"],
                commitment=quality.commitment(row["month"], bytes.fromhex(row["secret"])),
                begin_ts=row["begin_ts"],
                end_ts=row["end_ts"],
                time_zone=row["time_zone"],
                per_agent=row["per_agent"],
                drawn_ts=row["drawn_ts"],
                secret="" if row["drawn_ts"] is None else row["secret"],
            )
            for row in await node.fairness.store.months()
        ]
    )


@fairness.get("/quality/draws", responses=problems(403))
async def list_draws(node: NodeDependency, identity: IdentityDependency) -> Draws:
    """Drawn calls that you may score now, without what others gave."""
    found = await node.fairness.quality.to_score(_reviewer(identity))
    return Draws(
        criteria=node.settings.quality.criteria,
        points=node.settings.quality.points,
        draws=[ToScore.model_validate(item) for item in found],
    )


@fairness.post("/quality/scores", responses=problems(403, 404, 409, 503))
async def give_score(
    body: ScoreRequest, node: NodeDependency, identity: IdentityDependency
) -> ScoreAnswer:
    """Score a drawn call: the first time, or after its agent contested somebody else's score."""
    reviewer = _reviewer(identity)
    try:
        async with asyncio.timeout(STORED_WITHIN_S):
            review = await node.fairness.quality.score(body.draw_id, body.points, reviewer)
    except ScoreRefused as refused:
        raise _refused(refused) from None
    except TimeoutError:
        raise _late("Your score") from None
    return ScoreAnswer(draw_id=body.draw_id, review=2 if review == 2 else 1)


@fairness.post("/quality/scores/{draw_id}/contest", responses=problems(403, 404, 409, 503))
async def contest_score(
    draw_id: DrawId, node: NodeDependency, identity: IdentityDependency
) -> ContestAnswer:
    """Contest the score of an own call: another person scores it, without seeing the first."""
    agent_id = _own(identity)
    try:
        async with asyncio.timeout(STORED_WITHIN_S):
            due_ts = await node.fairness.quality.contest(draw_id, agent_id)
    except ScoreRefused as refused:
        raise _refused(refused) from None
    except TimeoutError:
        raise _late("Your contest") from None
    return ContestAnswer(draw_id=draw_id, due_ts=due_ts)


@fairness.get("/me/quality", responses=problems(403))
async def own_draws(node: NodeDependency, identity: IdentityDependency) -> OwnDraws:
    """Your drawn calls with their scores."""
    found = await node.fairness.quality.of_agent(_own(identity))
    return OwnDraws(draws=[OwnDraw.model_validate(item) for item in found])


@fairness.get("/me/opened", responses=problems(403))
async def own_openings(
    node: NodeDependency,
    identity: IdentityDependency,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> OwnOpenings:
    """Who opened which of your recordings, when and why."""
    rows = await node.fairness.store.openings(_own(identity), limit)
    return OwnOpenings(
        openings=[
            OwnOpening(
                ts=row["ts"],
                by_role=row["by_role"],
                by=row["by"],
                why=row["why"],
                ref=row["ref"],
                call_id=row["call_id"],
                by_name=row["by_name"] or "",
                reason=row["reason"],
            )
            for row in rows
        ]
    )


@fairness.get("/quality/opened", responses=problems(403))
async def all_openings(
    node: NodeDependency,
    identity: IdentityDependency,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Openings:
    """Who opened recordings and through what; neither the call nor its agent."""
    if identity.role not in WATCHERS:
        raise Problem(403, "role", "This is for the workers' representative and auditors.")
    rows = await node.fairness.store.openings(None, limit)
    return Openings(
        openings=[
            Opening(
                ts=row["ts"], by_role=row["by_role"], by=row["by"], why=row["why"], ref=row["ref"]
            )
            for row in rows
        ]
    )


@fairness.post("/calls/{call_id}/verdict", responses=problems(404, 409, 503))
async def judge_call(
    call_id: CallId,
    body: CallVerdictRequest,
    node: NodeDependency,
    identity: IdentityDependency,
) -> CallVerdictAnswer:
    """Say of a call whether the machine was right, raised a false alarm, or missed something.

    Kept without who said it, for ``callshield calibrate`` alone; the newest word of each role
    counts.
    """
    call = await find_call(call_id, node, identity)
    if call.notice == "internal":
        raise Problem(409, "not_judged", "A call between colleagues is not analysed.")
    role: JudgeRole = "supervisor" if identity.watches_all else "agent"
    try:
        async with asyncio.timeout(STORED_WITHIN_S):
            await node.fairness.judge_call(call_id, body.verdict, role)
    except TimeoutError:
        raise _late("Your word") from None
    return CallVerdictAnswer(call_id=call_id, verdict=body.verdict)


@fairness.get("/reports/weekly", responses=problems(404))
async def weekly_report(
    node: NodeDependency,
    identity: IdentityDependency,
    week: Annotated[str | None, Query(pattern=f"^{WEEK.pattern}$")] = None,
) -> dict[str, Any]:
    """The report of a week by group, the newest without ``week``; never of fewer than five."""
    row = await node.fairness.store.report(week)
    if row is None:
        raise Problem(404, "no_report", "There is no report of such a week (yet).")
    return parts(row["body"])[0]
