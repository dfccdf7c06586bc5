"""The chain's head, noted beside the database: who removes the newest events leaves it behind.

One JSON object in a file of ``node.state_dir``, replaced whole after every commit (a crash may
leave it one batch behind, never ahead), and once an hour a log line, which can be shipped to where
nobody of this node can write.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path

import structlog

from notifier.chain import Head

log = structlog.get_logger()

LOG_EVERY_S = 3600.0


def read_head(path: Path) -> Head | None:
    """What was noted last; ``None`` when nothing was, or the file is no such note."""
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
        return Head(int(noted["id"]), str(noted["hash"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_head(path: Path, head: Head) -> None:
    """Note a head.

    Raises:
        OSError: the file cannot be written.
    """
    fresh = path.with_suffix(".head.new")
    descriptor = os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"id": head.last_id, "hash": head.hash}, file)
    os.replace(fresh, path)


class Anchor:
    """Notes the newest head in the background; a slow disk keeps nobody waiting.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._newest: Head | None = None
        self._noted: Head | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._logged_at = float("-inf")
        self.failing = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="anchor")

    def note(self, head: Head) -> None:
        """A batch was committed that ends here."""
        self._newest = head
        self._wake.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            head = self._newest
            if head is None or head == self._noted:
                continue
            try:
                await asyncio.to_thread(write_head, self._path, head)
            except OSError as error:
                if not self.failing:
                    log.error("chain_head_not_noted", error=error.strerror)
                self.failing = True
                continue
            self.failing = False
            self._noted = head
            if loop.time() - self._logged_at >= LOG_EVERY_S:
                self._logged_at = loop.time()
                log.info("chain_head", event_id=head.last_id, hash=head.hash)

    async def close(self) -> None:
        """Note what is not noted yet, and stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        head = self._newest
        if head is None:
            return
        if head != self._noted:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(write_head, self._path, head)
        log.info("chain_head", event_id=head.last_id, hash=head.hash)
