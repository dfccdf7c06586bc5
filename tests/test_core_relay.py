"""What the relay in C lets through, and what it must not."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callshield import g711
from sipbridge.relay_core import Core
from tests.core_kit import (
    ADDRESSES,
    AGENT,
    CALL_ID,
    CALLER,
    EVENTS,
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
