"""How Korean is read: folded to jamo, compared letter by letter, words bound by spaces."""

from __future__ import annotations

from detectors.words import hangul
from detectors.words.matcher import Reading

_TENSE = {"ㄲ": "ㄱ", "ㄸ": "ㄷ", "ㅃ": "ㅂ", "ㅆ": "ㅅ", "ㅉ": "ㅈ"}


def distance(word: list[str], written: list[str]) -> float:
    """A quarter for each tense consonant taken for its plain one, nearly half for other sounds."""
    total = 0.0
    for one, other in zip(word, written, strict=True):
        if one != other:
            total += 0.25 if _TENSE.get(one, one) == _TENSE.get(other, other) else 0.45
    return total


def forgiven(sounds: int) -> float:
    """Two syllables without a final consonant forgive nothing: too many words sound so."""
    if sounds <= 4:
        return 0.0
    return 0.13 * sounds if sounds < 9 else 1.2


#: Heard for one another on the telephone: nasals and stops of one place, neighbouring vowels.
_CONFUSED = (
    "ㅂㅁ ㄷㄴ ㄱㅇ ㄴㄹ ㄷㄹ ㄴㅁ ㄴㅇ ㅁㅇ ㅅㅈ ㄱㅂ ㄱㄷ ㅂㄷ ㅅㄷ ㅈㄷ "
    "ㅓㅗ ㅏㅓ ㅗㅜ ㅜㅡ ㅡㅣ ㅣㅔ ㅓㅡ ㅕㅛ ㅓㅕ ㅏㅑ ㅗㅛ ㅜㅠ ㅔㅓ ㅕㅔ ㅘㅏ ㅝㅓ"
)
CONFUSABLE = frozenset(_CONFUSED.split())

READING = Reading(
    views=hangul.views,
    fold=hangul.fold,
    distance=distance,
    forgiven=forgiven,
    spaced=True,
    liaison=True,
    confusable=CONFUSABLE,
)
