"""rtpengine, or the process that commands it, killed in mid-call: what both parties notice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ng.kit import (
    AGENT_HZ,
    CALLER,
    CALLER_HZ,
    NO_BUFFER,
    PHONE,
    QUIET,
    SHORT,
    running_engine_node,
)
from tests.peers.baresip import running_baresip
from tests.peers.capture import capturing
from tests.peers.sound import write_tone

pytestmark = [pytest.mark.ng, pytest.mark.peers, pytest.mark.timeout(180)]


async def test_rtpengine_killed_in_mid_call(tmp_path: Path) -> None:
    """Both parties get a BYE, people are told, new calls get 503 until it is back."""
    caller_tone = write_tone(tmp_path / "caller.wav", CALLER_HZ, 60, QUIET)
    agent_tone = write_tone(tmp_path / "agent.wav", AGENT_HZ, 60)
    async with (
        running_baresip(tmp_path / "agent", PHONE, "1001", agent_tone, **NO_BUFFER) as agent,
        running_baresip(tmp_path / "caller", CALLER, "010", caller_tone, **NO_BUFFER) as caller,
        running_engine_node(tmp_path / "node", {"1001": agent.uri}, peer=CALLER, notice=SHORT) as (
            node,
            engine,
        ),
        node.watch("1001") as console,
        node.watch("supervisor") as supervisor,
    ):
        await caller.command("dial", node.uri("1001"))
        await console.wait("tap.started")
        await engine.kill()
        ended = await console.wait("call.ended")
        assert ended["reason"] == "media_lost"
        await agent.wait("CALL_CLOSED")
        await caller.wait("CALL_CLOSED")
        alarm = await supervisor.wait("node.degraded", lambda e: e["component"] == "rtpengine")
        assert alarm["degraded"]
        await caller.command("dial", node.uri("1001"))
        refused = await caller.wait("CALL_CLOSED", count=2)
        assert "503" in str(refused), refused
        await engine.start()
        await supervisor.wait(
            "node.degraded", lambda e: e["component"] == "rtpengine" and not e["degraded"]
        )
        await node.until_ready()
        await caller.command("dial", node.uri("1001"))
        await console.wait("tap.started", count=2)
        await caller.command("hangup")
        await console.wait("call.ended", count=2)


async def test_the_worker_killed_in_mid_call_leaves_nothing_behind(tmp_path: Path) -> None:
    caller_tone = write_tone(tmp_path / "caller.wav", CALLER_HZ, 60, QUIET)
    agent_tone = write_tone(tmp_path / "agent.wav", AGENT_HZ, 60)
    async with (
        running_baresip(tmp_path / "agent", PHONE, "1001", agent_tone, **NO_BUFFER) as agent,
        running_baresip(tmp_path / "caller", CALLER, "010", caller_tone, **NO_BUFFER) as caller,
        running_engine_node(tmp_path / "node", {"1001": agent.uri}, peer=CALLER, notice=SHORT) as (
            node,
            engine,
        ),
        node.watch("1001") as console,
        capturing(tmp_path / "sip.pcap", PHONE),
    ):
        await caller.command("dial", node.uri("1001"))
        await console.wait("tap.started")
        node.kill("media")
        ended = await console.wait("call.ended")
        assert ended["reason"] == "media_lost"
        await node.wait_for_log("media_ready", count=2)
        assert (await engine.client.ask("list"))["calls"] == []
        await agent.wait("CALL_CLOSED")
        await caller.wait("CALL_CLOSED")
