"""The detector process: ``python -m detectors.process --config callshield.toml``.

A shell of one asyncio loop round :class:`detectors.engine.Detector`: datagrams of the tap come
in, are queued with a bound (the oldest go first, counted), judged ten times a second in one batch
for all calls that have half a second of new audio, and risk changes go to the notifier's bus.
It keeps no state on disk: started anew in mid-call, it goes on with the next frame.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections import deque
from pathlib import Path

import structlog

from callshield import lifeline
from callshield.bus import BusClient
from callshield.errors import BusError, CallshieldError, DetectorModelError, TapError
from callshield.logs import configure_logs
from callshield.messages import Hello, NodeDegraded, NodeMessage, Reason, RiskChanged
from callshield.settings import Language, Settings, load_settings
from callshield.tap import MAX_DATAGRAM_BYTES, CallerFrame, decode_batch
from detectors.acoustic import AcousticModel
from detectors.engine import Detector, Verdict
from detectors.risk import SHOUTING, Rule

log = structlog.get_logger()

#: Seconds between two batches; a call's own decisions stay half a second apart.
TICK_S = 0.1
#: Datagrams that may wait for a tick: ten seconds of one datagram every 20 ms.
MAX_WAITING_DATAGRAMS = 512
#: Seconds between two lines of counters in the log.
REPORT_S = 60.0
#: Seconds without a drop after which the node counts as well again.
RECOVERY_S = 30.0
#: Seconds between two attempts to load a model that is missing or corrupt.
RETRY_S = 30.0

_PHRASES: dict[Language, dict[Rule, str]] = {
    "ko": {
        Rule.RAISED_VOICE: "고객의 목소리가 커졌습니다",
        Rule.SUSTAINED_EFFORT: "고객의 고성이 {seconds:.1f}초 이상 이어졌습니다",
        Rule.CALMED_DOWN: "고객의 목소리가 가라앉았습니다",
    },
    "en": {
        Rule.RAISED_VOICE: "The caller's voice is raised",
        Rule.SUSTAINED_EFFORT: "The caller has been shouting for {seconds:.1f} s or more",
        Rule.CALMED_DOWN: "The caller's voice has calmed down",
    },
    "zh": {
        Rule.RAISED_VOICE: "来电者提高了嗓门",
        Rule.SUSTAINED_EFFORT: "来电者持续大声喊叫 {seconds:.1f} 秒以上",
        Rule.CALMED_DOWN: "来电者的声音已平静下来",
    },
    "ja": {
        Rule.RAISED_VOICE: "お客様の声が大きくなっています",
        Rule.SUSTAINED_EFFORT: "お客様の大声が{seconds:.1f}秒以上続いています",
        Rule.CALMED_DOWN: "お客様の声が落ち着きました",
    },
}


def describe(rule: Rule, effort_s: float, language: Language) -> str:
    """A rule as a person reads it."""
    return _PHRASES[language][rule].format(seconds=effort_s)


def risk_changed(verdict: Verdict, ts: float, language: Language) -> RiskChanged:
    """A verdict that changed a level, as the notifier hears it; ``ts`` is Unix time."""
    decision = verdict.decision
    reasons = []
    if decision.rule is not None:
        reasons.append(
            Reason(
                kind="vocal_effort",
                score=round(decision.score, 4),
                detail=describe(decision.rule, decision.effort_s, language),
            )
        )
    return RiskChanged(
        ts=ts,
        call_id=verdict.call_id.hex(),
        level=decision.level,
        previous=decision.previous,
        categories=[SHOUTING] if decision.level else [],
        score=round(decision.score, 4),
        reasons=reasons,
        at_s=round(verdict.at_s, 2),
    )


class TapQueue(asyncio.DatagramProtocol):
    """Datagrams that wait for the next tick; the oldest go when there are too many."""

    def __init__(self, limit: int = MAX_WAITING_DATAGRAMS) -> None:
        self._waiting: deque[bytes] = deque()
        self._limit = limit
        self.dropped_datagrams = 0
        self.bad_datagrams = 0

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Called by the event loop."""
        if len(self._waiting) >= self._limit:
            self._waiting.popleft()
            self.dropped_datagrams += 1
        self._waiting.append(data)

    def error_received(self, exc: Exception) -> None:
        """Called by the event loop; the socket itself goes on."""
        log.warning("tap_socket_error", error=type(exc).__name__)

    def take(self) -> list[CallerFrame]:
        """All frames that wait, in order; what is no batch of ours is counted and skipped."""
        frames: list[CallerFrame] = []
        while self._waiting:
            try:
                frames += decode_batch(self._waiting.popleft())[1]
            except TapError as error:
                self.bad_datagrams += 1
                if self.bad_datagrams == 1:
                    log.warning("tap_datagram_bad", error=str(error))
        return frames


def open_tap(path: Path) -> socket.socket:
    """Bind the tap's datagram socket; a stale file is replaced.

    Raises:
        BusError: the socket cannot be made.
    """
    tap = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        tap.bind(str(path))
        os.chmod(path, 0o600)
    except OSError as error:
        tap.close()
        raise BusError(
            f"the socket {path} cannot be opened ({error.strerror or error}): choose a "
            "node.runtime_dir that this user can write to, with a path under 90 characters"
        ) from None
    tap.setblocking(False)
    tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * MAX_DATAGRAM_BYTES)
    return tap


