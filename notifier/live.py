"""What is known of a call and of an alert, and an event on its way to the store and the screens.

:mod:`notifier.board` changes them by rules; the rest of the notifier reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from callshield.messages import (
    AlertJudged,
    AlertVerdict,
    CallAnalysed,
    Direction,
    Event,
    Reason,
    RecordRead,
)
from callshield.messages_escalation import AcceptedHow
from callshield.messages_evidence import EvidenceExported
from callshield.messages_notice import Spared
from callshield.messages_privacy import PRIVACY_EVENTS
from notifier.rows import Row
from notifier.shadow import HIDDEN

if TYPE_CHECKING:
    from notifier.break_ledger import Eaten
    from notifier.callbacks import Callback
    from notifier.care import Mark, Said
    from notifier.erasure import Erasure
    from notifier.escalation import Request
    from notifier.rest import Rest
    from notifier.retention import Deletion

JudgeRole = Literal["agent", "supervisor"]
AlertKind = Literal["risk", "help", "crisis", "notice_failed", "node", "callback"]


@dataclass(slots=True)
class Call:
    """One call as far as it is known; a row of ``calls``."""

    call_id: str
    agent_id: str
    pbx_call_id: str
    pbx: str
    started_ts: float
    answered_ts: float | None = None
    notice: str = ""
    """``""``, ``playing``, or the source of :class:`NoticeFinished`."""
    tapped: bool = False
    level: int = 0
    peak_level: int = 0
    alerted_level: int = 0
    """Highest level for which an alert was raised since the last acknowledged rise."""
    categories: list[str] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    warnings: int = 0
    """Grade of the last warning played."""
    ending_ts: float | None = None
    ended_ts: float | None = None
    end_reason: str = ""
    duration_s: float = 0.0
    acoustic_only: bool = False
    """The level rests on sound alone."""
    words_confirmed: bool = False
    """The level rests on words that are no mishearing, not on sound alone."""
    may_trigger: bool = False
    """See :attr:`callshield.messages.RiskChanged.may_trigger`."""
    crisis_ts: float | None = None
    """When the caller was first heard to be in danger; nothing automatic acts from then on."""
    purposes: list[str] = field(default_factory=list)
    """What the caller was told that the call is used for (:mod:`callshield.purposes`)."""
    caller_pseudonym: str = ""
    """Keyed hash of the caller's number (:mod:`callshield.caller_pseudonym`); empty: none is
    kept."""
    caller_key_id: str = ""
    """Which key made it."""
    direction: Direction = Direction.INBOUND
    """Not in the row, like what follows: every bridge says it again when it connects."""
    sealed_number: str = ""
    """The caller's number, encrypted, in case somebody is to call back."""
    shadow: bool = False
    """Its group is in shadow mode: the configuration says it."""
    paused: bool = False
    """The agent paused recording and analysis."""
    held: bool = False
    recording: bool = False
    """Both sides are being recorded."""
    choice: str = ""
    """What the caller's key, or its absence, decided: see :class:`ProtectionChanged`."""
    spared: Spared = ""
    """Nothing is done automatically in this call, and why."""
    waits: bool = False
    """A key of the caller's may still decide whether the call is analysed."""
    softening: bool = False
    """The agent's ear is spared; a bridge does not repeat this one."""
    left: bool = False
    """The agent is out of it and it goes on: a manager took it over. Not repeated, either."""


@dataclass(slots=True)
class Alert:
    """One alert; a row of ``alerts``."""

    alert_id: str
    call_id: str
    agent_id: str
    kind: AlertKind
    level: int
    categories: list[str]
    reason: str
    raised_ts: float
    acknowledged_ts: float | None = None
    acknowledged_by: str = ""
    """Token id, never a name."""
    effort_score: float = 0.0
    """Highest vocal-effort score behind it when it was raised, 0..1; 0 where there was none."""
    word_score: float = 0.0
    """Highest score of words behind it when it was raised, 0..1; 0 where there were none."""
    agent_verdict: AlertVerdict | Literal[""] = ""
    supervisor_verdict: AlertVerdict | Literal[""] = ""
    """Was the machine right? What was said last in each role; not by whom."""
    how: AcceptedHow | Literal[""] = ""
    """How it was accepted; empty while it is open, and of older rows."""
    supervisor_id: str = ""
    """Who accepted it, where the token is tied to somebody."""


@dataclass(slots=True)
class Entry:
    """One event on its way: to the store, then to whoever may see it."""

    event: Event
    audience: str | None
    """Agent who may see it besides supervisors; ``None`` for everybody, ``""`` for no agent."""
    call: Call | None = None
    alert: Alert | None = None
    event_id: int = 0
    """Given by the journal."""
    rest: Rest | None = None
    words_for_supervisors: bool = False
    """The call's agent has asked for help: who may come may read why."""
    analysed: CallAnalysed | None = None
    escalation: Request | None = None
    rows: Sequence[Row] = ()
    """Stored in the same transaction."""
    kept: tuple[Mark | Said | Eaten | Callback, ...] = ()
    """Rows that this changed (:mod:`notifier.care_store`)."""

    deletion: Deletion | None = None
    """Old data that goes in the same transaction."""
    erasure: Erasure | None = None
    """A call that is erased in the same transaction."""
    origin: str = ""
    """The other node whose event this is (:mod:`notifier.cluster`); empty: it is ours."""

    @property
    def is_alert(self) -> bool:
        """True for what may never be dropped: an alert and its steps, an agent's rest, what is
        owed, who read what, rows of other modules."""
        if isinstance(self.event, (RecordRead, EvidenceExported, *PRIVACY_EVENTS)):
            return True
        stands = (self.alert or self.rest or self.escalation) is not None
        return stands or bool(self.kept) or bool(self.rows)

    def body(self) -> dict[str, Any]:
        """The event as it is stored and sent; every event of a call carries the PBX's own id of
        it, whichever process it came from."""
        body: dict[str, Any] = msgspec.to_builtins(self.event)
        if self.call is not None:
            body["agent_id"] = self.call.agent_id
            body["pbx_call_id"] = self.call.pbx_call_id
            if self.call.shadow and isinstance(self.event, HIDDEN):
                body["shadow"] = True
        return body


def judge(alert: Alert, verdict: AlertVerdict, role: JudgeRole, ts: float) -> list[Entry]:
    """Somebody says whether the machine was right; the newest word of each role counts.

    Args:
        alert: of kind ``risk``; it is changed.
        verdict: confirmed or refuted.
        role: of the person; nothing else of him is kept.
        ts: when, seconds since the epoch.

    Returns:
        What to store; empty when that role said the same before.
    """
    said = alert.agent_verdict if role == "agent" else alert.supervisor_verdict
    if said == verdict:
        return []
    if role == "agent":
        alert.agent_verdict = verdict
    else:
        alert.supervisor_verdict = verdict
    event = AlertJudged(
        ts=ts, alert_id=alert.alert_id, call_id=alert.call_id, verdict=verdict, by=role
    )
    # For nobody's screen, and without the call: its event would name the agent.
    return [Entry(event, "", alert=alert)]
