"""The schema: every message between Callshield's processes, and every event that a console sees.

Three families, each a tagged union of frozen :class:`msgspec.Struct`:

* **events** (``type`` like ``call.started``): what happened. The bridge, the detector and the
  process supervisor send them to the notifier, which numbers and stores the ones that matter and
  passes them to consoles as JSON, unchanged but for the ``id``.
* **commands**: what a person asked for. The notifier sends :class:`Command` to the bridge and
  gets one :class:`CommandResult`.
* **media control**: the bridge tells the media worker what each leg may do, and hears back.

On Unix sockets messages travel as length-prefixed MessagePack (:mod:`callshield.bus`); on the
WebSocket as JSON. ``ts`` is seconds since the Unix epoch; ``call_id`` is 32 hexadecimal digits.
Field names of events are part of the black-box interface: add, never rename.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Literal

import msgspec

__all__ = [
    "Action",
    "AlertAcknowledged",
    "AlertEscalated",
    "AlertRaised",
    "CallAnswered",
    "CallEnded",
    "CallEnding",
    "CallSnapshot",
    "CallStarted",
    "CloseSession",
    "Command",
    "CommandResult",
    "DigitPressed",
    "Event",
    "FlowUpdate",
    "Hello",
    "LegName",
    "LegUpdate",
    "MediaFailed",
    "MediaMessage",
    "MediaSilent",
    "MediaStats",
    "MediaTimeout",
    "NodeDegraded",
    "NodeMessage",
    "NoticeFinished",
    "NoticeStarted",
    "OpenSession",
    "PlayFinished",
    "PlayPrompts",
    "PromptStamp",
    "Reason",
    "RiskChanged",
    "RiskLevel",
    "SessionClosed",
    "SessionOpened",
    "StopPlay",
    "TapStarted",
    "WarningPlayed",
]


class RiskLevel(IntEnum):
    """How bad it is for the agent, as shown on every screen."""

    CALM = 0
    """정상"""
    CAUTION = 1
    """주의"""
    SERIOUS = 2
    """위험"""
    SEVERE = 3
    """심각"""


class Action(StrEnum):
    """What an agent (by button, phone key or DTMF code) may ask of a running call."""

    WARN = "warn"
    """Play the next graded warning to the caller."""
    HELP = "help"
    """Call a supervisor: an alert that must be acknowledged."""
    HAND_OVER = "hand_over"
    """Hand over to the responsible manager."""
    END = "end"
    """End with announcement: agent released at once, closing prompt, then BYE."""
    SKIP_NOTICE = "skip_notice"
    """Emergency: stop the notice, connect now; nothing is tapped for the rest of the call."""
    PAUSE_RECORDING = "pause_recording"
    RESUME_RECORDING = "resume_recording"


class LegName(StrEnum):
    """The two legs of a call. Only the caller's audio can be tapped."""

    CALLER = "caller"
    AGENT = "agent"


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all messages; subclasses carry their tag."""


# --------------------------------------------------------------------------------------- events


class CallStarted(_Message, tag="call.started", frozen=True, kw_only=True):
    """An INVITE for a known agent was accepted and the agent's phone is being called."""

    ts: float
    call_id: str
    agent_id: str
    pbx_call_id: str
    """The PBX's own id of the call (configured header, else the SIP Call-ID)."""
    pbx: str = ""
    """Name of the configured peer that sent the call."""


class CallAnswered(_Message, tag="call.answered", frozen=True, kw_only=True):
    """The agent's phone answered."""

    ts: float
    call_id: str
    agent_id: str
    pbx_call_id: str = ""
    phone_user_agent: str = ""
    """User-Agent or Server header of the phone, for firmware profiles."""
    codec: str = ""


class PromptStamp(msgspec.Struct, frozen=True, kw_only=True):
    """Proof that one prompt was played (or attested)."""

    prompt_id: str
    version: str
    sha256: str
    """Of the prompt's WAV file; empty where the PBX played it."""
    started_ts: float
    finished_ts: float
    complete: bool


class NoticeStarted(_Message, tag="notice.started", frozen=True, kw_only=True):
    """The first packet of the first notice was sent to the caller."""

    ts: float
    call_id: str
    agent_id: str
    pbx_call_id: str = ""


class NoticeFinished(_Message, tag="notice.finished", frozen=True, kw_only=True):
    """The gate is open: from now on caller and agent hear each other.

    ``source`` is ``played`` (by us, to the end), ``upstream`` (a trusted peer attested it),
    ``skipped`` (the agent's emergency key; never tapped) or ``failed`` (never tapped).
    """

    ts: float
    call_id: str
    agent_id: str
    source: Literal["played", "upstream", "skipped", "failed"]
    prompts: list[PromptStamp]
    tapped: bool
    attested_by: str = ""
    """Name of the peer that attested the notice."""
    pbx_call_id: str = ""


