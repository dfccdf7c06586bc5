"""The media worker beside a real rtpengine: what each side hears, what the detector is given."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from callshield.free_ports import free_port
from callshield.messages import LegName, NodeDegraded, TapStarted
from callshield.messages_media import (
    CallerPressed,
    CloseSession,
    CodePressed,
    DigitReceived,
    DigitUndelivered,
    EarUpdate,
    LegOpened,
    MediaFailed,
    OpenLeg,
    PlayFinished,
    SessionClosed,
    StopPlay,
)
from callshield.tap import TapCodec, TapKind
from sipbridge.ng_client import NgClient
from sipbridge.rtpengine_process import Rtpengine
from tests.ng.kit import engine_for, plane_settings, running_plane
from tests.rtp_peer import (
    Bridge,
    Call,
    Detector,
    RtpPeer,
    decoded,
    payloads,
    strength,
    tone,
    write_wav,
)

pytestmark = pytest.mark.ng


async def talk(call: Call, caller_hz: float, agent_hz: float, seconds: float = 0.5) -> int:
    """Both talk at once, each in a tone, as telephones do; packets each way."""
    frames = list(
        zip(payloads(tone(caller_hz, seconds)), payloads(tone(agent_hz, seconds)), strict=True)
    )
    for from_caller, from_agent in frames:
        call.caller.say(from_caller)
        call.agent.say(from_agent)
        await asyncio.sleep(0.01)
    return len(frames)


async def until_open(call: Call) -> None:
    """Talk until each side has heard the other: rtpengine has been told, however late."""
    async with asyncio.timeout(20):
        while not (call.caller.heard and call.agent.heard):
            await talk(call, 300, 300, 0.1)
    # What is still on its way; packets tell nobody that they were the last.
    came = -1
    while came < (came := len(call.caller.heard) + len(call.agent.heard)):  # noqa: ASYNC110
        await asyncio.sleep(0.3)
    call.caller.heard.clear()
    call.agent.heard.clear()


async def test_each_side_hears_the_other_and_only_the_other(call: Call) -> None:
    await call.flow()
    await until_open(call)
    count = await talk(call, 440, 1000)
    at_agent = await call.agent.hear(count)
    at_caller = await call.caller.hear(count)
    assert strength(decoded(at_agent), 440) > 0.95
    assert strength(decoded(at_agent), 1000) < 0.01
    assert strength(decoded(at_caller), 1000) > 0.95
    assert strength(decoded(at_caller), 440) < 0.01


async def test_nothing_passes_before_the_gate_opens(call: Call) -> None:
    await talk(call, 440, 1000)
    await call.flow(to_agent=True, to_caller=False)
    async with asyncio.timeout(20):
        while not call.agent.heard:
            await talk(call, 500, 1200, 0.1)
    await talk(call, 500, 1200)
    assert call.caller.heard == []
    call.bridge.send(CloseSession(call_id=call.call_id))
    closed = await call.bridge.expect(SessionClosed)
    assert closed.agent.received >= 50
    assert call.caller.heard == []


async def test_only_the_callers_audio_reaches_the_tap(call: Call, detector: Detector) -> None:
    await call.flow()
    await until_open(call)
    await talk(call, 440, 1000)
    assert detector.frames == []
    await call.flow(tap=True)
    async with asyncio.timeout(20):
        while not detector.frames:
            await talk(call, 440, 1000, 0.1)
    started = await call.bridge.expect(TapStarted)
    assert started.call_id == call.call_id
    count = len(detector.frames)
    await talk(call, 440, 1000)
    # The sequence numbers are the caller's own: a gap is a loss on the caller's side.
    last = (call.caller.sequence - 1) & 0xFFFF
    frames = (await detector.until(lambda f: f[-1].sequence == last))[count:]
    assert len(frames) >= 25
    assert {frame.call_id.hex() for frame in frames} == {call.call_id}
    assert {(frame.kind, frame.codec) for frame in frames} == {(TapKind.AUDIO, TapCodec.PCMU)}
    heard = decoded(frames)
    assert strength(heard, 440) > 0.95
    assert strength(heard, 1000) < 0.01
    await call.flow(tap=False)
    frames = await detector.until(lambda f: f[-1].kind is TapKind.DETACH)
    count = len(frames)
    await talk(call, 440, 1000)
    assert len(detector.frames) == count


async def test_rtpengine_is_asked_for_callers_alone_and_to_record_nobody(
    call: Call, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rtpengine could copy or record anybody: what it is asked for is read."""
    asked: list[tuple[str, dict[str, Any]]] = []
    ask = NgClient.ask

    async def told(self: NgClient, command: str, body: dict[str, Any] | None = None) -> Any:
        asked.append((command, body or {}))
        return await ask(self, command, body)

    monkeypatch.setattr(NgClient, "ask", told)
    await call.flow(tap=True)
    async with asyncio.timeout(20):
        while not detector.frames:
            await talk(call, 440, 1000, 0.1)
    await call.flow(tap=True, paused=True)
    await call.flow(tap=True)
    call.play(1, LegName.CALLER, [write_wav(tmp_path / "p.wav", tone(700, 0.3))])
    await call.bridge.expect(PlayFinished)
    call.negotiate(LegName.CALLER, address=call.caller.address, payload_type=8)
    call.negotiate(LegName.AGENT, payload_type=8)
    await call.flow(tap=False)
    call.bridge.send(CloseSession(call_id=call.call_id))
    await call.bridge.expect(SessionClosed)
    copied = [body for command, body in asked if command == "subscribe request"]
    assert copied
    assert {body["from-tag"] for body in copied} == {"caller"}
    assert not [body for body in copied if body.keys() & {"all", "flags", "from-tags", "label"}]
    allowed = {"offer", "answer", "delete", "query", "ping", "list", "unsubscribe"}
    allowed |= {f"{verb} {what}" for verb in ("block", "unblock") for what in ("media", "DTMF")}
    allowed |= {"subscribe request", "subscribe answer", "play media", "stop media"}
    assert {command for command, _ in asked} <= allowed


