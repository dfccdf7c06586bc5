"""Which redirections of a phone are followed."""

from __future__ import annotations

import pytest

from sipbridge.redirect import MAX_HOPS, Redirections, contacts_of
from sipbridge.sip_message import SipHeaders

URI = "sip:1001@192.0.2.20:5060"


def to(uri: str = URI) -> Redirections:
    return Redirections(uri, lambda host: host.startswith("192.0.2."))


def test_every_contact_is_read() -> None:
    message = (
        "SIP/2.0 302 Moved\r\n"
        'Contact: "a, b" <sip:1@192.0.2.1;transport=tcp>;q=0.7, sip:2@192.0.2.2;q=0.1\r\n'
        "m: <tel:+8225551234>\r\n\r\n"
    )
    assert contacts_of(SipHeaders(message)) == [
        "sip:1@192.0.2.1;transport=tcp",
        "sip:2@192.0.2.2",
        "tel:+8225551234",
    ]


@pytest.mark.parametrize(
    ("contacts", "refusal"),
    [
        (["sip:1001@192.0.2.21"], ""),
        (["sip:1001@192.0.2.20:5070"], ""),
        (["sip:1001@192.0.2.21", "sip:1001@192.0.2.22"], ""),
        ([], "nowhere"),
        (["sip:1002@192.0.2.21"], "elsewhere"),
        (["tel:+8225551234"], "elsewhere"),
        (["sip:192.0.2.21"], "elsewhere"),
        (["sip:1001@198.51.100.1"], "host"),
        (["sip:1001@phone.example.com"], "host"),
        (["sip:1001@192.0.2.21", "sip:1001@198.51.100.1"], "host"),
        (["sip:1001@192.0.2.21;transport=tcp"], "transport"),
        (["sips:1001@192.0.2.21"], "transport"),
        ([URI], "loop"),
        (["sip:1001@192.0.2.20"], "loop"),  # 5060 is the port that goes without saying
    ],
)
def test_who_may_be_called_instead(contacts: list[str], refusal: str) -> None:
    assert to().refusal(contacts) == refusal


def test_a_chain_has_an_end_and_no_circle() -> None:
    redirections = to()
    for hop in range(MAX_HOPS):
        assert redirections.refusal([f"sip:1001@192.0.2.{30 + hop}"]) == ""
        assert redirections.refusal([f"sip:1001@192.0.2.{30 + hop}"]) == "loop"
    assert redirections.refusal(["sip:1001@192.0.2.99"]) == "too_many"


def test_encrypted_signalling_stays_encrypted() -> None:
    redirections = to("sips:1001@192.0.2.20")
    assert redirections.refusal(["sip:1001@192.0.2.21"]) == "transport"
    assert redirections.refusal(["sips:1001@192.0.2.21"]) == ""
