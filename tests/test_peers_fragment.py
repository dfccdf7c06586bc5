"""A rendered fragment in the hands of a real phone: it registers and calls with it."""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firmware_profiles.catalogue import shipped
from firmware_profiles.matching import match
from firmware_profiles.rendering import render
from tests.peers.baresip import Baresip
from tests.peers.linphone import Linphone
from tests.peers.sound import write_tone
from tests.phones_kit import SITE

pytestmark = [pytest.mark.peers, pytest.mark.timeout(60)]

PBX, PHONE = "127.0.0.8", "127.0.0.7"


class Registrar(asyncio.DatagramProtocol):
    """A PBX that challenges once, takes whoever knows the password, and hears INVITEs."""

    def __init__(self, password: str) -> None:
        self.password = password
        self.registered = asyncio.Event()
        self.refused = asyncio.Event()
        self.invite: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        text = data.decode()
        method = text.partition(" ")[0]
        if method == "INVITE" and not self.invite.done():
            self.invite.set_result(text)
        if method != "REGISTER":
            self._answer(text, address, "486 Busy Here")
        elif "Authorization:" not in text:
            self._answer(
                text, address, "401 Unauthorized",
                'WWW-Authenticate: Digest realm="pbx", nonce="n", algorithm=MD5',
            )  # fmt: skip
        elif self._knows(text):
            self._answer(text, address, "200 OK")
            self.registered.set()
        else:
            self._answer(text, address, "403 Forbidden")
            self.refused.set()

    def _knows(self, text: str) -> bool:
        said = dict(re.findall(r'(\w+)="?([^",\r]+)"?', text.partition("Authorization:")[2]))
        one = hashlib.md5(f"{said['username']}:pbx:{self.password}".encode()).hexdigest()
        two = hashlib.md5(f"REGISTER:{said['uri']}".encode()).hexdigest()
        middle = f"{one}:n:" + (
            f"{said['nc']}:{said['cnonce']}:{said['qop']}:{two}" if "qop" in said else two
        )
        return hashlib.md5(middle.encode()).hexdigest() == said["response"]

    def _answer(self, request: str, address: Any, status: str, *more: str) -> None:
        kept = [
            line
            for line in request.split("\r\n\r\n")[0].split("\r\n")
            if line.split(":")[0] in ("Via", "From", "To", "Call-ID", "CSeq", "Contact")
        ]
        lines = [f"SIP/2.0 {status}", *kept, *more, "Content-Length: 0", "", ""]
        self.transport.sendto("\r\n".join(lines).encode(), address)


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize(
    "profile", ["baresip", pytest.param("linphone", marks=pytest.mark.linphone)]
)
async def test_softphone_registers_and_calls_as_rendered(
    tmp_path: Path, profile: str, right: bool
) -> None:
    """Without the right password (negative control) nothing is registered."""
    loop = asyncio.get_running_loop()
    transport, pbx = await loop.create_datagram_endpoint(
        lambda: Registrar("s3&cr-t"), local_addr=(PBX, 0)
    )
    port = transport.get_extra_info("sockname")[1]
    values = replace(
        SITE,
        proxy=PBX,
        proxy_port=port,
        register=True,
        codecs=("PCMA", "PCMU"),
        password="s3&cr-t" if right else "other",
    )
    text = render(shipped().phones[profile], values)
    source = write_tone(tmp_path / "tone.wav", 440, 2)
    phone: Baresip | Linphone
    if profile == "linphone":
        phone = Linphone(tmp_path / "phone", "1001", source)
        phone.configuration = text
    else:
        phone = Baresip(tmp_path / "phone", PHONE, "1001", source)
        (phone.folder / "accounts").write_text(text, "utf-8")
    await phone.start()
    try:
        async with asyncio.timeout(45):
            if not right:
                await pbx.refused.wait()
                assert not pbx.registered.is_set()
                return
            await pbx.registered.wait()
            if isinstance(phone, Linphone):
                await phone.say(f"call sip:2000@{PBX}:{port}")
            else:
                await phone.command("dial", f"sip:2000@{PBX}:{port}")
            invite = await pbx.invite
    finally:
        await phone.stop()
        transport.close()
    assert re.search(r"^From: <sip:1001@", invite, re.MULTILINE)
    payloads = re.search(r"^m=audio \d+ RTP/AVP (.*)\r$", invite, re.MULTILINE)
    assert payloads is not None
    # PCMA before PCMU, nothing else but telephone-event.
    assert payloads[1].split()[:2] == ["8", "0"]
    assert len(payloads[1].split()) == 3
    assert "telephone-event/8000" in invite
    agent = re.search(r"^User-Agent: (.*)\r$", invite, re.MULTILINE)
    assert agent is not None
    assert match(shipped(), agent[1]).profile.id == profile
