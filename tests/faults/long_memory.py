"""A transcriber runs out of memory, for real, while calls run."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.faults.figures import CALLS, measured
from tests.faults.floor import at, running_floor
from tests.faults.long_kill import whole

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]


def mapped_bytes(pid: int) -> int:
    """Address space of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    return pages * resource.getpagesize()


async def test_a_transcriber_without_memory_costs_words_and_no_sound(tmp_path: Path) -> None:
    """RLIMIT_AS at what it has: its next allocation fails, as malloc does on a full machine.

    (The kernel's own killer would take it first, too: its oom_score_adj is 500, which
    tests/test_transcriber_process.py reads.)
    """
    async with running_floor(tmp_path, CALLS, extra="[transcriber]\nworkers = 1\n") as floor:
        floor.answer()
        await floor.node.wait_for_log("transcriber_ready")
        pid = floor.node.pid_of("transcriber-1")
        await floor.talk(40.0 if CALLS <= 10 else 60.0)
        from_ns = time.time_ns()
        resource.prlimit(pid, resource.RLIMIT_AS, (mapped_bytes(pid), resource.RLIM_INFINITY))
        # Loud speech without a pause becomes utterances of 15 s: one of them needs memory.
        (died,) = await floor.node.wait_for_log_of(
            "process_died", lambda line: line["part"] == "transcriber-1", timeout_s=60
        )
        ready = await floor.node.wait_for_log("transcriber_ready", count=2)
        until_ns = time.time_ns()
        others = {line["part"] for line in floor.node.logs("process_died")} - {"transcriber-1"}
        await floor.silence()
        heard = await floor.heard(from_ns, until_ns)
        measured(
            "transcriber out of memory",
            again_s=round(at(ready[-1]) - at(died), 2),
            **asdict(heard),
        )
        whole(heard)
        assert others == set()
        assert died["status"] != 0
        alarm = await floor.supervisor.wait(
            "node.degraded", lambda e: e["component"] == "transcriber-1" and e["degraded"]
        )
        assert alarm["reason"]
        assert os.getpriority(os.PRIO_PROCESS, floor.node.pid_of("transcriber-1")) >= 10
        await asyncio.sleep(0)
