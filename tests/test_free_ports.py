"""Ports for telephones that start at the same moment."""

from __future__ import annotations

import pytest

from callshield import free_ports
from callshield.free_ports import free_port, free_range
from tests.lanes.isolation import port_slice
from tests.peers import baresip


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


def telephones(number: int) -> list[tuple[int, int]]:
    return [baresip.media_ports() for _ in range(number)]


@pytest.mark.parametrize("part", [None, 0, 1, 2, 3])
def test_each_lane_has_ports_for_its_telephones_however_many_come_in_turn(
    monkeypatch: pytest.MonkeyPatch, part: int | None
) -> None:
    if part is not None:
        lowest, highest = map(int, port_slice(part, 4).split("-"))
        monkeypatch.setattr(free_ports, "LOWEST", lowest)
        monkeypatch.setattr(free_ports, "HIGHEST", highest)
        monkeypatch.setattr(free_ports, "REMEMBERED", (highest - lowest) // 3)
    given = telephones(1000)
    for latest in (given[-50:], given[:50]):
        ports = [port for first, last in latest for port in range(first, last + 1)]
        assert len(set(ports)) == 50 * 20
    if part in (None, 0, 1):
        assert max(last for _, last in given) < baresip.DEFAULTS_FROM


def test_with_a_memory_of_all_there_would_be_none_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control."""
    monkeypatch.setattr(baresip, "_given", [])
    with pytest.raises(OSError, match="no 20 ports for a telephone"):
        telephones(1000)
