"""The simulated Cisco phones: requests written by hand, so that they are not lenient."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from tests.phone_raw_kit import FORM, ME, digest, get, post, raw
from tests.phone_sims_http_cisco import CiscoMppPhone, CiscoPhone


@dataclass
class Web:
    """A web server of ours, as a phone asks it: by hand, too."""

    pages: dict[str, bytes]
    asked: list[bytes] = field(default_factory=list)
    url: str = ""

    @asynccontextmanager
    async def on(self) -> AsyncIterator[Web]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            self.asked.append(head + await reader.readexactly(int(length or 0)))
            path = head.split(b" ")[1].decode().partition("?")[0]
            writer.write(self.pages[path])
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()


def page(body: bytes, kind: str = "text/xml; charset=utf-8", status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


TEXT = "<CiscoIPPhoneText><Title>경고</Title><Text>위험</Text></CiscoIPPhoneText>".encode()
YES = page(b"AUTHORIZED", "text/plain")


def execute(*urls: str, priority: str = "0") -> bytes:
    items = "".join(f'<ExecuteItem Priority="{priority}" URL="{url}"/>' for url in urls)
    return field_of(f"<CiscoIPPhoneExecute>{items}</CiscoIPPhoneExecute>")


def field_of(xml: str, name: str = "XML") -> bytes:
    return f"{name}={urllib.parse.quote(xml, safe='')}".encode()


@asynccontextmanager
async def cisco(pages: dict[str, bytes], **more: object) -> AsyncIterator[tuple[CiscoPhone, Web]]:
    async with Web({"/auth": YES, **pages}).on() as web:
        phone = CiscoPhone(authentication_url=f"{web.url}/auth", **more)  # type: ignore[arg-type]
        async with phone.on():
            yield phone, web


@pytest.mark.parametrize("by", ["POST", "GET"])
async def test_cisco_asks_who_may_push_then_fetches_the_page_itself(by: str) -> None:
    async with cisco({"/text": page(TEXT)}, asks_by=by) as (phone, web):
        told = await raw(phone, post("/CGI/Execute", FORM, execute(f"{web.url}/text"), ME))
        assert told[0] == 200
        assert b'Status="0" Data="Success"' in told[2]
        await phone.settled()
        assert phone.screen.text == "경고\n위험"
        question = web.asked[0].decode()
        assert question.startswith(by)
        assert "UserID=push&Password=secret&devicename=SEP001122334455" in question
        assert b"x-CiscoIPPhoneModelName: CP-8841\r\n" in web.asked[1]


@pytest.mark.parametrize(
    "said",
    [
        page(b"AUTHORIZED\n", "text/plain"), page(b"UN-AUTHORIZED"), page(b"ERROR"), page(b""),
        page(b"authorized"), page(b"AUTHORIZED", status="403 Forbidden"),
    ],
)  # fmt: skip
async def test_cisco_takes_authorized_and_nothing_else(said: bytes) -> None:
    async with cisco({"/auth": said, "/text": page(TEXT)}) as (phone, web):
        told = await raw(phone, post("/CGI/Execute", FORM, execute(f"{web.url}/text"), ME))
        assert (told[0], told[2]) == (200, b'<CiscoIPPhoneError Number="4" />')
        await phone.settled()
        assert phone.screen.history == []


async def test_cisco_without_an_authentication_url_believes_nobody() -> None:
    async with CiscoPhone().on() as phone:
        request = post("/CGI/Execute", FORM, execute("Init:Services"), ME)
        assert (await raw(phone, request))[2] == b'<CiscoIPPhoneError Number="4" />'


@pytest.mark.parametrize(
    ("target", "kind", "body", "said"),
    [
        ("/CGI/execute", FORM, execute("Init:Services"), 404),
        ("/CGI/Execute", "text/xml", execute("Init:Services"), 1),
        ("/CGI/Execute", FORM, field_of("<CiscoIPPhoneExecute/>"), 1),
        ("/CGI/Execute", FORM, field_of("<CiscoIPPhoneExecute>"), 1),
        ("/CGI/Execute", FORM, field_of("<Other/>"), 1),
        ("/CGI/Execute", FORM, execute("Init:Services").replace(b"XML=", b"xml="), 1),
        ("/CGI/Execute", FORM, b'XML=<CiscoIPPhoneExecute><ExecuteItem URL="Init:Services"/>', 1),
        ("/CGI/Execute", FORM, execute(*["Init:Services"] * 4), 1),
        ("/CGI/Execute", FORM, execute("Init:Services", priority="3"), 1),
        ("/CGI/Execute", FORM, execute("http://192.0.2.1/" + "a" * 420), 1),
    ],
)
async def test_cisco_refuses_with_error_1_and_status_200(
    target: str, kind: str, body: bytes, said: int
) -> None:
    async with cisco({}) as (phone, _):
        told = await raw(phone, post(target, kind, body, ME))
        if said == 1:
            assert (told[0], told[2]) == (200, b'<CiscoIPPhoneError Number="1" />')
        else:
            assert told[0] == said


async def test_cisco_without_a_password_is_challenged() -> None:
    async with cisco({}) as (phone, web):
        told = await raw(phone, post("/CGI/Execute", FORM, execute("Init:Services")))
        assert (told[0], told[1]["www-authenticate"].split(" ")[0]) == (401, "Basic")
        assert (await raw(phone, get("/CGI/Execute")))[0] == 401
        assert web.asked == []


@pytest.mark.parametrize(
    ("fetched", "trouble"),
    [
        (page(TEXT, "text/html; charset=utf-8"), "200 text/html"),
        (page(TEXT, "text/xml"), "charset"),
        (page(TEXT[:-1]), "XML Error [4]: Parse Error"),
        (page(TEXT, status="404 Not Found"), "404 text/xml"),
        (page(TEXT, status="302 Found"), "302 text/xml"),
        (page(b"x" * 17000), "ValueError"),
        (page(TEXT)[:-5], "IncompleteReadError"),
    ],
)
async def test_cisco_says_success_and_shows_nothing_where_the_page_is_wrong(
    fetched: bytes, trouble: str
) -> None:
    async with cisco({"/text": fetched}) as (phone, web):
        told = await raw(phone, post("/CGI/Execute", FORM, execute(f"{web.url}/text"), ME))
        assert b'Status="0"' in told[2]
        await phone.settled()
        assert (phone.screen.history, phone.troubles) == ([], [trouble])


async def test_cisco_in_a_call_does_at_once_only_what_may_not_wait() -> None:
    async with cisco({"/text": page(TEXT)}, in_call=True) as (phone, web):
        for priority in ("2", "1"):
            body = execute(f"{web.url}/text", priority=priority)
            assert b'Status="0"' in (await raw(phone, post("/CGI/Execute", FORM, body, ME)))[2]
            await phone.settled()
            assert phone.screen.text == ""
        phone.hang_up()
        await phone.settled()
        assert len(phone.screen.history) == 1
        assert (
            b'Status="0"'
            in (await raw(phone, post("/CGI/Execute", FORM, execute("Init:Services"), ME)))[2]
        )
        assert phone.screen.text == ""
        unknown = await raw(phone, post("/CGI/Execute", FORM, execute("Nonsense"), ME))
        assert b'Status="1"' in unknown[2]


async def test_cisco_takes_a_small_text_directly() -> None:
    async with cisco({}) as (phone, _):
        body = field_of(TEXT.decode())
        assert len(body) <= 512
        assert b"Success" in (await raw(phone, post("/CGI/Execute", FORM, body, ME)))[2]
        assert phone.screen.text == "경고\n위험"


async def test_cisco_multiplatform_wants_digest_and_leaves_the_rest_as_it_is() -> None:
    async with CiscoMppPhone(user="u", password="p").on() as phone:
        body = field_of("<CiscoIPPhoneText><Text>hi</Text></CiscoIPPhoneText>")
        first = await raw(phone, post("/CGI/Execute", FORM, body, ME))
        assert first[0] == 401, "basic is not enough"
        wrong = digest(first, "/CGI/Execute", "u", "q")
        second = await raw(phone, post("/CGI/Execute", FORM, body, wrong))
        assert second[0] == 401
        right = digest(second, "/CGI/Execute", "u", "p")
        assert b"Success" in (await raw(phone, post("/CGI/Execute", FORM, body, right)))[2]
        assert phone.screen.text == "hi"
        phone.enabled = False
        assert (await raw(phone, post("/CGI/Execute", FORM, body, right)))[0] == 403
    async with CiscoMppPhone(auth_mode="Trusted").on() as phone:
        assert b"Success" in (await raw(phone, post("/CGI/Execute", FORM, body)))[2]
