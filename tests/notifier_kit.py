"""Fixtures of the notifier's tests: a real process or server, a bridge at its bus, consoles."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import httpx
import websockets
from websockets.asyncio.client import ClientConnection

from callshield import free_ports
from callshield.bus import BusClient
from callshield.messages import (
    AlertRaised,
    CallAnswered,
    CallEnded,
    CallEnding,
    CallSnapshot,
    CallStarted,
    Command,
    CommandResult,
    CrisisHint,
    Hello,
    NodeMessage,
    NoticeFinished,
    NoticeStarted,
    PromptStamp,
    Reason,
    RiskChanged,
    TapStarted,
    WarningPlayed,
)
from callshield.messages_care import CallMarked, RecordingsHeld
from callshield.messages_evidence import EvidenceAnswer, EvidenceMade, OpenEvidence
from callshield.messages_fairness import RecentEnd, RingbackMarks
from callshield.messages_privacy import EraseRecordings, RecordingsErased
from callshield.notifier_request import ask_bus
from callshield.settings import Settings, load_settings
from notifier.database import lock, migrate, place_of
from notifier.process import bind, run
from notifier.tokens import create_token

WITHIN_S = 60.0
Status = Literal["done", "already", "unknown_call", "not_now", "not_supported"]
Source = Literal["played", "upstream", "skipped", "failed"]


def new_call_id() -> str:
    return uuid.uuid4().hex


def free_port() -> int:
    """A port on loopback, outside the range from which clients get theirs."""
    return free_ports.free_port("127.0.0.1")


def write_config(folder: Path, port: int, extra: str = "", agents: str = "") -> Path:
    """A node's TOML file with two agents, everything under ``folder``; ``agents``: more lines of
    each agent's table."""
    path = folder / "callshield.toml"
    path.write_text(
        f"""
[node]
state_dir = "{folder / "state"}"
runtime_dir = "{folder / "run"}"
[agents.1001]
uri = "sip:1001@192.0.2.20:5060"
{agents}
[agents.1002]
uri = "sip:1002@192.0.2.21:5060"
{agents}
[web]
port = {port}
{extra}
""",
        encoding="utf-8",
    )
    return path


