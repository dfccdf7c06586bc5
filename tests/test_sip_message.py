"""Headers as text: folding, compact forms, and what goes across."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sipbridge.sip_message import (
    SipHeaders,
    address_uri,
    display_name,
    request_uri_user,
    uri_user,
    via_hosts,
)

INVITE = (
    "INVITE sip:1001@192.0.2.1:5060;transport=udp SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 192.0.2.9\r\n"
    'f: "Kim, Min-su" <sip:01012345678@192.0.2.9>;tag=a\r\n'
    "t: <sip:1001@192.0.2.1>\r\n"
    "i: abc@192.0.2.9\r\n"
    "X-Queue: support\r\n folded\r\n"
    "x-callshield-call-id: 123\r\n"
    "P-Asserted-Identity: <tel:+82212345678>\r\n"
    "Diversion: <sip:600@pbx>;reason=unconditional\r\n"
    "Max-Forwards: 69\r\n\r\n"
    "v=0\r\nX-Not: a header\r\n"
)


def test_headers_are_found_by_long_name() -> None:
    headers = SipHeaders(INVITE)
    assert headers.first("Call-ID") == "abc@192.0.2.9"
    assert headers.first("max-forwards") == "69"
    assert headers.first("X-Queue") == "support folded"
    assert headers.first("X-Not") == ""


def test_only_the_promised_headers_go_across() -> None:
    assert SipHeaders(INVITE).carried() == [
        ("X-Queue", "support folded"),
        ("P-Asserted-Identity", "<tel:+82212345678>"),
        ("Diversion", "<sip:600@pbx>;reason=unconditional"),
    ]


def test_agent_id_is_the_user_of_the_request_uri() -> None:
    assert request_uri_user(SipHeaders(INVITE).start_line) == "1001"
    assert request_uri_user("INVITE sip:192.0.2.1 SIP/2.0") == ""
    assert request_uri_user("nonsense") == ""


def test_caller_is_read_from_from() -> None:
    value = SipHeaders(INVITE).first("From")
    assert display_name(value) == "Kim, Min-su"
    assert uri_user(address_uri(value)) == "01012345678"
    assert display_name("<sip:a@b>") == ""
    assert address_uri("sip:a@b;tag=1") == "sip:a@b"


def test_a_line_break_cannot_be_smuggled_into_a_value() -> None:
    headers = SipHeaders("INVITE sip:1@h SIP/2.0\r\nX-A: one\r\nX-B: two\r\n\r\n")
    assert all("\n" not in value and "\r" not in value for _, value in headers.carried())


def test_a_bare_carriage_return_does_not_travel_on() -> None:
    headers = SipHeaders("INVITE sip:1@h SIP/2.0\r\nX-A: 1\rX-Evil: injected\x00\r\n\r\n")
    assert headers.carried() == [("X-A", "1 X-Evil: injected")]


def test_bytes_that_are_no_unicode_become_question_marks() -> None:
    raw = 'INVITE sip:1@h SIP/2.0\r\nFrom: "고객" <sip:1@h>\r\n\r\n'.encode("euc-kr")
    # As pjsua2 hands it over.
    headers = SipHeaders(raw.decode("utf-8", "surrogateescape"))
    assert display_name(headers.first("From")) == "????"
    headers.first("From").encode("utf-8")


@given(st.text(max_size=300))
def test_any_text_has_headers_or_none(text: str) -> None:
    headers = SipHeaders(text)
    headers.carried()
    request_uri_user(headers.start_line)
    display_name(text)
    address_uri(text)
    assert all("\n" not in value for _, value in headers.carried())


def test_who_a_message_came_through() -> None:
    """The sent-by of every Via, in one header or several (RFC 3261 section 7.3.1)."""
    message = (
        "INVITE sip:1@x SIP/2.0\r\n"
        "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1, SIP / 2.0 / TCP PBX.example.com : 5080\r\n"
        "v: SIP/2.0/TLS [2001:db8::1]:5061;received=192.0.2.9\r\nVia: nonsense\r\n\r\n"
    )
    assert via_hosts(SipHeaders(message)) == {
        ("192.0.2.1", 5060),
        ("pbx.example.com", 5080),
        ("2001:db8::1", 5061),
    }
