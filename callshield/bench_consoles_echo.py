"""The reference of ``callshield bench consoles``: websockets' own server and its ``broadcast``.

``python -m callshield.bench_consoles_echo`` prints ``{"port": …}``, then sends every line of its
input to all who are connected, as it is. No store, no roles, no numbers: what this machine can do
at this moment with the same messages for the same consoles.
"""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve


async def _main() -> None:
    connected: set[ServerConnection] = set()

    async def console(connection: ServerConnection) -> None:
        connected.add(connection)
        try:
            await connection.wait_closed()
        finally:
            connected.discard(connection)

    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    async with serve(console, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
        while line := await reader.readline():
            broadcast(connected, line.rstrip(b"\n").decode(), raise_exceptions=False)


if __name__ == "__main__":
    uvloop.run(_main())
