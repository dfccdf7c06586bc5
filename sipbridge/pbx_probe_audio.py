"""The signal of a test call, and what came back of it: pure functions on packets and samples.

The signal never repeats, so that one look at the echo gives its delay without ambiguity: noise
in the telephone band with the rhythm of syllables (a voice activity detector must not take it for
noise, a codec must not find it hard).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sipbridge.pbx_probe_seen import EchoSeen, Report, RtpSeen

RATE_HZ = 8000
#: RMS of the loud parts, dBFS: an ordinary talker.
LEVEL_DBFS = -20.0
#: A correlation above this is our signal: of two seconds of something else, 0.1 is rare.
MIN_CORRELATION = 0.3
#: How much of the signal is looked for at once, and how late it may come back.
PIECE_S = 2.0
MAX_DELAY_S = 3.0
#: Below this it is called silence.
SILENCE_DBFS = -60.0
#: A stream whose timestamps lead this far from the clock has begun anew.
MAX_DRIFT_S = 0.5
#: The digit that is sent, and its two tones (ITU-T Q.23).
DIGIT = 5
DIGIT_HZ = (770.0, 1336.0)
_SEED = 20733


def signal(seconds: float) -> NDArray[np.int16]:
    """The test signal, always the same; int16 of shape (seconds * 8000,)."""
    count = int(seconds * RATE_HZ)
    random = np.random.Generator(np.random.PCG64(_SEED))
    spectrum = np.fft.rfft(random.standard_normal(count))
    hertz = np.fft.rfftfreq(count, 1 / RATE_HZ)
    spectrum[(hertz < 400) | (hertz > 3000)] = 0
    noise = np.fft.irfft(spectrum, count)
    # Syllables of 120 to 280 ms, each of its own loudness, with soft edges.
    envelope = np.zeros(count)
    start = 0
    while start < count:
        length = int(random.uniform(0.12, 0.28) * RATE_HZ)
        part = envelope[start : start + length]
        part[:] = random.uniform(0.3, 1.0) * np.sqrt(np.hanning(length)[: len(part)])
        start += length
    shaped = noise * envelope
    shaped *= 10 ** (LEVEL_DBFS / 20) / np.sqrt(np.mean(shaped**2))
    return np.asarray(np.clip(shaped * 32768, -32767, 32767), dtype=np.int16)


# ------------------------------------------------------------------------------- packets


def rtp_packet(
    payload_type: int, marker: bool, sequence: int, timestamp: int, ssrc: int, payload: bytes
) -> bytes:
    """An RTP packet (RFC 3550 section 5.1) without extension or padding."""
    return (
        struct.pack(
            "!BBHII",
            0x80,
            (0x80 if marker else 0) | payload_type,
            sequence & 0xFFFF,
            timestamp & 0xFFFFFFFF,
            ssrc,
        )
        + payload
    )


def read_rtp(data: bytes, at_s: float, source: tuple[str, int]) -> RtpSeen | None:
    """A received datagram as RTP (RFC 3550 section 5.1); None when it is not."""
    if len(data) < 12 or data[0] >> 6 != 2:
        return None
    first, second, sequence, timestamp, ssrc = struct.unpack_from("!BBHII", data)
    start = 12 + 4 * (first & 0x0F)
    if first & 0x10:
        if len(data) < start + 4:
            return None
        start += 4 + 4 * struct.unpack_from("!HH", data, start)[1]
    end = len(data) - (data[-1] if first & 0x20 else 0)
    if start > end:
        return None
    return RtpSeen(
        at_s, source, second & 0x7F, bool(second & 0x80), sequence, timestamp, ssrc, data[start:end]
    )


def digit_packets() -> list[tuple[bool, bytes]]:
    """Marker and payload of each RFC 4733 packet of our digit: 160 ms, its end sent three times."""
    packets = []
    for step in range(1, 9):
        packets.append((step == 1, struct.pack("!BBH", DIGIT, 10, step * 160)))
    packets += [(False, struct.pack("!BBH", DIGIT, 0x80 | 10, 8 * 160))] * 3
    return packets


def sender_report(ssrc: int, ntp: float, timestamp: int, packets: int, octets: int) -> bytes:
    """A compound RTCP packet: sender report and CNAME (RFC 3550 sections 6.4.1 and 6.5)."""
    seconds, fraction = int(ntp), int((ntp % 1) * (1 << 32))
    report = struct.pack(
        "!BBHIIIIII",
        0x80,
        200,
        6,
        ssrc,
        (seconds + 2208988800) & 0xFFFFFFFF,
        fraction,
        timestamp & 0xFFFFFFFF,
        packets,
        octets,
    )
    name = b"callshield-doctor"
    items = struct.pack("!BB", 1, len(name)) + name + b"\0"
    items += b"\0" * (-len(items) % 4)
    return report + struct.pack("!BBHI", 0x81, 202, 1 + len(items) // 4, ssrc) + items


def reports_about(data: bytes, ssrc: int, clock_hz: int = RATE_HZ) -> list[Report]:
    """Report blocks about our stream in a compound RTCP packet; what is broken ends the reading."""
    found = []
    while len(data) >= 8:
        first, kind, words = struct.unpack_from("!BBH", data)
        size = 4 * (words + 1)
        if first >> 6 != 2 or size > len(data):
            break
        start = {200: 28, 201: 8}.get(kind)
        for index in range(first & 0x1F if start else 0):
            at = (start or 0) + 24 * index
            if at + 24 > size:
                break
            about, lost, highest, jitter = struct.unpack_from("!IIII", data, at)
            if about == ssrc:
                cumulative = lost & 0xFFFFFF
                if cumulative & 0x800000:
                    cumulative -= 1 << 24
                found.append(Report(highest, cumulative, 1000 * jitter / clock_hz))
        data = data[size:]
    return found


# ------------------------------------------------------------------------------- the echo


def timeline(
    packets: Sequence[RtpSeen],
    decode: Callable[[bytes], NDArray[np.int16]],
    clock_hz: int,
    seconds: float,
) -> NDArray[np.float64]:
    """Received packets as samples on our clock, full scale ±1, silence where nothing came.

    Within a stream the timestamps place each packet, so that jitter moves nothing; where they
    lead away from the clock (a new stream, a pause without timestamps) it is set again.

    Args:
        packets: voice packets of one codec, in the order of arrival.
        decode: makes int16 samples at 8 kHz of a payload.
        clock_hz: of the timestamps.
        seconds: length of the timeline, from the moment at which we began to send.
    """
    line = np.zeros(int(seconds * RATE_HZ))
    base: tuple[int, float, int] | None = None
    for packet in packets:
        here = 0.0
        if base is not None:
            passed = (packet.timestamp - base[0] + (1 << 31)) % (1 << 32) - (1 << 31)
            here = base[1] + passed / clock_hz
        if base is None or packet.ssrc != base[2] or abs(here - packet.at_s) > MAX_DRIFT_S:
            base, here = (packet.timestamp, packet.at_s, packet.ssrc), packet.at_s
        samples = decode(packet.payload)
        start = round(here * RATE_HZ)
        if start < 0 or start >= len(line):
            continue
        line[start : start + len(samples)] = samples[: len(line) - start] / 32768
    return line


def look_for(
    sent: NDArray[np.float64], heard: NDArray[np.float64], from_s: float
) -> EchoSeen | None:
    """Look for a piece of what was sent in what was heard, by normalised correlation.

    Args:
        sent: what was sent, on our clock, shape (n,), full scale ±1.
        heard: what came, on the same clock.
        from_s: where the piece of :data:`PIECE_S` begins.

    Returns:
        the best fit within :data:`MAX_DELAY_S`, however bad; None when nothing came there.
    """
    start, length = int(from_s * RATE_HZ), int(PIECE_S * RATE_HZ)
    piece = sent[start : start + length]
    window = heard[start : start + length + int(MAX_DELAY_S * RATE_HZ)]
    energy = float(np.sum(piece**2))
    if len(piece) < length or len(window) < length or energy == 0 or not np.any(window):
        return None
    size = 1 << (len(window) + length).bit_length()
    product = np.fft.irfft(np.fft.rfft(window, size) * np.conj(np.fft.rfft(piece, size)), size)
    product = product[: len(window) - length + 1]
    total = np.cumsum(np.concatenate([[0.0], window**2]))
    there = total[length:] - total[:-length]
    # A stretch with hardly any sound fits anything: it counts as a thousandth of ours at least.
    fits = product / np.sqrt(energy * np.maximum(there, energy * 1e-6))
    best = int(np.argmax(np.abs(fits)))
    gain = abs(float(product[best])) / energy
    return EchoSeen(
        correlation=float(fits[best]),
        delay_ms=1000 * best / RATE_HZ,
        gain_db=float(20 * np.log10(max(gain, 1e-6))),
    )


def loudest_dbfs(heard: NDArray[np.float64]) -> float | None:
    """RMS of the loudest second; None when there is not a single sample but zero."""
    seconds = heard[: len(heard) // RATE_HZ * RATE_HZ].reshape(-1, RATE_HZ)
    power = float(np.max(np.mean(seconds**2, axis=1))) if len(seconds) else 0.0
    return None if power == 0 else float(10 * np.log10(power))


def has_digit_tones(heard: NDArray[np.float64]) -> bool:
    """Somewhere in it, for 40 ms, the two tones of our digit are most of what is heard."""
    length = RATE_HZ // 25
    times = np.arange(length) / RATE_HZ
    waves = [np.exp(-2j * np.pi * hertz * times) for hertz in DIGIT_HZ]
    for start in range(0, len(heard) - length + 1, length // 2):
        part = heard[start : start + length]
        power = float(np.mean(part**2))
        if power < 1e-5:
            continue
        # Twice the squared mean of sample times wave is the power of a sine at that frequency.
        tones = [2 * abs(np.mean(part * wave)) ** 2 for wave in waves]
        if sum(tones) > 0.7 * power and min(tones) > 0.1 * power:
            return True
    return False


# ------------------------------------------------------------------------------- the stream


@dataclass(frozen=True, slots=True)
class StreamFigures:
    """Loss and jitter of what came, over all its streams (RFC 3550 appendix A.3 and A.8)."""

    received: int
    expected: int
    jitter_ms: float
    """The largest that the estimate reached after its first second."""
    ptime_ms: float
    """The usual length of a packet by its timestamps; 0 when there were too few."""

    @property
    def lost_pct(self) -> float:
        """0..100."""
        missing = max(self.expected - self.received, 0)
        return 100 * missing / self.expected if self.expected else 0.0


def stream_figures(
    packets: Sequence[RtpSeen], voice: Collection[int], clock_hz: int
) -> StreamFigures:
    """Figures of received packets, doubles counted once.

    Args:
        packets: all that came: events and comfort noise have sequence numbers of the same stream.
        voice: payload types by whose timestamps jitter and packet length are measured.
        clock_hz: of these.
    """
    received = expected = 0
    jitter, worst = 0.0, 0.0
    steps: list[int] = []
    for ssrc in dict.fromkeys(packet.ssrc for packet in packets):
        numbers: set[int] = set()
        before: RtpSeen | None = None
        extended = 0
        for packet in (p for p in packets if p.ssrc == ssrc):
            if before is None:
                extended = packet.sequence
            else:
                ahead = (packet.sequence - before.sequence + 0x8000) % 0x10000 - 0x8000
                extended += ahead
                passed = (packet.timestamp - before.timestamp + (1 << 31)) % (1 << 32) - (1 << 31)
                late_s = (packet.at_s - before.at_s) - passed / clock_hz
                spoken = packet.payload_type in voice and before.payload_type in voice
                # A new talkspurt or a pause without timestamps is no jitter.
                if spoken and abs(late_s) < MAX_DRIFT_S:
                    jitter += (abs(late_s) - jitter) / 16
                    if packet.at_s - packets[0].at_s > 1:
                        worst = max(worst, jitter)
                if spoken and ahead == 1 and 0 < passed <= clock_hz // 5:
                    steps.append(passed)
            numbers.add(extended)
            before = packet
        received += len(numbers)
        expected += max(numbers) - min(numbers) + 1
    usual = sorted(steps)[len(steps) // 2] if len(steps) >= 5 else 0
    return StreamFigures(received, expected, 1000 * worst, 1000 * usual / clock_hz)
