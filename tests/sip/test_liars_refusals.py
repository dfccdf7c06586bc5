"""Phones and registrars that ask who we are, and ones that want to be left alone for a while."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from pathlib import Path

import pytest

from callshield.messages import CallEnded, CallStarted, NodeDegraded
from tests.peers.sipp import Sipp
from tests.sip.half_node import DIGEST_AGENTS, PASSWORD, HalfNode

pytestmark = [
    pytest.mark.peers,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="session"),
]

NONCE = "5ccc069c403ebaf9f0171e9517f40e41"
MD5 = f'Digest realm="phones", nonce="{NONCE}", algorithm=MD5, qop="auth"'
SHA = f'Digest realm="phones", nonce="{NONCE}", algorithm=SHA-256, qop="auth"'
UNAUTHORIZED = "401 Unauthorized"
CHALLENGES = {
    "md5": (UNAUTHORIZED, f"WWW-Authenticate: {MD5}\n"),
    "sha": (UNAUTHORIZED, f"WWW-Authenticate: {SHA}\n"),
    # RFC 8760 section 2.3: the one that is preferred goes first.
    "both": (UNAUTHORIZED, f"WWW-Authenticate: {SHA}\nWWW-Authenticate: {MD5}\n"),
    "proxy": ("407 Proxy Authentication Required", f"Proxy-Authenticate: {MD5}\n"),
}


def authorization(message: str) -> dict[str, str]:
    """The parameters of the credentials in a request (RFC 7616 section 3.4)."""
    (value,) = re.findall(r"(?m)^(?:Proxy-)?Authorization: Digest (.*)$", message)
    pairs = re.findall(r'(\w+)=(?:"([^"]*)"|([^,\s]+))', value)
    return {name: quoted or plain for name, quoted, plain in pairs}


def is_right(said: dict[str, str], method: str, password: str) -> bool:
    """Whether the response proves the password (RFC 7616 section 3.4.1)."""
    algorithm = hashlib.sha256 if said["algorithm"] == "SHA-256" else hashlib.md5

    def h(*parts: str) -> str:
        return algorithm(":".join(parts).encode()).hexdigest()

    return said["response"] == h(
        h(said["username"], said["realm"], password),
        *(said["nonce"], said["nc"], said["cnonce"], said["qop"]),
        h(method, said["uri"]),
    )


@pytest.mark.parametrize("agent", DIGEST_AGENTS)
async def test_a_challenge_is_answered_from_the_configuration(
    half: HalfNode, tmp_path: Path, agent: str
) -> None:
    status, headers = CHALLENGES[agent]
    values = {"status": status, "headers": headers}
    async with (
        half.phone(tmp_path, agent, "phone_challenges", values=values) as desk,
        half.pbx(tmp_path, agent, "pbx_talks") as caller,
    ):
        assert await caller.finish(20) == 0, caller.messages()
        assert await desk.finish(20) == 0, desk.messages()
        first, second = desk.received("INVITE")
    assert "Authorization" not in first
    said = authorization(second)
    assert (said["username"], said["realm"]) == ("callshield", "phones")
    assert said["algorithm"] == ("MD5" if agent in ("md5", "proxy") else "SHA-256")
    assert is_right(said, "INVITE", PASSWORD)
    assert not is_right(said, "INVITE", "another")
    # RFC 3261 section 22.2: the same dialog, one higher.
    assert _line(first, "Call-ID") == _line(second, "Call-ID")
    await half.judge(tmp_path)


def _line(message: str, name: str) -> str:
    (value,) = re.findall(rf"(?m)^{name}: *(.*?)\s*$", message)
    return str(value)


async def _refused(
    half: HalfNode, folder: Path, agent: str, phone: str, **values: str
) -> tuple[Sipp, Sipp]:
    async with (
        half.phone(folder, agent, phone, values=values) as desk,
        half.pbx(folder, agent, "pbx_refused", values={"status": "480"}) as caller,
    ):
        assert await caller.finish(20) == 0, caller.messages()
        assert await desk.finish(20) == 0, desk.messages()
    return caller, desk


async def test_a_wrong_password_is_an_alarm_and_no_secret(half: HalfNode, tmp_path: Path) -> None:
    """Asked twice for the same: our password is wrong. The PBX hears 480, never a challenge."""
    agent, (status, headers) = "unbelieved", CHALLENGES["md5"]
    for number in range(2):
        caller, _ = await _refused(
            half,
            tmp_path / str(number),
            agent,
            "phone_never_believes",
            status=status,
            headers=headers,
        )
        assert "Authenticate" not in caller.messages()
    # The peers are done before the node has told of it: what it says comes over the bus.
    await half.event(CallEnded, lambda _: len(half.of_agent(CallEnded, agent)) == 2)
    assert [e.reason for e in half.of_agent(CallEnded, agent)] == ["not_authorised"] * 2
    # Alarms of other components are not asked about: a busy machine has its own.
    await half.event(NodeDegraded, lambda event: event.component == "credentials")
    (alarm,) = [
        e for e in half.events if isinstance(e, NodeDegraded) and e.component == "credentials"
    ]
    assert alarm.degraded
    assert agent in alarm.reason
    # The next call that is taken ends the alarm.
    async with (
        half.phone(tmp_path / "good", agent, "phone_answers"),
        half.pbx(tmp_path / "good", agent, "pbx_talks") as caller,
    ):
        assert await caller.finish(20) == 0, caller.messages()
    await half.event(
        NodeDegraded, lambda event: event.component == "credentials" and not event.degraded
    )
    await half.judge(tmp_path)
    everything = half.log_path().read_text(encoding="utf-8") + repr(half.events)
    assert PASSWORD not in everything
    assert half.logs("credentials_refused")[-1]["agent_id"] == agent


async def test_without_credentials_a_challenge_is_a_refusal(half: HalfNode, tmp_path: Path) -> None:
    agent, (status, headers) = half.agent(), CHALLENGES["md5"]
    _, desk = await _refused(half, tmp_path, agent, "phone_refuses", status=status, headers=headers)
    assert len(desk.received("INVITE")) == 1
    # Its alarm must not stay for the next test.
    async with (
        half.phone(tmp_path / "good", agent, "phone_answers"),
        half.pbx(tmp_path / "good", agent, "pbx_talks") as caller,
    ):
        assert await caller.finish(20) == 0, caller.messages()
    await half.judge(tmp_path)


async def test_credentials_are_shown_in_their_realm_only(half: HalfNode, tmp_path: Path) -> None:
    """``realm = "phones"``: a challenge of another one is not answered."""
    challenge = MD5.replace('realm="phones"', 'realm="evil.example"')
    _, desk = await _refused(
        half,
        tmp_path,
        "realm",
        "phone_refuses",
        status=UNAUTHORIZED,
        headers=f"WWW-Authenticate: {challenge}\n",
    )
    assert len(desk.received("INVITE")) == 1
    await half.judge(tmp_path)


async def test_a_phone_that_wants_to_be_left_alone_is(half: HalfNode, tmp_path: Path) -> None:
    """503 with Retry-After: the PBX hears 480 with it, and so does the next call, at once."""
    agent = half.agent()
    # Longer than it takes a busy machine to start the telephones of the next call.
    values = {"status": "503 Service Unavailable", "headers": "Retry-After: 8 (rebooting)\n"}
    caller, _ = await _refused(half, tmp_path, agent, "phone_refuses", **values)
    over = time.monotonic() + 8
    assert "Retry-After: 8" in caller.messages()
    started = len(half.of_agent(CallStarted, agent))
    async with half.phone(tmp_path / "second", agent, "phone_answers") as desk:
        async with half.pbx(
            tmp_path / "second", agent, "pbx_refused", values={"status": "480"}
        ) as caller:
            assert await caller.finish(20) == 0, caller.messages()
            assert re.search(r"Retry-After: [1-8]\b", caller.messages())
        assert len(half.of_agent(CallStarted, agent)) == started
        assert not desk.received("INVITE")
        await half.judge(tmp_path)
        await asyncio.sleep(max(over - time.monotonic(), 0))
        async with half.pbx(tmp_path / "third", agent, "pbx_talks") as caller:
            assert await caller.finish(20) == 0, caller.messages()
        assert await desk.finish(20) == 0, desk.messages()
    await half.judge(tmp_path)


async def test_no_phone_can_have_itself_left_alone_for_a_day(
    half: HalfNode, tmp_path: Path
) -> None:
    agent = half.agent()
    values = {"status": "503 Service Unavailable", "headers": "Retry-After: 86400;duration=9\n"}
    caller, _ = await _refused(half, tmp_path, agent, "phone_refuses", **values)
    assert "Retry-After: 300" in caller.messages()
    await half.judge(tmp_path)
