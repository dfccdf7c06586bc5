"""Whose media is taken: a story for each rule, on whole calls of the relay in C."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core_kit import (
    ADDRESSES,
    AGENT,
    CALLER,
    FRAME,
    HELPER,
    STRANGER,
    CallInCore,
    rtp,
)

SDP = ADDRESSES[AGENT]
SIGNALLING = "198.51.100.7"
BEHIND_NAT = (SIGNALLING, 61000)
IN_NETWORK = ("203.0.113.50", 7000)
NETWORK = ("203.0.113.0", 24)


class Nat:
    """A call whose agent may sit behind NAT. Seconds count from its SDP."""

    def __init__(self, *, networks: bool = True) -> None:
        self.call = CallInCore(
            networks=([], [NETWORK] if networks else []), signalling={AGENT: SIGNALLING}
        )
        self.armed_at = self.call.now

    def arm(self, at: float, address: tuple[str, int] = SDP) -> None:
        self.at(at)
        self.call.negotiate(AGENT, address)

    def at(self, seconds: float) -> None:
        self.call.now = self.armed_at + seconds
        self.call.core.tick(self.call.now)
        self.call.sent()

    def accept(self, source: tuple[str, int], at: float) -> bool:
        """Whether the agent's packet from there reached the caller; refusals are counted."""
        self.at(at)
        refused = self.call.stats(AGENT)["wrong_source"]
        self.call.inject(AGENT, self.call.source[AGENT].packet(), source=source)
        went = len(self.call.sent(CALLER)) == 1
        assert self.call.stats(AGENT)["wrong_source"] == refused + (not went)
        return went

    @property
    def destination(self) -> tuple[str, int] | None:
        """Where the caller's voice goes."""
        self.call.sent()
        self.call.say(CALLER, after=0.0)
        sent = self.call.sent(AGENT)
        return sent[0].to if sent else None


def test_the_address_in_the_sdp_is_always_taken() -> None:
    nat = Nat()
    assert nat.destination == SDP
    assert nat.accept(SDP, 3600.0)
    assert nat.destination == SDP


def test_a_phone_behind_nat_latches_within_the_window_and_gets_its_media_there() -> None:
    nat = Nat()
    assert nat.accept(BEHIND_NAT, 4.9)
    assert nat.destination == BEHIND_NAT
    assert nat.accept(BEHIND_NAT, 3600.0)


def test_after_the_window_it_is_too_late() -> None:
    nat = Nat()
    assert not nat.accept(BEHIND_NAT, 5.1)
    assert not nat.accept(IN_NETWORK, 5.1)
    assert nat.destination == SDP


def test_the_first_sprayer_does_not_win() -> None:
    nat = Nat()
    for port in range(4000, 4100):
        assert not nat.accept((STRANGER[0], port), 0.001)
    assert nat.destination == SDP
    assert nat.accept(BEHIND_NAT, 0.5)
    assert not nat.accept(STRANGER, 0.6)
    assert nat.call.stats(AGENT)["wrong_source"] == 101
    assert nat.call.core.totals()["wrong_source"] == 101


def test_the_negative_control_a_stranger_in_a_named_network_is_no_stranger() -> None:
    nat = Nat()
    assert nat.accept(IN_NETWORK, 0.001)
    assert nat.destination == IN_NETWORK


def test_right_host_wrong_port_is_not_the_sdps_source() -> None:
    assert not Nat().accept((SDP[0], SDP[1] + 2), 0.1)


def test_configured_networks_are_taken_and_others_are_not() -> None:
    assert Nat().accept(IN_NETWORK, 1.0)
    assert not Nat(networks=False).accept(IN_NETWORK, 1.0)
    assert not Nat().accept(("203.0.114.50", 7000), 1.0)


