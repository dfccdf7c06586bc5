"""The container: whatever is done to a file's bytes is noticed."""

from __future__ import annotations

import contextlib
import io
import os
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from callshield.errors import RecordingDamaged, RecordingError, RecordingKeyError
from sipbridge.recording_format import (
    CHUNK_HEADER,
    HEADER_BYTES,
    RECORD,
    SLOT_BYTES,
    SLOT_OFFSETS,
    ChunkKind,
    ChunkSealer,
    Identity,
    Summary,
    chunk_places,
    pack_header,
    pack_summary,
    parse_header,
    records,
    unwrap_key,
    wrap_key,
)
from sipbridge.recording_keys import KeyRing
from sipbridge.recording_reader import OpenedRecording

NODE_KEY = bytes(range(32))
FILE_KEY = bytes(reversed(range(32)))
KEYS = KeyRing((NODE_KEY,), "test")
IDENTITY = Identity(b"c" * 16, b"r" * 16, 1_700_000_000_000_000_000)


def a_record(channel: int, payload: bytes, timestamp: int = 0, codec: int = 0) -> bytes:
    return RECORD.pack(channel, codec, len(payload), timestamp, 5) + payload


def a_file(
    chunks: list[bytes], *, identity: Identity = IDENTITY, key: bytes = FILE_KEY, last: bool = True
) -> tuple[bytes, list[bytes]]:
    """A file, and its sealed chunks."""
    sealer = ChunkSealer(identity, key)
    sealed = [sealer.seal(plain) for plain in chunks]
    if last:
        summary = Summary(ended="stopped", stopped_at_ns=9, frames=3)
        sealed.append(sealer.seal(pack_summary(summary), ChunkKind.LAST))
    header = pack_header(identity, wrap_key(identity, NODE_KEY, key))
    return header + b"".join(sealed), sealed


CHUNKS = [
    a_record(0, b"hello" * 8),
    a_record(1, b"world" * 8) + a_record(0, b"x"),
    a_record(1, b"y"),
]


def read(data: bytes) -> tuple[bool, bool, list[bytes]]:
    """Complete, every key slot sound, and the chunks' plain texts."""
    opened = OpenedRecording(io.BytesIO(data), KEYS)
    plain = [opened.plain(place) for place in opened.chunks]
    for one in plain:
        list(records(one))
    return opened.summary is not None, opened.slots_sound, plain


def test_what_was_written_is_read() -> None:
    assert read(a_file(CHUNKS)[0]) == (True, True, CHUNKS)
    assert read(a_file(CHUNKS, last=False)[0]) == (False, True, CHUNKS)


def test_no_plain_byte_is_in_the_file() -> None:
    data, _ = a_file(CHUNKS)
    assert b"hello" not in data
    assert b"stopped" not in data
    assert FILE_KEY not in data
    # Negative control: the search would find it.
    assert b"hello" in CHUNKS[0]


def noticed(data: bytes) -> bool:
    """The file does not pass for the whole, untouched recording of ``CHUNKS``."""
    try:
        complete, sound, plain = read(data)
    except RecordingError:
        return True
    return not (complete and sound and plain == CHUNKS)


def test_every_single_flipped_bit_is_noticed() -> None:
    data, _ = a_file(CHUNKS)
    assert not noticed(data)
    for position in range(8 * len(data)):
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        assert noticed(bytes(changed)), f"bit {position % 8} of byte {position // 8}"


@given(st.binary(min_size=1, max_size=40), st.integers(0, 10_000), st.booleans())
@settings(max_examples=300, deadline=None)
def test_bytes_written_over_or_put_in_are_noticed(junk: bytes, where: int, put_in: bool) -> None:
    data, _ = a_file(CHUNKS)
    where %= len(data) + 1
    changed = data[:where] + junk + data[where if put_in else where + len(junk) :]
    assert changed == data or noticed(changed)


def test_every_truncation_is_noticed_and_keeps_what_is_before_it() -> None:
    data, _ = a_file(CHUNKS)
    for size in range(HEADER_BYTES, len(data)):
        complete, _, plain = read(data[:size])
        assert not complete
        assert plain == CHUNKS[: len(plain)]


def test_chunks_in_another_order_doubled_or_left_out_are_noticed() -> None:
    data, sealed = a_file(CHUNKS)
    head = data[:HEADER_BYTES]
    for order in (
        [1, 0, 2, 3],
        [0, 0, 1, 2, 3],
        [0, 2, 3],
        [1, 2, 3],
        [0, 1, 2, 3, 3],
        [3, 0, 1, 2],
    ):
        with pytest.raises(RecordingDamaged):
            read(head + b"".join(sealed[int(number)] for number in order))


def renumbered(chunk: bytes, index: int) -> bytes:
    size, _, kind = CHUNK_HEADER.unpack_from(chunk)
    return CHUNK_HEADER.pack(size, index, kind) + chunk[CHUNK_HEADER.size :]


def test_a_chunk_given_another_number_is_noticed() -> None:
    data, sealed = a_file(CHUNKS)
    moved = [renumbered(sealed[1], 0), renumbered(sealed[0], 1), *sealed[2:]]
    with pytest.raises(RecordingDamaged, match="chunk 0 was changed or is not in its place"):
        read(data[:HEADER_BYTES] + b"".join(moved))


