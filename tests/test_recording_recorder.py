"""The recorder's thread: the order is kept, a pause leaves no audio, nothing reaches a call."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callshield.settings import RecordingSettings
from sipbridge import recorder as recorder_module
from sipbridge import recording_writer
from sipbridge.recorder import CallMeta, Recorder
from sipbridge.recording_format import MARK_CHANNEL, Mark
from sipbridge.recording_parse import RING_RECORD, parse
from sipbridge.recording_reader import describe
from sipbridge.recording_store import RecordingStore, is_being_written
from tests.recording_kit import (
    WAIT_S,
    Changes,
    all_records,
    call_id,
    frames,
    keys_of,
    path_of,
    record,
    settings_in,
    stored,
)


@contextlib.contextmanager
def recording(config: RecordingSettings) -> Iterator[tuple[Recorder, Changes]]:
    changes = Changes()
    made = Recorder(config, changes)
    try:
        yield made, changes
    finally:
        made.close()


def eventually(condition: object) -> None:
    """Wait for something that no event tells."""
    assert callable(condition)
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_frames_of_both_sides_come_back_bit_for_bit(tmp_path: Path) -> None:
    config, call, other = settings_in(tmp_path), call_id(), call_id()
    with recording(config) as (recorder, changes):
        recorder.start(call, CallMeta(node="n1", notice="played"))
        recorder.start(other)
        changes.expect(call, "recording")
        changes.expect(other, "recording")
        sent = [(channel, os.urandom(160), n * 160) for n in range(200) for channel in (0, 1)]
        for channel, payload, timestamp in sent:
            recorder.feed(
                record(call, channel, payload, timestamp=timestamp)
                + record(other, channel, b"o" * 80, codec=8)
                + record(call_id())
            )
        recorder.stop(call)
        changes.expect(call, "stopped")
    changes.expect(other, "stopped")
    (item,) = stored(config, call)
    assert [(f[0], f[4], f[2]) for f in frames(config, item)] == sent
    assert {f[4] for f in frames(config, stored(config, other)[0])} == {b"o" * 80}
    assert recorder.statistics.unclaimed == 400
    assert recorder.statistics.records == 800
    assert recorder.statistics.faults == 0
    info = describe(RecordingStore(config.directory), item, keys_of(config), whole=True)
    assert (info.state, info.ended) == ("complete", "stopped")
    ended = describe(RecordingStore(config.directory), stored(config, other)[0], keys_of(config))
    assert (ended.state, ended.ended) == ("complete", "shutdown")


def test_files_are_private_and_say_nothing(tmp_path: Path) -> None:
    config, call = settings_in(tmp_path), call_id()
    with recording(config) as (recorder, _):
        recorder.start(call, CallMeta(node="node-of-this-test"))
        recorder.feed(record(call, payload=b"SECRET-AUDIO" * 10))
    (item,) = stored(config)
    path = path_of(config, item)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert config.directory.stat().st_mode & 0o777 == 0o700
    data = path.read_bytes()
    assert b"SECRET" not in data
    assert b"node-of-this-test" not in data
    assert b"SECRET" in frames(config, item)[0][4]


def test_a_pause_leaves_no_audio_and_says_so(tmp_path: Path) -> None:
    config, call = settings_in(tmp_path), call_id()
    with recording(config) as (recorder, changes):
        recorder.start(call)
        recorder.feed(record(call, payload=b"before"))
        recorder.pause(call)
        recorder.pause(call)
        recorder.feed(record(call, payload=b"card-1"))
        # Captured during the pause, but read from the ring only after its end.
        straggler = record(call, payload=b"card-2")
        recorder.resume(call)
        recorder.resume(call)
        recorder.feed(straggler + record(call, payload=b"after"))
        recorder.stop(call)
        recorder.feed(record(call, payload=b"too-late"))
        for state in ("recording", "paused", "recording", "stopped"):
            changes.expect(call, state)
    assert changes.none_waiting()
    (item,) = stored(config)
    seen = [
        Mark(r[1]).name if r[0] == MARK_CHANNEL else r[4].decode()
        for r in all_records(config, item)
    ]
    assert seen == ["ABOUT", "before", "PAUSED", "RESUMED", "after"]
    assert recorder.statistics.unclaimed == 3
    info = describe(RecordingStore(config.directory), item, keys_of(config))
    ((begin, end),) = info.pauses
    assert end is not None
    assert 0 <= begin <= end <= info.length_s


def test_a_pause_that_lasts_to_the_end_ends_no_later(tmp_path: Path) -> None:
    """The end of the pause and of the recording are the same moment, whatever it rounds to."""
    config, call = settings_in(tmp_path), call_id()
    store = RecordingStore(config.directory, make=True)
    start, end = 1_800_000_000_000_000_000, 1_800_000_001_000_600_000
    descriptor, item = store.create(call, start)
    writer = recording_writer.RecordingWriter(
        descriptor, item, keys_of(config).current, start, CallMeta()
    )
    writer.pause(start + 1)
    writer.resume(end)
    writer.finish("stopped", end)
    os.close(writer.release())
    info = describe(store, item, keys_of(config))
    assert info.pauses == ((0.0, 1.001),)
    assert info.length_s == 1.001
    store.close()


def test_frames_from_before_the_start_stay_out(tmp_path: Path) -> None:
    """The notice gate's frames may be in the ring yet when its end starts the recording."""
    config, call = settings_in(tmp_path), call_id()
    with recording(config) as (recorder, changes):
        recorder.feed(record(call, payload=b"unasked"))
        early = record(call, payload=b"during the notice")
        recorder.start(call)
        recorder.feed(early + record(call, payload=b"after"))
    changes.expect(call, "recording")
    assert [f[4] for f in frames(config, stored(config)[0])] == [b"after"]


