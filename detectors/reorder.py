"""Packets of one stream back into the order of their sequence numbers, as far as that is worth it.

A packet that is due is handed on at once. One that is early waits until those before it have come
or until too many wait: then they are lost. Without a clock: what waits is counted in packets, and
:meth:`ReorderBuffer.settle` says that no more will come.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

#: Packets that may wait for an earlier one: 100 ms of 20 ms packets, a jitter buffer's worth.
MAX_HELD = 5
#: Bounds of RFC 3550 appendix A.1: what is beyond them belongs to a stream that began anew.
MAX_DROPOUT = 3000
MAX_MISORDER = 100
#: Late packets in a row, each the successor of the last, that are a stream that began anew: more
#: than a network repeats at once.
RESTART_RUN = MAX_HELD + 1

Packet = TypeVar("Packet")


class Released(NamedTuple, Generic[Packet]):
    """A packet on its way on."""

    packet: Packet
    lost: int
    """Packets before it that are given up."""
    late: bool
    """Its turn is over: others that follow it were released already."""


class ReorderBuffer(Generic[Packet]):
    """The packets of one stream that wait; at most :data:`MAX_HELD`."""

    __slots__ = ("_due", "_held", "_late_run", "_newest_late")

    def __init__(self) -> None:
        self._due: int | None = None
        self._held: dict[int, Packet] = {}
        self._newest_late = -1
        self._late_run = 0

    def pass_on(self, sequence: int) -> bool:
        """Whether a packet with that number is due and nothing waits: it counts as released then.

        The usual case, for those who would spare :meth:`push`'s list.
        """
        if sequence == self._due or self._due is None:
            if self._held:
                return False
            self._due = (sequence + 1) % 65536
            self._late_run = 0
            return True
        return False

    def push(self, sequence: int, packet: Packet) -> list[Released[Packet]]:
        """Take one packet; return those whose turn it now is, repeated ones never.

        Args:
            sequence: RTP sequence number, 0-65535 (RFC 3550 section 5.1).
            packet: anything.
        """
        if self.pass_on(sequence):
            return [Released(packet, 0, False)]
        assert self._due is not None
        # Signed distance modulo 2**16 (RFC 1982 arithmetic).
        ahead = (sequence - self._due + 32768) % 65536 - 32768
        if ahead < 0 and not self._began_anew(sequence, ahead):
            return [Released(packet, 0, True)]
        if ahead < 0 or ahead > MAX_DROPOUT:
            out = self.settle()
            self._due = (sequence + 1) % 65536
            return [*out, Released(packet, 0, False)]
        self._late_run = 0
        if sequence in self._held:
            return []
        self._held[sequence] = packet
        out = self._in_turn()
        if len(self._held) > MAX_HELD:
            out += self._give_up()
        return out

    def _began_anew(self, sequence: int, ahead: int) -> bool:
        follows = sequence == (self._newest_late + 1) % 65536
        self._late_run = self._late_run + 1 if follows else 1
        self._newest_late = sequence
        if ahead >= -MAX_MISORDER and self._late_run < RESTART_RUN:
            return False
        self._late_run = 0
        return True

    def _in_turn(self) -> list[Released[Packet]]:
        assert self._due is not None
        out: list[Released[Packet]] = []
        while self._due in self._held:
            out.append(Released(self._held.pop(self._due), 0, False))
            self._due = (self._due + 1) % 65536
        return out

    def _give_up(self) -> list[Released[Packet]]:
        """Release the earliest that waits, and what follows it."""
        due = self._due
        assert due is not None
        lost = min((sequence - due) % 65536 for sequence in self._held)
        self._due = (due + lost) % 65536
        first, *rest = self._in_turn()
        return [first._replace(lost=lost), *rest]

    def settle(self) -> list[Released[Packet]]:
        """Release all that wait: nothing earlier is expected any more."""
        out: list[Released[Packet]] = []
        while self._held:
            out += self._give_up()
        return out
