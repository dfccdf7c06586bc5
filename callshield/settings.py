"""The administrator's one TOML file, checked as a whole before anything starts.

Every key has a default but the peers and agents. Environment variables override keys:
``CALLSHIELD_WEB__PORT=9000`` is ``web.port = 9000``. An unknown key is an error, never ignored.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from callshield.errors import ConfigurationError
from callshield.outbound_settings import OutboundSettings, TrunkSettings
from callshield.settings_base import SECTION, DigestSettings, Port
from callshield.settings_base import address as _address

Language = Literal["ko", "en", "zh", "ja"]
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


class _Section(BaseModel):
    model_config = SECTION


class NodeSettings(_Section):
    """``[node]``: this machine."""

    name: str = Field("node-1", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """Names this node in alerts and logs."""
    state_dir: Path = Path("/var/lib/callshield")
    """Database and keys; survives a restart."""
    runtime_dir: Path = Path("/run/callshield")
    """Unix sockets; made with mode 0700."""
    language: Language = "ko"
    """Language of consoles and alerts."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level written to standard error."""
    stop_timeout_s: float = Field(30.0, ge=0, le=3600)
    """A clean stop lets running calls finish for at most this long."""


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
    admission_limit: int = Field(300, ge=1, le=500)
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


class SupervisorSettings(PhoneSettings):
    """``[supervisors.ID]``: the phone of somebody whom an agent may ask into a call."""

    role: Literal["supervisor", "manager"] = "supervisor"
    """A manager can take a call over, a supervisor only join it."""


class HelpSettings(_Section):
    """``[help]``: what happens when an agent asks for help."""

    manager: str = ""
    """Id of the responsible manager of ``[supervisors.ID]``, who is called on *hand over*; the
    first one with that role when empty."""
    ring_timeout_s: float = Field(30.0, ge=5, le=300)
    """A helper's phone that has not answered by then is cancelled; the call goes on without."""


class NoticeSettings(_Section):
    """``[notice]``: what the caller hears before anything is analysed."""

    language: Language = "ko"
    """Language of the announcements."""
    prompts: list[str] = ["abuse_prevention", "recording"]
    """Ids of the prompts, in order."""
    closing: str = "closing"
    """Id of the prompt that the caller hears after *end*."""
    warnings: list[str] = ["warning_1", "warning_2", "warning_3"]
    """Ids of the graded warnings; the last one is repeated."""
    prompt_dir: Path | None = None
    """A folder of one's own with ``<language>/<id>.wav`` (8 kHz, 16 bit, mono) and
    ``manifest.toml``; the shipped prompts when absent."""
    agent_hears: Literal["tone", "prompt"] = "tone"
    """What the agent hears while the caller hears an announcement: a soft tone, or the
    announcement itself, 18 dB down."""
    upstream_header: str = Field("X-Callshield-Notice", pattern=r"^[A-Za-z0-9-]{1,64}$")
    """Header in which a trusted PBX names the prompt ids it already played."""

    @field_validator("prompts")
    @classmethod
    def _at_least_one(cls, value: list[str]) -> list[str]:
        if not value:
            raise ValueError("at least one prompt: without a notice nothing may be analysed")
        return value

    @field_validator("warnings")
    @classmethod
    def _at_least_one_warning(cls, value: list[str]) -> list[str]:
        if not value:
            raise ValueError("at least one warning prompt")
        return value

    @field_validator("prompts", "warnings")
    @classmethod
    def _are_ids(cls, value: list[str]) -> list[str]:
        for item in value:
            if not re.fullmatch(r"[a-z0-9_]{1,64}", item):
                raise ValueError("prompt ids of small letters, digits and _")
        return value


class DetectorSettings(_Section):
    """``[detector]``: what the caller's audio means."""

    enabled: bool = True
    """Analyse the caller's audio; off: no tap is ever opened."""
    model_dir: Path | None = None
    """Folder with the acoustic model and its card; the shipped one when absent."""


