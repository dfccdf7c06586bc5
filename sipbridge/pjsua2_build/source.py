"""Finds pjproject's source code: a path given, the upstream release, or the Debian archive."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from callshield.errors import SetupError

from .apt_source import fetch_from_debian

UPSTREAM_VERSION = "2.17"
UPSTREAM_URL = "https://github.com/pjsip/pjproject/archive/refs/tags/{version}.tar.gz"
UPSTREAM_TIMEOUT_S = 8.0

SOURCE_VARIABLE = "CALLSHIELD_PJPROJECT"
HASH_VARIABLE = "CALLSHIELD_PJPROJECT_SHA256"

OLDEST_VERSION = (2, 16)  # the bridge sets AccountMediaConfig.textCount, new in 2.16

HOW_TO_GIVE = (
    f"Download the pjproject {UPSTREAM_VERSION} release from {UPSTREAM_URL} on a machine that can, "
    "and give it: `./run setup --pjproject FILE`, or set "
    f"{SOURCE_VARIABLE}=FILE; an unpacked folder will do as well."
).format(version=UPSTREAM_VERSION)

_IGNORED = shutil.ignore_patterns(".git", "*.o", "*.a", "*.so", "*.depend", "__pycache__")


@dataclass(frozen=True)
class Source:
    """A pjproject source that is on this machine and whose hash is known.

    `path` is a tarball or a folder; `sha256` is the tarball's, or that of the folder's files and
    their names; `origin` says in a few words where it came from.
    """

    path: Path
    sha256: str
    origin: str


def sha256_of_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_tree(folder: Path) -> str:
    """Return a SHA-256 over the names and bytes of a folder's files, build results left out."""
    total = hashlib.sha256()
    for root, folders, files in os.walk(folder):
        ignored = _IGNORED(root, [*folders, *files])
        folders[:] = sorted(f for f in folders if f not in ignored)
        for name in sorted(f for f in files if f not in ignored):
            path = Path(root, name)
            if path.is_file():
                relative = path.relative_to(folder).as_posix()
                total.update(f"{relative}\0{sha256_of_file(path)}\n".encode())
    return total.hexdigest()


def expected_hash(environment: dict[str, str] | os._Environ[str] = os.environ) -> str:
    """Return the hash that the operator demands, in lower case, or an empty string.

    Raises:
        SetupError: it is not a SHA-256.
    """
    value = environment.get(HASH_VARIABLE, "").strip().lower()
    if value and not re.fullmatch(r"[0-9a-f]{64}", value):
        raise SetupError(
            f"{HASH_VARIABLE} must be the 64 hexadecimal digits of a SHA-256; it has {len(value)} "
            "characters. Correct it or unset it."
        )
    return value


def check_hash(path: Path, found: str, expected: str) -> None:
    """Refuse a file whose SHA-256 is not the expected one.

    Raises:
        SetupError: the two differ.
    """
    if found != expected:
        raise SetupError(
            f"{path.name} is not the file that was expected: its SHA-256 is {found}, expected was "
            f"{expected}. It is not used; get it again, or correct {HASH_VARIABLE}."
        )


def given_source(path: Path) -> Source:
    """Take the tarball or folder that the operator named.

    Raises:
        SetupError: it is not there, or its hash is not the one in the environment.
    """
    try:
        path = path.expanduser().resolve()
        if path.is_dir():
            source = Source(path, sha256_of_tree(path), f"the folder {path.name}")
        elif path.is_file():
            source = Source(path, sha256_of_file(path), f"the file {path.name}")
        else:
            raise SetupError(f"There is no pjproject source at {path}: give a tarball or a folder.")
    except (OSError, RuntimeError) as error:
        raise SetupError(f"The pjproject source at {path} cannot be read: {error}.") from error
    if expected := expected_hash():
        check_hash(path, source.sha256, expected)
    return source


