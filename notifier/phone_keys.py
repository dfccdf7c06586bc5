"""A key of the desk phone that calls our URL: the agent's own *end* or *help*, as on the console.

The phone says which agent, never which call: it is that agent's own call, the one being talked on.
What follows is the console's own path, so that marks, aftercare and the record follow too; the
command is ``by`` ``agent:phone``.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Literal, Protocol

import structlog

from callshield.errors import BusError
from callshield.messages import Action, CommandResult
from callshield.messages_phones import PhoneKey, PhoneKeyDone
from notifier.board import Board
from notifier.live import Alert, Call

log = structlog.get_logger()

Outcome = Literal["done", "already", "no_call", "not_now", "unreached"]

BY_PHONE = "agent:phone"
#: A press that comes later than this, seconds, is not acted on: the call may be another one.
LATE_S = 3.0
#: How long a press waits until the request for help is stored.
STORED_WITHIN_S = 3.0
_REMEMBERED = 500


class _Ask(Protocol):
    def __call__(
        self, call_id: str, action: Action, by: str, target: str = ""
    ) -> Awaitable[CommandResult]: ...


class PhoneKeys:
    """Acts on keys of phones.

    Args:
        board: live calls.
        ask: sends a command to the bridge and waits for its result.
        ask_for_help: raises a help alert; ``None`` where the call is not live.
        count: told the action and what came of it, for the metrics.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        board: Board,
        ask: _Ask,
        ask_for_help: Callable[[str], Awaitable[tuple[Alert, bool] | None]],
        count: Callable[[Action, Outcome], None],
        clock: Callable[[], float],
    ) -> None:
        self._board = board
        self._ask = ask
        self._ask_for_help = ask_for_help
        self._count = count
        self._clock = clock
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._under_way: set[asyncio.Task[None]] = set()

    def take(self, key: PhoneKey, answer: Callable[[PhoneKeyDone], None]) -> None:
        """Act on a press in the background: a slow bridge or disk keeps nobody else waiting.

        Args:
            key: the press; one that was seen before is not acted on again.
            answer: told what came of it.
        """
        if key.key_id in self._seen:
            return
        self._seen[key.key_id] = None
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)

        async def press() -> None:
            outcome = await self.press(key)
            answer(PhoneKeyDone(key_id=key.key_id, outcome=outcome))

        task = asyncio.create_task(press())
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def press(self, key: PhoneKey) -> Outcome:
        """Do what the key says with the call that its agent is talking on."""
        action = Action.END if key.action == "end" else Action.HELP
        late = abs(self._clock() - key.ts) > LATE_S
        call = None if late else call_of(self._board, key.agent_id, key.ts)
        outcome: Outcome
        if late:
            outcome = "unreached"
        elif call is None:
            outcome = "no_call"
        elif action is Action.HELP:
            outcome = await self._help(call)
        else:
            outcome = await self._end(call)
        self._count(action, outcome)
        log.info(
            "phone_key",
            action=action.value,
            call_id=call.call_id if call else "",
            outcome=outcome,
        )
        return outcome

    async def _end(self, call: Call) -> Outcome:
        if call.ending_ts is not None:
            return "already"
        try:
            result = await self._ask(call.call_id, Action.END, BY_PHONE)
        except (BusError, TimeoutError):
            return "unreached"
        match result.status:
            case "done" | "already":
                return result.status
            case "unknown_call":
                return "no_call"
            case _:
                return "not_now"

    async def _help(self, call: Call) -> Outcome:
        if call.ending_ts is not None:
            return "no_call"
        try:
            async with asyncio.timeout(STORED_WITHIN_S):
                asked = await self._ask_for_help(call.call_id)
        except TimeoutError:
            # It is queued and goes out as soon as the database answers; nobody was told yet.
            return "unreached"
        if asked is None:
            return "no_call"
        return "done" if asked[1] else "already"


def call_of(board: Board, agent_id: str, ts: float) -> Call | None:
    """The call that an agent was talking on at a time: off hold before on hold, the newest first;
    one that is being ended only where there is no other. One that a manager took over is the
    manager's: a key that is pressed late must not end it.

    Args:
        board: live calls.
        agent_id: whose.
        ts: of the press: a call that was answered later is not meant.
    """
    calls = [
        call
        for call in board.calls.values()
        if call.agent_id == agent_id
        and not call.left
        and call.ended_ts is None
        and call.answered_ts is not None
        and call.answered_ts <= ts
    ]
    return max(
        calls,
        key=lambda call: (call.ending_ts is None, not call.held, call.answered_ts or 0.0),
        default=None,
    )
