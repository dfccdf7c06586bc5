"""The file for a caller who asked what is held on him: JSON, text, and his side of recordings.

Written whole or not at all, mode 0600: without a name until that it is given is stored, so that a
process that is killed leaves nothing on the disk that anybody could open, neither the file nor the
sound that is on its way into it. The agent's side is never in it as sound, unless the configuration
says that the law gives the caller a right to it (``privacy.agent_channel``); what the agent said
can be put in as text that a person wrote down.
"""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from callshield.errors import CallshieldError, RecordingError
from callshield.settings import Settings
from callshield.whole_file import WholeFile
from notifier.audit import begin_snapshot, read
from notifier.database import place_of
from notifier.retention_table import table
from notifier.subject_access import collect, neutral_of
from notifier.subject_text import kept_lines, page, readme
from sipbridge.recording_export import decoded_call
from sipbridge.recording_format import AGENT_CHANNEL, CALLER_CHANNEL
from sipbridge.recording_keys import KeyRing, load_keys
from sipbridge.recording_store import RecordingStore, StoredRecording
from sipbridge.recording_wav import nameless_file, wav_blocks

_SIDES = {"caller": CALLER_CHANNEL, "agent": AGENT_CHANNEL}


class AccessError(CallshieldError):
    """The file for a caller cannot be written."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was written."""

    calls: int
    recordings: int
    sha256: str


@dataclass(frozen=True, slots=True)
class _Sound:
    """Recordings of the calls, and how they are opened."""

    store: RecordingStore
    keys: KeyRing
    parts: Mapping[str, Sequence[StoredRecording]]
    sides: Sequence[str]

    @property
    def names(self) -> dict[str, list[str]]:
        """Files of each call that has any."""
        return {call_id: sorted(f"{side}.wav" for side in self.sides) for call_id in self.parts}


def write_answer(
    settings: Settings,
    out: Path,
    call_ids: Sequence[str],
    *,
    given: Callable[[Answer], None],
    marks: Sequence[str] = (),
    ref: str = "",
    language: str = "",
    agent_text: str = "",
    sound: bool = True,
    overwrite: bool = False,
) -> Answer:
    """Gather what is held of these calls, and write the zip.

    Args:
        settings: the node's configuration.
        out: the zip.
        call_ids: calls that have ended, whose reading was recorded.
        given: stores what is given, before the file has its name; where that fails there is none.
        marks: hashes of the caller's number by the keys of ``[ringback]``.
        ref: what the request is called.
        language: of the text; the node's when empty.
        agent_text: what the agent said in the one call, as a person wrote it down.
        sound: with the caller's side of recordings.
        overwrite: replace ``out``.

    Raises:
        AccessError: nothing is held, or ``out`` is there already, or cannot be written.
        RecordingError: a recording cannot be opened; nothing is written then.
        SetupError: the store cannot be read.
    """
    language = language or settings.node.language

    def gather(connection: Any) -> tuple[dict[str, Any], str]:
        begin_snapshot(connection)
        neutral = neutral_of(connection, settings, call_ids, language)
        found = collect(connection, settings, call_ids, marks, language=language)
        return found, neutral.text(agent_text)

    with WholeFile(out, AccessError, overwrite=overwrite) as whole:
        held, written = read(place_of(settings), gather)
        if not held["calls"] and not held["marks_of_the_number"]:
            raise AccessError("no call of this number is held, and no mark")
        heard = _sound(settings, call_ids) if sound else None
        try:
            names = heard.names if heard is not None else {}
            held["recordings"] = names
            held["made"] = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            held["reference"] = ref
            with zipfile.ZipFile(whole.file, "w", zipfile.ZIP_DEFLATED) as packed:
                _pack(packed, held, settings, language, written)
                if heard is not None:
                    _pack_sound(packed, heard, out.parent)
            digest = _sha256(whole.file)
        except OSError as failure:
            raise whole.failed(failure) from None
        finally:
            if heard is not None:
                heard.store.close()
        answer = Answer(len(call_ids), sum(map(len, names.values())), digest)
        whole.settle()
        given(answer)
        whole.keep()
    return answer


def _sha256(file: IO[bytes]) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _pack(
    packed: zipfile.ZipFile,
    held: Mapping[str, Any],
    settings: Settings,
    language: str,
    agent_text: str,
) -> None:
    zone = settings.reports.time_zone
    about = readme(
        language,
        made=held["made"],
        reference=held["reference"],
        calls=len(held["calls"]),
        kept=kept_lines({row.kind: row.days for row in table(settings)}, language),
    )
    packed.writestr("README.txt", about)
    text = json.dumps(held, ensure_ascii=False, indent=2) + "\n"
    packed.writestr("data.json", text)
    for call in held["calls"]:
        call_id = call["call_id"]
        names = held["recordings"].get(call_id, [])
        packed.writestr(f"calls/{call_id}/call.txt", page(call, language, zone, names, agent_text))


def _sound(settings: Settings, call_ids: Sequence[str]) -> _Sound | None:
    """The caller's side of each call's recording, and the agent's where the configuration has it
    so; ``None`` where there is none."""
    recording = settings.recording
    if not recording.directory.is_dir():
        return None
    sides = ["caller", *(["agent"] if settings.privacy.agent_channel == "include" else [])]
    store = RecordingStore(recording.directory)
    try:
        found = {call_id: list(store.stored(call_id)) for call_id in call_ids}
        found = {call_id: parts for call_id, parts in found.items() if parts}
        if found:
            return _Sound(store, load_keys(recording.key_file), found, sides)
    except BaseException:
        store.close()
        raise
    store.close()
    return None


def _pack_sound(packed: zipfile.ZipFile, heard: _Sound, folder: Path) -> None:
    """Decode every recording into the zip. What is decoded waits in files without a name, in the
    folder that the zip comes into."""

    def scratch() -> IO[bytes]:
        return nameless_file(folder)

    for call_id, parts in heard.parts.items():
        for side in sorted(heard.sides):
            about = zipfile.ZipInfo(f"calls/{call_id}/{side}.wav", time.localtime()[:6])
            about.compress_type, about.external_attr = zipfile.ZIP_DEFLATED, 0o600 << 16
            wanted = (_SIDES[side],)
            try:
                with (
                    decoded_call(heard.store, parts, heard.keys, scratch, sides=wanted) as audio,
                    packed.open(about, "w", force_zip64=True) as file,
                ):
                    for block in wav_blocks(audio.sides, audio.rates, audio.rate, audio.length):
                        file.write(block)
            except RecordingError as error:
                raise RecordingError(
                    f"the recording of call {call_id} cannot be given ({error}): mend that, or "
                    "leave recordings out with --without-recordings, and say so to the caller"
                ) from None
