"""The voice codecs, decoded and encoded stream by stream: G.711, G.722, Opus.

Every stream has its own decoder: G.722 and Opus carry state from packet to packet, so packets go
in in the order of their sequence numbers. The libraries are loaded at the first stream that needs
them: a node with G.711 alone never has them in memory. Nothing here is shared between threads.

G.722 is decoded by libg722 (ITU-T G.722, 64 kbit/s), Opus by libopus (RFC 6716). Both decode to
8 kHz by themselves (G.722: its lower sub-band; Opus: any band), which costs half as much as
16 kHz and a resampler, and adds no delay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from callshield import g711
from callshield.errors import CodecError, SetupError
from callshield.tap import TapCodec

#: RTP timestamp clock (RFC 3551 section 4.5.2: 8000 for G.722, an old error kept for ever; RFC
#: 7587 section 4.1: 48000 for Opus, whatever its band).
RTP_CLOCK_HZ: Final = {
    TapCodec.PCMU: 8000,
    TapCodec.PCMA: 8000,
    TapCodec.G722: 8000,
    TapCodec.OPUS: 48000,
}
#: The rates that a codec can be decoded to, the best one for speech first.
DECODED_RATES_HZ: Final = {
    TapCodec.PCMU: (8000,),
    TapCodec.PCMA: (8000,),
    TapCodec.G722: (16000, 8000),
    TapCodec.OPUS: (16000, 8000, 48000),
}
#: Whether a packet can be decoded without the ones before it.
STATELESS: Final = frozenset({TapCodec.PCMU, TapCodec.PCMA})
#: Packet lengths of Opus that hold one frame (RFC 6716 section 2.1.4); 2.5 and 5 are not for us.
OPUS_PACKET_MS: Final = (10, 20, 40, 60)
#: Bits a second of encoded Opus: RFC 7587 section 3.1.1 wants 8-12 for narrow, 16-20 for wide band
#: speech; more is little beside G.711's 64 and leaves room for the redundancy.
OPUS_BITRATE: Final = 32000


class Decoder(Protocol):
    """One received stream."""

    @property
    def rate_hz(self) -> int:
        """Sample rate of what comes out."""

    def decode(self, payload: bytes) -> NDArray[np.int16]:
        """The samples of the next packet, shape ``(n,)``.

        Raises:
            CodecError: the bytes are not of this codec; the stream can go on.
        """

    def conceal(self, samples: int, following: bytes = b"") -> NDArray[np.int16]:
        """Something for packets that never came, shape ``(samples,)``.

        Silence, except for Opus, whose library has a concealment of its own.

        Args:
            samples: how many are missing, at :attr:`rate_hz`.
            following: the packet after the gap, to be decoded next.
        """

    def reset(self) -> None:
        """Forget what came before."""


class _G711Decoder:
    __slots__ = ("_law",)
    rate_hz = 8000

    def __init__(self, law: int) -> None:
        self._law = law

    def decode(self, payload: bytes) -> NDArray[np.int16]:
        return g711.decode(payload, self._law)

    def conceal(self, samples: int, following: bytes = b"") -> NDArray[np.int16]:
        return np.zeros(samples, np.int16)

    def reset(self) -> None:
        """There is nothing to forget."""


class _G722Decoder:
    __slots__ = ("_codec", "rate_hz")

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self._codec = _g722(rate_hz)

    def decode(self, payload: bytes) -> NDArray[np.int16]:
        if not payload:
            raise CodecError("a G.722 packet of no bytes")
        return np.frombuffer(self._codec.decode(payload), np.int16)

    def conceal(self, samples: int, following: bytes = b"") -> NDArray[np.int16]:
        return np.zeros(samples, np.int16)

    def reset(self) -> None:
        self._codec = _g722(self.rate_hz)


class _G722(Protocol):
    def decode(self, payload: bytes) -> bytes: ...
    def encode(self, samples: NDArray[np.int16]) -> bytes: ...


def _g722(rate_hz: int) -> _G722:
    try:
        from G722 import G722
    except ImportError as error:
        raise SetupError(
            f"G.722 cannot be decoded ({error}): run `./run setup` again, or offer no G.722"
        ) from None
    made: _G722 = G722(rate_hz, 64000)
    return made


def decoder(codec: TapCodec, rate_hz: int | None = None) -> Decoder:
    """A decoder for one stream.

    Args:
        codec: of the stream.
        rate_hz: one of :data:`DECODED_RATES_HZ`, the first of them by default.

    Raises:
        SetupError: the library is not installed.
        CodecError: this codec is not decoded to that rate.
    """
    rates = DECODED_RATES_HZ[codec]
    chosen = rates[0] if rate_hz is None else rate_hz
    if chosen not in rates:
        raise CodecError(f"{codec.name} is not decoded to {chosen} Hz, only to {rates}")
    if codec in STATELESS:
        return _G711Decoder(codec)
    if codec is TapCodec.G722:
        return _G722Decoder(chosen)
    # Only here is the binding needed, and with it the library.
    from callshield.libopus import OpusDecoder

    return OpusDecoder(chosen)


class Encoder:
    """Speech into packets of one length; what is left over waits for the next call.

    Made by :func:`encoder`.

    Args:
        rate_hz: of the samples that go in.
        packet_ms: length of each packet.
        encode_one: makes one packet of that many samples.
    """

    __slots__ = ("_encode_one", "_rest", "packet_ms", "packet_samples", "rate_hz")

    def __init__(
        self, rate_hz: int, packet_ms: int, encode_one: Callable[[NDArray[np.int16]], bytes]
    ) -> None:
        self.rate_hz = rate_hz
        self.packet_ms = packet_ms
        self.packet_samples = rate_hz * packet_ms // 1000
        self._encode_one = encode_one
        self._rest = np.zeros(0, np.int16)

    def encode(self, samples: NDArray[np.int16]) -> list[bytes]:
        """The packets that int16 samples of shape ``(n,)`` complete, in order."""
        pcm = np.concatenate([self._rest, samples])
        whole = len(pcm) // self.packet_samples * self.packet_samples
        self._rest = pcm[whole:]
        return [
            self._encode_one(np.ascontiguousarray(part))
            for part in pcm[:whole].reshape(-1, self.packet_samples)
        ]

    def finish(self) -> list[bytes]:
        """The last packet, filled up with silence; none when nothing is left over."""
        missing = -len(self._rest) % self.packet_samples
        return self.encode(np.zeros(missing, np.int16))


def packet_ms(codec: TapCodec, ptime_ms: int) -> int:
    """Length of the packets that are sent to a far end that wants ``ptime_ms``.

    G.711 and G.722 take every length of 10 to 60 ms in steps of 10. An Opus packet of ours holds
    one frame: the longest that is not longer than what is wanted, so 20 ms for 30 and 40 for 50.
    """
    wanted = min(60, max(10, ptime_ms // 10 * 10))
    if codec is TapCodec.OPUS:
        return max(length for length in OPUS_PACKET_MS if length <= wanted)
    return wanted


def encoder(codec: TapCodec, ptime_ms: int, rate_hz: int | None = None) -> Encoder:
    """An encoder for one stream.

    Args:
        codec: of the stream.
        ptime_ms: what the far end wants; see :func:`packet_ms` for what it gets.
        rate_hz: of the samples that will be given, one of :data:`DECODED_RATES_HZ`.

    Raises:
        SetupError: the library is not installed.
        CodecError: this codec does not take that rate.
    """
    rates = DECODED_RATES_HZ[codec]
    chosen = rates[0] if rate_hz is None else rate_hz
    if chosen not in rates:
        raise CodecError(f"{codec.name} is not encoded from {chosen} Hz, only from {rates}")
    length = packet_ms(codec, ptime_ms)
    if codec in STATELESS:
        return Encoder(chosen, length, lambda samples: g711.encode(samples, codec))
    if codec is TapCodec.G722:
        return Encoder(chosen, length, _g722(chosen).encode)
    from callshield.libopus import OpusEncoder

    return Encoder(chosen, length, OpusEncoder(chosen, OPUS_BITRATE).encode)
