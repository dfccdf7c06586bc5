"""Whole calls between real telephones through a real rtpengine: what each heard, and when."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from callshield.heard import find, read_growing_wav, read_wav
from sipbridge.prompt_catalogue import SHIPPED
from tests.ng.kit import (
    AGENT_HZ,
    ATTESTED,
    CALLER,
    CALLER_HZ,
    NO_BUFFER,
    PHONE,
    QUIET,
    SHORT,
    running_engine_node,
)
from tests.peers.baresip import running_baresip
from tests.peers.sipp import running_sipp
from tests.peers.sound import blocks, purity, tone_db, write_tone
from tests.peers.tap_copy import copying_tap
from tests.test_peers_call import alaw_tone

pytestmark = [pytest.mark.ng, pytest.mark.peers, pytest.mark.timeout(180)]


async def test_a_whole_call_notice_tap_warning_and_end_with_announcement(tmp_path: Path) -> None:
    caller_tone = write_tone(tmp_path / "caller.wav", CALLER_HZ, 90, QUIET)
    agent_tone = write_tone(tmp_path / "agent.wav", AGENT_HZ, 90)
    async with (
        running_baresip(tmp_path / "agent", PHONE, "1001", agent_tone, **NO_BUFFER) as agent,
        running_baresip(tmp_path / "caller", CALLER, "010", caller_tone, **NO_BUFFER) as caller,
        running_engine_node(tmp_path / "node", {"1001": agent.uri}, peer=CALLER) as (node, engine),
        node.watch("1001") as console,
        copying_tap(node.settings.tap_path) as tap,
    ):
        await caller.command("dial", node.uri("1001"))
        finished = await console.wait("notice.finished")
        tapped = await console.wait("tap.started")
        call_id = finished["call_id"]
        await asyncio.sleep(2)
        path = f"/calls/{call_id}/actions"
        answer = await node.post(path, "1001", {"action": "warn"})
        assert answer.status_code == 200, answer.text
        warned = await console.wait("warning.played")
        await asyncio.sleep(1.5)
        # What rtpengine cannot is refused in words, not in silence.
        answer = await node.post(path, "1001", {"action": "soften"})
        assert "as it comes" in answer.text
        await agent.press("*9#")
        ending = await console.wait("call.ending")
        agent_gone = await agent.wait("CALL_CLOSED")
        caller_gone = await caller.wait("CALL_CLOSED")
        ended = await console.wait("call.ended")
        (closed,) = await node.wait_for_log("media_closed")
        assert (await engine.client.ask("list"))["calls"] == []

        assert finished["source"] == "played"
        assert [stamp["complete"] for stamp in finished["prompts"]] == [True, True]
        assert tapped["ts"] >= finished["prompts"][-1]["finished_ts"]
        assert warned["complete"]
        # At once: long before the announcement to the caller is over.
        assert agent_gone["at"] - ending["ts"] < (caller_gone["at"] - ending["ts"]) / 4
        assert ending["by"] == "agent:dtmf"
        assert ended["reason"] == "ended_with_announcement"
        assert closed["tap_dropped"] == 0
        sound = tap.sound(call_id)[1]

    # Every prompt whole, in order, and the agent not before the gate opened.
    heard = read_growing_wav(caller.recording())
    position, ends = 0.0, []
    for prompt_id in ("abuse_prevention", "recording", "warning_1", "closing"):
        found = find(read_wav(SHIPPED / "ko" / f"{prompt_id}.wav"), heard, after_s=position)
        assert found is not None, prompt_id
        assert found.whole, (prompt_id, found)
        position = found.end_s - 0.1
        ends.append((found.start_s, found.end_s))
    during = blocks(heard[int(0.3 * 8000) : int((ends[1][1] - 0.3) * 8000)])
    assert max(tone_db(block, AGENT_HZ) for block in during) < -30
    talk = blocks(heard[int((ends[1][1] + 0.6) * 8000) : int((ends[2][0] - 0.6) * 8000)])
    assert len(talk) >= 3
    assert min(purity(block, AGENT_HZ) for block in talk) > 0.95
    # The agent heard the caller all along, and no prompt.
    agent_heard = read_growing_wav(agent.recording())
    body = blocks(agent_heard[int(0.6 * 8000) : -int(0.4 * 8000)])
    assert np.median([tone_db(block, CALLER_HZ) for block in body]) > -30
    assert max(tone_db(block, AGENT_HZ) for block in body) < -40
    # And the detector was given the caller: not the agent, not a prompt.
    assert len(sound) > 3 * 8000
    assert min(purity(block, CALLER_HZ) for block in blocks(sound)) > 0.95


async def test_skipped_notice_is_not_whole_and_nothing_is_ever_tapped(tmp_path: Path) -> None:
    """The negative control of the test above: the same judge says "not whole" here."""
    caller_tone = write_tone(tmp_path / "caller.wav", CALLER_HZ, 60, QUIET)
    agent_tone = write_tone(tmp_path / "agent.wav", AGENT_HZ, 60)
    async with (
        running_baresip(tmp_path / "agent", PHONE, "1001", agent_tone, **NO_BUFFER) as agent,
        running_baresip(tmp_path / "caller", CALLER, "010", caller_tone, **NO_BUFFER) as caller,
        running_engine_node(tmp_path / "node", {"1001": agent.uri}, peer=CALLER) as (node, _),
        node.watch("1001") as console,
        copying_tap(node.settings.tap_path) as tap,
    ):
        await caller.command("dial", node.uri("1001"))
        started = await console.wait("notice.started")
        await asyncio.sleep(1.5)  # the caller hears the beginning
        skip = {"action": "skip_notice"}
        answer = await node.post(f"/calls/{started['call_id']}/actions", "1001", skip)
        assert answer.status_code == 200
        await asyncio.sleep(2)  # a conversation in which nothing may be analysed
        await caller.command("hangup")
        ended = await console.wait("call.ended")
        await agent.wait("CALL_CLOSED")
        assert ended["reason"] == "caller_hangup"
        assert not console.seen("tap.started")
        assert not tap.frames
    heard = read_growing_wav(caller.recording())
    notice = find(read_wav(SHIPPED / "ko" / "abuse_prevention.wav"), heard)
    assert notice is not None
    assert 0 < notice.share < 0.6
    tail = blocks(heard[-int(1.2 * 8000) : -int(0.4 * 8000)])
    assert min(purity(block, AGENT_HZ) for block in tail) > 0.95


async def test_an_objection_is_heard_and_nothing_is_ever_tapped(tmp_path: Path) -> None:
    """The caller's key comes by rtpengine's DTMF log; and the agent hangs up in the end."""
    caller_tone = write_tone(tmp_path / "caller.wav", CALLER_HZ, 60, QUIET)
    agent_tone = write_tone(tmp_path / "agent.wav", AGENT_HZ, 60)
    async with (
        running_baresip(tmp_path / "agent", PHONE, "1001", agent_tone, **NO_BUFFER) as agent,
        running_baresip(tmp_path / "caller", CALLER, "010", caller_tone, **NO_BUFFER) as caller,
        running_engine_node(
            tmp_path / "node",
            {"1001": agent.uri},
            peer=CALLER,
            notice=f'{SHORT}objection_key = "9"\n',
        ) as (node, _),
        node.watch("1001") as console,
        copying_tap(node.settings.tap_path) as tap,
    ):
        await caller.command("dial", node.uri("1001"))
        await console.wait("notice.started")
        await asyncio.sleep(1)
        await caller.press("9")
        finished = await console.wait("notice.finished")
        assert finished["source"] == "objected"
        await asyncio.sleep(5)
        await agent.command("hangup")
        ended = await console.wait("call.ended")
        await caller.wait("CALL_CLOSED")
        assert ended["reason"] == "agent_hangup"
        assert not tap.frames


async def test_on_hold_nothing_is_analysed_and_the_music_still_reaches_the_agent(
    tmp_path: Path,
) -> None:
    """Two seconds of talk, three on hold (the PBX plays music), two of talk again."""
    agent_tone = write_tone(tmp_path / "agent.wav", AGENT_HZ, 60)
    async with (
        running_baresip(tmp_path / "agent", PHONE, "1001", agent_tone, **NO_BUFFER) as agent,
        running_engine_node(
            tmp_path / "node",
            {"1001": agent.uri},
            peer=CALLER,
            peer_options="attests_notice = true",
        ) as (node, _),
        running_sipp(
            tmp_path / "pbx",
            CALLER,
            "uac_hold",
            values={"headers": ATTESTED, "audio": str(alaw_tone(tmp_path))},
            target=f"127.0.0.2:{node.pbx_port}",
        ) as pbx,
    ):
        assert await pbx.finish() == 0, pbx.messages()
        (closed,) = await node.wait_for_log("media_closed")
        await agent.wait("CALL_CLOSED")
    assert closed["caller_received"] > 300  # sipp never stopped sending
    assert 120 < closed["tapped"] < 260  # four seconds are 200 frames; seven would be 350
    heard = blocks(read_growing_wav(agent.recording())[int(0.6 * 8000) : -int(0.6 * 8000)])
    assert len(heard) >= 25
    assert min(purity(block, CALLER_HZ) for block in heard) > 0.95
