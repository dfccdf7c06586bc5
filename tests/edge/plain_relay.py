"""A relay that does nothing else: what this machine itself adds to packets at any moment.

``python -m tests.edge.plain_relay ADDRESS PAIRS``: ``PAIRS`` is a JSON list of ``[host, port,
host, port]``, the two ends of each flow. It prints the ports it took for them as a JSON line,
``[[port, port], …]``: what the first end sends to the first port goes to the second end from the
second port, and back. It has the priority that the media worker's relay asks for, where this user
may have it, so that both are kept waiting by the same things.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys

from callshield.free_ports import free_range
from sipbridge.media_worker import REALTIME_PRIORITY


def main() -> None:
    address, pairs = sys.argv[1], json.loads(sys.argv[2])
    ways: dict[int, tuple[socket.socket, socket.socket, tuple[str, int]]] = {}
    ports = []
    for one_host, one_port, other_host, other_port in pairs:
        one, other = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        first, last = free_range(address, 2)
        one.bind((address, first))
        other.bind((address, last))
        ways[one.fileno()] = (one, other, (other_host, other_port))
        ways[other.fileno()] = (other, one, (one_host, one_port))
        ports.append([first, last])
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(REALTIME_PRIORITY))
    poll = select.poll()
    for descriptor in (sys.stdin.fileno(), *ways):
        poll.register(descriptor, select.POLLIN)
    print(json.dumps(ports), flush=True)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor not in ways:
                return  # its standard input is closed: whoever started it is done, or dead
            link, out, to = ways[descriptor]
            out.sendto(link.recv(2048), to)


if __name__ == "__main__":
    main()