def test_after_a_while_frames_are_taken_without_looking_at_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node whose clock was set back records again after the guard's two seconds."""
    monkeypatch.setattr(recorder_module, "_GUARD_S", 0.0)
    config, call = settings_in(tmp_path), call_id()
    with recording(config) as (recorder, changes):
        recorder.start(call)
        changes.expect(call, "recording")
        eventually(lambda: not recorder._guarded)
        recorder.feed(record(call, payload=b"old clock", at_ns=1))
    assert [f[4] for f in frames(config, stored(config)[0])] == [b"old clock"]


def test_without_the_guard_a_straggler_would_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control of the two tests above and of the pause's."""
    monkeypatch.setattr(Recorder, "_guard", open_at_once)
    config, call = settings_in(tmp_path), call_id()
    with recording(config) as (recorder, _):
        early = record(call, payload=b"during the notice")
        recorder.start(call)
        recorder.feed(early)
        recorder.pause(call)
        card = record(call, payload=b"card")
        recorder.resume(call)
        recorder.feed(card)
    assert [f[4] for f in frames(config, stored(config)[0])] == [b"during the notice", b"card"]


def open_at_once(self: Recorder, key: bytes, at_ns: int) -> None:
    self._sinks[key] = self._writers[key.hex()].add


def test_a_call_that_starts_again_gets_another_part(tmp_path: Path) -> None:
    config, call = settings_in(tmp_path), call_id()
    with recording(config) as (recorder, _):
        for payload in (b"one", b"two"):
            recorder.start(call)
            recorder.start(call)
            recorder.feed(record(call, payload=payload))
            recorder.stop(call)
    assert [(i.part, frames(config, i)[0][4]) for i in stored(config)] == [(1, b"one"), (2, b"two")]