class Bridge:
    """A peer on the bus that does what the bridge does, and counts what it was asked."""

    def __init__(self, path: Path, role: str = "bridge") -> None:
        self.role = role
        self.calls: dict[str, CallStarted] = {}
        self.answered: set[str] = set()
        self.commands: list[Command] = []
        self.levels: list[RiskChanged] = []
        self.crises: list[CrisisHint] = []
        self.recent_ends: list[RecentEnd] = []
        self.marks: list[CallMarked] = []
        self.held: list[RecordingsHeld] = []
        self.erasing: list[str] = []
        """Calls whose recordings were to be erased."""
        self.erased: Callable[[str], RecordingsErased | None] = lambda call_id: RecordingsErased(
            call_id=call_id, files=1
        )
        self.answer: Callable[[Command], Status | None] = lambda command: "done"
        self.told: list[CallStarted | CallEnded | WarningPlayed | AlertRaised] = []
        """What a detector is told of calls."""
        self.told_more = asyncio.Event()
        self.asked = asyncio.Event()
        self.results: list[CommandResult] = []
        self.client: BusClient[NodeMessage] = BusClient(
            path, NodeMessage, self._on_message, self._on_connect
        )

    def _on_connect(self) -> list[NodeMessage]:
        hello = Hello(role=self.role, pid=os.getpid())
        if self.role != "bridge":
            return [hello]
        return [hello, self.snapshot()]

    def snapshot(self) -> CallSnapshot:
        return CallSnapshot(
            ts=time.time(), calls=list(self.calls.values()), answered=sorted(self.answered)
        )

    async def _on_message(self, message: NodeMessage) -> None:
        if isinstance(message, CommandResult):
            self.results.append(message)
            self.asked.set()
            return
        if isinstance(message, RiskChanged):
            self.levels.append(message)
            self.asked.set()
            return
        if isinstance(message, CrisisHint):
            self.crises.append(message)
            self.asked.set()
            return
        if isinstance(message, RingbackMarks):
            self.recent_ends = message.marks
            self.asked.set()
            return
        if isinstance(message, RecordingsHeld):
            self.held.append(message)
            self.asked.set()
            return
        if isinstance(message, EraseRecordings):
            self.erasing.append(message.call_id)
            self.asked.set()
            gone = self.erased(message.call_id)
            if gone is not None:
                self.client.send(gone)
            return
        if isinstance(message, CallMarked):
            self.marks.append(message)
            self.asked.set()
            return
        if isinstance(message, CallStarted | CallEnded | WarningPlayed | AlertRaised):
            self.told.append(message)
            self.told_more.set()
            return
        assert isinstance(message, Command)
        self.commands.append(message)
        self.asked.set()
        status = self.answer(message)
        if status is not None:
            self.client.send(CommandResult(command_id=message.command_id, status=status))

    def send(self, message: NodeMessage) -> None:
        self.client.send(message)

    def start_call(
        self, agent_id: str = "1001", *, answer: bool = True, pbx_channel: str = ""
    ) -> str:
        call_id = new_call_id()
        started = CallStarted(
            ts=time.time(),
            call_id=call_id,
            agent_id=agent_id,
            pbx_call_id="1763.42",
            pbx="pbx",
            pbx_channel=pbx_channel,
        )
        self.calls[call_id] = started
        self.send(started)
        if answer:
            self.answer_call(call_id)
        return call_id

    def answer_call(self, call_id: str) -> None:
        self.answered.add(call_id)
        self.send(CallAnswered(ts=time.time(), call_id=call_id, agent_id=self.agent(call_id)))

    def agent(self, call_id: str) -> str:
        return self.calls[call_id].agent_id

    def notice(self, call_id: str, source: Source = "played", purposes: Sequence[str] = ()) -> None:
        agent_id, now = self.agent(call_id), time.time()
        self.send(NoticeStarted(ts=now, call_id=call_id, agent_id=agent_id))
        stamp = PromptStamp(
            prompt_id="recording",
            version="1",
            sha256="0" * 64,
            started_ts=now,
            finished_ts=now,
            complete=source == "played",
            purposes=list(purposes),
        )
        tapped = source in ("played", "upstream")
        self.send(
            NoticeFinished(
                ts=now,
                call_id=call_id,
                agent_id=agent_id,
                source=source,
                prompts=[stamp],
                tapped=tapped,
            )
        )
        if tapped:
            self.send(TapStarted(ts=now, call_id=call_id))

    def risk(self, call_id: str, level: int, previous: int = 0) -> None:
        self.send(
            RiskChanged(
                ts=time.time(),
                call_id=call_id,
                level=level,
                previous=previous,
                categories=["shouting"] if level else [],
                score=0.9,
                reasons=[Reason(kind="vocal_effort", score=0.9, detail="shouting")],
            )
        )

    def words(self, call_id: str, level: int, *quotes: str) -> None:
        """A level that rests on confirmed words."""
        reason = Reason(kind="words", score=0.9, rule="abusive_words", words=list(quotes))
        self.send(
            RiskChanged(
                ts=time.time(),
                call_id=call_id,
                level=level,
                previous=0,
                categories=["profanity"],
                score=0.1,
                reasons=[reason],
                words_confirmed=True,
                may_trigger=True,
            )
        )

    def ending(self, call_id: str) -> None:
        self.send(
            CallEnding(
                ts=time.time(), call_id=call_id, agent_id=self.agent(call_id), by="agent:console"
            )
        )

    def end_call(self, call_id: str, reason: str = "caller_hangup") -> None:
        started = self.calls.pop(call_id)
        self.answered.discard(call_id)
        self.send(
            CallEnded(
                ts=time.time(),
                call_id=call_id,
                agent_id=started.agent_id,
                reason=reason,
                duration_s=3.0,
            )
        )

    async def __aenter__(self) -> Bridge:
        self.client.start()
        async with asyncio.timeout(WITHIN_S):
            await self.client.connected.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()


