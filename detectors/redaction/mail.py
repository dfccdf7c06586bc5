"""E-mail addresses, written (RFC 5322 in practice) and spoken: 골뱅이, at, 艾特, アットマーク."""

from __future__ import annotations

import re

from detectors.redaction.marks import Kind

Found = tuple[int, int, Kind]

_MAX_LOCAL, _MAX_DOMAIN = 64, 100
_LOCAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-'")
_DOMAIN = re.compile(
    r"\s?(?:[A-Za-z0-9](?:[A-Za-z0-9-]|\.(?=[A-Za-z0-9]))*"
    # A name in another script (RFC 5890): its last part is short.
    r"|[^\W_]{1,40}\.(?:[A-Za-z.]{2,12}|[^\W_]{2}))"
)

_DOT = r"(?:\s?\.\s?|\s{0,2}(?:dot|점|닷|쩜|点|點|ドット|てん)\s{0,2})"
_TLD = (
    r"(?:com|net|org|co|kr|jp|cn|edu|gov|io|me|ac|or|ne|uk|컴|콤|넷|씨오|케이알|오알지|코|"
    r"コム|ネット|シーオー|ジェーピー|ジェイピー)"
)
_PROVIDER = (
    r"(?:g\s?mail|google|naver|hanmail|daum|kakao|nate|hotmail|outlook|yahoo|icloud|foxmail|sina|"
    r"docomo|softbank|ezweb|qq|163|126|네이버|지메일|한메일|다음|카카오|네이트|핫메일|아웃룩|야후|구글|"
    r"新浪|网易|ジーメール|ヤフー|ドコモ|グーグル)"
)
_NAME = r"[A-Za-z0-9가-힣一-龥ぁ-ヿ-]{1,20}"
_SPOKEN_DOMAIN = re.compile(
    rf"\s{{0,2}}(?:(?:{_NAME}\s?){{1,3}}?(?:{_DOT}{_TLD}(?![A-Za-z]))(?:{_DOT}{_TLD}(?![A-Za-z]))?|닷컴)",
    re.IGNORECASE,
)
_KNOWN = re.compile(
    rf"\s{{0,2}}{_PROVIDER}(?![A-Za-z])(?:{_DOT}?{_TLD}(?![A-Za-z])){{0,2}}", re.IGNORECASE
)
_MARKER = re.compile(
    r"(?P<en>(?<![A-Za-z])at(?![A-Za-z]))|골뱅이|(?<![가-힣])(?:앳|엣|에트)(?![가-힣])|艾特|圈\s?[aA]|小老鼠|"
    r"アットマーク|あっとまーく|アット(?![ァ-ヶ])",
    re.IGNORECASE,
)
#: Words before which a spoken address cannot reach back.
_STOP = re.compile(
    r".*(?:mail|메일|주소|邮箱|邮件|信箱|メール|アドレス)[은는이가을를은:：はがを是]{0,2}$|^(?:is|to|my|it's|address|the)$",
    re.IGNORECASE,
)
_SPELLED = re.compile(
    r"(?:[A-Za-z]|[0-9]+|dot|underscore|underbar|dash|hyphen|점|닷|언더바|하이픈|"
    r"zero|one|two|three|four|five|six|seven|eight|nine|oh|ten|eleven|twelve|twenty|thirty|forty|"
    r"fifty|sixty|seventy|eighty|ninety|(?:thir|four|fif|six|seven|eigh|nine)teen|[공영일이삼사오육칠팔구]{1,8}|"
    r"(?:에이치|더블유|에이|비|씨|디|이|에프|지|아이|제이|케이|엘|엠|엔|오|피|큐|알|에스|티|유|브이|엑스|와이|제트){1,12})",
    re.IGNORECASE,
)
_LATIN_END = re.compile(r"[A-Za-z0-9._-]{1,64}$")
#: Without spaces between words: what an address before 艾特 or アットマーク can consist of.
_RUN_BACK = re.compile(
    r"(?:[A-Za-z0-9._\-\s]|[零一二三四五六七八九幺点下划线]|[ァ-ヶー・]){1,40}$"
    r"|(?:(?![是为箱址はがをに])[一-龥ぁ-ん]){1,8}$"
)


def find_mail(text: str) -> list[Found]:
    """E-mail addresses in a plain text, ``(start, end, kind)`` in order; linear in its length."""
    found = [*_written(text), *_spoken(text)]
    return sorted(found)


def _written(text: str) -> list[Found]:
    found: list[Found] = []
    at = text.find("@")
    while at >= 0:
        start = at - 1 if text[at - 1 : at] == " " else at
        first = start
        while start > 0 and first - start < _MAX_LOCAL and _is_local(text[start - 1]):
            start -= 1
        behind = _DOMAIN.match(text, at + 1, at + 1 + _MAX_DOMAIN)
        # "RT @somebody" is a name in a network: apart from its local part, a domain has a dot.
        apart = first < at or text[at + 1 : at + 2] == " "
        if start < first and behind is not None and not (apart and "." not in behind.group()):
            found.append((start, behind.end(), Kind.EMAIL))
        at = text.find("@", at + 1)
    return found


def _is_local(char: str) -> bool:
    return char in _LOCAL or (not char.isascii() and char.isalnum())


def _spoken(text: str) -> list[Found]:
    found: list[Found] = []
    for marker in _MARKER.finditer(text):
        behind = _SPOKEN_DOMAIN.match(text, marker.end())
        if behind is None and not marker["en"]:
            behind = _KNOWN.match(text, marker.end())
        if behind is None:
            continue
        start = _local_start(text, marker.start())
        if start < marker.start():
            found.append((start, behind.end(), Kind.EMAIL))
    return found


def _local_start(text: str, end: int) -> int:
    """Where the spoken part before the at-sign begins; ``end`` when there is none."""
    window = text[max(0, end - 80) : end]
    stripped = window.rstrip(" ,")
    if not stripped:
        return end
    offset = end - len(window)
    if "一" <= stripped[-1] <= "龥" or "ぁ" <= stripped[-1] <= "ヿ":
        back = _RUN_BACK.search(stripped)
        return offset + back.start() if back else end
    words = list(re.finditer(r"\S+", stripped))
    start = len(stripped)
    for number, word in enumerate(reversed(words)):
        text_of = word.group()
        if _STOP.match(text_of) or (number > 0 and not _joined(words, len(words) - 1 - number)):
            break
        start = word.start()
        # "메일은tanaka": in a word of two scripts the address is the Latin end.
        latin = _LATIN_END.search(text_of)
        if latin is not None and latin.start():
            start += latin.start()
            break
    return offset + start if start < len(stripped) else end


def _joined(words: list[re.Match[str]], k: int) -> bool:
    """Word ``k`` belongs to the one behind it: one of the two is spelled or a sign."""
    signs = ("dot", "underscore", "underbar", "dash", "hyphen", "점", "닷", "언더바", "하이픈")
    if words[k + 1].group().lower() in signs:
        return True
    return any(_SPELLED.fullmatch(word.group()) for word in words[k : k + 2])
