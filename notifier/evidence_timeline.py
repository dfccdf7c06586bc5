"""What happened in a call, in words: from its chained events to what a report says. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from notifier.evidence_manifest import ChainedEvent
from notifier.evidence_texts import Texts
from notifier.sealed import unseal

#: Marked in the plot, and listed with a number.
_MARKED = frozenset(
    {
        "notice.finished",
        "risk.changed",
        "crisis.hint",
        "warning.played",
        "pause.changed",
        "protection.changed",
        "alert.raised",
        "helper.changed",
        "call.ending",
        "recording.changed",
    }
)
_CUSTODY = frozenset({"recording.opened", "record.read", "evidence.exported"})
_TOLD = frozenset(
    {
        "alert.raised",
        "alert.escalated",
        "alert.acknowledged",
        "alert.refused",
        "alert.unanswered",
    }
)
_ACTIONS = frozenset(
    {"warning.played", "pause.changed", "helper.changed", "call.ending", "callback.changed"}
)


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing that happened."""

    event_id: int
    """In the node's chain."""
    ts: float
    type: str
    text: str
    marked: bool
    """Numbered in the plot."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """One announcement that the caller heard."""

    prompt: str
    version: str
    language: str
    sha256: str
    started_ts: float
    finished_ts: float
    complete: bool
    attested_by: str
    key: str
    """What the caller pressed of the keys that it names; ``""``: nothing, or none is known."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """A call as a report tells it."""

    moments: list[Moment]
    """Of the call itself, by time."""
    notices: list[Stamp]
    told: list[Moment]
    actions: list[Moment]
    custody: list[Moment]
    """Who opened the call's material, and which packages were made before."""
    levels: list[tuple[float, int]]
    """When the risk level became which; begins with 0 at the call's beginning."""


def timeline(events: Sequence[ChainedEvent], texts: Texts) -> Timeline:
    """Tell what happened.

    Args:
        events: of one call, in the order of the chain.
        texts: in whose language.
    """
    found = Timeline([], [], [], [], [], [])
    outbound = False
    for event in events:
        body = msgspec.json.decode(unseal(event.body, event.words))
        if event.type == "call.started":
            outbound = body.get("direction", "inbound") == "outbound"
        # Said of each event of the call: who called whom changes what it means.
        body["outbound"] = outbound
        _stamps(body, found.notices)
        if event.type == "call.started":
            found.levels.append((event.ts, 0))
        if event.type == "risk.changed":
            found.levels.append((event.ts, int(body["level"])))
        text = _text(body, texts)
        if not text:
            continue
        moment = Moment(event.id, event.ts, event.type, text, event.type in _MARKED)
        (found.custody if event.type in _CUSTODY else found.moments).append(moment)
        if event.type in _TOLD:
            found.told.append(moment)
        if event.type in _ACTIONS or body.get("kind") == "help":
            found.actions.append(moment)
    for part in (found.moments, found.told, found.actions, found.custody):
        part.sort(key=lambda moment: (moment.ts, moment.event_id))
    return found


def _stamps(body: Mapping[str, Any], into: list[Stamp]) -> None:
    match body["type"]:
        case "notice.finished":
            stamps = body["prompts"]
        case "prompt.played":
            stamps = [body["stamp"]]
        case _:
            return
    for stamp in stamps:
        into.append(
            Stamp(
                prompt=stamp["prompt_id"],
                version=stamp["version"],
                language=stamp.get("language", ""),
                sha256=stamp["sha256"],
                started_ts=stamp["started_ts"],
                finished_ts=stamp["finished_ts"],
                complete=stamp["complete"],
                attested_by=body.get("attested_by", ""),
                key=body.get("key", "") if stamp is stamps[-1] else "",
            )
        )


def _text(body: Mapping[str, Any], texts: Texts) -> str:
    teller = _TELLERS.get(body["type"])
    return "" if teller is None else teller(body, texts)


def _by_direction(key: str) -> Callable[[Mapping[str, Any], Texts], str]:
    """Of a call that the agent made, it is the other one who answers."""
    return lambda body, texts: texts.say(f"event.{key}{'_outbound' if body['outbound'] else ''}")


def _plain(key: str) -> Callable[[Mapping[str, Any], Texts], str]:
    return lambda _body, texts: texts.say(f"event.{key}")


def categories(names: Sequence[str], texts: Texts) -> str:
    """Kinds of abuse in words."""
    return ", ".join(texts.one_of("category", name) for name in names)


