"""Vocal-effort features: free of level, and moving the way physics says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors import features
from tests.detector_sounds import calm_voice, shouting_voice, vowels, white_noise


def vector(audio: NDArray[np.float32], speech: NDArray[np.bool_] | None = None) -> dict[str, float]:
    audio = audio[: len(audio) // 160 * 160]
    tracks = features.frame_tracks(np.concatenate([np.zeros(160, np.float32), audio])[None])
    mask = np.ones((1, tracks.shape[1]), np.bool_) if speech is None else speech
    found, _ = features.summarise(tracks, mask)
    return dict(zip(features.NAMES, found[0].tolist(), strict=True))


@settings(max_examples=25, deadline=None)
@given(st.floats(-45.0, 20.0))
def test_features_do_not_depend_on_the_gain(gain_db: float) -> None:
    audio = calm_voice(1.5) + white_noise(1.5, 0.003)
    loud = vector(audio)
    scaled = vector((audio * np.float32(10 ** (gain_db / 20))).astype(np.float32))
    for name, value in loud.items():
        assert scaled[name] == pytest.approx(value, abs=2e-2), name


def test_the_level_track_itself_does_follow_the_gain() -> None:
    """Control: were the invariance trivial (all features constant), this would not move."""
    audio = calm_voice(1.5)[None, :12000]
    louder = features.frame_tracks(audio * np.float32(10.0))
    quiet = features.frame_tracks(audio)
    change = louder[..., features.LEVEL] - quiet[..., features.LEVEL]
    np.testing.assert_allclose(change, 20.0, atol=0.01)


@pytest.mark.parametrize("f0_hz", [95.0, 140.0, 220.0, 330.0, 450.0])
def test_f0_is_found_although_the_line_has_no_fundamental(f0_hz: float) -> None:
    audio = vowels(f0_hz, -8.0, 2.0)
    spectrum = np.fft.rfft(audio)
    spectrum[np.fft.rfftfreq(len(audio), 1 / 8000) < 300] = 0
    telephone = np.fft.irfft(spectrum, len(audio)).astype(np.float32)
    found = 2 ** vector(telephone)["f0_log2_median"]
    assert found == pytest.approx(f0_hz, rel=0.12)


def test_the_pitch_of_a_scream_is_found() -> None:
    """Screams lie an octave above the highest speaking voice."""
    found = 2 ** vector(vowels(800.0, -4.0, 2.0, 1000.0))["f0_log2_median"]
    assert found == pytest.approx(800.0, rel=0.12)


def test_octave_errors_are_folded_back_to_the_windows_median() -> None:
    tracks = np.zeros((1, 50, features.TRACK_COUNT), np.float32)
    tracks[..., features.VOICING] = 0.9
    tracks[..., features.F0] = np.log2(200.0)
    tracks[0, ::5, features.F0] += 1.0
    tracks[0, 1::10, features.F0] -= 1.0
    found, _ = features.summarise(tracks, np.ones((1, 50), np.bool_))
    values = dict(zip(features.NAMES, found[0].tolist(), strict=True))
    assert values["f0_deviation_octaves"] > 0.4
    assert values["f0_folded_deviation_octaves"] < 1e-3
    assert values["f0_folded_log2_p90"] == pytest.approx(np.log2(200.0), abs=1e-4)


def test_raised_effort_flattens_the_tilt_and_raises_f0_and_first_formant() -> None:
    calm, shouting = vector(calm_voice()), vector(shouting_voice())
    assert shouting["alpha_db_mean"] > calm["alpha_db_mean"] + 3.0
    assert shouting["hammarberg_db_mean"] < calm["hammarberg_db_mean"]
    assert shouting["f0_log2_median"] > calm["f0_log2_median"] + 1.0
    assert shouting["first_formant_log2_mean"] > calm["first_formant_log2_mean"] + 0.3


def test_noise_has_no_voicing() -> None:
    assert vector(white_noise())["voiced_share"] < 0.1
    assert vector(calm_voice())["voiced_share"] > 0.7


def test_a_window_without_speech_has_no_features() -> None:
    tracks = features.frame_tracks(np.zeros((1, 12160), np.float32))
    found, used = features.summarise(tracks, np.zeros((1, 75), np.bool_))
    assert used.tolist() == [0]
    assert not found.any()


@pytest.mark.parametrize("used", [1, 2, 5])
def test_windows_with_hardly_any_speech_stay_finite(used: int) -> None:
    tracks = features.frame_tracks(white_noise(1.52)[None])
    speech = np.zeros((1, tracks.shape[1]), np.bool_)
    speech[0, :used] = True
    assert np.isfinite(features.summarise(tracks, speech)[0]).all()


def test_digital_silence_marked_as_speech_stays_finite() -> None:
    tracks = features.frame_tracks(np.zeros((1, 12160), np.float32))
    assert np.isfinite(features.summarise(tracks, np.ones((1, 75), np.bool_))[0]).all()


def test_a_batch_gives_each_call_what_it_would_get_alone() -> None:
    calls = np.stack([calm_voice(1.52), shouting_voice(1.52), white_noise(1.52)])
    speech = np.random.default_rng(2).random((3, 75)) > 0.3
    together, _ = features.summarise(features.frame_tracks(calls), speech)
    for i in range(3):
        alone, _ = features.summarise(features.frame_tracks(calls[i : i + 1]), speech[i : i + 1])
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-3, atol=1e-3)


def test_names_and_columns_agree() -> None:
    assert len(set(features.NAMES)) == features.FEATURE_COUNT
    assert len(vector(calm_voice(1.5))) == features.FEATURE_COUNT
