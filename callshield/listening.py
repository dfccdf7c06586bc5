"""A TCP port taken before anything else is begun, with a sentence where it cannot be."""

from __future__ import annotations

import errno
import socket

from callshield.errors import SetupError


def listen(host: str, port: int, *, table: str, who: str) -> socket.socket:
    """A listening socket, not blocking.

    Args:
        host, port: where.
        table: of the configuration that names them as ``bind`` and ``port``.
        who: listens there, for the sentence.

    Raises:
        SetupError: the port is taken, or the address is not this machine's.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(256)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise SetupError(
                f"port {port} on {host} is taken by another program: stop it, or set {table}.bind "
                f"and {table}.port to a free address"
            ) from None
        raise SetupError(
            f"{who} cannot listen on {host} port {port} ({error.strerror}): set {table}.bind "
            f"and {table}.port to an address of this machine"
        ) from None
    listening.setblocking(False)
    return listening
