"""Events of the escalation, of a team's policy (docs/escalation.md)."""

from __future__ import annotations

from typing import Literal

from callshield.message_base import Message

AcceptedHow = Literal["join", "take_over", "seen"]
"""``join``: comes into the call; ``take_over``: comes into it, and the agent hands it over;
``seen``: takes care of it otherwise."""
Offer = Literal["end", "promise_call_back"]
Stage = Literal["person", "all", "manager", "nobody"]


class AlertAcknowledged(Message, tag="alert.acknowledged", frozen=True, kw_only=True):
    """One person took the alert; exactly one acknowledgement wins."""

    ts: float
    alert_id: str
    call_id: str
    by: str
    """Token id."""
    how: AcceptedHow = "seen"
    supervisor_id: str = ""
    """ID of ``[supervisors.ID]`` where the token is tied to one."""


class AlertEscalated(Message, tag="alert.escalated", frozen=True, kw_only=True):
    """Somebody (else) was told of an open alert: on raising it, and whenever nobody answered in
    time, refused, or went away. Who was told before stays told."""

    ts: float
    alert_id: str
    call_id: str
    step: int
    """1, 2, … of this alert."""
    stage: Stage = "all"
    """``person``: one, in turn; ``all``: everybody on duty; ``manager``; ``nobody``: the limit is
    over, and everybody was told (again)."""
    to: list[str] = []
    """IDs of ``[supervisors.ID]`` who are told by this step; empty where nobody is to be named."""


class AlertRefused(Message, tag="alert.refused", frozen=True, kw_only=True):
    """Somebody cannot come; the alert stays open and goes on to the next."""

    ts: float
    alert_id: str
    call_id: str
    by: str
    """ID of ``[supervisors.ID]``, or token id where the token is tied to nobody."""
    reason: str
    """In the person's own words, long numbers masked."""


class AlertUnanswered(Message, tag="alert.unanswered", frozen=True, kw_only=True):
    """Nobody came within the limit. The alert stays open; the agent is offered what needs nobody
    else."""

    ts: float
    alert_id: str
    call_id: str
    offers: list[Offer]


class PolicyAdvice(Message, tag="policy.advice", frozen=True, kw_only=True):
    """What the agent's screen highlights by the team's policy; shown to this agent only. Every
    button works all the same."""

    ts: float
    call_id: str
    warn_grade: int
    """Grade of the warning that comes next; 0: none is advised."""
    end_highlighted: bool
    category: str
    """What it rests on; ``""`` for nothing."""


class CallLength(Message, tag="call.length", frozen=True, kw_only=True):
    """The call has lasted for a set time, or the agent extended it; shown to this agent only."""

    ts: float
    call_id: str
    minutes: int
    """Of talk so far."""
    step: Literal["notice", "end_offered", "extended"]
    until_ts: float
    """When *end* is (next) offered; of ``end_offered``: when the call ends by itself. 0: never."""
