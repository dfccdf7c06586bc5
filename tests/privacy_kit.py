"""A recording of both sides of a call, and what of it a caller was given."""

from __future__ import annotations

import io
import os
import time
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from callshield import g711
from callshield.settings import Settings
from sipbridge.recording_keys import load_keys, new_key_file
from sipbridge.recording_store import RecordingStore
from sipbridge.recording_writer import CallMeta, RecordingWriter
from tests.recording_kit import record

CALLER_HZ, AGENT_HZ = 440.0, 1000.0
_FRAME = 160
_MS = 10**6


def recording_toml(folder: Path) -> str:
    """``[recording]`` with a key of its own."""
    new_key_file(folder / "recording.keys")
    return (
        f'[recording]\nenabled = true\ndirectory = "{folder / "recordings"}"\n'
        f'key_file = "{folder / "recording.keys"}"\nmin_free_mib = 1\n'
    )


def record_call(settings: Settings, call_id: str, frames: int = 50) -> None:
    """Write a recording as the recorder does: a tone on each side."""
    store = RecordingStore(settings.recording.directory, make=True)
    started = time.time_ns() - frames * 20 * _MS
    descriptor, stored = store.create(call_id, started)
    key = load_keys(settings.recording.key_file).current
    writer = RecordingWriter(descriptor, stored, key, started, CallMeta())
    at = np.arange(frames * _FRAME)
    sides = [np.rint(8000 * np.sin(2 * np.pi * hz * at / 8000)) for hz in (CALLER_HZ, AGENT_HZ)]
    for number in range(frames):
        for channel, side in enumerate(sides):
            part = side[number * _FRAME : (number + 1) * _FRAME].astype(np.int16)
            packed = record(
                call_id,
                channel,
                g711.encode(part, 0),
                timestamp=number * _FRAME,
                at_ns=started + (number + 1) * 20 * _MS,
            )
            writer.add(packed[16:])
    writer.finish("stopped", started + frames * 20 * _MS)
    os.close(writer.release())
    store.close()


def loudest_hz(sound: NDArray[np.float64]) -> float:
    """Frequency of the loudest tone, at 8 kHz."""
    heard = np.abs(np.fft.rfft(sound))
    return float(np.fft.rfftfreq(len(sound), 1 / 8000)[int(np.argmax(heard))])


def wave_of(data: bytes) -> NDArray[np.float64]:
    """Samples of a mono WAV file."""
    with wave.open(io.BytesIO(data), "rb") as file:
        assert file.getnchannels() == 1
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64)
