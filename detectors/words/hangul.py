"""Hangul as a stream of sounds: what a word looks like when spelling no longer hides it.

Korean abuse is written, and transcribed, in countless spellings: 시발, 씨 발, 씨이발, 시1발, 씨8,
ㅅㅣ발, tlqkf, 병시니 for 병신이. :func:`fold` turns a text into jamo in which the usual disguises
are gone:

* syllables become their jamo (Unicode 15 section 3.12); a silent initial ㅇ is dropped, which
  undoes liaison (병신이 and 병시니 are both ㅂㅕㅇㅅㅣㄴㅣ);
* tense and aspirated consonants fold to the plain one (ㅆ → ㅅ, ㅋ → ㄱ), since writers and
  transcribers mix them; vowels that sound alike fold too (ㅐ ㅒ ㅔ ㅖ ㅙ ㅚ ㅞ → ㅔ, ㅢ ㅟ → ㅣ);
* a lengthened vowel (씨이발, 씨이이발) is one vowel;
* single letters are put together again (ㅅㅣ발, ㄱ ㅐ, ㅁ1친).

:func:`views` adds the readings that need another alphabet: digits read aloud (씨8 is 씨팔), and
Hangul typed with the keyboard switched to Latin (tlqkf is 시발).
"""

from __future__ import annotations

import re

from detectors.words.folded import Folded
from detectors.words.surface import Surface

INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
FINALS = (
    "", "ㄱ", "ㄲ", "ㄳ", "ㄴ", "ㄵ", "ㄶ", "ㄷ", "ㄹ", "ㄺ", "ㄻ", "ㄼ", "ㄽ", "ㄾ",
    "ㄿ", "ㅀ", "ㅁ", "ㅂ", "ㅄ", "ㅅ", "ㅆ", "ㅇ", "ㅈ", "ㅊ", "ㅋ", "ㅌ", "ㅍ", "ㅎ",
)  # fmt: skip
_PAIRS = {
    "ㄳ": "ㄱㅅ", "ㄵ": "ㄴㅈ", "ㄶ": "ㄴㅎ", "ㄺ": "ㄹㄱ", "ㄻ": "ㄹㅁ", "ㄼ": "ㄹㅂ",
    "ㄽ": "ㄹㅅ", "ㄾ": "ㄹㅌ", "ㄿ": "ㄹㅍ", "ㅀ": "ㄹㅎ", "ㅄ": "ㅂㅅ",
}  # fmt: skip
_PLAIN = dict(zip("ㄲㅋㄸㅌㅃㅍㅆㅉㅊ", "ㄱㄱㄷㄷㅂㅂㅅㅈㅈ", strict=True))
_VOWEL_FOLD = {
    "ㅐ": "ㅔ", "ㅒ": "ㅔ", "ㅖ": "ㅔ", "ㅙ": "ㅔ", "ㅚ": "ㅔ", "ㅞ": "ㅔ", "ㅢ": "ㅣ", "ㅟ": "ㅣ",
}  # fmt: skip