async def test_the_callers_prompt_is_heard_whole_and_alone_and_its_end_is_told(
    call: Call, tmp_path: Path
) -> None:
    one = write_wav(tmp_path / "one.wav", tone(700, 1.0, 8000))
    two = write_wav(tmp_path / "two.wav", tone(900, 0.8, 8000))
    await call.flow()
    await until_open(call)
    loop = asyncio.get_running_loop()
    began = loop.time()
    call.play(7, LegName.CALLER, [one, two])
    ended = asyncio.create_task(call.bridge.expect(PlayFinished))
    while not ended.done():
        await talk(call, 440, 1000, 0.1)
    played = ended.result()
    assert (played.play_id, played.leg, played.complete, played.error) == (
        7,
        LegName.CALLER,
        True,
        "",
    )
    assert [round(end - start, 1) for start, end in played.spans] == [1.0, 0.8]
    assert loop.time() - began >= 1.8
    # After its end the agent is heard again, and was not while it played.
    await asyncio.sleep(0.2)
    prompt = [p for p in call.caller.heard if p.ssrc != call.agent.ssrc]
    assert len(prompt) * 0.02 == pytest.approx(1.8, abs=0.1)
    sound = decoded(prompt)
    assert strength(sound[:7000], 700) > 0.95
    assert strength(sound[-6000:], 900) > 0.95
    first, last = call.caller.heard.index(prompt[0]), call.caller.heard.index(prompt[-1])
    assert last - first == len(prompt) - 1
    before = len(call.caller.heard)
    await talk(call, 440, 1000)
    assert strength(decoded(await call.caller.hear(before + 20))[before * 160 :], 1000) > 0.9


async def test_a_prompt_that_is_stopped_is_told_at_once_and_heard_no_more(
    call: Call, tmp_path: Path
) -> None:
    prompt = write_wav(tmp_path / "long.wav", tone(700, 20.0, 8000))
    call.play(3, LegName.CALLER, [prompt])
    await call.caller.hear(20)
    call.bridge.send(StopPlay(call_id=call.call_id, leg=LegName.CALLER))
    played = await call.bridge.expect(PlayFinished)
    assert (played.play_id, played.complete, played.error) == (3, False, "")
    await asyncio.sleep(0.3)
    count = len(call.caller.heard)
    await asyncio.sleep(0.3)
    assert len(call.caller.heard) == count
    assert played.spans[0][1] - played.spans[0][0] < 10


