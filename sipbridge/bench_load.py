"""Load for `callshield bench relay`: loud telephone speech from a process of its own.

``python -m sipbridge.bench_load load`` opens the sockets of all far ends, forks a sender and
receives itself. The sender writes its clock into each packet; the kernel stamps each arrival
(SO_TIMESTAMPNS), so that neither side's own slowness is taken for the relay's. Some flows go
straight from socket to socket: what they take is the path without a relay.

``python -m sipbridge.bench_load tap SOCKET`` is the detector's stand-in: it takes and decodes
every tapped frame.

Both speak JSON lines on standard input and output with :mod:`sipbridge.bench_relay`.
"""

from __future__ import annotations

import contextlib
import json
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

from callshield.tap import TapKind, decode_batch
from sipbridge import g711
from sipbridge.rtp import FRAME_SAMPLES, HEADER, PLAIN

CALLER_ADDRESS = "127.0.0.1"
AGENT_ADDRESS = "127.0.0.2"
_PERIOD_NS = 20_000_000
#: Sent time (ns since the epoch), and whether the packet counts (not in the warm-up).
_STAMP = struct.Struct(">QB")
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


def _send_all(flows: list[_Flow], warm_up_s: float, seconds: float, report: int) -> None:
    """The sender's life: every flow a packet every 20 ms, evenly spread over the 20 ms."""
    speech = loud_speech(5.0)
    frames = [speech[at : at + FRAME_SAMPLES] for at in range(0, len(speech), FRAME_SAMPLES)]
    tails = [frame[_STAMP.size :] for frame in frames]
    ssrcs = [random.getrandbits(32) for _ in flows]
    gap_ns = _PERIOD_NS / len(flows)
    warm_up_rounds = int(warm_up_s * 50)
    rounds = warm_up_rounds + int(seconds * 50)
    late = array("q")
    sent = [0, 0]
    refused = 0
    clock, wall = time.monotonic_ns, time.time_ns
    start_ns = clock() + _PERIOD_NS
    for number in range(rounds):
        counts = number >= warm_up_rounds
        round_ns = start_ns + number * _PERIOD_NS
        tail = tails[number % len(tails)]
        sequence, timestamp = number & 0xFFFF, number * FRAME_SAMPLES & 0xFFFFFFFF
        for position, flow in enumerate(flows):
            due_ns = round_ns + int(position * gap_ns)
            now_ns = clock()
            if due_ns > now_ns:
                time.sleep((due_ns - now_ns) / 1e9)
            elif counts:
                late.append(now_ns - due_ns)
            header = HEADER.pack(PLAIN, 0, sequence, timestamp, ssrcs[position])
            try:
                flow.sender.sendto(header + _STAMP.pack(wall(), counts) + tail, flow.target)
            except OSError:
                refused += 1
            else:
                sent[flow.direct] += counts
    late_ms = np.array(late or [0]) / 1e6
    share_late = len(late) / max(sent[0] + sent[1], 1)
    p99 = float(np.quantile(late_ms, max(0.0, 1 - 0.01 / share_late))) if share_late > 0.01 else 0.0
    result = {"sent": sent[0], "direct_sent": sent[1], "refused": refused, "late_p99_ms": p99}
    os.write(report, json.dumps(result).encode())


class _Receiver:
    """Count arrivals and keep how long each packet took."""

    def __init__(self, relayed: list[socket.socket], direct: list[socket.socket]) -> None:
        self.relayed_ns = array("q")
        self.direct_ns = array("q")
        self._epoll = select.epoll()
        self._by_descriptor: dict[int, tuple[socket.socket, array[int]]] = {}
        for sockets, durations in ((relayed, self.relayed_ns), (direct, self.direct_ns)):
            for one in sockets:
                self._epoll.register(one.fileno(), select.EPOLLIN)
                self._by_descriptor[one.fileno()] = (one, durations)

    def take(self) -> None:
        """Everything that has arrived."""
        for descriptor, _ in self._epoll.poll(0, 4096):
            one, durations = self._by_descriptor[descriptor]
            with contextlib.suppress(BlockingIOError):
                while True:
                    data, ancillary, _, _ = one.recvmsg(2048, 64)
                    if len(data) < HEADER.size + _STAMP.size or not ancillary:
                        continue
                    sent_ns, counts = _STAMP.unpack_from(data, HEADER.size)
                    if counts:
                        seconds, nanoseconds = _TIMESPEC.unpack_from(ancillary[0][2])
                        durations.append(seconds * 1_000_000_000 + nanoseconds - sent_ns)


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
    flows = [
        _Flow(one, (target[0], target[1]), False)
        for ends, targets in (
            (callers, order["caller_targets"]),
            (agents, order["agent_targets"]),
        )
        for one, target in zip(ends, targets, strict=True)
    ] + [
        _Flow(source, sink.getsockname(), True) for source, sink in zip(sources, sinks, strict=True)
    ]
    random.Random(1).shuffle(flows)
    warm_up_s, seconds = float(order["warm_up_s"]), float(order["seconds"])
    report, write_end = os.pipe()
    sender = os.fork()
    if sender == 0:
        try:
            _send_all(flows, warm_up_s, seconds, write_end)
        finally:
            os._exit(0)
    os.close(write_end)
    receiver = _Receiver(callers + agents, sinks)
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
    direct_ms = np.array(receiver.direct_ns) / 1e6
    relayed_ms = np.array(receiver.relayed_ns) / 1e6
    # What a packet would have taken anyway; the direct flows' own spread stays in the figures.
    added_ms = relayed_ms - (np.median(direct_ms) if len(direct_ms) else 0.0)
    _say(
        **sent,
        received=len(relayed_ms),
        added_ms=_quantiles(added_ms),
        direct_ms=_quantiles(direct_ms),
    )


def _quantiles(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
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
