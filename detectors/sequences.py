"""What a model that sees frames instead of summaries is given: for :mod:`detectors.compare`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors import features
from detectors.features import BANDS, CEPSTRAL_PEAK, CONTRAST, F0, FIRST_PEAK, LEVEL, VOICING

#: Channels of one frame: mel bands, eight tracks, and last whether the frame counts.
CHANNELS = BANDS + 8
#: log2 of the F0 that stands for 0, in the middle of human voices.
_MIDDLE_F0 = 7.6


def frames_of(tracks: NDArray[np.float32], speech: NDArray[np.bool_]) -> NDArray[np.float16]:
    """The frames of windows, free of level and of about unit size.

    Args:
        tracks: ``(n, frames, TRACK_COUNT)`` from :func:`detectors.features.frame_tracks`.
        speech: ``(n, frames)`` bool.

    Returns:
        ``(n, frames, CHANNELS)`` float16. Frames that are no speech, or a pause, are all 0.
    """
    level = tracks[..., LEVEL]
    loudest = np.full(len(tracks), -np.inf, dtype=np.float32)
    for i in range(len(tracks)):
        if speech[i].any():
            loudest[i] = np.quantile(level[i][speech[i]], 0.95)
    relative = level - loudest[:, None]
    used = speech & (relative > -features.PAUSE_DB)
    voiced = tracks[..., VOICING] > features.VOICED
    channels = [
        tracks[..., len(features.TRACKS) :] / 8.0,
        tracks[..., VOICING, None],
        tracks[..., features.PITCH_PEAK, None],
        np.where(voiced, tracks[..., F0] - _MIDDLE_F0, 0.0)[..., None],
        tracks[..., CEPSTRAL_PEAK, None] / 10.0 - 1.5,
        tracks[..., FIRST_PEAK, None] - 9.2,
        tracks[..., CONTRAST, None] * 0.5,
        np.clip(relative, -features.PAUSE_DB, 12.0)[..., None] / 12.0,
        np.ones((*level.shape, 1), dtype=np.float32),
    ]
    out = np.concatenate(channels, axis=-1)
    result: NDArray[np.float16] = np.where(used[..., None], out, 0.0).astype(np.float16)
    return result
