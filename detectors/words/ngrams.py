"""Texts as hashed n-grams, the model's other sense beside the lexicon.

Two groups a text: characters as written, and sounds as the language's folding hears them
(:mod:`detectors.words.folded`). Each n-gram becomes a number below :data:`BUCKETS` by a
multiplicative hash over code points, the same in training and in a call.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from detectors.words.folded import Folded
from detectors.words.matcher import Reading
from detectors.words.surface import Surface

VERSION = 1
BUCKETS = 1 << 18
#: n of the n-grams by language: (of characters, of sounds).
SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "ko": ((1, 2, 3, 4), (3, 4, 5, 6, 7)),
    "zh": ((1, 2, 3, 4), (2, 3)),
    "en": ((2, 3, 4, 5, 6), (3, 4, 5)),
    "ja": ((1, 2, 3), (2, 3)),
}
#: Longer texts are judged by their beginning; a spoken turn is far shorter.
MAX_CHARS = 2000
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xC2B2AE3D27D4EB4F)
_LINKS = re.compile(r"https?://\S+|[@#]\w+|&\w+;")
_REPEATED = re.compile(r"(.)\1{2,}", re.DOTALL)
_SPACES = re.compile(r"\s+")


def plain(text: str) -> str:
    """Lower case, no links or names of accounts, at most two of a character in a row."""
    text = _LINKS.sub(" ", text[:MAX_CHARS].lower())
    return " " + _SPACES.sub(" ", _REPEATED.sub(r"\1\1", text)).strip() + " "


def hashed(text: str, sizes: tuple[int, ...]) -> NDArray[np.int64]:
    """Sorted unique bucket numbers of a text's n-grams, ``(k,)``; empty for an empty text."""
    # Two bytes each would lose emoji; four bytes hold any code point.
    codes = np.frombuffer(text.encode("utf-32-le", "replace"), dtype="<u4").astype(np.uint64)
    found = []
    running = np.zeros(len(codes), dtype=np.uint64)
    for n in range(1, max(sizes) + 1):
        if len(codes) < n:
            break
        running = running[: len(codes) - n + 1] * _FACTOR + codes[n - 1 :] + np.uint64(n)
        if n in sizes:
            mixed = (running ^ (running >> np.uint64(29))) * _MIX
            found.append(mixed >> np.uint64(64 - 18))
    if not found:
        return np.zeros(0, dtype=np.int64)
    return np.unique(np.concatenate(found)).astype(np.int64)


def sounds(folded: Folded) -> str:
    """The folded sounds as a string, a space at each gap."""
    return "".join(
        (" " if gap else "") + sound
        for sound, gap in zip(folded.sounds[: 3 * MAX_CHARS], folded.gaps, strict=False)
    )


def rows(
    text: str, surface: Surface, language: str, reading: Reading
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """A text as rows of a model's table and a weight each, both ``(k,)``.

    Rows below :data:`BUCKETS` are of characters, the others of sounds; each group's weights have
    the Euclidean length 1, so that a long text weighs no more than a short one.
    """
    of_chars, of_sounds = SIZES[language]
    chars, source = surface
    folded = reading.fold((chars[:MAX_CHARS], source[:MAX_CHARS]))
    groups = [hashed(plain(text), of_chars), hashed(sounds(folded), of_sounds)]
    weights = [np.full(len(group), 1 / np.sqrt(max(len(group), 1))) for group in groups]
    return (
        np.concatenate([groups[0], groups[1] + BUCKETS]),
        np.concatenate(weights).astype(np.float32),
    )
