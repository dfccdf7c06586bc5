"""Stored before sent: the one writer, its queue, and what happens when the disk says no.

Whoever appends never waits. The writer takes all that is queued as one transaction (at most
:data:`BATCH`), so the busier it is the larger its commits get; only after the commit are the
events handed on to be sent. A database that is locked or full is tried again, with the same
numbers, until it works; meanwhile the queue grows to its bound and then loses its oldest events
that are no alerts, counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import structlog
from sqlalchemy.exc import SQLAlchemyError

from notifier.live import Call, Entry

log = structlog.get_logger()

#: Entries in one transaction at most.
BATCH = 500
QUEUE_LIMIT = 20_000
_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 2.0

Write = Callable[[Sequence[Entry], Sequence[Call]], Awaitable[None]]


class Journal:
    """Number, store, then publish.

    Args:
        write: stores a batch or raises :class:`sqlalchemy.exc.SQLAlchemyError`.
        publish: called with a batch after its commit, in order.
        on_trouble: called with a reason when storing begins to fail, and with ``None`` when it
            works again.
        last_id: number of the newest stored event.
        limit: entries kept while the database does not work.
    """

    def __init__(
        self,
        write: Write,
        publish: Callable[[Sequence[Entry]], None],
        on_trouble: Callable[[str | None], None],
        last_id: int,
        limit: int = QUEUE_LIMIT,
    ) -> None:
        self._write = write
        self._publish = publish
        self._on_trouble = on_trouble
        self._last_id = last_id
        self._limit = limit
        self._queue: deque[Entry] = deque()
        self._orphans: dict[str, Call] = {}
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0
        self.in_trouble = False

    def __len__(self) -> int:
        return len(self._queue)

    def start(self) -> None:
        """Begin writing in the background."""
        self._task = asyncio.create_task(self._run(), name="journal")

    @property
    def task(self) -> asyncio.Task[None]:
        """The writer; it never ends by itself, so its end is a fault."""
        assert self._task is not None
        return self._task

    def append(self, entries: Sequence[Entry]) -> None:
        """Queue entries; never blocks."""
        if not entries:
            return
        for entry in entries:
            self._queue.append(entry)
            if len(self._queue) > self._limit:
                self._drop_oldest()
        self._idle.clear()
        self._wake.set()

    async def stored(self, entries: Sequence[Entry]) -> None:
        """Queue entries and wait for the commit that holds the last of them."""
        if not entries:
            return
        done = asyncio.get_running_loop().create_future()
        self._waiting[id(entries[-1])] = done
        try:
            self.append(entries)
            await done
        finally:
            self._waiting.pop(id(entries[-1]), None)

    def _drop_oldest(self) -> None:
        for index, entry in enumerate(self._queue):
            # What somebody waits for is kept: whoever waits would wait for ever.
            if not entry.is_alert and id(entry) not in self._waiting:
                del self._queue[index]
                self.dropped += 1
                if entry.call is not None:
                    # Its event is lost, the state of its call is not.
                    self._orphans[entry.call.call_id] = entry.call
                return

    async def _run(self) -> None:
        while True:
            if not self._queue and not self._orphans:
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            for number, entry in enumerate(batch, self._last_id + 1):
                entry.event_id = number
            await self._commit(batch)
            self._last_id += len(batch)
            self._publish(batch)
            for entry in batch:
                done = self._waiting.get(id(entry))
                if done is not None and not done.done():
                    done.set_result(None)

    async def _commit(self, batch: Sequence[Entry]) -> None:
        delay_s = _FIRST_RETRY_S
        while True:
            orphans = list(self._orphans.values())
            try:
                await self._write(batch, orphans)
            except SQLAlchemyError as error:
                reason = str(getattr(error, "orig", None) or type(error).__name__)
                if not self.in_trouble:
                    self.in_trouble = True
                    log.error("store_failing", error=reason, waiting=len(self._queue))
                    self._on_trouble(reason)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _LAST_RETRY_S)
                continue
            for call in orphans:
                self._orphans.pop(call.call_id, None)
            if self.in_trouble:
                self.in_trouble = False
                log.warning("store_working_again", dropped=self.dropped)
                self._on_trouble(None)
            return

    async def close(self, timeout_s: float) -> None:
        """Write what is queued, for at most ``timeout_s``, and stop."""
        if self._task is None:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            log.error("events_not_stored", waiting=len(self._queue))
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
