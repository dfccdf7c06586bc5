"""The audio of one call on its way to decisions: packets in, half-second hops out.

Packets are put back into the order of their sequence numbers, decoded at the detector's 8 kHz and
laid down by their RTP timestamp (RFC 3550 section 5.1), whose clock is the codec's own: a gap is
silence, a short loss in an Opus stream what its decoder makes of it. What waits is bounded; when
the detector cannot keep up the oldest audio goes first and is counted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from callshield.audio_codecs import RTP_CLOCK_HZ, STATELESS, Decoder, decoder
from callshield.errors import CodecError
from callshield.tap import TapCodec
from detectors import features
from detectors.reorder import Released, ReorderBuffer
from detectors.resample import RATE
from detectors.speech import CallerEar
from detectors.vad import FRAME

#: Frames (20 ms) between two decisions: two a second.
HOP_FRAMES = 25
HOP_SAMPLES = HOP_FRAMES * FRAME
HOP_S = 0.5
#: Frames (20 ms) under one decision.
WINDOW_FRAMES = 50
#: Used frames without which a window says nothing: 0.3 s of speech.
MIN_USED_FRAMES = 15
#: Longest gap that is filled with silence; beyond it time simply goes on.
MAX_FILL_SAMPLES = 4000
#: Hops that may wait; beyond it the oldest is dropped.
MAX_WAITING_HOPS = 6
#: Longest loss that a codec may fill with what it guesses: beyond 60 ms that is no speech.
MAX_CONCEALED_SAMPLES = 480


class _Packet(NamedTuple):
    codec: TapCodec
    timestamp: int
    payload: bytes
    echo: bool


class CallStream:
    """Audio of one call: what waits, and the tracks of its last window."""

    __slots__ = (
        "_before",
        "_clock_hz",
        "_codec",
        "_decoder",
        "_next_timestamp",
        "_reorder",
        "_waiting",
        "bad_packets",
        "dropped_samples",
        "ear",
        "filled_samples",
        "late_packets",
        "samples_taken",
        "speech",
        "tracks",
    )

    def __init__(self) -> None:
        self._waiting = np.zeros(0, dtype=np.int16)
        self._before = np.zeros(FRAME, dtype=np.int16)
        self._next_timestamp: int | None = None
        self._reorder: ReorderBuffer[_Packet] = ReorderBuffer()
        self._decoder: Decoder | None = None
        self._codec: TapCodec | None = None
        self._clock_hz = 0
        self.ear = CallerEar()
        self.tracks = np.zeros((WINDOW_FRAMES, features.TRACK_COUNT), dtype=np.float32)
        self.speech = np.zeros(WINDOW_FRAMES, dtype=np.bool_)
        self.samples_taken = 0
        self.dropped_samples = 0
        self.filled_samples = 0
        self.late_packets = 0
        self.bad_packets = 0

    def push(
        self, codec: TapCodec, sequence: int, timestamp: int, payload: bytes, echo: bool = False
    ) -> None:
        """Take one packet; it is laid down when its turn has come.

        Args:
            codec: how ``payload`` is encoded; it may change from one packet to the next.
            sequence: RTP sequence number, 0-65535.
            timestamp: RTP timestamp in the codec's clock, modulo 2**32.
            payload: of one packet.
            echo: it may be the echo of the agent, who is never analysed: laid down as silence.

        Raises:
            SetupError: the codec's library is not installed.
        """
        if self._reorder.pass_on(sequence):
            self._lay(_Packet(codec, timestamp, payload, echo), 0)
            return
        for released in self._reorder.push(sequence, _Packet(codec, timestamp, payload, echo)):
            self._release(released)

    def settle(self) -> None:
        """Lay down what waits for a packet that has not come: nothing more is expected now."""
        for released in self._reorder.settle():
            self._release(released)

    def _release(self, released: Released[_Packet]) -> None:
        packet = released.packet
        if not released.late:
            self._lay(packet, released.lost)
            return
        self.late_packets += 1
        if packet.codec in STATELESS and packet.codec is self._codec:
            self._lay_late(packet)

    def _lay(self, packet: _Packet, lost: int) -> None:
        codec, timestamp, payload, echo = packet
        source = self._decoder
        if source is None or codec is not self._codec:
            source = self._begin(codec)
        if self._next_timestamp is None:
            self._next_timestamp = timestamp
        elif timestamp != self._next_timestamp:
            ahead = self._samples_ahead(codec, timestamp)
            if 0 < ahead <= MAX_FILL_SAMPLES:
                self.filled_samples += ahead
                concealed = lost and ahead <= MAX_CONCEALED_SAMPLES
                self.push_pcm(
                    source.conceal(ahead, payload) if concealed else np.zeros(ahead, np.int16)
                )
            self._next_timestamp = timestamp
        try:
            pcm = source.decode(payload)
        except CodecError:
            # Its time passes: the next packet finds a gap and fills it.
            self.bad_packets += 1
            return
        self._next_timestamp = (timestamp + len(pcm) * self._clock_hz // RATE) % 2**32
        self.push_pcm(np.zeros_like(pcm) if echo else pcm)

    def _begin(self, codec: TapCodec) -> Decoder:
        """A new decoder; the timestamp goes on where the clock is the same."""
        made = decoder(codec, RATE)
        if RTP_CLOCK_HZ[codec] != self._clock_hz:
            self._next_timestamp = None
        self._decoder, self._codec, self._clock_hz = made, codec, RTP_CLOCK_HZ[codec]
        return made

    def _samples_ahead(self, codec: TapCodec, timestamp: int) -> int:
        """Distance from the end of what was laid down, in samples."""
        assert self._next_timestamp is not None
        # Signed distance modulo 2**32 (RFC 1982 arithmetic).
        ticks = (timestamp - self._next_timestamp + 2**31) % 2**32 - 2**31
        return ticks * RATE // RTP_CLOCK_HZ[codec]

    def _lay_late(self, packet: _Packet) -> None:
        """Put a late packet into its place among what waits, as far as that was not taken."""
        if self._next_timestamp is None or self._decoder is None:
            return
        pcm = self._decoder.decode(packet.payload)
        if packet.echo:
            pcm = np.zeros_like(pcm)
        start = len(self._waiting) + self._samples_ahead(packet.codec, packet.timestamp)
        kept = pcm[min(-start, len(pcm)) :] if start < 0 else pcm
        start = max(start, 0)
        end = min(start + len(kept), len(self._waiting))
        self._waiting[start:end] = kept[: max(end - start, 0)]

    def push_pcm(self, pcm: NDArray[np.int16]) -> None:
        """Append 8 kHz int16 samples of shape ``(n,)``."""
        self._waiting = np.concatenate([self._waiting, pcm])
        surplus = len(self._waiting) - MAX_WAITING_HOPS * HOP_SAMPLES
        if surplus > 0:
            self.dropped_samples += surplus
            self._waiting = self._waiting[surplus:].copy()

    @property
    def ready(self) -> bool:
        """A whole hop waits."""
        return len(self._waiting) >= HOP_SAMPLES

    @property
    def at_s(self) -> float:
        """Seconds of audio taken so far, dropped audio included."""
        return (self.samples_taken + self.dropped_samples) / 8000.0

    def reset_audio(self) -> None:
        """Forget all audio; what comes next has nothing to do with what came before."""
        self._waiting = np.zeros(0, dtype=np.int16)
        self._before = np.zeros(FRAME, dtype=np.int16)
        self._next_timestamp = None
        self._reorder = ReorderBuffer()
        self._decoder = None
        self.ear.forget()
        self.tracks[:] = 0.0
        self.speech[:] = False

    def flush(self) -> None:
        """Fill the last, incomplete hop with silence: the audio has ended."""
        self.settle()
        rest = len(self._waiting) % HOP_SAMPLES
        if rest:
            self._waiting = np.concatenate(
                [self._waiting, np.zeros(HOP_SAMPLES - rest, dtype=np.int16)]
            )

    def take_hop(self) -> NDArray[np.int16]:
        """The oldest waiting hop with the frame before it, ``(160 + HOP_SAMPLES,)`` int16."""
        hop = np.concatenate([self._before, self._waiting[:HOP_SAMPLES]])
        self._waiting = self._waiting[HOP_SAMPLES:]
        self._before = hop[-FRAME:]
        self.samples_taken += HOP_SAMPLES
        return hop

    def shift_in(self, tracks: NDArray[np.float32] | None, speech: NDArray[np.bool_]) -> None:
        """Move the window on by one hop; ``tracks`` of a hop without speech may be None."""
        self.tracks[:-HOP_FRAMES] = self.tracks[HOP_FRAMES:]
        self.speech[:-HOP_FRAMES] = self.speech[HOP_FRAMES:]
        self.tracks[-HOP_FRAMES:] = 0.0 if tracks is None else tracks
        self.speech[-HOP_FRAMES:] = speech
