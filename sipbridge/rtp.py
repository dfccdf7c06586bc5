"""RTP packets (RFC 3550): the fixed header, and a stream of our own made of other streams.

A leg of a call must hear **one** stream: one SSRC, sequence numbers and timestamps without a
seam, whether the packets come from the other leg, from a prompt, or from another SSRC after a
transfer. :class:`OutgoingStream` makes it. It keeps the gaps of the stream that it forwards
(``out = in + offset``), so that the phone's own loss concealment works.
"""

from __future__ import annotations

import struct

from callshield.errors import RtpError

#: Fixed header: V/P/X/CC, M/PT, sequence number, timestamp, SSRC (RFC 3550 section 5.1).
HEADER = struct.Struct(">BBHII")
HEADER_BYTES = HEADER.size
#: Version 2, no padding, no extension, no CSRC: the only first byte that we send.
PLAIN = 0x80
MARKER = 0x80
#: Longer datagrams are not telephone audio: 60 ms of G.711 are 492 bytes.
MAX_PACKET_BYTES = 1500
#: Samples and seconds of the frames that we make ourselves.
FRAME_SAMPLES = 160
FRAME_S = 0.020

_MASK16 = 0xFFFF
_MASK32 = 0xFFFFFFFF
#: RFC 3550 appendix A.1: a step further ahead than this is a restart of the source.
MAX_DROPOUT = 3000
#: The same appendix: a packet at most this far behind is late, not new.
MAX_MISORDER = 100
#: Timestamp steps up to this (600 ms) are never questioned.
_PLAIN_STEP = 4800
#: How far a longer step may differ from what sequence numbers or the clock say: one second.
_STEP_TOLERANCE = 8000

_pack_header = HEADER.pack_into


def plain_packet(packet: bytearray, size: int) -> int:
    """Make a received packet plain, in place: no CSRC list, no extension, no padding.

    Args:
        packet: holds the datagram in its first ``size`` bytes; the payload is moved to byte 12.
        size: length of the datagram.

    Returns:
        The new length; 12 when the payload is empty.

    Raises:
        RtpError: the datagram is not RTP, or its lengths lie (RFC 3550 sections 5.1, 5.3.1).
    """
    if size < HEADER_BYTES:
        raise RtpError(f"a datagram of {size} bytes is shorter than the RTP header")
    if size > MAX_PACKET_BYTES:
        raise RtpError(f"a datagram of {size} bytes is longer than any voice packet")
    first = packet[0]
    if first >> 6 != 2:
        raise RtpError(f"RTP version {first >> 6} is not 2")
    start = HEADER_BYTES + 4 * (first & 0x0F)
    if first & 0x10:
        if start + 4 > size:
            raise RtpError("the RTP header extension begins past the end")
        start += 4 + 4 * int.from_bytes(packet[start + 2 : start + 4], "big")
    end = size
    if first & 0x20:
        padding = packet[size - 1]
        if padding == 0:
            raise RtpError("RTP padding of zero bytes")
        end -= padding
    if start > end:
        raise RtpError("RTP header, extension and padding are longer than the packet")
    packet[0] = PLAIN
    if start != HEADER_BYTES:
        packet[HEADER_BYTES : HEADER_BYTES + end - start] = packet[start:end]
    return HEADER_BYTES + end - start


