"""Finds any of many names in a text, by look-up: a node that people sign in to has thousands of
token ids, and one pattern of them all takes seconds to make.

What is written in Latin letters or digits is found only as a whole word, anything else anywhere:
Korean, Chinese and Japanese do not part a name from what follows it. Upper and lower case are one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

#: What makes a word: signs beside a name that make it part of a longer one.
_WORD = re.compile(r"[A-Za-z0-9]+")


class Names:
    """Names to look for.

    Args:
        names: of whom; one letter or digit alone stands everywhere, and is not looked for.
    """

    def __init__(self, names: Iterable[str]) -> None:
        found = {name.strip().lower() for name in names}
        found = {name for name in found if len(name) >= 2}
        # By the first word in it, and where in the name that begins; the longest first.
        self._words: dict[str, list[tuple[int, str]]] = {}
        odd, anywhere = [], []
        for name in sorted(found, key=len, reverse=True):
            if not name.isascii():
                anywhere.append(name)
            elif word := _WORD.search(name):
                self._words.setdefault(word[0], []).append((word.start(), name))
            else:
                odd.append(name)
        # Names without a letter or digit: nobody has them but who tries things out.
        self._odd = _any_of(odd)
        self._anywhere = frozenset(anywhere)
        self._lengths = sorted({len(name) for name in anywhere}, reverse=True)
        first = "".join(sorted({sign for name in anywhere for sign in _cases(name[0])}))
        self._first = re.compile(f"[{re.escape(first)}]") if first else None

    def replaced(self, text: str, by: str) -> str:
        """The text with ``by`` for each of them."""
        text = self._replaced_anywhere(text, by)
        if self._words:
            text = self._replaced_words(text, by)
        return text if self._odd is None else self._odd.sub(by, text)

    def _replaced_anywhere(self, text: str, by: str) -> str:
        if self._first is None:
            return text
        parts: list[tuple[int, int]] = []
        done = 0
        while hit := self._first.search(text, done):
            start = hit.start()
            for length in self._lengths:
                if text[start : start + length].lower() in self._anywhere:
                    parts.append((start, start + length))
                    done = start + length
                    break
            else:
                done = start + 1
        return _without(text, parts, by)

    def _replaced_words(self, text: str, by: str) -> str:
        parts: list[tuple[int, int]] = []
        done = 0
        for word in _WORD.finditer(text):
            for offset, name in self._words.get(word[0].lower(), ()):
                start = word.start() - offset
                end = start + len(name)
                if start < done or text[start:end].lower() != name:
                    continue
                if _WORD.match(text[start - 1 : start]) or _WORD.match(text[end : end + 1]):
                    continue
                parts.append((start, end))
                done = end
                break
        return _without(text, parts, by)


def _without(text: str, parts: list[tuple[int, int]], by: str) -> str:
    kept, at = [], 0
    for start, end in parts:
        kept += [text[at:start], by]
        at = end
    return "".join([*kept, text[at:]]) if parts else text


def _cases(sign: str) -> set[str]:
    return {one for one in (sign, sign.upper(), sign.lower()) if len(one) == 1}


def _any_of(names: list[str]) -> re.Pattern[str] | None:
    parts = [rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])" for name in names]
    return re.compile("|".join(parts)) if parts else None
