"""A prompt file on its way to packets: every codec and length, both rates, gain, and the cache."""

from __future__ import annotations

import asyncio
import os
import wave
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from callshield import g711
from callshield.audio_codecs import decoder, packet_ms
from callshield.errors import SetupError
from callshield.tap import TapCodec
from sipbridge import prompt_catalogue, prompt_file
from sipbridge.prompt_file import Prompt, PromptCache, load_prompt

PCMU, PCMA, G722, OPUS = TapCodec
NOTICE = Path(__file__).parent.parent / "sipbridge" / "prompts" / "ko" / "abuse_prevention.wav"


def write(path: Path, rate_hz: int, seconds: float = 1.0, hz: float = 1000.0) -> Path:
    at_s = np.arange(int(seconds * rate_hz)) / rate_hz
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((8000 * np.sin(2 * np.pi * hz * at_s)).astype("<i2").tobytes())
    return path


def heard(prompt: Prompt, codec: TapCodec, ptime_ms: int = 20) -> NDArray[np.int16]:
    stream = decoder(codec, 8000)
    return np.concatenate([stream.decode(packet) for packet in prompt.frames(codec, ptime_ms)])


def rms(samples: NDArray[np.int16]) -> float:
    return float(np.sqrt(np.mean(samples.astype(float) ** 2)))


@pytest.mark.parametrize("rate_hz", [8000, 16000])
@pytest.mark.parametrize("codec", TapCodec)
@pytest.mark.parametrize("ptime_ms", [10, 20, 30, 40, 50, 60])
def test_every_codec_length_and_file_sounds_the_same(
    tmp_path: Path, rate_hz: int, codec: TapCodec, ptime_ms: int
) -> None:
    prompt = load_prompt(write(tmp_path / "tone.wav", rate_hz))
    frames = prompt.frames(codec, ptime_ms)
    length = packet_ms(codec, ptime_ms)
    assert len(frames) == -(-1000 // length)
    assert prompt.samples == 8000
    sound = heard(prompt, codec, ptime_ms)[:8000]
    assert np.abs(np.fft.rfft(sound)).argmax() == 1000
    assert rms(sound[800:7200]) == pytest.approx(8000 / np.sqrt(2), rel=0.1)


def test_g711_is_the_whole_file_and_its_packets_are_cut_from_it(tmp_path: Path) -> None:
    prompt = load_prompt(write(tmp_path / "tone.wav", 8000, seconds=0.025))
    for law in (PCMU, PCMA):
        assert len(prompt.encoded[law]) == 200
        first, last = prompt.frames(law, 20)
        assert first + last == prompt.encoded[law] + g711.SILENCE[law] * 120


def test_the_notice_is_told_apart_from_another_prompt_in_every_codec() -> None:
    """The words survive: envelopes agree with the file's, and with no other file's."""
    other = load_prompt(NOTICE.with_name("closing.wav"))
    prompt = load_prompt(NOTICE)

    def envelope(samples: NDArray[np.int16]) -> NDArray[np.float64]:
        parts = samples[: 5 * 8000].reshape(-1, 400).astype(float)
        return np.sqrt(np.mean(parts**2, axis=1))

    for codec in (G722, OPUS):
        own = np.corrcoef(envelope(heard(prompt, codec)), envelope(prompt.pcm))[0, 1]
        assert own > 0.95
        assert np.corrcoef(envelope(heard(other, codec)), envelope(prompt.pcm))[0, 1] < 0.6


@pytest.mark.parametrize("codec", TapCodec)
def test_a_quiet_version_is_quieter_by_what_was_asked(tmp_path: Path, codec: TapCodec) -> None:
    path = write(tmp_path / "tone.wav", 8000)
    loud, quiet = (rms(heard(load_prompt(path, gain), codec)[800:7200]) for gain in (0.0, -20.0))
    assert 20 * np.log10(loud / quiet) == pytest.approx(20.0, abs=0.5)
    assert np.array_equal(load_prompt(path, 6.0).pcm, load_prompt(path).pcm)


def test_a_file_of_another_form_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="has 44100 Hz, 16 bit, 1 channel"):
        load_prompt(write(tmp_path / "music.wav", 44100))
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(SetupError, match="cannot be read"):
        load_prompt(tmp_path / "text.wav")
    with pytest.raises(SetupError, match="is empty"):
        load_prompt(write(tmp_path / "empty.wav", 8000, seconds=0.0))
    with pytest.raises(SetupError, match="is missing: put the file there"):
        PromptCache().load(tmp_path / "none.wav")


def test_the_catalogue_takes_both_rates_and_gives_the_true_length(tmp_path: Path) -> None:
    (tmp_path / "ko").mkdir()
    for rate_hz in (8000, 16000):
        write(tmp_path / "ko" / "closing.wav", rate_hz, seconds=1.5)
        assert prompt_catalogue.load_prompt(tmp_path, "ko", "closing").duration_s == 1.5
    write(tmp_path / "ko" / "closing.wav", 44100)
    with pytest.raises(SetupError, match="44100 Hz"):
        prompt_catalogue.load_prompt(tmp_path, "ko", "closing")


async def test_the_event_loop_never_encodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = write(tmp_path / "tone.wav", 8000), PromptCache()
    wanted = [(OPUS, 20), (G722, 30), (PCMA, 20)]
    assert cache.cached(path, -10.0, wanted) is None
    prompt = await asyncio.to_thread(cache.load, path, -10.0, wanted)

    def refuse(*_: object) -> None:
        raise AssertionError("encoded in the event loop")

    monkeypatch.setattr(prompt_file, "encoder", refuse)
    assert cache.cached(path, -10.0, wanted) is prompt
    for codec, ptime_ms in wanted:
        assert prompt.frames(codec, ptime_ms) is not None
    # What is not encoded yet is not said to be there.
    assert cache.cached(path, -10.0, [(OPUS, 60)]) is None
    assert cache.cached(path, 0.0) is None
    # 30 ms of Opus are sent as 20: the same packets.
    assert cache.cached(path, -10.0, [(OPUS, 30)]) is prompt


def test_a_file_that_changed_is_encoded_anew(tmp_path: Path) -> None:
    path, cache = write(tmp_path / "tone.wav", 8000), PromptCache()
    before = cache.load(path, wanted=[(OPUS, 20)])
    assert cache.load(path) is before
    status = path.stat()
    write(path, 8000, hz=500.0)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert cache.cached(path) is None
    after = cache.load(path, wanted=[(OPUS, 20)])
    assert np.abs(np.fft.rfft(heard(after, OPUS)[:8000])).argmax() == 500
    path.unlink()
    assert cache.cached(path) is None
