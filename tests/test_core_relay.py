"""What the relay in C lets through, taps and records, and what it must not."""

from __future__ import annotations

import itertools
import random
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callshield import g711
from callshield.tap import TapKind
from sipbridge.relay_core import Core
from tests.core_kit import (
    ADDRESSES,
    AGENT,
    CALL_ID,
    CALLER,
    EVENTS,
    FRAME,
    G722,
    HELPER,
    OPUS,
    PCMA,
    PCMU,
    STRANGER,
    CallInCore,
    clip,
    markers,
    rtp,
    steps,
)

EVERY_CODE = bytes(range(256))


# ------------------------------------------------------------------------------------ voice


def test_each_side_hears_the_other() -> None:
    call = CallInCore()
    call.say(CALLER, b"\x11" * 160)
    call.say(AGENT, b"\x22" * 160)
    assert [(out.leg, out.to, out.payload[:1]) for out in call.sent()] == [
        (AGENT, ADDRESSES[AGENT], b"\x11"),
        (CALLER, ADDRESSES[CALLER], b"\x22"),
    ]


@pytest.mark.parametrize(("from_law", "to_law"), [(PCMU, PCMA), (PCMA, PCMU)])
def test_transcoding_is_that_of_the_tables(from_law: int, to_law: int) -> None:
    call = CallInCore(types={CALLER: from_law, AGENT: to_law})
    call.say(CALLER, EVERY_CODE)
    call.say(AGENT, EVERY_CODE)
    out, back = call.sent()
    assert out.payload_type == to_law
    assert back.payload_type == from_law
    there, here = g711.transcoding_table(from_law, to_law), g711.transcoding_table(to_law, from_law)
    assert there is not None
    assert here is not None
    assert out.payload == EVERY_CODE.translate(there)
    assert back.payload == EVERY_CODE.translate(here)


@pytest.mark.parametrize("codec", [PCMU, PCMA, G722, OPUS])
def test_the_same_codec_goes_through_untouched(codec: int) -> None:
    call = CallInCore(types={CALLER: codec, AGENT: codec})
    payload = random.Random(1).randbytes(160)
    call.say(CALLER, payload)
    (out,) = call.sent()
    assert (out.payload_type, out.payload) == (codec, payload)
    (frame,) = call.tapped_audio()
    assert (frame.codec, frame.payload) == (codec, payload)


def test_codecs_that_cannot_be_changed_by_table_are_not_sent_under_a_wrong_type() -> None:
    call = CallInCore(types={CALLER: G722, AGENT: PCMU})
    call.say(CALLER)
    call.say(AGENT)
    assert call.sent() == []


@pytest.mark.parametrize("law", [PCMU, PCMA])
def test_mixing_adds_and_clips_as_the_tables_do(law: int) -> None:
    dice = random.Random(5)
    voice = [dice.randbytes(160) for _ in range(4)]
    prompt = np.frombuffer(dice.randbytes(640), np.uint8).tobytes()
    from sipbridge.relay_core import Clip

    linear = g711.decode(prompt, PCMU)
    call = CallInCore(types={CALLER: law, AGENT: law})
    made = Clip(prompt, g711.encode(linear, PCMA))
    call.say(CALLER)
    call.sent()
    assert call.core.play(call.handle, AGENT, 1, [made], False, True)
    for number, payload in enumerate(voice):
        call.core.tick(call.now)
        call.say(CALLER, payload)
        (out,) = call.sent(AGENT)
        tone = linear[160 * number : 160 * number + 160].astype(np.int32)
        total = np.clip(g711.decode(payload, law) + tone, -32768, 32767).astype(np.int16)
        assert out.payload == g711.encode(total, law)
    call.run(0.05)
    assert [event[4] for event in call.events("played")] == [0]


