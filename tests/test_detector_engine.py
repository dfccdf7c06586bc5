"""All calls together: who is judged, who is forgotten, and what it costs."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from callshield import g711
from callshield.tap import CallerFrame, TapCodec, TapKind
from detectors import engine
from detectors.acoustic import AcousticModel, Scores
from detectors.engine import (
    IDLE_S,
    REFERENCE_S,
    CallerVoice,
    Detector,
    Verdict,
)
from detectors.features import FEATURE_COUNT
from detectors.resample import to_int16
from detectors.risk import Policy
from detectors.running import RunningScore
from detectors.speech import SpeechJudge
from detectors.stream import HOP_S
from tests.detector_sounds import calm_voice, shouting_voice, white_noise

A, B = bytes([1]) * 16, bytes([2]) * 16


class AlwaysShouting(AcousticModel):
    """The shipped model's file, but any speech scores 0.99: for tests of what comes after."""

    def score(
        self,
        vectors: NDArray[np.float32],
        references: NDArray[np.float32] | None = None,
        known: NDArray[np.float32] | None = None,
    ) -> Scores:
        shouting = np.full(len(vectors), 0.99, dtype=np.float32)
        return Scores(shouting, shouting)


@pytest.fixture(scope="module")
def model() -> AcousticModel:
    return AcousticModel()


@pytest.fixture(scope="module")
def shouting() -> AcousticModel:
    return AlwaysShouting()


