"""Whole calls between real telephones: what each side really heard, and when."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest

from callshield.g711 import PCMA, encode
from callshield.heard import find, read_growing_wav, read_wav
from sipbridge.prompt_catalogue import SHIPPED
from tests.peers.baresip import running_baresip
from tests.peers.capture import capturing
from tests.peers.node import running_node
from tests.peers.sipp import running_sipp
from tests.peers.sound import blocks, purity, tone_db, write_tone

pytestmark = [pytest.mark.peers, pytest.mark.timeout(180)]

CALLER, PHONE = "127.0.0.4", "127.0.0.5"
#: Our own addresses where a capture must not see the calls of others.
SIDES = ("127.0.3.42", "127.0.3.43")
CALLER_HZ, AGENT_HZ = 1000.0, 1600.0
#: A tone of the caller that the agent's shock guard has nothing against.
QUIET = 0.05
#: One notice instead of two where the test is about something else.
SHORT = '[notice]\nprompts = ["recording"]\n'


def alaw_tone(folder: Path) -> Path:
    """The caller's tone as sipp streams it: raw A-law, whole periods, so that it can be looped."""
    time = np.arange(8000) / 8000
    tone = (QUIET * 32767 * np.sin(2 * np.pi * CALLER_HZ * time)).astype(np.int16)
    path = folder / "tone.al"
    path.write_bytes(encode(tone, PCMA))
    return path


async def test_caller_hears_the_notice_then_the_agent_and_the_closing_before_bye(
    tmp_path: Path,
) -> None:
    caller_tone = write_tone(tmp_path / "caller.wav", CALLER_HZ, 90, QUIET)
    agent_tone = write_tone(tmp_path / "agent.wav", AGENT_HZ, 90)
    async with (
        running_baresip(tmp_path / "agent", PHONE, "1001", agent_tone) as agent,
        running_baresip(tmp_path / "caller", CALLER, "01000000000", caller_tone) as caller,
        running_node(tmp_path / "node", {"1001": agent.uri}, peer=CALLER) as node,
        node.watch("1001") as console,
    ):
        await caller.command("dial", node.uri("1001"))
        await caller.wait("CALL_ESTABLISHED")
        finished = await console.wait("notice.finished")
        tapped = await console.wait("tap.started")
        await asyncio.sleep(2)  # two seconds of conversation: this is what is recorded
        await agent.press("*9#")
        ending = await console.wait("call.ending")
        agent_gone = await agent.wait("CALL_CLOSED")
        caller_gone = await caller.wait("CALL_CLOSED")
        ended = await console.wait("call.ended")

        assert finished["source"] == "played"
        assert [stamp["complete"] for stamp in finished["prompts"]] == [True, True]
        assert tapped["ts"] >= finished["prompts"][-1]["finished_ts"]
        # At once: long before the announcement to the caller is over.
        assert agent_gone["at"] - ending["ts"] < (caller_gone["at"] - ending["ts"]) / 4
        assert ending["by"] == "agent:dtmf"
        assert ended["reason"] == "ended_with_announcement"
        assert caller_gone["at"] > ending["ts"] + 1

    heard = read_growing_wav(caller.recording())
    position = 0.0
    for prompt_id in ("abuse_prevention", "recording"):
        found = find(read_wav(SHIPPED / "ko" / f"{prompt_id}.wav"), heard, after_s=position)
        assert found is not None, prompt_id
        assert found.whole, prompt_id
        position = found.end_s - 0.1
    closing = find(read_wav(SHIPPED / "ko" / "closing.wav"), heard, after_s=position)
    assert closing is not None
    assert closing.whole

    # Before the gate opened the caller heard nothing of the agent; afterwards nothing but.
    during = blocks(heard[int(0.3 * 8000) : int((position - 0.3) * 8000)])
    assert max(tone_db(block, AGENT_HZ) for block in during) < -30
    talk = blocks(heard[int((position + 0.4) * 8000) : int((closing.start_s - 1.5) * 8000)])
    assert len(talk) >= 3
    assert min(purity(block, AGENT_HZ) for block in talk) > 0.95

    # The agent heard the caller all along (under a soft tone while the notice played), never a
    # word of the notice, never itself.
    agent_heard = read_growing_wav(agent.recording())
    body = blocks(agent_heard[int(0.6 * 8000) : -int(0.4 * 8000)])
    assert np.median([tone_db(block, CALLER_HZ) for block in body]) > -30
    assert max(tone_db(block, AGENT_HZ) for block in body) < -40
    talk = blocks(agent_heard[-int(2.0 * 8000) : -int(0.6 * 8000)])
    assert min(purity(block, CALLER_HZ) for block in talk) > 0.95
    notice = find(read_wav(SHIPPED / "ko" / "abuse_prevention.wav"), agent_heard)
    assert notice is None or notice.share < 0.2


