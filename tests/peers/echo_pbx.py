"""A PBX with an echo extension and, on demand, the faults that PBXs have."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

from callshield.free_ports import free_port, free_range
from tests.peers.sip_ua import Message

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Habits:
    """What this PBX does; the defaults are those of a good one."""

    options_status: int = 200
    """0: it does not answer OPTIONS."""
    invite_status: int = 200
    """0: it rings for ever."""
    min_se_s: int = 0
    """Asks with 422 for at least this session interval."""
    headers: tuple[str, ...] = (
        "Supported: timer, 100rel",
        "Session-Expires: 1800;refresher=uac",
        "Require: timer",
    )
    """Of the 200 to INVITE."""
    formats: str = "8 101"
    attributes: str = (
        "a=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n"
        "a=ptime:20\r\n"
    )
    sdp_address: str = ""
    """Written into c= instead of its own."""
    sdp_port: int = 0
    contact_host: str = ""
    """Written into Contact instead of its own."""
    seen_as: str = ""
    """The source address of requests, as a PBX behind NAT's other end sees it."""
    echo: bool = True
    announcement: bytes = b""
    """Payload that it sends instead of an echo, packet for packet."""
    lose_every: int = 0
    """One of so many packets does not come back."""
    reports: bool = False
    """Says by RTCP what it got."""
    digits: str = "echo"
    """``echo``, ``swallow``, or ``info``: sends them back as INFO."""
    info_status: int = 200


@dataclass
class EchoPbx(asyncio.DatagramProtocol):
    """One PBX at one address, UDP only."""

    address: str
    habits: Habits = field(default_factory=Habits)
    log: list[str] = field(default_factory=list)
    requests: list[Message] = field(default_factory=list)
    got: int = 0
    """RTP packets that came."""

    def __post_init__(self) -> None:
        self.port = free_port(self.address)
        self.media_port = free_range(self.address, 2)[0]
        self._transport: asyncio.DatagramTransport | None = None
        self.rtp = _Rtp(self)
        self.rtcp = _Rtcp()
        self._asked_longer: set[str] = set()
        self._info_sent = False
        self._dialog: Message | None = None
        self._source: tuple[str, int] = ("", 0)

    @property
    def echo_uri(self) -> str:
        return f"sip:603@{self.address}:{self.port}"

    def methods(self) -> list[str]:
        return [request.method for request in self.requests]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        message = Message(data.decode(errors="replace"))
        self.log.append(message.text)
        if message.status:
            return
        self.requests.append(message)
        match message.method:
            case "OPTIONS" if self.habits.options_status:
                self._reply(message, addr, self.habits.options_status)
            case "INVITE":
                self._invited(message, addr)
            case "INFO":
                self._reply(message, addr, self.habits.info_status)
            case "BYE" | "CANCEL":
                self._reply(message, addr, 200)
                if message.method == "CANCEL" and self._dialog is not None:
                    self._reply(self._dialog, addr, 487)

    def _invited(self, invite: Message, addr: tuple[str, int]) -> None:
        habits = self.habits
        self._dialog, self._source = invite, addr
        interval = invite["Session-Expires"].split(";")[0]
        if habits.min_se_s > int(interval or 0):
            self._reply(invite, addr, 422, (f"Min-SE: {habits.min_se_s}",))
            return
        self._reply(invite, addr, 180)
        if habits.invite_status == 0:
            return
        if habits.invite_status >= 300:
            self._reply(invite, addr, habits.invite_status)
            return
        address = habits.sdp_address or self.address
        body = (
            f"v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n"
            f"m=audio {habits.sdp_port or self.media_port} RTP/AVP {habits.formats}\r\n"
            f"{habits.attributes}"
        )
        self._reply(invite, addr, 200, habits.headers, body)

    def _reply(
        self,
        request: Message,
        addr: tuple[str, int],
        status: int,
        headers: tuple[str, ...] = (),
        body: str = "",
    ) -> None:
        via = request["Via"].replace(";rport", f";rport={addr[1]}")
        if self.habits.seen_as:
            via += f";received={self.habits.seen_as}"
        tag = "" if "tag=" in request["To"] else ";tag=pbx"
        host = self.habits.contact_host or self.address
        lines = [
            f"SIP/2.0 {status} Said",
            f"Via: {via}",
            f"From: {request['From']}",
            f"To: {request['To']}{tag}",
            f"Call-ID: {request['Call-ID']}",
            f"CSeq: {request['CSeq']}",
            f"Contact: <sip:603@{host}:{self.port}>",
            "Server: EchoPbx",
            *headers,
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
            "",
            body,
        ]
        assert self._transport is not None
        self._transport.sendto("\r\n".join(lines).encode(), addr)

    def digit_as_info(self) -> None:
        if self._info_sent or self._dialog is None or self._transport is None:
            return
        self._info_sent = True
        body = "Signal=5\r\nDuration=160\r\n"
        invite = self._dialog
        contact = invite["Contact"].partition("<")[2].partition(">")[0]
        lines = [
            f"INFO {contact} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.address}:{self.port};branch=z9hG4bKi{next(_numbers)}",
            "Max-Forwards: 70",
            f"From: {invite['To']};tag=pbx",
            f"To: {invite['From']}",
            f"Call-ID: {invite['Call-ID']}",
            "CSeq: 7 INFO",
            "Content-Type: application/dtmf-relay",
            f"Content-Length: {len(body)}",
            "",
            body,
        ]
        self._transport.sendto("\r\n".join(lines).encode(), self._source)

    def close(self) -> None:
        for transport in (self._transport, self.rtp.transport, self.rtcp.transport):
            if transport is not None:
                transport.close()


