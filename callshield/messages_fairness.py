"""Messages about fairness: quality draws, opened recordings, callers who ring back, shadow mode.

Who gets an event: the agent whom it is about (draws, scores, openings, ``ringback.seen``), or
nobody's screen at all (what is stored for the log and for figures of whole groups).
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from callshield.message_base import Message

#: Of a call: the machine was right, it was a false alarm, or it missed something.
CallVerdict = Literal["confirmed", "refuted", "missed"]
#: Why a recording may be opened, and no other way.
OpeningReason = Literal["draw", "request", "complaint"]
#: The same, and what an administrator reads for a caller who asked what is held on him, or a
#: supervisor who calls back: no reason to open a recording by command, but the agent is shown it.
ShownReason = OpeningReason | Literal["access", "number"]


class QualitySeeded(Message, tag="quality.seeded", frozen=True, kw_only=True):
    """The seed of a month's draw is fixed, by its hash, and with it the rules of the draw."""

    ts: float
    month: str
    """``2026-11``."""
    commitment: str
    """SHA-256 of month and secret; the secret is told when the draw is done."""
    time_zone: str
    begin_ts: float
    end_ts: float
    per_agent: int
    min_call_s: float
    recorded_only: bool
    call_id: str = ""


class QualityClosed(Message, tag="quality.closed", frozen=True, kw_only=True):
    """A month's draw is done: with the secret anybody can do it again."""

    ts: float
    month: str
    secret: str
    pool_sha256: str
    """Of the calls that could be drawn."""
    calls: int
    drawn: int
    purpose: str = ""
    """Only calls whose caller was told of it could be drawn; empty: in draws before that."""
    call_id: str = ""


class QualityDrawn(Message, tag="quality.drawn", frozen=True, kw_only=True):
    """One call was drawn; shown to its agent only."""

    ts: float
    call_id: str
    agent_id: str
    draw_id: str
    month: str


class ScoreGiven(Message, tag="score.given", frozen=True, kw_only=True):
    """A drawn call was scored; shown to its agent only, the numbers are asked for."""

    ts: float
    call_id: str
    agent_id: str
    draw_id: str
    review: int
    """1, or 2 after the agent contested the first one."""


class ScoreContested(Message, tag="score.contested", frozen=True, kw_only=True):
    """The agent contests a score: another person scores the call by ``due_ts``, or it is void."""

    ts: float
    call_id: str
    agent_id: str
    draw_id: str
    due_ts: float


class ScoreVoid(Message, tag="score.void", frozen=True, kw_only=True):
    """A draw and its scores count no more; no other call takes the place."""

    ts: float
    call_id: str
    agent_id: str
    draw_id: str
    reason: Literal["marked_abusive", "no_second_review"]


class RecordingOpened(Message, tag="recording.opened", frozen=True, kw_only=True):
    """Somebody opened a recording; shown to its agent only."""

    ts: float
    call_id: str
    agent_id: str
    what: Literal["audio", "evidence", "evidence_unredacted"]
    """``evidence``: for a package, with its recording where there is one; ``evidence_unredacted``:
    with a transcript that keeps numbers and addresses."""
    by_role: str
    by: str
    """Token id."""
    why: OpeningReason
    ref: str
    """Id of the draw or of the agent's request, or the complaint's own name."""
    reason: str = ""
    """Of a complaint: what was written."""


class RingbackMarked(Message, tag="ringback.marked", frozen=True, kw_only=True):
    """A person ended this call with announcement: its caller's number carries that for a while.
    For the log; neither number nor hash."""

    ts: float
    call_id: str
    mark_id: str
    category: str
    until_ts: float


class RingbackSeen(Message, tag="ringback.seen", frozen=True, kw_only=True):
    """This caller was ended a while ago; shown to the call's agent before answering, only to
    him."""

    ts: float
    call_id: str
    agent_id: str
    category: str
    ended_days_ago: int
    mark_id: str
    pbx_call_id: str = ""


class RingbackRemoved(Message, tag="ringback.removed", frozen=True, kw_only=True):
    """A mark is gone. For the log."""

    ts: float
    mark_id: str
    why: Literal["expired", "review", "erasure"]
    call_id: str = ""


class CallJudged(Message, tag="call.judged", frozen=True, kw_only=True):
    """Somebody said of a call whether the machine was right, or missed something; for
    ``callshield calibrate``, shown to nobody."""

    ts: float
    call_id: str
    verdict: CallVerdict
    by: Literal["agent", "supervisor"]


class AlertWithheld(Message, tag="alert.withheld", frozen=True, kw_only=True):
    """Shadow mode: an alert that would have been raised; shown to nobody."""

    ts: float
    alert_id: str
    call_id: str
    kind: str
    level: int
    categories: list[str]
    rules: list[str]
    """Names of the rules behind it; never what was said."""


class WeekReported(Message, tag="week.reported", frozen=True, kw_only=True):
    """The weekly report was made and is not made again; shown to nobody as an event."""

    ts: float
    week: str
    """``2026-W47``."""
    call_id: str = ""


FairnessEvent = (
    QualitySeeded
    | QualityClosed
    | QualityDrawn
    | ScoreGiven
    | ScoreContested
    | ScoreVoid
    | RecordingOpened
    | RingbackMarked
    | RingbackSeen
    | RingbackRemoved
    | CallJudged
    | AlertWithheld
    | WeekReported
)

#: The same, for :func:`isinstance`.
FAIRNESS_EVENTS: tuple[type, ...] = get_args(FairnessEvent)

# ------------------------------------------------------- between processes, stored by nobody


class CallerEnded(Message, tag="ringback.ended", frozen=True, kw_only=True):
    """From the bridge: a person ended this call; the keyed hash of its caller's number."""

    ts: float
    call_id: str
    mark: str
    """HMAC-SHA256, 64 hexadecimal digits."""
    key_id: str


class RecentEnd(msgspec.Struct, frozen=True, kw_only=True):
    """One mark, as the bridge needs it."""

    mark: str
    key_id: str
    mark_id: str
    category: str
    ended_ts: float
    until_ts: float


class RingbackMarks(Message, tag="ringback.marks", frozen=True, kw_only=True):
    """To the bridge: all marks there are; what is not in here is gone."""

    marks: list[RecentEnd]


class OpenRecording(Message, tag="recording.open", frozen=True, kw_only=True):
    """From the command line: somebody wants to open a recording, and why."""

    request_id: str
    call_id: str
    token: str
    why: OpeningReason
    ref: str
    reason: str = ""


class RemoveMark(Message, tag="ringback.remove", frozen=True, kw_only=True):
    """From the command line: take a mark away on review."""

    request_id: str
    mark_id: str = ""
    marks: list[str] = []
    """Or the hashes of the number, one a key."""


FairnessMessage = CallerEnded | RingbackMarks | OpenRecording | RemoveMark
