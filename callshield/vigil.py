"""The supervisor's watch: hears its parts' heartbeats, ends what hangs, and tells systemd.

A part that hangs is killed like one that died, and restarted by the supervisor: that costs no
running call's audio unless it is the media worker, which is therefore given three times as long.
The service manager's watchdog is fed as long as that works. It is not fed any more when a part
without which there is no call stays silent whatever is done, or when the supervisor itself hangs:
then the service manager ends the node and starts it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable

import structlog

from callshield.hang_watch import HangWatch
from callshield.heartbeat import BEAT_S
from callshield.processor_wait import ProcessorWait
from callshield.sd_notify import SdNotify

log = structlog.get_logger()

#: Parts without which there is no call, and how much longer each is waited for.
VITAL = {"bridge": 1.0, "media": 3.0, "notifier": 1.0}
#: What a new process gets until its first beat: it loads models. The notifier may have to change
#: the tables of a large store, and must not be killed in the middle of that.
FIRST_BEAT_S, FIRST_BEAT_OF = 300.0, {"notifier": 3600.0}
#: For so long the service manager is asked to wait for a start.
START_WITHIN_S = 3600.0
#: A hung part gets so long to print where it stands (SIGABRT, faulthandler) before SIGKILL.
LAST_WORDS_S = 2.0
#: A vital part that hung must beat again within so long, or the watchdog is not fed: a process
#: takes 40 s to begin where the disk and both processors are busy.
RECOVER_WITHIN_S = 90.0
#: Each message to a manager that waits for the end buys so long.
EXTEND_S = 30.0
_MOST_BYTES = 4096


class Vigil:
    """Watches the processes of one node.

    Args:
        service: who is told; one that is nobody where there is no service manager.
        hang_timeout_s: silence after which a part hangs; 0: none ever does.
        on_hung: told of a part that hangs, before it is ended.
        on_tick: called once a second, as long as the supervisor's own loop turns.
    """

    def __init__(
        self,
        service: SdNotify,
        hang_timeout_s: float,
        on_hung: Callable[[str, float], None],
        on_tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._service = service
        self._timeout_s = hang_timeout_s
        self._on_hung = on_hung
        self._on_tick = on_tick
        self._begun = time.monotonic()
        self._watch = HangWatch(self._begun)
        self._pids: dict[str, int] = {}
        self._waits: dict[str, ProcessorWait] = {}
        self._ends: dict[str, asyncio.Task[None]] = {}
        self._ready = False
        self._calls = 0
        self._stop_by = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch, within the running loop."""
        self._task = asyncio.create_task(self._run(), name="vigil")

    def pipe(self, name: str) -> int:
        """The write end of a pipe for the heartbeats of a process to come; to be closed here once
        the process has it. What is read stops when the process is gone."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        loop = asyncio.get_running_loop()

        def heard() -> None:
            try:
                data = os.read(reading, _MOST_BYTES)
            except BlockingIOError:
                return
            if not data:
                loop.remove_reader(reading)
                os.close(reading)
                return
            self._watch.beat(name, time.monotonic())
            last = data.rstrip(b"\n").rpartition(b"\n")[2]
            if last.isdigit():
                self._calls = int(last)

        loop.add_reader(reading, heard)
        return writing

    def started(self, name: str, pid: int) -> None:
        """A part's process runs."""
        self._pids[name] = pid
        if self._timeout_s:
            self._waits[name] = ProcessorWait(pid)
            patience_s = self._timeout_s * VITAL.get(name, 1.0)
            self._watch.started(
                name,
                time.monotonic(),
                patience_s=patience_s,
                first_s=FIRST_BEAT_OF.get(name, FIRST_BEAT_S),
                vital=name in VITAL,
            )

    def ended(self, name: str) -> None:
        """A part's process was waited for."""
        self._pids.pop(name, None)
        self._waits.pop(name, None)
        self._watch.ended(name)
        if name == "bridge":
            self._calls = 0

    def ready(self) -> None:
        """Calls are taken."""
        self._ready = True
        self._service.status(self.status())
        self._service.ready()

    def stopping(self, within_s: float) -> None:
        """A clean stop began, which takes ``within_s`` at most."""
        self._stop_by = time.monotonic() + within_s
        self._service.stopping()
        self._service.status(self.status())

    def status(self) -> str:
        """One line for ``systemctl status``."""
        calls = f"{self._calls} call{'' if self._calls == 1 else 's'}"
        if self._stop_by:
            return f"stopping; {calls} may end by themselves"
        said = f"ready, {calls}" if self._ready else "starting"
        if self._ends:
            said += f"; {', '.join(sorted(self._ends))} hangs and is ended"
        return said

    async def _run(self) -> None:
        watchdog_s = self._service.watchdog_s
        pause_s = BEAT_S if watchdog_s is None else min(BEAT_S, watchdog_s / 3)
        while True:
            self._tick(time.monotonic())
            await asyncio.sleep(pause_s)

    def _tick(self, now: float) -> None:
        self._on_tick()
        for name, wait in self._waits.items():
            self._watch.forgive(name, now, wait.more())
        for name, silent_s in self._watch.look(now):
            if name in self._pids and name not in self._ends:
                log.error("process_hung", part=name, silent_s=round(silent_s, 1))
                self._on_hung(name, silent_s)
                self._ends[name] = asyncio.create_task(self._end(name, self._pids[name]))
        if lost := self._watch.hopeless(now, RECOVER_WITHIN_S):
            log.critical("watchdog_not_fed", parts=lost)
        else:
            self._service.feed()
        starts = not self._ready and now - self._begun < START_WITHIN_S
        if now < self._stop_by or (starts and not self._stop_by):
            self._service.extend(EXTEND_S)
        self._service.status(self.status())
        self._service.flush()

    async def _end(self, name: str, pid: int) -> None:
        try:
            for number in (signal.SIGABRT, signal.SIGKILL):
                if self._pids.get(name) != pid:
                    return  # it was waited for: the number may be somebody else's by now
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                await asyncio.sleep(LAST_WORDS_S)
        finally:
            del self._ends[name]

    async def close(self) -> None:
        """Stop watching."""
        tasks = [task for task in (self._task, *self._ends.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._service.close()
