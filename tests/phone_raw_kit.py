"""Requests to simulated phones, written by hand: nothing of the sender is in them."""

from __future__ import annotations

import asyncio
import base64
import hashlib

from tests.phone_sims_http import Phone

Told = tuple[int, dict[str, str], bytes]
"""Status, headers in lower case, body."""
HOME = ["127.0.0.1"]
FORM = "application/x-www-form-urlencoded"
ME = "Authorization: Basic " + base64.b64encode(b"push:secret").decode()
#: As Mitel's guide writes it.
AASTRA = (
    b"xml=<AastraIPPhoneTextScreen><Title>T</Title><Text>hello</Text></AastraIPPhoneTextScreen>"
)


async def raw(phone: Phone, request: bytes, source: str = "127.0.0.1") -> Told:
    """Send these bytes; what comes back until the phone closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", phone.port, local_addr=(source, 0))
    try:
        writer.write(request)
        head, _, body = (await asyncio.wait_for(reader.read(), 30)).partition(b"\r\n\r\n")
    finally:
        writer.close()
    first, *rest = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in rest)}
    return int(first.split(" ")[1]), headers, body


def post(target: str, kind: str, body: bytes, *headers: str) -> bytes:
    lines = [
        f"POST {target} HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {kind}",
        f"Content-Length: {len(body)}", *headers, "", "",
    ]  # fmt: skip
    return "\r\n".join(lines).encode() + body


def get(target: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]).encode()


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def digest(
    told: Told,
    target: str,
    user: str,
    password: str,
    *,
    method: str = "POST",
    count: str = "00000001",
    uri: str | None = None,
) -> str:
    """Authorization by hand, from a 401."""
    words = told[1]["www-authenticate"]
    realm, nonce = words.split('realm="')[1].split('"')[0], words.split('nonce="')[1].split('"')[0]
    uri = target if uri is None else uri
    response = md5(
        f"{md5(f'{user}:{realm}:{password}')}:{nonce}:{count}:0a4f113b:auth:{md5(f'{method}:{uri}')}"
    )
    return (
        f'Authorization: Digest username="{user}", realm="{realm}", nonce="{nonce}", uri="{uri}", '
        f'qop=auth, nc={count}, cnonce="0a4f113b", response="{response}", algorithm=MD5'
    )
