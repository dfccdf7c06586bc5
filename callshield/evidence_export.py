"""Makes one evidence package: recording, transcripts, report, data, manifest, encryption.

The one place where a recording is decoded, written down and put together with what the store knows.
Nothing is made before the notifier has recorded who opens the call and why; nothing is given out
before it has recorded the package's hash. What is decrypted or recognised on the way lies in this
process's memory or in files without a name; the package gets its name when it is whole.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from callshield.errors import EvidenceError, RecordingError
from callshield.messages_evidence import EvidenceAnswer, EvidenceMade, OpenEvidence
from callshield.notifier_request import WITHIN_S, ask_bus, request_id
from callshield.settings import Settings
from callshield.whole_file import WholeFile

if TYPE_CHECKING:
    from detectors.transcript import Scribe, Spoken
    from notifier.evidence_container import Source
    from notifier.evidence_font import Faces
    from notifier.evidence_key import SigningKey
    from notifier.evidence_plot import Sound
    from notifier.evidence_record import CallRecord
    from notifier.evidence_report import Transcript
    from notifier.evidence_seal import Seal
    from notifier.evidence_texts import Texts
    from sipbridge.recording_export import Decoded
    from sipbridge.recording_keys import KeyRing
    from sipbridge.recording_store import RecordingStore, StoredRecording

_SILENT = (
    "the notifier of this node does not answer, and it is what keeps the record of this: start the "
    "node (callshield serve) and try again as its user"
)
#: Tells how far it is: phase, 0..1.
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants of a call."""

    call_id: str
    out: Path
    token: str
    seal: Seal
    unredacted: bool = False
    recording: bool = True
    transcript: bool = True
    language: str = ""
    """Of the report; empty: the node's."""
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """What was made."""

    package_id: str
    sha256: str
    key_id: str
    files: list[str]
    why_no_transcript: str


@dataclass(frozen=True, slots=True)
class _Ready:
    """Everything that can be missing, found before anything is opened."""

    signing: SigningKey
    faces: Faces
    store: RecordingStore | None
    recordings: Sequence[StoredRecording]
    keys: KeyRing | None
    why_no_transcript: str


def export_evidence(settings: Settings, wish: Wish, progress: Progress) -> Made:
    """Make a package.

    Args:
        settings: of this node, which must be running.
        wish: of which call, and how.
        progress: told how far it is.

    Raises:
        EvidenceError: the request is not approved, the call runs, there is no recording, or the
            package cannot be written; nothing is left then.
        RecordingError: the recording cannot be read.
        SetupError: key, font, model or notifier are missing.
        DetectorModelError: the speech model is damaged.
    """
    with WholeFile(wish.out, EvidenceError, overwrite=wish.overwrite) as target, ExitStack() as on:
        ready = _prepare(settings, wish, on)
        package_id = uuid.uuid4().hex
        opened = _ask(
            settings,
            OpenEvidence(
                request_id=request_id(),
                call_id=wish.call_id,
                token=wish.token,
                package_id=package_id,
                unredacted=wish.unredacted,
                whole=wish.recording,
            ),
        )
        try:
            return _make(settings, wish, ready, opened, package_id, target, progress)
        except OSError as failure:
            raise target.failed(failure) from None


# ----------------------------------------------------------------------------------- beforehand


def _prepare(settings: Settings, wish: Wish, on: ExitStack) -> _Ready:
    from notifier.evidence_font import find_faces
    from notifier.evidence_key import load_signing_key

    signing = load_signing_key(settings.evidence.key_file)
    faces = find_faces(settings.evidence.font, wish.language or settings.node.language)
    if not wish.recording:
        if wish.unredacted:
            raise EvidenceError(
                "an unredacted transcript is made from the recording: leave --no-recording out"
            )
        return _Ready(signing, faces, None, (), None, "no_recording")
    from sipbridge.recording_keys import load_keys
    from sipbridge.recording_store import RecordingStore, check_call_id

    check_call_id(wish.call_id)
    try:
        store = RecordingStore(settings.recording.directory)
    except RecordingError:
        raise EvidenceError(_no_recording(settings, wish.call_id)) from None
    on.callback(store.close)
    recordings = list(store.stored(wish.call_id))
    if not recordings:
        raise EvidenceError(_no_recording(settings, wish.call_id))
    keys = load_keys(settings.recording.key_file)
    return _Ready(signing, faces, store, recordings, keys, _why_no_words(settings, wish))


