"""Desk phones by SIP: each answers calls, and takes or refuses a NOTIFY as its maker wrote.

Written from the manuals that the profiles in ``firmware_profiles/`` name; where a manual says only
that a message is refused, the status here is the one that RFC 3261 or RFC 6665 has for it. What a
phone's screen would show now is :attr:`SipPhone.screen`. The SIP and the digest are this file's
own: nothing of the product decides here.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
import secrets
import ssl
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, cast

from callshield.free_ports import free_port, free_range
from tests.peers.sip_ua import Audio, Message

PATIENCE_S = 20.0
Send = Callable[[bytes], None]
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Family:
    """What one family takes.

    Attributes:
        user_agent: of its messages.
        event: of the NOTIFY that it shows; empty: it does not look at the header.
        content_type: of the documents.
        roots: root elements that it can show.
        exits: what in a document takes the screen away.
        max_bytes: of a document.
        challenges: with the account's password (digest, 401).
        settings: of this phone as it leaves the factory, by the vendor's own names.
        switch: of the settings, the one that lets NOTIFY write on the screen; its value then.
        block: the one that keeps the screen as it is during a call.
        trust: the one that has it look where a NOTIFY comes from; ``""``: it always does.
    """

    user_agent: str
    event: str
    content_type: str
    roots: tuple[str, ...]
    exits: tuple[str, ...] = ()
    max_bytes: int = 10_000
    challenges: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    switch: tuple[str, str] = ("", "")
    block: str = ""
    trust: str = ""
    hosts: str = ""
    """The one that lists further hosts that are trusted."""


#: Administrator's Guide (Accept SIP Trust Server Only, off at first; then 403), XML Browser
#: Developer's Guide (10,000 bytes), support page (Remote Control, Block XML in Calling).
YEALINK = Family(
    user_agent="Yealink SIP-T46S 66.85.0.5",
    event="Yealink-xml",
    content_type="application/xml",
    roots=("YealinkIPPhoneTextScreen", "YealinkIPPhoneStatus", "YealinkIPPhoneTextMenu"),
    settings={
        "push_xml.sip_notify": "1",
        "push_xml.block_in_calling": "0",
        "sip.trust_ctrl": "1",
    },
    switch=("push_xml.sip_notify", "1"),
    block="push_xml.block_in_calling",
    trust="sip.trust_ctrl",
)
#: Snom Service Hub, *Via SIP NOTIFY*: the content type decides, the host must be trusted or the
#: registrar; its examples have no Event header.
SNOM = Family(
    user_agent="snomD785/10.1.84.12",
    event="",
    content_type="application/snomxml",
    roots=("SnomIPPhoneText", "IPPhoneText", "IPPhoneSilent"),
    exits=("phone://mb_exit",),
    settings={"mb_trusted_hosts": ""},
    hosts="mb_trusted_hosts",
)
#: Release Notes 2.2 p. 92: with the whitelist on, the NOTIFY of another server is rejected.
MITEL = Family(
    user_agent="Mitel-6930-SIP-Phone/5.1.0.2051",
    event="aastra-xml",
    content_type="application/xml",
    roots=("AastraIPPhoneTextScreen", "AastraIPPhoneFormattedTextScreen", "AastraIPPhoneStatus"),
    settings={"sip xml notify event": "1", "sip whitelist": "1"},
    switch=("sip xml notify event", "1"),
    trust="sip whitelist",
)
#: Templates in use: SIPNotifyXML, BlockXMLWhenCall (1 in templates, 0 as ours sets it).
FANVIL = Family(
    user_agent="Fanvil X4U 2.12.7.6",
    event="xml",
    content_type="application/xml",
    roots=("FanvilIPPhoneText", "FanvilIPPhoneTextScreen"),
    settings={"SIPNotifyXML": "1", "BlockXMLWhenCall": "0"},
    switch=("SIPNotifyXML", "1"),
    block="BlockXMLWhenCall",
)
#: Webex help: the phone challenges NOTIFY with 401 and waits for one with the account's password.
CISCO_MPP = Family(
    user_agent="Cisco-CP-8841-3PCC/11.0 (00562b043615)",
    event="XML-Service",
    content_type="application/xml",
    roots=("CiscoIPPhoneText", "CiscoIPPhoneExecute"),
    exits=("Init:Services",),
    max_bytes=512,
    challenges=True,
    settings={"CISCO_XML_EXE_Enable": "Yes"},
    switch=("CISCO_XML_EXE_Enable", "Yes"),
)
FAMILIES = {
    "yealink-t": YEALINK,
    "snom-d7": SNOM,
    "mitel-6800": MITEL,
    "fanvil": FANVIL,
    "cisco-mpp": CISCO_MPP,
}


class SipPhone:
    """One phone with one account.

    Args:
        family: what it is.
        address: loopback address that it binds to.
        user: of its account, its Contact and its digest.
        server: address of the account's server, whose NOTIFY it takes.
        password: of the account.
        settings: vendor's name → value, in place of the family's.
        transport: what it listens on; with ``tls`` its certificate.
        algorithm: of its challenges.
        port: 0: a free one.
    """

    def __init__(
        self,
        family: Family,
        address: str,
        user: str,
        server: str,
        *,
        password: str = "",
        settings: Mapping[str, str] | None = None,
        transport: Literal["udp", "tcp", "tls"] = "udp",
        certificate: ssl.SSLContext | None = None,
        algorithm: Literal["MD5", "SHA-256"] = "MD5",
        port: int = 0,
    ) -> None:
        self.family, self.address, self.user, self.server = family, address, user, server
        self.password, self.transport, self.algorithm = password, transport, algorithm
        self.settings = {**family.settings, **(settings or {})}
        self._certificate = certificate
        self.port = port or free_port(address)
        self.media_port = free_range(address, 4)[0]
        self.audio = Audio()
        self.silent = False
        """It drops every NOTIFY."""
        self.answers_calls = True
        self.screen = ""
        """The words that it shows now."""
        self.shown: list[str] = []
        """Everything that it has shown, in order."""
        self.executed: list[str] = []
        """URIs that documents had it carry out."""
        self.notifies: list[tuple[Message, int]] = []
        """Every NOTIFY that was no retransmission, and its answer's status; 0 without one."""
        self.repeated = 0
        """Retransmissions of NOTIFYs."""
        self.log: list[str] = []
        self._calls: dict[str, str] = {}
        """Call-ID → our tag of the calls that are on."""
        self._said: dict[tuple[str, str], bytes] = {}
        self._nonces: set[str] = set()
        self._news = asyncio.Condition()
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._responses: dict[str, asyncio.Future[Message]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def uri(self) -> str:
        """As ``agents.ID.uri`` has it."""
        more = "" if self.transport == "udp" else f";transport={self.transport}"
        return f"sip:{self.user}@{self.address}:{self.port}{more}"

    @property
    def in_call(self) -> bool:
        return bool(self._calls)

    # ---------------------------------------------------------------------------- the sockets

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(
            lambda: self.audio, local_addr=(self.address, self.media_port)
        )
        if self.transport != "udp":
            self._tcp = await asyncio.start_server(
                self._serve, self.address, self.port, ssl=self._certificate
            )
            return
        self._udp, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self._datagram), local_addr=(self.address, self.port)
        )

    async def stop(self) -> None:
        self.audio.close()
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
        for writer in self._writers:
            writer.close()
        for task in self._tasks:
            task.cancel()

    def _datagram(self, data: bytes, source: tuple[str, int]) -> None:
        udp = self._udp
        assert udp is not None
        self._received(data, source[0], lambda answer: udp.sendto(answer, source))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        source = cast("tuple[str, int]", writer.get_extra_info("peername"))[0]
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?im)^(?:content-length|l)\s*:\s*(\d+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                self._received(head.lstrip(b"\r\n") + body, source, writer.write)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    # --------------------------------------------------------------------------- the messages

    def _received(self, data: bytes, source: str, send: Send) -> None:
        message = Message(data.decode(errors="replace"))
        if not message.text.strip():
            return  # a keep-alive
        self.log.append(f"< {message.text}")
        if message.status:
            waiting = self._responses.get(f"{message['Call-ID']} {message['CSeq']}")
            if waiting is not None and message.status >= 200 and not waiting.done():
                waiting.set_result(message)
            return
        key = (message["Via"], message["CSeq"])
        if (said := self._said.get(key)) is not None:
            self.repeated += message.method == "NOTIFY"
            if said:
                send(said)
            return
        match message.method:
            case "INVITE":
                self._invited(message, send)
            case "ACK":
                return
            case "BYE":
                self._calls.pop(message["Call-ID"], None)
                self._reply(message, 200, send)
            case "CANCEL":
                self._reply(message, 200, send)
            case "OPTIONS":
                self._reply(message, 200, send)
            case "NOTIFY":
                self._notified(message, source, send)
            case _:
                self._reply(message, 405, send)
        self._tell()

    def _tell(self) -> None:
        async def wake() -> None:
            async with self._news:
                self._news.notify_all()

        task = asyncio.get_running_loop().create_task(wake())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _reply(
        self,
        request: Message,
        status: int,
        send: Send,
        *,
        tag: str = "",
        headers: tuple[str, ...] = (),
        body: str = "",
    ) -> None:
        to = request["To"]
        if ";tag=" not in to:
            to += f";tag={tag or f'p{next(_numbers)}'}"
        text = "\r\n".join(
            [
                f"SIP/2.0 {status} Said",
                *(f"Via: {via}" for via in request.all("Via")),
                *(f"Record-Route: {route}" for route in request.all("Record-Route")),
                f"From: {request['From']}",
                f"To: {to}",
                f"Call-ID: {request['Call-ID']}",
                f"CSeq: {request['CSeq']}",
                f"Contact: <{self.uri}>",
                f"User-Agent: {self.family.user_agent}",
                *headers,
                *(["Content-Type: application/sdp"] if body else []),
                f"Content-Length: {len(body)}",
                "",
                body,
            ]
        )
        self.log.append(f"> {text}")
        if status >= 200:
            self._said[(request["Via"], request["CSeq"])] = text.encode()
        send(text.encode())

    def _invited(self, invite: Message, send: Send) -> None:
        call_id = invite["Call-ID"]
        tag = self._calls.get(call_id) or f"p{next(_numbers)}"
        self._reply(invite, 180, send, tag=tag)
        if not self.answers_calls:
            return
        self._calls[call_id] = tag
        self._reply(invite, 200, send, tag=tag, body=self._description())

    def _description(self) -> str:
        return (
            f"v=0\r\no=- 1 {next(_numbers)} IN IP4 {self.address}\r\ns=-\r\n"
            f"c=IN IP4 {self.address}\r\nt=0 0\r\nm=audio {self.media_port} RTP/AVP 8 101\r\n"
            "a=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
        )

    # ------------------------------------------------------------------------------- the screen

    def _notified(self, request: Message, source: str, send: Send) -> None:
        if self.silent:
            self._said[(request["Via"], request["CSeq"])] = b""
            self.notifies.append((request, 0))
            return
        status = self._judge(request, source)
        headers: tuple[str, ...] = ()
        if status == 401:
            nonce = secrets.token_hex(8)
            self._nonces.add(nonce)
            headers = (
                f'WWW-Authenticate: Digest realm="{self.address}", nonce="{nonce}", '
                f'algorithm={self.algorithm}, qop="auth"',
            )
        elif status == 489:
            headers = (f"Allow-Events: {self.family.event}",)
        elif status == 415:
            headers = (f"Accept: {self.family.content_type}",)
        elif status == 200:
            self._show(request.body)
        self.notifies.append((request, status))
        self._reply(request, status, send, headers=headers)

    def _judge(self, request: Message, source: str) -> int:
        family, settings = self.family, self.settings
        trusted = {self.server}
        if family.hosts:
            trusted |= set(settings[family.hosts].split())
        looks = settings.get(family.trust, "1") == "1" if family.trust else not family.challenges
        if looks and source not in trusted:
            return 403
        event = request["Event"].split(";")[0].strip()
        if family.event and event != family.event:
            return 489  # RFC 6665 section 4.1.3
        name, value = family.switch
        if name and settings[name] != value:
            return 489
        if family.challenges and not self._believes(request):
            return 401
        if request.body and request["Content-Type"].split(";")[0].strip() != family.content_type:
            return 415
        if len(request.body.encode()) > family.max_bytes:
            return 413
        return 200

    def _believes(self, request: Message) -> bool:
        found = re.findall(r'(\w+)=(?:"([^"]*)"|([^,\s]+))', request["Authorization"])
        given = {name.lower(): quoted or plain for name, quoted, plain in found}
        nonce = given.get("nonce", "")
        if nonce not in self._nonces or given.get("username") != self.user:
            return False
        self._nonces.discard(nonce)  # each is good for one request
        digest = hashlib.md5 if self.algorithm == "MD5" else hashlib.sha256

        def hashed(text: str) -> str:
            return digest(text.encode()).hexdigest()

        one = hashed(f"{self.user}:{self.address}:{self.password}")
        two = hashed(f"NOTIFY:{request.start.split(' ')[1]}")
        wanted = hashed(
            f"{one}:{nonce}:{given.get('nc')}:{given.get('cnonce')}:{given.get('qop')}:{two}"
        )
        return given.get("response") == wanted and given.get("uri") == request.start.split(" ")[1]

    def _show(self, body: str) -> None:
        family = self.family
        if self.in_call and family.block and self.settings[family.block] == "1":
            return  # it says 200 all the same
        try:
            root = ET.fromstring(body.encode())
        except ET.ParseError:
            return  # no screen for what is no XML
        if root.tag not in family.roots:
            return
        actions = [item.get("URL") or item.get("URI") or "" for item in root.iter("ExecuteItem")]
        actions += [(item.text or "").strip() for item in root.iter("fetch")]
        self.executed += actions
        if any(action.startswith(exit_) for action in actions for exit_ in family.exits):
            self.screen = ""
        elif not actions:
            self.screen = " ".join(" ".join(root.itertext()).split())
        else:
            return
        self.shown.append(self.screen)

    # ------------------------------------------------------------------------------- for tests

    async def until(self, fits: Callable[[SipPhone], bool], what: str) -> None:
        """Wait for something about this phone."""
        try:
            async with asyncio.timeout(PATIENCE_S), self._news:
                await self._news.wait_for(lambda: fits(self))
        except TimeoutError:
            log = "\n".join(self.log)
            raise AssertionError(f"{self.user} waited for {what}; its log:\n{log}") from None

    async def register(self, host: str, port: int) -> None:
        """Sign in at a registrar by UDP, with the password where it asks for one."""
        call_id, realm = f"r{next(_numbers)}@{self.address}", ""
        authorization: tuple[str, ...] = ()
        for cseq in (1, 2):
            answer = await self._request_register(host, port, call_id, cseq, authorization)
            if answer.status != 401:
                break
            found = dict(re.findall(r'(\w+)="([^"]*)"', answer["WWW-Authenticate"]))
            realm, nonce = found["realm"], found["nonce"]
            uri, cnonce = f"sip:{host}:{port}", secrets.token_hex(4)

            def hashed(text: str) -> str:
                return hashlib.md5(text.encode()).hexdigest()

            one = hashed(f"{self.user}:{realm}:{self.password}")
            two = hashed(f"REGISTER:{uri}")
            asks = "qop" in answer["WWW-Authenticate"]
            middle = f"{nonce}:00000001:{cnonce}:auth" if asks else nonce
            more = f', qop=auth, nc=00000001, cnonce="{cnonce}"' if asks else ""
            opaque = f', opaque="{found["opaque"]}"' if "opaque" in found else ""
            authorization = (
                f'Authorization: Digest username="{self.user}", realm="{realm}", '
                f'nonce="{nonce}", uri="{uri}", algorithm=MD5, '
                f'response="{hashed(f"{one}:{middle}:{two}")}"{more}{opaque}',
            )
        assert answer.status == 200, answer.text

    async def _request_register(
        self, host: str, port: int, call_id: str, cseq: int, headers: tuple[str, ...]
    ) -> Message:
        assert self._udp is not None
        branch = f"z9hG4bKr{next(_numbers)}"
        text = "\r\n".join(
            [
                f"REGISTER sip:{host}:{port} SIP/2.0",
                f"Via: SIP/2.0/UDP {self.address}:{self.port};branch={branch}",
                "Max-Forwards: 70",
                f"From: <sip:{self.user}@{host}>;tag=r{branch}",
                f"To: <sip:{self.user}@{host}>",
                f"Call-ID: {call_id}",
                f"CSeq: {cseq} REGISTER",
                f"Contact: <{self.uri}>",
                "Expires: 300",
                f"User-Agent: {self.family.user_agent}",
                *headers,
                "Content-Length: 0",
                "",
                "",
            ]
        )
        self.log.append(f"> {text}")
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._responses[f"{call_id} {cseq} REGISTER"] = answer
        self._udp.sendto(text.encode(), (host, port))
        async with asyncio.timeout(PATIENCE_S):
            return await answer


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, take: Callable[[bytes, tuple[str, int]], None]) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._take(data, addr)


@asynccontextmanager
async def running_phone(phone: SipPhone) -> AsyncIterator[SipPhone]:
    """A phone for as long as the block lasts."""
    await phone.start()
    try:
        yield phone
    finally:
        await phone.stop()


def document(family: Family, words: str) -> str:
    """A document of this family that shows a few words."""
    if family is CISCO_MPP:
        return f"<CiscoIPPhoneText><Text>{words}</Text></CiscoIPPhoneText>"
    root = family.roots[0]
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    return f"{head}\n<{root}>\n<Title>{words}</Title>\n</{root}>\n"
