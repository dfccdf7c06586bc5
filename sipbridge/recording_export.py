"""Decodes a call's recordings; makes a WAV file: left the caller, right the agent; or one side.

Two passes over the files: the first one checks every chunk and places every frame
(:mod:`sipbridge.recording_timeline`), the second one decodes frame after frame to its place. What
was not recorded is silence. Nothing is held in memory but numbers of frames, so that a long call
costs no more than a short one; decoded audio waits in a file without a name, where nobody else
finds it.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from callshield.audio_codecs import decoder
from callshield.errors import RecordingError
from callshield.tap import TapCodec
from sipbridge.recording_format import AGENT_CHANNEL, CALLER_CHANNEL, MARK_CHANNEL, Mark, records
from sipbridge.recording_keys import KeyRing
from sipbridge.recording_reader import OpenedRecording
from sipbridge.recording_store import RecordingStore, StoredRecording, is_being_written
from sipbridge.recording_timeline import CLOCK_HZ, G722, OPUS, Placement, first_due_ns, frame_units
from sipbridge.recording_timeline import place as place_frames
from sipbridge.recording_told import announced
from sipbridge.recording_wav import MAX_WAV_BYTES, nameless_file, write_private, write_wav

_NARROW_HZ = 8000
_WIDE_HZ = 16000
_WIDE = frozenset({G722, OPUS})
#: Frames that claim to be further than this from the recording's start are left out.
_FAR_NS = 48 * 3600 * 10**9
_CODEC_NAMES = {0: "PCMU", 8: "PCMA", 9: "G722", 111: "OPUS"}
_SIDES = {CALLER_CHANNEL: "caller", AGENT_CHANNEL: "agent"}


class Decoder(Protocol):
    """Turns the payloads of one stream, in order, into samples."""

    @property
    def rate_hz(self) -> int:
        """Sample rate of what comes out."""

    def decode(self, payload: bytes) -> NDArray[np.int16]:
        """Linear samples, int16 of shape (n,), at :attr:`rate_hz`."""


#: The sides of a stereo file, left and right.
BOTH = (CALLER_CHANNEL, AGENT_CHANNEL)
#: Makes a new decoder for a codec number of the ring (0, 8, 9, 111).
DecoderMaker = Callable[[int], Decoder]
#: Told how much is done, 0..1.
Progress = Callable[[float], None]


def usual_decoder(codec: int) -> Decoder:
    """The node's own decoders.

    Raises:
        SetupError: a codec's library is missing.
    """
    return decoder(TapCodec(codec))


@dataclass(slots=True)
class _Channel:
    """What the first pass gathers of one side."""

    codec: array[int] = field(default_factory=lambda: array("B"))
    timestamp: array[int] = field(default_factory=lambda: array("I"))
    at_ns: array[int] = field(default_factory=lambda: array("q"))
    units: array[int] = field(default_factory=lambda: array("I"))
    misplaced: int = 0
    undecodable: int = 0

    @property
    def rate_hz(self) -> int:
        return _WIDE_HZ if _WIDE.intersection(self.codec) else _NARROW_HZ

    def first_due_ns(self) -> int:
        return first_due_ns(*self._times())

    def _times(self) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.int64]]:
        return (
            np.array([CLOCK_HZ[codec] for codec in self.codec], np.int64),
            np.array(self.timestamp, np.uint32),
            np.array(self.at_ns, np.int64),
        )

    def place(self, zero_ns: int) -> Placement:
        return place_frames(
            *self._times(),
            np.array(self.units, np.int64),
            zero_ns=zero_ns,
            rate_hz=self.rate_hz,
        )


@dataclass(frozen=True, slots=True)
class Export:
    """What an export made; :attr:`sidecar` is what its JSON file says."""

    path: Path
    sidecar: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A call's audio, at the level at which it was said."""

    sides: list[IO[bytes]]
    """Those asked for, caller first: 16-bit little-endian samples, all from the same moment on."""
    rates: list[int]
    """Of each, in Hz."""
    rate: int
    """The higher of both."""
    length: int
    """Samples at :attr:`rate`."""
    started_ns: int
    """When the first sample was due, since the Unix epoch."""
    sidecar: dict[str, Any]
    """What is said about it beside it."""


