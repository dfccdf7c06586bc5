"""Puts recorded frames where they were heard: one time line for two channels.

A frame has two times. Its RTP timestamp says exactly where it belongs among the frames of its
sender, but the sender's clock has its own zero and its own speed; its arrival says when it was on
the wall clock of the node, which both channels share, but late by what the network took. So:

* Within a stretch frames follow each other by timestamp, never by arrival: no jitter.
* A stretch is anchored to the wall clock by the smallest "arrival less timestamp" of the seconds
  round each frame, which follows the sender's drift and hardly sees the jitter (the way of the
  minimum filters of NTP's clock filter, RFC 5905 section 10).
* Where frames follow without a gap, the difference is made up a sample a frame, which nobody
  hears; a gap takes it all at once.
* Arrival and timestamp that part by more than a second begin a new stretch (RFC 3550 lets a
  sender jump).

Pure: arrays in, arrays out.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PCMU, PCMA, G722, OPUS = 0, 8, 9, 111
#: RTP clock by codec (RFC 3551 section 4.5.2 for G.722's, RFC 7587 section 4.1 for Opus's).
CLOCK_HZ = {PCMU: 8000, PCMA: 8000, G722: 8000, OPUS: 48000}
_JUMP_S = 1.0
#: Half of the window of the minimum, in seconds.
_WINDOW = 8
#: Differences below are left alone.
_TOLERANCE_S = 0.002
#: Differences above are made up at once even without a gap.
_HARD_S = 0.2
_OPUS_MS = (
    *(10, 20, 40, 60) * 3,
    *(10, 20) * 2,
    *(2.5, 5, 10, 20) * 4,
)


def frame_units(codec: int, payload: bytes) -> int:
    """Length of a payload in units of its RTP clock; 0 for an Opus packet that is none.

    Opus says it in its first bytes (RFC 6716 section 3.1).
    """
    if codec != OPUS:
        return len(payload)
    if not payload:
        return 0
    toc = payload[0]
    code = toc & 3
    count = (1, 2, 2)[code] if code < 3 else payload[1] & 0x3F if len(payload) > 1 else 0
    units = int(count * _OPUS_MS[toc >> 3] * 48)
    return units if units <= 5760 else 0


@dataclass(frozen=True, slots=True)
class Placement:
    """Where each frame of a channel goes; arrays in the order of the frames given."""

    start: NDArray[np.int64]
    """First sample on the time line, shape (n,); -1: not played (a duplicate)."""
    samples: NDArray[np.int64]
    """Samples to fill, shape (n,): a few frames are one longer or shorter."""
    rank: NDArray[np.int64]
    """Place of the frame in playing order, shape (n,); -1: not played."""
    duplicates: int
    missing_s: float
    """Silence inside stretches: packets lost, or not sent (silence suppression)."""

    @property
    def end(self) -> int:
        """Samples of the channel's time line."""
        played = self.start >= 0
        return int((self.start + self.samples)[played].max()) if played.any() else 0


def place(
    clock_hz: NDArray[np.int64],
    timestamp: NDArray[np.uint32],
    at_ns: NDArray[np.int64],
    units: NDArray[np.int64],
    *,
    zero_ns: int,
    rate_hz: int,
) -> Placement:
    """Place the frames of one channel.

    Args:
        clock_hz: of each frame's timestamp, shape (n,), in order of arrival like all.
        timestamp: RTP timestamps, shape (n,).
        at_ns: arrivals, ns since the Unix epoch, shape (n,).
        units: frame lengths in timestamp units, shape (n,).
        zero_ns: of the time line, ns since the Unix epoch; no frame was due earlier
            (:func:`first_due_ns`).
        rate_hz: samples a second of the time line.
    """
    count = len(timestamp)
    start = np.full(count, -1, np.int64)
    samples = np.zeros(count, np.int64)
    rank = np.full(count, -1, np.int64)
    if not count:
        return Placement(start, samples, rank, 0, 0.0)
    unwrapped, offset_s, bounds = _stretches(clock_hz, timestamp, (at_ns - zero_ns) / 1e9)
    free, played, duplicates, missing_s = 0, 0, 0, 0.0
    for first, last in itertools.pairwise(bounds):
        order = np.argsort(unwrapped[first:last], kind="stable") + first
        fresh = np.concatenate(([True], np.diff(unwrapped[order]) != 0))
        duplicates += int((~fresh).sum())
        order = order[fresh]
        clock = int(clock_hz[first])
        ticks = unwrapped[order]
        target = ticks / clock + _lower_envelope(ticks / clock, offset_s[order])
        free, gap_s = _lay(
            order, ticks, units[order], target * rate_hz, clock, rate_hz, free, start, samples
        )
        missing_s += gap_s
        rank[order] = np.arange(played, played + len(order))
        played += len(order)
    return Placement(start, samples, rank, duplicates, missing_s)


