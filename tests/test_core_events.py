"""Telephone-events in the relay in C (RFC 4733): heard once a press, passed on as they come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core_kit import (
    AGENT,
    CALLER,
    DIGITS,
    EVENTS,
    HELPER,
    CallInCore,
    codes_told,
    gate,
    heard,
    rtp,
    steps,
)

# ------------------------------------------------------------------------ hearing (RFC 4733)


class Keys:
    """Presses of one key after the other, seen through a code of one digit each."""

    def __init__(self) -> None:
        self.call = CallInCore(codes=list(DIGITS))
        self.number = 0

    def event(
        self,
        code: int,
        timestamp: int,
        duration: int,
        *,
        end: bool = False,
        after: float = 0.02,
        ssrc: int = 1,
    ) -> str:
        payload = bytes([code, (0x80 if end else 0) | 10]) + duration.to_bytes(2, "big")
        self.number += 1
        self.call.inject(
            AGENT, rtp(payload, EVENTS[AGENT], self.number, timestamp, ssrc), after=after
        )
        return self.told()

    def told(self) -> str:
        return "".join(DIGITS[index] for _, index in codes_told(self.call))

    def press(self, code: int, timestamp: int, *, lost: tuple[int, ...] = ()) -> str:
        """Five updates and three ends; the numbers in ``lost`` do not arrive."""
        return "".join(
            self.event(code, timestamp, 160 * min(number + 1, 6), end=number >= 5)
            for number in range(8)
            if number not in lost
        )


def test_three_ends_are_one_digit() -> None:
    assert Keys().press(5, 1000) == "5"


def test_every_key_has_its_digit() -> None:
    keys = Keys()
    assert "".join(keys.press(code, 2000 * code) for code in range(16)) == DIGITS


def test_only_the_last_end_arrives() -> None:
    assert Keys().press(9, 1000, lost=(0, 1, 2, 3, 4, 5, 6)) == "9"


def test_all_ends_are_lost_and_a_pause_tells() -> None:
    keys = Keys()
    assert keys.press(9, 1000, lost=(5, 6, 7)) == ""
    keys.call.run(0.2)
    assert keys.told() == ""
    keys.call.run(0.1)
    assert keys.told() == "9"
    keys.call.run(0.5)
    assert keys.told() == ""


def test_all_ends_are_lost_and_the_next_press_tells() -> None:
    keys = Keys()
    assert keys.press(9, 1000, lost=(5, 6, 7)) == ""
    assert keys.press(10, 3000) == "9*"


def test_the_same_key_twice_is_two_digits() -> None:
    keys = Keys()
    assert keys.press(1, 1000) + keys.press(1, 4000) == "11"


def test_a_late_packet_of_an_old_press_is_nothing() -> None:
    keys = Keys()
    assert keys.press(1, 1000) + keys.press(2, 4000) == "12"
    assert keys.event(1, 1000, 960, end=True) == ""
    keys.call.run(1.0)
    assert keys.told() == ""


def test_a_press_of_twenty_seconds_is_one_digit() -> None:
    keys = Keys()
    digits = ""
    for segment in range(2):
        digits += keys.event(3, 1000 + 0xFFFF * segment, 100)
        for _ in range(40):
            digits += keys.event(3, 1000 + 0xFFFF * segment, 0x8000, after=0.2)
        digits += keys.event(3, 1000 + 0xFFFF * segment, 0xFFFF)
    digits += keys.event(3, 1000 + 0xFFFF * 2, 4000, end=True)
    assert digits == "3"


def test_timestamps_wrap() -> None:
    keys = Keys()
    assert keys.press(1, 0xFFFFFF00) + keys.press(2, 0x300) == "12"


def test_another_source_begins_anew() -> None:
    keys = Keys()
    assert keys.press(1, 0xF0000000) == "1"
    assert keys.event(2, 5, 800, end=True, ssrc=2) == "2"


def test_another_key_under_the_timestamp_of_the_first_is_no_press() -> None:
    keys = Keys()
    assert keys.event(16, 1000, 160) + keys.event(5, 1000, 320) == ""
    assert keys.event(5, 1000, 480, end=True) == ""
    assert {one.payload[0] for one in keys.call.sent(CALLER)} == {16}


def test_a_hook_flash_is_no_digit_and_is_passed_on() -> None:
    keys = Keys()
    assert keys.press(16, 1000) == ""
    assert {one.payload[0] for one in keys.call.sent(CALLER)} == {16}


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.integers(0, 2**32 - 1),
            st.binary(min_size=4, max_size=8),
            st.integers(0, 65535),
        ),
        max_size=40,
    )
)
def test_no_bytes_break_it_and_no_packet_gives_more_than_two_digits(
    packets: list[tuple[int, int, bytes, int]],
) -> None:
    call = CallInCore(codes=list(DIGITS))
    for ssrc, timestamp, payload, sequence in packets:
        call.inject(AGENT, rtp(payload, EVENTS[AGENT], sequence, timestamp, ssrc), after=0.02)
        assert len(codes_told(call)) <= 2
    # Every digit is a code here: what goes on is none.
    assert all(one.payload[0] >= len(DIGITS) for one in call.sent(CALLER))


# ------------------------------------------------------------------------- digits that are none


@pytest.mark.parametrize("leg", [CALLER, AGENT])
def test_a_digit_is_forwarded_packet_by_packet_as_it_comes(leg: int) -> None:
    call = gate()
    to = AGENT + CALLER - leg
    call.say(leg)
    (voice,) = call.sent(to)
    got = [voice]
    for packet in call.source[leg].press("5", EVENTS[leg]):
        call.inject(leg, packet, after=0.02)
        (out,) = call.sent(to)
        assert (out.payload_type, out.payload) == (EVENTS[to], packet[12:])
        got.append(out)
    call.say(leg)
    got += call.sent(to)
    assert steps(got) == [(1, 160)] + [(1, 0)] * 7 + [(1, 960)]
    assert got[1].marker
    assert not any(one.marker for one in got[2:])
    assert heard(got, to) == "5"
    assert call.events() == []


def test_a_digit_before_the_gate_opens_goes_nowhere() -> None:
    call = gate(open_gates=False)
    call.press(CALLER, "1")
    call.press(AGENT, "1")
    assert call.sent() == []
    assert call.events() == []


def test_the_helpers_digits_go_nowhere() -> None:
    call = gate(legs=(CALLER, AGENT, HELPER))
    for conference in (False, True):
        call.allow(conference=conference)
        call.press(HELPER, "5")
        call.press(HELPER, "**9")
        assert heard(call.sent()) == ""
        assert call.events() == []


def test_a_leg_without_telephone_events_is_told_by_name() -> None:
    call = gate(events_types={CALLER: -1, AGENT: 96, HELPER: -1})
    call.press(AGENT, "5")
    assert call.sent() == []
    assert call.events() == [("undelivered", call.handle, AGENT, "5")]
    call = gate(events_types={CALLER: 101, AGENT: -1, HELPER: -1})
    call.press(CALLER, "77", ends=0)
    call.run(0.4)
    assert call.events() == [("undelivered", call.handle, CALLER, "7")] * 2