async def test_skipped_notice_is_not_whole_and_nothing_is_ever_tapped(tmp_path: Path) -> None:
    """The negative control of the test above: the same judge says "not whole" here."""
    caller_tone = write_tone(tmp_path / "caller.wav", CALLER_HZ, 60, QUIET)
    agent_tone = write_tone(tmp_path / "agent.wav", AGENT_HZ, 60)
    async with (
        running_baresip(tmp_path / "agent", PHONE, "1001", agent_tone) as agent,
        running_baresip(tmp_path / "caller", CALLER, "01000000000", caller_tone) as caller,
        running_node(tmp_path / "node", {"1001": agent.uri}, peer=CALLER) as node,
        node.watch("1001") as console,
    ):
        await caller.command("dial", node.uri("1001"))
        await console.wait("notice.started")
        await asyncio.sleep(1.5)  # the caller hears the beginning
        started = console.seen("call.started")[0]
        skip = {"action": "skip_notice"}
        answer = await node.post(f"/calls/{started['call_id']}/actions", "1001", skip)
        assert answer.status_code == 200
        finished = await console.wait("notice.finished")
        await asyncio.sleep(2)  # a conversation in which nothing may be analysed
        await caller.command("hangup")
        ended = await console.wait("call.ended")
        assert finished["source"] == "skipped"
        assert not finished["tapped"]
        assert ended["reason"] == "caller_hangup"
        assert not console.seen("tap.started")
        (closed,) = await node.wait_for_log("media_closed")
        assert closed["tapped"] + closed["tap_dropped"] == 0

    heard = read_growing_wav(caller.recording())
    notice = find(read_wav(SHIPPED / "ko" / "abuse_prevention.wav"), heard)
    assert notice is not None
    assert 0 < notice.share < 0.5
    tail = blocks(heard[-int(1.2 * 8000) : -int(0.4 * 8000)])
    assert min(purity(block, AGENT_HZ) for block in tail) > 0.95


async def test_sipp_to_baresip_both_ways_with_a_notice_that_the_pbx_played(tmp_path: Path) -> None:
    agent_tone = write_tone(tmp_path / "agent.wav", AGENT_HZ, 60)
    audio = alaw_tone(tmp_path)
    headers = (
        "X-Callshield-Notice: abuse_prevention, recording\n"
        "X-Asterisk-Uniqueid: 1700000000.42\n"
        "X-Queue: support\n"
        "Supported: timer\n"
        "Session-Expires: 600\n"
        "P-Asserted-Identity: <sip:+82212345678@pbx>\n"
        "Diversion: <sip:600@pbx>;reason=unconditional\n"
    )
    async with (
        running_baresip(tmp_path / "agent", PHONE, "1001", agent_tone) as agent,
        running_node(
            tmp_path / "node",
            {"1001": agent.uri},
            peer=CALLER,
            peer_options="attests_notice = true",
        ) as node,
        node.watch("1001") as console,
        capturing(tmp_path / "caller.pcap", CALLER) as capture,
        running_sipp(
            tmp_path / "pbx",
            CALLER,
            "uac_talk",
            values={"headers": headers, "audio": str(audio), "talk_ms": "4000"},
            target=f"127.0.0.2:{node.pbx_port}",
        ) as pbx,
    ):
        answered = await console.wait("call.answered")
        finished = await console.wait("notice.finished")
        await console.wait("tap.started")
        assert await pbx.finish() == 0
        ended = await console.wait("call.ended")
        assert (finished["source"], finished["attested_by"]) == ("upstream", "pbx")
        # At once: long before the notice would have been over.
        notice_s = len(read_wav(SHIPPED / "ko" / "abuse_prevention.wav")) / 8000
        assert finished["ts"] - answered["ts"] < notice_s / 4
        assert ended["reason"] == "caller_hangup"
        # The PBX's own id is in every event of the call.
        assert {event["pbx_call_id"] for event in console.events} == {"1700000000.42"}
        # RFC 4028: the PBX asked for a session timer and gets one.
        (ok,) = [r for r in pbx.received("SIP/2.0 200") if "application/sdp" in r]
        assert "Session-Expires: 600;refresher=" in ok
        await agent.wait("CALL_CLOSED")
        ports = await capture.rtp_ports()
        assert len(ports) == 1, ports
        heard = await capture.pcma(ports.pop())

    talk = blocks(heard[int(0.5 * 8000) : -int(0.5 * 8000)])
    assert len(talk) >= 10
    assert min(purity(block, AGENT_HZ) for block in talk) > 0.95
    agent_heard = blocks(read_growing_wav(agent.recording())[int(0.6 * 8000) : -int(0.6 * 8000)])
    assert len(agent_heard) >= 8
    assert min(purity(block, CALLER_HZ) for block in agent_heard) > 0.95


