"""What of a call may pass between its legs, to the detector and to the recorder."""

from __future__ import annotations

from callshield.messages import FlowUpdate, LegName
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

    def open(self, *, tap: bool, record: bool) -> None:
        """The notice is over: both hear each other, and what the caller knows of may begin."""
        self._relayed = True
        self.tapped = tap and not self._internal
        self._recorded = record and not self._internal

    def unwatch(self) -> None:
        """Nothing is tapped or recorded any more, for good."""
        self.tapped = self._recorded = False

    def close(self) -> None:
        """The caller is alone: nothing passes any more."""
        self._relayed = self.tapped = self._recorded = False

    def flow(
        self, *, hears: bool, talks: bool, on_hold: bool, paused: bool, conference: bool
    ) -> ToMedia:
        """What may pass now.

        Args:
            hears: the agent is there and hears the caller.
            talks: the agent is there and the notice is over.
            on_hold: either side holds: nothing is analysed.
            paused: the agent keeps card data out of everything.
            conference: somebody who came to help hears and is heard.
        """
        return ToMedia(
            FlowUpdate(
                call_id=self._call_id,
                caller_to_agent=hears,
                agent_to_caller=self._relayed and talks,
                tap=self.tapped and talks and not on_hold and not paused,
                on_hold=on_hold,
                record=self._recorded and talks and not on_hold,
                paused=paused,
                conference=conference and talks,
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
