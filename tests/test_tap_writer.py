"""The tap: the worker's fast writer makes the same bytes, and the sender never waits."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sipbridge.tap_sender import BACKLOG_BATCHES, CallTap, TapSender

from callshield.tap import (
    MAX_DATAGRAM_BYTES,
    BatchWriter,
    CallerFrame,
    TapCodec,
    TapKind,
    decode_batch,
    encode_batches,
)

ONE = "1" * 32
TWO = "2" * 32

frames = st.builds(
    CallerFrame,
    call_id=st.binary(min_size=16, max_size=16),
    kind=st.just(TapKind.AUDIO),
    codec=st.sampled_from(TapCodec),
    sequence=st.integers(0, 65535),
    timestamp=st.integers(0, 2**32 - 1),
    arrived_ms=st.integers(0, 2**32 - 1),
    payload=st.binary(max_size=480),
)


def write(writer: BatchWriter, frame: CallerFrame) -> bool:
    return writer.add(
        frame.call_id,
        frame.kind,
        frame.codec,
        frame.sequence,
        frame.timestamp,
        frame.arrived_ms,
        frame.payload,
    )


@given(st.lists(frames, max_size=30))
def test_the_fast_writer_makes_the_same_bytes(batch: list[CallerFrame]) -> None:
    writer = BatchWriter()
    assert all(write(writer, frame) for frame in batch)
    assert writer.records == len(batch)
    datagram = writer.take(42)
    assert ([datagram] if datagram else []) == list(encode_batches(batch, 42))
    assert writer.take(43) == b""


def test_a_full_datagram_is_told_and_the_next_one_begins_empty() -> None:
    writer = BatchWriter()
    frame = CallerFrame(b"c" * 16, TapKind.AUDIO, TapCodec.PCMU, 1, 2, 3, b"\x00" * 160)
    count = 0
    while write(writer, frame):
        count += 1
    datagram = writer.take(1)
    assert MAX_DATAGRAM_BYTES - 192 < len(datagram) <= MAX_DATAGRAM_BYTES
    assert len(decode_batch(datagram)[1]) == count
    assert write(writer, frame)
    assert len(decode_batch(writer.take(2))[1]) == 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tap.sock"


@pytest.fixture
def reader(path: Path) -> Iterator[socket.socket]:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(path))
    made.setblocking(False)
    yield made
    made.close()


def speak(tap: CallTap, sequence: int) -> None:
    tap.frame(0, sequence, 160 * sequence, 1.0, bytearray(b"\x12" * 160))


def take(reader: socket.socket) -> list[CallerFrame]:
    taken = []
    while True:
        try:
            taken += decode_batch(reader.recv(65536))[1]
        except BlockingIOError:
            return taken


def test_one_batch_a_tick_for_all_calls(path: Path, reader: socket.socket) -> None:
    first: list[str] = []
    sender = TapSender(path, first.append)
    one, two = CallTap(sender, ONE), CallTap(sender, TWO)
    speak(one, 1)
    speak(two, 1)
    speak(one, 2)
    assert take(reader) == []
    sender.flush()
    _, batch = decode_batch(reader.recv(65536))
    assert [(frame.call_id.hex(), frame.sequence) for frame in batch] == [
        (ONE, 1),
        (TWO, 1),
        (ONE, 2),
    ]
    assert first == [ONE, TWO]
    speak(one, 3)
    sender.flush()
    assert first == [ONE, TWO]
    assert (one.tapped, two.tapped, sender.tapped) == (3, 1, 4)
    sender.close()


def test_no_detector_costs_the_frames_and_is_not_announced(path: Path) -> None:
    first: list[str] = []
    sender = TapSender(path, first.append)
    tap = CallTap(sender, ONE)
    speak(tap, 1)
    sender.flush()
    assert (tap.tapped, tap.dropped, first) == (0, 1, [])
    sender.close()


def test_a_detector_at_the_same_path_is_found_again(path: Path, reader: socket.socket) -> None:
    sender = TapSender(path, lambda _: None)
    tap = CallTap(sender, ONE)
    speak(tap, 1)
    sender.flush()
    reader.close()
    path.unlink()
    speak(tap, 2)
    sender.flush()
    assert tap.dropped == 1
    again = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    again.bind(str(path))
    again.setblocking(False)
    speak(tap, 3)
    sender.flush()
    assert [frame.sequence for frame in take(again)] == [3]
    again.close()
    sender.close()


def test_a_detector_killed_and_restarted_between_ticks_loses_nothing(
    path: Path, reader: socket.socket
) -> None:
    sender = TapSender(path, lambda _: None)
    tap = CallTap(sender, ONE)
    speak(tap, 1)
    sender.flush()
    reader.close()
    path.unlink()
    again = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    again.bind(str(path))
    again.setblocking(False)
    speak(tap, 2)
    sender.flush()
    assert [frame.sequence for frame in take(again)] == [2]
    assert tap.dropped == 0
    again.close()
    sender.close()


def test_a_short_stall_costs_nothing_a_long_one_the_oldest(
    path: Path, reader: socket.socket
) -> None:
    sender = TapSender(path, lambda _: None)
    tap = CallTap(sender, ONE)
    for sequence in range(40):
        speak(tap, sequence)
        sender.flush()
    got = take(reader)
    # A socket's queue holds fewer batches than that: the rest waited here.
    assert len(got) < 40
    speak(tap, 40)
    while len(got) < 41:
        sender.flush()
        got += take(reader)
    assert [frame.sequence for frame in got] == list(range(41))
    assert tap.dropped == 0
    for sequence in range(200):
        speak(tap, 1000 + sequence)
        sender.flush()
    assert tap.dropped > 200 - BACKLOG_BATCHES - 60
    got = take(reader)
    while got[-1].sequence != 1199:
        sender.flush()
        got += take(reader)
    assert tap.tapped == 41 + len(got)
    assert tap.tapped + tap.dropped == 241
    sender.close()


def test_the_end_of_a_tap_comes_after_its_frames(path: Path, reader: socket.socket) -> None:
    sender = TapSender(path, lambda _: None)
    tap = CallTap(sender, ONE)
    speak(tap, 1)
    tap.detach(2.0)
    sender.flush()
    assert [frame.kind for frame in take(reader)] == [TapKind.AUDIO, TapKind.DETACH]
    assert tap.tapped == 1
    sender.close()