def _parts(syllable: int) -> tuple[str, str, str]:
    final = FINALS[syllable % 28]
    return (
        INITIALS[syllable // 588],
        VOWELS[syllable % 588 // 28],
        _PAIRS.get(final, final),
    )


#: (initial, vowel, finals, folded vowel, folded finals) of each of the 11 172 syllables.
_SYLLABLES = [
    (i, v, f, _VOWEL_FOLD.get(v, v), "".join(_PLAIN.get(x, x) for x in f))
    for i, v, f in map(_parts, range(11172))
]


def fold(surface: Surface) -> Folded:
    """The sounds of a surface; see the module's text."""
    chars, source = compose(surface)
    out = Folded()
    gap = True
    before = ""
    for char, at in zip(chars, source, strict=True):
        code = ord(char) - 0xAC00
        if 0 <= code < 11172:
            initial, vowel, finals, vowel_sound, final_sounds = _SYLLABLES[code]
            if initial == "ㅇ" and vowel_sound == before and not gap:
                # Lengthened: only what closes the syllable is new.
                for sound, letter in zip(final_sounds, finals, strict=True):
                    out.add(sound, letter, at, start=False)
                if finals:
                    before = ""
                continue
            first = True
            if initial != "ㅇ":
                out.add(_PLAIN.get(initial, initial), initial, at, gap=gap)
                first = False
            out.add(vowel_sound, vowel, at, start=first, gap=gap and first, vowel=True)
            for sound, letter in zip(final_sounds, finals, strict=True):
                out.add(sound, letter, at, start=False)
            before = "" if finals else vowel_sound
            gap = False
        elif char.isalnum():
            # A single letter, a digit, another alphabet: itself, moved out of the sounds' way.
            sound = chr(0xE000 + ord(char) - 0x3130) if "\u3130" < char < "\u3190" else char
            out.add(sound, sound, at, gap=gap)
            gap = False
            before = ""
        else:
            gap = True
            before = ""
    return out


# ---------------------------------------------------------------------- single letters
_TYPED_VOWELS = "ㅏ-ㅣ"
_LONE = re.compile(
    rf"([ㄱ-ㅎ])([\s.*+~^_'\"-]{{0,3}})([{_TYPED_VOWELS}]|(?<=[ㄱ-ㅎ])[1!|l](?=[가-힣ㄱ-ㅎ]))"
    rf"(?:[\s.*+~^_'\"-]{{0,2}}([ㄱ-ㅎ])(?![\s.*+~^_'\"-]{{0,2}}[{_TYPED_VOWELS}1!|l가-힣]))?"
)


def compose(surface: Surface) -> Surface:
    """Put single letters together into syllables: ㅅㅣ발 → 시발, ㄱ ㅐ → 개, ㅁ1친 → 미친.

    Repeated laughter and tears (ㅋㅋㅠㅠ) are left alone.
    """
    chars, source = surface
    if not any("ㅏ" <= char <= "ㅣ" or char in "1!|l" for char in chars):
        return surface
    text = "".join(chars)
    out: list[str] = []
    places: list[int] = []
    at = 0
    for found in _LONE.finditer(text):
        initial, _, vowel, final = found.groups()
        vowel = "ㅣ" if vowel in "1!|l" else vowel
        if vowel in "ㅠㅜㅡ" and (
            initial in "ㅋㅎㅇ" or text[found.end() : found.end() + 1] == vowel
        ):
            continue
        if initial not in INITIALS:
            continue
        out += chars[at : found.start()]
        places += source[at : found.start()]
        code = (INITIALS.index(initial) * 21 + VOWELS.index(vowel)) * 28
        if final and final in FINALS:
            out.append(chr(0xAC00 + code + FINALS.index(final)))
            at = found.end()
        else:
            out.append(chr(0xAC00 + code))
            at = found.end(3)
        places.append(source[found.start()])
    return out + chars[at:], places + source[at:]


# ---------------------------------------------------------------------- other alphabets
_DIGITS = {"8": "팔", "2": "이", "0": "공"}
_READ = re.compile(r"18(?=[가-힣ㄱ-ㅎ\s!~.]|$)|(?<=[가-힣])8|(?<![a-z])c(?=[8가-힣])|(?<=[가-힣])2")
_NOISE = re.compile(r"(?<=[가-힣])[0-9a-z@*!|/\\^_~.,·♡♥★☆`'-]{1,3}(?=[가-힣])")
_LATIN = re.compile(r"[a-z]{4,24}")


def views(surface: Surface) -> list[Surface]:
    """The readings of a surface: itself, and where there is reason to, another alphabet's."""
    text = "".join(surface[0])
    out = [surface]
    if text.isascii() or any(char.isascii() and char.isalnum() for char in text):
        out += [
            view
            for view in (_read_digits(text, surface[1]), _drop_noise(text, surface[1]))
            if view is not None
        ]
        typed = _typed_blind(text, surface[1])
        if typed is not None:
            out.append(typed)
    return out


def _read_digits(text: str, source: list[int]) -> Surface | None:
    chars: list[str] = []
    places: list[int] = []
    at = 0
    for found in _READ.finditer(text):
        chars += text[at : found.start()]
        places += source[at : found.start()]
        read = {"18": "십팔", "c": "씨"}.get(found.group()) or _DIGITS[found.group()]
        chars += read
        places += [source[found.start()]] * len(read)
        at = found.end()
    if not at:
        return None
    return chars + list(text[at:]), places + source[at:]


def _drop_noise(text: str, source: list[int]) -> Surface | None:
    chars: list[str] = []
    places: list[int] = []
    at = 0
    for found in _NOISE.finditer(text):
        chars += text[at : found.start()]
        places += source[at : found.start()]
        at = found.end()
    if not at:
        return None
    return chars + list(text[at:]), places + source[at:]


#: Dubeolsik, the standard Korean keyboard (KS X 5002), from the Latin letters on its keys.
_KEYS = dict(
    zip(
        "qwertyuiopasdfghjklzxcvbnm",
        "ㅂㅈㄷㄱㅅㅛㅕㅑㅐㅔㅁㄴㅇㄹㅎㅗㅓㅏㅣㅋㅌㅊㅍㅠㅜㅡ",
        strict=True,
    )
)
_TWO_VOWELS = {
    "ㅗㅏ": "ㅘ", "ㅗㅐ": "ㅙ", "ㅗㅣ": "ㅚ", "ㅜㅓ": "ㅝ", "ㅜㅔ": "ㅞ", "ㅜㅣ": "ㅟ",
    "ㅡㅣ": "ㅢ",
}  # fmt: skip
_TWO_FINALS = {pair: one for one, pair in _PAIRS.items()}


def typed_blind(word: str) -> str:
    """Latin letters as the Korean keyboard would have written them: ``tlqkf`` → 시발.

    Shift is lost by lowering, so ㅆ reads ㅅ; folding makes them one anyhow. Returns an empty
    string where no whole syllables come out: then nobody typed Korean.
    """
    letters = [_KEYS[char] for char in word]
    out = []
    at = 0
    while at < len(letters):
        initial = letters[at]
        if initial not in INITIALS or at + 1 >= len(letters) or letters[at + 1] not in VOWELS:
            return ""
        vowel = letters[at + 1]
        at += 2
        if at < len(letters) and vowel + letters[at] in _TWO_VOWELS:
            vowel = _TWO_VOWELS[vowel + letters[at]]
            at += 1
        final = ""
        if at < len(letters) and letters[at] in FINALS and not _vowel_at(letters, at + 1):
            final = letters[at]
            at += 1
            if (
                at < len(letters)
                and final + letters[at] in _TWO_FINALS
                and not _vowel_at(letters, at + 1)
            ):
                final = _TWO_FINALS[final + letters[at]]
                at += 1
        code = (INITIALS.index(initial) * 21 + VOWELS.index(vowel)) * 28 + FINALS.index(final)
        out.append(chr(0xAC00 + code))
    return "".join(out)


def _vowel_at(letters: list[str], at: int) -> bool:
    return at < len(letters) and letters[at] in VOWELS


def _typed_blind(text: str, source: list[int]) -> Surface | None:
    chars: list[str] = []
    places: list[int] = []
    at = 0
    for found in _LATIN.finditer(text):
        hangul = typed_blind(found.group())
        if not hangul:
            continue
        chars += [*text[at : found.start()], *hangul]
        # Evenly spread over the letters, so that a mask covers all of them.
        step = len(found.group()) / len(hangul)
        places += source[at : found.start()]
        places += [source[found.start() + int(step * k)] for k in range(len(hangul))]
        at = found.end()
    if not at:
        return None
    return chars + list(text[at:]), places + source[at:]
