"""What recording costs: ``python -m sipbridge.recording_bench --calls 100 300``.

Feeds the real :class:`sipbridge.recorder.Recorder` as the media worker does, a blob each 20 ms with
a G.711 frame of each side of each call (random bytes: nothing to compress), and reads the CPU time
of the recorder's own two threads from the kernel. The feeding itself is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from callshield.settings import RecordingSettings
from sipbridge.recorder import Recorder
from sipbridge.recording_format import RECORD
from sipbridge.recording_keys import new_key_file
from sipbridge.recording_parse import RING_RECORD
from sipbridge.recording_store import RecordingStore
from sipbridge.recording_writer import RecordingWriter

_TICK_S = 0.02
_FRAME_BYTES = 160
_WARM_UP_S = 2.0
_RING = np.dtype(
    {
        "names": ["call", "channel", "codec", "bytes", "timestamp", "at_ns", "payload"],
        "formats": ["V16", "u1", "u1", "<u2", "<u4", "<u8", f"V{_FRAME_BYTES}"],
        "offsets": [0, 16, 17, 18, 20, 24, RING_RECORD.size],
        "itemsize": RING_RECORD.size + _FRAME_BYTES,
    }
)


@dataclass(frozen=True, slots=True)
class RecordingBench:
    """One load."""

    calls: int
    seconds: float
    records: int
    cpu_core_pct: float
    """Of both threads."""
    us_per_record: float
    disk_thread_core_pct: float
    """The part of ``cpu_core_pct`` that fdatasync takes."""
    kib_per_call_minute: float
    on_disk_p50_ms: float
    """From a frame's arrival to the end of its write, of the oldest frame of each chunk."""
    on_disk_p99_ms: float
    on_disk_max_ms: float
    sync_p50_ms: float
    sync_p99_ms: float
    feed_p99_us: float
    feed_max_us: float
    """How long the media worker's event loop was in ``feed()``."""
    idle_late_p99_ms: float
    """How late a thread of this process woke up before there was a recorder."""
    late_p99_ms: float
    """The same while it feeds the recorder: the threads share the interpreter's lock."""
    dropped_bytes: int
    faults: int


class _Stopwatch:
    """Times writes and syncs while it is in place."""

    def __init__(self) -> None:
        self.on_disk_ms: list[float] = []
        self.sync_ms: list[float] = []

    def __enter__(self) -> _Stopwatch:
        self._flush, self._fdatasync = RecordingWriter.flush, os.fdatasync
        flush, fdatasync = self._flush, self._fdatasync

        def timed_flush(writer: RecordingWriter) -> None:
            parts = writer._parts
            oldest = RECORD.unpack_from(parts[0])[4] if parts else 0
            flush(writer)
            if oldest:
                self.on_disk_ms.append((time.time_ns() - oldest) / 1e6)

        def timed_fdatasync(descriptor: int) -> None:
            began = time.perf_counter()
            fdatasync(descriptor)
            self.sync_ms.append((time.perf_counter() - began) * 1e3)

        RecordingWriter.flush = timed_flush  # type: ignore[method-assign, assignment]
        os.fdatasync = timed_fdatasync  # type: ignore[assignment]
        return self

    def __exit__(self, *_: object) -> None:
        RecordingWriter.flush = self._flush  # type: ignore[method-assign]
        os.fdatasync = self._fdatasync


