"""What the recorder's tests share: a ring's records, settings, and a listener for changes."""

from __future__ import annotations

import os
import queue
import time
from pathlib import Path

from callshield.settings import RecordingSettings
from sipbridge.recording_format import MARK_CHANNEL, records
from sipbridge.recording_keys import KeyRing, load_keys, new_key_file
from sipbridge.recording_parse import RING_RECORD
from sipbridge.recording_reader import OpenedRecording
from sipbridge.recording_store import RecordingStore, StoredRecording

WAIT_S = 40.0
Frame = tuple[int, int, int, int, bytes]


def call_id() -> str:
    return os.urandom(16).hex()


def record(
    call: str,
    channel: int = 0,
    payload: bytes = b"\xff" * 160,
    *,
    codec: int = 0,
    timestamp: int = 0,
    at_ns: int | None = None,
) -> bytes:
    """A record as the relay's ring holds it."""
    return (
        RING_RECORD.pack(
            bytes.fromhex(call),
            channel,
            codec,
            len(payload),
            timestamp & 0xFFFFFFFF,
            time.time_ns() if at_ns is None else at_ns,
        )
        + payload
    )


def settings_in(folder: Path, **changes: object) -> RecordingSettings:
    """Settings with a key file of their own."""
    key_file = folder / "keys" / "recording.keys"
    if not key_file.exists():
        new_key_file(key_file)
    values: dict[str, object] = {
        "enabled": True,
        "directory": folder / "recordings",
        "key_file": key_file,
        "min_free_mib": 1,
        **changes,
    }
    return RecordingSettings.model_validate(values)


class Changes:
    """Collects ``on_change`` calls; a test waits for the next one instead of sleeping."""

    def __init__(self) -> None:
        self._queue: queue.Queue[tuple[str, str, str]] = queue.Queue()

    def __call__(self, call: str, state: str, reason: str) -> None:
        self._queue.put((call, state, reason))

    def next(self) -> tuple[str, str, str]:
        return self._queue.get(timeout=WAIT_S)

    def expect(self, call: str, state: str) -> str:
        """The next change is this one; returns its reason."""
        found = self.next()
        assert found[:2] == (call, state), found
        return found[2]

    def none_waiting(self) -> bool:
        return self._queue.empty()


def stored(settings: RecordingSettings, call: str | None = None) -> list[StoredRecording]:
    store = RecordingStore(settings.directory)
    try:
        return list(store.stored(call))
    finally:
        store.close()


def path_of(settings: RecordingSettings, item: StoredRecording) -> Path:
    return settings.directory / item.day / item.name


def keys_of(settings: RecordingSettings) -> KeyRing:
    return load_keys(settings.key_file)


def frames(settings: RecordingSettings, item: StoredRecording) -> list[Frame]:
    """The audio of a recording, checked."""
    return [r for r in all_records(settings, item) if r[0] != MARK_CHANNEL]


def all_records(settings: RecordingSettings, item: StoredRecording) -> list[Frame]:
    with path_of(settings, item).open("rb") as file:
        opened = OpenedRecording(file, keys_of(settings))
        return [r for place in opened.chunks for r in records(opened.plain(place))]
