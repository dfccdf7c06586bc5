"""A node whose processes stand still, and the service manager that is told (a socket of the test).

Real processes are stopped with SIGSTOP: alive, and silent.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from tests.peers.node import Node

pytestmark = pytest.mark.timeout(600)
AGENTS = {"1001": "sip:1001@127.0.0.5:5070"}
HANG_S = 3.0
#: A busy machine is no failure.
PATIENT_S = 120.0
PARTS = ("notifier", "media", "detector", "bridge")


class Manager:
    """The service manager's end of ``NOTIFY_SOCKET``, with times."""

    def __init__(self, path: Path) -> None:
        self.heard: list[tuple[float, str]] = []
        self._news = asyncio.Condition()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while True:
            text = (await asyncio.get_running_loop().sock_recv(self._socket, 4096)).decode()
            async with self._news:
                self.heard += [(time.monotonic(), line) for line in text.splitlines()]
                self._news.notify_all()

    def said(self, start: str, since: float = 0.0) -> list[str]:
        return [line for at, line in self.heard if line.startswith(start) and at >= since]

    async def until(self, start: str, since: float = 0.0, timeout_s: float = PATIENT_S) -> str:
        async with asyncio.timeout(timeout_s), self._news:
            await self._news.wait_for(lambda: self.said(start, since))
        return self.said(start, since)[0]

    def close(self) -> None:
        self._task.cancel()
        self._socket.close()


@asynccontextmanager
async def watched_node(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, hang_s: float = HANG_S
) -> AsyncIterator[tuple[Node, Manager]]:
    monkeypatch.setattr("tests.peers.node.READY_TIMEOUT_S", PATIENT_S)
    node = Node(folder / "node", AGENTS)
    text = node.config.read_text()
    node.config.write_text(
        text.replace("stop_timeout_s = 1", f"stop_timeout_s = 1\nhang_timeout_s = {hang_s}")
    )
    with closing(Manager(folder / "notify")) as manager:
        monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "3000000")
        try:
            await node.start()
            await manager.until("READY=1")
            assert manager.said("EXTEND_TIMEOUT_USEC=")  # a start may take as long as a migration
            yield node, manager
        finally:
            await node.stop()


async def test_a_part_that_hangs_is_ended_and_comes_back_and_the_watchdog_is_fed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched_node(tmp_path, monkeypatch) as (node, manager):
        for number, part in enumerate(("detector", "bridge", "media"), start=1):
            before, begun = node.pid_of(part), time.monotonic()
            os.kill(before, signal.SIGSTOP)
            hung = (await node.wait_for_log("process_hung", count=number, timeout_s=PATIENT_S))[-1]
            assert hung["part"] == part
            assert HANG_S < hung["silent_s"] < 4 * HANG_S + 10
            await node.wait_for_log("process_started", count=4 + number, timeout_s=PATIENT_S)
            await node.until_ready()
            assert node.pid_of(part) != before
            assert len(manager.said("WATCHDOG=1", begun)) >= (time.monotonic() - begun) / 3
        async with node.watch("supervisor", last_event_id=0) as console:
            await console.wait(
                "node.degraded",
                lambda e: e["component"] == "media" and "stood still" in e["reason"],
            )
        stop = time.monotonic()
        assert await node.stop() == 0
        assert manager.said("STOPPING=1", stop)
        assert manager.said("EXTEND_TIMEOUT_USEC=", stop)
        assert manager.said("STATUS=stopping", stop)


async def test_a_part_that_can_still_speak_says_where_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGABRT before SIGKILL: faulthandler's traceback is what the next person needs."""
    async with watched_node(tmp_path, monkeypatch) as (node, _):
        os.kill(node.pid_of("detector"), signal.SIGABRT)
        await node.wait_for_log("process_died", timeout_s=PATIENT_S)
        assert "Fatal Python error: Aborted" in node.log_path.read_text()


async def test_a_supervisor_that_stands_still_feeds_nobody_and_its_calls_part_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched_node(tmp_path, monkeypatch) as (node, manager):
        node.signal(signal.SIGSTOP)
        await asyncio.sleep(1.0)  # what was on its way
        begun = time.monotonic()
        await asyncio.sleep(4.0)
        assert not manager.said("WATCHDOG=1", begun)
        parts = [node.pid_of(part) for part in PARTS]
        # A machine or a container that was paused for longer than any patience: all goes on.
        node.signal(signal.SIGCONT)
        begun = time.monotonic()
        for _ in range(3):
            await manager.until("WATCHDOG=1", begun)
            begun = time.monotonic()
        assert not node.logs("process_hung")
        assert [node.pid_of(p) for p in PARTS] == parts
        node.signal(signal.SIGSTOP)
        # What systemd does then: SIGTERM to all, which parts leave to the supervisor, and SIGKILL.
        for pid in parts:
            os.kill(pid, signal.SIGTERM)
        await asyncio.sleep(1.0)
        for pid in parts:
            os.kill(pid, 0)
        node.signal(signal.SIGKILL)
        await gone(parts)
    assert "bridge_stopped" in node.log_path.read_text()


async def gone(pids: list[int]) -> None:
    """Wait until none of them runs."""
    async with asyncio.timeout(PATIENT_S):
        for pid in pids:
            while _lives(pid):  # noqa: ASYNC110 # they are not children of ours
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
async def test_a_node_that_ends_while_it_begins_leaves_nobody(
    tmp_path: Path, ending: signal.Signals
) -> None:
    """Killed or stopped before any part has its handlers, and started as a script starts things in
    the background: with SIGINT ignored, which is what parts are stopped with."""
    node = Node(tmp_path, AGENTS)
    with node.log_path.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", 'trap "" INT; exec "$@"', "-", sys.executable),
            *("-m", "callshield.cli", "serve", "--config", str(node.config)),
            stderr=log,
            stdout=log,
            start_new_session=True,
        )
    try:
        begun = await node.wait_for_log("process_started", count=len(PARTS), timeout_s=PATIENT_S)
        process.send_signal(ending)
        status = await asyncio.wait_for(process.wait(), PATIENT_S)
        assert status == (0 if ending == signal.SIGTERM else -ending)
        await gone([int(entry["pid"]) for entry in begun])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_hangs_can_be_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control, and for debuggers: with 0 a part that hangs is not touched."""
    async with watched_node(tmp_path, monkeypatch, hang_s=0) as (node, manager):
        pid = node.pid_of("detector")
        os.kill(pid, signal.SIGSTOP)
        begun = time.monotonic()
        await asyncio.sleep(2 * HANG_S)
        assert not node.logs("process_hung")
        assert manager.said("WATCHDOG=1", begun)
        os.kill(pid, signal.SIGCONT)
