"""Postal addresses, where a pattern shows them: a street and a number, a block, a house.

Korea: 도로명주소법 (road name and building number) and 지번; China: 路 and 号; Japan: 丁目・番地;
English: a number before a street name, Commonwealth and US postcodes. A town told alone stays.
"""

from __future__ import annotations

import re

from detectors.redaction.marks import Kind

Found = tuple[int, int, Kind]

_N = r"[0-9]{1,5}(?:\s?[-–]\s?[0-9]{1,5})?"
_KO_SPOKEN = r"[일이삼사오육칠팔구십백천]{1,8}(?:\s?다시\s?[일이삼사오육칠팔구십백천]{1,6})?"
_KO_REGION = (
    r"(?:서울|부산|대구|인천|광주|대전|울산|세종|제주|경기|강원|충북|충남|전북|전남|경북|경남|"
    r"충청[북남]도|전라[북남]도|경상[북남]도)(?:특별자치|특별|광역)?(?:시|도)?"
)
_KO_UNIT = rf"(?:,?\s?(?:[0-9]{{1,4}}|{_KO_SPOKEN})\s?(?:동|호실|호|층)(?![가-힣]{{4}})){{0,3}}"
_KO = re.compile(
    # 서울 강남구 테헤란로 123, 101동 1203호
    rf"(?:{_KO_REGION}\s?)?(?:[가-힣]{{1,5}}[시군구]\s?){{1,2}}(?:[가-힣]{{1,5}}[읍면동]\s?)?"
    rf"[가-힣0-9]{{1,9}}?(?:대로|번길|로|길|동|리|가)(?:\s?{_N}|\s{_KO_SPOKEN}(?=$|[\s,.]|번))(?:\s?번지|번길\s?{_N}|길\s?{_N})?"
    rf"{_KO_UNIT}"
    # 테헤란로12길 34, 역삼동 123-4번지
    rf"|[가-힣]{{1,8}}로\s?[0-9]{{1,4}}(?:번)?길\s?{_N}{_KO_UNIT}"
    rf"|[가-힣]{{1,6}}(?:동|리|가|읍|면)\s?(?:{_N}|{_KO_SPOKEN})\s?번지{_KO_UNIT}"
    # 101동 1203호
    rf"|(?:[가-힣A-Za-z]{{1,10}}(?:아파트|빌라|오피스텔|빌딩|맨션|자이|래미안|푸르지오)\s?)?"
    rf"(?:[0-9]{{1,4}}|{_KO_SPOKEN})\s?동\s?(?:[0-9]{{2,5}}|{_KO_SPOKEN})\s?호"
)

_HAN_N = r"[0-9零〇一二三四五六七八九十百两]{1,7}"
#: Street and house; what stands before is its name, and the town: see :func:`_place_before`.
_ZH = re.compile(
    rf"(?:路|街|大道|巷|弄|胡同|村)\s?{_HAN_N}\s?[号號弄](?:院|楼)?"
    rf"(?:\s?[0-9A-Za-z一二三四五六七八九十百零〇]{{1,6}}\s?(?:号楼|栋|幢|座|单元|室|层|楼|号|户)){{0,4}}"
    rf"|{_HAN_N}(?:号楼|栋|幢|座)\s?(?:{_HAN_N}单元)?\s?{_HAN_N}(?:室|号|户)"
)
_JA_REST = rf"(?:\s?(?:丁目|番地?|号|[-‐–ー−の])\s?(?:{_HAN_N})?){{0,4}}(?:号室?)?"
_JA = re.compile(
    rf"(?:東京都|北海道|(?:京都|大阪)府|[一-龥]{{2,3}}県)(?:(?![はがをに、。\s])[一-龥ァ-ヶーぁ-ん]){{1,20}}?"
    rf"\s?{_HAN_N}{_JA_REST}"
    rf"|{_HAN_N}\s?丁目(?:\s?{_HAN_N}{_JA_REST})?"
    rf"|{_HAN_N}\s?番地(?:\s?の?\s?{_HAN_N})?"
)
#: Where the name of a Chinese or Japanese place cannot reach back over.
_NO_NAME = frozenset("在是到住去从的了往我你他她这那はがをにのもでとへ")
_MAX_NAME = 24

