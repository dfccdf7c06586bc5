"""The tap of the relay in C: the layout that callshield.tap reads, a batch a tick, no waiting."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callshield.tap import (
    MAX_DATAGRAM_BYTES,
    CallerFrame,
    TapCodec,
    TapKind,
    decode_batch,
    encode_batches,
)
from sipbridge.relay_core import Core
from tests.core_kit import CALLER, G722, OPUS, PCMA, PCMU, CallInCore, rtp

#: Datagrams that wait for a slow detector: one second of ticks.
BACKLOG = 50


@given(
    st.lists(
        st.tuples(
            st.integers(0, 65535),
            st.integers(0, 2**32 - 1),
            st.integers(0, 2**32 - 1),
            st.binary(min_size=1, max_size=480),
        ),
        min_size=1,
        max_size=30,
        unique_by=lambda row: row[:1],
    ),
    st.sampled_from([PCMU, PCMA, G722, OPUS]),
)
def test_the_datagram_is_byte_for_byte_that_of_the_layout(
    rows: list[tuple[int, int, int, bytes]], codec: int
) -> None:
    call = CallInCore(types={CALLER: codec})
    # Another tap's 20 ms begins now.
    call.run(0.03)
    call.core.tapped()
    wanted = []
    for sequence, timestamp, ssrc, payload in rows:
        # Each of another source, so that none is a duplicate.
        call.inject(CALLER, rtp(payload, codec, sequence, timestamp, ssrc))
        wanted.append(
            CallerFrame(
                bytes(range(16)),
                TapKind.AUDIO,
                TapCodec(codec),
                sequence,
                timestamp,
                int(call.now * 1e9) // 10**6 & 0xFFFFFFFF,
                payload,
            )
        )
    call.run(0.03)
    (datagram,) = call.core.tapped()
    sent_at_ns, _ = decode_batch(datagram)
    assert [datagram] == list(encode_batches(wanted, sent_at_ns))
    assert sent_at_ns == pytest.approx(call.now * 1e9, abs=30e6)


def test_one_batch_a_tick_for_all_calls() -> None:
    call = CallInCore()
    call.run(0.03)
    second = call.core.open(b"2" * 16, [], [])
    call.core.add_leg(second, CALLER, -1, -1)
    call.core.negotiate(second, CALLER, ("192.0.2.50", 9), 0, "", 0, 0, -1, -1, 20, False, None)
    call.core.allow(second, False, False, True, False, False, False)
    call.say(CALLER, after=0.0)
    call.core.inject(second, CALLER, rtp(sequence=5), ("192.0.2.50", 9), call.now, False)
    call.say(CALLER, after=0.0)
    assert call.core.tapped() == []
    assert call.events("tap_started") == []
    call.run(0.03)
    (datagram,) = call.core.tapped()
    _, batch = decode_batch(datagram)
    assert [(frame.call_id, frame.sequence) for frame in batch] == [
        (bytes(range(16)), 1000),
        (b"2" * 16, 5),
        (bytes(range(16)), 1001),
    ]
    assert call.events() == [
        ("tap_started", call.handle, CALLER),
        ("tap_started", second, CALLER),
    ]
    call.say(CALLER)
    call.run(0.03)
    assert call.events() == []
    assert call.call_stats()["tapped"] == 3
    assert call.core.totals()["tapped"] == 4


def test_a_full_datagram_goes_out_and_the_next_one_begins() -> None:
    call = CallInCore()
    call.run(0.03)
    call.core.tapped()
    for _ in range(1000):
        call.say(CALLER, after=0.0)
    call.run(0.03)
    datagrams = call.core.tapped()
    assert all(len(datagram) <= MAX_DATAGRAM_BYTES for datagram in datagrams)
    assert len(datagrams[0]) > MAX_DATAGRAM_BYTES - 192
    frames = [frame for datagram in datagrams for frame in decode_batch(datagram)[1]]
    assert [frame.sequence for frame in frames] == list(range(1000, 2000))


def test_many_small_frames_fill_a_datagram_too() -> None:
    call = CallInCore()
    for _ in range(5000):
        call.say(CALLER, b"\x11", after=0.0)
    call.run(0.03)
    frames = [frame for datagram in call.core.tapped() for frame in decode_batch(datagram)[1]]
    assert len(frames) == 5000


def test_no_detector_costs_the_frames_and_is_not_announced() -> None:
    call = CallInCore()
    call.core.refuse(errno.ECONNREFUSED)
    call.say(CALLER)
    call.run(0.03)
    assert call.core.tapped() == []
    assert call.events("tap_started") == []
    assert (call.call_stats()["tapped"], call.call_stats()["tap_dropped"]) == (0, 1)
    call.core.refuse(0)
    call.say(CALLER)
    assert [frame.sequence for frame in call.tapped()] == [1001]
    assert len(call.events("tap_started")) == 1


def test_a_short_stall_costs_nothing_a_long_one_the_oldest() -> None:
    call = CallInCore()
    call.run(0.03)
    call.core.refuse(errno.EAGAIN)
    for _ in range(40):
        call.say(CALLER, after=0.0)
        call.run(0.02)
    assert call.core.tapped() == []
    assert call.call_stats()["tap_dropped"] == 0
    call.core.refuse(0)
    call.run(0.03)
    frames = [frame for data in call.core.tapped() for frame in decode_batch(data)[1]]
    assert [frame.sequence for frame in frames] == list(range(1000, 1040))
    assert call.events("tap_started")
    call.core.refuse(errno.EAGAIN)
    for _ in range(200):
        call.say(CALLER, after=0.0)
        call.run(0.02)
    dropped = call.call_stats()["tap_dropped"]
    assert dropped == pytest.approx(200 - BACKLOG, abs=2)
    call.core.refuse(0)
    call.run(0.05)
    frames = [frame for data in call.core.tapped() for frame in decode_batch(data)[1]]
    assert [frame.sequence for frame in frames] == list(range(1240 - len(frames), 1240))
    stats = call.call_stats()
    assert stats["tapped"] == 40 + len(frames)
    assert stats["tapped"] + stats["tap_dropped"] == 240
    totals = call.core.totals()
    assert (totals["tapped"], totals["tap_dropped"]) == (stats["tapped"], stats["tap_dropped"])


def test_what_waits_goes_first_even_when_a_datagram_is_full_meanwhile() -> None:
    call = CallInCore()
    call.core.refuse(errno.EAGAIN)
    call.say(CALLER, after=0.0)
    call.run(0.03)
    call.core.refuse(0)
    # More than one datagram holds, before the next tick.
    for _ in range(500):
        call.say(CALLER, after=0.0)
    assert [frame.sequence for frame in call.tapped()] == list(range(1000, 1501))


def test_what_waits_for_a_detector_that_goes_away_is_counted_as_dropped() -> None:
    call = CallInCore()
    call.core.refuse(errno.EAGAIN)
    for _ in range(10):
        call.say(CALLER, after=0.0)
        call.run(0.02)
    call.core.refuse(errno.ECONNREFUSED)
    call.run(0.05)
    assert call.call_stats()["tap_dropped"] == 10


def test_frames_of_a_call_that_is_over_are_still_sent_and_counted() -> None:
    call = CallInCore()
    call.core.refuse(errno.EAGAIN)
    call.say(CALLER)
    call.run(0.03)
    call.core.close_call(call.handle)
    call.core.refuse(0)
    assert [frame.kind for frame in call.tapped()] == [TapKind.AUDIO, TapKind.DETACH]
    assert call.core.totals()["tapped"] == 1
    assert call.events("tap_started") == []


# --------------------------------------------------------------- the socket of the real thread


class Node:
    """A core with its thread, one call, and the caller's socket."""

    def __init__(self, path: Path) -> None:
        self.core = Core(str(path), [], 5.0)
        self.sockets = [self._bound() for _ in range(5)]
        rtp_socket, rtcp_socket, self.caller = self.sockets[:3]
        for one in (rtp_socket, rtcp_socket):
            one.setblocking(False)
        self.target = rtp_socket.getsockname()
        self.core.start(0)
        self.handle = self.core.open(b"1" * 16, [], [])
        self.core.add_leg(self.handle, CALLER, rtp_socket.fileno(), rtcp_socket.fileno())
        self.core.negotiate(
            self.handle, CALLER, self.caller.getsockname(), 0, "", 0, 0, -1, -1, 20, False, None
        )
        self.core.allow(self.handle, False, False, True, False, False, False)

    @staticmethod
    def _bound() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("127.0.0.1", 0))
        return made

    def speak(self, sequence: int) -> None:
        self.caller.sendto(rtp(sequence=sequence, timestamp=160 * sequence), self.target)

    def wait_for(self, name: str, count: int) -> None:
        """Until the call's counter reaches this."""
        end = time.monotonic() + 20
        while self.core.stats(self.handle)[1][name] < count:
            assert time.monotonic() < end, f"{name} never reached {count}"
            time.sleep(0.005)

    def close(self) -> None:
        self.core.stop()
        self.core.close_call(self.handle)
        for one in self.sockets:
            one.close()


