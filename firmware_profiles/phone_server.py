"""Sockets of the listener that phones call: who may connect, how many, how long. No routes.

Whoever does not come from the phones' networks is closed before a byte is read, TLS or not. One
connection carries one request: no phone needs more, and nothing can be smuggled behind it. A
request is read by :mod:`firmware_profiles.phone_request`; nothing of it is logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from firmware_profiles.phone_answers import PhoneAnswer
from firmware_profiles.phone_request import PhoneRequest, Refused, head_length, parse_head

log = structlog.get_logger()

#: A request that has not come whole by then is not waited for, seconds.
READ_S = 3.0
#: What is answered may take so long: longer than the notifier and the bridge have for a press.
ANSWER_S = 5.0
_WRITE_S = 2.0
#: Whoever was refused in the middle of a request may still send for so long.
_LINGER_S = 0.5
#: Connections at once, and from one address.
MOST_CONNECTIONS = 256
MOST_PER_ADDRESS = 32
#: Connections from one address, a second and at once: far more than a finger presses, also of
#: many phones behind one address, and few enough for the machine.
PER_S = 100.0
BURST = 300.0
_ADDRESSES = 4096
#: The same trouble is logged so often, seconds.
_LOG_EVERY_S = 60.0

Answer = Callable[[PhoneRequest, str], Awaitable[PhoneAnswer]]


@dataclass(slots=True)
class _Bucket:
    left: float
    at_s: float


@dataclass(slots=True, eq=False)
class _Connection:
    address: str
    task: asyncio.Task[None] | None = None
    reading: bool = True


class PhoneServer:
    """Accepts phones and answers each of their requests.

    Args:
        listening: a listening socket; it is closed with the server.
        networks: where phones are.
        answer: what to say to a request from an address; :class:`Refused` is a status.
        tls: for HTTPS.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        listening: socket.socket,
        networks: Sequence[str],
        answer: Answer,
        *,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listening = listening
        self._networks = [ipaddress.ip_network(network, strict=False) for network in networks]
        self._answer = answer
        self._tls = tls
        self._clock = clock
        self._connections: OrderedDict[_Connection, None] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._complained: dict[str, float] = {}
        self._accepting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Accept from now on."""
        self._accepting = asyncio.create_task(self._accept(), name="phone listener")

    async def close(self) -> None:
        """Stop listening and drop what is open."""
        tasks = [one.task for one in self._connections if one.task is not None]
        if self._accepting is not None:
            tasks.append(self._accepting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listening.close()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._listening.getsockname()[1]
        return port

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                taken, peer = await loop.sock_accept(self._listening)
            except OSError as error:
                # Too many files are open: the listener's own close within seconds.
                self._complain("phone_accept_failed", reason=error.strerror)
                await asyncio.sleep(0.1)
                continue
            address = self._phone(peer[0])
            if address is None or not self._has_rate(address):
                taken.close()
                continue
            self._make_room(address)
            connection = _Connection(address)
            self._connections[connection] = None
            connection.task = asyncio.create_task(self._serve(taken, connection))

    def _phone(self, host: str) -> str | None:
        """The address of a phone; ``None`` for anybody else."""
        address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address
        if any(address in network for network in self._networks):
            return str(address)
        self._complain("phone_stranger", address=str(address))
        return None

    def _has_rate(self, address: str) -> bool:
        now_s = self._clock()
        bucket = self._buckets.pop(address, None) or _Bucket(BURST, now_s)
        bucket.left = min(BURST, bucket.left + (now_s - bucket.at_s) * PER_S)
        bucket.at_s = now_s
        self._buckets[address] = bucket
        if len(self._buckets) > _ADDRESSES:
            self._buckets.popitem(last=False)
        if bucket.left < 1:
            self._complain("phone_flood", address=address)
            return False
        bucket.left -= 1
        return True

    def _make_room(self, address: str) -> None:
        """Who has sent no whole request for longest goes: a press never waits behind connections
        that say nothing."""
        same = [one for one in self._connections if one.address == address]
        if len(same) >= MOST_PER_ADDRESS:
            self._drop_oldest(same)
        if len(self._connections) >= MOST_CONNECTIONS:
            self._drop_oldest(list(self._connections))

    def _drop_oldest(self, connections: list[_Connection]) -> None:
        oldest = next((one for one in connections if one.reading), connections[0])
        self._connections.pop(oldest, None)
        if oldest.task is not None:
            oldest.task.cancel()
        self._complain("phone_connections_full", address=oldest.address)

    async def _serve(self, taken: socket.socket, connection: _Connection) -> None:
        try:
            async with asyncio.timeout(READ_S + ANSWER_S + _WRITE_S):
                await self._converse(taken, connection)
        except (OSError, TimeoutError):
            pass  # it went away, or is too slow
        except Exception as error:  # one request must not cost the listener
            # Without a traceback: what was asked stands in it.
            log.error("phone_request_failed", error=type(error).__name__)
        finally:
            self._connections.pop(connection, None)

    async def _converse(self, taken: socket.socket, connection: _Connection) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        taken.setblocking(False)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                taken,
                ssl=self._tls,
                ssl_handshake_timeout=READ_S if self._tls else None,
                ssl_shutdown_timeout=_WRITE_S if self._tls else None,
            )
        except BaseException:
            taken.close()
            raise
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            answer, has_body = await self._exchange(reader, connection)
            writer.write(answer.encoded(body=has_body))
            async with asyncio.timeout(_WRITE_S):
                if connection.reading and writer.can_write_eof():
                    await _linger(reader, writer)
                writer.close()
                await writer.wait_closed()
        finally:
            transport.abort()

    async def _exchange(
        self, reader: asyncio.StreamReader, connection: _Connection
    ) -> tuple[PhoneAnswer, bool]:
        method = ""
        try:
            async with asyncio.timeout(READ_S):
                request = await _read(reader)
            connection.reading = False
            method = request.method
            async with asyncio.timeout(ANSWER_S):
                answer = await self._answer(request, connection.address)
        except Refused as refused:
            answer = PhoneAnswer(refused.status)
        except TimeoutError:
            answer = PhoneAnswer(503 if method else 408)
        if 400 <= answer.status < 500:
            self._complain(
                f"phone_request_refused_{answer.status}",
                event="phone_request_refused",
                status=answer.status,
                address=connection.address,
            )
        return answer, method != "HEAD"

    def _complain(self, what: str, event: str = "", **fields: object) -> None:
        now_s = self._clock()
        if now_s - self._complained.get(what, -_LOG_EVERY_S) >= _LOG_EVERY_S:
            self._complained[what] = now_s
            log.warning(event or what, **fields)


async def _read(reader: asyncio.StreamReader) -> PhoneRequest:
    """One request; a body that is no form is thrown away.

    Raises:
        Refused: it is none.
        ConnectionError: the phone went away before it was whole.
    """
    received = b""
    while (length := head_length(received)) is None:
        received += await _more(reader)
    request = parse_head(received[:length])
    rest = bytearray(received[length:])
    got = len(rest)
    while got < request.body_bytes:
        more = await _more(reader)
        got += len(more)
        if request.is_form:
            rest += more
    if not request.is_form:
        return request
    return replace(request, body=bytes(rest[: request.body_bytes]))


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take in what was already under way: closed with bytes unread, the kernel would reset the
    connection, and the other side might lose the answer (RFC 9112 section 9.6)."""
    await writer.drain()
    writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while await reader.read(4096):
                pass


async def _more(reader: asyncio.StreamReader) -> bytes:
    chunk = await reader.read(4096)
    if not chunk:
        raise ConnectionResetError
    return chunk