@pytest.mark.parametrize("payload_type", [3, 8, 13, 18, 72, 96, 127])
def test_other_payload_types_are_dropped_and_counted(payload_type: int) -> None:
    call = CallInCore()
    call.say(CALLER)
    call.sent()
    call.say(CALLER, kind=payload_type)
    assert call.sent() == []
    stats = call.stats(CALLER)
    assert (stats["wrong_payload_type"], stats["received"]) == (1, 1)


def test_a_far_end_with_another_codec_is_not_called_a_stranger() -> None:
    call = CallInCore()
    call.inject(CALLER, rtp(b"\x11" * 20, 18))
    call.inject(CALLER, rtp(b"\x11" * 20, 18), source=STRANGER)
    assert call.sent() == []
    stats = call.stats(CALLER)
    assert (stats["wrong_payload_type"], stats["wrong_source"]) == (1, 1)


def test_an_event_that_is_too_short_is_malformed() -> None:
    call = CallInCore()
    call.inject(CALLER, rtp(b"\x05\x8a\x00", EVENTS[CALLER]))
    assert call.sent() == []
    stats = call.stats(CALLER)
    assert (stats["malformed"], stats["received"]) == (1, 0)


def test_packets_that_the_machine_refuses_are_counted_and_nothing_else_happens() -> None:
    call = CallInCore()
    call.core.refuse(101)
    call.say(CALLER)
    call.core.refuse(0)
    call.say(CALLER)
    stats = call.stats(AGENT)
    assert (stats["sent"], stats["unsent"]) == (2, 1)
    assert len(call.sent(AGENT)) == 1


def test_a_leg_of_a_closed_call_is_gone() -> None:
    call = CallInCore()
    handle = call.handle
    call.core.close_call(handle)
    with pytest.raises(KeyError):
        call.say(CALLER)
    with pytest.raises(KeyError):
        call.core.stats(handle)
    assert call.core.open(CALL_ID, [], []) != handle


def test_there_is_room_for_4096_calls_and_a_closed_one_makes_room() -> None:
    core = Core("", [], 5.0, manual=True)
    handles = [core.open(CALL_ID, [], []) for _ in range(4096)]
    assert len(set(handles)) == 4096
    with pytest.raises(MemoryError):
        core.open(CALL_ID, [], [])
    core.close_call(handles[17])
    again = core.open(CALL_ID, [], [])
    assert again not in handles
    assert core.totals()["sessions"] == 4096


# -------------------------------------------------------------------- only the caller is tapped

FLAGS = ("caller_to_agent", "agent_to_caller", "tap", "record", "paused", "conference")


def test_the_tap_gets_the_callers_own_bytes_and_numbers() -> None:
    call = CallInCore(types={CALLER: PCMU, AGENT: PCMA}, protect=True)
    begin = call.now
    call.say(CALLER, b"\x11" * 160)
    call.say(AGENT, b"\x22" * 160)
    (frame,) = call.tapped_audio()
    assert frame.payload == b"\x11" * 160
    assert (frame.call_id, frame.codec) == (CALL_ID, PCMU)
    assert (frame.sequence, frame.timestamp) == (1000, 50_000)
    assert frame.arrived_ms == int((begin + 0.02) * 1000)


def test_the_tap_hears_the_caller_even_while_nobody_else_does() -> None:
    # A closing prompt plays to the agent, say: whether the caller is tapped is the flow's matter.
    call = CallInCore()
    call.allow(caller_to_agent=False)
    call.say(CALLER)
    assert call.sent() == []
    assert len(call.tapped_audio()) == 1


def test_digits_comfort_noise_and_keepalives_are_not_tapped_or_recorded() -> None:
    call = CallInCore(noise={CALLER: 13, AGENT: 13})
    call.allow(record=True)
    call.press(CALLER, "4")
    call.say(CALLER, b"\x40", kind=13)
    call.say(CALLER, b"")
    assert call.tapped_audio() == []
    assert call.recorded() == []
    call.say(CALLER)
    assert len(call.tapped_audio()) == len(call.recorded()) == 1


