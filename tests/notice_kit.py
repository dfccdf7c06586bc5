"""A company's own folder of announcements: the shipped files, with a manifest of its own."""

from __future__ import annotations

import re
from pathlib import Path

from sipbridge.prompt_catalogue import SHIPPED


def prompts_naming(folder: Path, *purposes: str, prompt_id: str = "recording") -> Path:
    """A prompt folder whose notice tells callers of these purposes, in every language.

    Args:
        folder: it is made in there.
        purposes: of the one prompt.
        prompt_id: which.
    """
    own = folder / "own_prompts"
    own.mkdir()
    for language in SHIPPED.iterdir():
        if language.is_dir() and not language.name.startswith("_"):
            (own / language.name).symlink_to(language)
    words = ", ".join(f'"{purpose}"' for purpose in purposes)
    text = (SHIPPED / "manifest.toml").read_text(encoding="utf-8")
    parts = re.split(r"(?m)^(?=\[\[prompt\]\])", text)
    for number, part in enumerate(parts):
        if f'id = "{prompt_id}"\n' in part:
            parts[number] = re.sub(r"(?m)^purposes = .*\n", "", part).rstrip("\n")
            parts[number] += f"\npurposes = [{words}]\n\n"
    (own / "manifest.toml").write_text("".join(parts), encoding="utf-8")
    return own
