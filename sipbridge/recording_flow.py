"""The recorder beside the relay: what the bridge allows, in an order that loses no frame.

The relay leaves frames in a ring; they are handed to the recorder ten times a second, and at every
change of what is allowed, so that a pause or an end lies exactly where it was asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

import msgspec
import structlog

from callshield.messages import NoticeFinished
from callshield.messages_media import FlowUpdate, Told
from callshield.settings import Settings
from sipbridge.recorder import Recorder
from sipbridge.recording_writer import CallMeta
from sipbridge.relay_core import Core

log = structlog.get_logger()

RecordingState = Literal["recording", "paused", "stopped", "failed"]

#: How long frames may lie in the ring: part of the second that a crash may lose.
DRAIN_S = 0.1
#: Without a lost frame for this long the disk keeps up again.
CALM_S = 30.0
#: Announcements of a call that wait for its recording to begin: a hold or two, a few warnings.
_WAITING = 64


class RecordingFlow:
    """Recordings of one media worker's calls.

    Args:
        settings: of the node; ``recording.enabled`` must be true.
        core: the relay.
        on_change: told in the event loop: call id, state, reason.
        on_loss: told in the event loop with a sentence when frames are lost, and with an
            empty one when none was for :data:`CALM_S`.
    """

    def __init__(
        self,
        settings: Settings,
        core: Core,
        on_change: Callable[[str, RecordingState, str], None],
        on_loss: Callable[[str], None],
    ) -> None:
        self._core = core
        self._on_loss = on_loss
        self._meta = CallMeta(node=settings.node.name)
        self._paused: dict[str, bool] = {}
        self._told: dict[str, list[Told]] = {}
        """Of calls that are not recorded yet."""
        self._loop = asyncio.get_running_loop()
        self._on_change = on_change
        self._recorder = Recorder(settings.recording, self._from_thread)
        self._lost = 0
        self._losing_at: float | None = None
        self._timer = self._loop.call_later(DRAIN_S, self._tick)

    def _from_thread(self, call_id: str, state: RecordingState, reason: str) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_change, call_id, state, reason)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(DRAIN_S, self._tick)
        self.drain()
        lost = self._core.totals()["record_dropped"] + self._recorder.statistics.dropped_bytes
        now = self._loop.time()
        if lost > self._lost:
            if self._losing_at is None:
                self._on_loss("the disk is too slow: some audio of recordings is lost")
            self._lost, self._losing_at = lost, now
        elif self._losing_at is not None and now - self._losing_at >= CALM_S:
            self._losing_at = None
            self._on_loss("")

    def drain(self) -> None:
        """Hand over what the relay has."""
        frames = self._core.recorded()
        if frames:
            self._recorder.feed(frames)

    def before(self, flow: FlowUpdate) -> None:
        """To be called before the relay is told."""
        if not flow.record:
            return
        paused = self._paused.get(flow.call_id)
        if paused is None:
            told = self._told.pop(flow.call_id, [])
            notice = next((one.source for one in told if isinstance(one, NoticeFinished)), "")
            self._recorder.start(flow.call_id, msgspec.structs.replace(self._meta, notice=notice))
            self._paused[flow.call_id] = False
            for one in told:
                self.told(one)
        elif paused and not flow.paused:
            self._recorder.resume(flow.call_id)
            self._paused[flow.call_id] = False

    def after(self, flow: FlowUpdate) -> None:
        """To be called after the relay was told."""
        if self._paused.get(flow.call_id) is False and flow.paused:
            self.drain()
            self._recorder.pause(flow.call_id)
            self._paused[flow.call_id] = True

    def told(self, message: Told) -> None:
        """What the caller heard or pressed: it goes with the recording, once there is one."""
        if message.call_id in self._paused:
            self._recorder.note(message.call_id, msgspec.json.encode(message))
            return
        waiting = self._told.setdefault(message.call_id, [])
        if len(waiting) < _WAITING:
            waiting.append(message)

    def stop(self, call_id: str) -> None:
        """The call is out of the relay."""
        self._told.pop(call_id, None)
        if self._paused.pop(call_id, None) is not None:
            self.drain()
            self._recorder.stop(call_id)

    def close(self) -> None:
        """Write what is left; waits for the recorder's thread."""
        self._timer.cancel()
        self.drain()
        self._recorder.close()
