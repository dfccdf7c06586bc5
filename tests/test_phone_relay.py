"""The notifier between the screens' process, the bridge and the PBX."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from callshield.messages_phones import NotifySent, PhoneSeen
from notifier import ami_client, phone_relay
from notifier.phone_relay import FOLD_BYTES, MAX_AT_PBX, MAX_WAITING, folded
from tests.ami_double import AmiDouble
from tests.notifier_kit import desk_in_process
from tests.phone_asker import asking

#: 1003 is behind the PBX, 1004 has a phone that the configuration names.
PHONES = """
[agents.1003]
uri = "sip:1003@192.0.2.1:5060"
endpoint = "1003"
[agents.1004]
uri = "sip:1004@192.0.2.24:5060"
phone_model = "T46S"
[phones]
enabled = false
limit_s = {limit_s}
"""
#: Who answers has time for it; who hangs is waited for that long.
PATIENT, QUICK = (PHONES.format(limit_s=limit_s) for limit_s in (20, 1))
XML = "application/xml"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ami_client, "FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(ami_client, "LAST_RETRY_S", 0.2)


@pytest_asyncio.fixture
async def double() -> AsyncIterator[AmiDouble]:
    async with AmiDouble(contacts=[("1003", "snomD785/10.1.84.12")]) as server:
        yield server


def extra(double: AmiDouble, folder: Path, phones: str = PATIENT) -> str:
    secret = folder / "ami.secret"
    secret.write_text(double.secret)
    secret.chmod(0o600)
    return phones + double.settings(secret)


# --------------------------------------------------------------------------------- by the bridge


async def test_the_answer_goes_to_whoever_asked(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path, PATIENT) as desk,
        asking(desk.settings.bus_path, "bridge") as bridge,
        asking(desk.settings.bus_path) as one,
        asking(desk.settings.bus_path) as other,
    ):
        first, second = one.begin("1001", "xml", XML, "<a/>"), other.begin("1002", "xml")
        for request_id in (second, first):
            wanted = await bridge.until_asked(request_id)
            bridge.client.send(
                NotifySent(request_id=request_id, status=200, detail=wanted.agent_id)
            )
        assert (await one.answer(first)).detail == "1001"
        assert (await other.answer(second)).detail == "1002"
        assert (len(one.answers), len(other.answers)) == (1, 1)
        assert bridge.asked[0].body or bridge.asked[1].body == "<a/>"


async def test_a_request_without_an_event_gets_one(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path, PATIENT) as desk,
        asking(desk.settings.bus_path, "bridge") as bridge,
        asking(desk.settings.bus_path) as asker,
    ):
        wanted = await bridge.until_asked(asker.begin("1001", "", XML, "<a/>"))
        assert (wanted.event, wanted.content_type, wanted.body) == ("xml", XML, "<a/>")


async def test_without_a_bridge_it_is_said_at_once(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path, PATIENT) as desk,
        asking(desk.settings.bus_path) as asker,
    ):
        answer = await asker.ask("1001", "xml")
        assert (answer.status, answer.detail) == (0, "the bridge is not connected")
        async with asking(desk.settings.bus_path, "bridge") as bridge:
            # Two connections: what comes through both tells that this one's Hello was heard.
            bridge.client.send(PhoneSeen(agent_id="1001", user_agent="T46S", source="bridge"))
            await asker.heard_of("1001", "T46S")
            asked = asker.begin("1001", "xml")
            await bridge.until_asked(asked)
        answer = await asker.answer(asked)
        assert (answer.status, answer.detail) == (0, "the bridge went away")


async def test_nobody_else_speaks_for_phones(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path, PATIENT) as desk,
        asking(desk.settings.bus_path, "bridge") as bridge,
        asking(desk.settings.bus_path, "detector") as stranger,
        asking(desk.settings.bus_path) as asker,
    ):
        assert (await stranger.ask("1001", "xml")).status == 0
        asked = asker.begin("1001", "xml")
        await bridge.until_asked(asked)
        stranger.client.send(NotifySent(request_id=asked, status=200, detail="forged"))
        stranger.client.send(PhoneSeen(agent_id="1001", user_agent="forged", source="bridge"))
        # Said after the forgeries and on the same connection: they have been read.
        assert (await stranger.ask("1001", "xml")).status == 0
        bridge.client.send(NotifySent(request_id=asked, status=415))
        assert (await asker.answer(asked)).status == 415
        assert "forged" not in [seen.user_agent for seen in asker.seen]


# ------------------------------------------------------------------------------------ by the PBX


async def test_the_pbx_is_asked_with_the_agent_s_endpoint(
    tmp_path: Path, double: AmiDouble
) -> None:
    async with (
        desk_in_process(tmp_path, extra(double, tmp_path)) as desk,
        asking(desk.settings.bus_path) as asker,
    ):
        await asker.heard_of("1003", "snomD785/10.1.84.12")  # so the PBX is there
        body = "<SnomIPPhoneText>\n<Title>위험, 욕설</Title>\n</SnomIPPhoneText>\n"
        answer = await asker.ask("1003", "", "application/snomxml", body, via="pbx")
        assert (answer.status, answer.detail) == (202, "")
        (action,) = double.asked("PJSIPNotify")
        assert action["endpoint"] == ["1003"]
        assert action["variable"] == [
            "Event=xml",
            "Content-type=application/snomxml",
            "Content=<SnomIPPhoneText>",
            "Content=<Title>위험\\, 욕설</Title>",
            "Content=</SnomIPPhoneText>",
        ]


async def test_what_the_pbx_refuses_or_does_not_answer(tmp_path: Path, double: AmiDouble) -> None:
    async with (
        desk_in_process(tmp_path, extra(double, tmp_path, QUICK)) as desk,
        asking(desk.settings.bus_path) as asker,
    ):
        await asker.heard_of("1003", "snomD785/10.1.84.12")
        double.refuse["PJSIPNotify"] = "Unable to retrieve endpoint 1003"
        answer = await asker.ask("1003", "xml", via="pbx")
        assert answer.status == 0
        assert "class system" in answer.detail
        assert "1003" not in answer.detail
        double.refuse.clear()
        double.hang.add("PJSIPNotify")
        answer = await asker.ask("1003", "xml", via="pbx")
        assert (answer.status, answer.detail) == (0, "the PBX has not taken it within 1 s")
        double.hang.clear()
        answer = await asker.ask("1003", "xml", XML, "<a>" + "x" * 2000 + "</a>", via="pbx")
        assert answer.status == 0
        assert "bytes long" in answer.detail
        assert (await asker.ask("1001", "xml", via="pbx")).status == 0  # no endpoint
        assert (await asker.ask("1003", "xml", via="pbx")).status == 202


async def test_screens_do_not_crowd_out_pauses(
    tmp_path: Path, double: AmiDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PBX that is slow with NOTIFYs still gets everything else at once."""
    monkeypatch.setattr(phone_relay, "MAX_WAITING", 3)
    async with (
        desk_in_process(tmp_path, extra(double, tmp_path, QUICK)) as desk,
        asking(desk.settings.bus_path) as asker,
    ):
        await asker.heard_of("1003", "snomD785/10.1.84.12")
        double.hang.add("PJSIPNotify")
        before = len(double.asked("PJSIPShowContacts"))
        asked = [asker.begin("1003", "xml", via="pbx") for _ in range(MAX_AT_PBX + 5)]
        refused = [await asker.answer(one) for one in asked[-2:]]
        assert all("wait for the PBX already" in one.detail for one in refused)
        await double.until(lambda: len(double.asked("PJSIPNotify")) == MAX_AT_PBX)
        double.event("ContactStatus", EndpointName="1003")
        await double.until(lambda: len(double.asked("PJSIPShowContacts")) > before)
        late = [await asker.answer(one) for one in asked[:-2]]
        assert {one.status for one in late} == {0}
    assert MAX_WAITING > 3


