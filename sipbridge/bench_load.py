"""Load for `callshield bench relay`: loud telephone speech from a process of its own.

``python -m sipbridge.bench_load load`` opens the sockets of all far ends, forks a sender and
receives itself. The sender notes in shared memory when it sent each packet; the kernel stamps
each arrival (SO_TIMESTAMPNS), so that neither side's own slowness is taken for the relay's. Some
flows go straight from socket to socket: what they take is the path without a relay.

``python -m sipbridge.bench_load tap SOCKET`` is the detector's stand-in: it takes and decodes
every tapped frame.

Both speak JSON lines on standard input and output with :mod:`sipbridge.bench_relay`. After its
report the load process answers questions about its arrivals until its standard input ends.
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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from callshield import g711
from callshield.errors import SetupError
from callshield.tap import TapKind, decode_batch
from sipbridge.bench_arrivals import FRAME_SAMPLES, HEADER, Arrivals, Prompt, Results
from sipbridge.prompt_file import load_prompt

#: The first byte of a plain RTP header (RFC 3550 section 5.1).
PLAIN = 0x80
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
#: Of a caller's line, root mean square of 16-bit samples: -60 dBFS.
_LINE_NOISE = 33.0
#: Of an agent who answers a caller that talks: level, and how long neither speaks between turns.
_AGENT_DBFS, _TURN_ROUNDS = -24.0, 15


@dataclass(slots=True)
class _Flow:
    """One direction of one call, or one direct path."""

    number: int
    sender: socket.socket
    target: tuple[str, int]
    ssrc: int
    protected: list[bytes] | None
    """SRTP: every packet of the flow, made before the load begins."""
    payloads: list[bytes] | None = None
    """What to send in each round instead of loud speech."""


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


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the far ends are to do."""

    targets: list[tuple[str, int]]
    """Of the callers, then of the agents."""
    warm_up_rounds: int
    rounds: int
    prompted: int
    """The last so many callers are to hear a prompt of the relay's instead of their agents."""
    srtp: list[tuple[bytes, bytes]]
    """Of each agent's leg: master key and salt of what the agent sends and of what it hears."""
    speech: list[list[bytes]]
    """Of each caller, then of each agent, by round; empty: loud speech, all the time."""

    @classmethod
    def read(cls, order: dict[str, Any]) -> _Plan:
        warm_up_rounds = int(float(order["warm_up_s"]) * 50)
        return cls(
            targets=[(one[0], one[1]) for one in order["caller_targets"] + order["agent_targets"]],
            warm_up_rounds=warm_up_rounds,
            rounds=(rounds := warm_up_rounds + int(float(order["seconds"]) * 50)),
            prompted=int(order.get("prompted", 0)),
            srtp=[(bytes.fromhex(one), bytes.fromhex(two)) for one, two in order.get("srtp", [])],
            speech=conversations(order.get("clips", []), order.get("said", []), rounds),
        )


def _packet(number: int, ssrc: int, frame: bytes) -> bytes:
    return HEADER.pack(PLAIN, 0, number & 0xFFFF, number * FRAME_SAMPLES & 0xFFFFFFFF, ssrc) + frame


def _speech_frames() -> list[bytes]:
    speech = loud_speech(5.0)
    return [speech[at : at + FRAME_SAMPLES] for at in range(0, len(speech), FRAME_SAMPLES)]


