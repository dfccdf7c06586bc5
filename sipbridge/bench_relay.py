"""`callshield bench relay`: what the media worker costs and what it adds.

The real worker process, with a real configuration, is set up over its real control socket; load
comes from another process (:mod:`sipbridge.bench_load`), the tap is read by a third. Where
rtpengine is installed it carries the same load in the same run, as the reference.

* CPU is user and system time of the whole process (``/proc/PID/task/*/schedstat``), over the
  packets that came through.
* Added latency is the time from the sender's call to the arrival in the far end's socket
  (kernel time stamp), less the **median** of direct socket-to-socket flows of the same generator
  in the same run: the path's own jitter stays in the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from callshield.errors import CallshieldError, SetupError
from sipbridge.bench_worker import (
    PBX_SIDE,
    PHONE_SIDE,
    Ends,
    FarEnds,
    Helper,
    StandIn,
    WorkerProcess,
    cpu_s,
    rss_mib,
)
from sipbridge.rtpengine_process import Rtpengine, rtpengine_binary

_WARM_UP_S = 2.0
#: The name of the relay's thread (engine.c).
RELAY_THREAD = "relay"
#: Of the histogram: 10 µs a step, up to 5 ms.
HISTOGRAM_STEP_MS, HISTOGRAM_STEPS = 0.01, 500

#: Called with what is being measured and how far it is, 0..1.
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Load:
    """What is measured: calls of two directions, G.711, 20 ms."""

    calls: int
    seconds: float
    """Of measuring, after two of warming up; as long again for rtpengine."""
    tap: bool = True
    """Copy the callers' audio to a reader."""
    record: bool = False
    """Record both sides, encrypted, to a temporary folder."""
    srtp: bool = False
    """SRTP on the agents' legs (not for rtpengine)."""
    ear: bool = False
    """Softening and levelling, too; the limiter is always on."""
    histogram: bool = False
    """Count packets by added latency."""


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
    load_average: float
    """Of the last minute, before the load began."""
    rss_idle_mib: float
    """Resident memory before the first call."""
    relay_us_per_packet: float | None
    """CPU of the relay's thread alone: without Python, without the recorder's threads."""
    histogram: list[int]
    """Packets by added latency; empty when not asked for."""

    @property
    def mib_per_call(self) -> float:
        """What a call adds to the resident memory."""
        return (self.rss_mib - self.rss_idle_mib) / self.calls

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
            "direct_ms": self.direct_ms,
            "sender_late_p99_ms": self.sender_late_p99_ms,
            "load_average": self.load_average,
            "rss_idle_mib": self.rss_idle_mib,
            "mib_per_call": round(self.mib_per_call, 4),
            "relay_us_per_packet": self.relay_us_per_packet,
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


async def _tick(name: str, expected_s: float, progress: Progress) -> None:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    while True:
        progress(name, min((loop.time() - began_s) / expected_s, 1.0))
        await asyncio.sleep(0.5)


def _no_progress(name: str, done: float) -> None:
    """Nobody looks."""


async def under_load(
    name: str,
    far_ends: FarEnds,
    targets: tuple[Ends, Ends],
    pids: tuple[int, ...],
    load: Load,
    progress: Progress = _no_progress,
    srtp: Sequence[tuple[str, str]] = (),
) -> Measurement:
    """Send through one relay and measure it.

    Args:
        name: of the relay.
        far_ends: who sends and hears.
        targets: where they send to.
        pids: of all its processes.
        load: what is sent.
        progress: told now and then.
        srtp: keys of the agents' legs.

    Raises:
        SetupError: it died, or nothing came through it.
    """
    load_average = os.getloadavg()[0]
    await far_ends.talk(targets, warm_up_s=_WARM_UP_S, seconds=load.seconds, srtp=list(srtp))
    relay_died = SetupError(f"the {name} died under load: its log is on standard error")
    ticker = asyncio.create_task(_tick(name, _WARM_UP_S + load.seconds + 1.0, progress))
    clock = asyncio.get_running_loop().time
    try:
        await far_ends.hear()
        began = _cpu(pids), _cpu(pids, RELAY_THREAD), clock()
        await far_ends.hear()
        took = [
            end - begin
            for begin, end in zip(
                began, (_cpu(pids), _cpu(pids, RELAY_THREAD), clock()), strict=True
            )
        ]
        memory_mib = sum(rss_mib(pid) for pid in pids)
        report = await far_ends.hear()
    except FileNotFoundError:
        raise relay_died from None
    finally:
        ticker.cancel()
    if not report["received"]:
        raise relay_died
    if report["unreadable"]:
        raise SetupError(f"{report['unreadable']} SRTP packets could not be deciphered: a bug")
    histogram = []
    if load.histogram:
        histogram = await far_ends.histogram(HISTOGRAM_STEP_MS, HISTOGRAM_STEPS)
    progress(name, 1.0)
    return Measurement(
        calls=load.calls,
        cpu_core_pct=round(100 * took[0] / took[2], 1),
        us_per_packet=round(1e6 * took[0] / report["received"], 2),
        added_latency_ms=report["added_ms"],
        lost=report["sent"] - report["received"],
        sent=report["sent"],
        rss_mib=round(memory_mib, 1),
        tap_delivered_pct=None,
        direct_ms=report["direct_ms"],
        sender_late_p99_ms=round(report["late_p99_ms"], 3),
        load_average=round(load_average, 2),
        rss_idle_mib=0.0,
        relay_us_per_packet=round(1e6 * took[1] / report["received"], 2) if took[1] else None,
        histogram=histogram,
    )