class RecordingSettings(_Section):
    """``[recording]``: both sides of a call, encrypted, from the notice's end on.

    The node key comes from ``key_file`` or from the environment variable
    ``CALLSHIELD_RECORDING_KEY`` (which goes first): docs/recording.md.
    """

    enabled: bool = False
    """Record calls: only where law and works agreements let you, and the notice says so."""
    directory: Path = Path("/var/lib/callshield/recordings")
    """Where the files lie, a folder a day; made with mode 0700."""
    key_file: Path = Path("/etc/callshield/recording.keys")
    """Node keys, mode 0600; `callshield recordings new-key` writes it. Keep a copy elsewhere:
    without it nobody can play a recording."""
    retention_days: int = Field(90, ge=1, le=3650)
    """Recordings are deleted when they are older."""
    min_free_mib: int = Field(1024, ge=1)
    """With less free space than this, recording stops with an alarm; calls go on."""
    sync_interval_s: float = Field(5.0, ge=0.5, le=60)
    """How often the disk is told to keep what was written: what a power cut may lose."""
    queue_mib: int = Field(64, ge=1, le=1024)
    """Audio that waits for a slow disk; beyond it frames are lost, and said so."""


class EarSettings(_Section):
    """``[ear]``: what protects the agent's hearing (docs/hearing.md).

    Levels are in dBFS relative to an RMS of full scale: 0 dBm0 of the telephone network is -6.2.
    """

    soften_from_level: int = Field(2, ge=1, le=4)
    """Softening starts by itself at this risk level; 4: only when the agent asks."""
    levelling: bool = True
    """Calls start with levelling on; the agent switches it off and on with one key."""
    calibration_db_spl_at_0dbfs: float | None = Field(None, ge=60, le=160)
    """Sound pressure level at the ear, related to the diffuse field, of a 1 kHz signal whose RMS
    is full scale, measured at the headset with its volume fixed; without it the dose is an
    estimate."""
    limit_peak_dbfs: float = Field(-6.0, ge=-30, le=0)
    """No sample that the agent hears is larger."""
    limit_rms_dbfs: float = Field(-18.0, ge=-50, le=0)
    """Level above which the sound is turned down."""
    limit_release_ms: float = Field(200.0, ge=20, le=5000)
    """Time in which the peak limiter lets go of two thirds."""
    shock_tone_dbfs: float = Field(-26.0, ge=-60, le=0)
    """Tones and howl louder than this are cut."""
    shock_cut_dbfs: float = Field(-46.0, ge=-90, le=0)
    """The level that is left of them."""
    shock_jump_db: float = Field(18.0, ge=10, le=60)
    """A sudden rise this far above the talker's level is cut back to near that level."""
    soften_target_dbfs: float = Field(-26.0, ge=-50, le=0)
    """Upper end of what counts as a talker's calm level."""
    soften_ratio: float = Field(5.0, ge=1, le=20)
    """Softening makes one dB of so many above the calm level."""
    soften_max_db: float = Field(20.0, ge=0, le=40)
    """The most that softening takes away."""
    soften_tilt_db: float = Field(4.0, ge=0, le=12)
    """The most that it takes away from the treble besides."""
    target_rms_dbfs: float = Field(-26.0, ge=-50, le=-10)
    """Active speech level (ITU-T P.56) to which levelling brings every talker."""
    level_max_gain_db: float = Field(20.0, ge=0, le=30)
    """The most that quiet talkers are raised by."""
    level_max_cut_db: float = Field(18.0, ge=0, le=40)
    """The most that loud talkers are lowered by."""
    noise_reduction_db: float = Field(10.0, ge=0, le=30)
    """What levelling takes away from steady noise in pauses."""

    def profile(self) -> dict[str, float]:
        """The keys that the signal processing takes, by name."""
        others = {"soften_from_level", "levelling", "calibration_db_spl_at_0dbfs"}
        return self.model_dump(exclude=others)


class WebSettings(_Section):
    """``[web]``: consoles, API and WebSocket."""

    bind: str = "127.0.0.1"
    """Address of the web server; put TLS in front of anything but loopback."""
    port: Port = 8080
    """Its TCP port."""
    allowed_origins: list[str] = []
    """Origins besides our own from which a browser may connect, e.g. ``https://desk.example``."""

    @field_validator("bind")
    @classmethod
    def _is_address(cls, value: str) -> str:
        return _address(value)


