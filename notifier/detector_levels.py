"""Levels and the detector that raised them: what one that comes, or comes back, has to hear.

A detector that is killed takes what it knew of its calls with it; the one in its place begins at 0
and says nothing of a call that is calm. So a level that it does not name at once is one that nobody
would ever take back, and falls. What is still so, it hears again.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

import structlog

from callshield.messages import Action, CallStarted, Command, RiskChanged
from notifier.board import AGENT_PRESS, Board

log = structlog.get_logger()

#: A detector says all its levels with its first words; seconds until it counts as having done so.
LEVELS_WITHIN_S = 2.0


class DetectorLevels:
    """Levels of live calls that the connected detector may not know.

    Args:
        board: the live calls.
        clock: seconds since the epoch.
        fall: told of each level that falls to 0.
    """

    def __init__(
        self, board: Board, clock: Callable[[], float], fall: Callable[[RiskChanged], None]
    ) -> None:
        self._board = board
        self._clock = clock
        self._fall = fall
        self._doubted: set[str] = set()
        self._check: asyncio.TimerHandle | None = None

    def detector_came(self, send: Callable[[CallStarted | Command], None]) -> None:
        """Tell it whose calls are live, so that it judges each by its group's thresholds, and where
        the agent said that a call is severe: that word outlives the detector that took it."""
        for call in self._board.calls.values():
            send(
                CallStarted(
                    ts=call.started_ts,
                    call_id=call.call_id,
                    agent_id=call.agent_id,
                    pbx_call_id=call.pbx_call_id,
                    spared=call.spared,
                )
            )
            if call.level and any(reason.rule == AGENT_PRESS for reason in call.reasons):
                send(said_abusive(call.call_id))
        self._doubted = {call.call_id for call in self._board.calls.values() if call.level}
        self.close()
        self._check = asyncio.get_running_loop().call_later(LEVELS_WITHIN_S, self._drop)

    def heard(self, call_id: str) -> None:
        """A level of this call was told."""
        self._doubted.discard(call_id)

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._check is not None:
            self._check.cancel()
            self._check = None

    def _drop(self) -> None:
        doubted, self._doubted = self._doubted, set()
        for call_id in doubted & self._board.calls.keys():
            level = self._board.calls[call_id].level
            log.warning("level_dropped", call_id=call_id, risk_level=level)
            self._fall(
                RiskChanged(
                    ts=self._clock(),
                    call_id=call_id,
                    level=0,
                    previous=level,
                    categories=[],
                    score=0.0,
                )
            )


def said_abusive(call_id: str) -> Command:
    """The agent's word that a call is severe, for the detector."""
    return Command(
        command_id=uuid.uuid4().hex, call_id=call_id, action=Action.ABUSIVE, by="agent:console"
    )
