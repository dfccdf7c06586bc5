"""The one stream that a leg hears: gaps, restarts, prompts; no seam in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core_kit import (
    AGENT,
    CALLER,
    EVENTS,
    FRAME,
    CallInCore,
    Packet,
    clip,
    markers,
    one_ssrc,
    rtp,
    steps,
)

# ---------------------------------------------------------------------------------- one stream


class Phone:
    """What the agent's phone got of one call, in the order sent."""

    def __init__(self) -> None:
        self.call = CallInCore()
        self.got: list[Packet] = []

    def relay(
        self,
        sequence: int,
        timestamp: int,
        ssrc: int = 7,
        *,
        after: float = 0.02,
        event: int | None = None,
        marker: bool = False,
        payload: bytes = FRAME,
    ) -> bool:
        kind = 0x80 if marker else 0
        if event is not None:
            payload, kind = bytes([5, 10]) + event.to_bytes(2, "big"), kind | EVENTS[CALLER]
        self.call.inject(CALLER, rtp(payload, kind, sequence, timestamp, ssrc), after=after)
        return self.take() == 1

    def take(self) -> int:
        new = self.call.sent(AGENT)
        self.got += new
        assert one_ssrc(self.got) or not self.got
        return len(new)

    def prompt(self, frames: int) -> None:
        """Play a prompt of so many frames to its end."""
        assert self.call.core.play(self.call.handle, AGENT, 1, [clip(160 * frames)], False, False)
        self.call.run(0.02 * frames + 0.03)
        self.take()
        assert self.call.events("played")

    def steps(self) -> list[tuple[int, int]]:
        return steps(self.got)

    def markers(self) -> list[int]:
        return markers(self.got)


def test_a_stream_begins_with_a_marker_and_goes_on_evenly_over_every_wrap() -> None:
    phone = Phone()
    for number in range(20):
        phone.relay(65525 + number, 0xFFFFFF80 + 160 * number)
    assert phone.steps() == [(1, 160)] * 19
    assert phone.markers() == [0]


def test_our_own_numbers_wrap_without_a_seam() -> None:
    # 70000 packets: our sequence numbers wrap at least once, whatever they began with.
    phone = Phone()
    for number in range(70_000):
        phone.call.inject(CALLER, rtp(b"\x11", 0, number, 160 * number), after=0.02)
        if number % 1000 == 999:
            phone.take()
    assert set(phone.steps()) == {(1, 160)}
    assert phone.markers() == [0]
    stats = phone.call.stats(CALLER)
    assert (stats["received"], stats["expected"]) == (70_000, 70_000)


def test_two_legs_never_begin_with_the_same_numbers() -> None:
    began = set()
    for _ in range(20):
        call = CallInCore()
        call.say(CALLER)
        call.say(AGENT)
        began |= {(out.ssrc, out.sequence, out.timestamp) for out in call.sent()}
    assert len({numbers[0] for numbers in began}) == 40
    assert len({numbers[1] for numbers in began}) > 30
    assert len({numbers[2] for numbers in began}) == 40


def test_the_senders_marker_goes_on() -> None:
    phone = Phone()
    phone.relay(0, 0)
    phone.relay(1, 160)
    phone.relay(2, 320, marker=True)
    assert phone.markers() == [0, 2]


def test_lost_packets_leave_their_gap() -> None:
    phone = Phone()
    for number in (0, 1, 5, 6):
        phone.relay(number, 160 * number)
    assert phone.steps() == [(1, 160), (4, 640), (1, 160)]
    assert phone.markers() == [0]
    stats = phone.call.stats(CALLER)
    assert (stats["received"], stats["expected"]) == (4, 7)


def test_a_long_loss_leaves_its_gap_too() -> None:
    phone = Phone()
    phone.relay(0, 0)
    phone.relay(500, 80_000, after=10)
    assert phone.steps() == [(500, 80_000)]


def test_reordered_packets_keep_their_places_and_doubles_are_dropped() -> None:
    phone = Phone()
    went = [phone.relay(number, 160 * number) for number in (0, 1, 3, 2, 2, 4, 4, 0)]
    assert went == [True, True, True, True, False, True, False, False]
    assert [(one.sequence - phone.got[0].sequence) & 0xFFFF for one in phone.got] == [0, 1, 3, 2, 4]
    assert [(one.timestamp - phone.got[0].timestamp) & 0xFFFFFFFF for one in phone.got] == [
        160 * n for n in (0, 1, 3, 2, 4)
    ]
    assert phone.markers() == [0]
    stats = phone.call.stats(CALLER)
    assert (stats["received"], stats["expected"], stats["duplicates"], stats["late"]) == (
        5,
        5,
        3,
        1,
    )


