"""What each version of each announcement said: ``versions.toml``, which only grows.

The stamp on a call names prompt, language and version. Years later that has to be a text again,
whatever the announcement says by then, so a text keeps its version for ever and a version its
text. Pure functions on what ``tomllib`` read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

#: Language, prompt id and version.
Key = tuple[str, str, str]

_HEAD = (
    "# What each version of each announcement said. render.py adds to it; nothing is ever changed\n"
    "# or removed: stamps on calls point here.\n"
)


def key_of(entry: Mapping[str, Any]) -> Key:
    """Of an entry of ``texts.toml``, ``manifest.toml`` or ``versions.toml``."""
    return entry["language"], entry["id"], entry["version"]


def known(entries: Iterable[Mapping[str, Any]]) -> dict[Key, str]:
    """Texts by version.

    Raises:
        ValueError: one version stands there twice.
    """
    texts: dict[Key, str] = {}
    for entry in entries:
        key = key_of(entry)
        if key in texts:
            raise ValueError(f"versions.toml has {' '.join(key)} twice: remove the later one")
        texts[key] = entry["text"]
    return texts


def contradictions(
    texts: Iterable[Mapping[str, Any]], history: Mapping[Key, str], *, complete: bool = True
) -> list[str]:
    """Why these texts may not go out under the versions that they name; a sentence each.

    Args:
        texts: entries of ``texts.toml``.
        history: what each version said, see :func:`known`.
        complete: a version that the history does not have is a fault, too.
    """
    found = []
    for entry in texts:
        language, prompt_id, version = key = key_of(entry)
        said = history.get(key)
        if said is None and complete:
            found.append(f"{language}/{prompt_id} {version} is not in versions.toml: render it")
        if said is not None and said != entry["text"]:
            found.append(
                f"{language}/{prompt_id} no longer says what its version {version} said: give it "
                "another version in texts.toml"
            )
    return found


def written(history: Mapping[Key, str]) -> str:
    """``versions.toml``; JSON's strings are TOML's too."""
    lines = [_HEAD]
    for (language, prompt_id, version), text in sorted(history.items()):
        entry = {"id": prompt_id, "language": language, "version": version, "text": text}
        lines.append("\n[[version]]\n")
        lines += [f"{k} = {json.dumps(v, ensure_ascii=False)}\n" for k, v in entry.items()]
    return "".join(lines)
