"""What the agents are told of their own ears and voices: the meters' shell in the bridge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from callshield.messages import EarDose, EarWarning, VoiceTalk
from callshield.messages_media import AgentsSpoke, HearingDose
from callshield.settings import Settings
from sipbridge.dose_meter import DoseMeter
from sipbridge.voice_meter import VoiceMeter

#: Sums of hearing doses are kept so often: what a crash may forget of a shift.
SAVED_EVERY_S = 60.0


class HearingDesk:
    """Doses of ears, which are kept for a shift, and talking times, which are not kept.

    Args:
        settings: the node's configuration.
        agent_of: the agent of a call that runs or ended lately.
        tell: says something to the notifier.
        spawn: runs something in the background.
    """

    def __init__(
        self,
        settings: Settings,
        agent_of: Callable[[str], str | None],
        tell: Callable[[EarDose | EarWarning | VoiceTalk], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._doses = DoseMeter(
            settings.node.state_dir / "hearing_dose.json",
            settings.ear.calibration_db_spl_at_0dbfs,
            settings.calibrations,
            settings.hearing.dose_warnings_pct,
        )
        self._voices = VoiceMeter(settings.hearing)
        self._agent_of = agent_of
        self._tell = tell
        self._spawn = spawn
        self._saved_ts = 0.0

    def on_dose(self, heard: HearingDose) -> None:
        """A leg was given something to hear."""
        agent_id = self._agent_of(heard.call_id)
        if agent_id is None:
            return
        now = time.time()
        said = self._doses.add(
            agent_id,
            heard.call_id,
            heard.a_weighted_sum_sq,
            heard.samples,
            now,
            last_of_call=heard.last,
        )
        self._tell(said)
        if (warning := self._doses.warning(said)) is not None:
            self._tell(warning)
        if now - self._saved_ts > SAVED_EVERY_S:
            self._saved_ts = now
            self._spawn(asyncio.to_thread(self._doses.save, now))

    def on_voices(self, spoke: AgentsSpoke) -> None:
        """Seconds of speech by call become an agent's own: told to that agent, kept nowhere."""
        spoken: dict[str, float] = {}
        for call_id, seconds in spoke.spoken_s.items():
            agent_id = self._agent_of(call_id)
            if agent_id is not None:
                spoken[agent_id] = spoken.get(agent_id, 0.0) + seconds
        for told in self._voices.add(spoken, time.monotonic()):
            self._tell(msgspec.structs.replace(told, ts=time.time()))

    async def save(self) -> None:
        """Write the doses of running shifts."""
        await asyncio.to_thread(self._doses.save, time.time())
