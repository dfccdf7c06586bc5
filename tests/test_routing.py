"""Toll fraud and loops: whom an INVITE may connect, and what no INVITE can make us dial."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from callshield.messages import Direction, LegName
from callshield.outbound_settings import OutboundSettings
from callshield.settings import Settings
from sipbridge.admission import channel_name
from sipbridge.routing import (
    Refused,
    Route,
    Routing,
    Running,
    calling_number,
    dialled_number,
)
from sipbridge.sip_message import SipHeaders

VALUES: dict[str, Any] = {
    "peers": [
        {
            "name": "pbx",
            "networks": ["192.0.2.1"],
            "outgoing": True,
            "trunk": "carrier",
            "trunks": ["spare"],
        },
        {"name": "gateway", "networks": ["192.0.2.9"]},
    ],
    "agents": {
        "1001": {"uri": "sip:phone-1001@192.0.2.1:5060"},
        "1002": {"uri": "sip:1002@192.0.2.20:5060"},
        "1003": {"uri": "sip:1003@192.0.2.21:5060", "outgoing": False},
    },
    "supervisors": {"lead": {"uri": "sip:2001@192.0.2.30:5060"}},
    "trunks": {
        "carrier": {"host": "198.51.100.1", "caller_id": "0215550100"},
        "spare": {"host": "198.51.100.2", "port": 5080, "transport": "tcp"},
        "secret": {"host": "198.51.100.3"},
    },
    "outbound": {"patterns": ["0[0-9]{8,10}", "[*]21#"], "deny": ["060[0-9]+"]},
}
SETTINGS = Settings(**VALUES)
ROUTING = Routing(SETTINGS)
PBX, GATEWAY = SETTINGS.peers


def invite(uri: str, *headers: str, caller: str = "1001") -> SipHeaders:
    lines = [f"INVITE {uri} SIP/2.0", f"From: <sip:{caller}@192.0.2.1>;tag=1", *headers]
    return SipHeaders("\r\n".join(lines) + "\r\n\r\n")


PHONE = "sip:phone-1001@192.0.2.1:5060"
AGENT, OTHER = "X-Callshield-Agent: 1001", "X-Callshield-Agent: 1002"


def dial(uri: str, *headers: str, peer: Any = PBX) -> Route | Refused:
    return ROUTING.route(invite(uri, *(headers or (AGENT,))), peer)


# --------------------------------------------------------------------------------- what works


def test_an_allowed_number_goes_over_the_peers_trunk() -> None:
    assert dial("sip:0212345678@192.0.2.2:5060") == Route(
        Direction.OUTBOUND,
        "1001",
        LegName.AGENT,
        "sip:0212345678@198.51.100.1:5060",
        "carrier",
        "0212345678",
    )


def test_a_header_chooses_among_the_peers_own_trunks() -> None:
    found = dial("sip:0212345678@192.0.2.2", AGENT, "X-Callshield-Trunk: spare")
    assert isinstance(found, Route)
    assert found.called_uri == "sip:0212345678@198.51.100.2:5080;transport=tcp"
    refused = dial("sip:0212345678@192.0.2.2", AGENT, "X-Callshield-Trunk: secret")
    assert isinstance(refused, Refused)
    assert (refused.status, refused.reason) == (403, "trunk_not_allowed")
    assert isinstance(dial("sip:0212345678@x", AGENT, "X-Callshield-Trunk: carrier"), Route)


def test_hash_is_escaped_as_uris_want_it_and_uri_parameters_are_nobodys_business() -> None:
    found = dial("sip:*21%23@192.0.2.2;user=phone")
    assert isinstance(found, Route)
    assert (found.dialled, found.called_uri) == ("*21#", "sip:*21%23@198.51.100.1:5060")


# --------------------------------------------------------------------------------- what does not


@pytest.mark.parametrize(
    "uri",
    [
        "sip:0212345678;phone-context=+82@192.0.2.2",  # parameters of the user part
        "sip:0212345678;npdi@192.0.2.2",
        "sip:0212345678:secret@192.0.2.2",  # a password
        "sip:%30212345678@192.0.2.2",  # an escaped digit
        "sip:0212345678%0d%0a@192.0.2.2",
        "sip:0212345678%40evil.example@192.0.2.2",
        "sip:0212345678@evil.example@192.0.2.2",  # two hosts
        "sip:0212345678,0900@192.0.2.2",
        "sip:0212345678?Route=%3Csip:evil%3E@192.0.2.2",
        "sip:0212345678@192.0.2.2?X-Callshield-Trunk=secret",  # headers in the URI
        "sip:٠٢١٢٣٤٥٦٧٨@192.0.2.2",  # digits, but not these
        "sip:０２１２３４５６７８@192.0.2.2",
        "sip:" + "0" * 33 + "@192.0.2.2",
        "sip:0" + "2" * 4000 + "@192.0.2.2",
        "tel:0212345678",
        "tel:0212345678;phone-context=x@192.0.2.2",
        "sip:192.0.2.2",
        "sip:@192.0.2.2",
        "sip:0212345678 @192.0.2.2",
        "sip:0212345678@",
        "mailto:0212345678@192.0.2.2",
        "sip:anonymous@192.0.2.2",
        "sip:0212345678\\@192.0.2.2",
        "",
    ],
)
def test_what_is_not_exactly_a_number_is_not_dialled(uri: str) -> None:
    assert dialled_number(f"INVITE {uri} SIP/2.0") == ""
    refused = dial(uri)
    assert isinstance(refused, Refused)
    assert (refused.status, refused.reason) == (403, "not_a_number")


@pytest.mark.parametrize(
    "number", ["0601234567", "119", "112", "1", "00441234567890123", "+82212345678", "0212345678#"]
)
def test_numbers_that_no_pattern_names_and_denied_ones_are_refused(number: str) -> None:
    refused = dial(f"sip:{number.replace('#', '%23')}@192.0.2.2")
    assert isinstance(refused, Refused)
    assert (refused.status, refused.reason) == (403, "number_not_allowed")


@pytest.mark.parametrize(
    ("headers", "peer", "status", "reason"),
    [
        ((AGENT,), GATEWAY, 403, "outgoing_not_allowed"),
        (("X-Callshield-Agent: 9999",), PBX, 403, "unknown_agent"),
        (("X-Callshield-Agent:",), PBX, 403, "unknown_agent"),
        (("X-Callshield-Agent: 1003",), PBX, 403, "agent_may_not_call"),
        (("X-Callshield-Agent: lead",), PBX, 403, "unknown_agent"),
        ((AGENT, "X-Callshield-Agent: 1002"), PBX, 400, "agent_header_twice"),
        ((AGENT, *["X-Callshield-Trunk: spare"] * 2), PBX, 400, "trunk_header_twice"),
    ],
)
def test_only_a_peer_with_the_right_may_name_an_agent_with_the_right(
    headers: tuple[str, ...], peer: Any, status: int, reason: str
) -> None:
    refused = dial("sip:0212345678@192.0.2.2", *headers, peer=peer)
    assert isinstance(refused, Refused)
    assert (refused.status, refused.reason) == (status, reason)


def test_without_the_header_a_number_is_nobody() -> None:
    refused = dial("sip:0212345678@192.0.2.2", "X-Other: 1")
    assert isinstance(refused, Refused)
    assert refused.status == 404


@given(st.text(max_size=60))
@example("0212345678")
@example("0212345678@evil")
@example("1002")
def test_no_uri_dials_anything_that_the_patterns_do_not_name(user: str) -> None:
    """Whatever stands in the URI: a route goes to a configured phone or an allowed number."""
    found = dial(f"sip:{user}@192.0.2.2")
    if isinstance(found, Refused):
        return
    if not found.trunk:
        phones = [a.uri for a in SETTINGS.agents.values()] + ["sip:2001@192.0.2.30:5060"]
        assert found.called_uri in phones
        return
    assert SETTINGS.outbound.allows(found.dialled)
    number = found.dialled.replace("#", "%23")
    assert found.called_uri == f"sip:{number}@198.51.100.1:5060"


# --------------------------------------------------------------------------------- colleagues


@pytest.mark.parametrize(
    ("uri", "headers", "agent", "incoming", "called"),
    [
        # Marked by the PBX; by the calling number; by the number that the agent dials.
        ("1001", ("X-Callshield-Internal: yes",), "1001", "caller", "phone-1001@192.0.2.1:5060"),
        ("1002", ("P-Asserted-Identity: <sip:1001@x>",), "1002", "caller", "1002@192.0.2.20:5060"),
        ("1002", (AGENT,), "1002", "caller", "1002@192.0.2.20:5060"),
        ("lead", (AGENT,), "1001", "agent", "2001@192.0.2.30:5060"),
        ("2001", (AGENT,), "1001", "agent", "2001@192.0.2.30:5060"),
        (
            "phone-1001",
            ("X-Callshield-Agent: 1002",),
            "1001",
            "caller",
            "phone-1001@192.0.2.1:5060",
        ),
    ],
)
def test_calls_between_colleagues_are_internal(
    uri: str, headers: tuple[str, ...], agent: str, incoming: str, called: str
) -> None:
    caller = "01012345678" if "Internal" in headers[0] or "Identity" in headers[0] else "1001"
    found = ROUTING.route(invite(f"sip:{uri}@192.0.2.2", *headers, caller=caller), PBX)
    assert isinstance(found, Route)
    assert found.direction is Direction.INTERNAL
    assert (found.agent_id, found.incoming.value) == (agent, incoming)
    assert (found.called_uri, found.trunk) == (f"sip:{called}", "")


def test_a_peer_may_mark_a_colleague_behind_a_line_as_internal() -> None:
    """Another site: dialled as a number, over a line, and still between colleagues."""
    found = dial("sip:0212345678@192.0.2.2", AGENT, "X-Callshield-Internal: YES")
    assert isinstance(found, Route)
    assert (found.direction, found.trunk) == (Direction.INTERNAL, "carrier")
    found = dial("sip:0212345678@192.0.2.2", AGENT, "X-Callshield-Internal: no")
    assert isinstance(found, Route)
    assert found.direction is Direction.OUTBOUND
    refused = dial("sip:0601234567@192.0.2.2", AGENT, "X-Callshield-Internal: yes")
    assert isinstance(refused, Refused)  # marking opens no number


def test_a_call_from_outside_is_not_internal() -> None:
    found = ROUTING.route(invite("sip:1001@192.0.2.2", caller="01012345678"), GATEWAY)
    assert isinstance(found, Route)
    assert found.direction is Direction.INBOUND


def test_asserted_identity_goes_before_a_from_that_anybody_can_write() -> None:
    asserted = "P-Asserted-Identity: <sip:01012345678@carrier>"
    found = ROUTING.route(invite("sip:1002@192.0.2.2", asserted, caller="1001"), PBX)
    assert isinstance(found, Route)
    assert found.direction is Direction.INBOUND
    assert calling_number(invite("sip:1002@x", asserted, caller="1001")) == "01012345678"


# --------------------------------------------------------------------------------- loops


def test_the_same_call_back_is_a_loop_and_a_second_call_is_not() -> None:
    ringing = Running("1001", frozenset({"01012345678"}), "", PHONE, True)
    inbound = Route(Direction.INBOUND, "1001", LegName.CALLER, PHONE)
    assert ringing.is_repeated_by(inbound, frozenset({"01012345678"}))
    assert not ringing.is_repeated_by(inbound, frozenset({"01099999999"}))  # call waiting
    answered = replace(ringing, rings=False)
    assert not answered.is_repeated_by(inbound, frozenset({"01012345678"}))
    out = Running("1001", frozenset({"1001"}), "0212345678", "sip:0212345678@192.0.2.1", True)
    again = dial("sip:0212345678@192.0.2.2")
    assert isinstance(again, Route)
    assert out.is_repeated_by(again, frozenset({"0215550100"}))  # the line's number in From
    assert not out.is_repeated_by(inbound, frozenset({"1001"}))


# --------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("0[0-9", "none"),
        ("[0-9]*", "empty number"),
        ("", "empty number"),
        ("(0[0-9]+)+", "minutes"),
        ("([0-9]{1,9}){2,9}x", "minutes"),
        ("0{999999999999}", "none"),
        ("[0-9]{3,11}", "leave out 112"),
        ("119", "leave out 119"),
        (".+", "leave out 112"),
    ],
)
def test_patterns_that_let_too_much_or_nothing_through_are_faults(pattern: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        OutboundSettings(patterns=[pattern])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"trunks": {}}, r"a \[trunks.carrier\], which peer pbx names"),
        ({"outbound": {}}, "outbound.patterns, without which nobody can be called"),
        (
            {"peers": [{"name": "pbx", "networks": ["192.0.2.1"], "outgoing": True}]},
            "trunk = a NAME",
        ),
        (
            {"trunks": {**VALUES["trunks"], "spare": {"host": "192.0.2.5", "transport": "tls"}}},
            r"a \[sip.pbx.tls\] table for trunk spare",
        ),
        ({"trunks": {**VALUES["trunks"], "spare": {"host": "carrier.example"}}}, "an IPv4 or IPv6"),
        (
            {
                "trunks": {
                    **VALUES["trunks"],
                    "spare": {"host": "192.0.2.5", "caller_id_in": "p_asserted_identity"},
                }
            },
            "caller_id, which is to go",
        ),
    ],
)
def test_a_configuration_that_could_call_nobody_says_what_is_missing(
    changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValidationError, match=why):
        Settings(**(VALUES | changes))


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("PJSIP/phone-1001-0000002a", "PJSIP/phone-1001-0000002a"),
        ("Local/1001@callshield-agents-0000001c;2", "Local/1001@callshield-agents-0000001c;2"),
        ("SIP/a\r\nAction: Originate", "SIP/aAction:Originate"),
        ('x"<y> z', "xyz"),
        ("a" * 500, "a" * 128),
        ("채널", ""),
    ],
)
def test_a_channel_name_cannot_smuggle_anything_into_ami(sent: str, kept: str) -> None:
    assert channel_name(sent) == kept


def test_a_peer_may_be_told_not_to_go_by_numbers() -> None:
    """Outsiders could show an extension as their number, and nobody would be protected."""
    outside = GATEWAY.model_copy(update={"internal_numbers": False})
    call = invite("sip:1001@192.0.2.2", caller="1002")
    for peer, direction in ((GATEWAY, Direction.INTERNAL), (outside, Direction.INBOUND)):
        found = ROUTING.route(call, peer)
        assert isinstance(found, Route)
        assert found.direction is direction
    marked = invite("sip:1001@192.0.2.2", "X-Callshield-Internal: yes", caller="1002")
    assert ROUTING.route(marked, outside).direction is Direction.INTERNAL  # type: ignore[union-attr]


# ---------------------------------------------------------------------------------- transfers


@pytest.mark.parametrize(
    ("user", "may"),
    [
        ("1002", True),
        ("phone-1001", True),  # a colleague's extension
        ("lead", True),
        ("250", True),
        ("0212345678", True),  # what the agent may dial
        ("*21%23", True),
        ("0609001234", False),
        ("00818012345678", False),
        ("112", False),
        ("%30609001234", False),
        ("%31%31%32", False),
        ("0609-001-234", False),
        ("sales", False),
        ("", False),
    ],
)
def test_no_transfer_reaches_what_may_not_be_dialled(user: str, may: bool) -> None:
    """The PBX puts our call to the target through as one that the rules let out."""
    assert ROUTING.may_transfer_to("1001", user) is may


def test_an_agent_who_may_not_call_out_transfers_inside_only() -> None:
    assert not ROUTING.may_transfer_to("1003", "0212345678")
    assert ROUTING.may_transfer_to("1003", "1002")


def test_where_no_call_goes_out_through_us_the_pbx_alone_decides_about_transfers() -> None:
    peers = [{"name": "pbx", "networks": ["192.0.2.1"]}]
    assert Routing(Settings(**{**VALUES, "peers": peers})).may_transfer_to("1001", "0609001234")


def test_extensions_are_the_operators_to_name() -> None:
    outbound = {**VALUES["outbound"], "extensions": ["7[0-9]{3}"]}
    routing = Routing(Settings(**{**VALUES, "outbound": outbound}))
    assert routing.may_transfer_to("1001", "7250")
    assert not routing.may_transfer_to("1001", "250")
