"""A client of rtpengine's ng protocol: questions over UDP, asked again until they are answered.

The same question under the same cookie is carried out once (rtpengine keeps its answers for a
while), so that asking again is harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from typing import Any

from callshield.errors import CallshieldError
from sipbridge.ng_protocol import NgError, answer, question

#: When a question that has no answer is asked again, in seconds after the one before.
_AGAIN_S = (0.2, 0.4, 0.8, 1.6)
#: Questions without an answer at once; a node has a few a call.
MAX_WAITING = 8192


class NgUnreachable(CallshieldError):
    """rtpengine does not answer, or nobody listens at its port."""


class NgRefused(CallshieldError):
    """rtpengine says no.

    Args:
        command: what it was asked.
        reason: its own words.
    """

    def __init__(self, command: str, reason: str) -> None:
        super().__init__(f"rtpengine refused {command!r}: {reason}")
        self.reason = reason

    @property
    def unknown_call(self) -> bool:
        """It knows no such call: it was restarted, or has given the call up."""
        return "unknown call-id" in self.reason.lower()


class NgClient(asyncio.DatagramProtocol):
    """One rtpengine; make it with :meth:`open`."""

    _transport: asyncio.DatagramTransport

    def __init__(self) -> None:
        self._waiting: dict[bytes, asyncio.Future[dict[str, Any]]] = {}
        # What nobody can guess: an answer under another cookie is no answer.
        self._prefix = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self.unreadable = 0
        """Datagrams that were no answers to a question."""

    @classmethod
    async def open(cls, address: tuple[str, int]) -> NgClient:
        """A socket that talks with this address alone.

        Raises:
            NgUnreachable: there is no way there.
        """
        loop = asyncio.get_running_loop()
        try:
            transport, client = await loop.create_datagram_endpoint(cls, remote_addr=address)
        except OSError as error:
            raise NgUnreachable(
                f"{address[0]} port {address[1]} cannot be reached ({error.strerror}): check "
                "media.rtpengine.control"
            ) from None
        client._transport = transport
        return client

    def close(self) -> None:
        """No more questions; those that wait are given up."""
        self._transport.close()
        for future in self._waiting.values():
            future.cancel()

    # ------------------------------------------------------------------------- the protocol's

    def datagram_received(self, data: bytes, addr: object) -> None:
        try:
            cookie, body = answer(data)
        except NgError:
            self.unreadable += 1
            return
        future = self._waiting.get(cookie)
        if future is None or future.done():
            self.unreadable += 1  # an answer that came twice, or too late
        else:
            future.set_result(body)

    def error_received(self, exc: Exception) -> None:
        """The kernel's word that nobody listens there (ICMP port unreachable)."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(NgUnreachable("nobody listens at rtpengine's control port"))

    # --------------------------------------------------------------------------- the caller's

    async def ask(self, command: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer to a command.

        Args:
            command: such as ``offer``.
            body: the other keys.

        Raises:
            NgUnreachable: no answer, though asked several times.
            NgRefused: the answer is an error.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise NgUnreachable("too many questions to rtpengine have no answer yet")
        cookie = f"{self._prefix}_{next(self._numbers)}".encode()
        message = question(cookie, {"command": command, **(body or {})})
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[cookie] = future
        try:
            reply = await self._asked_again(message, future)
        finally:
            del self._waiting[cookie]
        if reply.get("result") not in ("ok", "pong"):
            raise NgRefused(command, str(reply.get("error-reason", "without a reason"))[:200])
        return reply

    async def _asked_again(
        self, message: bytes, future: asyncio.Future[dict[str, Any]]
    ) -> dict[str, Any]:
        for wait_s in _AGAIN_S:
            self._transport.sendto(message)
            # Not wait_for(): that one loses a cancellation that comes together with the answer.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    return await asyncio.shield(future)
        future.cancel()
        raise NgUnreachable(
            f"rtpengine has not answered for {sum(_AGAIN_S):.0f} s: look whether it runs, and "
            "whether media.rtpengine.control is its listen-ng"
        )

    async def ping(self, timeout_s: float) -> bool:
        """Whether it answers now.

        Raises:
            NgUnreachable: nobody listens there.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return (await self.ask("ping")).get("result") == "pong"
        except (TimeoutError, NgRefused):
            return False
