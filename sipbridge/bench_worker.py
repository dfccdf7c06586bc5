"""The media worker under test, and what stands beside it: a bridge, far ends, a tap's reader."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import secrets
import sys
import uuid
from pathlib import Path
from typing import Any

from callshield.bus import BusClient
from callshield.errors import SetupError
from callshield.messages import LegName
from callshield.messages_media import (
    CloseSession,
    EarUpdate,
    FlowUpdate,
    LegUpdate,
    MediaMessage,
    MediaStats,
    OpenSession,
    PlayFinished,
    PlayPrompts,
    SessionClosed,
    SessionOpened,
    SrtpKeys,
)
from sipbridge.bench_load import AGENT_ADDRESS, CALLER_ADDRESS
from sipbridge.recording_keys import new_key_file

#: The worker's own addresses: apart from the far ends' and from a node that runs here.
PBX_SIDE = "127.0.0.11"
PHONE_SIDE = "127.0.0.12"
READY_S = 30.0
DIRECT_FLOWS = 10
#: Below the ports that outgoing connections get (Linux: 32768 and up).
_LOWEST_PORT, _HIGHEST_PORT = 10240, 32700
_SRTP_SUITE = "AES_CM_128_HMAC_SHA1_80"
_SRTP_KEY_AND_SALT = 30

Ends = list[tuple[str, int]]


# ------------------------------------------------------------------------- what the kernel says


def cpu_s(pid: int, thread: str = "") -> float:
    """User and system seconds of a process' living threads (schedstat of proc(5), to the ns).

    Args:
        pid: the process.
        thread: only of the threads with this name.

    Raises:
        FileNotFoundError: the process is gone.
    """
    total_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if not thread or (task / "comm").read_text().strip() == thread:
                total_ns += int((task / "schedstat").read_text().split()[0])
    return total_ns / 1e9


def rss_mib(pid: int, field: str = "VmRSS") -> float:
    """Resident memory of a process; ``VmHWM``: at its highest."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    return math.nan


# ---------------------------------------------------------------------------------- processes


