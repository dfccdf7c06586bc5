"""The mark of a call in the PBX's own call record: a field of the CDR, while the channel lives."""

from __future__ import annotations

import structlog

from callshield.errors import AmiError
from callshield.messages_care import EXCLUSIONS
from notifier.ami_client import AmiClient

log = structlog.get_logger()

VALUE = ",".join(EXCLUSIONS)


class CallRecords:
    """Which live calls are marked, and which of them the PBX was told.

    Args:
        client: of the PBX.
        field: of its call record; empty: nothing is said.
    """

    def __init__(self, client: AmiClient, field: str) -> None:
        self._client = client
        self._field = field
        self._channels: dict[str, str] = {}
        self._untold: set[str] = set()

    def started(self, call_id: str, channel: str) -> None:
        """A call, and the PBX's name of its channel, where it told one."""
        if channel and self._field:
            self._channels[call_id] = channel

    def marked(self, call_id: str) -> bool:
        """A call was marked; True where the PBX can be told: it named a channel, which lives."""
        if call_id not in self._channels:
            return False
        self._untold.add(call_id)
        return True

    def ended(self, call_id: str) -> None:
        """The channel goes now, and its record is written."""
        self._channels.pop(call_id, None)
        self._untold.discard(call_id)

    def open(self) -> list[str]:
        """Marked calls that the PBX was not told of yet."""
        return sorted(self._untold)

    async def settle(self, call_id: str) -> None:
        """Tell the PBX.

        Raises:
            AmiError: it is away, late or refuses.
        """
        channel = self._channels.get(call_id)
        if channel is None or call_id not in self._untold:
            return
        answer = await self._client.request(
            "Setvar",
            [("Channel", channel), ("Variable", f"CDR({self._field})"), ("Value", VALUE)],
        )
        if not answer.ok and "no such channel" not in answer.text.lower():
            raise AmiError(f"the PBX does not take a field of a call's record: {answer.text}")
        self._untold.discard(call_id)
        log.info("call_record_marked", call_id=call_id, taken=answer.ok)
