"""The audio of one call on its way to decisions: packets in, half-second hops out.

Packets are laid down by their RTP timestamp (RFC 3550 section 5.1): a gap is silence until a
late packet fills it, a repeated packet lands where it was. What waits is bounded; when the
detector cannot keep up the oldest audio goes first and is counted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from callshield.tap import TapCodec
from detectors import features, g711
from detectors.vad import FRAME, FrameChecks, VoiceActivity

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

_TABLES = {TapCodec.PCMU: g711.ULAW_TO_PCM, TapCodec.PCMA: g711.ALAW_TO_PCM}


class CallStream:
    """Audio of one call: what waits, and the tracks of its last window."""

    __slots__ = (
        "_before",
        "_next_timestamp",
        "_vad",
        "_waiting",
        "dropped_samples",
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
        self._vad = VoiceActivity()
        self.tracks = np.zeros((WINDOW_FRAMES, features.TRACK_COUNT), dtype=np.float32)
        self.speech = np.zeros(WINDOW_FRAMES, dtype=np.bool_)
        self.samples_taken = 0
        self.dropped_samples = 0
        self.filled_samples = 0
        self.late_packets = 0

    def push(self, codec: TapCodec, timestamp: int, payload: bytes) -> None:
        """Lay down one packet.

        Args:
            codec: how ``payload`` is encoded.
            timestamp: RTP timestamp, 8 kHz clock, modulo 2**32.
            payload: one byte a sample.
        """
        pcm = _TABLES[codec][np.frombuffer(payload, dtype=np.uint8)]
        if self._next_timestamp is None:
            self._next_timestamp = timestamp
        # Signed distance modulo 2**32 (RFC 1982 arithmetic).
        ahead = (timestamp - self._next_timestamp + 2**31) % 2**32 - 2**31
        if ahead < 0:
            self._lay_late(pcm, ahead)
            return
        if 0 < ahead <= MAX_FILL_SAMPLES:
            self.filled_samples += ahead
            pcm = np.concatenate([np.zeros(ahead, dtype=np.int16), pcm])
        self._next_timestamp = (timestamp + len(payload)) % 2**32
        self.push_pcm(pcm)

    def _lay_late(self, pcm: NDArray[np.int16], ahead: int) -> None:
        if ahead < -(MAX_WAITING_HOPS + 1) * HOP_SAMPLES:
            # The sender began a new count: take it from here.
            assert self._next_timestamp is not None
            self._next_timestamp = (self._next_timestamp + ahead + len(pcm)) % 2**32
            self.push_pcm(pcm)
            return
        self.late_packets += 1
        start = len(self._waiting) + ahead
        kept = pcm[-start:] if start < 0 else pcm
        start = max(start, 0)
        end = min(start + len(kept), len(self._waiting))
        self._waiting[start:end] = kept[: end - start]

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
        self.tracks[:] = 0.0
        self.speech[:] = False

    def flush(self) -> None:
        """Fill the last, incomplete hop with silence: the audio has ended."""
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

    def hear(self, hop: NDArray[np.int16], checks: FrameChecks) -> NDArray[np.bool_]:
        """Voice activity of the hop just taken, ``(HOP_FRAMES,)`` bool; once for each hop."""
        return self._vad.push(hop[FRAME:].reshape(HOP_FRAMES, FRAME), checks)

    def shift_in(self, tracks: NDArray[np.float32] | None, speech: NDArray[np.bool_]) -> None:
        """Move the window on by one hop; ``tracks`` of a hop without speech may be None."""
        self.tracks[:-HOP_FRAMES] = self.tracks[HOP_FRAMES:]
        self.speech[:-HOP_FRAMES] = self.speech[HOP_FRAMES:]
        self.tracks[-HOP_FRAMES:] = 0.0 if tracks is None else tracks
        self.speech[-HOP_FRAMES:] = speech
