"""The edge's files, rendered from ``[edge]``: Kamailio's and rtpengine's configuration.

Pure: settings in, texts out. Kamailio's script itself (``callshield/kamailio/kamailio.cfg``) is the
same everywhere; what differs from site to site is definitions, lists of addresses, TLS.
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from callshield.errors import CallshieldError
from callshield.settings import Settings
from callshield.settings_edge import EdgePbxSettings, EdgeSettings

SCRIPT = "kamailio.cfg"
SITE = "callshield-edge.cfg"
DISPATCHER = "dispatcher.list"
ADDRESSES = "address.list"
TLS = "tls.cfg"
RTPENGINE = "rtpengine.conf"
#: What a path may be made of where it stands in quotes in somebody else's configuration.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./@+:-]*")
#: Whoever sends: what the script calls the groups of ``address.list``.
NODES, PBX, PHONES, PROXIES = 1, 2, 3, 4
ATTESTING, OUTGOING, TLS_ONLY = 21, 22, 23
#: TLS 1.2 ciphers with forward secrecy, as :data:`sipbridge.pjsip_stack.CIPHERS_TLS12`.
_CIPHERS = (
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256:"
    "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
    "ECDHE-ECDSA-AES256-SHA384:ECDHE-RSA-AES256-SHA384:ECDHE-ECDSA-AES128-SHA256:"
    "ECDHE-RSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA:ECDHE-RSA-AES256-SHA:ECDHE-ECDSA-AES128-SHA:"
    "ECDHE-RSA-AES128-SHA"
)
_GENERATED = "# Written by `callshield edge render` from [edge] of callshield.toml: change that.\n"


class EdgeError(CallshieldError):
    """The edge cannot be set up like this."""


def require_edge(settings: Settings) -> EdgeSettings:
    """The table ``[edge]``.

    Raises:
        EdgeError: there is none.
    """
    if not settings.edge.enabled:
        raise EdgeError("there is no [edge] with bind in this configuration: see docs/edge.md")
    return settings.edge


def edge_files(settings: Settings, folder: Path) -> dict[str, str]:
    """Name → text of every file that Kamailio reads, for a folder of its own.

    Args:
        settings: the configuration; of it ``[edge]``, and the headers' names.
        folder: where they will lie.

    Raises:
        EdgeError: there is no ``[edge]``, or a path that Kamailio could not be told.
    """
    edge = require_edge(settings)
    found = {
        SCRIPT: script(),
        SITE: _site(settings, folder.absolute()),
        DISPATCHER: _dispatcher(edge),
        ADDRESSES: _addresses(edge),
    }
    if edge.tls.enabled:
        found[TLS] = _tls(edge)
    return found


def script() -> str:
    """Kamailio's script."""
    return (files("callshield") / "kamailio" / SCRIPT).read_text(encoding="utf-8")


def rtpengine_file(settings: Settings) -> str:
    """``rtpengine.conf``: in user space, without its kernel module."""
    edge = require_edge(settings)
    media = edge.rtpengine
    inside = media.bind or edge.bind
    interface = f"{inside}!{media.advertised}" if media.advertised else inside
    return (
        f"{_GENERATED}[rtpengine]\n"
        "# No kernel module: all packets go through the daemon.\n"
        "table = -1\n"
        f"interface = {interface}\n"
        f"listen-ng = {media.control}\n"
        f"port-min = {media.ports[0]}\nport-max = {media.ports[1]}\n"
        "timeout = 60\nsilent-timeout = 3600\n"
        f"tos = {settings.sip.dscp_media << 2}\n"
        "# Keys and numbers travel in what the debug levels log.\nlog-level = 5\n"
    )


def auth_database(edge: EdgeSettings) -> Path:
    """SQLite file of the users."""
    return edge.state_dir / "callshield-users.sqlite"


def location_database(edge: EdgeSettings) -> Path:
    """SQLite file of the registrations."""
    return edge.state_dir / "callshield-registrations.sqlite"


