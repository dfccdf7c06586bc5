"""Korean as it is pronounced, in Hangul, to the phonemes that Kokoro-82M knows.

Kokoro was not trained on Korean. Its phoneme alphabet (IPA, after ``misaki``) has every sound
that Korean needs but the tense stops, which are written here as a glottal stop and the plain
one. The input is Hangul spelled *as it is said* (표준 발음법: 독립 is ``동닙``, 있습니다 is
``이씀니다``), so that anybody who reads Korean can check it: the automatic converter that was
tried (``hama`` 1.7.0) misread the sentence endings and missed the tensing in 보건법 [보건뻡].
"""

from __future__ import annotations

_INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
_VOWELS = {
    "ㅏ": "a",
    "ㅐ": "ɛ",
    "ㅑ": "ja",
    "ㅒ": "jɛ",
    "ㅓ": "ʌ",
    "ㅔ": "e",
    "ㅕ": "jʌ",
    "ㅖ": "je",
    "ㅗ": "o",
    "ㅘ": "wa",
    "ㅙ": "wɛ",
    "ㅚ": "we",
    "ㅛ": "jo",
    "ㅜ": "u",
    "ㅝ": "wʌ",
    "ㅞ": "we",
    "ㅟ": "wi",
    "ㅠ": "ju",
    "ㅡ": "ɯ",
    "ㅢ": "ɯi",
    "ㅣ": "i",
}
_VOWEL_ORDER = tuple(_VOWELS.values())
_FINALS = {0: "", 1: "k", 4: "n", 7: "t", 8: "l", 16: "m", 17: "p", 21: "ŋ"}
_PLAIN = {"ㄱ": "k", "ㄷ": "t", "ㅂ": "p", "ㅈ": "ʨ"}
_VOICED = {"ㄱ": "ɡ", "ㄷ": "d", "ㅂ": "b", "ㅈ": "ʥ"}
_ASPIRATED = {"ㅋ": "kʰ", "ㅌ": "tʰ", "ㅍ": "pʰ", "ㅊ": "ʨʰ"}
_TENSE = {"ㄲ": "ʔk", "ㄸ": "ʔt", "ㅃ": "ʔp", "ㅉ": "ʔʨ", "ㅆ": "ss"}
_SONORANT = {"ㄴ": "n", "ㅁ": "m", "ㅎ": "h", "ㅇ": ""}
_PAUSES = ".,!?"
#: Before a syllable: its plain stop stays voiceless although a vowel or sonorant comes before.
_VOICELESS = "'"


def phonemes(said: str) -> str:
    """Convert Hangul spelled as pronounced to Kokoro's phonemes.

    Plain stops are voiced after a vowel or a sonorant, across words too, and voiceless after a
    pause or an obstruent. ㅅ before [i] and [j] is palatal.

    Args:
        said: Hangul syllables with only the seven final sounds ㄱㄴㄷㄹㅁㅂㅇ, spaces,
            ``. , ! ?`` where the voice is to pause, and ``'`` before a syllable whose plain
            stop stays voiceless inside a phrase (Kokoro's voiced [b] tends towards [m]).

    Raises:
        ValueError: a syllable whose final consonant is not one of the seven sounds, or a
            character that is neither Hangul nor one of the marks; the message names it.
    """
    out = ""
    voicing = False
    for mark in said:
        if not "가" <= mark <= "힣":
            if mark == _VOICELESS:
                voicing = False
                continue
            if mark != " " and mark not in _PAUSES:
                raise ValueError(f"{mark!r} in {said!r} is not Hangul: write how it is said")
            out += mark
            voicing = voicing and mark not in _PAUSES
            continue
        code = ord(mark) - 0xAC00
        initial, vowel, final = _INITIALS[code // 588], _VOWEL_ORDER[code % 588 // 28], code % 28
        if final not in _FINALS:
            raise ValueError(f"{mark!r} in {said!r} is not spelled as it is pronounced")
        out += _onset(initial, vowel, voicing, out)
        if out.endswith(("ɕ", "ʨ", "ʥ", "ʨʰ")):
            vowel = vowel.removeprefix("j")
        out += vowel + _FINALS[final]
        voicing = _FINALS[final] not in ("k", "t", "p")
    return out


def _onset(initial: str, vowel: str, voicing: bool, before: str) -> str:
    if initial in _PLAIN:
        return (_VOICED if voicing else _PLAIN)[initial]
    if initial in _ASPIRATED:
        return _ASPIRATED[initial]
    if initial == "ㄹ":
        return "l" if before.endswith("l") else "ɾ"
    palatal = vowel[0] in "ij" or vowel == "wi"
    if initial == "ㅅ":
        return "ɕ" if palatal else "s"
    if initial == "ㅆ" and palatal:
        return "sɕ"
    return _TENSE.get(initial) or _SONORANT[initial]
