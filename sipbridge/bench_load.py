"""Load for `callshield bench relay`: loud telephone speech from a process of its own.

``python -m sipbridge.bench_load load`` opens the sockets of all far ends, forks a sender and
receives itself. The sender notes in shared memory when it sent each packet; the kernel stamps each
arrival (SO_TIMESTAMPNS), so that neither side's own slowness is taken for the relay's. Some flows go
straight from socket to socket: what they take is the path without a relay.

``python -m sipbridge.bench_load tap SOCKET`` is the detector's stand-in: it takes and decodes
every tapped frame.

Both speak JSON lines on standard input and output with :mod:`sipbridge.bench_relay`.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import resource
import select
import socket
import struct
import sys
import time
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from callshield.tap import TapKind, decode_batch
from sipbridge import g711

#: The fixed RTP header (RFC 3550 section 5.1) and the first byte of a plain one.
HEADER = struct.Struct(">BBHII")
PLAIN = 0x80
FRAME_SAMPLES = 160
CALLER_ADDRESS = "127.0.0.1"
AGENT_ADDRESS = "127.0.0.2"
_PERIOD_NS = 20_000_000
#: Linux's SO_TIMESTAMPNS, which the socket module does not name; it is also the type of the
#: ancillary message: seconds and nanoseconds of CLOCK_REALTIME.
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@qq")
#: How often the receiver looks: arrivals are stamped by the kernel, so it need not hurry.
_RECEIVE_EVERY_S = 0.002
#: After the last packet was sent, the relay has this long to deliver what it holds.
_DRAIN_S = 1.0


@dataclass(slots=True)
class _Flow:
    """One direction of one call, or one direct path."""

    number: int
    sender: socket.socket
    target: tuple[str, int]
    direct: bool


def loud_speech(seconds: float) -> bytes:
    """Something as loud and as lively as shouting, µ-law: a voice's harmonics, gated by syllables.

    A relay does not care what it carries; a limiter and a detector will.
    """
    at_s = np.arange(int(seconds * g711.SAMPLE_RATE_HZ)) / g711.SAMPLE_RATE_HZ
    pitch_hz = 280 + 60 * np.sin(2 * np.pi * 0.7 * at_s)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / g711.SAMPLE_RATE_HZ
    voice = sum(np.sin(k * phase) / k**0.7 for k in range(1, 11))
    syllables = np.clip(np.sin(2 * np.pi * 4.5 * at_s) + 0.6, 0, 1)
    signal = np.asarray(voice * syllables)
    samples = (signal / np.max(np.abs(signal)) * 30000).astype(np.int16)
    return g711.encode(samples, g711.PCMU)


def _udp(address: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    made.bind((address, 0))
    return made


def _say(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def _hear() -> dict[str, Any]:
    body: dict[str, Any] = json.loads(sys.stdin.readline())
    return body


def _send_all(
    flows: list[_Flow], sent_ns: NDArray[np.int64], warm_up_rounds: int, report: int
) -> None:
    """The sender's life: every flow a packet every 20 ms, evenly spread over the 20 ms.

    Args:
        flows: in the order of their turns.
        sent_ns: wall clock of every send, by flow number and round; shared with the receiver.
        warm_up_rounds: that do not count.
        report: where the result is written.
    """
    speech = loud_speech(5.0)
    frames = [speech[at : at + FRAME_SAMPLES] for at in range(0, len(speech), FRAME_SAMPLES)]
    ssrcs = [random.getrandbits(32) for _ in flows]
    gap_ns = _PERIOD_NS / len(flows)
    rounds = sent_ns.shape[1]
    late = array("q")
    sent = [0, 0]
    refused = 0
    clock, wall = time.monotonic_ns, time.time_ns
    start_ns = clock() + _PERIOD_NS
    for number in range(rounds):
        counts = number >= warm_up_rounds
        round_ns = start_ns + number * _PERIOD_NS
        frame = frames[number % len(frames)]
        sequence, timestamp = number & 0xFFFF, number * FRAME_SAMPLES & 0xFFFFFFFF
        for position, flow in enumerate(flows):
            due_ns = round_ns + int(position * gap_ns)
            now_ns = clock()
            if due_ns > now_ns:
                time.sleep((due_ns - now_ns) / 1e9)
            elif counts:
                late.append(now_ns - due_ns)
            header = HEADER.pack(PLAIN, 0, sequence, timestamp, ssrcs[position])
            sent_ns[flow.number, number] = wall()
            try:
                flow.sender.sendto(header + frame, flow.target)
            except OSError:
                refused += 1
            else:
                sent[flow.direct] += counts
    late_ms = np.array(late or [0]) / 1e6
    share_late = len(late) / max(sent[0] + sent[1], 1)
    p99 = float(np.quantile(late_ms, max(0.0, 1 - 0.01 / share_late))) if share_late > 0.01 else 0.0
    result = {"sent": sent[0], "direct_sent": sent[1], "refused": refused, "late_p99_ms": p99}
    os.write(report, json.dumps(result).encode())


class _Arrivals:
    """What arrives in one socket: how long each packet took.

    A relay may change all of a packet (numbers, and what is too loud for an ear) but the steps of
    its sequence numbers; the first packet says where they stand.
    """

    def __init__(self, sent_ns: NDArray[np.int64], warm_up_rounds: int) -> None:
        self._sent_ns = sent_ns
        self._warm_up_rounds = warm_up_rounds
        self._ssrc = -1
        # The newest packet's number, and the sender's round in which it was sent.
        self._sequence = 0
        self._round = 0
        self.durations_ns = array("q")

    def take(self, packet: bytes, arrived_ns: int) -> None:
        """One datagram; RTCP and the like are not counted."""
        if len(packet) < HEADER.size + FRAME_SAMPLES:
            return
        _, _, sequence, _, ssrc = HEADER.unpack_from(packet)
        if ssrc != self._ssrc:
            # The newest round sent before it arrived: no packet takes 20 ms here.
            sent = np.flatnonzero((self._sent_ns > 0) & (self._sent_ns <= arrived_ns))
            if not len(sent):
                return
            self._ssrc, number = ssrc, int(sent[-1])
        else:
            number = self._round + ((sequence - self._sequence + 0x8000) & 0xFFFF) - 0x8000
        self._sequence, self._round = sequence, number
        rounds = len(self._sent_ns)
        if self._warm_up_rounds <= number < rounds and self._sent_ns[number] > 0:
            self.durations_ns.append(arrived_ns - int(self._sent_ns[number]))


class _Receiver:
    """Take what arrives in all sockets."""

    def __init__(self, arrivals: list[tuple[socket.socket, _Arrivals]]) -> None:
        self._epoll = select.epoll()
        self._by_descriptor: dict[int, tuple[socket.socket, _Arrivals]] = {}
        for one, taken in arrivals:
            self._epoll.register(one.fileno(), select.EPOLLIN)
            self._by_descriptor[one.fileno()] = (one, taken)

    def take(self) -> None:
        """Everything that has arrived."""
        for descriptor, _ in self._epoll.poll(0, 4096):
            one, taken = self._by_descriptor[descriptor]
            with contextlib.suppress(BlockingIOError):
                while True:
                    data, ancillary, _, _ = one.recvmsg(2048, 64)
                    if ancillary:
                        seconds, nanoseconds = _TIMESPEC.unpack_from(ancillary[0][2])
                        taken.take(data, seconds * 1_000_000_000 + nanoseconds)


def run_load() -> None:
    """The load process: see the module."""
    order = _hear()
    count, direct_count = int(order["calls"]), int(order["direct"])
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    callers = [_udp(CALLER_ADDRESS) for _ in range(count)]
    agents = [_udp(AGENT_ADDRESS) for _ in range(count)]
    sources = [_udp(CALLER_ADDRESS) for _ in range(direct_count)]
    sinks = [_udp(AGENT_ADDRESS) for _ in range(direct_count)]
    _say(
        caller_ports=[one.getsockname()[1] for one in callers],
        agent_ports=[one.getsockname()[1] for one in agents],
    )
    order = _hear()
    warm_up_s, seconds = float(order["warm_up_s"]), float(order["seconds"])
    senders = [*callers, *agents, *sources]
    targets = [
        *((target[0], target[1]) for target in order["caller_targets"] + order["agent_targets"]),
        *(sink.getsockname() for sink in sinks),
    ]
    # What flow number n sends arrives in hearers[n].
    hearers = [*agents, *callers, *sinks]
    flows = [
        _Flow(number, sender, target, number >= 2 * count)
        for number, (sender, target) in enumerate(zip(senders, targets, strict=True))
    ]
    warm_up_rounds = int(warm_up_s * 50)
    rounds = warm_up_rounds + int(seconds * 50)
    shared = mmap.mmap(-1, len(flows) * rounds * 8)
    sent_ns = np.frombuffer(shared, np.int64).reshape(len(flows), rounds)
    arrivals = [_Arrivals(sent_ns[number], warm_up_rounds) for number in range(len(flows))]
    random.Random(1).shuffle(flows)
    report, write_end = os.pipe()
    sender = os.fork()
    if sender == 0:
        try:
            _send_all(flows, sent_ns, warm_up_rounds, write_end)
        finally:
            os._exit(0)
    os.close(write_end)
    receiver = _Receiver(list(zip(hearers, arrivals, strict=True)))
    begin_s = time.monotonic()
    for event, end_s in (
        ("measuring", begin_s + warm_up_s),
        ("measured", begin_s + warm_up_s + seconds),
    ):
        while time.monotonic() < end_s:
            receiver.take()
            time.sleep(_RECEIVE_EVERY_S)
        _say(event=event)
    # The sender may be behind its own schedule: wait for its report, then for the relay.
    while not select.select([report], [], [], 0)[0]:
        receiver.take()
        time.sleep(_RECEIVE_EVERY_S)
    sent = json.loads(os.read(report, 4096) or b"{}")
    os.waitpid(sender, 0)
    drained_s = time.monotonic() + _DRAIN_S
    while time.monotonic() < drained_s:
        receiver.take()
        time.sleep(_RECEIVE_EVERY_S)
    relayed_ms = _milliseconds(arrivals[: 2 * count])
    direct_ms = _milliseconds(arrivals[2 * count :])
    # What a packet would have taken anyway; the direct flows' own spread stays in the figures.
    added_ms = relayed_ms - (np.median(direct_ms) if len(direct_ms) else 0.0)
    _say(
        **sent,
        received=len(relayed_ms),
        added_ms=_quantiles(added_ms),
        direct_ms=_quantiles(direct_ms),
    )


def _milliseconds(arrivals: list[_Arrivals]) -> NDArray[np.float64]:
    return np.concatenate([np.array(one.durations_ns, np.int64) for one in arrivals]) / 1e6


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return {"p50": float("nan"), "p99": float("nan"), "max": float("nan")}
    return {
        "p50": round(float(np.quantile(values, 0.5)), 3),
        "p99": round(float(np.quantile(values, 0.99)), 3),
        "max": round(float(np.max(values)), 3),
    }


def run_tap(path: Path) -> None:
    """Take every frame from the tap until standard input ends; then say how many there were."""
    reader = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    reader.bind(str(path))
    _say(event="ready")
    frames = 0
    while True:
        ready, _, _ = select.select([reader, sys.stdin], [], [])
        if reader in ready:
            _, records = decode_batch(reader.recv(65536))
            frames += sum(1 for record in records if record.kind is TapKind.AUDIO)
        elif sys.stdin in ready:
            break
    _say(frames=frames)


if __name__ == "__main__":
    if sys.argv[1:2] == ["tap"]:
        run_tap(Path(sys.argv[2]))
    else:
        run_load()
