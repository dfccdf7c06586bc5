"""The administrator's one TOML file, checked as a whole before anything starts.

Every key has a default but the peers and agents. Environment variables override keys:
``CALLSHIELD_WEB__PORT=9000`` is ``web.port = 9000``. An unknown key is an error, never ignored.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from callshield.errors import ConfigurationError
from callshield.outbound_settings import OutboundSettings, TrunkSettings
from callshield.settings_base import SECTION, Port
from callshield.settings_base import address as _address
from callshield.settings_care import AftercareSettings, BreakSettings, CallbackSettings
from callshield.settings_cluster import ClusterSettings, check_cluster
from callshield.settings_edge import EdgeSettings
from callshield.settings_evidence import EvidenceSettings
from callshield.settings_fairness import (
    QualitySettings,
    ReportSettings,
    RingbackSettings,
    ShadowSettings,
)
from callshield.settings_headsets import HeadsetSettings, turned_down
from callshield.settings_hearing import HearingSettings
from callshield.settings_law import BROKEN, LawDefaults, LawSettings, keep_to_the_law
from callshield.settings_media import MediaSettings, keep_to_the_plane
from callshield.settings_notice import CallerSettings, Language, NoticeSettings
from callshield.settings_oidc import OidcSettings
from callshield.settings_phones import PhonesSettings
from callshield.settings_privacy import PrivacySettings
from callshield.settings_sip import (
    AgentSettings,
    PeerSettings,
    SipSettings,
    SupervisorSettings,
    uri_transport,
)
from callshield.settings_store import RetentionSettings, StoreSettings
from callshield.settings_teams import TeamSettings, check_teams
from callshield.settings_webhooks import LimitSettings, MailSettings, WebhookSettings
from callshield.threshold_settings import ThresholdSettings
from callshield.transcriber_settings import CallerLanguage, TranscriberSettings


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
    hang_timeout_s: float = Field(30.0, ge=0, le=3600)
    """A process whose event loop stood still for so long is ended and started anew (the media
    worker: three times as long, since its calls keep their audio meanwhile); 0: never."""


class HelpSettings(_Section):
    """``[help]``: what happens when an agent asks for help."""

    manager: str = ""
    """Id of the responsible manager of ``[supervisors.ID]``, who is called on *hand over*; the
    first one with that role when empty."""
    ring_timeout_s: float = Field(30.0, ge=5, le=300)
    """A helper's phone that has not answered by then is cancelled; the call goes on without."""
    phones: bool = True
    """Supervisors may join a call by phone, and managers take it over; off: whoever is asked for
    help sees the call on the screen."""


class DetectorSettings(_Section):
    """``[detector]``: what the caller's audio means."""

    enabled: bool = True
    """Analyse the caller's audio; off: no tap is ever opened."""
    acoustic: bool = True
    """Judge how a caller's voice sounds (vocal effort); off: that model is not even loaded, and
    words alone raise a level. Under the EU's AI Act it counts as emotion recognition of the
    caller: docs/eu-risk-file.md."""
    model_dir: Path | None = None
    """Folder with the acoustic model and its card; the shipped one when absent. The speech model
    ``silero_8k.onnx`` is read from there too where it is, else it is the shipped one."""
    thresholds: ThresholdSettings = Field(default_factory=ThresholdSettings)  # type: ignore[arg-type]
    groups: dict[str, ThresholdSettings] = {}
    """Tables ``[detector.groups.NAME]`` with the keys of ``[detector.thresholds]``, for the agents
    whose ``group`` is NAME."""


