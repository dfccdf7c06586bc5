"""The PJSIP module of ours, driven over loopback as its peers see it.

Each test talks raw SIP to a child process (this same file, run as a program) that holds a real
PJSIP endpoint with the guard in it. Silence is proved without waiting: the datagrams of one socket
are handled in order, so once a later OPTIONS is answered, an earlier request will not be.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pjsip_guard
import pytest

PBX = "127.0.0.2"
STRANGER = "127.0.0.66"
PHONE = "127.0.1.5"
PATIENCE_S = 10.0

#: What tells the answers to one request from those to another (RFC 3261 17.1.3).
MARKS = tuple(
    re.compile(one, re.MULTILINE | re.IGNORECASE)
    for one in (
        rb"^(?:Via|v)\s*:[^\r\n]*?;\s*branch=([^;,\s]+)",
        rb"^(?:Call-ID|i)\s*:\s*(\S+)",
        rb"^CSeq\s*:\s*(\d+)",
    )
)
OFFER = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 4000 RTP/AVP 0\r\n"
)


class Peer:
    """A SIP peer on an address of 127.0.0.0/8 that sends requests and reads what comes back."""

    _numbers = itertools.count(1)

    def __init__(self, address: str, bridge: Bridge) -> None:
        self._bridge = bridge
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 0))
        self.socket.settimeout(PATIENCE_S)
        self.address, self.port = self.socket.getsockname()
        self._acks: dict[bytes, bytes] = {}

    def request(
        self,
        method: str,
        *,
        to_tag: str = "",
        body: str = "",
        via: str = ";rport",
        branch: str = "",
        call: str = "",
        cseq: int = 0,
        headers: tuple[str, ...] = (),
    ) -> bytes:
        """Compose a request; `call` is Call-ID and From tag in one, for requests of one dialog."""
        number = next(self._numbers)
        call = call or f"call{number}"
        lines = [
            f"{method} sip:7001@127.0.0.1:{self._bridge.port} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.address}:{self.port};"
            f"branch={branch or f'z9hG4bK{number}'}{via}",
            "Max-Forwards: 70",
            f"From: <sip:pbx@{self.address}>;tag={call}",
            f"To: <sip:7001@127.0.0.1>{f';tag={to_tag}' if to_tag else ''}",
            f"Call-ID: {call}@example.org",
            f"CSeq: {cseq or (1 if method in ('INVITE', 'ACK') else 2)} {method}",
            *headers,
            f"Contact: <sip:pbx@{self.address}:{self.port}>",
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
            "",
            body,
        ]
        return "\r\n".join(lines).encode()

    def send(self, message: bytes) -> None:
        if message.startswith(b"ACK ") and (call := MARKS[1].search(message)):
            self._acks[call[1]] = message
        self.socket.sendto(message, ("127.0.0.1", self._bridge.port))

    def response(self, *, skip: tuple[int, ...] = (100,), to: bytes = b"") -> tuple[int, str]:
        """Return status and text of the next response that is not one to skip.

        Args:
            skip: statuses.
            to: the request that it must answer; any.
        """
        asked = [mark.search(to) for mark in MARKS]
        while True:
            data = self.socket.recv(65535)
            if self._is_old(data):
                continue
            told = [mark.search(data) for mark in MARKS]
            if any(a and (not b or a[1] != b[1]) for a, b in zip(asked, told, strict=True)):
                continue
            text = data.decode()
            status = int(text.split(" ", 2)[1])
            if status not in skip:
                return status, text

    def ask(self, message: bytes) -> tuple[int, str]:
        self.send(message)
        return self.response(to=message)

    def waiting(self) -> list[int]:
        """Return the status codes of all responses that have come already."""
        statuses = []
        while select.select([self.socket], [], [], 0)[0]:
            data = self.socket.recv(65535)
            if not self._is_old(data):
                statuses.append(int(data.split(b" ", 2)[1]))
        return statuses

    def _is_old(self, data: bytes) -> bool:
        """A 2xx that was sent again before our ACK was there is acknowledged again, and no more
        (RFC 3261 13.2.2.4)."""
        call = MARKS[1].search(data)
        if call is None or call[1] not in self._acks:
            return False
        if not re.match(rb"SIP/2.0 2.*^CSeq: \d+ INVITE\r", data, re.DOTALL | re.MULTILINE):
            return False
        self.send(self._acks[call[1]])
        return True


class Bridge:
    """The child process: commands go in on its standard input, answers and events come out."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.incoming: list[str] = []
        self._peers: list[Peer] = []
        ports = self._answer()
        self.port, self.tcp_port = int(ports["port"]), int(ports["tcp_port"])

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of pjsip_guard in the child."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps([function, arguments]) + "\n")
        self._child.stdin.flush()
        answer = self._answer()
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._child.pid

    def counters(self) -> dict[str, int]:
        return dict(self.call("counters"))

    def peer(self, address: str) -> Peer:
        peer = Peer(address, self)
        self._peers.append(peer)
        return peer

    def settled(self, peer: Peer) -> None:
        """Return once all that was sent before has been handled."""
        peer.socket.setblocking(True)
        probe = self.peer(peer.address)
        probe.send(probe.request("OPTIONS"))
        probe.response()

    def close(self) -> int:
        for peer in self._peers:
            peer.socket.close()
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.close()
        try:
            return self._child.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            raise
        finally:
            self._child.stdout.close()

    def _answer(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if not line.startswith("{"):
                continue  # PJLIB greets on standard output
            message: dict[str, Any] = json.loads(line)
            if "incoming" not in message:
                return message
            self.incoming.append(message["incoming"])
        raise AssertionError(f"the bridge died with status {self._child.wait()}")


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    bridge = Bridge()
    yield bridge
    assert bridge.close() == 0


@pytest.fixture
def pbx(bridge: Bridge) -> Peer:
    """A peer that is allowed, and a bridge that is ready."""
    bridge.call("set_allowed_networks", [(PBX, 32)])
    bridge.call("set_readiness", True, 5)
    return bridge.peer(PBX)


def test_nobody_is_allowed_and_nothing_is_ready_until_told(bridge: Bridge) -> None:
    peer = bridge.peer(PBX)
    assert peer.ask(peer.request("INVITE", body=OFFER))[0] == 403
    bridge.call("set_allowed_networks", [(PBX, 32)])
    assert peer.ask(peer.request("OPTIONS"))[0] == 503


def test_stranger_is_refused_without_a_transaction(bridge: Bridge, pbx: Peer) -> None:
    stranger = bridge.peer(STRANGER)
    status, _ = stranger.ask(stranger.request("INVITE", body=OFFER))
    assert status == 403
    stranger.send(stranger.request("ACK", to_tag="x"))
    bridge.settled(pbx)
    assert stranger.waiting() == []  # no answer to an ACK, ever (RFC 3261 17)
    assert bridge.call("load") == {"transactions": 0, "dialogs": 0}
    assert bridge.incoming == []
    counters = bridge.counters()
    assert counters["refused_source"] == 2
    assert counters["refused_source_answered"] == 1


def test_allowed_peer_reaches_on_incoming_call(bridge: Bridge, pbx: Peer) -> None:
    """The control to the test before: the same INVITE from the PBX becomes a call."""
    status, _ = pbx.ask(pbx.request("INVITE", body=OFFER))
    assert status == 180
    assert bridge.call("load") == {"transactions": 1, "dialogs": 1}
    assert bridge.incoming == [f"{PBX}:{pbx.port}"]
    assert bridge.counters()["refused_source"] == 0


def test_flood_of_strangers_gets_ten_answers_a_second_and_no_memory(
    bridge: Bridge, pbx: Peer
) -> None:
    stranger = bridge.peer(STRANGER)
    started = time.monotonic()
    for burst in range(10):
        for _ in range(50):
            stranger.send(stranger.request("INVITE", body=OFFER))
        bridge.settled(pbx)  # no more than the socket's buffer holds
        assert bridge.counters()["refused_source"] == 50 * (burst + 1)
    elapsed_s = time.monotonic() - started
    answered = bridge.counters()["refused_source_answered"]
    assert 10 <= answered <= 10 + 10 * elapsed_s + 1
    assert stranger.waiting() == [403] * answered
    assert bridge.call("load") == {"transactions": 0, "dialogs": 0}


def test_refusal_goes_to_the_sender_and_not_where_its_via_points(bridge: Bridge, pbx: Peer) -> None:
    victim = bridge.peer("127.0.0.77")
    stranger = bridge.peer(STRANGER)
    forged = stranger.request("INVITE", via=";maddr=127.0.0.77;rport").replace(
        f"UDP {STRANGER}:{stranger.port}".encode(), f"UDP 127.0.0.77:{victim.port}".encode()
    )
    assert stranger.ask(forged)[0] == 403
    bridge.settled(pbx)
    assert victim.waiting() == []


def test_no_answer_to_a_known_peer_goes_where_its_via_points(bridge: Bridge, pbx: Peer) -> None:
    """Whoever forges the PBX's address would have a third party hear every answer of the call,
    repeated until it is acknowledged; and a host name there would be looked up."""
    victim = bridge.peer("127.0.0.77")
    for place in ("127.0.0.77", "slow.example.invalid"):
        forged = pbx.request("INVITE", body=OFFER, via=f";maddr={place};rport").replace(
            f"UDP {PBX}:{pbx.port}".encode(), f"UDP {PBX}:{victim.port}".encode()
        )
        assert pbx.ask(forged)[0] >= 180
        assert bridge.call("load")["transactions"] > 0  # it was one with a transaction
    bridge.settled(pbx)
    assert victim.waiting() == []


@pytest.mark.parametrize(
    "line",
    [
        "a=rtcp:4001 IN IP4 slow.example.invalid",
        "a=rtcp:4001 in ip4 slow.example.invalid",
        "a=rtcp:4001  IN\tIP4\t slow.example.invalid",
        "a=rtcp:4001IN IP4 slow.example.invalid",
        "a=x\ra=rtcp:4001 IN IP4 slow.example.invalid",
        "c=IN IP4 slow.example.invalid",
        "a=x\rc=IN IP4 slow.example.invalid/127",
    ],
)
def test_a_host_name_in_a_description_is_found_however_it_is_written(
    bridge: Bridge, pbx: Peer, line: str
) -> None:
    before = bridge.counters()["paths_mended"]
    pbx.ask(pbx.request("INVITE", body=f"{OFFER}{line}\r\n"))
    assert bridge.counters()["paths_mended"] == before + 1


@pytest.mark.parametrize(
    "line",
    [
        "a=rtcp:4001",
        "a=rtcp:4001 IN IP4 127.0.0.1",
        "c=IN IP6 2001:db8::1",
        "c=IN IP4 224.2.1.1/127/3",
        "c=IN IP4 0",
        "c=IN",
        "c=",
    ],
)
def test_a_description_without_host_names_is_left_alone(
    bridge: Bridge, pbx: Peer, line: str
) -> None:
    before = bridge.counters()["paths_mended"]
    pbx.ask(pbx.request("INVITE", body=f"{OFFER}{line}\r\n"))
    assert bridge.counters()["paths_mended"] == before


def test_without_rport_the_refusal_goes_to_the_port_of_the_via(bridge: Bridge) -> None:
    """RFC 3261 18.2.2: old peers send from one port and listen on another."""
    stranger, listener = bridge.peer(STRANGER), bridge.peer(STRANGER)
    request = stranger.request("OPTIONS", via="").replace(
        f"UDP {STRANGER}:{stranger.port}".encode(), f"UDP {STRANGER}:{listener.port}".encode()
    )
    stranger.send(request)
    assert listener.response()[0] == 403


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        (("127.0.3.0", 24), "127.0.3.200", "127.0.4.1"),
        (("127.0.3.128", 25), "127.0.3.129", "127.0.3.127"),
        (("127.0.3.130", 31), "127.0.3.131", "127.0.3.132"),
        (("127.0.3.7", 0), "127.9.9.9", None),
        (("::ffff:127.0.3.0", 120), "127.0.3.1", "127.0.4.1"),
        (("::", 0), None, "127.0.3.1"),  # all of IPv6 is not all of IPv4
    ],
)
def test_networks_end_where_their_prefix_ends(
    bridge: Bridge, network: tuple[str, int], inside: str | None, outside: str | None
) -> None:
    bridge.call("set_allowed_networks", [("2001:db8::", 32), network])
    bridge.call("set_readiness", True, 5)
    if inside is not None:
        peer = bridge.peer(inside)
        assert peer.ask(peer.request("OPTIONS"))[0] == 200
    if outside is not None:
        peer = bridge.peer(outside)
        assert peer.ask(peer.request("OPTIONS"))[0] == 403


