"""A call in the relay's C core without sockets: far ends that are bytes, a clock that is a number.

:class:`CallInCore` drives ``Core(manual=True)``; :class:`Source` is what a far end sends.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from callshield.tap import CallerFrame, TapKind, decode_batch
from sipbridge.relay_core import Clip, Core

CALLER, AGENT, HELPER = range(3)
ADDRESSES = {
    CALLER: ("192.0.2.10", 4000),
    AGENT: ("192.0.2.20", 5000),
    HELPER: ("192.0.2.30", 6000),
}
STRANGER = ("192.0.2.66", 4000)
CALL_ID = bytes(range(16))
#: Payload type of telephone-event on each leg; different, so that mapping shows.
EVENTS = {CALLER: 101, AGENT: 96, HELPER: 97}
PCMU, PCMA, G722, OPUS = 0, 8, 9, 111
HEADER = struct.Struct(">BBHII")
RECORD = struct.Struct("<16sBBHIQ")
FRAME = b"\x11" * 160
DIGITS = "0123456789*#ABCD"


@dataclass(frozen=True, slots=True)
class Packet:
    """An RTP packet that the relay sent."""

    leg: int
    to: tuple[str, int]
    kind: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    raw: bytes = b""

    @property
    def payload_type(self) -> int:
        return self.kind & 0x7F

    @property
    def marker(self) -> bool:
        return bool(self.kind & 0x80)


def parse(leg: int, to: tuple[str, int], data: bytes) -> Packet:
    first, kind, sequence, timestamp, ssrc = HEADER.unpack_from(data)
    assert first == 0x80, f"first byte {first:#x} is not that of a plain packet"
    return Packet(leg, to, kind, sequence, timestamp, ssrc, data[12:], data)


def rtp(
    payload: bytes = FRAME,
    kind: int = 0,
    sequence: int = 1,
    timestamp: int = 160,
    ssrc: int = 7,
) -> bytes:
    return (
        HEADER.pack(0x80, kind, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc & 0xFFFFFFFF)
        + payload
    )


@dataclass(slots=True)
class Source:
    """A far end's stream: numbers that go on by themselves."""

    kind: int = 0
    sequence: int = 1000
    timestamp: int = 50_000
    ssrc: int = 7

    def packet(self, payload: bytes = FRAME, *, samples: int | None = None, **over: int) -> bytes:
        made = rtp(
            payload,
            over.get("kind", self.kind),
            over.get("sequence", self.sequence),
            over.get("timestamp", self.timestamp),
            over.get("ssrc", self.ssrc),
        )
        self.sequence = (self.sequence + 1) & 0xFFFF
        self.timestamp = (self.timestamp + (len(payload) if samples is None else samples)) & (
            0xFFFFFFFF
        )
        return made

    def press(
        self,
        digit: str | int,
        event_type: int,
        *,
        updates: int = 5,
        ends: int = 3,
        step: int = 160,
    ) -> list[bytes]:
        """The packets of one press, as RFC 4733 section 2.5 has them."""
        code = DIGITS.index(digit) if isinstance(digit, str) else digit
        packets = []
        for number in range(updates + ends):
            end = number >= updates
            duration = step * min(number + 1, updates + 1)
            payload = bytes([code, (0x80 if end else 0) | 10]) + duration.to_bytes(2, "big")
            kind = event_type | (0x80 if number == 0 else 0)
            packets.append(rtp(payload, kind, self.sequence, self.timestamp, self.ssrc))
            self.sequence = (self.sequence + 1) & 0xFFFF
        self.timestamp = (self.timestamp + step * (updates + 1)) & 0xFFFFFFFF
        return packets


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame for the recorder."""

    call_id: bytes
    channel: int
    codec: int
    timestamp: int
    at_ns: int
    payload: bytes


def frames_of(data: bytes) -> list[Frame]:
    """The recorder's bytes, taken apart."""
    frames = []
    offset = 0
    while offset < len(data):
        call_id, channel, codec, length, timestamp, at_ns = RECORD.unpack_from(data, offset)
        offset += RECORD.size
        payload = data[offset : offset + length]
        assert len(payload) == length
        offset += length
        frames.append(Frame(call_id, channel, codec, timestamp, at_ns, payload))
    return frames


