"""pjsip_guard's restored dialogs: what PJSIP does with a dialog that it never saw begin."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.test_pjsip_guard import OFFER, PATIENCE_S, PBX, Bridge, Peer

LOCAL_TAG, REMOTE_TAG = "ours-4711", "theirs.0815"
CALL_ID = "from-before-the-restart@example.org"


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    bridge = Bridge()
    yield bridge
    assert bridge.close() == 0


@pytest.fixture
def pbx(bridge: Bridge) -> Peer:
    bridge.call("set_allowed_networks", [(PBX, 32)])
    bridge.call("set_readiness", True, 5)
    return bridge.peer(PBX)


def identity(pbx: Peer, **more: Any) -> list[Any]:
    """The arguments of ``kept_open`` in order, for a dialog with this peer."""
    values: dict[str, Any] = {
        "account": 0,
        "call_id": CALL_ID,
        "local_uri": '"Call\\"shield" <sip:bridge@127.0.0.1>',
        "local_tag": LOCAL_TAG,
        "remote_uri": f"<sip:pbx@{PBX}>",
        "remote_tag": REMOTE_TAG,
        "target": f"sip:pbx@{PBX}:{pbx.port};ob",
        "contact": "<sip:bridge@127.0.0.1;x=y>",
        "routes": [],
        "local_cseq": 100,
        "remote_cseq": 7,
        "uac": False,
    }
    assert more.keys() <= values.keys()
    return list({**values, **more}.values())


def within(
    pbx: Peer, method: str, cseq: int = 8, *, body: str = "", headers: tuple[str, ...] = ()
) -> bytes:
    """A request of the peer's in that dialog."""
    text = pbx.request(method, to_tag=LOCAL_TAG, cseq=cseq, body=body, headers=headers).decode()
    text = re.sub(r"^Call-ID:.*$", f"Call-ID: {CALL_ID}\r", text, flags=re.MULTILINE)
    text = re.sub(r"^(From:.*;tag=).*$", rf"\g<1>{REMOTE_TAG}\r", text, flags=re.MULTILINE)
    return text.replace("\r\r", "\r").encode()


def sent_to(peer: Peer) -> str:
    """The next request that comes."""
    return peer.socket.recv(65535).decode()


def answer(peer: Peer, request: str, status: int, *headers: str) -> None:
    """Answer it."""
    kept = [
        line for line in request.split("\r\n") if re.match(r"(Via|From|To|Call-ID|CSeq):", line)
    ]
    text = "\r\n".join([f"SIP/2.0 {status} Said", *kept, *headers, "Content-Length: 0", "", ""])
    peer.send(text.encode())


def test_bye_in_a_restored_dialog_is_pythons_to_answer(bridge: Bridge, pbx: Peer) -> None:
    assert pbx.ask(within(pbx, "BYE"))[0] == 481  # the control: nobody restored it
    handle = bridge.call("kept_open", *identity(pbx))
    bye = within(pbx, "BYE", cseq=9)
    pbx.send(bye)
    bridge.settled(pbx)
    pbx.send(bye)  # a retransmission is PJSIP's to take in
    bridge.settled(pbx)
    ((known, token, status, method, message),) = bridge.call("take_kept")
    assert (known, status, method) == (handle, 0, "")
    assert message == bye.decode()
    assert bridge.call("take_kept") == []
    assert pbx.waiting() == []
    assert bridge.call("kept_answer", token, 200, [("X-A", "b")], "") is True
    code, text = pbx.response()
    assert code == 200
    assert "\r\nX-A: b\r\n" in text
    assert f"tag={LOCAL_TAG}" in text
    assert pbx.ask(bye)[0] == 200
    assert bridge.call("kept_answer", token, 200, [], "") is False
    assert bridge.call("kept_close", handle) is True
    assert bridge.call("kept_close", handle) is False
    # 481 once its last transaction is over; until then the dialog is there without a usage.
    assert pbx.ask(within(pbx, "BYE", cseq=10))[0] in (481, 500)
    assert bridge.counters()["unknown_byes"] == 1


def test_other_dialogs_are_not_meant(bridge: Bridge, pbx: Peer) -> None:
    """Both tags and the Call-ID name a dialog (RFC 3261 section 12), and CSeq goes up."""
    bridge.call("kept_open", *identity(pbx))
    for wrong in (REMOTE_TAG.encode(), LOCAL_TAG.encode()):
        assert pbx.ask(within(pbx, "BYE").replace(wrong, b"another"))[0] == 481
    assert pbx.ask(within(pbx, "BYE", cseq=7))[0] == 500
    assert bridge.call("take_kept") == []


