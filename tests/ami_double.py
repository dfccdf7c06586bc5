"""A PBX's manager interface on loopback that keeps queues, and that can refuse, hang, drop, lie."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from callshield.free_ports import free_port

WITHIN_S = 60.0


@dataclass
class Member:
    """One membership as the PBX keeps it."""

    queue: str
    interface: str
    paused: bool = False
    reason: str = ""


@dataclass
class AmiDouble:
    """The server; its fields are the PBX's state, and what it shall do wrong."""

    host: str = "127.0.45.1"
    port: int = 0
    username: str = "callshield"
    secret: str = "s3cret"
    tls: ssl.SSLContext | None = None
    members: list[Member] = field(default_factory=list)
    devices: dict[str, str] = field(default_factory=dict)
    recording: dict[str, bool] = field(default_factory=dict)
    """Channel with a MixMonitor → muted."""
    contacts: list[tuple[str, str]] = field(default_factory=list)
    """Endpoint and User-Agent."""
    heard: list[dict[str, list[str]]] = field(default_factory=list)
    """Every action, in order; header names in small letters."""
    logins: int = 0
    refuse: dict[str, str] = field(default_factory=dict)
    """Action → message of the error."""
    hang: set[str] = field(default_factory=set)
    """Actions that get no answer."""
    deny_login: bool = False
    banner: bytes = b"Asterisk Call Manager/7.0.3\r\n"
    on_action: Callable[[str], None] = lambda _action: None

    def __post_init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._in: set[asyncio.StreamWriter] = set()
        self._changed = asyncio.Condition()
        self._challenges = itertools.count(100_000_000)

    async def __aenter__(self) -> AmiDouble:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self.port = self.port or free_port(self.host)
        self._server = await asyncio.start_server(
            self._serve, self.host, self.port, ssl=self.tls, reuse_address=True
        )

    async def stop(self) -> None:
        """The port is closed and every connection with it."""
        assert self._server is not None
        self._server.close()
        self.drop()
        await self._server.wait_closed()

    def drop(self) -> None:
        """Cut every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def restart(self) -> None:
        """The PBX starts anew and has forgotten pauses, device states and recordings."""
        await self.stop()
        for member in self.members:
            member.paused, member.reason = False, ""
        self.devices.clear()
        self.recording.clear()
        await self.start()

    def settings(self, secret_file: object, more: str = "") -> str:
        """The ``[ami]`` table that fits."""
        return (
            f'[ami]\nhost = "{self.host}"\nport = {self.port}\nping_s = 1\n'
            f'secret_file = "{secret_file}"\n{more}\n'
        )

    def member(self, interface: str, queue: str = "support") -> Member:
        return next(m for m in self.members if (m.queue, m.interface) == (queue, interface))

    def asked(self, action: str) -> list[dict[str, list[str]]]:
        """Actions of this name so far."""
        return [a for a in self.heard if a["action"][0].lower() == action.lower()]

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something holds; looked at after every action."""
        async with asyncio.timeout(WITHIN_S), self._changed:
            await self._changed.wait_for(true)

    def event(self, name: str, **fields: str) -> None:
        """Say an event to everybody who is logged in."""
        self.say_all([("Event", name), *((k, v) for k, v in fields.items())])

    def say_all(self, lines: list[tuple[str, str]]) -> None:
        for writer in self._in:
            self._say(writer, lines)

    def raw(self, data: bytes) -> None:
        """Bytes of any kind to everybody."""
        for writer in self._writers:
            writer.write(data)

    async def person(self, interface: str, *, paused: bool, reason: str = "") -> None:
        """Somebody at the PBX pauses or unpauses a member in all queues."""
        for member in self.members:
            if member.interface == interface:
                self._pause(member, paused, reason)

    # ------------------------------------------------------------------------------- server

    def _say(self, writer: asyncio.StreamWriter, lines: list[tuple[str, str]]) -> None:
        if not writer.is_closing():
            writer.write("".join(f"{k}: {v}\r\n" for k, v in lines).encode() + b"\r\n")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        challenge = ""
        try:
            writer.write(self.banner)
            while True:
                action: dict[str, list[str]] = {}
                while line := (await reader.readline()).decode().rstrip("\r\n"):
                    name, _, value = line.partition(": ")
                    action.setdefault(name.lower(), []).append(value)
                if not action:
                    return
                self.heard.append(action)
                kind = action["action"][0]
                self.on_action(kind)
                if kind not in self.hang:
                    if kind == "Challenge":
                        challenge = str(next(self._challenges))
                        self._answer(writer, action, Challenge=challenge)
                    else:
                        self._act(writer, action, challenge)
                async with self._changed:
                    self._changed.notify_all()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            self._in.discard(writer)
            writer.close()

    def _answer(
        self, writer: asyncio.StreamWriter, action: dict[str, list[str]], **fields: str
    ) -> None:
        lines = [("Response", fields.pop("Response", "Success"))]
        lines += [("ActionID", value) for value in action.get("actionid", [])]
        self._say(writer, lines + list(fields.items()))

    def _act(
        self, writer: asyncio.StreamWriter, action: dict[str, list[str]], challenge: str
    ) -> None:
        kind = action["action"][0]

        def get(name: str) -> str:
            return action.get(name, [""])[0]

        def no(message: str) -> None:
            self._answer(writer, action, Response="Error", Message=message)

        if kind == "Login":
            key = hashlib.md5(f"{challenge}{self.secret}".encode()).hexdigest()
            if self.deny_login or not challenge or get("key") != key:
                no("Authentication failed")
                return
            self.logins += 1
            self._in.add(writer)
            self._answer(writer, action, Message="Authentication accepted")
            self._say(writer, [("Event", "FullyBooted"), ("Status", "Fully Booted")])
            return
        if writer not in self._in:
            no("Permission denied")
            return
        if kind in self.refuse:
            no(self.refuse[kind])
            return
        match kind:
            case "Ping":
                self._answer(writer, action, Ping="Pong")
            case "Setvar":
                self.devices[get("variable")] = get("value")
                self._answer(writer, action, Message="Variable Set")
            case "QueueStatus":
                self._queue_status(writer, action, get("member"))
            case "QueuePause":
                self._queue_pause(writer, action, get)
            case "MixMonitorMute":
                if get("channel") not in self.recording:
                    no("Cannot set mute flag")
                    return
                self.recording[get("channel")] = get("state") == "1"
                self._answer(writer, action, State=get("state"))
            case "PJSIPShowContacts":
                self._list(
                    writer,
                    action,
                    [
                        [
                            ("Event", "ContactList"),
                            ("ObjectType", "contact"),
                            ("Endpoint", endpoint),
                            ("UserAgent", agent),
                            ("Status", "Reachable"),
                        ]
                        for endpoint, agent in self.contacts
                    ],
                    "ContactListComplete",
                )
            case "PJSIPNotify":
                self._answer(writer, action, Message="NOTIFY sent")
            case _:
                no("Invalid/unknown command")

    def _list(
        self,
        writer: asyncio.StreamWriter,
        action: dict[str, list[str]],
        items: list[list[tuple[str, str]]],
        end: str,
    ) -> None:
        self._answer(writer, action, EventList="start", Message="Follows")
        action_id = [("ActionID", value) for value in action.get("actionid", [])]
        for item in items:
            self._say(writer, item[:1] + action_id + item[1:])
        self._say(writer, [("Event", end), *action_id, ("EventList", "Complete")])

    def _queue_status(
        self, writer: asyncio.StreamWriter, action: dict[str, list[str]], only: str
    ) -> None:
        items = [
            [
                ("Event", "QueueMember"),
                ("Queue", member.queue),
                ("Name", member.interface),
                ("Location", member.interface),
                ("Paused", str(int(member.paused))),
                ("PausedReason", member.reason),
            ]
            for member in self.members
            if only in ("", member.interface)
        ]
        self._list(writer, action, [[("Event", "QueueParams")], *items], "QueueStatusComplete")

    def _queue_pause(
        self,
        writer: asyncio.StreamWriter,
        action: dict[str, list[str]],
        get: Callable[[str], str],
    ) -> None:
        found = [
            m
            for m in self.members
            if m.interface == get("interface") and get("queue") in ("", m.queue)
        ]
        if not found:
            self._answer(writer, action, Response="Error", Message="Interface not found")
            return
        for member in found:
            self._pause(member, get("paused") == "true", get("reason"))
        self._answer(writer, action, Message="Interface paused successfully")

    def _pause(self, member: Member, paused: bool, reason: str) -> None:
        member.paused, member.reason = paused, reason if paused else ""
        self.event(
            "QueueMemberPause",
            Queue=member.queue,
            MemberName=member.interface,
            Interface=member.interface,
            Paused=str(int(paused)),
            PausedReason=member.reason,
        )
