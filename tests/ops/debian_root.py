"""A small Debian of this machine's own release in a folder, laid out by debootstrap.

For a machine with systemd as its first process (:mod:`tests.ops.machine`) and as the base of the
image (:mod:`tests.ops.image`). Made once, in the cache folder, from the mirror and with the options
of this machine's own apt configuration; under another name until it works.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.pbx.asterisk_root import (
    Mirror,
    NoAsteriskError,
    in_root,
    quiet_settings,
    read_mirrors,
    this_codename,
)

READY = ".callshield-root"
#: Of the machine: systemd, what `./run setup` and the runbook call, and their libraries.
MACHINE_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "procps", "curl", "git", "gnupg"),
    *("python3", "python3-venv", "python3-dev", "gcc", "libc6-dev", "libsrtp2-dev"),
    *("libssl3", "libopus0", "libsamplerate0", "libuuid1", "fonts-noto-cjk"),
)


class NoRootError(Exception):
    """There can be none here; the sentence says why and what to do."""


def _output(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout if result.returncode == 0 else ""


def check_rights() -> None:
    """See that namespaces and chroots can be made here.

    Raises:
        NoRootError: they cannot.
    """
    if os.geteuid() != 0:
        raise NoRootError("only root may make the Debian that this runs in: sudo ./run …")
    if not this_codename():
        raise NoRootError("this is no Debian or Ubuntu: there is no release to lay out")
    for program in ("debootstrap", "unshare"):
        if shutil.which(program) is None:
            raise NoRootError(f"{program} is missing: apt-get install {program}")
    probe = ["unshare", "--mount", "--pid", "--net", "--fork", "true"]
    if subprocess.run(probe, capture_output=True).returncode != 0:
        raise NoRootError(
            "this container may not make namespaces (CAP_SYS_ADMIN): run it on a machine, or in a "
            "privileged container"
        )


class RootMaker:
    """Makes roots in the cache folder, or finds those made before.

    Args:
        cache: folder for them.
        log: file for what the commands say.
    """

    def __init__(self, cache: Path, log: Path) -> None:
        self._cache, self._log = cache, log

    def root(self, name: str, packages: Sequence[str] = ()) -> Path:
        """Folder of a root of this release with some packages.

        Raises:
            NoRootError: there can be none.
        """
        check_rights()
        wanted = " ".join(packages)
        folder = self._cache / f"{name}-{this_codename()}"
        self._cache.mkdir(parents=True, exist_ok=True)
        with (self._cache / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            ready = folder / READY
            if ready.exists() and ready.read_text(encoding="utf-8") == wanted:
                return folder
            remove(folder)
            part = self._cache / f"{name}.part"
            remove(part)
            try:
                self._lay_out(part)
                self._configure(part)
                if packages:
                    self._install(part, packages)
                (part / READY).write_text(wanted, encoding="utf-8")
                part.rename(folder)
            except BaseException:
                remove(part)
                raise
        return folder

    def _lay_out(self, part: Path) -> None:
        mirrors = read_mirrors(
            _output(
                *("apt-get", "indextargets", "--format"),
                "$(REPO_URI)|$(CODENAME)|$(RELEASE)|$(COMPONENT)|$(TRUSTED)",
                "Created-By: Packages",
            ),
            this_codename(),
        )
        for mirror in mirrors:
            if self._debootstrap(mirror, part):
                return
            remove(part)
        raise NoRootError(
            "no mirror of this machine's apt configuration could be used: is the network up? The "
            f"log is {self._log}"
        )

    def _debootstrap(self, mirror: Mirror, part: Path) -> bool:
        options = ["--variant=minbase", "--include=ca-certificates"]
        if mirror.trusted:
            options.append("--no-check-gpg")
        # A namespace of its own, because debootstrap mounts and may be interrupted.
        return self._logged(
            *("unshare", "--mount", "debootstrap", *options, this_codename(), str(part)), mirror.uri
        )

    def _configure(self, part: Path) -> None:
        """apt and pip reach inside what they reach here."""
        settings = quiet_settings(_output("apt-config", "dump"))
        (part / "etc/apt/apt.conf.d/90callshield").write_text(
            "".join(f"{line}\n" for line in settings), encoding="utf-8"
        )
        # A mirror or index may be signed by an authority that only this machine knows.
        for name in ("etc/ssl/certs/ca-certificates.crt", "etc/pip.conf"):
            if Path("/", name).exists():
                shutil.copyfile(Path("/", name), part / name)

    def _install(self, part: Path, packages: Sequence[str]) -> None:
        policy = part / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
        policy.chmod(0o755)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
        for words in (
            ("apt-get", "-q", "update"),
            ("apt-get", "-q", "-y", "install", "--no-install-recommends", *packages),
            ("apt-get", "clean"),
        ):
            if not self._logged(*in_root(part, *words), environment=environment):
                raise NoRootError(
                    f"`{' '.join(words[:3])} …` failed inside the root; the log is {self._log}"
                )
        policy.unlink()

    def _logged(self, *command: str, environment: dict[str, str] | None = None) -> bool:
        with self._log.open("ab") as log:
            log.write(f"\n$ {' '.join(command)}\n".encode())
            log.flush()
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        return done.returncode == 0


def remove(folder: Path) -> None:
    """Without ever following a mount."""
    if folder.exists():
        subprocess.run(["rm", "-rf", "--one-file-system", "--", str(folder)], check=False)


def cache_folder() -> Path:
    """Where ``./run`` keeps what takes long to make."""
    given = os.environ.get("CALLSHIELD_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "callshield"


def main(arguments: Sequence[str]) -> int:
    """``python -m tests.ops.debian_root machine|image``: print the root's path, or exit with 1."""
    cache = cache_folder()
    name = arguments[0]
    packages = MACHINE_PACKAGES if name == "machine" else ()
    begun = time.monotonic()
    print(f"  Debian {this_codename()} in {cache} ...", file=sys.stderr)
    try:
        print(RootMaker(cache, cache / f"{name}.log").root(name, packages))
    except (NoRootError, NoAsteriskError) as error:
        print(f"  {error}", file=sys.stderr)
        (cache / f"{name}.missing").write_text(str(error), encoding="utf-8")
        return 1
    print(f"  done after {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
