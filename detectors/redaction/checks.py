"""Check digits and shapes of the numbers that identify people."""

from __future__ import annotations

import re

_KR_PHONE = re.compile(r"(?:82|0082)?0?1[016789]\d{7,8}|(?:82)?0?(?:2|[3-6][1-5]|70|50\d?)\d{7,8}")
_KR_LINE = re.compile(r"1[5-9]\d{6}")
_CN_PHONE = re.compile(r"(?:86|0086)?1[3-9]\d{9}|0\d{2,3}\d{7,8}")
_JP_PHONE = re.compile(r"0\d{9,10}|81[1-9]\d{8,9}")
_US_PHONE = re.compile(r"1?[2-9]\d{2}[2-9]\d{6}|[2-9]\d{6}")
_PHONES = {
    "ko": (_KR_PHONE, _KR_LINE, _JP_PHONE, _CN_PHONE),
    "zh": (_CN_PHONE, _KR_PHONE, _JP_PHONE),
    "ja": (_JP_PHONE, _KR_PHONE, _CN_PHONE),
    "en": (_US_PHONE, _KR_PHONE, _CN_PHONE, _JP_PHONE),
}


def luhn(digits: str) -> bool:
    """Check digit of a card number, 13-19 digits (ISO/IEC 7812-1 annex B)."""
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    total = 0
    for place, char in enumerate(reversed(digits)):
        value = int(char)
        if place % 2:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10 == 0


def korean_resident(digits: str) -> bool:
    """주민등록번호 or 외국인등록번호: a date, then 1-8 (0 and 9 for those born before 1900).

    The check digit says nothing since October 2020, when the rear part became random.
    """
    return len(digits) == 13 and _month_day(digits[2:4], digits[4:6])


def chinese_resident(number: str) -> bool:
    """居民身份证 of 18 places with a true check character (GB 11643-1999, ISO 7064 MOD 11-2)."""
    if not re.fullmatch(r"[1-9]\d{16}[0-9X]", number):
        return False
    if number[6:8] not in ("18", "19", "20") or not _month_day(number[10:12], number[12:14]):
        return False
    total = sum(int(number[i]) * (2 ** (17 - i) % 11) for i in range(17))
    return "10X98765432"[total % 11] == number[17]


def japanese_individual(digits: str) -> bool:
    """マイナンバー: twelve digits with a true check digit (総務省令第85号, 2014, 第5条)."""
    if len(digits) != 12:
        return False
    total = sum(int(digits[10 - i]) * (i + 2 if i < 6 else i - 4) for i in range(11))
    rest = total % 11
    return int(digits[11]) == (0 if rest <= 1 else 11 - rest)


def social_security(digits: str) -> bool:
    """A number the US Social Security Administration may have assigned: none of 000, 666, 9xx."""
    return (
        len(digits) == 9
        and digits[:3] not in ("000", "666")
        and digits[0] != "9"
        and digits[3:5] != "00"
        and digits[5:] != "0000"
    )


def telephone(digits: str, language: str) -> bool:
    """The shape of a telephone number, of the language's country first."""
    return any(shape.fullmatch(digits) for shape in _PHONES.get(language, _PHONES["en"]))


def _month_day(month: str, day: str) -> bool:
    return "01" <= month <= "12" and "01" <= day <= "31"
