"""``manifest.toml`` of a prompt folder: what each announcement is, and what it tells the caller.

What it tells is stated by whoever wrote the text, because no program can hear it: whether the
notice covers what is done (presets of the law, purposes, keys) is decided by these words.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from callshield.errors import SetupError

FILE: Final = "manifest.toml"
#: What an announcement may tell: that software analyses the call; that it judges the voice too, not
#: the words alone; that the call is recorded; where the details can be read.
NAMES: Final = ("analysis", "voice", "recording", "details")

KeyFor = Literal["", "objection", "consent"]
_KEY: Final = re.compile(r"[0-9*#]")
_WORD: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Says:
    """What an announcement tells the caller, by its manifest."""

    names: frozenset[str] = frozenset()
    """Some of :data:`NAMES`."""
    purposes: frozenset[str] = frozenset()
    """For what: ``protection`` (of the staff), ``quality`` (of the service), or the operator's own
    words."""
    key: str = ""
    """The key that it names; ``""``: none."""
    key_for: KeyFor = ""
    """What that key does."""
    covers: frozenset[str] = frozenset()
    """Ids that need not be played beside it: it says what they say."""


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One ``[[prompt]]``; empty where it says nothing."""

    version: str = ""
    text: str = ""
    sha256: str = ""
    """Of ``ID.wav``."""
    sha256_16k: str = ""
    """Of ``ID.16k.wav``."""
    says: Says = field(default_factory=Says)


#: By language and prompt id.
Manifest = Mapping[tuple[str, str], ManifestEntry]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a prompt folder; empty where there is none.

    Raises:
        SetupError: it cannot be read, or an entry says something that has no meaning.
    """
    path = folder / FILE
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("prompt", [])
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SetupError(f"{path} cannot be read ({error}): mend or remove it") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise SetupError(f"{path}: write each prompt under a [[prompt]] of its own")
    found: dict[tuple[str, str], ManifestEntry] = {}
    for entry in entries:
        name, one = _entry(path, entry)
        if name in found:
            raise SetupError(f"{path}: {'/'.join(name)} stands there twice: remove one")
        found[name] = one
    return found


def _entry(path: Path, raw: dict[str, Any]) -> tuple[tuple[str, str], ManifestEntry]:
    prompt_id, language = _text(path, "?", raw, "id"), _text(path, "?", raw, "language")
    who = f"{language}/{prompt_id}"
    if not prompt_id or not language:
        raise SetupError(f"{path}: every [[prompt]] needs id and language")

    def text(key: str, wanted: re.Pattern[str] | None = None, example: str = "") -> str:
        value = _text(path, who, raw, key)
        if value and wanted and not wanted.fullmatch(value):
            raise SetupError(f"{path}: {who}: {key} is {value!r}, not such as {example}")
        return value

    key, key_for = text("key", _KEY, '"9"'), text("key_for")
    if key_for not in ("", "objection", "consent") or bool(key) != bool(key_for):
        raise SetupError(
            f'{path}: {who}: write key = "9" and key_for = "objection" (or "consent"), or neither'
        )
    names = _words(path, who, raw, "names")
    if unknown := names - set(NAMES):
        raise SetupError(
            f"{path}: {who}: names has {', '.join(sorted(unknown))}: only {', '.join(NAMES)} mean "
            "something"
        )
    says = Says(
        names,
        _words(path, who, raw, "purposes"),
        key,
        key_for,  # type: ignore[arg-type]
        _words(path, who, raw, "covers"),
    )
    sha256, sha256_16k = text("sha256", _SHA256, "sha256sum's"), text("sha256_16k", _SHA256)
    return (language, prompt_id), ManifestEntry(
        text("version"), text("text"), sha256, sha256_16k, says
    )


def _text(path: Path, who: str, raw: dict[str, Any], key: str) -> str:
    value = raw.get(key, "")
    if not isinstance(value, str):
        raise SetupError(f"{path}: {who}: {key} has to be in quotation marks")
    return value


def _words(path: Path, who: str, raw: dict[str, Any], key: str) -> frozenset[str]:
    value = raw.get(key, [])
    if not isinstance(value, list) or not all(
        isinstance(word, str) and _WORD.fullmatch(word) for word in value
    ):
        raise SetupError(f'{path}: {who}: {key} has to be a list such as ["protection", "quality"]')
    return frozenset(value)
