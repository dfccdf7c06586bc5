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
    "CloseLeg",
    "CloseSession",
    "CodePressed",
    "Command",
    "CommandResult",
    "DigitReceived",
    "DigitUndelivered",
    "Direction",
    "EarChanged",
    "EarDose",
    "EarUpdate",
    "Event",
    "FlowUpdate",
    "HearingDose",
    "Hello",
    "HelperChanged",
    "HoldChanged",
    "LegName",
    "LegOpened",
    "LegStats",
    "LegUpdate",
    "MediaFailed",
    "MediaMessage",
    "MediaQuality",
    "MediaSilent",
    "MediaStats",
    "MediaTimeout",
    "NodeDegraded",
    "NodeMessage",
    "NoticeFinished",
    "NoticeSource",
    "NoticeStarted",
    "OpenLeg",
    "OpenSession",
    "PauseChanged",
    "PlayFinished",
    "PlayPrompts",
    "PromoteHelper",
    "PromptStamp",
    "Reason",
    "RecordingChanged",
    "RestChanged",
    "RiskChanged",
    "RiskLevel",
    "SessionClosed",
    "SessionOpened",
    "SrtpKeys",
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
    """Card data follows: no tap, no recording, the caller's digits go nowhere."""
    RESUME_RECORDING = "resume_recording"
    JOIN = "join"
    """A supervisor takes the agent's request for help and joins, announced to both parties."""
    SOFTEN = "soften"
    """The agent turns softening of shouting on, or off again."""
    LEVELLING = "levelling"
    """The agent turns levelling (quiet callers up, steady noise down) off, or on again."""


class Direction(StrEnum):
    """Who began a call, and with whom."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"
    """The agent called somebody outside, who is the *caller* in every event and on every leg."""
    INTERNAL = "internal"
    """Between colleagues: never analysed, never recorded, no notice."""


class LegName(StrEnum):
    """The legs of a call. Only the caller's audio can be tapped."""

    CALLER = "caller"
    """Whoever is not the agent: of an outgoing call, the party that was called."""
    AGENT = "agent"
    HELPER = "helper"
    """A supervisor or manager whom the agent asked for; announced before anybody is heard."""


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all messages; subclasses carry their tag."""


# --------------------------------------------------------------------------------------- events


class CallStarted(_Message, tag="call.started", frozen=True, kw_only=True):
    """An INVITE for or from a known agent was accepted and the other side is being called."""

    ts: float
    call_id: str
    agent_id: str
    pbx_call_id: str
    """The PBX's own id of the call (configured header, else the SIP Call-ID)."""
    pbx: str = ""
    """Name of the configured peer that sent the call."""
    direction: Direction = Direction.INBOUND
    pbx_channel: str = ""
    """The PBX's own name of its channel (``sip.pbx_channel_header``); ``""`` when it sent none."""


class CallAnswered(_Message, tag="call.answered", frozen=True, kw_only=True):
    """The agent's phone answered; of an outgoing call, the called party."""

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


NoticeSource = Literal["played", "upstream", "skipped", "failed", "internal"]


class NoticeStarted(_Message, tag="notice.started", frozen=True, kw_only=True):
    """The first packet of the first notice was sent to the caller."""

    ts: float
    call_id: str
    agent_id: str
    pbx_call_id: str = ""


class NoticeFinished(_Message, tag="notice.finished", frozen=True, kw_only=True):
    """The gate is open: from now on caller and agent hear each other.

    ``source`` is ``played`` (by us, to the end), ``upstream`` (a trusted peer attested it),
    ``skipped`` (the agent's emergency key; never tapped), ``failed`` (never tapped) or
    ``internal`` (a call between colleagues: no notice is owed, never tapped).
    """

    ts: float
    call_id: str
    agent_id: str
    source: NoticeSource
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
    paused: list[str] = []
    """Call ids whose recording and analysis the agent paused."""
    held: list[str] = []
    """Call ids in which somebody holds."""


class MediaQuality(_Message, tag="media.quality", frozen=True, kw_only=True):
    """How well a leg's audio arrived, at its end: our own receiver statistics (RFC 3550)."""

    ts: float
    call_id: str
    leg: LegName
    mos: float
    """Estimated mean opinion score, 1..4.5 (ITU-T G.107 from loss, jitter and delay)."""
    loss_pct: float
    jitter_ms: float
    rtt_ms: float
    """Round trip by RTCP (RFC 3550 section 6.4.1); -1 when the far end sent no report."""


