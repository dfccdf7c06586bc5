"""A leg whose far end becomes another one: its packets are no duplicates of the one before."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest

from sipbridge.relay_core import Core

ONE, OTHER, PHONE = ("127.0.0.2", 10000), ("127.0.0.2", 12000), ("127.0.0.3", 20000)


def _negotiate(core: Core, handle: int, leg: int, sdp: tuple[str, int]) -> None:
    core.negotiate(handle, leg, sdp, 0, "", 0, 0, 101, -1, 20, False, None)


@pytest.mark.parametrize(("to", "expected"), [(OTHER, 100), (ONE, 50)])
def test_another_far_end_may_have_the_same_ssrc_and_numbers(
    to: tuple[str, int], expected: int
) -> None:
    core = Core("", [], 5.0, manual=True)
    handle = core.open(bytes(16), [], [])
    core.add_leg(handle, 0, -1, -1)
    core.add_leg(handle, 1, -1, -1)
    _negotiate(core, handle, 0, ONE)
    _negotiate(core, handle, 1, PHONE)
    core.allow(handle, True, True, False, False, False, False)
    at = 1000.0
    for source in (ONE, to):
        if source is to:
            _negotiate(core, handle, 0, to)
        for number in range(1, 51):
            at += 0.02
            packet = struct.pack(">BBHII", 0x80, 0, number, 160 * number, 7) + b"\xff" * 160
            core.inject(handle, 0, packet, source, at, False)
    relayed = [struct.unpack_from(">H", row[4], 2)[0] for row in core.sent() if not row[2]]
    # The control: the same far end that says the same again is a duplicate.
    assert len(relayed) == expected
    steps = {(after - before) & 0xFFFF for before, after in pairwise(relayed)}
    assert steps == {1}
    assert core.stats(handle)[0][0]["received"] == expected  # type: ignore[index]
