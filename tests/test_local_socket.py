"""A connection of the bus: what waits has a bound, and each direction ends by itself."""

from __future__ import annotations

import asyncio
import socket

import pytest

from callshield.local_socket import LocalSocket

#: More than the kernel takes of a connection that nobody reads.
MUCH = bytes(range(256)) * 16_384


def pair() -> tuple[LocalSocket, socket.socket]:
    one, other = socket.socketpair()
    other.settimeout(30)
    return LocalSocket(one), other


async def test_both_ways_at_once() -> None:
    one, other = socket.socketpair()
    left, right = LocalSocket(one), LocalSocket(other)
    left.write(MUCH)
    right.write(MUCH[::-1])
    async with asyncio.timeout(30):
        at_left, at_right = await asyncio.gather(
            left.readexactly(len(MUCH)), right.readexactly(len(MUCH))
        )
        assert (at_left, at_right) == (MUCH[::-1], MUCH)
        await asyncio.gather(left.drain(), right.drain())
    assert left.unsent == right.unsent == 0
    left.close()
    with pytest.raises(asyncio.IncompleteReadError):
        await right.readexactly(1)
    right.close()


async def test_what_nobody_reads_waits_at_the_other_side() -> None:
    one, other = socket.socketpair()
    ours, speaker = LocalSocket(one), LocalSocket(other)
    speaker.write(MUCH)
    async with asyncio.timeout(30):
        while ours.waiting < 256 * 1024:  # noqa: ASYNC110
            await asyncio.sleep(0)
        for _ in range(200):  # it would take in 64 KiB each time
            await asyncio.sleep(0)
        assert ours.waiting < 320 * 1024
        assert speaker.unsent
        assert await ours.readexactly(len(MUCH)) == MUCH
    ours.close()
    speaker.close()


async def test_a_failed_write_leaves_what_was_said_before() -> None:
    ours, other = pair()
    other.sendall(b"last words")
    other.close()
    ours.write(b"x")
    assert ours.deaf
    ours.write(MUCH)
    assert ours.unsent == 0
    await ours.drain()
    assert await ours.readexactly(10) == b"last words"
    with pytest.raises(asyncio.IncompleteReadError):
        await ours.readexactly(1)
    ours.abort()


async def test_closing_sends_what_was_written() -> None:
    ours, other = pair()
    ours.write(MUCH)
    assert ours.unsent
    ours.close()
    ours.write(b"too late")
    got = bytearray()

    def read() -> None:
        while more := other.recv(65536):
            got.extend(more)

    await asyncio.to_thread(read)
    assert bytes(got) == MUCH
    assert ours.deaf
    ours.close()
    other.close()


async def test_aborting_sends_nothing_more_and_wakes_who_waits() -> None:
    ours, other = pair()
    ours.write(MUCH)
    waiting = asyncio.create_task(ours.readexactly(1))
    await asyncio.sleep(0)
    ours.abort()
    with pytest.raises(asyncio.IncompleteReadError):
        await waiting
    await ours.drain()
    taken = 0
    while more := other.recv(65536):
        taken += len(more)
    assert 0 < taken < len(MUCH)
    other.close()
