"""The PJSIP endpoint inside an asyncio loop: one thread, no polling.

PJSIP's ioqueue is an epoll set whose descriptor asyncio watches; its timers are armed one by one
with ``call_later``. So every callback of pjsua2 runs in the loop's own thread, and an idle node
uses no CPU. PJSIP's media is switched off (``useLoopMedTp``): it opens no RTP socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ipaddress
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pjsip_guard
import pjsua2 as pj
import structlog

from callshield.errors import SdpError, SetupError
from callshield.settings import Settings
from callshield.settings_sip import SIP_URI, SideSettings, TlsSettings
from sipbridge import sdp
from sipbridge.ended_legs import free_ended
from sipbridge.listener_shield import shield_listeners
from sipbridge.tls_files import check_tls_files

log = structlog.get_logger()

SERVER = re.compile(r"^\d{1,3}(\.\d{1,3}){3}\Z")
#: Packets handled in one go before other tasks of the loop get their turn.
MAX_EVENTS_A_TURN = 64
#: Legs besides two a call: helpers' phones, and refusals under way.
SPARE_LEGS = 72
#: TLS 1.2 with forward secrecy only (TLS 1.3 knows no other): SRTP keys travel in this SIP, and who
#: records it must not be able to read it with a key stolen later. ECDHE with an ECDSA or an RSA
#: certificate: AES-GCM, ChaCha20, and AES-CBC for older phones. Numbers of IANA's registry.
CIPHERS_TLS12 = [
    *(0xC02C, 0xC030, 0xC02B, 0xC02F, 0xCCA9, 0xCCA8),
    *(0xC024, 0xC028, 0xC023, 0xC027, 0xC00A, 0xC014, 0xC009, 0xC013),
]
#: TCP and TLS connections that others may hold, over all addresses.
MAX_CONNECTIONS = 2048
#: A far end that has not finished its TLS handshake by then is given up.
HANDSHAKE_TIMEOUT_MS = 5000


class _QuietLog(pj.LogWriter):
    """Counts PJSIP's own errors; its text may carry numbers and names and goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.errors = 0

    def write(self, entry: Any) -> None:
        if entry.level <= 1:
            self.errors += 1


@contextlib.contextmanager
def _no_output() -> Iterator[None]:
    """libCreate prints banners on descriptor 1 before a log writer can be set."""
    sys.stdout.flush()
    saved = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 1)
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # C's own buffer would spill the banners later
        os.dup2(saved, 1)
        os.close(saved)
        os.close(null)


class _Endpoint(pj.Endpoint):
    """Names what was offered when PJSIP itself answers 488, before any call exists."""

    def onRejectedIncomingCall(self, prm: Any) -> None:
        try:
            body = str(prm.rdata.wholeMsg).replace("\r\n", "\n").partition("\n\n")[2]
            offered = sdp.parse(body).offered()
        except SdpError as error:
            offered = str(error)
        except Exception:  # never out of a pjsua2 callback
            offered = "unreadable"
        log.info("offer_refused", status=int(prm.statusCode), detail=f"offered {offered}")