def rpc_socket(edge: EdgeSettings) -> Path:
    """Unix datagram socket of Kamailio's JSON-RPC."""
    return edge.runtime_dir / "callshield-rpc.sock"


# --------------------------------------------------------------------------------------- parts


def _quoted(path: Path, key: str) -> str:
    """A path as it may stand in quotes.

    Raises:
        EdgeError: it has a character that would end the quotes or a definition.
    """
    text = str(path.absolute())
    if not _PLAIN_PATH.fullmatch(text):
        raise EdgeError(
            f"{key}: Kamailio cannot be told the path {text!r}: use letters, digits and _ . / @ + -"
        )
    return text


def _told(name: str, value: str) -> str:
    """A text as it may stand in a definition, whose own signs it has none of.

    Raises:
        EdgeError: it has.
    """
    if re.search(r'[!"\\$\s\x00-\x1f]', value):
        raise EdgeError(
            f'Kamailio cannot be told {value!r} (its {name}): leave out ! $ " \\ and blanks'
        )
    return value


def _host(value: str) -> str:
    return f"[{value}]" if ":" in value else value


def _site(settings: Settings, folder: Path) -> str:
    edge = settings.edge
    path = _quoted(folder, "the folder")
    numbers = {
        "WORKERS": edge.workers,
        "FAILOVER_MS": edge.failover_ms,
        "RING_MS": edge.ring_timeout_s * 1000,
        "RING_S": edge.ring_timeout_s + 10,
        "PROBE_S": edge.probe_s,
        "MAX_EXPIRES_S": edge.longest_registration_s,
        "TCP_LIFETIME_S": edge.longest_registration_s + 10,
        "BAN_S": edge.limits.ban_s,
        "PHONE_REQUESTS": edge.limits.phone_requests_per_2s,
        "PBX_CALLS_PER_S": edge.limits.pbx_calls_per_s,
        "WRONG_PASSWORDS": edge.limits.wrong_passwords,
    }
    runtime = _quoted(edge.runtime_dir, "edge.runtime_dir")
    _quoted(edge.state_dir, "edge.state_dir")
    texts = {
        "ADDRESS_FILE": f"{path}/{ADDRESSES}",
        "DISPATCHER_FILE": f"{path}/{DISPATCHER}",
        "CTL_SOCKET": f"unix:{runtime}/callshield-ctl.sock",
        "RPC_SOCKET": str(rpc_socket(edge)),
        "LOCATION_DB": f"sqlite:///{location_database(edge)}",
        "AUTH_DB": f"sqlite:///{auth_database(edge)}",
        "PING_FROM": f"sip:edge@{_host(edge.bind)}",
        "OWN_URI": f"sip:{_host(edge.bind)}:{edge.port}",
        "OWN_SOCKET": f"udp:{_host(edge.bind)}:{edge.port}",
        "EDGE_REALM": edge.realm,
        "NOTICE_HEADER": settings.notice.upstream_header,
        "AGENT_HEADER": settings.outbound.agent_header,
    }
    flags = []
    if edge.tls.enabled:
        flags.append("WITH_TLS")
        texts["TLS_FILE"] = f"{path}/{TLS}"
    if edge.websocket.port:
        flags.append("WITH_WEBSOCKET")
        numbers["WEBSOCKET_PORT"] = edge.websocket.port
        texts["RTPENGINE"] = f"udp:{edge.rtpengine.control}"
        if edge.websocket.allowed_origins:
            texts["WEBSOCKET_ORIGINS"] = ",".join(edge.websocket.allowed_origins)
    if edge.pbx_uri:
        texts["PBX_URI"] = edge.pbx_uri
        texts["PBX_PLACE"] = edge.pbx_uri.removeprefix("sip:").partition(";")[0]
    if edge.without_nodes == "phone":
        flags.append("WITHOUT_NODES_PHONE")
    lines = [
        _GENERATED.rstrip("\n"),
        *(f"#!define {flag}" for flag in flags),
        *(f'#!substdef "!{name}!{value}!g"' for name, value in numbers.items()),
        *(f'#!substdefs "!{name}!{_told(name, value)}!g"' for name, value in texts.items()),
        *_listens(edge),
    ]
    if edge.domain:
        lines.append(f'alias="{edge.domain}"')
    return "\n".join(lines) + "\n"