class TapStarted(_Message, tag="tap.started", frozen=True, kw_only=True):
    """The first frame of the caller went to the detector."""

    ts: float
    call_id: str


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of evidence behind a level."""

    kind: Literal["vocal_effort", "words", "agent"]
    score: float
    """0..1."""
    detail: str = ""
    """Redacted, human readable; never what was said word for word."""


class RiskChanged(_Message, tag="risk.changed", frozen=True, kw_only=True):
    """The caller's risk level went up or down."""

    ts: float
    call_id: str
    level: int
    """0-3, see :class:`RiskLevel`."""
    previous: int
    categories: list[str]
    score: float
    """Peak vocal-effort score of the evidence window, 0..1."""
    reasons: list[Reason] = []
    at_s: float = 0.0
    """Seconds of tapped audio since the tap began."""


class WarningPlayed(_Message, tag="warning.played", frozen=True, kw_only=True):
    """A graded warning was played to the caller."""

    ts: float
    call_id: str
    agent_id: str
    grade: int
    complete: bool
    pbx_call_id: str = ""


class CallEnding(_Message, tag="call.ending", frozen=True, kw_only=True):
    """The agent was released; the caller hears the closing announcement."""

    ts: float
    call_id: str
    agent_id: str
    by: str
    """``agent:console``, ``agent:dtmf``, ``supervisor``, ``policy``."""
    pbx_call_id: str = ""


class CallEnded(_Message, tag="call.ended", frozen=True, kw_only=True):
    """Both legs are gone."""

    ts: float
    call_id: str
    agent_id: str
    reason: str
    """``caller_hangup``, ``agent_hangup``, ``ended_with_announcement``, ``no_answer``, ``busy``,
    ``cancelled``, ``refused``, ``media_timeout``, ``shutdown``, ``error``, ``lost`` (the bridge
    died), …"""
    duration_s: float = 0.0
    """From answer to end."""
    sip_status: int = 0
    pbx_call_id: str = ""


class AlertRaised(_Message, tag="alert.raised", frozen=True, kw_only=True):
    """Somebody must look: stored before it was sent, open until acknowledged."""

    ts: float
    alert_id: str
    call_id: str
    agent_id: str
    kind: Literal["risk", "help", "notice_failed", "node"]
    level: int
    categories: list[str] = []
    reason: str = ""


class AlertAcknowledged(_Message, tag="alert.acknowledged", frozen=True, kw_only=True):
    """One person took the alert; exactly one acknowledgement wins."""

    ts: float
    alert_id: str
    call_id: str
    by: str


class AlertEscalated(_Message, tag="alert.escalated", frozen=True, kw_only=True):
    """Nobody answered in time; the next ones were told."""

    ts: float
    alert_id: str
    call_id: str
    step: int


class MediaSilent(_Message, tag="media.silent", frozen=True, kw_only=True):
    """No packet came on a leg for a while (``silent``), or they came again."""

    ts: float
    call_id: str
    leg: LegName
    silent: bool


class NodeDegraded(_Message, tag="node.degraded", frozen=True, kw_only=True):
    """A part of the node stopped (``degraded``) or works again."""

    ts: float
    component: str
    """``media``, ``bridge``, ``detector``, ``notifier``, ``prompts``, …"""
    degraded: bool
    reason: str = ""
    call_id: str = ""


class CallSnapshot(_Message, tag="call.snapshot", frozen=True, kw_only=True):
    """All calls that the bridge has, sent on every (re)connection to the notifier.

    What the notifier believes live and is not in here ended while it was away. Not shown to
    consoles.
    """

    ts: float
    calls: list[CallStarted]
    answered: list[str] = []
    """Call ids that are past their answer."""


Event = (
    CallStarted
    | CallAnswered
    | NoticeStarted
    | NoticeFinished
    | TapStarted
    | RiskChanged
    | WarningPlayed
    | CallEnding
    | CallEnded
    | AlertRaised
    | AlertAcknowledged
    | AlertEscalated
    | MediaSilent
    | NodeDegraded
    | CallSnapshot
)

# ------------------------------------------------------------------------------------- commands


class Hello(_Message, tag="hello", frozen=True, kw_only=True):
    """First message on every bus connection."""

    role: str
    """``bridge``, ``detector``, ``supervisor``."""
    pid: int
    node: str = ""


class Command(_Message, tag="command", frozen=True, kw_only=True):
    """A person's wish: from the notifier to the bridge, and, for *help* keyed on the phone, from
    the bridge to the notifier, who calls the supervisors."""

    command_id: str
    call_id: str
    action: Action
    by: str
    """``agent:console``, ``supervisor:<token id>``; an id, never a name."""