def _no_recording(settings: Settings, call_id: str) -> str:
    from notifier.database import place_of
    from notifier.evidence_record import was_recorded

    what = (
        "was deleted since: recordings go after recording.retention_days, unless the agent asks "
        "for the evidence before"
        if was_recorded(place_of(settings), call_id)
        else "was never made"
    )
    return (
        f"there is no recording of call {call_id}: it {what}. With --no-recording the package is "
        "made of the rest"
    )


def _why_no_words(settings: Settings, wish: Wish) -> str:
    from detectors.transcript import is_installed

    if not wish.transcript and not wish.unredacted:
        return "not_wanted"
    if is_installed(settings.transcriber):
        return ""
    if wish.unredacted:
        raise EvidenceError(
            "an unredacted transcript needs the speech model, which is not here: `./run setup` "
            "installs it, transcriber.model_dir names another"
        )
    return "no_model"


def _ask(settings: Settings, message: OpenEvidence | EvidenceMade) -> EvidenceAnswer:
    answer = asyncio.run(ask_bus(settings.bus_path, message, EvidenceAnswer, WITHIN_S, _SILENT))
    if answer.refusal:
        raise EvidenceError(f"no package is made: {answer.refusal}")
    return answer


# --------------------------------------------------------------------------------- the package


def _make(
    settings: Settings,
    wish: Wish,
    ready: _Ready,
    opened: EvidenceAnswer,
    package_id: str,
    target: WholeFile,
    progress: Progress,
) -> Made:
    from notifier.database import place_of
    from notifier.evidence_container import content
    from notifier.evidence_manifest import write_package
    from notifier.evidence_package import Maker, blob_file, data_files, manifest_of, text_file
    from notifier.evidence_record import read_record
    from notifier.evidence_report import Report, make_report
    from notifier.evidence_seal import encrypt
    from notifier.evidence_timeline import timeline

    record = read_record(place_of(settings), wish.call_id, opened.asked_by)
    texts = _texts(settings, wish, str(record.call["agent_id"]))
    told = timeline(record.events, texts)
    maker = Maker(
        package_id=package_id,
        made_ts=time.time(),
        node=settings.node.name,
        role=opened.by_role,
        token_id=opened.by,
        key_id=ready.signing.public.key_id,
        unredacted=wish.unredacted,
    )
    with ExitStack() as on:
        heard = _hear(settings, wish, ready, record, texts, on, progress)
        report = Report(
            record=record,
            timeline=told,
            sound=heard.sound,
            transcript=heard.transcript,
            package_id=maker.package_id,
            made_ts=maker.made_ts,
            node=maker.node,
            key_id=maker.key_id,
            head=record.head,
            zone=settings.reports.time_zone,
        )
        progress("report", 0.0)
        sources = [
            text_file("readme.txt", texts.lines("report.readme")),
            blob_file("report.pdf", make_report(report, texts, ready.faces)),
            *heard.files,
            *data_files(record, told, texts),
        ]
        manifest = manifest_of(record, maker, sources)
        progress("package", 0.0)
        # Encrypted, the plain package is in memory alone.
        plain = target.file if wish.seal.kind == "none" else on.enter_context(_in_memory())
        manifest_sha256 = write_package(plain, manifest, sources, ready.signing)
        digest = hashlib.sha256()
        for block in content(plain):
            digest.update(block)
        if plain is not target.file:
            encrypt(plain, target.file, wish.seal)
    # A disk that is full says so now, before it is on record that the package was made.
    target.settle()
    _ask(
        settings,
        EvidenceMade(
            request_id=request_id(),
            call_id=wish.call_id,
            token=wish.token,
            package_id=maker.package_id,
            package_sha256=digest.hexdigest(),
            manifest_sha256=manifest_sha256,
            key_id=maker.key_id,
            unredacted=wish.unredacted,
            whole=wish.recording,
            encryption=wish.seal.kind,
        ),
    )
    try:
        target.keep()
    except EvidenceError as failure:
        raise EvidenceError(
            f"{failure}. The record says that package {maker.package_id} was made, and there is "
            "none: make another one"
        ) from None
    return Made(
        package_id=maker.package_id,
        sha256=digest.hexdigest(),
        key_id=maker.key_id,
        files=[source.name for source in sources],
        why_no_transcript=ready.why_no_transcript,
    )


def _texts(settings: Settings, wish: Wish, agent_id: str) -> Texts:
    from notifier.evidence_texts import texts

    agent = settings.agents.get(agent_id)
    team = settings.teams.get(agent.team) if agent else None
    public = team is not None and team.preset == "public"
    return texts(wish.language or settings.node.language, public=public)


def _in_memory() -> IO[bytes]:
    """A file that no disk ever sees (but swap may)."""
    return os.fdopen(os.memfd_create("evidence", os.MFD_CLOEXEC), "w+b")