def test_phone_may_speak_inside_dialogs_and_not_begin_one(bridge: Bridge, pbx: Peer) -> None:
    bridge.call("set_in_dialog_networks", [("127.0.1.0", 24)])
    phone = bridge.peer(PHONE)
    assert phone.ask(phone.request("INVITE", body=OFFER))[0] == 403
    assert phone.ask(phone.request("OPTIONS"))[0] == 403
    assert phone.ask(phone.request("BYE", to_tag="gone"))[0] == 481
    assert bridge.incoming == []


def test_options_says_whether_we_are_ready(bridge: Bridge, pbx: Peer) -> None:
    status, text = pbx.ask(pbx.request("OPTIONS"))
    assert status == 200
    assert "INVITE" in re.findall(r"^Allow: (.*)\r$", text, re.MULTILINE)[0]
    assert re.findall(r"^Accept: (.*)\r$", text, re.MULTILINE) == ["application/sdp"]
    assert "timer" in re.findall(r"^Supported: (.*)\r$", text, re.MULTILINE)[0]

    bridge.call("set_readiness", False, 42)
    status, text = pbx.ask(pbx.request("OPTIONS"))
    assert status == 503
    assert "\r\nRetry-After: 42\r\n" in text

    counters = bridge.counters()
    assert (counters["options_ok"], counters["options_unready"]) == (1, 1)
    assert bridge.call("load")["transactions"] == 0


