"""`callshield bench relay`: what the media worker costs and what it adds.

The real worker process, with a real configuration, is set up over its real control socket; load
comes from another process (:mod:`sipbridge.bench_load`), the tap is read by a third. Where
rtpengine is installed it carries the same load in the same run, as the reference.

* CPU is user and system time of the whole process, from ``/proc/PID/stat``, over the packets
  that came through.
* Added latency is the time from the sender's call to the arrival in the far end's socket
  (kernel time stamp), less the **median** of direct socket-to-socket flows of the same generator
  in the same run: the path's own jitter stays in the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import sys
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from callshield.bus import BusClient
from callshield.errors import CallshieldError, SetupError
from callshield.messages import (
    CloseSession,
    FlowUpdate,
    LegName,
    LegUpdate,
    MediaMessage,
    OpenSession,
    SessionClosed,
    SessionOpened,
)
from sipbridge.bench_load import AGENT_ADDRESS, CALLER_ADDRESS
from sipbridge.rtpengine_ng import Rtpengine

#: The worker's own addresses: apart from the far ends' and from a node that runs here.
_PBX_SIDE = "127.0.0.11"
_PHONE_SIDE = "127.0.0.12"
_WARM_UP_S = 2.0
_READY_S = 30.0
_DIRECT_FLOWS = 10

#: Called with what is being measured and how far it is, 0..1.
Progress = Callable[[str, float], None]
_Ends = list[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One relay under load."""

    calls: int
    cpu_core_pct: float
    us_per_packet: float
    added_latency_ms: dict[str, float]
    lost: int
    sent: int
    rss_mib: float
    tap_delivered_pct: float | None
    direct_ms: dict[str, float]
    """The generator's direct flows: the quiet machine's own latency."""
    sender_late_p99_ms: float
    """How far behind its schedule the sender was: large on an overloaded machine."""

    def as_json(self) -> dict[str, Any]:
        """The stable black-box interface (docs/performance.md)."""
        return {
            "calls": self.calls,
            "cpu_core_pct": self.cpu_core_pct,
            "us_per_packet": self.us_per_packet,
            "added_latency_ms": self.added_latency_ms,
            "lost": self.lost,
            "sent": self.sent,
            "rss_mib": self.rss_mib,
            "tap_delivered_pct": self.tap_delivered_pct,
        }


@dataclass(frozen=True, slots=True)
class RelayBench:
    """The worker, and rtpengine where it is installed."""

    worker: Measurement
    reference: Measurement | None

    def as_json(self) -> dict[str, Any]:
        """One object; ``reference`` holds rtpengine's figures when there are any."""
        body = self.worker.as_json()
        if self.reference is not None:
            body["reference"] = {"name": "rtpengine", **self.reference.as_json()}
        return body


