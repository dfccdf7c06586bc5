"""Does the PBX let us do what we shall do? Asked without changing anything there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from callshield.errors import AmiError
from callshield.findings import Finding, ok, problem
from callshield.settings import Settings
from notifier.ami_client import CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S, AmiClient
from notifier.ami_protocol import Answer
from notifier.ami_secret import load_secret
from notifier.queue_pause import memberships

#: No member, channel or endpoint has this name.
_NOBODY = "callshield-check-nobody"
_DENIED = "permission denied"


@asynccontextmanager
async def logged_in(settings: Settings) -> AsyncIterator[AmiClient]:
    """A connection of its own for one command.

    Raises:
        SetupError: there is no usable secret.
        AmiError: the PBX cannot be reached, does not answer, or refuses the login.
    """
    if not settings.ami.enabled:
        raise AmiError("no PBX is configured: give ami.host (docs/pbx/ami.md)")
    news: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def tell(reason: str) -> None:
        if not news.done():
            news.set_result(reason)

    client = AmiClient(
        settings.ami, load_secret(settings.ami), on_up=lambda: tell(""), on_down=tell
    )
    client.start()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S + 3 * REQUEST_TIMEOUT_S):
            reason = await news
        if reason:
            raise AmiError(reason)
        yield client
    except TimeoutError:
        raise AmiError("the PBX's manager interface does not answer") from None
    finally:
        await client.close()


async def check(settings: Settings) -> list[Finding]:
    """Log in, look for every right and name that the configuration needs.

    Raises:
        SetupError, AmiError: as :func:`logged_in`.
    """
    async with logged_in(settings) as client:
        ami = settings.ami
        found = [ok("login", f"{ami.username}, manager interface {client.version}")]
        pause = await client.request("QueuePause", [("Interface", _NOBODY), ("Paused", "false")])
        found.append(_right("agent", pause, "pausing queue members"))
        mute = await client.request(
            "MixMonitorMute", [("Channel", _NOBODY), ("Direction", "both"), ("State", "0")]
        )
        found.append(_right("call", mute, "device states, muting MixMonitor"))
        members = {a.queue_member: id_ for id_, a in settings.agents.items() if a.queue_member}
        if members:
            found += await _members(client, members)
        endpoints = {a.endpoint: id_ for id_, a in settings.agents.items() if a.endpoint}
        if endpoints:
            found += await _phones(client, endpoints)
        return found


def _right(name: str, answer: Answer, what: str) -> Finding:
    if _DENIED in answer.text.lower():
        return problem(f"right {name!r}", what, "add it to write= of the manager user")
    return ok(f"right {name!r}", what)


async def _members(client: AmiClient, members: dict[str, str]) -> list[Finding]:
    queues: dict[str, list[str]] = {}
    for item in await memberships(client, members):
        queues.setdefault(item.interface, []).append(item.queue)
    return [
        ok(f"agent {agent_id}", f"in {', '.join(queues[member])}")
        if member in queues
        else problem(
            f"agent {agent_id}",
            f"no queue has the member {member} now",
            "compare agents.ID.queue_member with queue show at the PBX",
        )
        for member, agent_id in members.items()
    ]


async def _phones(client: AmiClient, endpoints: dict[str, str]) -> list[Finding]:
    answer = await client.request("PJSIPShowContacts")
    right = _right("system", answer, "models of phones, pushes to them")
    if not right.ok:
        return [right]
    registered = {item.get("Endpoint"): item.get("UserAgent") for item in answer.items}
    return [right] + [
        ok(f"phone of {agent_id}", registered[endpoint] or "registered, names no model")
        if endpoint in registered
        else problem(
            f"phone of {agent_id}",
            f"{endpoint} is not registered at the PBX",
            "register the phone, or mend agents.ID.endpoint",
        )
        for endpoint, agent_id in endpoints.items()
    ]