def test_our_bye_goes_where_the_dialog_says(bridge: Bridge, pbx: Peer) -> None:
    handle = bridge.call("kept_open", *identity(pbx))
    assert bridge.call("kept_request", handle, "BYE", [("X-Callshield-Call-Id", "abc")]) is True
    bye = sent_to(pbx)
    assert bye.startswith(f"BYE sip:pbx@{PBX}:{pbx.port};ob SIP/2.0\r\n")
    assert f"\r\nCall-ID: {CALL_ID}\r\n" in bye
    assert f'\r\nFrom: "Call\\"shield" <sip:bridge@127.0.0.1>;tag={LOCAL_TAG}\r\n' in bye
    assert f"\r\nTo: <sip:pbx@{PBX}>;tag={REMOTE_TAG}\r\n" in bye
    assert "\r\nCSeq: 100 BYE\r\n" in bye
    assert "\r\nX-Callshield-Call-Id: abc\r\n" in bye
    answer(pbx, bye, 200)
    bridge.settled(pbx)
    ((known, token, status, method, message),) = bridge.call("take_kept")
    assert (known, token, status, method) == (handle, 0, 200, "BYE")
    assert message.startswith("SIP/2.0 200")
    state = bridge.call("kept_state", handle)
    assert (state["local_cseq"], state["remote_cseq"]) == (101, 7)


def test_bye_beyond_the_numbers_that_a_dead_process_may_have_used(
    bridge: Bridge, pbx: Peer
) -> None:
    handle = bridge.call("kept_open", *identity(pbx))
    assert bridge.call("kept_request", handle, "BYE", [], 50) is True
    assert "\r\nCSeq: 150 BYE\r\n" in sent_to(pbx)


@pytest.mark.parametrize("strict", [False, True])
def test_route_set(bridge: Bridge, pbx: Peer, strict: bool) -> None:
    proxy, far = bridge.peer(PBX), "sip:far.invalid;lr"
    first = f"sip:{PBX}:{proxy.port}" + ("" if strict else ";lr")
    handle = bridge.call("kept_open", *identity(pbx, routes=[f"<{first}>", f"<{far}>"]))
    bridge.call("kept_request", handle, "BYE", [])
    bye = sent_to(proxy)
    routes = re.findall(r"^Route: (.*)\r$", bye, re.MULTILINE)
    target = f"sip:pbx@{PBX}:{pbx.port};ob"
    if strict:
        assert bye.startswith(f"BYE {first} SIP/2.0\r\n")
        assert routes == [f"<{far}>", f"<{target}>"]
    else:
        assert bye.startswith(f"BYE {target} SIP/2.0\r\n")
        assert routes == [f"<{first}>", f"<{far}>"]


def test_no_answer_is_told_as_a_timeout(bridge: Bridge, pbx: Peer) -> None:
    """The transport refuses at once where nobody listens; else it is PJSIP's timer F."""
    target = f"sip:pbx@{PBX}:9;transport=tcp"
    handle = bridge.call("kept_open", *identity(pbx, target=target))
    if bridge.call("kept_request", handle, "BYE", []):
        end = time.monotonic() + PATIENCE_S
        while not (taken := bridge.call("take_kept")) and time.monotonic() < end:
            bridge.settled(pbx)
        ((_, token, status, method, message),) = taken
        assert (token, method, message) == (0, "BYE", "")
        assert status in (408, 502, 503)


def test_reinvite_is_answered_with_a_description_until_it_is_acknowledged(
    bridge: Bridge, pbx: Peer
) -> None:
    bridge.call("kept_open", *identity(pbx))
    pbx.send(within(pbx, "INVITE", body=OFFER))
    bridge.settled(pbx)
    ((_, token, _, _, _),) = bridge.call("take_kept")
    assert bridge.call("kept_answer", token, 200, [("Session-Expires", "90;refresher=uac")], OFFER)
    status, text = pbx.response()
    assert status == 200
    assert "\r\nContact: <sip:bridge@127.0.0.1;x=y>\r\n" in text
    assert "\r\nContent-Type: application/sdp\r\n" in text
    assert text.endswith(OFFER)
    again, _ = pbx.response()  # repeated: no ACK came (RFC 3261 13.3.1.4)
    assert again == 200
    pbx.send(within(pbx, "ACK"))
    bridge.settled(pbx)
    pbx.waiting()
    pbx.socket.settimeout(2.5)  # longer than the next repetition would take
    with pytest.raises(TimeoutError):
        pbx.socket.recv(65535)


def test_requests_that_are_handed_to_python_for_calls_are_not_lost_here(
    bridge: Bridge, pbx: Peer
) -> None:
    """REFER, NOTIFY and INFO of pjsua's calls go another way (pjsip_dialogs.c)."""
    bridge.call("kept_open", *identity(pbx))
    for cseq, method in enumerate(("INFO", "REFER", "NOTIFY", "OPTIONS", "UPDATE"), start=8):
        pbx.send(within(pbx, method, cseq))
        bridge.settled(pbx)
        ((_, token, _, _, message),) = bridge.call("take_kept")
        assert message.startswith(method)
        assert bridge.call("kept_answer", token, 405, [], "") is True
        assert pbx.response()[0] == 405
    assert bridge.call("take_requests") == []


