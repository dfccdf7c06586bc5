"""Is every event of every call there? In the store, and on each console: pure.

What should be there is known from outside: sipp says which calls it made and how each went, and a
call of a kind makes certain events. Ids are the PBX's (the SIP Call-ID), which every stored event
of a call carries.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from notifier.views import SUPERVISOR_TYPES

#: So many of one kind of fault are told in words.
_TOLD = 5
_TALKED = {
    "call.started": 1,
    "notice.started": 1,
    "call.answered": 1,
    "notice.finished": 1,
    "tap.started": 1,
    "call.ended": 1,
    "media.quality": 2,
}
#: Events of a call by its kind (:data:`tests.load.scenarios.Kind`, and ``probe``), and how many.
EXPECTED: Mapping[str, Mapping[str, int]] = {
    "talk": _TALKED,
    "hangup": _TALKED,
    "ended": {**_TALKED, "call.ending": 1},
    "cancel": {"call.started": 1, "call.ended": 1},
    "busy": {"call.started": 1, "call.ended": 1},
    # The PBX had played the notice.
    "probe": {**_TALKED, "notice.started": 0},
}
#: What :class:`callshield.messages.CallEnded` says of it.
REASONS: Mapping[str, str] = {
    "talk": "caller_hangup",
    "hangup": "agent_hangup",
    "ended": "ended_with_announcement",
    "cancel": "cancelled",
    "busy": "busy",
    "probe": "caller_hangup",
}


@dataclass(frozen=True, slots=True)
class Stored:
    """One row of the store."""

    id: int
    type: str
    call_id: str
    pbx_call_id: str
    agent_id: str | None
    """Whose console may see it besides supervisors'; None: everybody's."""
    reason: str
    alert_id: str


def read_store(path: Path) -> list[Stored]:
    """Every event of a node's SQLite database, in order."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30) as connection:
        rows = connection.execute(
            "SELECT id, type, call_id, agent_id, body FROM events ORDER BY id"
        )
        return [_stored(*row) for row in rows]


def _stored(number: int, kind: str, call_id: str, agent_id: str | None, body: str) -> Stored:
    fields: dict[str, Any] = json.loads(body)
    return Stored(
        number,
        kind,
        call_id,
        fields.get("pbx_call_id", ""),
        agent_id,
        str(fields.get("reason", "")),
        str(fields.get("alert_id", "")),
    )


@dataclass(frozen=True, slots=True)
class Media:
    """What the media worker says of a call at its end (``media_closed`` in the log): whether there
    was anything to tell. A caller who hangs up before the notice is over was never tapped."""

    tapped: bool
    legs_heard: int
    """Legs from which so much audio came that its quality could be told."""


@dataclass(slots=True)
class Verdict:
    """What was found."""

    calls: int = 0
    """Calls that went as written."""
    events: int = 0
    """Stored."""
    cut_short: int = 0
    """Of these, the ones that ended before the notice did."""
    lost: int = 0
    """Events that should be stored, or on a console, and are not."""
    alerts: int = 0
    faults: list[str] = field(default_factory=list)
    """Sentences; the first few of each kind."""
    _kinds: Counter[str] = field(default_factory=Counter)

    def fault(self, kind: str, sentence: str, lost: int = 0) -> None:
        self.lost += lost
        self._kinds[kind] += 1
        if self._kinds[kind] <= _TOLD:
            self.faults.append(sentence)

    def more(self) -> None:
        """Say how many faults were not told."""
        for kind, count in self._kinds.items():
            if count > _TOLD:
                self.faults.append(f"{kind}: {count - _TOLD} more")


def judge(
    done: Mapping[str, Iterable[str]],
    unfinished: Iterable[str],
    stored: Sequence[Stored],
    consoles: Mapping[str, tuple[str | None, Sequence[int]]],
    media: Mapping[str, Media] | None = None,
) -> Verdict:
    """Compare what happened with what is known of it.

    Args:
        done: SIP Call-IDs of the calls that went as written, by kind.
        unfinished: of those that did not, but may have been seen.
        stored: every event, in order.
        consoles: of each the agent whose it is (None: a supervisor's) and the ids of the events
            that it got, in order of arrival, replays included.
        media: by our own id of each call that had any; None: every call was long enough.
    """
    verdict = Verdict(events=len(stored))
    _numbers(verdict, stored)
    _calls(verdict, done, set(unfinished), stored, media)
    _alerts(verdict, stored)
    for name, (agent, seen) in consoles.items():
        _console(verdict, name, agent, seen, stored)
    verdict.more()
    return verdict


