"""Whatever lies in a tap datagram: a batch, or one kind of error, and the detector goes on."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from callshield.errors import TapError
from callshield.tap import (
    HEADER_BYTES,
    MAGIC,
    MAX_DATAGRAM_BYTES,
    VERSION,
    CallerFrame,
    TapCodec,
    TapKind,
    decode_batch,
    encode_batches,
)
from detectors.acoustic import AcousticModel
from detectors.engine import Detector
from detectors.process import TapQueue

frames = st.builds(
    CallerFrame,
    call_id=st.binary(min_size=16, max_size=16) | st.just(b"c" * 16),
    kind=st.sampled_from(TapKind),
    codec=st.sampled_from(TapCodec),
    sequence=st.integers(0, 65535),
    timestamp=st.integers(0, 2**32 - 1),
    arrived_ms=st.integers(0, 2**32 - 1),
    payload=st.binary(max_size=400),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A true datagram of which some bytes were changed, cut off or added."""
    (datagram,) = encode_batches(draw(st.lists(frames, min_size=1, max_size=4)), 7)
    data = bytearray(datagram)
    for at, value in draw(
        st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=4)
    ):
        data[at] = value
    cut = draw(st.integers(0, len(data)) | st.just(len(data)))
    return bytes(data[:cut]) + draw(st.binary(max_size=40) | st.just(b""))


def headed(count: int, rest: bytes) -> bytes:
    return struct.pack("<4sBBHQ", MAGIC, VERSION, 0, count, 1) + rest


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300) | damaged() | st.binary(max_size=200).map(lambda b: headed(3, b)))
@example(b"")
@example(headed(0, b""))
@example(headed(65535, b"\x00" * 48))
@example(headed(1, b"\x00" * 18 + b"\xff\xff" + b"\x00" * 12))
def test_any_bytes_are_a_batch_or_a_tap_error(datagram: bytes) -> None:
    try:
        _, batch = decode_batch(datagram)
    except TapError:
        return
    # What is accepted says exactly what was there.
    assert len(datagram) == HEADER_BYTES + sum(32 + len(frame.payload) for frame in batch)
    if batch:
        (again,) = encode_batches(batch, struct.unpack_from("<Q", datagram, 8)[0])
        assert decode_batch(again)[1] == batch


@given(st.lists(frames, max_size=8), st.integers(0, 2**64 - 1))
def test_what_was_packed_is_unpacked(batch: list[CallerFrame], at_ns: int) -> None:
    found = [decode_batch(datagram) for datagram in encode_batches(batch, at_ns)]
    assert [frame for _, part in found for frame in part] == batch
    assert all(sent == at_ns for sent, _ in found)


def test_a_payload_beyond_a_datagram_is_refused() -> None:
    frame = CallerFrame(b"c" * 16, TapKind.AUDIO, TapCodec.PCMU, 0, 0, 0, b"x" * MAX_DATAGRAM_BYTES)
    with pytest.raises(TapError, match="does not fit"):
        list(encode_batches([frame], 0))


@pytest.mark.parametrize("number", [1, 10, 110, 255])
def test_an_unknown_codec_is_named(number: int) -> None:
    record = struct.pack("<16sBBHHHII", b"c" * 16, 0, number, 0, 0, 0, 0, 0)
    with pytest.raises(TapError, match=f"{number} is not a valid TapCodec"):
        decode_batch(headed(1, record))


@pytest.fixture(scope="module")
def model() -> AcousticModel:
    return AcousticModel()


@settings(max_examples=60, deadline=None)
@given(data=st.lists(damaged(), max_size=12))
def test_the_detector_lives_on_after_any_datagrams(model: AcousticModel, data: list[bytes]) -> None:
    queue, detector = TapQueue(), Detector(model)
    for number, datagram in enumerate(data):
        queue.datagram_received(datagram, None)
        detector.feed(queue.take(), float(number))
        detector.step(float(number))
    good = CallerFrame(b"g" * 16, TapKind.AUDIO, TapCodec.PCMA, 1, 1, 1, b"\xd5" * 160)
    before = detector.counters.frames
    queue.datagram_received(next(encode_batches([good], 1)), None)
    detector.feed(queue.take(), float(len(data)))
    assert detector.counters.frames == before + 1
