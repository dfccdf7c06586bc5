"""Fairness as it runs: recordings opened with a reason, callers who ring back, draws, weeks.

What is decided stands in :mod:`notifier.quality`, :mod:`notifier.ringback` and
:mod:`notifier.weekly`; here it is looked up, stored and told.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError

from callshield.messages import CommandResult
from callshield.messages_fairness import (
    CallerEnded,
    CallJudged,
    CallVerdict,
    FairnessMessage,
    OpenRecording,
    RecordingOpened,
    RemoveMark,
    RingbackMarked,
    RingbackMarks,
    RingbackRemoved,
    WeekReported,
)
from callshield.settings import Settings
from notifier import hearing_trend, weekly
from notifier.board import Board
from notifier.fairness_store import FairnessStore
from notifier.live import Entry, JudgeRole
from notifier.quality_desk import QualityDesk
from notifier.ringback import Mark, Marks
from notifier.rows import Row
from notifier.store import Store

log = structlog.get_logger()

#: How often what is due is looked for.
TICK_S = 10.0
#: The wall clock must have gone as the machine's own for so long before a month or a week is closed
#: by it: a clock that was set wrong for a moment must not close one early.
STEADY_S = 60.0
_JUMP_S = 30.0
#: Weeks that are made up for after the node was off.
_WEEKS_BACK = 4
#: Roles that may open a recording, with a reason.
OPENERS = frozenset({"supervisor", "admin", "auditor"})
_COMPLAINT = re.compile(r"[\w .:/#-]{3,64}")
_REASON_LENGTH = range(10, 501)


class SteadyClock:
    """Tells a clock that runs from one that was set.

    Args:
        clock: seconds since the epoch.
        monotonic: the machine's own seconds.
    """

    def __init__(
        self, clock: Callable[[], float], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._offset = clock() - monotonic()
        self._since = monotonic()

    def steady_s(self) -> float:
        """Seconds since the clock was last set, or since the beginning."""
        offset = self._clock() - self._monotonic()
        if abs(offset - self._offset) > _JUMP_S:
            self._offset, self._since = offset, self._monotonic()
        return self._monotonic() - self._since


class Fairness:
    """Draws, openings, marks, verdicts of calls and weekly reports of one node.

    Args:
        settings: the node's configuration.
        board: what is true now; read only.
        store: of this node; read only here.
        stored: stores entries and waits for it.
        append: queues entries.
        clock: seconds since the epoch.
        to_bridge: tells the bridge; False when there is none.
    """

    def __init__(
        self,
        settings: Settings,
        board: Board,
        store: Store,
        stored: Callable[[Sequence[Entry]], Awaitable[None]],
        append: Callable[[Sequence[Entry]], None],
        clock: Callable[[], float],
        to_bridge: Callable[[RingbackMarks], bool],
    ) -> None:
        self._settings = settings
        self._board = board
        self._identities = store
        self._stored = stored
        self._append = append
        self._clock = clock
        self._to_bridge = to_bridge
        self.store = FairnessStore(store.rows)
        self.quality = QualityDesk(settings, self.store, stored, clock)
        self.marks = Marks(settings.ringback.days)
        self._steady = SteadyClock(clock)
        self._judging = asyncio.Lock()
        self._idle_weeks: set[str] = set()
        """Weeks that are over and had no call."""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take over what is stored, and begin to look for what is due."""
        self.marks.restore(await self.store.marks())
        self._task = asyncio.create_task(self._run(), name="fairness")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self.tick()
            except SQLAlchemyError as error:
                log.error("fairness_waits", error=type(error).__name__)
            except Exception:  # a fault here must not cost anybody the rest of the node
                log.exception("fairness_failed")
            await asyncio.sleep(TICK_S)

    async def tick(self) -> None:
        """Do what is due."""
        self._expire()
        if self._steady.steady_s() < STEADY_S:
            return
        await self.quality.tick()
        if self._settings.reports.weekly:
            await self._weeks()

    # -------------------------------------------------------------------- what others tell us

    def bridge_came(self) -> None:
        """A bridge knows no marks."""
        self._to_bridge(RingbackMarks(marks=self.marks.told()))

    async def on_message(
        self, message: FairnessMessage, answer: Callable[[CommandResult], None]
    ) -> None:
        """Take a message from the bridge or from the command line."""
        match message:
            case CallerEnded():
                self._caller_ended(message)
            case OpenRecording():
                status, sentence = await self._open(message)
                answer(CommandResult(command_id=message.request_id, status=status, detail=sentence))
            case RemoveMark():
                answer(await self._remove(message))
            case RingbackMarks():
                pass  # ours to say

    # -------------------------------------------------------------------------------- ringback

    def _caller_ended(self, message: CallerEnded) -> None:
        call = self._board.calls.get(message.call_id) or self._board.ended.get(message.call_id)
        # Without an end that the bridge told there is nothing to mark; who is in danger never is,
        # nor who is spared: the number of a relay service is that of all who need it.
        if (
            not self._settings.ringback.enabled
            or call is None
            or call.ending_ts is None
            or call.crisis_ts is not None
            or call.spared
        ):
            return
        now = self._clock()
        mark = self.marks.ended(message.mark, message.key_id, call.categories, now)
        event = RingbackMarked(
            ts=now,
            call_id=message.call_id,
            mark_id=mark.mark_id,
            category=mark.category,
            until_ts=mark.until_ts,
        )
        self._append([Entry(event, "", rows=[Row("ringback_marks", asdict(mark))])])
        self.bridge_came()

    def _expire(self) -> None:
        gone = self.marks.expire(self._clock())
        if gone:
            self._append([self._gone(mark, "expired") for mark in gone])
            self.bridge_came()

    async def erase_marks(self, hashes: Sequence[str]) -> int:
        """Take the marks of a number away, for its caller asked for it; how many there were."""
        gone = self.marks.remove("", hashes)
        if gone:
            self.bridge_came()
            await self._stored([self._gone(mark, "erasure") for mark in gone])
        return len(gone)

    def forget_marks(self, mark_ids: Sequence[str]) -> None:
        """A call that made these marks is erased, and they go with it."""
        gone = [mark for mark_id in mark_ids for mark in self.marks.remove(mark_id)]
        if gone:
            self.bridge_came()
            self._append([self._gone(mark, "erasure") for mark in gone])

    def _gone(self, mark: Mark, why: Literal["expired", "review", "erasure"]) -> Entry:
        event = RingbackRemoved(ts=self._clock(), mark_id=mark.mark_id, why=why)
        return Entry(event, "", rows=[Row("ringback_marks", {"mark": mark.mark}, delete=True)])

    async def _remove(self, message: RemoveMark) -> CommandResult:
        gone = self.marks.remove(message.mark_id, message.marks)
        if gone:
            self.bridge_came()
            await self._stored([self._gone(mark, "review") for mark in gone])
        return CommandResult(
            command_id=message.request_id,
            status="done" if gone else "already",
            detail="" if gone else "There is no such mark.",
        )

    # ------------------------------------------------------------------------------- recordings

    async def _open(
        self, message: OpenRecording
    ) -> tuple[Literal["done", "not_now", "unknown_call"], str]:
        identity = await self._identities.identity(message.token, self._clock())
        if identity is None or identity.role not in OPENERS:
            return "not_now", (
                "give the token of a supervisor, an auditor or an administrator, so that the "
                "agent sees who opened the recording"
            )
        call_id = message.call_id
        if call_id in self._board.calls:
            # Also of a part that lies complete on the disk: the recorder may have begun another,
            # and what was said a minute ago in a running call is a live call overheard.
            return "not_now", "the call still runs: its recording opens when it has ended"
        call = self._board.ended.get(call_id)
        call = call or await self._identities.ended_call(call_id)
        if call is None:
            return "unknown_call", (
                "this node's store does not know the call, so its agent could not be told: "
                "nobody opens it"
            )
        refusal = await self._why_not(message)
        if refusal:
            return "not_now", refusal
        event = RecordingOpened(
            ts=self._clock(),
            call_id=call_id,
            agent_id=call.agent_id,
            what="audio",
            by_role=identity.role,
            by=identity.token_id,
            why=message.why,
            ref=message.ref,
            reason=message.reason,
        )
        fields = msgspec.to_builtins(event)
        kept = {name: value for name, value in fields.items() if name not in ("type", "what")}
        row = Row("openings", {**kept, "opening_id": uuid.uuid4().hex})
        await self._stored([Entry(event, call.agent_id, rows=[row])])
        return "done", ""

    async def _why_not(self, message: OpenRecording) -> str:
        """Why a recording is not opened, a sentence; ``""`` when it is."""
        match message.why:
            case "draw":
                draw = await self.store.draw(message.ref)
                if draw is None or draw["call_id"] != message.call_id:
                    return "this call was not drawn under that id"
                if draw["void_ts"] is not None:
                    return "this draw is void: the recording stays closed"
            case "request":
                asked = await self.store.asked(message.call_id, message.ref)
                if asked == "no":
                    return "this call's agent made no request under that id"
                if asked == "waits":
                    return "the agent's request was not approved"
            case "complaint":
                if not _COMPLAINT.fullmatch(message.ref):
                    return "name the complaint by 3 to 64 letters, digits and .:/#-"
                if len(message.reason.strip()) not in _REASON_LENGTH:
                    return "write in 10 to 500 characters why the recording must be heard"
        return ""

    # --------------------------------------------------------------------------------- verdicts

    async def judge_call(self, call_id: str, verdict: CallVerdict, role: JudgeRole) -> None:
        """Keep what a person says of a call; the newest word of each role counts."""
        async with self._judging:
            before = await self.store.verdict(call_id)
            said = {"agent_verdict": "", "supervisor_verdict": ""}
            if before is not None:
                said = {name: before[name] for name in said}
            if said[f"{role}_verdict"] == verdict:
                return
            now = self._clock()
            event = CallJudged(ts=now, call_id=call_id, verdict=verdict, by=role)
            row = Row(
                "call_verdicts", {"call_id": call_id, "ts": now, **said, f"{role}_verdict": verdict}
            )
            await self._stored([Entry(event, "", rows=[row])])

    # ------------------------------------------------------------------------------------ weeks

    async def _weeks(self) -> None:
        """Make the reports of weeks that are over; each once."""
        zone, now = self._settings.reports.time_zone, self._clock()
        made = set(await self.store.weeks())
        for back in range(_WEEKS_BACK, 0, -1):
            week = weekly.week_of(now - back * 7 * 86_400, zone)
            begin_ts, end_ts = weekly.bounds(week, zone)
            if week in made or week in self._idle_weeks or now < end_ts + weekly.GRACE_S:
                continue
            facts, rests = await self.store.week_facts(begin_ts, end_ts)
            if not facts:
                self._idle_weeks.add(week)
                continue
            groups = {id_: agent.group for id_, agent in self._settings.agents.items()}
            body = weekly.report(week, facts, rests, groups, self._settings.shadow.groups)
            # Beside it, for others to read: what was made once must not be made again either.
            body[weekly.HEARING] = await self._hearing(begin_ts, end_ts, groups)
            await self._keep_week(week, body, now)

    async def _hearing(
        self, begin_ts: float, end_ts: float, groups: Mapping[str, str]
    ) -> dict[str, Any]:
        found = hearing_trend.shifts(await self.store.doses(begin_ts, end_ts), begin_ts, end_ts)
        thresholds = self._settings.hearing.dose_warnings_pct
        return hearing_trend.report(found, groups, min(thresholds, default=100.0))

    async def _keep_week(self, week: str, body: object, now: float) -> None:
        event = WeekReported(ts=now, week=week)
        text = msgspec.json.encode(body).decode()
        row = Row("weekly_reports", {"week": week, "made_ts": now, "body": text})
        await self._stored([Entry(event, "", rows=[row])])
        log.info("week_reported", week=week)
