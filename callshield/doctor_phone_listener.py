"""``callshield doctor``: the listener that phones call."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from urllib.parse import urlsplit

from callshield.errors import CallshieldError
from callshield.findings import Finding, note, ok, problem
from callshield.settings import Settings

_NAME = "phone listener"


def examine_listener(settings: Settings) -> list[Finding]:
    """Port, address, networks, key and certificate of the listener for phones."""
    phones = settings.phones
    if not phones.port:
        return [ok(_NAME, "off (phones.port)")]
    findings = [
        *_networks(settings),
        _port(settings),
        _url(settings),
        _key(settings),
        _encryption(settings),
    ]
    return findings


def _networks(settings: Settings) -> list[Finding]:
    if settings.sip.phone.networks:
        return []
    return [
        problem(
            _NAME,
            "sip.phone.networks is empty: no phone would be answered",
            "write the networks of the phones into it",
        )
    ]


def _port(settings: Settings) -> Finding:
    host, port = settings.phones.bind, settings.phones.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        advice = "set phones.bind to an address of this machine"
        if error.errno == errno.EADDRINUSE:
            advice = "stop what uses it (ss -lntp; a running node does too), or change phones.port"
        return problem(_NAME, f"{host} port {port} cannot be opened ({error.strerror})", advice)
    return ok(_NAME, f"{host} port {port} free (TCP)")


def _url(settings: Settings) -> Finding:
    """Whether what phones are told can lead to where we listen."""
    url, bind = settings.phones.url, ipaddress.ip_address(settings.phones.bind)
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        host = ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        return note(
            _NAME,
            f"{url} names a host: every phone has to find it by DNS",
            "an address is surer",
        )
    remote = [n for n in settings.sip.phone.networks if not ipaddress.ip_network(n).is_loopback]
    if bind.is_loopback and remote:
        return problem(
            _NAME,
            f"it listens on {bind}, where no phone is",
            "set phones.bind to our address in the phones' network",
        )
    if host.is_unspecified or (host.is_loopback and not bind.is_loopback):
        return problem(
            _NAME, f"{url} leads a phone to itself", "write our address there into phones.url"
        )
    if not bind.is_unspecified and (host, port) != (bind, settings.phones.port):
        return note(
            _NAME,
            f"phones call {url}, and it listens on {bind} port {settings.phones.port}",
            "right only where something between forwards it, keeping the phones' addresses",
        )
    if port != settings.phones.port:
        return note(
            _NAME,
            f"phones call port {port}, and it listens on {settings.phones.port}",
            "right only where something between forwards it, keeping the phones' addresses",
        )
    return ok(_NAME, f"phones call {url}")


def _key(settings: Settings) -> Finding:
    from firmware_profiles.phone_tokens import key_path, load_key

    path = key_path(settings)
    if not os.path.lexists(path):
        return note(_NAME, f"no key yet: {path} is made at the first start", "")
    try:
        load_key(settings, make=False)
    except CallshieldError as error:
        return problem(_NAME, str(error), "put it right: no key of a phone works until then")
    return ok(_NAME, f"{path} private")


def _encryption(settings: Settings) -> Finding:
    from firmware_profiles.listener import tls_context

    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(settings.phones.bind).is_loopback:
            return ok(_NAME, "on loopback")
    try:
        context = tls_context(settings.phones)
    except CallshieldError as error:
        return problem(_NAME, str(error), "put it right: the listener does not start")
    if context is not None:
        return ok(_NAME, "certificate and key readable")
    return note(
        _NAME,
        "phones call it unencrypted: who reads that network can press the keys of an agent whose "
        "key was pressed, until its address is made anew",
        "keep strangers out of that network; phones.keys_from and phones.certificate limit it",
    )
