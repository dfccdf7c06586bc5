"""One OPTIONS (RFC 3261 section 11) on a socket of its own, over UDP, TCP or TLS.

Not by PJSIP: it cannot tell a refusal (ICMP, TCP reset) from silence, nor say what is wrong with
a certificate.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import socket
import ssl
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from sipbridge.pbx_probe_seen import OptionsSeen, Reach, status_of

#: Sending again over UDP (RFC 3261 section 17.1.2.1: T1, doubled up to T2), and giving up.
RETRANSMIT_S = (0.5, 1.0, 2.0)
GIVE_UP_S = 5.0
MAX_RESPONSE_BYTES = 64 * 1024
_UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EADDRNOTAVAIL}


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks.

    Args:
        bind: local address, the one by which the PBX knows our trunk.
        announced: address for Via, From and Contact.
        user_agent: of our SIP messages.
        ca_file: authorities that a TLS certificate is checked against; None: the system's.
        verify: refuse a certificate that cannot be checked.
        certificate: files of ours for a PBX that asks for one: certificate and key.
    """

    bind: str
    announced: str
    user_agent: str
    ca_file: Path | None = None
    verify: bool = True
    certificate: tuple[Path, Path] | None = None


def request(
    uri: str, transport: str, asker: Asker, announced_port: int, branch: str, call_id: str
) -> bytes:
    """An OPTIONS request outside any dialog, asking for ``rport`` (RFC 3581)."""
    host = bracketed(asker.announced)
    contact = f"sip:callshield@{host}:{announced_port}"
    if transport != "udp":
        contact += f";transport={transport}"
    lines = [
        f"OPTIONS {uri} SIP/2.0",
        f"Via: SIP/2.0/{transport.upper()} {host}:{announced_port};rport;branch=z9hG4bK{branch}",
        "Max-Forwards: 70",
        f"From: <sip:callshield@{host}>;tag={branch[:8]}",
        f"To: <{uri}>",
        f"Call-ID: {call_id}",
        "CSeq: 1 OPTIONS",
        f"Contact: <{contact}>",
        "Accept: application/sdp",
        f"User-Agent: {asker.user_agent}",
        "Content-Length: 0",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def complete(stream: bytes) -> str | None:
    """The first whole response in bytes from a stream (RFC 3261 section 18.3), None until then."""
    text = stream.decode("utf-8", "replace").lstrip("\r\n")
    head, separator, body = text.partition("\r\n\r\n")
    if not separator:
        return None
    length = 0
    for line in head.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if name.strip().lower() in ("content-length", "l") and value.strip().isdigit():
            length = int(value)
    return f"{head}\r\n\r\n{body}" if len(body.encode()) >= length else None


async def ask(
    uri: str, target: tuple[str, int], transport: str, asker: Asker, give_up_s: float = GIVE_UP_S
) -> OptionsSeen:
    """Send one OPTIONS and say what came of it; never raises for what the network does.

    Args:
        uri: request URI.
        target: address and port.
        transport: ``udp``, ``tcp`` or ``tls``.
        asker: who asks.
        give_up_s: the most that it may take.
    """
    host, port = target
    seen = OptionsSeen(transport, f"{bracketed(host)}:{port}", Reach.SILENT)
    try:
        async with asyncio.timeout(give_up_s):
            if transport == "udp":
                return await _over_udp(uri, target, asker, seen)
            return await _over_stream(uri, target, asker, seen)
    except TimeoutError:
        return replace(seen, sent=1 + len(RETRANSMIT_S) if transport == "udp" else 1)
    except ssl.SSLCertVerificationError as error:
        return replace(seen, reach=Reach.TLS_FAILED, error=error.verify_message)
    except ssl.SSLError as error:
        return replace(seen, reach=Reach.TLS_FAILED, error=str(error.reason or error))
    except ConnectionRefusedError as error:
        return replace(seen, reach=Reach.REFUSED, error=_words(error))
    except ConnectionError as error:
        reach = Reach.TLS_FAILED if transport == "tls" else Reach.CLOSED
        return replace(seen, reach=reach, error=_words(error))
    except OSError as error:
        reach = Reach.UNREACHABLE if error.errno in _UNREACHABLE else Reach.SILENT
        return replace(seen, reach=reach, error=_words(error))


async def _over_udp(
    uri: str, target: tuple[str, int], asker: Asker, seen: OptionsSeen
) -> OptionsSeen:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as wire:
        wire.setblocking(False)
        wire.bind((asker.bind, 0))
        # A connected socket is told of ICMP errors; answers from elsewhere do not reach it.
        wire.connect(target)
        local_port = int(wire.getsockname()[1])
        seen = _at(seen, asker, local_port)
        call_id = secrets.token_hex(12)
        data = request(uri, "udp", asker, local_port, secrets.token_hex(12), call_id)
        for count, pause_s in enumerate((*RETRANSMIT_S, GIVE_UP_S), start=1):
            sent_at = time.monotonic()
            wire.send(data)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    while True:
                        text = (await loop.sock_recv(wire, MAX_RESPONSE_BYTES)).decode(
                            "utf-8", "replace"
                        )
                        if status_of(text) >= 200 and call_id in text:
                            return replace(
                                seen,
                                reach=Reach.ANSWERED,
                                response=text,
                                sent=count,
                                round_trip_ms=1000 * (time.monotonic() - sent_at),
                            )
    raise TimeoutError


async def _over_stream(
    uri: str, target: tuple[str, int], asker: Asker, seen: OptionsSeen
) -> OptionsSeen:
    secure = seen.transport == "tls"
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(
        *target,
        local_addr=(asker.bind, 0),
        ssl=_context(asker) if secure else None,
        server_hostname=target[0] if secure else None,
    )
    try:
        connect_ms = 1000 * (time.monotonic() - began)
        local_port = int(writer.get_extra_info("sockname")[1])
        seen = _at(replace(seen, connect_ms=connect_ms), asker, local_port)
        if secure:
            seen = _with_tls(seen, writer)
        call_id = secrets.token_hex(12)
        sent_at = time.monotonic()
        writer.write(
            request(uri, seen.transport, asker, local_port, secrets.token_hex(12), call_id)
        )
        await writer.drain()
        stream = b""
        while (text := complete(stream)) is None:
            data = await reader.read(MAX_RESPONSE_BYTES)
            if not data or len(stream) > MAX_RESPONSE_BYTES:
                return replace(seen, reach=Reach.CLOSED, error="closed without an answer")
            stream += data
        return replace(
            seen,
            reach=Reach.ANSWERED,
            response=text,
            round_trip_ms=1000 * (time.monotonic() - sent_at),
        )
    finally:
        writer.close()


def _context(asker: Asker) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=asker.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not asker.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if asker.certificate is not None:
        context.load_cert_chain(*asker.certificate)
    return context


def _with_tls(seen: OptionsSeen, writer: asyncio.StreamWriter) -> OptionsSeen:
    link = writer.get_extra_info("ssl_object")
    until = link.getpeercert().get("notAfter")  # empty when nothing was verified
    days = None
    if until:
        ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(until), UTC)
        days = (ends - datetime.now(UTC)).total_seconds() / 86400
    return replace(seen, tls_version=str(link.version()), certificate_days=days)


def _at(seen: OptionsSeen, asker: Asker, port: int) -> OptionsSeen:
    return replace(
        seen,
        local=f"{bracketed(asker.bind)}:{port}",
        announced=f"{bracketed(asker.announced)}:{port}",
    )


def bracketed(address: str) -> str:
    """An address as it stands in a URI."""
    return f"[{address}]" if ":" in address else address


def _words(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
