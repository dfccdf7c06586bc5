"""How English is read: leetspeak undone, repeated letters as one, words bound by spaces.

``sh1t``, ``fuuuck``, ``f u c k`` and ``f*ck`` are found; ``Scunthorpe``, ``cockpit`` and ``class``
are not, since a hit is a whole word.
"""

from __future__ import annotations

import re

from detectors.words.folded import Folded
from detectors.words.matcher import Reading
from detectors.words.surface import Surface

_LEET = {
    "@": "a", "4": "a", "3": "e", "1": "i", "!": "i", "0": "o", "$": "s", "5": "s", "7": "t",
    "+": "t", "8": "b", "9": "g", "|": "i",
}  # fmt: skip
_TOKEN = re.compile(r"[a-z0-9@$!+|]*[a-z][a-z0-9@$!+|]*")
_TRAILING = re.compile(r"[!+|]+$")
_APOSTROPHES = frozenset("'’`´")
#: Words that are starred out as a rule, longest first.
_STARRED = sorted(
    ["fuck", "fucks", "fucked", "fucker", "fuckers", "fucking", "motherfucker", "shit", "shitty",
     "bullshit", "bitch", "bitches", "cunt", "cunts", "ass", "asshole", "bastard", "dick",
     "dickhead", "pussy", "nigger", "nigga", "whore", "slut", "faggot", "cock", "wanker",
     "retard", "retarded"],
    key=len, reverse=True,
)  # fmt: skip
_STARS = re.compile(r"(?<![a-z*])[a-z]{1,6}[*#_x-]*[*#][*#_x-]*[a-z]{0,6}(?![a-z*])")


def views(surface: Surface) -> list[Surface]:
    """The surface, and where letters are starred out, the word that fits."""
    chars, source = surface
    if "*" not in chars and "#" not in chars:
        return [surface]
    text = "".join(chars)
    out: list[str] = []
    places: list[int] = []
    at = 0
    for found in _STARS.finditer(text):
        pattern = re.sub(r"[*#_-]", ".", found.group())
        word = next((word for word in _STARRED if re.fullmatch(pattern, word)), None)
        if word is None:
            continue
        out += [*chars[at : found.start()], *word]
        places += source[at : found.end()]
        at = found.end()
    return [surface, (out + chars[at:], places + source[at:])] if at else [surface]


def fold(surface: Surface) -> Folded:
    """One sound a run of equal letters; apostrophes vanish (you're is youre)."""
    chars, source = surface
    kept = [(char, at) for char, at in zip(chars, source, strict=True) if char not in _APOSTROPHES]
    text = "".join(char for char, _ in kept)
    out = Folded()
    for token in _TOKEN.finditer(text):
        end = token.end()
        trailing = _TRAILING.search(token.group())
        if trailing:
            end = token.start() + trailing.start()
        k = token.start()
        while k < end:
            char = text[k]
            stop = k + 1
            while stop < end and text[stop] == char:
                stop += 1
            out.add(_LEET.get(char, char), text[k:stop], kept[k][1], gap=k == token.start())
            # A mask must cover the whole run.
            out.source[-1] = kept[k][1]
            k = stop
    return out


def distance(word: list[str], written: list[str]) -> float:
    """Nothing for letters held on (fuuuck), a little for leet, too much for a doubled letter."""
    total = 0.0
    for one, other in zip(word, written, strict=True):
        if one == other:
            continue
        if one[0] != other[0]:
            total += 0.3
            if len(one) != len(other) and len(other) < 3:
                return 99.0
        elif len(other) < 3 or len(other) < len(one):
            return 99.0
    return total


def forgiven(sounds: int) -> float:
    """Half of the letters may be leet."""
    return 0.15 * sounds + 0.15


READING = Reading(
    views=views,
    fold=fold,
    distance=distance,
    forgiven=forgiven,
    spaced=True,
)
