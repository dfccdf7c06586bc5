"""The codecs, stream by stream: what goes in comes out; bad bytes cost their own packet only."""

from __future__ import annotations

import contextlib
import ctypes
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from callshield import audio_codecs, libopus
from callshield.audio_codecs import (
    DECODED_RATES_HZ,
    RTP_CLOCK_HZ,
    decoder,
    encoder,
    packet_ms,
)
from callshield.errors import CodecError, SetupError
from callshield.tap import TapCodec

PCMU, PCMA, G722, OPUS = TapCodec
NOTICE = Path(__file__).parent.parent / "sipbridge" / "prompts" / "ko" / "abuse_prevention.wav"
EVERY_FORM = [(codec, rate) for codec, rates in DECODED_RATES_HZ.items() for rate in rates]


def sine(hz: float, rate_hz: int, seconds: float = 1.0) -> NDArray[np.int16]:
    at_s = np.arange(int(seconds * rate_hz)) / rate_hz
    return (8000 * np.sin(2 * np.pi * hz * at_s)).astype(np.int16)


def decoded(codec: TapCodec, packets: list[bytes], rate_hz: int | None = None) -> NDArray[np.int16]:
    stream = decoder(codec, rate_hz)
    return np.concatenate([stream.decode(packet) for packet in packets])


def loudest_hz(samples: NDArray[np.int16], rate_hz: int) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax()) * rate_hz / len(samples)


def rms(samples: NDArray[np.int16]) -> float:
    return float(np.sqrt(np.mean(samples.astype(float) ** 2)))


def notice() -> NDArray[np.int16]:
    with wave.open(str(NOTICE), "rb") as audio:
        return np.frombuffer(audio.readframes(audio.getnframes()), "<i2").astype(np.int16)