async def test_a_prompt_replaces_the_one_before_and_a_loop_goes_on(
    call: Call, tmp_path: Path
) -> None:
    short = write_wav(tmp_path / "short.wav", tone(700, 0.2, 8000))
    other = write_wav(tmp_path / "other.wav", tone(900, 0.5, 8000))
    call.play(1, LegName.CALLER, [short], loop=True)
    await call.caller.hear(50)
    call.play(2, LegName.CALLER, [other])
    first = await call.bridge.expect(PlayFinished)
    second = await call.bridge.expect(PlayFinished)
    assert (first.play_id, first.complete) == (1, False)
    assert (second.play_id, second.complete) == (2, True)
    assert strength(decoded(call.caller.heard[-20:]), 900) > 0.95


@pytest.mark.parametrize("what", ["missing", "cut", "not heard"])
async def test_a_prompt_that_cannot_be_heard_is_no_notice(
    call: Call, tmp_path: Path, what: str
) -> None:
    path = write_wav(tmp_path / "prompt.wav", tone(700, 1.0))
    if what == "missing":
        path = tmp_path / "none.wav"
    elif what == "cut":
        path.write_bytes(path.read_bytes()[:8000])
    else:
        call.negotiate(LegName.CALLER, address=("0.0.0.0", 4000))
    call.play(1, LegName.CALLER, [path])
    played = await call.bridge.expect(PlayFinished)
    assert not played.complete
    assert played.error
    await asyncio.sleep(0.2)
    assert call.caller.heard == []


async def test_a_prompt_in_a_call_that_rtpengine_lost_is_no_notice(
    call: Call, engine: Rtpengine, tmp_path: Path
) -> None:
    path = write_wav(tmp_path / "prompt.wav", tone(700, 1.0))
    call.play(1, LegName.CALLER, [path])
    await call.caller.hear(5)
    (name,) = (await engine.client.ask("list"))["calls"]
    await engine.client.ask("delete", {"call-id": name, "from-tag": "caller", "delete delay": 0})
    assert not (await call.bridge.expect(PlayFinished)).complete


async def test_a_mixed_or_quiet_prompt_is_refused_not_played_loud(
    call: Call, tmp_path: Path
) -> None:
    path = write_wav(tmp_path / "tone.wav", tone(700, 1.0))
    for more in ({"mix": True}, {"gain_db": -18.0}):
        call.play(1, LegName.AGENT, [path], **more)
        played = await call.bridge.expect(PlayFinished)
        assert not played.complete
        assert "mixes nothing" in played.error
    assert call.agent.heard == []


async def test_mulaw_caller_talks_to_alaw_phone(bridge: Bridge, detector: Detector) -> None:
    call = await Call.set_up(bridge, caller_type=0, agent_type=8)
    await call.flow(tap=True)
    async with asyncio.timeout(20):
        while not (call.agent.heard and call.caller.heard and detector.frames):
            for mu, a in zip(
                payloads(tone(440, 0.1), 0), payloads(tone(1000, 0.1), 8), strict=True
            ):
                call.caller.say(mu, 0)
                call.agent.say(a, 8)
                await asyncio.sleep(0.02)
    call.agent.heard.clear()
    call.caller.heard.clear()
    detector.frames.clear()
    for mu, a in zip(payloads(tone(440, 0.5), 0), payloads(tone(1000, 0.5), 8), strict=True):
        call.caller.say(mu, 0)
        call.agent.say(a, 8)
        await asyncio.sleep(0.02)
    at_agent = await call.agent.hear(20)
    at_caller = await call.caller.hear(20)
    assert {packet.payload_type for packet in at_agent} == {8}
    assert strength(decoded(at_agent, 8), 440) > 0.9
    assert {packet.payload_type for packet in at_caller} == {0}
    assert strength(decoded(at_caller, 0), 1000) > 0.9
    # What is tapped is what the caller sent, not what was made of it.
    assert {frame.codec for frame in detector.frames} == {TapCodec.PCMU}
    call.hang_up()


@pytest.mark.parametrize("number", [96, 101])
async def test_feature_codes_are_told_once_and_never_heard_by_the_caller(
    call: Call, number: int
) -> None:
    """Under the caller's number of telephone-event (101), and under another."""
    call.negotiate(LegName.AGENT, event_payload_type=number)
    await call.flow()
    await until_open(call)
    for event in (10, 9, 11):
        call.agent.press(event, number)
        await asyncio.sleep(0.1)
    told = await call.bridge.expect(CodePressed)
    assert (told.leg, told.code) == (LegName.AGENT, "*9#")
    await talk(call, 440, 1000, 0.2)
    assert {p.payload_type for p in await call.caller.hear(10)} == {0}


