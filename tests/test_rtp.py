"""RTP: lengths that lie, and one stream without a seam."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sipbridge.rtp import HEADER, HEADER_BYTES, OutgoingStream, plain_packet

from callshield.errors import RtpError

PAYLOAD = bytes(range(160))


def packet(first: int = 0x80, *, middle: bytes = b"", tail: bytes = b"") -> bytes:
    return HEADER.pack(first, 0, 1, 160, 7) + middle + PAYLOAD + tail


def made_plain(data: bytes) -> bytes:
    buffer = bytearray(2048)
    buffer[: len(data)] = data
    return bytes(buffer[: plain_packet(buffer, len(data))])


@pytest.mark.parametrize(
    "data",
    [
        packet(),
        packet(0x82, middle=b"csrccsrc"),
        packet(0x90, middle=b"\xbe\xde\x00\x02extextex"),
        packet(0x90, middle=b"\xbe\xde\x00\x00"),
        packet(0xA0, tail=b"\x00\x00\x00\x04"),
        packet(0xA0, tail=b"\x01"),
        packet(0xB1, middle=b"csrc\xbe\xde\x00\x01exte", tail=b"\x00\x02"),
    ],
)
def test_csrcs_extension_and_padding_are_taken_off(data: bytes) -> None:
    assert made_plain(data) == packet()


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "shorter"),
        (packet()[:11], "shorter"),
        (packet(0x00), "version 0"),
        (packet(0xC0), "version 3"),
        (HEADER.pack(0x8F, 0, 1, 1, 1) + b"c" * 59, "longer than the packet"),
        (HEADER.pack(0x90, 0, 1, 1, 1) + b"\xbe\xde\x00", "past the end"),
        (HEADER.pack(0x90, 0, 1, 1, 1) + b"\xbe\xde\xff\xff" + PAYLOAD, "longer than the packet"),
        (packet(0xA0, tail=b"\x00"), "zero bytes"),
        (packet(0xA0, tail=b"\xff"), "longer than the packet"),
        (packet() + bytes(1500), "longer than any voice packet"),
    ],
)
def test_lengths_that_lie_are_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(RtpError, match=complaint):
        made_plain(data)


@given(st.binary(max_size=1600))
def test_no_bytes_at_all_make_anything_but_a_packet_or_an_error(data: bytes) -> None:
    try:
        plain = made_plain(data)
    except RtpError:
        return
    assert plain[0] == 0x80
    assert HEADER_BYTES <= len(plain) <= len(data)
    assert plain[1:12] == data[1:12]


class Phone:
    """Reads what an :class:`OutgoingStream` made."""

    def __init__(self) -> None:
        self.stream = OutgoingStream(0xABCD, 65530, 0xFFFFFF00)
        self.got: list[tuple[int, int, bool]] = []
        self.now = 100.0

    def relay(
        self,
        sequence: int,
        timestamp: int,
        ssrc: int = 7,
        *,
        at: float | None = None,
        event: bool = False,
        kind: int = 0,
    ) -> bool:
        self.now = self.now + 0.02 if at is None else at
        buffer = bytearray(172)
        went = self.stream.forward(
            buffer, 172, kind, sequence, timestamp & 0xFFFFFFFF, ssrc, self.now, is_event=event
        )
        if went:
            self._note(bytes(buffer))
        return went

    def prompt(self, *, begins: bool = False, at: float | None = None) -> None:
        self.now = self.now + 0.02 if at is None else at
        self._note(self.stream.emit(0, PAYLOAD, self.now, begins=begins))

    def _note(self, data: bytes) -> None:
        first, kind, sequence, timestamp, ssrc = HEADER.unpack_from(data)
        assert (first, ssrc) == (0x80, 0xABCD)
        self.got.append((sequence, timestamp, bool(kind & 0x80)))

    def steps(self) -> list[tuple[int, int]]:
        """(sequence, timestamp) differences between packets in the order sent."""
        return [
            ((b[0] - a[0]) & 0xFFFF, (b[1] - a[1]) & 0xFFFFFFFF)
            for a, b in zip(self.got, self.got[1:], strict=False)
        ]

    def markers(self) -> list[int]:
        return [number for number, one in enumerate(self.got) if one[2]]


def test_a_stream_begins_with_a_marker_and_goes_on_evenly_over_every_wrap() -> None:
    phone = Phone()
    for number in range(20):
        phone.relay((65525 + number) & 0xFFFF, 0xFFFFFF80 + 160 * number)
    assert phone.got[0][:2] == (65530, 0xFFFFFF00)
    assert phone.steps() == [(1, 160)] * 19
    assert phone.markers() == [0]


def test_lost_packets_leave_their_gap() -> None:
    phone = Phone()
    for number in (0, 1, 5, 6):
        phone.relay(number, 160 * number)
    assert phone.steps() == [(1, 160), (4, 640), (1, 160)]
    assert phone.markers() == [0]


def test_a_long_loss_leaves_its_gap_too() -> None:
    phone = Phone()
    phone.relay(0, 0)
    phone.relay(500, 80_000, at=phone.now + 10)
    assert phone.steps() == [(500, 80_000)]


def test_reordered_and_doubled_packets_keep_their_places() -> None:
    phone = Phone()
    for number in (0, 1, 3, 2, 2, 4):
        phone.relay(number, 160 * number)
    assert [one[0] - phone.got[0][0] & 0xFFFF for one in phone.got] == [0, 1, 3, 2, 2, 4]
    assert phone.markers() == [0]


def test_another_ssrc_goes_on_where_the_first_ended() -> None:
    phone = Phone()
    phone.relay(10, 1600)
    phone.relay(40_000, 3_000_000_000, ssrc=99)
    phone.relay(40_001, 3_000_000_160, ssrc=99)
    assert phone.steps() == [(1, 160), (1, 160)]
    assert phone.markers() == [0, 1]


@pytest.mark.parametrize(
    ("sequence", "timestamp"),
    [(20_000, 320), (2, 2_000_000_000), (2, 0xFFFF0000), (60_000, 320)],
    ids=["sequence ahead", "timestamp ahead", "timestamp back", "sequence back"],
)
def test_a_jump_is_taken_as_a_restart(sequence: int, timestamp: int) -> None:
    phone = Phone()
    phone.relay(0, 0)
    phone.relay(1, 160)
    phone.relay(sequence, timestamp)
    phone.relay(sequence + 1, timestamp + 160)
    assert phone.steps() == [(1, 160)] * 3
    assert phone.markers() == [0, 2]


def test_silence_that_was_not_sent_keeps_its_time() -> None:
    phone = Phone()
    phone.relay(0, 0)
    phone.relay(1, 8000 * 30, at=phone.now + 30)
    assert phone.steps() == [(1, 240_000)]
    assert phone.markers() == [0]


def test_relay_prompt_relay_is_one_stream() -> None:
    phone = Phone()
    for number in range(3):
        phone.relay(number, 160 * number)
    phone.prompt(begins=True)
    phone.prompt()
    phone.prompt()
    # The agent spoke on meanwhile, unheard: no gap for that.
    phone.relay(6, 960)
    phone.relay(7, 1120)
    assert phone.steps() == [(1, 160)] * 7
    assert phone.markers() == [0, 3, 6]


def test_a_late_tick_is_not_heard_and_a_pause_is() -> None:
    phone = Phone()
    phone.prompt(begins=True)
    phone.prompt(at=phone.now + 0.09)
    phone.prompt(at=phone.now)
    assert phone.steps() == [(1, 160), (1, 160)]
    phone.prompt(begins=True, at=phone.now + 2.0)
    assert phone.steps()[-1] == (1, 16_000)


def test_what_comes_too_late_after_a_change_is_not_sent_under_a_used_number() -> None:
    phone = Phone()
    phone.relay(10, 1600)
    phone.stream.release()
    phone.relay(12, 1920)
    assert not phone.relay(11, 1760)
    assert phone.relay(13, 2080)
    assert phone.steps() == [(1, 160), (1, 160)]


def test_event_packets_share_their_timestamp_and_voice_goes_on_after_them() -> None:
    phone = Phone()
    phone.relay(0, 0)
    for number in range(5):
        phone.relay(1 + number, 160, event=True, kind=101)
    phone.relay(6, 160 + 5 * 160)
    assert phone.steps() == [(1, 160), (1, 0), (1, 0), (1, 0), (1, 0), (1, 800)]
    # Cut off in the middle of an event, a prompt begins at the right time.
    phone.relay(7, 160 + 6 * 160, event=True, kind=101)
    for number in range(50):
        phone.relay(8 + number, 160 + 6 * 160, event=True, kind=101)
    phone.prompt(begins=True)
    assert phone.steps()[-1] == (1, 51 * 160)


def test_voice_sent_beside_an_event_does_not_tear_the_stream() -> None:
    phone = Phone()
    phone.relay(0, 0)
    for number in range(5):
        phone.relay(1 + 2 * number, 160, event=True, kind=101)
        phone.relay(2 + 2 * number, 160 + 160 * number)
    assert phone.markers() == [0]
    assert {step[0] for step in phone.steps()} == {1}


@given(
    st.lists(
        st.tuples(
            st.integers(0, 65535),
            st.integers(0, 2**32 - 1),
            st.integers(0, 3),
            st.booleans(),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_whatever_comes_numbers_never_leave_their_range(
    arrivals: list[tuple[int, int, int, bool, bool]],
) -> None:
    phone = Phone()
    sent = 0
    for sequence, timestamp, ssrc, event, prompt in arrivals:
        if prompt:
            phone.prompt(begins=event)
            sent += 1
        else:
            sent += phone.relay(sequence, timestamp, ssrc, event=event)
    assert phone.stream.sent == sent == len(phone.got)
