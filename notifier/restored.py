"""After a restore: the chain says that it happened, and its head is noted anew."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import delete, insert
from sqlalchemy.exc import SQLAlchemyError

from callshield.errors import SetupError
from callshield.messages_store import StoreRestored
from notifier.anchor import read_head, write_head
from notifier.backup import Backup
from notifier.chain import Head
from notifier.database import Place, reason_of
from notifier.erased_list import noted, path_of
from notifier.erasure import known
from notifier.live import Entry
from notifier.schema_privacy import erasures
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


def erase_again(place: Place) -> int:
    """Calls that were erased after the backup was made: ask for it again; the node carries it out
    when it starts.

    Returns:
        How many there are.
    """
    listed = noted(path_of(place.state_dir))

    async def write() -> int:
        store = Store(place)
        try:
            back = [one for one in listed if await store.asking(known, one)]
            async with store.engine.begin() as connection:
                for call_id in back:
                    await connection.execute(delete(erasures).where(erasures.c.call_id == call_id))
                    await connection.execute(
                        insert(erasures).values(
                            call_id=call_id,
                            asked_ts=float(listed[call_id]),
                            ref="restore",
                            by_role="operator",
                            by=f"user:{os.geteuid()}",
                            waits="",
                        )
                    )
            return len(back)
        finally:
            await store.close()

    try:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, write()).result()
    except SQLAlchemyError as error:
        raise SetupError(f"{place} cannot be used ({reason_of(error)})") from None
