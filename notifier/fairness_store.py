"""What the modules of fairness read from the store. Queries alone; whoever asks says on what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import Select, select

from callshield.messages_hearing import SHIFT_GAP_S
from callshield.messages_store import RetentionKind
from notifier.hearing_trend import Dose
from notifier.quality import Finished, Pick
from notifier.ringback import Mark
from notifier.schema import alerts, calls, events, tokens
from notifier.schema_care import evidence_decisions, said
from notifier.schema_fairness import (
    call_verdicts,
    openings,
    quality_draws,
    quality_months,
    quality_pool,
    quality_scores,
    ringback_marks,
    weekly_reports,
    withheld_alerts,
)
from notifier.weekly import CallFact, Event, Withheld, rest_taken, turned_bad

Rows = Sequence[Mapping[str, Any]]
#: Runs a query of the running notifier or of the command line.
Fetch = Callable[[Select[Any]], Awaitable[Rows]]

#: What :mod:`notifier.aftercare` says of a call that no score may come from.
_MARKED = "call.marked"


def _body(row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(row["body"])
    return found


class FairnessStore:
    """Queries on draws, openings, marks and reports.

    Args:
        fetch: runs one.
    """

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    # ----------------------------------------------------------------------------- quality

    async def month(self, month: str) -> Mapping[str, Any] | None:
        """The row of a month whose seed is fixed."""
        rows = await self._fetch(select(quality_months).where(quality_months.c.month == month))
        return rows[0] if rows else None

    async def months(self) -> Rows:
        """All of them, oldest first."""
        return await self._fetch(select(quality_months).order_by(quality_months.c.month))

    async def pool(self, month: str) -> list[tuple[str, str]]:
        """The calls that could be drawn."""
        query = select(quality_pool).where(quality_pool.c.month == month)
        return [(row["call_id"], row["agent_id"]) for row in await self._fetch(query)]

    async def draws_of(self, month: str) -> Rows:
        """A month's draws."""
        return await self._fetch(select(quality_draws).where(quality_draws.c.month == month))

    async def untold_draws(self) -> Rows:
        """Draws whose event was not stored yet."""
        return await self._fetch(select(quality_draws).where(quality_draws.c.told.is_(False)))

    async def draw(self, draw_id: str) -> Mapping[str, Any] | None:
        """One draw."""
        query = select(quality_draws).where(quality_draws.c.draw_id == draw_id)
        rows = await self._fetch(query)
        return rows[0] if rows else None

    async def draws_in_force(self) -> Rows:
        """All draws that count, the newest month first."""
        query = select(quality_draws).where(quality_draws.c.void_ts.is_(None))
        return await self._fetch(
            query.order_by(quality_draws.c.month.desc(), quality_draws.c.draw_id)
        )

    async def draws_of_agent(self, agent_id: str) -> Rows:
        """An agent's draws, the newest month first."""
        query = select(quality_draws).where(quality_draws.c.agent_id == agent_id)
        return await self._fetch(
            query.order_by(quality_draws.c.month.desc(), quality_draws.c.draw_id)
        )

    async def scores(self, draw_ids: Iterable[str]) -> dict[str, dict[int, Mapping[str, Any]]]:
        """Scores of draws: draw id → review → row."""
        query = select(quality_scores).where(quality_scores.c.draw_id.in_(list(draw_ids)))
        found: dict[str, dict[int, Mapping[str, Any]]] = {}
        for row in await self._fetch(query):
            found.setdefault(row["draw_id"], {})[row["review"]] = row
        return found

    async def overdue(self, now: float) -> Rows:
        """Contested draws that nobody else scored in time."""
        second = select(quality_scores.c.draw_id).where(quality_scores.c.review == 2)
        return await self._fetch(
            select(quality_draws).where(
                quality_draws.c.due_ts < now,
                quality_draws.c.void_ts.is_(None),
                quality_draws.c.draw_id.not_in(second),
            )
        )

    async def marked_draws(self) -> Rows:
        """Draws that count although their call was marked as abusive since."""
        drawn = select(quality_draws).where(quality_draws.c.void_ts.is_(None))
        marked = await self._marked(select(quality_draws.c.call_id))
        return [row for row in await self._fetch(drawn) if row["call_id"] in marked]

    async def _marked(self, call_ids: Any, until_ts: float | None = None) -> set[str]:
        """Which of these calls are excluded from quality scoring."""
        query = select(events.c.call_id, events.c.body).where(
            events.c.type == _MARKED, events.c.call_id.in_(call_ids)
        )
        if until_ts is not None:
            query = query.where(events.c.ts <= until_ts)
        return {
            row["call_id"]
            for row in await self._fetch(query)
            if "quality" in _body(row).get("exclude", ())
        }

    async def finished(
        self, begin_ts: float, end_ts: float, marks_until_ts: float | None = None
    ) -> list[Finished]:
        """Every call that began in a span, as a draw must know it."""
        within = (calls.c.started_ts >= begin_ts, calls.c.started_ts < end_ts)
        ids = select(calls.c.call_id).where(*within)
        marked = await self._marked(ids, marks_until_ts)
        recorded = {
            row["call_id"]
            for row in await self._fetch(
                select(events.c.call_id, events.c.body).where(
                    events.c.type == "recording.changed", events.c.call_id.in_(ids)
                )
            )
            if _body(row).get("state") == "recording"
        }
        return [
            Finished(
                call_id=row["call_id"],
                agent_id=row["agent_id"],
                started_ts=row["started_ts"],
                answered=row["answered_ts"] is not None,
                ended=row["ended_ts"] is not None,
                duration_s=row["duration_s"],
                notice=row["notice"],
                peak_level=row["peak_level"],
                ended_by_person=row["ending_ts"] is not None,
                recorded=row["call_id"] in recorded,
                marked=row["call_id"] in marked,
                purposes=frozenset(msgspec.json.decode(row["purposes"], type=list[str])),
            )
            for row in await self._fetch(select(calls).where(*within))
        ]

    async def told(self, month: str) -> dict[str, list[dict[str, Any]]]:
        """Bodies of the events about a month's draw, by type."""
        kinds = ("quality.seeded", "quality.closed", "quality.drawn")
        found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
        query = select(events.c.body).where(events.c.type.in_(kinds)).order_by(events.c.id)
        for row in await self._fetch(query):
            body = _body(row)
            if body.get("month") == month:
                found[body["type"]].append(body)
        return found

    async def deleted_before(self, *kinds: RetentionKind) -> float:
        """Retention deleted what was older than this of these kinds; 0: nothing yet."""
        query = select(events.c.body).where(events.c.type == "retention.deleted")
        bodies = [_body(row) for row in await self._fetch(query)]
        return max((body["before_ts"] for body in bodies if body["kind"] in kinds), default=0.0)

    async def picks(self, month: str) -> list[Pick]:
        """A month's draws as the draw itself made them."""
        return [
            Pick(row["draw_id"], row["call_id"], row["agent_id"])
            for row in await self.draws_of(month)
        ]

    # ---------------------------------------------------------------------------- openings

    async def asked(self, call_id: str, request_id: str) -> Literal["no", "waits", "approved"]:
        """Whether this call's agent asked for it under this id, and somebody approved that."""
        query = select(said.c.request_id).where(
            said.c.request_id == request_id, said.c.call_id == call_id, said.c.kind == "evidence"
        )
        if not await self._fetch(query):
            return "no"
        query = select(evidence_decisions.c.state).where(
            evidence_decisions.c.request_id == request_id
        )
        states = [row["state"] for row in await self._fetch(query)]
        return "approved" if states == ["approved"] else "waits"

    async def openings(self, agent_id: str | None, limit: int) -> Rows:
        """Openings of recordings, newest first, with the name that the opener's token has.

        Args:
            agent_id: of this agent's calls only; ``None`` for all.
            limit: at most so many.
        """
        query = (
            select(openings, tokens.c.name.label("by_name"))
            .join(tokens, tokens.c.token_id == openings.c.by, isouter=True)
            .order_by(openings.c.ts.desc())
            .limit(limit)
        )
        if agent_id is not None:
            query = query.where(openings.c.agent_id == agent_id)
        return await self._fetch(query)

    async def opened_for(self, draw_id: str) -> bool:
        """True when somebody opened the recording through this draw."""
        query = select(openings.c.opening_id).where(
            openings.c.why == "draw", openings.c.ref == draw_id
        )
        return bool(await self._fetch(query.limit(1)))

    async def same_person(self, one: str, other: str) -> bool:
        """True when two tokens are one, bear the same name or supervisor, or were both given to one
        account that signed in (those all bear the same name)."""
        if one == other:
            return True
        query = select(tokens).where(tokens.c.token_id.in_([one, other]))
        rows = await self._fetch(query)
        names = [row["name"].strip().casefold() for row in rows if row["source"] != "oidc"]
        told = (
            names,
            [row["supervisor_id"] for row in rows],
            [row["subject_sha256"] for row in rows],
        )
        return any(len(said) == 2 and "" not in said and len(set(said)) == 1 for said in told)

    # ---------------------------------------------------------------------- marks, verdicts

    async def marks(self) -> list[Mark]:
        """All marks."""
        return [Mark(**row) for row in await self._fetch(select(ringback_marks))]

    async def verdict(self, call_id: str) -> Mapping[str, Any] | None:
        """What was said of a call."""
        query = select(call_verdicts).where(call_verdicts.c.call_id == call_id)
        rows = await self._fetch(query)
        return rows[0] if rows else None

    # -------------------------------------------------------------------------------- weeks

    async def report(self, week: str | None) -> Mapping[str, Any] | None:
        """A week's report, or the newest."""
        query = select(weekly_reports).order_by(weekly_reports.c.week.desc()).limit(1)
        if week is not None:
            query = query.where(weekly_reports.c.week == week)
        rows = await self._fetch(query)
        return rows[0] if rows else None

    async def weeks(self) -> list[str]:
        """Weeks that have a report, oldest first."""
        rows = await self._fetch(select(weekly_reports.c.week).order_by(weekly_reports.c.week))
        return [row["week"] for row in rows]

    async def week_facts(
        self, begin_ts: float, end_ts: float
    ) -> tuple[list[CallFact], dict[str, float]]:
        """What happened in a week: its calls, and seconds of rest by agent."""
        within = (
            calls.c.started_ts >= begin_ts,
            calls.c.started_ts < end_ts,
            calls.c.answered_ts.is_not(None),
            calls.c.ended_ts.is_not(None),
            calls.c.notice != "internal",
        )
        ids = select(calls.c.call_id).where(*within)
        happened: dict[str, list[Event]] = {}
        kinds = ("helper.changed", "risk.changed", "call.ending")
        query = select(events.c.ts, events.c.call_id, events.c.body)
        for row in await self._fetch(
            query.where(events.c.type.in_(kinds), events.c.call_id.in_(ids))
        ):
            kind = _kind(_body(row))
            if kind:
                happened.setdefault(row["call_id"], []).append(Event(row["ts"], kind))
        asked: dict[str, list[float | None]] = {}
        query = select(alerts).where(alerts.c.kind == "help", alerts.c.call_id.in_(ids))
        for row in await self._fetch(query):
            came = row["acknowledged_ts"]
            after = None if came is None else max(0.0, came - row["raised_ts"])
            asked.setdefault(row["call_id"], []).append(after)
        kept: dict[str, list[Withheld]] = {}
        query = select(withheld_alerts).where(withheld_alerts.c.call_id.in_(ids))
        for row in await self._fetch(query):
            alert = Withheld(
                row["level"],
                msgspec.json.decode(row["categories"], type=list[str]),
                msgspec.json.decode(row["rules"], type=list[str]),
            )
            kept.setdefault(row["call_id"], []).append(alert)
        query = select(call_verdicts).where(call_verdicts.c.call_id.in_(ids))
        said = {
            row["call_id"]: row["agent_verdict"] or row["supervisor_verdict"]
            for row in await self._fetch(query)
        }
        facts = [
            CallFact(
                agent_id=row["agent_id"],
                duration_s=row["duration_s"],
                peak_level=row["peak_level"],
                ended_by_person=row["ending_ts"] is not None,
                turned_bad=turned_bad(happened.get(row["call_id"], ())),
                help_after_s=asked.get(row["call_id"], ()),
                withheld=kept.get(row["call_id"], ()),
                verdict=said.get(row["call_id"], ""),
            )
            for row in await self._fetch(select(calls).where(*within))
        ]
        return facts, await self._rests(begin_ts, end_ts)

    async def doses(self, begin_ts: float, end_ts: float) -> list[Dose]:
        """What ears' meters said in a span, and until a shift later."""
        query = select(events.c.body).where(
            events.c.type == "ear.dose",
            events.c.ts >= begin_ts,
            events.c.ts < end_ts + SHIFT_GAP_S,
        )
        fields = ("agent_id", "ts", "heard_s", "lex_8h_dba", "dose_pct", "estimate")
        bodies = [_body(row) for row in await self._fetch(query)]
        return [Dose(**{name: body[name] for name in fields}) for body in bodies]

    async def reports(self, newest: int) -> Rows:
        """The newest weeks' reports, newest first."""
        query = select(weekly_reports).order_by(weekly_reports.c.week.desc()).limit(newest)
        return await self._fetch(query)

    async def _rests(self, begin_ts: float, end_ts: float) -> dict[str, float]:
        # One that ended in the week may have begun before it; none lasts two hours.
        query = select(events.c.body).where(
            events.c.type == "rest.changed",
            events.c.ts >= begin_ts - 86_400,
            events.c.ts < end_ts,
        )
        changes = [_body(row) for row in await self._fetch(query)]
        before = {c["agent_id"] for c in changes if c["ts"] >= begin_ts}
        taken = rest_taken((c["agent_id"], c["ts"], c["state"]) for c in changes)
        early = rest_taken(
            (c["agent_id"], c["ts"], c["state"]) for c in changes if c["ts"] < begin_ts
        )
        return {agent: taken[agent] - early.get(agent, 0.0) for agent in taken if agent in before}


def _kind(body: Mapping[str, Any]) -> str:
    match body["type"]:
        case "helper.changed" if body.get("state") == "unreachable":
            return "unreachable" if body.get("role") == "manager" else ""
        case "risk.changed" if body["level"] >= 2 and body["level"] > body["previous"]:
            return "risk"
        case "call.ending":
            return "ending"
    return ""
