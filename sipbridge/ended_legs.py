"""pjsua2 calls that are over are freed soon, but never while their number is another call's.

pjsua2's destructor of a call forgets and hangs up *whichever call has its number now*, and pjsua
gives numbers again, within one turn of the event pump where few are left. Left to Python's garbage
collector (a call and its legs point at each other) a leg that ended long ago takes a new call with
it: 603 to its caller, and no word to the new leg.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pjsua2 as pj

_ended: list[Any] = []


def ended(call: Any) -> None:
    """Take note of a :class:`pjsua2.Call` whose end its own callback is just being told.

    It is freed when nothing of PJSIP is on the stack any more: by :func:`free_ended`, which the
    event pump calls after each event, or in the loop's next turn.
    """
    _ended.append(call)
    asyncio.get_running_loop().call_soon(free_ended)


def free_ended() -> None:
    """Free what ended, but for those whose number a newer call has: they wait for its end.

    Using a freed one raises TypeError.
    """
    if not _ended:
        return
    waiting = []
    for call in _ended:
        if not call.thisown:
            continue
        # pjsua forgets the object of a call that is over: one found is the newer call's.
        if pj.Call.lookup(call.getId()) is not None:
            waiting.append(call)
            continue
        call.__swig_destroy__(call)
        call.this = None
    _ended[:] = waiting
