"""Keeps built wheels, so that a second set-up takes no network and less than a second."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from callshield.errors import SetupError

from . import recipe
from .progress import Progress
from .source import sha256_of_file
from .wheel import abi

# Everything of ours that shapes the wheel's contents.
_INPUTS = (
    "config_site.h",
    *recipe.GUARD_SOURCES,
    "pjsip_connections.c",
    "pjsip_connections.h",
    "pjsip_dialogs.h",
    "pjsip_kept.h",
    "pjsip_paths.h",
    "pjsip_sdp.h",
    "pjsip_guard.pyi",
    "stubs.py",
    "wheel.py",
)


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return `${CALLSHIELD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/callshield}`.

    Raises:
        SetupError: none of the three is set.
    """
    if given := environment.get("CALLSHIELD_CACHE"):
        return Path(given).absolute()
    if xdg := environment.get("XDG_CACHE_HOME"):
        return Path(xdg).absolute() / "callshield"
    if home := environment.get("HOME"):
        return Path(home).absolute() / ".cache" / "callshield"
    raise SetupError(
        "HOME is not set, so there is no place for the built wheel: set CALLSHIELD_CACHE to a "
        "folder that may be written to."
    )


def recipe_key(os_release: Path = Path("/etc/os-release")) -> str:
    """Return a hash over all that shapes the wheel, but for pjproject's source.

    That is our own files, the build's flags, the interpreter's ABI, the machine and the release of
    the operating system, whose shared libraries the wheel is linked to.
    """
    total = hashlib.sha256()
    for name in _INPUTS:
        total.update(f"{name} {sha256_of_file(recipe.HERE / name)}\n".encode())
    flags = (
        recipe.CFLAGS,
        recipe.WRAPPER_FLAGS,
        recipe.GUARD_FLAGS,
        recipe.LINK_FLAGS,
        recipe.CONFIGURE_FLAGS,
        recipe.SWIG_FLAGS,
    )
    total.update("\n".join([*flags, abi(), _release(os_release), ""]).encode())
    return total.hexdigest()


def _release(os_release: Path) -> str:
    try:
        lines = os_release.read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    # VERSION_ID without a point release: Debian 12.5 and 12.6 share their libraries.
    return " ".join(
        sorted(
            line.strip()
            for line in lines
            if line.startswith(("ID=", "VERSION_ID=", "VERSION_CODENAME="))
        )
    )


class WheelCache:
    """Wheels in one folder, and an index from what was asked for to the wheel that answers it.

    A request is the recipe's key and either the hash of the source, or "auto" for whatever
    discovery would find: discovery needs the network, this look-up must not.

    Raises:
        SetupError: the folder can't be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "pjsua2"
        self._index = self.folder / "index.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SetupError(
                f"The cache folder {self.folder} cannot be made ({error.strerror}): set "
                "CALLSHIELD_CACHE to a folder that may be written to."
            ) from error

    def find(self, request: str) -> Path | None:
        """Return the wheel for a request, None where there is none or it is damaged."""
        entry = self._read().get(request)
        if entry is None:
            return None
        wheel = self.folder / entry["wheel"]
        try:
            return wheel if sha256_of_file(wheel) == entry["sha256"] else None
        except OSError:
            return None

    def put(self, requests: list[str], wheel: Path, origin: str) -> None:
        """Name a wheel in the cache folder as the answer to each request; call it locked."""
        index = self._read()
        entry = {"wheel": wheel.name, "sha256": sha256_of_file(wheel), "origin": origin}
        index.update(dict.fromkeys(requests, entry))
        partial = self._index.with_suffix(f".{os.getpid()}.part")
        partial.write_text(json.dumps(index, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(partial, self._index)

    @contextlib.contextmanager
    def locked(self, progress: Progress) -> Iterator[None]:
        """Hold the cache for building; a second set-up waits here until the first is through."""
        try:
            handle = (self.folder / "lock").open("a")
        except OSError as error:
            raise SetupError(
                f"The cache folder {self.folder} cannot be written to ({error.strerror}): set "
                "CALLSHIELD_CACHE to a folder that may be."
            ) from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                progress.note("another set-up is building pjsua2; waiting for it ...")
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            index = json.loads(self._index.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        fields = {"wheel", "sha256", "origin"}
        if not isinstance(index, dict):
            return {}
        return {
            key: entry
            for key, entry in index.items()
            if isinstance(entry, dict) and fields <= entry.keys()
        }
