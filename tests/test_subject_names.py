"""Names of staff in texts: found as a pattern of them all would, and without making one."""

from __future__ import annotations

import random
import re
import secrets
import time

import pytest

from notifier.subject_access import Neutral
from notifier.subject_names import Names


def by_pattern(names: list[str], text: str, by: str) -> str:
    """The plain way, for comparison: one pattern of every name, the longest first."""
    parts = []
    for name in sorted({name.strip() for name in names}, key=len, reverse=True):
        if len(name) >= 2:
            part = re.escape(name)
            if name.isascii():
                part = rf"(?<![A-Za-z0-9]){part}(?![A-Za-z0-9])"
            parts.append(part)
    return re.sub("|".join(parts), by, text, flags=re.IGNORECASE) if parts else text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("1001번 상담사 김민수씨", "X번 상담사 X씨"),
        ("11001 10011 a1001 1001a", "11001 10011 a1001 1001a"),
        ("KIM-7, kim-7; kim-77 and xkim-7", "X, X; kim-77 and xkim-7"),
        ("kim", "kim"),
        ("J. Kim said: j. kim", "X said: X"),
        ("(0123abcd)", "(X)"),
        ("0123ABCD/0123abcde", "X/0123abcde"),
        ("Émile émile ÉMILE", "X X X"),
        ("@lee @lees x@lee", "X @lees x@lee"),
        ("-- a--", "X a--"),
        ("가나다라 가나", "X라 X"),
        ("", ""),
    ],
)
def test_names_are_found_as_whole_words_or_anywhere(text: str, left: str) -> None:
    names = ["1001", "김민수", "kim-7", "J. Kim", "0123abcd", "Émile", "@lee", "--", "x", "",
             "가나", "가나다"]  # fmt: skip
    assert Names(names).replaced(text, "X") == left
    assert by_pattern(names, text, "X") == left


def test_the_same_as_one_pattern_of_all_on_any_text() -> None:
    chance = random.Random(8)
    signs = "ab1-. 가나"
    for _ in range(2000):
        names = ["".join(chance.choices("ab1-.", k=chance.randint(1, 4))) for _ in range(4)]
        names = [name for name in names if re.fullmatch(r"[ab1](.*[ab1])?", name)]
        text = "".join(chance.choices(signs, k=30))
        assert Names(names).replaced(text, "_") == by_pattern(names, text, "_"), (names, text)


def test_many_tokens_cost_no_pattern() -> None:
    """Negative control: the plain way is slower a hundred times and more."""
    ids = [secrets.token_hex(4) for _ in range(6000)]
    text = f"by {ids[17]} and 김민수"
    began = time.thread_time()
    assert Neutral("ko", [], [*ids, "김민수"]).text(text) == "by 관리자 and 관리자"
    quick = time.thread_time() - began
    began = time.thread_time()
    by_pattern(ids, text, "관리자")
    plain = time.thread_time() - began
    print(f"{quick:.3f} s, plain {plain:.3f} s")
    assert quick * 5 < plain
