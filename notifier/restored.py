"""After a restore: the chain says that it happened, and its head is noted anew."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy.exc import SQLAlchemyError

from callshield.errors import SetupError
from callshield.messages_store import StoreRestored
from notifier.anchor import read_head, write_head
from notifier.backup import Backup
from notifier.board import Entry
from notifier.chain import Head
from notifier.database import Place, reason_of
from notifier.store import Store


def record_restore(place: Place, backup: Backup) -> tuple[Head | None, Head]:
    """Append ``store.restored`` to the chain, and note its head.

    Returns:
        The head that was noted before, which people may have kept elsewhere, and the new one.
    """
    before = read_head(place.head_path)

    async def write() -> Head:
        store = Store(place)
        try:
            await store.take()
            last_id = await store.last_event_id()
            event = StoreRestored(
                ts=time.time(),
                backup_sha256=backup.sha256,
                last_id=last_id,
                replaced_id=before.last_id if before else 0,
            )
            entry = Entry(event, "")
            entry.event_id = last_id + 1
            await store.write([entry])
            assert store.head is not None
            return store.head
        finally:
            await store.close()

    try:
        with ThreadPoolExecutor(1) as thread:
            head = thread.submit(asyncio.run, write()).result()
    except SQLAlchemyError as error:
        raise SetupError(f"{place} cannot be used ({reason_of(error)})") from None
    write_head(place.head_path, head)
    return before, head
