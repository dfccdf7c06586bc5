"""Recordings through the same pipeline as a live call: ``callshield analyze``.

A file is read in half-second blocks, brought to 8 kHz, coded as µ-law, cut into 20 ms RTP
payloads and fed to a :class:`detectors.engine.Detector`; an hour takes no more memory than a
second. Stereo is mixed to mono: whoever has the caller on a channel of its own gives that one.
With a speech model its words are heard too (:mod:`detectors.analyze_words`).
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
from detectors.analyze_words import FileListener, FileWords, WordsReader, load_reader
from detectors.engine import Detector, Listener, Verdict
from detectors.fusion import Decision, Fusion
from detectors.resample import RATE, BlockResampler, to_int16, to_mono
from detectors.risk import SHOUTING
from detectors.speech import SpeechJudge
from detectors.stream import HOP_S
from detectors.vad import FRAME
from detectors.word_evidence import WordEvidence, ordered

_CALL = bytes(16)
_CRISIS = "crisis"
#: Raised windows this close together are one event, in seconds.
_MERGE_S = 1.0


class AnalysisEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of raised voice, or an utterance with words that count."""

    start: float
    """Seconds from the file's beginning."""
    end: float
    kind: str
    """``shouting``; of words the gravest category, or ``crisis``."""
    score: float
    """Highest running vocal-effort score inside, or the words' score; 0..1."""
    text: str = ""
    """What was said, redacted; empty where words were not heard."""


class AnalysisResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one recording holds; field names are the black-box interface."""

    file: str
    duration_s: float
    acoustic: float
    """Peak of the sustained vocal-effort score (about three seconds of speech), 0..1."""
    level: int
    """Highest risk level, 0-3."""
    categories: list[str]
    """All that any level had, and ``crisis`` where the caller may be in danger."""
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
        listener: hears the words; none are heard without.
        speech: says what is speech; with the shipped model when absent.
    """

    def __init__(
        self,
        model: AcousticModel,
        rate: int,
        listener: Listener | None = None,
        speech: SpeechJudge | None = None,
    ) -> None:
        self._listener = listener
        self._detector = Detector(model, speech=speech, listener=listener)
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
        verdicts = self._detector.step(now_s)
        if last and self._listener is not None:
            self._listener.end(_CALL)
        return verdicts


class Findings:
    """Collects verdicts and words into the figures of one recording."""

    def __init__(self, caution: float) -> None:
        self._caution = caution
        self._fusion = Fusion()
        self._categories: set[str] = set()
        self._said: list[FileWords] = []
        self.acoustic = 0.0
        self.level = 0
        self.events: list[AnalysisEvent] = []

    @property
    def categories(self) -> list[str]:
        """In the order in which they are told."""
        rest = [name for name in (SHOUTING, _CRISIS) if name in self._categories]
        return [*ordered(self._categories), *rest]

    def _note(self, decision: Decision) -> None:
        self.level = max(self.level, decision.level)
        self._categories.update(decision.categories)

    def hear(self, heard: FileWords) -> None:
        """Take the next utterance."""
        words = heard.words
        evidence = WordEvidence.of(words)
        self._note(self._fusion.hear_words(evidence, heard.start_s, heard.end_s))
        self._said.append(heard)
        kinds = [*evidence.categories, *([_CRISIS] if words.crisis else [])]
        if words.crisis:
            self._categories.add(_CRISIS)
        if kinds:
            self.events.append(
                AnalysisEvent(
                    start=heard.start_s,
                    end=heard.end_s,
                    kind=kinds[0],
                    score=round(words.score, 4),
                    text=words.text,
                )
            )

    def finished(self, duration_s: float) -> list[AnalysisEvent]:
        """All events in order, none beyond the recording's end, each with what was said in it."""
        return [
            msgspec.structs.replace(
                event,
                start=round(event.start, 2),
                end=round(min(event.end, duration_s), 2),
                text=event.text or self._text(event),
            )
            for event in sorted(self.events, key=lambda event: event.start)
        ]

    def _text(self, event: AnalysisEvent) -> str:
        inside = (one for one in self._said if one.start_s < event.end and event.start < one.end_s)
        return " ".join(one.words.text for one in inside)

    def add(self, verdict: Verdict) -> None:
        """Take the next verdict."""
        spoke = verdict.score is not None
        self._note(self._fusion.hear_voice(verdict.decision, verdict.at_s, HOP_S, spoke=spoke))
        if verdict.score is None:
            return
        self.acoustic = max(self.acoustic, verdict.sustained or 0.0)
        if verdict.score < self._caution:
            return
        start, score = max(0.0, verdict.at_s - HOP_S), verdict.score
        before = max((n for n, e in enumerate(self.events) if e.kind == SHOUTING), default=None)
        if before is not None and start - self.events[before].end <= _MERGE_S:
            last = self.events.pop(before)
            start, score = last.start, max(last.score, score)
        self.events.append(
            AnalysisEvent(start=start, end=verdict.at_s, kind=SHOUTING, score=round(score, 4))
        )


