"""Announcements on disk: which exist, their version, hash and length.

A prompt folder holds ``<language>/<id>.wav`` (8 or 16 kHz, 16 bit, mono), ``common/<id>.wav`` for
sounds without words, and ``manifest.toml`` that names version and text. The WAV file itself is
the truth: its hash and length are read from it, and must agree with the manifest's.
"""

from __future__ import annotations

import hashlib
import tomllib
import wave
from dataclasses import dataclass
from pathlib import Path

from callshield.errors import SetupError
from callshield.settings import Settings
from callshield.settings_notice import Language
from sipbridge.prompt_file import RATES_HZ

#: The prompts that ship with Callshield.
SHIPPED = Path(__file__).parent / "prompts"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One announcement that can be played."""

    prompt_id: str
    language: str
    path: Path
    version: str
    sha256: str
    duration_s: float


def load_prompt(folder: Path, language: str, prompt_id: str) -> Prompt:
    """Find and check one prompt.

    Args:
        folder: a prompt folder; :data:`SHIPPED` or the operator's own.
        language: ``ko``, ``en``, ``zh``, ``ja`` or ``common``.
        prompt_id: small letters, digits and ``_``.

    Raises:
        SetupError: missing, not 8 or 16 kHz 16-bit mono, or not the file that the manifest names.
    """
    path = folder / language / f"{prompt_id}.wav"
    try:
        with wave.open(str(path), "rb") as audio:
            shape = (audio.getframerate(), audio.getsampwidth(), audio.getnchannels())
            frames = audio.getnframes()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise SetupError(
            f"the prompt {path} is missing: put the file there, or name another in [notice]"
        ) from None
    except (OSError, EOFError, wave.Error) as error:
        raise SetupError(f"the prompt {path} cannot be read ({error}): replace it") from None
    if shape[0] not in RATES_HZ or shape[1:] != (2, 1) or not frames:
        rate, width, channels = shape
        raise SetupError(
            f"the prompt {path} has {rate} Hz, {8 * width} bit, {channels} channel(s) and {frames} "
            "samples: convert it to 8000 Hz, 16 bit, mono"
        )
    version, expected = _manifest_entry(folder, language, prompt_id)
    if expected and expected != digest:
        raise SetupError(
            f"the prompt {path} is not the file that manifest.toml names (sha256 differs): "
            "restore it, or correct the manifest"
        )
    return Prompt(prompt_id, language, path, version or digest[:12], digest, frames / shape[0])


def _manifest_entry(folder: Path, language: str, prompt_id: str) -> tuple[str, str]:
    """``(version, sha256)`` from the folder's manifest; empty where it says nothing."""
    manifest = folder / "manifest.toml"
    try:
        entries = tomllib.loads(manifest.read_text(encoding="utf-8")).get("prompt", [])
    except FileNotFoundError:
        return "", ""
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SetupError(f"{manifest} cannot be read ({error}): mend or remove it") from None
    for entry in entries:
        if entry.get("id") == prompt_id and entry.get("language") == language:
            return str(entry.get("version", "")), str(entry.get("sha256", ""))
    return "", ""


@dataclass(frozen=True, slots=True)
class HelpPrompts:
    """What is said when somebody joins a call or takes it over."""

    joined: Prompt
    handing_over: Prompt
    hold_on: Prompt
    handed_over: Prompt


class PromptSet:
    """The configured announcements in one language.

    Args:
        settings: the node's configuration.
        language: of all of them.

    Raises:
        SetupError: one is missing or has the wrong format.
    """

    def __init__(self, settings: Settings, language: Language) -> None:
        notice = settings.notice
        self._folder, self._language = notice.prompt_dir or SHIPPED, language
        self.notice = tuple(self._own(p) for p in notice.prompts)
        self.closing = self._own(notice.closing)
        self.warnings = tuple(self._own(p) for p in notice.warnings)
        # Without a helper's phone nobody needs them: a folder of one's own may lack them then.
        self.help = (
            HelpPrompts(
                *(self._own(p) for p in ("joined", "handing_over", "hold_on", "handed_over"))
            )
            if settings.supervisors
            else None
        )
        self.call_back = self._late("call_back", wanted=bool(settings.callbacks.within_s))
        self.objection_accepted = self._late(
            "objection_accepted", wanted=bool(notice.objection_key)
        )
        on_demand = settings.recording.enabled and settings.recording.begin == "on_request"
        self.recording = self._own("recording") if on_demand else None
        self.resumed = self._late("recording_resumed", wanted=notice.announce_resumed)

    def _own(self, prompt_id: str) -> Prompt:
        return load_prompt(self._folder, self._language, prompt_id)

    def _late(self, prompt_id: str, *, wanted: bool) -> Prompt | None:
        """One that came later than many a folder of one's own: then ours is played."""
        if not wanted:
            return None
        own = self._folder / self._language / f"{prompt_id}.wav"
        return load_prompt(self._folder if own.exists() else SHIPPED, self._language, prompt_id)


class Prompts:
    """The configured announcements in every language that a caller may hear, checked at start.

    Raises:
        SetupError: one is missing or has the wrong format.
    """

    def __init__(self, settings: Settings) -> None:
        notice = settings.notice
        self._sets: dict[str, PromptSet] = {
            language: PromptSet(settings, language) for language in notice.spoken
        }
        self.usual = self._sets[notice.language]
        folder = notice.prompt_dir or SHIPPED
        own_tone = folder / "common" / "notice_tone.wav"
        self.notice_tone = load_prompt(
            folder if own_tone.exists() else SHIPPED, "common", "notice_tone"
        )

    def of(self, language: str) -> PromptSet:
        """The announcements in one of :attr:`NoticeSettings.spoken`; else in the usual language."""
        return self._sets.get(language, self.usual)
