"""Patterns of User-Agents: literal text with ``*``, ``?`` and sets like ``[0-9]``.

Small enough that two questions have exact answers: which of two patterns is more specific, and
whether some User-Agent matches both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

#: Printable ASCII in lower case: User-Agents are compared without case.
_ALPHABET = frozenset(chr(code) for code in range(32, 127) if not 65 <= code <= 90)
_LONGEST = 128


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern.

    Attributes:
        text: as written.
        tokens: for each position the characters that fit; ``None`` is any run of characters.
    """

    text: str
    tokens: tuple[frozenset[str] | None, ...]

    @property
    def specificity(self) -> tuple[int, int]:
        """Literal characters, then sets of some: more is more specific."""
        sizes = [len(token) for token in self.tokens if token is not None]
        return sum(size == 1 for size in sizes), sum(1 < size < len(_ALPHABET) for size in sizes)

    def matches(self, text: str) -> bool:
        """The whole of ``text`` fits, whatever its case; linear in time and pattern."""
        places = self._closed({0})
        for character in text.lower():
            places = self._closed(
                {
                    place if token is None else place + 1
                    for place in places
                    if place < len(self.tokens)
                    and ((token := self.tokens[place]) is None or character in token)
                }
            )
            if not places:
                return False
        return len(self.tokens) in places

    def _closed(self, places: set[int]) -> set[int]:
        """A run of characters may be empty."""
        for place in sorted(places):
            while place < len(self.tokens) and self.tokens[place] is None:
                place += 1
                places.add(place)
        return places


@lru_cache(maxsize=1024)
def compile_pattern(text: str) -> Pattern:
    """Read a pattern.

    Raises:
        ValueError: it is empty, too long, not printable ASCII, or a set is not closed or empty.
    """
    if not text or len(text) > _LONGEST or not (text.isascii() and text.isprintable()):
        raise ValueError(f"1 to {_LONGEST} printable ASCII characters")
    tokens: list[frozenset[str] | None] = []
    place = 0
    while place < len(text):
        character = text[place]
        if character == "*":
            if not tokens or tokens[-1] is not None:
                tokens.append(None)
        elif character == "?":
            tokens.append(_ALPHABET)
        elif character == "[":
            end = text.find("]", place)
            if end < 0:
                raise ValueError(f"a ']' for the '[' at {place + 1}")
            tokens.append(_members(text[place + 1 : end]))
            place = end
        else:
            tokens.append(frozenset(character.lower()))
        place += 1
    return Pattern(text, tuple(tokens))


def _members(inside: str) -> frozenset[str]:
    found: set[str] = set()
    place = 0
    while place < len(inside):
        if inside[place + 1 : place + 2] == "-" and place + 2 < len(inside):
            first, last = ord(inside[place]), ord(inside[place + 2])
            if last < first:
                raise ValueError(f"a set whose ranges go up, not {inside!r}")
            found |= {chr(code).lower() for code in range(first, last + 1)}
            place += 3
        else:
            found.add(inside[place].lower())
            place += 1
    if not found:
        raise ValueError("a set with a character in it")
    return frozenset(found)


def both_match(one: Pattern, other: Pattern) -> bool:
    """Some User-Agent matches both (the product of the two automata reaches its end)."""
    seen: set[tuple[int, int]] = set()
    waiting = [(0, 0)]
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        left, right = here
        at_left = one.tokens[left] if left < len(one.tokens) else frozenset[str]()
        at_right = other.tokens[right] if right < len(other.tokens) else frozenset[str]()
        if left == len(one.tokens) and right == len(other.tokens):
            return True
        if at_left is None:
            waiting.append((left + 1, right))
        if at_right is None:
            waiting.append((left, right + 1))
        if at_left is None and at_right:
            waiting.append((left, right + 1))
        elif at_right is None and at_left:
            waiting.append((left + 1, right))
        elif at_left and at_right and at_left & at_right:
            waiting.append((left + 1, right + 1))
    return False
