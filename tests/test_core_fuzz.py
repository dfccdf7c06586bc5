"""A million packets that somebody made up: nothing breaks, nothing goes where it must not."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from callshield.tap import decode_batch
from sipbridge.relay_core import Core
from tests.core_forger import SANITIZED, Forger, is_plain_or_can_be
from tests.core_kit import (
    ADDRESSES,
    AGENT,
    CALLER,
    EVENTS,
    HELPER,
    PCMA,
    STRANGER,
    CallInCore,
    clip,
    rtp,
)

#: Of each kind below; seven kinds in all.
PACKETS = 30_000 if SANITIZED else 150_000
#: Packets between two looks at what came out.
ROUND = 5000
#: What Python itself may keep meanwhile.
SLACK_BYTES = 512 * 1024


class _MallocFigures(ctypes.Structure):
    """What mallinfo2(3) returns."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
            "fordblks", "keepcost",
        )
    ]  # fmt: skip


def bytes_in_use() -> int:
    """What malloc has handed out and not got back, in the whole process.

    The resident memory would tell less: what earlier tests freed hides what this one loses.
    """
    gc.collect()
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = _MallocFigures
    figures = libc.mallinfo2()
    return int(figures.uordblks + figures.hblkhd)


class Target:
    """A call under fire, and what of it must not move."""

    def __init__(self, **how: Any) -> None:
        self.call = CallInCore(codes=["**9"], noise={CALLER: -1, AGENT: 13}, **how)
        self.call.allow(record=True)
        self.seen = 0

    def counted(self, leg: int) -> int:
        stats = self.call.stats(leg)
        names = ("received", "malformed", "wrong_source", "wrong_payload_type", "srtp_refused")
        return sum(int(stats[name]) for name in names)

    def drained(self) -> list[tuple[int, int, bool, tuple[str, int], bytes]]:
        """What came out since the last call; time goes on a little."""
        self.call.run(0.02)
        out = self.call.core.sent()
        self.call.events()
        self.call.core.recorded()
        return out


def forged_strangers(forger: Forger, target: Target, count: int) -> None:
    """Whatever a stranger sends, nothing of it goes anywhere, and all of it is counted."""
    call = target.call
    before = target.counted(CALLER)
    for number in range(count):
        data = forger.valid() if number % 2 else forger.mutated()
        call.inject(CALLER, data, source=(STRANGER[0], number & 0xFFFF))
    assert [one for one in target.drained() if not one[2]] == []
    assert target.counted(CALLER) == before + count
    assert call.core.tapped() == []


def forged_lies(forger: Forger, target: Target, count: int) -> None:
    """What is malformed goes nowhere, from the latched source too."""
    call = target.call
    before = call.stats(CALLER)["malformed"]
    for _ in range(count):
        call.inject(CALLER, forger.lie())
    assert [one for one in target.drained() if not one[2]] == []
    assert call.stats(CALLER)["malformed"] == before + count
    assert call.core.tapped() == []


def forged_noise(forger: Forger, target: Target, count: int) -> None:
    """Random bytes and spoilt packets of the latched source: only what is RTP goes on, as ours."""
    call = target.call
    good = 0
    for number in range(count):
        data = forger.mutated() if number % 3 else forger.random()
        good += is_plain_or_can_be(data) and data[1] & 0x7F in (0, 101)
        call.inject(CALLER, data)
    out = [one for one in target.drained() if not one[2]]
    assert 0 < len(out) <= good
    for _, leg, _, to, data in out:
        assert (leg, to) == (AGENT, ADDRESSES[AGENT])
        assert data[0] == 0x80
        assert data[1] & 0x7F in (0, 96)
    for datagram in call.core.tapped():
        for frame in decode_batch(datagram)[1]:
            assert 0 < len(frame.payload) <= 1488


def forged_events(forger: Forger, target: Target, count: int) -> None:
    """Events of the agent, good and bad: codes may come of them, digits only with their marks."""
    call = target.call
    for number in range(count):
        payload = bytes([forger.dice.randrange(18)]) + forger.take(3)
        kind = EVENTS[AGENT] | forger.dice.choice((0, 0x80))
        call.inject(AGENT, rtp(payload, kind, number, forger.dice.randrange(8) * 1000, 3))
        if number % 50 == 0:
            call.run(0.1)
    for _, leg, is_rtcp, _, data in target.drained():
        if not is_rtcp:
            assert leg == CALLER
            assert (data[0], data[1] & 0x7F, len(data)) == (0x80, EVENTS[CALLER], 16)


