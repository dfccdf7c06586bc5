"""Resampling to the detector's rate, and what becomes of numbers that are no samples."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.resample import BlockResampler, to_8k, to_int16, to_mono


def test_float_samples_beyond_full_scale_are_clipped_and_nan_is_silence() -> None:
    found = to_int16(np.array([2.0, -2.0, np.nan, np.inf, 0.5], dtype=np.float32))
    assert found.tolist() == [32767, -32768, 0, 32767, 16384]


def test_48_khz_stereo_becomes_8_khz_mono_with_the_tone_in_place() -> None:
    time_s = np.arange(48000) / 48000
    stereo = np.stack([np.sin(2 * np.pi * 1000 * time_s)] * 2, axis=1).astype(np.float32)
    audio = to_8k(stereo, 48000)
    assert len(audio) == pytest.approx(8000, abs=2)
    spectrum = np.abs(np.fft.rfft(audio[:8000]))
    assert int(spectrum.argmax()) == 1000


def test_blocks_resample_to_the_same_samples_as_the_whole() -> None:
    audio = np.random.default_rng(1).standard_normal(44100).astype(np.float32)
    blocks = BlockResampler(44100)
    parts = [
        blocks.push(audio[i : i + 5000], last=i + 5000 >= 44100) for i in range(0, 44100, 5000)
    ]
    np.testing.assert_allclose(np.concatenate(parts), to_8k(audio, 44100), atol=1e-5)


def test_mono_of_opposite_channels_is_silence() -> None:
    left = np.linspace(-1, 1, 100, dtype=np.float32)
    assert np.abs(to_mono(np.stack([left, -left], axis=1))).max() == 0.0
