"""Finds pjproject's source in the Debian archive, through the machine's own apt configuration.

Debian's source package `asterisk` carries pjproject as one of its components. This reads the
machine's apt source lists for Debian mirrors, asks one for the suite `sid` with a private apt state
(nothing on the machine changes, no root needed), and lets apt check the archive's signature.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from callshield.errors import SetupError

SOURCE_PACKAGE = "asterisk"
COMPONENT = re.compile(r"\.orig-X?pjproject\.tar\.(?:xz|gz|bz2)$")
SUITE = "sid"

# Main suites by name or code name; updates, security, backports and other vendors' suites carry a
# suffix, a slash or a name of their own, and don't have `sid` beside them.
_ROLES = ("sid", "unstable", "testing", "stable", "oldstable", "oldoldstable")
_CODE_NAMES = ("bullseye", "bookworm", "trixie", "forky", "duke")
_DEBIAN_SUITES = frozenset((*_ROLES, *_CODE_NAMES))
_KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
_APT_HELPER = Path("/usr/lib/apt/apt-helper")


@dataclass(frozen=True)
class AptEntry:
    """One `deb` or `deb-src` line, or one URI and suite of a deb822 stanza."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""


@dataclass(frozen=True)
class SourceFile:
    """One file of a source package as `apt-get source --print-uris` names it.

    `digest` is the strongest hash that apt printed, as `(hashlib name, lower-case hex)`.
    """

    uri: str
    name: str
    size: int
    digest: tuple[str, str]


def parse_classic(text: str) -> list[AptEntry]:
    """Parse the one-line format of sources.list(5)."""
    entries = []
    for line in text.splitlines():
        match = re.match(r"\s*deb(?:-src)?\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<rest>[^#]+)", line)
        if match is None:
            continue
        fields = match["rest"].split()
        if len(fields) < 2:
            continue
        signed_by = ""
        for option in (match["options"] or "").split():
            key, _, value = option.partition("=")
            if key.lower() == "signed-by":
                signed_by = value
        entries.append(AptEntry(fields[0], fields[1], tuple(fields[2:]), signed_by))
    return entries


def parse_deb822(text: str) -> list[AptEntry]:
    """Parse the stanzas of a `.sources` file, sources.list(5) "DEB822-STYLE FORMAT"."""
    entries: list[AptEntry] = []
    # Comment lines are dropped first: they may stand inside a field without ending it.
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n[ \t]*\n", "\n".join(lines)):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line[:1] in (" ", "\t"):
                if key:
                    fields[key] += "\n" + line.strip()
            elif ":" in line:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        if fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        signed_by = fields.get("signed-by", "")
        if not signed_by.startswith("/"):  # a key written into the stanza itself
            signed_by = ""
        entries.extend(
            AptEntry(uri, suite, tuple(fields.get("components", "").split()), signed_by)
            for uri in fields.get("uris", "").split()
            for suite in fields.get("suites", "").split()
        )
    return entries


def read_entries(etc_apt: Path = Path("/etc/apt")) -> list[AptEntry]:
    """Read every source list that apt itself would read, in apt's order."""
    entries: list[AptEntry] = []
    parts = etc_apt / "sources.list.d"
    files = [etc_apt / "sources.list"]
    if parts.is_dir():
        files += sorted(p for p in parts.iterdir() if p.suffix in (".list", ".sources"))
    for file in files:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        entries += parse_deb822(text) if file.suffix == ".sources" else parse_classic(text)
    return entries


def debian_mirrors(entries: Iterable[AptEntry]) -> list[str]:
    """Return the URIs that look like Debian's main archive, likeliest first, each once.

    Left out: security and update suites (they have no `sid`), and other vendors' repositories.
    """
    ranked: dict[str, tuple[int, int]] = {}
    for entry in entries:
        if entry.suite not in _DEBIAN_SUITES or "main" not in entry.components:
            continue
        uri = entry.uri.rstrip("/")
        last = urllib.parse.urlsplit(uri).path.rstrip("/").rpartition("/")[2]
        if last in ("debian-security", "debian-ports", "ubuntu"):
            continue
        # A path that ends in /debian, or Debian's own key, beats a snapshot or a look-alike.
        rank = 0 if last == "debian" or "debian-archive" in entry.signed_by else 1
        ranked.setdefault(uri, (rank, len(ranked)))
    return sorted(ranked, key=lambda uri: ranked[uri])


def parse_print_uris(text: str) -> list[SourceFile]:
    """Parse the file lines of `apt-get source --print-uris`; other lines are notices."""
    files = []
    for line in text.splitlines():
        if not line.startswith("'"):
            continue
        fields = shlex.split(line)
        if len(fields) < 4 or not fields[2].isdigit():
            continue
        kind, _, value = fields[3].partition(":")
        files.append(
            SourceFile(fields[0], fields[1], int(fields[2]), (kind.lower(), value.lower()))
        )
    return files


