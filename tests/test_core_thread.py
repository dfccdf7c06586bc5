"""The relay's own thread on real sockets: audio goes on while Python stands still."""

from __future__ import annotations

import ctypes
import itertools
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from sipbridge.relay_core import Core
from tests.core_kit import AGENT, CALL_ID, CALLER, clip, rtp

#: Linux: the kernel notes when a datagram came in, whenever it is read (socket(7)).
SO_TIMESTAMPNS = 35
WAIT_S = 20.0
#: How long Python stands still.
STALL_S = 3.0

SENDER = """
import socket, sys, time
data = bytes.fromhex(sys.argv[3])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
    out.bind(("127.0.0.1", int(sys.argv[2])))
    begin = time.monotonic()
    for number in range(int(sys.argv[4])):
        head = data[:2] + number.to_bytes(2, "big") + (160 * number).to_bytes(4, "big")
        out.sendto(head + data[8:], ("127.0.0.1", int(sys.argv[1])))
        time.sleep(max(begin + 0.02 * (number + 1) - time.monotonic(), 0))
"""


def bound(port: int = 0) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    made.bind(("127.0.0.1", port))
    made.setblocking(False)
    return made


class Node:
    """A core with its thread and one open call between two sockets."""

    def __init__(self) -> None:
        self.core = Core("", [], 5.0)
        self.scheduling = self.core.start(0)
        self.handle = self.core.open(CALL_ID, [], [])
        self.sockets: list[socket.socket] = []
        self.far: dict[int, socket.socket] = {}
        self.ours: dict[int, int] = {}
        for leg in (CALLER, AGENT):
            ports = [bound(), bound()]
            far = bound()
            self.sockets += [*ports, far]
            self.far[leg], self.ours[leg] = far, ports[0].getsockname()[1]
            self.core.add_leg(self.handle, leg, ports[0].fileno(), ports[1].fileno())
            self.negotiate(leg, far.getsockname())
        self.core.allow(self.handle, True, True, False, False, False, False)

    def negotiate(self, leg: int, address: tuple[str, int]) -> None:
        self.core.negotiate(self.handle, leg, address, 0, "", 0, 0, 101, -1, 20, leg == AGENT, None)

    def close(self) -> None:
        self.core.stop()
        self.core.close_call(self.handle)
        for one in self.sockets:
            one.close()


def arrivals(reader: socket.socket) -> list[float]:
    """When the kernel got each datagram that waits, seconds since the epoch."""
    at: list[float] = []
    while True:
        try:
            _, ancillary, _, _ = reader.recvmsg(2048, 64)
        except BlockingIOError:
            return at
        for _, kind, data in ancillary:
            if kind == SO_TIMESTAMPNS:
                seconds, nanoseconds = struct.unpack("qq", data)
                at.append(seconds + nanoseconds / 1e9)


def hold_pythons_lock(seconds: float) -> tuple[float, float]:
    """No other Python thread runs meanwhile; seconds since the epoch of its begin and end."""
    begin = time.time()
    # PyDLL, unlike CDLL, keeps the lock over the call.
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    return begin, time.time()


def widest_gap(at: list[float], begin: float, end: float) -> float:
    within = [moment for moment in at if begin <= moment <= end]
    return max(b - a for a, b in itertools.pairwise([begin, *within, end]))


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    yield made
    made.close()


def test_a_prompt_goes_on_while_python_stands_still(node: Node) -> None:
    ticks: list[float] = []
    over = threading.Event()

    def python_tick() -> None:
        while not over.wait(0.02):
            ticks.append(time.time())

    beside = threading.Thread(target=python_tick)
    beside.start()
    node.core.play(node.handle, CALLER, 1, [clip(16_000)], True, False)
    time.sleep(0.1)
    begin, end = hold_pythons_lock(STALL_S)
    over.set()
    beside.join()
    at = arrivals(node.far[CALLER])
    # A loaded machine may be late for a moment; Python's own thread had no turn at all.
    assert widest_gap(at, begin, end) < 0.25
    assert len([moment for moment in at if begin <= moment <= end]) > 40 * STALL_S
    # The negative control.
    assert widest_gap(ticks, begin, end) > 0.95 * STALL_S


