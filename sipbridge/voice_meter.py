"""How long each agent has spoken without a pause: the hint to rest the voice. Pure.

Of the agent's leg there is one bit, speaking or not (:mod:`sipbridge.relay_core`, ``voice.h``);
here its seconds are added up, by agent, over calls. A pause of ``voice_pause_s`` ends the sum. It
stands in this process' memory and nowhere else: no file, no log and no database has it, and a
restart forgets it (design principle 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from callshield.messages import VoiceTalk
from callshield.settings_hearing import HearingSettings

#: Less speech than this in one report is a cough or a key: it neither counts nor ends a pause.
LEAST_S = 0.5
#: The agent's screen is told of every further so much.
STEP_S = 60.0


@dataclass(slots=True)
class _Run:
    talked_s: float = 0.0
    last_ts: float = 0.0
    told_s: float = 0.0
    hinted: bool = False


class VoiceMeter:
    """The running sums of one node.

    Args:
        settings: ``[hearing]``.
    """

    def __init__(self, settings: HearingSettings) -> None:
        self._hint_after_s = settings.voice_hint_after_s
        self._pause_s = settings.voice_pause_s
        self._runs: dict[str, _Run] = {}

    def add(self, spoken_s: Mapping[str, float], now: float) -> list[VoiceTalk]:
        """Take a report; to be called every few seconds, also with nothing in it.

        Args:
            spoken_s: seconds of speech by agent.
            now: monotonic seconds.

        Returns:
            What the agents are to be told; ``ts`` is 0, for the caller to fill in.
        """
        for agent_id, seconds in spoken_s.items():
            if seconds < LEAST_S:
                continue
            run = self._runs.setdefault(agent_id, _Run())
            if run.last_ts and now - run.last_ts >= self._pause_s:
                self._runs[agent_id] = run = _Run(told_s=run.told_s, hinted=run.hinted)
            run.talked_s += seconds
            run.last_ts = now
        return [
            told
            for agent_id, run in list(self._runs.items())
            if (told := self._news(agent_id, run, now)) is not None
        ]

    def _news(self, agent_id: str, run: _Run, now: float) -> VoiceTalk | None:
        if now - run.last_ts >= self._pause_s:
            del self._runs[agent_id]
            return self._talk(agent_id, 0.0, rest=False) if run.told_s else None
        rest = run.talked_s >= self._hint_after_s
        if rest == run.hinted and 0 <= run.talked_s - run.told_s < STEP_S:
            return None
        run.told_s, run.hinted = run.talked_s, rest
        return self._talk(agent_id, run.talked_s, rest=rest)

    def _talk(self, agent_id: str, talked_s: float, *, rest: bool) -> VoiceTalk:
        return VoiceTalk(
            ts=0.0,
            agent_id=agent_id,
            talked_s=round(talked_s, 1),
            rest=rest,
            pause_s=self._pause_s,
        )
