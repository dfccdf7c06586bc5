"""Another party behind the PBX's leg is told from a session refresh and from the caller."""

from __future__ import annotations

import pytest

from callshield.messages_media import FlowUpdate
from sipbridge.far_end import is_somebody_else, named_numbers
from sipbridge.media_gate import MediaGate
from sipbridge.sip_message import SipHeaders

CALLER = frozenset(["01012345678"])


@pytest.mark.parametrize(
    ("header", "other"),
    [
        ("P-Asserted-Identity: <sip:1002@192.0.2.5>", True),
        ('P-Asserted-Identity: "Lee" <sip:1002@192.0.2.5>', True),
        ("Remote-Party-ID: <sip:1002@192.0.2.5>;party=calling", True),
        ("P-Asserted-Identity: <sip:anonymous@anonymous.invalid>", True),
        ("P-Asserted-Identity: <sip:01012345678@192.0.2.5>", False),
        ("P-Asserted-Identity: <sip:01012345678@192.0.2.5>, <tel:1002>", False),
        ("P-Asserted-Identity: <sip:+821012345678@192.0.2.5>", False),
        ("P-Asserted-Identity: <tel:+82-10-1234-5678>", True),  # unreadable is somebody else
        ("P-Asserted-Identity: <sip:212345678@192.0.2.5>", True),
        ("P-Asserted-Identity: <sip:5678@192.0.2.5>", True),
        ("X-Nothing: 1002", None),
    ],
)
def test_who_is_named(header: str, other: bool | None) -> None:
    message = f"UPDATE sip:1001@192.0.2.10 SIP/2.0\r\n{header}\r\n\r\n"
    assert is_somebody_else(CALLER, SipHeaders(message)) is other


def test_every_name_counts() -> None:
    message = (
        "SIP/2.0 200 OK\r\nP-Asserted-Identity: <sip:+82212345678@192.0.2.5>\r\n"
        "Remote-Party-ID: <sip:0212345678@192.0.2.5>;party=called\r\n\r\n"
    )
    assert named_numbers(SipHeaders(message)) == {"+82212345678", "0212345678"}
    assert named_numbers(SipHeaders("SIP/2.0 200 OK\r\n\r\n")) == frozenset()


def flow(gate: MediaGate) -> FlowUpdate:
    message = gate.flow(
        hears=True, talks=True, on_hold=False, paused=False, conference=False
    ).message
    assert isinstance(message, FlowUpdate)
    return message


def test_tap_and_recording_rest_while_somebody_else_is_there() -> None:
    gate = MediaGate("c1")
    gate.open(tap=True, record=True)
    assert (flow(gate).tap, flow(gate).record) == (True, True)
    gate.somebody_else(there=True)
    assert (flow(gate).tap, flow(gate).record) == (False, False)
    assert flow(gate).caller_to_agent  # they still hear each other
    gate.somebody_else(there=False)
    assert (flow(gate).tap, flow(gate).record) == (True, True)


def test_a_notice_that_somebody_else_heard_opens_nothing() -> None:
    gate = MediaGate("c1")
    gate.somebody_else(there=True)
    gate.open(tap=True, record=True)
    assert (flow(gate).tap, flow(gate).record) == (False, False)
    gate.somebody_else(there=False)
    assert (flow(gate).tap, flow(gate).record) == (False, False)
