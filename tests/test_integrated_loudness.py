"""Loudness by the test signals of those who defined it (ITU-R BS.1770-4, EBU Tech 3341)."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sipbridge.integrated_loudness import SILENCE_LUFS, integrated_lufs


def sine(
    level_dbfs: float, seconds: float, rate_hz: int, hz: float = 1000.0
) -> NDArray[np.float64]:
    at_s = np.arange(int(seconds * rate_hz)) / rate_hz
    return np.asarray(10 ** (level_dbfs / 20) * np.sin(2 * np.pi * hz * at_s))


@pytest.mark.parametrize("rate_hz", [8000, 16000, 48000])
def test_a_full_scale_sine_of_997_hz_in_one_channel_is_3_lu_down(rate_hz: int) -> None:
    """BS.1770-4: 'a 0 dBFS, 997 Hz sine wave in one front channel … -3.01 LKFS'."""
    assert integrated_lufs(sine(0, 5, rate_hz, 997), rate_hz) == pytest.approx(-3.01, abs=0.02)


@pytest.mark.parametrize(
    ("parts", "lufs"),
    [
        (((-23, 20),), -23),
        (((-33, 20),), -33),
        (((-36, 10), (-23, 60), (-36, 10)), -23),
        (((-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)), -23),
        (((-26, 20), (-20, 20.1), (-26, 20)), -23),
    ],
)
@pytest.mark.parametrize("rate_hz", [8000, 16000])
def test_the_gates_are_those_of_tech_3341(
    parts: tuple[tuple[float, float], ...], lufs: float, rate_hz: int
) -> None:
    """Test signals 1 to 5. Theirs have two channels: one alone has 3.01 LU less."""
    signal = np.concatenate([sine(level, seconds, rate_hz) for level, seconds in parts])
    assert integrated_lufs(signal, rate_hz) == pytest.approx(lufs - 3.01, abs=0.1)


def test_bass_counts_less_and_treble_more() -> None:
    """Control: without the K-weighting these three were equal."""
    bass, middle, treble = (
        integrated_lufs(sine(-20, 2, 16000, hz), 16000) for hz in (40.0, 1000.0, 6000.0)
    )
    assert bass < middle - 4
    assert treble == pytest.approx(middle + 3.3, abs=0.3)


def test_nothing_and_next_to_nothing() -> None:
    assert integrated_lufs(np.zeros(8000), 8000) == SILENCE_LUFS
    assert integrated_lufs(np.zeros(0), 8000) == SILENCE_LUFS
    assert integrated_lufs(sine(-20, 0.1, 8000), 8000) == pytest.approx(-23, abs=0.5)
