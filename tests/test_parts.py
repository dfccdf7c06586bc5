"""Every process of a node beats, ends as the supervisor says, and outlives it for calls alone."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from callshield.serve import parts_of
from callshield.settings import Settings
from tests.test_media_plane_settings import PLAIN, read

#: What a process without which is killed as one that hangs (callshield/vigil.py), dies with the
#: service manager's SIGTERM in the middle of calls, or keeps its ports when nobody is left.
NEEDED = ("heartbeat.beat(", "lifeline.stop_on_signals(", "lifeline.watch(")


def lacks(source: str) -> list[str]:
    return [call for call in NEEDED if call not in source]


def test_every_process_beats_and_is_ended_like_the_others(tmp_path: Path) -> None:
    one = parts_of(Settings())
    other = parts_of(read(tmp_path, PLAIN))
    modules = {part.module for part in (*one, *other)}
    assert {
        "sipbridge.media_worker",
        "sipbridge.rtpengine_plane",
        "detectors.transcriber",
    } <= modules
    found = {}
    for module in modules:
        spec = importlib.util.find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        missing = lacks(Path(spec.origin).read_text(encoding="utf-8"))
        if module == "sipbridge.process":  # holds the other end; its own is the kernel's signal
            missing.remove("lifeline.watch(")
        if missing:
            found[module] = missing
    assert not found


def test_control_a_process_that_forgets_it_is_found() -> None:
    assert lacks("lifeline.watch(loop, stop.set)\n") == [NEEDED[0], NEEDED[1]]
