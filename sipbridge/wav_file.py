"""WAV files as announcements have to be: whole, PCM, 16 bit, mono, 8 or 16 kHz.

Python's ``wave`` reads a file that was cut off as if it had always been so short, and knows no
WAVE_FORMAT_EXTENSIBLE before Python 3.12; half an announcement may end before it says what the law
wants said. So the chunks are read here (RIFF: Multimedia Programming Interface and Data
Specifications 1.0, IBM and Microsoft, 1991).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from callshield.errors import SetupError

#: What an announcement may be sampled at.
RATES_HZ: Final = (8000, 16000)
#: More than an hour at 16 kHz: no announcement, and nothing to be read into memory.
MAX_BYTES: Final = 128 << 20

_PCM, _EXTENSIBLE = 1, 0xFFFE
_FORMATS: Final = {
    2: "ADPCM",
    3: "floating point",
    6: "A-law",
    7: "µ-law",
    0x11: "IMA ADPCM",
    0x31: "GSM 6.10",
    0x55: "MP3",
}
#: How files begin that are often given a name in .wav.
_STRANGERS: Final = {
    b"ID3": "an MP3 file",
    b"\xff\xfb": "an MP3 file",
    b"\xff\xf3": "an MP3 file",
    b"OggS": "an Ogg file",
    b"fLaC": "a FLAC file",
    b"FORM": "an AIFF file",
    b"RF64": "an RF64 file",
    b"RIFX": "a big-endian WAV file",
    b"\x1aE\xdf\xa3": "a WebM file",
}
#: What programs that write to a pipe leave in the header for a length they do not know.
_UNKNOWN_LENGTH: Final = 0x7FFF0000


@dataclass(frozen=True, slots=True)
class Wav:
    """What a file holds."""

    rate_hz: int
    bits: int
    channels: int
    data: bytes
    sha256: str = field(default="", compare=False)
    """Of the whole file, header and all."""

    @property
    def samples(self) -> NDArray[np.int16]:
        """Of a 16-bit mono file, shape ``(n,)``."""
        return np.frombuffer(self.data, "<i2").astype(np.int16)

    @property
    def frames(self) -> int:
        """Samples of each channel."""
        return len(self.data) // (self.channels * self.bits // 8)

    @property
    def duration_s(self) -> float:
        """How long it sounds."""
        return self.frames / self.rate_hz


class _Fault(Exception):
    """Why a file cannot be used: what follows its name in a sentence, and what to do."""


def read_wav(path: Path) -> Wav:
    """Read an announcement.

    Args:
        path: of the file.

    Raises:
        SetupError: it is missing or cannot be read; is no WAV file, or one that was cut off; or is
            not 8 or 16 kHz, 16 bit, mono; or holds no sample.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SetupError(f"the prompt {path} is larger than {MAX_BYTES >> 20} MiB: shorten it")
        content = path.read_bytes()
    except FileNotFoundError:
        raise SetupError(
            f"the prompt {path} is missing: put the file there, or name another in [notice]"
        ) from None
    except OSError as error:
        raise SetupError(
            f"the prompt {path} cannot be read ({error.strerror}): let the user that Callshield "
            "runs as read it"
        ) from None
    try:
        wav = _parse(content)
        _check_form(wav)
    except _Fault as fault:
        raise SetupError(f"the prompt {path} {fault}") from None
    return wav


def _check_form(wav: Wav) -> None:
    if wav.rate_hz not in RATES_HZ or (wav.bits, wav.channels) != (16, 1):
        raise _Fault(
            f"has {wav.rate_hz} Hz, {wav.bits} bit, {wav.channels} channel(s), not 8000 or 16000 "
            "Hz, 16 bit, 1 channel: convert it"
        )
    if not wav.data:
        raise _Fault("is empty: replace it by a WAV file of 8000 Hz, 16 bit, mono")


def _parse(content: bytes) -> Wav:
    remedy = "save it as WAV (PCM, 16 bit, mono, 8000 or 16000 Hz)"
    if not content:
        raise _Fault("is empty: copy it again")
    for begin, what in _STRANGERS.items():
        if content.startswith(begin):
            raise _Fault(f"cannot be read: it is {what}, whatever its name says; {remedy}")
    if len(content) < 12 or content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise _Fault(f"cannot be read: it is no WAV file; {remedy}")
    form: tuple[int, int, int] | None = None
    at = 12
    while at + 8 <= len(content):
        name, size = content[at : at + 4], struct.unpack_from("<I", content, at + 4)[0]
        body = content[at + 8 : at + 8 + size]
        if name == b"fmt ":
            form = _form(body, remedy)
        elif name == b"data":
            if form is None:
                raise _Fault(f"cannot be read: its samples come before their format; {remedy}")
            samples = _whole(body, size, len(content) - at - 8, form, remedy)
            return Wav(*form, samples, hashlib.sha256(content).hexdigest())
        at += 8 + size + size % 2
    raise _Fault(
        "was cut off: its header is there, and no sample; copy it again"
        if form
        else f"cannot be read: it has neither format nor samples; {remedy}"
    )


def _form(body: bytes, remedy: str) -> tuple[int, int, int]:
    """``(rate_hz, bits, channels)`` of a ``fmt`` chunk."""
    if len(body) < 16:
        raise _Fault(f"cannot be read: its header is damaged; {remedy}")
    tag, channels, rate_hz, _, align, bits = struct.unpack_from("<HHIIHH", body)
    if tag == _EXTENSIBLE and len(body) >= 26:
        (tag,) = struct.unpack_from("<H", body, 24)
    if tag != _PCM:
        known = _FORMATS.get(tag, f"format {tag}")
        raise _Fault(f"is compressed or not PCM ({known}); {remedy}")
    if not channels or not rate_hz or bits % 8 or not bits or align != channels * bits // 8:
        raise _Fault(f"cannot be read: its header contradicts itself; {remedy}")
    return rate_hz, bits, channels


def _whole(
    body: bytes, promised: int, there: int, form: tuple[int, int, int], remedy: str
) -> bytes:
    """The samples, when all are there that the header promises.

    Args:
        body: those that are.
        promised: bytes.
        there: bytes from where they begin to the file's end.
    """
    rate_hz, bits, channels = form
    a_second = rate_hz * channels * bits // 8
    if promised >= _UNKNOWN_LENGTH or (promised == 0 and there >= a_second // 10):
        raise _Fault(
            "does not say how long it is: it was written to a pipe, and nobody could tell if its "
            f"end were missing; {remedy}"
        )
    if len(body) < promised:
        raise _Fault(
            f"was cut off: its header promises {promised / a_second:.2f} s, and "
            f"{len(body) / a_second:.2f} s are there; copy or export it again"
        )
    if promised % (channels * bits // 8):
        raise _Fault("was cut off in the middle of a sample: copy or export it again")
    return body
