"""What every language takes off a text before reading it: marks that only hide.

Zero-width and direction marks, variation selectors, HTML-like markup and its entities are
dropped, compatibility forms (full-width, circled, mathematical) become plain letters (NFKC,
UAX #15), letters are lowered. Emoji and other signs stay as single characters, which count as
gaps between words. Each character that stays remembers its place in the original text.
"""

from __future__ import annotations

import html
import re
import unicodedata

#: Markup of a few characters; longer spans between < and > are somebody's arithmetic or art.
_MARKUP = re.compile(r"</?[A-Za-z][^<>]{0,60}>|&(?:#\d{1,7}|#x[0-9a-fA-F]{1,6}|[A-Za-z]{2,8});")
_COMPATIBILITY_JAMO = re.compile("[\u3131-\u318e]")
_INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
#: Letters of other alphabets that look like Latin ones.
_LOOK_ALIKES = str.maketrans("аеорсухіѕјԁһɡοαерνκ", "aeopcyxisjdhgoaepvk")

Surface = tuple[list[str], list[int]]


def surface(text: str) -> Surface:
    """The characters that carry meaning and the index of each in ``text``; linear in its length."""
    chars: list[str] = []
    source: list[int] = []
    if text.isascii() and "<" not in text and "&" not in text:
        return list(text.lower()), list(range(len(text)))
    at = 0
    for markup in _MARKUP.finditer(text):
        _plain(text, at, markup.start(), chars, source)
        written = html.unescape(markup.group())
        if len(written) == 1:
            chars.append(written.lower()[:1])
            source.append(markup.start())
        at = markup.end()
    _plain(text, at, len(text), chars, source)
    return chars, source


def _plain(text: str, start: int, end: int, chars: list[str], source: list[int]) -> None:
    at = start
    while at < end:
        char = text[at]
        here = at
        at += 1
        if "가" <= char <= "힣" or "一" <= char <= "鿿" or char.isascii():
            chars.append(char.lower())
            source.append(here)
            continue
        if _COMPATIBILITY_JAMO.match(char):
            chars.append(char)
            source.append(here)
            continue
        if unicodedata.category(char) in ("Cf", "Cc", "Cs", "Co") and not char.isspace():
            continue
        # A letter and what is put on it: combining marks, conjoining jamo (a decomposed syllable).
        first = at
        while at < end and at - first < 8 and _joins(text[at]):
            at += 1
        for plain in unicodedata.normalize("NFKC", text[here:at]).translate(_LOOK_ALIKES).lower():
            if "ᄀ" <= plain <= "ᄒ":
                plain = _INITIALS[ord(plain) - 0x1100]
            if unicodedata.category(plain) in ("Mn", "Me", "Cf"):
                continue
            chars.append(plain)
            source.append(here)


def _joins(char: str) -> bool:
    return (
        "\u1160" <= char <= "\u11ff"
        or "\u3099" <= char <= "\u309a"
        or (char > "\u02ff" and unicodedata.combining(char) != 0)
        or "\ufe00" <= char <= "\ufe0f"
        or char in "\uff9e\uff9f"
    )
