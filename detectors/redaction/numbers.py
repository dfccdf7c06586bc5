"""Which groups of digits are one number, whether it must go, and what it is.

Groups stand in one number when only *glue* lies between them: spaces, hyphens, a particle
(공일공에 일이삼사, 03の1234の5678), a word for the hyphen, a hesitation. The number goes when
it is long enough for its script, or shorter behind a word that says what it is (비밀번호, 尾号,
PIN). What :mod:`detectors.redaction.amounts` knows stays.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from detectors.redaction import checks
from detectors.redaction.amounts import find_amounts, find_dates
from detectors.redaction.marks import ANY_MARK, Kind
from detectors.redaction.spoken import KO_TAIL, Item, find_items

Found = tuple[int, int, Kind]

#: Characters between two groups that can still be one number.
_MAX_GAP = 24
#: Characters before a number in which a word may say what it is, and behind it.
_BEFORE, _BEHIND = 24, 10
_GLUE_SIGN = r"[^\w%₩$€£¥=<>]|_|ー"
#: Between any two groups.
_GLUE = re.compile(
    rf"(?:{_GLUE_SIGN}|에|의|다시|대시|하이픈|국에?|(?<=[가-힣])(?:{KO_TAIL})(?![가-힣])|の|ノ|ハイフン|内線|杠|横杠|减|转|分机|내선|"
    r"(?<![a-z])(?:dash|hyphen|minus|space|ext|extension)(?![a-z])){0,12}",
    re.IGNORECASE,
)
#: Between groups of which one is spoken: hesitations, and digits that were heard as other words.
_SPOKEN_GLUE = re.compile(
    rf"(?:{_GLUE_SIGN}|에|의|다시|대시|하이픈|국에?|음|어|그|저|네|그리고|그다음에?|원|포|{KO_TAIL}"
    r"|の|ノ|ハイフン|えっと|えー|あの|で|杠|横杠|减|呃|嗯|那个|然后|"
    r"(?<![a-z])(?:dash|hyphen|minus|space|uh|um|er|and|then|area|code|to|too|for|won|ate|point)"
    r"(?![a-z])){0,12}",
    re.IGNORECASE,
)
#: Words that may be a misheard digit among spoken ones (two, four, one, eight), no figures.
_MISHEARD = re.compile(r"(?<![a-z])(?:to|too|for|won|ate|and|then)(?![a-z])", re.IGNORECASE)

_SECRET = re.compile(
    r"비밀번호|비번|인증번호|뒷자리|뒷번호|끝자리|끝번호|씨브이씨|유효기간|암호|pin\b|passcode|password|"
    r"cvc|cvv|one.?time|security code|verification|last (?:four|4|three|3)|ending in|expir|"
    r"密码|密碼|验证码|驗證碼|尾号|尾號|末四位|后四位|安全码|暗証番号|認証番号|パスワード|下4桁|下四桁|末尾",
    re.IGNORECASE,
)
_KINDS = (
    (
        Kind.CARD,
        re.compile(
            r"카드|card|visa|mastercard|信用卡|卡号|银行卡|カード|クレジット", re.IGNORECASE
        ),
    ),
    (
        Kind.NATIONAL_ID,
        re.compile(
            r"주민|외국인\s?등록|등록번호|신분증|여권|면허|social (?:security|is|number)|\bssn\b|"
            r"passport|licen[cs]e|\bid (?:number|card)|national id|身份证|身份證|证件|护照|"
            r"マイナンバー|個人番号|免許|旅券|在留カード",
            re.IGNORECASE,
        ),
    ),
    (
        Kind.ACCOUNT,
        re.compile(
            r"계좌|통장|은행|송금|입금|예금주|account|iban|routing|sort code|"
            r"账号|账户|帐号|帳號|转账|口座|振込",
            re.IGNORECASE,
        ),
    ),
    (
        Kind.PHONE,
        re.compile(
            r"전화|핸드폰|휴대폰|휴대전화|연락처|폰번호|phone|mobile|cell|call me|reach me|"
            r"电话|手机|電話|携帯|联系方式|连络",
            re.IGNORECASE,
        ),
    ),
)
_BORN = re.compile(
    r"생년월일|생일|태어난|태어났|birth|\bdob\b|born|出生|生日|生年月日|誕生日|生まれ",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"번호는?|number(?: is)?|号码|号碼|番号は?|주문번호|고객번호|코드|code", re.IGNORECASE
)
_MASKED = re.compile(r"[-\s]?[*●○•xX]{2,20}(?![A-Za-z])")
_CHECK_X = re.compile(r"\s?(?:[xX](?![A-Za-z])|叉|艾克斯)")
_SIGN_BEFORE = re.compile(r"[+(]{1,2}$|(?<![A-Za-z])[A-Za-z]{1,4}-?$")
_SIGN_BEHIND = re.compile(r"[A-Za-z]{1,3}(?![A-Za-z])|\)")


@dataclass(slots=True)
class _Run:
    """Groups of one number."""

    items: list[Item]

    @property
    def start(self) -> int:
        return self.items[0].start

    @property
    def end(self) -> int:
        return self.items[-1].end

    @property
    def digits(self) -> str:
        return "".join(item.digits for item in self.items)

    @property
    def written(self) -> bool:
        return all(item.script == "num" for item in self.items)


def find_numbers(text: str, language: str) -> list[Found]:
    """Numbers that must go, ``(start, end, kind)`` in the plain text, in order.

    Args:
        text: from :func:`detectors.redaction.plain.plain`.
        language: whose country's shapes are tried first.
    """
    dates = find_dates(text)
    found: list[Found] = [
        (start, end, Kind.BIRTH_DATE)
        for start, end in dates
        if _BORN.search(_context(text, start, end))
    ]
    kept = sorted([*dates, *find_amounts(text)])
    starts = [start for start, _ in kept]
    items = [item for item in find_items(text) if not _is_kept(text, item, kept, starts)]
    for run in _runs(text, items):
        kind = _judge(text, run, language)
        if kind is not None:
            start, end = _widened(text, run)
            found.append((start, end, kind))
    return sorted(found, key=lambda item: item[0])


def _is_kept(text: str, item: Item, kept: list[tuple[int, int]], starts: list[int]) -> bool:
    k = bisect_right(starts, item.start) - 1
    if item.script != "num" or k < 0 or kept[k][1] < item.end:
        return False
    start, end = kept[k]
    # "계좌번호 110234567890 원장님": named as a number and as long as one, it is none of ours.
    figures = sum(char.isdigit() for char in text[start:end])
    return not (figures >= 9 and _kind_named(_context(text, start, end)) is not None)


def _runs(text: str, items: Iterable[Item]) -> list[_Run]:
    runs: list[_Run] = []
    for item in items:
        if runs and _belongs(text, runs[-1].items[-1], item):
            runs[-1].items.append(item)
        else:
            runs.append(_Run([item]))
    return runs


def _belongs(text: str, before: Item, item: Item) -> bool:
    gap = text[before.end : item.start]
    if len(gap) > _MAX_GAP:
        return False
    written = "num" in (before.script, item.script)
    if written and _MISHEARD.search(gap):
        return False
    glue = _GLUE if before.script == item.script == "num" else _SPOKEN_GLUE
    return not gap or glue.fullmatch(gap) is not None


def _judge(text: str, run: _Run, language: str) -> Kind | None:
    """The kind of a number that must go, None for one that may stay."""
    digits = run.digits
    size = len(digits)
    context = _context(text, run.start, run.end)
    if size >= 3 and not _is_year(text, run) and _SECRET.search(context):
        return _kind(text, run, language, context) if size > 8 else Kind.SECRET
    if size >= 4 and not _is_year(text, run) and (_kind_named(context) or _NAMED.search(context)):
        if run.written or size >= 5 or not any(item.loose for item in run.items):
            return _kind(text, run, language, context)
        return None
    long_enough = _written_enough(run, text) if run.written else _spoken_enough(run, text)
    return _kind(text, run, language, context) if long_enough else None


def _written_enough(run: _Run, text: str) -> bool:
    digits = run.digits
    if len(digits) >= 7:
        return True
    if len(digits) < 5:
        return False
    # A round number is a price whose unit was left out; a split one is a list.
    glued = len(run.items) == 1 or "-" in text[run.start : run.end]
    return glued and not (digits.endswith("00") and digits[0] != "0")


def _spoken_enough(run: _Run, text: str) -> bool:
    size = len(run.digits)
    if len(set(run.digits)) == 1:
        return False  # 오오오오!, oh oh oh oh
    scripts = {item.script for item in run.items} - {"num"}
    if any(item.loose and item.script == "en" for item in run.items):
        return size >= 8
    if any(item.loose for item in run.items) or len(scripts) > 1:
        return size >= 7
    if scripts == {"en"}:
        return size >= 4
    if scripts == {"ko"}:
        return size >= 6 or any(len(item.digits) >= 4 for item in run.items)
    if scripts == {"zh"}:
        if text.startswith("年", run.end) and size <= 4:
            return False
        return size >= 5 or (
            size == 4 and re.search("[幺洞]", text[run.start : run.end]) is not None
        )
    return size >= 5


def _is_year(text: str, run: _Run) -> bool:
    """Four digits that are said to be a year, or that a unit follows."""
    behind = text[run.end : run.end + 2]
    return len(run.digits) <= 4 and behind.strip()[:1] in ("년", "年")


def _kind(text: str, run: _Run, language: str, context: str) -> Kind:
    digits = run.digits
    size = len(digits)
    groups = [len(item.digits) for item in run.items]
    named = _kind_named(context)
    if groups == [6, 1] and _MASKED.match(text, run.end):
        return Kind.NATIONAL_ID
    if size in (6, 8) and _BORN.search(context):
        return Kind.BIRTH_DATE
    if size == 13 and checks.korean_resident(digits) and (groups == [6, 7] or language == "ko"):
        return Kind.NATIONAL_ID
    checked = digits + "X" if _CHECK_X.match(text, run.end) and size == 17 else digits
    if checks.chinese_resident(checked):
        return Kind.NATIONAL_ID
    if checks.luhn(digits):
        return Kind.CARD
    if groups == [3, 2, 4] and checks.social_security(digits):
        return Kind.NATIONAL_ID
    if named is Kind.NATIONAL_ID or (named is Kind.CARD and size >= 8):
        return named
    if checks.telephone(digits, language):
        return named if named in (Kind.ACCOUNT, Kind.PHONE) else Kind.PHONE
    if language == "ja" and checks.japanese_individual(digits):
        return Kind.NATIONAL_ID
    if named is not None:
        return named
    if 10 <= size <= 14 and len(groups) >= 3 and digits[0] != "0":
        return Kind.ACCOUNT
    return Kind.NUMBER


def _context(text: str, start: int, end: int) -> str:
    """What stands round a number; marks of an earlier redaction say nothing."""
    before = text[max(0, start - _BEFORE - 16) : start]
    behind = text[end : end + _BEHIND + 16]
    before = ANY_MARK.sub("\n", before)[-_BEFORE:]
    behind = ANY_MARK.sub("\n", behind)[:_BEHIND]
    return before.rpartition("\n")[2] + "\x00" + behind.partition("\n")[0]


def _kind_named(context: str) -> Kind | None:
    """What the nearest word before a number, else behind it, says that it is."""
    before, _, behind = context.partition("\x00")
    nearest: tuple[int, Kind] | None = None
    for kind, words in _KINDS:
        named = [match.start() for match in words.finditer(before)]
        if named and (nearest is None or named[-1] > nearest[0]):
            nearest = named[-1], kind
    if nearest is not None:
        return nearest[1]
    return next((kind for kind, words in _KINDS if words.search(behind)), None)


def _widened(text: str, run: _Run) -> tuple[int, int]:
    """The run with what belongs to it: a plus, a letter of a passport, a masked rest."""
    start, end = run.start, run.end
    if run.items[0].script == "num":
        before = _SIGN_BEFORE.search(text[max(0, start - 7) : start])
        if before is not None:
            start -= len(before.group())
    if run.items[-1].script == "num":
        behind = _MASKED.match(text, end) or _CHECK_X.match(text, end)
        behind = behind or _SIGN_BEHIND.match(text, end)
        if behind is not None and not (behind.group() == ")" and "(" not in text[start:end]):
            end = behind.end()
    elif len(run.digits) in (3, 5, 17) and (behind := _CHECK_X.match(text, end)) is not None:
        end = behind.end()
    return start, end