@pytest.mark.parametrize("language", ["en", "zh", "ja"])
async def test_console_ends_the_call_and_two_presses_are_one_end(
    tmp_path: Path, language: str
) -> None:
    caller_tone = write_tone(tmp_path / "caller.wav", CALLER_HZ, 60, QUIET)
    agent_tone = write_tone(tmp_path / "agent.wav", AGENT_HZ, 60)
    async with (
        running_baresip(tmp_path / "agent", PHONE, "1001", agent_tone) as agent,
        running_baresip(tmp_path / "caller", CALLER, "01000000000", caller_tone) as caller,
        running_node(
            tmp_path / "node",
            {"1001": agent.uri},
            peer=CALLER,
            extra=f'{SHORT}language = "{language}"\n',
        ) as node,
        node.watch("1001") as console,
    ):
        await caller.command("dial", node.uri("1001"))
        started = await console.wait("call.started")
        await console.wait("notice.finished")
        path = f"/calls/{started['call_id']}/actions"
        answers = await asyncio.gather(
            *(node.post(path, "1001", {"action": "end"}) for _ in range(2))
        )
        assert [answer.status_code for answer in answers] == [200, 200]
        agent_gone = await agent.wait("CALL_CLOSED")
        ending = await console.wait("call.ending")
        caller_gone = await caller.wait("CALL_CLOSED")
        # At once: long before the announcement to the caller is over.
        assert agent_gone["at"] - ending["ts"] < (caller_gone["at"] - ending["ts"]) / 4
        ended = await console.wait("call.ended")
        assert ended["reason"] == "ended_with_announcement"
        assert len(console.seen("call.ending")) == 1
    # In the configured language, both the notice and the closing.
    heard = read_growing_wav(caller.recording())
    for prompt_id in ("recording", "closing"):
        found = find(read_wav(SHIPPED / language / f"{prompt_id}.wav"), heard)
        assert found is not None, prompt_id
        assert found.whole, prompt_id


async def test_a_call_outlives_detector_and_notifier(tmp_path: Path) -> None:
    """kill -9 of both in mid-call: no packet lost, and the consoles come back to a live call."""
    caller_tone = write_tone(tmp_path / "caller.wav", CALLER_HZ, 90, QUIET)
    agent_tone = write_tone(tmp_path / "agent.wav", AGENT_HZ, 90)
    async with (
        running_baresip(tmp_path / "agent", PHONE, "1001", agent_tone) as agent,
        running_baresip(tmp_path / "caller", CALLER, "01000000000", caller_tone) as caller,
        running_node(
            tmp_path / "node", {"1001": agent.uri}, peer=CALLER, sides=SIDES, extra=SHORT
        ) as node,
        capturing(tmp_path / "pbx.pcap", SIDES[0]) as pbx_side,
        capturing(tmp_path / "phone.pcap", SIDES[1]) as phone_side,
    ):
        async with node.watch("1001") as console:
            await caller.command("dial", node.uri("1001"))
            started = await console.wait("call.started")
            await console.wait("tap.started")
        node.kill("detector")
        node.kill("notifier")
        await agent.press("*8#")  # nobody is there to hear it: it must not be lost
        await node.wait_for_log("process_died", count=2)
        await node.until_ready()
        async with node.watch("1001", last_event_id=0) as console:
            await console.wait("tap.started")
            await console.wait("alert.raised", lambda event: event["kind"] == "help")
            answer = await node.post(
                f"/calls/{started['call_id']}/actions", "1001", {"action": "end"}
            )
            assert answer.status_code == 200, answer.text
            ended = await console.wait("call.ended")
            assert ended["reason"] == "ended_with_announcement"
        await agent.wait("CALL_CLOSED")
        await caller.wait("CALL_CLOSED")
        for capture, side in ((pbx_side, SIDES[0]), (phone_side, SIDES[1])):
            (port,) = await capture.media_ports()
            streams = [s for s in await capture.streams(port) if s.source == (side, port)]
            assert streams
            assert {(stream.lost, stream.problems) for stream in streams} == {(0, False)}


