"""The weekly report for people: as text, and as one HTML file with its plot drawn in it (SVG)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from notifier.weekly import FEWEST, REST

Body = Mapping[str, Any]

_WORDS: dict[str, dict[str, str]] = {
    "ko": {
        "title": "주간 보고",
        "group": "대기열(그룹)",
        "rest": "그 밖의 그룹",
        "total": "합계",
        "agents": "상담사",
        "calls": "통화",
        "hours": "통화 시간(시간)",
        "levels": "정상 / 주의 / 위험 / 심각",
        "ended_by_person": "안내 후 종료",
        "rest_hours": "보호휴식(시간)",
        "help_asked": "관리자 호출",
        "help_unanswered": "응답 없음",
        "help_median_s": "응답 중앙값(초)",
        "help_p90_s": "응답 90%(초)",
        "bad_after_failed_hand_over": "이관 실패 후 악화된 통화",
        "few": f"상담사가 {FEWEST}명 미만이면 표시하지 않습니다.",
        "chart": "위험도별 통화 수",
    },
    "en": {
        "title": "Weekly report",
        "group": "Queue (group)",
        "rest": "other groups",
        "total": "total",
        "agents": "Agents",
        "calls": "Calls",
        "hours": "Hours of call",
        "levels": "calm / caution / serious / severe",
        "ended_by_person": "Ended with announcement",
        "rest_hours": "Hours of rest",
        "help_asked": "Calls for help",
        "help_unanswered": "Nobody came",
        "help_median_s": "Median until somebody came (s)",
        "help_p90_s": "90 % within (s)",
        "bad_after_failed_hand_over": "Turned bad after a failed hand over",
        "few": f"Nothing is shown of fewer than {FEWEST} agents.",
        "chart": "Calls by level",
    },
    "zh": {
        "title": "每周报告",
        "group": "队列（组）",
        "rest": "其他组",
        "total": "合计",
        "agents": "坐席",
        "calls": "通话",
        "hours": "通话时长（小时）",
        "levels": "正常 / 注意 / 危险 / 严重",
        "ended_by_person": "播报后结束",
        "rest_hours": "休息（小时）",
        "help_asked": "求助",
        "help_unanswered": "无人响应",
        "help_median_s": "响应中位数（秒）",
        "help_p90_s": "90% 响应（秒）",
        "bad_after_failed_hand_over": "转接失败后恶化的通话",
        "few": f"少于 {FEWEST} 名坐席时不显示。",
        "chart": "各级别通话数",
    },
    "ja": {
        "title": "週間レポート",
        "group": "キュー（グループ）",
        "rest": "その他のグループ",
        "total": "合計",
        "agents": "オペレーター",
        "calls": "通話",
        "hours": "通話時間（時間）",
        "levels": "正常 / 注意 / 危険 / 深刻",
        "ended_by_person": "案内後に終了",
        "rest_hours": "保護休憩（時間）",
        "help_asked": "応援要請",
        "help_unanswered": "応答なし",
        "help_median_s": "応答の中央値（秒）",
        "help_p90_s": "90% の応答（秒）",
        "bad_after_failed_hand_over": "引き継ぎ失敗後に悪化した通話",
        "few": f"{FEWEST} 名未満の場合は表示しません。",
        "chart": "レベル別の通話数",
    },
}
_COLUMNS = (
    "agents",
    "calls",
    "hours",
    "levels",
    "ended_by_person",
    "rest_hours",
    "help_asked",
    "help_unanswered",
    "help_median_s",
    "help_p90_s",
    "bad_after_failed_hand_over",
)
#: Calm to severe; told apart by shade as well as by colour.
_SHADES = ("#b8d4e3", "#f2c14e", "#d1603d", "#6b0f1a")


def _cell(row: Body, column: str) -> str:
    if column == "levels":
        return " / ".join(str(count) for count in row["calls_by_level"])
    value = row[column]
    return "–" if value is None else str(value)


def _named(body: Body, words: Mapping[str, str]) -> list[tuple[str, Body]]:
    rows = [(words["rest"] if r["group"] == REST else r["group"], r) for r in body["rows"]]
    return [*rows, (words["total"], body["total"])] if body["total"] else rows


def text(body: Body, language: str) -> str:
    """For a terminal: a block a group."""
    words = _WORDS[language]
    lines = [f"{words['title']} {body['week']}"]
    for name, row in _named(body, words):
        lines += ["", name]
        lines += [f"  {words[column]}: {_cell(row, column)}" for column in _COLUMNS]
    return "\n".join([*lines, "", words["few"]]) + "\n"


def shadow_text(week: str, rows: Sequence[Body]) -> str:
    """What shadow mode kept back, for a terminal."""
    lines = [f"Shadow mode in {week}: nobody was alerted of this"]
    for row in rows:
        lines += ["", f"{row['group']}: {row['alerts_per_day']:g} alerts a day in a week of"]
        lines[-1] += f" {row['calls']} calls"
        for title, key in (
            ("by level", "by_level"),
            ("by category", "by_category"),
            ("by rule", "by_rule"),
            ("what people said of the calls", "verdicts"),
        ):
            found = ", ".join(f"{name} {count}" for name, count in row[key].items())
            lines.append(f"  {title}: {found or 'none'}")
    if not rows:
        lines += ["", f"No group in shadow mode had {FEWEST} agents with calls in that week."]
    return "\n".join(lines) + "\n"


def page(body: Body, language: str) -> str:
    """One HTML file that fetches nothing."""
    words = _WORDS[language]
    head = "".join(f"<th scope=col>{escape(words[column])}</th>" for column in _COLUMNS)
    rows = "\n".join(
        f"<tr><th scope=row>{escape(name)}</th>"
        + "".join(f"<td>{escape(_cell(row, column))}</td>" for column in _COLUMNS)
        + "</tr>"
        for name, row in _named(body, words)
    )
    title = escape(f"{words['title']} {body['week']}")
    return f"""<!doctype html>
<html lang="{language}">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }}
body {{ max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; }}
th, td {{ border-bottom: 1px solid; padding: .4rem .6rem; text-align: right; }}
th:first-child {{ text-align: left; }}
svg text {{ fill: currentColor; font-size: 14px; }}
</style>
<h1>{title}</h1>
<h2>{escape(words["chart"])}</h2>
<p>{escape(words["levels"])}</p>
{_plot(body, words)}
<div class="wide"><table>
<tr><th scope=col>{escape(words["group"])}</th>{head}</tr>
{rows}
</table></div>
<p>{escape(words["few"])}</p>
</html>
"""


def _plot(body: Body, words: Mapping[str, str]) -> str:
    """A bar a group, its calls by level; the table below says the same in figures."""
    rows = [(words["rest"] if r["group"] == REST else r["group"], r) for r in body["rows"]]
    if not rows:
        return ""
    most = max(max(row["calls"] for _, row in rows), 1)
    bars: list[str] = []
    for index, (name, row) in enumerate(rows):
        top, left = 8 + 34 * index, 190.0
        bars.append(f'<text x="180" y="{top + 18}" text-anchor="end">{escape(name)}</text>')
        for level, count in enumerate(row["calls_by_level"]):
            width = 560 * count / most
            bars.append(
                f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="26" '
                f'fill="{_SHADES[level]}"><title>{level}: {count}</title></rect>'
            )
            left += width
        bars.append(f'<text x="{left + 6:.1f}" y="{top + 18}">{row["calls"]}</text>')
    height = 16 + 34 * len(rows)
    label = escape(words["chart"])
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 820 {height}" width="100%">\n'
        + "\n".join(bars)
        + "\n</svg>"
    )
