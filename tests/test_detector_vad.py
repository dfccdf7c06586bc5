"""Voice activity: what counts as speech, and honestly, what does so wrongly."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from callshield import g711
from detectors import corpora
from detectors.resample import to_8k, to_int16
from detectors.vad import VoiceActivity, tonal_lines
from tests.detector_sounds import (
    DATA,
    calm_voice,
    dtmf,
    needs_data,
    shouting_voice,
    tones,
    white_noise,
)


def speech_share(audio: NDArray[np.float32], law: int = g711.PCMU) -> float:
    pcm = to_int16(audio)
    coded = g711.decode(g711.encode(pcm, law), law)
    whole = coded[: len(coded) // 160 * 160]
    return float(VoiceActivity().push(whole.reshape(-1, 160)).mean())


@pytest.mark.parametrize("law", g711.VOICE_PAYLOAD_TYPES)
@pytest.mark.parametrize(
    "hz", [(440.0,), (1000.0,), (440.0, 480.0), (697.0, 1209.0), (941.0, 1633.0), (2100.0,)]
)
def test_steady_tones_of_the_telephone_network_are_not_speech(
    hz: tuple[float, ...], law: int
) -> None:
    assert speech_share(tones(*hz), law) < 0.05


def test_dialled_digits_are_mostly_not_speech() -> None:
    # 100 ms bursts: webrtcvad alone flags four fifths; what is left is each burst's onset.
    assert speech_share(dtmf()) < 0.4


def test_silence_and_line_noise_are_not_speech() -> None:
    assert speech_share(np.zeros(16000, np.float32)) == 0.0
    assert speech_share(white_noise(level=0.001)) == 0.0


def test_loud_white_noise_is_taken_for_speech() -> None:
    """A limit, written down: the gate is cheap, and the model must say that it is no voice."""
    assert speech_share(white_noise(level=0.1)) > 0.5


def test_voices_are_speech() -> None:
    assert speech_share(calm_voice()) > 0.7
    assert speech_share(shouting_voice()) > 0.7


def test_one_frame_at_a_time_gives_the_same_as_all_at_once() -> None:
    frames = to_int16(np.concatenate([calm_voice(1), tones(440), white_noise(0.5)]))
    frames = frames[: len(frames) // 160 * 160].reshape(-1, 160)
    together = VoiceActivity().push(frames)
    one = VoiceActivity()
    assert [bool(one.push(f[None])[0]) for f in frames] == together.tolist()


def test_tonal_lines_are_measured_within_2_hz() -> None:
    frames = to_int16(tones(770, 1336)).reshape(-1, 160)
    hz, share = tonal_lines(frames)
    assert np.abs(hz - [770, 1336]).max() < 2.0
    assert share.min() > 0.95


@needs_data
@pytest.mark.data
def test_recorded_speech_keeps_its_frames_past_the_tone_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clips = [c for c in corpora.read_manifest(DATA) if c.corpus in ("emodb", "mycroft")][::40]
    pcm = np.concatenate([to_int16(to_8k(*corpora.read_clip(c.path))) for c in clips])
    frames = pcm[: len(pcm) // 160 * 160].reshape(-1, 160)
    kept = VoiceActivity().push(frames).sum()
    monkeypatch.setattr("detectors.vad.TONE_FRAMES", 10**9)
    without_check = VoiceActivity().push(frames).sum()
    assert without_check > 1000
    assert kept > 0.97 * without_check