def test_rate_limit_refuses_new_calls_but_not_retransmissions(bridge: Bridge, pbx: Peer) -> None:
    bridge.call("set_rate_limit", 0.001, 2)
    first = pbx.request("INVITE", body=OFFER)
    assert pbx.ask(first)[0] == 180
    assert pbx.ask(pbx.request("INVITE", body=OFFER))[0] == 180

    third = pbx.request("INVITE", body=OFFER)
    status, text = pbx.ask(third)
    assert status == 503
    retry_after = re.findall(r"^Retry-After: (\d+)\r$", text, re.MULTILINE)
    assert 900 <= int(retry_after[0]) <= 1000
    pbx.send(pbx.request("ACK", to_tag="x"))

    # The first INVITE again, as if our 180 had been lost: its transaction answers, not the limit.
    assert pbx.ask(first)[0] == 180
    # The refused one again is a new request each time: nothing remembers it.
    assert pbx.ask(third)[0] == 503

    # A burst of calls does not make the health check fail, and other sources have their own bucket.
    assert pbx.ask(pbx.request("OPTIONS"))[0] == 200
    bridge.call("set_allowed_networks", [("127.0.0.0", 24)])
    other = bridge.peer("127.0.0.3")
    assert other.ask(other.request("INVITE", body=OFFER))[0] == 180

    assert bridge.counters()["rate_limited"] == 2
    assert len(bridge.incoming) == 3


