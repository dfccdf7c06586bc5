"""How Chinese is read: simplified characters, searched by sound.

Writers swap characters for others of the same sound (尼玛 for 你妈, 煞笔 for 傻逼), and so does a
transcriber. Each character is therefore searched by its Mandarin syllable without tone, retroflex
and nasal finals folded (zh z, ing in), and compared character by character: a long word may be
misspelled, one of two characters may not. Sentence marks end a word; other marks and spaces
inside one are ignored. Latin letters stand for themselves (nmsl, sb), as words of their own.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

from detectors.words.folded import Folded
from detectors.words.matcher import Reading
from detectors.words.surface import Surface

_TABLE = Path(__file__).parent / "han.toml"
_ENDS = frozenset("。，！？；、,!?;…\n\r|")


@cache
def _table() -> tuple[dict[str, str], dict[str, str]]:
    """Simplified for traditional, and one private character a folded syllable."""
    table = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    pairs = table["simplified"].replace("\n", "")
    simplified = dict(zip(pairs[::2], pairs[1::2], strict=True))
    numbers: dict[str, str] = {}
    sounds: dict[str, str] = {}
    for syllable, characters in table["syllables"].items():
        folded = fold_syllable(syllable)
        number = numbers.setdefault(folded, chr(0xE000 + len(numbers)))
        sounds.update(dict.fromkeys(characters, number))
    return simplified, sounds


def fold_syllable(syllable: str) -> str:
    """Sounds that speakers and typists mix: zh z, ch c, sh s, and final ng n."""
    for retroflex in ("zh", "ch", "sh"):
        if syllable.startswith(retroflex):
            syllable = retroflex[0] + syllable[2:]
    return syllable.removesuffix("g") if syllable.endswith("ng") else syllable


def simplify(text: str) -> str:
    """Simplified characters, one for one."""
    simplified, _ = _table()
    return "".join(simplified.get(char, char) for char in text)


def fold(surface: Surface) -> Folded:
    """One sound a character; see the module's text."""
    simplified, sounds = _table()
    out = Folded()
    gap = True
    latin = False
    for char, at in zip(*surface, strict=True):
        if char in _ENDS:
            out.add("\n", "\n", at, gap=True)
            gap = True
        elif char.isalnum():
            char = simplified.get(char, char)
            is_latin = char.isascii()
            out.add(sounds.get(char, char), char, at, gap=gap or is_latin != latin)
            latin = is_latin
            gap = False
        else:
            gap = True
    return out


def distance(word: list[str], written: list[str]) -> float:
    """Characters of the same sound but not the same."""
    return float(sum(one != other for one, other in zip(word, written, strict=True)))


def forgiven(sounds: int) -> float:
    """Two characters forgive nothing, three one, more two."""
    return 0.0 if sounds < 3 else 1.0 if sounds == 3 else 2.0


READING = Reading(
    views=lambda surface: [surface],
    fold=fold,
    distance=distance,
    forgiven=forgiven,
    spaced=False,
)
