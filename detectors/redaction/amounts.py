"""What is clearly no personal number: amounts, counts, dates, times.

A complaint lives of them ("35,000원을 두 번 결제했어요", "2024년 11월 22일 14:30"), and they are
what the agent must read. Their form has to say so: a unit behind, a currency before, thousands
set apart, a date of true months and days. A number after "account" or "번호는" is none of these.
"""

from __future__ import annotations

import re

_UNITS_KO = (
    "원|만|천|억|조|퍼센트|프로|달러|엔|위안|유로|개월|개|명|분|초|시간|시|일|월|년|주|건|대|장|매|"
    "박스|마리|병|잔|켤레|살|세|층|도|킬로|그램|미터|리터|페이지|점|등|회|차|배|포인트|마일|기가|메가"
)
_KO_AFTER = (
    "이?에요|이?예요|이?(?:고|구)요|이?라(?:고|니까|서)?요?|이?거든요|이?니까요?|이?었(?:는데|어)요?|"
    "입니다|인데요?|이고|이나|이랑|이?지만|이?요|정도|이상|이하|미만|넘게|어치|짜리|까지|부터|마다|만큼|밖에|씩|째|쯤|"
    "정|이|가|을|를|은|는|에|의|도|만|로|으로|나"
)
_UNITS_HAN = (
    "元|块钱|块|圆|円|角|毛|分钟|分鐘|分|秒|小时|時間|时|時|点|天|日|号|月|年|周|週|个|個|名|人|件|"
    "次|回|台|张|張|枚|本|杯|瓶|箱|岁|歳|才|层|階|度|公斤|千克|克|米|公里|升|页|%|百分|美元|万|億|亿|"
    "ドル|ウォン|ユーロ|キロ|メートル|グラム|パーセント|ポイント|か月|ヶ月|カ月|ページ"
)
_UNITS_EN = (
    "won|dollars?|bucks|cents?|euros?|pounds?|yen|yuan|usd|krw|eur|gbp|jpy|cny|rmb|percent|people|"
    "persons|customers|callers|times|items?|orders|pieces?|units|boxes|tickets|copies|seconds?|secs?|"
    "minutes?|mins?|hours?|hrs?|days?|weeks?|months?|years?|kg|km|cm|mm|grams?|kilos?|metres?|meters?|"
    "miles|feet|lit(?:er|re)s?|ml|gb|mb|tb|watts?|volts?|points|calories|pages|am|pm|am|degrees"
)
_WHOLE = r"(?:[1-9][0-9]{0,11}(?:\.[0-9]{1,4})?|0\.[0-9]{1,12})"
_GROUPED = r"[1-9][0-9]{0,2}(?:,[0-9]{3}){1,3}(?:\.[0-9]{1,2})?"
_YEAR = r"(?:19|20)[0-9]{2}"
_MONTH = r"(?:1[0-2]|0?[1-9])"
_DAY = r"(?:3[01]|[12][0-9]|0?[1-9])"
_BEFORE = r"(?<![0-9A-Za-z])(?<![0-9][-.,/])"
_AFTER = r"(?![0-9])(?![-./,][0-9])"

_DATE = (
    rf"{_YEAR}([-./])\s?{_MONTH}\1\s?{_DAY}|(?:{_MONTH}|{_DAY})([-./])(?:{_DAY}|{_MONTH})\2{_YEAR}"
)
#: A date as such; said after "born" it is a birth date.
DATE = re.compile(rf"{_BEFORE}(?:{_DATE}){_AFTER}")
_AMOUNT = re.compile(
    rf"{_BEFORE}(?P<amount>"
    # Currency before.
    rf"(?:[₩$€£¥]|(?:usd|krw|eur|gbp|jpy|cny|rmb)\s)\s?(?:{_GROUPED}|{_WHOLE}){_AFTER}"
    # A unit behind, a word of its own.
    rf"|(?:{_GROUPED}|{_WHOLE})\s?(?:(?:{_UNITS_KO})(?=(?:{_KO_AFTER})?(?![가-힣]))"
    rf"|(?:{_UNITS_HAN})|(?:{_UNITS_EN})(?![A-Za-z])|[%₩$€£¥℃])"
    # A time of the day.
    rf"|(?:[01]?[0-9]|2[0-4]):[0-5][0-9](?::[0-5][0-9])?(?![0-9:])"
    # Thousands set apart.
    rf"|{_GROUPED}{_AFTER})",
    re.IGNORECASE,
)


def find_dates(text: str) -> list[tuple[int, int]]:
    """All dates of year, month and day in figures."""
    return [found.span() for found in DATE.finditer(text)]


def find_amounts(text: str) -> list[tuple[int, int]]:
    """Amounts, counts and times in figures, in order."""
    return [found.span() for found in _AMOUNT.finditer(text)]