class RecordingChanged(_Message, tag="recording.changed", frozen=True, kw_only=True):
    """A call's recording began, was paused, went on, ended or failed (the call goes on)."""

    ts: float
    call_id: str
    state: Literal["recording", "paused", "stopped", "failed"]
    reason: str = ""


class PauseChanged(_Message, tag="pause.changed", frozen=True, kw_only=True):
    """The agent paused recording and analysis, or they go on; also where nothing is recorded here,
    for the PBX may record."""

    ts: float
    call_id: str
    agent_id: str
    paused: bool
    pbx_call_id: str = ""


class HoldChanged(_Message, tag="hold.changed", frozen=True, kw_only=True):
    """Caller or agent holds, or nobody any more."""

    ts: float
    call_id: str
    agent_id: str
    held: bool
    pbx_call_id: str = ""


class RestChanged(_Message, tag="rest.changed", frozen=True, kw_only=True):
    """The agent rests after a bad call, or the rest is over; shown to this agent only."""

    ts: float
    agent_id: str
    call_id: str
    """The call after which it began."""
    state: Literal["resting", "over"]
    until_ts: float
    """When it ends by itself, or when it ended."""
    reason: Literal["level", "ended"]
    """The call reached the configured level, or was ended with announcement."""
    by: str = ""
    """Who ended it: ``timer``, ``agent``, ``pbx`` (somebody made the agent available there)."""


class HelperChanged(_Message, tag="helper.changed", frozen=True, kw_only=True):
    """The person whom the agent asked for is called, has joined, took over, or is gone."""

    ts: float
    call_id: str
    agent_id: str
    state: Literal["calling", "joined", "took_over", "left", "unreachable"]
    role: Literal["supervisor", "manager"]
    by: str = ""
    """Who asked for this: ``supervisor:<token id>`` or ``agent:…``."""
    helper_id: str = ""
    """Id of the configured person whose phone it is; never a name."""
    pbx_call_id: str = ""


class EarChanged(_Message, tag="ear.changed", frozen=True, kw_only=True):
    """What protects the agent's ear in this call now; shown to this agent only."""

    ts: float
    call_id: str
    softening: bool
    levelling: bool


class EarDose(_Message, tag="ear.dose", frozen=True, kw_only=True):
    """What the agent's headset gave in this shift; shown to this agent only (docs/hearing.md)."""

    ts: float
    call_id: str
    agent_id: str
    heard_s: float
    level_dba: float
    """Mean A-weighted level at the ear; 0 for silence."""
    lex_8h_dba: float
    """The same energy spread over eight hours (Directive 2003/10/EC)."""
    dose_pct: float
    """100: 85 dB(A) for eight hours."""
    action_value: Literal["none", "lower", "upper"]
    """Reached: 80 (lower) or 85 dB(A) (upper)."""
    estimate: bool
    """The headset was never calibrated."""


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
    | MediaQuality
    | RecordingChanged
    | PauseChanged
    | HoldChanged
    | RestChanged
    | HelperChanged
    | EarChanged
    | EarDose
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
    target: str = ""
    """For *join* and *hand_over*: id of the configured supervisor or manager; empty for the
    first one."""


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


class OpenLeg(_Message, tag="open_leg", frozen=True, kw_only=True):
    """Reserve a port pair for one more leg of a call: the helper's, on the phone side."""

    request_id: int
    call_id: str
    leg: LegName


class LegOpened(_Message, tag="leg_opened", frozen=True, kw_only=True):
    """The answer to :class:`OpenLeg`; empty ``error`` when it worked."""

    request_id: int
    call_id: str
    leg: LegName
    port: int = 0
    error: str = ""


class CloseLeg(_Message, tag="close_leg", frozen=True, kw_only=True):
    """Close the ports of the helper's leg; the others go on."""

    call_id: str
    leg: LegName


class PromoteHelper(_Message, tag="promote", frozen=True, kw_only=True):
    """Hand over: the agent's leg closes and the helper's leg takes its place and name."""

    call_id: str


class SrtpKeys(msgspec.Struct, frozen=True, kw_only=True):
    """SRTP master keys of one leg as SDES agreed them (RFC 4568); never logged."""

    suite: str
    """``AES_CM_128_HMAC_SHA1_80``, ``AES_CM_128_HMAC_SHA1_32``, ``AEAD_AES_128_GCM`` or
    ``AEAD_AES_256_GCM``."""
    send: bytes
    """Master key and salt of what we send: 30, 28 or 44 bytes by the suite."""
    receive: bytes
    """Of what the far end sends."""

    def __repr__(self) -> str:
        return f"SrtpKeys(suite={self.suite!r}, ...)"


