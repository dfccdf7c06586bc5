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

from callshield.message_base import Message as _Message
from callshield.messages_care import CallbackChanged, CareEvent, RecordingsHeld
from callshield.messages_escalation import (
    AlertAcknowledged,
    AlertEscalated,
    AlertRefused,
    AlertUnanswered,
    CallLength,
    PolicyAdvice,
)
from callshield.messages_evidence import EvidenceEvent, EvidenceMessage
from callshield.messages_fairness import FairnessEvent, FairnessMessage
from callshield.messages_hearing import EarWarning, VoiceTalk
from callshield.messages_notice import NoticeEvent, PromptStamp, ProtectionReason, Spared
from callshield.messages_phones import PhonesMessage
from callshield.messages_privacy import PrivacyEvent, PrivacyMessage
from callshield.messages_store import RecordRead, RetentionDeleted, StoreRestored

__all__ = [
    "Action",
    "AlertAcknowledged",
    "AlertEscalated",
    "AlertJudged",
    "AlertRaised",
    "AlertRefused",
    "AlertUnanswered",
    "AlertVerdict",
    "CallAnalysed",
    "CallAnswered",
    "CallEnded",
    "CallEnding",
    "CallLength",
    "CallSnapshot",
    "CallStarted",
    "CallbackChanged",
    "Command",
    "CommandResult",
    "CrisisHint",
    "Direction",
    "EarChanged",
    "EarDose",
    "EarWarning",
    "Event",
    "Hello",
    "HelperChanged",
    "HoldChanged",
    "LegName",
    "MediaQuality",
    "MediaSilent",
    "NodeDegraded",
    "NodeMessage",
    "NoticeFinished",
    "NoticeSource",
    "NoticeStarted",
    "PauseChanged",
    "PolicyAdvice",
    "PromptStamp",
    "Reason",
    "RecordRead",
    "RecordingChanged",
    "RestChanged",
    "RetentionDeleted",
    "RiskChanged",
    "RiskLevel",
    "StoreRestored",
    "TapStarted",
    "VoiceTalk",
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
    START_RECORDING = "start_recording"
    """Tell the caller, and record from then on (``recording.begin = "on_request"``)."""
    JOIN = "join"
    """A supervisor takes the agent's request for help and joins, announced to both parties."""
    SOFTEN = "soften"
    """The agent turns softening of shouting on, or off again."""
    LEVELLING = "levelling"
    """The agent turns levelling (quiet callers up, steady noise down) off, or on again."""
    PROMISE_CALL_BACK = "promise_call_back"
    """Nobody came: the caller is told that somebody will call back."""
    EXTEND = "extend"
    """The agent needs more time than the team's policy gives a call; never sent to the bridge."""
    ABUSIVE = "abusive"
    """The agent says that this is severe abuse: level 3 for a minute, whatever the machine heard.
    Its word is the detector's to weigh; the bridge knows nothing of it."""


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
    spared: Spared = ""


class CallAnswered(_Message, tag="call.answered", frozen=True, kw_only=True):
    """The agent's phone answered; of an outgoing call, the called party."""

    ts: float
    call_id: str
    agent_id: str
    pbx_call_id: str = ""
    phone_user_agent: str = ""
    """User-Agent or Server header of the phone, for firmware profiles."""
    codec: str = ""


NoticeSource = Literal["played", "upstream", "skipped", "failed", "internal", "objected"]


class NoticeStarted(_Message, tag="notice.started", frozen=True, kw_only=True):
    """The first packet of the first notice was sent to the caller."""

    ts: float
    call_id: str
    agent_id: str
    pbx_call_id: str = ""


class NoticeFinished(_Message, tag="notice.finished", frozen=True, kw_only=True):
    """The gate is open: from now on caller and agent hear each other.

    ``source`` is ``played`` (by us, to the end), ``upstream`` (a trusted peer attested it),
    ``skipped`` (the agent's emergency key; never tapped), ``failed`` (never tapped), ``objected``
    (the caller objected by a key; never tapped) or ``internal`` (a call between colleagues: no
    notice is owed, never tapped).
    """

    ts: float
    call_id: str
    agent_id: str
    source: NoticeSource
    prompts: list[PromptStamp]
    tapped: bool
    attested_by: str = ""
    """Name of the peer that attested the notice."""
    key: str = ""
    """What the caller pressed of the keys that the notice names; empty: nothing."""
    waits: bool = False
    """A key may still decide: :class:`ProtectionChanged` says how."""
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
    """Human readable, in the node's language; never what was said word for word."""
    rule: str = ""
    """Which rule made something of it, e.g. ``abusive_words`` (docs/api.md)."""
    words: list[str] = []
    """Quotations, redacted; for the call's own agent, and for supervisors whom he asked for
    help."""
    categories: list[str] = []


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
    acoustic_only: bool = False
    """The level rests on sound alone; such a level is never above 2."""
    words_confirmed: bool = False
    """It rests, at least in part, on abusive words that are no mishearing."""
    may_trigger: bool = False
    """An automatic step, a spoken warning or a repeat-caller mark may follow from this: words are
    confirmed or the agent said so, and the caller is in no crisis. Whoever acts by itself must ask
    this and nothing else."""
    late: bool = False
    """The call had ended when its last words were understood: for the record, no live alert. Set by
    the notifier."""


class CrisisHint(_Message, tag="crisis.hint", frozen=True, kw_only=True):
    """The caller may be in danger of harming himself. No abuse, and no level follows from it:
    the agent gets the number to hand over to, a supervisor is called, and nothing automatic warns
    or ends this call any more."""

    ts: float
    call_id: str
    detail: str = ""
    """Human readable, in the node's language."""
    words: list[str] = []
    """Quotations, redacted; who sees them: as :attr:`Reason.words`."""
    number: str = ""
    """To hand over to (``[crisis] number``), put in by the notifier."""
    name: str = ""
    """Who answers there (``[crisis] name``)."""
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
    """``agent:console``, ``agent:dtmf``, ``agent:phone`` (a key that called our URL),
    ``supervisor``, ``policy``."""
    pbx_call_id: str = ""


class CallEnded(_Message, tag="call.ended", frozen=True, kw_only=True):
    """Both legs are gone."""

    ts: float
    call_id: str
    agent_id: str
    reason: str
    """``caller_hangup``, ``agent_hangup``, ``ended_with_announcement``, ``no_answer``, ``busy``,
    ``cancelled``, ``refused``, ``redirected``, ``not_authorised`` (the phone did not take our
    password), ``media_timeout``, ``shutdown``, ``error``, ``bridge_lost`` (the bridge died while
    the call was set up, or its session could not be refreshed afterwards), ``lost`` (nobody
    knows), …"""
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
    kind: Literal["risk", "help", "crisis", "notice_failed", "node", "callback"]
    level: int
    categories: list[str] = []
    reason: str = ""


AlertVerdict = Literal["confirmed", "refuted"]


class AlertJudged(_Message, tag="alert.judged", frozen=True, kw_only=True):
    """Somebody said whether an alert of the machine was right; stored for ``callshield
    calibrate``, shown to nobody, and never used about an agent."""

    ts: float
    alert_id: str
    call_id: str
    verdict: AlertVerdict
    by: Literal["agent", "supervisor"]
    """The role alone: who it was is kept nowhere."""


class CallAnalysed(_Message, tag="call.analysed", frozen=True, kw_only=True):
    """What is left of an analysed call: seconds and scores, no audio, no words. From the detector
    to the notifier's store; shown to nobody. After a long silence within a call there may be
    several: seconds add up, of the rest the highest counts."""

    ts: float
    call_id: str
    analysed_s: float
    """Seconds of the caller's audio that were judged."""
    speech_s: float
    effort_peak: float
    """Highest running vocal-effort score, 0..1."""
    effort_sustained: float
    """Highest sustained vocal-effort score, 0..1."""
    caution_reached: float
    """Highest threshold *caution* at which level 1 would have been reached; 0: none."""
    serious_reached: float
    """Highest threshold *serious* at which sound alone would have made level 2; 0: none."""
    caution: float
    """The threshold in force."""
    serious: float
    """The threshold in force."""
    model: str
    """SHA-256 of the acoustic model, its first 12 digits."""


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
    waits: list[str] = []
    """Call ids in which a key of the caller's may still decide on analysis."""
    choices: dict[str, ProtectionReason] = {}
    """What :class:`ProtectionChanged` said last, by call id."""


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
    reason: Literal["level", "ended", "asked", "break"]
    """The call reached the configured level, was ended with announcement, the agent asked for it,
    or a planned break follows."""
    by: str = ""
    """Who ended it: ``timer``, ``agent``, ``pbx`` (``aftercare.ready_at_pbx``)."""


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
    asked_ts: float = 0.0
    """When the agent asked for it: the request for help that a joining fulfils, or the press of
    *hand over*."""


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
    last_of_call: bool = False
    """The agent hears no more of this call: this one has a number and is stored, those before it
    are told and forgotten."""


Event = (
    CallStarted
    | CallAnswered
    | NoticeStarted
    | NoticeFinished
    | TapStarted
    | RiskChanged
    | CrisisHint
    | WarningPlayed
    | CallEnding
    | CallEnded
    | AlertRaised
    | AlertAcknowledged
    | AlertEscalated
    | AlertRefused
    | AlertUnanswered
    | PolicyAdvice
    | CallLength
    | AlertJudged
    | CallAnalysed
    | MediaSilent
    | MediaQuality
    | RecordingChanged
    | PauseChanged
    | HoldChanged
    | RestChanged
    | HelperChanged
    | EarChanged
    | EarDose
    | EarWarning
    | NodeDegraded
    | RecordRead
    | RetentionDeleted
    | StoreRestored
    | CallSnapshot
    | FairnessEvent
    | NoticeEvent
    | CareEvent
    | EvidenceEvent
    | PrivacyEvent
)

# ------------------------------------------------------------------------------------- commands


class Hello(_Message, tag="hello", frozen=True, kw_only=True):
    """First message on every bus connection."""

    role: str
    """``bridge``, ``detector``, ``supervisor``, ``phones``."""
    pid: int
    node: str = ""


class Command(_Message, tag="command", frozen=True, kw_only=True):
    """A person's wish: from the notifier to the bridge, for *abusive* to the detector, and, for
    *help* keyed on the phone, from the bridge to the notifier, who calls the supervisors."""

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


NodeMessage = (
    Hello
    | Event
    | Command
    | CommandResult
    | FairnessMessage
    | EvidenceMessage
    | RecordingsHeld
    | PhonesMessage
    | PrivacyMessage
    | VoiceTalk
)
"""Everything that travels on the notifier's bus."""
