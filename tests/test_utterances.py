"""Cutting a caller's speech into utterances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.utterances import (
    AFTER_S,
    BEFORE_S,
    FRAME,
    FRAMES_PER_S,
    MAX_S,
    MIN_SPEECH_S,
    PAUSE_S,
    Utterance,
    UtteranceCutter,
)

HOP = 25


def spoken(*stretches: tuple[float, bool]) -> tuple[np.ndarray, np.ndarray]:
    """Audio and flags of stretches of speech or not; each sample holds its frame's number."""
    flags = np.concatenate([np.full(round(s * FRAMES_PER_S), f) for s, f in stretches])
    frames = np.arange(len(flags), dtype=np.int16)
    return np.repeat(frames, FRAME), flags


def cut(samples: np.ndarray, flags: np.ndarray, hop: int = HOP) -> list[Utterance]:
    cutter, found = UtteranceCutter(), []
    for at in range(0, len(flags), hop):
        part = slice(at, at + hop)
        found += cutter.push(
            at / FRAMES_PER_S, samples[at * FRAME : (at + hop) * FRAME], flags[part]
        )
    return found + cutter.flush()


def first_frame(utterance: Utterance) -> int:
    return int(utterance.samples[0])


def last_frame(utterance: Utterance) -> int:
    return int(utterance.samples[-1])


def test_two_phrases_with_a_pause_are_two_utterances_with_air_round_them() -> None:
    found = cut(*spoken((1.0, False), (2.0, True), (1.0, False), (1.5, True), (1.0, False)))
    assert [round(u.start_s, 2) for u in found] == [0.7, 3.7]
    assert [round(u.end_s, 2) for u in found] == [3.4, 5.9]
    assert [round(u.speech_s, 2) for u in found] == [2.0, 1.5]
    assert first_frame(found[0]) == 35
    assert last_frame(found[0]) == 169


def test_the_utterance_is_there_as_soon_as_the_pause_is_long_enough() -> None:
    samples, flags = spoken((1.0, True), (PAUSE_S, False))
    cutter = UtteranceCutter()
    assert not cutter.push(0.0, samples[:-FRAME], flags[:-1])
    (found,) = cutter.push(1.58, samples[-FRAME:], flags[-1:])
    assert found.end_s == pytest.approx(1.0 + AFTER_S)


def test_a_breath_inside_a_phrase_does_not_cut_it() -> None:
    (found,) = cut(*spoken((1.0, True), (PAUSE_S - 0.02, False), (1.0, True), (1.0, False)))
    assert found.speech_s == pytest.approx(2.0)


def test_a_click_is_no_utterance() -> None:
    assert not cut(*spoken((1.0, False), (MIN_SPEECH_S - 0.02, True), (2.0, False)))
    assert cut(*spoken((1.0, False), (MIN_SPEECH_S, True), (2.0, False)))


def test_after_seven_seconds_a_short_pause_is_enough() -> None:
    found = cut(*spoken((3.0, True), (0.3, False), (4.5, True), (0.3, False), (2.0, True)))
    assert [round(u.speech_s, 1) for u in found] == [7.5, 2.0]


def test_who_never_pauses_is_cut_at_the_quietest_point() -> None:
    flags = np.ones(40 * FRAMES_PER_S, dtype=np.bool_)
    samples = np.full(len(flags) * FRAME, 3000, dtype=np.int16)
    samples[1] = 7  # negative control: loudness alone decides, not the first odd sample
    quiet = 11 * FRAMES_PER_S
    samples[quiet * FRAME : (quiet + 5) * FRAME] = 10
    found = cut(samples, flags)
    assert found[0].end_s == pytest.approx(11.0, abs=0.1)
    assert all(u.length_s <= MAX_S for u in found)
    assert sum(u.speech_s for u in found) == pytest.approx(40.0)
    assert np.array_equal(np.concatenate([u.samples for u in found]), samples)


def test_a_closed_tap_ends_the_utterance_and_what_follows_is_another() -> None:
    samples, flags = spoken((1.0, True))
    cutter = UtteranceCutter()
    assert not cutter.push(0.0, samples, flags)
    (before,) = cutter.flush()
    assert not cutter.push(1.0, samples, flags)
    (after,) = cutter.flush()
    assert (before.start_s, after.start_s) == (0.0, 1.0)
    assert not cutter.flush()


def test_a_gap_in_the_audio_is_not_glued_over() -> None:
    samples, flags = spoken((1.0, True))
    cutter = UtteranceCutter()
    cutter.push(0.0, samples, flags)
    (before,) = cutter.push(9.0, samples, flags)
    (after,) = cutter.flush()
    assert (before.end_s, after.start_s) == (1.0, 9.0)


def test_silence_is_not_kept() -> None:
    cutter = UtteranceCutter()
    samples, flags = spoken((0.5, False))
    for number in range(1000):
        assert not cutter.push(number * 0.5, samples, flags)
    assert cutter.held_s <= BEFORE_S + 1e-9


@given(
    st.lists(st.tuples(st.integers(1, 900), st.booleans()), max_size=12),
    st.integers(1, 60),
)
def test_any_speech_comes_out_once_in_order_and_in_bounds(
    stretches: list[tuple[int, bool]], hop: int
) -> None:
    flags = np.concatenate([np.zeros(0, np.bool_), *(np.full(n, f) for n, f in stretches)])
    frames = np.arange(len(flags), dtype=np.int16)
    found = cut(np.repeat(frames, FRAME), flags, hop)
    position = -1
    for utterance in found:
        numbers = utterance.samples[::FRAME]
        assert 0 < utterance.length_s <= MAX_S
        assert utterance.speech_s >= MIN_SPEECH_S
        assert first_frame(utterance) > position
        assert np.array_equal(np.diff(numbers), np.ones(len(numbers) - 1))
        assert round(utterance.start_s * FRAMES_PER_S) == first_frame(utterance)
        assert utterance.speech_s == pytest.approx(flags[numbers].sum() / FRAMES_PER_S)
        position = last_frame(utterance)
    heard = sum(u.speech_s for u in found)
    # Only stretches too short to be an utterance are missing, at most one for each pause.
    assert flags.sum() / FRAMES_PER_S - heard < MIN_SPEECH_S * (len(stretches) + 1)


def test_a_shorter_pause_may_be_asked_for_and_the_air_never_overlaps() -> None:
    parts = spoken((1.0, False), (1.0, True), (0.4, False), (1.0, True), (1.0, False))
    (one,) = cut(*parts)  # the control
    assert one.speech_s == pytest.approx(2.0)
    cutter = UtteranceCutter()
    cutter.end_after(0.4)
    found = cutter.push(0.0, *parts)
    assert [round(u.speech_s, 2) for u in found] == [1.0, 1.0]
    assert last_frame(found[0]) < first_frame(found[1])
