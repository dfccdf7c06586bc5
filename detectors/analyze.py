"""Recordings through the same pipeline as a live call: ``callshield analyze``.

A file is read in half-second blocks, brought to 8 kHz, coded as µ-law, cut into 20 ms RTP
payloads and fed to a :class:`detectors.engine.Detector`; an hour takes no more memory than a
second. Stereo is mixed to mono: whoever has the caller on a channel of its own gives that one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import soundfile
from numpy.typing import NDArray

from callshield import g711
from callshield.tap import CallerFrame, TapCodec, TapKind
from detectors.acoustic import AcousticModel
from detectors.engine import Detector, Verdict
from detectors.resample import RATE, BlockResampler, to_int16, to_mono
from detectors.risk import SHOUTING
from detectors.stream import HOP_S
from detectors.vad import FRAME

_CALL = bytes(16)
#: Raised windows this close together are one event, in seconds.
_MERGE_S = 1.0


class AnalysisEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of raised voice."""

    start: float
    """Seconds from the file's beginning."""
    end: float
    kind: str
    """``shouting``."""
    score: float
    """Highest running vocal-effort score inside, 0..1."""
    text: str = ""
    """Redacted words; empty without a transcriber."""


class AnalysisResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one recording holds; field names are the black-box interface."""

    file: str
    duration_s: float
    acoustic: float
    """Peak of the running vocal-effort score, 0..1."""
    level: int
    """Highest risk level, 0-3."""
    categories: list[str]
    events: list[AnalysisEvent]


class AnalysisFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A recording that cannot be read."""

    file: str
    error: str
    """A sentence."""


class LiveFile:
    """One recording on its way through the pipeline, as if it were a call.

    Args:
        model: the loaded acoustic model.
        rate: sample rate of what will be pushed, in Hz.
    """

    def __init__(self, model: AcousticModel, rate: int) -> None:
        self._detector = Detector(model)
        self._resampler = BlockResampler(rate)
        self._rest = np.zeros(0, dtype=np.int16)
        self._sent = 0

    def push(self, block: NDArray[np.float32], *, last: bool = False) -> list[Verdict]:
        """Take ``(n,)`` or ``(n, channels)`` float32, at most a second; return the verdicts."""
        mono = np.nan_to_num(to_mono(block), nan=0.0, posinf=1.0, neginf=-1.0)
        pcm = to_int16(self._resampler.push(mono, last=last))
        pcm = np.concatenate([self._rest, pcm])
        whole = len(pcm) if last else len(pcm) // FRAME * FRAME
        self._rest = pcm[whole:]
        payloads = g711.encode(pcm[:whole], g711.PCMU)
        frames = []
        for start in range(0, whole, FRAME):
            payload = payloads[start : start + FRAME]
            number = self._sent // FRAME
            frames.append(
                CallerFrame(
                    _CALL,
                    TapKind.AUDIO,
                    TapCodec.PCMU,
                    number % 2**16,
                    self._sent % 2**32,
                    number * 20 % 2**32,
                    payload,
                )
            )
            self._sent += len(payload)
        now_s = self._sent / RATE
        self._detector.feed(frames, now_s)
        if last:
            self._detector.finish(_CALL)
        return self._detector.step(now_s)


class Findings:
    """Collects verdicts into the figures of one recording."""

    def __init__(self, caution: float) -> None:
        self._caution = caution
        self.acoustic = 0.0
        self.level = 0
        self.events: list[AnalysisEvent] = []

    def add(self, verdict: Verdict) -> None:
        """Take the next verdict."""
        self.level = max(self.level, verdict.decision.level)
        if verdict.score is None:
            return
        self.acoustic = max(self.acoustic, verdict.score)
        if verdict.score < self._caution:
            return
        start, score = max(0.0, verdict.at_s - HOP_S), verdict.score
        if self.events and start - self.events[-1].end <= _MERGE_S:
            last = self.events.pop()
            start, score = last.start, max(last.score, score)
        self.events.append(
            AnalysisEvent(start=start, end=verdict.at_s, kind=SHOUTING, score=round(score, 4))
        )


@functools.cache
def _shared_model(folder: Path | None) -> AcousticModel:
    return AcousticModel(folder)


def analyze_file(path: Path, *, model: AcousticModel | None = None) -> AnalysisResult:
    """Run one WAV or FLAC file of any rate, length and channel count through the pipeline.

    Args:
        path: the recording.
        model: the acoustic model; the shipped one when absent.

    Raises:
        OSError: the file cannot be opened.
        soundfile.SoundFileError: it is no audio file, or breaks off.
        DetectorModelError: the shipped model is missing or corrupt.
    """
    model = model or _shared_model(None)
    findings = Findings(model.card.caution)
    with path.open("rb") as raw, soundfile.SoundFile(raw) as file:
        rate, total = int(file.samplerate), 0
        live = LiveFile(model, rate)
        size = max(1, rate // 2)
        while True:
            block = file.read(size, dtype="float32", always_2d=True)
            total += len(block)
            last = len(block) < size
            for verdict in live.push(block, last=last):
                findings.add(verdict)
            if last:
                break
    duration_s = total / rate
    events = [
        msgspec.structs.replace(e, start=round(e.start, 2), end=round(min(e.end, duration_s), 2))
        for e in findings.events
    ]
    return AnalysisResult(
        file=str(path),
        duration_s=round(duration_s, 3),
        acoustic=round(findings.acoustic, 4),
        level=findings.level,
        categories=[SHOUTING] if findings.level else [],
        events=events,
    )


def _attempt(path: Path, model_dir: Path | None) -> AnalysisResult | AnalysisFailure:
    model = _shared_model(model_dir)
    try:
        return analyze_file(path, model=model)
    except OSError as error:
        reason = f"cannot be opened ({error.strerror or error}): check the path and permissions"
    except soundfile.SoundFileError:
        reason = "is not a readable WAV or FLAC recording, or breaks off: export it again"
    except (ValueError, MemoryError) as error:
        reason = f"cannot be analysed ({error}): convert it to a WAV file of 8 or 16 kHz"
    return AnalysisFailure(file=str(path), error=f"{path} {reason}")


def analyze_paths(
    paths: Iterable[Path], *, jobs: int = 1, model_dir: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Analyse recordings, in the order given, one dictionary for each as in DESIGN's interface.

    Args:
        paths: the recordings.
        jobs: processes to work in.
        model_dir: folder of the acoustic model; the shipped one when absent.

    Yields:
        :class:`AnalysisResult` as a dictionary, or ``{"file", "error"}``. The exit status of a
        command that prints them is 1 when any has an ``"error"``.

    Raises:
        DetectorModelError: the model is missing or corrupt; nothing is analysed.
    """
    _shared_model(model_dir)
    attempt = functools.partial(_attempt, model_dir=model_dir)
    if jobs <= 1:
        yield from (msgspec.to_builtins(attempt(path)) for path in paths)
        return
    # Spawned, not forked: ONNX Runtime's threads do not survive a fork.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for result in pool.map(attempt, list(paths)):
            yield msgspec.to_builtins(result)
