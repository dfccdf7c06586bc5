"""What a person asked of a call: one command to the bridge, one result back, in time or not.

A request for help is told to the bridge too, which lets nobody join without one: kept, and said
again to a bridge that comes (back), until the bridge answered.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Callable

from callshield.errors import BusError
from callshield.messages import Action, Command, CommandResult

#: How long a person waits for the bridge's word.
TIMEOUT_S = 3.0
#: Ended calls remembered for a late second press.
_REMEMBERED = 2000


class BridgeAway(BusError):
    """No bridge is connected, or it went before it answered."""


class Commands:
    """Commands under way.

    Args:
        send: hands a command to the bridge; False when none is connected.
        timeout_s: how long a result may take.
    """

    def __init__(self, send: Callable[[Command], bool], timeout_s: float = TIMEOUT_S) -> None:
        self._send = send
        self._timeout_s = timeout_s
        self._results: dict[str, asyncio.Future[CommandResult]] = {}
        self._ends: dict[str, asyncio.Task[CommandResult]] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._help: OrderedDict[str, Command] = OrderedDict()

    async def ask(self, call_id: str, action: Action, by: str, target: str = "") -> CommandResult:
        """Send one command and wait for its result.

        *End* is sent once: a press while the first is under way shares its result, and a press
        after the bridge said ``done`` is told ``already``, even before the event of it came.

        Raises:
            BridgeAway: no bridge, or it went away.
            TimeoutError: no result in time.
        """
        if action is not Action.END:
            return await self._round(call_id, action, by, target)
        if call_id in self._ended:
            return CommandResult(command_id="", status="already")
        running = self._ends.get(call_id)
        if running is not None:
            result = await asyncio.shield(running)
            if result.status != "done":
                return result
            return CommandResult(command_id=result.command_id, status="already")
        task = asyncio.create_task(self._end(call_id, by))
        self._ends[call_id] = task
        task.add_done_callback(lambda done: self._forget(call_id, done))
        # A browser that goes away in between must not take the end back.
        return await asyncio.shield(task)

    def _forget(self, call_id: str, done: asyncio.Task[CommandResult]) -> None:
        self._ends.pop(call_id, None)
        if not done.cancelled():
            # Looked at here too: whoever pressed may have left.
            done.exception()

    async def _end(self, call_id: str, by: str) -> CommandResult:
        result = await self._round(call_id, Action.END, by)
        if result.status in ("done", "already"):
            self._ended[call_id] = None
            while len(self._ended) > _REMEMBERED:
                self._ended.popitem(last=False)
        return result

    async def _round(
        self, call_id: str, action: Action, by: str, target: str = ""
    ) -> CommandResult:
        command = Command(
            command_id=uuid.uuid4().hex, call_id=call_id, action=action, by=by, target=target
        )
        waiting: asyncio.Future[CommandResult] = asyncio.get_running_loop().create_future()
        self._results[command.command_id] = waiting
        try:
            if not self._send(command):
                raise BridgeAway("the bridge is not connected: press again in a few seconds")
            async with asyncio.timeout(self._timeout_s):
                return await waiting
        finally:
            del self._results[command.command_id]

    def tell_help(self, call_id: str, request_id: str, *, send: bool = True) -> None:
        """The agent asked for help on the console: the bridge must know.

        Args:
            call_id: the call.
            request_id: a bridge that has seen it takes it for the same request.
            send: now; without, only when a bridge comes (:meth:`bridge_came`).
        """
        command = Command(
            command_id=request_id, call_id=call_id, action=Action.HELP, by="agent:console"
        )
        self._help[request_id] = command
        while len(self._help) > _REMEMBERED:
            self._help.popitem(last=False)
        if send:
            self._send(command)

    def bridge_came(self) -> None:
        """Say again what no bridge has answered."""
        for command in self._help.values():
            self._send(command)

    def answered(self, result: CommandResult) -> None:
        """Take a result from the bus; one that nobody waits for any more is ignored."""
        self._help.pop(result.command_id, None)
        waiting = self._results.get(result.command_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(result)

    def bridge_left(self) -> None:
        """Fail what is under way: its result will not come."""
        for waiting in self._results.values():
            if not waiting.done():
                waiting.set_exception(
                    BridgeAway("the bridge went away before it answered: press again")
                )
