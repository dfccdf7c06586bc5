"""Digits, as digits and as words: Korean, Chinese, Japanese and English, one scan for all.

A recogniser writes a telephone number as it likes: 010-1234-5678, 공일공 일이삼사, 공 일 공,
zero one oh, double five, 一三八零零, 幺三八, ゼロイチニ. Each piece becomes an :class:`Item`;
:mod:`detectors.redaction.numbers` puts those that belong together into one number. Numbers
spoken as amounts (이십오, twenty dollars, 三十五) are no digits here, but English tens in a row are
("nineteen eighty" within a longer number).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_KO = {
    "공": "0", "영": "0", "빵": "0", "제로": "0", "일": "1", "하나": "1", "이": "2", "둘": "2",
    "투": "2", "삼": "3", "셋": "3", "쓰리": "3", "사": "4", "넷": "4", "오": "5", "다섯": "5",
    "파이브": "5", "육": "6", "륙": "6", "여섯": "6", "식스": "6", "칠": "7", "일곱": "7",
    "세븐": "7", "팔": "8", "여덟": "8", "여덜": "8", "에잇": "8", "구": "9", "아홉": "9",
    "나인": "9",
}  # fmt: skip
_ZH = {
    "零": "0", "〇": "0", "○": "0", "洞": "0", "一": "1", "壹": "1", "幺": "1", "么": "1",
    "二": "2", "贰": "2", "两": "2", "兩": "2", "三": "3", "叁": "3", "四": "4", "肆": "4",
    "五": "5", "伍": "5", "六": "6", "陆": "6", "七": "7", "柒": "7", "拐": "7", "八": "8",
    "捌": "8", "九": "9", "玖": "9", "勾": "9",
}  # fmt: skip
_JA = {
    "ゼロ": "0", "レイ": "0", "マル": "0", "ぜろ": "0", "れい": "0", "まる": "0", "イチ": "1",
    "いち": "1", "ワン": "1", "ニ": "2", "ニー": "2", "に": "2", "にー": "2", "サン": "3",
    "さん": "3", "ヨン": "4", "よん": "4", "シ": "4", "ゴ": "5", "ゴー": "5", "ご": "5",
    "ごー": "5", "ロク": "6", "ろく": "6", "ナナ": "7", "なな": "7", "シチ": "7", "しち": "7",
    "ハチ": "8", "はち": "8", "キュウ": "9", "キュー": "9", "きゅう": "9", "きゅー": "9",
    "ク": "9",
}  # fmt: skip
_EN = {
    "zero": "0", "oh": "0", "o": "0", "nought": "0", "naught": "0", "nil": "0", "one": "1",
    "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
    "nine": "9", "niner": "9",
}  # fmt: skip
_EN_TEENS = {
    "ten": "10", "eleven": "11", "twelve": "12", "thirteen": "13", "fourteen": "14",
    "fifteen": "15", "sixteen": "16", "seventeen": "17", "eighteen": "18", "nineteen": "19",
}  # fmt: skip
_EN_TENS = {
    "twenty": "2", "thirty": "3", "forty": "4", "fourty": "4", "fifty": "5", "sixty": "6",
    "seventy": "7", "eighty": "8", "ninety": "9",
}  # fmt: skip


def _either(words: dict[str, str]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


#: What may follow the last digit of a Korean word.
KO_TAIL = (
    "이?에요|이?예요|이?고요|이?구요|이?거든요|이?라고요?|이?라니까요?|이?랑|이?죠|이?지요|입니다|"
    "인데요?|이요|이야|요|번이?요?|번호|국에?|으?로|은|는|을|를|에|의|까지|부터|하고|고|다시|대시"
)
_UNITS = "one|two|three|four|five|six|seven|eight|nine"
_ZH_ANY = f"[{''.join(_ZH)}]"
_TOKENS = re.compile(
    rf"(?P<num>[0-9]+)"
    rf"|(?<![가-힣0-9])(?!(?:{KO_TAIL})(?![가-힣]))(?P<ko>(?:{_either(_KO)})+?)(?=(?:{KO_TAIL})?(?![가-힣]))"
    rf"|(?P<glued>(?:{_either(_KO)}){{3,}}+)"
    # Idioms (三三两两, 七七八八), unless they stand among other digits.
    rf"|(?P<idiom>(?<!{_ZH_ANY})(?:三三两两|三三兩兩|七七八八|一五一十|一一二二|三五一十)(?!{_ZH_ANY}))"
    rf"|(?<![十百千万萬亿])(?P<zh>{_ZH_ANY}++)(?![十百千万萬亿])"
    rf"|(?P<ja>(?:{_either(_JA)})+)"
    rf"|(?<![A-Za-z])(?:(?P<times>double|triple|treble)\s{{1,3}})?(?:(?P<en>{_either(_EN)})"
    rf"|(?P<teens>{_either(_EN_TEENS)})"
    rf"|(?P<tens>{_either(_EN_TENS)})(?:[\s-]{{1,3}}(?P<unit>{_UNITS}))?)(?![A-Za-z'])"
    rf"|(?P<hundred>(?<![A-Za-z])hundred(?![A-Za-z]))",
    re.IGNORECASE,
)
_KO_WORD = re.compile(_either(_KO))
_JA_WORD = re.compile(_either(_JA))


@dataclass(frozen=True, slots=True)
class Item:
    """One written or spoken group of digits."""

    start: int
    end: int
    digits: str
    script: str
    """``num``, ``ko``, ``zh``, ``ja`` or ``en``."""
    loose: bool = False
    """Less sure to be digits: inside of a longer word, or English tens."""


def find_items(text: str) -> Iterator[Item]:
    """All groups of digits in a plain text, in order; linear in its length."""
    for found in _TOKENS.finditer(text):
        item = _item(found)
        if item is not None:
            yield item


def _item(found: re.Match[str]) -> Item | None:
    start, end = found.span()
    kind = found.lastgroup or ""
    if kind == "num":
        return Item(start, end, found.group(), "num")
    if kind in ("ko", "glued"):
        digits = "".join(_KO[word] for word in _KO_WORD.findall(found.group(kind)))
        return Item(start, start + len(found.group(kind)), digits, "ko", kind == "glued")
    if kind == "zh":
        word = found.group()
        if len(word) < 3 and any(char in "洞拐勾么" for char in word):
            return None
        return Item(start, end, "".join(_ZH[char] for char in word), "zh")
    if kind == "ja":
        words = _JA_WORD.findall(found.group())
        return Item(start, end, "".join(_JA[word] for word in words), "ja")
    if kind == "idiom":
        return None
    if kind == "hundred":
        return Item(start, end, "00", "en", True)
    if found["en"]:
        repeated = {"double": 2, "triple": 3, "treble": 3}.get((found["times"] or "").lower(), 1)
        return Item(start, end, _EN[found["en"].lower()] * repeated, "en")
    if found["teens"]:
        return Item(start, end, _EN_TEENS[found["teens"].lower()], "en", True)
    last = _EN[found["unit"].lower()] if found["unit"] else "0"
    return Item(start, end, _EN_TENS[found["tens"].lower()] + last, "en", True)
