"""The simulated telephone line: every stage changes what it should, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from callshield.tap import TapCodec
from detectors import telephone
from detectors.telephone import CLEAN, Line, transmit
from tests.detector_sounds import calm_voice, white_noise


def sent(line: Line, audio: NDArray[np.float32] | None = None) -> NDArray[np.float64]:
    voice = calm_voice(2.0) if audio is None else audio
    return transmit(voice, line, np.random.default_rng(1)).astype(np.float64)


def spectrum_db(pcm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Long-term level in bands of 250 Hz."""
    power = np.abs(np.fft.rfft(pcm.reshape(-1, 400), 512, axis=1)) ** 2
    return 10 * np.log10(power.mean(axis=0)[:256].reshape(-1, 16).mean(axis=1) + 1.0)


@pytest.mark.parametrize("codec", TapCodec)
@pytest.mark.parametrize("gsm", [False, True])
def test_every_codec_keeps_length_and_colour(codec: TapCodec, gsm: bool) -> None:
    plain, coded = sent(CLEAN), sent(replace(CLEAN, codec=codec, gsm=gsm))
    assert len(coded) == len(plain) == 16000
    # From 300 Hz to 3 kHz.
    off = np.abs(spectrum_db(coded) - spectrum_db(plain))[1:12]
    assert off.max() < 6.0
    assert (codec is TapCodec.PCMU and not gsm) == bool(off.max() < 1e-9)


def test_a_room_rings_on_after_the_voice() -> None:
    burst = np.concatenate([white_noise(0.3), np.zeros(8000, np.float32)])
    dry, wet = sent(CLEAN, burst), sent(replace(CLEAN, room_s=0.5, room_db=-6.0), burst)
    tail = slice(2400 + 400, 2400 + 1200)
    assert np.square(wet[tail]).mean() > 100 * np.square(dry[tail]).mean()


def test_automatic_gain_evens_loud_and_quiet() -> None:
    audio = np.concatenate([0.05 * calm_voice(2.0), calm_voice(2.0)]).astype(np.float32)

    def step_db(pcm: NDArray[np.float64]) -> float:
        return float(
            10 * np.log10(np.square(pcm[24000:]).mean() / np.square(pcm[8000:16000]).mean())
        )

    assert step_db(sent(replace(CLEAN, agc=0.7), audio)) < step_db(sent(CLEAN, audio)) - 8.0


def test_lines_are_drawn_with_every_codec_and_stage() -> None:
    lines = [telephone.random_line(np.random.default_rng(seed)) for seed in range(300)]
    assert {line.codec for line in lines} == set(TapCodec)
    for stage in ("gsm", "room_s", "agc", "loss", "drive_db"):
        share = float(np.mean([bool(getattr(line, stage)) for line in lines]))
        assert 0.05 < share < 0.6, stage
