"""SIP over TLS: our certificate and whom we believe (RFC 3261 section 26.2, RFC 5922).

At least TLS 1.2. A far end that we connect to must show a certificate for its address (an IP
address in subjectAltName), signed by an authority of ``ca_file``, unless that is switched off.
"""

from __future__ import annotations

import ssl
import stat

from callshield.errors import SetupError
from callshield.private_file import forbidden_bits
from callshield.settings_sip import TlsSettings


def check_tls_files(tls: TlsSettings, key: str) -> None:
    """Look at the files before PJSIP does, whose errors name none of them.

    Args:
        tls: of one side.
        key: its table in the configuration, for the message.

    Raises:
        SetupError: a file is missing, unreadable or not what it should be, the key is not the
            certificate's, or others may read it.
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
        if name == "private_key" and mode & forbidden_bits(path):
            raise SetupError(
                f"{key}.private_key: others may read {path} (mode {mode:04o}): chmod 600 {path}"
            )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if tls.certificate is not None and tls.private_key is not None:
        try:
            context.load_cert_chain(tls.certificate, tls.private_key, password="")
        except (ssl.SSLError, ValueError) as error:
            raise SetupError(
                f"{key}: {tls.certificate} and {tls.private_key} are not a certificate and its "
                f"unencrypted key in PEM ({error})"
            ) from None
    if tls.ca_file is not None:
        try:
            context.load_verify_locations(tls.ca_file)
        except ssl.SSLError as error:
            raise SetupError(
                f"{key}.ca_file: {tls.ca_file} holds no certificate in PEM ({error})"
            ) from None
