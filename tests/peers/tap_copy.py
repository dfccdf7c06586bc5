"""Beside the tap: takes what goes to the detector, keeps it, and passes it on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from callshield.audio_codecs import decoder
from callshield.tap import CallerFrame, TapCodec, TapKind, decode_batch

SOUND = TapKind.AUDIO


class TapCopy:
    """A socket in the detector's place, in front of the detector's own.

    Must be started before the first call: the relay connects when it has something to say.

    Args:
        path: of the tap's socket; the detector must listen there already.
    """

    def __init__(self, path: Path) -> None:
        self._behind = path.with_name("tap-behind.sock")
        path.rename(self._behind)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(path))
        path.chmod(0o600)
        self.frames: dict[bytes, list[CallerFrame]] = defaultdict(list)
        """By call id (16 bytes), in order of arrival."""
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    def _read(self) -> None:
        while True:
            try:
                datagram = self._socket.recv(65536)
            except BlockingIOError:
                return
            # A detector that is behind loses it, as it would from the relay.
            with contextlib.suppress(BlockingIOError):
                self._socket.sendto(datagram, str(self._behind))
            for frame in decode_batch(datagram)[1]:
                self.frames[frame.call_id].append(frame)

    def sound(self, call_id: str) -> tuple[TapCodec, NDArray[np.float32]]:
        """What was tapped of a call, decoded at 8 kHz, full scale ±1; and its one codec."""
        frames = [f for f in self.frames[bytes.fromhex(call_id)] if f.kind is SOUND]
        (codec,) = {frame.codec for frame in frames}
        audio = decoder(codec, 8000)
        parts = [audio.decode(frame.payload) for frame in frames]
        return codec, np.asarray(np.concatenate(parts) / 32768, dtype=np.float32)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()


@asynccontextmanager
async def copying_tap(path: Path) -> AsyncIterator[TapCopy]:
    """A copy of the tap for as long as the block lasts."""
    copy = TapCopy(path)
    try:
        yield copy
    finally:
        copy.close()
