"""What a warning says on a phone's screen, in the agent's language, cut to the display.

Pure. Level, category, what the keys do and whether somebody comes: no caller's word, no number of
a person, no name.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Literal

Status = Literal["", "warned", "asked", "seen", "coming", "joined", "took_over", "nobody"]

_LEVELS = {
    "ko": ("정상", "주의", "위험", "심각"),
    "en": ("Calm", "Caution", "Serious", "Severe"),
    "zh": ("正常", "注意", "危险", "严重"),
    "ja": ("正常", "注意", "危険", "深刻"),
}
_CATEGORIES = {
    "ko": {
        "profanity": "욕설·폭언",
        "insult": "모욕·인격비하",
        "threat": "협박",
        "sexual_harassment": "성희롱",
        "hate": "혐오·차별 발언",
        "shouting": "고성",
    },
    "en": {
        "profanity": "profanity",
        "insult": "insult",
        "threat": "threat",
        "sexual_harassment": "sexual harassment",
        "hate": "hate",
        "shouting": "shouting",
    },
    "zh": {
        "profanity": "辱骂",
        "insult": "侮辱",
        "threat": "威胁",
        "sexual_harassment": "性骚扰",
        "hate": "歧视言论",
        "shouting": "大声喊叫",
    },
    "ja": {
        "profanity": "暴言",
        "insult": "侮辱",
        "threat": "脅迫",
        "sexual_harassment": "セクハラ",
        "hate": "差別発言",
        "shouting": "怒鳴り声",
    },
}
_CRISIS = {"ko": "위기 고객", "en": "Caller in danger", "zh": "来电者有危险", "ja": "危機の相談者"}
_STATUS: dict[str, dict[Status, str]] = {
    "ko": {
        "warned": "경고 멘트 송출됨",
        "asked": "관리자 호출 중",
        "seen": "관리자가 확인함",
        "coming": "관리자가 옵니다",
        "joined": "관리자 참여 중",
        "took_over": "책임자 이관됨",
        "nobody": "관리자 응답 없음",
    },
    "en": {
        "warned": "Warning was played",
        "asked": "Supervisor called",
        "seen": "Seen by supervisor",
        "coming": "Supervisor is coming",
        "joined": "Supervisor joined",
        "took_over": "Handed over",
        "nobody": "No supervisor yet",
    },
    "zh": {
        "warned": "已播放警告",
        "asked": "正在呼叫主管",
        "seen": "主管已看到",
        "coming": "主管即将到来",
        "joined": "主管已加入",
        "took_over": "已转交",
        "nobody": "主管暂无应答",
    },
    "ja": {
        "warned": "警告を再生済み",
        "asked": "管理者を呼出中",
        "seen": "管理者が確認済み",
        "coming": "管理者が来ます",
        "joined": "管理者が参加中",
        "took_over": "引き継ぎ済み",
        "nobody": "管理者の応答なし",
    },
}
_END = {"ko": "안내 후 종료", "en": "End call", "zh": "告知后挂断", "ja": "案内して終了"}
_HELP = {"ko": "관리자 호출", "en": "Call help", "zh": "呼叫主管", "ja": "管理者呼出"}
_CLOSE = {"ko": "닫기", "en": "Close", "zh": "关闭", "ja": "閉じる"}
_TEST = {
    "ko": ("Callshield 시험", "화면 표시 시험입니다"),
    "en": ("Callshield test", "This is a test screen"),
    "zh": ("Callshield 测试", "这是屏幕测试"),
    "ja": ("Callshield テスト", "画面表示のテストです"),
}
_OVER = {"ko": "보호 화면 종료", "en": "Warning is over", "zh": "警告已结束", "ja": "警告終了"}


@dataclass(frozen=True, slots=True)
class Screen:
    """What a phone is to show.

    Attributes:
        level: 0 to 3.
        categories: as :class:`callshield.messages.RiskChanged` names them.
        crisis: the caller may be in danger.
        status: whether somebody comes.
        grade: of the last warning that was played to the caller, for ``warned``.
    """

    level: int
    categories: tuple[str, ...] = ()
    crisis: bool = False
    status: Status = ""
    grade: int = 0


@dataclass(frozen=True, slots=True)
class Words:
    """A screen in words: the title and the lines under it, the important ones first.

    Attributes:
        flows: a line that is too long goes on in the next one instead of being cut.
    """

    title: str
    lines: tuple[str, ...] = ()
    flows: bool = False


def words(screen: Screen, language: str, end_code: str, help_code: str) -> Words:
    """A warning in words.

    Args:
        screen: what it says.
        language: ``ko``, ``en``, ``zh`` or ``ja``; any other is English.
        end_code: digits that end the call (``sip.end_code``).
        help_code: digits that call a supervisor.
    """
    language = language if language in _LEVELS else "en"
    told = [_CATEGORIES[language][name] for name in screen.categories if name in _CATEGORIES["en"]]
    level = _LEVELS[language][min(max(screen.level, 0), 3)]
    end = f"{_END[language]} {end_code}"
    help_ = f"{_HELP[language]} {help_code}"
    status = _STATUS[language].get(screen.status, "")
    if screen.status == "warned" and screen.grade:
        status = f"{status} ({screen.grade})"
    if screen.crisis:
        # No abuse: help comes first, and ending is still there.
        title, keys = _CRISIS[language], [help_, end]
    elif not screen.level and status:
        return Words(status, (end, help_))
    else:
        title, keys = " ".join([level, *told[:1]]), [end, help_]
    if screen.status == "warned":
        keys = [*keys, status]
    elif status:
        # Help was asked for: what became of it goes before the key for it.
        keys = [status, end, help_]
    return Words(title, (*keys, *(told if screen.crisis else told[1:])))


def trial_words(language: str, text: str = "") -> Words:
    """Of a test."""
    title, line = _TEST.get(language, _TEST["en"])
    return Words(title, (text or line,), flows=True)


def answer_words(text: str) -> Words:
    """A sentence about a key that was pressed."""
    return Words("Callshield", (text,), flows=True)


def over_words(language: str) -> Words:
    """Shown for a moment where a screen can only be replaced."""
    return Words(_OVER.get(language, _OVER["en"]))


def key_labels(language: str) -> tuple[str, str, str]:
    """Of soft keys: end, help, close."""
    language = language if language in _END else "en"
    return _END[language], _HELP[language], _CLOSE[language]


def clean(text: str) -> str:
    """Text without anything that a screen or a parser would act upon.

    Controls, line ends, marks and overrides of the writing direction, halves of surrogate pairs
    and unassigned code points go (general categories Cc, Cf, Cs, Co, Cn, Zl, Zp; Unicode 15,
    section 4.5); runs of spaces become one.
    """
    kept = (
        " " if unicodedata.category(character) in ("Zs", "Zl", "Zp") or character in "\t\r\n"
        else character
        for character in unicodedata.normalize("NFC", text)
        if character in "\t\r\n"
        or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn")
    )  # fmt: skip
    return " ".join("".join(kept).split())


def width(text: str) -> int:
    """Cells of a fixed-width display: wide and full-width characters two (UAX 11), marks none."""
    return sum(
        0 if unicodedata.category(character) in ("Mn", "Me")
        else 2 if unicodedata.east_asian_width(character) in ("W", "F")
        else 1
        for character in text
    )  # fmt: skip


def cut(text: str, cells: int) -> str:
    """At most ``cells`` cells of ``text``, never half of a character."""
    used = 0
    for place, character in enumerate(text):
        used += width(character)
        if used > cells:
            return text[:place].rstrip()
    return text


def wrapped(text: str, cells: int) -> list[str]:
    """Lines of at most ``cells`` cells, broken at spaces; within a word only where it is longer."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        if line and width(line) + 1 + width(word) > cells:
            lines.append(line)
            line = ""
        line = f"{line} {word}" if line else word
        while width(line) > cells:
            head = cut(line, cells) or line[:1]
            lines.append(head)
            line = line[len(head) :].lstrip()
    return [*lines, line] if line else lines


def fitted(said: Words, lines: int, characters: int) -> list[str]:
    """Title and lines, cleaned and cut; the title is the first of them."""
    found = [cut(clean(said.title), characters)]
    for line in said.lines:
        found += wrapped(clean(line), characters) if said.flows else [cut(clean(line), characters)]
    return [line for line in found if line][: max(lines, 1)]
