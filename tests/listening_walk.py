"""Walks through every door of a running node with a live call, and looks at what comes out.

Each finding names the place, who stood before it, and what was found
(:class:`tests.listening_leaks.LeakFinder`). What of it is allowed, the test says.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import struct
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import httpx
import websockets

from callshield.bus import Codec
from callshield.messages import Event, Hello, NodeMessage
from notifier.permissions import TABLE
from notifier.tokens import create_token
from tests.listening_doors import COMMANDS, HTTP, SOCKETS, WEBSOCKET
from tests.listening_leaks import LeakFinder, steady_news_per_second
from tests.peers.node import Node

_EVENTS = {one.__struct_config__.tag: one for one in get_args(Event)}
#: What the notifier puts to an event of a call.
_BESIDE = ("id", "type", "agent_id", "pbx_call_id", "shadow")
#: Longest that one answer is read, and how much of it.
_ANSWER_S, _ANSWER_BYTES = 3.0, 4_000_000
#: Doors that are watched at the same time.
_AT_ONCE = 40
#: A door that tells more than this may tell sound: the slowest speech codecs need 600 bit/s.
MOST_BYTES_S = 75.0
#: How long a socket that says nothing by itself is listened to.
_SILENT_S = 1.0


@dataclass(frozen=True, order=True)
class Finding:
    """Something came through a door."""

    place: str
    reader: str
    what: str


@dataclass
class Walk:
    """One round through a node.

    Args:
        node: it runs, and has a call.
        finder: knows what is said in that call.
        call_id: the call.
        leaking: started with holes.
    """

    node: Node
    finder: LeakFinder
    call_id: str = ""
    found: set[Finding] = field(default_factory=set)
    doors: set[str] = field(default_factory=set)
    """Places that were looked at."""
    fastest: dict[str, float] = field(default_factory=dict)
    """Door → compressed bytes of news a second."""
    unknown: list[str] = field(default_factory=list)
    """Doors and messages that stand in no table."""
    _asked: list[tuple[str, str, Any, Any]] = field(default_factory=list)
    _resolvers: set[int] = field(default_factory=set)

    def look(self, place: str, reader: str, data: bytes) -> None:
        self.doors.add(place)
        for what in self.finder.look(data):
            self.found.add(Finding(place, reader, what))

    # ------------------------------------------------------------------------------------- HTTP

    async def http(self) -> None:
        """Every route of the running node and of the table, with every token and without one."""
        async with httpx.AsyncClient(
            base_url=self.node.base, trust_env=False, timeout=10
        ) as client:
            known = (await client.get("/openapi.json")).json()["paths"]
            offered = {
                f"{m.upper()} {path}": about for path in known for m, about in known[path].items()
            }
            self.unknown += sorted(offered.keys() - HTTP.keys())
            alerts = await self._ids(client)
            doors = {door for door in HTTP if door.split()[0] in ("GET", "POST")} | offered.keys()
            for door in sorted(doors):
                method, path = door.split(" ")
                if door == "POST /api/v1/calls/{call_id}/actions":
                    continue  # each action by itself, in the test
                url = path.format_map(_Ids(call_id=self.call_id, agent_id="1001", **alerts))
                for query in _queries(offered.get(door, {})):
                    for reader, token in [*self.node.tokens.items(), ("nobody", "")]:
                        await self._ask(client, door, reader, token, method, url, query)
            for name in sorted((Path(__file__).parent.parent / "notifier" / "console").iterdir()):
                await self._ask(
                    client, "MOUNT /console", "nobody", "", "GET", f"/console/{name.name}", {}
                )

    async def _ids(self, client: httpx.AsyncClient) -> dict[str, str]:
        answer = await client.get(
            "/api/v1/alerts", headers={"Authorization": f"Bearer {self.node.tokens['supervisor']}"}
        )
        return {"alert_id": next((a["alert_id"] for a in answer.json()["alerts"]), "0" * 32)}

    async def _ask(
        self,
        client: httpx.AsyncClient,
        door: str,
        reader: str,
        token: str,
        method: str,
        url: str,
        query: Mapping[str, str],
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        body = self._body(door) if method == "POST" else None
        data = await _read(client, method, url, query, headers, body)
        self.look(door, reader, data)
        if method == "GET":
            self._asked.append((door, url, query, headers))

    def _body(self, door: str) -> dict[str, str]:
        """What is asked of the live call; whatever this opens must stay shut until it has ended."""
        asked = {"call_id": self.call_id, "ref": "T-2"}
        return asked if door == "POST /api/v1/privacy/access" else {}

    async def news(self) -> None:
        """Every route twice, a second between: how fast does it tell something new?

        A level that just rose is much news at once, but sound never ends: what seems to be fast is
        asked three times more.
        """
        slots = asyncio.Semaphore(_AT_ONCE)
        limits = httpx.Limits(max_connections=_AT_ONCE)
        async with httpx.AsyncClient(
            base_url=self.node.base, trust_env=False, timeout=30, limits=limits
        ) as client:

            async def watch(door: str, url: str, query: Any, headers: Any) -> None:
                async with slots:
                    answers: list[tuple[float, bytes]] = []
                    while len(answers) < 2 or (
                        len(answers) < 5 and steady_news_per_second(answers) > MOST_BYTES_S
                    ):
                        if answers:
                            await asyncio.sleep(1)  # what is measured: bytes a second
                        data = await _read(client, "GET", url, query, headers, None)
                        answers.append((time.monotonic(), data))
                rate = steady_news_per_second(answers)
                self.fastest[door] = max(self.fastest.get(door, 0.0), rate)

            await asyncio.gather(*(watch(*one) for one in self._asked))

    # -------------------------------------------------------------------------------- WebSocket

    @asynccontextmanager
    async def screens(self) -> AsyncIterator[dict[str, list[bytes]]]:
        """A console of each role, from the first event on, for as long as the block lasts."""
        got: dict[str, list[bytes]] = {}
        url = f"ws://127.0.0.1:{self.node.web_port}/api/v1/events?last_event_id=0"

        async def watch(reader: str, token: str) -> None:
            with contextlib.suppress(websockets.ConnectionClosed):
                async with websockets.connect(url, proxy=None) as connection:
                    await connection.send(json.dumps({"token": token}))
                    async for message in connection:
                        data = message.encode() if isinstance(message, str) else message
                        got.setdefault(reader, []).append(data)

        tasks = [asyncio.create_task(watch(*one)) for one in self.node.tokens.items()]
        try:
            yield got
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def said(self, got: Mapping[str, list[bytes]]) -> None:
        """Look at what the consoles were told; types and fields must be those of the schema."""
        for reader, messages in got.items():
            for data in messages:
                self.look("WS /api/v1/events", reader, data)
                body = json.loads(data)
                if body["type"] not in WEBSOCKET:
                    self.unknown.append(f"WS {body['type']}")
                kind = _EVENTS.get(body["type"])
                if kind is not None:
                    known = {*kind.__struct_fields__, *_BESIDE}
                    self.unknown += [f"WS {body['type']}.{name}" for name in body.keys() - known]

    # ------------------------------------------------------------------------------------ files

    def files(self, folders: Mapping[str, Path]) -> None:
        """Every file of the node, and who may read it."""
        for name, folder in folders.items():
            for path in sorted(folder.rglob("*")):
                place = f"file {name}/{path.relative_to(folder)}"
                with contextlib.suppress(FileNotFoundError):
                    mode = path.lstat().st_mode
                    if stat.S_IMODE(mode) & 0o077:
                        self.found.add(Finding(place, "group and others", "may read it"))
                    if stat.S_ISREG(mode):
                        self.look(place, "owner", path.read_bytes())

    def log(self) -> None:
        self.look("log", "operator", self.node.log_path.read_bytes())

    # ---------------------------------------------------------------------------------- sockets

    async def sockets(self) -> None:
        """Everything at which a process of the node listens: is it known, and what does it say to
        whoever comes?"""
        for part in ("notifier", "phones", "media", "detector", "transcriber-1", "bridge"):
            try:
                pid = self.node.pid_of(part)
            except IndexError:
                continue
            for kind, what, where in _listening(pid):
                named = self._named(part, kind, what, where)
                if named is None:
                    self.unknown.append(f"socket {part} {kind} {what}")
                await self._knock(part, kind, what, where)

    def _named(self, part: str, kind: str, what: str, where: Any) -> tuple[str, str, str] | None:
        settings = self.node.settings
        if kind.startswith("unix"):
            key = (part, kind, Path(what).name)
        else:
            _, port = where
            names = {
                settings.web.port: "web",
                settings.sip.pbx.port: "sip towards the PBX",
                settings.sip.phone.port: "sip towards the phones",
                settings.phones.port: "keys of phones",
            }
            ranges = (settings.sip.pbx.rtp_ports, settings.sip.phone.rtp_ports)
            name = names.get(port, "")
            if kind == "udp" and any(low <= port <= high for low, high in ranges):
                name = "rtp of a call"
            if (part, kind, name, what) == ("bridge", "udp", "", f"0.0.0.0:{port}"):
                # One, and no second one.
                self._resolvers.add(port)
                name = "name resolver" if self._resolvers == {port} else ""
            key = (part, kind, name)
        return key if key in SOCKETS else None

    async def _knock(self, part: str, kind: str, what: str, where: Any) -> None:
        place = f"socket {part} {kind}"
        if kind == "udp":
            self.look(place, "stranger", await asyncio.to_thread(_poke, *where))
            return
        if kind == "unix datagram":
            self.doors.add(place)  # takes, gives nothing
            return
        for first in _hellos(kind):
            with contextlib.suppress(OSError):
                if kind == "tcp":
                    reader, writer = await asyncio.open_connection(*where)
                else:
                    reader, writer = await asyncio.open_unix_connection(what)
                data = b""
                writer.write(first)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_SILENT_S):
                        while part_of := await reader.read(65536):
                            data += part_of
                writer.close()
                self.look(place, "stranger" if kind == "tcp" else "node's user", data)

    # ----------------------------------------------------------------------------- command line

    async def commands(self, out: Path) -> dict[str, tuple[int, str]]:
        """Every command that can be run beside a call; exit status and output of each.

        Args:
            out: folder where they run.
        """
        await asyncio.to_thread(out.mkdir)
        said: dict[str, tuple[int, str]] = {}
        for name, command in COMMANDS.items():
            if command.run is None:
                continue
            arguments = [one.format(call_id=self.call_id, out=out) for one in command.run]
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "callshield.cli", *name.split(), *arguments),
                *(() if name.startswith("profiles") else ("--config", str(self.node.config))),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=out,
                env={**os.environ, "CALLSHIELD_TOKEN": self.node.tokens[command.token]},
            )
            data, _ = await process.communicate()
            assert process.returncode is not None
            said[name] = (process.returncode, data.decode(errors="replace"))
            self.look(f"callshield {name}", "operator", data)
            await asyncio.to_thread(self._written, f"callshield {name}", out)
        return said

    def _written(self, place: str, out: Path) -> None:
        for path in out.rglob("*"):
            if path.is_file():
                self.look(place, "operator", path.read_bytes())
                path.unlink()


async def _read(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    body: Any,
) -> bytes:
    """Headers and body of an answer; of one that never ends the beginning."""
    for _ in range(5):
        data = b""
        with contextlib.suppress(httpx.TransportError, TimeoutError):
            async with (
                asyncio.timeout(_ANSWER_S),
                client.stream(method, url, params=query, headers=headers, json=body) as answer,
            ):
                data = f"{answer.status_code} {sorted(answer.headers.items())}".encode()
                async for part in answer.aiter_bytes():
                    data += part
                    if len(data) > _ANSWER_BYTES:
                        break
        if data:
            return data
        # A connection that was kept open too long, or a busy machine: asked again.
        await asyncio.sleep(0.2)
    raise AssertionError(f"{method} {url} never answers")


class _Ids(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "0" * 32


def _queries(about: Mapping[str, Any]) -> Iterable[dict[str, str]]:
    """No query, and one for each choice that a parameter offers."""
    yield {}
    for parameter in about.get("parameters", ()):
        if parameter["in"] == "query":
            for choice in parameter["schema"].get("enum", ()):
                yield {parameter["name"]: str(choice)}


def _hellos(kind: str) -> list[bytes]:
    """What a visitor says first: nothing, a line; on a bus, that it is the command line."""
    if kind == "tcp":
        return [b"", b"GET / HTTP/1.0\r\n\r\n"]
    codec: Codec[NodeMessage] = Codec(NodeMessage)
    return [b""] + [
        codec.frame(Hello(role=role, pid=os.getpid())) for role in ("command", "visitor")
    ]


def _listening(pid: int) -> Iterable[tuple[str, str, Any]]:
    """Kind, path and address of everything at which a process listens (proc(5))."""
    own = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = os.readlink(link)
            if target.startswith("socket:["):
                own.add(target[8:-1])
    for name, family in (("tcp", 4), ("udp", 4), ("tcp6", 6), ("udp6", 6)):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            # 0A: listening; 07: a datagram socket that has no far end.
            if fields[9] in own and fields[3] == ("0A" if name.startswith("tcp") else "07"):
                host, _, port = fields[1].partition(":")
                address = _address(host, family)
                if int(port, 16):
                    yield name[:3], f"{address}:{int(port, 16)}", (address, int(port, 16))
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[6] in own and len(fields) > 7:
            kind = {1: "stream", 2: "datagram", 5: "packet"}[int(fields[4], 16)]
            accepts = int(fields[3], 16) & 0x10000
            if kind != "stream" or accepts:
                yield f"unix {kind}", fields[7], None


def _address(text: str, family: int) -> str:
    raw = bytes.fromhex(text)
    words = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return socket.inet_ntop(socket.AF_INET if family == 4 else socket.AF_INET6, words)


def _poke(host: str, port: int) -> bytes:
    """What a stranger of this machine gets who sends things to a port for a second."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.77", 0))
        stranger.settimeout(0.05)
        data, until = b"", time.monotonic() + _SILENT_S
        for number in range(1000):
            rtp = struct.pack(">BBHII", 0x80, 8, number, 160 * number, 7) + b"\xd5" * 160
            for packet in (rtp, b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12), b""):
                with contextlib.suppress(OSError):
                    stranger.sendto(packet, (host, port))
            with contextlib.suppress(OSError):
                data += stranger.recv(65536)
            if time.monotonic() > until:
                break
    return data


class ListeningNode(Node):
    """A node whose transcribers hear marker words; a token for every role."""

    leaking = False

    def make_tokens(self) -> None:
        super().make_tokens()
        for role in ("admin", "auditor", "representative"):
            self.tokens[role] = create_token(self.settings, role, role)

    async def start(self) -> None:
        self.make_tokens()
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "tests.listening_node", "--config", str(self.config)),
                *(("--leaking",) if self.leaking else ()),
                stderr=log,
                stdout=log,
                start_new_session=True,
                env={**os.environ, "LISTENING_SOUND": str(self.folder.parent / "caller.wav")},
            )
        await self.until_ready()


#: Doors that are asked at all; more than this are in the tables of other topics.
assert set(TABLE) <= set(HTTP)
