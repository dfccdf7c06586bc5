"""One call's audio: order, loss, repetition, and a bound on what waits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callshield import g711
from callshield.tap import TapCodec
from detectors import corpora
from detectors.engine import take_evidence
from detectors.resample import to_int16
from detectors.speech import SpeechJudge
from detectors.stream import HOP_SAMPLES, MAX_WAITING_HOPS, CallStream
from tests.detector_sounds import calm_voice, shouting_voice, white_noise

PCMU, PCMA = TapCodec.PCMU, TapCodec.PCMA

JUDGE = SpeechJudge.load()


def packet(value: int, samples: int = 160) -> bytes:
    return g711.encode(np.full(samples, value, dtype=np.int16), g711.PCMU)


def level(value: int) -> int:
    return int(g711.decode(packet(value, 1), g711.PCMU)[0])


def taken(stream: CallStream) -> list[int]:
    """First sample of each 20 ms of the next hop."""
    return [int(v) for v in stream.take_hop()[160::160]]


def test_packets_in_order_come_out_as_they_went_in() -> None:
    stream = CallStream()
    for i in range(25):
        assert not stream.ready
        stream.push(PCMU, i, 5000 + i * 160, packet(100 * i))
    assert stream.ready
    assert taken(stream) == [level(100 * i) for i in range(25)]
    assert stream.at_s == 0.5


def test_a_lost_packet_is_silence_and_the_rest_stays_in_its_place() -> None:
    stream = CallStream()
    for i in range(25):
        if i not in (3, 4):
            stream.push(PCMU, i, i * 160, packet(1000))
    assert [i for i, v in enumerate(taken(stream)) if v == 0] == [3, 4]
    assert stream.filled_samples == 320


def test_a_late_packet_fills_its_gap_and_a_repeated_one_changes_nothing() -> None:
    stream = CallStream()
    for i in (0, 1, 3, 2, 3, *range(4, 25)):
        stream.push(PCMU, i, i * 160, packet(100 * (i + 1)))
    assert taken(stream) == [level(100 * (i + 1)) for i in range(25)]
    assert stream.late_packets == 1


def test_the_timestamp_may_wrap() -> None:
    stream = CallStream()
    for i in range(25):
        stream.push(PCMU, (65530 + i) % 65536, (2**32 - 800 + i * 160) % 2**32, packet(500))
    assert taken(stream) == [level(500)] * 25
    assert stream.filled_samples == 0


@pytest.mark.parametrize("jump", [10**6, 2**31, -(10**6), -(10**9)])
def test_after_a_jump_of_the_timestamp_the_audio_goes_on(jump: int) -> None:
    stream = CallStream()
    for i in range(10):
        stream.push(PCMU, i, 10**7 + i * 160, packet(500))
    for i in range(15):
        stream.push(PCMU, 10 + i, (10**7 + jump + i * 160) % 2**32, packet(900))
    assert taken(stream) == [level(500)] * 10 + [level(900)] * 15


def test_a_pause_in_sending_is_filled_up_to_half_a_second_only() -> None:
    stream = CallStream()
    stream.push(PCMU, 0, 0, packet(500))
    stream.push(PCMU, 1, 160 + 8000, packet(500))
    stream.push(PCMU, 2, 160 + 8000 + 160 + 1600, packet(500))
    assert stream.filled_samples == 1600


def test_a_law_and_packets_of_10_to_60_ms_are_understood() -> None:
    stream = CallStream()
    at = 0
    for number, samples in enumerate((80, 160, 240, 320, 480, *([480] * 6))):
        payload = g711.encode(np.full(samples, 1000, dtype=np.int16), g711.PCMA)
        stream.push(PCMA, number, at, payload)
        at += samples
    expected = int(g711.decode(g711.encode(np.array([1000], np.int16), g711.PCMA), g711.PCMA)[0])
    assert taken(stream) == [expected] * 25


def test_what_waits_is_bounded_and_the_oldest_goes_first() -> None:
    stream = CallStream()
    for i in range(500):
        stream.push(PCMU, i, i * 160, packet(10 * i))
    hops = []
    while stream.ready:
        hops += taken(stream)
    assert len(hops) == MAX_WAITING_HOPS * 25
    assert hops == [level(10 * i) for i in range(500 - len(hops), 500)]
    assert stream.dropped_samples == 500 * 160 - MAX_WAITING_HOPS * HOP_SAMPLES
    assert stream.at_s == 10.0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(TapCodec),
            st.integers(0, 2**16 - 1) | st.integers(0, 9),
            st.integers(0, 2**32 - 1) | st.integers(0, 20).map(lambda n: n * 160),
            st.binary(max_size=500),
        ),
        max_size=60,
    )
)
def test_no_sequence_of_packets_breaks_the_stream(
    packets: list[tuple[TapCodec, int, int, bytes]],
) -> None:
    stream = CallStream()
    for codec, sequence, timestamp, payload in packets:
        stream.push(codec, sequence, timestamp, payload)
        while stream.ready:
            hop = stream.take_hop()
            assert hop.shape == (160 + HOP_SAMPLES,)
            speech = JUDGE.judge(hop[None], [stream.ear]).speech[0]
            assert speech.shape == (25,)
            stream.shift_in(None, speech)


def test_training_sees_the_very_windows_of_a_live_call() -> None:
    pause = np.zeros(9000, np.float32)
    audio = np.concatenate([calm_voice(2.3), pause, shouting_voice(1.7), white_noise(0.4, 0.01)])
    pcm = to_int16(audio)
    stream, lived = CallStream(), []
    for start in range(0, len(pcm), 4000):
        stream.push_pcm(pcm[start : start + 4000])
        if start + 4000 >= len(pcm):
            stream.flush()
        while stream.ready:
            lived.append(take_evidence([stream], JUDGE).vectors)
    expected = np.concatenate(lived)
    assert len(expected) >= 6
    np.testing.assert_allclose(corpora.heard(pcm).vectors, expected, rtol=1e-4, atol=1e-4)
