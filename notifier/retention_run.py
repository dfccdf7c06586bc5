"""``callshield retention run``: what is due, counted or deleted, while no notifier runs."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy.exc import SQLAlchemyError

from callshield.errors import SetupError
from callshield.settings import Settings
from notifier.anchor import write_head
from notifier.database import locked, migrate, place_of, reason_of
from notifier.live import Entry
from notifier.retention import KINDS, due
from notifier.store import Store


def count_due(settings: Settings, now: float | None = None) -> dict[str, int]:
    """How much of each kind is due; changes nothing."""
    place = place_of(settings)
    migrate(place)
    at = time.time() if now is None else now

    async def count() -> dict[str, int]:
        store = Store(place)
        try:
            return {item.kind: await store.count_due(item) for item in due(settings.retention, at)}
        finally:
            await store.close()

    return _run(count, str(place))


def delete_due(settings: Settings, now: float | None = None) -> dict[str, int]:
    """Delete what is due, each batch recorded in the chain.

    Raises:
        SetupError: a notifier is running (it does this itself), or the database cannot be used.
    """
    place = place_of(settings)
    migrate(place)
    at = time.time() if now is None else now

    async def delete() -> dict[str, int]:
        counts: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
        store = Store(place)
        try:
            await store.take()
            last_id = await store.last_event_id()
            for item in due(settings.retention, at):
                while (found := await store.find_due(item, at)) is not None:
                    entry = Entry(found[1], "", deletion=found[0])
                    entry.event_id = last_id = last_id + 1
                    await store.write([entry])
                    counts[item.kind] += found[1].count
            if store.head is not None:
                write_head(place.head_path, store.head)
        finally:
            await store.close()
        return dict(counts)

    with locked(place):
        return _run(delete, str(place))


def _run(work: object, shown: str) -> dict[str, int]:
    try:
        with ThreadPoolExecutor(1) as thread:
            counts: dict[str, int] = thread.submit(asyncio.run, work()).result()  # type: ignore[operator]
            return counts
    except SQLAlchemyError as error:
        raise SetupError(f"{shown} cannot be used ({reason_of(error)})") from None
