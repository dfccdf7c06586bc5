"""The manager interface as bytes: any split, any lie, and nothing that a value could smuggle in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callshield.errors import AmiProtocolError
from notifier import ami_protocol
from notifier.ami_protocol import Answer, Banner, Connection, Event, encode, login_key

BANNER = b"Asterisk Call Manager/7.0.3\r\n"


def connection() -> Connection:
    fresh = Connection("t")
    assert fresh.receive(BANNER) == [Banner("7.0.3")]
    return fresh


def test_an_action_is_its_lines_in_order() -> None:
    data = encode("QueuePause", [("Interface", "Local/1001@a/n"), ("Paused", "true")], "t-1")
    assert data == (
        b"Action: QueuePause\r\nActionID: t-1\r\nInterface: Local/1001@a/n\r\nPaused: true\r\n\r\n"
    )


@pytest.mark.parametrize("smuggled", ["x\r\nAction: Originate", "x\n", "\r", "nul\0"])
def test_a_value_cannot_begin_a_line_of_its_own(smuggled: str) -> None:
    for fields in ([("Channel", smuggled)], [(smuggled, "x")]):
        with pytest.raises(AmiProtocolError):
            encode("MixMonitorMute", fields, "t-1")


@given(st.text(max_size=50), st.text(max_size=200))
def test_what_is_sent_always_reads_back_as_one_header(name: str, value: str) -> None:
    try:
        data = encode("Setvar", [(name, value)], "t-1")
    except AmiProtocolError:
        return
    lines = data.decode().split("\r\n")
    assert lines[2:] == [f"{name}: {value}", "", ""]
    assert data.count(b"\n") == 4


def test_a_value_that_the_pbx_would_throw_away_is_refused() -> None:
    encode("Setvar", [("Value", "x" * 900)], "t-1")
    with pytest.raises(AmiProtocolError, match="shorten"):
        encode("Setvar", [("Value", "x" * 1000)], "t-1")
    with pytest.raises(AmiProtocolError, match="headers"):
        encode("Setvar", [("Variable", "x")] * 200, "t-1")


def test_the_secret_is_proven_as_asterisk_expects() -> None:
    # md5("840415273" + "mysecret"), computed with md5sum(1)
    assert login_key("840415273", "mysecret") == "72ee2809cbf69e9bdb27bdd924cda8e3"


def conversation(action_id: str) -> bytes:
    return (
        b"Response: Success\r\nActionID: %(id)b\r\nEventList: start\r\nMessage: follows\r\n\r\n"
        b"Event: QueueMemberPause\r\nPaused: 1\r\n\r\n"
        b"Event: QueueMember\r\nActionID: %(id)b\r\nLocation: Local/1001@a/n\r\n\r\n"
        b"Event: QueueStatusComplete\r\nActionID: %(id)b\r\nEventList: Complete\r\n\r\n"
        b"Event: FullyBooted\r\nUptime: 5\r\n\r\n"
    ) % {b"id": action_id.encode()}


@given(st.lists(st.integers(1, 400), max_size=40))
def test_any_split_of_the_bytes_gives_the_same_happenings(cuts: list[int]) -> None:
    link = Connection("t")
    action_id, _ = link.request("QueueStatus")
    data, happenings, at = BANNER + conversation(action_id), [], 0
    for cut in [*cuts, len(BANNER) + 10_000]:
        happenings += link.receive(data[at : at + cut])
        at += cut
    kinds = [type(happening) for happening in happenings]
    assert kinds == [Banner, Event, Answer, Event]
    answer = happenings[2]
    assert isinstance(answer, Answer)
    assert answer.ok
    assert [item.get("location") for item in answer.items] == ["Local/1001@a/n"]
    assert [h.name for h in happenings if isinstance(h, Event)] == [
        "QueueMemberPause",
        "FullyBooted",
    ]


@given(st.binary(max_size=3000))
def test_no_bytes_make_it_raise_anything_else(data: bytes) -> None:
    link = connection()
    link.request("Ping")
    try:
        link.receive(data)
        link.receive(b"\r\n\r\n")
    except AmiProtocolError:
        pass


def test_something_that_is_no_pbx_is_known_by_its_first_line() -> None:
    with pytest.raises(AmiProtocolError, match=r"ami\.host"):
        Connection("t").receive(b"SSH-2.0-OpenSSH_9.2\r\n")


def test_answers_find_their_question_in_any_order() -> None:
    link = connection()
    first, _ = link.request("Ping")
    second, _ = link.request("Ping")
    answers = link.receive(
        f"Response: Success\r\nActionID: {second}\r\n\r\n"
        f"Response: Error\r\nActionID: {first}\r\nMessage: no\r\n\r\n".encode()
    )
    assert [(a.action_id, a.ok) for a in answers if isinstance(a, Answer)] == [
        (second, True),
        (first, False),
    ]


def test_an_answer_that_comes_twice_too_late_or_to_nobody_is_a_stray() -> None:
    link = connection()
    action_id, _ = link.request("Ping")
    response = f"Response: Success\r\nActionID: {action_id}\r\n\r\n".encode()
    assert len(link.receive(response)) == 1
    assert link.receive(response) == []
    late, _ = link.request("Ping")
    link.forget(late)
    assert link.receive(f"Response: Success\r\nActionID: {late}\r\n\r\n".encode()) == []
    assert link.receive(b"Response: Success\r\n\r\n") == []
    assert link.strays == 3


def test_a_list_item_before_its_response_is_news_not_an_item() -> None:
    link = connection()
    action_id, _ = link.request("QueueStatus")
    early = link.receive(f"Event: QueueMember\r\nActionID: {action_id}\r\n\r\n".encode())
    assert [type(h) for h in early] == [Event]


def test_what_grows_without_end_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AmiProtocolError, match="line"):
        connection().receive(b"A: " + b"x" * (ami_protocol.MAX_LINE_BYTES + 1))
    with pytest.raises(AmiProtocolError, match="line"):
        connection().receive(b"A: " + b"x" * (ami_protocol.MAX_LINE_BYTES + 1) + b"\r\n")
    with pytest.raises(AmiProtocolError, match="message"):
        connection().receive(b"A: xxxxxxxxxxxxxxxx\r\n" * 20_000)
    monkeypatch.setattr(ami_protocol, "MAX_LIST_ITEMS", 10)
    link = connection()
    action_id, _ = link.request("QueueStatus")
    link.receive(f"Response: Success\r\nActionID: {action_id}\r\nEventList: start\r\n\r\n".encode())
    with pytest.raises(AmiProtocolError, match="list"):
        link.receive(f"Event: QueueMember\r\nActionID: {action_id}\r\n\r\n".encode() * 11)
