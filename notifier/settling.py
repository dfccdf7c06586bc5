"""One task at most for each thing that must be put right at the PBX; what fails is tried again.

Whoever sees that something changed *kicks* its key. A key that is being settled is settled once
more when it was kicked meanwhile, so the last change always counts; a hundred kicks cost one round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from callshield.errors import AmiError, AmiProtocolError
from notifier.ami_client import AmiAway

log = structlog.get_logger()

#: What a connected PBX refused is tried again after this time.
RETRY_S = 5.0

Key = tuple[str, str]


class Settling:
    """The tasks.

    Args:
        settle: puts one key right, or raises.
        on_trouble: told every reason when they change, and ``None`` when nothing is refused any
            more.
    """

    def __init__(
        self,
        settle: Callable[[Key], Awaitable[None]],
        on_trouble: Callable[[str | None], None],
    ) -> None:
        self._settle = settle
        self._on_trouble = on_trouble
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._again: set[Key] = set()
        self._failing: dict[Key, str] = {}
        self._told = ""
        self._retry: asyncio.TimerHandle | None = None
        self._closing = False

    @property
    def failing(self) -> list[str]:
        """Why what is refused is refused, each reason once."""
        return sorted(set(self._failing.values()))

    def kick(self, key: Key) -> None:
        """Put a key right, soon."""
        if self._closing:
            return
        if key in self._tasks:
            self._again.add(key)
        else:
            self._tasks[key] = asyncio.create_task(self._run(key))

    def forget(self, key: Key) -> None:
        """A key is right, or does not matter any more."""
        if self._failing.pop(key, None) is not None:
            self._tell()

    def start_over(self) -> None:
        """What failed before is no news about what comes."""
        self._failing.clear()
        self._told = ""
        self._on_trouble(None)

    async def close(self) -> None:
        self._closing = True
        if self._retry is not None:
            self._retry.cancel()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, key: Key) -> None:
        try:
            while True:
                self._again.discard(key)
                try:
                    await self._settle(key)
                    self.forget(key)
                except AmiAway:
                    pass  # all of it is done when the connection is back
                except (AmiError, AmiProtocolError) as error:
                    self._fail(key, str(error))
                except Exception:  # it may go better the next time
                    log.exception("pbx_settling_failed", what=key[0])
                    self._fail(key, "an error of ours: see the log")
                if key not in self._again:
                    return
        finally:
            del self._tasks[key]

    def _fail(self, key: Key, reason: str) -> None:
        if self._failing.get(key) != reason:  # a try every few seconds is no news
            log.warning("pbx_refuses", what=key[0], reason=reason)
        self._failing[key] = reason
        self._tell()
        if self._retry is None and not self._closing:
            self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._try_again)

    def _tell(self) -> None:
        told = "; ".join(self.failing)
        if told != self._told:
            self._told = told
            self._on_trouble(told or None)

    def _try_again(self) -> None:
        self._retry = None
        for key in list(self._failing):
            self.kick(key)