@functools.cache
def _shared_model(folder: Path | None) -> AcousticModel:
    return AcousticModel(folder)


@functools.cache
def _shared_speech(folder: Path | None) -> SpeechJudge:
    return SpeechJudge.load(folder)


def analyze_file(
    path: Path,
    *,
    model: AcousticModel | None = None,
    reader: WordsReader | None = None,
    speech: SpeechJudge | None = None,
) -> AnalysisResult:
    """Run one WAV or FLAC file of any rate, length and channel count through the pipeline.

    Args:
        path: the recording.
        model: the acoustic model; the shipped one when absent.
        reader: writes down and judges words; none are heard without.
        speech: says what is speech; with the shipped model when absent.

    Raises:
        OSError: the file cannot be opened.
        soundfile.SoundFileError: it is no audio file, or breaks off.
        DetectorModelError: the shipped model is missing or corrupt.
    """
    model = model or _shared_model(None)
    findings = Findings(model.card.caution)
    with path.open("rb") as raw, soundfile.SoundFile(raw) as file:
        rate, total = int(file.samplerate), 0
        listener = None if reader is None else FileListener(reader)
        live = LiveFile(model, rate, listener, speech or _shared_speech(None))
        size = max(1, rate // 2)
        while True:
            block = file.read(size, dtype="float32", always_2d=True)
            total += len(block)
            last = len(block) < size
            for verdict in live.push(block, last=last):
                findings.add(verdict)
            for heard in listener.take() if listener is not None else ():
                findings.hear(heard)
            if last:
                break
    duration_s = total / rate
    return AnalysisResult(
        file=str(path),
        duration_s=round(duration_s, 3),
        acoustic=round(findings.acoustic, 4),
        level=findings.level,
        categories=findings.categories,
        events=findings.finished(duration_s),
    )


def _attempt(
    path: Path, model_dir: Path | None, words: str | None
) -> AnalysisResult | AnalysisFailure:
    model = _shared_model(model_dir)
    reader = None if words is None else load_reader(words)
    try:
        speech = _shared_speech(model_dir)
        return analyze_file(path, model=model, reader=reader, speech=speech)
    except OSError as error:
        reason = f"cannot be opened ({error.strerror or error}): check the path and permissions"
    except soundfile.SoundFileError:
        reason = "is not a readable WAV or FLAC recording, or breaks off: export it again"
    except (ValueError, MemoryError) as error:
        reason = f"cannot be analysed ({error}): convert it to a WAV file of 8 or 16 kHz"
    return AnalysisFailure(file=str(path), error=f"{path} {reason}")


def lacking(model_dir: Path | None, words: str | None) -> list[str]:
    """What recordings are analysed without, a sentence each.

    Args:
        model_dir: as for :func:`analyze_paths`.
        words: as there.

    Raises:
        DetectorModelError: there is nothing to hear words with.
    """
    speech = _shared_speech(model_dir).fault
    return [
        *([speech] if speech else []),
        *(load_reader(words).lacking if words is not None else []),
    ]


def analyze_paths(
    paths: Iterable[Path],
    *,
    jobs: int = 1,
    model_dir: Path | None = None,
    words: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Analyse recordings, in the order given, one dictionary for each as in DESIGN's interface.

    Args:
        paths: the recordings.
        jobs: processes to work in.
        model_dir: folder of the acoustic model, and of the speech model where it has one; the
            shipped ones when absent.
        words: the language in which to hear words; empty: find it out; None: hear none.

    Yields:
        :class:`AnalysisResult` as a dictionary, or ``{"file", "error"}``. The exit status of a
        command that prints them is 1 when any has an ``"error"``.

    Raises:
        DetectorModelError: a model is missing or corrupt; nothing is analysed.
    """
    _shared_model(model_dir)
    if words is not None:
        load_reader(words)
    attempt = functools.partial(_attempt, model_dir=model_dir, words=words)
    if jobs <= 1:
        yield from (msgspec.to_builtins(attempt(path)) for path in paths)
        return
    # Spawned, not forked: ONNX Runtime's threads do not survive a fork.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for result in pool.map(attempt, list(paths)):
            yield msgspec.to_builtins(result)
