"""The relay core of one call: what comes in on a leg, and what goes out on the other.

Pure: it gets a datagram, its source and the time, and writes the packet to be sent into the
same buffer. Who owns sockets is :mod:`sipbridge.media_worker`.

* :class:`Inlet`: what a leg's far end sends us: source, validity, payload type, digits.
* :class:`Outlet`: the one RTP stream that a leg's far end hears: relayed packets or prompts.
* :class:`CallerLeg` and :class:`AgentLeg`: one of each. **Only the caller's leg has a tap**;
  there is no way to give the agent's one (design principle 2).
"""

from __future__ import annotations

import random
from typing import Protocol

from callshield.errors import RtpError
from callshield.messages import DigitPressed, LegName, LegStats, MediaMessage
from sipbridge import g711
from sipbridge.dtmf import EVENT_BYTES, EventReceiver
from sipbridge.latching import Address, Latch
from sipbridge.playout import Playout
from sipbridge.rtp import (
    FRAME_S,
    FRAME_SAMPLES,
    HEADER,
    HEADER_BYTES,
    MARKER,
    MAX_PACKET_BYTES,
    PLAIN,
    OutgoingStream,
    plain_packet,
)

#: The far end heard nothing for this long: a mixed tone goes on alone.
TONE_ALONE_AFTER_S = 2 * FRAME_S

_parse_header = HEADER.unpack_from


class CallerTap(Protocol):
    """Where the caller's frames go; see :class:`sipbridge.tap_sender.CallTap`."""

    def frame(
        self, codec: int, sequence: int, timestamp: int, now: float, payload: bytearray
    ) -> None:
        """Take one voice payload of the caller; must not block."""


class Inlet:
    """What a leg's far end sends.

    Args:
        call_id: for the messages.
        name: which leg.
        latch: whose media is taken.
        outbox: where messages about this leg are left.
    """

    __slots__ = (
        "_call_id",
        "_events",
        "_name",
        "_outbox",
        "_settled",
        "event_payload_type",
        "last_at",
        "latch",
        "malformed",
        "payload_type",
        "received",
        "wrong_payload_type",
        "wrong_source",
    )

    def __init__(
        self, call_id: str, name: LegName, latch: Latch, outbox: list[MediaMessage]
    ) -> None:
        self._call_id = call_id
        self._name = name
        self._outbox = outbox
        self._events = EventReceiver()
        self._settled: Address | None = None
        self.latch = latch
        self.payload_type = -1
        self.event_payload_type = -1
        self.last_at = 0.0
        """Monotonic time of the newest accepted packet."""
        self.received = 0
        self.malformed = 0
        self.wrong_source = 0
        self.wrong_payload_type = 0

    def negotiate(
        self,
        sdp: Address | None,
        signalling: str,
        payload_type: int,
        event_payload_type: int,
        now: float,
    ) -> None:
        """The far end's SDP came: see :class:`callshield.messages.LegUpdate`."""
        self.payload_type = payload_type
        self.event_payload_type = event_payload_type
        self.latch.arm(sdp, signalling, now)
        self._settled = None

    def accept(
        self, packet: bytearray, size: int, source: Address, now: float
    ) -> tuple[int, int, bool, int, int, int] | None:
        """Check one datagram and make it plain.

        Args:
            packet: the datagram in its first ``size`` bytes; rewritten where it is not plain.
            size: its length.
            source: address and port it came from.
            now: monotonic seconds.

        Returns:
            ``(size, marker, is_event, sequence, timestamp, ssrc)``, or None when it was dropped
            and counted.
        """
        if size <= HEADER_BYTES or size > MAX_PACKET_BYTES or packet[0] != PLAIN:
            try:
                size = plain_packet(packet, size)
            except RtpError:
                self.malformed += 1
                return None
        _, kind, sequence, timestamp, ssrc = _parse_header(packet)
        if kind == self.payload_type and source == self._settled:
            # Nearly every packet.
            self.received += 1
            self.last_at = now
            return size, 0, False, sequence, timestamp, ssrc
        is_event = kind & 0x7F == self.event_payload_type
        if kind & 0x7F != self.payload_type and not is_event:
            # Comfort noise (RFC 3389) among them: it is never offered, so it ends here.
            if source == self._settled or source == self.latch.sdp:
                self.wrong_payload_type += 1
            else:
                self.wrong_source += 1
            return None
        if is_event and size < HEADER_BYTES + EVENT_BYTES:
            self.malformed += 1
            return None
        if source != self._settled:
            if not self.latch.accept(source, now):
                self.wrong_source += 1
                return None
            self._settled = self.latch.settled
        self.received += 1
        self.last_at = now
        if is_event:
            payload = bytes(packet[HEADER_BYTES:size])
            self._press(self._events.receive(ssrc, timestamp, payload, now))
        return size, kind & MARKER, is_event, sequence, timestamp, ssrc

    def expire(self, now: float) -> None:
        """Report a digit whose end was lost; to be called a few times a second."""
        if self._events.running:
            self._press(self._events.expire(now))

    def _press(self, digits: str) -> None:
        for digit in digits:
            self._outbox.append(DigitPressed(call_id=self._call_id, leg=self._name, digit=digit))


