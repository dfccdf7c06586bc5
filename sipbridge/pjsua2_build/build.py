"""Makes the wheel `callshield-pjsua2` and prints its path; from the cache when it was made before.

    python3 -m sipbridge.pjsua2_build.build [--source FILE_OR_FOLDER]

The interpreter that runs this is the one that the wheel is for. Exit status 1, with a sentence
on standard error, when it can't be made.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from callshield.errors import SetupError

from . import recipe
from .cache import WheelCache, cache_folder, recipe_key
from .progress import Progress
from .source import SOURCE_VARIABLE, Source, discover, given_source, unpack, version_of
from .stubs import stubs_of
from .wheel import write_wheel

_OTHER_PHASES = 2  # source, pack
_ROOM_BYTES = 400 * 2**20  # a build takes 200 MB at its largest

_SELF_TEST = """
import sys
sys.path.insert(0, sys.argv[1])
import pjsip_guard, pjsua2
info = pjsip_guard.info()
assert info["ioqueue"] == "epoll" and info["max_calls"] == 1800, info
assert pjsua2.Endpoint and set(pjsip_guard.counters().values()) == {0}
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(description="Build pjsua2 for Callshield, once.")
    parser.add_argument("--source", help="a pjproject tarball or folder")
    parser.add_argument("--quiet", action="store_true", help="print the wheel's path only")
    parser.add_argument(
        "--refresh", action="store_true", help="look for a newer source even if a wheel is kept"
    )
    parser.add_argument(
        "--cached", action="store_true", help="build nothing; exit status 3 if no wheel is kept"
    )
    options = parser.parse_args(arguments)
    given = options.source or os.environ.get(SOURCE_VARIABLE)
    progress = Progress(recipe.PHASES - 1 + _OTHER_PHASES, quiet=options.quiet)
    path = Path(given) if given else None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleans up as for Ctrl-C
    try:
        if options.cached:
            kept = kept_wheel(path)
            if kept is None:
                return 3
            wheel = kept
        else:
            wheel = make_wheel(path, progress, refresh=options.refresh)
    except SetupError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped; nothing half-built was kept.\n")
        return 130
    sys.stdout.write(f"{wheel}\n")
    return 0


def kept_wheel(given: Path | None) -> Path | None:
    """Return the wheel that was built before for this request, without network, or None.

    Raises:
        SetupError: the source given can't be read, or the cache folder can't be made.
    """
    return WheelCache(cache_folder()).find(_request(given_source(given) if given else None))


def _request(source: Source | None) -> str:
    return f"{recipe_key()} {source.sha256 if source else 'auto'}"


def make_wheel(given: Path | None, progress: Progress, *, refresh: bool = False) -> Path:
    """Return the path of the wheel, built now or before.

    Args:
        given: the pjproject tarball or folder to use; None to discover one.
        progress: shows the phases of a build; silent when the wheel is in the cache.
        refresh: discover again even if a discovered source was built before.

    Raises:
        SetupError: it can't be made; says what to do.
    """
    cache = WheelCache(cache_folder())
    key = recipe_key()
    source = given_source(given) if given is not None else None
    request = _request(source)
    if not refresh and (wheel := cache.find(request)):
        return wheel
    recipe.require_packages()
    with cache.locked(progress):
        if not refresh and (wheel := cache.find(request)):
            return wheel  # the one that we waited for
        with _work_folder(cache.folder) as work:
            with progress.phase("find pjproject's source"):
                source = source or discover(work)
            progress.note(f"the source is {source.origin}, sha256 {source.sha256[:16]}...")
            requests = [request, f"{key} {source.sha256}"]
            wheel = cache.find(requests[1])
            origin = f"{source.origin} sha256:{source.sha256}"
            if wheel is None:
                wheel = _build(source, key, work, cache.folder, progress)
            cache.put(requests, wheel, origin)
            return wheel


def _build(source: Source, key: str, work: Path, kept: Path, progress: Progress) -> Path:
    top = unpack(source, work)
    version = version_of(top)
    out = work / "out"
    out.mkdir()
    log = kept / "build.log"
    log.write_bytes(b"")
    product = recipe.Compiler(top, version, out, log).build(progress)
    with progress.phase("test and pack the wheel"):
        stub = (recipe.HERE / "pjsip_guard.pyi").read_bytes()
        pjsua2_py = product.pjsua2_py.read_bytes()
        files = {
            "pjsua2.py": pjsua2_py,
            product.pjsua2_so.name: product.pjsua2_so.read_bytes(),
            product.guard_so.name: product.guard_so.read_bytes(),
            # Stub-only packages (PEP 561): how a single-file module gets its types.
            "pjsip_guard-stubs/__init__.pyi": stub,
            "pjsua2-stubs/__init__.pyi": stubs_of(pjsua2_py.decode()).encode(),
        }
        _self_test(files, work / "test", log)
        local = f"cs{key[:8]}{source.sha256[:8]}"
        return write_wheel(kept, product.version, local, files, product.licence.read_bytes())


def _self_test(files: dict[str, bytes], folder: Path, log: Path) -> None:
    """Import the modules in a fresh interpreter, as installed; a bad build must not be kept."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    result = subprocess.run(
        [sys.executable, "-I", "-c", _SELF_TEST, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    with log.open("a", encoding="utf-8") as file:
        file.write(result.stdout + result.stderr)
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1]
        raise SetupError(f"pjsua2 was built but cannot be loaded ({reason}). The log is {log}.")


@contextlib.contextmanager
def _work_folder(cache: Path) -> Iterator[Path]:
    """Make a folder to build in, and remove it; make can't bear white space in its path."""
    for abandoned in cache.glob("build-*"):  # of a build that was killed; we hold the lock
        if abandoned.is_dir():
            shutil.rmtree(abandoned, ignore_errors=True)
    places = [cache, Path(tempfile.gettempdir()), Path("/var/tmp")]  # noqa: S108
    for place in places:
        if any(character.isspace() for character in str(place)) or not os.access(place, os.W_OK):
            continue
        if shutil.disk_usage(place).free < _ROOM_BYTES:
            continue
        with tempfile.TemporaryDirectory(
            prefix="build-", dir=place, ignore_cleanup_errors=True
        ) as work:
            yield Path(work)
            return
    names = ", ".join(dict.fromkeys(str(place) for place in places))
    raise SetupError(
        f"There is no place to build pjsua2: none of {names} is writable, has "
        f"{_ROOM_BYTES // 2**20} MB free and no white space in its path. Set CALLSHIELD_CACHE or "
        "TMPDIR to such a folder."
    )


if __name__ == "__main__":
    sys.exit(main())