def test_each_side_has_its_own_networks() -> None:
    call = CallInCore(networks=([NETWORK], []), legs=(CALLER, AGENT, HELPER))
    for leg, taken in ((CALLER, 1), (AGENT, 0), (HELPER, 0)):
        call.inject(leg, call.source[leg].packet(), source=IN_NETWORK)
        assert call.stats(leg)["received"] == taken


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        (("203.0.113.0", 24), "203.0.113.255", "203.0.112.255"),
        (("203.0.113.128", 25), "203.0.113.128", "203.0.113.127"),
        (("203.0.113.7", 32), "203.0.113.7", "203.0.113.6"),
        (("128.0.0.0", 1), "255.0.0.1", "127.0.0.1"),
        (("2001:db8:1::", 47), "2001:db8:1:ffff::1", "2001:db8:2::1"),
        (("2001:db8::5", 128), "2001:db8::5", "2001:db8::4"),
        (("0.0.0.0", 0), "8.8.8.8", "2001:db8::1"),
        (("::", 0), "2001:db8::1", "8.8.8.8"),
    ],
)
def test_a_networks_edge_lies_where_its_prefix_ends(
    network: tuple[str, int], inside: str, outside: str
) -> None:
    call = CallInCore(networks=([], [network]))
    call.inject(AGENT, call.source[AGENT].packet(), source=(outside, 9))
    assert call.stats(AGENT)["received"] == 0
    call.inject(AGENT, call.source[AGENT].packet(), source=(inside, 9))
    assert call.stats(AGENT)["received"] == 1


def test_once_latched_a_second_source_of_the_same_rank_is_a_stranger() -> None:
    nat = Nat()
    assert nat.accept(BEHIND_NAT, 1.0)
    assert not nat.accept((SIGNALLING, 61002), 1.1)
    assert not nat.accept(IN_NETWORK, 1.1)


def test_a_better_rank_displaces_a_worse_one() -> None:
    nat = Nat()
    assert nat.accept(IN_NETWORK, 0.1)
    assert nat.accept(BEHIND_NAT, 0.2)
    assert not nat.accept(IN_NETWORK, 0.3)
    assert nat.accept(SDP, 60.0)
    assert not nat.accept(BEHIND_NAT, 60.1)


def test_a_new_sdp_opens_the_window_again() -> None:
    nat = Nat()
    assert nat.accept(BEHIND_NAT, 1.0)
    moved = ("192.0.2.21", 4002)
    nat.arm(100.0, moved)
    assert nat.destination == moved
    assert nat.accept((SIGNALLING, 62000), 104.0)
    assert not nat.accept(BEHIND_NAT, 104.1)


def test_a_session_refresh_does_not_cut_off_a_muted_phone_behind_nat() -> None:
    nat = Nat()
    assert nat.accept(BEHIND_NAT, 1.0)
    nat.arm(900.0)
    assert nat.destination == BEHIND_NAT
    # It may have got another port from its NAT.
    assert nat.accept((SIGNALLING, 62000), 901.0)
    assert nat.destination == (SIGNALLING, 62000)


def test_after_a_refresh_the_old_source_needs_no_window() -> None:
    nat = Nat()
    assert nat.accept(BEHIND_NAT, 1.0)
    nat.arm(900.0)
    assert nat.accept(BEHIND_NAT, 1000.0)
    assert nat.accept(BEHIND_NAT, 1000.1)


def test_before_any_sdp_and_after_a_hold_nobody_is_taken() -> None:
    call = CallInCore(networks=([], [NETWORK]), signalling={AGENT: SIGNALLING}, legs=(CALLER,))
    call.core.add_leg(call.handle, AGENT, -1, -1)
    for source in (SDP, BEHIND_NAT, IN_NETWORK, ("", 0)):
        call.inject(AGENT, rtp(), source=source)
    call.say(CALLER)
    assert call.sent() == []
    call.negotiate(AGENT, ("", 0))
    for source in (SDP, BEHIND_NAT, IN_NETWORK):
        call.inject(AGENT, call.source[AGENT].packet(), source=source)
    call.say(CALLER)
    assert call.sent() == []
    assert call.stats(AGENT)["received"] == 0
    # The control: an answer comes.
    call.negotiate(AGENT)
    call.say(AGENT)
    call.say(CALLER)
    assert {out.leg for out in call.sent()} == {CALLER, AGENT}