def download_upstream(target: Path, expected: str) -> Source:
    """Download the upstream release and check it against the hash that the operator gave.

    Raises:
        SetupError: it can't be reached, or it is another file.
    """
    url = UPSTREAM_URL.format(version=UPSTREAM_VERSION)
    try:
        with (
            urllib.request.urlopen(url, timeout=UPSTREAM_TIMEOUT_S) as answer,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(answer, file)
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", None) or error
        raise SetupError(f"the upstream release could not be downloaded ({reason}).") from error
    found = sha256_of_file(target)
    check_hash(target, found, expected)
    return Source(target, found, f"the upstream release {UPSTREAM_VERSION}")


def discover(folder: Path, etc_apt: Path = Path("/etc/apt")) -> Source:
    """Download pjproject's source into `folder` from where it can be had and checked.

    The upstream release is asked only when the operator gave its SHA-256
    (`CALLSHIELD_PJPROJECT_SHA256`): nothing else here could tell it from a forgery. Debian's
    archive is signed, and the machine trusts its keys already.

    Raises:
        SetupError: nobody has it; says what was tried and how to give one.
    """
    tried = []
    if expected := expected_hash():
        try:
            return download_upstream(folder / f"pjproject-{UPSTREAM_VERSION}.tar.gz", expected)
        except SetupError as error:
            tried.append(str(error))
    else:
        tried.append(
            f"the upstream release was not asked, for want of a hash to check it ({HASH_VARIABLE})."
        )
    target = folder / "pjproject.tar"
    try:
        file = fetch_from_debian(target, etc_apt)
    except SetupError as error:
        tried.append(str(error))
    else:
        kind, digest = file.digest
        with target.open("rb") as data:
            found = hashlib.file_digest(data, kind).hexdigest()
        if found != digest:
            raise SetupError(
                f"{file.name} came damaged: its {kind} is {found}, apt expected {digest}. Try "
                "again."
            )
        sha256 = found if kind == "sha256" else sha256_of_file(target)
        if expected:
            check_hash(Path(file.name), sha256, expected)
        return Source(target, sha256, f"Debian's {file.name}")
    lines = "\n".join(f"  - {text}" for text in tried)
    raise SetupError(f"No pjproject source could be found:\n{lines}\n{HOW_TO_GIVE}")


def unpack(source: Source, folder: Path) -> Path:
    """Unpack or copy the source below `folder` and return pjproject's top folder.

    Raises:
        SetupError: it is not a pjproject source, or one too old.
    """
    tree = folder / "source"
    try:
        if source.path.is_dir():
            shutil.copytree(source.path, tree, symlinks=True, ignore=_IGNORED)
        else:
            with tarfile.open(source.path, "r:*") as archive:
                _extract(archive, tree)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SetupError(
            f"{source.path.name} cannot be unpacked ({error}): give a tarball (.tar.gz, .tar.bz2, "
            ".tar.xz) or a folder of pjproject."
        ) from error
    children = [tree, *sorted(p for p in tree.iterdir() if p.is_dir())]
    top = next((p for p in children if (p / "version.mak").is_file()), None)
    if top is None or not (top / "pjsip-apps/src/swig/pjsua2.i").is_file():
        raise SetupError(
            f"{source.path.name} is not a pjproject source: it has no version.mak or no "
            "pjsip-apps/src/swig. Give the release as its authors publish it."
        )
    version = version_of(top)
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST_VERSION:
        oldest = ".".join(str(n) for n in OLDEST_VERSION)
        raise SetupError(f"This is pjproject {version}; Callshield needs {oldest} or newer.")
    return top


def _extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Extract files and folders, all below `folder`.

    pjproject has no links, and Debian 12's Python has no `filter="data"` yet.
    """
    for member in archive:
        parts = Path(member.name).parts
        if member.name.startswith("/") or ".." in parts:
            raise tarfile.TarError(f"it holds a path outside itself, {member.name!r}")
        target = folder / member.name
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
        elif member.isfile() and (content := archive.extractfile(member)) is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file)
            os.utime(target, (member.mtime, member.mtime))  # make goes by it
            target.chmod(0o755 if member.mode & 0o100 else 0o644)


def version_of(top: Path) -> str:
    """Return the version that a pjproject tree gives itself, such as "2.17" or "2.17.1"."""
    fields = dict(
        re.findall(
            r"^export PJ_VERSION_(MAJOR|MINOR|REV)\s*:=[ \t]*(\d*)",
            (top / "version.mak").read_text(encoding="utf-8", errors="replace"),
            re.MULTILINE,
        )
    )
    parts = [fields.get(name, "") for name in ("MAJOR", "MINOR", "REV")]
    if not (parts[0] and parts[1]):
        raise SetupError("The pjproject source does not say its version in version.mak.")
    return ".".join(part for part in parts if part)