def frames(
    call_id: bytes, audio: NDArray[np.float32], start: int = 0, codec: TapCodec = TapCodec.PCMU
) -> list[CallerFrame]:
    pcm = to_int16(audio)
    coded = g711.encode(pcm, codec)
    return [
        CallerFrame(
            call_id,
            TapKind.AUDIO,
            codec,
            (start + at) // 160 % 2**16,
            (start + at) % 2**32,
            0,
            coded[at : at + 160],
        )
        for at in range(0, len(coded) // 160 * 160, 160)
    ]


def detach(call_id: bytes) -> CallerFrame:
    return CallerFrame(call_id, TapKind.DETACH, TapCodec.PCMU, 0, 0, 0, b"")


def live(detector: Detector, heard: list[CallerFrame], start_s: float = 0.0) -> list[Verdict]:
    """Feed 20 ms at a time for one call, a step every 100 ms."""
    out: list[Verdict] = []
    for i, frame in enumerate(heard):
        now_s = start_s + 0.02 * (i + 1)
        detector.feed([frame], now_s)
        if i % 5 == 4:
            out += detector.step(now_s)
    return out


def test_a_call_is_judged_twice_a_second(model: AcousticModel) -> None:
    found = live(Detector(model), frames(A, calm_voice(4.0)))
    assert [v.at_s for v in found] == [0.5 * (i + 1) for i in range(8)]
    assert {v.call_id for v in found} == {A}


def test_many_calls_in_one_batch_get_what_each_would_get_alone(model: AcousticModel) -> None:
    voices = [calm_voice(3.0), shouting_voice(3.0), white_noise(3.0), calm_voice(3.0)[::-1]]
    ids = [bytes([i]) * 16 for i in range(4)]
    together = Detector(model)
    for i in range(6):
        for call_id, voice in zip(ids, voices, strict=True):
            part = voice[i * 4000 : (i + 1) * 4000]
            together.feed(frames(call_id, part, i * 4000), 0.5 * i)
    batch = together.step(3.0)
    for call_id, voice in zip(ids, voices, strict=True):
        own = [v.score for v in batch if v.call_id == call_id]
        alone = [v.score for v in live(Detector(model), frames(call_id, voice))]
        assert len(own) == len(alone) == 6
        for mine, single in zip(own, alone, strict=True):
            assert (mine is None) == (single is None)
            if mine is not None and single is not None:
                assert mine == pytest.approx(single, abs=1e-3)


def test_a_call_that_appears_midway_is_judged_from_its_first_frame(
    shouting: AcousticModel,
) -> None:
    detector = Detector(shouting)
    late = [
        CallerFrame(f.call_id, f.kind, f.codec, f.sequence, f.timestamp + 10**8, 0, f.payload)
        for f in frames(A, calm_voice(4.0))
    ]
    assert max(v.decision.level for v in live(detector, late)) == 2


def test_shouting_raises_one_call_and_not_its_neighbour(shouting: AcousticModel) -> None:
    detector = Detector(shouting)
    found: list[Verdict] = []
    loud, silent = frames(A, calm_voice(4.0)), frames(B, np.zeros(32000, np.float32))
    for i, pair in enumerate(zip(loud, silent, strict=True)):
        detector.feed(pair, 0.02 * i)
        found += detector.step(0.02 * i)
    assert max(v.decision.level for v in found if v.call_id == A) == 2
    assert max(v.decision.level for v in found if v.call_id == B) == 0


def test_every_change_of_level_is_reported_once_and_in_order(shouting: AcousticModel) -> None:
    unsure = Policy(0.5, 0.7, 0.4, sustain_s=1.4)
    sure = Policy(0.5, 0.7, 0.4, sustain_s=1.4, sure=0.9, sure_s=0.7)
    # Made vowels hold no words: Silero takes a part of them for speech only.
    gate_alone = SpeechJudge(None)
    for detector, expected in (
        (Detector(shouting, unsure, gate_alone), [(0, 1), (1, 2)]),
        # A window full of shouting leaves no doubt, and no need of level 1 on the way.
        (Detector(shouting, sure, gate_alone), [(0, 2)]),
    ):
        changes = [
            (v.decision.previous, v.decision.level)
            for v in live(detector, frames(A, calm_voice(6.0)))
            if v.decision.changed
        ]
        assert changes == expected


def test_evidence_of_a_call_without_packets_ages_by_the_clock(shouting: AcousticModel) -> None:
    """Silence suppression: no packets, yet the caller has gone quiet."""
    detector = Detector(shouting, Policy(0.5, 0.7, 0.4, hold_s=4.0))
    live(detector, frames(A, calm_voice(4.0)))
    levels = [v.decision.level for i in range(250) for v in detector.step(4.0 + 0.1 * i)]
    assert levels[0] == 2
    assert levels[-1] == 0


def test_detach_keeps_the_level_over_a_hold_and_drops_the_audio(shouting: AcousticModel) -> None:
    detector = Detector(shouting)
    live(detector, frames(A, calm_voice(4.0)))
    detector.feed([detach(A)], 4.0)
    found = live(detector, frames(A, calm_voice(1.0), start=10**6), start_s=8.0)
    assert [v.decision.level for v in found] == [2, 2]
    assert not any(v.decision.changed for v in found)


def test_an_idle_call_is_forgotten_and_its_level_taken_back(shouting: AcousticModel) -> None:
    detector = Detector(shouting, Policy(0.5, 0.7, 0.4, hold_s=1000.0))
    live(detector, frames(A, calm_voice(4.0)))
    assert detector.calls == 1
    found = detector.step(4.0 + IDLE_S + 0.1)
    assert detector.calls == 0
    assert (found[-1].decision.previous, found[-1].decision.level) == (2, 0)
    assert detector.counters.frames == 200


def test_detach_of_an_unknown_call_is_nothing(model: AcousticModel) -> None:
    detector = Detector(model)
    detector.feed([detach(A)], 0.0)
    assert detector.calls == 0
    assert detector.step(0.0) == []


def test_more_calls_than_any_node_admits_are_refused_and_counted(
    model: AcousticModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "MAX_CALLS", 2)
    detector = Detector(model)
    for i in range(5):
        detector.feed(frames(bytes([i]) * 16, np.zeros(160, np.float32)), 0.0)
    assert detector.calls == 2
    assert detector.counters.refused_frames == 3


def test_a_detector_that_was_kept_waiting_drops_the_oldest_and_goes_on(
    model: AcousticModel,
) -> None:
    detector = Detector(model)
    detector.feed(frames(A, calm_voice(10.0)), 0.0)
    found = detector.step(0.0)
    assert detector.counters.dropped_samples == 7 * 8000
    assert len(found) == 6
    assert found[-1].at_s == 10.0


def test_a_call_costs_less_than_32_kib_of_state(model: AcousticModel) -> None:
    detector = Detector(model)
    detector.feed(frames(A, calm_voice(0.4)), 0.0)
    stream = detector._calls[A].stream
    arrays = stream.tracks.nbytes + stream.speech.nbytes + stream._waiting.nbytes
    assert arrays + sys.getsizeof(stream) < 32 * 1024


def test_hop_length_and_decisions_agree() -> None:
    assert int(HOP_S * 8000) == engine.HOP_SAMPLES  # type: ignore[attr-defined]


def test_a_calm_caller_becomes_known_and_a_shouting_one_never(
    model: AcousticModel, shouting: AcousticModel
) -> None:
    """Or who shouts from the first word on would be taken for somebody who speaks like that."""
    spoken = frames(A, calm_voice(12.0))
    calm, loud = Detector(model), Detector(shouting)
    live(calm, spoken)
    live(loud, spoken)
    assert calm._calls[A].voice.known == 1.0
    assert loud._calls[A].voice.learnt_s == 0.0


def test_a_callers_voice_is_the_mean_of_his_calm_speech_and_is_learnt_once() -> None:
    voice = CallerVoice()
    one, two = (np.full(FEATURE_COUNT, value, np.float32) for value in (1.0, 4.0))
    voice.learn(one, 0.5)
    assert voice.known == 0.0
    voice.learn(two, 1.0)
    assert voice.mean[0] == pytest.approx(3.0)
    while voice.known < 1.0:
        voice.learn(two, 0.5)
    assert voice.learnt_s == pytest.approx(REFERENCE_S[1])
    for _ in range(100):
        voice.learn(two, 0.5)
    settled = voice.mean.copy()
    voice.learn(np.full(FEATURE_COUNT, 1e3, np.float32), 0.5)
    assert np.array_equal(voice.mean, settled)


def test_the_sustained_score_needs_more_than_one_loud_window() -> None:
    running = RunningScore()
    first, second = running.add(0.9), running.add(0.9)
    assert first[0] == pytest.approx(0.9)
    assert first[1] < second[1] < 0.9
    for _ in range(60):
        now, sustained = running.add(0.9)
    assert (now, sustained) == (pytest.approx(0.9), pytest.approx(0.9, abs=1e-3))
    for _ in range(2):
        now, sustained = running.add(0.1)
    assert now < 0.3 < sustained


def test_what_is_left_of_a_call_is_told_once_when_it_is_forgotten(shouting: AcousticModel) -> None:
    detector = Detector(shouting)
    live(detector, frames(A, shouting_voice(4.0)))
    assert detector.take_figures() == [], "the call goes on"
    detector.step(4.0 + IDLE_S)
    ((call_id, figures),) = detector.take_figures()
    assert call_id == A
    assert figures.analysed_s == 4.0
    assert 0.0 < figures.speech_s <= 4.0
    assert figures.serious_reached == figures.caution_reached > 0.95
    assert detector.take_figures(all_calls=True) == []


def test_a_detector_that_stops_leaves_the_figures_of_live_calls(shouting: AcousticModel) -> None:
    detector = Detector(shouting)
    live(detector, frames(A, shouting_voice(2.0)))
    assert [call_id for call_id, _ in detector.take_figures(all_calls=True)] == [A]


def test_one_call_can_be_judged_by_thresholds_of_its_own(model: AcousticModel) -> None:
    """Before it is heard or in the middle of it; the call beside it keeps the detector's."""

    class Raised(AlwaysShouting):
        def score(
            self,
            vectors: NDArray[np.float32],
            references: NDArray[np.float32] | None = None,
            known: NDArray[np.float32] | None = None,
        ) -> Scores:
            scores = np.full(len(vectors), 0.9, dtype=np.float32)
            return Scores(scores, scores)

    strict = Policy(caution=0.95, serious=0.97, release=0.5)
    detector = Detector(Raised(), Policy(caution=0.7, serious=0.8, release=0.5))
    detector.judge_by(A, strict)
    voice = shouting_voice(4.0)
    for start in range(0, len(voice) // 2, 4000):
        part = voice[start : start + 4000]
        detector.feed([*frames(A, part, start), *frames(B, part, start)], start / 8000)
        found = {v.call_id: v.decision.level for v in detector.step(start / 8000)}
    assert found == {A: 0, B: 2}
    detector.judge_by(B, strict)
    detector.judge_by(A, None)
    assert {f.serious for _, f in detector.take_figures(all_calls=True)} == {0.97}
