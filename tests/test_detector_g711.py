"""G.711 tables and resampling."""

from __future__ import annotations

import numpy as np
import pytest

from detectors import g711
from detectors.resample import BlockResampler, to_8k, to_mono

ALL_CODES = bytes(range(256))


def test_ulaw_decodes_the_corner_values_of_the_recommendation() -> None:
    # G.711 table 2: 0x80 and 0x00 are the extremes, 0xFF and 0x7F the two zeros.
    assert g711.decode_ulaw(bytes([0x00, 0x80, 0x7F, 0xFF, 0xF0])).tolist() == [
        -32124,
        32124,
        0,
        0,
        120,
    ]


def test_alaw_decodes_the_corner_values_of_the_recommendation() -> None:
    # G.711 table 1: codes are sent with even bits inverted (0x55).
    assert g711.decode_alaw(bytes([0xAA, 0x2A, 0xD5, 0x55])).tolist() == [32256, -32256, 8, -8]


def test_encoding_a_decoded_code_gives_the_code_back() -> None:
    assert g711.encode_alaw(g711.decode_alaw(ALL_CODES)) == ALL_CODES
    again = g711.encode_ulaw(g711.decode_ulaw(ALL_CODES))
    # µ-law has a negative zero that no linear sample can tell from the positive one.
    assert [c for c in range(256) if again[c] != c] == [0x7F]


@pytest.mark.parametrize("law", ["ulaw", "alaw"])
def test_quantisation_error_stays_under_the_step_of_its_segment(law: str) -> None:
    pcm = np.arange(-32000, 32001, dtype=np.int16)
    encode, decode = getattr(g711, f"encode_{law}"), getattr(g711, f"decode_{law}")
    error = np.abs(decode(encode(pcm)).astype(int) - pcm.astype(int))
    assert np.all(error <= np.maximum(np.abs(pcm.astype(int)) / 16, 16))


def test_float_samples_beyond_full_scale_are_clipped_and_nan_is_silence() -> None:
    found = g711.to_int16(np.array([2.0, -2.0, np.nan, np.inf, 0.5], dtype=np.float32))
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
