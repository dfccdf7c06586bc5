"""Digits as RTP events (RFC 4733): one report for each press, whatever was lost or repeated.

A press is a run of packets that share one timestamp, the beginning of the event, with a growing
duration; the last one carries the end bit and is sent three times. The digit is reported at the
first end bit. When all ends are lost, the next event's timestamp or a pause tells.
"""

from __future__ import annotations

DIGITS = "0123456789*#ABCD"
#: No packet of an event for this long means that its end was lost: senders repeat it every
#: packet time (RFC 4733 section 2.5.1.2 recommends 50 ms or the voice packet time).
END_LOST_S = 0.25
#: The length of one event.
EVENT_BYTES = 4
_MASK32 = 0xFFFFFFFF
_LONGEST = 0xFFFF


class EventReceiver:
    """The telephone-events of one leg."""

    __slots__ = ("_code", "_done", "_duration", "_last_at", "_ssrc", "_timestamp")

    def __init__(self) -> None:
        self._ssrc = -1
        self._timestamp = 0
        self._code = 0
        self._duration = 0
        self._done = True
        self._last_at = 0.0

    @property
    def running(self) -> bool:
        """An event has begun and not ended."""
        return not self._done

    def receive(self, ssrc: int, timestamp: int, payload: bytes, now: float) -> str:
        """Take one packet.

        Args:
            ssrc: of the packet.
            timestamp: of the packet.
            payload: event, end bit with volume, duration (RFC 4733 section 2.3); at least
                :data:`EVENT_BYTES`.
            now: monotonic seconds.

        Returns:
            The digits that ended with this packet: none, one, or two when the previous event's
            end was lost and this one ends at once. Events above 15 (flash, tones) give none.
        """
        code = payload[0]
        end = bool(payload[1] & 0x80)
        duration = payload[2] << 8 | payload[3]
        ended = ""
        if ssrc != self._ssrc:
            ended = self._finish()
            self._ssrc = ssrc
            self._begin(code, timestamp)
        else:
            ahead = ((timestamp - self._timestamp + 0x80000000) & _MASK32) - 0x80000000
            if ahead < 0:
                return ""
            if ahead > 0:
                if self._goes_on(code, ahead):
                    self._timestamp = timestamp
                else:
                    ended = self._finish()
                    self._begin(code, timestamp)
            elif self._done:
                return ""
        self._duration = max(duration, self._duration)
        self._last_at = now
        return ended + self._finish() if end else ended

    def _goes_on(self, code: int, ahead: int) -> bool:
        # An event longer than the duration field (8 s) goes on under a new timestamp
        # (RFC 4733 section 2.5.1.3).
        if self._done or code != self._code or self._duration != _LONGEST or ahead != _LONGEST:
            return False
        self._duration = 0
        return True

    def _begin(self, code: int, timestamp: int) -> None:
        self._code = code
        self._timestamp = timestamp
        self._duration = 0
        self._done = False

    def _finish(self) -> str:
        if self._done:
            return ""
        self._done = True
        return DIGITS[self._code] if self._code < len(DIGITS) else ""

    def expire(self, now: float) -> str:
        """The digit whose end was lost, when nothing came for :data:`END_LOST_S`."""
        return self._finish() if not self._done and now - self._last_at > END_LOST_S else ""
