"""The post office: takes events out of the record, and carries letters until they are delivered.

The record of events is the queue: each channel remembers up to which event it has read, and that
and its letters are stored in one transaction. So nothing is lost by ``kill -9`` at any moment, and
a far end that is away for days costs :attr:`notifier.outbox.Channel.queue_limit` letters at most;
what comes later waits in the record. What a crash can cost is a second delivery of letters whose
first one was not yet noted: same id.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError

from notifier.live import Alert, Entry
from notifier.metrics import Metrics
from notifier.outbox import Channel, Letter, Undelivered, fate
from notifier.outbox_store import DEAD, WAITING, OutboxStore

log = structlog.get_logger()

#: Events read from the record at a time.
_PAGE = 500
#: Events without a letter after which a channel's place is written down all the same.
_CURSOR_EVERY = 500
#: How often the outbox is looked at unasked: a person may have retried or dropped letters.
LOOK_EVERY_S = 2.0
#: After so many attempts of one letter in vain the node says that the channel does not work.
_TROUBLE_AFTER = 3
_STORE_RETRY_S = 1.0
_TIDY_EVERY_S = 3600.0

Note = Callable[[str, bool, str], None]


class Post:
    """All channels of a node.

    Args:
        channels: each with a name of its own.
        store: the outbox's tables.
        clock: seconds since the epoch.
        newest: number of the newest stored event.
        find_alert: an alert by its id, for what its events do not say themselves.
        note: called with a channel's name, whether it is in trouble, and why.
        metrics: counts what becomes of letters.
        chance: random, 0..1.
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        store: OutboxStore,
        clock: Callable[[], float],
        newest: Callable[[], int],
        find_alert: Callable[[str], Awaitable[Alert | None]],
        note: Note,
        metrics: Metrics,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._rounds = [
            _Round(channel, store, clock, newest, find_alert, note, metrics, chance)
            for channel in channels
        ]
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def channels(self) -> list[str]:
        """Names of all channels."""
        return [one.channel.name for one in self._rounds]

    async def start(self, last_event_id: int, in_trouble: Collection[str] = ()) -> None:
        """Go on where each channel was.

        Args:
            last_event_id: number of the newest stored event.
            in_trouble: channels of which the last word was that they do not work.
        """
        cursors = await self._store.cursors(self.channels, last_event_id)
        for one in self._rounds:
            one.begin(cursors[one.channel.name], one.channel.name in in_trouble)
            self._tasks += [
                asyncio.create_task(one.collect(), name=f"collect {one.channel.name}"),
                asyncio.create_task(one.carry(), name=f"carry {one.channel.name}"),
            ]
        self._tasks.append(asyncio.create_task(self._count(), name="outbox"))

    def published(self, entries: Sequence[Entry]) -> None:
        """Events were stored; never waits."""
        for one in self._rounds:
            one.published(entries)

    def look(self) -> None:
        """A person changed the outbox."""
        for one in self._rounds:
            one.wake()

    async def stop(self) -> None:
        """Stop where it is; the next start goes on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for one in self._rounds:
            await one.end()

    async def _count(self) -> None:
        """Keep the figures, and the heap of dead letters small."""
        tidied = 0.0
        while True:
            try:
                if self._clock() - tidied > _TIDY_EVERY_S:
                    tidied = self._clock()
                    for name in self.channels:
                        forgotten = await self._store.forget_dead(name, tidied)
                        if forgotten:
                            log.warning("dead_letters_forgotten", channel=name, letters=forgotten)
                found = await self._store.counts()
            except SQLAlchemyError:
                found = {}
            for name in self.channels:
                for state in (WAITING, DEAD):
                    self._metrics.outbox.labels(name, state).set(found.get((name, state), 0))
            await asyncio.sleep(LOOK_EVERY_S)


class _Round:
    """One channel's postman."""

    def __init__(
        self,
        channel: Channel,
        store: OutboxStore,
        clock: Callable[[], float],
        newest: Callable[[], int],
        find_alert: Callable[[str], Awaitable[Alert | None]],
        note: Note,
        metrics: Metrics,
        chance: Callable[[], float],
    ) -> None:
        self.channel = channel
        self._store = store
        self._clock = clock
        self._newest = newest
        self._find_alert = find_alert
        self._note = note
        self._metrics = metrics
        self._chance = chance
        self._read = 0
        self._noted = 0
        self._in_trouble = False
        self._news = asyncio.Event()
        self._letters = asyncio.Event()

    def begin(self, event_id: int, in_trouble: bool) -> None:
        self._read = self._noted = event_id
        self._in_trouble = in_trouble
        self._news.set()

    def wake(self) -> None:
        self._news.set()
        self._letters.set()

    async def end(self) -> None:
        if self._read > self._noted:
            try:
                await self._store.put(self.channel.name, [], self._read)
            except SQLAlchemyError:
                log.warning("outbox_place_not_noted", channel=self.channel.name)
        await self.channel.close()

    def published(self, entries: Sequence[Entry]) -> None:
        caught_up = self._read == entries[0].event_id - 1
        if caught_up and not any(self.channel.wants(_kind(entry)) for entry in entries):
            # Nothing for us, and nothing to read again.
            self._read = entries[-1].event_id
            if self._read - self._noted < _CURSOR_EVERY:
                return
        self._news.set()

    # -------------------------------------------------------------------- events into letters

    async def collect(self) -> None:
        """Make letters of what is recorded, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                while await self._collect_page():
                    pass
            except SQLAlchemyError:
                log.error("outbox_unreadable", channel=self.channel.name)
                await asyncio.sleep(_STORE_RETRY_S)
                self._news.set()

    async def _collect_page(self) -> bool:
        """Returns: there may be more."""
        newest, name = self._newest(), self.channel.name
        if self._read >= newest:
            if self._read - self._noted >= _CURSOR_EVERY:
                noted = self._read
                await self._store.put(name, [], noted)
                self._noted = noted
            return False
        room = self.channel.queue_limit - (await self._store.waiting(name))
        if room <= 0:
            # carry() wakes us when letters have gone.
            return False
        page = await self._store.events_after(self._read, newest, min(room, _PAGE))
        # Numbers may be missing (retention): an empty page means that nothing is left.
        read = page[-1][0] if page else newest
        letters = []
        for event_id, kind, text in page:
            if self.channel.wants(kind):
                letter = await self._letter(event_id, kind, msgspec.json.decode(text))
                if letter is not None:
                    letters.append(letter)
        if letters:
            await self._store.put(name, letters, read)
            self._noted = read
            self._letters.set()
        self._read = read
        return True

    async def _letter(self, event_id: int, kind: str, event: dict[str, Any]) -> Letter | None:
        event = {"id": event_id, **event}
        if kind.startswith("alert."):
            alert = await self._find_alert(event.get("alert_id", ""))
            if alert is not None:
                event.setdefault("kind", alert.kind)
                event.setdefault("level", alert.level)
        told = self.channel.content(event)
        if told is None:
            return None
        return Letter(
            letter_id=uuid.uuid4().hex,
            channel=self.channel.name,
            event_id=event_id,
            type=kind,
            ts=float(event["ts"]),
            body=msgspec.json.encode(told).decode(),
        )

    # ------------------------------------------------------------------------- letters out

    async def carry(self) -> None:
        """Deliver what is due, for ever."""
        channel = self.channel
        while True:
            self._letters.clear()
            try:
                now = self._clock()
                letters = await self._store.due(channel.name, now, channel.parallel * channel.batch)
                due_ts = None if letters else await self._store.next_ts(channel.name)
            except SQLAlchemyError:
                await asyncio.sleep(_STORE_RETRY_S)
                continue
            if not letters:
                wait_s = LOOK_EVERY_S if due_ts is None else due_ts - now
                await self._wait(min(max(wait_s, 0.02), LOOK_EVERY_S))
                continue
            await self._deliver(letters)
            self._news.set()  # there may be room again
            if channel.spacing_s:
                await asyncio.sleep(channel.spacing_s)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._letters.wait()
        except TimeoutError:
            return

    async def _deliver(self, letters: Sequence[Letter]) -> None:
        size = self.channel.batch
        lots = [letters[at : at + size] for at in range(0, len(letters), size)]
        outcomes = await asyncio.gather(*(self._send(lot) for lot in lots))
        taken = [one for lot, no in zip(lots, outcomes, strict=True) if no is None for one in lot]
        if taken:
            await self._insist(lambda: self._store.delivered(taken))
            self._metrics.deliveries.labels(self.channel.name, "delivered").inc(len(taken))
            if self._in_trouble:
                self._in_trouble = False
                self._note(self.channel.name, False, "")
        for lot, failure in zip(lots, outcomes, strict=True):
            if failure is not None:
                for letter in lot:
                    await self._failed(letter, failure)

    async def _send(self, lot: Sequence[Letter]) -> Undelivered | None:
        try:
            await self.channel.send(lot)
        except Undelivered as failure:
            return failure
        except Exception as error:  # a fault of ours must not end the channel
            log.exception("delivery_fault", channel=self.channel.name)
            return Undelivered(f"a fault of this node ({type(error).__name__})")
        return None

    async def _failed(self, letter: Letter, failure: Undelivered) -> None:
        name = self.channel.name
        end = fate(letter, failure, self._clock(), self._chance(), self.channel.give_up_after_s)
        log.warning(
            "letter_put_aside" if end.dead else "letter_not_delivered",
            channel=name,
            letter_id=letter.letter_id,
            attempts=letter.attempts + 1,
            reason=failure.reason,
        )
        await self._insist(
            lambda: self._store.failed(
                letter, dead=end.dead, next_ts=end.next_ts, reason=failure.reason
            )
        )
        self._metrics.deliveries.labels(name, "dead" if end.dead else "failed").inc()
        if not self._in_trouble and (end.dead or letter.attempts + 1 >= _TROUBLE_AFTER):
            self._in_trouble = True
            self._note(name, True, failure.reason)

    async def _insist(self, write: Callable[[], Awaitable[None]]) -> None:
        """What is not noted would be sent again at once, and again."""
        while True:
            try:
                await write()
            except SQLAlchemyError:
                await asyncio.sleep(_STORE_RETRY_S)
                continue
            return


def _kind(entry: Entry) -> str:
    return str(type(entry.event).__struct_config__.tag)


def is_channel(component: str) -> bool:
    """Whether a part of the node that is down is a channel."""
    return component == "mail" or component.startswith("webhook:")