def test_a_chunk_of_another_recording_is_noticed_even_under_the_same_key() -> None:
    other = Identity(IDENTITY.call_id, b"R" * 16, IDENTITY.started_at_ns)
    data, _ = a_file(CHUNKS)
    _, foreign = a_file(CHUNKS, identity=other)
    with pytest.raises(RecordingDamaged):
        read(data[:HEADER_BYTES] + b"".join(foreign))


def test_a_key_slot_of_another_recording_does_not_open() -> None:
    other = Identity(b"C" * 16, IDENTITY.recording_id, IDENTITY.started_at_ns)
    data, sealed = a_file(CHUNKS)
    grafted = pack_header(other, wrap_key(IDENTITY, NODE_KEY, FILE_KEY)) + b"".join(sealed)
    with pytest.raises(RecordingDamaged, match="its key cannot be opened"):
        read(grafted)
    assert read(data)[0]


def test_without_authentication_a_changed_byte_would_pass_for_audio() -> None:
    """Negative control: the cipher alone would not have noticed; its tag does."""
    data, sealed = a_file(CHUNKS)
    chunk = bytearray(sealed[0])
    chunk[CHUNK_HEADER.size + RECORD.size] ^= 0x20
    # GCM is counter mode from 2 on (NIST SP 800-38D section 7.1); the nonce of chunk 0 is zero.
    counter = bytes(12) + (2).to_bytes(4, "big")
    decryptor = Cipher(algorithms.AES(FILE_KEY), modes.CTR(counter)).decryptor()
    plain = decryptor.update(bytes(chunk[CHUNK_HEADER.size : -16]))
    assert [payload for *_, payload in records(plain)] == [b"Hello" + b"hello" * 7]
    with pytest.raises(RecordingDamaged, match="chunk 0 was changed"):
        read(data[:HEADER_BYTES] + bytes(chunk) + b"".join(sealed[1:]))


def test_nonces_of_a_file_differ_and_equal_plain_texts_look_different() -> None:
    _, sealed = a_file([CHUNKS[0]] * 50)
    bodies = {chunk[CHUNK_HEADER.size :] for chunk in sealed}
    assert len(bodies) == len(sealed)
    indices = [CHUNK_HEADER.unpack_from(chunk)[1] for chunk in sealed]
    assert all(after == before + 1 for before, after in pairwise(indices))


def test_another_node_key_is_a_sentence_that_names_the_one_it_needs() -> None:
    data, _ = a_file(CHUNKS)
    other = KeyRing((os.urandom(32),), "test")
    with pytest.raises(RecordingKeyError, match=r"node key [0-9a-f]{16} that opens"):
        OpenedRecording(io.BytesIO(data), other)


def test_either_slot_opens_and_a_torn_one_is_said() -> None:
    new_key = b"n" * 32
    both = KeyRing((new_key, NODE_KEY), "test")
    data = bytearray(a_file(CHUNKS)[0])
    second = SLOT_OFFSETS[1]
    fresh = wrap_key(IDENTITY, new_key, FILE_KEY)
    for written in range(SLOT_BYTES - 8):
        # A power cut anywhere in the writing of the new slot.
        data[second : second + SLOT_BYTES] = fresh[:written].ljust(SLOT_BYTES, b"\0")
        opened = unwrap_key(parse_header(bytes(data[:HEADER_BYTES])), both.find)
        assert opened.key == FILE_KEY
        assert opened.sound == (not any(fresh[:written]))
    data[second : second + SLOT_BYTES] = fresh
    for wiped in range(SLOT_BYTES - 8):
        # ... and anywhere in the wiping of the old one.
        first = SLOT_OFFSETS[0]
        data[first : first + wiped] = bytes(wiped)
        assert unwrap_key(parse_header(bytes(data[:HEADER_BYTES])), both.find).key == FILE_KEY


@given(st.binary(max_size=2000))
@settings(max_examples=300, deadline=None)
def test_arbitrary_files_are_refused_with_a_sentence(junk: bytes) -> None:
    data, _ = a_file(CHUNKS)
    for candidate in (junk, data[:HEADER_BYTES] + junk):
        # Any other exception would fail this test; only an empty recording is none.
        with contextlib.suppress(RecordingError):
            assert read(candidate) == (False, True, [])


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1),
            st.sampled_from([0, 8, 9, 111]),
            st.integers(0, 2**32 - 1),
            st.integers(0, 2**64 - 1),
            st.binary(max_size=300),
        ),
        max_size=20,
    ),
    st.integers(1, 5),
)
@settings(max_examples=100, deadline=None)
def test_arbitrary_frames_come_back(
    frames: list[tuple[int, int, int, int, bytes]], a_chunk: int
) -> None:
    packed = [
        RECORD.pack(channel, codec, len(payload), timestamp, at_ns) + payload
        for channel, codec, timestamp, at_ns, payload in frames
    ]
    chunks = [b"".join(packed[i : i + a_chunk]) for i in range(0, len(packed), a_chunk)]
    complete, _, plain = read(a_file(chunks)[0])
    assert complete
    assert [record for one in plain for record in records(one)] == frames


def test_an_unfinished_chunk_is_left_out() -> None:
    data, _ = a_file(CHUNKS, last=False)
    assert [place.index for place in chunk_places(io.BytesIO(data[:-1]))] == [0, 1]
