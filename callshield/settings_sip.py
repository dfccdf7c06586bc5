"""``[sip]``, ``[[peers]]``, ``[agents.ID]`` and ``[supervisors.ID]``: who calls whom, over what."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from callshield.private_file import placed
from callshield.settings_base import SECTION, DigestSettings, Port
from callshield.settings_base import address as _address
from callshield.transcriber_settings import CallerLanguage


class _Section(BaseModel):
    model_config = SECTION


VoiceCodec = Literal["PCMU", "PCMA", "G722", "OPUS"]
SrtpMode = Literal["off", "optional", "required"]
SrtpSuite = Literal[
    "AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32", "AEAD_AES_256_GCM", "AEAD_AES_128_GCM"
]
#: ``sip:user@host[:port][;params]`` (RFC 3261 section 19.1), no headers part.
SIP_URI = re.compile(
    r"^sips?:(?P<user>[^@\s;?<>]+)@(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)"
    r"(?::(?P<port>\d{1,5}))?(?P<params>(?:;[^\s?<>]+)*)$"
)


def uri_transport(uri: str) -> Literal["udp", "tcp", "tls"]:
    """What carries SIP to a URI (RFC 3261 section 19.1.2): TLS for ``sips:`` too."""
    params = uri.lower().split(";")[1:]
    if uri.lower().startswith("sips:") or "transport=tls" in params:
        return "tls"
    return "tcp" if "transport=tcp" in params else "udp"


def _phone_uri(value: str) -> str:
    match = SIP_URI.match(value)
    if not match:
        raise ValueError("a SIP URI like sip:1001@192.0.2.20:5060")
    try:
        ipaddress.ip_address(match["host"].strip("[]"))
    except ValueError:
        # A name would be looked up while every other call of the node waits.
        raise ValueError("an address as the host, like sip:1001@192.0.2.20:5060") from None
    return value


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        raise ValueError("an address or network like 192.0.2.10 or 192.0.2.0/24") from None


class TlsSettings(_Section):
    """``[sip.pbx.tls]``: SIP over TLS on this side; off while there is no certificate."""

    port: Port = 5061
    """TCP port of SIP over TLS."""
    certificate: Path | None = None
    """PEM file of our certificate, with the chain behind it."""
    private_key: Path | None = None
    """PEM file of its key, not encrypted; only its owner may read it."""
    ca_file: Path | None = None
    """PEM file of the authorities that far ends are checked against."""
    verify_server: bool = True
    """Far ends that we connect to must show a certificate of ``ca_file`` for their address."""
    require_client_certificate: bool = False
    """Far ends that connect to us must show a certificate of ``ca_file``."""

    @field_validator("private_key")
    @classmethod
    def _as_placed(cls, value: Path | None) -> Path | None:
        return value and placed(value)

    @property
    def enabled(self) -> bool:
        return self.certificate is not None

    @model_validator(mode="after")
    def _is_whole(self) -> TlsSettings:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key, both or none")
        if self.require_client_certificate and self.ca_file is None:
            raise ValueError("ca_file where client certificates are required")
        if self.certificate is not None and self.verify_server and self.ca_file is None:
            raise ValueError("ca_file, or verify_server = false")
        return self


class PhoneTlsSettings(TlsSettings):
    """``[sip.phone.tls]``: the same keys with another default port."""

    port: Port = 5063
    """TCP port of SIP over TLS."""


class SideSettings(_Section):
    """``[sip.pbx]`` and ``[sip.phone]``: one side's addresses."""

    bind: str = "127.0.0.1"
    """Our address on this side."""
    port: Port = 5060
    """SIP port, UDP and TCP."""
    advertised: str | None = None
    """Address written into Contact, Via and SDP when it is not ``bind``."""
    rtp_bind: str | None = None
    """Media address; ``bind`` when absent."""
    rtp_ports: tuple[Port, Port] = (20000, 24999)
    """First and last port; each call takes an even RTP port and the odd RTCP port above it."""
    networks: list[str] = []
    """Networks from which media (and, on the phone side, SIP) may come besides the address in
    the SDP: phones behind NAT."""
    codecs: Annotated[list[VoiceCodec], Field(min_length=1)] = ["PCMU", "PCMA", "G722", "OPUS"]
    """Voice codecs that are taken; the order counts only where we are the first to offer."""
    srtp: SrtpMode = "off"
    """``off``: RTP/SAVP gets 488; ``optional``: taken, and RTP/AVP with keys offered;
    ``required``: RTP/SAVP only."""
    srtp_over_plain: bool = False
    """Let SRTP keys go over unencrypted SIP, where everybody on the way can read them."""
    srtp_suites: Annotated[list[SrtpSuite], Field(min_length=1)] = [
        "AES_CM_128_HMAC_SHA1_80",
        "AES_CM_128_HMAC_SHA1_32",
        "AEAD_AES_256_GCM",
        "AEAD_AES_128_GCM",
    ]
    """SRTP suites (RFC 4568, RFC 7714) in the order of our offers."""
    tls: TlsSettings = TlsSettings()

    @field_validator("codecs", "srtp_suites")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("each entry once")
        return value

    @model_validator(mode="after")
    def _keys_can_travel(self) -> SideSettings:
        if self.srtp == "required" and not (self.tls.enabled or self.srtp_over_plain):
            raise ValueError("a tls table (or srtp_over_plain = true) where srtp is required")
        return self

    @field_validator("bind", "advertised", "rtp_bind")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        return None if value is None else _address(value)

    @field_validator("networks")
    @classmethod
    def _are_networks(cls, value: list[str]) -> list[str]:
        return [_network(item) for item in value]

    @field_validator("rtp_ports")
    @classmethod
    def _is_range(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[1] - value[0] < 1:
            raise ValueError("two ports, the second at least one above the first")
        return value

    @property
    def media_bind(self) -> str:
        return self.rtp_bind or self.bind

    @property
    def media_advertised(self) -> str:
        return self.advertised or self.media_bind

    @property
    def signalling_advertised(self) -> str:
        return self.advertised or self.bind


class PhoneSideSettings(SideSettings):
    """``[sip.phone]``: the same keys with other default ports."""

    port: Port = 5062
    """SIP port, UDP and TCP."""
    rtp_ports: tuple[Port, Port] = (25000, 29999)
    """First and last port; each call takes an even RTP port and the odd RTCP port above it."""
    tls: PhoneTlsSettings = PhoneTlsSettings()


class SipSettings(_Section):
    """``[sip]``: signalling and media of all calls."""

    pbx: SideSettings = SideSettings()
    phone: PhoneSideSettings = PhoneSideSettings()
    user_agent: str = Field("Callshield", pattern=r"^[\x21-\x7e ]{1,64}$")
    """User-Agent of our SIP messages."""
    admission_limit: int = Field(300, ge=1, le=800)
    """Calls at once; the next INVITE gets 503 with Retry-After."""
    retry_after_s: int = Field(5, ge=1, le=3600)
    """Retry-After of every 503."""
    requests_per_s: float = Field(50.0, gt=0)
    """New requests a second from one address; beyond it 503."""
    request_burst: int = Field(200, ge=1)
    """New requests at once from one address after a pause."""
    connections_per_address: int = Field(512, ge=1, le=2048)
    """TCP and TLS connections that one address may hold; the next one is closed at once."""
    first_message_timeout_s: int = Field(10, ge=1, le=600)
    """A TCP or TLS connection without a whole SIP message by then is closed."""
    ring_timeout_s: float = Field(60.0, ge=5, le=600)
    """A phone that has not answered by then is cancelled; the PBX gets 480."""
    rtp_timeout_s: float = Field(60.0, ge=5, le=3600)
    """Both legs are ended when no RTP came on either for this long, off hold."""
    ask_silent_legs: bool = True
    """A leg of which no RTP has come for 10 s, off hold, is asked by OPTIONS inside its dialog, and
    again every 30 s: a PBX or a phone that was restarted in the call knows of no such dialog, and
    the call ends. Switch it off for far ends that leave OPTIONS in a dialog without an answer."""
    latch_window_s: float = Field(5.0, ge=1, le=60)
    """How long after the SDP a phone behind NAT may show its media source."""
    session_expires_s: int = Field(1800, ge=90, le=86400)
    """RFC 4028 Session-Expires that we ask for on both legs."""
    min_se_s: int = Field(90, ge=90, le=86400)
    """RFC 4028 Min-SE: shorter session intervals are refused with 422."""
    dscp_media: int = Field(46, ge=0, le=63)
    """EF (RFC 3246)."""
    dscp_signalling: int = Field(24, ge=0, le=63)
    """CS3 (RFC 4594)."""
    end_code: str = Field(r"*9#", pattern=r"^[0-9*#]{2,8}$")
    """Digits on the agent's phone that end the call with announcement."""
    help_code: str = Field(r"*8#", pattern=r"^[0-9*#]{2,8}$")
    """Digits on the agent's phone that call a supervisor."""
    skip_notice_code: str = Field(r"*0#", pattern=r"^[0-9*#]{2,8}$")
    """Digits on the agent's phone that skip the notice in an emergency (nothing is tapped)."""
    pause_code: str = Field(r"*7#", pattern=r"^[0-9*#]{2,8}$")
    """Digits on the agent's phone that pause recording and analysis, and resume them."""
    levelling_code: str = Field(r"*6#", pattern=r"^[0-9*#]{2,8}$")
    """Digits on the agent's phone that turn levelling off, or on again."""
    soften_code: str = Field(r"*5#", pattern=r"^[0-9*#]{2,8}$")
    """Digits on the agent's phone that turn softening on, or off again."""
    hand_over_code: str = Field(r"*4#", pattern=r"^[0-9*#]{2,8}$")
    """Digits on the agent's phone that hand the call over to the responsible manager."""
    transfer_hosts: list[str] = []
    """Further hosts that a transfer may name, such as the SIP domain of the phones. Allowed
    without this: the peers' addresses, the phones' networks, ours, and the host that was called."""
    pbx_call_id_header: str = Field("X-Asterisk-Uniqueid", pattern=r"^[A-Za-z0-9-]{1,64}$")
    """Header in which the PBX sends its own id of the call; without it the SIP Call-ID counts."""
    pbx_channel_header: str = Field("X-Callshield-Channel", pattern=r"^[A-Za-z0-9-]{1,64}$")
    """Header in which the PBX names its channel of the call, for what is asked of it by AMI."""

    @field_validator("transfer_hosts")
    @classmethod
    def _are_hosts(cls, value: list[str]) -> list[str]:
        for host in value:
            if not re.fullmatch(r"[A-Za-z0-9.:-]{1,253}", host):
                raise ValueError("host names or addresses like pbx.example.com")
        return [host.lower() for host in value]

    @model_validator(mode="after")
    def _codes_differ(self) -> SipSettings:
        codes = [
            self.end_code,
            self.help_code,
            self.skip_notice_code,
            self.pause_code,
            self.levelling_code,
            self.soften_code,
            self.hand_over_code,
        ]
        for index, one in enumerate(codes):
            for other in codes[:index] + codes[index + 1 :]:
                if one.endswith(other) or one.startswith(other):
                    raise ValueError(
                        "DTMF codes none of which is the beginning or the end of another"
                    )
        return self


class PeerSettings(_Section):
    """``[[peers]]``: a PBX or session border controller that may send calls."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """Names this peer in events and logs."""
    networks: list[str] = Field(min_length=1)
    """Addresses and networks from which its SIP comes."""
    tls_only: bool = False
    """Take its calls over TLS alone: over UDP anybody on the way can forge its address."""
    attests_notice: bool = False
    """Believe this peer's :attr:`NoticeSettings.upstream_header`."""
    outgoing: bool = False
    """Agents' outgoing calls may come from this peer (``[outbound]``)."""
    trunk: str = ""
    """NAME of the ``[trunks.NAME]`` over which they go."""
    internal_numbers: bool = True
    """A calling number that is one of our people's makes a call internal (never analysed). Switch
    it off for a peer over which outsiders could show such a number."""
    trunks: list[str] = []
    """NAMEs of others that this peer may choose by :attr:`OutboundSettings.trunk_header`."""
    echo_uri: str | None = None
    """An extension that answers and sends back what it hears, e.g. ``sip:603@192.0.2.1:5060``:
    `callshield doctor --pbx` calls it."""
    options_uri: str | None = None
    """Where `callshield doctor --pbx` asks whether the PBX is there, e.g. ``sip:192.0.2.1:5060``;
    when absent the host of ``echo_uri``, of a phone behind this peer, or its only address."""

    @field_validator("echo_uri")
    @classmethod
    def _is_phone_uri(cls, value: str | None) -> str | None:
        return None if value is None else _phone_uri(value)

    @field_validator("options_uri")
    @classmethod
    def _is_server_uri(cls, value: str | None) -> str | None:
        if value is not None:
            scheme, _, rest = value.partition(":")
            # A user part is optional here.
            _phone_uri(value if "@" in rest else f"{scheme}:pbx@{rest}")
        return value

    @field_validator("networks")
    @classmethod
    def _are_networks(cls, value: list[str]) -> list[str]:
        return [_network(item) for item in value]


class PhoneSettings(DigestSettings):
    """A phone that we call."""

    uri: str
    """SIP URI of the phone, e.g. ``sip:1001@192.0.2.20:5060``; the host as an address.
    ``sips:`` or ``;transport=tls`` goes over TLS, ``;transport=tcp`` over TCP."""
    hearing_protection: bool = True
    """Offer the phone only codecs that the limiter can limit (G.711)."""
    srtp: SrtpMode | None = None
    """As ``sip.phone.srtp``, for this phone."""
    endpoint: str = Field("", pattern=r"^[A-Za-z0-9._@-]{0,128}$")
    """PJSIP endpoint of the phone at the PBX, when the PBX rings it: tells us its model."""
    phone_model: str = Field("", pattern=r"^[\x20-\x7e]{0,256}$")
    """User-Agent or model of the phone; goes before what the PBX says."""
    phone_address: str = Field("", pattern=r"^[0-9A-Fa-f:.]{0,45}$")
    """Address of the phone itself for HTTP, where ``uri`` leads to a PBX; within
    ``sip.phone.networks``. When absent the host of ``uri``."""

    @property
    def transport(self) -> Literal["udp", "tcp", "tls"]:
        """What carries the SIP of this phone."""
        return uri_transport(self.uri)

    @property
    def over_tls(self) -> bool:
        """Its signalling is encrypted."""
        return self.transport == "tls"

    @field_validator("uri")
    @classmethod
    def _is_sip_uri(cls, value: str) -> str:
        return _phone_uri(value)


class AgentSettings(PhoneSettings):
    """``[agents.ID]``: where an agent's phone is."""

    outgoing: bool = True
    """May call out, where a peer and ``[outbound]`` let anybody."""
    queue_member: str = Field("", pattern=r"^[A-Za-z0-9_./@:;*#+-]{0,128}$")
    """Interface of this agent in the PBX's queues, e.g. ``Local/1001@callshield-agents/n``: paused
    during a rest (docs/pbx/ami.md)."""
    device_state: str = Field("", pattern=r"^(Custom:[A-Za-z0-9._-]{1,64})?$")
    """Device state at the PBX that follows this agent's calls, e.g. ``Custom:agent1001``."""
    language: CallerLanguage | None = None
    """What this agent's callers speak, as ``transcriber.language``."""
    screen_language: Literal["", "ko", "en", "zh", "ja"] = ""
    """What this agent reads on the phone's screen; ``node.language`` when empty."""
    group: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,64}$")
    """Queue or team whose thresholds (``[detector.groups.NAME]``) this agent's calls are judged
    by, and with which `callshield calibrate` counts them."""
    team: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,64}$")
    """NAME of the ``[teams.NAME]`` whose supervisors are called; empty: all supervisors."""
    headset: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,64}$")
    """NAME of the ``[headsets.NAME]`` on this agent's ears; empty: ``[ear]`` alone."""


class SupervisorSettings(PhoneSettings):
    """``[supervisors.ID]``: the phone of somebody whom an agent may ask into a call."""

    role: Literal["supervisor", "manager"] = "supervisor"
    """A manager can take a call over, a supervisor only join it."""
