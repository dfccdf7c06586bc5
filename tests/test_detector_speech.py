"""Who talks: webrtcvad lets through, Silero judges, and what is neither talk nor tone may cry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors import features, line_sounds, telephone
from detectors.evaluate_vad import WEBRTC, flags_of
from detectors.resample import to_int16
from detectors.silero import MODEL_FILE, Memory, Silero
from detectors.speech import PATIENCE_FRAMES, CallerEar, Judgement, SpeechJudge, outcries
from tests.detector_sounds import white_noise
from tests.test_detector_silero import demo

SOUNDS = line_sounds.sounds(6.0)
#: Sounds that webrtcvad alone hardly takes for speech prove nothing.
MACHINES = [
    (family, name)
    for family in ("DTMF", "call progress", "fax and modem", "IVR beeps", "music on hold")
    for name in SOUNDS[family]
]


@pytest.fixture(scope="module")
def judge() -> SpeechJudge:
    return SpeechJudge(Silero())


def hops_of(pcm: NDArray[np.int16]) -> NDArray[np.int16]:
    pcm = np.concatenate([np.zeros(160, np.int16), pcm[: len(pcm) // 4000 * 4000]])
    views = np.lib.stride_tricks.sliding_window_view(pcm, 4160)[::4000]
    return np.ascontiguousarray(views)


def on_the_line(audio: NDArray[np.float32], snr_db: float = 40.0) -> NDArray[np.int16]:
    return telephone.transmit(audio, telephone.Line(snr_db=snr_db), np.random.default_rng(5))


def voice_of(judged: Judgement, hops: NDArray[np.int16]) -> NDArray[np.bool_]:
    chosen = hops[judged.rows].astype(np.float32) / np.float32(32768)
    return judged.voice(features.frame_tracks(chosen))


@pytest.mark.parametrize(("family", "name"), MACHINES)
def test_what_machines_send_is_no_speech(judge: SpeechJudge, family: str, name: str) -> None:
    found = flags_of(on_the_line(SOUNDS[family][name]()), judge)
    assert found.speech["with Silero"].mean() < 0.03


def test_control_webrtcvad_alone_takes_machines_for_speech(judge: SpeechJudge) -> None:
    shares = [
        flags_of(on_the_line(SOUNDS[family][name]()), judge).speech[WEBRTC].mean()
        for family, name in MACHINES
    ]
    assert np.mean(shares) > 0.4


@pytest.mark.parametrize("family", ["DTMF", "call progress", "IVR beeps"])
def test_tones_are_no_outcry_either(judge: SpeechJudge, family: str) -> None:
    for make in SOUNDS[family].values():
        assert flags_of(on_the_line(make()), judge).voice.mean() < 0.02


@pytest.mark.parametrize("name", ["calm_1", "calm_2", "shout_1", "shout_2"])
@pytest.mark.parametrize("snr_db", [40.0, 10.0])
def test_talking_is_speech_calm_or_shouted_in_noise_too(
    judge: SpeechJudge, name: str, snr_db: float
) -> None:
    audio = demo(name).astype(np.float32) / np.float32(32768)
    assert flags_of(on_the_line(audio, snr_db), judge).speech["with Silero"].mean() > 0.6


@pytest.mark.parametrize("level", [0.0, 0.001, 0.1])
def test_silence_and_noise_are_no_speech(judge: SpeechJudge, level: float) -> None:
    found = flags_of(to_int16(white_noise(3.0, level)), judge)
    assert not found.speech["with Silero"].any()
    assert not found.voice.any()


def test_hop_after_hop_is_the_same_as_a_recording_at_once(judge: SpeechJudge) -> None:
    pcm = np.concatenate([demo("calm_1")[:21000], np.zeros(9000, np.int16), demo("shout_1")])
    hops = hops_of(pcm)
    at_once = judge.judge_recording(hops, CallerEar())
    ear = CallerEar()
    for i, hop in enumerate(hops):
        one = judge.judge(hop[None], [ear])
        np.testing.assert_allclose(one.probability[0], at_once.probability[i], atol=1e-5)
        np.testing.assert_array_equal(one.gate[0], at_once.gate[i])


def test_calls_in_a_batch_do_not_hear_each_other(judge: SpeechJudge) -> None:
    talk, music = hops_of(demo("calm_1")), hops_of(on_the_line(SOUNDS["music on hold"]["piano"]()))
    ears = [CallerEar(), CallerEar(), CallerEar()]
    silence = np.zeros((1, 4160), np.int16)
    alone = judge.judge_recording(talk[:10], CallerEar())
    for i in range(10):
        batch = np.concatenate([music[i : i + 1], silence, talk[i : i + 1]])
        judged = judge.judge(batch, ears)
        np.testing.assert_allclose(judged.probability[2], alone.probability[i], atol=1e-5)
        assert not judged.speech[1].any()


class Counting(Silero):
    """Counts the calls that reach the model."""

    heard = 0

    def probabilities(
        self, windows: NDArray[np.float32], memory: Memory
    ) -> tuple[NDArray[np.float32], Memory]:
        self.heard += len(windows)
        return super().probabilities(windows, memory)


def test_silent_callers_cost_no_run_of_the_model() -> None:
    model = Counting()
    model.heard = 0
    hops = np.stack([demo("calm_1")[4000:8160], np.zeros(4160, np.int16)])
    judge = SpeechJudge(model)
    judge.judge(hops, [CallerEar(), CallerEar()])
    assert model.heard == 1
    judge.judge(hops[1:], [CallerEar()])
    assert model.heard == 1


def test_without_silero_webrtcvad_and_its_checks_judge_alone(tmp_path: Path) -> None:
    (tmp_path / MODEL_FILE).write_bytes(b"torn")
    judge = SpeechJudge.load(tmp_path)
    assert "silero_8k.onnx" in judge.fault
    assert "music" in judge.fault
    hops = hops_of(demo("calm_1"))
    judged = judge.judge_recording(hops, CallerEar())
    np.testing.assert_array_equal(judged.speech, judged.gate)
    assert judged.speech.mean() > 0.6
    np.testing.assert_array_equal(voice_of(judged, hops), judged.speech)
    assert not SpeechJudge.load().fault


def scream(seconds: float) -> NDArray[np.float32]:
    """A held vowel, high, rough and trembling, without a syllable."""
    rng = np.random.default_rng(4)
    time_s = np.arange(int(seconds * 8000)) / 8000
    wander = np.cumsum(rng.standard_normal(len(time_s))) / 8000
    hz = 520 * (1 + 0.05 * np.sin(2 * np.pi * 5 * time_s) + 0.15 * wander)
    phase = 2 * np.pi * np.cumsum(hz) / 8000
    out = np.zeros(len(time_s))
    for k in range(1, 7):
        gain = sum(
            1 / (1 + ((k * 520 - f) / w) ** 2) for f, w in ((950, 250), (1500, 300), (2900, 400))
        )
        out += gain * np.sin(k * phase)
    out *= 1 - 0.4 * (0.5 + 0.5 * np.sin(2 * np.pi * 70 * time_s))
    out += 0.02 * rng.standard_normal(len(out))
    return (0.4 * out / np.abs(out).max()).astype(np.float32)


def test_a_held_scream_is_voice_but_no_speech(judge: SpeechJudge) -> None:
    found = flags_of(on_the_line(scream(3.0)), judge)
    assert found.speech["with Silero"].mean() < 0.3
    assert found.voice.mean() > 0.6


def test_nobody_screams_for_ever_without_a_word(judge: SpeechJudge) -> None:
    cry = hops_of(on_the_line(np.tile(scream(3.0), 4)))
    talk = hops_of(demo("calm_1"))
    ear = CallerEar()

    def share(part: NDArray[np.int16]) -> float:
        return float(voice_of(judge.judge_recording(part, ear), part).mean())

    assert share(cry[:8]) > 0.6
    assert share(cry[8:14]) > 0.1
    assert ear.wordless_frames >= PATIENCE_FRAMES
    assert share(cry[14:]) < 0.05
    assert share(talk) > 0.6
    assert ear.wordless_frames < PATIENCE_FRAMES, "a word makes a person of it again"
    assert share(cry[:4]) > 0.5


def frames_like(
    **changed: float,
) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]:
    """One hop of candidates that cry, but for what is changed."""
    tracks = np.zeros((1, 25, features.TRACK_COUNT), np.float32)
    tracks[..., features.VOICING] = changed.get("voicing", 0.8)
    tracks[..., features.F0] = np.log2(changed.get("f0_hz", 500.0))
    bands = int(changed.get("bands", 6))
    tracks[..., len(features.TRACKS) + bands :] = -60.0
    candidates = np.zeros((1, 25), np.bool_)
    candidates[0, : int(changed.get("frames", 20))] = True
    return candidates, tracks, np.full((1, 25), changed.get("line_share", 0.7), np.float32)


@pytest.mark.parametrize(
    ("changed", "cries"),
    [
        ({}, True),
        ({"voicing": 0.4}, False),
        ({"line_share": 0.99}, False),
        ({"bands": 2}, False),
        ({"bands": 3.5, "f0_hz": 120.0}, False),
        ({"bands": 3.5, "f0_hz": 500.0}, True),
        ({"frames": 6}, False),
    ],
)
def test_each_mark_of_an_outcry_counts(changed: dict[str, float], cries: bool) -> None:
    assert outcries(*frames_like(**changed)).any() == cries


def test_every_sound_of_the_line_is_what_its_name_says() -> None:
    """The generators themselves: lines where they should be, and nothing clipped."""
    makers: list[tuple[Callable[[], NDArray[np.float32]], list[float]]] = [
        (SOUNDS["call progress"]["dial 350+440"], [350, 440]),
        (SOUNDS["fax and modem"]["CED 2100"], [2100]),
        (SOUNDS["IVR beeps"]["record 1000"], [1000]),
    ]
    for make, lines in makers:
        spectrum = np.abs(np.fft.rfft(make()[:48000] * np.hanning(48000)))
        loudest = np.flatnonzero(spectrum > 0.4 * spectrum.max()) * 8000 / 48000
        assert all(np.abs(loudest - hz).min() < 3 for hz in lines)
        assert all(min(abs(found - hz) for hz in lines) < 10 for found in loudest)
    for family in SOUNDS.values():
        for make in family.values():
            sound = make()
            assert sound.dtype == np.float32
            assert 0.05 < np.abs(sound).max() <= 1.0
