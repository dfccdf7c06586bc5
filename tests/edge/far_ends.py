"""Far ends of calls in a process of their own: numbered RTP out, kernel-stamped arrivals in.

``python -m tests.edge.far_ends ADDRESS COUNT`` opens COUNT sockets on ADDRESS and prints their
ports as a JSON line. Lines ``{"talk": [[number, host, port], …]}`` on standard input set to whom a
socket speaks from now on, a packet each 20 ms; ``{"stop": []}`` ends it, and one JSON line then
says of each socket what it sent (number, nanoseconds) and what it heard (number, nanoseconds of
arrival). A test's own event loop, busy with SIP, could not measure gaps of milliseconds.

Packets are A-law whose bytes are nearly silent and spell their number: no limiter has a reason to
touch them.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass, field

from callshield.free_ports import free_range

PERIOD_NS = 20_000_000
#: Linux's SO_TIMESTAMPNS, which the socket module does not name.
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@qq")
#: A-law codes of the 16 quietest positive values.
_QUIET = bytes(0xD5 ^ value for value in range(16))
_NUMBER = {code: value for value, code in enumerate(_QUIET)}


def payload(number: int) -> bytes:
    """160 bytes that spell a number, over and over."""
    word = bytes(_QUIET[(number >> (4 * place)) & 15] for place in range(8))
    return word * 20


def number_of(data: bytes) -> int:
    """The number that a payload spells; -1 where it is something else (a prompt)."""
    found = 0
    for place, code in enumerate(data[:8]):
        value = _NUMBER.get(code)
        if value is None:
            return -1
        found |= value << (4 * place)
    return found


@dataclass
class FarEnd:
    """One socket."""

    link: socket.socket
    to: tuple[str, int] | None = None
    number: int = 0
    sent: list[tuple[int, int]] = field(default_factory=list)
    heard: list[tuple[int, int]] = field(default_factory=list)

    def speak(self) -> None:
        if self.to is None:
            return
        self.number += 1
        header = struct.pack(
            "!BBHII",
            0x80,
            8,
            self.number & 0xFFFF,
            self.number * 160,
            0x5EED0000 | id(self) & 0xFFFF,
        )
        self.sent.append((self.number, time.time_ns()))
        self.link.sendto(header + payload(self.number), self.to)

    def hear(self) -> None:
        data, ancillary, _, _ = self.link.recvmsg(2048, 256)
        if len(data) < 20 or data[1] & 0x7F != 8:
            return
        at_ns = time.time_ns()
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack(value[: _TIMESPEC.size])
                at_ns = seconds * 1_000_000_000 + nanoseconds
        self.heard.append((number_of(data[12:]), at_ns))


def _talk(ends: list[FarEnd], stop: threading.Event) -> None:
    due_ns = time.monotonic_ns()
    while not stop.is_set():
        due_ns += PERIOD_NS
        time.sleep(max(due_ns - time.monotonic_ns(), 0) / 1e9)
        for end in ends:
            end.speak()


def main() -> None:
    address, count = sys.argv[1], int(sys.argv[2])
    first, _ = free_range(address, 2 * count)
    ends = []
    for index in range(count):
        link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        link.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        link.bind((address, first + 2 * index))
        ends.append(FarEnd(link))
    print(json.dumps([end.link.getsockname()[1] for end in ends]), flush=True)
    stop = threading.Event()
    talking = threading.Thread(target=_talk, args=(ends, stop))
    talking.start()
    by_descriptor = {end.link.fileno(): end for end in ends}
    poll = select.poll()
    poll.register(sys.stdin, select.POLLIN)
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    while not stop.is_set():
        for descriptor, _ in poll.poll():
            if descriptor in by_descriptor:
                by_descriptor[descriptor].hear()
                continue
            line = sys.stdin.readline()
            told = json.loads(line) if line else {"stop": []}
            for number, host, port in told.get("talk", []):
                ends[number].to = (host, port)
            if "stop" in told:
                stop.set()
    talking.join()
    print(json.dumps([{"sent": end.sent, "heard": end.heard} for end in ends]), flush=True)


if __name__ == "__main__":
    main()
