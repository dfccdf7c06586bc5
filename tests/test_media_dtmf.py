"""Digits: once for each press, whatever was lost or repeated."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from sipbridge.dtmf import DIGITS, EventReceiver


def event(code: int, duration: int, *, end: bool = False) -> bytes:
    return bytes([code, (0x80 if end else 0) | 10]) + duration.to_bytes(2, "big")


def press(receiver: EventReceiver, code: int, timestamp: int, *, lost: tuple[int, ...] = ()) -> str:
    """Five updates and three ends; the numbers in ``lost`` do not arrive."""
    digits = ""
    for number in range(8):
        if number not in lost:
            payload = event(code, 160 * min(number + 1, 6), end=number >= 5)
            digits += receiver.receive(1, timestamp, payload, number * 0.02)
    return digits


def test_three_ends_are_one_digit() -> None:
    assert press(EventReceiver(), 5, 1000) == "5"


def test_every_key_has_its_digit() -> None:
    receiver = EventReceiver()
    assert "".join(press(receiver, code, 2000 * code) for code in range(16)) == DIGITS


def test_only_the_last_end_arrives() -> None:
    assert press(EventReceiver(), 9, 1000, lost=(0, 1, 2, 3, 4, 5, 6)) == "9"


def test_all_ends_are_lost_and_a_pause_tells() -> None:
    receiver = EventReceiver()
    assert press(receiver, 9, 1000, lost=(5, 6, 7)) == ""
    assert receiver.running
    assert receiver.expire(0.2) == ""
    assert receiver.expire(0.5) == "9"
    assert receiver.expire(0.9) == ""


def test_all_ends_are_lost_and_the_next_press_tells() -> None:
    receiver = EventReceiver()
    assert press(receiver, 9, 1000, lost=(5, 6, 7)) == ""
    assert press(receiver, 10, 3000) == "9*"


def test_the_same_key_twice_is_two_digits() -> None:
    receiver = EventReceiver()
    assert press(receiver, 1, 1000) + press(receiver, 1, 4000) == "11"


def test_a_late_packet_of_an_old_press_is_nothing() -> None:
    receiver = EventReceiver()
    assert press(receiver, 1, 1000) + press(receiver, 2, 4000) == "12"
    assert receiver.receive(1, 1000, event(1, 960, end=True), 1.0) == ""
    assert receiver.expire(9.0) == ""


def test_a_press_of_twenty_seconds_is_one_digit() -> None:
    receiver = EventReceiver()
    digits = ""
    for segment in range(2):
        digits += receiver.receive(1, 1000 + 0xFFFF * segment, event(3, 100), segment * 8.0)
        digits += receiver.receive(1, 1000 + 0xFFFF * segment, event(3, 0xFFFF), segment * 8.0)
    digits += receiver.receive(1, 1000 + 0xFFFF * 2, event(3, 4000, end=True), 16.5)
    assert digits == "3"


def test_timestamps_wrap() -> None:
    receiver = EventReceiver()
    assert press(receiver, 1, 0xFFFFFF00) + press(receiver, 2, 0x300) == "12"


def test_another_source_begins_anew() -> None:
    receiver = EventReceiver()
    assert press(receiver, 1, 0xF0000000) == "1"
    assert receiver.receive(2, 5, event(2, 800, end=True), 1.0) == "2"


def test_a_hook_flash_is_no_digit() -> None:
    assert press(EventReceiver(), 16, 1000) == ""


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2**32 - 1), st.binary(min_size=4, max_size=8)),
        max_size=40,
    )
)
def test_no_bytes_raise_and_no_packet_gives_more_than_two_digits(
    packets: list[tuple[int, int, bytes]],
) -> None:
    receiver = EventReceiver()
    for number, (ssrc, timestamp, payload) in enumerate(packets):
        assert len(receiver.receive(ssrc, timestamp, payload, number * 0.02)) <= 2
