"""Reads recordings back: what a file is, whether it is whole, and its records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Literal

from callshield.errors import RecordingDamaged, RecordingError, RecordingKeyError
from sipbridge.recording_format import (
    HEADER_BYTES,
    MARK_CHANNEL,
    ChunkKind,
    ChunkOpener,
    ChunkPlace,
    Header,
    Mark,
    Summary,
    chunk_places,
    parse_header,
    parse_summary,
    read_chunk,
    records,
    unwrap_key,
)
from sipbridge.recording_keys import KeyRing
from sipbridge.recording_store import RecordingStore, StoredRecording, is_being_written

State = Literal["recording", "complete", "ended_early", "locked", "damaged"]


class OpenedRecording:
    """A file with its key turned.

    Args:
        file: stays the caller's.
        keys: of the node.

    Raises:
        RecordingKeyError: the node key it needs is not here.
        RecordingDamaged: header, chain of chunks or last chunk are not as they were written.
    """

    def __init__(self, file: BinaryIO, keys: KeyRing) -> None:
        file.seek(0)
        self.header: Header = parse_header(file.read(HEADER_BYTES))
        opened = unwrap_key(self.header, keys.find)
        self.slots_sound = opened.sound
        self._file = file
        self._opener = ChunkOpener(self.header.identity, opened.key)
        self._places = list(chunk_places(file))
        self.summary: Summary | None = None
        if self._places and self._places[-1].kind is ChunkKind.LAST:
            self.summary = parse_summary(self.plain(self._places.pop()))

    @property
    def chunks(self) -> list[ChunkPlace]:
        """The chunks of records, in order."""
        return self._places

    def plain(self, place: ChunkPlace) -> bytes:
        """A chunk's records.

        Raises:
            RecordingDamaged: it was changed.
        """
        return read_chunk(self._file, place, self._opener)

    def check(self) -> None:
        """Read every chunk.

        Raises:
            RecordingDamaged: one was changed.
        """
        for place in self._places:
            for _ in records(self.plain(place)):
                pass

    def pauses(self) -> list[tuple[int, int]]:
        """Begin and end (0: none) of each pause, ns since the Unix epoch.

        Raises:
            RecordingDamaged: a chunk was changed.
        """
        if self.summary is not None:
            return self.summary.pauses
        found: list[tuple[int, int]] = []
        for place in self._places:
            for channel, kind, _, at_ns, _ in records(self.plain(place)):
                if channel == MARK_CHANNEL and kind == Mark.PAUSED:
                    found.append((at_ns, 0))
                elif channel == MARK_CHANNEL and kind == Mark.RESUMED and found:
                    found[-1] = (found[-1][0], at_ns)
        return found

    def ended_at_ns(self) -> int:
        """When it was stopped, or of a file that ended early when its last record came.

        Raises:
            RecordingDamaged: the last chunk was changed.
        """
        if self.summary is not None:
            return self.summary.stopped_at_ns
        if not self._places:
            return self.header.identity.started_at_ns
        return max(at_ns for _, _, _, at_ns, _ in records(self.plain(self._places[-1])))


@dataclass(frozen=True, slots=True)
class RecordingInfo:
    """One line of ``callshield recordings list``."""

    stored: StoredRecording
    state: State
    size_bytes: int
    started_at_ns: int = 0
    length_s: float = 0.0
    ended: str = ""
    """:attr:`Summary.ended`; empty without one."""
    pauses: tuple[tuple[float, float | None], ...] = ()
    """Begin and end, seconds from the start; None: never ended."""
    lost: int = 0
    key_ids: tuple[str, ...] = ()
    problem: str = ""
    """A sentence when the state is ``locked`` or ``damaged``."""

    def as_json(self) -> dict[str, object]:
        """The stable form of ``--json``."""
        return {
            "call_id": self.stored.call_id,
            "part": self.stored.part,
            "day": self.stored.day,
            "state": self.state,
            "started_ts": self.started_at_ns / 1e9,
            "length_s": self.length_s,
            "bytes": self.size_bytes,
            "ended": self.ended,
            "pauses": [list(pause) for pause in self.pauses],
            "lost": self.lost,
            "keys": list(self.key_ids),
            "problem": self.problem,
        }


def describe(
    store: RecordingStore, stored: StoredRecording, keys: KeyRing | None, *, whole: bool = False
) -> RecordingInfo:
    """What a file is; never raises for what is wrong with it.

    Args:
        store: where it lies.
        stored: the file.
        keys: None: say what can be said without any.
        whole: check every chunk, not only the ends.
    """
    size = 0
    header: Header | None = None
    try:
        with store.open(stored) as file:
            size = file.seek(0, 2)
            file.seek(0)
            header = parse_header(file.read(HEADER_BYTES))
            if header.identity.call_id.hex() != stored.call_id:
                raise RecordingDamaged("the file has another call's name")
            if keys is None:
                raise RecordingKeyError("there is no node key to open it with")
            running = is_being_written(file)
            recording = OpenedRecording(file, keys)
            if whole:
                recording.check()
            if not recording.slots_sound:
                raise RecordingDamaged(
                    "a key slot cannot be opened: if a rotation was cut short, "
                    "`callshield recordings rotate-key --rewrap-only` mends it; the audio is sound"
                )
            return _info(stored, size, recording, running)
    except RecordingKeyError as error:
        return _without(stored, "locked", size, header, str(error))
    except (RecordingError, OSError) as error:
        return _without(stored, "damaged", size, header, str(error))


def _without(
    stored: StoredRecording, state: State, size: int, header: Header | None, problem: str
) -> RecordingInfo:
    return RecordingInfo(
        stored,
        state,
        size,
        started_at_ns=header.identity.started_at_ns if header else 0,
        key_ids=tuple(key_id.hex() for key_id in header.key_ids()) if header else (),
        problem=problem,
    )


def _info(
    stored: StoredRecording, size: int, recording: OpenedRecording, running: bool
) -> RecordingInfo:
    identity, summary = recording.header.identity, recording.summary
    start = identity.started_at_ns
    state: State = "complete" if summary else "recording" if running else "ended_early"
    return RecordingInfo(
        stored,
        state,
        size,
        started_at_ns=start,
        # Rounded like the pauses: none ends after the recording does.
        length_s=round((recording.ended_at_ns() - start) / 1e9, 3),
        ended=summary.ended if summary else "",
        pauses=tuple(
            (round((begin - start) / 1e9, 3), round((end - start) / 1e9, 3) if end else None)
            for begin, end in recording.pauses()
        ),
        lost=summary.lost if summary else 0,
        key_ids=tuple(key_id.hex() for key_id in recording.header.key_ids()),
    )