def _cpu(pids: tuple[int, ...], thread: str = "") -> float:
    return sum(cpu_s(pid, thread) for pid in pids)


async def measure_worker(load: Load, progress: Progress = _no_progress) -> Measurement:
    """Our media worker."""
    with tempfile.TemporaryDirectory(prefix="callshield-bench-") as name:
        folder = Path(name)
        (folder / "run").mkdir(mode=0o700)
        worker = WorkerProcess(folder, load.calls, record=load.record)
        bridge = StandIn(worker.media_path, PBX_SIDE, PHONE_SIDE)
        helpers: list[Helper] = []
        try:
            await worker.start()
            await bridge.connect()
            idle_mib = rss_mib(worker.pid)
            if load.tap:
                helpers.append(
                    await Helper.start("sipbridge.bench_load", "tap", str(worker.tap_path))
                )
                await helpers[0].hear()
            far_ends = await FarEnds.open(load.calls)
            helpers.append(far_ends)
            targets = await bridge.set_up(
                far_ends.callers,
                far_ends.agents,
                tap=load.tap,
                record=load.record,
                srtp=load.srtp,
                ear=(load.ear, load.ear),
            )
            measured = await under_load(
                "media worker", far_ends, targets, (worker.pid,), load, progress, bridge.srtp
            )
            measured = replace(measured, rss_idle_mib=round(idle_mib, 1))
            accepted = await bridge.close_calls()
            if not load.tap:
                return measured
            helpers[0].end_input()
            frames = int((await helpers[0].hear())["frames"])
            delivered = round(100.0 * frames / max(accepted, 1), 3)
            return replace(measured, tap_delivered_pct=delivered)
        finally:
            for helper in helpers:
                await helper.finish()
            await bridge.close()
            await worker.stop()


async def measure_rtpengine(
    binary: str, load: Load, progress: Progress = _no_progress
) -> Measurement:
    """rtpengine by itself: it neither taps nor limits nor records."""
    far_ends = await FarEnds.open(load.calls)
    try:
        async with Rtpengine(binary, ports=(22000, 22200 + 4 * load.calls)) as engine:
            idle_mib = rss_mib(engine.pid)
            pairs = [
                await engine.relay(caller, agent)
                for caller, agent in zip(far_ends.callers, far_ends.agents, strict=True)
            ]
            targets = ([pair[0] for pair in pairs], [pair[1] for pair in pairs])
            measured = await under_load(
                "rtpengine", far_ends, targets, (engine.pid,), load, progress
            )
            return replace(measured, rss_idle_mib=round(idle_mib, 1))
    finally:
        await far_ends.finish()


async def measure(
    load: Load, *, reference: bool = True, progress: Progress = lambda _name, _done: None
) -> RelayBench:
    """Run the benchmark.

    Args:
        load: what to measure.
        reference: let rtpengine carry it afterwards where it is installed.
        progress: told now and then.

    Raises:
        SetupError: a process of the benchmark did not start.
    """
    worker = await measure_worker(load, progress)
    binary = rtpengine_binary() if reference else None
    return RelayBench(
        worker, None if binary is None else await measure_rtpengine(binary, load, progress)
    )


def main(arguments: list[str] | None = None) -> int:
    """The same without the command line's front door: ``python -m sipbridge.bench_relay``."""
    from sipbridge.bench_show import run

    parser = argparse.ArgumentParser(prog="sipbridge.bench_relay", description=__doc__)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0)
    for flag in ("tap", "record", "srtp", "ear", "json"):
        parser.add_argument(f"--{flag}", action="store_true")
    given = parser.parse_args(arguments)
    load = Load(given.calls, given.seconds, given.tap, given.record, given.srtp, given.ear)
    try:
        return run(load, as_json=given.json)
    except CallshieldError as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