def find_component(files: Iterable[SourceFile]) -> SourceFile:
    """Pick pjproject's tarball from a source package's files.

    Raises:
        SetupError: it isn't there, or apt names no hash for it that is worth checking.
    """
    for file in files:
        if COMPONENT.search(file.name):
            if file.digest[0] not in ("sha256", "sha512") or not file.digest[1]:
                raise SetupError(
                    f"apt names no SHA-256 for {file.name}, so it cannot be checked: give a "
                    "pjproject tarball with --source."
                )
            return file
    raise SetupError(
        f"Debian's source package '{SOURCE_PACKAGE}' no longer carries pjproject: give a "
        "pjproject tarball with --source."
    )


class PrivateApt:
    """apt with a state folder of its own: one source line, no hooks, no lock of the machine's.

    Args:
        state: an existing folder that is ours.
        mirror: URI of the Debian archive.
    """

    def __init__(self, state: Path, mirror: str) -> None:
        lists, cache = state / "lists", state / "cache"
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        (cache / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        keyring = next((k for k in _KEYRINGS if k.exists()), None)
        signed_by = f"[signed-by={keyring}] " if keyring else ""
        (state / "sources.list").write_text(f"deb-src {signed_by}{mirror} {SUITE} main\n")
        # Read after the machine's own configuration, whose proxies and credentials stay; its hooks
        # (file indexes, desktop software lists) have no business here.
        settings = {
            "Dir::Etc::sourcelist": state / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": lists,
            "Dir::Cache": cache,
            "Acquire::Check-Valid-Until": "false",
            "Acquire::Languages": "none",
            "Acquire::Retries": "1",
            "Acquire::http::Timeout": "15",
            "Acquire::https::Timeout": "15",
            "APT::Sandbox::User": "root",
        }
        hooks = ("Pre-Invoke", "Post-Invoke", "Post-Invoke-Success")
        text = "".join(f"#clear APT::Update::{hook};\n" for hook in hooks)
        text += "".join(f'{key} "{value}";\n' for key, value in settings.items())
        self._config = state / "apt.conf"
        self._config.write_text(text)
        self._state = state

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command[:1], "-c", str(self._config), *command[1:]],
            cwd=self._state,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def find(self) -> SourceFile:
        """Update the private list and find pjproject's tarball in it.

        Raises:
            SetupError: the mirror can't be reached or doesn't have it.
        """
        # --error-on=any (apt 2.1): otherwise an unreachable mirror is a warning and exit 0.
        update = self._run("apt-get", "-q", "update", "--error-on=any")
        if update.returncode != 0:
            raise SetupError(_last_error(update.stderr) or "apt-get update failed.")
        listing = self._run("apt-get", "-q", "source", "--print-uris", SOURCE_PACKAGE)
        if listing.returncode != 0:
            raise SetupError(_last_error(listing.stderr) or "apt-get source failed.")
        return find_component(parse_print_uris(listing.stdout))

    def download(self, file: SourceFile, target: Path) -> None:
        """Download one file; the caller checks its hash.

        Raises:
            SetupError: it can't be downloaded.
        """
        reason = ""
        if _APT_HELPER.exists():  # knows apt's proxies, credentials and transports
            digest = ":".join((file.digest[0].upper(), file.digest[1]))
            result = self._run(str(_APT_HELPER), "download-file", file.uri, str(target), digest)
            if result.returncode == 0 and target.exists():
                return
            reason = _last_error(result.stderr)
        # Without the helper the whole source package comes, twice as much.
        result = self._run("apt-get", "-q", "source", "--download-only", SOURCE_PACKAGE)
        downloaded = self._state / file.name
        if result.returncode != 0 or not downloaded.exists():
            raise SetupError(_last_error(result.stderr) or reason or "the download failed.")
        os.replace(downloaded, target)


def _last_error(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith(("E:", "Err"))]
    return lines[-1].removeprefix("E: ") if lines else ""


def fetch_from_debian(target: Path, etc_apt: Path = Path("/etc/apt")) -> SourceFile:
    """Download pjproject's tarball to `target` and say which file of the archive it was.

    Raises:
        SetupError: no mirror of the machine's has it; says what each answered.
    """
    mirrors = debian_mirrors(read_entries(etc_apt))
    if not mirrors:
        raise SetupError(
            "this machine's apt sources name no Debian archive, where pjproject's source could be "
            "found."
        )
    refusals = []
    for mirror in mirrors[:4]:
        with tempfile.TemporaryDirectory(prefix="callshield-apt-") as state:
            try:
                apt = PrivateApt(Path(state), mirror)
                file = apt.find()
                apt.download(file, target)
            except SetupError as error:
                refusals.append(str(error))
            except FileNotFoundError:
                raise SetupError("apt-get is not installed on this machine.") from None
            else:
                return file
    raise SetupError("the machine's Debian mirror did not help: " + " / ".join(refusals))