class _Rtp(asyncio.DatagramProtocol):
    def __init__(self, pbx: EchoPbx) -> None:
        self.pbx = pbx
        self.transport: asyncio.DatagramTransport | None = None
        self._sequence = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        pbx, habits = self.pbx, self.pbx.habits
        assert self.transport is not None
        pbx.got += 1
        _, second, sequence, _, ssrc = struct.unpack_from("!BBHII", data)
        if habits.reports and pbx.got % 100 == 50 and pbx.rtcp.transport is not None:
            block = struct.pack("!IIIIII", ssrc, 0, sequence, 16, 0, 0)
            report = struct.pack("!BBHI", 0x81, 201, 7, 0x77) + block
            pbx.rtcp.transport.sendto(report, (addr[0], addr[1] + 1))
        if habits.announcement:
            head = struct.pack("!BBHII", 0x80, 8, self._next(), self._sequence * 160, 0x99)
            self.transport.sendto(head + habits.announcement, addr)
            return
        event = second & 0x7F == 101
        if event and habits.digits != "echo":
            if habits.digits == "info":
                pbx.digit_as_info()
            return
        if habits.echo:
            # Its own numbers, as a PBX has; what is lost leaves a gap.
            number = self._next()
            if not habits.lose_every or pbx.got % habits.lose_every:
                self.transport.sendto(data[:2] + struct.pack("!H", number) + data[4:], addr)

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence


class _Rtcp(asyncio.DatagramProtocol):
    transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)


@asynccontextmanager
async def running_echo_pbx(
    address: str, habits: Habits | None = None, *, rtp_at: str = ""
) -> AsyncIterator[EchoPbx]:
    """A PBX for as long as the block lasts; its media may live at another address."""
    pbx = EchoPbx(address, habits or Habits())
    loop = asyncio.get_running_loop()
    media = rtp_at or address
    await loop.create_datagram_endpoint(lambda: pbx, local_addr=(address, pbx.port))
    await loop.create_datagram_endpoint(lambda: pbx.rtp, local_addr=(media, pbx.media_port))
    await loop.create_datagram_endpoint(lambda: pbx.rtcp, local_addr=(media, pbx.media_port + 1))
    try:
        yield pbx
    finally:
        pbx.close()
