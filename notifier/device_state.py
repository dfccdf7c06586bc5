"""What an agent's device is doing, from the agent's live calls: the words of Asterisk.

``NOT_INUSE``, ``RINGING``, ``INUSE``, ``RINGINUSE`` (in a call, and another rings) and ``ONHOLD``
(every call that the agent is in is held), as in Asterisk's function ``DEVICE_STATE``.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from notifier.live import Call


def device_state(calls: Iterable[Call], held: Container[str], left: Container[str]) -> str:
    """The state of one agent's device.

    Args:
        calls: the agent's live calls.
        held: ids of calls in which somebody holds.
        left: ids of calls that the agent has left and that go on (a manager took over).
    """
    ringing = talking = holding = 0
    for call in calls:
        if call.ending_ts is not None or call.call_id in left:
            continue
        if call.answered_ts is None:
            ringing += 1
        elif call.call_id in held:
            holding += 1
        else:
            talking += 1
    if ringing:
        return "RINGINUSE" if talking or holding else "RINGING"
    if talking:
        return "INUSE"
    return "ONHOLD" if holding else "NOT_INUSE"
