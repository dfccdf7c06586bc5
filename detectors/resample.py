"""Any sample rate and channel count to 8 kHz mono, whole or in blocks."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

#: The only rate inside the detector: that of G.711 telephony (RFC 3551 section 4.5.14).
RATE = 8000


def to_int16(audio: NDArray[np.float32]) -> NDArray[np.int16]:
    """Round float audio in -1..1 to int16; what is beyond is clipped, NaN becomes 0."""
    scaled = np.nan_to_num(audio, nan=0.0, posinf=1.0, neginf=-1.0) * 32767.0
    pcm: NDArray[np.int16] = np.clip(np.rint(scaled), -32768, 32767).astype(np.int16)
    return pcm


def to_mono(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of the channels: ``(n,)`` or ``(n, channels)`` to ``(n,)`` float32."""
    if block.ndim == 1:
        return block.astype(np.float32, copy=False)
    mono: NDArray[np.float32] = block.mean(axis=1, dtype=np.float32)
    return mono


class BlockResampler:
    """Resamples a stream block by block with bounded memory (soxr, quality HQ).

    Args:
        rate: sample rate of what will be pushed, in Hz.
    """

    def __init__(self, rate: int) -> None:
        self._stream = None if rate == RATE else soxr.ResampleStream(rate, RATE, 1, dtype="float32")

    def push(self, block: NDArray[np.float32], *, last: bool = False) -> NDArray[np.float32]:
        """Take mono float32 of shape ``(n,)``, return what is ready at 8 kHz, ``(m,)``."""
        if self._stream is None:
            return block
        out: NDArray[np.float32] = self._stream.resample_chunk(
            np.ascontiguousarray(block, dtype=np.float32), last=last
        )
        return out


def to_8k(audio: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Resample a whole clip, ``(n,)`` or ``(n, channels)``, to 8 kHz mono float32."""
    return BlockResampler(rate).push(to_mono(audio), last=True)
