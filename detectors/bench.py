"""What the detector costs: ``python -m detectors.bench --calls 300``.

Plays N calls whose callers all speak all the time (the worst case; a caller usually speaks less
than half of it) from tap datagrams to verdicts, as fast as it goes, and divides CPU time by the
audio's time. No sockets: their cost is the kernel's.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
import tracemalloc
from importlib import resources
from typing import Any

import numpy as np
import soundfile
import soxr

from callshield.audio_codecs import RTP_CLOCK_HZ, encoder
from callshield.tap import CallerFrame, TapCodec, TapKind, encode_batches
from detectors.acoustic import AcousticModel
from detectors.engine import Detector
from detectors.process import TICK_S, TapQueue
from detectors.resample import RATE, to_int16

_TICK_FRAMES = round(TICK_S / 0.02)


def _talk(seconds: float, codec: TapCodec) -> list[bytes]:
    """The demo's callers talking without end, in 20 ms packets: noise is no speech to Silero."""
    folder = resources.files("callshield") / "demo_audio"
    said = []
    for name in ("calm_1.wav", "shout_1.wav", "calm_2.wav"):
        pcm, _ = soundfile.read(io.BytesIO((folder / name).read_bytes()), dtype="float32")
        said.append(np.asarray(pcm, dtype=np.float32))
    sound = np.resize(np.concatenate(said), int(seconds * RATE))
    coder = encoder(codec, 20)
    if coder.rate_hz != RATE:
        sound = soxr.resample(sound, RATE, coder.rate_hz)
    return coder.encode(to_int16(sound)) + coder.finish()


def measure(calls: int, seconds: float, codec: TapCodec = TapCodec.PCMU) -> dict[str, Any]:
    """Run the bench.

    Args:
        calls: calls at once.
        seconds: audio of each call.
        codec: of all calls.

    Returns:
        ``cpu_core_pct`` of one core for that many calls, ``us_per_decision`` (CPU),
        ``step_ms`` (p50, p99, max of one tick's batch), ``kib_per_call`` (Python's own
        allocations), ``scored_pct`` of the decisions.
    """
    model = AcousticModel()
    ids = [i.to_bytes(16, "little") for i in range(calls)]
    payloads = _talk(seconds, codec)
    units = RTP_CLOCK_HZ[codec] // 50
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    probe = Detector(model)
    for i in range(75):
        part = payloads[i]
        probe.feed([CallerFrame(k, TapKind.AUDIO, codec, i, i * units, 0, part) for k in ids], 0.0)
        probe.step(0.0)
    kib = (tracemalloc.get_traced_memory()[0] - before) / 1024 / calls
    tracemalloc.stop()

    detector, queue = Detector(model), TapQueue(limit=10**6)
    steps_ms: list[float] = []
    cpu_s = 0.0
    ticks = int(seconds / TICK_S)
    for tick in range(ticks):
        for frame in range(tick * _TICK_FRAMES, (tick + 1) * _TICK_FRAMES):
            part = payloads[frame]
            # Calls begin at different times: a fifth of them is due at each tick.
            batch = [
                CallerFrame(k, TapKind.AUDIO, codec, frame % 2**16, frame * units, 0, part)
                for i, k in enumerate(ids)
                if frame >= (i % 5) * _TICK_FRAMES
            ]
            for datagram in encode_batches(batch, 0):
                queue.datagram_received(datagram, None)
        now_s = (tick + 1) * TICK_S
        wall, cpu = time.perf_counter(), time.process_time()
        detector.feed(queue.take(), now_s)
        detector.step(now_s)
        cpu_s += time.process_time() - cpu
        steps_ms.append((time.perf_counter() - wall) * 1e3)
    counters = detector.counters
    p50, p99 = np.percentile(steps_ms, [50, 99])
    return {
        "calls": calls,
        "codec": codec.name,
        "seconds": seconds,
        "cpu_core_pct": round(100 * cpu_s / (ticks * TICK_S), 1),
        "us_per_decision": round(1e6 * cpu_s / max(1, counters.decisions), 1),
        "step_ms": {"p50": round(p50, 2), "p99": round(p99, 2), "max": round(max(steps_ms), 2)},
        "kib_per_call": round(kib, 1),
        "scored_pct": round(100 * counters.scored / max(1, counters.decisions), 1),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure what the detector costs.")
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--codec", choices=[codec.name for codec in TapCodec], default="PCMU")
    arguments = parser.parse_args()
    found = measure(arguments.calls, arguments.seconds, TapCodec[arguments.codec])
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
