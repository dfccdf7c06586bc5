"""`callshield bench faults`: kill what is not audio, under load.

A whole node runs as its users run it (:mod:`callshield.serve`), the detector hears every caller.
The benchmark stands beside the node's own bridge at the media worker's control socket and puts
calls on the real worker. In the middle the detector and the notifier are killed (SIGKILL); the node
restarts both while the calls go on. (Words are switched off.)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from callshield.errors import SetupError
from callshield.free_ports import free_port, free_range
from callshield.logs import configure_logs
from callshield.serve import Supervisor
from callshield.settings import load_settings
from sipbridge.bench_stall import Part
from sipbridge.bench_worker import FarEnds, StandIn

VICTIMS = ("detector", "notifier")
_PBX_SIDE, _PHONE_SIDE = "127.0.0.13", "127.0.0.14"
_WARM_UP_S = 2.0
_READY_S = 40.0
#: Longest time until what was killed runs again.
_RESTART_S = 20.0


@dataclass(frozen=True, slots=True)
class FaultBench:
    """What happened to the calls."""

    calls: int
    before: Part
    after: Part
    """From the kill on: with the rest of the load, also the restarts."""
    restarted: dict[str, float]
    """Seconds from the kill until the node had started each victim again."""
    bridge_lived: bool
    """The other processes are those of before."""
    load_average: float

    @property
    def p99_ratio(self) -> float:
        """p99 of the added latency after the kill over that before."""
        return self.after.p99_ms / self.before.p99_ms


def _write_config(folder: Path, calls: int) -> Path:
    ports = 2 * calls + 40
    pbx, phone = free_range(_PBX_SIDE, ports), free_range(_PHONE_SIDE, ports)
    path = folder / "callshield.toml"
    path.write_text(
        f"""\
[node]
name = "bench"
state_dir = "{folder / "state"}"
runtime_dir = "{folder / "run"}"
log_level = "error"
stop_timeout_s = 1
[sip.pbx]
bind = "{_PBX_SIDE}"
port = {free_port(_PBX_SIDE)}
rtp_ports = [{pbx[0]}, {pbx[1]}]
[sip.phone]
bind = "{_PHONE_SIDE}"
port = {free_port(_PHONE_SIDE)}
rtp_ports = [{phone[0]}, {phone[1]}]
[[peers]]
name = "bench"
networks = ["127.0.0.15"]
[agents.1001]
uri = "sip:1001@127.0.0.15:{free_port("127.0.0.15")}"
[web]
port = {free_port("127.0.0.1")}
[transcriber]
workers = 0
[phones]
enabled = false
""",
        encoding="utf-8",
    )
    return path


@contextlib.asynccontextmanager
async def _node(folder: Path, calls: int) -> AsyncIterator[Supervisor]:
    config = _write_config(folder, calls)
    supervisor = Supervisor(load_settings(config), config)
    running = asyncio.create_task(supervisor.run())
    ready = asyncio.create_task(supervisor.ready.wait())
    try:
        await asyncio.wait((running, ready), timeout=_READY_S, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        if not supervisor.ready.is_set():
            raise SetupError("the node did not get ready: its log is on standard error above")
        yield supervisor
    finally:
        ready.cancel()
        supervisor.request_stop()
        await asyncio.gather(running, ready, return_exceptions=True)


async def _restarts(supervisor: Supervisor, killed: dict[str, int]) -> dict[str, float]:
    began_s = time.monotonic()
    restarted: dict[str, float] = {}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_RESTART_S):
            while len(restarted) < len(killed):
                for part, pid in killed.items():
                    if part not in restarted and supervisor.pid_of(part) not in (pid, None):
                        restarted[part] = round(time.monotonic() - began_s, 2)
                await asyncio.sleep(0.02)
    return restarted


async def measure(calls: int, seconds: float) -> FaultBench:
    """Kill detector and notifier under load.

    Args:
        calls: two directions each, G.711, 20 ms, all tapped.
        seconds: watched before the kill, and as long after it.

    Raises:
        SetupError: the node did not start.
    """
    with tempfile.TemporaryDirectory(prefix="callshield-bench-") as name:
        folder = Path(name)
        async with _node(folder, calls) as supervisor:
            bridge = StandIn(folder / "run" / "media.sock", _PBX_SIDE, _PHONE_SIDE)
            far_ends: FarEnds | None = None
            try:
                await bridge.connect()
                far_ends = await FarEnds.open(calls)
                targets = await bridge.set_up(far_ends.callers, far_ends.agents, tap=True)
                load_average = os.getloadavg()[0]
                await far_ends.talk(targets, warm_up_s=_WARM_UP_S, seconds=2 * seconds)
                await far_ends.hear()
                others = {part: supervisor.pid_of(part) for part in ("media", "bridge")}
                await asyncio.sleep(seconds)
                killed: dict[str, int] = {}
                kill_ns = time.time_ns()
                for part in VICTIMS:
                    pid = supervisor.pid_of(part)
                    assert pid is not None
                    os.kill(pid, signal.SIGKILL)
                    killed[part] = pid
                restarted = await _restarts(supervisor, killed)
                await far_ends.hear()
                await far_ends.hear()
                return FaultBench(
                    calls=calls,
                    before=Part.of(await far_ends.between(0, kill_ns)),
                    after=Part.of(await far_ends.between(kill_ns, 1 << 62)),
                    restarted=restarted,
                    bridge_lived=all(
                        supervisor.pid_of(part) == pid for part, pid in others.items()
                    ),
                    load_average=round(load_average, 2),
                )
            finally:
                if far_ends is not None:
                    await far_ends.finish()
                await bridge.close()


def run(calls: int, seconds: float, *, as_json: bool) -> int:
    """The command `callshield bench faults`; prints, and returns the exit status.

    Raises:
        SetupError: the node did not start.
    """
    configure_logs("supervisor", level="critical")
    result = asyncio.run(measure(calls, seconds))
    if as_json:
        body: dict[str, Any] = {**asdict(result), "p99_ratio": round(result.p99_ratio, 3)}
        sys.stdout.write(json.dumps(body) + "\n")
        return 0
    lines = [
        f"{result.calls} calls on a whole node; load average before {result.load_average:.1f}; "
        f"killed: {', '.join(VICTIMS)} (words are switched off)"
    ]
    for name in ("before", "after"):
        part: Part = getattr(result, name)
        lines.append(
            f"  {name:<6} {part.lost} of {part.sent} packets lost; added p50 {part.p50_ms:.3f}, "
            f"p99 {part.p99_ms:.3f}, max {part.max_ms:.3f} ms"
        )
    lines.append(f"  p99 after / before: {result.p99_ratio:.2f}")
    lines += [
        f"  {part} started again after {after_s:.1f} s"
        for part, after_s in result.restarted.items()
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
