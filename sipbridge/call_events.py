"""What the notifier is told of one call: its plan's ids and the time, put to what happened."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from callshield.messages import (
    CallAnswered,
    CallEnded,
    CallEnding,
    CallStarted,
    HoldChanged,
    NodeDegraded,
    NoticeFinished,
    NoticeSource,
    NoticeStarted,
    PauseChanged,
    WarningPlayed,
)
from callshield.messages_care import CallBackSpoken
from callshield.messages_fairness import RingbackSeen
from callshield.messages_notice import (
    PromptPlayed,
    PromptStamp,
    ProtectionChanged,
    ProtectionReason,
)
from sipbridge.call_plan import CallPlan
from sipbridge.call_steps import Emit, Step
from sipbridge.notice_stamps import attested_stamps


class CallEvents:
    """The events of one call.

    Args:
        plan: names the call, its agent and its PBX.
        now: wall clock, seconds since the epoch.
    """

    def __init__(self, plan: CallPlan, now: Callable[[], float]) -> None:
        self._plan = plan
        self._now = now

    def started(self, started_ts: float) -> CallStarted:
        """The call as it is announced, at its start and in every snapshot."""
        plan = self._plan
        return CallStarted(
            ts=started_ts,
            call_id=plan.call_id,
            agent_id=plan.agent_id,
            pbx_call_id=plan.pbx_call_id,
            pbx=plan.pbx,
            direction=plan.direction,
            pbx_channel=plan.pbx_channel,
            spared=plan.spared,
        )

    def ringback(self) -> list[Step]:
        """Before the phone rings: this caller was ended a while ago; nothing of most callers."""
        plan = self._plan
        if plan.recent_end is None:
            return []
        seen = RingbackSeen(
            ts=self._now(),
            call_id=plan.call_id,
            agent_id=plan.agent_id,
            category=plan.recent_end.category,
            ended_days_ago=plan.recent_end.ended_days_ago,
            mark_id=plan.recent_end.mark_id,
            pbx_call_id=plan.pbx_call_id,
        )
        return [Emit(seen)]

    def answered(self, answered_ts: float, *, user_agent: str, codec: str) -> Emit:
        """The side that we called took the call."""
        return Emit(
            CallAnswered(
                ts=answered_ts,
                call_id=self._plan.call_id,
                agent_id=self._plan.agent_id,
                pbx_call_id=self._plan.pbx_call_id,
                phone_user_agent=user_agent,
                codec=codec,
            )
        )

    def notice_started(self) -> Emit:
        """The caller begins to hear the notice."""
        return Emit(
            NoticeStarted(
                ts=self._now(),
                call_id=self._plan.call_id,
                agent_id=self._plan.agent_id,
                pbx_call_id=self._plan.pbx_call_id,
            )
        )

    def notice_finished(
        self,
        source: NoticeSource,
        stamps: Sequence[PromptStamp],
        *,
        started_ts: float,
        tapped: bool,
        key: str = "",
        waits: bool = False,
    ) -> Emit:
        """The notice is over; ``stamps`` prove what of it we played, the PBX's word the rest."""
        plan = self._plan
        return Emit(
            NoticeFinished(
                ts=self._now(),
                call_id=plan.call_id,
                agent_id=plan.agent_id,
                source=source,
                prompts=[
                    *attested_stamps(plan.attested, started_ts, plan.attested_purposes),
                    *stamps,
                ],
                tapped=tapped,
                attested_by=plan.pbx if plan.attested else "",
                key=key,
                waits=waits,
                pbx_call_id=plan.pbx_call_id,
            )
        )

    def protection(self, *, protected: bool, reason: ProtectionReason, key: str = "") -> Emit:
        """The caller's key, or its absence, decided."""
        return Emit(
            ProtectionChanged(
                ts=self._now(),
                call_id=self._plan.call_id,
                agent_id=self._plan.agent_id,
                protected=protected,
                reason=reason,
                key=key,
                pbx_call_id=self._plan.pbx_call_id,
            )
        )

    def prompts_played(self, stamps: Sequence[PromptStamp]) -> list[Step]:
        """Announcements after the notice, for the call's record."""
        return [
            Emit(
                PromptPlayed(
                    ts=self._now(),
                    call_id=self._plan.call_id,
                    agent_id=self._plan.agent_id,
                    stamp=stamp,
                    pbx_call_id=self._plan.pbx_call_id,
                )
            )
            for stamp in stamps
        ]

    def warning_played(self, *, grade: int, complete: bool) -> Emit:
        """The caller heard the warning of this grade, from 1, or a part of it."""
        return Emit(
            WarningPlayed(
                ts=self._now(),
                call_id=self._plan.call_id,
                agent_id=self._plan.agent_id,
                grade=grade,
                complete=complete,
                pbx_call_id=self._plan.pbx_call_id,
            )
        )

    def prompts_degraded(self, reason: str) -> Emit:
        """A prompt could not be played to its end."""
        return Emit(
            NodeDegraded(
                ts=self._now(),
                component="prompts",
                degraded=True,
                reason=reason,
                call_id=self._plan.call_id,
            )
        )

    def paused(self, paused: bool) -> Emit:
        """The agent paused recording and analysis, or they go on."""
        return Emit(
            PauseChanged(
                ts=self._now(),
                call_id=self._plan.call_id,
                agent_id=self._plan.agent_id,
                paused=paused,
                pbx_call_id=self._plan.pbx_call_id,
            )
        )

    def held(self, held: bool) -> Emit:
        """Somebody holds, or nobody any more."""
        return Emit(
            HoldChanged(
                ts=self._now(),
                call_id=self._plan.call_id,
                agent_id=self._plan.agent_id,
                held=held,
                pbx_call_id=self._plan.pbx_call_id,
            )
        )

    def call_back_spoken(self, *, complete: bool) -> Emit:
        """The caller heard that somebody will call back, or a part of it."""
        return Emit(
            CallBackSpoken(
                ts=self._now(),
                call_id=self._plan.call_id,
                agent_id=self._plan.agent_id,
                complete=complete,
                pbx_call_id=self._plan.pbx_call_id,
            )
        )

    def ending(self, by: str) -> Emit:
        """The agent is out; the caller hears the closing announcement."""
        return Emit(
            CallEnding(
                ts=self._now(),
                call_id=self._plan.call_id,
                agent_id=self._plan.agent_id,
                by=by,
                pbx_call_id=self._plan.pbx_call_id,
            )
        )

    def ended(self, reason: str, *, duration_s: float, sip_status: int) -> Emit:
        """The call is over for its agent; ``duration_s`` is 0 where nobody answered."""
        return Emit(
            CallEnded(
                ts=self._now(),
                call_id=self._plan.call_id,
                agent_id=self._plan.agent_id,
                reason=reason,
                duration_s=round(duration_s, 3),
                sip_status=sip_status,
                pbx_call_id=self._plan.pbx_call_id,
            )
        )
