"""What the relay in C copies for others: the caller to the tap, what is relayed to the recorder."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callshield.tap import TapKind
from tests.core_kit import (
    AGENT,
    CALL_ID,
    CALLER,
    FRAME,
    HELPER,
    PCMA,
    PCMU,
    CallInCore,
    clip,
)

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