class DetectorProcess:
    """The process, less its signals.

    Args:
        settings: the node's configuration.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._queue = TapQueue()
        self._lost_before = 0
        self._lost_at_s = -RECOVERY_S
        self._degraded = False
        self._reason = ""
        self._raised: dict[str, RiskChanged] = {}
        """The newest level of each call above 0; the engine forgets a call with a level 0."""
        self._bus: BusClient[NodeMessage] = BusClient(
            settings.bus_path, NodeMessage, self._ignore, self._hello
        )

    def _hello(self) -> list[NodeMessage]:
        """Said on every connection: what a notifier that died may not have stored."""
        messages: list[NodeMessage] = [
            Hello(role="detector", pid=os.getpid(), node=self._settings.node.name)
        ]
        if self._degraded:
            messages.append(self._degradation())
        return [*messages, *self._raised.values()]

    async def _ignore(self, _message: NodeMessage) -> None:
        """The detector takes no orders."""

    async def run(self, stop: asyncio.Event) -> None:
        """Judge calls until ``stop`` is set.

        Raises:
            BusError: the tap's socket cannot be opened.
        """
        tap = open_tap(self._settings.tap_path)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self._queue, sock=tap)
        self._bus.start()
        try:
            model = await self._load(stop)
            if model is not None:
                await self._judge(Detector(model), stop)
        finally:
            transport.close()
            await self._bus.flush(1.0)
            await self._bus.close()
            with contextlib.suppress(OSError):
                self._settings.tap_path.unlink()

    async def _load(self, stop: asyncio.Event) -> AcousticModel | None:
        """The model, as soon as there is one; None when told to stop first."""
        while not stop.is_set():
            try:
                model = AcousticModel(self._settings.detector.model_dir)
            except DetectorModelError as error:
                log.error("detector_model_unusable", error=str(error))
                self._tell_degraded(True, str(error))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), RETRY_S)
                continue
            self._tell_degraded(False, "")
            log.info("detector_ready", model=model.card.version, sha256=model.card.sha256[:12])
            return model
        return None

    async def _judge(self, detector: Detector, stop: asyncio.Event) -> None:
        report_at_s = time.monotonic() + REPORT_S
        next_tick_s = time.monotonic()
        while not stop.is_set():
            now_s = time.monotonic()
            detector.feed(self._queue.take(), now_s)
            for verdict in detector.step(now_s):
                if verdict.decision.changed:
                    self._publish(verdict)
            self._watch(detector, now_s)
            if now_s >= report_at_s:
                report_at_s = now_s + REPORT_S
                self._report(detector)
            next_tick_s = max(next_tick_s + TICK_S, time.monotonic() + TICK_S / 5)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), next_tick_s - time.monotonic())
        self._report(detector)

    def _publish(self, verdict: Verdict) -> None:
        message = risk_changed(verdict, time.time(), self._settings.node.language)
        if message.level:
            self._raised[message.call_id] = message
        else:
            self._raised.pop(message.call_id, None)
        self._bus.send(message)
        log.info(
            "risk_changed",
            call_id=message.call_id,
            level=message.level,
            previous=message.previous,
            score=message.score,
            at_s=message.at_s,
        )

    def _watch(self, detector: Detector, now_s: float) -> None:
        """Say when audio is being dropped, and when that has ended."""
        if detector.fault and not self._degraded:
            log.error("tap_codec_unusable", error=detector.fault)
            self._tell_degraded(True, detector.fault)
        lost = self._queue.dropped_datagrams + detector.counters.dropped_samples
        if lost > self._lost_before:
            self._lost_before, self._lost_at_s = lost, now_s
            if not self._degraded:
                self._tell_degraded(True, "more audio than can be analysed: the oldest is dropped")
        elif self._degraded and not detector.fault and now_s - self._lost_at_s >= RECOVERY_S:
            self._tell_degraded(False, "")

    def _tell_degraded(self, degraded: bool, reason: str) -> None:
        if degraded == self._degraded:
            return
        self._degraded, self._reason = degraded, reason
        self._bus.send(self._degradation())

    def _degradation(self) -> NodeDegraded:
        return NodeDegraded(
            ts=time.time(), component="detector", degraded=self._degraded, reason=self._reason
        )

    def _report(self, detector: Detector) -> None:
        counters = detector.counters
        log.info(
            "detector_load",
            calls=detector.calls,
            frames=counters.frames,
            decisions=counters.decisions,
            scored=counters.scored,
            dropped_datagrams=self._queue.dropped_datagrams,
            bad_datagrams=self._queue.bad_datagrams,
            dropped_ms=counters.dropped_samples // 8,
            filled_ms=counters.filled_samples // 8,
            late_packets=counters.late_packets,
            bad_packets=counters.bad_packets,
            refused_frames=counters.refused_frames,
        )


async def _main(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    lifeline.watch(loop, stop.set)
    await DetectorProcess(settings).run(stop)


def main() -> None:
    """Command line; exit status 2 on a wrong configuration, 1 on a socket that cannot be had."""
    parser = argparse.ArgumentParser(description="Judge the audio of callers (part of a node).")
    parser.add_argument("--config", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        settings = load_settings(arguments.config)
    except CallshieldError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    configure_logs("detector", level=settings.node.log_level)
    try:
        asyncio.run(_main(settings))
    except CallshieldError as error:
        log.error("detector_stopped", error=str(error))
        sys.stderr.write(f"{error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
