"""G.711: 8-bit µ-law and A-law, as tables (ITU-T G.711, 11/1988)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Clip level of the 14-bit µ-law coder on a 16-bit scale (G.711 table 2).
_ULAW_CLIP = 32635
_ULAW_BIAS = 132


def _ulaw_decode_table() -> NDArray[np.int16]:
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    magnitude = ((((code & 0x0F) << 3) + _ULAW_BIAS) << ((code & 0x70) >> 4)) - _ULAW_BIAS
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw_decode_table() -> NDArray[np.int16]:
    code = np.arange(256, dtype=np.int32) ^ 0x55
    segment = (code & 0x70) >> 4
    mantissa = (code & 0x0F) << 4
    linear = np.where(segment == 0, mantissa + 8, (mantissa + 0x108) << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, linear, -linear).astype(np.int16)


def _ulaw_encode_table() -> NDArray[np.uint8]:
    pcm = np.arange(-32768, 32768, dtype=np.int32)
    sign = np.where(pcm < 0, 0x80, 0)
    magnitude = np.minimum(np.abs(pcm), _ULAW_CLIP) + _ULAW_BIAS
    exponent = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    mantissa = (magnitude >> (exponent + 3)) & 0x0F
    code: NDArray[np.uint8] = (~(sign | (exponent << 4) | mantissa) & 0xFF).astype(np.uint8)
    return code


def _alaw_encode_table() -> NDArray[np.uint8]:
    pcm = np.arange(-32768, 32768, dtype=np.int32)
    # 13-bit arithmetic with one's complement of negatives, as the reference coder does.
    linear = np.where(pcm >= 0, pcm >> 3, -(pcm >> 3) - 1)
    sign = np.where(pcm >= 0, 0xD5, 0x55)
    segment = np.maximum(np.floor(np.log2(np.maximum(linear, 1))).astype(np.int32) - 4, 0)
    mantissa = np.where(segment < 2, linear >> 1, linear >> np.maximum(segment, 1)) & 0x0F
    return (((segment << 4) | mantissa) ^ sign).astype(np.uint8)


#: 256 µ-law codes to 16-bit linear samples.
ULAW_TO_PCM: NDArray[np.int16] = _ulaw_decode_table()
#: 256 A-law codes to 16-bit linear samples.
ALAW_TO_PCM: NDArray[np.int16] = _alaw_decode_table()
#: 65536 linear samples (index ``sample + 32768``) to µ-law codes.
PCM_TO_ULAW: NDArray[np.uint8] = _ulaw_encode_table()
#: 65536 linear samples (index ``sample + 32768``) to A-law codes.
PCM_TO_ALAW: NDArray[np.uint8] = _alaw_encode_table()


def decode_ulaw(payload: bytes) -> NDArray[np.int16]:
    """Decode PCMU (RFC 3551 section 4.5.14), one byte a sample, to int16 of shape ``(n,)``."""
    return ULAW_TO_PCM[np.frombuffer(payload, dtype=np.uint8)]


def decode_alaw(payload: bytes) -> NDArray[np.int16]:
    """Decode PCMA (RFC 3551 section 4.5.14), one byte a sample, to int16 of shape ``(n,)``."""
    return ALAW_TO_PCM[np.frombuffer(payload, dtype=np.uint8)]


def encode_ulaw(pcm: NDArray[np.int16]) -> bytes:
    """Encode int16 samples of shape ``(n,)`` as PCMU."""
    return PCM_TO_ULAW[pcm.astype(np.int32) + 32768].tobytes()


def encode_alaw(pcm: NDArray[np.int16]) -> bytes:
    """Encode int16 samples of shape ``(n,)`` as PCMA."""
    return PCM_TO_ALAW[pcm.astype(np.int32) + 32768].tobytes()


def to_int16(audio: NDArray[np.float32]) -> NDArray[np.int16]:
    """Round float audio in -1..1 to int16; what is beyond is clipped, NaN becomes 0."""
    scaled = np.nan_to_num(audio, nan=0.0, posinf=1.0, neginf=-1.0) * 32767.0
    pcm: NDArray[np.int16] = np.clip(np.rint(scaled), -32768, 32767).astype(np.int16)
    return pcm