def conversations(clips: list[str], said: list[list[list[int]]], rounds: int) -> list[list[bytes]]:
    """What callers send who talk (:func:`spoken`), and then what their agents send: see there."""
    if not said:
        return []
    lengths = [len(load_prompt(Path(clip)).encoded[g711.PCMU]) // FRAME_SAMPLES for clip in clips]
    return [*spoken(clips, said, rounds), *answered(lengths, said, rounds)]


def answered(lengths: list[int], said: list[list[list[int]]], rounds: int) -> list[list[bytes]]:
    """What the agents of callers who talk send: an ordinary voice in the callers' pauses, silence
    while they speak. Who shouted at them all the time would cover their words with what is taken
    for his echo on their line.

    Args:
        lengths: of each clip, rounds.
        said: of each caller, number of the clip and round of its first packet.
        rounds: of the whole load.
    """
    pcm = g711.decode(loud_speech(5.0), g711.PCMU).astype(np.float32)
    pcm *= 32768 * 10 ** (_AGENT_DBFS / 20) / np.sqrt(np.square(pcm).mean())
    voice = g711.encode(np.clip(pcm, -32768, 32767).astype(np.int16), g711.PCMU)
    frames = [voice[at : at + FRAME_SAMPLES] for at in range(0, len(voice), FRAME_SAMPLES)]
    silence = g711.encode(np.zeros(FRAME_SAMPLES, np.int16), g711.PCMU)
    agents = []
    for number, sentences in enumerate(said):
        row = [frames[(at + 53 * number) % len(frames)] for at in range(rounds)]
        for clip, at in sentences:
            begins, ends = max(0, at - _TURN_ROUNDS), at + lengths[clip] + _TURN_ROUNDS
            row[begins:ends] = [silence] * (min(ends, rounds) - begins)
        agents.append(row)
    return agents


def spoken(clips: list[str], said: list[list[list[int]]], rounds: int) -> list[list[bytes]]:
    """What callers who talk send, µ-law by round: their lines' noise, and what they say.

    Args:
        clips: WAV files, 8 kHz.
        said: of each caller, number of the clip and round of its first packet.
        rounds: of the whole load.

    Raises:
        SetupError: a file is missing.
    """
    frames = []
    for clip in clips:
        data = load_prompt(Path(clip)).encoded[g711.PCMU]
        whole = len(data) // FRAME_SAMPLES * FRAME_SAMPLES
        frames.append([data[at : at + FRAME_SAMPLES] for at in range(0, whole, FRAME_SAMPLES)])
    line = np.random.default_rng(1).normal(0.0, _LINE_NOISE, 5 * g711.SAMPLE_RATE_HZ)
    hiss = g711.encode(line.astype(np.int16), g711.PCMU)
    noise = [hiss[at : at + FRAME_SAMPLES] for at in range(0, len(hiss), FRAME_SAMPLES)]
    callers = []
    for number, sentences in enumerate(said):
        row = [noise[(at + 37 * number) % len(noise)] for at in range(rounds)]
        for clip_number, at in sentences:
            part = frames[clip_number][: max(0, rounds - at)]
            row[at : at + len(part)] = part
        callers.append(row)
    return callers


def srtp_session(key: bytes, *, outbound: bool) -> Any:
    """A pylibsrtp session of suite AES_CM_128_HMAC_SHA1_80.

    Raises:
        SetupError: pylibsrtp is not installed.
    """
    try:
        from pylibsrtp import Policy, Session
    except ImportError:
        raise SetupError(
            "--srtp needs pylibsrtp to make its load, and that is not installed: "
            "pip install pylibsrtp"
        ) from None
    ssrc_type = Policy.SSRC_ANY_OUTBOUND if outbound else Policy.SSRC_ANY_INBOUND
    policy = Policy(
        key=key, ssrc_type=ssrc_type, srtp_profile=Policy.SRTP_PROFILE_AES128_CM_SHA1_80
    )
    return Session(policy=policy)


def _protected(key: bytes, ssrc: int, rounds: int) -> list[bytes]:
    session, frames = srtp_session(key, outbound=True), _speech_frames()
    return [
        session.protect(_packet(number, ssrc, frames[number % len(frames)]))
        for number in range(rounds)
    ]


def _send_all(
    flows: list[_Flow], sent_ns: NDArray[np.int64], warm_up_rounds: int, report: int
) -> None:
    """The sender's life: every flow a packet every 20 ms, evenly spread over the 20 ms.

    Args:
        flows: in the order of their turns.
        sent_ns: wall clock of every send, by flow number and round; 0: refused by the machine.
            Shared with the receiver.
        warm_up_rounds: that do not count.
        report: where the result is written.
    """
    frames = _speech_frames()
    gap_ns = _PERIOD_NS / len(flows)
    rounds = sent_ns.shape[1]
    late = array("q")
    counted = refused = 0
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
            if flow.protected is None:
                payload = frame if flow.payloads is None else flow.payloads[number]
                packet = HEADER.pack(PLAIN, 0, sequence, timestamp, flow.ssrc) + payload
            else:
                packet = flow.protected[number]
            counted += counts
            sent_ns[flow.number, number] = wall()
            try:
                flow.sender.sendto(packet, flow.target)
            except OSError:
                sent_ns[flow.number, number] = 0
                refused += 1
    late_ms = np.array(late or [0]) / 1e6
    share_late = len(late) / max(counted, 1)
    p99 = float(np.quantile(late_ms, max(0.0, 1 - 0.01 / share_late))) if share_late > 0.01 else 0.0
    os.write(report, json.dumps({"refused": refused, "late_p99_ms": p99}).encode())


class _Receiver:
    """Take what arrives in all sockets."""

    def __init__(self, arrivals: list[tuple[socket.socket, Arrivals | Prompt]]) -> None:
        self._epoll = select.epoll()
        self._by_descriptor: dict[int, tuple[socket.socket, Arrivals | Prompt]] = {}
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

    def take_for(self, done: Callable[[], bool]) -> None:
        """Everything that arrives until ``done``."""
        while not done():
            self.take()
            time.sleep(_RECEIVE_EVERY_S)


def _unreadable(plan: _Plan, taken: list[Arrivals | Prompt]) -> int:
    """SRTP: of each agent's first packets, those that its key does not open."""
    refused = 0
    for (_, key), arrivals in zip(plan.srtp, taken, strict=False):
        session = srtp_session(key, outbound=False)
        for packet in arrivals.first:
            try:
                session.unprotect(packet)
            except Exception:
                refused += 1
    return refused


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
    plan = _Plan.read(_hear())
    senders = [*callers, *agents, *sources]
    targets = [*plan.targets, *(sink.getsockname() for sink in sinks)]
    # What flow number n sends arrives in hearers[n].
    hearers = [*agents, *callers, *sinks]
    flows = []
    for number, (sender, target) in enumerate(zip(senders, targets, strict=True)):
        ssrc, protected = random.getrandbits(32), None
        if plan.srtp and count <= number < 2 * count:
            protected = _protected(plan.srtp[number - count][0], ssrc, plan.rounds)
        payloads = plan.speech[number] if number < len(plan.speech) else None
        flows.append(_Flow(number, sender, target, ssrc, protected, payloads))
    shape = (len(flows), plan.rounds)
    shared = mmap.mmap(-1, shape[0] * shape[1] * 8)
    sent_ns = np.frombuffer(shared, np.int64).reshape(shape)
    arrived_ns = np.zeros(shape, np.int64)
    taken: list[Arrivals | Prompt] = [
        Prompt()
        if 2 * count - plan.prompted <= number < 2 * count
        else Arrivals(sent_ns[number], arrived_ns[number])
        for number in range(len(flows))
    ]
    random.Random(1).shuffle(flows)
    report, write_end = os.pipe()
    sender_pid = os.fork()
    if sender_pid == 0:
        try:
            _send_all(flows, sent_ns, plan.warm_up_rounds, write_end)
        finally:
            os._exit(0)
    os.close(write_end)
    receiver = _Receiver(list(zip(hearers, taken, strict=True)))
    ends_s = time.monotonic() + plan.warm_up_rounds / 50
    receiver.take_for(lambda: time.monotonic() >= ends_s)
    _say(event="measuring")
    ends_s += (plan.rounds - plan.warm_up_rounds) / 50
    receiver.take_for(lambda: time.monotonic() >= ends_s)
    _say(event="measured")
    # The sender may be behind its own schedule: wait for its report, then for the relay.
    poll = select.poll()
    poll.register(report, select.POLLIN)
    receiver.take_for(lambda: bool(poll.poll(0)))
    sent = json.loads(os.read(report, 4096) or b"{}")
    os.waitpid(sender_pid, 0)
    ends_s = time.monotonic() + _DRAIN_S
    receiver.take_for(lambda: time.monotonic() >= ends_s)
    results = Results(
        sent_ns,
        arrived_ns,
        relayed=slice(0, 2 * count - plan.prompted),
        direct=slice(2 * count, None),
        warm_up_rounds=plan.warm_up_rounds,
    )
    _say(
        **sent,
        **results.whole(),
        prompts=[one.report() for one in taken if isinstance(one, Prompt)],
        unreadable=_unreadable(plan, taken),
    )
    for line in sys.stdin:
        question = json.loads(line)
        if "between" in question:
            _say(**results.between(*question["between"]))
        elif "when" in question:
            _say(sent_ns=[int(sent_ns[flow, at]) for flow, at in question["when"]])
        else:
            _say(counts=results.histogram(*question["histogram"]))


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