_EN_NUMBER = (
    r"(?:[0-9]{1,6}[A-Za-z]?|(?:(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|"
    r"thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|"
    r"sixty|seventy|eighty|ninety|hundred|oh|zero)[\s-]){1,5}(?<=[\s-]))"
)
_EN_NOT = (
    r"(?!(?:on|the|in|at|of|to|from|a|an|my|your|our|his|her|their|this|that|these|those|down|for|"
    r"and|or|by|near|across|along|off|per|times?|hours?|hrs?|minutes?|mins?|seconds?|days?|weeks?|"
    r"months?|years?|people|men|women|cars?|miles?|km|dollars?|won|bucks|percent|calls?|orders?|"
    r"items?|am|pm|is|are|was|were|with|each|more|other)\b)"
)
_EN = re.compile(
    r"(?:(?<![A-Za-z])(?:flat|apt|apartment|unit|suite)\s[0-9]{1,5}[A-Za-z]?,?\s)?"
    rf"(?<![\w,.]){_EN_NUMBER}\s?(?:{_EN_NOT}[A-Za-z][A-Za-z'.]{{0,18}}\s){{1,3}}"
    r"(?:street|avenue|ave|road|rd|boulevard|blvd|lane|drive|crescent|terrace|parkway|highway|"
    r"st|dr|ln|court|square|close)\b\.?"
    r"(?:,?\s(?:apt|apartment|unit|suite|flat|floor|#)\.?\s?#?[A-Za-z]?[0-9]{1,5}[A-Za-z]?)?"
    r"(?:,\s[A-Za-z][A-Za-z ]{1,24}?(?=,|\s(?-i:[A-Z]{1,2}[0-9]|[A-Z]{2}\s[0-9])|[.!?]|$))?"
    r"(?:,?\s(?-i:[A-Z]{2}\s[0-9]{5}(?:-[0-9]{4})?|[A-Z]{1,2}[0-9][A-Z0-9]?\s[0-9][A-Z]{2}))?"
    r"|(?<![A-Za-z0-9])(?-i:[A-Z]{2}\s[0-9]{5}(?:-[0-9]{4})?)(?![0-9])"
    # Royal Mail's form.
    r"|(?<![A-Za-z0-9])(?-i:[A-Z]{1,2}[0-9][A-Z0-9]?\s[0-9][A-Z]{2})(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_POSTCODE = re.compile(
    r"〒\s?[0-9]{3}-?[0-9]{4}|(?:우편번호|zip\s?code|postal\s?code|邮编|邮政编码|郵便番号)"
    r"[은는はは是:：\s]{0,3}(?:is\s)?([0-9][0-9\s-]{3,8}[0-9])",
    re.IGNORECASE,
)


def find_places(text: str) -> list[Found]:
    """Postal addresses in a plain text, ``(start, end, kind)`` in order; linear in its length."""
    found: list[Found] = []
    for pattern in (_KO, _EN):
        found += [(*match.span(), Kind.ADDRESS) for match in pattern.finditer(text)]
    for pattern in (_ZH, _JA):
        for match in pattern.finditer(text):
            found.append((_place_before(text, match.start()), match.end(), Kind.ADDRESS))
    for match in _POSTCODE.finditer(text):
        found.append((*match.span(1 if match[1] else 0), Kind.ADDRESS))
    return sorted(found)


def _place_before(text: str, end: int) -> int:
    """Where the name of town and street before a house number begins."""
    start = end
    while start > 0 and end - start < _MAX_NAME:
        char = text[start - 1]
        if char in _NO_NAME or not ("一" <= char <= "龥" or "ァ" <= char <= "ヶ"):
            break
        start -= 1
    return start
