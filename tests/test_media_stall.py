"""Calls go on while the media worker's Python stands still for seconds."""

from __future__ import annotations

import asyncio
import sys

from sipbridge.bench_stall import judge, measure
from sipbridge.bench_worker import Ends, Helper

CALLS = 100
STALL_S = 5.0

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


async def test_nothing_is_lost_or_late_while_python_stands_still() -> None:
    result = await measure(CALLS, STALL_S, prompted=20, before_s=2.0)
    verdict = result.verdict
    # Its Python really stood still: the sign of life that comes once a second did not.
    assert verdict.stalled_s >= STALL_S
    assert result.python_gap_s >= STALL_S - 0.1
    # Everything that was sent came through, about as fast as before. The relay rests half a
    # millisecond between two looks and shares two cores with a busy loop now: a whole millisecond
    # is the machine's noise, the stall would be thousands.
    during = verdict.during
    assert during.sent > 0.9 * (2 * CALLS - 20) * 50 * STALL_S
    assert (verdict.before.lost, during.lost, verdict.after.lost) == (0, 0, 0)
    assert during.p99_ms <= max(1.5 * verdict.before.p99_ms, verdict.before.p99_ms + 1.0)
    assert result.tap_delivered_pct == 100.0
    # The prompts that played meanwhile were heard to their end, with no hole in them.
    assert len(verdict.prompts) == 20
    assert result.prompts_complete == 20
    for heard in verdict.prompts:
        assert heard["packets"] > 50 * STALL_S
        assert heard["missing"] == 0
        assert heard["longest_gap_ms"] < 100


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
