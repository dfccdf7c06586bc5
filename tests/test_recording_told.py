"""A recording carries its own proof: what the caller was told and pressed, sealed with it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from callshield.errors import RecordingDamaged
from callshield.messages import NoticeFinished
from callshield.messages_media import FlowUpdate
from callshield.messages_notice import PromptPlayed, PromptStamp, ProtectionChanged
from callshield.settings import Settings
from sipbridge.recorder import Recorder
from sipbridge.recording_flow import RecordingFlow
from sipbridge.recording_format import MARK_CHANNEL, MAX_PAYLOAD_BYTES, Mark
from sipbridge.recording_told import announced
from sipbridge.relay_core import Core
from tests.recording_kit import Changes, all_records, call_id, frames, record, settings_in, stored
from tests.rtp_peer import node_values
from tests.test_recording_export import START, Scene

START_S = START / 1e9


def stamp(prompt_id: str, from_s: float, to_s: float, **more: object) -> PromptStamp:
    values = {
        "prompt_id": prompt_id,
        "version": "1",
        "sha256": "ab" * 32,
        "started_ts": START_S + from_s,
        "finished_ts": START_S + to_s,
        "complete": True,
        **more,
    }
    return msgspec.convert(values, PromptStamp)


def notice(call: str = "c", key: str = "") -> NoticeFinished:
    return NoticeFinished(
        ts=START_S, call_id=call, agent_id="", source="played", prompts=[stamp("recording", -5, 0)],
        tapped=True, key=key,
    )  # fmt: skip


def decided(call: str = "c") -> ProtectionChanged:
    return ProtectionChanged(
        ts=START_S, call_id=call, agent_id="", protected=True, reason="consent", key="1"
    )


def later(call: str = "c") -> PromptPlayed:
    return PromptPlayed(ts=START_S + 9, call_id=call, agent_id="", stamp=stamp("warning_1", 3, 9))


def test_the_export_says_what_the_caller_was_told_and_when() -> None:
    said = announced(map(msgspec.json.encode, (notice(), decided(), later())), START)
    assert said["notice"] == {
        "source": "played",
        "attested_by": "",
        "finished_s": 0.0,
        "key": "1",
        "choice": "consent",
    }
    first, second = said["announcements"]
    assert (first["prompt_id"], first["started_s"], first["finished_s"]) == ("recording", -5.0, 0.0)
    assert (second["prompt_id"], second["started_s"]) == ("warning_1", 3.0)
    assert first["sha256"] == "ab" * 32
    assert "started_ts" not in first


def test_what_the_pbx_attested_names_the_pbx() -> None:
    told = msgspec.structs.replace(
        notice(),
        source="upstream",
        attested_by="pbx",
        prompts=[stamp("recording", -5, -5, sha256="")],
    )
    (one,) = announced([msgspec.json.encode(told)], START)["announcements"]
    assert (one["attested_by"], one["sha256"]) == ("pbx", "")


def test_a_recording_of_before_says_nothing() -> None:
    assert announced([], START) == {"notice": {}, "announcements": []}


def test_nonsense_in_its_place_is_damage() -> None:
    with pytest.raises(RecordingDamaged, match="announcements"):
        announced([b'{"type": "call.started"}'], START)


def test_it_lies_in_the_file_and_comes_out_with_the_audio(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    writer = scene.writer()
    writer.note(START, msgspec.json.encode(notice(scene.call)))
    scene.add(writer, 0, b"\xff" * 160, 0, 0)
    writer.pause(START + 10**9)
    writer.note(START + 2 * 10**9, msgspec.json.encode(later(scene.call)))
    writer.note(START, b"x" * (MAX_PAYLOAD_BYTES + 1))  # no call has so much to say
    scene.end(writer, 3000)
    made, _, _ = scene.export()
    ids = [one["prompt_id"] for one in made.sidecar["announcements"]]
    assert ids == ["recording", "warning_1"]
    assert made.sidecar["channels"]["caller"]["frames"] == 1, "a mark is no audio"


def test_one_byte_of_it_changed_and_nothing_opens(tmp_path: Path) -> None:
    """Negative control: the proof is sealed."""
    scene = Scene(tmp_path)
    writer = scene.writer()
    writer.note(START, msgspec.json.encode(notice(scene.call)))
    scene.end(writer, 100)
    (path,) = [one for one in (tmp_path / "recordings").rglob("*") if one.is_file()]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(RecordingDamaged):
        scene.export()


def test_the_recorder_keeps_it_paused_or_not(tmp_path: Path) -> None:
    changes, settings, call = Changes(), settings_in(tmp_path), call_id()
    recorder = Recorder(settings, changes)
    recorder.note(call, b"{}")  # of a call that is not recorded: nothing
    recorder.start(call)
    changes.expect(call, "recording")
    recorder.note(call, b'{"a": 1}')
    recorder.feed(record(call))
    recorder.pause(call)
    changes.expect(call, "paused")
    recorder.note(call, b'{"a": 2}')
    recorder.stop(call)
    changes.expect(call, "stopped")
    recorder.close()
    (item,) = stored(settings)
    kept = [r[4] for r in all_records(settings, item) if (r[0], r[1]) == (MARK_CHANNEL, Mark.TOLD)]
    assert kept == [b'{"a": 1}', b'{"a": 2}']
    assert len(frames(settings, item)) == 1


async def test_what_was_told_before_a_recording_begins_waits_for_it(tmp_path: Path) -> None:
    values = node_values(tmp_path)
    recording = settings_in(tmp_path)
    values["recording"] = recording.model_dump()
    flow = RecordingFlow(
        Settings(**values), Core("", [], 5.0, manual=True), lambda *_: None, lambda _: None
    )
    call, other = call_id(), call_id()
    opens = FlowUpdate(
        call_id=call, caller_to_agent=True, agent_to_caller=True, tap=True, record=True
    )
    flow.told(notice(call))
    flow.told(notice(other))
    flow.before(opens)
    flow.after(opens)
    flow.told(later(call))
    flow.stop(call)
    flow.stop(other)
    assert flow._told == {}, "nothing is kept of a call that is over"
    flow.close()
    (item,) = stored(recording)
    marks = [r for r in all_records(recording, item) if r[0] == MARK_CHANNEL]
    assert [r[1] for r in marks] == [Mark.ABOUT, Mark.TOLD, Mark.TOLD]
    assert msgspec.json.decode(marks[0][4])["notice"] == "played"
    said = announced([r[4] for r in marks[1:]], START)
    assert [one["prompt_id"] for one in said["announcements"]] == ["recording", "warning_1"]


async def test_a_call_that_is_never_recorded_keeps_a_bounded_number(tmp_path: Path) -> None:
    flow = RecordingFlow(
        Settings(**node_values(tmp_path)),
        Core("", [], 5.0, manual=True),
        lambda *_: None,
        lambda _: None,
    )
    call = call_id()
    for _ in range(1000):
        flow.told(later(call))
    assert len(flow._told[call]) <= 64
    flow.close()
