"""Connections to the SIP ports that the kernel does not even begin.

A socket filter (classic BPF, Linux's ``SO_ATTACH_FILTER``) on each listening socket drops the SYN
of an address outside the networks: a port scan sees nothing, no descriptor is spent on a stranger
and no TLS handshake is computed for one. :mod:`pjsip_guard` asks again above it, per connection and
per request: where the kernel takes no filter, strangers are refused there.

PJSIP listens with room for 5 connections that it has not accepted yet; with a sixth the kernel
drops the SYN of a PBX, which tries again a second later. Here the room is made larger too.
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator, Sequence

import structlog

log = structlog.get_logger()

#: Connections that wait for PJSIP to accept them (the kernel takes the smaller of this and
#: net.core.somaxconn).
BACKLOG = 512
#: asm-generic/socket.h; the socket module does not name it.
_SO_ATTACH_FILTER = 26
#: Instructions of a classic filter (linux/bpf_common.h).
_MAX_INSTRUCTIONS = 4096
_LOAD_WORD, _AND, _EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
#: Offsets from here on count from the network header (linux/filter.h, SKF_NET_OFF).
_NETWORK_HEADER = -0x100000
_SOURCE = {4: 12, 6: 8}
_PASS, _DROP = 0xFFFFFFFF, 0

Instruction = tuple[int, int, int, int]


def source_filter(version: int, networks: Sequence[tuple[str, int]]) -> list[Instruction]:
    """The program that lets packets of some networks pass.

    Args:
        version: of IP, on this socket: 4 or 6.
        networks: (address, prefix length); those of the other version are left out.

    Returns:
        (code, jump if true, jump if false, constant) of each instruction; each network takes at
        most 13 of them.
    """
    program: list[Instruction] = []
    for address, bits in networks:
        network = ipaddress.ip_network((address, bits), strict=False)
        if network.version != version:
            continue
        words = range(network.max_prefixlen // 32)
        base, mask = int(network.network_address), int(network.netmask)
        tests: list[Instruction] = []
        for word in words:
            shift = network.max_prefixlen - 32 * (word + 1)
            wanted, bits_of_word = base >> shift & 0xFFFFFFFF, mask >> shift & 0xFFFFFFFF
            if bits_of_word:
                tests.append((_LOAD_WORD, 0, 0, _NETWORK_HEADER + _SOURCE[version] + 4 * word))
                tests.append((_AND, 0, 0, bits_of_word))
                tests.append((_EQUAL, 0, 0, wanted))
        # A word that differs goes on behind this network's "pass".
        for at, (code, *_, constant) in enumerate(tests):
            away = len(tests) - at if code == _EQUAL else 0
            program.append((code, 0, away, constant))
        program.append((_RETURN, 0, 0, _PASS))
    return [*program, (_RETURN, 0, 0, _DROP)]


def shield_listeners(ports: Sequence[tuple[str, int]], networks: Sequence[tuple[str, int]]) -> int:
    """Put the filter on this process's listening sockets at these addresses.

    Args:
        ports: (address, port) of each; what nobody listens on is left out.
        networks: (address, prefix length) from which connections may come.

    Returns:
        how many sockets have it now; a kernel that refuses is a warning in the log, no error.
    """
    wanted = {(ipaddress.ip_address(host), port) for host, port in ports}
    shielded = 0
    for listener in _listeners():
        with listener:
            host, port = listener.getsockname()[:2]
            if (ipaddress.ip_address(host.partition("%")[0]), port) not in wanted:
                continue
            listener.listen(BACKLOG)  # of a socket that listens already: only the room changes
            version = 6 if listener.family == socket.AF_INET6 else 4
            program = source_filter(version, networks)
            try:
                _attach(listener, program)
                shielded += 1
            except OSError as error:
                log.warning("listener_not_shielded", port=port, error=os.strerror(error.errno or 0))
    return shielded


def _listeners() -> Iterator[socket.socket]:
    """A duplicate of every listening TCP socket of this process."""
    for name in os.listdir("/proc/self/fd"):
        copy = -1
        try:
            copy = os.dup(int(name))
            found = socket.socket(fileno=copy)
        except OSError:  # no socket, or closed meanwhile
            if copy >= 0:
                os.close(copy)
            continue
        if (
            found.family in (socket.AF_INET, socket.AF_INET6)
            and found.type == socket.SOCK_STREAM
            and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        ):
            yield found
        else:
            found.close()


def _attach(listener: socket.socket, program: list[Instruction]) -> None:
    """Raises OSError: the kernel has no such filters, or the program is too long."""
    if len(program) > _MAX_INSTRUCTIONS:
        raise OSError(errno.E2BIG, "too many networks for a socket filter")
    code = b"".join(
        struct.pack("HBBI", op, yes, no, constant & 0xFFFFFFFF) for op, yes, no, constant in program
    )
    memory = ctypes.create_string_buffer(code)  # the kernel reads it through its address
    option = struct.pack("HL", len(program), ctypes.addressof(memory))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)
