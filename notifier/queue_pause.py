"""Pausing an agent's queue memberships for a rest, and taking back exactly what we paused.

A member may be paused already, by the agent for lunch or by a supervisor: that is told by the
reason, and left alone by us, before and after. What bears our reason is ours, also after we were
restarted or the PBX was.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from callshield.errors import AmiError
from notifier.ami_client import AmiClient
from notifier.ami_protocol import Message

#: Stands in the PBX's lists and on its wallboards.
REASON = "callshield rest"


@dataclass(frozen=True, slots=True)
class Membership:
    """One interface in one queue."""

    queue: str
    interface: str
    paused: bool
    reason: str

    @property
    def ours(self) -> bool:
        """We paused it."""
        return self.paused and self.reason == REASON


def membership(message: Message) -> Membership:
    """A member as events and lists tell it; they differ in the name of the interface."""
    return Membership(
        message.get("Queue"),
        message.get("Interface") or message.get("Location"),
        message.get("Paused") == "1",
        message.get("PausedReason"),
    )


async def memberships(client: AmiClient, interfaces: Collection[str]) -> list[Membership]:
    """Where these interfaces are members, in every queue.

    Raises:
        AmiError: the PBX is away, late or refuses.
    """
    filters = [("Member", next(iter(interfaces)))] if len(interfaces) == 1 else []
    answer = await client.request("QueueStatus", filters)
    if not answer.ok:
        raise AmiError(f"the PBX does not tell its queues: {answer.text}")
    found = [membership(item) for item in answer.items if item.event == "QueueMember"]
    return [item for item in found if item.interface in interfaces]


async def pause(client: AmiClient, interface: str) -> list[str]:
    """Pause a member wherever nobody else has.

    Returns:
        The queues in which it is paused by us now.

    Raises:
        AmiError: the PBX is away, late or refuses.
    """
    ours = []
    for item in await memberships(client, [interface]):
        if not item.paused:
            await _set(client, item, paused=True)
        if not item.paused or item.ours:
            ours.append(item.queue)
    return ours


async def resume(client: AmiClient, interface: str) -> list[str]:
    """Take back what we paused, and nothing else.

    Returns:
        The queues in which the member was made available.

    Raises:
        AmiError: the PBX is away, late or refuses.
    """
    ours = [item for item in await memberships(client, [interface]) if item.ours]
    for item in ours:
        await _set(client, item, paused=False)
    return [item.queue for item in ours]


async def _set(client: AmiClient, item: Membership, *, paused: bool) -> None:
    answer = await client.request(
        "QueuePause",
        [
            ("Queue", item.queue),
            ("Interface", item.interface),
            ("Paused", "true" if paused else "false"),
            ("Reason", REASON if paused else ""),
        ],
    )
    if not answer.ok:
        raise AmiError(
            f"the PBX does not {'pause' if paused else 'resume'} a queue member: {answer.text}"
        )
