"""The HTTP side of desk phones, simulated from their makers' manuals: what they have in common.

The families are in ``phone_sims_http_poly``, ``…_cisco``, ``…_xml`` (Yealink, Fanvil, Mitel) and
``…_grandstream``. None of them knows our sender: each takes what the maker's text or code in use
shows, and refuses the rest. Where the texts leave something open, the docstring of the family says
so and the simulator does what is worst for a sender.

A web server in a phone is a small one. Here it wants HTTP/1.1 with a Host, a Content-Length with
every POST (chunks: 411), and closes the connection after each answer, so that a sender has to sign
in again on a new one.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import ipaddress
import re
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, Self
from xml.etree import ElementTree

from tests.phone_sims_http_screen import FakeClock, Screen

Mood = Literal["well", "slow", "drip", "redirect", "flood", "silent", "refuse", "drop", "drop_once"]
#: Of an answer that never seems to end.
FLOOD_BYTES = 10 * 1024 * 1024
_HEAD_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came in."""

    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case; of a name that comes twice, both values with a comma."""
    body: bytes
    peer: str
    """Address of the sender."""

    @property
    def path(self) -> str:
        """Without the query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """Without the question mark."""
        return self.target.partition("?")[2]

    @property
    def content_type(self) -> str:
        """Without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the phone says."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain"
    headers: tuple[tuple[str, str], ...] = ()


_WORDS = {
    200: "OK", 302: "Found", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 411: "Length Required",
    413: "Request Entity Too Large", 415: "Unsupported Media Type", 505: "Version Not Supported",
}  # fmt: skip


class Refused(Exception):
    """The request is not one that a phone's web server understands."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(kw_only=True)