def clip(samples: int = 480, *, fill: int = 0) -> Clip:
    """A G.711 prompt whose bytes tell where they came from (never silence)."""
    codes = bytes(1 + (n + fill) % 100 for n in range(samples))
    return Clip(codes, bytes(0x80 | code for code in codes))


def clip_bytes(samples: int, law: int = PCMU, *, fill: int = 0) -> bytes:
    """What :func:`clip` holds."""
    return bytes((0x80 if law == PCMA else 0) | (1 + (n + fill) % 100) for n in range(samples))


@dataclass
class CallInCore:
    """One call of a manual core.

    Args:
        codes: feature codes.
        types: voice codec of each leg (also its payload type).
        legs: which are open and negotiated.
        open_gates: let both directions through, tapped and not recorded.
    """

    codes: Sequence[str] = ()
    types: dict[int, int] = field(default_factory=dict)
    legs: Sequence[int] = (CALLER, AGENT)
    open_gates: bool = True
    noise: dict[int, int] = field(default_factory=dict)
    events_types: dict[int, int] = field(default_factory=lambda: dict(EVENTS))
    ptimes: dict[int, int] = field(default_factory=dict)
    networks: tuple[list[tuple[str, int]], list[tuple[str, int]]] = ([], [])
    window_s: float = 5.0
    protect: bool = False
    signalling: dict[int, str] = field(default_factory=dict)
    rtcp_ports: dict[int, int] = field(default_factory=dict)
    srtp: dict[int, tuple[int, bytes, bytes]] = field(default_factory=dict)
    core: Core = field(init=False)
    handle: int = field(init=False)
    now: float = 1000.0
    source: dict[int, Source] = field(init=False)
    flow: dict[str, bool] = field(init=False)

    def __post_init__(self) -> None:
        self.core = Core("", list(self.codes), self.window_s, manual=True)
        self.core.tick(self.now)
        self.handle = self.core.open(CALL_ID, *self.networks)
        self.source = {leg: Source(ssrc=0x1000 + leg) for leg in range(3)}
        self.flow = {
            "caller_to_agent": False,
            "agent_to_caller": False,
            "tap": False,
            "record": False,
            "paused": False,
            "conference": False,
        }
        for leg in self.legs:
            self.core.add_leg(self.handle, leg, -1, -1)
            self.negotiate(leg)
        if self.open_gates:
            self.allow(caller_to_agent=True, agent_to_caller=True, tap=True)

    def negotiate(
        self,
        leg: int,
        address: tuple[str, int] | None = None,
        srtp: tuple[int, bytes | None, bytes | None] | None = None,
    ) -> None:
        """(Re-)negotiate a leg with what the tables above say."""
        codec = self.types.get(leg, PCMU)
        self.source[leg].kind = codec
        self.core.negotiate(
            self.handle,
            leg,
            ADDRESSES[leg] if address is None else address,
            self.rtcp_ports.get(leg, 0),
            self.signalling.get(leg, ""),
            codec,
            codec,
            self.events_types[leg],
            self.noise.get(leg, -1),
            self.ptimes.get(leg, 20),
            self.protect and leg != CALLER,
            self.srtp.get(leg) if srtp is None else srtp,
        )

    def allow(self, **changes: bool) -> None:
        self.flow.update(changes)
        self.core.allow(self.handle, **self.flow)

    # ------------------------------------------------------------------------ what comes in

    def inject(
        self,
        leg: int,
        data: bytes,
        *,
        source: tuple[str, int] | None = None,
        after: float = 0.0,
        rtcp: bool = False,
    ) -> None:
        self.now += after
        self.core.inject(
            self.handle, leg, data, ADDRESSES[leg] if source is None else source, self.now, rtcp
        )

    def say(self, leg: int, payload: bytes = FRAME, *, after: float = 0.02, **over: int) -> None:
        """The leg's far end sends the next packet of its stream, 20 ms after the last one."""
        self.inject(leg, self.source[leg].packet(payload, **over), after=after)

    def press(self, leg: int, digits: str, *, after: float = 0.02, **how: int) -> None:
        """The leg's far end presses keys; the relay ticks meanwhile, as it would."""
        for digit in digits:
            for packet in self.source[leg].press(digit, self.events_types[leg], **how):
                self.inject(leg, packet)
                self.run(after)

    def run(self, seconds: float) -> None:
        """Let time go by, with a tick every 10 ms."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now = min(self.now + 0.01, end)
            self.core.tick(self.now)

    # ------------------------------------------------------------------------ what comes out

    def sent(self, *legs: int) -> list[Packet]:
        """RTP sent since the last call, to these legs (all of them; what else was sent is lost)."""
        return [
            parse(leg, to, data)
            for _, leg, is_rtcp, to, data in self.core.sent()
            if not is_rtcp and (not legs or leg in legs)
        ]

    def rtcp_sent(self) -> list[tuple[int, tuple[str, int], bytes]]:
        return [(leg, to, data) for _, leg, is_rtcp, to, data in self.core.sent() if is_rtcp]

    def tapped(self) -> list[CallerFrame]:
        """Tapped frames since the last call; lets the relay flush first."""
        self.run(0.03)
        return [frame for data in self.core.tapped() for frame in decode_batch(data)[1]]

    def tapped_audio(self) -> list[CallerFrame]:
        return [frame for frame in self.tapped() if frame.kind is TapKind.AUDIO]

    def recorded(self) -> list[Frame]:
        return frames_of(self.core.recorded())

    def events(self, kind: str = "") -> list[tuple[Any, ...]]:
        return [event for event in self.core.events() if not kind or event[0] == kind]

    def stats(self, leg: int) -> dict[str, Any]:
        figures = self.core.stats(self.handle)[0][leg]
        assert figures is not None
        return figures

    def call_stats(self) -> dict[str, int]:
        return self.core.stats(self.handle)[1]


FEATURE_CODES = ("**9", "*12")


def heard(packets: list[Packet], leg: int = CALLER) -> str:
    """The digits that a phone makes of the telephone-events it got: one for each timestamp that
    has an end, and ``?`` for one that has none."""
    presses: dict[int, tuple[int, bool]] = {}
    for one in packets:
        if one.payload_type != EVENTS[leg]:
            continue
        code, ended = one.payload[0], bool(one.payload[1] & 0x80)
        before = presses.get(one.timestamp)
        assert before is None or before[0] == code, "two digits under one timestamp"
        presses[one.timestamp] = (code, ended or bool(before and before[1]))
    return "".join(
        DIGITS[code] if ended else "?" for code, ended in presses.values() if code < len(DIGITS)
    )


def gate(**how: object) -> CallInCore:
    return CallInCore(codes=FEATURE_CODES, **how)  # type: ignore[arg-type]


def codes_told(call: CallInCore) -> list[tuple[int, int]]:
    return [(event[2], event[3]) for event in call.events() if event[0] == "code"]


def steps(packets: Sequence[Packet]) -> list[tuple[int, int]]:
    """(sequence, timestamp) differences between packets in the order sent."""
    return [
        ((b.sequence - a.sequence) & 0xFFFF, (b.timestamp - a.timestamp) & 0xFFFFFFFF)
        for a, b in itertools.pairwise(packets)
    ]


def markers(packets: Iterable[Packet]) -> list[int]:
    return [number for number, packet in enumerate(packets) if packet.marker]


def one_ssrc(packets: Iterable[Packet]) -> bool:
    return len({packet.ssrc for packet in packets}) == 1
