"""What arrives at the far ends of `callshield bench`, and what it says about the relay."""

from __future__ import annotations

import struct
from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The fixed RTP header (RFC 3550 section 5.1).
HEADER = struct.Struct(">BBHII")
FRAME_SAMPLES = 160
#: Of each socket so many packets are kept as they came, to be deciphered afterwards.
_KEPT = 20


class Arrivals:
    """What arrives in one socket: when each of the sender's packets did.

    A relay may change all of a packet (numbers, and what is too loud for an ear) but the steps of
    its sequence numbers; the first packet says where they stand.

    Args:
        sent_ns: the sender's notes of this flow, by round.
        arrived_ns: to be filled: wall clock by round, 0 for what has not come.
    """

    def __init__(self, sent_ns: NDArray[np.int64], arrived_ns: NDArray[np.int64]) -> None:
        self._sent_ns = sent_ns
        self._arrived_ns = arrived_ns
        self._ssrc = -1
        # The newest packet's number, and the sender's round in which it was sent.
        self._sequence = 0
        self._round = 0
        self.first: list[bytes] = []

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
        if 0 <= number < len(self._arrived_ns) and not self._arrived_ns[number]:
            self._arrived_ns[number] = arrived_ns
        if len(self.first) < _KEPT:
            self.first.append(packet)


class Prompt:
    """What a caller hears while a prompt plays: packets of the relay's own making."""

    def __init__(self) -> None:
        self._sequences = array("q")
        self._arrived_ns = array("q")
        self.first: list[bytes] = []

    def take(self, packet: bytes, arrived_ns: int) -> None:
        """One datagram; RTCP and the like are not counted."""
        if len(packet) < HEADER.size + FRAME_SAMPLES:
            return
        self._sequences.append(HEADER.unpack_from(packet)[2])
        self._arrived_ns.append(arrived_ns)

    def report(self) -> dict[str, float]:
        """How many packets, how many numbers are missing between them, the longest gap."""
        numbers = np.array(self._sequences, np.int64)
        steps = (numbers[1:] - numbers[:-1]) & 0xFFFF
        gaps = np.diff(np.array(self._arrived_ns, np.int64))
        return {
            "packets": len(self._sequences),
            "missing": int(np.sum(steps - 1)),
            "longest_gap_ms": round(float(gaps.max()) / 1e6, 2) if len(gaps) else float("inf"),
        }


class Results:
    """What came of a load.

    Args:
        sent_ns: wall clock of each send by flow and round; 0: not sent.
        arrived_ns: of each arrival; 0: none.
        relayed: the flows that went through the relay.
        direct: those that went from socket to socket.
        warm_up_rounds: that do not count.
    """

    def __init__(
        self,
        sent_ns: NDArray[np.int64],
        arrived_ns: NDArray[np.int64],
        *,
        relayed: slice,
        direct: slice,
        warm_up_rounds: int,
    ) -> None:
        rounds = slice(warm_up_rounds, None)
        self._sent_ns = sent_ns[relayed, rounds]
        self._took_ms = _took_ms(self._sent_ns, arrived_ns[relayed, rounds])
        self._direct_ms = _took_ms(sent_ns[direct, rounds], arrived_ns[direct, rounds])
        known = self._direct_ms[~np.isnan(self._direct_ms)]
        self._direct_known_ms = known
        # What a packet would have taken anyway; the direct flows' own spread stays in the figures.
        self._path_ms = float(np.median(known)) if len(known) else 0.0

    def between(self, from_ns: int, to_ns: int) -> dict[str, Any]:
        """Of what was sent in ``[from_ns, to_ns)``, wall clock: sent, received, added_ms; and the
        longest gap that one far end heard, packets that did not come one after the other."""
        chosen = (self._sent_ns >= from_ns) & (self._sent_ns < to_ns) & (self._sent_ns > 0)
        took_ms = self._took_ms[chosen]
        arrived_ms = took_ms[~np.isnan(took_ms)]
        return {
            "sent": int(chosen.sum()),
            "received": len(arrived_ms),
            "longest_gap_packets": _longest_run(chosen & np.isnan(self._took_ms)),
            "added_ms": _quantiles(arrived_ms - self._path_ms),
            "direct_ms": _quantiles(self._direct_known_ms),
        }

    def whole(self) -> dict[str, Any]:
        """Of the whole measured time."""
        return self.between(0, 1 << 62)

    def histogram(self, step_ms: float, steps: int) -> list[int]:
        """How many packets took ``[k, k + 1) * step_ms`` more than the direct path; the last
        number counts the slower ones, too. What seems to have taken less than nothing (the direct
        path's spread) is in the first."""
        added_ms = self._took_ms[~np.isnan(self._took_ms)] - self._path_ms
        step = np.clip(added_ms / step_ms, 0, steps - 1).astype(np.int64)
        return [int(count) for count in np.bincount(step, minlength=steps)]


def _longest_run(missing: NDArray[np.bool_]) -> int:
    """Of each flow the longest stretch of true; the longest of those."""
    longest, run = 0, np.zeros(missing.shape[0], np.int64)
    for column in missing.T:
        run = np.where(column, run + 1, 0)
        longest = max(longest, int(run.max(initial=0)))
    return longest


def _took_ms(sent_ns: NDArray[np.int64], arrived_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    """Milliseconds by flow and round; NaN where nothing was sent, or nothing came."""
    return np.where((sent_ns > 0) & (arrived_ns > 0), (arrived_ns - sent_ns) / 1e6, np.nan)


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return {"p50": float("nan"), "p99": float("nan"), "max": float("nan")}
    return {
        "p50": round(float(np.quantile(values, 0.5)), 3),
        "p99": round(float(np.quantile(values, 0.99)), 3),
        "max": round(float(np.max(values)), 3),
    }
