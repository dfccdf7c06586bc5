"""Is somebody speaking? One answer per 20 ms of 8 kHz audio.

webrtcvad (mode 3, the strictest) proposes; two checks that it lacks dispose: a floor on the
level, because line noise of a few quantisation steps is no voice, and a test for steady tones,
because it takes four fifths of DTMF and call-progress tones for speech. A hangover bridges the
short stops inside words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import webrtcvad
from numpy.typing import NDArray

#: Samples in one frame: 20 ms at 8 kHz.
FRAME = 160
#: Frames (20 ms each) that stay speech after the last one that webrtcvad heard.
HANGOVER_FRAMES = 8
#: Frames below this are silence whatever webrtcvad says, in dB relative to full scale.
FLOOR_DBFS = -55.0
#: Frames in a row with the same two spectral lines that make a tone (ITU-T Q.24: DTMF ≥ 40 ms).
TONE_FRAMES = 3
#: Share of a frame's energy in its two strongest lines that makes it tonal.
TONE_SHARE = 0.90
#: Change of a line's frequency from frame to frame that a steady tone does not exceed, in Hz.
TONE_DRIFT_HZ = 4.0
#: The same for one line that holds nearly all the energy: 440 + 480 Hz, the ringback of Korea
#: and North America, beats inside one line and moves by their distance (ITU-T E.180 annex).
BEAT_SHARE, BEAT_DRIFT_HZ = 0.97, 45.0
#: Share under which a second line is taken for noise beside a single tone.
SECOND_LINE_SHARE = 0.05

_FFT = 512
_BIN_HZ = 8000.0 / _FFT
_HANN = np.hanning(FRAME).astype(np.float32)
#: Half width of a line's main lobe: a 160-point Hann window on a 512-point grid.
_LOBE = 7


def level_dbfs(frames: NDArray[np.int16]) -> NDArray[np.float32]:
    """RMS level of each frame, ``(n, 160)`` int16 to ``(n,)`` dB relative to full scale."""
    power = np.mean(np.square(frames.astype(np.float32) / 32768.0), axis=-1)
    return np.asarray(10.0 * np.log10(power + 1e-12), dtype=np.float32)


def tonal_lines(frames: NDArray[np.int16]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The two strongest spectral lines of each frame.

    Args:
        frames: ``(n, 160)`` int16 at 8 kHz.

    Returns:
        ``(hz, share)``: frequencies in Hz, sorted, ``(n, 2)`` float32 (parabolic interpolation on
        log magnitude), and the share of the frame's energy inside their main lobes, ``(n,)``.
    """
    n = len(frames)
    power = np.abs(np.fft.rfft(frames.astype(np.float32) * _HANN, _FFT, axis=-1)) ** 2
    power = power.astype(np.float32) + 1e-3
    # A lone fundamental is a voice; the network's tones begin at 350 Hz (ITU-T E.180).
    power[:, : int(300 / _BIN_HZ)] = 1e-3
    total = power.sum(axis=1)
    rest = power.copy()
    rows = np.arange(n)
    bins = np.arange(power.shape[1])
    hz = np.zeros((n, 2), dtype=np.float32)
    inside = np.zeros((n, 2), dtype=np.float32)
    for line in range(2):
        peak = np.clip(rest.argmax(axis=1), 1, power.shape[1] - 2)
        left, mid, right = (np.log(power[rows, peak + d]) for d in (-1, 0, 1))
        curve = left - 2 * mid + right
        offset = np.where(np.abs(curve) > 1e-9, 0.5 * (left - right) / np.minimum(curve, -1e-9), 0)
        hz[:, line] = (peak + np.clip(offset, -0.5, 0.5)) * _BIN_HZ
        lobe = np.abs(bins[None, :] - peak[:, None]) <= _LOBE
        inside[:, line] = np.where(lobe, rest, 0).sum(axis=1) / total
        rest[lobe] = 0.0
    # A single tone has no second line, only whatever noise is strongest: name it twice.
    single = inside[:, 1] < SECOND_LINE_SHARE
    hz[single, 1] = hz[single, 0]
    hz.sort(axis=1)
    return hz, inside.sum(axis=1)


@dataclass(frozen=True, slots=True)
class FrameChecks:
    """What is measured of frames before webrtcvad hears them; many calls in one pass."""

    audible: NDArray[np.bool_]
    """``(n,)``: above the floor."""
    line_hz: NDArray[np.float32]
    """``(n, 2)``: see :func:`tonal_lines`."""
    share: NDArray[np.float32]
    """``(n,)``: see :func:`tonal_lines`."""


def check_frames(frames: NDArray[np.int16], *, lines: bool = True) -> FrameChecks:
    """Level and tonal lines of frames of any calls, ``(n, 160)`` int16 at 8 kHz.

    Without ``lines`` the level alone is measured, lines and shares are 0: nothing is a tone.
    """
    audible = level_dbfs(frames) > FLOOR_DBFS
    if lines:
        return FrameChecks(audible, *tonal_lines(frames))
    count = len(frames)
    return FrameChecks(audible, np.zeros((count, 2), np.float32), np.zeros(count, np.float32))


class VoiceActivity:
    """Speech or not for one call, frame after frame; keeps the hangover and the tone's age."""

    __slots__ = ("_hangover", "_line_hz", "_tone_age", "_vad")

    def __init__(self) -> None:
        self._vad = webrtcvad.Vad(3)
        self._hangover = 0
        self._tone_age = 0
        self._line_hz = np.zeros((1, 2), dtype=np.float32)

    def push(
        self, frames: NDArray[np.int16], checks: FrameChecks | None = None
    ) -> NDArray[np.bool_]:
        """Judge consecutive frames of one call.

        Args:
            frames: ``(n, 160)`` int16 at 8 kHz.
            checks: :func:`check_frames` of them, where it was done for many calls at once.

        Returns:
            ``(n,)`` bool.
        """
        if not len(frames):
            return np.zeros(0, dtype=np.bool_)
        checks = checks or check_frames(frames)
        before = np.concatenate([self._line_hz, checks.line_hz[:-1]])
        self._line_hz = checks.line_hz[-1:]
        drift_hz = np.abs(checks.line_hz - before).max(axis=1)
        steady = (checks.share >= TONE_SHARE) & (drift_hz <= TONE_DRIFT_HZ)
        steady |= (checks.share >= BEAT_SHARE) & (drift_hz <= BEAT_DRIFT_HZ)
        steady &= checks.audible
        content = frames.tobytes()
        size = 2 * FRAME
        hangover, tone_age, is_speech = self._hangover, self._tone_age, self._vad.is_speech
        speech = []
        for i, (tonal, audible) in enumerate(
            zip(steady.tolist(), checks.audible.tolist(), strict=True)
        ):
            # webrtcvad adapts to the background: it must hear every frame, audible or not.
            voiced = is_speech(content[i * size : (i + 1) * size], 8000) and audible
            tone_age = tone_age + 1 if tonal else 0
            if tone_age >= TONE_FRAMES:
                voiced = False
                hangover = 0
            if voiced:
                hangover = HANGOVER_FRAMES
            elif hangover:
                hangover -= 1
                voiced = audible
            speech.append(voiced)
        self._hangover, self._tone_age = hangover, tone_age
        return np.array(speech, dtype=np.bool_)
