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


class Prompts:
    """The configured announcements, checked once at start.

    Raises:
        SetupError: one is missing or has the wrong format.
    """

    def __init__(self, settings: Settings) -> None:
        notice = settings.notice
        folder = notice.prompt_dir or SHIPPED
        self.notice = tuple(load_prompt(folder, notice.language, p) for p in notice.prompts)
        self.closing = load_prompt(folder, notice.language, notice.closing)
        self.warnings = tuple(load_prompt(folder, notice.language, p) for p in notice.warnings)
        own_tone = folder / "common" / "notice_tone.wav"
        self.notice_tone = load_prompt(
            folder if own_tone.exists() else SHIPPED, "common", "notice_tone"
        )
        help_ids = ("joined", "handing_over", "hold_on", "handed_over")
        # Without a helper's phone nobody needs them: a folder of one's own may lack them then.
        self.help = (
            HelpPrompts(*(load_prompt(folder, notice.language, p) for p in help_ids))
            if settings.supervisors
            else None
        )
