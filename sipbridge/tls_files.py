"""SIP over TLS: our certificate and whom we believe (RFC 3261 section 26.2, RFC 5922).

At least TLS 1.2. A far end that we connect to must show a certificate for its address (an IP
address in subjectAltName), signed by an authority of ``ca_file``, unless that is switched off.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pjsua2 as pj

from callshield.errors import SetupError
from callshield.settings import TlsSettings

#: A far end that has not finished its handshake by then is given up.
HANDSHAKE_TIMEOUT_MS = 5000


def check_tls_files(tls: TlsSettings, key: str) -> None:
    """Look at the files before PJSIP does, whose errors name none of them.

    Args:
        tls: of one side.
        key: its table in the configuration, for the message.

    Raises:
        SetupError: a file is missing or unreadable, or others may read the private key.
    """
    for name, path in (
        ("certificate", tls.certificate),
        ("private_key", tls.private_key),
        ("ca_file", tls.ca_file),
    ):
        if path is None:
            continue
        try:
            with path.open("rb") as file:
                file.read(1)
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError as error:
            raise SetupError(
                f"{key}.{name}: {path} cannot be read ({error.strerror}): name a PEM file that "
                "this user may read"
            ) from None
        if name == "private_key" and mode & 0o077:
            raise SetupError(
                f"{key}.private_key: others may read {path} (mode {mode:04o}): chmod 600 {path}"
            )


def tls_config(tls: TlsSettings) -> Any:
    """PJSIP's TLS options of one side."""
    config = pj.TlsConfig()
    config.certFile = _name(tls.certificate)
    config.privKeyFile = _name(tls.private_key)
    config.CaListFile = _name(tls.ca_file)
    config.proto = pj.PJ_SSL_SOCK_PROTO_TLS1_2 | pj.PJ_SSL_SOCK_PROTO_TLS1_3
    config.verifyServer = tls.verify_server
    config.verifyClient = tls.require_client_certificate
    config.requireClientCert = tls.require_client_certificate
    config.msecTimeout = HANDSHAKE_TIMEOUT_MS
    return config


def _name(path: Path | None) -> str:
    return "" if path is None else str(path)
