"""What a recogniser may not be believed: repeats, and its own prompt read back.

Whisper decodes text from text, so on noise, or on a long vowel, it may fall into a loop
("우우우우…") and, given hotwords, may recite them. Callers repeat themselves too, and louder words
for it: a repeat that a mouth can say is shortened, only one that no mouth can say is a loop.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Repeats of the same piece that are kept.
KEPT_REPEATS = 3
#: More characters a second than people say; of syllables and logographs, and of letters.
#: (Fast speech: 8 syllables a second in Korean and Japanese, 6 in Mandarin, 20 letters in English;
#: Pellegrino et al., "A cross-language perspective on speech information rate", 2011.)
MOST_SYLLABLES_S, MOST_LETTERS_S = 12.0, 30.0
#: Neighbours in the prompt's order that make a transcript an echo of it.
ECHOED_WORDS = 4

#: A piece of 1-24 characters, at least three more times, with what divides them. Bounded, so
#: that the search takes time in proportion to the text.
_REPEATED = re.compile(
    r"(?<![A-Za-z])([^\W_](?:.{0,22}[^\W_])??)(?:[\s,.!?…、。！？]*\1){3,}", re.DOTALL
)
_LETTER = re.compile(r"[A-Za-zÀ-ɏ]")
_MARKS = re.compile(r"[\W_]+")


def letters(text: str) -> str:
    """Letters and figures only."""
    return _MARKS.sub("", text)


def shorten(text: str) -> str:
    """The text with every longer row of repeats cut to :data:`KEPT_REPEATS`."""
    return _REPEATED.sub(
        lambda row: (" " if " " in row[0] else "").join([row[1].strip()] * KEPT_REPEATS), text
    )


def is_unspeakable(text: str, seconds: float) -> bool:
    """The text is longer than anybody can say in that time."""
    said = letters(text)
    latin = len(_LETTER.findall(said))
    return latin / MOST_LETTERS_S + (len(said) - latin) / MOST_SYLLABLES_S > seconds + 0.5


def is_echo(text: str, hotwords: Sequence[str]) -> bool:
    """The text recites the prompt: several hotwords one after another in the prompt's order."""
    said = letters(text).lower()
    words = [letters(word).lower() for word in hotwords]
    return any(
        "".join(words[i : i + ECHOED_WORDS]) in said for i in range(len(words) - ECHOED_WORDS + 1)
    )