class Phone:
    """A phone with a web server. Its family says what becomes of a request (:meth:`judge`)."""

    screen: Screen
    clock: FakeClock = field(default_factory=FakeClock)
    server_name: str = "phone"
    in_call: bool = False
    """Its agent is talking."""
    mood: Mood = "well"
    """How badly it answers. ``silent``: it reads and never answers; ``refuse``: it closes before
    it has read, so that nothing was taken; ``drop``: it takes the request and closes without an
    answer, so that it was taken all the same; ``drop_once``: ``refuse``, and from then on well."""
    slow_s: float = 0.5
    """With ``slow``, before the answer; with ``drip``, between its bytes."""
    elsewhere: str = "http://127.0.0.1:9/"
    """Where ``redirect`` sends."""
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    sent_bytes: int = 0
    """Of all answers, headers too."""
    port: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def judge(self, request: Request) -> Answer:
        """What the family does with it."""
        raise NotImplementedError

    def act(self, action: str) -> None:
        """What the family does when a soft key with this action is pressed."""
        raise NotImplementedError

    async def press(self, label: str) -> None:
        """The agent presses a soft key of the screen that is shown; until all of it is done.

        Raises:
            LookupError: there is no such key.
        """
        keys = self.screen.picture.keys if self.screen.picture is not None else ()
        found = [key for key in keys if key.label == label]
        if not found:
            raise LookupError(f"{label!r} is none of {[key.label for key in keys]}")
        self.act(found[0].action)
        await self.settled()

    async def arrived(self, limit_s: float = 5.0) -> None:
        """Wait for a request after the last call of this."""
        await asyncio.wait_for(self._arrived.wait(), limit_s)
        self._arrived.clear()

    def start(self, work: asyncio.Task[None]) -> None:
        """Keep a task of the phone's own, which ends with the phone."""
        self._tasks.add(work)
        work.add_done_callback(self._tasks.discard)

    async def settled(self) -> None:
        """Wait until the phone has done what it does after its answer."""
        while self._tasks:
            await asyncio.gather(*self._tasks)
            await asyncio.sleep(0)

    @asynccontextmanager
    async def on(
        self, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> AsyncIterator[Self]:
        """The phone is there, at a free port."""
        server = await asyncio.start_server(self._serve, address, 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.start(task)
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            if self.mood in ("refuse", "drop_once"):
                if self.mood == "drop_once":
                    self.mood = "well"
                return writer.close()
            await self._answered(reader, writer)
        writer.close()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await _read(reader, str(writer.get_extra_info("peername")[0]))
        except Refused as refused:
            return await self._write(writer, Answer(refused.status))
        self.requests.append(request)
        self._arrived.set()
        if self.mood == "silent":
            await asyncio.Event().wait()
        if self.mood == "redirect":
            away = Answer(302, headers=(("Location", self.elsewhere),))
            return await self._write(writer, away)
        if self.mood == "flood":
            return await self._flood(writer)
        answer = await self.judge(request)
        if self.mood == "drop":
            return None
        if self.mood == "slow":
            await asyncio.sleep(self.slow_s)
        await self._write(writer, answer)
        return None

    async def _write(self, writer: asyncio.StreamWriter, answer: Answer) -> None:
        head = [
            f"HTTP/1.1 {answer.status} {_WORDS[answer.status]}",
            f"Server: {self.server_name}",
            f"Content-Type: {answer.content_type}",
            f"Content-Length: {len(answer.body)}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in answer.headers),
        ]
        whole = "\r\n".join([*head, "", ""]).encode("latin-1") + answer.body
        step = 1 if self.mood == "drip" else len(whole)
        for start in range(0, len(whole), step):
            writer.write(whole[start : start + step])
            await writer.drain()
            self.sent_bytes += step
            if self.mood == "drip":
                await asyncio.sleep(self.slow_s)

    async def _flood(self, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {FLOOD_BYTES}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        for _ in range(FLOOD_BYTES // 65536):
            writer.write(b"x" * 65536)
            await writer.drain()
            self.sent_bytes += 65536


async def _read(reader: asyncio.StreamReader, peer: str) -> Request:
    head = await reader.readuntil(b"\r\n\r\n")
    if len(head) > _HEAD_BYTES:
        raise Refused(400)
    first, *rest = head.decode("latin-1").split("\r\n")
    found = re.fullmatch(r"([A-Z]+) (/[\x21-\x7e]*) HTTP/1\.([01])", first)
    if found is None:
        raise Refused(400)
    headers: dict[str, str] = {}
    for line in filter(None, rest):
        name, colon, value = line.partition(":")
        if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise Refused(400)
        name = name.lower()
        headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
    if found[3] == "1" and "host" not in headers:
        raise Refused(400)
    if "transfer-encoding" in headers:
        raise Refused(411)
    length = headers.get("content-length")
    if length is None and found[1] == "POST":
        raise Refused(411)
    if length is not None and not re.fullmatch(r"\d{1,7}", length):
        raise Refused(400)
    body = await reader.readexactly(int(length or 0))
    return Request(found[1], found[2], headers, body, peer)


def listed(peer: str, addresses: Sequence[str]) -> bool:
    """Whether a sender is in a phone's list of addresses; an empty list has nobody in it.

    ``any`` stands for all, as Yealink and Grandstream write it; a name is not resolved.
    """
    for entry in addresses:
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(entry) == ipaddress.ip_address(peer):
                return True
        if entry == "any":
            return True
    return False


def form(body: bytes) -> dict[str, str] | None:
    """Fields of ``application/x-www-form-urlencoded``, strictly: each character that is not
    unreserved is written %XX or, for a space, +; otherwise None (a phone's reader would take
    ``<`` or ``&`` in the middle for something else)."""
    fields: dict[str, str] = {}
    for part in body.split(b"&"):
        if not re.fullmatch(rb"[0-9A-Za-z_.~*-]+=([0-9A-Za-z_.~*+-]|%[0-9A-Fa-f]{2})*", part):
            return None
        name, _, value = part.partition(b"=")
        raw = re.sub(rb"%(..)", lambda found: bytes([int(found[1], 16)]), value.replace(b"+", b" "))
        try:
            fields[name.decode()] = raw.decode("utf-8")
        except UnicodeDecodeError:
            return None
    return fields


def document(raw: bytes) -> ElementTree.Element | None:
    """An XML document, or None where it is broken or brings a DTD of its own."""
    if b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:
        return None
    try:
        return ElementTree.fromstring(raw)
    except (ElementTree.ParseError, ValueError, LookupError):
        return None


def basic(request: Request) -> tuple[str, str] | None:
    """Name and password of RFC 7617; None: there are none, or they are no such thing."""
    scheme, _, rest = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(rest, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (name, password) if colon else None


@dataclass
class Digest:
    """The phone's half of digest access authentication: MD5, ``qop=auth`` (RFC 2617, 7616).

    Each nonce lives ``nonce_s`` seconds, then it is stale (``stale=true``, and the same password
    would do with a new one); each nonce count is taken once and only rises (RFC 2617, 3.2.2:
    no replay).
    """

    realm: str
    user: str
    password: str
    clock: Callable[[], float]
    nonce_s: float = 30.0
    instead: str | None = None
    """What a phone of another mind says instead of a challenge that can be answered."""
    _nonces: dict[str, tuple[float, int]] = field(default_factory=dict)
    why: list[str] = field(default_factory=list)
    """Why each request was challenged."""

    def challenge(self, request: Request) -> Answer | None:
        """None: it is who it says. Otherwise what to answer."""
        wrong = self._wrong(request)
        if not wrong:
            return None
        self.why.append(wrong)
        nonce = secrets.token_hex(16)
        self._nonces[nonce] = (self.clock(), 0)
        stale = ", stale=true" if wrong == "stale" else ""
        if self.instead is not None:
            return Answer(401, headers=(("WWW-Authenticate", self.instead),))
        words = f'Digest realm="{self.realm}", nonce="{nonce}", qop="auth", algorithm=MD5{stale}'
        return Answer(401, headers=(("WWW-Authenticate", words),))

    def _wrong(self, request: Request) -> str:
        scheme, _, rest = request.headers.get("authorization", "").partition(" ")
        if not scheme:
            return "none"
        if scheme.lower() != "digest":
            return "scheme"
        given = _parameters(rest)
        needed = {"username", "realm", "nonce", "uri", "response", "qop", "nc", "cnonce"}
        if given is None or not needed <= given.keys():
            return "parameters"
        if given.get("algorithm", "MD5") != "MD5" or given["qop"] != "auth":
            return "algorithm"
        if given["uri"] != request.target:
            return "uri"
        if given["username"] != self.user or given["realm"] != self.realm:
            return "name"
        if given["nonce"] not in self._nonces:
            return "nonce"
        made_s, used = self._nonces[given["nonce"]]
        first = _md5(f"{self.user}:{self.realm}:{self.password}")
        second = _md5(f"{request.method}:{request.target}")
        right = _md5(
            f"{first}:{given['nonce']}:{given['nc']}:{given['cnonce']}:{given['qop']}:{second}"
        )
        if given["response"] != right:
            return "response"
        if not re.fullmatch(r"[0-9a-f]{8}", given["nc"]) or int(given["nc"], 16) <= used:
            return "count"
        if self.clock() - made_s >= self.nonce_s:
            return "stale"
        self._nonces[given["nonce"]] = (made_s, int(given["nc"], 16))
        return ""


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _parameters(text: str) -> dict[str, str] | None:
    """Of an Authorization header; None: no such thing."""
    found: dict[str, str] = {}
    pair = re.compile(r'\s*([A-Za-z]+)=("((?:[^"\\]|\\.)*)"|[^\s",]+)\s*(,|$)')
    place = 0
    while place < len(text):
        match = pair.match(text, place)
        if match is None or match[1].lower() in found:
            return None
        quoted = match[3]
        found[match[1].lower()] = match[2] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        place = match.end()
    return found