async def test_a_notice_that_cannot_be_played_leaves_the_call_untapped_and_alarms(
    tmp_path: Path,
) -> None:
    """Principle 3, with a real fault: the file vanished after the node had checked it."""
    prompts = tmp_path / "prompts"
    shutil.copytree(SHIPPED / "ko", prompts / "ko")
    caller_tone = write_tone(tmp_path / "caller.wav", CALLER_HZ, 60, QUIET)
    agent_tone = write_tone(tmp_path / "agent.wav", AGENT_HZ, 60)
    async with (
        running_baresip(tmp_path / "agent", PHONE, "1001", agent_tone) as agent,
        running_baresip(tmp_path / "caller", CALLER, "01000000000", caller_tone) as caller,
        running_node(
            tmp_path / "node",
            {"1001": agent.uri},
            peer=CALLER,
            extra=f'[notice]\nprompt_dir = "{prompts}"\nprompts = ["recording"]\n',
        ) as node,
        node.watch("supervisor") as supervisor,
    ):
        for copy in node.settings.kept_prompts_path.rglob("recording.wav"):
            copy.unlink()
        await caller.command("dial", node.uri("1001"))
        finished = await supervisor.wait("notice.finished")
        alert = await supervisor.wait("alert.raised")
        await asyncio.sleep(1.5)  # a conversation in which nothing may be analysed
        await caller.command("hangup")
        await supervisor.wait("call.ended")
        assert (finished["source"], finished["tapped"]) == ("failed", False)
        assert alert["kind"] == "notice_failed"
        (closed,) = await node.wait_for_log("media_closed")
        assert closed["tapped"] + closed["tap_dropped"] == 0
    tail = blocks(read_growing_wav(caller.recording())[-int(1.2 * 8000) : -int(0.4 * 8000)])
    assert min(purity(block, AGENT_HZ) for block in tail) > 0.95


async def test_on_hold_nothing_is_analysed_and_the_music_still_reaches_the_agent(
    tmp_path: Path,
) -> None:
    """Two seconds of talk, three on hold (the PBX plays music), two of talk again."""
    agent_tone = write_tone(tmp_path / "agent.wav", AGENT_HZ, 60)
    headers = "X-Callshield-Notice: abuse_prevention, recording\n"
    async with (
        running_baresip(tmp_path / "agent", PHONE, "1001", agent_tone) as agent,
        running_node(
            tmp_path / "node",
            {"1001": agent.uri},
            peer=CALLER,
            peer_options="attests_notice = true",
        ) as node,
        running_sipp(
            tmp_path / "pbx",
            CALLER,
            "uac_hold",
            values={"headers": headers, "audio": str(alaw_tone(tmp_path))},
            target=f"127.0.0.2:{node.pbx_port}",
        ) as pbx,
    ):
        assert await pbx.finish() == 0, pbx.messages()
        (closed,) = await node.wait_for_log("media_closed")
        await agent.wait("CALL_CLOSED")
    # Resumed by a late offer, then a re-INVITE with nothing we carry: 488, the call goes on.
    assert closed["caller_received"] > 300  # sipp never stopped sending
    assert 120 < closed["tapped"] < 260  # four seconds are 200 frames; seven would be 350
    assert closed["tap_dropped"] == 0
    heard = blocks(read_growing_wav(agent.recording())[int(0.6 * 8000) : -int(0.6 * 8000)])
    assert len(heard) >= 25
    assert min(purity(block, CALLER_HZ) for block in heard) > 0.95


async def test_control_c_lets_the_call_end_before_its_audio(tmp_path: Path) -> None:
    caller_tone = write_tone(tmp_path / "caller.wav", CALLER_HZ, 60, QUIET)
    agent_tone = write_tone(tmp_path / "agent.wav", AGENT_HZ, 60)
    async with (
        running_baresip(tmp_path / "agent", PHONE, "1001", agent_tone) as agent,
        running_baresip(tmp_path / "caller", CALLER, "01000000000", caller_tone) as caller,
        running_node(tmp_path / "node", {"1001": agent.uri}, peer=CALLER, extra=SHORT) as node,
        node.watch("1001") as console,
    ):
        await caller.command("dial", node.uri("1001"))
        await console.wait("tap.started")
        node.press_control_c()
        await caller.wait("CALL_CLOSED")
        await agent.wait("CALL_CLOSED")
        (ended,) = await node.wait_for_log("call_ended")
        assert ended["reason"] == "shutdown"
        assert await node.stop() == 0
        assert not node.logs("process_died")
