"""The PBX's own recording (MixMonitor) keeps silent while ours does.

When the agent pauses, card data follows: the PBX is asked to mute what it records on the caller's
channel, whether or not anything is recorded here. When that cannot be done the recording goes on
with the card data in it, so somebody must be told (:attr:`Mutes.on_trouble`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from callshield.errors import AmiError, AmiProtocolError
from notifier.ami_client import AmiClient

#: Asterisk's answer where no MixMonitor runs on the channel.
_NOT_RECORDING = "cannot set mute flag"


@dataclass(slots=True)
class _Paused:
    channel: str
    wanted: bool = False
    """Muted is what it should be."""
    told: bool | None = False
    """What the PBX did last; ``None`` when that is not known."""
    trouble: str = ""
    """Why the PBX records on, while it does."""


class Mutes:
    """Which channels of the PBX are muted in its recordings.

    Args:
        client: the connection.
        on_trouble: called with a call id and a sentence when the PBX records on although the
            agent paused, and with an empty sentence when that is over.
    """

    def __init__(self, client: AmiClient, on_trouble: Callable[[str, str], None]) -> None:
        self._client = client
        self.on_trouble = on_trouble
        self._calls: dict[str, _Paused] = {}

    def started(self, call_id: str, channel: str) -> None:
        """A call, with the PBX's name of the caller's channel."""
        self._calls.setdefault(call_id, _Paused(channel))

    def ended(self, call_id: str) -> None:
        """The PBX's recording ends with its channel."""
        self._calls.pop(call_id, None)

    def paused(self, call_id: str, *, paused: bool) -> bool:
        """The agent pauses or resumes; true when the PBX must be told."""
        call = self._calls.get(call_id)
        if call is None:
            return False
        call.wanted = paused
        call.told = None
        return True

    def lost(self) -> list[str]:
        """The connection is (back) up: calls whose muting must be said again."""
        for call in self._calls.values():
            if call.wanted:
                call.told = None
        return [call_id for call_id, call in self._calls.items() if call.told != call.wanted]

    def recording_began(self, channel: str) -> str | None:
        """Somebody began a recording on a channel; the call that is paused there, if any."""
        for call_id, call in self._calls.items():
            if call.wanted and call.channel == channel:
                call.told = None
                return call_id
        return None

    def open(self) -> list[str]:
        """Calls whose channel is not as it should be."""
        return [call_id for call_id, call in self._calls.items() if call.told != call.wanted]

    async def settle(self, call_id: str) -> None:
        """Tell the PBX what is not told yet about one call."""
        call = self._calls.get(call_id)
        while call is not None and call.told != call.wanted:
            # Noted before it is said: what takes it back meanwhile must not be forgotten.
            wanted = call.told = call.wanted
            trouble = await self._tell(call, wanted)
            if trouble is not None:
                call.told = None
            if self._calls.get(call_id) is not call:
                return
            if wanted == call.wanted:
                self._note(call_id, call, (trouble or "") if wanted else "")
                if trouble is not None:
                    return

    async def _tell(self, call: _Paused, mute: bool) -> str | None:
        """``None`` when done, else why not."""
        if not call.channel:
            # Whether the PBX records at all is not known either: the promise cannot be kept.
            return "the PBX did not name its channel (X-Callshield-Channel)" if mute else None
        try:
            answer = await self._client.request(
                "MixMonitorMute",
                [("Channel", call.channel), ("Direction", "both"), ("State", str(int(mute)))],
            )
        except (AmiError, AmiProtocolError) as error:
            return str(error)
        if answer.ok or not mute:
            # What cannot be unmuted is not recorded any more, or not yet.
            return None
        if _NOT_RECORDING in answer.text.lower():
            return None
        return f"the PBX refuses: {answer.text}"

    def _note(self, call_id: str, call: _Paused, trouble: str) -> None:
        if bool(trouble) != bool(call.trouble):
            self.on_trouble(call_id, trouble)
        call.trouble = trouble