def _cpu_s(pid: int) -> float:
    """User and system seconds of a process, all threads (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return math.nan


class _Helper:
    """A process of :mod:`sipbridge.bench_load`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, *arguments: str) -> _Helper:
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "sipbridge.bench_load",
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=1 << 24,
            )
        )

    async def say(self, **fields: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(fields).encode() + b"\n")
        await self._process.stdin.drain()

    async def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise SetupError(
                "the load generator of the benchmark died: its message is on standard error"
            )
        body: dict[str, Any] = json.loads(line)
        return body

    def end_input(self) -> None:
        """Close its standard input: the sign to come to an end."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def finish(self) -> None:
        self.end_input()
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            await asyncio.wait_for(self._process.wait(), 5.0)
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class _Worker:
    """The media worker under test, and the bridge's part of the conversation."""

    def __init__(self, folder: Path, calls: int) -> None:
        self._folder = folder
        self._calls = calls
        self._opened: asyncio.Queue[SessionOpened] = asyncio.Queue()
        self._closed: asyncio.Queue[SessionClosed] = asyncio.Queue()
        self._call_ids: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._client: BusClient[MediaMessage] | None = None
        self.tap_path = folder / "run" / "tap.sock"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def _on_message(self, message: MediaMessage) -> None:
        if isinstance(message, SessionOpened) and message.request_id:
            self._opened.put_nowait(message)
        elif isinstance(message, SessionClosed):
            self._closed.put_nowait(message)

    async def start(self) -> None:
        pairs = self._calls + 100
        first = random.randrange(10000, 32000 - pairs) * 2
        config = self._folder / "bench.toml"
        config.write_text(
            f'[node]\nstate_dir = "{self._folder}"\nruntime_dir = "{self._folder / "run"}"\n'
            'log_level = "warning"\n'
            f'[sip.pbx]\nbind = "{_PBX_SIDE}"\nrtp_ports = [{first}, {first + 2 * pairs - 1}]\n'
            f'[sip.phone]\nbind = "{_PHONE_SIDE}"\nrtp_ports = [{first}, {first + 2 * pairs - 1}]\n'
        )
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sipbridge.media_worker", "--config", str(config)
        )
        self._client = BusClient(
            self._folder / "run" / "media.sock", MediaMessage, self._on_message, list
        )
        self._client.start()
        try:
            await asyncio.wait_for(self._client.connected.wait(), _READY_S)
        except TimeoutError:
            raise SetupError("the media worker does not listen: see its log above") from None

    async def set_up(self, callers: _Ends, agents: _Ends, *, tap: bool) -> tuple[_Ends, _Ends]:
        """Open, negotiate and let flow; where callers and agents have to send to."""
        assert self._client is not None
        targets: tuple[_Ends, _Ends] = ([], [])
        for number, ends in enumerate(zip(callers, agents, strict=True), 1):
            call_id = uuid.uuid4().hex
            self._client.send(OpenSession(request_id=number, call_id=call_id))
            opened = await asyncio.wait_for(self._opened.get(), _READY_S)
            if opened.error:
                raise SetupError(opened.error)
            self._call_ids.append(call_id)
            for leg, (address, port) in zip((LegName.CALLER, LegName.AGENT), ends, strict=True):
                self._client.send(
                    LegUpdate(
                        call_id=call_id,
                        leg=leg,
                        address=address,
                        port=port,
                        payload_type=0,
                        event_payload_type=101,
                    )
                )
            self._client.send(
                FlowUpdate(call_id=call_id, caller_to_agent=True, agent_to_caller=True, tap=tap)
            )
            targets[0].append((_PBX_SIDE, opened.caller_port))
            targets[1].append((_PHONE_SIDE, opened.agent_port))
        return targets

    async def close_calls(self) -> int:
        """Close all; how many of the callers' packets the worker accepted."""
        assert self._client is not None
        accepted = 0
        for call_id in self._call_ids:
            self._client.send(CloseSession(call_id=call_id))
        for _ in self._call_ids:
            accepted += (await asyncio.wait_for(self._closed.get(), _READY_S)).caller.received
        return accepted

    async def stop(self) -> None:
        if self._client is not None:
            await self._client.close()
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()


async def _load(
    name: str,
    load: _Helper,
    targets: tuple[_Ends, _Ends],
    pid: int,
    calls: int,
    seconds: float,
    progress: Progress,
) -> Measurement:
    """Send through one relay and measure it."""
    await load.say(
        caller_targets=targets[0],
        agent_targets=targets[1],
        warm_up_s=_WARM_UP_S,
        seconds=seconds,
    )
    relay_died = SetupError(f"the {name} died under load: its log is on standard error")
    ticker = asyncio.create_task(_tick(name, _WARM_UP_S + seconds + 1.0, progress))
    try:
        await load.hear()
        cpu_begin_s = _cpu_s(pid)
        began_s = asyncio.get_running_loop().time()
        await load.hear()
        cpu_s = _cpu_s(pid) - cpu_begin_s
        took_s = asyncio.get_running_loop().time() - began_s
        rss_mib = _rss_mib(pid)
        report = await load.hear()
    except FileNotFoundError:
        raise relay_died from None
    finally:
        ticker.cancel()
    if not report["received"]:
        raise relay_died
    progress(name, 1.0)
    return Measurement(
        calls=calls,
        cpu_core_pct=round(100 * cpu_s / took_s, 1),
        us_per_packet=round(1e6 * cpu_s / max(report["received"], 1), 2),
        added_latency_ms=report["added_ms"],
        lost=report["sent"] - report["received"],
        sent=report["sent"],
        rss_mib=round(rss_mib, 1),
        tap_delivered_pct=None,
        direct_ms=report["direct_ms"],
        sender_late_p99_ms=round(report["late_p99_ms"], 3),
    )


async def _tick(name: str, expected_s: float, progress: Progress) -> None:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    while True:
        progress(name, min((loop.time() - began_s) / expected_s, 1.0))
        await asyncio.sleep(0.5)


async def _far_ends(calls: int) -> tuple[_Helper, _Ends, _Ends]:
    load = await _Helper.start("load")
    await load.say(calls=calls, direct=_DIRECT_FLOWS)
    ports = await load.hear()
    return (
        load,
        [(CALLER_ADDRESS, port) for port in ports["caller_ports"]],
        [(AGENT_ADDRESS, port) for port in ports["agent_ports"]],
    )


