"""One recording that is being written: frames in, sealed chunks out to a file descriptor.

All of it runs in the recorder's thread. A chunk is written as soon as its first record waits for
:data:`CHUNK_S`, so that a process that is killed loses no more than that and what it had not been
handed yet: the kernel keeps what was written.
"""

from __future__ import annotations

import os
import secrets
import time

import msgspec

from callshield import __version__
from sipbridge.recording_format import (
    KEY_BYTES,
    MAX_PAYLOAD_BYTES,
    ChunkKind,
    ChunkSealer,
    Identity,
    Mark,
    Summary,
    mark,
    pack_header,
    pack_summary,
    wrap_key,
)
from sipbridge.recording_store import StoredRecording

#: Longest wait of a frame for its chunk. Half of what a crash may lose: the other half is for the
#: way from the ring to here.
CHUNK_S = 0.5
#: Together below :data:`sipbridge.recording_format.MAX_CHUNK_BYTES` however long the payloads.
_CHUNK_RECORDS = 4096


class CallMeta(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept, encrypted, with the audio; ids only, nothing personal."""

    node: str = ""
    """Name of the node that recorded."""
    notice: str = ""
    """How the notice gate opened: ``played`` or ``upstream``; ``""``: nobody said."""


class RecordingWriter:
    """A file from its header to its last chunk.

    Args:
        descriptor: of a new, empty file; closed by :meth:`release`.
        stored: its name.
        node_key: wraps the file's own key.
        started_at_ns: since the Unix epoch.
        meta: goes into the first chunk.

    Raises:
        OSError: the header cannot be written.
    """

    __slots__ = (
        "_lost",
        "_marks",
        "_parts",
        "_paused_at_ns",
        "_pauses",
        "_records",
        "_sealer",
        "_written",
        "add",
        "descriptor",
        "due",
        "stored",
        "sync_pending",
        "synced_at",
    )

    def __init__(
        self,
        descriptor: int,
        stored: StoredRecording,
        node_key: bytes,
        started_at_ns: int,
        meta: CallMeta,
    ) -> None:
        identity = Identity(bytes.fromhex(stored.call_id), secrets.token_bytes(16), started_at_ns)
        key = secrets.token_bytes(KEY_BYTES)
        self.descriptor = descriptor
        self.stored = stored
        self.sync_pending = False
        self.synced_at = time.monotonic()
        self.due = 0.0
        """When the chunk must be written (monotonic)."""
        self._sealer = ChunkSealer(identity, key)
        self._records = 0
        self._marks = 0
        self._lost = 0
        self._pauses: list[tuple[int, int]] = []
        self._paused_at_ns = 0
        self._written = 0
        about = {"program": f"callshield {__version__}", **msgspec.structs.asdict(meta)}
        self._parts: list[bytes] = []
        self.add = self._parts.append
        """Takes a record of the ring without its call id."""
        self._mark(Mark.ABOUT, started_at_ns, msgspec.json.encode(about))
        self._write(pack_header(identity, wrap_key(identity, node_key, key)))
        self.flush()

    @property
    def paused(self) -> bool:
        """Between :meth:`pause` and :meth:`resume`."""
        return self._paused_at_ns != 0

    @property
    def waiting(self) -> bool:
        """True while records are in memory only."""
        return bool(self._parts)

    def pause(self, at_ns: int) -> None:
        """Mark where policy begins to keep the recording silent, on the disk at once."""
        self._paused_at_ns = at_ns
        self._mark(Mark.PAUSED, at_ns)
        self.flush()

    def resume(self, at_ns: int) -> None:
        """Mark where it ends."""
        self._pauses.append((self._paused_at_ns, at_ns))
        self._paused_at_ns = 0
        self._mark(Mark.RESUMED, at_ns)

    def lost(self, at_ns: int) -> None:
        """Mark where frames were lost before they came here."""
        self._lost += 1
        self._mark(Mark.LOST, at_ns)

    def note(self, at_ns: int, told: bytes) -> None:
        """Keep what the caller was told or pressed; what is too long for a record is left out."""
        if len(told) <= MAX_PAYLOAD_BYTES:
            self._mark(Mark.TOLD, at_ns, told)

    def flush(self) -> None:
        """Write what waits as one chunk.

        Raises:
            OSError: the disk does not want to.
        """
        parts = self._parts
        while parts:
            some = parts[:_CHUNK_RECORDS]
            del parts[:_CHUNK_RECORDS]
            self._records += len(some)
            self._write(self._sealer.seal(b"".join(some)))
        self.due = 0.0

    def finish(self, ended: str, at_ns: int) -> None:
        """Write what waits and the last chunk: the file is complete.

        Raises:
            OSError: the disk does not want to.
        """
        self.flush()
        pauses = list(self._pauses)
        if self._paused_at_ns:
            pauses.append((self._paused_at_ns, 0))
        summary = Summary(
            ended=ended,
            stopped_at_ns=at_ns,
            frames=self._records - self._marks,
            pauses=pauses,
            lost=self._lost,
        )
        self._write(self._sealer.seal(pack_summary(summary), ChunkKind.LAST))

    @property
    def written(self) -> int:
        """Bytes of whole chunks in the file, its header with them."""
        return self._written

    def release(self) -> int:
        """Give the descriptor up to the caller, who closes it."""
        descriptor, self.descriptor = self.descriptor, -1
        return descriptor

    def _mark(self, kind: Mark, at_ns: int, payload: bytes = b"") -> None:
        self._marks += 1
        self.add(mark(kind, at_ns, payload))

    def _write(self, data: bytes) -> None:
        done = os.write(self.descriptor, data)
        while done < len(data):
            # A disk that fills up takes a part first, and says why only at the next call.
            done += os.write(self.descriptor, data[done:])
        self._written += done
