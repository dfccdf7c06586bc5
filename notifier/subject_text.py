"""An answer to a caller as text: one page a call, and one that says what the files are. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from notifier.subject_access import NEUTRAL
from notifier.subject_words import (
    CATEGORIES,
    DAYS,
    EVENTS,
    KEPT,
    LEVELS,
    README,
    STARTED,
    VALUES,
    WORDS,
)

Call = Mapping[str, Any]


def readme(
    language: str, *, made: str, reference: str, calls: int, kept: Iterable[tuple[str, str]]
) -> str:
    """What the files are.

    Args:
        language: ``ko``, ``en``, ``zh`` or ``ja``.
        made: when, as it is to be read.
        reference: what the request is called.
        calls: how many.
        kept: what is kept, and for how long.
    """
    agent, staff = NEUTRAL[language]
    return README[language].format(
        made=made,
        reference=reference or "-",
        count=calls,
        agent=agent,
        staff=staff,
        kept="\n".join(f"- {what}: {how_long}" for what, how_long in kept),
    )


def kept_lines(days: Mapping[str, int | None], language: str) -> list[tuple[str, str]]:
    """What is kept and for how long, as a caller reads it.

    Args:
        days: by kind, of :func:`notifier.retention_table.table`.
        language: ``ko``, ``en``, ``zh`` or ``ja``.
    """
    names, unit = KEPT[language], DAYS[language]
    return [
        (name, unit.format(days[kind]))
        for kind, name in names.items()
        if days.get(kind) is not None
    ]


def page(
    call: Call, language: str, zone: str, recordings: Sequence[str], agent_text: str = ""
) -> str:
    """One call.

    Args:
        call: of :func:`notifier.subject_access.collect`.
        language: ``ko``, ``en``, ``zh`` or ``ja``.
        zone: time zone of what is read, such as ``Asia/Seoul``.
        recordings: names of the files of sound beside this one.
        agent_text: what the agent said, as a person wrote it down.
    """
    words = WORDS[language]
    lines = [f"{words['call']} {call['call_id']}"]
    for row in call["rows"].get("calls", ()):
        if "started_ts" in row:
            began, ended = (_time(row.get(name, ""), zone) for name in ("started_ts", "ended_ts"))
            lines.append(f"{began} - {ended}")
        lines.append(f"{words['level']}: {_level(row.get('peak_level', 0), language)}")
        if row.get("purposes"):
            lines.append(f"{words['purposes']}: {_listed(row['purposes'], language)}")
    sound = ", ".join(recordings)
    lines.append(f"{words['recording']}: {sound}" if sound else words["no_recording"])
    if call.get("held_as_evidence"):
        lines.append(words["held"])
    lines.append("")
    told = sorted(call["events"], key=lambda event: str(event.get("ts", "")))
    lines += [line(event, language, zone) for event in told]
    if agent_text:
        lines += ["", f"{words['agent_text']}:", agent_text.strip()]
    return "\n".join(lines) + "\n"


def line(event: Mapping[str, Any], language: str, zone: str) -> str:
    """One event: when, what, and what of it a person wants to read."""
    said = EVENTS[language].get(event["type"], event["type"])
    if event["type"] == "call.started":
        said = STARTED[language].get(str(event.get("direction", "")), said)
    more: list[str] = []
    if event.get("level") or event["type"] == "risk.changed":
        more.append(_level(event.get("level", 0), language))
    categories = event.get("categories", ())
    more += [CATEGORIES[language].get(one, one) for one in categories]
    for reason in event.get("reasons", ()):
        more += [f"“{words}”" for words in reason.get("words", ())]
    more += [f"“{words}”" for words in event.get("words", ())]
    stamps = [*event.get("prompts", ()), *([event["stamp"]] if "stamp" in event else [])]
    for stamp in stamps:
        version = f" {stamp['version']}" if stamp.get("version") else ""
        purposes = _listed(stamp.get("purposes", ()), language)
        more.append(f"{stamp['prompt_id']}{version}" + (f" ({purposes})" if purposes else ""))
        if stamp.get("stopped_by"):
            more.append(_listed([stamp["stopped_by"]], language))
    for name in ("state", "reason", "source", "grade", "step", "what", "why", "by", "key"):
        value = event.get(name)
        plain = isinstance(value, str | int) and value not in ("", *categories)
        if plain and not (name == "reason" and event["type"] == "alert.raised"):
            more.append(VALUES[language].get(str(value), str(value)))
    for name in ("held", "paused", "protected", "silent", "complete"):
        if isinstance(event.get(name), bool):
            more.append(WORDS[language]["yes" if event[name] else "no"])
    if event.get("duration_s"):
        more.append(f"{event['duration_s']:.0f} s")
    tail = f": {' · '.join(more)}" if more else ""
    return f"{_time(event.get('ts', ''), zone)}  {said}{tail}"


def _listed(values: Iterable[str], language: str) -> str:
    return ", ".join(VALUES[language].get(value, value) for value in values)


def _level(level: Any, language: str) -> str:
    names = LEVELS[language]
    return names[level] if isinstance(level, int) and 0 <= level < len(names) else str(level)


def _time(iso: str, zone: str) -> str:
    """``2026-11-22 10:00:00 KST`` of an ISO 8601 moment."""
    if not iso:
        return ""
    return datetime.fromisoformat(iso).astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S %Z")