class LegUpdate(_Message, tag="leg", frozen=True, kw_only=True):
    """What the far end of a leg negotiated; sent again after a re-INVITE (latching re-armed)."""

    call_id: str
    leg: LegName
    address: str
    """From the SDP's c= line; ``""`` when the far end gave none yet."""
    port: int
    payload_type: int
    """Number of the voice codec on this leg (RFC 3551; dynamic for Opus)."""
    event_payload_type: int
    """telephone-event (RFC 4733) on this leg; -1 when not negotiated."""
    signalling_address: str = ""
    """Source address of the leg's SIP messages: a phone behind NAT may send media from it."""
    ptime_ms: int = 20
    """Length of the packets that the far end wants: 10-60; prompts are sent so."""
    codec: Literal["", "PCMU", "PCMA", "G722", "OPUS"] = ""
    """The voice codec; by payload type 0, 8 or 9 when empty."""
    comfort_noise_type: int = -1
    """Payload type of comfort noise (RFC 3389) on this leg; -1 when not negotiated."""
    rtcp_port: int = 0
    """From ``a=rtcp`` (RFC 3605); 0: the port above the RTP port."""
    srtp: SrtpKeys | None = None
    """Keys when the leg is RTP/SAVP; None: plain RTP."""


class FlowUpdate(_Message, tag="flow", frozen=True, kw_only=True):
    """What may pass. The safe state (all false) is the state after OpenSession."""

    call_id: str
    caller_to_agent: bool
    agent_to_caller: bool
    tap: bool
    """Copy the caller's frames to the detector."""
    on_hold: bool = False
    """Somebody holds: no media timeout, no tap, no recording."""
    record: bool = False
    """Copy what each side hears of the other to the recorder."""
    paused: bool = False
    """Card data: no tap, no recording; the caller's digits are neither relayed nor reported."""
    conference: bool = False
    """Caller, agent and helper hear each other (all G.711)."""


class EarUpdate(_Message, tag="ear", frozen=True, kw_only=True):
    """Softening and levelling on the way to the agent; the limiter is always on."""

    call_id: str
    soften: bool
    levelling: bool


class HearingDose(_Message, tag="dose", frozen=True, kw_only=True):
    """What the agent's leg was given to hear since the last one."""

    call_id: str
    a_weighted_sum_sq: float
    samples: int


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
    gain_db: float = 0.0
    """Applied to the files, at most 0: the agent hears the caller's prompts quietly."""


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


class CodePressed(_Message, tag="code", frozen=True, kw_only=True):
    """A feature code was completed on the agent's leg; its digits went no further."""

    call_id: str
    leg: LegName
    code: str


class DigitReceived(_Message, tag="digit", frozen=True, kw_only=True):
    """A digit came on a leg by SIP INFO: it passes the same gate as a telephone-event."""

    call_id: str
    leg: LegName
    digit: str
    """One of ``0123456789*#ABCD``."""


class DigitUndelivered(_Message, tag="digit_undelivered", frozen=True, kw_only=True):
    """A digit of ``leg`` is for the other side, which has no telephone-event: INFO must do."""

    call_id: str
    leg: LegName
    """The leg on which it was pressed."""
    digit: str


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
    lost: int = 0
    """Packets that never came (RFC 3550 appendix A.3)."""
    duplicates: int = 0
    late: int = 0
    """Came out of order; they count as received."""
    jitter_ms: float = 0.0
    """Interarrival jitter (RFC 3550 section 6.4.1), the last value."""
    rtt_ms: float = -1.0
    """-1: the far end sent no report about us."""
    reported_loss_pct: float = -1.0
    """What the far end lost of ours, by its newest report; -1: none came."""
    mos: float = 0.0
    """1..4.5; 0 when too little came to say."""
    srtp_refused: int = 0
    """Packets whose authentication failed or that were replayed."""


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
    | OpenLeg
    | LegOpened
    | CloseLeg
    | PromoteHelper
    | EarUpdate
    | HearingDose
    | NodeDegraded
    | RecordingChanged
    | LegUpdate
    | FlowUpdate
    | PlayPrompts
    | StopPlay
    | PlayFinished
    | CodePressed
    | DigitReceived
    | DigitUndelivered
    | MediaQuality
    | MediaTimeout
    | MediaSilent
    | TapStarted
    | CloseSession
    | SessionClosed
    | MediaStats
    | MediaFailed
)
"""Everything that travels between bridge and media worker."""