def _listens(edge: EdgeSettings) -> list[str]:
    host = _host(edge.bind)
    outside = f" advertise {_host(edge.advertised)}:" if edge.advertised else ""
    # What we connect to knows us by this address.
    source = "tcp_source_ipv6" if ":" in edge.bind else "tcp_source_ipv4"
    lines = [f"{source}={host}", f"listen=udp:{host}:{edge.port}", f"listen=tcp:{host}:{edge.port}"]
    ports = [("tls", edge.tls.port)] if edge.tls.enabled else []
    if edge.websocket.port:
        ports.append(("tls" if edge.websocket.tls else "tcp", edge.websocket.port))
    for kind, port in ports:
        lines.append(f"listen={kind}:{host}:{port}{outside}{port if outside else ''}")
    return lines


def _dispatcher(edge: EdgeSettings) -> str:
    lines = [f"1 {node.uri} 0 0 duid={node.name}" for node in edge.nodes]
    return "\n".join([_GENERATED + "# set destination flags priority attributes", *lines]) + "\n"


def _addresses(edge: EdgeSettings) -> str:
    rows: list[tuple[int, str, str]] = []
    for node in edge.nodes:
        rows += [(NODES, network, node.name) for network in (node.host, *node.networks)]
    for pbx in edge.pbx:
        groups = _groups(pbx)
        rows += [(group, network, pbx.name) for group in groups for network in pbx.networks]
    rows += [(PHONES, network, "phones") for network in edge.phones]
    rows += [(PROXIES, network, "proxies") for network in edge.proxies]
    lines = []
    for group, network, name in rows:
        address, _, length = network.partition("/")
        bits = length or ("128" if ":" in address else "32")
        lines.append(f"{group} {address} {bits} 0 {name}")
    return "\n".join([_GENERATED + "# group address mask port name", *lines]) + "\n"


def _groups(pbx: EdgePbxSettings) -> list[int]:
    groups = [PBX]
    for group, wanted in (
        (ATTESTING, pbx.attests_notice),
        (OUTGOING, pbx.outgoing),
        (TLS_ONLY, pbx.tls_only),
    ):
        if wanted:
            groups.append(group)
    return groups


def _tls(edge: EdgeSettings) -> str:
    tls = edge.tls
    assert tls.certificate is not None
    assert tls.private_key is not None
    certificate = _quoted(tls.certificate, "edge.tls.certificate")
    key = _quoted(tls.private_key, "edge.tls.private_key")
    authorities = _quoted(tls.ca_file, "edge.tls.ca_file") if tls.ca_file else ""

    def profile(name: str, *, check: bool) -> str:
        lines = [
            f"[{name}]",
            "method = TLSv1.2+",
            f"cipher_list = {_CIPHERS}",
            f"certificate = {certificate}",
            f"private_key = {key}",
            f"verify_certificate = {'yes' if check else 'no'}",
            f"require_certificate = {'yes' if check else 'no'}",
            *([f"ca_list = {authorities}"] if authorities else []),
        ]
        return "\n".join(lines) + "\n"

    found = [profile("server:default", check=tls.require_client_certificate)]
    if edge.websocket.port and edge.websocket.tls and tls.require_client_certificate:
        # A browser has no certificate to show.
        browsers = f"server:{_host(edge.bind)}:{edge.websocket.port}"
        found.append(profile(browsers, check=False))
    found.append(profile("client:default", check=tls.verify_server))
    return "\n".join([_GENERATED, *found])