def _numbers(verdict: Verdict, stored: Sequence[Stored]) -> None:
    for before, after in pairwise(stored):
        if after.id != before.id + 1:
            verdict.fault(
                "numbers",
                f"the store goes from event {before.id} to {after.id}",
                lost=after.id - before.id - 1,
            )


def _calls(
    verdict: Verdict,
    done: Mapping[str, Iterable[str]],
    unfinished: set[str],
    stored: Sequence[Stored],
    media: Mapping[str, Media] | None,
) -> None:
    own_ids: dict[str, str] = {}
    by_call: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: dict[str, str] = {}
    for event in stored:
        if event.pbx_call_id:
            by_call[event.pbx_call_id][event.type] += 1
            own_ids[event.pbx_call_id] = event.call_id
            if event.type == "call.ended":
                reasons[event.pbx_call_id] = event.reason
    known = set(unfinished)
    for kind, call_ids in done.items():
        for call_id in call_ids:
            verdict.calls += 1
            known.add(call_id)
            have = by_call.get(call_id, Counter())
            heard = None if media is None else media.get(own_ids.get(call_id, ""))
            expected = _expected(kind, have, heard)
            verdict.cut_short += expected.get("tap.started", 1) == 0
            for event_type, count in expected.items():
                if have[event_type] != count:
                    verdict.fault(
                        event_type,
                        f"call {call_id} ({kind}) has {have[event_type]} of {count} {event_type}",
                        lost=max(0, count - have[event_type]),
                    )
            if call_id in reasons and reasons[call_id] != REASONS[kind]:
                verdict.fault(
                    "reason",
                    f"call {call_id} ({kind}) ended by {reasons[call_id]}, not {REASONS[kind]}",
                )
    for call_id in unfinished:
        have = by_call.get(call_id, Counter())
        if have["call.started"] != have["call.ended"]:
            verdict.fault(
                "end",
                f"call {call_id}, which failed, has {have['call.started']} begin and "
                f"{have['call.ended']} end",
                lost=abs(have["call.started"] - have["call.ended"]),
            )
    for call_id in by_call.keys() - known:
        verdict.fault("unknown", f"nobody made the call {call_id} that the store has")


def _expected(kind: str, have: Mapping[str, int], heard: Media | None) -> Mapping[str, int]:
    """Of one call that went as written."""
    expected = EXPECTED[kind]
    if heard is None or "tap.started" not in expected:
        return expected
    cut_short = (
        {}
        if heard.tapped
        else {
            "tap.started": 0,
            "notice.started": have.get("notice.started", 0),
            "notice.finished": have.get("notice.finished", 0),
        }
    )
    return {**expected, "media.quality": heard.legs_heard, **cut_short}


def _alerts(verdict: Verdict, stored: Sequence[Stored]) -> None:
    taken = {event.alert_id for event in stored if event.type == "alert.acknowledged"}
    raised = [event for event in stored if event.type == "alert.raised"]
    verdict.alerts = len(raised)
    for event in raised:
        if event.alert_id not in taken:
            verdict.fault("alert", f"alert {event.alert_id} was never acknowledged")


def _console(
    verdict: Verdict, name: str, agent: str | None, seen: Sequence[int], stored: Sequence[Stored]
) -> None:
    due = [
        event.id
        for event in stored
        if (event.type in SUPERVISOR_TYPES if agent is None else event.agent_id in (agent, None))
    ]
    missed = sorted(set(due) - set(seen))
    types = {event.id: event.type for event in stored}
    for number in missed:
        verdict.fault(name, f"{name} never got event {number} ({types[number]})", lost=1)
    for number in sorted(set(seen) - set(due)):
        verdict.fault(f"{name} +", f"{name} got event {number} ({types.get(number, 'unknown')})")
    twice = [number for number, count in Counter(seen).items() if count > 1]
    for number in twice:
        verdict.fault(f"{name} 2", f"{name} got event {number} more than once")
    if list(seen) != sorted(seen):
        verdict.fault(f"{name} order", f"{name} got events out of order")