class PjsipStack:
    """Endpoint, transports and the two accounts (PBX side, phone side).

    Args:
        settings: the node's configuration.
        loop: the loop whose thread owns PJSIP from now on.
        on_request: is given each request that :func:`pjsip_guard.take_requests` returns.
    """

    def __init__(
        self,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        on_request: Callable[[int, int, bytes], None],
    ) -> None:
        self._on_request = on_request
        self._settings = settings
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._log_writer = _QuietLog()
        self.endpoint = _Endpoint()
        self.pbx_transports: dict[str, int] = {}
        """PJSIP's numbers of the transports by kind: udp, tcp, and tls where it is configured."""
        self.phone_transports: dict[str, int] = {}
        self.on_packet: Callable[[], None] = lambda: None
        """Called after each of PJSIP's events."""
        self.on_rest: Callable[[], None] = lambda: None
        """Called when PJSIP has handled what it had, and after our own calls into it."""

    def start(self) -> None:
        """Open the transports; requests are refused until :meth:`set_ready`.

        Raises:
            SetupError: a port is taken, an address is not ours, or this build is too small.
        """
        sip = self._settings.sip
        info = pjsip_guard.info()
        legs = 2 * sip.admission_limit + SPARE_LEGS
        if int(info["max_calls"]) < legs:
            raise SetupError(
                f"this pjsua2 carries {info['max_calls']} call legs, sip.admission_limit = "
                f"{sip.admission_limit} needs {legs}: run ./run setup again, or lower the limit"
            )
        with _no_output():
            self.endpoint.libCreate()
        config = pj.EpConfig()
        config.uaConfig.threadCnt = 0
        config.uaConfig.mainThreadOnly = True
        config.uaConfig.maxCalls = legs
        config.uaConfig.userAgent = sip.user_agent
        for server in _name_servers(Path("/etc/resolv.conf")):
            # PJSIP's own resolver does not block: without it a host name in a far end's Contact
            # would be looked up by the C library while every other call waits.
            config.uaConfig.nameserver.append(server)
        config.medConfig.threadCnt = 0
        config.medConfig.clockRate = 8000
        config.medConfig.sndClockRate = 8000
        config.medConfig.hasIoqueue = False
        config.logConfig.level = 1
        config.logConfig.consoleLevel = 0
        config.logConfig.msgLogging = 0
        config.logConfig.writer = self._log_writer
        with _no_output():
            self.endpoint.libInit(config)
        pjsip_guard.install()
        pjsip_guard.set_rate_limit(sip.requests_per_s, sip.request_burst)
        pjsip_guard.set_readiness(False, sip.retry_after_s)
        pjsip_guard.set_connection_limits(
            sip.connections_per_address, MAX_CONNECTIONS, sip.first_message_timeout_s
        )
        peers = [_prefix(network) for peer in self._settings.peers for network in peer.networks]
        phones = self._phone_networks()
        pjsip_guard.set_allowed_networks(peers)
        pjsip_guard.set_in_dialog_networks(phones)
        self.pbx_transports = self._open_transports(sip.pbx, "sip.pbx")
        self.phone_transports = self._open_transports(sip.phone, "sip.phone")
        shield_listeners(
            [
                (side.bind, port)
                for side in (sip.pbx, sip.phone)
                for port in (side.port, side.tls.port)
            ],
            sorted({*peers, *phones}),
        )
        self.endpoint.libStart()
        self.endpoint.audDevManager().setNullDev()
        for codec in self.endpoint.codecEnum2():
            # Offers without G.711 still reach Python this way, which logs what was offered.
            self.endpoint.codecSetPriority(codec.codecId, 128)
        self._loop.add_reader(pjsip_guard.epoll_fd(), self.pump)
        self._arm()

    def _phone_networks(self) -> list[tuple[str, int]]:
        networks = [_prefix(network) for network in self._settings.sip.phone.networks]
        for uri in self._settings.phone_uris:
            match = SIP_URI.match(uri)
            assert match is not None  # the settings took nothing else, and only addresses
            networks.append(_prefix(match["host"].strip("[]")))
        networks += [_prefix(trunk.host) for trunk in self._settings.trunks.values()]
        return sorted(set(networks))

    def _open_transports(self, side: SideSettings, key: str) -> dict[str, int]:
        config = pj.TransportConfig()
        config.port = side.port
        config.boundAddress = side.bind
        if side.advertised:
            config.publicAddress = side.advertised
        config.qosParams.flags = pj.PJ_QOS_PARAM_HAS_DSCP
        config.qosParams.dscp_val = self._settings.sip.dscp_signalling
        six = ":" in side.bind
        kinds = {
            "udp": pj.PJSIP_TRANSPORT_UDP6 if six else pj.PJSIP_TRANSPORT_UDP,
            "tcp": pj.PJSIP_TRANSPORT_TCP6 if six else pj.PJSIP_TRANSPORT_TCP,
        }
        if side.tls.enabled:
            kinds["tls"] = pj.PJSIP_TRANSPORT_TLS6 if six else pj.PJSIP_TRANSPORT_TLS
        opened: dict[str, int] = {}
        for name, kind in kinds.items():
            if name == "tls":
                check_tls_files(side.tls, f"{key}.tls")
                config.port = side.tls.port
                config.tlsConfig = _tls_config(side.tls)
            try:
                opened[name] = int(self.endpoint.transportCreate(kind, config))
            except pj.Error as error:
                raise SetupError(
                    f"{key}: {side.bind} port {config.port} ({name}) cannot be opened "
                    f"({error.reason}): stop what uses it (ss -lnp), or choose another address or "
                    "port" + ("; or mend its certificate" if name == "tls" else "")
                ) from None
        return opened

    def account_config(self, side: SideSettings, kind: str, transport: int) -> Any:
        """A pjsua2 account bound to one transport of a side: timers on, PJSIP's own media off."""
        sip = self._settings.sip
        host = side.signalling_advertised
        host = f"[{host}]" if ":" in host else host
        config = pj.AccountConfig()
        port = side.tls.port if kind == "tls" else side.port
        config.idUri = f"sip:callshield@{host}:{port}"
        config.sipConfig.transportId = transport
        config.mediaConfig.useLoopMedTp = True
        # PJSIP only has to let our own RTP/SAVP and a=crypto lines through: whether keys may be,
        # and over what, is decided by sipbridge.offer_answer, which says why when they may not.
        config.mediaConfig.srtpUse = pj.PJMEDIA_SRTP_OPTIONAL
        config.mediaConfig.srtpSecureSignaling = 0
        config.callConfig.timerUse = pj.PJSUA_SIP_TIMER_ALWAYS
        config.callConfig.timerMinSESec = sip.min_se_s
        config.callConfig.timerSessExpiresSec = sip.session_expires_s
        config.callConfig.prackUse = pj.PJSUA_100REL_OPTIONAL
        config.natConfig.contactRewriteUse = 0
        config.natConfig.viaRewriteUse = False
        config.natConfig.sdpNatRewriteUse = 0
        return config

    def set_ready(self, ready: bool) -> None:
        """What OPTIONS is answered: 200, or 503 with Retry-After."""
        pjsip_guard.set_readiness(ready, self._settings.sip.retry_after_s)

    def pump(self) -> None:
        """Handle what PJSIP has waiting, then arm its next timer."""
        for _ in range(MAX_EVENTS_A_TURN):
            handled = self.endpoint.libHandleEvents(0)
            free_ended()
            for request in pjsip_guard.take_requests():
                self._on_request(*request)
            self.on_packet()
            if handled <= 0:
                break
        self.rearm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_ms = pjsip_guard.next_timer_ms()
        if due_ms is not None:
            self._timer = self._loop.call_later(due_ms / 1000, self.pump)

    def rearm(self) -> None:
        """After a call into PJSIP from outside its callbacks: it may have set a timer."""
        self.on_rest()
        self._arm()

    @property
    def log_errors(self) -> int:
        """Errors that PJSIP itself logged."""
        return self._log_writer.errors

    def stop(self) -> None:
        """Close everything; no pjsua2 object may be used afterwards."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(pjsip_guard.epoll_fd())
        free_ended()
        with _no_output():
            # Every dialog is over: nothing is left to say, and no answer is worth a second's wait.
            self.endpoint.libDestroy(pj.PJSUA_DESTROY_NO_NETWORK)


def _name_servers(path: Path) -> list[str]:
    """IPv4 name servers of the machine, at most four."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    parts = [line.split() for line in lines]
    servers = [part[1] for part in parts if len(part) > 1 and part[0] == "nameserver"]
    return [server for server in servers if SERVER.match(server)][:4]


def _tls_config(tls: TlsSettings) -> Any:
    """PJSIP's TLS options of one side."""
    config = pj.TlsConfig()
    config.certFile = _name(tls.certificate)
    config.privKeyFile = _name(tls.private_key)
    config.CaListFile = _name(tls.ca_file)
    config.proto = pj.PJ_SSL_SOCK_PROTO_TLS1_2 | pj.PJ_SSL_SOCK_PROTO_TLS1_3
    config.ciphers = pj.IntVector(CIPHERS_TLS12)
    config.verifyServer = tls.verify_server
    config.verifyClient = tls.require_client_certificate
    config.requireClientCert = tls.require_client_certificate
    config.msecTimeout = HANDSHAKE_TIMEOUT_MS
    return config


def _name(path: Path | None) -> str:
    return "" if path is None else str(path)


def _prefix(network: str) -> tuple[str, int]:
    parsed = ipaddress.ip_network(network, strict=False)
    return str(parsed.network_address), parsed.prefixlen
