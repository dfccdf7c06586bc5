"""A leg that fell silent is asked whether it is still there.

A PBX that is restarted, or a telephone that loses its power, says no BYE: its leg falls silent, and
whoever is at the other end waits in a dead call until the session timer, for half an hour. OPTIONS
inside the dialog finds out: a far end that knows of no such dialog answers 481, one that is not
there does not answer, and either ends the dialog (RFC 3261 section 12.2.1.2), which PJSIP does; so
do the answers of one that no longer knows the address that it gave us (RFC 5057 section 5.1). A far
end that is only silent (mute, or silence suppression) answers anything else, and goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from callshield.messages import LegName
from sipbridge.legs import Leg
from sipbridge.sip_message import DIALOG_GONE

log = structlog.get_logger()

#: Silence before the first question, on top of what it takes to be called silence (3 s).
FIRST_S = 7.0
#: Between two questions while it lasts.
AGAIN_S = 30.0


class SilenceProbe:
    """The questions of one call.

    Args:
        call_id: of the call, for the log.
        leg: the leg of a name that there is now.
        sent: to be called after each question.
        enabled: ask at all.
    """

    def __init__(
        self,
        call_id: str,
        leg: Callable[[LegName], Leg | None],
        sent: Callable[[], None],
        *,
        enabled: bool,
    ) -> None:
        self._call_id, self._leg, self._sent, self._enabled = call_id, leg, sent, enabled
        self._timers: dict[LegName, asyncio.TimerHandle] = {}

    def heard(self, leg: LegName, *, silent: bool) -> None:
        """A leg fell silent, or speaks again."""
        if timer := self._timers.pop(leg, None):
            timer.cancel()
        if silent and self._enabled:
            self._schedule(leg, FIRST_S)

    def _schedule(self, leg: LegName, delay_s: float) -> None:
        self._timers[leg] = asyncio.get_running_loop().call_later(delay_s, self._ask, leg)

    def _ask(self, name: LegName) -> None:
        self._schedule(name, AGAIN_S)
        leg = self._leg(name)
        if leg is not None and leg.confirmed:
            log.info("silent_leg_asked", call_id=self._call_id, leg=name.value)
            leg.request("OPTIONS", [])
            self._sent()

    def answered(self, name: LegName, status: int) -> None:
        """The final answer to one of them."""
        leg = self._leg(name)
        if status in DIALOG_GONE and leg is not None and not leg.gone:
            log.info("silent_leg_gone", call_id=self._call_id, leg=name.value, status=status)
            # Not from within PJSIP's own report of the answer.
            asyncio.get_running_loop().call_soon(self._end, leg)

    def _end(self, leg: Leg) -> None:
        leg.hang_up(0, [])
        self._sent()

    def close(self) -> None:
        """The call is over."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
