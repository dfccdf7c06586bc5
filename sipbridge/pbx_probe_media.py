"""The RTP and RTCP of a test call: a thin shell round :mod:`sipbridge.pbx_probe_audio`."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from callshield.audio_codecs import decoder, encoder
from callshield.tap import TapCodec
from sipbridge.pbx_probe_audio import (
    DIGIT,
    MAX_DELAY_S,
    MIN_CORRELATION,
    PIECE_S,
    RATE_HZ,
    digit_packets,
    has_digit_tones,
    look_for,
    loudest_dbfs,
    read_rtp,
    reports_about,
    rtp_packet,
    sender_report,
    signal,
    timeline,
)
from sipbridge.pbx_probe_seen import CallSeen, EchoSeen
from sipbridge.ports import PortPair
from sipbridge.sdp import Codec

#: A call lasts at least this long when all is well: Asterisk reports on our stream every 5 s.
AT_LEAST_S = 6.5
#: Without any sound from the PBX it ends here, with an announcement only here.
SILENT_UNTIL_S = 8.0
ANNOUNCEMENT_UNTIL_S = 40.0
#: How long the digit may take to come back.
DIGIT_BACK_S = 1.5
#: Something audible that is not (yet) our echo.
AUDIBLE_DBFS = -50.0
REPORT_EVERY_S = 1.5

# Linux: not in Python's socket module.
_SO_TIMESTAMPNS = 35
_IP_RECVERR, _IPV6_RECVERR, _MSG_ERRQUEUE = 11, 25, 0x2000


class TestMedia:
    """Sends the test signal to the PBX and keeps what comes.

    Args:
        pair: bound sockets; closed by their owner.
        seen: where observations go.
    """

    def __init__(self, pair: PortPair, seen: CallSeen) -> None:
        self._pair = pair
        self.seen = seen
        self._loop = asyncio.get_running_loop()
        self._target: tuple[str, int] | None = None
        self._ssrc = secrets.randbits(32)
        self._sequence = secrets.randbits(15)
        self._first_timestamp = secrets.randbits(31)
        self._payload_types: dict[int, Codec] = {}
        self._event_types: set[int] = set()
        self._voice: Codec | None = None
        self._event: Codec | None = None
        self._digit: list[tuple[bool, bytes]] = []
        self._digit_at_s: float | None = None
        self._digit_timestamp = 0
        self._signal = signal(ANNOUNCEMENT_UNTIL_S + 2)
        self._sent = np.zeros(len(self._signal))
        self._octets = 0
        self._began = self._began_wall = 0.0
        self._news = asyncio.Event()
        rtp = pair.rtp
        rtp.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        if rtp.family == socket.AF_INET6:
            rtp.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
        else:
            rtp.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        self._began, self._began_wall = time.monotonic(), time.time()
        self._loop.add_reader(rtp.fileno(), self._rtp_ready)
        self._loop.add_reader(pair.rtcp.fileno(), self._rtcp_ready)

    def close(self) -> None:
        """Read no more; the sockets stay their owner's."""
        self._loop.remove_reader(self._pair.rtp.fileno())
        self._loop.remove_reader(self._pair.rtcp.fileno())

    def send_to(self, address: str, port: int) -> None:
        """Where the PBX wants its media."""
        self._target = (address, port)

    # ----------------------------------------------------------------------------- sending

    async def run(
        self,
        voice: Codec,
        event: Codec | None,
        answered: tuple[Codec, ...],
        ptime_ms: int,
        over: asyncio.Event,
        say: Callable[[str], None],
    ) -> None:
        """Send until there is nothing more to learn, or the call is over.

        Args:
            voice: what is sent, with the PBX's payload type.
            event: telephone-event in the answer.
            answered: all voice codecs of the answer; any of them may come.
            ptime_ms: the PBX's wish.
            over: set when the PBX ends the call.
            say: is told how it goes.
        """
        seen = self.seen
        codec = TapCodec[voice.name]
        packets = encoder(codec, ptime_ms, RATE_HZ)
        seen.codec, seen.ptime_ms = voice.name, packets.packet_ms
        self._voice, self._event = voice, event
        self._payload_types = {c.payload_type: c for c in (*answered, voice)}
        self._event_types = {event.payload_type} if event else set()
        self._began, self._began_wall = time.monotonic(), time.time()
        samples = packets.packet_samples
        judged_s, report_s, told = PIECE_S + 1.2, 0.5, False
        for number in range(len(self._signal) // samples):
            due = self._began + number * packets.packet_ms / 1000
            if (wait := due - time.monotonic()) > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), wait)
            if over.is_set():
                break
            now_s = number * packets.packet_ms / 1000
            self._send_one(packets.encode, number * samples, samples, now_s)
            seen.sent_ms = 1000 * now_s + packets.packet_ms
            if now_s >= report_s:
                report_s += REPORT_EVERY_S
                self._report(now_s)
            if now_s >= judged_s:
                judged_s += 0.5
                await self._judge(now_s)
                if self._finished(now_s):
                    break
                if not told and now_s > SILENT_UNTIL_S:
                    told = True
                    say("something else than the echo is heard, an announcement perhaps: waiting")
        await self._judge(seen.sent_ms / 1000, last=True)

    def _send_one(
        self,
        encode: Callable[[NDArray[np.int16]], list[bytes]],
        at: int,
        samples: int,
        now_s: float,
    ) -> None:
        assert self._voice is not None
        clock = self._voice.clock_rate
        stamp = self._first_timestamp + round(now_s * clock)
        part = self._signal[at : at + samples]
        payload_type, marker, when = self._voice.payload_type, at == 0, stamp
        data = encode(part)[0]
        if self._digit and self._event is not None:
            # In place of audio, as a phone does it (RFC 4733 section 2.5.1.2).
            marker, data = self._digit.pop(0)
            payload_type, when = self._event.payload_type, self._digit_timestamp
        else:
            self._sent[at : at + samples] = part / 32768
        packet = rtp_packet(payload_type, marker, self._sequence, when, self._ssrc, data)
        self._sequence = (self._sequence + 1) & 0xFFFF
        if self._target is None or not self._target[1]:
            return
        try:
            self._pair.rtp.sendto(packet, self._target)
        except OSError:
            self._drain_errors()
            try:  # the error was an earlier packet's, perhaps
                self._pair.rtp.sendto(packet, self._target)
            except OSError as error:
                if not isinstance(error, ConnectionRefusedError):
                    self.seen.send_error = error.strerror or str(error)
        self.seen.sent_packets += 1
        self._octets += len(data)

    def _report(self, now_s: float) -> None:
        if self._target is None or self._voice is None:
            return
        stamp = self._first_timestamp + round(now_s * self._voice.clock_rate)
        packet = sender_report(self._ssrc, time.time(), stamp, self.seen.sent_packets, self._octets)
        with contextlib.suppress(OSError):
            self._pair.rtcp.sendto(packet, (self._target[0], self._target[1] + 1))

    # ----------------------------------------------------------------------------- judging

    def heard(self, seconds: float) -> NDArray[np.float64]:
        """What came so far, on our clock."""
        assert self._voice is not None
        known = [p for p in self.seen.packets if p.payload_type in self._payload_types]
        if not known:
            return np.zeros(int(seconds * RATE_HZ))
        # The codec that most of it has; a PBX that changes in between is said elsewhere.
        numbers = [p.payload_type for p in known]
        number = max(set(numbers), key=numbers.count)
        codec = self._payload_types[number]
        decode = decoder(TapCodec[codec.name], RATE_HZ).decode

        def forgiving(payload: bytes) -> NDArray[np.int16]:
            try:
                return decode(payload)
            except Exception:  # a broken payload is silence here
                return np.zeros(0, np.int16)

        voice = [p for p in known if p.payload_type == number]
        return timeline(voice, forgiving, codec.clock_rate, seconds)

    async def _judge(self, now_s: float, *, last: bool = False) -> None:
        await asyncio.to_thread(self._look, now_s)
        seen = self.seen
        found = seen.echo is not None and abs(seen.echo.correlation) >= MIN_CORRELATION
        if found and self._digit_at_s is None and self._event is not None and not last:
            self._digit_at_s = now_s
            assert self._voice is not None
            self._digit_timestamp = self._first_timestamp + round(now_s * self._voice.clock_rate)
            self._digit = digit_packets()
            seen.digit_sent = True

    def _look(self, now_s: float) -> None:
        seen = self.seen
        from_s = max(0.0, now_s - PIECE_S - MAX_DELAY_S)
        heard = self.heard(now_s + PIECE_S + MAX_DELAY_S)
        echo = look_for(self._sent, heard, from_s)
        if echo is not None and (
            seen.echo is None or abs(echo.correlation) > abs(seen.echo.correlation)
        ):
            seen.echo = echo
        seen.heard_dbfs = loudest_dbfs(heard)
        if self._digit_at_s is not None:
            start = int(self._digit_at_s * RATE_HZ)
            seen.digit_tones_back = has_digit_tones(heard[start : start + 3 * RATE_HZ])
            seen.digit_events_back = sum(
                1
                for p in seen.packets
                if p.payload_type in self._event_types and p.payload[:1] == bytes([DIGIT])
            )

    def _finished(self, now_s: float) -> bool:
        seen = self.seen
        echo: EchoSeen | None = seen.echo
        if echo is not None and abs(echo.correlation) >= MIN_CORRELATION:
            digit_done = self._digit_at_s is None or now_s > self._digit_at_s + DIGIT_BACK_S
            return now_s >= AT_LEAST_S and digit_done
        audible = seen.heard_dbfs is not None and seen.heard_dbfs > AUDIBLE_DBFS
        return now_s >= (ANNOUNCEMENT_UNTIL_S if audible else SILENT_UNTIL_S)

    # ----------------------------------------------------------------------------- receiving

    def _rtp_ready(self) -> None:
        for _ in range(64):
            try:
                data, ancillary, _flags, source = self._pair.rtp.recvmsg(2048, 64)
            except BlockingIOError:
                break
            except OSError:  # an ICMP error of an earlier packet of ours
                self._drain_errors()
                continue
            at_s = time.time()
            for level, kind, value in ancillary:
                if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
                    seconds, nanoseconds = struct.unpack("@ll", value[:16])
                    at_s = seconds + nanoseconds / 1e9
            packet = read_rtp(data, at_s - self._began_wall, (source[0], source[1]))
            if packet is None:
                self.seen.malformed += 1
            else:
                self.seen.packets.append(packet)
        self._drain_errors()

    def _drain_errors(self) -> None:
        while True:
            try:
                self._pair.rtp.recvmsg(256, 512, _MSG_ERRQUEUE)
            except OSError:
                return
            self.seen.icmp_errors += 1

    def _rtcp_ready(self) -> None:
        for _ in range(16):
            try:
                data = self._pair.rtcp.recv(2048)
            except BlockingIOError:
                return
            except OSError:
                continue
            self.seen.rtcp_packets += 1
            clock = self._voice.clock_rate if self._voice else RATE_HZ
            self.seen.reports += reports_about(data, self._ssrc, clock)
