"""Received RTP packets in the relay in C: decorated ones made plain, and lengths that lie."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core_kit import (
    AGENT,
    CALLER,
    HEADER,
    CallInCore,
)

PAYLOAD = bytes(range(160))


def packet(first: int = 0x80, *, middle: bytes = b"", tail: bytes = b"") -> bytes:
    return HEADER.pack(first, 0, 1, 160, 7) + middle + PAYLOAD + tail


# ------------------------------------------------------------------------------- plain packets


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
    call = CallInCore()
    call.inject(CALLER, data)
    (out,) = call.sent()
    assert (out.leg, out.payload) == (AGENT, PAYLOAD)
    assert len(out.raw) == 172
    assert call.tapped_audio()[0].payload == PAYLOAD


@pytest.mark.parametrize(
    "data",
    [
        b"",
        packet()[:11],
        packet(0x00),
        packet(0xC0),
        HEADER.pack(0x8F, 0, 1, 1, 1) + b"c" * 59,
        HEADER.pack(0x90, 0, 1, 1, 1) + b"\xbe\xde\x00",
        HEADER.pack(0x90, 0, 1, 1, 1) + b"\xbe\xde\xff\xff" + PAYLOAD,
        packet(0xA0, tail=b"\x00"),
        packet(0xA0, tail=b"\xff"),
        packet() + bytes(1500),
    ],
    ids=[
        "empty",
        "eleven bytes",
        "version 0",
        "version 3",
        "CSRCs past the end",
        "extension past the end",
        "extension too long",
        "padding of zero bytes",
        "padding too long",
        "longer than any voice packet",
    ],
)
def test_lengths_that_lie_are_refused_and_counted(data: bytes) -> None:
    call = CallInCore()
    call.inject(CALLER, data)
    assert call.sent() == []
    assert call.tapped() == []
    stats = call.stats(CALLER)
    assert (stats["malformed"], stats["received"]) == (1, 0)


@given(st.integers(0, 15), st.binary(min_size=1, max_size=400), st.data())
def test_only_the_payload_of_a_decorated_packet_goes_on(
    csrcs: int, payload: bytes, data: st.DataObject
) -> None:
    extension = data.draw(
        st.one_of(st.none(), st.binary(max_size=40).map(lambda b: b[: len(b) // 4 * 4]))
    )
    padding = data.draw(st.integers(0, 20))
    first = 0x80 | csrcs | (0x10 if extension is not None else 0) | (0x20 if padding else 0)
    raw = HEADER.pack(first, 0, 5, 800, 9) + b"\xee" * 4 * csrcs
    if extension is not None:
        raw += b"\xbe\xde" + (len(extension) // 4).to_bytes(2, "big") + extension
    raw += payload
    if padding:
        raw += bytes(padding - 1) + bytes([padding])
    call = CallInCore()
    call.inject(CALLER, raw)
    assert [out.payload for out in call.sent()] == [payload]