@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=len(FLAGS))))
def test_in_every_state_only_the_caller_is_tapped_and_only_what_is_relayed_is_recorded(
    flags: tuple[bool, ...],
) -> None:
    call = CallInCore(legs=(CALLER, AGENT, HELPER), open_gates=False)
    flow = dict(zip(FLAGS, flags, strict=True))
    call.allow(**flow)
    said = {CALLER: b"\x11", AGENT: b"\x22", HELPER: b"\x33"}
    for _ in range(10):
        for leg in (CALLER, AGENT, HELPER):
            call.say(leg, said[leg] * 160, after=0.0)
        call.run(0.02)
    tapped = call.tapped_audio()
    if flow["tap"] and not flow["paused"]:
        assert len(tapped) == 10
    else:
        assert tapped == []
    assert {frame.payload for frame in tapped} <= {b"\x11" * 160}
    out = call.sent()
    recorded = call.recorded()
    if not flow["record"] or flow["paused"]:
        assert recorded == []
    if flow["conference"]:
        assert {one.leg for one in out} == {CALLER, AGENT, HELPER}
        return
    heard = {(AGENT, b"\x11")} if flow["caller_to_agent"] else set()
    heard |= {(CALLER, b"\x22")} if flow["agent_to_caller"] else set()
    assert {(one.leg, one.payload[:1]) for one in out} == heard
    assert len(out) == 10 * len(heard)
    if flow["record"] and not flow["paused"]:
        channel_of = {AGENT: 0, CALLER: 1}
        assert {(one.channel, one.payload[:1]) for one in recorded} == {
            (channel_of[leg], byte) for leg, byte in heard
        }
        assert len(recorded) == len(out)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=40), st.data())
def test_whatever_happens_nothing_but_the_callers_payload_is_ever_tapped(
    actions: list[tuple[int, int]], data: st.DataObject
) -> None:
    call = CallInCore(legs=(CALLER, AGENT, HELPER))
    said = {CALLER: b"\x11" * 160, AGENT: b"\x22" * 160, HELPER: b"\x33" * 160}
    may = 0
    for leg, what in actions:
        if what == 0:
            call.allow(**{name: data.draw(st.booleans()) for name in FLAGS})
        elif what == 1:
            call.core.play(call.handle, leg, 1, [clip()], False, data.draw(st.booleans()))
        else:
            may += leg == CALLER and call.flow["tap"] and not call.flow["paused"]
            call.say(leg, said[leg])
        call.run(0.01)
    tapped = call.tapped_audio()
    assert len(tapped) == may == call.call_stats()["tapped"]
    assert {frame.payload for frame in tapped} <= {said[CALLER]}


def test_tap_off_pause_and_the_calls_end_tell_the_detector_once() -> None:
    call = CallInCore()
    call.say(CALLER)
    call.allow(paused=True)
    assert [frame.kind for frame in call.tapped()] == [TapKind.AUDIO, TapKind.DETACH]
    call.allow(tap=False)
    assert call.tapped() == []
    call.allow(paused=False, tap=True)
    call.say(CALLER)
    call.core.close_call(call.handle)
    assert [frame.kind for frame in call.tapped()] == [TapKind.AUDIO, TapKind.DETACH]


def test_a_call_that_ends_while_paused_is_not_told_twice() -> None:
    call = CallInCore()
    call.allow(paused=True)
    call.core.close_call(call.handle)
    assert [frame.kind for frame in call.tapped()] == [TapKind.DETACH]


# ---------------------------------------------------------------------------------- recorder


