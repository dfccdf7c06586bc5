"""Erasures as they run: asked for, waiting, carried out. :mod:`notifier.erasure` says what goes.

Whatever was asked for is stored first, so that a node that stops goes on with it. Sound goes before
rows: while a row is there, the call can be found, and its sound with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from callshield.messages_privacy import (
    CallErased,
    CallOutcome,
    EraseRecordings,
    ErasureAsked,
    RecordingsErased,
    Waits,
)
from callshield.settings import Settings
from notifier.board import LATE_S, Board
from notifier.erased_list import forget, longest_s, note, path_of
from notifier.erasure import (
    BATCH,
    Asked,
    drop_request,
    erased_before,
    find,
    held,
    known_among,
    note_waits,
    waiting,
)
from notifier.evidence_holds import Hold
from notifier.live import Entry
from notifier.rows import Row
from notifier.store import Store

log = structlog.get_logger()

#: A call that ended is left alone for so long: its last words, its dose and its figures still come.
SETTLED_S = LATE_S + 5.0
#: How often those that wait are looked at.
TICK_S = 5.0
#: How long the bridge may take to delete files of sound, and whoever asked is kept waiting.
WITHIN_S = 6.0

_WAITS = {
    "evidence": "it is held as evidence: it is erased as soon as that is settled, and not before",
    "call": "it runs, or ended less than a minute ago: it is erased soon after its end",
    "recordings": "its recording cannot be deleted now ({problem}): it is tried again",
    "": "it is being erased",
}


@dataclass(slots=True)
class Pending:
    """An erasure that was asked for."""

    asked: Asked
    waits: Waits
    problem: str = ""
    """With *recordings*: why."""
    hold: Hold | None = None
    """With *evidence*: since when, and until when."""

    @property
    def sentence(self) -> str:
        """What whoever asked is told."""
        if self.waits == "evidence" and self.hold is not None:
            return self.hold.sentence
        return _WAITS[self.waits].format(problem=self.problem or "nobody answers")


class Erasing:
    """Erasures of one node.

    Args:
        board: what is true now; read only.
        store: of this node; read only here.
        stored: stores entries and waits for it.
        to_bridge: tells the bridge; False when there is none.
        held: why a call is kept as evidence; ``None``: it is not.
        forget_call: takes a call out of this process's memory; what that writes is stored then.
        forget_marks: takes marks of ``[ringback]`` away, by id.
        settings: the node's configuration.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        board: Board,
        store: Store,
        stored: Callable[[Sequence[Entry]], Awaitable[None]],
        to_bridge: Callable[[EraseRecordings], bool],
        held: Callable[[str], Hold | None],
        forget_call: Callable[[str], Awaitable[None]],
        forget_marks: Callable[[Sequence[str]], None],
        settings: Settings,
        clock: Callable[[], float],
    ) -> None:
        self._board = board
        self._store = store
        self._stored = stored
        self._to_bridge = to_bridge
        self._held = held
        self._forget_call = forget_call
        self._forget_marks = forget_marks
        self._noted = path_of(settings.node.state_dir)
        self._longest_s = longest_s(settings)
        self._clock = clock
        self._pending: dict[str, Pending] = {}
        self._answers: dict[str, asyncio.Future[RecordingsErased]] = {}
        self._one = asyncio.Lock()
        self._going = ""
        self._untidy = True
        """The database's log may hold what was erased; also of a former process."""
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self) -> None:
        """Take over what was asked of a former process, and go on with it."""
        for asked, waits in await self._store.asking(waiting):
            self._pending[asked.call_id] = Pending(asked, waits, hold=self._held(asked.call_id))
        await asyncio.to_thread(forget, self._noted, self._clock() - self._longest_s)
        self._task = asyncio.create_task(self._run(), name="erasing")

    async def close(self) -> None:
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def going(self, call_id: str) -> bool:
        """True while rows of this call go: nothing more can be kept of it."""
        return call_id == self._going

    @property
    def pending(self) -> list[Pending]:
        """Those that wait, the oldest first."""
        return list(self._pending.values())

    async def _run(self) -> None:
        while True:
            try:
                await self.tick()
            except SQLAlchemyError as error:
                log.error("erasing_waits", error=type(error).__name__)
            except Exception:  # a fault here must not cost anybody the rest of the node
                log.exception("erasing_failed")
            if self._closing:
                return  # a statement that is cancelled may say so as an error of the database
            await asyncio.sleep(TICK_S)

    async def tick(self) -> None:
        """Carry out what can be by now."""
        for item in self.pending:
            async with self._one:
                if item.asked.call_id in self._pending:
                    await self._carry_out(item)
        await self._tidy()

    async def _tidy(self) -> None:
        """Once after all that was erased; where somebody reads at this moment, next time."""
        if self._untidy:
            self._untidy = not await self._store.tidy()

    def recordings_erased(self, message: RecordingsErased) -> None:
        """The bridge's answer."""
        waits = self._answers.pop(message.call_id, None)
        if waits is not None and not waits.done():
            waits.set_result(message)

    async def ask(
        self, call_ids: Sequence[str], ref: str, by_role: str, by: str, within_s: float
    ) -> list[CallOutcome]:
        """Somebody asks that these calls be erased: stored of all of them first, then carried out.

        Args:
            call_ids: of calls of whatever age.
            ref: what the request is called where it is answered.
            by_role: of whoever answers it.
            by: token id.
            within_s: how long whoever asks may wait. What is not done by then goes on without him,
                also after a restart.

        Returns:
            What came of each, in order: erased, or why not yet.
        """
        until = asyncio.get_running_loop().time() + within_s
        asked = [Asked(call_id, ref, by_role, by, self._clock()) for call_id in call_ids]
        async with self._one:
            stored = await self._keep_all(asked)
        outcomes = []
        for one in asked:
            async with self._one:
                in_time = asyncio.get_running_loop().time() < until
                outcomes.append(await self._answer(one, one.call_id in stored, in_time))
        await self._tidy()
        return outcomes

    async def _keep_all(self, asked: Sequence[Asked]) -> set[str]:
        """Store of each call that is known that it was asked for, a batch at a time."""
        new = [one for one in asked if one.call_id not in self._pending]
        old = [one.call_id for one in new if one.call_id not in self._board.calls]
        there = await self._store.asking(known_among, old) | self._board.calls.keys()
        items = [Pending(one, self._waits_for(one.call_id)) for one in new if one.call_id in there]
        for first in range(0, len(items), BATCH):
            await self._keep(items[first : first + BATCH])
        return {one.call_id for one in asked if one.call_id in self._pending}

    async def _answer(self, asked: Asked, stored: bool, in_time: bool) -> CallOutcome:
        call_id = asked.call_id
        item = self._pending.get(call_id)
        if item is None and not stored:
            return await self._only_sound(asked)
        # One that was stored and waits no more was carried out meanwhile.
        if item is None or (in_time and await self._carry_out(item)):
            return CallOutcome(call_id=call_id, outcome="erased")
        return CallOutcome(call_id=call_id, outcome="waits", sentence=item.sentence)

    async def _only_sound(self, asked: Asked) -> CallOutcome:
        """Of a call that the store does not know there may be a recording."""
        call_id = asked.call_id
        answer = await self._recordings(call_id)
        if answer.problem:
            item = Pending(asked, "recordings", answer.problem)
            await self._keep([item])
            return CallOutcome(call_id=call_id, outcome="waits", sentence=item.sentence)
        if answer.files:
            await self._record_sound(asked, answer.files)
            return CallOutcome(call_id=call_id, outcome="erased")
        if await self._store.asking(erased_before, call_id):
            return CallOutcome(call_id=call_id, outcome="already", sentence="it was erased before")
        return CallOutcome(
            call_id=call_id, outcome="unknown", sentence="nothing is held of such a call"
        )

    def _waits_for(self, call_id: str) -> Waits:
        if self._held(call_id) is not None:
            return "evidence"
        ended = self._board.ended.get(call_id)
        if call_id in self._board.calls:
            return "call"
        ended_ts = None if ended is None else ended.ended_ts
        # A clock that was set back must not keep it for ever.
        if ended_ts is not None and 0 <= self._clock() - ended_ts < SETTLED_S:
            return "call"
        return ""

    async def _keep(self, items: Sequence[Pending]) -> None:
        """Store that it was asked for; the record says so also while it waits."""
        entries = []
        for item in items:
            asked = item.asked
            self._pending[asked.call_id] = item
            event = ErasureAsked(
                ts=asked.asked_ts,
                call_id=asked.call_id,
                ref=asked.ref,
                by_role=asked.by_role,
                by=asked.by,
                waits=item.waits,
            )
            entries.append(Entry(event, "", rows=[_row(item)]))
        await self._stored(entries)

    async def _carry_out(self, item: Pending) -> bool:
        """Erase a call, if nothing keeps it; False while something does."""
        call_id = item.asked.call_id
        waits, answer = self._waits_for(call_id), None
        if not waits:
            stored = await self._store.asking(held, [call_id])
            # It may be settled, and that not stored yet; or be asked for while the store was.
            waits = "evidence" if stored else self._waits_for(call_id)
        if not waits:
            answer = await self._recordings(call_id)
            item.problem = answer.problem
            # The evidence may have been asked for meanwhile.
            waits = "recordings" if answer.problem else self._waits_for(call_id)
        if waits or answer is None:
            await self._wait(item, waits)
            return False
        # From here on nobody can ask for its evidence: without a pause since that was looked at.
        self._going = call_id
        try:
            return await self._erase(item, answer.files)
        finally:
            self._going = ""

    async def _erase(self, item: Pending, files: int) -> bool:
        """Erase what the store has of a call; False when a hold is found there after all."""
        call_id = item.asked.call_id
        if await self._store.asking(held, [call_id]):
            await self._wait(item, "evidence")
            return False
        # Noted first: a node that stops here goes on, and one that is restored knows of it.
        await asyncio.to_thread(note, self._noted, call_id, self._clock())
        await self._forget_call(call_id)
        while found := await self._store.asking(find, item.asked, self._clock(), files):
            erasure, event = found
            self._forget_marks(erasure.mark_ids)
            entry = Entry(event, "", erasure=erasure)
            await self._stored([entry])
            if entry.erasure is None:
                # The transaction found it held, and left everything.
                await self._wait(item, "evidence")
                return False
            files = 0
        if files:
            await self._record_sound(item.asked, files)
        async with self._store.engine.begin() as connection:
            # Where there was nothing, no record of an erasure took it away.
            await drop_request(connection, call_id)
        self._pending.pop(call_id, None)
        self._untidy = True
        log.info("call_erased", call_id=call_id)
        return True

    async def _wait(self, item: Pending, waits: Waits) -> None:
        """It waits, and the row says for what."""
        # Anew each time: a request that is refused is held until a day that can be named.
        item.hold = self._held(item.asked.call_id)
        if item.waits == waits:
            return
        item.waits = waits
        async with self._store.engine.begin() as connection:
            await note_waits(connection, item.asked.call_id, waits)

    async def _record_sound(self, asked: Asked, files: int) -> None:
        """A call of which nothing but sound was held."""
        event = CallErased(
            ts=self._clock(),
            call_id=asked.call_id,
            ref=asked.ref,
            by_role=asked.by_role,
            by=asked.by,
            events=[],
            files=files,
        )
        gone = Row("erasures", {"call_id": asked.call_id}, delete=True)
        await asyncio.to_thread(note, self._noted, asked.call_id, self._clock())
        await self._stored([Entry(event, "", rows=[gone])])

    async def _recordings(self, call_id: str) -> RecordingsErased:
        """Have the bridge delete the sound, which lies where it can reach it."""
        answer: asyncio.Future[RecordingsErased] = asyncio.get_running_loop().create_future()
        self._answers[call_id] = answer
        nobody = RecordingsErased(
            call_id=call_id, files=0, problem="the bridge is not connected, and it deletes them"
        )
        try:
            if not self._to_bridge(EraseRecordings(call_id=call_id)):
                return nobody
            async with asyncio.timeout(WITHIN_S):
                return await answer
        except TimeoutError:
            return nobody
        finally:
            self._answers.pop(call_id, None)


def _row(item: Pending) -> Row:
    asked = item.asked
    values: dict[str, Any] = {
        "call_id": asked.call_id,
        "asked_ts": asked.asked_ts,
        "ref": asked.ref,
        "by_role": asked.by_role,
        "by": asked.by,
        "waits": item.waits,
    }
    return Row("erasures", values)
