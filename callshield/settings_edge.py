"""``[edge]``: Kamailio in front of several nodes, and rtpengine for browser phones (docs/edge.md).

`callshield edge render` writes the files of both from this table alone; a node itself reads none
of it.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from callshield.settings_base import SECTION, Port, address
from callshield.settings_sip import SIP_URI, TlsSettings, uri_transport

_NAME = r"^[A-Za-z0-9._-]{1,64}$"
#: A realm goes into quoted strings of SIP and into Kamailio's script.
_DOMAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.:\[\]-]{1,253}")


class _Section(BaseModel):
    model_config = SECTION


def _networks(value: list[str]) -> list[str]:
    found = []
    for item in value:
        try:
            found.append(str(ipaddress.ip_network(item, strict=False)))
        except ValueError:
            raise ValueError("addresses or networks like 192.0.2.10 or 192.0.2.0/24") from None
    return found


class EdgeNodeSettings(_Section):
    """``[[edge.nodes]]``: a node behind the edge."""

    name: str = Field(pattern=_NAME)
    """Names it in the edge's log and in `callshield edge status`; its ``node.name``, best."""
    uri: str
    """SIP URI of its PBX side, e.g. ``sip:192.0.2.10:5060``; ``;transport=tcp`` goes over TCP,
    ``;transport=tls`` over TLS (then with the port of ``sip.pbx.tls``)."""
    networks: list[str] = []
    """Addresses from which its SIP comes, where they are not only that of ``uri`` (a
    ``sip.phone.bind`` of its own)."""

    @field_validator("uri")
    @classmethod
    def _is_node_uri(cls, value: str) -> str:
        scheme, _, rest = value.partition(":")
        match = None if "@" in rest else SIP_URI.match(f"{scheme}:node@{rest}")
        if match is None or scheme != "sip":
            raise ValueError("a SIP URI without a user, like sip:192.0.2.10:5060")
        try:
            ipaddress.ip_address(match["host"].strip("[]"))
        except ValueError:
            raise ValueError("an address as the host, like sip:192.0.2.10:5060") from None
        return value

    @field_validator("networks")
    @classmethod
    def _are_networks(cls, value: list[str]) -> list[str]:
        return _networks(value)

    @property
    def host(self) -> str:
        """Its address."""
        match = SIP_URI.match(self.uri.replace("sip:", "sip:node@", 1))
        assert match is not None  # the validator took nothing else
        return match["host"].strip("[]")

    @property
    def transport(self) -> Literal["udp", "tcp", "tls"]:
        """What carries SIP to it."""
        return uri_transport(self.uri)


class EdgePbxSettings(_Section):
    """``[[edge.pbx]]``: a PBX or session border controller whose calls go to the nodes."""

    name: str = Field(pattern=_NAME)
    """Names it in the edge's files."""
    networks: list[str] = Field(min_length=1)
    """Addresses from which its SIP comes."""
    tls_only: bool = False
    """Take its calls over TLS alone: over UDP anybody on the way can forge its address."""
    attests_notice: bool = False
    """Let its ``notice.upstream_header`` through to the nodes; of any other PBX it is removed."""
    outgoing: bool = False
    """Let its ``outbound.agent_header`` through: agents' outgoing calls may come from it."""

    @field_validator("networks")
    @classmethod
    def _are_networks(cls, value: list[str]) -> list[str]:
        return _networks(value)


class EdgeTlsSettings(TlsSettings):
    """``[edge.tls]``: SIP over TLS, towards PBX, phones and nodes; off without a certificate."""

    require_client_certificate: bool = False
    """Whoever connects to ``port`` must show a certificate of ``ca_file``: PBX and phones alike.
    Browsers are not asked for one."""