async def test_the_agents_other_digits_go_on_by_info_once_the_gate_is_open(call: Call) -> None:
    await call.flow(to_caller=False)
    call.agent.press(5, 96)
    await asyncio.sleep(0.5)
    await call.flow()
    for event in (1, 10, 2):  # *2 begins no code
        call.agent.press(event, 96)
        await asyncio.sleep(0.1)
    told = [(await call.bridge.expect(DigitUndelivered)).digit for _ in range(3)]
    assert told == ["1", "*", "2"]


async def test_the_callers_keys_are_told_only_while_the_notice_asks(call: Call) -> None:
    call.negotiate(LegName.AGENT, event_payload_type=101)
    await call.flow()
    await until_open(call)
    call.caller.press(1)
    await call.agent.until(lambda heard: any(p.payload_type == 101 for p in heard))
    await call.flow(keys=True)
    await asyncio.sleep(0.2)
    call.caller.press(9)
    pressed = await call.bridge.expect(CallerPressed)
    assert pressed.digit == "9"
    assert not [m for m in call.bridge.messages if isinstance(m, CallerPressed)]


async def test_the_callers_key_goes_by_info_to_a_phone_that_knows_it_by_another_number(
    call: Call,
) -> None:
    await call.flow()
    await until_open(call)
    call.caller.press(1)
    told = await call.bridge.expect(DigitUndelivered)
    assert (told.leg, told.digit) == (LegName.CALLER, "1")
    await talk(call, 440, 1000, 0.2)
    assert {p.payload_type for p in call.agent.heard} == {0}


async def test_card_data_reach_neither_agent_nor_tap(call: Call, detector: Detector) -> None:
    await call.flow(tap=True)
    async with asyncio.timeout(20):
        while not detector.frames:
            await talk(call, 440, 1000, 0.1)
    await call.flow(tap=True, paused=True, keys=True)
    await detector.until(lambda f: f[-1].kind is TapKind.DETACH)
    await asyncio.sleep(0.3)
    call.agent.heard.clear()
    count = len(detector.frames)
    call.caller.press(4)
    await talk(call, 440, 1000)
    assert {p.payload_type for p in await call.agent.hear(20)} == {0}
    assert len(detector.frames) == count
    assert not [m for m in call.bridge.messages if isinstance(m, CallerPressed)]


async def test_a_digit_by_info_takes_the_same_way(call: Call) -> None:
    await call.flow()
    for digit in "*8#":
        call.bridge.send(DigitReceived(call_id=call.call_id, leg=LegName.AGENT, digit=digit))
    assert (await call.bridge.expect(CodePressed)).code == "*8#"
    call.bridge.send(DigitReceived(call_id=call.call_id, leg=LegName.CALLER, digit="7"))
    told = await call.bridge.expect(DigitUndelivered)
    assert (told.leg, told.digit) == (LegName.CALLER, "7")


async def test_a_caller_who_moves_keeps_the_ports_and_the_gates(call: Call) -> None:
    await call.flow(to_caller=False)
    async with asyncio.timeout(20):
        while not call.agent.heard:
            await talk(call, 440, 1000, 0.1)
    moved = await RtpPeer.open("127.0.0.1")
    moved.target = call.caller.target
    call.negotiate(LegName.CALLER, address=moved.address)
    call.agent.heard.clear()
    async with asyncio.timeout(20):
        while not call.agent.heard:
            for frame in payloads(tone(600, 0.1)):
                moved.say(frame)
                call.agent.say(frame)
                await asyncio.sleep(0.01)
    assert moved.heard == []  # the agent's gate is still shut
    await call.flow()
    async with asyncio.timeout(20):
        while not moved.heard:
            for frame in payloads(tone(600, 0.1)):
                call.agent.say(frame)
                await asyncio.sleep(0.01)
    moved.close()


async def test_a_caller_who_changes_the_codec_is_still_tapped(
    call: Call, detector: Detector
) -> None:
    await call.flow(tap=True)
    async with asyncio.timeout(20):
        while not detector.frames:
            await talk(call, 440, 1000, 0.1)
    for leg in (LegName.CALLER, LegName.AGENT):
        call.negotiate(leg, payload_type=8)
    async with asyncio.timeout(20):
        while TapCodec.PCMA not in {frame.codec for frame in detector.frames}:
            for frame in payloads(tone(440, 0.1), 8):
                call.caller.say(frame, 8)
                await asyncio.sleep(0.01)
    kinds = [(frame.kind, frame.codec) for frame in detector.frames]
    before = [kind for kind in kinds if kind == (TapKind.AUDIO, TapCodec.PCMU)]
    assert before
    assert TapKind.DETACH in {kind for kind, _ in kinds}


