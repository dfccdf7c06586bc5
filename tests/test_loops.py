"""A call of ours that comes back through the PBX is told from a new one."""

from __future__ import annotations

import pytest

from sipbridge.loops import Placed, calling_number, comes_back
from sipbridge.sip_message import SipHeaders

RUNNING = [Placed("1001", "pbx", "01012345678"), Placed("1002", "pbx", "")]


def headers(value: str) -> SipHeaders:
    return SipHeaders(f"INVITE sip:1001@192.0.2.10 SIP/2.0\r\nFrom: {value}\r\n\r\n")


def test_the_same_agent_pbx_and_number_is_our_own_call() -> None:
    assert comes_back(RUNNING, "1001", "pbx", "01012345678")


@pytest.mark.parametrize(
    ("agent", "peer", "number"),
    [
        ("1002", "pbx", "01012345678"),
        ("1001", "other", "01012345678"),
        ("1001", "pbx", "01087654321"),
        ("1002", "pbx", ""),  # two callers who withhold their numbers
    ],
)
def test_anything_else_is_a_new_call(agent: str, peer: str, number: str) -> None:
    assert not comes_back(RUNNING, agent, peer, number)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ('"Kim" <sip:01012345678@192.0.2.5>;tag=1', "01012345678"),
        ("<sip:Anonymous@anonymous.invalid>;tag=1", ""),
        ("<sip:192.0.2.5>;tag=1", ""),
        ("", ""),
    ],
)
def test_a_withheld_number_is_no_number(value: str, number: str) -> None:
    assert calling_number(headers(value)) == number
