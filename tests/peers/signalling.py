"""The bridge alone: its own process, SIP ends that say exactly what a test wants, over UDP or TLS,
and in the media worker's place a listener that keeps what it is told.

What the relay does with it is other tests' business; here every word of the negotiation is seen.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from callshield.bus import BusServer, Peer
from callshield.free_ports import free_port
from callshield.messages import LegName
from callshield.messages_media import (
    CloseSession,
    FetchKept,
    KeptEnd,
    LegUpdate,
    MediaMessage,
    OpenSession,
    PlayFinished,
    PlayPrompts,
    SessionOpened,
)
from callshield.settings import load_settings

PBX_SIDE, PHONE_SIDE = "127.0.0.2", "127.0.0.3"
PBX, PHONE = "127.0.0.4", "127.0.0.5"
CALLER_RTP, AGENT_RTP = 20000, 25000
_NUMBERS = itertools.count(1)
T = TypeVar("T")


@dataclass
class Message:
    """One SIP message as it came."""

    text: str
    arrived: float = field(default_factory=time.time)

    @property
    def start(self) -> str:
        return self.text.split("\r\n", 1)[0]

    @property
    def method(self) -> str:
        return self.start.split(" ", 1)[0]

    @property
    def status(self) -> int:
        return int(self.start.split(" ")[1]) if self.start.startswith("SIP/2.0 ") else 0

    @property
    def body(self) -> str:
        return self.text.partition("\r\n\r\n")[2]

    def header(self, name: str) -> str:
        found = re.search(rf"^{name}:[ \t]*(.*?)\r$", self.text, re.IGNORECASE | re.MULTILINE)
        return found[1] if found else ""

    def headers(self, name: str) -> list[str]:
        return re.findall(rf"^{name}:[ \t]*(.*?)\r$", self.text, re.IGNORECASE | re.MULTILINE)

    @property
    def cseq(self) -> str:
        return self.header("CSeq")


class Wire:
    """Where a SIP end sends and receives; messages come out one by one.

    Args:
        address: ours.
        kind: ``UDP`` or ``TLS``.
    """

    def __init__(self, address: str, kind: str) -> None:
        self.address, self.kind, self.port = address, kind, 0
        self.inbox: asyncio.Queue[Message] = asyncio.Queue()
        self.invites: set[str] = set()
        """Via of each INVITE that was taken: one that comes again is no second one."""
        self._send: Callable[[bytes], None] | None = None
        self._close: list[Callable[[], Any]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def send(self, text: str) -> None:
        assert self._send is not None, "nobody is connected"
        self._send(text.encode("utf-8", "surrogateescape"))

    @classmethod
    async def udp(cls, address: str, target: tuple[str, int] | None = None) -> Wire:
        """An open UDP port; it answers where the last message came from."""
        wire = cls(address, "UDP")
        where = [target]

        class Protocol(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, source: Any) -> None:
                if len(data) > 4:  # not a keep-alive
                    where[0] = source[:2]
                    wire.inbox.put_nowait(Message(data.decode("utf-8", "surrogateescape")))

        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            Protocol, local_addr=(address, 0)
        )
        wire.port = transport.get_extra_info("sockname")[1]
        wire._send = lambda data: transport.sendto(data, where[0])
        wire._close.append(transport.close)
        return wire

    @classmethod
    async def tls_client(
        cls, address: str, target: tuple[str, int], context: ssl.SSLContext
    ) -> Wire:
        """A TLS connection to the bridge.

        Raises:
            OSError: the handshake failed.
        """
        wire = cls(address, "TLS")
        reader, writer = await asyncio.open_connection(
            *target, ssl=context, server_hostname=target[0], local_addr=(address, 0)
        )
        wire._attach(reader, writer)
        wire.port = writer.get_extra_info("sockname")[1]
        return wire

    @classmethod
    async def tls_server(cls, address: str, context: ssl.SSLContext) -> Wire:
        """A TLS port that waits for the bridge."""
        wire = cls(address, "TLS")

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            wire._attach(reader, writer)

        server = await asyncio.start_server(connected, address, 0, ssl=context)
        wire.port = server.sockets[0].getsockname()[1]
        wire._close.append(server.close)
        return wire

    def _attach(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._send = writer.write
        self._close.append(writer.close)
        self._tasks.append(asyncio.ensure_future(self._read(reader)))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                head = head.lstrip(b"\r\n")
                if not head:
                    continue
                length = re.search(rb"(?im)^(?:Content-Length|l):\s*(\d+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                self.inbox.put_nowait(Message((head + body).decode()))
        except (asyncio.IncompleteReadError, OSError):
            return

    def close(self) -> None:
        for close in self._close:
            close()
        for task in self._tasks:
            task.cancel()


class End:
    """One telephone or PBX: a dialog at a time, every message kept.

    Args:
        wire: its transport.
        target: URI of whom it calls.
    """

    def __init__(self, wire: Wire, target: str = "") -> None:
        self.wire = wire
        self.target = self.remote = target
        number = next(_NUMBERS)
        self.call_id, self.tag = f"call-{number}@{wire.address}", f"tag{number}"
        self.to_tag = ""
        self.seen: list[Message] = []
        self.sent: list[str] = []
        """Requests as they went out."""
        self._cseq = 0
        self._invite: Message | None = None

    @property
    def contact(self) -> str:
        # RFC 3261 section 12.1.1: who was called by a sips: URI has one for its Contact.
        if self._invite is not None and self._invite.start.startswith("INVITE sips:"):
            return f"<sips:end@{self.wire.address}:{self.wire.port}>"
        transport = ";transport=tls" if self.wire.kind == "TLS" else ""
        return f"<sip:end@{self.wire.address}:{self.wire.port}{transport}>"

    async def next(self, fits: Callable[[Message], bool], timeout_s: float = 30) -> Message:
        """The next message that fits; others are kept in ``seen``."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    message = await self.wire.inbox.get()
                    self.seen.append(message)
                    if fits(message):
                        return message
        except TimeoutError:
            raise AssertionError(
                f"it never came; there came {[m.start for m in self.seen]}"
            ) from None

    # ------------------------------------------------------------------------- as the caller

    def request(self, method: str, body: str = "", headers: str = "", cseq: int = 0) -> None:
        """Send a request of the dialog."""
        if not cseq:
            self._cseq += 1
        number = cseq or self._cseq
        to_tag = f";tag={self.to_tag}" if self.to_tag else ""
        content = "Content-Type: application/sdp\r\n" if body else ""
        self.sent.append(
            f"{method} {self.remote} SIP/2.0\r\n"
            f"Via: SIP/2.0/{self.wire.kind} {self.wire.address}:{self.wire.port}"
            f";branch=z9hG4bK{next(_NUMBERS)};rport\r\n"
            f"From: <sip:01012345678@{self.wire.address}>;tag={self.tag}\r\n"
            f"To: <{self.target}>{to_tag}\r\nCall-ID: {self.call_id}\r\n"
            f"CSeq: {number} {method}\r\nContact: {self.contact}\r\nMax-Forwards: 70\r\n"
            f"{headers}{content}Content-Length: {len(body.encode())}\r\n\r\n{body}"
        )
        self.wire.send(self.sent[-1])

    async def final(self, method: str = "INVITE") -> Message:
        """The final response to the last request; a 200's dialog is kept, a refusal is acked."""
        number = self._cseq
        found = await self.next(lambda m: m.status >= 200 and m.cseq == f"{number} {method}")
        if found.status < 300:
            tag = re.search(r";tag=([^;\s]+)", found.header("To"))
            self.to_tag = tag[1] if tag else ""
            contact = re.search(r"<([^>]+)>", found.header("Contact"))
            self.remote = contact[1] if contact else self.remote
        elif method == "INVITE":
            via = re.search(r"branch=([^;\s]+)", found.header("Via"))
            assert via is not None
            self.wire.send(
                f"ACK {self.remote} SIP/2.0\r\n"
                f"Via: SIP/2.0/{self.wire.kind} {self.wire.address}:{self.wire.port}"
                f";branch={via[1]}\r\nFrom: {found.header('From')}\r\nTo: {found.header('To')}\r\n"
                f"Call-ID: {self.call_id}\r\nCSeq: {number} ACK\r\nMax-Forwards: 70\r\n"
                "Content-Length: 0\r\n\r\n"
            )
        return found

    def ack(self, body: str = "") -> None:
        """ACK of a 200, with the answer to a late offer."""
        self.request("ACK", body, cseq=self._cseq)

    async def invite(self, body: str, headers: str = "") -> Message:
        """Call, or change the call; its final response, a 200 already acked."""
        self.request("INVITE", body, headers)
        found = await self.final()
        if found.status < 300 and body:
            self.ack()
        return found

    # -------------------------------------------------------------------------- as the phone

    async def invited(self) -> Message:
        """The next INVITE."""
        taken = self.wire.invites
        self._invite = await self.next(
            lambda m: m.method == "INVITE" and m.header("Via") not in taken
        )
        taken.add(self._invite.header("Via"))
        contact = re.search(r"<([^>]+)>", self._invite.header("Contact"))
        self.remote = contact[1] if contact else ""
        return self._invite

    def answer(self, status: str, body: str = "", to: Message | None = None) -> None:
        """A response to the INVITE (or another request)."""
        request = to or self._invite
        assert request is not None
        tagged = request.header("To")
        if ";tag=" not in tagged:
            tagged += f";tag={self.tag}"
        vias = "".join(f"Via: {via}\r\n" for via in request.headers("Via"))
        content = "Content-Type: application/sdp\r\n" if body else ""
        self.wire.send(
            f"SIP/2.0 {status}\r\n{vias}From: {request.header('From')}\r\nTo: {tagged}\r\n"
            f"Call-ID: {request.header('Call-ID')}\r\nCSeq: {request.cseq}\r\n"
            f"Contact: {self.contact}\r\n{content}"
            f"Content-Length: {len(body.encode())}\r\n\r\n{body}"
        )

    async def pick_up(self, body: str) -> Message:
        """200 to the INVITE; returns the INVITE."""
        invite = await self.invited()
        self.answer("180 Ringing")
        self.answer("200 OK", body)
        return invite

    def hang_up(self) -> None:
        """BYE of the one who was called: From and To change places."""
        invite = self._invite
        assert invite is not None
        self._cseq += 1
        self.wire.send(
            f"BYE {self.remote} SIP/2.0\r\n"
            f"Via: SIP/2.0/{self.wire.kind} {self.wire.address}:{self.wire.port}"
            f";branch=z9hG4bK{next(_NUMBERS)};rport\r\n"
            f"From: {invite.header('To')};tag={self.tag}\r\nTo: {invite.header('From')}\r\n"
            f"Call-ID: {invite.header('Call-ID')}\r\nCSeq: {self._cseq} BYE\r\n"
            "Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        )

    def close(self) -> None:
        self.wire.close()


class FakeWorker:
    """In the media worker's place: reserves ports, plays prompts in no time, keeps every word."""

    def __init__(self, path: Path) -> None:
        self.told: list[MediaMessage] = []
        self._news = asyncio.Condition()
        self.server: BusServer[MediaMessage] = BusServer(path, MediaMessage, self._hear)

    async def _hear(self, peer: Peer[MediaMessage], message: MediaMessage) -> None:
        match message:
            case FetchKept():
                peer.send(KeptEnd())  # no call outlives a bridge here
            case OpenSession():
                peer.send(
                    SessionOpened(
                        request_id=message.request_id,
                        call_id=message.call_id,
                        caller_port=CALLER_RTP,
                        agent_port=AGENT_RTP,
                    )
                )
            case PlayPrompts(leg=LegName.CALLER):
                now = time.time()
                peer.send(
                    PlayFinished(
                        call_id=message.call_id,
                        play_id=message.play_id,
                        leg=message.leg,
                        complete=True,
                        spans=[(now, now)] * len(message.files),
                    )
                )
            case _:
                pass
        async with self._news:
            self.told.append(message)
            self._news.notify_all()

    async def wait(self, kind: type[T], fits: Callable[[T], bool] = bool, *, count: int = 1) -> T:
        """The ``count``-th message of a type that fits."""

        def found() -> list[T]:
            return [m for m in self.told if isinstance(m, kind) and fits(m)]

        try:
            async with asyncio.timeout(30), self._news:
                await self._news.wait_for(lambda: len(found()) >= count)
        except TimeoutError:
            raise AssertionError(
                f"no {kind.__name__} (number {count}); there came "
                f"{[type(m).__name__ for m in self.told]}"
            ) from None
        return found()[count - 1]

    async def leg(self, leg: LegName, *, count: int = 1) -> LegUpdate:
        """What it was told of a leg."""
        return await self.wait(LegUpdate, lambda update: update.leg is leg, count=count)

    def updates(self, leg: LegName) -> list[LegUpdate]:
        return [m for m in self.told if isinstance(m, LegUpdate) and m.leg is leg]

    async def call_closed(self) -> None:
        await self.wait(CloseSession)


class Signalling:
    """A bridge process, its listener, and makers of SIP ends.

    Args:
        folder: its files.
        agents: lines of ``[agents.ID]`` tables by id; ``uri`` first.
        pbx: more keys of ``[sip.pbx]``.
        phone: more keys of ``[sip.phone]``.
        sip: more keys of ``[sip]``.
        sides: our addresses towards the PBX and the phones.
        peer: address of the PBX.
        peer_options: more keys of ``[[peers]]``.
    """

    def __init__(
        self,
        folder: Path,
        agents: dict[str, str],
        *,
        pbx: str = "",
        phone: str = "",
        sip: str = "",
        sides: tuple[str, str] = (PBX_SIDE, PHONE_SIDE),
        peer: str = PBX,
        peer_options: str = "",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.pbx_side, self.phone_side = sides
        self.peer = peer
        self.port, self.phone_port = free_port(self.pbx_side), free_port(self.phone_side)
        self.tls_port, self.phone_tls_port = free_port(self.pbx_side), free_port(self.phone_side)
        tables = "\n".join(f"[agents.{name}]\n{keys}" for name, keys in agents.items())
        self.config = folder / "callshield.toml"
        self.config.write_text(
            f"""
[node]
state_dir = "{folder}"
runtime_dir = "{folder}"
stop_timeout_s = 0
[sip]
{sip}
[sip.pbx]
bind = "{self.pbx_side}"
port = {self.port}
{pbx.replace("TLS_PORT", str(self.tls_port))}
[sip.phone]
bind = "{self.phone_side}"
port = {self.phone_port}
{phone.replace("TLS_PORT", str(self.phone_tls_port))}
[[peers]]
name = "pbx"
networks = ["{peer}"]
{peer_options}
{tables}
""",
            encoding="utf-8",
        )
        self.settings = load_settings(self.config)
        self.log_path = folder / "log"
        self.media = FakeWorker(self.settings.media_path)
        self._process: asyncio.subprocess.Process | None = None
        self._ends: list[End] = []

    async def start(self) -> None:
        await self.media.server.start()
        with self.log_path.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "sipbridge.process", "--config", str(self.config)),
                stderr=log,
            )
        async with asyncio.timeout(40):
            while "bridge_ready" not in self.log_path.read_text():
                assert self._process.returncode is None, self.log_path.read_text()
                await asyncio.sleep(0.05)  # a file tells nobody that it grew

    @property
    def pid(self) -> int:
        """Process id of the bridge."""
        assert self._process is not None
        return self._process.pid

    def logs(self, event: str) -> list[dict[str, Any]]:
        entries = [
            json.loads(line)
            # The last line may be half written.
            for line in self.log_path.read_text().split("\n")[:-1]
            if line.startswith("{")
        ]
        return [entry for entry in entries if entry.get("event") == event]

    async def caller(self, agent: str = "1001", tls: ssl.SSLContext | None = None) -> End:
        """A PBX that calls an agent."""
        if tls is None:
            wire = await Wire.udp(self.peer, (self.pbx_side, self.port))
            end = End(wire, f"sip:{agent}@{self.pbx_side}:{self.port}")
        else:
            wire = await Wire.tls_client(self.peer, (self.pbx_side, self.tls_port), tls)
            end = End(wire, f"sip:{agent}@{self.pbx_side}:{self.tls_port};transport=tls")
        self._ends.append(end)
        return end

    async def stop(self) -> None:
        for end in self._ends:
            end.close()
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(30):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        await self.media.server.close()


@asynccontextmanager
async def signalling(
    folder: Path, agents: dict[str, str], **options: Any
) -> AsyncIterator[Signalling]:
    """A bridge for as long as the block lasts; afterwards its log shows no fault of ours."""
    bridge = Signalling(folder, agents, **options)
    try:
        await bridge.start()
        yield bridge
    finally:
        await bridge.stop()
    assert "Traceback" not in bridge.log_path.read_text(), bridge.log_path.read_text()
