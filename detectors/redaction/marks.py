"""What stands in the place of personal data, in the reader's language."""

from __future__ import annotations

import re
from enum import StrEnum


class Kind(StrEnum):
    """What was taken out."""

    PHONE = "phone"
    CARD = "card"
    NATIONAL_ID = "national_id"
    """주민등록번호, 외국인등록번호, 身份证, マイナンバー, social security number."""
    ACCOUNT = "account"
    EMAIL = "email"
    ADDRESS = "address"
    BIRTH_DATE = "birth_date"
    SECRET = "secret"  # noqa: S105 - a kind, no secret
    """A short number that opens something: PIN, one-time code, last digits of a card."""
    NUMBER = "number"
    """A long number of no known kind."""


_MARKS: dict[str, dict[Kind, str]] = {
    "ko": {
        Kind.PHONE: "[전화번호]",
        Kind.CARD: "[카드번호]",
        Kind.NATIONAL_ID: "[신분증번호]",
        Kind.ACCOUNT: "[계좌번호]",
        Kind.EMAIL: "[이메일]",
        Kind.ADDRESS: "[주소]",
        Kind.BIRTH_DATE: "[생년월일]",
        Kind.SECRET: "[비밀번호]",
        Kind.NUMBER: "[번호]",
    },
    "en": {
        Kind.PHONE: "[phone]",
        Kind.CARD: "[card number]",
        Kind.NATIONAL_ID: "[ID number]",
        Kind.ACCOUNT: "[account number]",
        Kind.EMAIL: "[e-mail]",
        Kind.ADDRESS: "[address]",
        Kind.BIRTH_DATE: "[date of birth]",
        Kind.SECRET: "[code]",
        Kind.NUMBER: "[number]",
    },
    "zh": {
        Kind.PHONE: "[电话号码]",
        Kind.CARD: "[卡号]",
        Kind.NATIONAL_ID: "[证件号码]",
        Kind.ACCOUNT: "[账号]",
        Kind.EMAIL: "[邮箱]",
        Kind.ADDRESS: "[地址]",
        Kind.BIRTH_DATE: "[出生日期]",
        Kind.SECRET: "[验证码]",
        Kind.NUMBER: "[号码]",
    },
    "ja": {
        Kind.PHONE: "[電話番号]",
        Kind.CARD: "[カード番号]",
        Kind.NATIONAL_ID: "[身分証番号]",
        Kind.ACCOUNT: "[口座番号]",
        Kind.EMAIL: "[メール]",
        Kind.ADDRESS: "[住所]",
        Kind.BIRTH_DATE: "[生年月日]",
        Kind.SECRET: "[暗証番号]",
        Kind.NUMBER: "[番号]",
    },
}

#: Any mark, in any language: it is no context for the number beside it.
ANY_MARK = re.compile(
    "|".join(re.escape(shown) for table in _MARKS.values() for shown in table.values())
)


def mark(kind: Kind, language: str) -> str:
    """The mark of a kind; English for a language without marks of its own."""
    return _MARKS.get(language, _MARKS["en"])[kind]