def test_a_frame_is_on_the_disk_within_a_second_without_any_stop(tmp_path: Path) -> None:
    config, call = settings_in(tmp_path), call_id()
    with recording(config) as (recorder, changes):
        recorder.start(call)
        changes.expect(call, "recording")
        for number in range(1, 21):
            fed = looked = time.monotonic()
            recorder.feed(record(call))
            held_up_s = 0.0
            while len(frames(config, stored(config)[0])) < number:
                time.sleep(0.005)
                held_up_s += max(time.monotonic() - looked - 0.02, 0)
                looked = time.monotonic()
                assert looked - fed < WAIT_S
            if held_up_s < 0.3:
                break
        # While the machine itself stood still nothing could be written: that one does not count.
        assert held_up_s < 0.3
        assert time.monotonic() - fed < 1.0


@pytest.mark.parametrize(
    ("changes_of", "sentence"),
    [
        ({"enabled": False}, "recording is switched off"),
        ({"key_file": Path("/nonexistent/keys")}, "callshield recordings new-key"),
        ({"min_free_mib": 1 << 30}, "make space on the disk"),
        ({"directory": Path("/dev/null/recordings")}, "cannot be used"),
    ],
)
def test_what_cannot_be_recorded_is_a_sentence(
    tmp_path: Path, changes_of: dict[str, object], sentence: str
) -> None:
    config, call = settings_in(tmp_path, **changes_of), call_id()
    with recording(config) as (recorder, changes):
        recorder.start(call)
        assert sentence in changes.expect(call, "failed")
        recorder.feed(record(call))
        recorder.stop(call)
    assert changes.none_waiting()
    if config.directory.exists() and config.directory.is_relative_to(tmp_path):
        assert stored(config) == []


def test_a_call_id_that_is_none_makes_no_path(tmp_path: Path) -> None:
    config = settings_in(tmp_path)
    with recording(config) as (recorder, changes):
        for bad in ("../../etc/passwd", "A" * 32, "", "0" * 31 + "\n"):
            recorder.start(bad)
            assert "32 small hexadecimal digits" in changes.expect(bad, "failed")
    assert list(config.directory.rglob("*")) == [] or stored(config) == []


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    config, call = settings_in(tmp_path), call_id()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    day = time.strftime("%Y-%m-%d", time.gmtime())
    folder = config.directory / day
    folder.mkdir(parents=True)
    (folder / f"{call}-1.csrec").symlink_to(victim)
    with recording(config) as (recorder, changes):
        recorder.start(call)
        changes.expect(call, "recording")
    assert victim.read_text() == "precious"
    assert (folder / f"{call}-2.csrec").is_file()
    # A link in the place of the day's folder.
    shutil.rmtree(folder)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder.symlink_to(elsewhere)
    with recording(config) as (recorder, changes):
        recorder.start(call)
        assert "cannot be written" in changes.expect(call, "failed")
    assert list(elsewhere.iterdir()) == []


def test_a_full_queue_loses_frames_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, call = settings_in(tmp_path, queue_mib=1), call_id()
    hung, go_on = threading.Event(), threading.Event()
    real = recording_writer.RecordingWriter.pause

    def slow_disk(self: recording_writer.RecordingWriter, at_ns: int) -> None:
        hung.set()
        assert go_on.wait(WAIT_S)
        real(self, at_ns)

    monkeypatch.setattr(recording_writer.RecordingWriter, "pause", slow_disk)
    with recording(config) as (recorder, changes):
        recorder.start(call)
        changes.expect(call, "recording")
        recorder.pause(call)
        assert hung.wait(WAIT_S)
        recorder.resume(call)
        blob = b"".join(record(call, payload=b"k" * 160) for _ in range(1000))
        before = time.monotonic()
        for _ in range(50):
            recorder.feed(blob)
        # The disk hangs for as long as this goes on, or for WAIT_S.
        assert time.monotonic() - before < WAIT_S / 2, "feed() waited for the disk"
        assert recorder.statistics.dropped_bytes == 45 * len(blob)
        go_on.set()
        changes.expect(call, "paused")
        changes.expect(call, "recording")
        eventually(lambda: recorder._fed_bytes == recorder._done_bytes)
        recorder.feed(record(call, payload=b"afterwards"))
        recorder.stop(call)
        changes.expect(call, "stopped")
    (item,) = stored(config)
    kept = all_records(config, item)
    assert [r[4] for r in kept if r[0] != MARK_CHANNEL][-1] == b"afterwards"
    assert [r[1] for r in kept if r[0] == MARK_CHANNEL].count(Mark.LOST) == 1
    assert describe(RecordingStore(config.directory), item, keys_of(config)).lost == 1


