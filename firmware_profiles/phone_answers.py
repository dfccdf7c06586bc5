"""What the listener says to a phone: a short sentence in the agent's language, no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: What came of a press: as :class:`callshield.messages_phones.PhoneKeyDone`, and ``unreached``
#: where nobody took it.
Outcome = Literal["done", "already", "no_call", "not_now", "unreached"]

#: Each fits a line of the smallest display (20 cells, wide characters two); that nobody was
#: reached takes two.
_KEY_TEXTS: dict[str, dict[tuple[str, str], str]] = {
    "ko": {
        ("end", "done"): "안내 후 종료합니다.",
        ("end", "already"): "이미 종료 중입니다.",
        ("help", "done"): "관리자 호출 완료",
        ("help", "already"): "이미 호출했습니다.",
        ("", "no_call"): "통화가 없습니다.",
        ("", "not_now"): "지금은 안 됩니다.",
        ("", "unreached"): "전달 실패: 다시 누름 또는 {code}",
    },
    "en": {
        ("end", "done"): "Ending the call.",
        ("end", "already"): "Already ending.",
        ("help", "done"): "Supervisor called.",
        ("help", "already"): "Already called.",
        ("", "no_call"): "There is no call.",
        ("", "not_now"): "Not possible now.",
        ("", "unreached"): "Not reached. Press again, or type {code}.",
    },
    "zh": {
        ("end", "done"): "正在告知并挂断。",
        ("end", "already"): "已在挂断。",
        ("help", "done"): "已呼叫主管。",
        ("help", "already"): "此前已呼叫主管。",
        ("", "no_call"): "当前没有通话。",
        ("", "not_now"): "现在无法执行。",
        ("", "unreached"): "未送达。请再按一次, 或按 {code}。",
    },
    "ja": {
        ("end", "done"): "案内して終了します。",
        ("end", "already"): "すでに終了中です。",
        ("help", "done"): "管理者を呼びました。",
        ("help", "already"): "すでに呼出済みです。",
        ("", "no_call"): "通話がありません。",
        ("", "not_now"): "今はできません。",
        ("", "unreached"): "届きません。 もう一度か {code} を。",
    },
}


@dataclass(frozen=True, slots=True)
class PhoneAnswer:
    """One HTTP answer."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"

    def encoded(self, *, body: bool = True) -> bytes:
        """As it goes out; without its body in answer to HEAD."""
        head = (
            f"HTTP/1.1 {self.status} {_REASONS.get(self.status, 'Unknown')}\r\n"
            f"Content-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body)}\r\n"
            # What is shown now is out of date in a moment.
            "Cache-Control: no-store\r\n"
            "Connection: close\r\n"
            "\r\n"
        ).encode()
        return head + self.body if body else head


_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}

#: Exactly this, without a line break: what a Cisco phone wants to read (and what it does not).
AUTHORIZED = PhoneAnswer(200, b"AUTHORIZED", "text/plain")
UN_AUTHORIZED = PhoneAnswer(200, b"UN-AUTHORIZED", "text/plain")


def key_text(action: str, outcome: Outcome, language: str, code: str) -> str:
    """What the agent reads after a press.

    Args:
        action: ``end`` or ``help``.
        outcome: what came of it.
        language: of the agent's screen; English where it is unknown.
        code: the feature code that does the same.
    """
    texts = _KEY_TEXTS.get(language, _KEY_TEXTS["en"])
    return (texts.get((action, outcome)) or texts["", outcome]).replace("{code}", code)