async def test_a_prompt_that_was_exchanged_on_the_disk_is_not_played(
    call: Call, tmp_path: Path
) -> None:
    """Its stamp would name another file than the one that was heard."""
    path = write_wav(tmp_path / "prompt.wav", tone(700, 0.5))
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    call.play(1, LegName.CALLER, [path], sha256=["0" * 64])
    played = await call.bridge.expect(PlayFinished)
    assert not played.complete
    assert "sha256 differs" in played.error
    assert call.caller.heard == []
    call.play(2, LegName.CALLER, [path], sha256=[right])
    assert (await call.bridge.expect(PlayFinished)).complete


async def test_a_stranger_is_not_heard(call: Call) -> None:
    """RTP from anywhere but the address of the SDP (CVE-2017-14099 and others)."""
    await call.flow()
    stranger = await RtpPeer.open("127.0.0.9")
    stranger.target = call.caller.target
    async with asyncio.timeout(20):
        while not call.agent.heard:
            for frame in payloads(tone(600, 0.1)):
                stranger.say(frame)
            await talk(call, 440, 1000, 0.1)
    for frame in payloads(tone(600, 0.5)):
        stranger.say(frame)
        await talk(call, 440, 1000, 0.02)
    assert {p.ssrc for p in call.agent.heard} == {call.caller.ssrc}
    assert stranger.heard == []
    stranger.close()


async def test_a_stranger_who_was_followed_is_seen_and_shaken_off(tmp_path: Path) -> None:
    """With ``learn_addresses`` rtpengine follows whoever sends first; not for long."""
    networks = {"networks": ["127.0.0.1/32"]}
    control = ("127.0.0.1", free_port("127.0.0.1"))
    settings = plane_settings(tmp_path, control, learn=True, sip={"pbx": networks})
    async with (
        engine_for(tmp_path, settings.media.rtpengine.dtmf_log, control[1]),
        running_plane(settings),
    ):
        bridge = Bridge(settings)
        call = await Call.set_up(bridge)
        await call.flow()
        stranger = await RtpPeer.open("127.0.0.9")
        stranger.target = call.caller.target
        async with asyncio.timeout(20):
            while not stranger.heard:  # the negative control: he is followed
                for frame in payloads(tone(600, 0.1)):
                    stranger.say(frame)
                    call.agent.say(frame)
                    await asyncio.sleep(0.01)
        alarm = asyncio.create_task(
            bridge.expect(NodeDegraded, component="rtpengine", degraded=True)
        )
        while not alarm.done():
            for frame in payloads(tone(600, 0.1)):
                stranger.say(frame)
                call.agent.say(frame)
                await asyncio.sleep(0.01)
        assert "a stranger" in alarm.result().reason
        await until_open(call)
        stranger.heard.clear()
        for _ in range(10):
            stranger.say(payloads(tone(600, 0.02))[0])
            await talk(call, 440, 1000, 0.04)
        assert stranger.heard == []
        assert {p.ssrc for p in call.agent.heard} == {call.caller.ssrc}
        stranger.close()
        call.hang_up()
        await bridge.close()


async def test_what_rtpengine_cannot_is_refused_in_words(call: Call) -> None:
    call.bridge.send(OpenLeg(request_id=5, call_id=call.call_id, leg=LegName.HELPER))
    assert "does not mix" in (await call.bridge.expect(LegOpened)).error
    call.bridge.send(EarUpdate(call_id=call.call_id, soften=True, levelling=False))
    assert "softens" in (await call.bridge.expect(MediaFailed)).error
    await call.flow(record=True)
    assert "records" in (await call.bridge.expect(MediaFailed)).error


async def test_a_closed_call_is_gone_from_rtpengine(call: Call, engine: Rtpengine) -> None:
    assert len((await engine.client.ask("list"))["calls"]) == 1
    call.bridge.send(CloseSession(call_id=call.call_id))
    await call.bridge.expect(SessionClosed)
    assert (await engine.client.ask("list"))["calls"] == []
