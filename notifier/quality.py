"""The monthly draw of calls for quality scoring. Pure: calls and a secret in, picks out.

Nobody can choose, before or after:

1. Before the first call that can be drawn, the node makes 32 random bytes and puts their hash into
   the event log (:func:`commitment`), with the rules of the draw. The seed is fixed from then on,
   and no call of the month has an id yet (the bridge makes them at random).
2. A day after the month's end (so long an agent can say that a call was abusive) every call that
   can be drawn gets a *ticket*, the HMAC-SHA256 of its id under a key from the secret
   (:func:`ticket`). Of each agent the ``per_agent`` lowest tickets win. A ticket depends on no
   other call: to leave one call out moves nobody else's, and their order does not matter.
3. The secret and the hash of the pool go into the log, so anybody can do it again
   (:func:`check`).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from zoneinfo import ZoneInfo

#: A month: ``2026-11``.
MONTH = re.compile(r"(?P<year>2[0-9]{3})-(?P<month>0[1-9]|1[0-2])")
#: The draw waits so long after the month's end: an agent's word counts up to 24 h after a call,
#: and the last call may have begun in the month's last minute.
GRACE_S = 26 * 3600.0
#: The next month's seed is fixed this long before it begins.
AHEAD_S = 7 * 86_400.0
_CONTEXT = b"callshield quality v1\0"


def month_of(ts: float, time_zone: str) -> str:
    """The month that a moment lies in there."""
    return datetime.fromtimestamp(ts, ZoneInfo(time_zone)).strftime("%Y-%m")


def next_month(month: str) -> str:
    """``2027-01`` of ``2026-12``."""
    year, number = int(month[:4]), int(month[5:])
    return f"{year + 1}-01" if number == 12 else f"{year}-{number + 1:02}"


def bounds(month: str, time_zone: str) -> tuple[float, float]:
    """Begin and end of a month there, seconds since the epoch; the end belongs to the next one."""

    def begin(name: str) -> float:
        return datetime(int(name[:4]), int(name[5:]), 1, tzinfo=ZoneInfo(time_zone)).timestamp()

    return begin(month), begin(next_month(month))


@dataclass(frozen=True, slots=True)
class Rules:
    """What is fixed with a month's seed; a change of the configuration counts from the next."""

    month: str
    begin_ts: float
    """The month's begin, or later: calls that began before the seed was fixed are not drawn."""
    end_ts: float
    per_agent: int
    min_call_s: float
    recorded_only: bool
    """Only calls of which there is a recording."""
    purpose: str = ""
    """Only calls whose caller was told of this one; ``""``: of draws before it was asked for."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What a draw must know of a call."""

    call_id: str
    agent_id: str
    started_ts: float
    answered: bool
    ended: bool
    duration_s: float
    notice: str
    """Source of the notice; ``internal`` for a call between colleagues."""
    peak_level: int
    ended_by_person: bool
    """With announcement."""
    recorded: bool
    marked: bool
    """As abusive, by level, end or agent: excluded from quality scoring."""
    purposes: frozenset[str] = frozenset()
    """What its caller was told that the call is used for."""


def left_out(call: Finished, rules: Rules) -> str:
    """Why a call cannot be drawn; ``""`` when it can.

    A call that reached level 3 or was ended with announcement is left out also where nobody
    marked it: no verdict of anybody brings it back.
    """
    if not rules.begin_ts <= call.started_ts < rules.end_ts:
        return "another month"
    if not call.answered or not call.ended:
        return "no whole call"
    if call.notice not in ("played", "upstream"):
        return "no notice"
    if rules.purpose and rules.purpose not in call.purposes:
        return "the notice did not name this use"
    if call.duration_s < rules.min_call_s:
        return "too short"
    if call.marked or call.peak_level >= 3 or call.ended_by_person:
        return "abusive"
    if rules.recorded_only and not call.recorded:
        return "not recorded"
    return ""


def commitment(month: str, secret: bytes) -> str:
    """What is told of a secret beforehand, 64 hexadecimal digits."""
    return hashlib.sha256(_CONTEXT + month.encode("ascii") + b"\0" + secret).hexdigest()


def ticket(month: str, secret: bytes, call_id: str) -> str:
    """A call's place in the draw, 64 hexadecimal digits; the lowest win."""
    key = hmac.new(secret, _CONTEXT + month.encode("ascii"), hashlib.sha256).digest()
    return hmac.new(key, call_id.encode("ascii"), hashlib.sha256).hexdigest()


def draw_id(month: str, secret: bytes, call_id: str) -> str:
    """Names a draw: 32 hexadecimal digits that follow from seed and call."""
    return ticket(month, secret, f"draw {call_id}")[:32]