def test_flood_of_options_is_limited_too(bridge: Bridge, pbx: Peer) -> None:
    bridge.call("set_rate_limit", 0.001, 3)
    statuses = [pbx.ask(pbx.request("OPTIONS"))[0] for _ in range(5)]
    assert statuses == [200, 200, 200, 503, 503]


def test_rate_limit_lets_calls_in_again_as_time_passes(bridge: Bridge, pbx: Peer) -> None:
    bridge.call("set_rate_limit", 20.0, 1)
    deadline = time.monotonic() + PATIENCE_S
    accepted = refused = 0
    # On a machine that stands still between two of them, none is refused: ask until one was.
    while (accepted < 3 or not refused) and time.monotonic() < deadline:
        status, _ = pbx.ask(pbx.request("INVITE", body=OFFER))
        accepted += status == 180
        refused += status == 503
    assert accepted >= 3
    assert bridge.counters()["rate_limited"] == refused > 0


def test_rate_limit_outlives_more_sources_than_its_table_holds(bridge: Bridge) -> None:
    bridge.call("set_allowed_networks", [("127.0.0.0", 8)])
    bridge.call("set_readiness", True, 5)
    bridge.call("set_rate_limit", 0.001, 1)
    addresses = [f"127.{a}.{b}.1" for a in range(10, 30) for b in range(250)]
    assert len(addresses) > 4096
    for address in addresses:
        peer = Peer(address, bridge)
        assert peer.ask(peer.request("OPTIONS"))[0] == 200
        peer.socket.close()
    last = bridge.peer(addresses[-1])
    assert last.ask(last.request("OPTIONS"))[0] == 503  # still remembered


def test_bye_of_an_unknown_dialog_is_reported(bridge: Bridge, pbx: Peer) -> None:
    bye = pbx.request("BYE", to_tag="from-before-the-restart")
    status, _ = pbx.ask(bye)
    assert status == 481
    assert bridge.call("take_unknown_byes") == [bye.decode()]
    assert bridge.call("take_unknown_byes") == []
    assert bridge.counters()["unknown_byes"] == 1


