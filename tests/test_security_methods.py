"""SIP methods that nobody here serves: each is answered as RFC 3261 says, and leaves nothing.

Stock pjsua takes a MESSAGE with 200, begins a presence subscription for whoever asks and sends
NOTIFYs wherever its Contact points, and leaves a REGISTER without an answer. The child process and
its peers are those of :mod:`tests.test_pjsip_guard`.
"""

from __future__ import annotations

import re
import select
import time

from tests.test_pjsip_guard import OFFER, PBX, PHONE, Bridge, Peer, bridge, pbx

__all__ = ["bridge", "pbx"]  # fixtures

UNSERVED = ("REGISTER", "SUBSCRIBE", "PUBLISH", "MESSAGE", "FOO", "subscribe", "ReGiStEr")
SERVED = {"INVITE", "ACK", "CANCEL", "OPTIONS", "BYE", "UPDATE", "PRACK", "INFO", "REFER", "NOTIFY"}
NOTHING = {"transactions": 0, "dialogs": 0}
SUBSCRIPTION = ("Event: presence", "Expires: 600", "Accept: application/pidf+xml")


def allowed(text: str) -> set[str]:
    (line,) = re.findall(r"^Allow: (.*)\r$", text, re.MULTILINE)
    return set(line.split(", "))


def test_a_method_that_nobody_serves_is_405_and_leaves_no_state(bridge: Bridge, pbx: Peer) -> None:
    for method in UNSERVED:
        status, text = pbx.ask(pbx.request(method, headers=SUBSCRIPTION))
        assert status == 405, method
        assert allowed(text) == SERVED
        assert pbx.ask(pbx.request(method, to_tag="x", headers=SUBSCRIPTION))[0] == 405, method
    assert bridge.call("load") == NOTHING
    assert bridge.counters()["refused_method"] == 2 * len(UNSERVED)
    assert bridge.incoming == []


def test_what_belongs_to_a_dialog_is_refused_outside_of_one(bridge: Bridge, pbx: Peer) -> None:
    for method, status, headers in (
        ("BYE", 481, ()),
        ("UPDATE", 481, ()),
        ("PRACK", 481, ("RAck: 1 1 INVITE",)),
        ("INFO", 481, ()),
        ("NOTIFY", 481, ("Event: refer", "Subscription-State: active")),
        ("REFER", 403, ("Refer-To: <sip:0900@192.0.2.9>",)),
        ("CANCEL", 481, ()),
    ):
        assert pbx.ask(pbx.request(method, headers=headers))[0] == status, method
    assert bridge.call("load")["dialogs"] == 0
    assert bridge.incoming == []


def test_no_binding_is_changed_through_us(bridge: Bridge, pbx: Peer) -> None:
    """We are no registrar and no proxy: nobody registers with us, and nothing is passed on."""
    registrar = bridge.peer("127.0.0.78")
    binding = (
        "Contact: <sip:1001@203.0.113.66:5060>;expires=3600",
        f"Route: <sip:{registrar.address}:{registrar.port};lr>",
        "Expires: 3600",
    )
    register = pbx.request("REGISTER", headers=binding).replace(
        f"sip:7001@127.0.0.1:{bridge.port}".encode(),
        f"sip:{registrar.address}:{registrar.port}".encode(),
        1,
    )
    assert pbx.ask(register)[0] == 405
    bridge.call("set_in_dialog_networks", [("127.0.1.0", 24)])
    phone = bridge.peer(PHONE)
    assert phone.ask(phone.request("REGISTER", headers=binding))[0] == 403
    bridge.settled(pbx)
    assert registrar.waiting() == []
    assert bridge.call("load") == NOTHING


def test_a_subscription_sends_nothing_to_the_address_in_its_contact(
    bridge: Bridge, pbx: Peer
) -> None:
    victim = bridge.peer("127.0.0.77")
    subscribe = pbx.request("SUBSCRIBE", headers=SUBSCRIPTION).replace(
        f"Contact: <sip:pbx@{PBX}:{pbx.port}>".encode(),
        f"Contact: <sip:victim@{victim.address}:{victim.port}>".encode(),
    )
    assert pbx.ask(subscribe)[0] == 405
    bridge.settled(pbx)
    assert victim.waiting() == []


def test_allow_names_what_is_served_in_every_message(bridge: Bridge, pbx: Peer) -> None:
    """Phones and PBXs offer presence and messages to whoever names them in Allow."""
    assert allowed(pbx.ask(pbx.request("OPTIONS"))[1]) == SERVED
    assert allowed(pbx.ask(pbx.request("INVITE", body=OFFER))[1]) == SERVED


def test_an_options_scan_learns_and_costs_next_to_nothing(bridge: Bridge, pbx: Peer) -> None:
    """svmap's question over and over: a stranger gets ten answers a second, that say nothing."""
    scanner = bridge.peer("127.0.0.66")
    sent, began = 0, time.monotonic()
    for _ in range(4):
        for _ in range(50):
            scanner.send(scanner.request("OPTIONS", headers=("User-Agent: friendly-scanner",)))
        sent += 50
        bridge.settled(pbx)
    answers = []
    while select.select([scanner.socket], [], [], 0)[0]:
        answers.append(scanner.response()[1])
    # Ten at once, and ten in each second of the time that it really took.
    assert 1 <= len(answers) <= 10 + 10 * (time.monotonic() - began) < sent
    for answer in answers:
        assert answer.startswith("SIP/2.0 403 ")
        assert not re.search(r"^(Server|User-Agent|Allow|Contact):", answer, re.MULTILINE)
    assert bridge.call("load") == NOTHING
