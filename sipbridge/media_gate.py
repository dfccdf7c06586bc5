"""What of a call may pass between its legs, to the detector and to the recorder."""

from __future__ import annotations

from callshield.messages import LegName
from callshield.messages_media import FlowUpdate
from sipbridge.call_steps import ToMedia


class MediaGate:
    """Shut until the notice is over; what the notice did not open stays shut (principle 3).

    Args:
        call_id: the call.
        internal: a call between colleagues: neither tap nor recording ever opens.
    """

    def __init__(self, call_id: str, *, internal: bool = False) -> None:
        self._call_id = call_id
        self._internal = internal
        self.tapped = False
        """The detector may have the caller's audio."""
        self._relayed = False
        self._recorded = False
        self._somebody_else = self._notice_missed = self._never = False

    def open(self, *, tap: bool, record: bool) -> None:
        """The notice is over: both hear each other, and what the caller knows of may begin."""
        self._relayed = True
        self.watch(tap=tap, record=record)

    def watch(self, *, tap: bool, record: bool) -> None:
        """Analyse and record from now on; nothing comes of it where that is over for good, or the
        notice is not."""
        shut = self._internal or self._notice_missed or self._never or not self._relayed
        self.tapped = tap and not shut
        self._recorded = record and not shut

    @property
    def may_watch(self) -> bool:
        """The notice was heard, by whoever is there, and nothing ended analysis for good."""
        return self._relayed and not (self._internal or self._notice_missed or self._never)

    @property
    def recorded(self) -> bool:
        """The call is recorded, but for a hold, a pause, or somebody else on the line."""
        return self._recorded

    def somebody_else(self, *, there: bool) -> None:
        """The PBX put somebody else where the caller was, who has heard no notice; or the caller
        is back. Who was away while the notice played has not heard it."""
        self._somebody_else = there
        self._notice_missed = self._notice_missed or (there and not self._relayed)

    def unwatch(self) -> None:
        """Nothing is tapped or recorded any more, for good."""
        self.tapped = self._recorded = False
        self._never = True

    def close(self) -> None:
        """The caller is alone: nothing passes any more."""
        self._relayed = self.tapped = self._recorded = False

    def flow(
        self,
        *,
        hears: bool,
        talks: bool,
        on_hold: bool,
        paused: bool,
        conference: bool,
        keys: bool = False,
    ) -> ToMedia:
        """What may pass now.

        Args:
            hears: the agent is there and hears the caller.
            talks: the agent is there and the notice is over.
            on_hold: either side holds: nothing is analysed.
            paused: the agent keeps card data out of everything.
            conference: somebody who came to help hears and is heard.
            keys: what the caller presses decides something.
        """
        return ToMedia(
            FlowUpdate(
                call_id=self._call_id,
                caller_to_agent=hears,
                agent_to_caller=self._relayed and talks,
                tap=self.tapped and talks and not (on_hold or paused or self._somebody_else),
                on_hold=on_hold,
                record=self._recorded and talks and not (on_hold or self._somebody_else),
                paused=paused,
                conference=conference and talks,
                keys=keys,
            )
        )

    def ringing(self, called: LegName) -> ToMedia:
        """Early media: who calls hears the side of ``called``, and is not heard.

        Nobody misses the calling side's audio yet, and the ring timeout watches: no media timeout.
        """
        return ToMedia(
            FlowUpdate(
                call_id=self._call_id,
                caller_to_agent=called is LegName.CALLER,
                agent_to_caller=called is LegName.AGENT,
                tap=False,
                on_hold=True,
            )
        )

    def transferred(self, *, on_hold: bool) -> ToMedia:
        """The caller and whoever came in the agent's place: relayed, and nothing else."""
        return ToMedia(
            FlowUpdate(
                call_id=self._call_id,
                caller_to_agent=True,
                agent_to_caller=True,
                tap=False,
                on_hold=on_hold,
            )
        )
