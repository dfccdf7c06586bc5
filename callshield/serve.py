"""``callshield serve``: start the node's processes, restart what dies, stop them in order.

Order of a clean stop: the bridge first (it takes no new calls and lets the running ones finish),
then media, detector and notifier. A process that dies is restarted after a growing pause; the
notifier is told (``node.degraded``), and tells people; that a part works again it says itself.
A process that hangs is ended like one that died, and systemd is told (:mod:`callshield.vigil`).
Signals from a terminal reach this process alone, and if it is killed, running calls finish first
(:mod:`callshield.lifeline`): audio does not depend on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import structlog

from callshield import heartbeat, lifeline
from callshield.bus import BusClient
from callshield.errors import SetupError
from callshield.loop_guard import LoopGuard
from callshield.messages import Hello, NodeDegraded, NodeMessage
from callshield.purpose_check import check_uses
from callshield.sd_notify import SdNotify
from callshield.settings import Settings
from callshield.vigil import Vigil

log = structlog.get_logger()

#: First and longest pause before a restart; a process that lived this long starts afresh.
FIRST_PAUSE_S, LONGEST_PAUSE_S, HEALTHY_AFTER_S = 0.2, 10.0, 30.0
#: Exit status of a process that cannot work as configured (its sentence is on stderr).
SETUP_FAILED = 2
#: What a process gets to end by itself, beyond the bridge's patience with calls.
END_TIMEOUT_S = 5.0
#: How long a killed one may take to be gone, at most, for the service manager's patience.
KILLED_WITHIN_S = 2.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the node."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    fatal: bool = True
    """The node does not begin without it where it cannot work as configured."""


def parts_of(settings: Settings) -> list[Part]:
    """The processes in the order in which they start."""
    parts = [Part("notifier", "notifier.process")]
    if settings.phones.enabled:
        # No call, and no warning on a console, waits for screens on phones.
        parts.append(Part("phones", "firmware_profiles.process", fatal=False))
    plane = {"relay": "sipbridge.media_worker", "rtpengine": "sipbridge.rtpengine_plane"}
    parts.append(Part("media", plane[settings.media.plane]))
    if settings.detector.enabled:
        parts.append(Part("detector", "detectors.process"))
        for number in range(1, settings.transcriber.workers + 1):
            name = f"transcriber-{number}"
            parts.append(Part(name, "detectors.transcriber", ("--name", name)))
    return [*parts, Part("bridge", "sipbridge.process")]


def _stop_with_parent() -> None:
    """Ask the kernel for a signal when the supervisor dies: the bridge then lets calls finish.

    It must be heard from the beginning: what a script runs in the background ignores SIGINT, and
    so would all that it starts.
    """
    signal.signal(lifeline.STOP, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, lifeline.STOP)


class Supervisor:
    """Keeps the processes of one node running.

    Args:
        settings: the node's configuration.
        config: its file, handed to each process.
        service: the service manager; nobody unless given.
        on_tick: called once a second while the event loop turns.
    """

    def __init__(
        self,
        settings: Settings,
        config: Path,
        service: SdNotify | None = None,
        on_tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._config = config
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._lifeline = os.pipe()
        self._stopping = asyncio.Event()
        self._failure = ""
        self.ready = asyncio.Event()
        self._bus: BusClient[NodeMessage] = BusClient(
            settings.bus_path, NodeMessage, self._ignore, self._introduce, limit=1000
        )
        self._vigil = Vigil(
            service or SdNotify(), settings.node.hang_timeout_s, self._hung, on_tick
        )

    async def _ignore(self, message: NodeMessage) -> None:
        return

    def _introduce(self) -> list[NodeMessage]:
        return [Hello(role="supervisor", pid=os.getpid(), node=self._settings.node.name)]

    def request_stop(self) -> None:
        """Begin a clean stop; asked twice, end the processes now."""
        if self._stopping.is_set():
            for process in self._processes.values():
                _signal(process, signal.SIGKILL)
        self._stopping.set()

    def pid_of(self, name: str) -> int | None:
        """Process id of a part, for tests and ``doctor``."""
        process = self._processes.get(name)
        return process.pid if process else None

    async def run(self) -> None:
        """Run until :meth:`request_stop`.

        Raises:
            SetupError: a process cannot work as configured, or a node runs here already.
        """
        for key, found in (
            ("[[peers]]", self._settings.peers),
            ("[agents.ID]", self._settings.agents),
        ):
            if not found:
                raise SetupError(f"no {key} in {self._config}: no call could come or go; add one")
        # A use of calls that the notice does not name does not begin.
        await asyncio.to_thread(check_uses, self._settings)
        for folder in (self._settings.node.runtime_dir, self._settings.node.state_dir):
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as error:
                raise SetupError(
                    f"the folder {folder} cannot be made ({error.strerror}): create it for this "
                    "user, or choose another in [node]"
                ) from None
        self._lock()
        self._forget_prompts()
        self._bus.start()
        self._vigil.start()
        parts = parts_of(self._settings)
        keepers = [asyncio.create_task(self._keep(part), name=part.name) for part in parts]
        for keeper in keepers:
            keeper.add_done_callback(self._keeper_ended)
        ready = asyncio.create_task(self._watch_ready())
        await self._stopping.wait()
        ready.cancel()
        patience_s = sum(self._patience_s(part) + KILLED_WITHIN_S for part in parts)
        self._vigil.stopping(patience_s)
        # The bridge first: calls finish while everything they need still runs.
        for part in reversed(parts):
            await self._end(part, keepers[parts.index(part)])
        await self._bus.close()
        self._forget_prompts()
        await self._vigil.close()
        for descriptor in self._lifeline:
            os.close(descriptor)
        if self._failure:
            raise SetupError(self._failure)

    def _forget_prompts(self) -> None:
        """The announcements that a run was begun with are those of this run alone."""
        shutil.rmtree(self._settings.kept_prompts_path, ignore_errors=True)

    def _lock(self) -> None:
        """One node a runtime folder: a second one would take the first one's sockets."""
        path = self._settings.node.runtime_dir / "node.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Held by this process alone, and gone with it however it ends.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise SetupError(
                f"a node is already running with node.runtime_dir = "
                f"{self._settings.node.runtime_dir}: stop it first, or choose another folder"
            ) from None

    async def _keep(self, part: Part) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            begun = time.monotonic()
            process = await self._spawn(part)
            self._processes[part.name] = process
            self._vigil.started(part.name, process.pid)
            log.info("process_started", part=part.name, pid=process.pid)
            status = await process.wait()
            self._vigil.ended(part.name)
            if self._stopping.is_set():
                return
            lived_s = time.monotonic() - begun
            log.error("process_died", part=part.name, status=status, lived_s=round(lived_s, 1))
            if status == SETUP_FAILED and part.fatal and not self.ready.is_set():
                self._failure = f"the {part.name} cannot start (its reason stands above)"
                self._stopping.set()
                return
            if lived_s > HEALTHY_AFTER_S:
                pause_s = FIRST_PAUSE_S
            self._tell(part, True, f"stopped with status {status}, restarting")
            await _first(asyncio.sleep(pause_s), self._stopping.wait())
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            if part.name == "notifier":
                # Whoever hears this is the new notifier itself.
                self._tell(part, False, "restarted")

    def _keeper_ended(self, keeper: asyncio.Task[None]) -> None:
        if not keeper.cancelled() and (error := keeper.exception()) is not None:
            self._failure = f"the {keeper.get_name()} cannot be started ({error})"
            self._stopping.set()

    async def _spawn(self, part: Part) -> asyncio.subprocess.Process:
        reading, writing = self._lifeline
        bridge = part.name == "bridge"
        beats = self._vigil.pipe(part.name)
        # A process that hangs prints where it stands before it is killed.
        told = {heartbeat.VARIABLE: str(beats), "PYTHONFAULTHANDLER": "1"}
        if not bridge:
            told[lifeline.VARIABLE] = str(reading)
        try:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                part.module,
                "--config",
                str(self._config),
                *part.arguments,
                stdout=2,  # our own standard output belongs to the command's answer
                # A session of its own: Ctrl-C in a terminal must not end media before the bridge.
                start_new_session=True,
                pass_fds=(beats, writing if bridge else reading),
                env={**os.environ, **told},
                preexec_fn=_stop_with_parent if bridge else None,
            )
        finally:
            os.close(beats)

    def _hung(self, name: str, silent_s: float) -> None:
        self._bus.send(
            NodeDegraded(
                ts=time.time(),
                component=name,
                degraded=True,
                reason=f"stood still for {silent_s:.0f} s, is ended and restarted",
            )
        )

    def _tell(self, part: Part, degraded: bool, reason: str) -> None:
        self._bus.send(
            NodeDegraded(ts=time.time(), component=part.name, degraded=degraded, reason=reason)
        )

    async def _watch_ready(self) -> None:
        """Ask the node's own /readyz until it says yes."""
        host = self._settings.web.bind
        host = f"[{host}]" if ":" in host else host
        url = f"http://{host}:{self._settings.web.port}/readyz"
        async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
            while True:
                try:
                    answer = await client.get(url)
                    # A store that is away hinders no call, and must not get the node restarted.
                    if (parts := answer.json()).get("bridge") and parts.get("media"):
                        self._vigil.ready()
                    if answer.status_code == 200:
                        break
                except (httpx.HTTPError, ValueError):
                    pass
                await asyncio.sleep(0.1)
        self.ready.set()
        log.info("node_ready", consoles=url.removesuffix("/readyz"))

    async def _end(self, part: Part, keeper: asyncio.Task[None]) -> None:
        process = self._processes.get(part.name)
        if process is not None and process.returncode is None:
            # One that only begins has no handlers yet, and may have been given an ignored SIGINT (a
            # node that a script runs in the background): SIGTERM ends it, and nothing else.
            _signal(process, signal.SIGTERM)
            _signal(process, lifeline.STOP)
            try:
                async with asyncio.timeout(self._patience_s(part)):
                    await process.wait()
            except TimeoutError:
                log.error("process_would_not_end", part=part.name)
                _signal(process, signal.SIGKILL)
                await process.wait()
            log.info("process_ended", part=part.name, status=process.returncode)
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)

    def _patience_s(self, part: Part) -> float:
        with_calls_s = self._settings.node.stop_timeout_s if part.name == "bridge" else 0.0
        return END_TIMEOUT_S + with_calls_s


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        # Not send_signal(): that one takes the status of a child that is just dead away from the
        # event loop, which then says 255.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


async def _first(*works: object) -> None:
    """Wait for whichever ends first."""
    tasks = [asyncio.ensure_future(work) for work in works]  # type: ignore[call-overload]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def serve(settings: Settings, config: Path) -> None:
    """Run a node until SIGTERM or SIGINT, as the only thing that this process does.

    Should this event loop ever stand still, the process prints where and exits: the kernel then
    tells the bridge, running calls finish, and the service manager starts the node anew.

    Raises:
        SetupError: a process cannot work as configured.
    """
    guard = LoopGuard(settings.node.hang_timeout_s)
    supervisor = Supervisor(settings, config, SdNotify.take(os.environ), guard.turn)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.request_stop)
    try:
        await supervisor.run()
    finally:
        guard.close()
