"""A leg that is over is freed once, in the loop's next turn, never in its callback; and never while
its number is a newer call's.

Why it matters is seen in :mod:`tests.test_security_flood`: without it some callers get 603.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pjsua2
import pytest

from sipbridge.ended_legs import ended, free_ended


class Numbers:
    """Which object pjsua2 knows under which number; stands for ``pjsua2.Call.lookup``."""

    def __init__(self) -> None:
        self.of: dict[int, object] = {}

    def lookup(self, number: int) -> object | None:
        return self.of.get(number)


@pytest.fixture(autouse=True)
def numbers(monkeypatch: pytest.MonkeyPatch) -> Numbers:
    known = Numbers()
    monkeypatch.setattr(pjsua2.Call, "lookup", known.lookup)
    return known


class EndedCall:
    """What SWIG makes of a pjsua2 call, as far as freeing it goes."""

    def __init__(self, number: int = 1) -> None:
        self._number = number
        self.thisown = True
        self.this: object | None = object()
        self.freed = 0

    def getId(self) -> int:
        return self._number

    def __swig_destroy__(self, call: EndedCall) -> None:
        # An instance's own function here; SWIG's is a builtin, which takes the object the same way.
        assert call is self
        self.freed += 1
        self.thisown = False


async def test_it_is_freed_in_the_next_turn_and_not_before() -> None:
    call = EndedCall()
    ended(call)
    assert call.freed == 0  # its own callback is still on the stack
    await asyncio.sleep(0)
    assert call.freed == 1
    assert call.this is None


async def test_the_event_pump_frees_it_earlier_and_nobody_a_second_time() -> None:
    call = EndedCall()
    ended(call)
    free_ended()
    assert call.freed == 1
    await asyncio.sleep(0)
    free_ended()
    assert call.freed == 1


async def test_an_object_that_somebody_else_owns_is_left_alone() -> None:
    call = EndedCall()
    call.thisown = False
    ended(call)
    free_ended()
    assert call.freed == 0


async def test_it_waits_while_a_newer_call_has_its_number(numbers: Numbers) -> None:
    old, other, newer = EndedCall(1), EndedCall(2), EndedCall(1)
    numbers.of[1] = newer
    ended(old)
    ended(other)
    free_ended()
    assert (old.freed, other.freed) == (0, 1)
    del numbers.of[1]  # pjsua2 forgets an object before its call's end is over
    ended(newer)
    free_ended()
    assert (old.freed, newer.freed) == (1, 1)


def test_pjsua2_has_what_this_needs() -> None:
    call: Any = pjsua2.Call
    assert callable(call.__swig_destroy__)
    assert callable(call.getId)
    assert isinstance(call.thisown, property)
