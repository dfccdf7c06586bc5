"""Configures and compiles pjproject, its Python module and ours."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from callshield.errors import SetupError

from .progress import Progress

PHASES = 4
HERE = Path(__file__).resolve().parent

# What a Debian or Ubuntu machine needs to build, and how to see that it is there.
_TOOLS = {"gcc": "build-essential", "g++": "build-essential", "make": "build-essential"}
_HEADERS = {
    "openssl/ssl.h": "libssl-dev",
    "srtp2/srtp.h": "libsrtp2-dev",
    "opus/opus.h": "libopus-dev",
    "samplerate.h": "libsamplerate0-dev",
    "uuid/uuid.h": "uuid-dev",
}

# The parser reads packets from the network: the compiler's hardening stays on. Python code is
# glue, and the wrapper's 200,000 lines compile in a third of the time with -O1.
CFLAGS = "-O2 -fPIC -DNDEBUG -fstack-protector-strong -D_FORTIFY_SOURCE=2"
WRAPPER_FLAGS = "-O1 -fPIC -DNDEBUG -fstack-protector-strong -D_FORTIFY_SOURCE=2 -w"
GUARD_FLAGS = "-O2 -fPIC -DNDEBUG -fstack-protector-strong -D_FORTIFY_SOURCE=2 -Wall -Wextra"
# -z now: a symbol that is missing shows when the module is loaded, not in the middle of a call.
LINK_FLAGS = "-shared -Wl,-z,relro,-z,now -Wl,-s"

GUARD_SOURCES = (
    "pjsip_guard.c",
    "pjsip_connections.c",
    "pjsip_dialogs.c",
    "pjsip_kept.c",
    "pjsip_paths.c",
    "pjsip_sdp.c",
)

CONFIGURE_FLAGS = (
    "--enable-epoll --disable-sound --disable-video --disable-libwebrtc --disable-v4l2 "
    "--disable-sdl --disable-ffmpeg --disable-openh264 --disable-gsm-codec --disable-speex-codec "
    "--disable-speex-aec --disable-ilbc-codec --disable-g7221-codec --disable-silk "
    "--disable-opencore-amr --disable-bcg729 --disable-libyuv --enable-libsamplerate "
    "--with-external-srtp"
)
SWIG_FLAGS = "-c++ -w312 -threads -doxygen -python"

# Debian's copy lacks this empty driver's file, but not its entry in the makefile.
_MISSING_IN_DEBIAN = "pjmedia/src/pjmedia-audiodev/bdimad_dev.c"


@dataclass(frozen=True)
class Product:
    """What a build made: the files of the wheel, and the version of pjproject."""

    version: str
    pjsua2_py: Path
    pjsua2_so: Path
    guard_so: Path
    licence: Path


def missing_packages() -> list[str]:
    """Return the apt packages that this machine lacks for building, in a stable order."""
    missing = [package for tool, package in _TOOLS.items() if shutil.which(tool) is None]
    if shutil.which("swig") is None:
        missing.append("swig")
    if shutil.which("gcc") is not None:
        headers = {**_HEADERS, f"{sysconfig.get_paths()['include']}/Python.h": "python3-dev"}
        for header, package in headers.items():
            test = subprocess.run(
                ["gcc", "-E", "-o", os.devnull, "-x", "c", "-"],
                input=f'#include "{header}"\n',
                text=True,
                capture_output=True,
                check=False,
            )
            # Python.h includes others that need its own folder; all that counts is the file.
            if test.returncode != 0 and not Path(header).is_file():
                missing.append(package)
    else:
        missing += [*_HEADERS.values(), "python3-dev"]
    return list(dict.fromkeys(missing))


def require_packages() -> None:
    """Raise SetupError that names the apt packages to install, if any is missing."""
    if missing := missing_packages():
        raise SetupError(
            "Building pjsua2 needs packages that this machine lacks. Install them: "
            f"apt-get install {' '.join(missing)}"
        )


class Compiler:
    """Runs the steps in one pjproject tree; everything that they print goes to one log file.

    Args:
        top: pjproject's folder; it is written to. Its path must hold no white space (make).
        version: what `top` calls itself.
        out: folder for the products.
        log: file to append to.
    """

    def __init__(self, top: Path, version: str, out: Path, log: Path) -> None:
        self._top = top
        self._version = version
        self._out = out
        self._log = log
        self._suffix = str(sysconfig.get_config_var("EXT_SUFFIX"))
        self._include = f"-I{sysconfig.get_paths()['include']}"

    def build(self, progress: Progress) -> Product:
        """Run all steps.

        Raises:
            SetupError: a step failed; names the log file and shows its last lines.
        """
        with progress.phase("configure pjproject"):
            self._configure()
        python_dir = self._top / "pjsip-apps/src/swig/python"
        wrapper = python_dir / "pjsua2_wrap.o"
        with progress.phase("compile its libraries and the Python wrapper"):
            flags = self._make_list("cflags")
            self._run(
                python_dir,
                [
                    "swig",
                    *(f"-I{self._top / part}/include" for part in _parts()),
                    *SWIG_FLAGS.split(),
                    "-o",
                    "pjsua2_wrap.cpp",
                    "../pjsua2.i",
                ],
            )
            # The wrapper is one huge file: one core for it, the others for the libraries.
            with self._background(
                python_dir,
                [
                    "g++",
                    "-c",
                    *_without_optimisation(flags),
                    *WRAPPER_FLAGS.split(),
                    self._include,
                    "pjsua2_wrap.cpp",
                    "-o",
                    str(wrapper),
                ],
            ):
                jobs = max(1, len(os.sched_getaffinity(0)))
                self._run(self._top, ["make", "dep"])
                self._run(self._top, ["make", f"-j{jobs}", "lib"])
        with progress.phase("link pjsua2 and compile pjsip_guard"):
            pjsua2_so = self._out / f"_pjsua2{self._suffix}"
            self._run(
                python_dir,
                [
                    *("g++", *LINK_FLAGS.split(), f"-Wl,-soname,{pjsua2_so.name}"),
                    *("-o", str(pjsua2_so), str(wrapper)),
                    *self._make_list("ldflags"),
                    *(f"-l{name}" for name in self._make_list("libs")),
                ],
            )
            guard_so = self._compile_guard(flags, pjsua2_so)
        return Product(
            version=self._version,
            pjsua2_py=python_dir / "pjsua2.py",
            pjsua2_so=pjsua2_so,
            guard_so=guard_so,
            licence=self._top / "COPYING",
        )

    def _configure(self) -> None:
        shutil.copyfile(HERE / "config_site.h", self._top / "pjlib/include/pj/config_site.h")
        (self._top / _MISSING_IN_DEBIAN).touch(exist_ok=True)
        for script in ("configure", "aconfigure", "config.guess", "config.sub"):
            path = self._top / script
            if path.exists():
                path.chmod(path.stat().st_mode | 0o755)
        environment = {"CFLAGS": CFLAGS, "CXXFLAGS": CFLAGS}
        self._run(self._top, ["./configure", *CONFIGURE_FLAGS.split()], environment)

    def _compile_guard(self, flags: list[str], pjsua2_so: Path) -> Path:
        # Linked to _pjsua2 itself and found beside it: the loader hands out the object that
        # `import pjsua2` loaded, so both speak to one PJSIP.
        guard_so = self._out / f"pjsip_guard{self._suffix}"
        self._run(
            self._out,
            [
                *("gcc", *_without_optimisation(flags), *GUARD_FLAGS.split(), self._include),
                *(str(HERE / source) for source in GUARD_SOURCES),
                *("-o", str(guard_so)),
                *(f"-L{self._out}", f"-l:{pjsua2_so.name}", "-lcrypto", "-lsrtp2", "-lm"),
                *(*LINK_FLAGS.split(), "-Wl,-rpath,$ORIGIN"),
            ],
        )
        return guard_so

    def _make_list(self, target: str) -> list[str]:
        """Ask pjproject's own makefile for its compiler or linker flags."""
        result = subprocess.run(
            ["make", "-s", "--no-print-directory", "-f", "helper.mak", target],
            cwd=self._top / "pjsip-apps/src/swig/python",
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise self._failure(f"make {target}")
        return result.stdout.split()

    def _run(
        self, cwd: Path, command: list[str], environment: dict[str, str] | None = None
    ) -> None:
        with self._background(cwd, command, environment):
            pass

    @contextlib.contextmanager
    def _background(
        self, cwd: Path, command: list[str], environment: dict[str, str] | None = None
    ) -> Iterator[None]:
        """Run a command while the block runs, and wait for it at the block's end."""
        with self._log.open("ab") as log:
            log.write(f"\n$ {' '.join(command)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env={**_clean_environment(), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                yield
                code = process.wait()
            finally:
                if process.returncode is None:  # interrupted: make's compilers must end as well
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if code != 0:
            raise self._failure(command[0])

    def _failure(self, program: str) -> SetupError:
        with contextlib.suppress(OSError):
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
            tail = "\n".join(f"    {line[:200]}" for line in lines[-12:])
            return SetupError(
                f"Building pjsua2 failed in '{program}'. The whole log is {self._log}; its end:\n"
                f"{tail}"
            )
        return SetupError(f"Building pjsua2 failed in '{program}', and its log cannot be read.")


def _parts() -> tuple[str, ...]:
    return ("pjlib", "pjlib-util", "pjmedia", "pjsip", "pjnath")


def _without_optimisation(flags: list[str]) -> list[str]:
    """Keep what pjproject needs to know (-D, -I); how to compile is ours to say."""
    ours = ("-DNDEBUG", "-D_FORTIFY_SOURCE=2")
    return [flag for flag in flags if flag.startswith(("-D", "-I")) and flag not in ours]


def _clean_environment() -> dict[str, str]:
    # Flags and job servers of whoever called us would change what is built, not only how.
    unwanted = ("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "LIBS", "MAKEFLAGS", "MFLAGS")
    kept = {key: value for key, value in os.environ.items() if key not in unwanted}
    return {**kept, "LC_ALL": "C"}
