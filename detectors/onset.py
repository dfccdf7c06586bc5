"""Where in a recording the effort begins: an angry clip has silence first and may begin quietly.

Measured on the recording itself, before any telephone line, and without the acoustic model: a delay
that were counted from where the model first hears something would flatter the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors import features
from detectors.resample import RATE

#: Frames that a raised moment takes: 100 ms of voiced speech.
RUN_FRAMES = 5
#: A moment is raised when the speaker's own calm speech is below it in this share of moments.
ABOVE_CALM = 0.95

Audio = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Track:
    """Voice and effort of one recording, frame by frame of 20 ms."""

    heard: NDArray[np.bool_]
    """Not more than 25 dB under the loud frames (the 95th percentile)."""
    voiced: NDArray[np.int_]
    """Indices of the voiced frames."""
    measures: NDArray[np.float32]
    """``(voiced, 2)``: F0 in octaves, alpha ratio in dB."""


def track(audio: Audio) -> Track:
    """Look at one recording.

    Args:
        audio: float32 at 8 kHz.
    """
    padded = np.concatenate([np.zeros(features.HOP, np.float32), audio])
    frames = len(padded) // features.HOP - 1
    if frames < 1:
        empty = np.zeros(0, np.int_)
        return Track(np.zeros(0, np.bool_), empty, np.zeros((0, 2), np.float32))
    (tracks,) = features.frame_tracks(padded[None, : (frames + 1) * features.HOP])
    level = tracks[:, features.LEVEL]
    heard = level > np.quantile(level, 0.95) - features.PAUSE_DB
    voiced = np.flatnonzero(heard & (tracks[:, features.VOICING] > features.VOICED))
    return Track(heard, voiced, tracks[voiced][:, [features.F0, features.ALPHA]])


def _moments(effort: NDArray[np.float32]) -> NDArray[np.float32]:
    """Running median over :data:`RUN_FRAMES` voiced frames: one misheard octave counts nothing."""
    if len(effort) < RUN_FRAMES:
        return np.zeros(0, np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(effort, RUN_FRAMES)
    found: NDArray[np.float32] = np.median(windows, axis=1).astype(np.float32)
    return found


class CalmRange:
    """How high and how sharp one speaker is when calm.

    Args:
        recordings: calm ones of one speaker.
    """

    def __init__(self, recordings: Iterable[Audio]) -> None:
        tracks = [track(audio) for audio in recordings]
        both = np.concatenate([t.measures for t in tracks])
        self._mean, self._deviation = both.mean(axis=0), both.std(axis=0) + 1e-6
        moments = [_moments(self._effort(t.measures)) for t in tracks]
        self._limit = float(np.quantile(np.concatenate(moments), ABOVE_CALM))

    def _effort(self, measures: NDArray[np.float32]) -> NDArray[np.float32]:
        scaled: NDArray[np.float32] = ((measures - self._mean) / self._deviation).sum(axis=1)
        return scaled

    def first_raised_s(self, audio: Audio) -> float:
        """Seconds to the first raised moment of a recording; NaN when there is none.

        A moment is 100 ms of voiced frames; it is raised when F0 and alpha ratio together (each in
        deviations from the speaker's calm mean) are higher than in 95 % of his calm moments.
        """
        found = track(audio)
        above = np.flatnonzero(_moments(self._effort(found.measures)) > self._limit)
        return float(found.voiced[above[0]]) * features.HOP / RATE if len(above) else float("nan")


def first_heard_s(audio: Audio) -> float:
    """Seconds to the first frame that is not silence: within 25 dB of the loud ones."""
    heard = np.flatnonzero(track(audio).heard)
    return float(heard[0]) * features.HOP / RATE if len(heard) else float("nan")