def detector(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(path))
    made.settimeout(20)
    return made


def sequences(reader: socket.socket, count: int) -> list[int]:
    got: list[int] = []
    while len(got) < count:
        got += [frame.sequence for frame in decode_batch(reader.recv(65536))[1]]
    return got


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tap.sock"


@pytest.fixture
def node(path: Path) -> Iterator[Node]:
    made = Node(path)
    yield made
    made.close()


def test_a_detector_may_come_go_and_come_back(path: Path, node: Node) -> None:
    node.speak(1)
    node.wait_for("tap_dropped", 1)
    one = detector(path)
    node.speak(2)
    assert sequences(one, 1) == [2]
    one.close()
    path.unlink()
    node.speak(3)
    node.wait_for("tap_dropped", 2)
    two = detector(path)
    node.speak(4)
    assert sequences(two, 1) == [4]
    # Killed and restarted between two frames: nothing is lost.
    two.close()
    path.unlink()
    three = detector(path)
    node.speak(5)
    assert sequences(three, 1) == [5]
    assert node.core.stats(node.handle)[1]["tapped"] == 3
    assert node.core.events() == [("tap_started", node.handle, CALLER)]
    three.close()


def test_a_detector_that_does_not_read_for_a_while_loses_nothing(path: Path, node: Node) -> None:
    reader = detector(path)
    for sequence in range(30):
        node.speak(sequence)
        # A socket's queue holds ten datagrams or so: the rest waits in the core.
        time.sleep(0.02)
    assert sequences(reader, 30) == list(range(30))
    assert node.core.stats(node.handle)[1]["tap_dropped"] == 0
    reader.close()


def test_random_bytes_on_the_real_socket_reach_no_detector(path: Path, node: Node) -> None:
    reader = detector(path)
    dice = random.Random(2)
    for _ in range(500):
        data = bytearray(dice.randbytes(dice.choice((0, 1, 12, 172, 1400))))
        if len(data) > 1 and data[1] & 0x7F == 0:
            data[1] = 0x83
        node.caller.sendto(bytes(data), node.target)
    # The kernel drops what does not fit into the socket's queue, perhaps a good one too.
    reader.settimeout(0.1)
    heard: list[int] = []
    for sequence in range(1000, 1200):
        node.speak(sequence)
        with contextlib.suppress(TimeoutError):
            heard += sequences(reader, 1)
            break
    assert heard
    assert set(heard) <= set(range(1000, 1200))
    reader.close()