# ------------------------------------------------------------------------------- what was heard


@dataclass(frozen=True, slots=True)
class _Heard:
    """What the recording gave."""

    files: list[Source]
    sound: Sound | None
    transcript: Transcript


def _hear(
    settings: Settings,
    wish: Wish,
    ready: _Ready,
    record: CallRecord,
    texts: Texts,
    on: ExitStack,
    progress: Progress,
) -> _Heard:
    from notifier.evidence_package import blob_file, json_file
    from notifier.evidence_report import Transcript

    why = ready.why_no_transcript
    said = texts.say(f"why.{why}") if why else ""
    if ready.store is None or ready.keys is None:
        return _Heard([], None, Transcript((), "", said))
    from sipbridge.recording_export import decoded_call
    from sipbridge.recording_flac import write_flac

    def scratch() -> IO[bytes]:
        return on.enter_context(_scratch(wish))

    scribe = None if why else _scribe(settings, wish)
    with decoded_call(
        ready.store,
        ready.recordings,
        ready.keys,
        scratch,
        progress=lambda done: progress("recording", done),
    ) as audio:
        flac = on.enter_context(_scratch(wish))
        write_flac(flac, audio)
        sound = _sound(audio)
        files = [blob_file("recording.flac", flac), json_file("recording.json", audio.sidecar)]
        spoken: list[Spoken] = []
        if scribe is not None:
            agent_id = str(record.call["agent_id"])
            spoken = _write_down(scribe, audio, settings, agent_id, progress)
            files += _transcripts(spoken, scribe.name, sound.began_ts, texts, wish)
    model = scribe.name if scribe else ""
    return _Heard(files, sound, Transcript(spoken, model, said))


def _scratch(wish: Wish) -> IO[bytes]:
    """Where audio waits: without a name; in memory where the package is encrypted."""
    from sipbridge.recording_wav import nameless_file

    return _in_memory() if wish.seal.kind != "none" else nameless_file(wish.out.parent)


def _scribe(settings: Settings, wish: Wish) -> Scribe:
    from detectors.transcript import load_scribe

    return load_scribe(settings.transcriber, settings.caller_languages, verbatim=wish.unredacted)


def _write_down(
    scribe: Scribe, audio: Decoded, settings: Settings, agent_id: str, progress: Progress
) -> list[Spoken]:
    """What the caller said; the agent's side is not read at all."""
    from detectors.caller_language import CallerLanguage

    agent = settings.agents.get(agent_id)
    language = (agent.language if agent else None) or settings.caller_language
    fixed = "" if language == "detect" else language
    caller = CallerLanguage(fixed, "" if fixed else settings.notice.language)
    side, rate = audio.sides[0], audio.rates[0]
    total = max(side.seek(0, 2), 1)
    found: list[Spoken] = []
    for one in scribe.transcribe(_blocks(side, rate // 2), rate, caller):
        found.append(one)
        progress("transcript", min(2 * one.end_s * rate / total, 1.0))
    return found


def _blocks(side: IO[bytes], size: int) -> Iterator[NDArray[np.float32]]:
    side.seek(0)
    while data := side.read(2 * size):
        yield np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)


def _sound(audio: Decoded) -> Sound:
    from notifier.evidence_plot import COLUMNS, Sound
    from sipbridge.recording_flac import envelope

    length_s = audio.length / audio.rate
    pauses = audio.sidecar["pauses"]
    return Sound(
        caller=envelope(audio.sides[0], COLUMNS),
        agent=envelope(audio.sides[1], COLUMNS),
        began_ts=audio.started_ns / 1e9,
        length_s=length_s,
        gaps=[(begin, length_s if end is None else end) for begin, end in pauses],
    )


def _transcripts(
    spoken: Sequence[Spoken], model: str, began_ts: float, texts: Texts, wish: Wish
) -> list[Source]:
    from notifier.evidence_package import at, json_file

    def told(verbatim: bool) -> dict[str, Any]:
        note = "transcript_verbatim_note" if verbatim else "transcript_note"
        return {
            "call_id": wish.call_id,
            "channel": "caller",
            "redacted": not verbatim,
            "model": model,
            "note": texts.say(f"report.{note}", model=model),
            "utterances": [
                {
                    "at": at(began_ts + one.start_s),
                    "start_s": round(one.start_s, 2),
                    "end_s": round(one.end_s, 2),
                    "language": one.language,
                    "text": one.verbatim if verbatim else one.text,
                }
                for one in spoken
            ],
        }

    files = [json_file("transcript_redacted.json", told(False))]
    if wish.unredacted:
        files.append(json_file("transcript_unredacted.json", told(True)))
    return files
