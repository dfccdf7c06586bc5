"""Opus (RFC 6716) by the system's libopus, through ctypes: one decoder and one encoder a stream.

The library is on every node already, because pjsua2 is linked to it, and the distribution patches
it. Only this module knows its C interface. It is loaded at the first use.
"""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np
from numpy.typing import NDArray

from callshield.errors import CodecError, SetupError

#: What an Opus stream can be decoded to or encoded from (RFC 6716 section 2).
RATES_HZ = (8000, 12000, 16000, 24000, 48000)
#: Longest packet (RFC 6716 section 3.2.5), and the longest that is concealed at once.
MAX_PACKET_MS = 120
#: Bytes that no packet of one channel for the telephone exceeds (RFC 6716 section 3.4, R2).
_MAX_PACKET_BYTES = 1275

_OK = 0
_APPLICATION_VOIP = 2048
_SET_BITRATE = 4002
_SET_INBAND_FEC = 4012
_SET_PACKET_LOSS_PERC = 4014
_SET_SIGNAL = 4024
_SIGNAL_VOICE = 3001
_RESET_STATE = 4028


@cache
def _library() -> ctypes.CDLL:
    try:
        opus = ctypes.CDLL("libopus.so.0")
    except OSError as error:
        raise SetupError(
            f"Opus cannot be decoded ({error}): install libopus0, or offer no Opus"
        ) from None
    size, whole, pointer = ctypes.c_int32, ctypes.c_int, ctypes.c_void_p
    opus.opus_strerror.argtypes = [whole]
    opus.opus_strerror.restype = ctypes.c_char_p
    opus.opus_get_version_string.restype = ctypes.c_char_p
    opus.opus_decoder_get_size.argtypes = [whole]
    opus.opus_decoder_init.argtypes = [pointer, size, whole]
    opus.opus_decode.argtypes = [pointer, ctypes.c_char_p, size, pointer, whole, whole]
    opus.opus_decoder_ctl.argtypes = [pointer, whole]
    opus.opus_encoder_get_size.argtypes = [whole]
    opus.opus_encoder_init.argtypes = [pointer, size, whole, whole]
    opus.opus_encode.argtypes = [pointer, pointer, whole, pointer, size]
    opus.opus_encoder_ctl.argtypes = [pointer, whole]
    return opus


def version() -> str:
    """The library's own name of itself.

    Raises:
        SetupError: it is not installed.
    """
    return bytes(_library().opus_get_version_string()).decode("ascii", "replace")


def _sentence(code: int) -> str:
    return bytes(_library().opus_strerror(code)).decode("ascii", "replace")


def _state(size_bytes: int) -> NDArray[np.uint64]:
    """Memory for a codec's state, aligned for it; freed with the array."""
    return np.zeros(size_bytes // 8 + 1, np.uint64)


class OpusDecoder:
    """One received stream, mono; a stereo one is mixed down by the library.

    Args:
        rate_hz: one of :data:`RATES_HZ`; the library limits the band itself.

    Raises:
        SetupError: libopus is not installed.
    """

    __slots__ = ("_opus", "_out", "_out_at", "_state", "_state_at", "rate_hz")

    def __init__(self, rate_hz: int) -> None:
        self._opus = _library()
        self.rate_hz = rate_hz
        self._state = _state(self._opus.opus_decoder_get_size(1))
        self._state_at = self._state.ctypes.data
        self._out = np.empty(rate_hz * MAX_PACKET_MS // 1000, np.int16)
        self._out_at = self._out.ctypes.data
        code = self._opus.opus_decoder_init(self._state_at, rate_hz, 1)
        if code != _OK:
            raise SetupError(f"libopus takes no {rate_hz} Hz ({_sentence(code)}): update libopus0")

    def decode(self, payload: bytes) -> NDArray[np.int16]:
        """One packet, int16 of shape ``(n,)`` at :attr:`rate_hz`.

        Raises:
            CodecError: the bytes are no Opus packet; the stream can go on.
        """
        return self._run(payload, len(payload), len(self._out), 0) if payload else self._none()

    def conceal(self, samples: int, following: bytes = b"") -> NDArray[np.int16]:
        """What was lost, from the redundancy in the next packet or from what came before.

        Args:
            samples: length of the loss at :attr:`rate_hz`; silence beyond 120 ms.
            following: the packet after the loss, not decoded yet; it may hold the lost one in
                short form (RFC 6716 section 2.1.7).

        Returns:
            int16 of shape ``(samples,)``.
        """
        out = np.zeros(samples, np.int16)
        step = self.rate_hz // 400
        whole = min(samples, len(self._out)) // step * step
        if whole:
            try:
                known = self._run(following or None, len(following), whole, int(bool(following)))
            except CodecError:
                known = self._run(None, 0, whole, 0)
            out[: len(known)] = known
        return out

    def reset(self) -> None:
        """What comes next has nothing to do with what came before."""
        self._opus.opus_decoder_ctl(self._state_at, _RESET_STATE)

    def _none(self) -> NDArray[np.int16]:
        raise CodecError("an Opus packet of no bytes")

    def _run(self, payload: bytes | None, size: int, room: int, fec: int) -> NDArray[np.int16]:
        count = self._opus.opus_decode(self._state_at, payload, size, self._out_at, room, fec)
        if count < 0:
            raise CodecError(f"{size} bytes are no Opus packet ({_sentence(count)})")
        return self._out[:count].copy()


class OpusEncoder:
    """One stream to be sent, mono, voice, with the redundancy that losses are mended from.

    Args:
        rate_hz: one of :data:`RATES_HZ`.
        bitrate: bits a second, on the average.

    Raises:
        SetupError: libopus is not installed.
    """

    __slots__ = ("_opus", "_out", "_state", "_state_at", "rate_hz")

    def __init__(self, rate_hz: int, bitrate: int) -> None:
        self._opus = _library()
        self.rate_hz = rate_hz
        self._state = _state(self._opus.opus_encoder_get_size(1))
        self._state_at = self._state.ctypes.data
        self._out = ctypes.create_string_buffer(_MAX_PACKET_BYTES)
        code = self._opus.opus_encoder_init(self._state_at, rate_hz, 1, _APPLICATION_VOIP)
        if code != _OK:
            raise SetupError(f"libopus takes no {rate_hz} Hz ({_sentence(code)}): update libopus0")
        for request, value in (
            (_SET_BITRATE, bitrate),
            (_SET_SIGNAL, _SIGNAL_VOICE),
            (_SET_INBAND_FEC, 1),
            (_SET_PACKET_LOSS_PERC, 10),
        ):
            self._opus.opus_encoder_ctl(self._state_at, request, ctypes.c_int32(value))

    def encode(self, samples: NDArray[np.int16]) -> bytes:
        """One packet of int16 samples, shape ``(n,)``: 10, 20, 40 or 60 ms.

        Raises:
            CodecError: any other length.
        """
        pcm = np.ascontiguousarray(samples, np.int16)
        size = self._opus.opus_encode(
            self._state_at, pcm.ctypes.data, len(pcm), self._out, _MAX_PACKET_BYTES
        )
        if size < 0:
            raise CodecError(f"{len(pcm)} samples make no Opus packet ({_sentence(size)})")
        return self._out.raw[:size]