class EdgeWebsocketSettings(_Section):
    """``[edge.websocket]``: SIP over WebSocket (RFC 7118) for phones that are browser pages."""

    port: Port | None = None
    """TCP port; with it this is switched on."""
    tls: bool = True
    """``wss:`` with the certificate of ``[edge.tls]``. Browsers open no other but to the loopback:
    switch it off only behind a proxy that speaks TLS."""
    allowed_origins: list[str] = []
    """Origins of the pages that may connect, e.g. ``https://desk.example.com``; empty: any page
    (a phone needs its password all the same)."""

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, value: list[str]) -> list[str]:
        for origin in value:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError("origins like https://desk.example.com, without a path")
        return value


class EdgeRtpengineSettings(_Section):
    """``[edge.rtpengine]``: turns a browser's WebRTC (ICE, DTLS-SRTP) into plain RTP."""

    control: str = "127.0.0.1:2223"
    """Address and UDP port of its ng control protocol; nobody else may reach it."""
    bind: str | None = None
    """Its media address; ``edge.bind`` when absent."""
    advertised: str | None = None
    """Address that browsers are told, where it is not ``bind`` (NAT)."""
    ports: tuple[Port, Port] = (30000, 39999)
    """First and last UDP port of its media."""

    @field_validator("bind", "advertised")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        return None if value is None else address(value)

    @field_validator("control")
    @classmethod
    def _is_place(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        try:
            ipaddress.ip_address(host.strip("[]"))
            if not 1 <= int(port) <= 65535:
                raise ValueError
        except ValueError:
            raise ValueError("an address and a port, like 127.0.0.1:2223") from None
        return value

    @field_validator("ports")
    @classmethod
    def _is_range(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[1] - value[0] < 1:
            raise ValueError("two ports, the second at least one above the first")
        return value


class EdgeLimitSettings(_Section):
    """``[edge.limits]``: what one address may do; nodes and their OPTIONS are never limited."""

    phone_requests_per_2s: int = Field(64, ge=8, le=100_000)
    """SIP requests of one phone's address in two seconds (pike); beyond it the address is not
    answered for ``ban_s``. Many phones behind one NAT are one address."""
    pbx_calls_per_s: int = Field(50, ge=1, le=10_000)
    """New calls a second from one address of a PBX; the next ones get 503 with Retry-After."""
    wrong_passwords: int = Field(10, ge=3, le=1000)
    """After so many wrong passwords for one user from one address, that user is not listened to
    from there for ``ban_s``; after ten times as many, nor is that address."""
    ban_s: int = Field(300, ge=1, le=86400)
    """How long."""


class EdgeSettings(_Section):
    """``[edge]``: Kamailio in front of several nodes; `callshield edge render` writes its files."""

    bind: str = ""
    """Address of the edge, towards PBX, phones and nodes; with it this is switched on."""
    port: Port = 5060
    """SIP port, UDP and TCP."""
    advertised: str | None = None
    """Address that PBX and phones reach over TLS and WebSocket, where it is not ``bind`` (NAT)."""
    domain: str = ""
    """SIP domain of the phones, and the realm of their passwords; ``bind`` when empty. Changing it
    makes every password useless."""
    phones: list[str] = []
    """Networks from which phones and browsers may register and speak."""
    proxies: list[str] = []
    """Session border controllers in front of phones, whose Path header (RFC 3327) is believed."""
    secrets_file: Path = Path("/etc/callshield/edge.secrets")
    """Users of the phones, a line each: ``user:realm:H(A1)`` as htdigest writes it; mode 0600.
    `callshield edge password` writes it."""
    state_dir: Path = Path("/var/lib/kamailio")
    """Where Kamailio keeps registrations over a restart."""
    runtime_dir: Path = Path("/run/kamailio")
    """Its control sockets."""
    pbx_uri: str = ""
    """Where calls go that a phone begins, e.g. ``sip:192.0.2.5:5060``: the PBX decides on them as
    on those of its own phones. Empty: phones of the edge only take calls."""
    without_nodes: Literal["refuse", "phone"] = "refuse"
    """When no node takes a call: ``refuse`` it (503, and the PBX does what it does then), or ring
    the registered ``phone`` itself, without notice, analysis and protection of the ear."""
    probe_s: int = Field(2, ge=1, le=60)
    """Seconds between two OPTIONS to each node."""
    failover_ms: int = Field(2000, ge=600, le=10_000)
    """A node that has not answered an INVITE or OPTIONS by then is passed over."""
    ring_timeout_s: int = Field(120, ge=10, le=900)
    """A call that rings longer than this is given up, should nobody else have done so."""
    longest_registration_s: int = Field(3600, ge=60, le=86400)
    """What a phone may ask for; a phone that is switched off is rung in vain so long at most."""
    workers: int = Field(4, ge=1, le=64)
    """Kamailio's processes for each UDP port, and as many for all TCP."""
    nodes: list[EdgeNodeSettings] = []
    pbx: list[EdgePbxSettings] = []
    tls: EdgeTlsSettings = EdgeTlsSettings()
    websocket: EdgeWebsocketSettings = EdgeWebsocketSettings()
    rtpengine: EdgeRtpengineSettings = EdgeRtpengineSettings()
    limits: EdgeLimitSettings = Field(default_factory=EdgeLimitSettings)  # type: ignore[arg-type]

    @property
    def enabled(self) -> bool:
        return bool(self.bind)

    @property
    def realm(self) -> str:
        """Of the phones' passwords."""
        return self.domain or self.bind

    @field_validator("bind", "advertised")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        return address(value) if value else value

    @field_validator("domain")
    @classmethod
    def _is_domain(cls, value: str) -> str:
        if value and not _DOMAIN.fullmatch(value):
            raise ValueError("a domain like sip.example.com")
        return value.lower()

    @field_validator("phones", "proxies")
    @classmethod
    def _are_networks(cls, value: list[str]) -> list[str]:
        return _networks(value)

    @field_validator("pbx_uri")
    @classmethod
    def _is_pbx_uri(cls, value: str) -> str:
        return EdgeNodeSettings(name="pbx", uri=value).uri if value else value

    @model_validator(mode="after")
    def _is_whole(self) -> EdgeSettings:
        if not self.enabled:
            return self
        if not self.nodes:
            raise ValueError("[[edge.nodes]], at least one")
        if not self.pbx:
            raise ValueError("[[edge.pbx]], at least one: nobody else may begin a call")
        for what in (self.nodes, self.pbx):
            names = [one.name for one in what]
            if len(set(names)) != len(names):
                raise ValueError("a name of its own for each node and each PBX")
        if len({node.uri for node in self.nodes}) != len(self.nodes):
            raise ValueError("a uri of its own for each node")
        if any(node.transport == "tls" for node in self.nodes) and not self.tls.enabled:
            raise ValueError("an [edge.tls] table for nodes with ;transport=tls")
        if any(pbx.tls_only for pbx in self.pbx) and not self.tls.enabled:
            raise ValueError("an [edge.tls] table for a PBX that is tls_only")
        self._ports_differ()
        return self

    def _ports_differ(self) -> None:
        websocket = self.websocket
        if websocket.port and websocket.tls and not self.tls.enabled:
            raise ValueError("an [edge.tls] table for wss:, or websocket.tls = false")
        ports = [self.port, *([self.tls.port] if self.tls.enabled else [])]
        ports += [websocket.port] if websocket.port else []
        if len(set(ports)) != len(ports):
            raise ValueError("edge.port, edge.tls.port and edge.websocket.port that differ")
        if any(node.host == self.bind and _port_of(node.uri) in ports for node in self.nodes):
            raise ValueError("nodes on other addresses or ports than the edge itself")

    @property
    def uses_rtpengine(self) -> bool:
        """There are browsers to be served."""
        return self.websocket.port is not None


def _port_of(uri: str) -> int:
    match = re.search(r":(\d{1,5})(?:;|$)", uri)
    return int(match[1]) if match else 5060