def export_call(
    store: RecordingStore,
    recordings: Sequence[StoredRecording],
    keys: KeyRing,
    out: Path,
    *,
    make_decoder: DecoderMaker = usual_decoder,
    progress: Progress = lambda _: None,
    overwrite: bool = False,
    sides: Sequence[int] = BOTH,
) -> Export:
    """Write ``out`` and, beside it, ``out`` with ``.json`` added.

    Args:
        store: where the recordings lie.
        recordings: of one call, oldest first.
        keys: of the node.
        out: the WAV file.
        make_decoder: for each codec that is met.
        progress: of both passes.
        overwrite: replace ``out``.
        sides: :data:`BOTH`, or the one that a mono file is made of; no frame of the other is
            decoded then.

    Raises:
        RecordingKeyError: the node key is not here.
        RecordingDamaged: a recording was changed: nothing is exported.
        SetupError: the library of a codec is missing.
        RecordingError: the call still runs, or ``out`` exists or cannot be written.
    """

    def scratch() -> IO[bytes]:
        return nameless_file(out.parent)

    with decoded_call(store, recordings, keys, scratch, make_decoder, progress, sides) as audio:
        write_wav(out, audio.sides, audio.rates, audio.rate, audio.length, overwrite)
        write_private(
            out.with_name(out.name + ".json"),
            [json.dumps(audio.sidecar, indent=2).encode() + b"\n"],
            overwrite=True,
        )
    return Export(out, audio.sidecar)