def test_a_listener_that_raises_harms_nobody(tmp_path: Path) -> None:
    config, call = settings_in(tmp_path), call_id()

    def broken(*_: object) -> None:
        raise RuntimeError("not our fault")

    recorder = Recorder(config, broken)
    recorder.start(call)
    recorder.feed(record(call, payload=b"kept"))
    recorder.stop(call)
    recorder.close()
    assert [f[4] for f in frames(config, stored(config)[0])] == [b"kept"]
    assert recorder.statistics.faults == 2


def test_close_twice_and_use_after_close_do_nothing(tmp_path: Path) -> None:
    recorder = Recorder(settings_in(tmp_path), Changes())
    recorder.close()
    recorder.close()
    recorder.start(call_id())
    recorder.feed(b"x" * 100)
    recorder.stop(call_id())
    assert recorder.statistics.faults == 0


class FullDisk:
    """``os.write`` as on a disk that is full from a certain byte of a file on."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.real = os.write

    def __call__(self, descriptor: int, data: bytes) -> int:
        if descriptor <= 2:
            return self.real(descriptor, data)
        if self.room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = self.real(descriptor, bytes(data[: self.room]))
        self.room -= done
        return done


@pytest.mark.parametrize("room", [0, 100, 256, 300, 5000, 20000])
def test_a_full_disk_ends_the_recording_and_the_next_call_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    config, call, later = settings_in(tmp_path), call_id(), call_id()
    disk = FullDisk(room)
    with recording(config) as (recorder, changes):
        monkeypatch.setattr(os, "write", disk)
        recorder.start(call)
        state = "failed" if room <= 300 else "recording"
        reason = changes.expect(call, state)
        if state == "recording":
            recorder.feed(b"".join(record(call, payload=b"s" * 160) for _ in range(200)))
            reason = changes.expect(call, "failed")
        assert "is full" in reason
        recorder.feed(record(call))
        monkeypatch.setattr(os, "write", disk.real)
        recorder.start(later)
        recorder.feed(record(later, payload=b"there is space again"))
        recorder.stop(later)
        changes.expect(later, "recording")
        changes.expect(later, "stopped")
    assert recorder.statistics.faults == 0
    (item,) = stored(config, later)
    assert [f[4] for f in frames(config, item)] == [b"there is space again"]
    if state == "recording":
        # What was whole before is kept, and no half chunk behind it.
        (cut,) = stored(config, call)
        info = describe(RecordingStore(config.directory), cut, keys_of(config), whole=True)
        assert info.state == "ended_early"
    else:
        assert stored(config, call) == []


@pytest.mark.parametrize("method", ["flush", "pause", "finish"])
def test_a_fault_of_our_own_ends_one_recording_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    config, bad, good = settings_in(tmp_path), call_id(), call_id()
    real = getattr(recording_writer.RecordingWriter, method)

    def faulty(self: recording_writer.RecordingWriter, *arguments: object) -> None:
        if self.stored.call_id == bad:
            raise ZeroDivisionError
        real(self, *arguments)

    with recording(config) as (recorder, changes):
        recorder.start(bad)
        changes.expect(bad, "recording")
        monkeypatch.setattr(recording_writer.RecordingWriter, method, faulty)
        recorder.start(good)
        changes.expect(good, "recording")
        recorder.feed(record(bad) + record(good, payload=b"kept"))
        recorder.pause(bad)
        if method == "finish":
            changes.expect(bad, "paused")
            recorder.stop(bad)
        assert "a fault of its own" in changes.expect(bad, "failed")
    changes.expect(good, "stopped")
    assert [f[4] for f in frames(config, stored(config, good)[0])] == [b"kept"]
    assert recorder.statistics.faults == 1


def test_space_running_out_ends_recordings_in_order_before_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, call = settings_in(tmp_path, min_free_mib=100), call_id()
    free = 101 << 20
    monkeypatch.setattr(RecordingStore, "free_bytes", lambda self: free)
    monkeypatch.setattr(recorder_module, "_SPACE_CHECK_S", 0.05)
    with recording(config) as (recorder, changes):
        recorder.start(call)
        changes.expect(call, "recording")
        recorder.feed(record(call, payload=b"kept"))
        # Taken before there is no space any more.
        eventually(lambda: recorder._fed_bytes == recorder._done_bytes)
        free = 99 << 20
        assert "99 MiB are free" in changes.expect(call, "failed")
        recorder.start(call)
        assert "99 MiB are free" in changes.expect(call, "failed")
        free = 100 << 20
        recorder.start(call)
        changes.expect(call, "recording")
    first, second = stored(config)
    info = describe(RecordingStore(config.directory), first, keys_of(config))
    assert (info.state, info.ended) == ("complete", "disk")
    assert [f[4] for f in frames(config, first)] == [b"kept"]
    assert second.part == 2


def test_a_disk_that_cannot_keep_what_it_took_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, call = settings_in(tmp_path), call_id()

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with recording(config) as (recorder, changes):
        monkeypatch.setattr(os, "fdatasync", broken)
        recorder.start(call)
        changes.expect(call, "recording")
        assert "Input/output error" in changes.expect(call, "failed")
    assert recorder.statistics.faults == 0


def test_stopped_is_told_when_the_file_is_closed_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, call, other = settings_in(tmp_path), call_id(), call_id()
    go_on = threading.Event()
    real = os.fdatasync

    def slow_disk(descriptor: int) -> None:
        assert go_on.wait(WAIT_S)
        real(descriptor)

    def states() -> list[tuple[int, str]]:
        with contextlib.closing(RecordingStore(config.directory)) as store:
            items = list(store.stored(call))
            return [(one.part, describe(store, one, keys_of(config)).state) for one in items]

    monkeypatch.setattr(os, "fdatasync", slow_disk)
    with recording(config) as (recorder, changes):
        recorder.start(call)
        changes.expect(call, "recording")
        recorder.feed(record(call, payload=b"one"))
        recorder.stop(call)
        # Its next part begins at once, but nobody hears of that before the end of the first one.
        recorder.start(call)
        recorder.feed(record(call, payload=b"two"))
        recorder.stop(call)
        recorder.start(other)
        changes.expect(other, "recording")  # so all of the above is done
        assert changes.none_waiting()
        with contextlib.closing(RecordingStore(config.directory)) as store:
            for item in store.stored(call):
                with store.open(item) as file:
                    assert is_being_written(file), "the control: the file is open yet"
        go_on.set()
        changes.expect(call, "stopped")
        assert states()[0] == (1, "complete")
        with (
            contextlib.closing(RecordingStore(config.directory)) as store,
            store.open(next(iter(store.stored(call)))) as file,
        ):
            assert not is_being_written(file)
        changes.expect(call, "recording")
        changes.expect(call, "stopped")
        assert states() == [(1, "complete"), (2, "complete")]
    changes.expect(other, "stopped")
    assert [frames(config, item)[0][4] for item in stored(config, call)] == [b"one", b"two"]
    assert recorder.statistics.faults == 0


def test_a_disk_that_cannot_keep_the_end_is_told_in_the_place_of_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, call = settings_in(tmp_path), call_id()
    synced = threading.Event()
    real = os.fdatasync

    def broken_later(descriptor: int) -> None:
        if synced.is_set():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)
        synced.set()

    monkeypatch.setattr(os, "fdatasync", broken_later)
    with recording(config) as (recorder, changes):
        recorder.start(call)
        changes.expect(call, "recording")
        assert synced.wait(WAIT_S)
        recorder.stop(call)
        assert "Input/output error" in changes.expect(call, "failed")
    assert changes.none_waiting()
    assert recorder.statistics.faults == 0


def test_a_disk_that_was_mounted_anew_is_found_again(tmp_path: Path) -> None:
    config, call = settings_in(tmp_path), call_id()
    with recording(config) as (recorder, changes):
        recorder.start(call)
        recorder.stop(call)
        changes.expect(call, "recording")
        changes.expect(call, "stopped")
        config.directory.rename(tmp_path / "away")
        recorder.start(call)
        changes.expect(call, "recording")
    assert [item.part for item in stored(config)] == [1]


def test_old_recordings_are_deleted_at_the_start_and_nothing_else(tmp_path: Path) -> None:
    config = settings_in(tmp_path, retention_days=30)
    now = time.time()
    days = [
        time.strftime("%Y-%m-%d", time.gmtime(now - age * 86400)) for age in (0, 29, 30, 31, 90)
    ]
    kept, gone = days[:3], days[3:]
    for day in days:
        (config.directory / day).mkdir(parents=True)
        (config.directory / day / f"{call_id()}-1.csrec").write_bytes(b"")
    foreign = config.directory / gone[0] / "notes.txt"
    foreign.write_text("somebody's own")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / f"{call_id()}-1.csrec").write_bytes(b"")
    (config.directory / "2001-01-01").symlink_to(outside)
    with recording(config):
        eventually(lambda: not (config.directory / gone[1]).exists())
    assert {item.day for item in stored(config)} == set(kept)
    assert foreign.exists()
    assert len(list(outside.iterdir())) == 1


CALLS = [bytes([n]) * 16 for n in range(3)]
PIECES = st.one_of(
    st.binary(max_size=100),
    st.tuples(
        st.sampled_from(CALLS),
        st.integers(0, 255),
        st.sampled_from([0, 8, 9, 111, 13, 255]),
        st.integers(0, 65535),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**64 - 1),
        st.binary(max_size=400),
    ),
)


@given(st.lists(PIECES, max_size=12), st.integers(0, 2000))
@settings(max_examples=400, deadline=None)
def test_arbitrary_blobs_are_parsed_or_counted(
    pieces: list[bytes | tuple[bytes, int, int, int, int, int, bytes]], cut: int
) -> None:
    blob = b"".join(
        piece
        if isinstance(piece, bytes)
        else RING_RECORD.pack(*piece[:6]) + piece[6]  # its length is a lie
        for piece in pieces
    )[: cut or None]
    taken: list[bytes] = []
    parsed = parse(blob, {CALLS[0]: taken.append})
    assert parsed.taken == len(taken)
    used = sum(len(one) + 16 for one in taken) + sum(len(one[2]) + 16 for one in parsed.left_over)
    assert used <= len(blob)
    if used < len(blob):
        assert parsed.malformed
    for one in taken:
        assert one[0] <= 1


@given(st.lists(st.binary(max_size=400), max_size=5))
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_arbitrary_blobs_leave_the_thread_alive(tmp_path: Path, blobs: list[bytes]) -> None:
    config, call = settings_in(tmp_path), call_id()
    key = bytes.fromhex(call)
    with recording(config) as (recorder, changes):
        recorder.start(call)
        changes.expect(call, "recording")
        for blob in blobs:
            recorder.feed(blob)
            recorder.feed(key + blob)
        recorder.feed(record(call, payload=b"the end"))
        recorder.stop(call)
        changes.expect(call, "stopped")
    assert recorder.statistics.faults == 0
    (item,) = stored(config, call)
    assert frames(config, item)[-1][4] == b"the end"