def test_bye_of_a_known_dialog_is_not_reported(bridge: Bridge, pbx: Peer) -> None:
    bridge.call("answer_calls_with", 200)
    status, text = pbx.ask(pbx.request("INVITE", body=OFFER, call="known"))
    assert status == 200
    found = re.search(r"^To: .*;tag=([^;\s]+)", text, re.MULTILINE)
    assert found is not None
    pbx.send(pbx.request("ACK", to_tag=found[1], call="known"))
    bye = pbx.request("BYE", to_tag=found[1], call="known")
    assert pbx.ask(bye)[0] == 200
    assert pbx.ask(bye)[0] == 200  # a retransmission
    assert bridge.call("take_unknown_byes") == []


def test_strangers_bye_is_not_reported(bridge: Bridge, pbx: Peer) -> None:
    stranger = bridge.peer(STRANGER)
    assert stranger.ask(stranger.request("BYE", to_tag="x"))[0] == 403
    assert bridge.call("take_unknown_byes") == []


def test_unknown_byes_that_nobody_takes_make_room_for_newer_ones(bridge: Bridge, pbx: Peer) -> None:
    byes = [pbx.request("BYE", to_tag=f"t{number}") for number in range(300)]
    for bye in byes:
        assert pbx.ask(bye)[0] == 481
    assert bridge.call("take_unknown_byes") == [bye.decode() for bye in byes[-256:]]
    counters = bridge.counters()
    assert (counters["unknown_byes"], counters["unknown_byes_dropped"]) == (300, 44)


@pytest.fixture
def dialog(bridge: Bridge, pbx: Peer) -> str:
    """An answered call of Call-ID and From tag `known`; our tag."""
    bridge.call("answer_calls_with", 200)
    status, text = pbx.ask(pbx.request("INVITE", body=OFFER, call="known"))
    assert status == 200
    found = re.search(r"^To: .*;tag=([^;\s]+)", text, re.MULTILINE)
    assert found is not None
    pbx.send(pbx.request("ACK", to_tag=found[1], call="known"))
    return found[1]


def test_refer_inside_a_dialog_waits_for_python_and_nobody_is_dialled(
    bridge: Bridge, pbx: Peer, dialog: str
) -> None:
    target = bridge.peer(PBX)
    refer = pbx.request(
        "REFER",
        to_tag=dialog,
        call="known",
        headers=(f"Refer-To: <sip:1@{target.address}:{target.port}>",),
    )
    pbx.send(refer)
    pbx.send(refer)  # a retransmission waits with it
    bridge.settled(pbx)
    assert pbx.waiting() == []
    pbx.socket.settimeout(PATIENCE_S)
    ((token, call, message),) = bridge.call("take_requests")
    assert message == refer.decode()
    assert bridge.call("take_requests") == []
    named = bridge.call("dialog", call)
    assert named == ["known@example.org", dialog, "known", f"sip:pbx@{PBX}:{pbx.port}"]
    assert bridge.call("answer_request", token, 202, [("Refer-Sub", "false")]) is True
    status, text = pbx.response()
    assert status == 202
    assert "\r\nRefer-Sub: false\r\n" in text
    assert "\r\nContact: " in text
    assert bridge.call("answer_request", token, 202, []) is False
    assert pbx.ask(refer)[0] == 202  # its transaction still knows the answer
    bridge.settled(pbx)
    assert target.waiting() == []  # stock pjsua would have sent an INVITE there


def test_requests_of_one_dialog_keep_their_order_and_old_ones_are_refused(
    bridge: Bridge, pbx: Peer, dialog: str
) -> None:
    for cseq, method in enumerate(("INFO", "NOTIFY", "REFER"), start=10):
        pbx.send(pbx.request(method, to_tag=dialog, call="known", cseq=cseq))
    bridge.settled(pbx)
    taken = bridge.call("take_requests")
    assert [message.split(" ")[0] for _, _, message in taken] == ["INFO", "NOTIFY", "REFER"]
    pbx.socket.settimeout(PATIENCE_S)
    for token, _, _ in taken:
        bridge.call("answer_request", token, 415, [])
        assert pbx.response()[0] == 415
    # RFC 3261 12.2.2: a CSeq below the last one is out of order, and Python never sees it.
    assert pbx.ask(pbx.request("REFER", to_tag=dialog, call="known", cseq=11))[0] == 500
    assert bridge.call("take_requests") == []
    # The dialog counted them too: the next request of any method must be above them.
    assert pbx.ask(pbx.request("BYE", to_tag=dialog, call="known", cseq=13))[0] == 200