@pytest.mark.parametrize(("codec", "rate_hz"), EVERY_FORM)
@pytest.mark.parametrize("ptime_ms", [10, 20, 40, 60])
def test_a_tone_keeps_its_pitch_level_and_length(
    codec: TapCodec, rate_hz: int, ptime_ms: int
) -> None:
    coder = encoder(codec, ptime_ms)
    packets = coder.encode(sine(1000, coder.rate_hz, 1.2)) + coder.finish()
    sound = decoded(codec, packets, rate_hz)
    assert len(sound) == int(1.2 * rate_hz)
    middle = sound[rate_hz // 10 : rate_hz // 10 + rate_hz]
    assert loudest_hz(middle, rate_hz) == pytest.approx(1000, abs=1)
    assert 20 * np.log10(rms(middle) / (8000 / np.sqrt(2))) == pytest.approx(0, abs=1.0)


@pytest.mark.parametrize("codec", [G722, OPUS])
def test_wide_band_is_kept_at_16_khz_and_folds_nowhere_at_8(codec: TapCodec) -> None:
    coder = encoder(codec, 20)
    packets = coder.encode(sine(5500, 16000))
    assert loudest_hz(decoded(codec, packets, 16000)[1600:], 16000) == pytest.approx(5500, abs=2)
    # Half the rate holds no such tone: there must be no image of it either.
    assert rms(decoded(codec, packets, 8000)[800:]) < 0.02 * 8000


@pytest.mark.parametrize("codec", TapCodec)
@pytest.mark.parametrize("ptime_ms", [10, 20, 30, 40, 50, 60])
def test_a_packet_lasts_what_was_asked_for(codec: TapCodec, ptime_ms: int) -> None:
    length = packet_ms(codec, ptime_ms)
    assert length == ptime_ms or (codec is OPUS and length < ptime_ms)
    coder = encoder(codec, ptime_ms)
    assert coder.packet_ms == length
    for packet in coder.encode(sine(700, coder.rate_hz, 0.3)):
        stream = decoder(codec)
        assert len(stream.decode(packet)) * 1000 == length * stream.rate_hz
        if codec is not OPUS:
            assert len(packet) * 1000 == length * RTP_CLOCK_HZ[codec]


def test_lengths_that_no_phone_should_want_are_brought_into_reach() -> None:
    assert [packet_ms(PCMU, wanted) for wanted in (0, 5, 25, 200)] == [10, 10, 20, 60]


@pytest.mark.parametrize("codec", TapCodec)
def test_encoding_in_pieces_gives_the_packets_of_the_whole(codec: TapCodec) -> None:
    whole, pieces = encoder(codec, 20), encoder(codec, 20)
    speech = sine(300, whole.rate_hz, 0.5)
    expected = whole.encode(speech) + whole.finish()
    found = [p for at in range(0, len(speech), 123) for p in pieces.encode(speech[at : at + 123])]
    assert found + pieces.finish() == expected
    assert pieces.finish() == []


def test_streams_do_not_touch_each_other() -> None:
    coder = encoder(OPUS, 20)
    packets = coder.encode(sine(440, 16000))
    alone = decoded(OPUS, packets)
    one, other = decoder(OPUS), decoder(OPUS)
    mixed = []
    for packet in packets:
        mixed.append(one.decode(packet))
        other.decode(packets[0])
    assert np.array_equal(np.concatenate(mixed), alone)


@pytest.mark.parametrize("codec", TapCodec)
def test_after_a_reset_a_stream_is_a_new_one(codec: TapCodec) -> None:
    coder = encoder(codec, 20)
    packets = coder.encode(sine(440, coder.rate_hz))
    stream = decoder(codec)
    first = [stream.decode(packet) for packet in packets]
    stream.reset()
    again = [stream.decode(packet) for packet in packets]
    assert np.array_equal(np.concatenate(first), np.concatenate(again))


def test_what_opus_says_twice_mends_a_loss() -> None:
    """In-band redundancy beats guessing, and guessing beats silence, in error of the waveform."""
    speech = notice()
    coder = encoder(OPUS, 20, 8000)
    packets = coder.encode(speech)
    whole = decoded(OPUS, packets, 8000).reshape(len(packets), 160).astype(float)
    lost = range(20, len(packets) - 1, 10)

    def error(redundancy: bool) -> float:
        stream, total = decoder(OPUS, 8000), 0.0
        for number, packet in enumerate(packets):
            if number in lost:
                following = packets[number + 1] if redundancy else b""
                guess = stream.conceal(160, following)
                total += float(np.sum((guess - whole[number]) ** 2))
            else:
                stream.decode(packet)
        return total

    silence = sum(float(np.sum(whole[number] ** 2)) for number in lost)
    assert error(redundancy=True) < 0.5 * error(redundancy=False)
    assert error(redundancy=True) < 0.3 * silence


@pytest.mark.parametrize(("codec", "rate_hz"), EVERY_FORM)
@pytest.mark.parametrize("samples", [0, 1, 160, 161, 100_000])
def test_concealing_gives_exactly_what_is_missing(
    codec: TapCodec, rate_hz: int, samples: int
) -> None:
    stream = decoder(codec, rate_hz)
    assert stream.conceal(samples).shape == (samples,)
    assert stream.conceal(samples, b"\xff\x00garbage").shape == (samples,)
    assert stream.conceal(samples).dtype == np.int16


@pytest.mark.parametrize("codec", TapCodec)
@settings(max_examples=150, deadline=None)
@given(bad=st.lists(st.binary(max_size=1500) | st.binary(max_size=3), max_size=5))
def test_bad_bytes_cost_their_own_packet_only(codec: TapCodec, bad: list[bytes]) -> None:
    coder = encoder(codec, 20)
    good = coder.encode(sine(1000, coder.rate_hz, 0.6))
    stream = decoder(codec)
    for payload in bad:
        with contextlib.suppress(CodecError):
            samples = stream.decode(payload)
            assert (samples.dtype, samples.ndim) == (np.int16, 1)
    after = np.concatenate([stream.decode(packet) for packet in good])
    assert len(after) == 6 * stream.rate_hz // 10
    # Half a second later there is nothing left of it.
    assert loudest_hz(after[-stream.rate_hz // 10 :], stream.rate_hz) == pytest.approx(1000, abs=11)


@pytest.mark.parametrize("codec", [G722, OPUS])
def test_an_empty_packet_is_refused(codec: TapCodec) -> None:
    with pytest.raises(CodecError, match="no bytes"):
        decoder(codec).decode(b"")


def test_bad_bytes_are_not_answered_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    stream = decoder(OPUS)
    refused = 0
    for first in range(256):
        try:
            stream.decode(bytes([first]) + b"\xff" * 40)
        except CodecError:
            refused += 1
    assert refused
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("codec", TapCodec)
def test_a_rate_that_the_codec_has_not_is_named(codec: TapCodec) -> None:
    with pytest.raises(CodecError, match="44100 Hz"):
        decoder(codec, 44100)
    with pytest.raises(CodecError, match="44100 Hz"):
        encoder(codec, 20, 44100)


def test_a_length_that_opus_has_not_is_named() -> None:
    with pytest.raises(CodecError, match="321 samples"):
        libopus.OpusEncoder(16000, 32000).encode(np.zeros(321, np.int16))
    with pytest.raises(SetupError, match="11025 Hz"):
        libopus.OpusDecoder(11025)
    with pytest.raises(SetupError, match="11025 Hz"):
        libopus.OpusEncoder(11025, 32000)
    assert libopus.version().startswith("libopus")


def test_a_missing_library_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(libopus, "_library", libopus._library.__wrapped__)
    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(SetupError, match="install libopus0"):
        decoder(OPUS)
    monkeypatch.setitem(sys.modules, "G722", None)
    with pytest.raises(SetupError, match="run setup"):
        decoder(G722)
    assert len(decoder(PCMA).decode(b"\xd5" * 160)) == 160


@pytest.mark.parametrize(("codec", "loaded"), [(PCMU, ""), (G722, "G722"), (OPUS, "libopus.so")])
def test_a_library_is_loaded_by_the_first_stream_that_needs_it(
    codec: TapCodec, loaded: str
) -> None:
    program = f"""
import detectors.process, sipbridge.prompt_file
from callshield.audio_codecs import decoder
from callshield.tap import TapCodec
decoder(TapCodec.PCMU).decode(b"x")
maps = open("/proc/self/maps").read()
assert "libopus" not in maps and "G722" not in maps
decoder(TapCodec({int(codec)}))
print({loaded!r} in open("/proc/self/maps").read())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(audio_codecs.__file__).parent.parent,
    )
    assert done.stdout == "True\n"
    assert done.stderr == ""