async def _measure_worker(calls: int, seconds: float, tap: bool, progress: Progress) -> Measurement:
    with tempfile.TemporaryDirectory(prefix="callshield-bench-") as name:
        folder = Path(name)
        (folder / "run").mkdir(mode=0o700)
        worker = _Worker(folder, calls)
        reader: _Helper | None = None
        load: _Helper | None = None
        try:
            await worker.start()
            if tap:
                reader = await _Helper.start("tap", str(worker.tap_path))
                await reader.hear()
            load, callers, agents = await _far_ends(calls)
            targets = await worker.set_up(callers, agents, tap=tap)
            measured = await _load(
                "media worker", load, targets, worker.pid, calls, seconds, progress
            )
            accepted = await worker.close_calls()
            if reader is None:
                return measured
            reader.end_input()
            frames = int((await reader.hear())["frames"])
            delivered = round(100.0 * frames / max(accepted, 1), 3)
            return replace(measured, tap_delivered_pct=delivered)
        finally:
            for helper in (load, reader):
                if helper is not None:
                    await helper.finish()
            await worker.stop()


async def _measure_rtpengine(
    binary: str, calls: int, seconds: float, progress: Progress
) -> Measurement:
    load, callers, agents = await _far_ends(calls)
    try:
        async with Rtpengine(binary, calls=calls) as engine:
            pairs = [
                await engine.relay(caller, agent)
                for caller, agent in zip(callers, agents, strict=True)
            ]
            targets = ([pair[0] for pair in pairs], [pair[1] for pair in pairs])
            return await _load("rtpengine", load, targets, engine.pid, calls, seconds, progress)
    finally:
        await load.finish()


async def measure(
    calls: int, seconds: float, *, tap: bool, progress: Progress = lambda _name, _done: None
) -> RelayBench:
    """Run the benchmark.

    Args:
        calls: two directions each, G.711, 20 ms.
        seconds: of measuring, after two of warming up; as long again for rtpengine.
        tap: copy the callers' audio to a reader.
        progress: told now and then.

    Raises:
        SetupError: a process of the benchmark did not start.
    """
    worker = await _measure_worker(calls, seconds, tap, progress)
    binary = Rtpengine.installed()
    reference = (
        None if binary is None else await _measure_rtpengine(binary, calls, seconds, progress)
    )
    return RelayBench(worker, reference)


def run(*, calls: int, seconds: float, tap: bool, as_json: bool) -> int:
    """The command `callshield bench relay`; prints, and returns the exit status.

    Raises:
        SetupError: a process of the benchmark did not start.
    """
    from rich.console import Console
    from rich.progress import Progress as Bar

    if as_json:
        result = asyncio.run(measure(calls, seconds, tap=tap))
        sys.stdout.write(json.dumps(result.as_json()) + "\n")
        return 0
    console = Console()
    with Bar(console=console, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def progress(name: str, done: float) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=1.0)
            bar.update(tasks[name], completed=done)

        result = asyncio.run(measure(calls, seconds, tap=tap, progress=progress))
    console.print(_table(result))
    return 0


def _table(result: RelayBench) -> Any:
    from rich.table import Table

    first = result.worker
    named = [("media worker", first)]
    if result.reference is not None:
        named.append(("rtpengine", result.reference))
    table = Table(
        title=f"{first.calls} calls, both ways, G.711, 20 ms",
        caption="Added latency: less the median of direct loopback flows "
        f"({first.direct_ms['p50']:.3f} ms; their p99 {first.direct_ms['p99']:.3f} ms). "
        f"The sender was {first.sender_late_p99_ms:.2f} ms (p99) behind its schedule.",
    )
    table.add_column("")
    for name, _ in named:
        table.add_column(name, justify="right")
    rows: list[tuple[str, Callable[[Measurement], str]]] = [
        ("CPU, % of one core", lambda one: f"{one.cpu_core_pct:.1f}"),
        ("CPU a packet, µs", lambda one: f"{one.us_per_packet:.1f}"),
        ("added latency p50, ms", lambda one: f"{one.added_latency_ms['p50']:.3f}"),
        ("added latency p99, ms", lambda one: f"{one.added_latency_ms['p99']:.3f}"),
        ("added latency max, ms", lambda one: f"{one.added_latency_ms['max']:.3f}"),
        ("packets lost", lambda one: f"{one.lost} of {one.sent}"),
        ("resident memory, MiB", lambda one: f"{one.rss_mib:.0f}"),
        (
            "tapped frames delivered",
            lambda one: "-" if one.tap_delivered_pct is None else f"{one.tap_delivered_pct:.2f} %",
        ),
    ]
    for label, show in rows:
        table.add_row(label, *(show(one) for _, one in named))
    return table


def main(arguments: list[str] | None = None) -> int:
    """The same without the command line's front door: ``python -m sipbridge.bench_relay``."""
    parser = argparse.ArgumentParser(prog="sipbridge.bench_relay", description=__doc__)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--tap", action="store_true")
    parser.add_argument("--json", action="store_true")
    parsed = parser.parse_args(arguments)
    try:
        return run(calls=parsed.calls, seconds=parsed.seconds, tap=parsed.tap, as_json=parsed.json)
    except CallshieldError as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