class OutgoingStream:
    """The one RTP stream that a leg hears.

    Args:
        ssrc: ours, random (RFC 3550 section 8.1), as are the first numbers (section 5.1).
        sequence: of the first packet.
        timestamp: of the first packet, 8 kHz clock.
    """

    __slots__ = (
        "_anchor_sent",
        "_anchor_sequence",
        "_at",
        "_in_sequence",
        "_in_ssrc",
        "_in_timestamp",
        "_samples",
        "_sequence",
        "_sequence_offset",
        "_timestamp",
        "_timestamp_offset",
        "sent",
        "ssrc",
    )

    def __init__(self, ssrc: int, sequence: int, timestamp: int) -> None:
        self.ssrc = ssrc
        self.sent = 0
        """Packets made so far."""
        # The newest packet sent, while no source is followed.
        self._sequence = (sequence - 1) & _MASK16
        self._timestamp = (timestamp - FRAME_SAMPLES) & _MASK32
        self._samples = FRAME_SAMPLES
        self._at = 0.0
        # The source that is followed; -1 for none. out = in + offset.
        self._in_ssrc = -1
        self._in_sequence = 0
        self._in_timestamp = 0
        self._sequence_offset = 0
        self._timestamp_offset = 0
        self._anchor_sequence = 0
        self._anchor_sent = 0

    @property
    def sent_at(self) -> float:
        """Monotonic time of the newest packet, seconds."""
        return self._at

    def forward(
        self,
        packet: bytearray,
        size: int,
        kind: int,
        sequence: int,
        timestamp: int,
        ssrc: int,
        now: float,
        *,
        is_event: bool = False,
    ) -> bool:
        """Write our header over a received plain packet.

        Args:
            packet: the packet; its payload begins at byte 12.
            size: its length.
            kind: marker bit and payload type, as they shall leave.
            sequence: as received.
            timestamp: as received.
            ssrc: as received.
            now: monotonic seconds.
            is_event: a telephone-event, whose timestamp is that of its beginning (RFC 4733
                section 2.1) and may lie before that of voice sent meanwhile.

        Returns:
            False when the packet comes too late to fit in: its place was taken.
        """
        if (
            ssrc == self._in_ssrc
            and 0 < (sequence - self._in_sequence) & _MASK16 < MAX_DROPOUT
            and (step := (timestamp - self._in_timestamp) & _MASK32) <= _PLAIN_STEP
        ):
            self._in_sequence = sequence
            if step:
                self._in_timestamp = timestamp
                self._at = now
                self._samples = size - HEADER_BYTES
        else:
            verdict = self._judge(sequence, timestamp, ssrc, now, is_event)
            if verdict < 0:
                return False
            if verdict:
                kind |= MARKER
                self._follow(sequence, timestamp, ssrc, now)
                self._samples = size - HEADER_BYTES
        self.sent += 1
        _pack_header(
            packet,
            0,
            PLAIN,
            kind,
            (sequence + self._sequence_offset) & _MASK16,
            (timestamp + self._timestamp_offset) & _MASK32,
            self.ssrc,
        )
        return True

    def _judge(self, sequence: int, timestamp: int, ssrc: int, now: float, is_event: bool) -> int:
        """Of an unusual packet: 0 fits in, 1 begins a new source, -1 comes too late."""
        if ssrc != self._in_ssrc:
            return 1
        ahead = ((sequence - self._in_sequence + 0x8000) & _MASK16) - 0x8000
        step = ((timestamp - self._in_timestamp + 0x80000000) & _MASK32) - 0x80000000
        if -MAX_MISORDER <= ahead <= 0:
            # Late or a duplicate. Before the anchor its sequence number belongs to what was
            # sent before, by somebody else.
            since_anchor = (self._in_sequence - self._anchor_sequence) & _MASK16
            if self.sent - self._anchor_sent <= MAX_MISORDER and -ahead > since_anchor:
                return -1
            return 0 if abs(step) <= _PLAIN_STEP + MAX_MISORDER * FRAME_SAMPLES else -1
        if not 0 < ahead < MAX_DROPOUT:
            return 1
        if is_event and -_STEP_TOLERANCE * 9 < step < 0:
            self._in_sequence = sequence
            return 0
        elapsed = int((now - self._at) * 8000)
        if step > 0 and (
            abs(step - ahead * self._samples) <= _STEP_TOLERANCE
            or abs(step - elapsed) <= _STEP_TOLERANCE
        ):
            # Many packets lost, or silence that was not sent.
            self._in_sequence = sequence
            self._in_timestamp = timestamp
            self._at = now
            return 0
        return 1

    def _follow(self, sequence: int, timestamp: int, ssrc: int, now: float) -> None:
        """Anchor a source so that its packet is the next of ours."""
        self.release()
        next_sequence = (self._sequence + 1) & _MASK16
        next_timestamp = (self._timestamp + self._advance(now)) & _MASK32
        self._in_ssrc = ssrc
        self._in_sequence = self._anchor_sequence = sequence
        self._in_timestamp = timestamp
        self._sequence_offset = (next_sequence - sequence) & _MASK16
        self._timestamp_offset = (next_timestamp - timestamp) & _MASK32
        self._anchor_sent = self.sent
        self._at = now

    def _advance(self, now: float) -> int:
        """Samples from the newest packet's timestamp to that of one sent now.

        At least one frame and the newest packet's own length; whole frames of the time gone by
        otherwise.
        """
        frames = int((now - self._at) / FRAME_S + 0.5) if self.sent else 1
        return max(self._samples, frames * FRAME_SAMPLES, FRAME_SAMPLES)

    def release(self) -> None:
        """Follow no source any more: the next packet, whoever sends it, is the next in line."""
        if self._in_ssrc >= 0:
            self._sequence = (self._in_sequence + self._sequence_offset) & _MASK16
            self._timestamp = (self._in_timestamp + self._timestamp_offset) & _MASK32
            self._in_ssrc = -1

    def emit(self, payload_type: int, payload: bytes, now: float, *, begins: bool) -> bytes:
        """Make a packet of our own (a prompt's frame).

        Args:
            payload_type: 0 or 8.
            payload: one byte a sample.
            now: monotonic seconds.
            begins: the first packet after a pause or a relayed one: the marker bit is set
                (RFC 3551 section 4.1) and the timestamp catches up with the clock. Otherwise
                the timestamp goes on by exactly the previous packet's samples, so that a late
                tick is not heard as a gap.
        """
        self.release()
        self._sequence = (self._sequence + 1) & _MASK16
        advance = self._advance(now) if begins else self._samples
        self._timestamp = (self._timestamp + advance) & _MASK32
        self._samples = len(payload)
        self._at = now
        self.sent += 1
        kind = payload_type | (MARKER if begins else 0)
        return HEADER.pack(PLAIN, kind, self._sequence, self._timestamp, self.ssrc) + payload
