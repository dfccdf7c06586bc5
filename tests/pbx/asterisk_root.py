"""An Asterisk to test beside, made from nothing: a small Debian in a folder, for chroot.

Debian 12 and 13 have no Asterisk. An older or the newest Debian has: debootstrap lays it out in
the cache folder, from the mirror and with the options of this machine's own apt configuration.
A root is made under another name and renamed when it works, so a half-made one is never used.
Mounts live in a mount namespace of their own: nothing stays mounted, whatever happens.

Uses the standard library only. ``python -m tests.pbx.asterisk_root`` prints the root's path; exit
status 1, and one sentence in the file ``asterisk.missing`` of the cache, when there can be none.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Debian releases with an Asterisk, first choice first: 16.28 and 22.
SUITES = ("bullseye", "sid")
PACKAGES = ("asterisk", "asterisk-modules", "asterisk-core-sounds-en-wav")
READY = ".callshield-asterisk"
#: What runs inside a new mount namespace, before the program itself.
_MOUNTS = """\
mount --bind /proc "$0/proc"
mount --rbind /dev "$0/dev"
"""
#: apt inside must not start what it installs.
_POLICY = "#!/bin/sh\nexit 101\n"


class NoAsteriskError(Exception):
    """There can be no Asterisk here; the sentence says why and what to do."""


@dataclass(frozen=True)
class Mirror:
    """Where this machine's apt gets its packages.

    Args:
        uri: of the archive, as debootstrap takes it.
        trusted: apt does not check its signature (``Trusted: yes``).
    """

    uri: str
    trusted: bool = False


def read_mirrors(index_targets: str, codename: str) -> list[Mirror]:
    """The archives of this machine's own release, from ``apt-get indextargets``.

    Args:
        index_targets: lines ``REPO_URI|CODENAME|RELEASE|COMPONENT|TRUSTED``.
        codename: of this machine's release; updates and third parties have other ones.
    """
    found: dict[str, Mirror] = {}
    for line in index_targets.splitlines():
        fields = [part.strip() for part in line.split("|")]
        if len(fields) != 5:
            continue
        uri, code, release, component, trusted = fields
        if codename in (code, release) and component == "main":
            found.setdefault(uri, Mirror(uri, trusted == "yes"))
    return list(found.values())


def quiet_settings(apt_config: str) -> list[str]:
    """The lines of ``apt-config dump`` that say how to fetch: proxies, certificates, dates."""
    return [line for line in apt_config.splitlines() if line.startswith("Acquire::")]


def in_root(root: Path, *command: str, mounts: str = "") -> list[str]:
    """A command line that runs a command inside the root, in a mount namespace of its own.

    Args:
        root: folder of the root.
        mounts: more shell lines; ``$0`` is the root.
    """
    script = f'set -e\n{_MOUNTS}{mounts}exec chroot "$0" "$@"\n'
    return ["unshare", "--mount", "sh", "-c", script, str(root), *command]


def _output(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout if result.returncode == 0 else ""


def this_codename() -> str:
    """``bookworm``, ``noble``, …; empty where this is no Debian."""
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return ""
    found = re.search(r"^VERSION_CODENAME=\"?([a-z]+)", text, re.MULTILINE)
    return found[1] if found else ""


class Maker:
    """Makes a root in the cache folder, or finds the one made before.

    Args:
        cache: folder for it.
        log: file for what the commands say.
        say: told a line at each step.
    """

    def __init__(self, cache: Path, log: Path, say: Callable[[str], None]) -> None:
        self._cache, self._log, self._say = cache, log, say

    def root(self, suites: Sequence[str] = SUITES) -> Path:
        """Folder of a root with a working Asterisk.

        Args:
            suites: releases to try, in order.

        Raises:
            NoAsteriskError: there can be none.
        """
        for suite in suites:
            if (self._folder(suite) / READY).exists():
                return self._folder(suite)
        self._check_rights()
        if shutil.which("debootstrap") is None:
            raise NoAsteriskError(
                "debootstrap is missing, which lays out the Debian that Asterisk runs in: "
                "apt-get install debootstrap"
            )
        self._cache.mkdir(parents=True, exist_ok=True)
        with (self._cache / "asterisk.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two that make the same would tread on each other
            reasons = []
            for suite in suites:
                if (self._folder(suite) / READY).exists():  # somebody made it while we waited
                    return self._folder(suite)
                try:
                    return self._make(suite)
                except NoAsteriskError as error:
                    reasons.append(f"{suite}: {error}")
        raise NoAsteriskError("; ".join(reasons) + f". The log is {self._log}")

    def _folder(self, suite: str) -> Path:
        return self._cache / f"asterisk-{suite}"

    def _check_rights(self) -> None:
        if os.geteuid() != 0:
            raise NoAsteriskError(
                "Asterisk runs in a chroot here, which only root may make: sudo ./run test-pbx"
            )
        if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
            raise NoAsteriskError(
                "this container may not make mount namespaces (CAP_SYS_ADMIN), which the chroot "
                "of Asterisk needs: run it on a machine, or in a privileged container"
            )

    def _make(self, suite: str) -> Path:
        mirrors = read_mirrors(
            _output(
                *("apt-get", "indextargets", "--format"),
                "$(REPO_URI)|$(CODENAME)|$(RELEASE)|$(COMPONENT)|$(TRUSTED)",
                "Created-By: Packages",
            ),
            this_codename(),
        )
        if not mirrors:
            raise NoAsteriskError(
                "the apt configuration of this machine names no mirror to take it from"
            )
        for old in self._cache.glob(f"asterisk-{suite}.part-*"):
            self._remove(old)  # of a set-up that was killed
        part = self._cache / f"asterisk-{suite}.part-{os.getpid()}"
        try:
            for number, mirror in enumerate(mirrors, 1):
                if self._lay_out(suite, mirror, part):
                    break
                self._remove(part)
                if number == len(mirrors):
                    raise NoAsteriskError("no mirror of this machine's apt has it, or is reachable")
            self._install(part)
            version = self._version(part)
            (part / READY).write_text(f"{suite} {version}\n", encoding="utf-8")
            part.rename(self._folder(suite))
        except BaseException:
            self._remove(part)
            raise
        self._say(f"  {version} is in {self._folder(suite)}")
        return self._folder(suite)

    def _lay_out(self, suite: str, mirror: Mirror, part: Path) -> bool:
        with self._step(f"Debian {suite} by debootstrap"):
            options = ["--variant=minbase", "--include=ca-certificates"]
            if mirror.trusted:
                options.append("--no-check-gpg")
            environment = {**os.environ, **self._proxies()}
            # A namespace of its own, because debootstrap mounts and may be interrupted.
            return self._logged(
                *("unshare", "--mount", "debootstrap", *options, suite, str(part), mirror.uri),
                environment=environment,
            )

    def _proxies(self) -> dict[str, str]:
        """apt's proxies for debootstrap's wget."""
        found = {}
        for kind in ("http", "https"):
            proxy = _output("apt-config", "shell", "P", f"Acquire::{kind}::Proxy")
            if match := re.match(r"P='(.+)'", proxy):
                found[f"{kind}_proxy"] = match[1]
        return found

    def _install(self, part: Path) -> None:
        policy = part / "usr/sbin/policy-rc.d"
        policy.write_text(_POLICY, encoding="utf-8")
        policy.chmod(0o755)
        settings = quiet_settings(_output("apt-config", "dump"))
        (part / "etc/apt/apt.conf.d/90callshield").write_text(
            "".join(f"{line}\n" for line in settings), encoding="utf-8"
        )
        # An https mirror may be signed by an authority that only this machine knows.
        authorities = Path("/etc/ssl/certs/ca-certificates.crt")
        if authorities.exists():
            shutil.copyfile(authorities, part / "etc/ssl/certs/ca-certificates.crt")
        with self._step("Asterisk"):
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
            for words in (
                ("apt-get", "-q", "update"),
                ("apt-get", "-q", "-y", "install", "--no-install-recommends", *PACKAGES),
                ("apt-get", "clean"),
            ):
                if not self._logged(*in_root(part, *words), environment=environment):
                    raise NoAsteriskError(f"`{' '.join(words[:3])} …` failed inside the root")

    def _version(self, part: Path) -> str:
        version = _output(*in_root(part, "asterisk", "-V")).strip()
        if not version.startswith("Asterisk "):
            raise NoAsteriskError("it was installed, but does not say its version")
        return version

    def _logged(self, *command: str, environment: dict[str, str] | None = None) -> bool:
        with self._log.open("ab") as log:
            log.write(f"\n$ {' '.join(command)}\n".encode())
            log.flush()
            status = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        return status.returncode == 0

    def _step(self, title: str) -> _Step:
        return _Step(title, self._say)

    @staticmethod
    def _remove(folder: Path) -> None:
        """Without ever following a mount: /dev of this machine might be bound there."""
        if folder.exists():
            subprocess.run(["rm", "-rf", "--one-file-system", "--", str(folder)], check=False)


class _Step:
    """Says how long a part took."""

    def __init__(self, title: str, say: Callable[[str], None]) -> None:
        self._title, self._say = title, say

    def __enter__(self) -> None:
        self._started = time.monotonic()
        self._say(f"  {self._title} ...")

    def __exit__(self, kind: object, *_: object) -> None:
        word = "failed after" if kind else "done after"
        self._say(f"  {self._title}: {word} {time.monotonic() - self._started:.0f} s")


def main() -> int:
    """Print the path of a root."""
    given = os.environ.get("CALLSHIELD_ASTERISK_ROOT")
    if given:
        print(given)
        return 0
    cache = Path(os.environ.get("CALLSHIELD_CACHE") or Path.home() / ".cache/callshield")
    chosen = os.environ.get("CALLSHIELD_ASTERISK_SUITE")
    maker = Maker(cache, cache / "asterisk.log", lambda line: print(line, file=sys.stderr))
    try:
        print(maker.root([chosen] if chosen else SUITES))
    except NoAsteriskError as error:
        cache.mkdir(parents=True, exist_ok=True)
        (cache / "asterisk.missing").write_text(str(error), encoding="utf-8")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