@contextmanager
def decoded_call(
    store: RecordingStore,
    recordings: Sequence[StoredRecording],
    keys: KeyRing,
    scratch: Callable[[], IO[bytes]],
    make_decoder: DecoderMaker = usual_decoder,
    progress: Progress = lambda _: None,
    sides: Sequence[int] = BOTH,
) -> Iterator[Decoded]:
    """A call's audio for as long as the block lasts.

    Args:
        store: where the recordings lie.
        recordings: of one call, oldest first.
        keys: of the node.
        scratch: makes the files that hold the decoded sides; they are closed afterwards.
        make_decoder: for each codec that is met.
        progress: of both passes.
        sides: :data:`BOTH`, or the one that is wanted alone.

    Raises:
        RecordingKeyError: the node key is not here.
        RecordingDamaged: a recording was changed: nothing is exported.
        SetupError: the library of a codec is missing.
        RecordingError: the call still runs, or a file cannot be made.
    """
    with ExitStack() as stack:
        opened = []
        for stored in recordings:
            file = stack.enter_context(store.open(stored))
            if is_being_written(file):
                # Else this would be a way to listen to a live call in secret.
                raise RecordingError(
                    f"call {stored.call_id} is being recorded: export it when it has ended"
                )
            opened.append(OpenedRecording(file, keys))
        total = 2 * sum(len(recording.chunks) for recording in opened) or 1
        step = _Steps(progress, total)
        channels = {number: _Channel() for number in sides}
        marks, told = _first_pass(opened, channels, step)
        for codec in {codec for channel in channels.values() for codec in channel.codec}:
            # A library that is missing is missed now, not after half of the work.
            make_decoder(codec)
        due_ns = [channel.first_due_ns() for channel in channels.values() if channel.at_ns]
        zero_ns = min([opened[0].header.identity.started_at_ns, *due_ns])
        placed = {number: channel.place(zero_ns) for number, channel in channels.items()}
        rate = max(channel.rate_hz for channel in channels.values())
        length = max(
            [
                *(
                    -(-placed[number].end * rate // channel.rate_hz)
                    for number, channel in channels.items()
                ),
                *(
                    min(recording.summary.stopped_at_ns - zero_ns, _FAR_NS) * rate // 10**9
                    for recording in opened
                    if recording.summary
                ),
            ]
        )
        if 2 * len(channels) * length >= MAX_WAV_BYTES:
            raise RecordingError(
                f"the call is {length / rate / 3600:.1f} hours long: more than a WAV file can hold"
            )
        monos: list[IO[bytes]] = []
        for number, channel in channels.items():
            mono = stack.enter_context(scratch())
            monos.append(mono)
            mono.truncate(2 * (-(-length * channel.rate_hz // rate)))
            _second_pass(opened, number, channel, placed[number], mono, make_decoder, step)
        rates = [channel.rate_hz for channel in channels.values()]
        sidecar = _sidecar(recordings, opened, channels, placed, marks, zero_ns, rate, length)
        sidecar |= announced(told, zero_ns)
        yield Decoded(monos, rates, rate, length, zero_ns, sidecar)


class _Steps:
    """Counts chunks for the progress."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0.0

    def __call__(self, amount: float) -> None:
        self._done += amount
        self._progress(min(self._done / self._total, 1.0))


def _first_pass(
    opened: list[OpenedRecording], channels: dict[int, _Channel], step: _Steps
) -> tuple[list[tuple[int, int]], list[bytes]]:
    """Fill ``channels``; returns the marks as ``(kind, at_ns)``, and what the caller was told."""
    marks: list[tuple[int, int]] = []
    told: list[bytes] = []
    for recording in opened:
        started = recording.header.identity.started_at_ns
        for number, codec, timestamp, at_ns, payload in _stepping(recording, step, 1.0):
            channel = channels.get(number)
            if number == MARK_CHANNEL:
                marks.append((codec, at_ns))
                if codec == Mark.TOLD:
                    told.append(payload)
            elif channel is None or codec not in CLOCK_HZ:
                continue
            elif abs(at_ns - started) > _FAR_NS:
                channel.misplaced += 1
            else:
                channel.codec.append(codec)
                channel.timestamp.append(timestamp)
                channel.at_ns.append(at_ns)
                channel.units.append(frame_units(codec, payload))
    return marks, told


def _stepping(
    recording: OpenedRecording, step: _Steps, amount: float
) -> Iterator[tuple[int, int, int, int, bytes]]:
    for place in recording.chunks:
        yield from records(recording.plain(place))
        step(amount)


def _second_pass(
    opened: list[OpenedRecording],
    number: int,
    channel: _Channel,
    placed: Placement,
    mono: IO[bytes],
    make_decoder: DecoderMaker,
    step: _Steps,
) -> None:
    """Decode one side's frames, in playing order, to their places."""
    index, next_rank = 0, 0
    early: dict[int, tuple[int, int, bytes]] = {}
    voice = _Voice(channel, make_decoder)
    for recording in opened:
        started = recording.header.identity.started_at_ns
        for side, codec, _, at_ns, payload in _stepping(recording, step, 0.5):
            if side != number or codec not in CLOCK_HZ or abs(at_ns - started) > _FAR_NS:
                continue
            rank = int(placed.rank[index])
            if rank >= 0:
                # A decoder with a memory wants its packets in order.
                early[rank] = (index, codec, payload)
            index += 1
            while next_rank in early:
                frame, codec, payload = early.pop(next_rank)
                next_rank += 1
                size = int(placed.samples[frame])
                samples = voice.decode(codec, payload, channel.units[frame], size)
                mono.seek(2 * int(placed.start[frame]))
                mono.write(samples.astype("<i2", copy=False).tobytes())


class _Voice:
    """Decodes one side, whatever codec its frames have."""

    def __init__(self, channel: _Channel, make_decoder: DecoderMaker) -> None:
        self._channel = channel
        self._make = make_decoder
        self._codec = -1
        self._decoder: Decoder | None = None

    def decode(self, codec: int, payload: bytes, units: int, size: int) -> NDArray[np.int16]:
        """Exactly ``size`` samples at the channel's rate."""
        if self._decoder is None or codec != self._codec:
            self._codec, self._decoder = codec, self._make(codec)
        decoder = self._decoder
        try:
            samples = decoder.decode(payload)
        except Exception:
            # A payload that is none of its codec's: silence, counted, and on with the next one.
            self._channel.undecodable += 1
            return np.zeros(size, np.int16)
        nominal = units * decoder.rate_hz // CLOCK_HZ[codec]
        if len(samples) != nominal:
            samples = np.concatenate((samples[:nominal], np.zeros(max(nominal - len(samples), 0))))
        if nominal == size or not nominal:
            return np.resize(samples, size).astype(np.int16)
        stretched = np.interp(np.linspace(0, nominal - 1, size), np.arange(nominal), samples)
        return np.rint(stretched).astype(np.int16)


def _sidecar(
    recordings: Sequence[StoredRecording],
    opened: list[OpenedRecording],
    channels: dict[int, _Channel],
    placed: dict[int, Placement],
    marks: list[tuple[int, int]],
    zero_ns: int,
    rate: int,
    length: int,
) -> dict[str, Any]:
    def seconds(at_ns: int) -> float:
        return round((at_ns - zero_ns) / 1e9, 3)

    return {
        "call_id": recordings[0].call_id,
        "started_at": datetime.fromtimestamp(zero_ns / 1e9, UTC).isoformat(),
        "sample_rate_hz": rate,
        "length_s": round(length / rate, 3),
        **dict(zip(("left", "right"), (_SIDES[number] for number in channels), strict=False)),
        "parts": [
            {
                "part": stored.part,
                "started_s": seconds(recording.header.identity.started_at_ns),
                "ended_s": seconds(recording.ended_at_ns()),
                "complete": recording.summary is not None,
                "ended": recording.summary.ended if recording.summary else "",
            }
            for stored, recording in zip(recordings, opened, strict=True)
        ],
        "pauses": [
            [seconds(begin), seconds(end) if end else None]
            for recording in opened
            for begin, end in recording.pauses()
        ],
        "lost_at_s": [seconds(at_ns) for kind, at_ns in marks if kind == Mark.LOST],
        "channels": {
            _SIDES[number]: {
                "codecs": sorted({_CODEC_NAMES[codec] for codec in channel.codec}),
                "frames": len(channel.codec),
                "duplicates": placed[number].duplicates,
                "missing_s": round(placed[number].missing_s, 3),
                "misplaced": channel.misplaced,
                "undecodable": channel.undecodable,
            }
            for number, channel in channels.items()
        },
    }
