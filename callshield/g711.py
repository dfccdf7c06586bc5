"""G.711 by table (ITU-T G.711): encode, decode, transcode, mix.

The two laws go by their static RTP payload types (RFC 3551 section 6): 0 is µ-law (PCMU), 8 is
A-law (PCMA). Everything is a lookup: a frame of 160 bytes costs about a microsecond.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

PCMU = 0
PCMA = 8
#: Payload types of the voice codecs that the relay carries.
VOICE_PAYLOAD_TYPES = (PCMU, PCMA)
#: One byte of digital silence, by payload type.
SILENCE = {PCMU: b"\xff", PCMA: b"\xd5"}
SAMPLE_RATE_HZ = 8000

_MULAW_SEGMENT_ENDS = np.array([0x3F, 0x7F, 0xFF, 0x1FF, 0x3FF, 0x7FF, 0xFFF, 0x1FFF])
#: The largest 14-bit magnitude that fits the last segment with the bias of 33 added.
_MULAW_CLIP = 0x1FFF - 0x21
_ALAW_SEGMENT_ENDS = np.array([0x1F, 0x3F, 0x7F, 0xFF, 0x1FF, 0x3FF, 0x7FF, 0xFFF])


def _decode_mulaw() -> NDArray[np.int16]:
    code = ~np.arange(256) & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84) << ((code & 0x70) >> 4)
    return np.where(code & 0x80, 0x84 - magnitude, magnitude - 0x84).astype(np.int16)


def _decode_alaw() -> NDArray[np.int16]:
    code = np.arange(256) ^ 0x55
    segment = (code & 0x70) >> 4
    magnitude = ((code & 0x0F) << 4) + np.where(segment == 0, 8, 0x108)
    magnitude <<= np.maximum(segment - 1, 0)
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


def _encode_mulaw() -> NDArray[np.uint8]:
    linear = np.arange(-32768, 32768) >> 2
    mask = np.where(linear < 0, 0x7F, 0xFF)
    magnitude = np.minimum(np.abs(linear), _MULAW_CLIP) + 0x21
    segment = np.searchsorted(_MULAW_SEGMENT_ENDS, magnitude)
    code = (segment << 4) | ((magnitude >> (segment + 1)) & 0x0F)
    # Index 0 is linear 0: the second half of the table holds the negative samples, so that the
    # bits of an int16 read as uint16 are the index.
    table: NDArray[np.uint8] = np.roll(code ^ mask, 32768).astype(np.uint8)
    return table


def _encode_alaw() -> NDArray[np.uint8]:
    linear = np.arange(-32768, 32768) >> 3
    mask = np.where(linear < 0, 0x55, 0xD5)
    magnitude = np.where(linear < 0, -linear - 1, linear)
    segment = np.searchsorted(_ALAW_SEGMENT_ENDS, magnitude)
    code = (segment << 4) | ((magnitude >> np.maximum(segment, 1)) & 0x0F)
    table: NDArray[np.uint8] = np.roll(code ^ mask, 32768).astype(np.uint8)
    return table


_DECODE = {PCMU: _decode_mulaw(), PCMA: _decode_alaw()}
_ENCODE = {PCMU: _encode_mulaw(), PCMA: _encode_alaw()}


def decode(payload: bytes, payload_type: int) -> NDArray[np.int16]:
    """Linear samples of a G.711 payload.

    Args:
        payload: one byte a sample (RFC 3551 section 4.5.14).
        payload_type: 0 (µ-law) or 8 (A-law).

    Returns:
        int16 of shape (len(payload),).
    """
    return _DECODE[payload_type][np.frombuffer(payload, np.uint8)]


def encode(samples: NDArray[np.int16], payload_type: int) -> bytes:
    """G.711 bytes of linear samples.

    Args:
        samples: int16, shape (n,).
        payload_type: 0 (µ-law) or 8 (A-law).
    """
    return _ENCODE[payload_type][samples.view(np.uint16)].tobytes()


@cache
def transcoding_table(source: int, target: int) -> bytes | None:
    """256 bytes for ``bytes.translate`` from one law to the other; None when they are the same."""
    if source == target:
        return None
    return encode(_DECODE[source], target)