class RecordingSettings(_Section):
    """``[recording]``: both sides of a call, encrypted, from the notice's end on.

    The node key comes from ``key_file`` or from the environment variable
    ``CALLSHIELD_RECORDING_KEY`` (which goes first): docs/recording.md.
    """

    enabled: bool = False
    """Record calls: only where law and works agreements let you, and the notice says so."""
    begin: Literal["after_notice", "on_request"] = "after_notice"
    """``on_request``: not before the agent asks for it and the caller has heard the prompt
    ``recording``, which ``notice.prompts`` then need not have."""
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
    limiter: bool = True
    """Nothing louder than the limits below reaches an agent; off only where ``media.plane`` has no
    limiter, as an employer's own word that phones or headsets limit instead."""
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
        others = {"soften_from_level", "levelling", "limiter", "calibration_db_spl_at_0dbfs"}
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
    preset: Literal["kr", "public"] = "kr"
    """Policy of agents without a team, as ``teams.NAME.preset``; who is told is settled by
    ``level``."""


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
    cdr_field: str = Field("callshield_exclude", pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$|^$")
    """Field of the PBX's call record that says what a marked call is left out of; empty: none."""

    @property
    def enabled(self) -> bool:
        return bool(self.host)


class CrisisSettings(_Section):
    """``[crisis]``: what the agent is shown when a caller may be in danger."""

    number: str = Field("", pattern=r"^[0-9+*# ()-]{0,32}$")
    """To hand over to; empty: a line of the country of ``node.language`` (ko 109, zh 12356, ja
    0120-279-338, in Iwate, Miyagi and Fukushima 0120-279-226; en 988, in the United States and
    Canada alone). To be checked by the operator: lines change, and other countries have others."""
    name: str = Field("", pattern=r'^[^"\\<>\x00-\x1f]{0,64}$')
    """Who answers there; empty: the line's own name."""


#: Crisis lines: 자살예방상담전화 (Korea, since January 2024: Ministry of Health and Welfare), the
#: national psychological aid line (China, everywhere since May 2025: National Health Commission),
#: よりそいホットライン (Japan: Ministry of Health, Labour and Welfare; any worry, suicide among
#: them), 988 Suicide & Crisis Lifeline (United States since 2022, Canada since 2023).
_CRISIS_LINES: dict[str, tuple[str, str]] = {
    "ko": ("109", "자살예방 상담전화"),
    "zh": ("12356", "全国统一心理援助热线"),
    "ja": ("0120-279-338", "よりそいホットライン"),
    "en": ("988", "Suicide & Crisis Lifeline"),
}


class Settings(BaseSettings):
    """The whole configuration of one node."""

    model_config = SettingsConfigDict(
        env_prefix="CALLSHIELD_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    node: NodeSettings = Field(default_factory=NodeSettings)  # type: ignore[arg-type]
    law: LawSettings = Field(default_factory=LawSettings)  # type: ignore[arg-type]
    sip: SipSettings = Field(default_factory=SipSettings)  # type: ignore[arg-type]
    media: MediaSettings = Field(default_factory=MediaSettings)
    peers: list[PeerSettings] = []
    agents: dict[str, AgentSettings] = {}
    supervisors: dict[str, SupervisorSettings] = {}
    teams: dict[str, TeamSettings] = {}
    headsets: dict[str, HeadsetSettings] = {}
    trunks: dict[str, TrunkSettings] = {}
    outbound: OutboundSettings = Field(default_factory=OutboundSettings)  # type: ignore[arg-type]
    help: HelpSettings = Field(default_factory=HelpSettings)  # type: ignore[arg-type]
    notice: NoticeSettings = Field(default_factory=NoticeSettings)  # type: ignore[arg-type]
    callers: CallerSettings = Field(default_factory=CallerSettings)  # type: ignore[arg-type]
    detector: DetectorSettings = Field(default_factory=DetectorSettings)
    transcriber: TranscriberSettings = Field(default_factory=TranscriberSettings)  # type: ignore[arg-type]
    recording: RecordingSettings = Field(default_factory=RecordingSettings)  # type: ignore[arg-type]
    ear: EarSettings = Field(default_factory=EarSettings)  # type: ignore[arg-type]
    hearing: HearingSettings = Field(default_factory=HearingSettings)  # type: ignore[arg-type]
    web: WebSettings = Field(default_factory=WebSettings)
    alerts: AlertSettings = Field(default_factory=AlertSettings)  # type: ignore[arg-type]
    ami: AmiSettings = Field(default_factory=AmiSettings)  # type: ignore[arg-type]
    aftercare: AftercareSettings = Field(default_factory=AftercareSettings)  # type: ignore[arg-type]
    breaks: BreakSettings = Field(default_factory=BreakSettings)  # type: ignore[arg-type]
    callbacks: CallbackSettings = Field(default_factory=CallbackSettings)  # type: ignore[arg-type]
    evidence: EvidenceSettings = Field(default_factory=EvidenceSettings)  # type: ignore[arg-type]
    crisis: CrisisSettings = Field(default_factory=CrisisSettings)  # type: ignore[arg-type]
    quality: QualitySettings = Field(default_factory=QualitySettings)  # type: ignore[arg-type]
    reports: ReportSettings = Field(default_factory=ReportSettings)
    ringback: RingbackSettings = Field(default_factory=RingbackSettings)  # type: ignore[arg-type]
    shadow: ShadowSettings = Field(default_factory=ShadowSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    cluster: ClusterSettings = Field(default_factory=ClusterSettings)  # type: ignore[arg-type]
    oidc: OidcSettings = Field(default_factory=OidcSettings)  # type: ignore[arg-type]
    retention: RetentionSettings = Field(default_factory=RetentionSettings)  # type: ignore[arg-type]
    privacy: PrivacySettings = Field(default_factory=PrivacySettings)
    edge: EdgeSettings = Field(default_factory=EdgeSettings)  # type: ignore[arg-type]

    phones: PhonesSettings = Field(default_factory=PhonesSettings)  # type: ignore[arg-type]
    webhooks: dict[str, WebhookSettings] = {}
    mail: MailSettings = Field(default_factory=MailSettings)  # type: ignore[arg-type]
    limits: LimitSettings = Field(default_factory=LimitSettings)  # type: ignore[arg-type]

    @field_validator("agents", "supervisors", "teams", "headsets", "trunks", "webhooks")
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
    def _care_names_exist(self) -> Settings:
        if self.callbacks.owner and self.callbacks.owner not in self.supervisors:
            raise ValueError("callbacks.owner: an ID of [supervisors.ID]")
        for one in self.evidence.approvers:
            if one not in self.supervisors:
                raise ValueError(f"evidence.approvers: IDs of [supervisors.ID], not {one!r}")
        for name, plan in self.breaks.plans.items():
            for agent_id in plan.agents:
                if agent_id not in self.agents:
                    raise ValueError(f"breaks.plans.{name}.agents: IDs of [agents.ID]")
        return self

    @model_validator(mode="after")
    def _headsets_exist(self) -> Settings:
        for agent_id, agent in self.agents.items():
            if agent.headset and agent.headset not in self.headsets:
                raise ValueError(f"agents.{agent_id}.headset: a NAME of [headsets.NAME]")
        return self

    @model_validator(mode="after")
    def _teams_fit(self) -> Settings:
        check_teams(self.teams, self.supervisors, self.agents)
        return self

    @model_validator(mode="after")
    def _pbx_names_differ(self) -> Settings:
        for key in ("queue_member", "device_state"):
            names = [name for agent in self.agents.values() if (name := getattr(agent, key))]
            if len(set(names)) != len(names):
                raise ValueError(f"a {key} of its own for each agent")
        return self

    @model_validator(mode="after")
    def _listener_is_free(self) -> Settings:
        if self.phones.port and (self.phones.bind, self.phones.port) == (
            self.web.bind,
            self.web.port,
        ):
            raise ValueError("phones.port and web.port on different addresses or ports")
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
    def _somebody_attests(self) -> Settings:
        attests = any(peer.attests_notice for peer in self.peers)
        if self.notice.place == "upstream" and self.peers and not attests:
            raise ValueError(
                'notice.place = "upstream": attests_notice = true at the [[peers]] that plays it'
            )
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

    @model_validator(mode="after")
    def _cluster_fits(self) -> Settings:
        check_cluster(self.cluster, self.node.name, self.store.url)
        return self

    @model_validator(mode="after")
    def _keeps_to_the_law(self) -> Settings:
        keep_to_the_law(self)
        return self

    @model_validator(mode="after")
    def _keeps_to_the_media_plane(self) -> Settings:
        keep_to_the_plane(self)
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
        # The file's values arrive as init arguments; the environment goes before them, and what the
        # preset of [law] sets comes after both.
        return (env_settings, init_settings, LawDefaults(settings_cls))

    # Sockets between the processes of this node.

    @property
    def phone_uris(self) -> list[str]:
        """Every phone that we call."""
        agents = [agent.uri for agent in self.agents.values()]
        return agents + [supervisor.uri for supervisor in self.supervisors.values()]

    @property
    def ear_profile(self) -> dict[str, float]:
        """What the limiter of every call keeps to: ``[ear]``, turned down for the headsets."""
        worn = [self.headsets[agent.headset] for agent in self.agents.values() if agent.headset]
        return turned_down(self.ear.profile(), worn)

    @property
    def calibrations(self) -> dict[str, float]:
        """Agents whose headset was measured, by id: dB SPL at full scale."""
        return {
            agent_id: level
            for agent_id, agent in self.agents.items()
            if agent.headset
            and (level := self.headsets[agent.headset].calibration_db_spl_at_0dbfs) is not None
        }

    @property
    def crisis_line(self) -> tuple[str, str]:
        """Number and name that the agent is shown when a caller may be in danger."""
        number, name = _CRISIS_LINES[self.node.language]
        if not self.crisis.number:
            return number, self.crisis.name or name
        return self.crisis.number, self.crisis.name

    @property
    def bus_path(self) -> Path:
        """Unix stream socket of the notifier (events in, commands out)."""
        return self.node.runtime_dir / "bus.sock"

    @property
    def media_path(self) -> Path:
        """Unix stream socket of the media worker (media control)."""
        return self.node.runtime_dir / "media.sock"

    @property
    def kept_prompts_path(self) -> Path:
        """Folder of the announcements as they were checked at this run's start."""
        return self.node.runtime_dir / "prompts"

    @property
    def phones_key_path(self) -> Path:
        """Key of the agents' addresses at the listener for phones."""
        return self.phones.key_file or self.node.state_dir / "phones.key"

    @property
    def caller_keys_path(self) -> Path:
        """Keys of the pseudonyms of callers' numbers."""
        return self.privacy.key_file or self.node.state_dir / "caller.keys"

    @property
    def tap_path(self) -> Path:
        """Unix datagram socket of the detector (:mod:`callshield.tap`)."""
        return self.node.runtime_dir / "tap.sock"

    @property
    def caller_language(self) -> CallerLanguage:
        """What callers speak unless an agent's table says otherwise."""
        return self.transcriber.language or self.notice.language

    @property
    def caller_languages(self) -> list[str]:
        """Every language in which callers may be heard: what is loaded for each."""
        told = [self.caller_language, *(agent.language for agent in self.agents.values())]
        found = [language for language in told if language and language != "detect"]
        if "detect" in told:
            found += self.transcriber.languages
        return list(dict.fromkeys(found))

    @property
    def words_path(self) -> Path:
        """Unix stream socket of the detector for its transcribers."""
        return self.node.runtime_dir / "words.sock"

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
        faults: list[tuple[str, str, str, str]] = []
        for item in error.errors(include_url=False):
            if item["type"] == BROKEN:
                faults += [
                    (_origin(path, values, tuple(key.split("."))), key, found, expected)
                    for key, found, expected in item["ctx"]["faults"]
                ]
            else:
                faults.append(_fault(path, values, dict(item)))
        raise ConfigurationError(faults) from None


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
        # A password that somebody wrote into a URL must not be said again.
        found = re.sub(r"://[^\s/]*@", "://…@", repr(item["input"]))
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
    "teams": TeamSettings,
    "headsets": HeadsetSettings,
    "trunks": TrunkSettings,
    "webhooks": WebhookSettings,
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
        elif model not in _TABLES.values():
            model = None
    return list(model.model_fields) if model else []


def _origin(path: Path, values: dict[str, Any], location: tuple[Any, ...]) -> str:
    """``environment`` when the key is not in the file (and so came from a variable)."""
    name = "CALLSHIELD_" + "__".join(str(part) for part in location).upper()
    return "environment" if any(key.upper() == name for key in os.environ) else str(path)
