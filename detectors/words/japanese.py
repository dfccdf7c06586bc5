"""How Japanese is read: katakana as hiragana, small kana as large, long vowels short.

Japanese writes no spaces: a word that also occurs inside innocent ones (しね in おいしね) must be
marked ``whole`` in the lexicon, and then stands between marks, or particles follow it.
"""

from __future__ import annotations

from detectors.words.folded import Folded
from detectors.words.matcher import Reading
from detectors.words.surface import Surface

_SMALL = dict(zip("ぁぃぅぇぉっゃゅょゎゕゖ", "あいうえおつやゆよわかけ", strict=True))
_ENDS = frozenset("。、！？!?,;；「」『』\n\r…")
_LONG = frozenset("ー〜~～ｰ")


def kana(char: str) -> str:
    """Hiragana for katakana, large for small."""
    if "ァ" <= char <= "ヶ":
        char = chr(ord(char) - 0x60)
    return _SMALL.get(char, char)


def fold(surface: Surface) -> Folded:
    """One sound a character; see the module's text."""
    out = Folded()
    gap = True
    for char, at in zip(*surface, strict=True):
        if char in _ENDS:
            out.add("\n", "\n", at, gap=True)
            gap = True
        elif char in _LONG:
            continue
        elif char.isalnum():
            sound = kana(char)
            if not gap and sound in "あいうえお" and out.sounds and out.letters[-1] == char:
                continue  # drawn out: ばかああ
            out.add(sound, sound, at, gap=gap)
            gap = False
        else:
            gap = True
    return out


def distance(word: list[str], written: list[str]) -> float:
    """Nothing is forgiven beyond the folding."""
    return float(sum(one != other for one, other in zip(word, written, strict=True)))


READING = Reading(
    views=lambda surface: [surface],
    fold=fold,
    distance=distance,
    forgiven=lambda sounds: 0.0,
    spaced=False,
)
