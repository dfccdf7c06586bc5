"""What a probe of a PBX saw, without any opinion: :mod:`sipbridge.pbx_probe_judge` has those.

Plain records, so that every judgement can be tested on what a wire once carried.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from sipbridge.sip_message import SipHeaders, body_of


class Reach(StrEnum):
    """How far a request came."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """The machine answered that nothing listens there (ICMP port unreachable, TCP reset)."""
    UNREACHABLE = "unreachable"
    """A router, or our own machine, said that there is no way there."""
    SILENT = "silent"
    """Nothing came back: a firewall that drops, a wrong address, or nobody there."""
    TLS_FAILED = "tls_failed"
    """Connected, but no TLS session came about."""
    CLOSED = "closed"
    """Connected, and closed without an answer."""


@dataclass(frozen=True, slots=True)
class OptionsSeen:
    """One OPTIONS over one transport."""

    transport: str
    """``udp``, ``tcp`` or ``tls``."""
    target: str
    """``address:port``."""
    reach: Reach
    error: str = ""
    """The system's or the TLS library's own words, when there was no answer."""
    response: str = ""
    """The whole answer."""
    sent: int = 1
    """How often it was sent before the answer came (UDP)."""
    connect_ms: float | None = None
    """TCP and TLS handshake."""
    round_trip_ms: float | None = None
    """From the request that was answered to the answer."""
    local: str = ""
    """``address:port`` that the socket really had."""
    announced: str = ""
    """``address:port`` that our Via named."""
    tls_version: str = ""
    certificate_days: float | None = None
    """Until the PBX's certificate expires; None when it was not checked."""

    @property
    def headers(self) -> SipHeaders:
        return SipHeaders(self.response)

    @property
    def status(self) -> int:
        """Of the answer; 0 without one."""
        return status_of(self.response)


@dataclass(frozen=True, slots=True)
class Provisional:
    """A provisional response to the INVITE."""

    status: int
    after_ms: float
    described: bool
    """It carried a session description (early media)."""


@dataclass(frozen=True, slots=True)
class RtpSeen:
    """One RTP packet that came."""

    at_s: float
    """Arrival, seconds after we began to send."""
    source: tuple[str, int]
    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Report:
    """One report block of the PBX about our stream (RFC 3550 section 6.4.1)."""

    highest_sequence: int
    lost: int
    jitter_ms: float


@dataclass(frozen=True, slots=True)
class EchoSeen:
    """What of our own signal came back."""

    correlation: float
    """-1..1 at the best delay; near ±1 when it is ours."""
    delay_ms: float
    gain_db: float
    """Level of the echo against what was sent."""


@dataclass(slots=True)
class CallSeen:
    """One test call."""

    transport: str
    target: str
    """Host and port that the INVITE went to."""
    offer: str = ""
    """Our session description."""
    offered: tuple[str, ...] = ()
    """Names of the voice codecs in it, in order."""
    invites: int = 1
    """INVITEs that were sent: one more after each 422."""
    min_se_s: int = 0
    """Min-SE of a 422 that was answered with a longer interval."""
    provisional: list[Provisional] = field(default_factory=list)
    final_status: int = 0
    """0 when nothing final came within the time limit."""
    final_response: str = ""
    """The whole final answer; ``""`` when PJSIP itself made the status up (no answer came)."""
    answered_after_ms: float | None = None
    response_source: str = ""
    """``address:port`` from which the 200 came."""
    local_address: str = ""
    """Our media address as the description named it."""
    local_port: int = 0
    reoffers: int = 0
    """Re-INVITEs and UPDATEs with a description that the PBX sent."""
    moved_to: str = ""
    """Address to which the last of them moved the media, when it is another."""
    ended_by_pbx: bool = False
    """The PBX sent BYE before we did."""
    contact_asked: bool = False
    """The Contact is another host than the answer's source, so it was sent an OPTIONS."""
    contact_answers: bool = False
    sent_packets: int = 0
    sent_ms: float = 0.0
    """How long we sent."""
    ptime_ms: int = 20
    """Length of the packets that we sent."""
    codec: str = ""
    """Voice codec that we sent, by name."""
    packets: list[RtpSeen] = field(default_factory=list)
    malformed: int = 0
    """Datagrams on the RTP port that were not RTP."""
    icmp_errors: int = 0
    """Of our RTP packets, that many were answered "nothing listens here"."""
    send_error: str = ""
    """Why this machine would not send to the PBX's media address."""
    reports: list[Report] = field(default_factory=list)
    rtcp_packets: int = 0
    echo: EchoSeen | None = None
    """None: not looked for (no call, no codec)."""
    heard_dbfs: float | None = None
    """Level of whatever came, of the loudest second; None when nothing came."""
    digit_sent: bool = False
    digit_events_back: int = 0
    """RFC 4733 packets with our digit that came back."""
    digit_tones_back: bool = False
    """The digit came back as two tones in the audio."""
    digit_infos_back: int = 0
    """INFO requests with a digit that the PBX sent us."""
    info_sent: bool = False
    info_status: int | None = None
    """What the PBX answered to a digit by INFO; None when it did not."""
    keys_offered: bool = False
    """The offer carried SRTP keys."""

    @property
    def headers(self) -> SipHeaders:
        """Of the final answer."""
        return SipHeaders(self.final_response)

    @property
    def answer(self) -> str:
        """The PBX's session description; ``""`` without one."""
        return body_of(self.final_response)

    @property
    def answered(self) -> bool:
        return 200 <= self.final_status < 300


def status_of(response: str) -> int:
    """Status code of a SIP response; 0 when it is not one."""
    part = response[8:11]
    return int(part) if response.startswith("SIP/2.0 ") and part.isdigit() else 0
