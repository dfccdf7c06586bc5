"""What a mail about an alert says: ids, kind and level, in the node's language. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

#: Levels 0-3.
_LEVELS = {
    "ko": ("정상", "주의", "위험", "심각"),
    "en": ("calm", "caution", "serious", "severe"),
    "zh": ("正常", "注意", "危险", "严重"),
    "ja": ("正常", "注意", "危険", "深刻"),
}
_KINDS = {
    "ko": {
        "risk": "위험 통화 알림",
        "help": "관리자 호출",
        "crisis": "위기 고객 알림",
        "notice_failed": "안내 멘트 재생 실패",
        "node": "시스템 알림",
        "": "알림",
    },
    "en": {
        "risk": "call at risk",
        "help": "call for help",
        "crisis": "caller in danger",
        "notice_failed": "notice not played",
        "node": "system alert",
        "": "alert",
    },
    "zh": {
        "risk": "风险通话提醒",
        "help": "坐席求助",
        "crisis": "来电者处于危机",
        "notice_failed": "提示语播放失败",
        "node": "系统提醒",
        "": "提醒",
    },
    "ja": {
        "risk": "リスク通話の通知",
        "help": "管理者呼び出し",
        "crisis": "危機にあるお客様の通知",
        "notice_failed": "アナウンス再生失敗",
        "node": "システム通知",
        "": "通知",
    },
}
_STAGES = {
    "ko": {
        "person": "다음 관리자에게 전달됨",
        "all": "팀의 모든 관리자에게 전달됨",
        "manager": "응답한 관리자 없음, 책임자에게 전달됨",
        "nobody": "아무도 응답하지 않음",
        "": "응답 없음, 다음 단계로 전달됨",
    },
    "en": {
        "person": "passed on to the next supervisor",
        "all": "passed on to all supervisors of the team",
        "manager": "no supervisor answered, passed on to the manager",
        "nobody": "nobody has answered",
        "": "not answered, passed on",
    },
    "zh": {
        "person": "已转给下一位主管",
        "all": "已转给团队全体主管",
        "manager": "无主管响应，已转给负责人",
        "nobody": "无人响应",
        "": "无人响应，已转交",
    },
    "ja": {
        "person": "次の管理者に通知しました",
        "all": "チームの全管理者に通知しました",
        "manager": "管理者の応答なし、責任者に通知しました",
        "nobody": "誰も応答していません",
        "": "応答なし、次に通知しました",
    },
}
_WORDS = {
    "ko": ("단계", "알림 ID", "통화 ID", "시각", "관리자 화면에서 확인해 주십시오."),
    "en": ("Level", "Alert id", "Call id", "Time", "Please look at the supervisor's console."),
    "zh": ("等级", "提醒编号", "通话编号", "时间", "请在主管控制台查看。"),
    "ja": ("レベル", "通知ID", "通話ID", "時刻", "管理者画面でご確認ください。"),
}
_MORE = {
    "ko": "외 {}건",
    "en": "and {} more",
    "zh": "另有{}条",
    "ja": "ほか{}件",
}


def _headline(event: dict[str, Any], language: str) -> str:
    kinds = _KINDS[language]
    kind = kinds.get(str(event.get("kind", "")), kinds[""])
    level = event.get("level")
    if isinstance(level, int) and 0 <= level <= 3:
        kind += f" ({_LEVELS[language][level]})"
    if event["type"] == "alert.escalated":
        stages = _STAGES[language]
        kind += f": {stages.get(str(event.get('stage', '')), stages[''])}"
    return kind


def subject(events: Sequence[dict[str, Any]], language: str, node: str) -> str:
    """Of a mail about one or several events, the newest of which stands for all."""
    text = f"[Callshield {node}] {_headline(events[-1], language)}"
    if len(events) > 1:
        text += f", {_MORE[language].format(len(events) - 1)}"
    return text


def text(events: Sequence[dict[str, Any]], language: str) -> str:
    """The mail's text: per event what happened, ids, level and the node's time."""
    level_word, alert_word, call_word, time_word, look = _WORDS[language]
    parts = []
    for event in events:
        when = datetime.fromtimestamp(event["ts"]).astimezone()
        lines = [_headline(event, language)]
        level = event.get("level")
        if isinstance(level, int) and 0 <= level <= 3:
            lines.append(f"  {level_word}: {level} {_LEVELS[language][level]}")
        lines.append(f"  {time_word}: {when:%Y-%m-%d %H:%M:%S %z}")
        lines.append(f"  {alert_word}: {event.get('alert_id', '')}")
        lines.append(f"  {call_word}: {event.get('call_id', '')}")
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, look]) + "\n"
