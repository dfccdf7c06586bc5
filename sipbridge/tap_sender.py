"""Send the caller's frames to the detector: one batch a tick for all calls, never waiting.

A receiver that is away costs its frames; one that is slow has a second to catch up (its
socket's queue is short: ten datagrams by default), then the oldest batches go. All of it is
counted, none of it is felt by the relay.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from callshield.tap import BatchWriter, TapCodec, TapKind

#: Batches kept for a receiver whose queue is full: one second of ticks.
BACKLOG_BATCHES = 50
#: Asked for; the kernel grants up to net.core.wmem_max. A datagram may be 64 KiB.
SEND_BUFFER_BYTES = 4 * 1024 * 1024
#: An enumeration's member costs an attribute look-up and a conversion a packet.
_AUDIO = int(TapKind.AUDIO)


class CallTap:
    """The tap of one call's caller; made for a :class:`sipbridge.relay.CallerLeg` alone.

    Args:
        sender: where the frames are gathered.
        call_id: 32 hexadecimal digits.
    """

    __slots__ = ("_add", "_id", "_sender", "announced", "call_id", "dropped", "tapped")

    def __init__(self, sender: TapSender, call_id: str) -> None:
        self._sender = sender
        self._add = sender.writer.add
        self._id = bytes.fromhex(call_id)
        self.call_id = call_id
        self.tapped = 0
        """Frames that reached the detector's socket."""
        self.dropped = 0
        """Frames that did not."""
        self.announced = False
        """The first frame was sent."""

    def frame(
        self, codec: int, sequence: int, timestamp: int, now: float, payload: bytearray
    ) -> None:
        """Take one voice payload of the caller."""
        arrived_ms = int(now * 1000) & 0xFFFFFFFF
        if not self._add(self._id, _AUDIO, codec, sequence, timestamp, arrived_ms, payload):
            self._sender.seal()
            self._add(self._id, _AUDIO, codec, sequence, timestamp, arrived_ms, payload)
        self._sender.audio_of.append(self)

    def detach(self, now: float) -> None:
        """Tell the detector that nothing more comes, for now or for good."""
        arrived_ms = int(now * 1000) & 0xFFFFFFFF
        if not self._add(self._id, TapKind.DETACH, TapCodec.PCMU, 0, 0, arrived_ms, b""):
            self._sender.seal()
            self._add(self._id, TapKind.DETACH, TapCodec.PCMU, 0, 0, arrived_ms, b"")


@dataclass(frozen=True, slots=True)
class _Batch:
    datagram: bytes
    audio_of: list[CallTap]
    """The call of each audio record."""


class TapSender:
    """The non-blocking Unix datagram socket to the detector.

    Args:
        path: the detector's socket; it may appear, vanish and come back at any time.
        on_first_frame: called once a call, when its first frame was sent.
    """

    def __init__(self, path: Path, on_first_frame: Callable[[str], None]) -> None:
        self._path = str(path)
        self._on_first_frame = on_first_frame
        self._socket: socket.socket | None = None
        self.writer = BatchWriter()
        """This tick's datagram."""
        self.audio_of: list[CallTap] = []
        """The call of each audio record in it."""
        self._backlog: deque[_Batch] = deque()
        self.tapped = 0
        """Frames sent, all calls."""
        self.dropped = 0
        """Frames lost, all calls."""

    def flush(self) -> None:
        """Send what was gathered; called once a tick."""
        self.seal()
        while self._backlog:
            sent = self._send(self._backlog[0].datagram)
            if sent is None:
                # Full: keep the newest second.
                while len(self._backlog) > BACKLOG_BATCHES:
                    self._drop(self._backlog.popleft())
                return
            batch = self._backlog.popleft()
            if sent:
                self._count(batch)
            else:
                self._drop(batch)

    def close(self) -> None:
        """Send what can be sent and close."""
        self.flush()
        while self._backlog:
            self._drop(self._backlog.popleft())
        self._disconnect()

    def seal(self) -> None:
        """End the datagram that is being written, and begin another one."""
        if self.writer.records:
            self._backlog.append(_Batch(self.writer.take(time.monotonic_ns()), self.audio_of))
            self.audio_of = []

    def _send(self, datagram: bytes) -> bool | None:
        """True: sent; False: nobody there; None: the receiver's queue is full."""
        for _ in range(2):
            if self._socket is None and not self._connect():
                return False
            assert self._socket is not None
            try:
                self._socket.send(datagram)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    return None
                # The detector died, perhaps another one listens at the same path already.
                self._disconnect()
            else:
                return True
        return False

    def _connect(self) -> bool:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        made.setblocking(False)
        with contextlib.suppress(OSError):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        try:
            made.connect(self._path)
        except OSError:
            made.close()
            return False
        self._socket = made
        return True

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _count(self, batch: _Batch) -> None:
        self.tapped += len(batch.audio_of)
        for tap in batch.audio_of:
            tap.tapped += 1
            if not tap.announced:
                tap.announced = True
                self._on_first_frame(tap.call_id)

    def _drop(self, batch: _Batch) -> None:
        self.dropped += len(batch.audio_of)
        for tap in batch.audio_of:
            tap.dropped += 1
