"""Asking a phone: only where phones are, and however badly it answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from callshield.errors import ConfigurationError, SetupError
from callshield.findings import Finding, Verdict
from firmware_profiles.catalogue import shipped
from firmware_profiles.online import ask, phone_address

HERE = "127.0.0.9"
POLY, CISCO = shipped().phones["poly-vvx"], shipped().phones["cisco-enterprise"]
YEALINK = shipped().phones["yealink-t"]
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def phone(answer: Answer) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A web server: its port, and the requests it got."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        try:
            await answer(reader, writer)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, HERE, 0)
    try:
        yield server.sockets[0].getsockname()[1], requests
    finally:
        server.close()


def says(text: bytes) -> Answer:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)

    return answer


def head(status: str, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Content-Length: 0", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode()


async def first(answer: Answer, family: object = POLY, limit_s: float = 30.0) -> Finding:
    async with phone(answer) as (port, _):
        return (await ask(family, HERE, port=port, limit_s=limit_s))[0]  # type: ignore[arg-type]


async def test_a_phone_that_asks_for_digest_is_right_and_hears_no_secret() -> None:
    challenge = 'WWW-Authenticate: Digest realm="PUSH", nonce="1"'
    async with phone(says(head("401 Unauthorized", challenge))) as (port, requests):
        (found,) = await ask(POLY, HERE, port=port)
    assert found.verdict is Verdict.OK
    (request,) = requests
    assert request.startswith(b"GET /push HTTP/1.1\r\n")
    assert b"authorization" not in request.lower()
    assert b"cookie" not in request.lower()


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (head("401 No", 'WWW-Authenticate: Basic realm="x"'), "asking for basic instead of digest"),
        (head("401 No"), "asking for nothing"),
        (head("200 OK"), "takes this from anybody"),
        (head("404 Not Found"), "this way of pushing is off"),
        (head("302 Found", "Location: http://127.0.0.1:1/"), "a redirect, which is not followed"),
        (head("500 Oops"), "where 401 was expected"),
        (b"SSH-2.0-OpenSSH_9\r\n", "no answer from 127.0.0.9"),
        (b"", "no answer from 127.0.0.9"),
        (b"HTTP/1.1 401 No\r\nX: " + b"a" * 300_000 + b"\r\n\r\n", "no answer from 127.0.0.9"),
        (head("404 \x1b[31mred", "Server: \x1b[31m"), ""),
    ],
)
async def test_what_a_phone_may_answer_instead(answer: bytes, detail: str) -> None:
    found = await first(says(answer))
    assert found.verdict is Verdict.PROBLEM
    assert detail in found.detail
    assert found.advice
    assert "\x1b" not in found.detail


async def test_basic_where_basic_is_meant() -> None:
    answer = says(head("401 Unauthorized", 'WWW-Authenticate: Basic realm="user"'))
    assert (await first(answer, CISCO)).verdict is Verdict.OK
    assert (await first(answer, POLY)).verdict is Verdict.PROBLEM


async def test_a_redirect_is_not_followed() -> None:
    async with phone(says(head("200 OK"))) as (other, reached):
        location = f"Location: http://{HERE}:{other}/"
        found = await first(says(head("302 Found", location)))
        assert "redirect" in found.detail
        assert reached == []


async def test_ten_megabytes_are_not_read() -> None:
    sent = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 401 No\r\nContent-Length: 10485760\r\n\r\n")
        for _chunk in range(160):
            writer.write(b"a" * 65536)
            await writer.drain()
            sent += 65536

    found = await first(flood)
    assert found.verdict is Verdict.PROBLEM
    assert "more than 64 KiB" in found.detail
    # What the sockets buffer, not the whole.
    assert sent < 8_000_000


async def test_a_phone_that_dribbles_is_given_up() -> None:
    """Each read is quick; only the whole takes for ever."""

    async def dribble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 401 No\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with asyncio.timeout(10):
        found = await first(dribble, limit_s=0.3)
    assert "no whole answer within 0.3 s" in found.detail


async def test_a_phone_that_says_nothing_is_given_up() -> None:
    silent = asyncio.Event()

    async def silence(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await silent.wait()

    async with phone(silence) as (port, _requests), asyncio.timeout(10):
        (found,) = await ask(POLY, HERE, port=port, limit_s=0.2)
        silent.set()
    assert "no whole answer" in found.detail


async def test_nobody_there() -> None:
    async with phone(says(b"")) as (port, _):
        pass
    (found,) = await ask(POLY, HERE, port=port)
    assert found.verdict is Verdict.PROBLEM


async def test_a_phone_without_http_pushing_may_redirect() -> None:
    answer = says(head("302 Found", "Location: https://127.0.0.9/"))
    async with phone(answer) as (port, _):
        findings = await ask(YEALINK, HERE, port=port)
    assert [item.verdict for item in findings] == [Verdict.OK, Verdict.NOTE]


NETWORKS = ["192.0.2.0/24", "2001:db8::/64"]


@pytest.mark.parametrize(
    "text", ["192.0.2.20", "2001:db8::5", "[2001:db8::5]", "::ffff:192.0.2.20"]
)
def test_addresses_where_phones_are(text: str) -> None:
    assert phone_address(text, NETWORKS) in ("192.0.2.20", "2001:db8::5")


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "169.254.169.254",
        "192.0.3.20",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "2001:db8:0:1::5",
        "fe80::1%eth0",
        "2001:db8::5%lo",
        "localhost",
        "phone.example",
        "192.0.2.20:8080",
        "192.0.2.20@evil.example",
        "http://192.0.2.20/",
        "0xC0000214",
        "3221225984",
        "192.0.2.020",
        "",
    ],
)
def test_addresses_elsewhere_and_names_are_refused(text: str) -> None:
    with pytest.raises(SetupError):
        phone_address(text, NETWORKS)


def test_without_networks_nobody_is_asked() -> None:
    with pytest.raises(ConfigurationError, match=r"sip\.phone\.networks"):
        phone_address("192.0.2.20", [])
