"""A phone's own HTTP client: how it fetches a screen, asks who may push, calls a key's address."""

from __future__ import annotations

import asyncio
import re
import urllib.parse
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came back when the phone asked somebody."""

    url: str
    status: int
    content_type: str
    body: bytes


async def ask(
    url: str, *, body: bytes | None = None, headers: dict[str, str] | None = None, limit: int
) -> Fetched:
    """A phone's own HTTP client: one request, no redirect, no more than ``limit`` bytes."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    try:
        target = parts.path or "/"
        if parts.query:
            target += f"?{parts.query}"
        lines = [
            f"{'GET' if body is None else 'POST'} {target} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        if body is not None:
            lines += [
                "Content-Type: application/x-www-form-urlencoded",
                f"Content-Length: {len(body)}",
            ]
        writer.write("\r\n".join([*lines, "", ""]).encode() + (body or b""))
        await writer.drain()
        return await _answer(reader, url, limit)
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader, url: str, limit: int) -> Fetched:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    found = re.match(r"HTTP/1\.[01] (\d{3})", head[0])
    if found is None:
        raise ValueError(head[0])
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in head[1:] if line)
    }
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _chunks(reader, limit)
    elif "content-length" in headers:
        length = int(headers["content-length"])
        if length > limit:
            raise ValueError("too long")
        body = await reader.readexactly(length)
    else:
        body = await reader.read(limit + 1)
        if len(body) > limit:
            raise ValueError("too long")
    return Fetched(url, int(found[1]), headers.get("content-type", ""), body)


async def _chunks(reader: asyncio.StreamReader, limit: int) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        if len(body) + size > limit:
            raise ValueError("too long")
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    return body
