"""The heartbeat of all consoles, and whether their tokens are still good.

A browser cannot see WebSocket pings, so every console gets a ``heartbeat`` message every
``HEARTBEAT_S`` (:mod:`notifier.stream`); what it has to answer are the pings beneath. Consoles take
turns: a tenth of them each tenth of that time, with one look into the database for all of their
tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError

from notifier.cut import text_frame
from notifier.hub import Hub
from notifier.store import Store

log = structlog.get_logger()

TURNS = 10


async def beat(
    hub: Hub, store: Store, clock: Callable[[], float], every_s: Callable[[], float]
) -> None:
    """Keep the consoles informed, for ever.

    Args:
        hub: who listens.
        store: knows the tokens.
        clock: seconds since the epoch.
        every_s: time between two heartbeats of one console.
    """
    turn = 0
    while True:
        await asyncio.sleep(every_s() / TURNS)
        turn = (turn + 1) % TURNS
        now = clock()
        due = [one for one in hub.subscribers if one.turn % TURNS == turn]
        if not due:
            continue
        try:
            bad = await store.bad_tokens({one.identity.token_id for one in due})
        except SQLAlchemyError:
            # A database that does not answer must not close the consoles that say so.
            log.warning("tokens_not_checked", consoles=len(due))
            bad = set()
        frame = text_frame(msgspec.json.encode({"type": "heartbeat", "ts": now}))
        for subscriber in due:
            identity = subscriber.identity
            if identity.token_id in bad or identity.expires_ts <= now:
                subscriber.refused.set()
            elif subscriber in hub.subscribers:
                subscriber.push(frame)
