"""A telephone or PBX in a few lines: exact SIP on a UDP socket, and RTP that can be counted.

For dialogs whose order of messages a sipp scenario would only obscure: a test says what each side
sends, and waits for what it must get. Every message that came is kept.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

from callshield.free_ports import free_port, free_range

PATIENCE_S = 20.0
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Message:
    """A received SIP message."""

    text: str

    @property
    def start(self) -> str:
        return self.text.split("\r\n", 1)[0]

    @property
    def method(self) -> str:
        """Of the request, or of the request that this response answers."""
        return self["CSeq"].split(" ")[1]

    @property
    def status(self) -> int:
        """0 for a request."""
        return int(self.start.split(" ")[1]) if self.start.startswith("SIP/2.0") else 0

    @property
    def body(self) -> str:
        return self.text.partition("\r\n\r\n")[2]

    def __getitem__(self, name: str) -> str:
        """The first header of this name; ``""`` without one."""
        found = re.search(rf"^{name}[ \t]*:[ \t]*(.*?)\r$", self.text, re.MULTILINE | re.IGNORECASE)
        return found[1] if found else ""

    def all(self, name: str) -> list[str]:
        return re.findall(rf"^{name}[ \t]*:[ \t]*(.*?)\r$", self.text, re.MULTILINE | re.IGNORECASE)

    @property
    def media_port(self) -> int:
        found = re.search(r"^m=audio (\d+)", self.body, re.MULTILINE)
        assert found is not None, self.text
        return int(found[1])

    @property
    def media_address(self) -> str:
        found = re.search(r"^c=IN IP4 (\S+)", self.body, re.MULTILINE)
        assert found is not None, self.text
        return found[1]


def bye_of(call_id: str) -> Callable[[Message], bool]:
    """Finds the BYE of one dialog."""
    return request_of(call_id, "BYE")


def request_of(call_id: str, method: str) -> Callable[[Message], bool]:
    """Finds a request of one dialog."""
    return lambda message: (
        not message.status and message.method == method and message["Call-ID"] == call_id
    )


class Audio(asyncio.DatagramProtocol):
    """An RTP socket: sends A-law packets that carry one recognisable byte, keeps what comes."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        """The byte of each packet that came; -1 where it is not one over and over (a prompt)."""
        self.payloads: list[bytes] = []
        """What each packet that came carried."""
        self._transport: asyncio.DatagramTransport | None = None
        self._sequence = 0
        self._came = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if len(data) > 12 and data[0] >> 6 == 2:
            self.heard.append(data[12] if len(set(data[12:])) == 1 else -1)
            self.payloads.append(data[12:])
            self._came.set()

    async def hear(self, packets: int) -> None:
        """Until so many have come."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.payloads) < packets:
                self._came.clear()
                await self._came.wait()

    async def drain(self) -> None:
        """Until all that has come by now is read: one datagram is, each time round."""
        read = -1
        while read < (read := len(self.payloads)):
            for _ in range(3):
                await asyncio.sleep(0)

    async def hear_of(self, sign: int, packets: int) -> None:
        """Until so many of one sign have come."""
        async with asyncio.timeout(PATIENCE_S):
            while self.heard.count(sign) < packets:
                self._came.clear()
                await self._came.wait()

    async def speak(self, sign: int, to: tuple[str, int], packets: int = 25) -> None:
        """20 ms packets whose payload is one byte over and over."""
        assert self._transport is not None
        for _ in range(packets):
            self._sequence += 1
            header = struct.pack(
                "!BBHII", 0x80, 8, self._sequence & 0xFFFF, self._sequence * 160, 0x1234
            )
            self._transport.sendto(header + bytes([sign]) * 160, to)
            await asyncio.sleep(0.02)  # the pace of RTP is what is tested

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Ua(asyncio.DatagramProtocol):
    """A SIP user agent at one address.

    Args:
        address: loopback address that it binds to.
        user: user part of its Contact.
    """

    def __init__(self, address: str, user: str) -> None:
        self.address, self.user = address, user
        self.port = free_port(address)
        self.media_port = free_range(address, 4)[0]
        self.audio = Audio()
        self.log: list[str] = []
        """Every message, ``>`` sent and ``<`` received, for a failed test's sake."""
        self._inbox: list[Message] = []
        self._news = asyncio.Condition()
        self._sent: dict[tuple[str, str], bytes] = {}
        self._seen: set[str] = set()
        self._acknowledged: dict[tuple[str, str], tuple[bytes, tuple[str, int]]] = {}
        """Call-ID and CSeq number of an answered INVITE of ours: its ACK, and where that went."""
        self._transport: asyncio.DatagramTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.carried = "UDP"
        """What carries its SIP, as Via says it."""

    @property
    def uri(self) -> str:
        tail = "" if self.carried == "UDP" else f";transport={self.carried.lower()}"
        return f"sip:{self.user}@{self.address}:{self.port}{tail}"

    def sdp(self, direction: str = "sendrecv", port: int = 0) -> str:
        """A session description of this agent's audio, A-law and telephone-events."""
        return (
            f"v=0\r\no=- 1 {next(_numbers)} IN IP4 {self.address}\r\ns=-\r\n"
            f"c=IN IP4 {self.address}\r\nt=0 0\r\n"
            f"m=audio {port or self.media_port} RTP/AVP 8 101\r\n"
            "a=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\n"
            f"a={direction}\r\n"
        )

    # ------------------------------------------------------------------------- the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if len(data) <= 4:
            return  # a keep-alive (RFC 5626 section 3.5.1, and a proxy's to a phone behind NAT)
        message = Message(data.decode(errors="replace"))
        self.log.append(f"< {message.text}")
        key = f"{message['Via']} {message['CSeq']} {message.status} {message['RSeq']}"
        if not message.status and message.method != "ACK":
            answered = self._sent.get((message["Via"], message.method))
            if answered is not None:  # a retransmission: what was said before, again
                assert self._transport is not None
                self._transport.sendto(answered, addr)
                return
        if key in self._seen:
            self._acknowledge_again(message)
            return
        self._seen.add(key)
        task = asyncio.get_running_loop().create_task(self._take(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, message: Message) -> None:
        async with self._news:
            self._inbox.append(message)
            self._news.notify_all()

    def _acknowledge_again(self, message: Message) -> None:
        """A 2xx to an INVITE that comes again wants its ACK again (RFC 3261 section 13.2.2.4)."""
        if message.status // 100 == 2 and message.method == "INVITE":
            dialog = (message["Call-ID"], message["CSeq"].split(" ")[0])
            ack, to = self._acknowledged.get(dialog, (b"", ("", 0)))
            if ack:
                assert self._transport is not None
                self._transport.sendto(ack, to)

    def send(self, text: str, to: tuple[str, int]) -> None:
        self.log.append(f"> {text}")
        message = Message(text)
        if message.method == "ACK":
            dialog = (message["Call-ID"], message["CSeq"].split(" ")[0])
            self._acknowledged[dialog] = (text.encode(), to)
        assert self._transport is not None
        self._transport.sendto(text.encode(), to)

    async def expect(
        self, where: Callable[[Message], bool], what: str, timeout_s: float = PATIENCE_S
    ) -> Message:
        """Take the oldest message that fits out of the inbox."""

        def first() -> Message | None:
            return next((message for message in self._inbox if where(message)), None)

        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(lambda: first() is not None)
                message = first()
                assert message is not None
                self._inbox.remove(message)
                return message
        except TimeoutError:
            log = "\n".join(self.log)
            raise AssertionError(f"{self.user} waited for {what}; its log:\n{log}") from None

    async def request(self, method: str, timeout_s: float = PATIENCE_S) -> Message:
        """The next request of a method."""
        return await self.expect(lambda m: not m.status and m.method == method, method, timeout_s)

    def forget(self) -> None:
        """Nothing that came up to now is waited for any more: another test begins."""
        self._inbox.clear()

    def waiting(self, method: str) -> list[Message]:
        """Requests of a method that came and were not taken."""
        return [m for m in self._inbox if not m.status and m.method == method]

    # ------------------------------------------------------------------------- the dialogs

    def reply(
        self,
        request: Message,
        status: int,
        *,
        tag: str = "",
        body: str = "",
        headers: tuple[str, ...] = (),
        reason: str = "Said",
    ) -> None:
        """Answer a request."""
        to = request["To"] + (f";tag={tag}" if tag and ";tag=" not in request["To"] else "")
        lines = [
            f"SIP/2.0 {status} {reason}",
            *(f"Via: {via}" for via in request.all("Via")),
            *(f"Record-Route: {route}" for route in request.all("Record-Route")),
            f"From: {request['From']}",
            f"To: {to}",
            f"Call-ID: {request['Call-ID']}",
            f"CSeq: {request['CSeq']}",
            f"Contact: <{self.uri}>",
            *headers,
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
            "",
            body,
        ]
        sent_by = re.search(r"SIP/2\.0/\w+ ([^;:]+):(\d+)", request["Via"])
        assert sent_by is not None
        text = "\r\n".join(lines)
        if status >= 200:
            self._sent[(request["Via"], request.method)] = text.encode()
        self.send(text, (sent_by[1], int(sent_by[2])))

    def begin(self, target: str, host: str, port: int, user: str = "01012345678") -> Dialog:
        """A dialog that an INVITE of ours is to begin."""
        return Dialog(
            ua=self,
            call_id=f"c{next(_numbers)}@{self.address}",
            local=f"<sip:{user}@{self.address}:{self.port}>;tag=t{next(_numbers)}",
            remote=f"<{target}>",
            target=target,
            peer=(host, port),
        )

    def accept(
        self,
        invite: Message,
        status: int = 200,
        *,
        tag: str = "",
        headers: tuple[str, ...] = (),
        body: str | None = None,
    ) -> Dialog:
        """Answer an INVITE; the dialog as this side sees it."""
        tag = tag or f"t{next(_numbers)}"
        contact = re.search(r"<([^>]+)>", invite["Contact"])
        assert contact is not None
        routes = tuple(invite.all("Record-Route"))
        source = re.search(r"@?([0-9.]+):(\d+)", routes[0] if routes else contact[1])
        assert source is not None
        self.reply(
            invite,
            status,
            tag=tag,
            body=self.sdp() if body is None else body,
            headers=headers,
        )
        return Dialog(
            ua=self,
            call_id=invite["Call-ID"],
            local=f"{invite['To']};tag={tag}",
            remote=invite["From"],
            target=contact[1],
            peer=(source[1], int(source[2])),
            routes=routes,
        )


@dataclass
class Dialog:
    """One side of a dialog."""

    ua: Ua
    call_id: str
    local: str
    remote: str
    target: str
    peer: tuple[str, int]
    cseq: int = 0
    invite_via: str = ""
    """Of the last INVITE: its CANCEL must carry the same."""
    routes: tuple[str, ...] = ()
    """The route set (RFC 3261 section 12.1), where a proxy recorded itself."""

    @property
    def local_tag(self) -> str:
        return self.local.rpartition(";tag=")[2]

    @property
    def remote_tag(self) -> str:
        return self.remote.rpartition(";tag=")[2]

    def send(
        self,
        method: str,
        *,
        body: str = "",
        headers: tuple[str, ...] = (),
        content_type: str = "application/sdp",
        cseq: int = 0,
    ) -> int:
        """Send a request; its CSeq."""
        if not cseq:
            self.cseq += 1
            cseq = self.cseq
        ua, branch = self.ua, f"z9hG4bK{next(_numbers)}"
        via = f"Via: SIP/2.0/{ua.carried} {ua.address}:{ua.port};branch={branch}"
        if method == "INVITE":
            self.invite_via = via
        lines = [
            f"{method} {self.target} SIP/2.0",
            self.invite_via if method == "CANCEL" else via,
            "Max-Forwards: 70",
            f"From: {self.local}",
            f"To: {self.remote}",
            f"Call-ID: {self.call_id}",
            f"CSeq: {cseq} {method}",
            f"Contact: <{self.ua.uri}>",
            *(f"Route: {route}" for route in self.routes),
            *headers,
            *([f"Content-Type: {content_type}"] if body else []),
            f"Content-Length: {len(body)}",
            "",
            body,
        ]
        self.ua.send("\r\n".join(lines), self.peer)
        return cseq

    async def response(
        self, cseq: int, method: str, least: int = 200, timeout_s: float = PATIENCE_S
    ) -> Message:
        """The next response to a request with at least this status."""
        return await self.ua.expect(
            lambda m: (
                m.status >= least
                and m["Call-ID"] == self.call_id
                and m["CSeq"] == f"{cseq} {method}"
            ),
            f"an answer to {method}",
            timeout_s,
        )

    async def ask(self, method: str, **options: object) -> Message:
        """Send a request and return its final response."""
        cseq = self.send(method, **options)  # type: ignore[arg-type]
        return await self.response(cseq, method)

    async def invite(self, **options: object) -> Message:
        """INVITE, its final response, and the ACK; takes over tag and Contact of a 2xx."""
        options.setdefault("body", self.ua.sdp())
        cseq = self.send("INVITE", **options)  # type: ignore[arg-type]
        response = await self.response(cseq, "INVITE", timeout_s=40)
        self.learn(response)
        self.send("ACK", cseq=cseq)
        return response

    def learn(self, response: Message) -> None:
        """Take the far end's tag, Contact and, the first time, routes from a response."""
        if ";tag=" not in self.remote:
            self.routes = tuple(reversed(response.all("Record-Route")))
        self.remote = response["To"]
        contact = re.search(r"<([^>]+)>", response["Contact"])
        if contact is not None:
            self.target = contact[1]


@asynccontextmanager
async def running_ua(address: str, user: str) -> AsyncIterator[Ua]:
    """A user agent for as long as the block lasts."""
    ua = Ua(address, user)
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: ua, local_addr=(address, ua.port))
    await loop.create_datagram_endpoint(lambda: ua.audio, local_addr=(address, ua.media_port))
    try:
        yield ua
    finally:
        ua.audio.close()
        if ua._transport is not None:
            ua._transport.close()


class _Stream:
    """In a datagram transport's place: one connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def sendto(self, data: bytes, to: tuple[str, int]) -> None:
        self._writer.write(data)

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def running_tls_ua(
    address: str, user: str, target: tuple[str, int], context: ssl.SSLContext
) -> AsyncIterator[Ua]:
    """A user agent that says everything over one TLS connection to ``target``.

    Raises:
        OSError: the handshake failed.
    """
    ua = Ua(address, user)
    ua.carried = "TLS"
    reader, writer = await asyncio.open_connection(
        *target, ssl=context, server_hostname=target[0], local_addr=(address, ua.port)
    )
    ua._transport = cast("asyncio.DatagramTransport", _Stream(writer))
    reading = asyncio.create_task(_read_stream(ua, reader))
    try:
        yield ua
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        writer.close()


async def _read_stream(ua: Ua, reader: asyncio.StreamReader) -> None:
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).lstrip(b"\r\n")
        if head:
            length = re.search(rb"(?im)^(?:Content-Length|l)[ \t]*:[ \t]*(\d+)", head)
            body = await reader.readexactly(int(length[1]) if length else 0)
            ua.datagram_received(head + body, ("", 0))