def first_due_ns(
    clock_hz: NDArray[np.int64], timestamp: NDArray[np.uint32], at_ns: NDArray[np.int64]
) -> int:
    """When the first frame of a channel was due, had the network been as quick as at its best.

    A time line that begins at the first *arrival* has no room for a first frame that came late: it,
    and all behind it, would be squeezed until they are back in their places.

    Args:
        clock_hz: as in :func:`place`; at least one frame.
        timestamp: likewise.
        at_ns: likewise.

    Returns:
        ns since the Unix epoch, no later than the first arrival.
    """
    unwrapped, offset_s, bounds = _stretches(clock_hz, timestamp, (at_ns - at_ns[0]) / 1e9)
    time_s = unwrapped[: bounds[1]] / clock_hz[0]
    order = np.argsort(time_s, kind="stable")
    due_s = time_s[order] + _lower_envelope(time_s[order], offset_s[: bounds[1]][order])
    return int(at_ns[0]) + min(0, int(np.floor(due_s[0] * 1e9)))


def _stretches(
    clock_hz: NDArray[np.int64], timestamp: NDArray[np.uint32], arrival_s: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], list[int]]:
    """Unwrapped timestamps, arrivals less these in seconds, and where each stretch begins."""
    steps = np.diff(timestamp).view(np.int32).astype(np.int64)
    unwrapped = np.concatenate(([0], np.cumsum(steps)))
    offset_s = arrival_s - unwrapped / clock_hz
    breaks = (np.abs(np.diff(offset_s)) > _JUMP_S) | (np.diff(clock_hz) != 0)
    return unwrapped, offset_s, [0, *(np.flatnonzero(breaks) + 1).tolist(), len(timestamp)]


def _lower_envelope(
    time_s: NDArray[np.float64], offset_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The smallest offset of the seconds round each frame, without steps."""
    second = np.floor(time_s - time_s[0]).astype(np.int64)
    used, index = np.unique(second, return_inverse=True)
    lowest = np.full(len(used), np.inf)
    np.minimum.at(lowest, index, offset_s)
    left = np.searchsorted(used, used - _WINDOW)
    right = np.searchsorted(used, used + _WINDOW, side="right")
    smooth = np.array([lowest[a:b].min() for a, b in zip(left, right, strict=True)])
    envelope: NDArray[np.float64] = np.interp(time_s - time_s[0], used + 0.5, smooth)
    return envelope


def _lay(
    order: NDArray[np.int64],
    ticks: NDArray[np.int64],
    units: NDArray[np.int64],
    target: NDArray[np.float64],
    clock: int,
    rate_hz: int,
    free: int,
    start: NDArray[np.int64],
    samples: NDArray[np.int64],
) -> tuple[int, float]:
    """One stretch after the other; returns the first free sample and the seconds of gaps."""
    tolerance, hard = _TOLERANCE_S * rate_hz, _HARD_S * rate_hz
    expected: int | None = None
    gaps = 0
    wanted = np.rint(target).astype(np.int64).tolist()
    for frame, tick, length, want in zip(
        order.tolist(), ticks.tolist(), units.tolist(), wanted, strict=True
    ):
        size = length * rate_hz // clock
        late = want - free
        if expected is None or tick != expected or late > hard:
            if expected is not None and tick > expected:
                gaps += tick - expected
            position = max(want, free)
        else:
            position = free
            if late > tolerance:
                size += 1
            elif late < -tolerance and size > 1:
                size -= 1
        start[frame] = position
        samples[frame] = size
        free = position + size
        expected = tick + length
    return free, gaps / clock
