"""Detector and transcribers under test, and the bus reader that stands in for the notifier."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from callshield import lifeline
from callshield.bench_alerts import Arrived
from callshield.bus import BusServer, Peer
from callshield.errors import SetupError
from callshield.messages import NodeDegraded, NodeMessage, RiskChanged
from callshield.settings import load_settings
from sipbridge.bench_worker import cpu_s, rss_mib

#: Loading Whisper takes seconds, on a busy machine many.
_READY_S = 120.0
_LOOK_EVERY_S = 0.1
#: A process that does not end by itself within this time is killed.
_END_S = 5.0


class Part:
    """One process of the node, its log in a file.

    Args:
        module: what to run.
        log: where its log goes.
    """

    def __init__(self, module: str, log: Path) -> None:
        self._module = module
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._cpu_s = 0.0

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid

    async def start(self, watched: int, *arguments: str) -> None:
        """Run it; it ends when the write end of the pipe ``watched`` is closed."""
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", self._module, *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(watched,),
                env={**os.environ, lifeline.VARIABLE: str(watched)},
            )

    def events(self, *names: str) -> Iterator[dict[str, Any]]:
        """Lines of its log with these event names, so far."""
        for line in self._log.read_text("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and event.get("event") in names:
                    yield event

    def check(self) -> None:
        """See that it runs.

        Raises:
            SetupError: it does not; with what it said last.
        """
        if self._process is not None and self._process.returncode is not None:
            last = self._log.read_text("utf-8", "replace").strip().splitlines()[-1:]
            raise SetupError(
                f"{self._module} ended with status {self._process.returncode}: "
                f"{last[0] if last else 'it said nothing'}"
            )

    def begin(self) -> None:
        """Count its processor time from now on."""
        self._cpu_s = cpu_s(self.pid)

    def cost(self, seconds: float) -> dict[str, float]:
        """Resident memory now and at its highest, MiB; processor time since :meth:`begin`, % of a
        core.

        Raises:
            SetupError: it is gone.
        """
        try:
            took_s = cpu_s(self.pid) - self._cpu_s
            return {
                "rss_mib": round(rss_mib(self.pid), 1),
                "peak_mib": round(rss_mib(self.pid, "VmHWM"), 1),
                "cpu_core_pct": round(100 * took_s / seconds, 1),
            }
        except FileNotFoundError:
            self.check()
            raise SetupError(f"{self._module} died under load") from None

    async def stop(self) -> None:
        """End it; kill it if it does not (a process that stands still cannot end itself)."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _END_S)
        if process.returncode is None:
            process.kill()
            await process.wait()