class Helper:
    """A process that speaks JSON lines on standard input and output: a far end, a reader.

    Args:
        process: with pipes.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, module: str, *arguments: str) -> Helper:
        """Run ``python -m module``."""
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, *arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=1 << 24,
            )
        )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    async def say(self, **fields: Any) -> None:
        """Send one line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(fields).encode() + b"\n")
        await self._process.stdin.drain()

    async def hear(self) -> dict[str, Any]:
        """The next line.

        Raises:
            SetupError: the process ended.
        """
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise SetupError(
                "a process of the benchmark died: its message is on standard error above"
            )
        body: dict[str, Any] = json.loads(line)
        return body

    def end_input(self) -> None:
        """Close its standard input: the sign to come to an end."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def finish(self) -> None:
        """Let it end; kill it if it does not."""
        self.end_input()
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            await asyncio.wait_for(self._process.wait(), 5.0)
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class FarEnds(Helper):
    """Callers and agents, who send to a relay and hear what comes (:mod:`sipbridge.bench_load`)."""

    callers: Ends
    agents: Ends

    @classmethod
    async def open(cls, calls: int) -> FarEnds:
        """Their sockets, in a process of their own."""
        ends = cls((await Helper.start("sipbridge.bench_load", "load"))._process)
        await ends.say(calls=calls, direct=DIRECT_FLOWS)
        ports = await ends.hear()
        ends.callers = [(CALLER_ADDRESS, port) for port in ports["caller_ports"]]
        ends.agents = [(AGENT_ADDRESS, port) for port in ports["agent_ports"]]
        return ends

    async def talk(
        self, targets: tuple[Ends, Ends], *, warm_up_s: float, seconds: float, **more: Any
    ) -> None:
        """Begin; hear() then gives ``measuring``, ``measured`` and the report."""
        await self.say(
            caller_targets=targets[0],
            agent_targets=targets[1],
            warm_up_s=warm_up_s,
            seconds=seconds,
            **more,
        )

    async def between(self, from_ns: int, to_ns: int) -> dict[str, Any]:
        """After the report: the figures of what was sent in an interval of wall clock."""
        await self.say(between=[from_ns, to_ns])
        return await self.hear()

    async def when(self, packets: list[tuple[int, int]]) -> list[int]:
        """After the report: wall clock in ns at which packets were sent, 0: not sent.

        Args:
            packets: number of the caller and of the round, each.
        """
        await self.say(when=packets)
        sent_ns: list[int] = (await self.hear())["sent_ns"]
        return sent_ns

    async def histogram(self, step_ms: float, steps: int) -> list[int]:
        """After the report: packets by added latency; the last number holds the rest."""
        await self.say(histogram=[step_ms, steps])
        counts: list[int] = (await self.hear())["counts"]
        return counts


class WorkerProcess:
    """A media worker of the benchmark's own.

    Args:
        folder: for its files; must hold a folder ``run``.
        calls: for which it needs ports.
        record: with the recorder on.
        module: what to run with ``--config FILE``.
        extra: more tables of its configuration.
    """

    def __init__(
        self,
        folder: Path,
        calls: int,
        *,
        record: bool = False,
        module: str = "sipbridge.media_worker",
        extra: str = "",
    ) -> None:
        self._folder = folder
        self._ports = 2 * calls + 100
        self._record = record
        self._module = module
        self._extra = extra
        self.process: Helper | None = None
        self.media_path = folder / "run" / "media.sock"
        self.tap_path = folder / "run" / "tap.sock"

    @property
    def pid(self) -> int:
        """Process id."""
        assert self.process is not None
        return self.process.pid

    async def start(self) -> None:
        """Run it; it listens a moment later."""
        config = self._folder / "bench.toml"
        tables = [
            f'[node]\nstate_dir = "{self._folder}"\nruntime_dir = "{self._folder / "run"}"\n'
            'log_level = "warning"\n'
        ]
        for side, address in (("pbx", PBX_SIDE), ("phone", PHONE_SIDE)):
            first = random.randrange(_LOWEST_PORT, _HIGHEST_PORT - self._ports, 2)
            last = first + self._ports - 1
            tables.append(f'[sip.{side}]\nbind = "{address}"\nrtp_ports = [{first}, {last}]\n')
        if self._record:
            key_file = self._folder / "recording.keys"
            new_key_file(key_file)
            tables.append(
                f'[recording]\nenabled = true\nkey_file = "{key_file}"\n'
                f'directory = "{self._folder / "recordings"}"\nmin_free_mib = 256\n'
            )
        config.write_text("".join(tables) + self._extra)
        self.process = await Helper.start(self._module, "--config", str(config))

    async def stop(self) -> None:
        """End it."""
        if self.process is not None:
            process = self.process._process
            if process.returncode is None:
                process.terminate()
            await self.process.finish()


class StandIn:
    """The bridge's part of the conversation with a media worker.

    Args:
        media_path: its control socket.
        pbx_side: address of its sockets towards the PBX.
        phone_side: towards the phones.
    """

    def __init__(self, media_path: Path, pbx_side: str, phone_side: str) -> None:
        self._path = media_path
        self._sides = (pbx_side, phone_side)
        self._opened: asyncio.Queue[SessionOpened] = asyncio.Queue()
        self._closed: asyncio.Queue[SessionClosed] = asyncio.Queue()
        self._client: BusClient[MediaMessage] = BusClient(
            media_path, MediaMessage, self._on_message, list
        )
        self.call_ids: list[str] = []
        self.srtp: list[tuple[str, str]] = []
        """Of each agent's leg: key and salt of what the agent sends, and of what it hears."""
        self.played: list[PlayFinished] = []
        self.stats_at: list[float] = []
        """When the worker's totals came, monotonic: once a second while its Python runs."""
        self.tapped = 0
        """Frames that the tap took of calls that were closed, those that it had to drop too."""

    async def _on_message(self, message: MediaMessage) -> None:
        match message:
            case SessionOpened() if message.request_id:
                self._opened.put_nowait(message)
            case SessionClosed():
                self.tapped += message.tapped + message.tap_dropped
                self._closed.put_nowait(message)
            case PlayFinished():
                self.played.append(message)
            case MediaStats():
                self.stats_at.append(asyncio.get_running_loop().time())
            case _:
                pass

    async def connect(self) -> None:
        """Wait for the worker.

        Raises:
            SetupError: it does not listen.
        """
        self._client.start()
        try:
            await asyncio.wait_for(self._client.connected.wait(), READY_S)
        except TimeoutError:
            raise SetupError("the media worker does not listen: see its log above") from None

    async def set_up(
        self,
        callers: Ends,
        agents: Ends,
        *,
        tap: bool,
        record: bool = False,
        srtp: bool = False,
        ear: tuple[bool, bool] = (False, False),
    ) -> tuple[Ends, Ends]:
        """Open, negotiate and let flow.

        Args:
            callers: where they hear.
            agents: likewise.
            tap: copy the callers' audio to the tap.
            record: and both sides' to the recorder.
            srtp: the agents' legs are RTP/SAVP; the keys are in :attr:`srtp` afterwards.
            ear: softening and levelling; the limiter is always on.

        Returns:
            Where callers and agents have to send to.

        Raises:
            SetupError: the worker refused.
        """
        targets: tuple[Ends, Ends] = ([], [])
        for number, ends in enumerate(zip(callers, agents, strict=True), 1):
            call_id = uuid.uuid4().hex
            self._client.send(OpenSession(request_id=number, call_id=call_id))
            opened = await asyncio.wait_for(self._opened.get(), READY_S)
            if opened.error:
                raise SetupError(opened.error)
            self.call_ids.append(call_id)
            keys = self._new_keys() if srtp else None
            for leg, (address, port) in zip((LegName.CALLER, LegName.AGENT), ends, strict=True):
                self._client.send(
                    LegUpdate(
                        call_id=call_id,
                        leg=leg,
                        address=address,
                        port=port,
                        payload_type=0,
                        event_payload_type=101,
                        srtp=keys if leg is LegName.AGENT else None,
                    )
                )
            if any(ear):
                self._client.send(EarUpdate(call_id=call_id, soften=ear[0], levelling=ear[1]))
            self._client.send(
                FlowUpdate(
                    call_id=call_id,
                    caller_to_agent=True,
                    agent_to_caller=True,
                    tap=tap,
                    record=record,
                )
            )
            targets[0].append((self._sides[0], opened.caller_port))
            targets[1].append((self._sides[1], opened.agent_port))
        return targets

    def tap(self, call_id: str) -> None:
        """Open the tap of a call."""
        self._client.send(
            FlowUpdate(
                call_id=call_id,
                caller_to_agent=True,
                agent_to_caller=True,
                tap=True,
                record=False,
            )
        )

    def _new_keys(self) -> SrtpKeys:
        keys = SrtpKeys(
            suite=_SRTP_SUITE,
            send=secrets.token_bytes(_SRTP_KEY_AND_SALT),
            receive=secrets.token_bytes(_SRTP_KEY_AND_SALT),
        )
        self.srtp.append((keys.receive.hex(), keys.send.hex()))
        return keys

    def play(self, call_id: str, file: Path) -> None:
        """Play a prompt to a caller."""
        self._client.send(
            PlayPrompts(call_id=call_id, play_id=1, leg=LegName.CALLER, files=[str(file)])
        )

    async def close_calls(self) -> int:
        """Close all; how many of the callers' packets the worker accepted."""
        accepted = 0
        for call_id in self.call_ids:
            self._client.send(CloseSession(call_id=call_id))
        for _ in self.call_ids:
            accepted += (await asyncio.wait_for(self._closed.get(), READY_S)).caller.received
        return accepted

    async def close(self) -> None:
        """Hang up."""
        await self._client.close()
