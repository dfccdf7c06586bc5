"""Frames of every codec on their way from the tap to the model: order, clocks, loss, scores."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray

from callshield import libopus
from callshield.audio_codecs import RTP_CLOCK_HZ, decoder, encoder
from callshield.errors import SetupError
from callshield.messages import NodeDegraded
from callshield.settings import NodeSettings, Settings
from callshield.tap import CallerFrame, TapCodec, TapKind
from detectors import corpora
from detectors.acoustic import AcousticModel
from detectors.engine import Detector
from detectors.process import DetectorProcess
from detectors.resample import to_int16
from detectors.stream import HOP_SAMPLES, MAX_WAITING_HOPS, CallStream
from tests.detector_sounds import DATA, calm_voice, needs_data

PCMU, PCMA, G722, OPUS = TapCodec
DEMO = Path(__file__).parent.parent / "callshield" / "demo_audio"
CALL = b"c" * 16

#: What the codecs may differ by, of scores from 0 to 1. Of 60 recordings (angry, happy, neutral)
#: G.722 moved the median half second by 0.008 and Opus by 0.022, the peak of 9 in 10 recordings
#: by 0.03 and 0.07, and none by more than 0.15.
MEDIAN_TOLERANCE = 0.05
PEAK_TOLERANCE = 0.2


def packets(codec: TapCodec, audio: NDArray[np.float32], rate_hz: int = 8000) -> list[bytes]:
    """20 ms packets of float audio."""
    coder = encoder(codec, 20)
    if rate_hz != coder.rate_hz:
        audio = soxr.resample(audio, rate_hz, coder.rate_hz)
    return coder.encode(to_int16(audio)) + coder.finish()


def step(codec: TapCodec) -> int:
    """Timestamp units in 20 ms: 160 for G.722 too, 960 for Opus."""
    return RTP_CLOCK_HZ[codec] // 50


def laid(stream: CallStream) -> NDArray[np.int16]:
    """All that was laid down; the last hop filled up."""
    stream.flush()
    hops = []
    while stream.ready:
        hops.append(stream.take_hop()[160:])
    return np.concatenate(hops)


def voice() -> NDArray[np.float32]:
    return calm_voice(MAX_WAITING_HOPS * HOP_SAMPLES / 8000)


def straight(codec: TapCodec, coded: list[bytes]) -> NDArray[np.int16]:
    stream = decoder(codec, 8000)
    return np.concatenate([stream.decode(payload) for payload in coded])


@pytest.mark.parametrize("codec", TapCodec)
def test_every_codec_comes_out_as_8_khz_and_nothing_is_filled(codec: TapCodec) -> None:
    stream, coded = CallStream(), packets(codec, voice())
    for i, payload in enumerate(coded):
        # Both numbers wrap on the way.
        stream.push(codec, (65500 + i) % 65536, (2**32 - 5000 + i * step(codec)) % 2**32, payload)
    assert stream.filled_samples == 0
    assert np.array_equal(laid(stream), straight(codec, coded))


@pytest.mark.parametrize("codec", TapCodec)
def test_shuffled_frames_give_the_same_audio(codec: TapCodec) -> None:
    coded = packets(codec, voice())
    numbers = list(range(len(coded)))
    for start, count in ((5, 2), (20, 3), (40, 4), (77, 5), (100, 2), (102, 2)):
        numbers[start : start + count] = numbers[start : start + count][::-1]
    stream = CallStream()
    for i in numbers:
        stream.push(codec, 1000 + i, i * step(codec), coded[i])
    expected = straight(codec, coded)
    assert np.array_equal(laid(stream), expected)
    assert (stream.filled_samples, stream.late_packets) == (0, 0)
    # Negative control: taken as they come, they are something else.
    assert not np.array_equal(straight(codec, [coded[i] for i in numbers]), expected)


@pytest.mark.parametrize("codec", TapCodec)
def test_a_loss_is_as_long_as_it_was_and_the_rest_stays_in_its_place(codec: TapCodec) -> None:
    coded = packets(codec, voice())
    lost = {30, 31, 60, *range(80, 100)}
    stream = CallStream()
    for i, payload in enumerate(coded):
        if i not in lost:
            stream.push(codec, i, i * step(codec), payload)
    sound = laid(stream)
    assert stream.filled_samples == 160 * len(lost)
    assert len(sound) == 160 * len(coded)
    expected = straight(codec, coded)
    assert np.array_equal(sound[: 30 * 160], expected[: 30 * 160])
    # 400 ms are silence whatever the codec, and a decoder with state finds its way back.
    assert not sound[80 * 160 : 100 * 160].any()
    tail = slice(110 * 160, 145 * 160)
    assert np.corrcoef(sound[tail], expected[tail])[0, 1] > 0.98
    moved = slice(tail.start + 160, tail.stop + 160)
    assert np.corrcoef(sound[moved], expected[tail])[0, 1] < 0.9


def test_a_short_loss_of_opus_is_mended_where_silence_would_be() -> None:
    coded = packets(OPUS, voice())
    expected = straight(OPUS, coded)
    busiest = max(range(20, 140), key=lambda i: int(np.abs(expected[i * 160 :][:160]).sum()))
    stream = CallStream()
    for i, payload in enumerate(coded):
        if i != busiest:
            stream.push(OPUS, i, i * step(OPUS), payload)
    gap = slice(busiest * 160, (busiest + 1) * 160)
    mended, wanted = laid(stream)[gap].astype(float), expected[gap].astype(float)
    assert np.sum((mended - wanted) ** 2) < 0.5 * np.sum(wanted**2)


def test_a_silent_caller_of_opus_leaves_a_pause_of_the_right_length() -> None:
    """Discontinuous transmission: the timestamp goes on, the sequence number does not."""
    coded = packets(OPUS, voice())
    stream = CallStream()
    for i, payload in enumerate(coded[:10]):
        stream.push(OPUS, i, i * 960, payload)
    stream.push(OPUS, 10, (10 + 12) * 960, coded[10])
    assert stream.filled_samples == 12 * 160
    assert not laid(stream)[10 * 160 : 22 * 160].any()


def test_the_codec_may_change_in_mid_call() -> None:
    """A re-INVITE: each stretch is heard, in its own clock, and nothing is filled in between."""
    at_s = np.arange(4000) / 8000
    stream = CallStream()
    sequence, timestamp = 7, 123456
    plan = ((PCMU, 500.0), (G722, 700.0), (OPUS, 900.0), (PCMA, 1100.0), (OPUS, 1300.0))
    for codec, hz in plan:
        for payload in packets(codec, (0.3 * np.sin(2 * np.pi * hz * at_s)).astype(np.float32)):
            stream.push(codec, sequence, timestamp % 2**32, payload)
            sequence, timestamp = sequence + 1, timestamp + step(codec)
    sound = laid(stream).reshape(len(plan), HOP_SAMPLES)
    assert stream.filled_samples == 0
    found = [float(np.abs(np.fft.rfft(part[800:])).argmax()) * 8000 / 3200 for part in sound]
    assert found == [hz for _, hz in plan]


def test_a_late_packet_of_the_old_codec_does_not_disturb_the_new_one() -> None:
    old, new = packets(G722, voice()), packets(OPUS, voice())
    stream = CallStream()
    for i in range(10):
        stream.push(G722, i, i * 160, old[i])
    for i in range(10):
        stream.push(OPUS, 10 + i, 10**6 + i * 960, new[i])
    stream.push(G722, 9, 9 * 160, old[9])
    for i in range(10, 15):
        stream.push(OPUS, 10 + i, 10**6 + i * 960, new[i])
    expected = np.concatenate([straight(G722, old[:10]), straight(OPUS, new[:15])])
    assert np.array_equal(laid(stream), expected)
    assert stream.late_packets == 1


def test_what_is_no_opus_is_counted_and_its_time_passes() -> None:
    coded = packets(OPUS, voice())
    stream = CallStream()
    for i, payload in enumerate(coded):
        stream.push(OPUS, i, i * 960, b"\xff\xff\xff" if i in (50, 51) else payload)
    assert stream.bad_packets == 2
    assert stream.filled_samples == 320
    assert len(laid(stream)) == 160 * len(coded)


def frames(codec: TapCodec, coded: list[bytes], call_id: bytes = CALL) -> list[CallerFrame]:
    return [
        CallerFrame(call_id, TapKind.AUDIO, codec, i % 65536, i * step(codec), 0, payload)
        for i, payload in enumerate(coded)
    ]


def test_a_missing_library_costs_its_own_calls_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise SetupError("Opus cannot be decoded: install libopus0")

    monkeypatch.setattr(libopus, "_library", absent)
    detector = Detector(AcousticModel())
    detector.feed(frames(OPUS, [b"\x08" * 20] * 50), 0.0)
    assert "libopus0" in detector.fault
    detector.feed(frames(G722, packets(G722, calm_voice(1.0)), b"d" * 16), 1.0)
    scored = [verdict.call_id for verdict in detector.step(1.0) if verdict.score is not None]
    assert scored == [b"d" * 16] * 2
    assert detector.counters.bad_packets == 50


def test_the_node_says_which_library_is_missing(tmp_path: Path) -> None:
    process = DetectorProcess(Settings(node=NodeSettings(state_dir=tmp_path, runtime_dir=tmp_path)))
    detector = Detector(AcousticModel())
    process._watch(detector, 0.0)
    assert len(process._hello()) == 1
    detector.codec_fault = "Opus cannot be decoded: install libopus0"
    process._watch(detector, 0.0)
    process._watch(detector, 1000.0)
    said = process._hello()[1]
    assert isinstance(said, NodeDegraded)
    assert (said.degraded, said.reason) == (True, detector.fault)


def scores(
    codec: TapCodec, audio: NDArray[np.float32], rate_hz: int, heard_as: TapCodec | None = None
) -> list[float | None]:
    """Score of each half second, as a live call gets it."""
    detector = Detector(AcousticModel())
    found: list[float | None] = []
    # PCMU is number 0: no `or` here.
    marked = codec if heard_as is None else heard_as
    for i, frame in enumerate(frames(marked, packets(codec, audio, rate_hz))):
        detector.feed([frame], 0.02 * i)
        found += [verdict.score for verdict in detector.step(0.02 * i)]
    return found


def peak(found: list[float | None]) -> float:
    return max((score for score in found if score is not None), default=0.0)


def median_difference(one: list[float | None], other: list[float | None]) -> float:
    return float(
        np.median(
            [abs(a - b) for a, b in zip(one, other, strict=False) if None not in (a, b)] or [1.0]  # type: ignore[operator]
        )
    )


def demo_voice(name: str) -> NDArray[np.float32]:
    with wave.open(str(DEMO / f"{name}.wav"), "rb") as audio:
        data = np.frombuffer(audio.readframes(audio.getnframes()), "<i2")
    return (data / 32768.0).astype(np.float32)


@pytest.mark.parametrize("codec", [PCMA, G722, OPUS])
@pytest.mark.parametrize("name", ["calm_1", "shout_1", "shout_2"])
def test_a_voice_scores_alike_through_every_codec(codec: TapCodec, name: str) -> None:
    audio = demo_voice(name)
    reference, found = scores(PCMU, audio, 8000), scores(codec, audio, 8000)
    assert median_difference(reference, found) < MEDIAN_TOLERANCE
    assert abs(peak(reference) - peak(found)) < PEAK_TOLERANCE


def test_control_another_voice_and_a_wrong_decoder_are_told_apart() -> None:
    calm, shout = demo_voice("calm_1"), demo_voice("shout_1")
    reference = scores(PCMU, shout, 8000)
    assert abs(peak(reference) - peak(scores(G722, calm, 8000))) > PEAK_TOLERANCE
    wrong = scores(G722, shout, 8000, heard_as=PCMU)
    assert median_difference(reference, wrong) > MEDIAN_TOLERANCE


@needs_data
@pytest.mark.data
@pytest.mark.parametrize("codec", [G722, OPUS])
def test_recorded_voices_score_alike_in_wide_and_narrow_band(codec: TapCodec) -> None:
    clips = [
        clip
        for clip in corpora.read_manifest(DATA)
        if clip.corpus == "emodb" and clip.split == "dev" and clip.emotion in ("anger", "neutral")
    ]
    peaks, medians = [], []
    for clip in clips[:: max(1, len(clips) // 24)]:
        audio, rate_hz = corpora.read_clip(clip.path)
        reference, found = scores(PCMU, audio, rate_hz), scores(codec, audio, rate_hz)
        if peak(reference) > 0.0:
            peaks.append(abs(peak(reference) - peak(found)))
            medians.append(median_difference(reference, found))
    assert len(peaks) >= 15
    assert float(np.median(medians)) < MEDIAN_TOLERANCE
    assert float(np.percentile(peaks, 90)) < PEAK_TOLERANCE