class Outlet:
    """The stream that a leg's far end hears.

    Args:
        latch: of the same leg: it knows where to send.
    """

    __slots__ = (
        "_alone",
        "_continues",
        "_gate",
        "_mixing",
        "_passing",
        "_transcode",
        "event_payload_type",
        "latch",
        "payload_type",
        "playout",
        "stream",
        "unsent",
    )

    def __init__(self, latch: Latch) -> None:
        self.latch = latch
        # Cryptographic quality is not needed, unpredictability to an attacker is (RFC 3550
        # section 5.1): the system's generator costs nothing here.
        dice = random.SystemRandom()
        self.stream = OutgoingStream(
            dice.getrandbits(32), dice.getrandbits(16), dice.getrandbits(32)
        )
        self.payload_type = -1
        self.event_payload_type = -1
        self.playout: Playout | None = None
        self.unsent = 0
        """Packets that the machine refused to send."""
        self._gate = False
        self._passing = False
        self._transcode: bytes | None = None
        self._mixing = False
        self._alone = False
        self._continues = False

    def negotiate(self, payload_type: int, event_payload_type: int, source_type: int) -> None:
        """Set what this leg understands.

        Args:
            payload_type: of the voice codec.
            event_payload_type: telephone-event; -1 when this leg has none.
            source_type: voice payload type of the other leg; -1 when not known yet.
        """
        self.payload_type = payload_type
        self.event_payload_type = event_payload_type
        self._transcode = (
            g711.transcoding_table(source_type, payload_type)
            if source_type >= 0 and payload_type >= 0
            else None
        )
        self._settle()

    def open_gate(self, is_open: bool) -> None:
        """Let the other leg's packets through, or stop them."""
        if is_open != self._gate:
            self._gate = is_open
            # What was not relayed meanwhile is not a loss.
            self.stream.release()
            self._settle()

    def play(self, playout: Playout | None) -> None:
        """Begin a prompt, or (None) be done with the one that played."""
        self.playout = playout
        self._continues = False
        self._alone = False
        self._settle()

    def _settle(self) -> None:
        self._mixing = self.playout is not None and self.playout.mix
        self._passing = (
            self._gate and self.payload_type >= 0 and (self.playout is None or self._mixing)
        )

    def relay(
        self,
        packet: bytearray,
        accepted: tuple[int, int, bool, int, int, int],
        now: float,
    ) -> int:
        """Make an accepted packet of the other leg ours, in place.

        Args:
            packet: the plain packet.
            accepted: what :meth:`Inlet.accept` said about it.
            now: monotonic seconds.

        Returns:
            Bytes to send to ``latch.destination``; 0 for nothing.
        """
        if not self._passing or self.latch.destination is None:
            return 0
        size, marker, is_event, sequence, timestamp, ssrc = accepted
        if is_event:
            kind = self.event_payload_type
            if kind < 0:
                return 0
            if not self.stream.forward(
                packet, size, marker | kind, sequence, timestamp, ssrc, now, is_event=True
            ):
                return 0
            return size
        if size == HEADER_BYTES:
            # A packet without payload keeps a NAT binding open (RFC 6263 section 4.1): the far
            # end's business with us, not with the other leg.
            return 0
        if not self.stream.forward(
            packet, size, marker | self.payload_type, sequence, timestamp, ssrc, now
        ):
            return 0
        if self._transcode is not None:
            packet[HEADER_BYTES:size] = packet[HEADER_BYTES:size].translate(self._transcode)
        if self._mixing and self.playout is not None:
            self._alone = False
            tone = self.playout.take(self.payload_type, size - HEADER_BYTES, now)
            packet[HEADER_BYTES:size] = g711.mix(packet[HEADER_BYTES:size], tone, self.payload_type)
        return size

    def tick(self, now: float) -> bytes:
        """The prompt's packet that is due now; empty when none is."""
        playout = self.playout
        if playout is None or playout.exhausted or self.payload_type < 0:
            return b""
        begins = not self._continues
        if playout.mix:
            if not self._alone and now - self.stream.sent_at < TONE_ALONE_AFTER_S:
                return b""
            begins = not self._alone
            self._alone = True
        self._continues = True
        payload = playout.take(self.payload_type, FRAME_SAMPLES, now)
        return self.stream.emit(self.payload_type, payload, now, begins=begins)


class AgentLeg:
    """The agent's side: heard by the caller, never by an analyser."""

    __slots__ = ("inlet", "outlet")

    def __init__(self, inlet: Inlet, outlet: Outlet) -> None:
        self.inlet = inlet
        self.outlet = outlet

    def receive(
        self, packet: bytearray, size: int, source: Address, now: float, onward: Outlet
    ) -> int:
        """One datagram from the agent's phone; bytes to send on through ``onward``."""
        accepted = self.inlet.accept(packet, size, source, now)
        return 0 if accepted is None else onward.relay(packet, accepted, now)


class CallerLeg:
    """The caller's side: the only one that can be tapped."""

    __slots__ = ("inlet", "outlet", "tap")

    def __init__(self, inlet: Inlet, outlet: Outlet) -> None:
        self.inlet = inlet
        self.outlet = outlet
        self.tap: CallerTap | None = None

    def receive(
        self, packet: bytearray, size: int, source: Address, now: float, onward: Outlet
    ) -> int:
        """One datagram from the caller; bytes to send on through ``onward``."""
        accepted = self.inlet.accept(packet, size, source, now)
        if accepted is None:
            return 0
        if self.tap is not None and not accepted[2] and accepted[0] > HEADER_BYTES:
            # Before it is relayed: the tap wants the caller's own numbers and codec. Events are
            # digits, perhaps of a card number: never tapped.
            self.tap.frame(
                self.inlet.payload_type,
                accepted[3],
                accepted[4],
                now,
                packet[HEADER_BYTES : accepted[0]],
            )
        return onward.relay(packet, accepted, now)


def leg_stats(leg: CallerLeg | AgentLeg) -> LegStats:
    """The counters of a leg."""
    return LegStats(
        received=leg.inlet.received,
        sent=leg.outlet.stream.sent - leg.outlet.unsent,
        malformed=leg.inlet.malformed,
        wrong_source=leg.inlet.wrong_source,
        wrong_payload_type=leg.inlet.wrong_payload_type,
    )
