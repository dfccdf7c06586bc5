"""pjsua2 calls that are over are freed at once, before their number belongs to another call.

pjsua2's destructor of a call forgets and hangs up *whichever call has its number now*, and pjsua
gives numbers again. Left to Python's garbage collector (a call and its legs point at each other) a
leg that ended long ago takes a new call with it: 603 to its caller, and no word to the new leg.
"""

from __future__ import annotations

import asyncio
from typing import Any

_ended: list[Any] = []


def ended(call: Any) -> None:
    """Take note of a :class:`pjsua2.Call` whose end its own callback is just being told.

    It is freed when nothing of PJSIP is on the stack any more: by :func:`free_ended`, which the
    event pump calls after each event, or in the loop's next turn.
    """
    _ended.append(call)
    asyncio.get_running_loop().call_soon(free_ended)


def free_ended() -> None:
    """Free what ended. Using such an object afterwards raises TypeError."""
    while _ended:
        call = _ended.pop()
        if call.thisown:
            call.__swig_destroy__(call)
            call.this = None
