"""A leg that is over is freed once, in the loop's next turn at the latest, never in its callback.

Why it matters is seen in :mod:`tests.test_security_flood`: without it some callers get 603.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pjsua2

from sipbridge.ended_legs import ended, free_ended


class EndedCall:
    """What SWIG makes of a pjsua2 call, as far as freeing it goes."""

    def __init__(self) -> None:
        self.thisown = True
        self.this: object | None = object()
        self.freed = 0

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


def test_pjsua2_has_what_this_needs() -> None:
    call: Any = pjsua2.Call
    assert callable(call.__swig_destroy__)
    assert isinstance(call.thisown, property)
