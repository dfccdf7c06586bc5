"""``/api/v1/events``: every event once, in order, from where the console left off.

The token comes in the first message ``{"token": "cs_…"}`` within :data:`TOKEN_WITHIN_S`, or as
the subprotocol ``callshield.bearer.<token>`` beside ``callshield.v1`` (which is the one that the
server confirms, so that no token stands in a response). Then the server sends
``session.ready``, the stored events after ``last_event_id``, and live ones; a ``heartbeat`` goes
out every :data:`notifier.node.HEARTBEAT_S`, because a browser cannot see WebSocket pings.

Close codes: 4400 first message unreadable, 4401 token not good (any more), 4403 a role without
live screens, 4408 no token in time, 4429 too many consoles with this token, 1013 too slow, or the
database does not answer: come back with the last id. 1011 the console did not answer pings. 1012
the node restarts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec
import structlog
from fastapi import APIRouter
from sqlalchemy.exc import SQLAlchemyError
from starlette.websockets import WebSocket, WebSocketDisconnect

from notifier.cut import LINE, ConsoleProtocol
from notifier.hub import Subscriber, visible
from notifier.node import Node
from notifier.permissions import allowed
from notifier.problems import Problem
from notifier.sealed import holds_words
from notifier.tokens import PREFIX, Identity

log = structlog.get_logger()

TOKEN_WITHIN_S = 5.0
PROTOCOL = "callshield.v1"
_BEARER = "callshield.bearer."
#: Stored events read at a time.
PAGE = 500
BAD_MESSAGE, BAD_TOKEN, BAD_ROLE, NO_TOKEN = 4400, 4401, 4403, 4408
TOO_MANY, TOO_SLOW = 4429, 1013

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
        with _place(node, identity):
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
        identity = await node.identity(token)
    if identity is None:
        node.metrics.refused.labels("token").inc()
        raise _Refused(BAD_TOKEN, "the token is not good")
    if not allowed(identity.role, "WS", "/api/v1/events"):
        raise _Refused(BAD_ROLE, "this role has no live screen")
    return identity


@contextlib.contextmanager
def _place(node: Node, identity: Identity) -> Iterator[None]:
    """One of the places for consoles that each token has.

    Raises:
        _Refused: all are taken.
    """
    taken = node.hub.places
    if taken[identity.token_id] >= node.settings.limits.consoles_per_token:
        node.metrics.refused.labels("too_many").inc()
        raise _Refused(TOO_MANY, "too many consoles with this token (limits.consoles_per_token)")
    taken[identity.token_id] += 1
    try:
        yield
    finally:
        taken[identity.token_id] -= 1
        if not taken[identity.token_id]:
            del taken[identity.token_id]


class _Session:
    """One console that said who it is."""

    def __init__(
        self, websocket: WebSocket, node: Node, identity: Identity, last_id: int | None
    ) -> None:
        self._websocket = websocket
        self._node = node
        self._identity = identity
        self._sent_id = node.hub.last_id if last_id is None else last_id
        self._line: ConsoleProtocol = websocket.scope["extensions"][LINE]["line"]
        self._subscriber = Subscriber(identity, self._line)

    async def run(self) -> None:
        """Send until the console leaves, falls behind, or its token ends."""
        subscriber = self._subscriber
        joining = asyncio.create_task(self._join())
        tasks = {
            joining,
            asyncio.create_task(self._read()),
            asyncio.create_task(subscriber.slow.wait()),
            asyncio.create_task(subscriber.refused.wait()),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if done == {joining} and joining.exception() is None:
                done, _ = await asyncio.wait(tasks - {joining}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._node.hub.leave(subscriber)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if subscriber.slow.is_set():
            self._node.hub.slow_dropped += 1
            log.warning("console_too_slow", token_id=self._identity.token_id)
            self._line.cut(TOO_SLOW, "too slow: connect again with the last id")
        elif subscriber.refused.is_set():
            self._line.cut(BAD_TOKEN, "the token is not good any more")
        else:
            for task in done:
                task.result()

    async def _read(self) -> None:
        """Take what the console says; nothing is expected."""
        while True:
            await self._websocket.receive_text()

    async def _join(self) -> None:
        """Say how things are, send what was missed, and join those who hear what is new."""
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
                "supervisor_id": self._identity.supervisor_id,
                "last_event_id": hub.last_id,
                "reset": reset,
            }
        )
        while self._sent_id < hub.last_id:
            await self._replay(hub.last_id)
        # No await between the comparison above and this: no event is missed, none comes twice.
        hub.join(self._subscriber)

    async def _replay(self, up_to: int) -> None:
        rows = await self._node.store.events_after(self._sent_id, up_to, self._identity, PAGE)
        for event_id, body in rows:
            event = msgspec.json.decode(body)
            asked = self._node.board.help_was_asked(event.get("call_id", ""))
            text = visible(event_id, event, self._identity, help_asked=asked)
            if text is not None:
                if asked and holds_words(event):
                    self._node.words_shown(self._identity, event["call_id"])
                await self._websocket.send_text(text.decode())
        self._sent_id = rows[-1][0] if len(rows) == PAGE else up_to

    async def _say(self, body: dict[str, Any]) -> None:
        await self._websocket.send_text(msgspec.json.encode(body).decode())
