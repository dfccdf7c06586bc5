"""A transcriber: ``python -m detectors.transcriber --config callshield.toml --name transcriber-1``.

A shell of one asyncio loop, which talks to the detector, round one thread, which recognises,
judges and redacts (CTranslate2 lets go of the interpreter while it works). It holds one piece of
speech at a time and nothing on disk; killed, it is started anew and the detector sends that piece
again. It runs at a lower priority than anything that carries audio and is the first to go when
the machine runs out of memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import structlog

from callshield import heartbeat, lifeline
from callshield.bus import BusClient
from callshield.errors import CallshieldError, DetectorModelError
from callshield.logs import configure_logs
from callshield.settings import Settings, load_settings
from detectors.asr.load import load_recogniser
from detectors.asr.protocol import RATE, Recogniser, Transcript
from detectors.redaction import redact
from detectors.text_pipeline import JudgedText, TextPipeline
from detectors.words import Judge
from detectors.words_link import LinkMessage, Transcribe, Transcribed, TranscriberState

log = structlog.get_logger()

#: Seconds between two attempts to load a model that is missing or corrupt.
RETRY_S = 30.0
#: A piece of speech that takes longer is a fault of the library's: the process ends itself.
STUCK_S = 60.0
#: Seconds between two lines of counters in the log.
REPORT_S = 60.0
#: Exit status of a process that was stuck.
STUCK_STATUS = 70
#: For /proc/self/oom_score_adj: sooner than any other part of the node.
OOM_SCORE_ADJ = 500

PipelineLoader = Callable[[Settings], TextPipeline]
RecogniserLoader = Callable[[TextPipeline], Recogniser]


class TranscriberProcess:
    """The process, less its signals.

    Args:
        settings: the node's configuration.
        name: of this part at the process supervisor.
        load_pipeline: judge and redaction.
        load_model: the recogniser; the configured one unless given.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        load_pipeline: PipelineLoader,
        load_model: RecogniserLoader | None = None,
    ) -> None:
        self._settings = settings
        self._name = name
        self._load_pipeline = load_pipeline
        self._load_model = load_model or self._configured
        self._recogniser: Recogniser | None = None
        self._pipeline: TextPipeline | None = None
        self._trouble = "its model is still being loaded"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recogniser")
        self._work: asyncio.Queue[Transcribe] = asyncio.Queue(maxsize=2)
        self._link: BusClient[LinkMessage] = BusClient(
            settings.words_path, LinkMessage, self._on_message, self._introduce, limit=8
        )
        self._done = 0
        self._rejected = 0
        self._cpu_s = 0.0
        self._audio_s = 0.0

    def _configured(self, pipeline: TextPipeline) -> Recogniser:
        languages = self._settings.caller_languages
        hotwords = {tongue: pipeline.judge.hotwords(tongue) for tongue in languages}
        return load_recogniser(self._settings.transcriber, languages, hotwords)

    def _state(self) -> TranscriberState:
        recogniser = self._recogniser
        return TranscriberState(
            name=self._name,
            pid=os.getpid(),
            ready=recogniser is not None,
            detail=self._trouble if recogniser is None else recogniser.name,
            lacking="; ".join(self._pipeline.lacking) if self._pipeline else "",
        )

    def _introduce(self) -> list[LinkMessage]:
        # What waits was sent on a connection that is gone: the detector sends it elsewhere.
        while not self._work.empty():
            self._work.get_nowait()
        return [self._state()]

    async def _on_message(self, message: LinkMessage) -> None:
        if not isinstance(message, Transcribe):
            return
        if self._work.full():  # the detector sends one at a time
            self._work.get_nowait()
        self._work.put_nowait(message)

    async def run(self, stop: asyncio.Event) -> None:
        """Transcribe until ``stop`` is set."""
        self._link.start()
        stopped = asyncio.create_task(stop.wait())
        working = asyncio.create_task(self._serve())
        try:
            await asyncio.wait({stopped, working}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            for task in (stopped, working):
                task.cancel()
            await asyncio.gather(stopped, working, return_exceptions=True)
            await self._link.close()
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._report()

    async def _serve(self) -> None:
        await self._load()
        report_at_s = time.monotonic() + REPORT_S
        retry_at_s = time.monotonic() + RETRY_S
        while True:
            request: Transcribe | None = None
            next_s = min(report_at_s, retry_at_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, next_s - time.monotonic())):
                    request = await self._work.get()
            if request is not None:  # outside of the timeout: no report may cost an answer
                await self._answer(request)
            if time.monotonic() >= report_at_s:
                report_at_s = time.monotonic() + REPORT_S
                self._report()
            if time.monotonic() >= retry_at_s:
                await self._complete()
                retry_at_s = time.monotonic() + RETRY_S

    async def _complete(self) -> None:
        """Look again for what the judge of words works without."""
        if self._pipeline is None or not self._pipeline.lacking:
            return
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._thread, self._load_pipeline, self._settings)
        except DetectorModelError as error:  # what there is still works
            log.error("transcriber_model_unusable", error=str(error))
            return
        if found.lacking != self._pipeline.lacking:
            self._pipeline = found
            log.info("word_models_changed", lacking=len(found.lacking))
            self._link.send(self._state())

    async def _load(self) -> None:
        """Load judge and model; retried while they are missing."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                self._pipeline = await loop.run_in_executor(
                    self._thread, self._load_pipeline, self._settings
                )
                self._recogniser = await loop.run_in_executor(
                    self._thread, self._load_model, self._pipeline
                )
            except DetectorModelError as error:
                log.error("transcriber_model_unusable", error=str(error))
                self._trouble = str(error)
                self._link.send(self._state())
                await asyncio.sleep(RETRY_S)
                continue
            log.info("transcriber_ready", model=self._recogniser.name)
            self._link.send(self._state())
            return

    async def _answer(self, request: Transcribe) -> None:
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._thread, self._transcribe, request)
        done, _ = await asyncio.wait({work}, timeout=STUCK_S)
        if not done:
            log.error("transcriber_stuck", call_id=request.call_id)
            os._exit(STUCK_STATUS)  # the thread cannot be stopped; the supervisor starts anew
        self._link.send(work.result())

    def _transcribe(self, request: Transcribe) -> Transcribed:
        """In the thread: one piece of speech; a failure costs that piece only."""
        assert self._recogniser is not None
        assert self._pipeline is not None
        begun_s = time.process_time()
        samples = np.frombuffer(request.samples[: len(request.samples) // 2 * 2], dtype="<i2")
        try:
            transcript = self._recogniser.transcribe(
                samples, request.language or None, request.expected
            )
            words = self._pipeline(transcript.text, transcript.language)
        except Exception as error:  # the process never dies of a call
            # Neither message nor traceback: they may quote what was said.
            log.error("transcription_failed", call_id=request.call_id, error=type(error).__name__)
            transcript = Transcript("", request.language, 0.0, 0.0, "failed")
            words = JudgedText()
        cpu_s = time.process_time() - begun_s
        self._done += 1
        self._rejected += bool(transcript.rejected)
        self._cpu_s += cpu_s
        self._audio_s += len(samples) / RATE
        return Transcribed(
            number=request.number,
            call_id=request.call_id,
            language=transcript.language,
            language_odds=transcript.language_odds,
            avg_logprob=transcript.avg_logprob,
            no_speech=transcript.no_speech,
            rejected=transcript.rejected,
            cpu_s=round(cpu_s, 4),
            words=words,
        )

    def _report(self) -> None:
        log.info(
            "transcriber_load",
            done=self._done,
            rejected=self._rejected,
            audio_s=round(self._audio_s, 1),
            cpu_s=round(self._cpu_s, 1),
        )


def load_pipeline(settings: Settings) -> TextPipeline:
    """Judge and redaction for the configured languages.

    Raises:
        DetectorModelError: a lexicon cannot be read.
    """
    return pipeline_for(settings.caller_languages)


def pipeline_for(languages: Sequence[str]) -> TextPipeline:
    """Judge and redaction for some languages; see :func:`load_pipeline`."""
    judge = Judge.load(tuple(languages))
    return TextPipeline(judge, redact, judge.missing)


def yield_to_audio(niceness: int) -> None:
    """Run after whatever carries audio, and be the first to go when memory runs out."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, max(niceness, os.getpriority(os.PRIO_PROCESS, 0)))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(f"{OOM_SCORE_ADJ}\n", encoding="ascii")


async def serve(process: TranscriberProcess) -> None:
    """Run a process until SIGTERM, SIGINT or the end of the node."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    lifeline.stop_on_signals(loop, stop.set)
    lifeline.watch(loop, stop.set)
    heartbeat.beat(loop)
    await process.run(stop)


def main() -> None:
    """Command line; exit status 2 on a wrong configuration."""
    parser = argparse.ArgumentParser(description="Write down what callers say (part of a node).")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--name", default="transcriber-1")
    arguments = parser.parse_args()
    try:
        settings = load_settings(arguments.config)
    except CallshieldError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    configure_logs(arguments.name, level=settings.node.log_level)
    # Before any library makes its threads: they inherit it.
    yield_to_audio(settings.transcriber.niceness)
    asyncio.run(serve(TranscriberProcess(settings, arguments.name, load_pipeline)))
    # A thread in the middle of a piece of speech is not waited for.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
