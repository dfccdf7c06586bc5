"""Node keys: kept private, rotated without a moment in which a recording has no key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from callshield.errors import RecordingKeyError
from sipbridge import recording_store
from sipbridge.recording_format import HEADER_BYTES, SLOT_OFFSETS, parse_header
from sipbridge.recording_keys import (
    KEY_VARIABLE,
    KeyRing,
    key_file_lock,
    load_keys,
    new_key,
    new_key_file,
    replace_keys,
)
from sipbridge.recording_reader import describe
from sipbridge.recording_store import RecordingStore, rewrap
from sipbridge.recording_writer import CallMeta, RecordingWriter
from tests.recording_kit import call_id, record


def a_recording(folder: Path, key: bytes) -> tuple[RecordingStore, recording_store.StoredRecording]:
    store = RecordingStore(folder / "recordings", make=True)
    at_ns = 1_700_000_000_000_000_000
    descriptor, stored = store.create(call_id(), at_ns)
    writer = RecordingWriter(descriptor, stored, key, at_ns, CallMeta())
    writer.add(record(stored.call_id)[16:])
    writer.finish("stopped", at_ns + 10**9)
    os.close(writer.release())
    return store, stored


def test_new_key_file_is_private_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "keys"
    made = new_key_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert load_keys(path) == made
    assert made.current.hex() not in repr(made)
    with pytest.raises(RecordingKeyError, match="rotate-key"):
        new_key_file(path)
    assert load_keys(path) == made


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604])
def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys"
    new_key_file(path)
    path.chmod(mode)
    with pytest.raises(RecordingKeyError, match=f"chmod 600 {path}"):
        load_keys(path)
    path.chmod(0o600)
    load_keys(path)


def test_what_is_no_key_file_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with pytest.raises(RecordingKeyError, match=r"there is no key file .* new-key"):
        load_keys(path)
    target = tmp_path / "target"
    new_key_file(target)
    path.symlink_to(target)
    with pytest.raises(RecordingKeyError, match="cannot be read"):
        load_keys(path)
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(RecordingKeyError, match="not a plain file"):
        load_keys(path)
    path.unlink()
    for text, sentence in (
        ("# nothing\n", "holds no key"),
        ("0" * 63, "key 1 is not 64"),
        ("é" * 64, "key 1 is not 64"),
    ):
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        with pytest.raises(RecordingKeyError, match=sentence) as caught:
            load_keys(path)
        assert "0" * 63 not in str(caught.value)


def test_the_environment_goes_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    new_key_file(path)
    one, other = new_key(), new_key()
    monkeypatch.setenv(KEY_VARIABLE, f"{one.hex()},{other.hex().upper()}")
    assert load_keys(path).keys == (one, other)
    assert load_keys(path).source == "environment"


def test_replacing_keeps_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    old = new_key_file(path).current
    fresh = new_key()
    assert replace_keys(path, [fresh, old]).keys == (fresh, old)
    assert load_keys(path).keys == (fresh, old)
    assert path.stat().st_mode & 0o777 == 0o600

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(RecordingKeyError, match="No space left"):
        replace_keys(path, [new_key()])
    assert load_keys(path).keys == (fresh, old)
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys"]


def test_one_rotation_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with (
        key_file_lock(path),
        pytest.raises(RecordingKeyError, match="another change"),
        key_file_lock(path),
    ):
        pass
    with key_file_lock(path):
        pass


def test_rotation_changes_the_slots_and_no_byte_of_audio(tmp_path: Path) -> None:
    old, fresh = new_key(), new_key()
    store, stored = a_recording(tmp_path, old)
    path = tmp_path / "recordings" / stored.day / stored.name
    before = path.read_bytes()
    keys = KeyRing((fresh, old), "test")
    with store.open(stored, write=True) as file:
        assert rewrap(file, keys)
        assert not rewrap(file, keys), "there is nothing left to do"
    after = path.read_bytes()
    assert after[HEADER_BYTES:] == before[HEADER_BYTES:]
    assert after[: SLOT_OFFSETS[0]] == before[: SLOT_OFFSETS[0]]
    assert describe(store, stored, KeyRing((fresh,), "test"), whole=True).state == "complete"
    locked = describe(store, stored, KeyRing((old,), "test"), whole=True)
    assert locked.state == "locked"
    assert "is not here" in locked.problem


@pytest.mark.parametrize("writes_done", [0, 1])
def test_rotation_cut_short_leaves_a_file_that_opens_and_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes_done: int
) -> None:
    old, fresh = new_key(), new_key()
    store, stored = a_recording(tmp_path, old)
    keys = KeyRing((fresh, old), "test")
    real = os.pwrite
    calls = 0

    def torn(descriptor: int, data: bytes, offset: int) -> int:
        nonlocal calls
        calls += 1
        if calls > writes_done:
            real(descriptor, data[: len(data) // 2], offset)
            raise KeyboardInterrupt
        return real(descriptor, data, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", torn)
        with store.open(stored, write=True) as file, pytest.raises(KeyboardInterrupt):
            rewrap(file, keys)
    found = describe(store, stored, keys, whole=True)
    assert found.state == "damaged"
    assert "--rewrap-only" in found.problem
    with store.open(stored, write=True) as file:
        assert rewrap(file, keys)
        header = parse_header(os.pread(file.fileno(), HEADER_BYTES, 0))
    assert len(header.key_ids()) == 1
    assert describe(store, stored, KeyRing((fresh,), "test"), whole=True).state == "complete"
