"""What a lane has for itself: a network, or at least a part of the ports; and what it leaves.

As root a lane gets a network namespace with a loopback of its own: the same addresses and ports
in two lanes are two, and a capture on ``lo`` sees one lane. Where that is refused (no root, a
container without CAP_SYS_ADMIN) every lane gets a part of the ports that `callshield.free_ports`
chooses from.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Literal

from callshield import free_ports

Network = Literal["namespace", "ports"]
#: In the environment of all that a lane starts: ``RUN.LANE``.
MARK = "CALLSHIELD_TEST_LANE"
#: From <sched.h>, <linux/prctl.h>, <linux/sockios.h> and <linux/if.h>.
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def _call(name: str, *arguments: int) -> None:
    """A function of libc that returns -1 for an error.

    Raises:
        OSError: it did.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


def enter_namespace() -> None:
    """Give this process, which has one thread yet, a network of its own with a loopback.

    Raises:
        OSError: it may not have one.
    """
    _call("unshare", _CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request)
        (flags,) = struct.unpack_from("h", answer, 16)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def namespaces_allowed() -> bool:
    """Whether a process started by this one may have a network of its own: one tries."""
    command = f"from {__name__} import enter_namespace; enter_namespace()"
    tried = subprocess.run([sys.executable, "-c", command], capture_output=True, check=False)
    return tried.returncode == 0


def port_slice(part: int, parts: int) -> str:
    """``FIRST-LAST`` of one of so many equal parts of the ports, for `free_ports`.

    Args:
        part: from 0.
        parts: how many.
    """
    size = (free_ports.HIGHEST - free_ports.LOWEST + 1) // parts & ~1  # a range begins even
    first = free_ports.LOWEST + part * size
    return f"{first}-{first + size - 1}"


def die_with_parent() -> None:
    """Interrupt this process (SIGINT: fixtures clean up) when the one that started it is gone."""
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGINT)


def left_running(mark: str) -> dict[int, str]:
    """Processes that a lane started and that are still there: pid → command line."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # gone, or somebody else's
            continue
        if wanted in environment and command:  # a zombie has no command line
            found[int(entry.name)] = command.strip()
    return found


def end(pids: dict[int, str]) -> None:
    """Kill what a lane left running."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
