"""One caller's speech, cut into utterances: pure, no clock of its own.

A recogniser needs whole phrases with a little air round them, soon after they end. Speech ends
with a pause; who speaks without one is cut at the quietest point, sooner than a pause would be
asked for again. Everything is counted in frames of 20 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

#: Samples in a frame, and frames a second.
FRAME, FRAMES_PER_S = 160, 50
#: A pause that ends an utterance, seconds without speech.
PAUSE_S = 0.6
#: From this length on a shorter pause will do: it still fits a recogniser's 10 s window.
SOFT_LIMIT_S, SOFT_PAUSE_S = 7.0, 0.2
#: No utterance is longer; without a pause it is cut at the quietest point after the soft limit.
MAX_S = 15.0
#: Less speech than this is a click or a breath.
MIN_SPEECH_S = 0.4
#: Air kept before and after, as far as there is any that belongs to no other utterance.
BEFORE_S, AFTER_S = 0.3, 0.4
#: Length over which the quietest point is sought.
QUIET_S = 0.1

_SOFT_PAUSE = round(SOFT_PAUSE_S * FRAMES_PER_S)
_SOFT_LIMIT, _MAX = round(SOFT_LIMIT_S * FRAMES_PER_S), round(MAX_S * FRAMES_PER_S)
_MIN_SPEECH = round(MIN_SPEECH_S * FRAMES_PER_S)
_BEFORE, _AFTER = round(BEFORE_S * FRAMES_PER_S), round(AFTER_S * FRAMES_PER_S)
_QUIET = round(QUIET_S * FRAMES_PER_S)


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of one caller's speech."""

    start_s: float
    """Seconds of the call's audio before it."""
    samples: NDArray[np.int16]
    """``(n,)`` int16 at 8 kHz, a whole number of frames."""
    speech_s: float
    """Seconds of speech in it."""

    @property
    def end_s(self) -> float:
        """Seconds of the call's audio at its end."""
        return self.start_s + self.length_s

    @property
    def length_s(self) -> float:
        """Seconds, pauses included."""
        return len(self.samples) / (FRAME * FRAMES_PER_S)


class UtteranceCutter:
    """Speech flags and samples of one call in, utterances out; holds at most 15 s of audio."""

    __slots__ = ("_begun", "_flags", "_frames", "_pause", "_silence", "_start_s")

    def __init__(self) -> None:
        self._frames = np.zeros((0, FRAME), dtype=np.int16)
        self._flags = np.zeros(0, dtype=np.bool_)
        self._start_s = 0.0
        """Seconds of the call's audio before ``_frames``."""
        self._begun = False
        self._silence = 0
        """Frames since the last one with speech."""
        self._pause = round(PAUSE_S * FRAMES_PER_S)

    def end_after(self, pause_s: float) -> None:
        """Let a pause of this many seconds end an utterance, from the next :meth:`push` on."""
        self._pause = round(pause_s * FRAMES_PER_S)

    @property
    def held_s(self) -> float:
        """Seconds of audio that wait for the end of their utterance."""
        return len(self._frames) / FRAMES_PER_S

    def push(
        self, start_s: float, samples: NDArray[np.int16], speech: NDArray[np.bool_]
    ) -> list[Utterance]:
        """Take the audio that follows.

        Args:
            start_s: seconds of the call's audio before it; a gap to what came before ends the
                utterance.
            samples: ``(n * 160,)`` int16 at 8 kHz.
            speech: ``(n,)`` bool, one for each 20 ms.

        Returns:
            The utterances that have ended with it, in order.
        """
        found: list[Utterance] = []
        if abs(start_s - self._start_s - self.held_s) > 0.5 / FRAMES_PER_S:
            found += self.flush()
            self._start_s = start_s
        frames = samples.reshape(-1, FRAME)
        position = 0
        for length, flag in _runs(speech):
            self._append(frames[position : position + length], flag)
            position += length
            found += self._cut(flag)
        return found

    def flush(self) -> list[Utterance]:
        """End the utterance here: the tap was closed, or the call is over."""
        found = self._take(len(self._frames)) if self._begun else []
        self._drop(len(self._frames))
        self._begun, self._silence = False, 0
        return found

    def _append(self, frames: NDArray[np.int16], flag: bool) -> None:
        self._frames = np.concatenate([self._frames, frames])
        self._flags = np.concatenate([self._flags, np.full(len(frames), flag)])
        self._silence = 0 if flag else self._silence + len(frames)
        if flag:
            self._begun = True
        elif not self._begun:
            self._drop(len(self._frames) - _BEFORE)

    def _cut(self, flag: bool) -> list[Utterance]:
        found: list[Utterance] = []
        while self._begun:
            spoken = len(self._frames) - self._silence
            pause = _SOFT_PAUSE if spoken >= _SOFT_LIMIT else self._pause
            if not flag and self._silence >= pause and spoken <= _MAX - _AFTER:
                found += self._take(spoken + min(_AFTER, self._silence))
                self._begun = False
                self._drop(len(self._frames) - _BEFORE)
            elif len(self._frames) > _MAX:
                found += self._take(self._quietest())
                self._begun = bool(self._flags.any())
            else:
                break
        return found

    def _take(self, frames: int) -> list[Utterance]:
        """Cut off the first ``frames``, an utterance if there is enough speech in them."""
        speech = int(self._flags[:frames].sum())
        samples = self._frames[:frames].reshape(-1).copy()
        start_s = self._start_s
        self._drop(frames)
        if speech < _MIN_SPEECH:
            return []
        return [Utterance(start_s, samples, speech / FRAMES_PER_S)]

    def _drop(self, frames: int) -> None:
        if frames > 0:
            self._frames = self._frames[frames:].copy()
            self._flags = self._flags[frames:].copy()
            self._start_s += frames / FRAMES_PER_S

    def _quietest(self) -> int:
        """The frame before which to cut an utterance that has no pause."""
        tail = self._frames[_SOFT_LIMIT:_MAX].astype(np.float32)
        energy = np.square(tail).mean(axis=1)
        smooth = np.convolve(energy, np.ones(_QUIET, np.float32), mode="valid")
        return _SOFT_LIMIT + int(smooth.argmin()) + _QUIET // 2


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, bool]]:
    """Lengths of the stretches of equal flags."""
    if not len(flags):
        return []
    edges = np.flatnonzero(np.diff(flags.astype(np.int8))) + 1
    bounds = [0, *edges.tolist(), len(flags)]
    return [(end - begin, bool(flags[begin])) for begin, end in pairwise(bounds)]