def test_a_recorded_frame_says_where_and_when_it_was() -> None:
    call = CallInCore(types={CALLER: PCMU, AGENT: PCMA}, protect=True)
    call.allow(record=True)
    before = time.time_ns()
    call.say(CALLER, b"\x11" * 160)
    call.say(AGENT, b"\x22" * 160)
    to_agent, to_caller = call.sent()
    one, other = call.recorded()
    # What was said, as it was encoded, before it was changed for the other side's ear.
    assert (one.call_id, one.channel, one.codec, one.payload) == (CALL_ID, 0, PCMU, b"\x11" * 160)
    assert (other.call_id, other.channel, other.codec) == (CALL_ID, 1, PCMA)
    assert other.payload == b"\x22" * 160
    assert (one.timestamp, other.timestamp) == (to_agent.timestamp, to_caller.timestamp)
    assert before <= one.at_ns <= other.at_ns <= time.time_ns()
    assert call.call_stats()["recorded"] == 2
    assert call.recorded() == []


def test_what_is_recorded_has_one_time_over_every_change_of_source() -> None:
    call = CallInCore()
    call.allow(record=True)
    call.say(CALLER)
    call.source[CALLER].ssrc, call.source[CALLER].timestamp = 99, 3_000_000_000
    call.say(CALLER)
    call.source[CALLER].sequence, call.source[CALLER].timestamp = 40_000, 7
    call.say(CALLER)
    frames = call.recorded()
    assert [b.timestamp - a.timestamp & 0xFFFFFFFF for a, b in itertools.pairwise(frames)] == [
        160,
        160,
    ]


def test_the_time_of_what_is_recorded_goes_on_through_a_conference() -> None:
    call = CallInCore(legs=(CALLER, AGENT, HELPER))
    call.allow(record=True)

    def talk(frames: int) -> None:
        for _ in range(frames):
            for leg in (CALLER, AGENT):
                call.say(leg, after=0.0)
            call.run(0.02)

    talk(10)
    call.allow(conference=True)
    talk(10)
    call.allow(conference=False)
    talk(10)
    frames = call.recorded()
    for channel in (0, 1):
        times = [frame.timestamp for frame in frames if frame.channel == channel]
        gone = [(b - a) & 0xFFFFFFFF for a, b in itertools.pairwise(times)]
        assert len(times) >= 29
        assert all(0 < step <= 640 for step in gone)
        assert sum(gone) == pytest.approx(29 * 160, abs=640)


def test_nothing_is_recorded_of_a_leg_that_hears_a_prompt_and_all_of_the_other() -> None:
    call = CallInCore()
    call.allow(record=True)
    assert call.core.play(call.handle, AGENT, 1, [clip(1600)], False, False)
    for _ in range(10):
        call.say(CALLER, b"\x11" * 160, after=0.0)
        call.say(AGENT, b"\x22" * 160, after=0.0)
        call.run(0.02)
    assert {frame.channel for frame in call.recorded()} == {1}
    call.run(0.02)
    call.say(CALLER)
    assert {frame.channel for frame in call.recorded()} == {0}


def test_a_mixed_tone_is_not_in_the_recording() -> None:
    call = CallInCore()
    call.allow(record=True)
    call.say(CALLER)
    assert call.core.play(call.handle, AGENT, 1, [clip(1600)], False, True)
    call.say(CALLER)
    assert [frame.payload for frame in call.recorded()] == [FRAME, FRAME]


def test_nothing_is_recorded_before_after_or_of_what_cannot_be_heard() -> None:
    call = CallInCore(open_gates=False, legs=(CALLER, AGENT))
    call.allow(record=True)
    call.say(CALLER)
    assert call.recorded() == []
    call.allow(caller_to_agent=True)
    call.negotiate(AGENT, ("", 0))
    call.say(CALLER)
    assert call.recorded() == []
    call.negotiate(AGENT)
    call.say(CALLER)
    assert len(call.recorded()) == 1
    call.allow(record=False)
    call.say(CALLER)
    assert call.recorded() == []


