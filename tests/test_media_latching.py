"""Whose media is taken: a story for each rule."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st
from sipbridge.latching import Latch

SDP = ("192.0.2.20", 4000)
SIGNALLING = "198.51.100.7"
BEHIND_NAT = (SIGNALLING, 61000)
IN_NETWORK = ("203.0.113.50", 7000)
STRANGER = ("192.0.2.66", 4000)
NETWORKS = (ipaddress.ip_network("203.0.113.0/24"),)


def armed(*, networks: bool = True, at: float = 0.0) -> Latch:
    latch = Latch(NETWORKS if networks else (), 5.0)
    latch.arm(SDP, SIGNALLING, at)
    return latch


def test_the_address_in_the_sdp_is_always_taken() -> None:
    latch = armed()
    assert latch.destination == SDP
    assert latch.settled is None
    assert latch.accept(SDP, 3600.0)
    assert latch.settled == SDP


def test_a_phone_behind_nat_latches_within_the_window_and_gets_its_media_there() -> None:
    latch = armed()
    assert latch.accept(BEHIND_NAT, 4.9)
    assert latch.destination == BEHIND_NAT
    assert latch.accept(BEHIND_NAT, 3600.0)


def test_after_the_window_it_is_too_late() -> None:
    latch = armed()
    assert not latch.accept(BEHIND_NAT, 5.1)
    assert not latch.accept(IN_NETWORK, 5.1)
    assert latch.destination == SDP


def test_the_first_sprayer_does_not_win() -> None:
    latch = armed()
    for port in range(4000, 4100):
        assert not latch.accept((STRANGER[0], port), 0.001)
    assert latch.destination == SDP
    assert latch.accept(BEHIND_NAT, 0.5)
    assert not latch.accept(STRANGER, 0.6)


def test_right_host_wrong_port_is_not_the_sdps_source() -> None:
    latch = armed()
    assert not latch.accept((SDP[0], SDP[1] + 2), 0.1)


def test_configured_networks_are_taken_and_others_are_not() -> None:
    assert armed().accept(IN_NETWORK, 1.0)
    assert not armed(networks=False).accept(IN_NETWORK, 1.0)


def test_once_latched_a_second_source_of_the_same_rank_is_a_stranger() -> None:
    latch = armed()
    assert latch.accept(BEHIND_NAT, 1.0)
    assert not latch.accept((SIGNALLING, 61002), 1.1)
    assert not latch.accept(IN_NETWORK, 1.1)


def test_a_better_rank_displaces_a_worse_one() -> None:
    latch = armed()
    assert latch.accept(IN_NETWORK, 0.1)
    assert latch.accept(BEHIND_NAT, 0.2)
    assert not latch.accept(IN_NETWORK, 0.3)
    assert latch.accept(SDP, 60.0)
    assert not latch.accept(BEHIND_NAT, 60.1)


def test_a_new_sdp_opens_the_window_again() -> None:
    latch = armed()
    assert latch.accept(BEHIND_NAT, 1.0)
    moved = ("192.0.2.21", 4002)
    latch.arm(moved, SIGNALLING, 100.0)
    assert latch.destination == moved
    assert latch.settled is None
    assert latch.accept((SIGNALLING, 62000), 104.0)
    assert not latch.accept(BEHIND_NAT, 104.1)


def test_a_session_refresh_does_not_cut_off_a_muted_phone_behind_nat() -> None:
    latch = armed()
    assert latch.accept(BEHIND_NAT, 1.0)
    latch.arm(SDP, SIGNALLING, 900.0)
    assert latch.destination == BEHIND_NAT
    # It may have got another port from its NAT.
    assert latch.accept((SIGNALLING, 62000), 901.0)
    assert latch.destination == (SIGNALLING, 62000)


def test_after_a_refresh_the_old_source_needs_no_window() -> None:
    latch = armed()
    assert latch.accept(BEHIND_NAT, 1.0)
    latch.arm(SDP, SIGNALLING, 900.0)
    assert latch.accept(BEHIND_NAT, 1000.0)
    assert latch.settled == BEHIND_NAT


def test_before_any_sdp_nobody_is_taken() -> None:
    latch = Latch(NETWORKS, 5.0)
    assert not latch.accept(IN_NETWORK, 0.0)
    latch.arm(None, SIGNALLING, 0.0)
    assert not latch.accept(BEHIND_NAT, 0.1)
    assert latch.destination is None


@given(
    st.lists(
        st.tuples(
            st.ip_addresses().map(str), st.integers(1, 65535), st.floats(0, 100, allow_nan=False)
        ),
        max_size=50,
    )
)
def test_no_stranger_ever_gets_the_media(sprayed: list[tuple[str, int, float]]) -> None:
    latch = armed()
    allowed = (SDP[0], SIGNALLING)
    for address, port, at in sprayed:
        if address in allowed or ipaddress.ip_address(address) in NETWORKS[0]:
            continue
        assert not latch.accept((address, port), at)
    assert latch.destination == SDP
