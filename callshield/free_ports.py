"""Ports for the demo and the tests, outside the range from which clients get theirs.

A port inside the kernel's ephemeral range may be taken by any outgoing connection between the
moment it was found free and the moment it is used; so only ports below that range are tried. Nor is
one given twice within a while: twenty telephones that start at once would sooner or later get the
same one, because none of them has bound it yet.

Two processes may still choose the same port. Those that run side by side are given a part each:
``CALLSHIELD_FREE_PORTS=FIRST-LAST`` in their environment (`tests/lanes`).
"""

from __future__ import annotations

import os
import random
import socket
from collections import deque

#: Below Linux's default ``net.ipv4.ip_local_port_range`` (32768-60999).
LOWEST, HIGHEST = map(int, os.environ.get("CALLSHIELD_FREE_PORTS", "10240-32700").split("-"))
#: So many ports are remembered as given, a third of all: nothing may use up all there are.
REMEMBERED = (HIGHEST - LOWEST) // 3
#: Ranges given lately: address, first, last.
_given: deque[tuple[str, int, int]] = deque()


def _free(address: str, port: int) -> bool:
    """Free for UDP and for TCP."""
    try:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(socket.AF_INET, kind) as probe:
                probe.bind((address, port))
    except OSError:
        return False
    return True


def free_range(address: str, count: int) -> tuple[int, int]:
    """The first and last of ``count`` ports in a row that are free now; the first is even.

    Raises:
        OSError: there is no such range.
    """
    for _ in range(200):
        first = random.randrange(LOWEST, HIGHEST - count, 2)
        last = first + count - 1
        if any(at == address and first <= end and begin <= last for at, begin, end in _given):
            continue
        if all(_free(address, port) for port in range(first, first + count)):
            _given.append((address, first, last))
            while sum(end - begin + 1 for _, begin, end in _given) > REMEMBERED:
                _given.popleft()
            return first, last
    raise OSError(f"no {count} free ports in a row on {address}")


def free_port(address: str) -> int:
    """One port on ``address`` that is free now."""
    return free_range(address, 1)[0]
