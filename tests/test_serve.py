"""The supervisor: restarts what dies, stops in order, lets calls finish."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.peers.node import running_node

pytestmark = pytest.mark.timeout(120)
AGENTS = {"1001": "sip:1001@127.0.0.5:5070"}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_each_part_comes_back_after_kill_9(tmp_path: Path) -> None:
    async with running_node(tmp_path / "node", AGENTS) as node:
        for number, part in enumerate(("detector", "notifier", "media", "bridge"), start=1):
            before = node.pid_of(part)
            node.kill(part)
            await node.wait_for_log("process_died", count=number)
            await node.wait_for_log("process_started", count=4 + number)
            await node.until_ready()
            assert node.pid_of(part) != before
        async with node.watch("supervisor", last_event_id=0) as console:
            told = await console.wait(
                "node.degraded", lambda e: e["component"] == "media" and e["degraded"]
            )
            assert told["reason"]
        pids = [node.pid_of(part) for part in ("detector", "notifier", "media", "bridge")]
    assert not any(alive(pid) for pid in pids)


async def test_clean_stop_ends_the_bridge_before_the_rest(tmp_path: Path) -> None:
    async with running_node(tmp_path / "node", AGENTS) as node:
        assert await node.stop() == 0
        order = [entry["part"] for entry in node.logs("process_ended")]
        assert order == ["bridge", "detector", "media", "notifier"]
        assert not node.logs("process_died")
        assert "Traceback" not in node.log_path.read_text()


async def test_a_node_that_was_stopped_cleanly_comes_back_healthy(tmp_path: Path) -> None:
    async with running_node(tmp_path / "node", AGENTS) as node:
        assert await node.stop() == 0
        await node.start()  # /readyz would say no while an alarm about media is open
        async with node.watch("supervisor", last_event_id=0) as console:
            await console.wait(
                "node.degraded", lambda e: e["component"] == "bridge" and not e["degraded"]
            )
            assert not [e for e in console.seen("node.degraded") if e["component"] == "media"]


async def test_a_second_node_in_the_same_folder_is_refused_and_harms_nothing(
    tmp_path: Path,
) -> None:
    async with running_node(tmp_path / "node", AGENTS) as node:
        sockets = sorted(path.name for path in (tmp_path / "node" / "run").iterdir())
        second = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "callshield.cli", "serve", "--config", str(node.config)),
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await second.communicate()
        assert second.returncode == 2
        assert b"a node is already running" in errors
        assert sorted(path.name for path in (tmp_path / "node" / "run").iterdir()) == sockets
        await node.until_ready()


async def test_nothing_is_left_when_the_supervisor_itself_is_killed(tmp_path: Path) -> None:
    async with running_node(tmp_path / "node", AGENTS) as node:
        pids = [node.pid_of(part) for part in ("detector", "notifier", "media", "bridge")]
        node.signal(signal.SIGKILL)
        async with asyncio.timeout(30):
            while any(alive(pid) for pid in pids):  # noqa: ASYNC110 - not our children: ask again
                await asyncio.sleep(0.05)


async def test_transcribers_are_started_and_come_back_and_end_before_the_detector(
    tmp_path: Path,
) -> None:
    words = "[transcriber]\nworkers = 2\n"
    async with running_node(tmp_path / "node", AGENTS, extra=words) as node:
        await node.wait_for_log("process_started", count=6)
        before = node.pid_of("transcriber-2")
        node.kill("transcriber-2")
        await node.wait_for_log("process_died")
        await node.wait_for_log("process_started", count=7)
        assert node.pid_of("transcriber-2") != before
        async with node.watch("supervisor", last_event_id=0) as console:
            await console.wait(
                "node.degraded", lambda e: e["component"] == "transcriber-2" and e["degraded"]
            )
        assert await node.stop() == 0
        order = [entry["part"] for entry in node.logs("process_ended")]
        assert order == [
            "bridge",
            "transcriber-2",
            "transcriber-1",
            "detector",
            "media",
            "notifier",
        ]


async def test_screens_that_cannot_be_pushed_keep_no_node_from_starting(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("of phones")
    password.chmod(0o644)
    table = f'[phones.families.poly-vvx]\nuser = "us"\npassword_file = "{password}"\n'
    async with running_node(tmp_path / "node", AGENTS, extra=table) as node:
        await node.until_ready()
        await node.wait_for_log("process_died")
        assert {entry["part"] for entry in node.logs("process_died")} == {"phones"}
        async with node.watch("supervisor", last_event_id=0) as console:
            told = await console.wait(
                "node.degraded", lambda e: e["component"] == "phones" and e["degraded"]
            )
            assert told["reason"]
            # Mended: it comes by itself, and says so.
            password.chmod(0o600)
            await console.wait(
                "node.degraded", lambda e: e["component"] == "phones" and not e["degraded"]
            )
        assert "of phones" not in node.log_path.read_text()
