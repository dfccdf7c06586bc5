"""A backup of before an erasure brings nothing back; recordings that are erased are gone."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from callshield.cli import app
from callshield.messages_privacy import EraseRecordings, RecordingsErased
from callshield.settings import load_settings
from notifier.audit import verify
from notifier.backup import write_backup
from notifier.database import Place, migrate, place_of
from notifier.erased_list import forget, longest_s, note, noted, path_of
from sipbridge.held import hold_recordings
from sipbridge.recording_format import HEADER_BYTES, SLOT_BYTES, SLOT_OFFSETS
from sipbridge.recording_keys import load_keys
from sipbridge.recording_reader import describe
from sipbridge.recording_store import RecordingStore
from sipbridge.recordings_desk import RecordingsDesk, erase_recordings
from tests.notifier_kit import desk_in_process, write_config
from tests.privacy_kit import record_call, recording_toml
from tests.store_kit import T0, config_of, fill
from tests.test_erasure import A, B, erase, table, told, two_calls
from tests.test_fairness_api import rows as rows_of
from tests.test_fairness_api import until

# ---------------------------------------------------------------------------------------- the list


def test_a_list_of_erased_calls_outlives_everything_but_its_time(tmp_path: Path) -> None:
    path = path_of(tmp_path)
    assert noted(path) == {}
    note(path, A, 1000.5)
    note(path, B, 2000.0)
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open("a") as file:
        file.write("no line of ours\n../../etc/passwd 5\n")
    assert noted(path) == {A: 1000, B: 2000}
    assert forget(path, 500.0) == 0
    assert forget(path, 1500.0) == 1
    assert noted(path) == {B: 2000}
    assert sorted(os.listdir(tmp_path)) == ["erased.calls"]
    # A disk that does not want to costs the note alone.
    note(tmp_path / "no folder" / "erased.calls", A, 1.0)


def test_it_is_kept_for_as_long_as_a_backup_could_bring_a_call_back(tmp_path: Path) -> None:
    settings = load_settings(write_config(tmp_path, 8080, "[retention]\ncalls_days = 700\n"))
    assert longest_s(settings) == 700 * 86_400
    (tmp_path / "sound").mkdir()
    sound = load_settings(
        write_config(tmp_path / "sound", 8080, "[recording]\nretention_days = 3650\n")
    )
    assert longest_s(sound) == 3650 * 86_400


def command(folder: Path, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*arguments, "--config", str(config_of(folder))])
    return done.exit_code, done.output + str(done.exception or "")


async def test_a_backup_of_before_is_erased_again_when_it_is_put_back(
    place: Place, tmp_path: Path
) -> None:
    await fill(place, two_calls())
    file = tmp_path / "before.backup"
    await asyncio.to_thread(write_backup, place, file)
    await erase(place)
    note(path_of(place.state_dir), A, T0 + 100)
    assert [row["call_id"] for row in table(place, "calls")] == [B]
    code, said = await asyncio.to_thread(command, tmp_path, "restore", str(file), "--force")
    assert code == 0, said
    assert "1 calls of it were erased since" in said
    assert {row["call_id"] for row in table(place, "calls")} == {A, B}
    (asked,) = table(place, "erasures")
    assert (asked["call_id"], asked["ref"], asked["by_role"]) == (A, "restore", "operator")
    assert verify(place).faults == []
    # Put back once more: asked for once.
    code, said = await asyncio.to_thread(command, tmp_path, "restore", str(file), "--force")
    assert code == 0, said
    assert len(table(place, "erasures")) == 1
    # A backup of after the erasure has nothing of it.
    await erase(place)
    after = tmp_path / "after.backup"
    await asyncio.to_thread(write_backup, place, after)
    code, said = await asyncio.to_thread(command, tmp_path, "restore", str(after), "--force")
    assert (code, "were erased since" in said) == (0, False)


async def test_the_node_carries_it_out_when_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.erasing.TICK_S", 0.1)
    settings = load_settings(write_config(tmp_path, 8080))
    place = place_of(settings)
    migrate(place)
    now = time.time()
    await fill(place, [*told(A, now - 900), *told(B, now - 800)])
    file = tmp_path / "before.backup"
    await asyncio.to_thread(write_backup, place, file)
    await erase(place, A, now - 500)
    note(path_of(place.state_dir), A, now)
    code, said = await asyncio.to_thread(command, tmp_path, "restore", str(file), "--force")
    assert code == 0, said
    async with desk_in_process(tmp_path) as desk, desk.bridge() as bridge:

        async def gone() -> bool:
            return not rows_of(desk.settings, f"SELECT 1 FROM calls WHERE call_id = '{A}'")

        await until(gone)
        assert bridge.erasing == [A], "its sound too"
    assert verify(place).faults == []
    assert [row["call_id"] for row in table(place, "calls")] == [B]


# -------------------------------------------------------------------------------- recordings


def test_a_recording_is_gone_and_what_the_disk_still_has_of_it_cannot_be_opened(
    tmp_path: Path,
) -> None:
    settings = load_settings(write_config(tmp_path, 8080, recording_toml(tmp_path)))
    for call_id in (A, A, B):
        record_call(settings, call_id)
    store = RecordingStore(settings.recording.directory)
    first, *_ = store.stored(A)
    path = settings.recording.directory / first.day / first.name
    # What a disk still has: the very blocks, under another name.
    kept = tmp_path / "blocks"
    os.link(path, kept)
    before = path.read_bytes()
    keys = load_keys(settings.recording.key_file)
    assert describe(store, first, keys, whole=True).state == "complete"
    done = erase_recordings(settings.recording.directory, A)
    assert done == RecordingsErased(call_id=A, files=2)
    assert list(store.stored(A)) == []
    assert len(list(store.stored(B))) == 1
    left = kept.read_bytes()
    assert left[HEADER_BYTES:] == before[HEADER_BYTES:], "the blocks are there"
    for offset in SLOT_OFFSETS:
        assert left[offset : offset + SLOT_BYTES] == bytes(SLOT_BYTES)
    os.link(kept, path)
    assert describe(store, first, keys).state in ("damaged", "locked")
    # Negative control: with the slots it opens.
    kept.write_bytes(before)
    assert describe(store, first, keys, whole=True).state == "complete"
    store.close()


def test_what_is_held_or_being_written_stays_and_it_says_why(tmp_path: Path) -> None:
    settings = load_settings(write_config(tmp_path, 8080, recording_toml(tmp_path)))
    folder = settings.recording.directory
    assert erase_recordings(folder, A) == RecordingsErased(call_id=A, files=0), "no folder yet"
    record_call(settings, A)
    hold_recordings(folder, [A])
    done = erase_recordings(folder, A)
    assert (done.files, done.problem) == (0, "somebody asked for the evidence")
    hold_recordings(folder, [])
    store = RecordingStore(folder)
    descriptor, _ = store.create(A, time.time_ns())
    done = erase_recordings(folder, A)
    assert done.problem == "the call is being recorded"
    os.close(descriptor)
    done = erase_recordings(folder, A)
    assert done.problem == ""
    assert list(store.stored(A)) == []
    (folder / "held").write_bytes(b"\xff")
    record_call(settings, A)
    assert "held" in erase_recordings(folder, A).problem
    assert len(list(store.stored(A))) == 1, "nothing is deleted by a list that is damaged"
    store.close()


async def test_the_bridge_answers_each_in_order_and_off_its_loop(tmp_path: Path) -> None:
    settings = load_settings(write_config(tmp_path, 8080, recording_toml(tmp_path)))
    record_call(settings, A)
    answers: asyncio.Queue[RecordingsErased] = asyncio.Queue()
    desk = RecordingsDesk(settings.recording.directory, answers.put_nowait)
    for call_id in (A, B, A):
        desk.erase(EraseRecordings(call_id=call_id))
    async with asyncio.timeout(20):
        found = [await answers.get() for _ in range(3)]
    assert [(one.call_id, one.files) for one in found] == [(A, 1), (B, 0), (A, 0)]
    await asyncio.to_thread(desk.close)