def test_refresh_moves_the_target(bridge: Bridge, pbx: Peer) -> None:
    handle = bridge.call("kept_open", *identity(pbx, target=f"sip:old@{PBX}:9"))
    pbx.send(within(pbx, "UPDATE"))
    bridge.settled(pbx)
    assert bridge.call("kept_state", handle)["target"] == f"sip:pbx@{PBX}:{pbx.port}"


def test_challenge_without_credentials_is_told(bridge: Bridge, pbx: Peer) -> None:
    handle = bridge.call("kept_open", *identity(pbx))
    bridge.call("kept_request", handle, "BYE", [])
    answer(pbx, sent_to(pbx), 401, 'WWW-Authenticate: Digest realm="r", nonce="n"')
    bridge.settled(pbx)
    ((_, _, status, _, _),) = bridge.call("take_kept")
    assert status == 401


def test_what_a_live_call_says_restores_it(bridge: Bridge, pbx: Peer) -> None:
    """``dialog_state`` of one process is what ``kept_open`` of the next one takes."""
    bridge.call("answer_calls_with", 200)
    status, text = pbx.ask(
        pbx.request(
            "INVITE",
            body=OFFER,
            call="known",
            headers=(f"Record-Route: <sip:{PBX}:{pbx.port};lr>",),
        )
    )
    assert status == 200
    found = re.search(r"^To: .*;tag=([^;\s]+)", text, re.MULTILINE)
    assert found is not None
    pbx.send(pbx.request("ACK", to_tag=found[1], call="known"))
    bridge.settled(pbx)
    state = bridge.call("dialog_state", 0)
    assert state["call_id"] == "known@example.org"
    assert (state["local_tag"], state["remote_tag"]) == (found[1], "known")
    assert state["routes"] == [f"<sip:{PBX}:{pbx.port};lr>"]
    assert (state["remote_cseq"], state["uac"]) == (1, False)
    assert state["local_sdp"] == text.partition("\r\n\r\n")[2]
    assert state["remote_sdp"].startswith("v=0")
    with pytest.raises(RuntimeError, match="there already"):
        bridge.call("kept_open", *restoring(state))
    assert bridge.call("dialog_state", 1) is None
    assert bridge.call("dialog_state", 5000) is None
    bridge.call("restart")
    bridge.call("set_readiness", True, 5)


def restoring(state: dict[str, Any]) -> list[Any]:
    names = ["call_id", "local_uri", "local_tag", "remote_uri", "remote_tag", "target", "contact"]
    names += ["routes", "local_cseq", "remote_cseq", "uac"]
    return [0, *(state[name] for name in names)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"account": 63},
        {"call_id": ""},
        {"local_tag": ""},
        {"remote_tag": ""},
        {"target": ""},
        {"target": "not a uri"},
        {"local_uri": ""},
        {"remote_uri": "<sip:"},
        {"contact": "<<<"},
        {"routes": ["nonsense"]},
    ],
)
def test_what_cannot_be_restored_is_a_sentence_and_leaves_nothing(
    bridge: Bridge, pbx: Peer, wrong: dict[str, Any]
) -> None:
    with pytest.raises(RuntimeError, match=r"\.$"):
        bridge.call("kept_open", *identity(pbx, **wrong))
    assert bridge.call("load")["dialogs"] == 0
    assert bridge.call("kept_open", *identity(pbx)) > 0


def test_a_header_of_two_lines_is_refused_and_the_far_end_hears_of_it(
    bridge: Bridge, pbx: Peer
) -> None:
    handle = bridge.call("kept_open", *identity(pbx))
    pbx.send(within(pbx, "OPTIONS"))
    bridge.settled(pbx)
    ((_, token, _, _, _),) = bridge.call("take_kept")
    with pytest.raises(RuntimeError, match="one line"):
        bridge.call("kept_answer", token, 200, [("X-A", "b\r\nX-C: d")], "")
    assert pbx.response()[0] == 500
    with pytest.raises(RuntimeError, match="one line"):
        bridge.call("kept_request", handle, "BYE", [("X-A", "b\r\nX-C: d")])
    with pytest.raises(RuntimeError, match="BYE, OPTIONS and UPDATE"):
        bridge.call("kept_request", handle, "INVITE", [])


def test_many_dialogs_come_and_go_without_a_trace(bridge: Bridge, pbx: Peer) -> None:
    for turn in range(3):
        handles = [
            bridge.call("kept_open", *identity(pbx, call_id=f"{turn}-{n}", local_tag=f"{turn}.{n}"))
            for n in range(200)
        ]
        assert bridge.call("load")["dialogs"] == 200
        for handle in handles:
            assert bridge.call("kept_close", handle) is True
        assert bridge.call("load")["dialogs"] == 0


def test_endpoint_may_go_with_dialogs_open(bridge: Bridge, pbx: Peer) -> None:
    bridge.call("kept_open", *identity(pbx))
    pbx.send(within(pbx, "OPTIONS"))
    bridge.settled(pbx)
    bridge.call("restart")
    assert bridge.call("take_kept") == []
