"""What phones call themselves: told once, and again when it changes."""

from __future__ import annotations

import pytest

from callshield.messages_phones import PhoneSeen
from callshield.settings_sip import AgentSettings
from sipbridge.phone_seen import MAX_LENGTH, PhonesSeen
from sipbridge.sip_message import SipHeaders

URI = "sip:1001@192.0.2.20"
AGENTS = {
    "1001": AgentSettings.model_validate({"uri": URI}),
    "1002": AgentSettings.model_validate({"uri": "sip:1002@192.0.2.1", "endpoint": "1002"}),
}


def said(*headers: str) -> SipHeaders:
    return SipHeaders("\r\n".join(["SIP/2.0 200 OK", *headers, "", ""]))


@pytest.fixture
def told() -> list[PhoneSeen]:
    return []


@pytest.fixture
def phones(told: list[PhoneSeen]) -> PhonesSeen:
    return PhonesSeen(AGENTS, told.append)


def test_once_for_each_change(phones: PhonesSeen, told: list[PhoneSeen]) -> None:
    for name in ("T46S 1", "T46S 1", "T46S 2", "T46S 2", "T46S 1"):
        phones.answered("1001", URI, said(f"User-Agent: {name}"))
    assert [seen.user_agent for seen in told] == ["T46S 1", "T46S 2", "T46S 1"]
    assert {seen.source for seen in told} == {"bridge"}
    assert phones.known() == told[-1:]


def test_a_server_header_will_do(phones: PhonesSeen, told: list[PhoneSeen]) -> None:
    phones.answered("1001", URI, said("Server: Phone 1"))
    phones.answered("1001", URI, said())
    phones.answered("1001", URI, said("User-Agent: Phone 2", "Server: x"))
    assert [seen.user_agent for seen in told] == ["Phone 1", "Phone 2"]


def test_the_pbx_is_not_taken_for_the_phone_that_it_hides(
    phones: PhonesSeen, told: list[PhoneSeen]
) -> None:
    phones.answered("1002", "sip:1002@192.0.2.1", said("Server: Asterisk PBX"))
    assert told == []


def test_another_place_than_the_agent_s_phone_is_not_it(
    phones: PhonesSeen, told: list[PhoneSeen]
) -> None:
    phones.answered("1001", "sip:other@192.0.2.9", said("User-Agent: x"))
    phones.answered("nobody", URI, said("User-Agent: x"))
    assert told == []


def test_a_name_is_printable_and_short(phones: PhonesSeen, told: list[PhoneSeen]) -> None:
    phones.answered("1001", URI, said("User-Agent: a\u202eb" + "x" * 2000))
    assert told[0].user_agent.startswith("abx")
    assert len(told[0].user_agent) == MAX_LENGTH
