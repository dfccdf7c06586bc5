"""Loops and echoes of a recogniser, told from callers who repeat themselves."""

from __future__ import annotations

import time

import pytest

from detectors.asr.guard import KEPT_REPEATS, is_echo, is_unspeakable, shorten

HOTWORDS = ["씨발", "개새끼", "병신", "미친년", "죽여버린다", "지랄"]


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("우" * 200, "우" * KEPT_REPEATS),
        ("아니 씨발 씨발 씨발 씨발 씨발", "아니 씨발 씨발 씨발"),
        ("No, no, no, no, no, no!", "No, no no no!"),
        ("네 네 감사합니다", "네 네 감사합니다"),
        ("하하하", "하하하"),
        ("", ""),
    ],
)
def test_rows_of_repeats_are_shortened_and_nothing_else(text: str, short: str) -> None:
    assert shorten(text) == short


@pytest.mark.parametrize(
    ("text", "seconds", "loop"),
    [
        ("우" * 100, 3.0, True),
        ("씨발 씨발 씨발 씨발", 2.0, False),
        ("제가 세 번이나 전화했는데 아무도 연락을 안 주셨어요", 4.8, False),
        ("I have been waiting for forty-five minutes and nobody has told me why", 3.5, False),
        ("I have been waiting for forty-five minutes and nobody has told me why" * 3, 3.5, True),
        ("謝謝觀看" * 20, 5.0, True),
        ("", 0.0, False),
    ],
)
def test_only_what_no_mouth_can_say_is_a_loop(text: str, seconds: float, loop: bool) -> None:
    assert is_unspeakable(text, seconds) is loop


def test_the_prompt_read_back_is_an_echo_and_a_curse_is_not() -> None:
    assert is_echo("씨발, 개새끼 병신 미친년", HOTWORDS)
    assert is_echo("개새끼 병신 미친년 죽여버린다 지랄", HOTWORDS)
    assert not is_echo("야 이 씨발 개새끼야", HOTWORDS)
    assert not is_echo("병신 개새끼 씨발 미친년", HOTWORDS)  # another order: a caller's
    assert not is_echo("씨발 개새끼 병신", HOTWORDS[:3])


def test_a_megabyte_takes_no_longer_than_it_must() -> None:
    for text in ("우" * 10**6, "가나다라마바사" * 140_000, "a b" * 300_000):
        begun = time.process_time()
        shorten(text)
        assert time.process_time() - begun < 20.0
