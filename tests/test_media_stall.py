"""Calls go on while the media worker's Python stands still for seconds."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from sipbridge.bench_stall import StallingWorker, judge, measure
from sipbridge.bench_worker import Ends, Helper
from sipbridge.media_worker import REALTIME_PRIORITY

CALLS = 100
STALL_S, BEFORE_S = 5.0, 2.0

#: Looks up every half a millisecond, as the relay's thread does, and notes when it did.
WATCH = """
import array, contextlib, json, os, select, sys, time

processor, priority = map(int, sys.argv[1:])
os.sched_setaffinity(0, {processor})
with contextlib.suppress(PermissionError):
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
looks = array.array("q")
while not select.select([0], [], [], 0.0005)[0]:
    looks.append(time.time_ns())
print(json.dumps(looks.tolist()))
"""

#: A relay in plain asyncio, told to stand still as the media worker is.
PYTHON_RELAY = """
import asyncio, json, sys, threading
from sipbridge.bench_stall import obey

class Side(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
    def datagram_received(self, data, source):
        self.other.transport.sendto(data, self.far_end)

async def main():
    loop = asyncio.get_running_loop()
    ports = []
    for far_ends in json.loads(sys.stdin.readline())["pairs"]:
        sides = [(await loop.create_datagram_endpoint(Side, ("127.0.0.1", 0)))[1] for _ in far_ends]
        for side, other, hears in zip(sides, sides[::-1], far_ends[::-1]):
            side.other, side.far_end = other, tuple(hears)
        ports.append([side.transport.get_extra_info("sockname")[1] for side in sides])
    print(json.dumps({"ports": ports}), flush=True)
    threading.Thread(target=obey, daemon=True).start()
    await asyncio.Event().wait()

asyncio.run(main())
"""


class PythonRelay:
    """The negative control: nobody serves its sockets while its Python stands still."""

    def __init__(self) -> None:
        self._process: Helper | None = None

    async def set_up(self, callers: Ends, agents: Ends) -> tuple[Ends, Ends]:
        self._process = Helper(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", PYTHON_RELAY),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        )
        await self._process.say(pairs=list(zip(callers, agents, strict=True)))
        ports = (await self._process.hear())["ports"]
        return (
            [("127.0.0.1", caller) for caller, _ in ports],
            [("127.0.0.1", agent) for _, agent in ports],
        )

    async def stall(self, seconds: float) -> tuple[int, int]:
        assert self._process is not None
        await self._process.say(stand_still_s=seconds)
        answer = await self._process.hear()
        return answer["from_ns"], answer["to_ns"]

    async def stop(self) -> None:
        if self._process is not None:
            self._process._process.kill()
            await self._process.finish()


@dataclass
class Machine:
    """How late whoever looks twice a millisecond was on this machine, on its worst processor."""

    looks: list[NDArray[np.int64]] = field(default_factory=list)
    """Of each processor, wall clock in ns."""

    def _gaps_ms(self, begin_ns: int, end_ns: int) -> list[NDArray[np.float64]]:
        within = [one[(one >= begin_ns) & (one < end_ns)] for one in self.looks]
        return [np.diff(np.array([begin_ns, *one, end_ns])) / 1e6 for one in within]

    def longest_ms(self, begin_ns: int, end_ns: int) -> float:
        return max(float(gaps.max()) for gaps in self._gaps_ms(begin_ns, end_ns))

    def p99_ms(self, begin_ns: int, end_ns: int) -> float:
        """Of what a packet that comes at any moment waits for the next look."""
        return max(_waits_ms(gaps, 0.01) for gaps in self._gaps_ms(begin_ns, end_ns))


def _waits_ms(gaps_ms: NDArray[np.float64], share: float) -> float:
    """What is waited for longer by this share of all moments."""
    low, high = 0.0, float(gaps_ms.max())
    for _ in range(40):
        middle = (low + high) / 2
        if np.clip(gaps_ms - middle, 0, None).sum() > share * gaps_ms.sum():
            low = middle
        else:
            high = middle
    return high


@asynccontextmanager
async def watched_machine() -> AsyncIterator[Machine]:
    """Filled when the block ends."""
    machine = Machine()
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WATCH, str(processor), str(REALTIME_PRIORITY)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for processor in sorted(os.sched_getaffinity(0))
    ]
    try:
        yield machine
    finally:
        said = [(await one.communicate(b""))[0] for one in processes]
        machine.looks = [np.array(json.loads(one), np.int64) for one in said]


def test_what_was_waited_for_is_told_by_the_looks() -> None:
    """The judge of the machine: a hole of 50 ms in a second is a twentieth of all moments."""
    looks = np.arange(0, 1_000_000_000, 500_000)
    even = Machine([looks])
    assert even.p99_ms(0, 1_000_000_000) < 0.5
    torn = Machine([looks, looks[(looks < 300_000_000) | (looks >= 350_000_000)]])
    assert torn.longest_ms(0, 1_000_000_000) == pytest.approx(50.5, abs=0.1)
    assert torn.p99_ms(0, 1_000_000_000) == pytest.approx(40.5, abs=0.1)


async def test_nothing_is_lost_or_late_while_python_stands_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stalls: list[tuple[int, int]] = []

    async def stall(
        worker: StallingWorker, seconds: float, own: object = StallingWorker.stall
    ) -> tuple[int, int]:
        stalls.append(await own(worker, seconds))  # type: ignore[operator]
        return stalls[-1]

    monkeypatch.setattr(StallingWorker, "stall", stall)
    async with watched_machine() as machine:
        result = await measure(CALLS, STALL_S, prompted=20, before_s=BEFORE_S)
    ((begin_ns, end_ns),) = stalls
    before_ns = begin_ns - round(BEFORE_S * 1e9)
    verdict = result.verdict
    # Its Python really stood still: the sign of life that comes once a second did not.
    assert verdict.stalled_s >= STALL_S
    assert result.python_gap_s >= STALL_S - 0.1
    # Everything that was sent came through, about as fast as before. The relay rests half a
    # millisecond between two looks and shares two cores with a busy loop now: a whole millisecond
    # is the machine's noise, and what it keeps everybody else waiting now; the stall would be
    # thousands.
    noise_ms = machine.p99_ms(begin_ns, end_ns) - machine.p99_ms(before_ns, begin_ns)
    during = verdict.during
    assert during.sent > 0.9 * (2 * CALLS - 20) * 50 * STALL_S
    assert (verdict.before.lost, during.lost, verdict.after.lost) == (0, 0, 0)
    usual_ms = max(1.5 * verdict.before.p99_ms, verdict.before.p99_ms + 1.0)
    assert during.p99_ms <= usual_ms + max(noise_ms, 0.0)
    assert result.tap_delivered_pct == 100.0
    # The prompts that played meanwhile were heard to their end, with no hole in them.
    stood_ms = machine.longest_ms(before_ns, end_ns + round(1e9))
    assert len(verdict.prompts) == 20
    assert result.prompts_complete == 20
    for heard in verdict.prompts:
        assert heard["packets"] > 50 * STALL_S
        assert heard["missing"] == 0
        assert heard["longest_gap_ms"] < 100 + stood_ms


async def test_the_same_judge_condemns_a_relay_in_python() -> None:
    relay = PythonRelay()
    try:
        verdict = await judge(relay, calls=10, stall_s=1.0, before_s=0.5)
    finally:
        await relay.stop()
    assert verdict.before.sent > 0
    # Half of the packets of a second wait half a second and more, or are lost.
    assert verdict.during.lost > 0 or verdict.during.p50_ms > 200
    assert verdict.during.p99_ms > verdict.before.p99_ms + 100