def pool_digest(pool: Iterable[tuple[str, str]]) -> str:
    """SHA-256 of the calls that can be drawn, in whatever order they come.

    Args:
        pool: ``(call_id, agent_id)`` each.
    """
    lines = sorted(f"{call_id} {agent_id}\n" for call_id, agent_id in pool)
    return hashlib.sha256("".join(lines).encode("ascii")).hexdigest()


@dataclass(frozen=True, slots=True, order=True)
class Pick:
    """One drawn call."""

    draw_id: str
    call_id: str
    agent_id: str


def draw(pool: Iterable[tuple[str, str]], month: str, secret: bytes, per_agent: int) -> list[Pick]:
    """Draw of each agent's calls ``per_agent``, or all where there are fewer.

    Args:
        pool: ``(call_id, agent_id)`` of each call that can be drawn.
        month: as committed to.
        secret: as committed to.
        per_agent: how many.

    Returns:
        The picks by agent and ticket; the same for the same pool in any order.
    """
    of_agent: dict[str, list[str]] = {}
    for call_id, agent_id in pool:
        of_agent.setdefault(agent_id, []).append(call_id)
    return [
        Pick(draw_id(month, secret, call_id), call_id, agent_id)
        for agent_id in sorted(of_agent)
        for call_id in sorted(of_agent[agent_id], key=lambda c: (ticket(month, secret, c), c))[
            :per_agent
        ]
    ]


@dataclass(frozen=True, slots=True)
class Told:
    """What the event log says of a month's draw."""

    seeded: Sequence[Mapping[str, object]]
    """Bodies of ``quality.seeded``."""
    closed: Sequence[Mapping[str, object]]
    """Bodies of ``quality.closed``."""
    drawn: Sequence[Mapping[str, object]]
    """Bodies of ``quality.drawn``."""


def check(
    month: str,
    told: Told,
    pool: Sequence[tuple[str, str]],
    kept: Sequence[Pick],
    calls: Mapping[str, Finished],
) -> list[str]:
    """Do a month's draw again and compare.

    Args:
        month: which.
        told: by the event log.
        pool: the calls that could be drawn, as they were kept.
        kept: the draws, as they are in use.
        calls: what is still known of the month's calls, with the marks of the moment of the draw.

    Returns:
        What is not as it should be, a sentence each; empty when the draw is good.
    """
    if len(told.seeded) != 1:
        return [f"the log fixes the seed of {month} {len(told.seeded)} times, not once"]
    if len(told.closed) != 1:
        return [f"the log has {len(told.closed)} draws of {month}, not one"]
    seeded, closed = told.seeded[0], told.closed[0]
    wrong: list[str] = []
    secret = bytes.fromhex(str(closed["secret"]))
    rules = replace(rules_of(seeded), purpose=str(closed.get("purpose", "")))
    if commitment(month, secret) != seeded["commitment"]:
        wrong.append("the secret is not the one whose hash was told beforehand")
    if float(str(seeded["ts"])) > rules.begin_ts:
        wrong.append("the seed was fixed after the first call that could be drawn")
    if float(str(closed["ts"])) < rules.end_ts + GRACE_S:
        wrong.append("it was drawn before the month was over for good")
    if pool_digest(pool) != closed["pool_sha256"]:
        wrong.append("the calls that could be drawn are not the ones that the log names by hash")
    again = sorted(draw(pool, month, secret, rules.per_agent))
    if again != sorted(kept):
        wrong.append("the draws in use are not the ones that seed and pool give")
    logged = sorted(
        Pick(str(d["draw_id"]), str(d["call_id"]), str(d["agent_id"])) for d in told.drawn
    )
    if again != logged:
        wrong.append("the draws in the log are not the ones that seed and pool give")
    in_pool = {call_id for call_id, _ in pool}
    for call_id, call in calls.items():
        why = left_out(call, rules)
        if call_id in in_pool and why:
            wrong.append(f"call {call_id} could be drawn and should not have been: {why}")
        if call_id not in in_pool and not why:
            wrong.append(f"call {call_id} should have been among those that could be drawn")
    return wrong


def rules_of(seeded: Mapping[str, object]) -> Rules:
    """The rules that a ``quality.seeded`` tells."""
    return Rules(
        month=str(seeded["month"]),
        begin_ts=float(str(seeded["begin_ts"])),
        end_ts=float(str(seeded["end_ts"])),
        per_agent=int(str(seeded["per_agent"])),
        min_call_s=float(str(seeded["min_call_s"])),
        recorded_only=seeded["recorded_only"] is True,
    )
