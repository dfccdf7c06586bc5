"""The noise trend for a terminal, in the node's language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from notifier.weekly import FEWEST, REST

Body = Mapping[str, Any]

_WORDS: dict[str, dict[str, str]] = {
    "ko": {
        "title": "청력 보호 추이",
        "rest": "그 밖의 그룹",
        "total": "합계",
        "agents": "상담사",
        "shifts": "근무",
        "heard_hours": "들은 시간(시간)",
        "mean_lex_8h_dba": "8시간 평균 소음, dB(A)",
        "median_dose_pct": "소음량 중앙값, 하루 기준의 %",
        "agents_warned": "{n}% 경고를 받은 상담사",
        "agents_over_lower": "80 dB(A) 이상인 상담사",
        "agents_over_upper": "85 dB(A) 이상인 상담사",
        "agents_measured": "교정된 헤드셋을 쓴 상담사",
        "hidden": "비공개",
        "none": "아직 보고가 없습니다.",
        "nobody": "소음량이 기록된 상담사가 너무 적습니다.",
        "few": f"상담사가 {FEWEST}명 미만이면 표시하지 않습니다.",
    },
    "en": {
        "title": "Hearing",
        "rest": "other groups",
        "total": "total",
        "agents": "Agents",
        "shifts": "Shifts",
        "heard_hours": "Hours heard",
        "mean_lex_8h_dba": "Mean exposure over 8 h, dB(A)",
        "median_dose_pct": "Median dose, % of a day's",
        "agents_warned": "Agents warned at {n} %",
        "agents_over_lower": "Agents at 80 dB(A) or more",
        "agents_over_upper": "Agents at 85 dB(A) or more",
        "agents_measured": "Agents with a calibrated headset",
        "hidden": "not shown",
        "none": "There is no report yet.",
        "nobody": "Too few agents had a dose.",
        "few": f"Nothing is shown of fewer than {FEWEST} agents.",
    },
    "zh": {
        "title": "听力保护趋势",
        "rest": "其他组",
        "total": "合计",
        "agents": "坐席",
        "shifts": "班次",
        "heard_hours": "收听时长（小时）",
        "mean_lex_8h_dba": "8 小时平均噪声，dB(A)",
        "median_dose_pct": "噪声剂量中位数，占每日限值的 %",
        "agents_warned": "达到 {n}% 提醒的坐席",
        "agents_over_lower": "达到 80 dB(A) 的坐席",
        "agents_over_upper": "达到 85 dB(A) 的坐席",
        "agents_measured": "使用已校准耳机的坐席",
        "hidden": "不公开",
        "none": "尚无报告。",
        "nobody": "有噪声剂量记录的坐席太少。",
        "few": f"少于 {FEWEST} 名坐席时不显示。",
    },
    "ja": {
        "title": "聴力保護の推移",
        "rest": "その他のグループ",
        "total": "合計",
        "agents": "オペレーター",
        "shifts": "勤務",
        "heard_hours": "聴取時間（時間）",
        "mean_lex_8h_dba": "8 時間平均の騒音、dB(A)",
        "median_dose_pct": "騒音量の中央値（1 日の基準比 %）",
        "agents_warned": "{n}% の注意を受けたオペレーター",
        "agents_over_lower": "80 dB(A) 以上のオペレーター",
        "agents_over_upper": "85 dB(A) 以上のオペレーター",
        "agents_measured": "校正済みヘッドセットのオペレーター",
        "hidden": "非表示",
        "none": "レポートはまだありません。",
        "nobody": "騒音量の記録がある人数が少なすぎます。",
        "few": f"{FEWEST} 名未満の場合は表示しません。",
    },
}
_COLUMNS = (
    "agents",
    "shifts",
    "heard_hours",
    "mean_lex_8h_dba",
    "median_dose_pct",
    "agents_warned",
    "agents_over_lower",
    "agents_over_upper",
    "agents_measured",
)


def text(weeks: Sequence[Body], language: str) -> str:
    """A block a week and group, the newest week first.

    Args:
        weeks: each with ``week`` and what :func:`notifier.hearing_trend.report` made.
        language: ``ko``, ``en``, ``zh`` or ``ja``.
    """
    words = _WORDS[language]
    lines = [words["title"]]
    for body in weeks:
        lines += ["", body["week"]]
        rows = [(words["rest"] if r["group"] == REST else r["group"], r) for r in body["rows"]]
        if body["total"] is not None:
            rows.append((words["total"], body["total"]))
        for name, row in rows:
            lines.append(f"  {name}")
            for column in _COLUMNS:
                said = words[column].replace("{n}", f"{body['threshold_pct']:g}")
                value = words["hidden"] if row[column] is None else f"{row[column]:g}"
                lines.append(f"    {said}: {value}")
        if not rows:
            lines.append(f"  {words['nobody']}")
    if not weeks:
        lines += ["", words["none"]]
    return "\n".join([*lines, "", words["few"]]) + "\n"