class Console:
    """A WebSocket client that remembers the last id, as a console does."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.ready: dict[str, Any] = {}
        self.seen: list[dict[str, Any]] = []

    async def next(self) -> dict[str, Any]:
        """The next event; heartbeats are passed over."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                message: dict[str, Any] = json.loads(await self.connection.recv())
                if message["type"] != "heartbeat":
                    self.seen.append(message)
                    return message

    async def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The next event of a type with these fields."""
        while True:
            message = await self.next()
            if message["type"] == kind and all(message.get(k) == v for k, v in fields.items()):
                return message

    @property
    def last_id(self) -> int:
        return max((m["id"] for m in self.seen if "id" in m), default=0)


class Desk:
    """A running notifier with tokens for everybody."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.address = f"127.0.0.1:{settings.web.port}"
        self.agent = create_token(settings, "agent", "one", "1001")
        self.other = create_token(settings, "agent", "two", "1002")
        self.supervisor = create_token(settings, "supervisor", "first")
        self.second = create_token(settings, "supervisor", "second")

    def http(self, token: str | None = None, **headers: str) -> httpx.AsyncClient:
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return httpx.AsyncClient(
            base_url=f"http://{self.address}", headers=headers, timeout=WITHIN_S
        )

    async def hand_out(self, call_id: str, token: str = "") -> None:
        """Say what ``callshield evidence export`` says when it makes a package."""
        whose = {"call_id": call_id, "token": token or self.supervisor, "unredacted": False}
        package = {**whose, "package_id": uuid.uuid4().hex, "whole": False}
        hashes = dict.fromkeys(("package_sha256", "manifest_sha256", "key_id"), "0" * 64)
        for message in (
            OpenEvidence(request_id=uuid.uuid4().hex, **package),
            EvidenceMade(request_id=uuid.uuid4().hex, encryption="none", **package, **hashes),
        ):
            answer = await ask_bus(
                self.settings.bus_path, message, EvidenceAnswer, WITHIN_S, "no answer"
            )
            assert not answer.refusal, answer.refusal

    def url(self, last_id: int | None = None) -> str:
        query = "" if last_id is None else f"?last_event_id={last_id}"
        return f"ws://{self.address}/api/v1/events{query}"

    @contextlib.asynccontextmanager
    async def console(
        self, token: str, last_id: int | None = None, **options: Any
    ) -> AsyncIterator[Console]:
        async with websockets.connect(self.url(last_id), **options) as connection:
            await connection.send(json.dumps({"token": token}))
            console = Console(connection)
            console.ready = json.loads(await connection.recv())
            assert console.ready["type"] == "session.ready"
            yield console

    def bridge(self, role: str = "bridge") -> Bridge:
        return Bridge(self.settings.bus_path, role)


@contextlib.asynccontextmanager
async def desk_in_process(folder: Path, extra: str = "", agents: str = "") -> AsyncIterator[Desk]:
    """A notifier in this process: the real server on a real port, stopped cleanly at the end."""
    settings = load_settings(write_config(folder, free_port(), extra, agents))
    place = place_of(settings)
    migrate(place)
    held = lock(place)
    desk = Desk(settings)
    stop = asyncio.Event()
    serving = asyncio.create_task(run(settings, bind(settings), stop))
    try:
        await _answers(desk, serving)
        yield desk
    finally:
        stop.set()
        await serving
        os.close(held)


async def _answers(desk: Desk, serving: asyncio.Task[None] | None = None) -> None:
    async with asyncio.timeout(WITHIN_S), desk.http() as http:
        while True:
            if serving is not None and serving.done():
                serving.result()
            with contextlib.suppress(httpx.TransportError):
                if (await http.get("/healthz")).status_code == 200:
                    return
            await asyncio.sleep(0.05)


class Process:
    """``python -m notifier.process`` as ``callshield serve`` runs it."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        self.config = write_config(folder, free_port(), extra)
        self.desk = Desk(load_settings(self.config))
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, *command: str) -> None:
        """Start it, or with ``command`` a variation of it, and wait until it answers."""
        command = command or (sys.executable, "-m", "notifier.process")
        self.process = await asyncio.create_subprocess_exec(
            *command, "--config", str(self.config), stderr=asyncio.subprocess.DEVNULL
        )
        await _answers(self.desk)

    async def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            # Not send_signal(): that one takes the status of a child that is just dead away from
            # the event loop, which then says 255.
            os.kill(self.process.pid, number)
        async with asyncio.timeout(WITHIN_S):
            return await self.process.wait()
