"""What systemd is told of the node: sd_notify(3), lines in a datagram to ``NOTIFY_SOCKET``.

The protocol is what systemd promises to keep stable for implementations of one's own
(sd_notify(3), "Notes"); without the variable nothing is sent. Facts (ready, status) that the socket
does not take are kept and sent with the next one: nothing here ever waits.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

import structlog

log = structlog.get_logger()

_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class SdNotify:
    """The service manager, or nobody.

    Args:
        address: of its socket: a path, or ``@`` and an abstract name; empty: nobody listens.
        watchdog_s: how long it waits for the next :meth:`feed`; ``None``: it does not.
    """

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self.watchdog_s = watchdog_s if address else None
        self._facts: dict[str, str] = {}
        self._said: dict[str, str] = {}
        self._socket: socket.socket | None = None
        if address.startswith(("/", "@")):
            self._socket = socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            )
            self._address = "\0" + address[1:] if address[0] == "@" else address
        elif address:
            log.warning("notify_socket_unknown")  # vsock: of virtual machines, not of services

    @classmethod
    def take(cls, environment: MutableMapping[str, str]) -> SdNotify:
        """What the environment says, taken out of it: no child is to speak for the node."""
        address, usec, pid = (environment.pop(name, "") for name in _VARIABLES)
        watched = usec.isdigit() and int(usec) > 0 and pid in ("", str(os.getpid()))
        return cls(address, int(usec) / 1e6 if watched else None)

    def ready(self) -> None:
        """The node takes calls."""
        self._tell("READY", "1")

    def stopping(self) -> None:
        """The node ends, as it was asked to."""
        self._tell("STOPPING", "1")

    def status(self, sentence: str) -> None:
        """One line for ``systemctl status``."""
        self._tell("STATUS", sentence.replace("\n", " "))

    def feed(self) -> None:
        """All is well: the watchdog starts anew."""
        if self.watchdog_s is not None:
            self._send("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """Starting or stopping goes on for at least so long (``EXTEND_TIMEOUT_USEC``)."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _tell(self, name: str, value: str) -> None:
        if self._said.get(name) == value and name not in self._facts:
            return
        self._facts[name] = value
        self.flush()

    def flush(self) -> None:
        """Send what the socket would not take before."""
        if self._facts and self._send("\n".join(f"{k}={v}" for k, v in self._facts.items())):
            self._said |= self._facts
            self._facts.clear()

    def _send(self, text: str) -> bool:
        if self._socket is None:
            return True
        try:
            self._socket.sendto(text.encode("utf-8"), self._address)
        except OSError:
            return False  # its queue is full, or it is being restarted
        return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
