"""RTP ports: an even one for RTP and the odd one above it for RTCP (RFC 3550 section 11)."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass

from callshield.errors import SetupError

#: Bytes asked for a leg's receive buffer (the kernel doubles it): one second of 20 ms packets
#: where a network card takes 2 KiB for each, three on loopback. After a longer stall the oldest
#: audio is better lost than late.
RECEIVE_BUFFER_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class PortPair:
    """Two bound sockets of one leg."""

    rtp: socket.socket
    rtcp: socket.socket
    """For reports (RFC 3550 section 6), a few a minute: its buffer is tiny."""
    port: int
    """Of the RTP socket; even."""

    def close(self) -> None:
        self.rtp.close()
        self.rtcp.close()


class PortRange:
    """Port pairs of one side, handed out round and round.

    The round begins at a random pair and goes on after the last one given, so that a port rests
    for as long as possible before another call gets it: late packets of an old call find nobody.

    Args:
        address: local address to bind.
        first: first port of the range.
        last: last port of the range, included.
        dscp: differentiated services code point of what is sent (RFC 2474), 0-63.
        key: the configuration key, for the error's sentence.
    """

    def __init__(self, address: str, first: int, last: int, dscp: int, key: str) -> None:
        self._address = address
        self._first = first + first % 2
        self._last = last
        self._dscp = dscp
        self._key = key
        self._pairs = max((last - self._first + 1) // 2, 0)
        self._next = random.randrange(self._pairs) if self._pairs else 0
        self._taken: set[int] = set()

    def take(self) -> PortPair:
        """Bind the next free pair; ports that others hold are skipped.

        Raises:
            SetupError: none is free.
        """
        for _ in range(self._pairs):
            port = self._first + 2 * self._next
            self._next = (self._next + 1) % self._pairs
            if port in self._taken:
                continue
            pair = self._bind(port)
            if pair is not None:
                self._taken.add(port)
                return pair
        raise SetupError(
            f"no free port pair in {self._key} ({self._first}-{self._last} on {self._address}): "
            "widen the range, lower sip.admission_limit, or stop what else uses these ports"
        )

    def give_back(self, pair: PortPair) -> None:
        """Close a pair and let it be used again."""
        pair.close()
        self._taken.discard(pair.port)

    def _bind(self, port: int) -> PortPair | None:
        rtp = self._socket(RECEIVE_BUFFER_BYTES)
        rtcp = self._socket(0)
        try:
            rtp.bind((self._address, port))
            rtcp.bind((self._address, port + 1))
        except OSError:
            rtp.close()
            rtcp.close()
            return None
        return PortPair(rtp, rtcp, port)

    def _socket(self, receive_buffer_bytes: int) -> socket.socket:
        six = ":" in self._address
        made = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        if six:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, self._dscp << 2)
        else:
            made.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, self._dscp << 2)
        return made