def _risk(body: Mapping[str, Any], texts: Texts) -> str:
    text = texts.say(
        "event.risk",
        previous=texts.level(int(body["previous"])),
        level=texts.level(int(body["level"])),
    )
    if body["level"] > body["previous"] and body["categories"]:
        text += f" · {categories(body['categories'], texts)}"
    words = [word for reason in body.get("reasons", ()) for word in reason.get("words", ())]
    if body["level"] > body["previous"] and words:
        quoted = " ".join(f"“{word}”" for word in dict.fromkeys(words))
        text += f" · {texts.say('event.quoted', words=quoted)}"
    return text


def _helper(body: Mapping[str, Any], texts: Texts) -> str:
    manager = body["role"] == "manager"
    role = texts.say("event.manager") if manager else texts.say("role.supervisor")
    who = body.get("helper_id") or "–"
    return texts.say(f"event.helper_{body['state']}", role=role, id=who)


def _escalated(body: Mapping[str, Any], texts: Texts) -> str:
    to = ", ".join(body.get("to", ())) or "–"
    return texts.say(f"event.told_{body.get('stage', 'all')}", step=body["step"], to=to)


def _ending(body: Mapping[str, Any], texts: Texts) -> str:
    by = str(body["by"]).partition(":")[0]
    return texts.say("event.ending", by=texts.one_of("event", f"by_{by}", by))


def _ended(body: Mapping[str, Any], texts: Texts) -> str:
    return texts.say("event.ended", reason=end_reason(str(body["reason"]), texts))


def end_reason(reason: str, texts: Texts) -> str:
    """How a call ended, in words."""
    return texts.one_of("end", reason, texts.say("end.other", reason=reason))


def role_name(role: str, texts: Texts) -> str:
    """A role of a token, in words."""
    return texts.one_of("role", role)


def _opener(body: Mapping[str, Any], texts: Texts) -> dict[str, str]:
    return {"role": role_name(str(body["by_role"]), texts), "token": str(body["by"])}


def _read(body: Mapping[str, Any], texts: Texts) -> str:
    if body["what"] != "words":
        return ""
    return texts.say("event.read_words", **_opener(body, texts))


def _prompt(body: Mapping[str, Any], texts: Texts) -> str:
    return texts.say("event.prompt_played", prompt=body["stamp"]["prompt_id"])


def _callback(body: Mapping[str, Any], texts: Texts) -> str:
    return texts.say(f"event.callback_{body['state']}", owner=body.get("owner") or "–")


_TELLERS: dict[str, Callable[[Mapping[str, Any], Texts], str]] = {
    "call.started": _by_direction("call_started"),
    "call.answered": _by_direction("call_answered"),
    "notice.started": _plain("notice_started"),
    "notice.finished": lambda body, texts: texts.say(
        "event.notice_finished", source=texts.say(f"event.source_{body['source']}")
    ),
    "tap.started": _plain("tap_started"),
    "protection.changed": lambda body, texts: texts.say(
        "event.protected" if body["protected"] else "event.unprotected"
    ),
    "prompt.played": _prompt,
    "risk.changed": _risk,
    "crisis.hint": _plain("crisis"),
    "warning.played": lambda body, texts: texts.say(
        "event.warning" if body["complete"] else "event.warning_cut", grade=body["grade"]
    ),
    "media.silent": lambda body, texts: texts.say(
        "event.media_silent" if body["silent"] else "event.media_back",
        leg=texts.one_of("report", str(body["leg"])),
    ),
    "recording.changed": lambda body, texts: texts.say(f"event.recording_{body['state']}"),
    "pause.changed": lambda body, texts: texts.say(
        "event.paused" if body["paused"] else "event.resumed"
    ),
    "hold.changed": lambda body, texts: texts.say("event.held" if body["held"] else "event.unheld"),
    "alert.raised": lambda body, texts: texts.say(f"event.alert_{body['kind']}"),
    "alert.escalated": _escalated,
    "alert.acknowledged": lambda body, texts: texts.say(
        "event.acknowledged",
        by=body.get("supervisor_id") or body["by"],
        how=texts.say(f"event.how_{body.get('how', 'seen')}"),
    ),
    "alert.refused": lambda body, texts: texts.say("event.alert_refused", by=body["by"]),
    "alert.unanswered": _plain("alert_unanswered"),
    "helper.changed": _helper,
    "call.ending": _ending,
    "call.ended": _ended,
    "callback.changed": _callback,
    "evidence.requested": _plain("evidence_requested"),
    "evidence.changed": lambda body, texts: texts.say(f"event.evidence_{body['state']}"),
    "evidence.exported": lambda body, texts: texts.say("event.exported", **_opener(body, texts)),
    "recording.opened": lambda body, texts: texts.say(
        f"event.opened_{body['what']}", **_opener(body, texts)
    ),
    "record.read": _read,
}
