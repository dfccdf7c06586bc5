"""Quality scoring as it runs: seeds and draws in time, scores, contests. The draw itself, and why
nobody can choose, is :mod:`notifier.quality`."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import structlog

from callshield.messages_fairness import (
    QualityClosed,
    QualityDrawn,
    QualitySeeded,
    ScoreContested,
    ScoreGiven,
    ScoreVoid,
)
from callshield.purposes import QUALITY
from callshield.settings import Settings
from notifier import quality
from notifier.fairness_store import FairnessStore
from notifier.live import Entry
from notifier.rows import Row

log = structlog.get_logger()

_DAY_S = 86_400.0
Points = Mapping[str, int]
Refusal = Literal[
    "unknown_draw",
    "void",
    "not_opened",
    "already_scored",
    "same_reviewer",
    "too_late",
    "not_scored",
    "already_contested",
    "points",
]


class ScoreRefused(Exception):
    """A score or a contest cannot be taken; ``kind`` says why in one word, the text in a sentence.

    Never leaves the API.
    """

    def __init__(self, kind: Refusal, sentence: str) -> None:
        self.kind = kind
        super().__init__(sentence)


class QualityDesk:
    """Draws, scores and contests of one node.

    Args:
        settings: the node's configuration.
        store: read only.
        stored: stores entries and waits for it.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        store: FairnessStore,
        stored: Callable[[Sequence[Entry]], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings.quality
        self._recording = settings.recording.enabled
        self._store = store
        self._stored = stored
        self._clock = clock
        # Two reviewers at the same moment: one of them was first.
        self._one = asyncio.Lock()

    # -------------------------------------------------------------------- seeds and draws

    async def tick(self) -> None:
        """Do what is due; everything is looked up anew, so a crash in between loses nothing."""
        now = self._clock()
        if self._settings.per_agent:
            await self._seed(now)
        for row in await self._store.months():
            if row["drawn_ts"] is None and now >= row["end_ts"] + quality.GRACE_S:
                await self._draw(row, now)
        async with self._one:
            for row in await self._store.untold_draws():
                await self._stored([_drawn(row, now)])
            for row in await self._store.marked_draws():
                await self._void(row, "marked_abusive", now)
            for row in await self._store.overdue(now):
                await self._void(row, "no_second_review", now)

    async def _seed(self, now: float) -> None:
        zone = self._settings.time_zone
        month = quality.month_of(now, zone)
        await self._seed_month(month, now)
        following = quality.next_month(month)
        if now >= quality.bounds(following, zone)[0] - quality.AHEAD_S:
            await self._seed_month(following, now)

    async def _seed_month(self, month: str, now: float) -> None:
        if await self._store.month(month) is not None:
            return
        begin_ts, end_ts = quality.bounds(month, self._settings.time_zone)
        # A month that was fixed in another time zone keeps its calls.
        others = [row["end_ts"] for row in await self._store.months() if row["month"] < month]
        secret = secrets.token_bytes(32)
        event = QualitySeeded(
            ts=now,
            month=month,
            commitment=quality.commitment(month, secret),
            time_zone=self._settings.time_zone,
            begin_ts=max([begin_ts, now, *others]),
            end_ts=end_ts,
            per_agent=self._settings.per_agent,
            min_call_s=self._settings.min_call_s,
            recorded_only=self._recording,
        )
        fields = msgspec.to_builtins(event)
        kept = {name: fields[name] for name in _MONTH_COLUMNS}
        row = Row("quality_months", {**kept, "secret": secret.hex(), "drawn_ts": None})
        await self._stored([Entry(event, "", rows=[row])])
        log.info("quality_seeded", month=month)

    async def _draw(self, row: Mapping[str, Any], now: float) -> None:
        month, secret = row["month"], bytes.fromhex(row["secret"])
        # Whatever was fixed with the seed: no call is used for what its caller was not told.
        rules = dataclasses.replace(quality.rules_of(row), purpose=QUALITY)
        calls = await self._store.finished(rules.begin_ts, rules.end_ts)
        pool = [(c.call_id, c.agent_id) for c in calls if not quality.left_out(c, rules)]
        picks = quality.draw(pool, month, secret, rules.per_agent)
        event = QualityClosed(
            ts=now,
            month=month,
            secret=row["secret"],
            pool_sha256=quality.pool_digest(pool),
            calls=len(pool),
            drawn=len(picks),
            purpose=rules.purpose,
        )
        drawn = [_draw_row(pick, month) for pick in picks]
        rows = [
            Row("quality_months", {**row, "drawn_ts": now}),
            *(
                Row("quality_pool", {"call_id": call_id, "month": month, "agent_id": agent_id})
                for call_id, agent_id in pool
            ),
            *(Row("quality_draws", values) for values in drawn),
        ]
        # One transaction: the draw is there with all that it needs to be done again, or not at all.
        await self._stored([Entry(event, "", rows=rows)])
        log.info("quality_drawn", month=month, calls=len(pool), drawn=len(picks))

    async def _void(
        self,
        row: Mapping[str, Any],
        reason: Literal["marked_abusive", "no_second_review"],
        now: float,
    ) -> None:
        event = ScoreVoid(
            ts=now,
            call_id=row["call_id"],
            agent_id=row["agent_id"],
            draw_id=row["draw_id"],
            reason=reason,
        )
        changed = {**row, "void_ts": now, "void_reason": reason}
        await self._stored([Entry(event, row["agent_id"], rows=[Row("quality_draws", changed)])])

    # ------------------------------------------------------------------ scores and contests

    async def score(self, draw_id: str, points: Points, reviewer: str) -> int:
        """Score a drawn call.

        Args:
            draw_id: of the draw.
            points: one number for each criterion of ``[quality]``.
            reviewer: token id.

        Returns:
            1, or 2 for the review after a contest.

        Raises:
            ScoreRefused: no such draw, void, not opened, scored already, too late, or by the same
                person as before.
        """
        self._check_points(points)
        async with self._one:
            row = await self._in_force(draw_id)
            now = self._clock()
            had = (await self._store.scores([draw_id])).get(draw_id, {})
            contested = row["contested_ts"] is not None
            review = 2 if contested else 1
            if review in had:
                raise ScoreRefused("already_scored", "This call has its score already.")
            if contested:
                if await self._store.same_person(had[1]["reviewer"], reviewer):
                    raise ScoreRefused(
                        "same_reviewer", "A contested score needs another reviewer than the first."
                    )
                if now > row["due_ts"]:
                    raise ScoreRefused("too_late", "The second review's time is over.")
            if not await self._store.opened_for(draw_id):
                raise ScoreRefused(
                    "not_opened",
                    "Nobody has opened this recording through its draw: listen before you score.",
                )
            event = ScoreGiven(
                ts=now,
                call_id=row["call_id"],
                agent_id=row["agent_id"],
                draw_id=draw_id,
                review=review,
            )
            kept = {
                "draw_id": draw_id,
                "review": review,
                "reviewer": reviewer,
                "points": msgspec.json.encode(dict(points)).decode(),
                "ts": now,
            }
            await self._stored([Entry(event, row["agent_id"], rows=[Row("quality_scores", kept)])])
            return review

    async def contest(self, draw_id: str, agent_id: str) -> float:
        """An agent contests the score of an own call.

        Returns:
            By when somebody else has to score it, seconds since the epoch.

        Raises:
            ScoreRefused: no such draw of this agent, void, not scored, contested already, too late.
        """
        async with self._one:
            row = await self._in_force(draw_id, agent_id)
            now = self._clock()
            had = (await self._store.scores([draw_id])).get(draw_id, {})
            if 1 not in had:
                raise ScoreRefused("not_scored", "This call has no score yet.")
            if row["contested_ts"] is not None:
                raise ScoreRefused("already_contested", "This score is contested already.")
            if now > had[1]["ts"] + self._settings.contest_within_days * _DAY_S:
                raise ScoreRefused("too_late", "The time to contest this score is over.")
            due_ts = now + self._settings.review_within_days * _DAY_S
            event = ScoreContested(
                ts=now, call_id=row["call_id"], agent_id=agent_id, draw_id=draw_id, due_ts=due_ts
            )
            changed = {**row, "contested_ts": now, "due_ts": due_ts}
            await self._stored([Entry(event, agent_id, rows=[Row("quality_draws", changed)])])
            return due_ts

    async def to_score(self, reviewer: str) -> list[dict[str, Any]]:
        """Draws that this reviewer may score now; nothing of what others gave."""
        rows = await self._store.draws_in_force()
        had = await self._store.scores([row["draw_id"] for row in rows])
        now, found = self._clock(), []
        for row in rows:
            scores = had.get(row["draw_id"], {})
            contested = row["contested_ts"] is not None
            if (2 if contested else 1) in scores:
                continue
            if contested and (
                now > row["due_ts"]
                or await self._store.same_person(scores[1]["reviewer"], reviewer)
            ):
                continue
            found.append(
                {
                    "draw_id": row["draw_id"],
                    "month": row["month"],
                    "call_id": row["call_id"],
                    "due_ts": row["due_ts"],
                }
            )
        return found

    async def of_agent(self, agent_id: str) -> list[dict[str, Any]]:
        """An agent's own draws with their scores."""
        rows = await self._store.draws_of_agent(agent_id)
        had = await self._store.scores([row["draw_id"] for row in rows])
        return [self._own(row, had.get(row["draw_id"], {})) for row in rows]

    def _own(
        self, row: Mapping[str, Any], scores: Mapping[int, Mapping[str, Any]]
    ) -> dict[str, Any]:
        reviews = [
            {
                "review": review,
                "ts": score["ts"],
                "points": msgspec.json.decode(score["points"], type=dict[str, int]),
            }
            for review, score in sorted(scores.items())
        ]
        counts = None
        if row["void_ts"] is None and reviews and (row["contested_ts"] is None or 2 in scores):
            # Who contests loses nothing by it: the better of the two counts.
            counts = max(sum(review["points"].values()) for review in reviews)
        until = None
        if 1 in scores and row["contested_ts"] is None and row["void_ts"] is None:
            until = scores[1]["ts"] + self._settings.contest_within_days * _DAY_S
        return {
            "draw_id": row["draw_id"],
            "month": row["month"],
            "call_id": row["call_id"],
            "reviews": reviews,
            "counts": counts,
            "contest_until_ts": until,
            "contested_ts": row["contested_ts"],
            "due_ts": row["due_ts"],
            "void_ts": row["void_ts"],
            "void_reason": row["void_reason"],
        }

    async def _in_force(self, draw_id: str, agent_id: str | None = None) -> Mapping[str, Any]:
        row = await self._store.draw(draw_id)
        if row is None or (agent_id is not None and row["agent_id"] != agent_id):
            raise ScoreRefused("unknown_draw", "There is no such draw.")
        if row["void_ts"] is not None:
            why = {
                "marked_abusive": "the call was marked as abusive, so nothing is scored in it",
                "no_second_review": "nobody else scored it in time after it was contested",
            }[row["void_reason"]]
            raise ScoreRefused("void", f"This draw is void: {why}.")
        return row

    def _check_points(self, points: Points) -> None:
        wanted, most = self._settings.criteria, self._settings.points
        if set(points) != set(wanted) or not all(0 <= n <= most for n in points.values()):
            raise ScoreRefused(
                "points", f"Give 0 to {most} points for each of {', '.join(wanted)}."
            )


_MONTH_COLUMNS = (
    "month",
    "time_zone",
    "begin_ts",
    "end_ts",
    "per_agent",
    "min_call_s",
    "recorded_only",
)


def _draw_row(pick: quality.Pick, month: str) -> dict[str, Any]:
    return {
        "draw_id": pick.draw_id,
        "month": month,
        "call_id": pick.call_id,
        "agent_id": pick.agent_id,
        "told": False,
        "contested_ts": None,
        "due_ts": None,
        "void_ts": None,
        "void_reason": "",
    }


def _drawn(row: Mapping[str, Any], now: float) -> Entry:
    event = QualityDrawn(
        ts=now,
        call_id=row["call_id"],
        agent_id=row["agent_id"],
        draw_id=row["draw_id"],
        month=row["month"],
    )
    return Entry(event, row["agent_id"], rows=[Row("quality_draws", {**row, "told": True})])