async def test_without_a_pbx_it_is_said(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path, PATIENT) as desk,
        asking(desk.settings.bus_path) as asker,
    ):
        answer = await asker.ask("1003", "xml", via="pbx")
        assert (answer.status, answer.detail) == (0, "there is no [ami]")


# ----------------------------------------------------------------------------------- who is there


async def test_what_is_known_of_phones_and_what_changes(tmp_path: Path, double: AmiDouble) -> None:
    async with (
        desk_in_process(tmp_path, extra(double, tmp_path)) as desk,
        asking(desk.settings.bus_path) as asker,
        asking(desk.settings.bus_path, "bridge") as bridge,
    ):
        assert (await asker.heard_of("1004", "T46S")).source == "configured"
        assert (await asker.heard_of("1003", "snomD785/10.1.84.12")).source == "pbx"
        bridge.client.send(PhoneSeen(agent_id="1001", user_agent="Fanvil X4U", source="bridge"))
        assert (await asker.heard_of("1001", "Fanvil X4U")).source == "bridge"
        # What the configuration says, and what the PBX hides, go before that.
        for agent_id in ("1003", "1004"):
            bridge.client.send(PhoneSeen(agent_id=agent_id, user_agent="x", source="bridge"))
        double.contacts[:] = [("1003", "snomD785/10.1.99.1")]
        double.event("ContactStatus", EndpointName="1003")
        await asker.heard_of("1003", "snomD785/10.1.99.1")
        assert [(one.agent_id, one.user_agent) for one in asker.seen if one.user_agent == "x"] == []
        assert len(asker.seen) == 4
        async with asking(desk.settings.bus_path) as later:
            for agent_id, name in (
                ("1001", "Fanvil X4U"),
                ("1003", "snomD785/10.1.99.1"),
                ("1004", "T46S"),
            ):
                await later.heard_of(agent_id, name)
            assert len(later.seen) == 3


def test_a_long_line_is_broken_between_elements() -> None:
    row = "<a>" + "x" * 100 + "</a>"
    body = row * 10
    lines = folded(body).split("\n")
    assert len(lines) == 10
    assert "".join(lines) == body
    assert folded(row * 2) == row * 2
    assert len((row * 2).encode()) < FOLD_BYTES
    assert folded("a\n" + body) == "a\n" + folded(body)


async def test_the_bus_stays_quick_while_the_pbx_is_slow(tmp_path: Path, double: AmiDouble) -> None:
    async with (
        desk_in_process(tmp_path, extra(double, tmp_path, QUICK)) as desk,
        asking(desk.settings.bus_path) as asker,
    ):
        await asker.heard_of("1003", "snomD785/10.1.84.12")
        double.hang.add("PJSIPNotify")
        slow = asker.begin("1003", "xml", via="pbx")
        late = asyncio.create_task(asker.answer(slow))
        quick = asyncio.create_task(asker.ask("1001", "xml"))
        first, _ = await asyncio.wait({late, quick}, return_when=asyncio.FIRST_COMPLETED)
        assert quick in first
        assert (await quick).detail == "the bridge is not connected"
        assert (await late).status == 0
