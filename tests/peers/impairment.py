"""A bad network on loopback: loses, delays, reorders and doubles datagrams, the same way each run.

``tc netem`` is not in every kernel; this is a UDP relay with a plan. One direction is impaired,
the other passes at once. What was really done to each packet is kept, to be compared with what
the far end says of it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

from callshield.free_ports import free_range


@dataclass(frozen=True)
class Plan:
    """What happens to packets, by a seeded choice for each."""

    loss: float = 0.0
    """Share of packets that never arrive, 0..1."""
    duplicates: float = 0.0
    """Share that arrives twice."""
    swaps: float = 0.0
    """Share that is overtaken by the next one."""
    jitter_ms: float = 0.0
    """Each packet is delayed by 0 to this long more than the quickest, in the order of sending."""
    seed: int = 1


@dataclass
class Done:
    """What was done; sequence numbers are those of the RTP packets."""

    passed: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    doubled: list[int] = field(default_factory=list)
    swapped: list[int] = field(default_factory=list)
    arrivals: list[tuple[int, int, float]] = field(default_factory=list)
    """Sequence number, timestamp and time (s) of each packet that went on, doubles too."""

    def jitter_ms(self) -> float:
        """What a receiver must find at the end."""
        return jitter_ms(self.arrivals)


def jitter_ms(arrivals: Iterable[tuple[int, int, float]], clock: int = 8000) -> float:
    """What a receiver finds at the end (RFC 3550 section 6.4.1).

    Args:
        arrivals: sequence number, timestamp and time (s) of each packet; a second one of a number
            is none.
        clock: of the timestamps, Hz.
    """
    jitter, before = 0.0, None
    seen: set[int] = set()
    for sequence, timestamp, at_s in arrivals:
        if sequence in seen:
            continue
        seen.add(sequence)
        transit = at_s - timestamp / clock
        if before is not None:
            jitter += (abs(transit - before) - jitter) / 16
        before = transit
    return jitter * 1000


class _Socket(asyncio.DatagramProtocol):
    def __init__(self, network: Network, inner: bool) -> None:
        self._network, self._inner = network, inner
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._network.arrived(data, addr, inner=self._inner)


class Network:
    """Two sockets, one for the sender and one that the far end sees as the sender.

    Args:
        address: loopback address of both.
        plan: what happens on the way from the sender to the far end.
    """

    def __init__(self, address: str, plan: Plan) -> None:
        self.address = address
        self.inner_port, self.outer_port = (free_range(address, 2)[0] for _ in range(2))
        self.plan = plan
        self.done = Done()
        self.far_end: tuple[str, int] = ("", 0)
        """Where the sender's packets go, once that is known."""
        self._dice = random.Random(plan.seed)
        self._sender: tuple[str, int] | None = None
        self._sockets: dict[bool, _Socket] = {}
        self._held: bytes | None = None
        self._free_at = 0.0
        self._timers: set[asyncio.TimerHandle] = set()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        for inner, port in ((True, self.inner_port), (False, self.outer_port)):
            # Bound by name: late binding in a lambda would take the last one twice.
            protocol = _Socket(self, inner)
            await loop.create_datagram_endpoint(
                lambda protocol=protocol: protocol,  # type: ignore[misc]
                local_addr=(self.address, port),
            )
            self._sockets[inner] = protocol

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        for socket in self._sockets.values():
            if socket.transport is not None:
                socket.transport.close()

    def arrived(self, data: bytes, addr: tuple[str, int], *, inner: bool) -> None:
        """A datagram from the sender (``inner``) or from the far end."""
        if not inner:
            if self._sender is not None:
                self._send(data, self._sender, inner=True)
            return
        self._sender = addr
        sequence = int.from_bytes(data[2:4], "big")
        lost, doubled, swapped = (
            self._dice.random() < share
            for share in (self.plan.loss, self.plan.duplicates, self.plan.swaps)
        )
        delay_ms = self._dice.uniform(0, self.plan.jitter_ms)
        if lost:
            self.done.lost.append(sequence)
            return
        self.done.passed.append(sequence)
        held, self._held = self._held, None
        if held is not None:
            # This one overtakes it.
            self._later([data, held], delay_ms)
        elif swapped:
            self.done.swapped.append(sequence)
            self._held = data
        elif doubled:
            self.done.doubled.append(sequence)
            self._later([data, data], delay_ms)
        else:
            self._later([data], delay_ms)

    def _later(self, datagrams: list[bytes], delay_ms: float) -> None:
        loop = asyncio.get_running_loop()
        # A queue, as in a router: nobody overtakes but where the plan says so. Timers for the very
        # same moment go off in no order.
        self._free_at = max(self._free_at + 1e-5, loop.time() + delay_ms / 1000)

        def deliver() -> None:
            for datagram in datagrams:
                numbers = int.from_bytes(datagram[2:4], "big"), int.from_bytes(datagram[4:8], "big")
                self.done.arrivals.append((*numbers, loop.time()))
                self._send(datagram, self.far_end, inner=False)

        self._timers.add(loop.call_at(self._free_at, deliver))

    def _send(self, data: bytes, to: tuple[str, int], *, inner: bool) -> None:
        transport = self._sockets[inner].transport
        assert transport is not None
        transport.sendto(data, to)


@asynccontextmanager
async def impaired(address: str, plan: Plan) -> AsyncIterator[Network]:
    """A bad network for as long as the block lasts."""
    network = Network(address, plan)
    await network.start()
    try:
        yield network
    finally:
        network.close()
