"""The wall clock is stepped by an hour, either way, while calls run.

libfaketime lies to every process of the node about CLOCK_REALTIME, and not about CLOCK_MONOTONIC:
what `date -s`, a bad NTP server or a suspended virtual machine does. The real clock is left alone.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.faults.figures import CALLS, measured
from tests.faults.floor import running_floor
from tests.faults.long_kill import calls_on_the_board, whole

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]

LIBRARY = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
HOUR_S = 3600


@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S], ids=["forward", "back"])
async def test_a_step_of_the_clock_ends_no_call_and_loses_no_event(
    tmp_path: Path, step_s: int
) -> None:
    assert LIBRARY is not None, "libfaketime is missing: `./run test` installs it"
    offset = tmp_path / "offset"
    offset.write_text("+0\n")
    lie = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
    }
    async with running_floor(tmp_path, CALLS, environment=lie) as floor:
        floor.answer()
        await floor.talk(12.0)
        await asyncio.sleep(2)  # of a conversation
        from_ns = time.time_ns()
        offset.write_text(f"{step_s:+d}\n")
        await asyncio.sleep(4)  # what is watched: timers, looks, reports
        until_ns = time.time_ns()
        assert await calls_on_the_board(floor) == CALLS
        await floor.silence()
        heard = await floor.heard(from_ns, until_ns)
        measured(f"clock {step_s:+d} s", **asdict(heard))
        whole(heard)
        assert not floor.supervisor.seen("call.ended")
        before = time.time()
        for pair in floor.pairs:
            assert (await pair.caller.ask("BYE")).status == 200
        await floor.until_ended(CALLS)
        ended = [
            await floor.supervisor.wait("call.ended", count=number + 1) for number in range(CALLS)
        ]
        for event in ended:
            assert event["reason"] == "caller_hangup"
            # The node believes its clock, and says what it says.
            assert event["ts"] == pytest.approx(before + step_s, abs=30)
            # How long somebody spoke is no matter of the wall clock.
            assert 0 <= event["duration_s"] < 120, event
        assert not floor.node.logs("process_died")
        assert "Traceback" not in floor.node.log_path.read_text()