def test_packets_from_before_the_first_one_are_counted_over_the_wrap_too() -> None:
    for first in (0, 2, 30_000):
        call = CallInCore()
        for number in (first, first - 3, first + 1):
            call.inject(CALLER, rtp(sequence=number, timestamp=160 * number), after=0.02)
        stats = call.stats(CALLER)
        assert (stats["received"], stats["expected"], stats["late"]) == (3, 5, 1), first


def test_a_double_is_neither_tapped_nor_recorded_twice() -> None:
    call = CallInCore()
    call.allow(record=True)
    for _ in range(3):
        call.inject(CALLER, rtp(), after=0.02)
    assert len(call.sent()) == len(call.tapped_audio()) == len(call.recorded()) == 1
    assert call.stats(CALLER)["duplicates"] == 2


def test_another_ssrc_goes_on_where_the_first_ended() -> None:
    phone = Phone()
    phone.relay(10, 1600)
    phone.relay(40_000, 3_000_000_000, ssrc=99)
    phone.relay(40_001, 3_000_000_160, ssrc=99)
    assert phone.steps() == [(1, 160), (1, 160)]
    assert phone.markers() == [0, 1]
    stats = phone.call.stats(CALLER)
    assert (stats["received"], stats["expected"]) == (3, 3)


@pytest.mark.parametrize(
    ("sequence", "timestamp"),
    [(20_000, 320), (2, 2_000_000_000), (2, 0xFFFF0000), (60_000, 320)],
    ids=["sequence ahead", "timestamp ahead", "timestamp back", "sequence back"],
)
def test_a_jump_is_taken_as_a_restart(sequence: int, timestamp: int) -> None:
    phone = Phone()
    phone.relay(0, 0)
    phone.relay(1, 160)
    phone.relay(sequence, timestamp)
    phone.relay(sequence + 1, timestamp + 160)
    assert phone.steps() == [(1, 160)] * 3
    assert phone.markers() == [0, 2]


def test_silence_that_was_not_sent_keeps_its_time() -> None:
    phone = Phone()
    phone.relay(0, 0)
    phone.relay(1, 8000 * 30, after=30)
    assert phone.steps() == [(1, 240_000)]
    assert phone.markers() == [0]


@pytest.mark.parametrize("ms", [10, 20, 30, 40, 60])
def test_packets_of_every_length_go_through(ms: int) -> None:
    phone = Phone()
    count = 8 * ms
    for number in range(5):
        phone.relay(number, count * number, payload=b"\x11" * count, after=ms / 1000)
    assert phone.steps() == [(1, count)] * 4
    # A restart goes on after the last packet's own length, or whole frames of the time gone by.
    phone.relay(30_000, 7, payload=b"\x11" * count, after=ms / 1000)
    (step,) = phone.steps()[4:]
    assert step == (1, {10: 160, 30: 320}.get(ms, count))