def test_refer_of_an_unknown_dialog_or_outside_of_any_never_reaches_python(
    bridge: Bridge, pbx: Peer, dialog: str
) -> None:
    """The control: only who is in the call may ask to move it."""
    assert pbx.ask(pbx.request("REFER", to_tag="another", call="known"))[0] == 481
    assert pbx.ask(pbx.request("REFER", headers=("Refer-To: <sip:1@127.0.0.9>",)))[0] == 403
    assert pbx.ask(pbx.request("INFO"))[0] == 481
    stranger = bridge.peer(STRANGER)
    assert stranger.ask(stranger.request("REFER", to_tag=dialog, call="known"))[0] == 403
    assert bridge.call("take_requests") == []


def test_a_header_of_ours_is_never_two_lines(bridge: Bridge, pbx: Peer, dialog: str) -> None:
    pbx.send(pbx.request("INFO", to_tag=dialog, call="known"))
    bridge.settled(pbx)
    ((token, _, _),) = bridge.call("take_requests")
    with pytest.raises(RuntimeError, match="one line"):
        bridge.call("answer_request", token, 200, [("X-A", "b\r\nX-C: d")])
    pbx.socket.settimeout(PATIENCE_S)
    assert pbx.response()[0] == 500


def test_full_ring_of_requests_is_answered_503(bridge: Bridge, pbx: Peer, dialog: str) -> None:
    for number in range(257):
        pbx.send(pbx.request("INFO", to_tag=dialog, call="known", cseq=100 + number))
        if number % 50 == 0:
            bridge.settled(pbx)
    bridge.settled(pbx)
    assert pbx.waiting() == [503]
    assert len(bridge.call("take_requests")) == 256


def test_refer_in_disguise_does_not_get_past_us(bridge: Bridge, pbx: Peer, dialog: str) -> None:
    """Small letters, the CSeq alone, another Call-ID: fuzzing found pjsua dialling for each."""
    target = bridge.peer(PBX)
    refer = pbx.request(
        "REFER",
        to_tag=dialog,
        call="known",
        headers=(f"Refer-To: <sip:1@{target.address}:{target.port}>",),
    )
    pbx.send(refer.replace(b"REFER", b"refer"))
    bridge.settled(pbx)
    ((token, _, _),) = bridge.call("take_requests")
    bridge.call("answer_request", token, 501, [])
    pbx.socket.settimeout(PATIENCE_S)
    assert pbx.response()[0] == 501
    other = refer.replace(b"CSeq: 2", b"CSeq: 3").replace(b"z9hG4bK", b"z9hG4bKx")
    assert pbx.ask(other.replace(b"REFER sip", b"NOOP sip"))[0] == 405
    assert pbx.ask(other.replace(b"REFER sip", b"OPTIONS sip"))[0] == 400
    assert pbx.ask(other.replace(b"3 REFER", b"3 NOOP"))[0] == 400
    # The right tags under another Call-ID: PJSIP finds dialogs by their tags alone.
    assert pbx.ask(other.replace(b"Call-ID: known@", b"Call-ID: other@"))[0] == 481
    bridge.settled(pbx)
    assert bridge.call("take_requests") == []
    assert target.waiting() == []


def test_mutilated_requests_inside_a_dialog_kill_nothing(
    bridge: Bridge, pbx: Peer, dialog: str
) -> None:
    random = Random(3)
    refer_to = "Refer-To: <sip:1@127.0.0.4?Replaces=a%3Bto-tag%3Db%3Bfrom-tag%3Dc>"
    for number in range(1500):
        method = random.choice(("REFER", "NOTIFY", "INFO", "INVITE"))
        whole = bytearray(
            pbx.request(
                method,
                to_tag="" if method == "INVITE" else dialog,
                call=f"fuzz{number}" if method == "INVITE" else "known",
                cseq=100 + number,
                body=OFFER if method == "INVITE" else "Signal=5\r\n",
                headers=(refer_to, "Replaces: a;to-tag=b;from-tag=c", "Event: refer"),
            )
        )
        for _ in range(random.randrange(4)):
            at = random.randrange(len(whole))
            if random.random() < 0.3:
                del whole[at : at + random.randrange(40)]
            else:
                whole[at] = random.randrange(256)
        pbx.send(bytes(whole))
        if number % 50 == 49:
            bridge.settled(pbx)
            for token, _, _ in bridge.call("take_requests"):
                assert bridge.call("answer_request", token, random.choice((200, 489)), [])
    bridge.settled(pbx)
    pbx.waiting()
    pbx.socket.settimeout(PATIENCE_S)
    assert pbx.ask(pbx.request("BYE", to_tag=dialog, call="known", cseq=2**31 - 1))[0] == 200


