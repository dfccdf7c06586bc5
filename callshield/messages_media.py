"""Between the bridge and a media worker: sessions, legs, prompts, codes and figures."""

from __future__ import annotations

from typing import Literal

import msgspec

from callshield.message_base import Message as _Message
from callshield.messages import (
    CallStarted,
    LegName,
    MediaQuality,
    MediaSilent,
    NodeDegraded,
    NoticeFinished,
    RecordingChanged,
    TapStarted,
)
from callshield.messages_notice import (
    PromptPlayed,
    PromptStamp,
    ProtectionChanged,
    ProtectionReason,
)

Told = NoticeFinished | PromptPlayed | ProtectionChanged
"""What the caller was told and pressed: to the media worker too, for the recording's own metadata;
without the agent's id."""


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
    keys: bool = False
    """Report what the caller presses (:class:`CallerPressed`): the notice asks for a key."""


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
    last: bool = False
    """The agent hears no more of this call."""


class AgentsSpoke(_Message, tag="spoke", frozen=True, kw_only=True):
    """How long the agents spoke since the last one, every few seconds: the sum of one bit.

    For the hint to rest the voice alone; never stored (design principle 2).
    """

    spoken_s: dict[str, float]
    """By call id; calls in which nobody spoke are left out."""


class PlayPrompts(_Message, tag="play", frozen=True, kw_only=True):
    """Play WAV files to one leg, one after the other; replaces what is playing there."""

    call_id: str
    play_id: int
    leg: LegName
    files: list[str]
    sha256: list[str] = []
    """Of each of ``files``: another file is not played, because its stamp would be false. Empty:
    nobody asks."""
    wide_files: list[str] = []
    """For legs with G.722 or Opus, one for each of ``files`` or ``""`` where there is none; empty:
    there are none at all."""
    wide_sha256: list[str] = []
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
    wide: bool = False
    """It was :attr:`PlayPrompts.wide_files` that played, where there was one."""
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


class CallerPressed(_Message, tag="caller_pressed", frozen=True, kw_only=True):
    """The caller pressed a digit while :attr:`FlowUpdate.keys` asked for it."""

    call_id: str
    digit: str


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


class DialogIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one leg's dialog (RFC 3261 section 12), as the bridge keeps it with the worker.

    A bridge that follows one that died restores the dialog from it. The session descriptions may
    carry SRTP keys: it is for no log.
    """

    call_id: str
    """The SIP Call-ID of this leg."""
    local_uri: str
    local_tag: str
    remote_uri: str
    remote_tag: str
    target: str
    """Where our requests go: the far end's Contact."""
    contact: str
    routes: list[str]
    """The route set in order."""
    local_cseq: int
    """The next of ours."""
    remote_cseq: int
    """The last of theirs; -1: none."""
    uac: bool
    """Our INVITE began it."""
    local_sdp: str
    """What we said last, as it was on the wire."""
    remote_sdp: str
    account: str
    """Side, transport, and whose credentials (:mod:`sipbridge.keeping`)."""
    expires_s: int = 0
    """Session-Expires in force (RFC 4028); 0: none was agreed."""
    we_refresh: bool = False
    refreshed_s: float = 0.0
    """When the session was refreshed last, or began: seconds of CLOCK_MONOTONIC, which all
    processes of the machine share and which no step of the clock moves."""
    bye_headers: list[tuple[str, str]] = []
    """What our BYE on this leg says besides."""

    def __repr__(self) -> str:
        return f"DialogIdentity(local_cseq={self.local_cseq}, ...)"


class KeepDialog(_Message, tag="keep_dialog", frozen=True, kw_only=True):
    """Keep, in place of what was kept before, the state of a leg's dialog; None: it is over."""

    call_id: str
    leg: LegName
    dialog: DialogIdentity | None


class KeptInvite(msgspec.Struct, frozen=True, kw_only=True):
    """An INVITE that awaits its final answer; as :class:`DialogIdentity`, for no log."""

    message: bytes
    """As it was on the wire."""
    address: str
    """The far end's IP address."""
    port: int
    account: str
    tag: str
    """Ours in one that came, the far end's in one of ours; empty: not known yet."""

    def __repr__(self) -> str:
        return f"KeptInvite({len(self.message)} bytes)"


KeepStage = Literal["setup", "notice", "connected", "transferred", "ending"]


class KeepCall(_Message, tag="keep_call", frozen=True, kw_only=True):
    """Keep what a bridge that follows this one must know of a call, besides its dialogs."""

    call_id: str
    started: CallStarted
    stage: KeepStage
    """``setup``: not answered yet. ``transferred``: the agent is out, and the call's end was told.
    ``ending``: the closing announcement plays."""
    answered_ts: float = 0.0
    """0: nobody answered yet."""
    answered_s: float = 0.0
    """The same moment by CLOCK_MONOTONIC."""
    end_reason: str = ""
    """With ``ending``: what the call's end is to be called."""
    paused: bool = False
    choice: ProtectionReason | Literal[""] = ""
    """What the caller's key, or its absence, decided."""
    may_tap: bool = False
    """The notice was heard: the caller may be tapped while nobody holds and nothing is paused."""
    may_record: bool = False
    callers_numbers: list[str] = []
    """By which whoever heard the notice was named; never logged or stored."""
    invited: KeptInvite | None = None
    """With ``setup``: the INVITE that began the call, not answered yet."""
    inviting: KeptInvite | None = None
    """With ``setup``: the one that we sent, not answered yet."""
    closing: PlayPrompts | None = None
    """The closing announcement, for an agent who ends the call."""
    closing_stamp: PromptStamp | None = None
    """What the call's record is to say of it, but for when and how much was heard."""

    def __repr__(self) -> str:
        return f"KeepCall(call_id={self.call_id!r}, stage={self.stage!r}, ...)"


class FetchKept(_Message, tag="fetch_kept", frozen=True, kw_only=True):
    """A bridge that has just begun asks for the calls that nobody commands any more."""


class KeptCall(_Message, tag="kept_call", frozen=True, kw_only=True):
    """One of them."""

    kept: KeepCall
    dialogs: dict[LegName, DialogIdentity]
    flow: FlowUpdate | None = None
    """What may pass now; None: nothing yet."""
    silent: list[LegName] = []
    """Legs of which no packet has come for a while."""


class KeptEnd(_Message, tag="kept_end", frozen=True, kw_only=True):
    """All of them were told."""


MediaMessage = (
    OpenSession
    | SessionOpened
    | OpenLeg
    | LegOpened
    | CloseLeg
    | PromoteHelper
    | EarUpdate
    | HearingDose
    | AgentsSpoke
    | NodeDegraded
    | RecordingChanged
    | LegUpdate
    | Told
    | FlowUpdate
    | PlayPrompts
    | StopPlay
    | PlayFinished
    | CodePressed
    | CallerPressed
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
    | KeepDialog
    | KeepCall
    | FetchKept
    | KeptCall
    | KeptEnd
)
"""Everything that travels between bridge and media worker."""