@pytest.mark.parametrize("ms", [10, 20, 30, 40, 60])
def test_a_prompt_comes_in_packets_of_the_legs_own_length(ms: int) -> None:
    call = CallInCore(ptimes={AGENT: ms})
    assert call.core.play(call.handle, AGENT, 1, [clip(4800)], False, False)
    begin = call.now
    at: list[float] = []
    got: list[Packet] = []
    while not call.events("played"):
        call.run(0.01)
        new = call.sent(AGENT)
        got += new
        at += [call.now] * len(new)
    assert {len(one.payload) for one in got} == {8 * ms}
    assert steps(got) == [(1, 8 * ms)] * (600 // ms - 1)
    assert markers(got) == [0]
    assert at[-1] - begin == pytest.approx(0.6 - ms / 1000, abs=0.021)
    assert call.now - begin == pytest.approx(0.6, abs=0.03)


def test_relay_prompt_relay_is_one_stream() -> None:
    phone = Phone()
    for number in range(3):
        phone.relay(number, 160 * number)
    phone.prompt(3)
    # The caller spoke on meanwhile, unheard: no gap for that.
    phone.relay(6, 960, after=0.0)
    phone.relay(7, 1120)
    assert [step[0] for step in phone.steps()] == [1] * 7
    assert phone.steps()[:2] == [(1, 160)] * 2
    assert all(160 <= step[1] <= 480 and step[1] % 160 == 0 for step in phone.steps())
    assert phone.steps()[3:5] == [(1, 160)] * 2
    assert phone.markers() == [0, 3, 6]


def test_a_late_tick_is_not_heard_and_a_pause_is() -> None:
    phone = Phone()
    call = phone.call
    call.core.play(call.handle, AGENT, 1, [clip(160 * 20)], False, False)
    call.core.tick(call.now)
    call.core.tick(call.now + 0.1)
    call.core.tick(call.now + 0.11)
    phone.take()
    assert phone.steps() == [(1, 160)] * (len(phone.got) - 1)
    assert len(phone.got) > 4
    call.core.stop_play(call.handle, AGENT)
    call.now += 2.11
    phone.prompt(1)
    assert phone.steps()[-1][0] == 1
    # Two seconds less what had been sent ahead of time.
    assert phone.steps()[-1][1] == pytest.approx(16_000, abs=480)


def test_what_comes_too_late_after_a_change_is_not_sent_under_a_used_number() -> None:
    phone = Phone()
    phone.relay(10, 1600)
    phone.call.allow(caller_to_agent=False)
    phone.call.allow(caller_to_agent=True)
    phone.relay(12, 1920)
    assert not phone.relay(11, 1760)
    assert phone.relay(13, 2080)
    assert phone.steps() == [(1, 160), (1, 160)]


def test_a_flow_that_opens_again_has_no_gap_for_what_was_held_back() -> None:
    phone = Phone()
    phone.relay(1, 160)
    phone.call.allow(caller_to_agent=False)
    for number in range(2, 100):
        assert not phone.relay(number, 160 * number)
    phone.call.allow(caller_to_agent=True)
    phone.relay(100, 16_000)
    assert phone.markers() == [0, 1]
    # Two seconds went by, and the phone is told so.
    assert phone.steps() == [(1, 99 * 160)]


def test_event_packets_share_their_timestamp_and_voice_goes_on_after_them() -> None:
    phone = Phone()
    phone.relay(0, 0)
    for number in range(5):
        phone.relay(1 + number, 160, event=160 * (number + 1))
    phone.relay(6, 160 + 5 * 160)
    assert phone.steps() == [(1, 160), (1, 0), (1, 0), (1, 0), (1, 0), (1, 800)]
    # Cut off in the middle of an event, a prompt begins at the right time.
    for number in range(50):
        phone.relay(7 + number, 160 + 6 * 160, event=160 * (number + 1))
    begins = len(phone.got)
    phone.prompt(1)
    assert phone.steps()[begins - 1][0] == 1
    assert phone.steps()[begins - 1][1] == pytest.approx(51 * 160, abs=320)


def test_voice_sent_beside_an_event_does_not_tear_the_stream() -> None:
    phone = Phone()
    phone.relay(0, 0)
    for number in range(5):
        phone.relay(1 + 2 * number, 160, event=160 * (number + 1))
        phone.relay(2 + 2 * number, 160 + 160 * number)
    assert phone.markers() == [0]
    assert {step[0] for step in phone.steps()} == {1}
    events = [one for one in phone.got if one.payload_type == EVENTS[AGENT]]
    assert len(events) == 5
    assert len({one.timestamp for one in events}) == 1


# ---------------------------------------------------------- silence that was not sent (RFC 3389)


def test_comfort_noise_changes_its_payload_type_and_is_not_audio() -> None:
    call = CallInCore(noise={CALLER: 13, AGENT: 19})
    call.allow(record=True)
    call.say(CALLER)
    call.inject(CALLER, rtp(b"\x40", 13, 1001, 50_160, 0x1000), after=0.02)
    call.inject(CALLER, rtp(b"\x41", 13, 1002, 50_160 + 1600, 0x1000), after=0.2)
    call.inject(CALLER, rtp(FRAME, 0x80, 1003, 50_160 + 3200, 0x1000), after=0.2)
    got = call.sent(AGENT)
    assert [(one.payload_type, one.payload) for one in got] == [
        (0, FRAME),
        (19, b"\x40"),
        (19, b"\x41"),
        (0, FRAME),
    ]
    assert steps(got) == [(1, 160), (1, 1600), (1, 1600)]
    assert markers(got) == [0, 3]
    assert len(call.tapped_audio()) == len(call.recorded()) == 2


def test_comfort_noise_is_not_sent_where_it_was_not_negotiated() -> None:
    call = CallInCore(noise={CALLER: 13})
    call.say(CALLER)
    call.inject(CALLER, rtp(b"\x40", 13, 1001, 50_160, 0x1000), after=0.02)
    assert len(call.sent()) == 1
    assert call.stats(CALLER)["received"] == 2


def test_after_comfort_noise_a_prompt_begins_without_a_hole() -> None:
    call = CallInCore(noise={CALLER: 13, AGENT: 13})
    call.say(CALLER)
    call.inject(CALLER, rtp(b"\x40", 13, 1001, 50_160, 0x1000), after=0.02)
    call.inject(CALLER, rtp(b"\x40", 13, 1002, 50_160 + 4000, 0x1000), after=0.5)
    call.core.play(call.handle, AGENT, 1, [clip(320)], False, False)
    call.run(0.02)
    got = call.sent(AGENT)
    assert steps(got)[2] == (1, 160)


# ------------------------------------------------------ what ends here is no loss to the far end


@pytest.mark.parametrize("what", ["keep-alive", "comfort noise", "digits without a type", "codes"])
def test_what_is_not_for_the_other_side_leaves_no_gap_in_its_numbers(what: str) -> None:
    call = CallInCore(codes=["**9"], noise={CALLER: 13, AGENT: 13})
    call.noise[AGENT] = call.noise[CALLER] = 13
    call.events_types[AGENT if what == "codes" else CALLER] = 101
    call.events_types[CALLER if what == "codes" else AGENT] = 101 if what == "codes" else -1
    talker, to = (AGENT, CALLER) if what == "codes" else (CALLER, AGENT)
    call.negotiate(talker)
    call.noise[to] = -1
    call.negotiate(to)
    call.say(talker)
    call.say(talker)
    if what == "keep-alive":
        for _ in range(3):
            call.say(talker, b"")
    elif what == "comfort noise":
        call.say(talker, b"\x40", kind=13, samples=480)
    elif what == "codes":
        call.press(talker, "**9")
    else:
        call.press(talker, "12")
    late = call.source[talker].sequence - 4
    call.say(talker)
    got = call.sent(to)
    assert {step[0] for step in steps(got)} == {1}
    assert markers(got) == [0]
    # The control: what is lost after it is a gap.
    call.source[talker].sequence += 2
    call.source[talker].timestamp += 320
    call.say(talker)
    got += call.sent(to)
    assert steps(got)[-1] == (3, 480)
    # What is older than what ended here has no number any more.
    call.inject(talker, rtp(FRAME, 0, late, 0, call.source[talker].ssrc))
    assert call.sent(to) == []


def test_a_hold_leaves_no_gap_in_the_numbers() -> None:
    phone = Phone()
    phone.relay(0, 0)
    phone.call.negotiate(AGENT, ("", 0))
    for number in range(1, 1000):
        assert not phone.relay(number, 160 * number)
    phone.call.negotiate(AGENT)
    phone.relay(1000, 160_000)
    assert phone.steps() == [(1, 160_000)]


# ------------------------------------------------------------------------------------ anything


@given(
    st.lists(
        st.tuples(st.integers(-3, 3), st.sampled_from(["voice", "keep-alive", "event", "release"])),
        max_size=60,
    )
)
def test_in_disorder_too_no_number_is_used_for_two_packets(steps_: list[tuple[int, str]]) -> None:
    phone = Phone()
    number = 1000
    for step, what in steps_:
        number += step + 1
        if what == "release":
            phone.call.allow(caller_to_agent=False)
            phone.call.allow(caller_to_agent=True)
        else:
            payload = b"" if what == "keep-alive" else FRAME
            event = 160 if what == "event" else None
            phone.relay(number, 160 * number, event=event, payload=payload)
    assert len({one.sequence for one in phone.got}) == len(phone.got)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 65535),
            st.integers(0, 2**32 - 1),
            st.integers(0, 3),
            st.sampled_from(["voice", "event", "prompt", "release", "keep-alive"]),
        ),
        max_size=60,
        unique_by=lambda row: (row[0], row[2]),
    )
)
def test_whatever_comes_the_stream_stays_one_and_no_number_is_used_for_two_packets(
    arrivals: list[tuple[int, int, int, str]],
) -> None:
    phone = Phone()
    for sequence, timestamp, ssrc, what in arrivals:
        if what == "prompt":
            phone.prompt(1)
        elif what == "release":
            phone.call.allow(caller_to_agent=False)
            phone.call.allow(caller_to_agent=True)
        elif what == "keep-alive":
            assert not phone.relay(sequence, timestamp, ssrc, payload=b"")
        else:
            phone.relay(sequence, timestamp, ssrc, event=160 if what == "event" else None)
    stats = phone.call.stats(AGENT)
    assert stats["sent"] == len(phone.got)
    # A new source is anchored behind the newest packet: at most 60 packets of 3000 steps ahead
    # never come around to a used number here.
    assert len({one.sequence for one in phone.got}) == len(phone.got)