class AlertSettings(_Section):
    """``[alerts]``: when supervisors are told."""

    level: int = Field(2, ge=1, le=3)
    """An alert is raised when a call's level reaches this."""


class AmiSettings(_Section):
    """``[ami]``: the manager interface of an Asterisk PBX; off without ``host`` (docs/pbx/ami.md).

    The secret comes from ``secret_file`` or from the environment variable
    ``CALLSHIELD_AMI_SECRET`` (which goes first); it is never sent, only proven (MD5 challenge).
    """

    host: str = Field("", pattern=r"^[A-Za-z0-9.:-]{0,253}$")
    """Address or name of the PBX; with it this is switched on."""
    port: Port = 5038
    """Its TCP port; 5039 is usual with TLS."""
    tls: bool = False
    """Connect with TLS; anywhere but on loopback or in a network of your own it should be."""
    ca_file: Path | None = None
    """PEM file of the authorities that may vouch for the PBX; the system's when absent."""
    username: str = Field("callshield", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """The user of ``deploy/asterisk/manager_callshield.conf``."""
    secret_file: Path = Path("/etc/callshield/ami.secret")
    """One line, mode 0600."""
    ping_s: float = Field(15.0, ge=1, le=300)
    """How often the connection is tried; one that does not answer is made anew."""
    pause_pbx_recording: bool = True
    """The agent's pause of the recording mutes the PBX's own (MixMonitor) too."""

    @property
    def enabled(self) -> bool:
        return bool(self.host)


class AftercareSettings(_Section):
    """``[aftercare]``: rest after a bad call; the PBX's queues leave the agent alone meanwhile."""

    rest_s: float = Field(0.0, ge=0, le=7200)
    """Length of the rest; 0: none. The agent ends it earlier with *ready*, nobody else does."""
    from_level: int = Field(2, ge=1, le=3)
    """Rest after a call that reached this risk level."""
    after_end: bool = True
    """Rest after a call that was ended with announcement, at whatever level."""


class Settings(BaseSettings):
    """The whole configuration of one node."""

    model_config = SettingsConfigDict(
        env_prefix="CALLSHIELD_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    node: NodeSettings = Field(default_factory=NodeSettings)  # type: ignore[arg-type]
    sip: SipSettings = Field(default_factory=SipSettings)  # type: ignore[arg-type]
    peers: list[PeerSettings] = []
    agents: dict[str, AgentSettings] = {}
    supervisors: dict[str, SupervisorSettings] = {}
    trunks: dict[str, TrunkSettings] = {}
    outbound: OutboundSettings = Field(default_factory=OutboundSettings)  # type: ignore[arg-type]
    help: HelpSettings = Field(default_factory=HelpSettings)  # type: ignore[arg-type]
    notice: NoticeSettings = Field(default_factory=NoticeSettings)  # type: ignore[arg-type]
    detector: DetectorSettings = Field(default_factory=DetectorSettings)
    recording: RecordingSettings = Field(default_factory=RecordingSettings)  # type: ignore[arg-type]
    ear: EarSettings = Field(default_factory=EarSettings)  # type: ignore[arg-type]
    web: WebSettings = Field(default_factory=WebSettings)
    alerts: AlertSettings = Field(default_factory=AlertSettings)  # type: ignore[arg-type]
    ami: AmiSettings = Field(default_factory=AmiSettings)  # type: ignore[arg-type]
    aftercare: AftercareSettings = Field(default_factory=AftercareSettings)  # type: ignore[arg-type]

    @field_validator("agents", "supervisors", "trunks")
    @classmethod
    def _agent_ids(cls, value: dict[str, Any]) -> dict[str, Any]:
        for agent_id in value:
            if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", agent_id):
                raise ValueError(f"ids of letters, digits, '.', '_' and '-', not {agent_id!r}")
        return value

    @model_validator(mode="after")
    def _manager_is_one(self) -> Settings:
        manager = self.help.manager
        found = self.supervisors.get(manager)
        if manager and (found is None or found.role != "manager"):
            raise ValueError('help.manager: the ID of a [supervisors.ID] with role = "manager"')
        return self

    @model_validator(mode="after")
    def _pbx_names_differ(self) -> Settings:
        for key in ("queue_member", "device_state"):
            names = [name for agent in self.agents.values() if (name := getattr(agent, key))]
            if len(set(names)) != len(names):
                raise ValueError(f"a {key} of its own for each agent")
        return self

    @model_validator(mode="after")
    def _sides_differ(self) -> Settings:
        pbx, phone = self.sip.pbx, self.sip.phone
        if (pbx.bind, pbx.port) == (phone.bind, phone.port):
            raise ValueError("sip.pbx and sip.phone on different addresses or ports")
        if pbx.media_bind == phone.media_bind and (
            pbx.rtp_ports[0] <= phone.rtp_ports[1] and phone.rtp_ports[0] <= pbx.rtp_ports[1]
        ):
            raise ValueError("sip.pbx.rtp_ports and sip.phone.rtp_ports that do not overlap")
        if (
            pbx.tls.enabled
            and phone.tls.enabled
            and ((pbx.bind, pbx.tls.port) == (phone.bind, phone.tls.port))
        ):
            raise ValueError("sip.pbx.tls and sip.phone.tls on different addresses or ports")
        return self

    @model_validator(mode="after")
    def _echoes_can_be_reached(self) -> Settings:
        for peer in self.peers:
            uri = peer.echo_uri
            if uri and uri_transport(uri) == "tls" and not self.sip.pbx.tls.enabled:
                raise ValueError(f"a [sip.pbx.tls] table for the TLS echo_uri of peer {peer.name}")
        return self

    @model_validator(mode="after")
    def _peers_can_reach_us(self) -> Settings:
        for peer in self.peers:
            if peer.tls_only and not self.sip.pbx.tls.enabled:
                raise ValueError(f"a [sip.pbx.tls] table for peer {peer.name}, which is tls_only")
        return self

    @model_validator(mode="after")
    def _phones_can_be_reached(self) -> Settings:
        side = self.sip.phone
        for agent_id, agent in [*self.agents.items(), *self.supervisors.items()]:
            if agent.over_tls and not side.tls.enabled:
                raise ValueError(f"a [sip.phone.tls] table for the TLS phone of agent {agent_id}")
            wanted = agent.srtp or side.srtp
            if wanted == "required" and not (agent.over_tls or side.srtp_over_plain):
                raise ValueError(
                    f"a sips: URI for agent {agent_id}, whose SRTP keys must not go in the clear"
                )
            if agent.hearing_protection and not {"PCMU", "PCMA"} & set(side.codecs):
                raise ValueError(
                    "PCMU or PCMA in sip.phone.codecs, or hearing_protection = false for "
                    f"agent {agent_id}"
                )
        return self

    @model_validator(mode="after")
    def _outgoing_calls_have_a_way(self) -> Settings:
        for peer in self.peers:
            for name in [*([peer.trunk] if peer.trunk else []), *peer.trunks]:
                if name not in self.trunks:
                    raise ValueError(f"a [trunks.{name}], which peer {peer.name} names")
            if peer.outgoing and not peer.trunk:
                raise ValueError(f"trunk = a NAME of [trunks.NAME], for peer {peer.name}")
            if peer.outgoing and not self.outbound.patterns:
                raise ValueError(
                    f"outbound.patterns, without which nobody can be called from peer {peer.name}"
                )
        for name, trunk in self.trunks.items():
            if trunk.transport == "tls" and not self.sip.pbx.tls.enabled:
                raise ValueError(f"a [sip.pbx.tls] table for trunk {name}")
            open_keys = trunk.transport != "tls" and not self.sip.pbx.srtp_over_plain
            if self.sip.pbx.srtp == "required" and open_keys:
                raise ValueError(
                    f'transport = "tls" for trunk {name}, whose SRTP keys must not go in the clear'
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The file's values arrive as init arguments; the environment goes before them.
        return (env_settings, init_settings)

    # Sockets between the processes of this node.

    @property
    def phone_uris(self) -> list[str]:
        """Every phone that we call."""
        agents = [agent.uri for agent in self.agents.values()]
        return agents + [supervisor.uri for supervisor in self.supervisors.values()]

    @property
    def bus_path(self) -> Path:
        """Unix stream socket of the notifier (events in, commands out)."""
        return self.node.runtime_dir / "bus.sock"

    @property
    def media_path(self) -> Path:
        """Unix stream socket of the media worker (media control)."""
        return self.node.runtime_dir / "media.sock"

    @property
    def tap_path(self) -> Path:
        """Unix datagram socket of the detector (:mod:`callshield.tap`)."""
        return self.node.runtime_dir / "tap.sock"

    @property
    def database_path(self) -> Path:
        """SQLite file of the notifier."""
        return self.node.state_dir / "callshield.sqlite3"


def load_settings(path: Path) -> Settings:
    """Read and check a configuration file.

    Args:
        path: TOML file.

    Raises:
        ConfigurationError: every fault on a line of its own: file, key, found, expected.
    """
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(
            [(str(path), "(file)", "no such file", "a TOML file; name yours with --config")]
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            [(str(path), "(file)", f"an unreadable file ({error})", "UTF-8 text")]
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError([(str(path), "(syntax)", str(error), "valid TOML")]) from None
    try:
        return Settings(**values)
    except ValidationError as error:
        raise ConfigurationError(
            [_fault(path, values, dict(item)) for item in error.errors(include_url=False)]
        ) from None


_EXPECTED = {
    "missing": "a value",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text in quotes",
    "list_type": "a list in [ ]",
    "tuple_type": "a list in [ ]",
    "dict_type": "a table",
    "model_type": "a table",
    "path_type": "a path in quotes",
    "extra_forbidden": "a known key (see docs/configuration.md)",
}


def _fault(path: Path, values: dict[str, Any], item: dict[str, Any]) -> tuple[str, str, str, str]:
    location = tuple(item["loc"])
    key = ".".join(str(part) for part in location) or "(file)"
    kind = str(item["type"])
    context = item.get("ctx") or {}
    if kind == "missing":
        found = "nothing"
    elif not location or isinstance(item["input"], dict | BaseModel):
        found = "values that do not fit together" if kind == "value_error" else "a table"
    else:
        found = repr(item["input"])
    if kind == "value_error":
        expected = str(context.get("error", item["msg"]))
    elif kind == "literal_error":
        expected = f"one of {context.get('expected')}"
    elif kind.startswith(("greater_than", "less_than")):
        sign = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
        expected = " and ".join(
            f"{sign[name]} {limit}" for name, limit in context.items() if name in sign
        )
    elif kind == "string_pattern_mismatch":
        expected = f"text that matches {context.get('pattern')}"
    elif kind == "extra_forbidden":
        known = _keys_beside(location)
        near = difflib.get_close_matches(str(location[-1]), known, 1)
        expected = f"a known key; did you mean {near[0]}?" if near else _EXPECTED[kind]
    elif kind in ("too_short", "too_long", "missing_argument"):
        expected = str(item["msg"]).removeprefix("Value should have ")
    else:
        expected = _EXPECTED.get(kind, str(item["msg"]))
    return (_origin(path, values, location), key, found, expected)


_TABLES: dict[str, type[BaseModel]] = {
    "peers": PeerSettings,
    "agents": AgentSettings,
    "supervisors": SupervisorSettings,
    "trunks": TrunkSettings,
}


def _keys_beside(location: tuple[Any, ...]) -> list[str]:
    """Names of the keys of the table in which ``location`` stands."""
    model: type[BaseModel] | None = Settings
    for part in location[:-1]:
        if isinstance(part, int) or model is None:
            continue
        if model is Settings and part in _TABLES:
            model = _TABLES[str(part)]
            continue
        field = model.model_fields.get(str(part))
        kind = field.annotation if field else None
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            model = kind
        elif model not in (AgentSettings, SupervisorSettings, TrunkSettings):
            model = None
    return list(model.model_fields) if model else []


def _origin(path: Path, values: dict[str, Any], location: tuple[Any, ...]) -> str:
    """``environment`` when the key is not in the file (and so came from a variable)."""
    name = "CALLSHIELD_" + "__".join(str(part) for part in location).upper()
    return "environment" if any(key.upper() == name for key in os.environ) else str(path)
