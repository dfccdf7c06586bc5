"""A process that records until it is killed: ``python -m tests.recording_child ...``.

Prints the arrival of the newest frame after each hand-over, and every change of a recording.
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path

from sipbridge import recorder as recorder_module
from sipbridge.recorder import Recorder
from tests.recording_kit import record, settings_in

#: A recorder that says nothing of its first frame by then never will.
BEGUN_WITHIN_S = 30.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("call")
    parser.add_argument("--chunk-s", type=float, default=recorder_module.CHUNK_S)  # type: ignore[attr-defined]
    parser.add_argument("--file-limit", type=int, default=0)
    parser.add_argument("--unhandled", action="store_true")
    parser.add_argument("--frames-at-once", type=int, default=1)
    arguments = parser.parse_args()
    recorder_module.CHUNK_S = arguments.chunk_s  # type: ignore[attr-defined]
    if arguments.file_limit:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (arguments.file_limit, resource.RLIM_INFINITY))
    if arguments.unhandled:

        def rethrow(self: Recorder, call_id: str, reason: str) -> None:
            raise OSError(reason)

        Recorder._give_up = rethrow  # type: ignore[method-assign]

    begun = threading.Event()

    def say(call: str, state: str, reason: str) -> None:
        print(f"change {call} {state} {reason}", flush=True)
        begun.set()

    recorder = Recorder(settings_in(arguments.folder), say)
    recorder.start(arguments.call)
    began, tick = time.monotonic(), 0
    while True:
        at_ns = time.time_ns()
        recorder.feed(
            b"".join(
                record(arguments.call, channel, bytes([tick % 256]) * 160, timestamp=160 * tick)
                for channel in (0, 1)
                for _ in range(arguments.frames_at_once)
            )
        )
        print(f"fed {at_ns}", flush=True)
        if not tick:
            # A starved recorder would be handed many frames at once as its first ones.
            begun.wait(BEGUN_WITHIN_S)
        tick += 1
        time.sleep(max(began + 0.02 * tick - time.monotonic(), 0))


if __name__ == "__main__":
    main()