def test_a_recorder_that_does_not_read_costs_its_newest_frames_and_only_those() -> None:
    call = CallInCore()
    call.allow(record=True, tap=False)
    # 64 MiB of 192-byte records.
    limit = 64 * 1024 * 1024
    sent = 0
    for _ in range(limit // (1400 + 32) + 500):
        call.say(CALLER, b"\x11" * 1400)
        sent += 1
        if sent % 10_000 == 0:
            call.sent()
    stats = call.call_stats()
    assert stats["record_dropped"] > 0
    assert stats["recorded"] + stats["record_dropped"] == sent
    backlog = call.core.totals()["record_backlog"]
    assert backlog <= limit
    data = call.core.recorded()
    assert len(data) == backlog == stats["recorded"] * (1400 + 32)
    call.say(CALLER)
    assert len(call.recorded()) == 1


# --------------------------------------------------------------------------------- anything


def test_a_hundred_thousand_random_packets_from_the_right_place_forward_nothing() -> None:
    call = CallInCore()
    dice = random.Random(11)
    count = 100_000
    for number in range(count):
        size = dice.choice((0, 1, 11, 12, 13, 44, 172, 1400, 2048))
        data = bytearray(dice.randbytes(size))
        if size > 1:
            if number % 2:
                data[0] = 0x80 | data[0] & 0x3F
            if data[1] & 0x7F in (0, 101):
                data[1] = 0x83
        call.inject(CALLER, bytes(data))
    assert call.sent() == []
    stats = call.stats(CALLER)
    assert stats["malformed"] + stats["wrong_payload_type"] + stats["wrong_source"] == count
    assert call.tapped() == []
    # The control: the same leg still takes a good packet.
    call.say(CALLER)
    assert len(call.sent()) == 1


@given(st.binary(max_size=1600), st.sampled_from([ADDRESSES[CALLER], STRANGER]))
def test_whatever_is_forwarded_is_plain_rtp_of_ours(data: bytes, source: tuple[str, int]) -> None:
    call = CallInCore()
    call.inject(CALLER, data, source=source)
    out = call.sent()
    stats = call.stats(CALLER)
    if out:
        assert source == ADDRESSES[CALLER]
        assert out[0].payload_type in (0, 96)
        assert out[0].payload in data
        assert out[0].to == ADDRESSES[AGENT]
        assert stats["received"] == 1
    else:
        counted = ("malformed", "wrong_source", "wrong_payload_type", "received")
        assert sum(stats[name] for name in counted) == 1


def test_the_promoted_helper_goes_on_as_the_agent_in_one_stream_each() -> None:
    call = CallInCore(legs=(CALLER, AGENT, HELPER))
    call.allow(record=True)
    call.say(CALLER)
    call.say(AGENT)
    # A helper who only listens to prompts so far.
    call.core.play(call.handle, HELPER, 5, [clip(320)], False, False)
    call.run(0.06)
    before = call.sent()
    call.core.remove_leg(call.handle, AGENT)
    with pytest.raises(KeyError):
        call.core.remove_leg(call.handle, AGENT)
    call.core.promote(call.handle)
    with pytest.raises(KeyError):
        call.core.promote(call.handle)
    call.say(CALLER, b"\x44" * 160)
    call.inject(AGENT, call.source[HELPER].packet(b"\x33" * 160), source=ADDRESSES[HELPER])
    # The agent of before is nobody now.
    call.inject(AGENT, call.source[AGENT].packet(b"\x22" * 160), source=ADDRESSES[AGENT])
    after = call.sent()
    assert [(one.leg, one.to, one.payload[:1]) for one in after] == [
        (AGENT, ADDRESSES[HELPER], b"\x44"),
        (CALLER, ADDRESSES[CALLER], b"\x33"),
    ]
    helper = [one for one in before if one.leg == HELPER] + after[:1]
    caller = [one for one in before if one.leg == CALLER] + after[1:]
    for stream in (helper, caller):
        assert len({one.ssrc for one in stream}) == 1
        assert all(step[0] == 1 and 160 <= step[1] <= 1600 for step in steps(stream))
        assert markers(stream)[-1] == len(stream) - 1
    assert [frame.payload[:1] for frame in call.recorded()] == [b"\x11", b"\x11", b"\x44", b"\x33"]
    assert call.stats(AGENT)["wrong_source"] == 1