class CommandResult(_Message, tag="command.result", frozen=True, kw_only=True):
    """The bridge's answer to one :class:`Command`."""

    command_id: str
    status: Literal["done", "already", "unknown_call", "not_now", "not_supported"]
    detail: str = ""
    """A sentence for the person who pressed."""


NodeMessage = Hello | Event | Command | CommandResult
"""Everything that travels on the notifier's bus."""

# -------------------------------------------------------------------------------- media control


class OpenSession(_Message, tag="open", frozen=True, kw_only=True):
    """Reserve a port pair (RTP even, RTCP odd) on each side for one call."""

    request_id: int
    call_id: str


class SessionOpened(_Message, tag="opened", frozen=True, kw_only=True):
    """The reserved addresses, as they go into our SDP; empty ``error`` when it worked."""

    request_id: int
    call_id: str
    caller_port: int = 0
    agent_port: int = 0
    error: str = ""


class LegUpdate(_Message, tag="leg", frozen=True, kw_only=True):
    """What the far end of a leg negotiated; sent again after a re-INVITE (latching re-armed)."""

    call_id: str
    leg: LegName
    address: str
    """From the SDP's c= line; ``""`` when the far end gave none yet."""
    port: int
    payload_type: int
    """Of the voice codec on this leg: 0 PCMU or 8 PCMA (RFC 3551)."""
    event_payload_type: int
    """telephone-event (RFC 4733) on this leg; -1 when not negotiated."""
    signalling_address: str = ""
    """Source address of the leg's SIP messages: a phone behind NAT may send media from it."""
    ptime_ms: int = 20


class FlowUpdate(_Message, tag="flow", frozen=True, kw_only=True):
    """What may pass. The safe state (all false) is the state after OpenSession."""

    call_id: str
    caller_to_agent: bool
    agent_to_caller: bool
    tap: bool
    """Copy the caller's frames to the detector."""
    on_hold: bool = False
    """Somebody holds: no media timeout, no tap."""


class PlayPrompts(_Message, tag="play", frozen=True, kw_only=True):
    """Play WAV files to one leg, one after the other; replaces what is playing there."""

    call_id: str
    play_id: int
    leg: LegName
    files: list[str]
    loop: bool = False
    """Repeat until :class:`StopPlay`; the relay towards the leg mixes nothing meanwhile."""
    mix: bool = False
    """Add to the relayed audio instead of replacing it (the agent's soft notice tone)."""


class StopPlay(_Message, tag="stop_play", frozen=True, kw_only=True):
    """Stop what is playing on a leg; answered by PlayFinished with ``complete`` false."""

    call_id: str
    leg: LegName


class PlayFinished(_Message, tag="played", frozen=True, kw_only=True):
    """A :class:`PlayPrompts` ended, one ``(started_ts, finished_ts)`` a file that was begun."""

    call_id: str
    play_id: int
    leg: LegName
    complete: bool
    spans: list[tuple[float, float]]
    error: str = ""


class DigitPressed(_Message, tag="digit", frozen=True, kw_only=True):
    """A telephone-event ended on a leg (RFC 4733)."""

    call_id: str
    leg: LegName
    digit: str
    """One of ``0123456789*#ABCD``."""


class MediaTimeout(_Message, tag="media_timeout", frozen=True, kw_only=True):
    """No RTP came on either leg for the configured time, off hold."""

    call_id: str
    silent_s: float


class CloseSession(_Message, tag="close", frozen=True, kw_only=True):
    """Close the ports of a call; answered by :class:`SessionClosed`."""

    call_id: str


class LegStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of one leg."""

    received: int
    sent: int
    malformed: int
    wrong_source: int
    wrong_payload_type: int


class SessionClosed(_Message, tag="closed", frozen=True, kw_only=True):
    """A call's ports are closed; its counters."""

    call_id: str
    caller: LegStats
    agent: LegStats
    tapped: int
    tap_dropped: int


class MediaStats(_Message, tag="stats", frozen=True, kw_only=True):
    """Once a second: totals of the worker."""

    sessions: int
    packets: int
    tapped: int
    tap_dropped: int
    malformed: int
    wrong_source: int


class MediaFailed(_Message, tag="failed", frozen=True, kw_only=True):
    """A media command could not be carried out; the call goes on as it was."""

    call_id: str
    command: str
    error: str


MediaMessage = (
    OpenSession
    | SessionOpened
    | LegUpdate
    | FlowUpdate
    | PlayPrompts
    | StopPlay
    | PlayFinished
    | DigitPressed
    | MediaTimeout
    | MediaSilent
    | TapStarted
    | CloseSession
    | SessionClosed
    | MediaStats
    | MediaFailed
)
"""Everything that travels between bridge and media worker."""
