"""An address for Asterisk's ICE: it offers none of the loopback (RFC 8445, section 5.1.1.1).

So it is told to say its loopback address in the place of one that the machine has besides.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

#: RFC 5737: nobody's. Given to the loopback for a while where the machine has no other address.
NOBODYS = "198.51.100.40"


async def _ip(*arguments: str) -> str:
    if shutil.which("ip") is None:
        raise RuntimeError("There is no `ip`: `./run test-pbx` installs it (Debian: iproute2).")
    process = await asyncio.create_subprocess_exec(
        "ip", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    said, complaint = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {complaint.decode().strip()}")
    return said.decode()


async def other_addresses() -> list[str]:
    """IPv4 addresses of this machine outside the loopback's network."""
    links = json.loads(await _ip("-json", "-4", "address", "show", "up"))
    found = [entry["local"] for link in links for entry in link.get("addr_info", [])]
    return [address for address in found if not address.startswith("127.")]


@asynccontextmanager
async def ice_addresses() -> AsyncIterator[list[str]]:
    """What ``rtp.conf`` must replace; at least one address.

    Raises:
        RuntimeError: there is none, and this process may not give the loopback one.
    """
    if found := await other_addresses():
        yield found
        return
    await _ip("address", "add", f"{NOBODYS}/32", "dev", "lo")
    try:
        yield [NOBODYS]
    finally:
        await _ip("address", "del", f"{NOBODYS}/32", "dev", "lo")