def _cpu_s(thread: threading.Thread) -> float:
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def measure(folder: Path, calls: int, seconds: float) -> RecordingBench:
    """Record ``calls`` calls for ``seconds`` into ``folder``."""
    key_file = folder / "keys"
    new_key_file(key_file)
    settings = RecordingSettings.model_validate(
        {
            "enabled": True,
            "directory": folder / "recordings",
            "key_file": key_file,
            "min_free_mib": 1,
        }
    )
    ids = [secrets.token_bytes(16) for _ in range(calls)]
    blob = np.zeros(2 * calls, _RING)
    blob["call"] = np.repeat(np.frombuffer(b"".join(ids), "V16"), 2)
    blob["channel"] = np.tile([0, 1], calls)
    blob["bytes"] = _FRAME_BYTES
    blob["payload"] = np.frombuffer(
        secrets.token_bytes(2 * calls * _FRAME_BYTES), f"V{_FRAME_BYTES}"
    )
    idle = []
    began = time.monotonic()
    for tick in range(100):
        time.sleep(max(began + tick * _TICK_S - time.monotonic(), 0))
        idle.append((time.monotonic() - began - tick * _TICK_S) * 1e3)
    with _Stopwatch() as watch:
        recorder = Recorder(settings, lambda *_: None)
        for call in ids:
            recorder.start(call.hex())
        feeds: list[float] = []
        late: list[float] = []
        ticks, warm_ticks = round(seconds / _TICK_S), round(_WARM_UP_S / _TICK_S)
        cpu = disk = wall = 0.0
        records = 0
        began = time.monotonic()
        for tick in range(warm_ticks + ticks + 1):
            pause = began + tick * _TICK_S - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            now = time.monotonic()
            if tick == warm_ticks:
                cpu, disk = _cpu_s(recorder._thread), _cpu_s(recorder._disk.thread)
                wall, records = now, recorder.statistics.records
                watch.on_disk_ms.clear()
                watch.sync_ms.clear()
                feeds.clear()
                late.clear()
            late.append((now - began - tick * _TICK_S) * 1e3)
            blob["timestamp"] += _FRAME_BYTES
            blob["at_ns"] = time.time_ns()
            data = blob.tobytes()
            before = time.perf_counter()
            recorder.feed(data)
            feeds.append((time.perf_counter() - before) * 1e6)
        disk = _cpu_s(recorder._disk.thread) - disk
        cpu = _cpu_s(recorder._thread) - cpu
        wall = time.monotonic() - wall
        records = recorder.statistics.records - records
        on_disk = np.array(watch.on_disk_ms)
        syncs = np.array(watch.sync_ms or [0.0])
        recorder.close()
    store = RecordingStore(settings.directory)
    size = 0
    for stored in store.stored():
        with store.open(stored) as file:
            size += file.seek(0, os.SEEK_END)
    store.close()
    return RecordingBench(
        calls=calls,
        seconds=round(wall, 1),
        records=records,
        cpu_core_pct=round(100 * (cpu + disk) / wall, 2),
        us_per_record=round(1e6 * (cpu + disk) / records, 3),
        disk_thread_core_pct=round(100 * disk / wall, 2),
        kib_per_call_minute=round(size / 1024 / calls / (wall + _WARM_UP_S) * 60, 1),
        on_disk_p50_ms=round(float(np.percentile(on_disk, 50)), 1),
        on_disk_p99_ms=round(float(np.percentile(on_disk, 99)), 1),
        on_disk_max_ms=round(float(on_disk.max()), 1),
        sync_p50_ms=round(float(np.percentile(syncs, 50)), 2),
        sync_p99_ms=round(float(np.percentile(syncs, 99)), 2),
        feed_p99_us=round(float(np.percentile(feeds, 99)), 1),
        feed_max_us=round(max(feeds), 1),
        idle_late_p99_ms=round(float(np.percentile(idle, 99)), 2),
        late_p99_ms=round(float(np.percentile(late, 99)), 2),
        dropped_bytes=recorder.statistics.dropped_bytes,
        faults=recorder.statistics.faults,
    )


def main() -> None:
    """One JSON line a load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, nargs="+", default=[100, 300])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--folder", type=Path, help="On the disk to measure; else the temporary.")
    arguments = parser.parse_args()
    for calls in arguments.calls:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            result = measure(Path(folder), calls, arguments.seconds)
        print(json.dumps({**asdict(result), "load_average": round(os.getloadavg()[0], 1)}))


if __name__ == "__main__":
    main()
