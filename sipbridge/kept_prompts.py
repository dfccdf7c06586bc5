"""The announcements of one run of the node, as they were when they were checked.

Whoever records a new announcement copies it over the old one, and the copy may be cut off, silent,
or another file than its manifest says. So a bridge plays from a copy of its own, made when the
files had been checked: what is put into the folder later counts from the next start of the node.
A bridge that is restarted in the middle of a run (it crashed) looks at the folder again: what is
good there is taken; what is not leaves the announcements as they were, with an alarm, because calls
without any would be worse.

The copy lies in ``node.runtime_dir/prompts/<digest>`` and is a prompt folder like any other, twice:
``own`` (the operator's) and ``shipped``. ``callshield serve`` removes it at its start and its end.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from callshield.errors import SetupError
from callshield.settings import Settings
from sipbridge.prompt_catalogue import SHIPPED, Prompt, PromptFolder, Prompts
from sipbridge.prompt_check import check_own
from sipbridge.prompt_manifest import FILE as MANIFEST

#: Names the copy in force.
_CURRENT: Final = "current"


@dataclass(frozen=True, slots=True)
class InForce:
    """What a bridge plays."""

    prompts: Prompts
    refused: str = ""
    """Why the configured folder is not what is played; empty: it is."""


def in_force(settings: Settings) -> InForce:
    """Check the configured announcements and keep them; or those that were kept in this run.

    Raises:
        SetupError: they cannot be used, and none were kept that this configuration could play.
    """
    store = settings.kept_prompts_path
    try:
        checked = Prompts(settings)
        check_own(checked)
        folder = _keep(store, settings, checked)
    except SetupError as error:
        kept = _kept(store, settings)
        if kept is None:
            raise
        return InForce(kept, str(error))
    return InForce(_load(folder, settings))


def changed_since(settings: Settings) -> list[str]:
    """``language/id`` of configured announcements that the running node plays as they were.

    Raises:
        SetupError: the configured ones cannot be used.
    """
    kept = _kept(settings.kept_prompts_path, settings)
    if kept is None:
        return []
    played = {(one.language, one.prompt_id): _hashes(one) for one in kept.all}
    return sorted(
        f"{one.language}/{one.prompt_id}"
        for one in Prompts(settings).all
        if played.get((one.language, one.prompt_id)) != _hashes(one)
    )


def _hashes(prompt: Prompt) -> tuple[str, str, str]:
    return prompt.version, prompt.sha256, prompt.wide.sha256 if prompt.wide else ""


def _kept(store: Path, settings: Settings) -> Prompts | None:
    """What was kept in this run; ``None``: nothing that this configuration could play."""
    try:
        name = (store / _CURRENT).read_text("ascii").strip()
        return _load(store / name, settings)
    except (OSError, UnicodeDecodeError, SetupError):
        return None


def _load(folder: Path, settings: Settings) -> Prompts:
    shipped = PromptFolder(folder / "shipped", shipped=True)
    own = PromptFolder(folder / "own") if settings.notice.prompt_dir else shipped
    return Prompts(settings, own=own, shipped=shipped)


def _keep(store: Path, settings: Settings, prompts: Prompts) -> Path:
    """Copy every file that was looked at, and make the copy what is in force."""
    files: dict[str, bytes] = {}
    roots = {"shipped": SHIPPED}
    if settings.notice.prompt_dir is not None:
        roots["own"] = settings.notice.prompt_dir
    try:
        for kind, root in roots.items():
            path = root / MANIFEST
            files[f"{kind}/{MANIFEST}"] = path.read_bytes() if path.exists() else b""
        for prompt in (one for folder in prompts.folders for one in folder.loaded.values()):
            kind = "own" if prompt.own else "shipped"
            narrow = (prompt.path, prompt.sha256)
            wide = [(prompt.wide.path, prompt.wide.sha256)] if prompt.wide else []
            for path, sha256 in (narrow, *wide):
                data = path.read_bytes()
                if hashlib.sha256(data).hexdigest() != sha256:
                    raise SetupError(
                        f"the prompt {path} was changed while it was being read: start again when "
                        "it has been copied"
                    )
                files[f"{kind}/{prompt.language}/{path.name}"] = data
        return _write(store, files)
    except OSError as error:
        raise SetupError(
            f"the announcements cannot be copied to {store} ({error.strerror}): make space there, "
            "and let the node write there"
        ) from None


def _holds(folder: Path, files: dict[str, bytes]) -> bool:
    """An earlier start of the bridge made this very copy, and it is whole."""
    try:
        return all((folder / name).read_bytes() == data for name, data in files.items())
    except OSError:
        return False


def _write(store: Path, files: dict[str, bytes]) -> Path:
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(f"{name}\0{hashlib.sha256(data).hexdigest()}\n".encode())
    folder = store / digest.hexdigest()[:16]
    if not _holds(folder, files):
        fresh = store / f"new-{os.getpid()}"
        for old in (fresh, folder):
            shutil.rmtree(old, ignore_errors=True)
        for name, data in files.items():
            path = fresh / name
            _own_folders(path.parent, store)
            path.touch(mode=0o600)
            path.write_bytes(data)
        fresh.rename(folder)
    named = store / f"{_CURRENT}.new"
    named.touch(mode=0o600)
    named.write_text(folder.name, "ascii")
    named.replace(store / _CURRENT)
    for other in store.iterdir():
        if other.is_dir() and other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def _own_folders(folder: Path, store: Path) -> None:
    """Make ``folder`` below ``store``: what a company says to its callers nobody else reads here,
    as nothing else in the node's folders."""
    if folder == store.parent:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return
    _own_folders(folder.parent, store)
    # One by one, because ``parents=True`` makes the ones above as the umask has it.
    folder.mkdir(mode=0o700, exist_ok=True)
