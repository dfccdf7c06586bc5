"""Order by sequence number, without a clock and without a packet's content."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from detectors.reorder import MAX_DROPOUT, MAX_HELD, RESTART_RUN, ReorderBuffer


def through(*sequences: int) -> list[tuple[int, int, bool]]:
    """``(sequence, lost, late)`` of what comes out when these come in."""
    buffer: ReorderBuffer[int] = ReorderBuffer()
    return [
        (out[0], out[1], out[2])
        for sequence in sequences
        for out in buffer.push(sequence, sequence)
    ]


def test_what_is_in_order_goes_on_at_once() -> None:
    assert through(65534, 65535, 0, 1) == [(n, 0, False) for n in (65534, 65535, 0, 1)]


def test_an_early_packet_waits_for_those_before_it() -> None:
    assert [n for n, _, _ in through(1, 4, 3, 5, 2, 6)] == [1, 2, 3, 4, 5, 6]
    assert [n for n, _, _ in through(1, 4, 3, 5)] == [1]


def test_a_packet_that_never_comes_is_given_up_when_too_many_wait() -> None:
    early = list(range(3, 3 + MAX_HELD))
    assert through(1, *early) == [(1, 0, False)]
    assert through(1, *early, early[-1] + 1)[1:] == [
        (3, 1, False),
        *((n, 0, False) for n in range(4, early[-1] + 2)),
    ]


def test_two_separate_losses_are_counted_where_they_were() -> None:
    found = through(1, 3, 4, 6, 7, 8, 9, 10, 11, 12)
    assert [(n, lost) for n, lost, _ in found if lost] == [(3, 1), (6, 1)]


def test_a_repeated_packet_is_late_or_nothing() -> None:
    assert through(1, 2, 2) == [(1, 0, False), (2, 0, False), (2, 0, True)]
    assert through(1, 3, 3) == [(1, 0, False)]


def test_a_stream_sent_twice_comes_out_once() -> None:
    twice = [n for n in range(40) for _ in range(2)]
    assert [n for n, _, late in through(*twice) if not late] == list(range(40))


def test_a_stream_that_began_anew_is_followed() -> None:
    forward = MAX_DROPOUT + 500
    assert [n for n, _, _ in through(10, 11, forward, forward + 1)] == [
        10,
        11,
        forward,
        forward + 1,
    ]
    assert through(5000, 100, 101)[1:] == [(100, 0, False), (101, 0, False)]


def test_a_new_beginning_just_behind_the_old_end_is_followed_too() -> None:
    found = through(500, *range(450, 450 + RESTART_RUN + 2))
    assert [late for _, _, late in found[1:]] == [True] * (RESTART_RUN - 1) + [False] * 3


def test_settling_releases_all_that_wait() -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer()
    for sequence in (1, 3, 4, 6):
        buffer.push(sequence, sequence)
    assert [tuple(out) for out in buffer.settle()] == [(3, 1, False), (4, 0, False), (6, 1, False)]
    assert buffer.settle() == []
    assert [tuple(out) for out in buffer.push(7, 7)] == [(7, 0, False)]


@given(st.lists(st.integers(0, 65535) | st.integers(0, 30) | st.integers(65500, 65535)))
def test_nothing_is_lost_invented_or_kept_for_ever(sequences: list[int]) -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer()
    out = []
    for number, sequence in enumerate(sequences):
        out += [released.packet for released in buffer.push(sequence, number)]
        assert number + 1 - len(out) <= MAX_HELD + len(sequences) - len(set(sequences))
    out += [released.packet for released in buffer.settle()]
    assert len(out) == len(set(out))
    # Only repeats of what waits are dropped.
    assert {sequences[number] for number in out} == set(sequences)


@given(st.integers(0, 65535), st.lists(st.integers(0, MAX_HELD - 1), min_size=1, max_size=60))
def test_packets_that_are_a_few_places_off_come_out_in_order(first: int, delays: list[int]) -> None:
    sequences = [(first + n) % 65536 for n in range(len(delays) + 1)]
    arrival = [0, *sorted(range(1, len(sequences)), key=lambda n: (n + delays[n - 1], n))]
    found = through(*(sequences[n] for n in arrival))
    assert found == [(sequence, 0, False) for sequence in sequences]
