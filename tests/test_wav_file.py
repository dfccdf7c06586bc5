"""WAV files of people who are no sound engineers: cut off, compressed, renamed, from a pipe."""

from __future__ import annotations

import contextlib
import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callshield.errors import SetupError
from sipbridge.prompt_catalogue import SHIPPED
from sipbridge.wav_file import Wav, _Fault, _parse, read_wav

SAMPLES = (8000 * np.sin(np.arange(800) / 7)).astype("<i2").tobytes()


def fmt(
    tag: int = 1, channels: int = 1, rate: int = 8000, bits: int = 16, rest: bytes = b""
) -> bytes:
    align = channels * bits // 8
    return struct.pack("<HHIIHH", tag, channels, rate, rate * align, align, bits) + rest


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    padding = b"\0" * (len(body) % 2)
    return name + struct.pack("<I", len(body) if size is None else size) + body + padding


def riff(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


GOOD = riff(chunk(b"fmt ", fmt()), chunk(b"data", SAMPLES))
GUID = bytes.fromhex("0100000000001000800000aa00389b71")


def fault(content: bytes) -> str:
    with pytest.raises(_Fault) as raised:
        _parse(content)
    return str(raised.value)


def test_python_s_own_reader_takes_a_file_that_was_cut_off(tmp_path: Path) -> None:
    """Why there is a reader here: the control of all that follows."""
    path = tmp_path / "cut.wav"
    path.write_bytes(GOOD[:-800])
    with wave.open(str(path), "rb") as audio:
        assert len(audio.readframes(audio.getnframes())) == 800
    with pytest.raises(SetupError, match=r"was cut off: its header promises 0\.10 s, and 0\.05 s"):
        read_wav(path)


def test_no_part_of_a_file_is_taken_for_the_whole() -> None:
    assert _parse(GOOD) == Wav(8000, 16, 1, SAMPLES)
    for length in range(len(GOOD)):
        fault(GOOD[:length])


def test_every_shipped_file_is_read_as_the_standard_library_reads_it() -> None:
    for path in SHIPPED.glob("*/*.wav"):
        with wave.open(str(path), "rb") as audio:
            wanted = (audio.getframerate(), audio.readframes(audio.getnframes()))
        wav = read_wav(path)
        assert (wav.rate_hz, wav.data) == wanted, path
        assert wav.frames == len(wav.samples)


@pytest.mark.parametrize(
    "content",
    [
        riff(chunk(b"LIST", b"INFOodd"), chunk(b"fmt ", fmt()), chunk(b"data", SAMPLES)),
        riff(chunk(b"fmt ", fmt(rest=b"\0\0")), chunk(b"fact", b"1234"), chunk(b"data", SAMPLES)),
        riff(
            chunk(b"fmt ", fmt(0xFFFE, rest=struct.pack("<HHI", 22, 16, 4) + GUID)),
            chunk(b"data", SAMPLES),
        ),
        GOOD + chunk(b"id3 ", b"a tag that the header does not count"),
    ],
    ids=["list first", "fact", "extensible", "tag behind"],
)
def test_what_audio_programs_write_is_read(content: bytes) -> None:
    assert _parse(content) == Wav(8000, 16, 1, SAMPLES)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty: copy it again"),
        (b"RIFF\0\0\0\0WAVX", "it is no WAV file"),
        (b"ID3\4" + b"\0" * 99, "it is an MP3 file, whatever its name says"),
        (b"OggS" + b"\0" * 99, "it is an Ogg file"),
        (riff(chunk(b"fmt ", fmt(7, bits=8)), chunk(b"data", SAMPLES)), r"not PCM (µ-law)"),
        (riff(chunk(b"fmt ", fmt(3, bits=32)), chunk(b"data", SAMPLES)), "(floating point)"),
        (riff(chunk(b"fmt ", fmt(999)), chunk(b"data", SAMPLES)), "(format 999)"),
        (riff(chunk(b"fmt ", fmt()[:10]), chunk(b"data", SAMPLES)), "its header is damaged"),
        (riff(chunk(b"fmt ", fmt(rate=0)), chunk(b"data", SAMPLES)), "contradicts itself"),
        (riff(chunk(b"fmt ", fmt(channels=0)), chunk(b"data", SAMPLES)), "contradicts itself"),
        (riff(chunk(b"data", SAMPLES)), "samples come before their format"),
        (riff(chunk(b"fmt ", fmt())), "its header is there, and no sample"),
        (riff(), "neither format nor samples"),
        # ffmpeg and sox to a pipe.
        (riff(chunk(b"fmt ", fmt()), chunk(b"data", SAMPLES, 0xFFFFFFFF)), "written to a pipe"),
        (riff(chunk(b"fmt ", fmt()), chunk(b"data", SAMPLES * 2, 0)), "written to a pipe"),
        (riff(chunk(b"fmt ", fmt()), chunk(b"data", SAMPLES[:-1])), "in the middle of a sample"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_with_the_remedy(content: bytes, says: str) -> None:
    assert says in fault(content)


@pytest.mark.parametrize(
    ("rate", "bits", "channels"), [(44100, 16, 1), (8000, 8, 1), (8000, 16, 2), (48000, 24, 2)]
)
def test_another_form_is_named(tmp_path: Path, rate: int, bits: int, channels: int) -> None:
    path = tmp_path / "other.wav"
    form = chunk(b"fmt ", fmt(channels=channels, rate=rate, bits=bits))
    path.write_bytes(riff(form, chunk(b"data", b"\0" * 4800)))
    with pytest.raises(SetupError, match=f"has {rate} Hz, {bits} bit, {channels} channel"):
        read_wav(path)


@given(st.binary(max_size=200), st.integers(0, 60), st.integers(0, 255))
def test_whatever_the_bytes_it_is_a_fault_or_a_file(junk: bytes, at: int, value: int) -> None:
    damaged = bytearray(GOOD[:300])
    damaged[at] = value
    for content in (junk, bytes(damaged), b"RIFF\0\0\0\0WAVE" + junk):
        with contextlib.suppress(_Fault):
            _parse(content)
