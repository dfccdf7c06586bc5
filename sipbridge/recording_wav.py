"""WAV files of one or two sides from files of samples, a block at a time."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from callshield.errors import RecordingError

_BLOCK = 1 << 16
_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
#: Of samples: sizes in a RIFF file have 32 bits.
MAX_WAV_BYTES = (1 << 32) - _HEADER.size


def write_wav(
    out: Path, sides: list[IO[bytes]], rates: list[int], rate: int, length: int, overwrite: bool
) -> None:
    """Interleave files of 16-bit samples into a WAV file.

    Args:
        out: the file.
        sides: left and right, or one alone.
        rates: of each, samples a second.
        rate: of the WAV file.
        length: samples a side of the WAV file.
        overwrite: replace ``out``.

    Raises:
        RecordingError: it is there already, or cannot be written.
    """
    write_private(out, wav_blocks(sides, rates, rate, length), overwrite=overwrite)


def wav_blocks(sides: list[IO[bytes]], rates: list[int], rate: int, length: int) -> Iterator[bytes]:
    """The bytes of a WAV file, a block at a time; arguments as of :func:`write_wav`."""
    width = 2 * len(sides)
    size = width * length
    yield _HEADER.pack(
        *(b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, len(sides), rate, width * rate, width, 16),
        *(b"data", size),
    )
    for block in interleaved(sides, rates, rate, length):
        yield block.astype("<i2").tobytes()


def interleaved(
    sides: list[IO[bytes]], rates: list[int], rate: int, length: int
) -> Iterator[NDArray[np.int16]]:
    """The sides together at ``rate``, shape ``(n, len(sides))``, ``length`` samples in all."""
    channels = [
        _samples(side, side_rate, rate, length)
        for side, side_rate in zip(sides, rates, strict=True)
    ]
    for block in zip(*channels, strict=True):
        yield np.stack(block, axis=1)


def _samples(mono: IO[bytes], from_hz: int, to_hz: int, length: int) -> Iterator[NDArray[np.int16]]:
    """A side in blocks of ``_BLOCK`` samples at ``to_hz``, ``length`` samples in all."""
    mono.seek(0)
    if from_hz == to_hz:
        for begin in range(0, length, _BLOCK):
            yield np.frombuffer(mono.read(2 * min(_BLOCK, length - begin)), "<i2")
        return
    import soxr

    # In floating point, because soxr dithers integers: silence must stay silence.
    stream = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32")
    held = np.zeros(0, np.float32)
    ended = False
    for begin in range(0, length, _BLOCK):
        size = min(_BLOCK, length - begin)
        while len(held) < size:
            data = np.frombuffer(mono.read(2 * _BLOCK), "<i2").astype(np.float32)
            if ended:
                more = np.zeros(size - len(held), np.float32)
            else:
                ended = not len(data)
                more = stream.resample_chunk(data, ended)
            held = np.concatenate((held, more))
        yield np.clip(np.rint(held[:size]), -32768, 32767).astype(np.int16)
        held = held[size:]


def nameless_file(folder: Path) -> IO[bytes]:
    """A temporary file that has no name, so that nobody else opens it.

    Raises:
        RecordingError: the folder cannot be written to.
    """
    try:
        return tempfile.TemporaryFile(dir=folder)
    except OSError as error:
        raise RecordingError(f"{folder} cannot be written: {error.strerror}") from None


def write_private(path: Path, blocks: Iterator[bytes] | list[bytes], *, overwrite: bool) -> None:
    """A new file of mode 0600, whole or not at all; never through a symbolic link.

    Raises:
        RecordingError: it is there already, or cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    made = False
    try:
        if overwrite:
            path.unlink(missing_ok=True)
        descriptor = os.open(path, flags, 0o600)
        made = True
        with os.fdopen(descriptor, "wb") as file:
            for block in blocks:
                file.write(block)
    except FileExistsError:
        raise RecordingError(
            f"{path} exists: name another file with --out, or replace it with --overwrite"
        ) from None
    except OSError as error:
        if made:
            path.unlink(missing_ok=True)
        raise RecordingError(f"{path} cannot be written: {error.strerror}") from None