def test_voice_goes_on_while_python_stands_still(node: Node) -> None:
    far = node.far.pop(CALLER)
    source = far.getsockname()[1]
    node.sockets.remove(far)
    far.close()
    count = 250
    sender = subprocess.Popen(
        [
            sys.executable, "-c", SENDER, str(node.ours[CALLER]), str(source),
            rtp(ssrc=9).hex(), str(count),
        ]
    )  # fmt: skip
    assert select.select([node.far[AGENT]], [], [], WAIT_S)[0]
    begin, end = hold_pythons_lock(STALL_S)
    assert sender.wait(WAIT_S) == 0
    at = arrivals(node.far[AGENT])
    assert widest_gap(at, begin, end) < 0.25
    assert len([moment for moment in at if begin <= moment <= end]) > 40 * STALL_S
    deadline = time.monotonic() + WAIT_S
    while len(at) < count and time.monotonic() < deadline:
        at += arrivals(node.far[AGENT])
    assert len(at) == count


def test_the_event_descriptor_wakes_whoever_waits_and_rests_when_all_was_read(node: Node) -> None:
    descriptor = node.core.event_fd
    assert select.select([descriptor], [], [], 0)[0] == []
    node.core.play(node.handle, CALLER, 7, [clip(320)], False, False)
    assert select.select([descriptor], [], [], WAIT_S)[0]
    ((kind, handle, leg, play_id, end, *_),) = node.core.events()
    assert (kind, handle, leg, play_id, end) == ("played", node.handle, CALLER, 7, 0)
    assert select.select([descriptor], [], [], 0)[0] == []


def test_a_leg_that_was_removed_is_read_no_more_and_may_come_back(node: Node) -> None:
    target = ("127.0.0.1", node.ours[CALLER])
    heard = node.far[AGENT]

    def hears(sequence: int, seconds: float) -> bool:
        node.far[CALLER].sendto(rtp(sequence=sequence, timestamp=160 * sequence), target)
        if not select.select([heard], [], [], seconds)[0]:
            return False
        heard.recv(2048)
        return True

    assert hears(1, WAIT_S)
    node.core.remove_leg(node.handle, CALLER)
    assert not hears(2, 0.2)
    with pytest.raises(KeyError):
        node.negotiate(CALLER, node.far[CALLER].getsockname())
    ours = [one for one in node.sockets if one.getsockname()[1] == node.ours[CALLER]]
    # What came meanwhile was not read: it is the caller's first packet now.
    rtcp = node.sockets[node.sockets.index(ours[0]) + 1]
    node.core.add_leg(node.handle, CALLER, ours[0].fileno(), rtcp.fileno())
    node.negotiate(CALLER, node.far[CALLER].getsockname())
    assert hears(3, WAIT_S)


def test_a_far_end_that_is_gone_does_not_stop_the_leg(node: Node) -> None:
    # Its port is closed: the kernel answers with ICMP, and sends fail now and then.
    gone = bound()
    address = gone.getsockname()
    gone.close()
    node.negotiate(AGENT, address)
    target = ("127.0.0.1", node.ours[CALLER])
    for sequence in range(50):
        node.far[CALLER].sendto(rtp(sequence=sequence, timestamp=160 * sequence), target)
        time.sleep(0.002)
    back = bound(address[1])
    node.far[CALLER].sendto(rtp(sequence=50, timestamp=8000), target)
    assert select.select([back], [], [], WAIT_S)[0]
    back.close()


def test_a_thread_is_started_and_stopped_once_and_closed_descriptors_are_told() -> None:
    core = Core("", [], 5.0)
    assert core.start(0) == "ordinary"
    handle = core.open(CALL_ID, [], [])
    closed = bound()
    number = closed.fileno()
    closed.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        core.add_leg(handle, CALLER, number, number)
    # It is as if it had not been asked.
    with pytest.raises(KeyError):
        core.remove_leg(handle, CALLER)
    core.stop()
    core.stop()
    core.close_call(handle)
    with pytest.raises(RuntimeError):
        core.tick(1.0)
    with pytest.raises(RuntimeError):
        core.sent()
    with pytest.raises(OSError, match="Invalid"):
        Core("", [], 5.0, manual=True).start(0)
    with pytest.raises(ValueError, match="too long"):
        Core("/" + "x" * 120, [], 5.0)


def test_starting_twice_leaves_one_thread() -> None:
    core = Core("", [], 5.0)
    # Among them, for a moment, may be one of an earlier test that is over.
    before = threads()
    core.start(0)
    with pytest.raises(OSError, match="already in progress"):
        core.start(0)
    (new,) = threads() - before
    for _ in range(2):
        core.stop()
        until_gone(new)
        core.start(0)
        (new,) = threads() - before
    core.stop()
    until_gone(new)


def until_gone(thread: str) -> None:
    """A thread that was joined stands in /proc until the kernel has cleared it away."""
    end = time.monotonic() + WAIT_S
    while thread in threads():
        assert time.monotonic() < end, thread
        time.sleep(0.001)


def threads() -> set[str]:
    return set(os.listdir("/proc/self/task"))
