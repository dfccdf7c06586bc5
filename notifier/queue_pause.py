"""Pausing an agent's queue memberships for a rest, and taking back exactly what we paused.

A member may be paused already, by the agent for lunch or by a supervisor: that is told by the
reason, and left alone by us, before and after. What bears one of our reasons is ours, also after we
were restarted or the PBX was, in another language or version.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from callshield.errors import AmiError
from notifier.ami_client import AmiClient
from notifier.ami_protocol import Message

#: Stands in the PBX's lists and on its wallboards, a reason code of its own: by ``node.language``.
REASONS: Mapping[str, str] = {
    "ko": "보호휴식",
    "en": "protective rest",
    "zh": "保护性休息",
    "ja": "保護休憩",
}
#: Reasons of a pause of ours whatever is configured now; the last is a former version's.
_OURS = frozenset({*REASONS.values(), "callshield rest"})


def pause_reason(configured: str, language: str) -> str:
    """The reason that we give: ``aftercare.pause_reason``, or by ``node.language``."""
    return configured or REASONS[language]


@dataclass(frozen=True, slots=True)
class Membership:
    """One interface in one queue."""

    queue: str
    interface: str
    paused: bool
    reason: str

    def ours(self, reason: str) -> bool:
        """We paused it, with this reason of the configuration or with a former one."""
        return self.paused and (self.reason == reason or self.reason in _OURS)


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


async def pause(client: AmiClient, interface: str, reason: str) -> list[str]:
    """Pause a member wherever nobody else has.

    Args:
        client: of the PBX.
        interface: of the member.
        reason: :func:`pause_reason`.

    Returns:
        The queues in which it is paused by us now.

    Raises:
        AmiError: the PBX is away, late or refuses.
    """
    ours = []
    for item in await memberships(client, [interface]):
        if not item.paused:
            await _set(client, item, reason)
        if not item.paused or item.ours(reason):
            ours.append(item.queue)
    return ours


async def resume(client: AmiClient, interface: str, reason: str) -> list[str]:
    """Take back what we paused, and nothing else.

    Returns:
        The queues in which the member was made available.

    Raises:
        AmiError: the PBX is away, late or refuses.
    """
    ours = [item for item in await memberships(client, [interface]) if item.ours(reason)]
    for item in ours:
        await _set(client, item, "")
    return [item.queue for item in ours]


async def _set(client: AmiClient, item: Membership, reason: str) -> None:
    """Pause with a reason; without one, resume."""
    paused = bool(reason)
    answer = await client.request(
        "QueuePause",
        [
            ("Queue", item.queue),
            ("Interface", item.interface),
            ("Paused", "true" if paused else "false"),
            ("Reason", reason),
        ],
    )
    if not answer.ok:
        raise AmiError(
            f"the PBX does not {'pause' if paused else 'resume'} a queue member: {answer.text}"
        )
