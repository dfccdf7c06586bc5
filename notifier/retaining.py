"""Deletes what is due, in the background of the running notifier.

One small batch at a time, as an entry of the journal: the writer deletes in the transaction that
records the deletion, and between two batches it writes whatever waits. Nothing is begun while the
journal is behind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from callshield.messages_store import RetentionDeleted
from callshield.settings_store import RetentionSettings
from notifier.live import Entry
from notifier.retention import ClockGuard, Deletion, Due, due

log = structlog.get_logger()

#: How often it is looked for what is due.
EVERY_S = 3600.0
#: Between two batches: the writer is free for at least so long.
PAUSE_S = 0.2
#: The journal may hold so many entries before deleting waits.
BUSY_ENTRIES = 50

Find = Callable[[Due, float], Awaitable[tuple[Deletion, RetentionDeleted] | None]]


class Retaining:
    """The background task.

    Args:
        settings: ``[retention]``.
        find: the next batch of one kind.
        record: stores an entry and returns when it is stored.
        waiting: entries that wait for the writer.
        wall: seconds since the epoch.
        guard: whether the wall clock may be believed.
        monotonic: seconds of a clock that cannot be set.
    """

    def __init__(
        self,
        settings: RetentionSettings,
        find: Find,
        record: Callable[[Entry], Awaitable[None]],
        waiting: Callable[[], int],
        wall: Callable[[], float],
        guard: ClockGuard,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._find = find
        self._record = record
        self._waiting = waiting
        self._wall = wall
        self._guard = guard
        self._monotonic = monotonic
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._settings.enabled:
            self._task = asyncio.create_task(self._run(), name="retention")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        told = False
        while True:
            if self._guard.may_delete(self._wall(), self._monotonic()):
                told = False
                try:
                    await self.once()
                except SQLAlchemyError as error:
                    log.warning("retention_failed", error=type(error).__name__)
                except Exception:  # the next round may go better
                    log.exception("retention_failed")
            elif not told:
                told = True
                log.info("retention_waits", reason="after a start or a change of the clock")
            await asyncio.sleep(EVERY_S)

    async def once(self) -> int:
        """Delete all that is due now.

        Returns:
            How much that was.
        """
        count = 0
        for item in due(self._settings, self._wall()):
            deleted = await self._one_kind(item)
            if deleted:
                log.info("retention_deleted", kind=item.kind, count=deleted, rule=item.rule)
            count += deleted
        return count

    async def _writer_is_free(self) -> None:
        while True:
            if self._waiting() <= BUSY_ENTRIES:
                return
            await asyncio.sleep(PAUSE_S)

    async def _one_kind(self, item: Due) -> int:
        count = 0
        while True:
            await self._writer_is_free()
            found = await self._find(item, self._wall())
            if found is None:
                return count
            deletion, event = found
            await self._record(Entry(event, "", deletion=deletion))
            count += event.count
            await asyncio.sleep(PAUSE_S)
