"""Reads the recorder ring's bytes: which record goes to which recording.

A record is, little-endian, ``<16sBBHIQ``: call id, channel, codec, payload bytes, RTP timestamp,
arrival in ns since the Unix epoch, and then the payload. This runs for every frame of every call
(30000 a second at 300 calls): one unpacking, one look-up and one slice each, no object.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

RING_RECORD = struct.Struct("<16sBBHIQ")
_RING_HEAD = struct.Struct("<16sBBH")
_ARRIVAL = struct.Struct("<Q")
_ARRIVAL_OFFSET = 24
#: What a recording keeps of a record begins behind the call id.
_KEPT_OFFSET = 16
#: No datagram of the relay carries more.
MAX_PAYLOAD_BYTES = 2048
_CODECS = frozenset({0, 8, 9, 111})


@dataclass(slots=True)
class Parsed:
    """What became of a blob."""

    taken: int = 0
    malformed: int = 0
    left_over: list[tuple[bytes, int, bytes]] = field(default_factory=list)
    """Call id, arrival and kept bytes of records that no sink wanted."""


def parse(blob: bytes, sinks: Mapping[bytes, Callable[[bytes], None]]) -> Parsed:
    """Hand each record, less its call id, to the sink of its call.

    Args:
        blob: whole records, one after the other. What is not, is counted and left out.
        sinks: by the 16 bytes of the call id.
    """
    result = Parsed()
    unpack = _RING_HEAD.unpack_from
    get = sinks.get
    left_over = result.left_over
    offset, size, taken = 0, len(blob), 0
    last = size - RING_RECORD.size
    while offset <= last:
        key, channel, codec, length = unpack(blob, offset)
        end = offset + 32 + length
        if end > size:
            break
        if channel > 1 or codec not in _CODECS or not 0 < length <= MAX_PAYLOAD_BYTES:
            result.malformed += 1
        else:
            sink = get(key)
            if sink is not None:
                sink(blob[offset + _KEPT_OFFSET : end])
                taken += 1
            else:
                (at_ns,) = _ARRIVAL.unpack_from(blob, offset + _ARRIVAL_OFFSET)
                left_over.append((key, at_ns, blob[offset + _KEPT_OFFSET : end]))
        offset = end
    result.malformed += offset < size
    result.taken = taken
    return result
