"""The alarm about lost frames is raised once, and ends."""

from __future__ import annotations

from pathlib import Path

from callshield.settings import Settings
from sipbridge import recording_flow
from sipbridge.recording_flow import RecordingFlow
from sipbridge.relay_core import Core
from tests.rtp_peer import node_values


async def test_lost_frames_are_told_once_and_so_is_their_end(tmp_path: Path) -> None:
    values = node_values(tmp_path)
    values["recording"] = {"enabled": True, "directory": str(tmp_path / "recordings")}
    told: list[str] = []
    flow = RecordingFlow(
        Settings(**values),
        Core("", [], 5.0, manual=True),
        lambda call_id, state, reason: None,
        told.append,
    )
    try:
        flow._tick()
        assert told == []
        flow._recorder.statistics.dropped_bytes += 1
        flow._tick()
        flow._recorder.statistics.dropped_bytes += 1
        flow._tick()
        assert len(told) == 1
        assert "too slow" in told[0]
        assert flow._losing_at is not None
        flow._tick()
        assert len(told) == 1  # the last loss is not long enough ago
        flow._losing_at -= recording_flow.CALM_S
        flow._tick()
        assert told[1:] == [""]
    finally:
        flow.close()
