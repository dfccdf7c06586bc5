"""Events about what follows a bad call: marks, breaks, call-backs, the agent's own word."""

from __future__ import annotations

from typing import Literal

from callshield.message_base import Message

Exclusion = Literal["quality", "handling_time", "survey"]
#: What a marked call is left out of, in the order in which it is written everywhere.
EXCLUSIONS: tuple[Exclusion, ...] = ("quality", "handling_time", "survey")

CallbackState = Literal["promised", "spoken", "done", "overdue"]
SaidKind = Literal["rest", "evidence", "abusive", "note"]


class CallMarked(Message, tag="call.marked", frozen=True, kw_only=True):
    """This call counts for nobody's figures. To supervisors, the PBX and webhooks the mark alone:
    who set it (``by``) only the call's own agent sees. To the bridge, for the BYE's header."""

    ts: float
    call_id: str
    agent_id: str
    exclude: list[Exclusion]
    by: Literal["", "level", "end", "agent"] = ""
    pbx_call_id: str = ""


class HandOverUnanswered(Message, tag="hand_over.unanswered", frozen=True, kw_only=True):
    """From the bridge: the manager to whom the agent handed over did not come, and the caller is
    still there. (A caller who hung up meanwhile is owed nothing by this.)"""

    ts: float
    call_id: str
    agent_id: str
    helper_id: str
    """Who did not answer: id of the configured person."""
    pbx_call_id: str = ""


class CallBackSpoken(Message, tag="callback.spoken", frozen=True, kw_only=True):
    """From the bridge: the caller heard that somebody will call back, or a part of it."""

    ts: float
    call_id: str
    agent_id: str
    complete: bool
    pbx_call_id: str = ""


class CallbackChanged(Message, tag="callback.changed", frozen=True, kw_only=True):
    """A call-back was promised, spoken to the caller, done, or is overdue."""

    ts: float
    call_id: str
    agent_id: str
    callback_id: str
    state: CallbackState
    owner: str
    """Who owes it: id of the configured person; empty where nobody is configured."""
    due_ts: float
    pbx_call_id: str = ""
    """By which the PBX knows the caller's number; none is kept here."""


class BreakChanged(Message, tag="break.changed", frozen=True, kw_only=True):
    """A planned break moved, or what is owed of breaks changed; shown to this agent only."""

    ts: float
    agent_id: str
    owed_s: float
    """All that bad calls ate and that was not given back yet, seconds."""
    moved_to_ts: float = 0.0
    """When the break begins that a call delayed; 0: none moved by this."""
    call_id: str = ""


class EvidenceRequested(Message, tag="evidence.requested", frozen=True, kw_only=True):
    """The agent asks for the evidence of a call to be kept and handed out."""

    ts: float
    call_id: str
    agent_id: str
    request_id: str
    pbx_call_id: str = ""


class RecordingsHeld(Message, tag="recordings.held", frozen=True, kw_only=True):
    """To the bridge: all calls whose recordings stay although their time is over, because somebody
    asked for the evidence. What is not in here is held no longer."""

    call_ids: list[str]


class AgentSaid(Message, tag="agent.said", frozen=True, kw_only=True):
    """What the agent said of an own call, kept for him; shown to this agent only."""

    ts: float
    call_id: str
    agent_id: str
    request_id: str
    kind: SaidKind
    choice: str = ""
    """Of a note: one of the fixed choices."""


CareEvent = (
    CallMarked
    | HandOverUnanswered
    | CallBackSpoken
    | CallbackChanged
    | BreakChanged
    | EvidenceRequested
    | AgentSaid
)