def test_hold_takes_the_phone_back_and_resume_latches_it_anew() -> None:
    nat = Nat()
    assert nat.accept(BEHIND_NAT, 1.0)
    nat.arm(10.0, ("", 0))
    assert nat.destination is None
    assert not nat.accept(BEHIND_NAT, 10.1)
    nat.arm(20.0)
    assert nat.destination == SDP
    assert nat.accept(BEHIND_NAT, 20.5)
    assert nat.destination == BEHIND_NAT


def test_a_packet_without_payload_latches_and_is_not_forwarded() -> None:
    call = CallInCore(signalling={AGENT: SIGNALLING})
    call.inject(AGENT, rtp(b""), source=BEHIND_NAT)
    assert call.sent() == []
    assert (call.stats(AGENT)["received"], call.stats(AGENT)["malformed"]) == (1, 0)
    call.say(CALLER)
    assert [out.to for out in call.sent()] == [BEHIND_NAT]


@pytest.mark.parametrize(
    "data",
    [
        rtp(kind=18),
        rtp(FRAME)[:11],
        rtp(b"\x05\x8a\x00", 96),
        b"\xa0" + rtp(FRAME)[1:-1] + b"\x00",
    ],
    ids=["another payload type", "short", "short event", "bad padding"],
)
def test_only_a_valid_packet_latches(data: bytes) -> None:
    call = CallInCore(signalling={AGENT: SIGNALLING})
    call.inject(AGENT, data, source=BEHIND_NAT)
    call.say(CALLER)
    assert [out.to for out in call.sent()] == [SDP]


def test_a_telephone_event_may_be_what_latches() -> None:
    call = CallInCore(signalling={AGENT: SIGNALLING})
    call.inject(AGENT, call.source[AGENT].press("1", 96)[0], source=BEHIND_NAT)
    call.say(CALLER)
    assert {out.to for out in call.sent(AGENT)} == {BEHIND_NAT}


def test_ipv6_latches_like_ipv4() -> None:
    sdp, nat = ("2001:db8::20", 5000), ("2001:db8:7::1", 61000)
    call = CallInCore(signalling={AGENT: nat[0]})
    call.negotiate(AGENT, sdp)
    for stranger in (("2001:db8::21", 5000), ("2001:db8::20", 5001), ("192.0.2.20", 5000)):
        call.inject(AGENT, call.source[AGENT].packet(), source=stranger)
    assert call.stats(AGENT)["received"] == 0
    call.say(CALLER)
    assert [out.to for out in call.sent(AGENT)] == [sdp]
    call.inject(AGENT, call.source[AGENT].packet(), source=nat)
    call.say(CALLER)
    assert [out.to for out in call.sent(AGENT)] == [nat]
    # One side IPv6, the other IPv4.
    call.say(AGENT)
    assert call.stats(AGENT)["wrong_source"] == 4
    call.inject(AGENT, call.source[AGENT].packet(), source=nat, after=0.02)
    assert [out.to for out in call.sent(CALLER)] == [ADDRESSES[CALLER]]


@given(
    st.lists(
        st.tuples(
            st.ip_addresses().map(str), st.integers(1, 65535), st.floats(0, 100, allow_nan=False)
        ),
        max_size=50,
    )
)
def test_no_stranger_ever_gets_the_media(sprayed: list[tuple[str, int, float]]) -> None:
    nat = Nat()
    network = ipaddress.ip_network("203.0.113.0/24")
    for address, port, at in sprayed:
        if address in (SDP[0], SIGNALLING) or ipaddress.ip_address(address) in network:
            continue
        assert not nat.accept((address, port), at)
    assert nat.destination == SDP