class Analysis:
    """A detector, its transcribers, and what arrives from them on the bus.

    Args:
        folder: of the node; sockets are in its folder ``run``.
        transcribers: how many; 0: no words.
        speech_model: folder of the model; None: the one that is installed.
    """

    def __init__(self, folder: Path, transcribers: int, speech_model: Path | None) -> None:
        self._folder = folder
        self._count = transcribers
        self._model = speech_model
        self._lifeline: tuple[int, ...] = os.pipe()
        self._ready: set[str] = set()
        self._trouble = ""
        self.detector = Part("detectors.process", folder / "detector.log")
        self.transcribers = [
            Part("detectors.transcriber", folder / f"transcriber-{number}.log")
            for number in range(1, transcribers + 1)
        ]
        self.arrived: list[Arrived] = []
        """Every RiskChanged, in order."""
        self._bus: BusServer[NodeMessage] | None = None

    async def _on_message(self, _peer: Peer[NodeMessage], message: NodeMessage) -> None:
        match message:
            case RiskChanged():
                self.arrived.append(Arrived(time.time_ns(), message))
            case NodeDegraded() if message.component == "detector" and message.degraded:
                self._trouble = self._trouble or message.reason
            case NodeDegraded() if not message.degraded:
                self._ready.add(message.component)

    async def start(self) -> None:
        """Run all and wait until every model is loaded.

        Raises:
            SetupError: a model is missing or damaged, or a process cannot work.
        """
        config = self._folder / "analysis.toml"
        model = "" if self._model is None else f"model_dir = {json.dumps(str(self._model))}\n"
        config.write_text(
            f'[node]\nname = "bench"\nstate_dir = "{self._folder}"\n'
            f'runtime_dir = "{self._folder / "run"}"\n'
            f'[transcriber]\nworkers = {self._count}\nlanguage = "ko"\n{model}',
            encoding="utf-8",
        )
        self._bus = BusServer(load_settings(config).bus_path, NodeMessage, self._on_message)
        await self._bus.start()
        await self.detector.start(self._lifeline[0], "--config", str(config))
        for number, part in enumerate(self.transcribers, 1):
            name = f"transcriber-{number}"
            await part.start(self._lifeline[0], "--config", str(config), "--name", name)
        try:
            async with asyncio.timeout(_READY_S):
                while not self._all_ready():  # noqa: ASYNC110 (it looks into files)
                    await asyncio.sleep(_LOOK_EVERY_S)
        except TimeoutError:
            raise SetupError(
                f"detector and transcribers did not get ready within {_READY_S:.0f} s: "
                "is the machine overloaded?"
            ) from None

    def _all_ready(self) -> bool:
        self.detector.check()
        if self._trouble:
            raise SetupError(f"nothing can be analysed: {self._trouble}")
        for part in self.transcribers:
            part.check()
            for event in part.events("transcriber_model_unusable"):
                raise SetupError(
                    f"words cannot be measured: {event['error']} (without --asr the rest can be)"
                )
        named = {f"transcriber-{number}" for number in range(1, self._count + 1)}
        return named <= self._ready and any(self.detector.events("detector_ready"))

    @property
    def model_name(self) -> str:
        """What the transcribers recognise with; empty without."""
        for part in self.transcribers:
            for event in part.events("transcriber_ready"):
                return str(event["model"])
        return ""

    def begin(self) -> None:
        """Count everybody's processor time from now on."""
        for part in (self.detector, *self.transcribers):
            part.begin()

    async def stop(self) -> None:
        """End all, once or again: the detector first, so that its last report tells how it was
        under load."""
        for part in (self.detector, *self.transcribers):
            await part.stop()
        if self._bus is not None:
            await self._bus.close()
        descriptors, self._lifeline = self._lifeline, ()
        for descriptor in descriptors:
            os.close(descriptor)

    # ---------------------------------------------------------------- after stop(), from the log

    def frames_analysed(self) -> int:
        """Frames of 20 ms that the detector took and did not drop."""
        reports = list(self.detector.events("detector_load"))
        if not reports:
            return 0
        return int(reports[-1]["frames"]) - int(reports[-1]["dropped_ms"]) // 20

    def frames_taken(self) -> int:
        """Frames of 20 ms that the detector took."""
        reports = list(self.detector.events("detector_load"))
        return int(reports[-1]["frames"]) if reports else 0

    def coverage_pct(self) -> dict[str, float | None]:
        """Share of the speech that was written down, of aroused callers and of all; what was
        dropped or still waited is not. None where there was none."""
        return {name: coverage(self._speech(name)) for name in ("aroused", "all")}

    def _speech(self, name: str) -> list[dict[str, float]]:
        reports = self.detector.events("transcription_load")
        return [report["speech_s"][name] for report in reports]


def coverage(reports: list[dict[str, float]]) -> float | None:
    """Of the reports of one run in order, seconds of speech each: the share heard, %.

    ``offered`` (heard or dropped) and ``heard`` count from report to report, ``waiting`` is what
    waits at the moment of one; what waits at the last is counted as missed.
    """
    if not reports:
        return None
    offered_s = sum(one["offered"] for one in reports) + reports[-1]["waiting"]
    heard_s = sum(one["heard"] for one in reports)
    return round(100 * heard_s / offered_s, 2) if offered_s else None
