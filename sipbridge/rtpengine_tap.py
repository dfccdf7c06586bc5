"""The tap of a call whose audio rtpengine carries.

rtpengine sends a copy of what the **caller** sends to a port of ours (its *subscribe* command), and
the relay in C takes it there as it would a caller's own packets: the same frames go to the
detector, by the same thread. This session of the relay has a caller's leg and no other: there is
nobody to whom it could relay anything, and no agent's packet ever comes in.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from typing import Any

from callshield.errors import SetupError
from callshield.messages import LegName
from callshield.messages_media import LegUpdate
from callshield.tap import TapCodec
from sipbridge.media_session import LEG_NUMBER
from sipbridge.ports import RECEIVE_BUFFER_BYTES
from sipbridge.relay_core import Core

_CALLER = LEG_NUMBER[LegName.CALLER]
_TRIES = 64


def _port_pair(address: str) -> tuple[socket.socket, socket.socket]:
    """An even port for RTP and the one above it for RTCP, chosen by the kernel.

    Raises:
        SetupError: none is free.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    why = "no pair of ports is free"
    for _ in range(_TRIES):
        rtp = socket.socket(family, socket.SOCK_DGRAM)
        rtcp = socket.socket(family, socket.SOCK_DGRAM)
        try:
            rtp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            rtp.bind((address, 0))
            port = rtp.getsockname()[1]
            if port % 2 == 0:
                rtcp.bind((address, port + 1))
                rtp.setblocking(False)
                rtcp.setblocking(False)
                return rtp, rtcp
        except OSError as error:
            why = str(error.strerror)
        rtp.close()
        rtcp.close()
    raise SetupError(f"media.rtpengine.tap_address: {address} has no port for the tap ({why})")


@dataclass(slots=True)
class TapFigures:
    """Of all taps of a call."""

    tapped: int = 0
    dropped: int = 0
    received: int = 0
    expected: int = 0
    jitter_ms: float = 0.0


class CallerTap:
    """One opening of a call's tap; a new one is made for each, so that no late packet of the one
    before comes in.

    Args:
        core: the relay, of which nothing but the tap is used.
        call_id: 32 hexadecimal digits.
        address: ours, to bind.

    Raises:
        SetupError: no port is free, or the relay is full.
    """

    def __init__(self, core: Core, call_id: str, address: str) -> None:
        self._core = core
        self._rtp, self._rtcp = _port_pair(address)
        self.port: int = self._rtp.getsockname()[1]
        self.handle = 0
        try:
            self.handle = core.open(bytes.fromhex(call_id), [], [])
            core.add_leg(self.handle, _CALLER, self._rtp.fileno(), self._rtcp.fileno())
        except (OSError, MemoryError) as error:
            self.close()
            raise SetupError(f"the tap takes no more calls: {error}") from None

    def begin(self, source: tuple[str, int], caller: LegUpdate) -> None:
        """Take packets from rtpengine's socket, and from no other, and hand them to the detector.

        Args:
            source: rtpengine's address and port, from its session description.
            caller: what is agreed on the caller's leg.
        """
        codec = TapCodec[caller.codec]
        self._core.negotiate(
            self.handle,
            _CALLER,
            source,
            0,
            "",
            int(codec),
            caller.payload_type,
            caller.event_payload_type,
            caller.comfort_noise_type,
            20,
            False,
            None,
        )
        # Nothing is relayed: there is a tap, and nothing else.
        self._core.allow(self.handle, False, False, True, False, False, False, False)

    def figures(self, so_far: TapFigures) -> None:
        """Add what came to the figures of the call."""
        if not self.handle:
            return
        legs, call = self._core.stats(self.handle)
        caller: dict[str, Any] = legs[_CALLER] or {}
        so_far.tapped += call["tapped"]
        so_far.dropped += call["tap_dropped"]
        so_far.received += caller.get("received", 0)
        so_far.expected += caller.get("expected", 0)
        so_far.jitter_ms = caller.get("jitter_ms", 0.0)

    def close(self) -> None:
        """Nothing more is taken, from this moment on; the detector is told."""
        if self.handle:
            with contextlib.suppress(KeyError):
                self._core.close_call(self.handle)
            self.handle = 0
        self._rtp.close()
        self._rtcp.close()
