"""A call's decoded audio as FLAC, and what of it can be drawn.

FLAC (RFC 9639) is lossless: what comes out of it are the very samples that were decoded, at the
level at which they were said, in about half of the space.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
import soundfile
from numpy.typing import NDArray

from callshield.errors import RecordingError
from sipbridge.recording_export import Decoded
from sipbridge.recording_wav import interleaved

_FULL_SCALE = 32768.0
#: Level of digital silence, dBFS.
FLOOR_DBFS = -90.0
_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class Envelope:
    """One side of a call, column by column over its length."""

    low: NDArray[np.float32]
    """Smallest sample of each column, -1..1."""
    high: NDArray[np.float32]
    rms_dbfs: NDArray[np.float32]
    """Level of each column relative to the RMS of a full-scale square wave."""


def write_flac(out: IO[bytes], audio: Decoded) -> None:
    """Write both sides, left the caller, right the agent, 16 bit; and read them back.

    Args:
        out: empty; a file that has a descriptor.
        audio: of the call.

    Raises:
        RecordingError: it cannot be written, or does not hold every sample.
    """
    kind = {"samplerate": audio.rate, "channels": 2, "format": "FLAC", "subtype": "PCM_16"}
    try:
        # By its descriptor: a callback into Python could not say that the disk is full.
        with soundfile.SoundFile(out.fileno(), "w", closefd=False, **kind) as file:
            for block in _blocks(audio):
                file.write(block)
        os.lseek(out.fileno(), 0, os.SEEK_SET)
        with soundfile.SoundFile(out.fileno(), "r", closefd=False) as file:
            whole = file.frames == audio.length and all(
                np.array_equal(file.read(len(block), dtype="int16"), block)
                for block in _blocks(audio)
            )
    except (OSError, soundfile.SoundFileError, AssertionError):
        # The library asserts that all was written, and tells nothing of why it was not.
        whole = False
    if not whole:
        raise RecordingError(
            "the recording cannot be written whole as FLAC: make space on the disk of the package"
        )


def _blocks(audio: Decoded) -> Iterator[NDArray[np.int16]]:
    return interleaved(audio.sides, audio.rates, audio.rate, audio.length)


def envelope(side: IO[bytes], columns: int) -> Envelope:
    """What is drawn of one side.

    Args:
        side: 16-bit little-endian samples.
        columns: how many; fewer samples than that make empty columns.
    """
    total = side.seek(0, 2) // 2
    edges = np.linspace(0, total, columns + 1).astype(np.int64)
    low, high = np.zeros(columns, np.float32), np.zeros(columns, np.float32)
    level = np.full(columns, FLOOR_DBFS, np.float32)
    for column in range(columns):
        begin, end = int(edges[column]), int(edges[column + 1])
        if begin == end:
            continue
        smallest, largest, power = 0, 0, 0.0
        for start in range(begin, end, _BLOCK):
            size = min(_BLOCK, end - start)
            side.seek(2 * start)
            samples = np.frombuffer(side.read(2 * size), "<i2")
            smallest = min(smallest, int(samples.min()))
            largest = max(largest, int(samples.max()))
            power += float(np.square(samples.astype(np.float64)).sum())
        low[column], high[column] = smallest / _FULL_SCALE, largest / _FULL_SCALE
        rms = np.sqrt(power / (end - begin)) / _FULL_SCALE
        level[column] = max(FLOOR_DBFS, 20 * np.log10(rms)) if rms > 0 else FLOOR_DBFS
    return Envelope(low, high, level)