def test_replaces_is_kept_from_pjsua(bridge: Bridge, pbx: Peer, dialog: str) -> None:
    """Stock pjsua answers by itself: 481 for an unknown dialog, a swap for a known one."""
    for call, replaced in (("r1", "nobody"), ("r2", "known")):
        header = f"Replaces: {replaced}@example.org;to-tag={dialog};from-tag={replaced}"
        status, _ = pbx.ask(pbx.request("INVITE", body=OFFER, call=call, headers=(header,)))
        assert status == 200
    assert bridge.call("load")["dialogs"] == 3
    assert len(bridge.incoming) == 3
    # The replaced call goes on: nobody but the bridge decides.
    assert pbx.ask(pbx.request("BYE", to_tag=dialog, call="known", cseq=5))[0] == 200


def test_malformed_sip_is_counted_and_kills_nothing(bridge: Bridge, pbx: Peer) -> None:
    source = bridge.peer(PBX)
    whole = source.request("INVITE", body=OFFER)
    source.send(b"\r\n\r\n")  # a keep-alive (RFC 5626 3.5.1) is not malformed
    bridge.settled(pbx)
    assert bridge.counters()["malformed"] == 0

    no_call_id = re.sub(rb"Call-ID: [^\r]*\r\n", b"", whole)
    bad_via = re.sub(rb"Via: [^\r]*", b"Via: nonsense", whole)
    for number, message in enumerate((no_call_id, bad_via, bytes(range(1, 256))), start=1):
        source.send(message)
        bridge.settled(pbx)
        assert bridge.counters()["malformed"] == number

    head = whole.index(b"\r\n\r\n")
    for end in range(1, head, 7):
        source.send(whole[:end])
        source.send(whole[:end] + b"\r\n\r\n")
    bridge.settled(pbx)
    assert pbx.ask(pbx.request("OPTIONS"))[0] == 200


def test_long_invite_keeps_its_sdp(bridge: Bridge, pbx: Peer) -> None:
    """PJSIP's default buffer of 4000 bytes cuts a long INVITE and loses its body."""
    long = pbx.request("INVITE", body=OFFER + "a=x-filler:" + "x" * 12_000 + "\r\n")
    assert len(long) > 12_000
    assert pbx.ask(long)[0] == 180


