"""Ports for telephones that start at the same moment."""

from __future__ import annotations

from callshield import free_ports
from callshield.free_ports import free_port, free_range


def test_no_port_is_given_twice_while_nobody_has_bound_it_yet() -> None:
    """150 ranges of eight: by chance alone, two of them would nearly always share a port."""
    taken: set[int] = set()
    for _ in range(150):
        first, last = free_range("127.0.0.1", 8)
        ports = set(range(first, last + 1))
        assert not ports & taken
        taken |= ports
    assert free_port("127.0.0.1") not in taken


def test_without_a_memory_there_are_such_pairs() -> None:
    """Negative control."""
    taken: list[int] = []
    for _ in range(300):
        free_ports._given.clear()
        first, last = free_range("127.0.0.1", 8)
        taken += range(first, last + 1)
    assert len(set(taken)) < len(taken)
