"""``/api/v1/events``: every event once, in order, from where the console left off.

The token comes in the first message ``{"token": "cs_…"}`` within :data:`TOKEN_WITHIN_S`, or as
the subprotocol ``callshield.bearer.<token>`` beside ``callshield.v1`` (which is the one that the
server confirms, so that no token stands in a response). Then the server sends
``session.ready``, the stored events after ``last_event_id``, and live ones; a ``heartbeat`` goes
out every :data:`HEARTBEAT_S`, because a browser cannot see WebSocket pings.

Close codes: 4400 first message unreadable, 4401 token not good (any more), 4408 no token in time,
1013 too slow, or the database does not answer: come back with the last id. 1012 the node restarts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from fastapi import APIRouter
from sqlalchemy.exc import SQLAlchemyError
from starlette.websockets import WebSocket, WebSocketDisconnect

from notifier.cut import CUT
from notifier.hub import Subscriber, visible
from notifier.node import Node
from notifier.problems import Problem
from notifier.tokens import PREFIX, Identity

log = structlog.get_logger()

TOKEN_WITHIN_S = 5.0
HEARTBEAT_S = 10.0
PROTOCOL = "callshield.v1"
_BEARER = "callshield.bearer."
#: Stored events read at a time.
PAGE = 500
BAD_MESSAGE, BAD_TOKEN, NO_TOKEN, TOO_SLOW = 4400, 4401, 4408, 1013

stream = APIRouter()


class _First(msgspec.Struct):
    token: str


class _Refused(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@stream.websocket("/api/v1/events")
async def events(websocket: WebSocket) -> None:
    """Serve one console until it leaves."""
    node: Node = websocket.app.state.node
    asked = websocket.query_params.get("last_event_id")
    if asked is not None and not (asked.isascii() and asked.isdigit() and len(asked) <= 18):
        problem = Problem(400, "invalid", "last_event_id must be the number of an event.")
        await websocket.send_denial_response(problem.response())
        return
    offered: list[str] = websocket.scope.get("subprotocols", [])
    await websocket.accept(PROTOCOL if PROTOCOL in offered else None)
    try:
        identity = await _identity(websocket, offered, node)
        last_id = None if asked is None else int(asked)
        await _Session(websocket, node, identity, last_id).run()
    except _Refused as refused:
        with contextlib.suppress(WebSocketDisconnect):
            await websocket.close(refused.code, refused.reason)
    except SQLAlchemyError:
        log.error("store_unreadable")
        with contextlib.suppress(WebSocketDisconnect):
            await websocket.close(TOO_SLOW, "the database does not answer: connect again")
    except WebSocketDisconnect:
        pass


async def _identity(websocket: WebSocket, offered: list[str], node: Node) -> Identity:
    token = next((p.removeprefix(_BEARER) for p in offered if p.startswith(_BEARER)), None)
    if token is None:
        try:
            async with asyncio.timeout(TOKEN_WITHIN_S):
                first = await websocket.receive_text()
        except TimeoutError:
            raise _Refused(NO_TOKEN, "no token came in time") from None
        except KeyError:
            raise _Refused(BAD_MESSAGE, "the first message must be text") from None
        try:
            token = msgspec.json.decode(first, type=_First).token
        except msgspec.MsgspecError:
            raise _Refused(BAD_MESSAGE, 'the first message must be {"token": "..."}') from None
    identity = None
    if token.startswith(PREFIX):
        identity = await node.store.identity(token, node.clock())
    if identity is None:
        node.metrics.refused.labels("token").inc()
        raise _Refused(BAD_TOKEN, "the token is not good")
    return identity


class _Session:
    """One console that said who it is."""

    def __init__(
        self, websocket: WebSocket, node: Node, identity: Identity, last_id: int | None
    ) -> None:
        self._websocket = websocket
        self._node = node
        self._identity = identity
        self._sent_id = node.hub.last_id if last_id is None else last_id
        self._subscriber = Subscriber(identity)

    async def run(self) -> None:
        """Send until the console leaves, falls behind, or its token ends.

        Raises:
            _Refused: the token expired or was revoked meanwhile.
        """
        sending = asyncio.create_task(self._send())
        reading = asyncio.create_task(self._read())
        beating = asyncio.create_task(self._heartbeat())
        slow = asyncio.create_task(self._subscriber.slow.wait())
        tasks = {sending, reading, beating, slow}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._node.hub.leave(self._subscriber)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if slow in done:
            self._cut()
            return
        for task in done:
            task.result()

    def _cut(self) -> None:
        self._node.hub.slow_dropped += 1
        log.warning("console_too_slow", token_id=self._identity.token_id)
        cut: Callable[[int, str], None] = self._websocket.scope["extensions"][CUT]["cut"]
        cut(TOO_SLOW, "too slow: connect again with the last id")

    async def _read(self) -> None:
        """Take what the console says; nothing is expected."""
        while True:
            await self._websocket.receive_text()

    async def _send(self) -> None:
        hub = self._node.hub
        # An id of the future means that the database is not the one that the console knew.
        reset = self._sent_id > hub.last_id
        if reset:
            self._sent_id = hub.last_id
        await self._say(
            {
                "type": "session.ready",
                "ts": self._node.clock(),
                "role": self._identity.role,
                "token_id": self._identity.token_id,
                "agent_id": self._identity.agent_id,
                "last_event_id": hub.last_id,
                "reset": reset,
            }
        )
        while self._sent_id < hub.last_id:
            await self._replay(hub.last_id)
        # No await between the comparison above and this: no event is missed, none comes twice.
        hub.join(self._subscriber)
        while True:
            for text in await self._subscriber.take():
                await self._websocket.send_text(text)

    async def _replay(self, up_to: int) -> None:
        rows = await self._node.store.events_after(self._sent_id, up_to, self._identity, PAGE)
        for event_id, body in rows:
            text = visible(event_id, msgspec.json.decode(body), self._identity)
            if text is not None:
                await self._websocket.send_text(text)
        self._sent_id = rows[-1][0] if len(rows) == PAGE else up_to

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if not await self._node.store.still_good(self._identity, self._node.clock()):
                raise _Refused(BAD_TOKEN, "the token is not good any more")
            self._subscriber.push(
                msgspec.json.encode({"type": "heartbeat", "ts": self._node.clock()}).decode()
            )

    async def _say(self, body: dict[str, Any]) -> None:
        await self._websocket.send_text(msgspec.json.encode(body).decode())