def test_wrong_arguments_are_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"'127\.0\.0' is not an IPv4 or IPv6 address"):
        pjsip_guard.set_allowed_networks([("127.0.0", 8)])
    with pytest.raises(ValueError, match="between 0 and 32"):
        pjsip_guard.set_allowed_networks([("10.0.0.0", 33)])
    with pytest.raises(TypeError, match="tuple"):
        pjsip_guard.set_in_dialog_networks(["10.0.0.0/8"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="per_second > 0 and burst >= 1"):
        pjsip_guard.set_rate_limit(1.0, 0)
    with pytest.raises(ValueError, match="per_second > 0 and burst >= 1"):
        pjsip_guard.set_rate_limit(float("inf"), 5)
    with pytest.raises(ValueError, match="must not be negative"):
        pjsip_guard.set_readiness(True, -1)


def test_refused_networks_leave_the_former_ones(bridge: Bridge, pbx: Peer) -> None:
    with pytest.raises(RuntimeError, match="not an IPv4"):
        bridge.call("set_allowed_networks", [("127.0.0.3", 32), ("nonsense", 8)])
    assert pbx.ask(pbx.request("OPTIONS"))[0] == 200


def test_without_an_endpoint_it_says_what_to_do() -> None:
    for function in (pjsip_guard.install, pjsip_guard.epoll_fd, pjsip_guard.next_timer_ms):
        with pytest.raises(RuntimeError, match=r"call pjsua2.Endpoint.libCreate\(\)"):
            function()


def test_unknown_thread_is_an_error_and_not_an_abort(bridge: Bridge) -> None:
    assert "libRegisterThread" in bridge.call("install_from_another_thread")


def test_guard_comes_back_with_a_new_endpoint(bridge: Bridge, pbx: Peer) -> None:
    assert pbx.ask(pbx.request("OPTIONS"))[0] == 200
    bridge.port = bridge.call("restart")
    assert pbx.ask(pbx.request("OPTIONS"))[0] == 200
    assert pbx.ask(pbx.request("INVITE", body=OFFER))[0] == 180
    assert bridge.counters()["options_ok"] == 2


def test_info_names_the_libraries_that_are_loaded() -> None:
    info = pjsip_guard.info()
    assert info["ioqueue"] == "epoll"
    assert info["max_calls"] == 1800
    assert re.fullmatch(r"2\.\d+(\.\d+)?", str(info["pjsip_version"]))
    assert re.match(r"OpenSSL 3\.", str(info["tls"]))
    assert str(info["srtp"]).startswith("libsrtp2 2.")
    maps = Path("/proc/self/maps").read_text()
    assert len(set(re.findall(r"\S*/_pjsua2\.\S+", maps))) == 1  # one PJSIP in the process


# ---------------------------------------------------------------- the child process


def _child() -> None:
    """Hold an endpoint; obey one JSON command a line; end with standard input."""
    import threading

    import pjsua2

    state: dict[str, Any] = {"answer": 180}
    calls: list[Any] = []

    def emit(**message: Any) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    class Account(pjsua2.Account):
        def onIncomingCall(self, prm: pjsua2.OnIncomingCallParam) -> None:
            call = pjsua2.Call(self, prm.callId)
            calls.append(call)
            emit(incoming=prm.rdata.srcAddress)
            answer = pjsua2.CallOpParam()
            answer.statusCode = state["answer"]
            call.answer(answer)

    def start() -> int:
        endpoint = state["endpoint"] = pjsua2.Endpoint()
        endpoint.libCreate()
        config = pjsua2.EpConfig()
        config.uaConfig.threadCnt = config.medConfig.threadCnt = 0
        config.medConfig.clockRate = config.medConfig.sndClockRate = 8000
        config.logConfig.level = config.logConfig.consoleLevel = 0
        endpoint.libInit(config)
        pjsip_guard.install()
        pjsip_guard.install()  # a second time does nothing
        transport = pjsua2.TransportConfig()
        transport.boundAddress = "127.0.0.1"
        identifier = endpoint.transportCreate(pjsua2.PJSIP_TRANSPORT_UDP, transport)
        tcp = endpoint.transportCreate(pjsua2.PJSIP_TRANSPORT_TCP, transport)
        state["tcp_port"] = int(endpoint.transportGetInfo(tcp).localAddress.rpartition(":")[2])
        endpoint.libStart()
        endpoint.audDevManager().setNullDev()
        account_config = pjsua2.AccountConfig()
        account_config.idUri = "sip:bridge@127.0.0.1"
        account_config.mediaConfig.useLoopMedTp = True
        account_config.mediaConfig.textCount = 0
        state["account"] = Account()
        state["account"].create(account_config)
        return int(endpoint.transportGetInfo(identifier).localAddress.rpartition(":")[2])

    def stop() -> None:
        calls.clear()
        state.pop("account").shutdown()
        state.pop("endpoint").libDestroy(pjsua2.PJSUA_DESTROY_NO_NETWORK)

    def restart() -> int:
        stop()
        return start()

    def answer_calls_with(status: int) -> None:
        state["answer"] = status

    def install_from_another_thread() -> str:
        said = []

        def attempt() -> None:
            try:
                pjsip_guard.install()
            except RuntimeError as error:
                said.append(str(error))

        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        return said[0]

    own = {f.__name__: f for f in (restart, answer_calls_with, install_from_another_thread)}
    emit(port=start(), tcp_port=state["tcp_port"])
    commands = b""
    while True:
        next_ms = pjsip_guard.next_timer_ms()
        timeout_s = 1.0 if next_ms is None else min(1.0, next_ms / 1000)
        readable, _, _ = select.select([pjsip_guard.epoll_fd(), 0], [], [], timeout_s)
        state["endpoint"].libHandleEvents(0)
        if 0 not in readable:
            continue
        data = os.read(0, 65536)
        if not data:
            break
        commands += data
        while b"\n" in commands:
            line, _, commands = commands.partition(b"\n")
            name, arguments = json.loads(line)
            if name in ("answer_request", "kept_request", "kept_answer"):
                arguments[2] = [tuple(header) for header in arguments[2]]
            if name.endswith("_networks"):
                arguments = [[tuple(network) for network in arguments[0]]]
            try:
                result: Any = (own.get(name) or getattr(pjsip_guard, name))(*arguments)
            except (RuntimeError, ValueError) as error:
                emit(error=str(error))
            else:
                if name == "take_requests":
                    result = [
                        (token, call, message.decode(errors="replace"))
                        for token, call, message in result
                    ]
                elif name == "take_kept":
                    result = [[*item[:4], item[4].decode(errors="replace")] for item in result]
                elif name == "take_unknown_byes":
                    result = [message.decode() for message in result]
                emit(result=result)
    stop()


if __name__ == "__main__":
    _child()
