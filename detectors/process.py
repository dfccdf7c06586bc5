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
import dataclasses
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from callshield import heartbeat, lifeline
from callshield.bus import BusClient
from callshield.errors import BusError, CallshieldError, DetectorModelError, TapError
from callshield.logs import configure_logs
from callshield.messages import (
    Action,
    AlertRaised,
    CallAnalysed,
    CallEnded,
    CallStarted,
    Command,
    Hello,
    NodeDegraded,
    NodeMessage,
    RiskChanged,
    WarningPlayed,
)
from callshield.settings import Settings, load_settings
from callshield.tap import MAX_DATAGRAM_BYTES, CallerFrame, decode_batch
from detectors.acoustic import AcousticModel
from detectors.engine import OUT_OF_REACH, Detector
from detectors.levels import HeardWords, Levels, RiskMessage
from detectors.reached import Figures
from detectors.risk import Policy
from detectors.speech import SpeechJudge
from detectors.thresholds import policies, strangers
from detectors.words_desk import WordsDesk

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


def call_analysed(call_id: bytes, figures: Figures, ts: float, model: str) -> CallAnalysed:
    """What is left of a call, as the notifier stores it; ``ts`` is Unix time."""
    return CallAnalysed(ts=ts, call_id=call_id.hex(), model=model, **dataclasses.asdict(figures))


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
        on_words: told, too, what callers said, judged and redacted.
    """

    def __init__(
        self, settings: Settings, on_words: Callable[[HeardWords], None] | None = None
    ) -> None:
        self._settings = settings
        self._too = on_words
        self._queue = TapQueue()
        self._lost_before = 0
        self._lost_at_s = -RECOVERY_S
        self._degraded = False
        self._reason = ""
        self._levels = Levels(settings.node.language)
        self._bus: BusClient[NodeMessage] = BusClient(
            settings.bus_path, NodeMessage, self.hear_news, self._hello
        )
        self._groups: dict[str, Policy] = {}
        """Thresholds of the groups that have their own."""
        self._members: dict[str, str] = {}
        """Group of each live call whose agent is in one."""
        self._unjudged: dict[str, bool] = {}
        """Calls whose sound is not judged, an operator speaks for the caller; True: it has ended,
        and its figures are still to come."""
        self._detector: Detector | None = None
        self._model = ""
        self._lacking = ""
        """Why there is no acoustic model; empty when there is."""
        self.words: WordsDesk | None = None
        """What turns speech into words; None when that is switched off."""
        if settings.transcriber.workers:
            self.words = WordsDesk(settings, self._bus.send, self._on_words)

    def _hello(self) -> list[NodeMessage]:
        """Said on every connection: what a notifier that died may not have stored."""
        messages: list[NodeMessage] = [
            Hello(role="detector", pid=os.getpid(), node=self._settings.node.name)
        ]
        if self._degraded:
            messages.append(self._degradation())
        for news in self._levels.news.values():
            messages += news.values()
        if self.words is not None:
            messages += self.words.news()
        return messages

    async def hear_news(self, message: NodeMessage) -> None:
        """Whose call begins or ended: what its caller speaks and its group's thresholds count; and
        where the agent asked for help, warned the caller or said that this is abuse. No other
        order is taken."""
        match message:
            case CallStarted():
                if message.spared == "relay_service":
                    self._unjudged.setdefault(message.call_id, False)
                    self._judge_by(message.call_id, "")
                agent = self._settings.agents.get(message.agent_id)
                if agent is None:
                    return
                if agent.language is not None and self.words is not None:
                    self.words.speaks(message.call_id, agent.language)
                judged = message.call_id not in self._unjudged
                if judged and agent.group in self._settings.detector.groups:
                    self._members[message.call_id] = agent.group
                    self._judge_by(message.call_id, agent.group)
            case WarningPlayed() | AlertRaised():
                # The agent's own judgement: these callers are heard first.
                if self.words is not None and message.call_id:
                    self.words.transcription.rouse(bytes.fromhex(message.call_id))
            case Command(action=Action.ABUSIVE):
                call_id = bytes.fromhex(message.call_id)
                if self.words is not None:
                    self.words.transcription.rouse(call_id)
                self._publish(self._levels.press(call_id, time.time()))
            case CallEnded():
                call_id = bytes.fromhex(message.call_id)
                if self._detector is None or not self._detector.knows(call_id):
                    # Of a call that was heard the last words may still be under way.
                    self._publish(self._levels.end(call_id, time.time()))
                own = self._members.pop(message.call_id, None) or message.call_id in self._unjudged
                if own and self._detector is not None:
                    self._detector.judge_by(call_id, None)
                if message.call_id in self._unjudged:
                    self._unjudged[message.call_id] = True
                    if self._detector is None or not self._detector.knows(call_id):
                        del self._unjudged[message.call_id]  # no figures will come

    def _judge_by(self, call_id: str, group: str) -> None:
        if self._detector is not None and call_id in self._unjudged:
            self._detector.judge_by(bytes.fromhex(call_id), OUT_OF_REACH)
        elif self._detector is not None and group in self._groups:
            self._detector.judge_by(bytes.fromhex(call_id), self._groups[group])

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
            if self.words is not None:
                await self.words.start()
            await self._judge(self._made(), stop)
        finally:
            transport.close()
            if self.words is not None:
                await self.words.close()
            await self._bus.flush(1.0)
            await self._bus.close()
            with contextlib.suppress(OSError):
                self._settings.tap_path.unlink()

    def _load(self) -> AcousticModel | None:
        """The model; None while there is none, which :attr:`_lacking` says."""
        try:
            model = AcousticModel(self._settings.detector.model_dir)
        except DetectorModelError as error:
            log.error("detector_model_unusable", error=str(error))
            self._lacking = str(error)
            if self.words is not None:
                self._lacking += "; until then only words raise a level"
            self._tell_degraded(True, self._lacking)
            return None
        self._lacking = ""
        for table in strangers(model.card, self._settings):
            log.warning("thresholds_of_another_model", table=table)
        self._model = model.card.sha256[:12]
        log.info("detector_ready", model=model.card.version, sha256=model.card.sha256[:12])
        return model

    def _made(self) -> Detector:
        """A detector with the thresholds of the configuration; without a model it hears words."""
        speech = SpeechJudge.load(self._settings.detector.model_dir)
        listener = None if self.words is None else self.words.transcription
        self._detector = Detector(None, speech=speech, listener=listener)
        self._take_model(self._detector)
        return self._detector

    def _take_model(self, detector: Detector) -> None:
        if not self._settings.detector.acoustic:
            log.info("acoustic_model_switched_off")
            return
        model = self._load()
        if model is None:
            return
        policy, self._groups = policies(model.card, self._settings)
        detector.use(model, policy)
        for call_id, group in self._members.items():
            self._judge_by(call_id, group)
        for call_id in self._unjudged:
            self._judge_by(call_id, "")

    def _mend(self, detector: Detector) -> None:
        """Look again for models that are missing or corrupt."""
        if self._lacking:
            self._take_model(detector)
        if detector.speech.fault:
            detector.speech = SpeechJudge.load(self._settings.detector.model_dir)

    async def _judge(self, detector: Detector, stop: asyncio.Event) -> None:
        report_at_s = time.monotonic() + REPORT_S
        next_tick_s = time.monotonic()
        retry_at_s = next_tick_s + RETRY_S
        while not stop.is_set():
            now_s = time.monotonic()
            detector.feed(self._queue.take(), now_s)
            for verdict in detector.step(now_s):
                if self.words is not None and verdict.decision.level:
                    self.words.transcription.rouse(verdict.call_id)
                self._publish(self._levels.hear_voice(verdict, time.time()))
            self._publish(self._levels.step(time.time()))
            self._tell_figures(detector.take_figures())
            self._watch(detector, now_s)
            if now_s >= retry_at_s:
                retry_at_s = now_s + RETRY_S
                self._mend(detector)
            if self.words is not None:
                self.words.step()
            if now_s >= report_at_s:
                report_at_s = now_s + REPORT_S
                self._report(detector)
            next_tick_s = max(next_tick_s + TICK_S, time.monotonic() + TICK_S / 5)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), next_tick_s - time.monotonic())
        self._tell_figures(detector.take_figures(all_calls=True))
        self._report(detector)

    def _on_words(self, heard: HeardWords) -> None:
        self._publish(self._levels.hear_words(heard, time.time()))
        if self._too is not None:
            self._too(heard)

    def _publish(self, messages: Iterable[RiskMessage]) -> None:
        for message in messages:
            self._bus.send(message)
            if isinstance(message, RiskChanged):
                log.info(
                    "risk_changed",
                    call_id=message.call_id,
                    # Not "level" (a line's own key, its log level), nor "previous" beside it.
                    risk_level=message.level,
                    risk_previous=message.previous,
                    categories=message.categories,
                    rules=[reason.rule for reason in message.reasons],
                    may_trigger=message.may_trigger,
                    score=message.score,
                    at_s=message.at_s,
                )
            else:
                log.info("crisis_hint", call_id=message.call_id, at_s=message.at_s)

    def _tell_figures(self, over: list[tuple[bytes, Figures]]) -> None:
        for call_id, figures in over:
            ended = self._unjudged.get(call_id.hex())
            if ended:  # else it was long on hold, and is heard again
                del self._unjudged[call_id.hex()]
            if ended is not None or not self._model:
                continue  # nothing judged it
            self._bus.send(call_analysed(call_id, figures, time.time(), self._model))

    def _watch(self, detector: Detector, now_s: float) -> None:
        """Say when audio is being dropped, and when that has ended."""
        fault = self._lacking or detector.fault
        if fault and fault != self._reason:
            log.error("detector_fault", error=fault)
            self._tell_degraded(True, fault)
        lost = self._queue.dropped_datagrams + detector.counters.dropped_samples
        if lost > self._lost_before:
            self._lost_before, self._lost_at_s = lost, now_s
            if not self._degraded:
                self._tell_degraded(True, "more audio than can be analysed: the oldest is dropped")
        elif self._degraded and not fault and now_s - self._lost_at_s >= RECOVERY_S:
            self._tell_degraded(False, "")

    def _tell_degraded(self, degraded: bool, reason: str) -> None:
        if (degraded, reason) == (self._degraded, self._reason):
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
        if self.words is not None:
            self.words.report()


async def _main(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    lifeline.stop_on_signals(loop, stop.set)
    lifeline.watch(loop, stop.set)
    heartbeat.beat(loop)
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