def forged_rtcp(forger: Forger, target: Target, count: int) -> None:
    """Reports of anybody: no media comes of them, and none goes to a stranger."""
    call = target.call
    for number in range(count):
        source = (STRANGER[0] if number % 2 else ADDRESSES[AGENT][0], 1 + number % 60_000)
        call.inject(AGENT, forger.rtcp(), source=source, rtcp=True)
    stats = call.stats(AGENT)
    assert stats["rtt_ms"] < 10_000
    for _, _, is_rtcp, to, _ in target.drained():
        assert is_rtcp
        assert to[0] in {host for host, _ in ADDRESSES.values()}


def forged_secrets(forger: Forger, target: Target, count: int) -> None:
    """Whoever lacks the key is nobody, wherever he sends from."""
    call = target.call
    before = target.counted(AGENT)
    for number in range(count):
        data = forger.valid(96) if number % 2 else forger.random()
        call.inject(AGENT, data, rtcp=not number % 7)
    stats = call.stats(AGENT)
    assert stats["received"] == stats["reports"] == 0
    assert target.counted(AGENT) == before + count
    assert [one for one in target.drained() if not one[2]] == []


def forged_conference(forger: Forger, target: Target, count: int) -> None:
    """All legs of a conference sent noise: each hears frames of 20 ms, and they are ours."""
    call = target.call
    for number in range(count):
        leg = number % 3
        data = forger.mutated() if number % 2 else forger.valid(EVENTS[leg])
        call.inject(leg, data)
        if number % 20 == 0:
            call.run(0.02)
    for _, leg, is_rtcp, to, data in target.drained():
        assert to[0] == ADDRESSES[leg][0]
        if not is_rtcp:
            assert data[0] == 0x80
            assert len(data) in (172, 16) or data[1] & 0x7F == EVENTS[leg]
    for datagram in call.core.tapped():
        decode_batch(datagram)


FORGED: dict[str, tuple[Callable[[Forger, Target, int], None], dict[str, Any]]] = {
    "strangers": (forged_strangers, {}),
    "lies": (forged_lies, {}),
    "noise": (forged_noise, {}),
    "events": (forged_events, {}),
    "rtcp": (forged_rtcp, {}),
    "secrets": (forged_secrets, {"srtp": {AGENT: (0, b"k" * 30, b"q" * 30)}}),
    "conference": (forged_conference, {"legs": (CALLER, AGENT, HELPER), "types": {AGENT: PCMA}}),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_hundred_and_fifty_thousand_forged_packets_of_a_kind(what: str) -> None:
    forge, how = FORGED[what]
    target = Target(**how)
    if what == "conference":
        target.call.allow(conference=True, tap=True)
    forger = Forger(seed_of(what))
    for _ in range(3):
        forge(forger, target, ROUND)
    before = bytes_in_use()
    for _ in range(PACKETS // ROUND - 3):
        forge(forger, target, ROUND)
    assert SANITIZED or bytes_in_use() - before < SLACK_BYTES
    # The control: the call still works.
    if what in ("strangers", "lies", "noise", "rtcp"):
        target.drained()
        target.call.inject(CALLER, rtp(b"\x11" * 160, ssrc=12345))
        assert [one.payload for one in target.call.sent(AGENT)] == [b"\x11" * 160]


def seed_of(text: str) -> int:
    return int.from_bytes(text.encode()[:8], "big")


def test_the_memory_of_calls_that_are_over_is_given_back() -> None:
    core = Core("", ["**9"], 5.0, manual=True)
    key = bytes(range(30))

    def one_call(number: int) -> None:
        made = clip(2000)
        handle = core.open(number.to_bytes(16, "big"), [], [])
        for leg in range(3):
            core.add_leg(handle, leg, -1, -1)
            core.negotiate(
                handle, leg, ADDRESSES[leg], 0, "", 0, 0, 101, 13, 20, True, (0, key, key)
            )
            core.negotiate(handle, leg, ADDRESSES[leg], 0, "", 0, 0, 101, 13, 20, True, None)
        core.allow(handle, True, True, True, True, False, number % 2 == 0)
        for leg in range(3):
            core.inject(handle, leg, rtp(), ADDRESSES[leg], 1.0 + number, False)
            core.play(handle, leg, leg, [made] * 8, True, False)
        core.tick(1.0 + number)
        if number % 3:
            core.remove_leg(handle, AGENT)
            core.promote(handle)
        core.close_call(handle)
        core.sent()
        core.events()
        core.recorded()
        core.tapped()

    for number in range(500):
        one_call(number)
    before = bytes_in_use()
    for number in range(500, 2000):
        one_call(number)
    assert SANITIZED or bytes_in_use() - before < SLACK_BYTES
    assert core.totals()["sessions"] == 0
