"""The bridge is killed in a call that rtpengine carries: the audio goes on, a hang-up is heard."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from callshield.heard import read_growing_wav
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
from tests.peers.sound import blocks, tone_db, write_tone

pytestmark = [pytest.mark.ng, pytest.mark.peers, pytest.mark.timeout(180)]


async def test_a_call_outlives_its_bridge(tmp_path: Path) -> None:
    caller_tone = write_tone(tmp_path / "caller.wav", CALLER_HZ, 90, QUIET)
    agent_tone = write_tone(tmp_path / "agent.wav", AGENT_HZ, 90)
    async with (
        running_baresip(tmp_path / "agent", PHONE, "1001", agent_tone, **NO_BUFFER) as agent,
        running_baresip(tmp_path / "caller", CALLER, "010", caller_tone, **NO_BUFFER) as caller,
        running_engine_node(tmp_path / "node", {"1001": agent.uri}, peer=CALLER, notice=SHORT) as (
            node,
            engine,
        ),
        node.watch("1001") as console,
    ):
        await caller.command("dial", node.uri("1001"))
        await console.wait("tap.started")
        node.kill("bridge")
        await node.wait_for_log("bridge_ready", count=2)
        (kept,) = await node.wait_for_log("calls_kept")
        assert kept["calls"] == 1
        await node.until_ready()
        await asyncio.sleep(2)  # talk under the second bridge: this is what is judged
        await caller.command("hangup")
        await agent.wait("CALL_CLOSED")
        ended = await console.wait("call.ended")
        assert ended["reason"] == "caller_hangup"
        await node.wait_for_log("media_closed")
        assert (await engine.client.ask("list"))["calls"] == []
    # Until the end, the last second included, the caller heard the agent.
    last = blocks(read_growing_wav(caller.recording())[-int(1.4 * 8000) : -int(0.4 * 8000)])
    assert len(last) >= 2
    assert min(tone_db(block, AGENT_HZ) for block in last) > -20
