"""One plain form of a text, with the way back: full-width, enclosed, Arabic-Indic and
mathematical digits become ASCII ones, what only hides (zero-width, direction marks, variation
selectors, keycaps) goes, decomposed Hangul and kana are composed (NFKC, UAX #15).
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

#: Characters that are read together: a decomposed syllable, a kana and its sound mark.
_JOINED = re.compile(
    "[\u1100-\u1112][\u1161-\u1175][\u11a8-\u11c2]?"
    "|[\u3041-\u30ff][\u3099\u309a]|[\uff66-\uff9d][\uff9e\uff9f]"
)


class Plain(NamedTuple):
    """A text without disguise."""

    text: str
    start: list[int]
    """Of each character: index in the original where it begins."""
    end: list[int]
    """Of each character: index in the original where it ends."""


def plain(text: str) -> Plain:
    """Take the disguise off; linear in the length of ``text``."""
    if text.isascii():
        size = len(text)
        return Plain(text, list(range(size)), list(range(1, size + 1)))
    joined = {m.start(): m.end() for m in _JOINED.finditer(text)}
    chars: list[str] = []
    start: list[int] = []
    end: list[int] = []
    at, size = 0, len(text)
    while at < size:
        after = joined.get(at, at + 1)
        char = text[at]
        if after - at > 1:
            shown = unicodedata.normalize("NFKC", text[at:after])
        elif char.isascii() or "가" <= char <= "힣":
            shown = char
        else:
            shown = _shown(char)
        for one in shown:
            chars.append(one)
            start.append(at)
            end.append(after)
        if not shown and end:
            # What hides belongs to the character before it, and goes with it.
            end[-1] = after
        at = after
    return Plain("".join(chars), start, end)


@lru_cache(maxsize=4096)
def _shown(char: str) -> str:
    if unicodedata.category(char) in ("Cf", "Mn", "Me", "Cs"):
        return ""
    digit = unicodedata.decimal(char, None)
    if digit is not None:
        return str(int(digit))
    shown = unicodedata.normalize("NFKC", char)
    return "".join(c for c in shown if unicodedata.category(c) not in ("Cf", "Mn", "Me"))
