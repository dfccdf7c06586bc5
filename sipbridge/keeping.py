"""What the bridge keeps with the media worker for the bridge that follows it, should it die.

At each change the state of every leg's dialog and a few facts of the call go to the process that
has the call's audio (:class:`~callshield.messages_media.KeepCall`,
:class:`~callshield.messages_media.KeepDialog`). Nothing of it is written to a disk: it lives as
long as the audio does, and no longer is it of use. Who takes it up: :mod:`sipbridge.kept_calls`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pjsip_guard

from callshield.messages import LegName
from callshield.messages_media import (
    DialogIdentity,
    KeepCall,
    KeepDialog,
    KeepStage,
    KeptInvite,
    MediaMessage,
    PlayPrompts,
)
from sipbridge.bridged import Bridged
from sipbridge.call import CallState
from sipbridge.call_plan import CallPlan
from sipbridge.kept_invite import answer_port
from sipbridge.legs import Leg
from sipbridge.notice_stamps import unplayed_stamp
from sipbridge.prompt_catalogue import files_of
from sipbridge.sip_message import source_host

#: Number of the closing announcement that a later bridge plays; those of calls count from 1.
KEPT_PLAY = 1 << 30

_STAGES: dict[CallState, KeepStage] = {
    CallState.OPENING: "setup",
    CallState.TELLING: "setup",
    CallState.RINGING: "setup",
    CallState.ANSWERING: "setup",
    CallState.NOTICE: "notice",
    CallState.CONNECTED: "connected",
    CallState.TRANSFERRED: "transferred",
    CallState.ENDING: "ending",
}


@dataclass
class _Told:
    call: KeepCall | None = None
    dialogs: dict[LegName, DialogIdentity] = field(default_factory=dict)


class Keeping:
    """Tells the media worker, once for each change.

    Args:
        send: to the worker.
    """

    def __init__(self, send: Callable[[MediaMessage], None]) -> None:
        self._send = send
        self._told: dict[str, _Told] = {}
        self._moved: dict[str, Bridged] = {}

    def moved(self, bridged: Bridged) -> None:
        """Something of this call may have changed."""
        self._moved[bridged.call_id] = bridged

    def tell(self) -> None:
        """Tell the worker what did; called when PJSIP and the calls have come to rest."""
        while self._moved:
            _, bridged = self._moved.popitem()
            self._tell(bridged)

    def forget_all(self) -> None:
        """The worker is another one: it has nothing."""
        self._told.clear()

    def _tell(self, bridged: Bridged) -> None:
        kept = _facts(bridged)
        if kept is None:
            self._told.pop(bridged.call_id, None)  # its session is closed, or will be
            return
        told = self._told.setdefault(bridged.call_id, _Told())
        if kept != told.call:
            told.call = kept
            self._send(kept)
        for name in LegName:
            dialog = _identity(bridged, name)
            if dialog == told.dialogs.get(name):
                continue
            if dialog is None:
                del told.dialogs[name]
            else:
                told.dialogs[name] = dialog
            self._send(KeepDialog(call_id=bridged.call_id, leg=name, dialog=dialog))


def _facts(bridged: Bridged) -> KeepCall | None:
    call = bridged.call
    stage = _STAGES.get(call.state)
    if stage is None:
        return None
    watched = call.same_caller
    return KeepCall(
        call_id=bridged.call_id,
        started=call.started_event(),
        stage=stage,
        answered_ts=call.answered_ts,
        answered_s=call.answered_s,
        end_reason="ended_with_announcement" if call.state is CallState.ENDING else "",
        paused=call.paused,
        choice=call.notice_choice,
        may_tap=call.gate.tapped and watched,
        may_record=call.gate.recorded and watched,
        callers_numbers=sorted(bridged.callers_numbers),
        closing=_closing(call.plan),
        closing_stamp=unplayed_stamp(call.plan.closing),
        invited=_invited(bridged) if stage == "setup" else None,
        inviting=_inviting(bridged) if stage == "setup" else None,
    )


def _invited(bridged: Bridged) -> KeptInvite | None:
    leg = bridged.incoming_leg
    if leg is None or leg.gone or leg.accepted:
        return None
    state = pjsip_guard.dialog_state(leg.getId())
    source_port = bridged.invite_source.rpartition(":")[2]
    return KeptInvite(
        message=bridged.invite_message.encode("utf-8", "surrogateescape"),
        address=source_host(bridged.invite_source),
        port=answer_port(bridged.invite_message, int(source_port or 5060)),
        account=leg.account_name,
        tag=state["local_tag"] if state else "",
    )


def _inviting(bridged: Bridged) -> KeptInvite | None:
    leg = bridged.leg(bridged.call.plan.outgoing)
    if leg is None or leg.gone or leg.answered:
        return None
    sent, state = pjsip_guard.invite_sent(leg.getId()), pjsip_guard.dialog_state(leg.getId())
    if sent is None or state is None:
        return None
    return KeptInvite(
        message=sent[0],
        address=sent[1],
        port=sent[2],
        account=leg.account_name,
        tag=state["remote_tag"],
    )


def _closing(plan: CallPlan) -> PlayPrompts:
    return PlayPrompts(
        call_id=plan.call_id,
        play_id=KEPT_PLAY,
        leg=LegName.CALLER,
        **files_of([plan.closing]),
    )


def _identity(bridged: Bridged, name: LegName) -> DialogIdentity | None:
    """The dialog of a leg whose INVITE was answered; None when there is none, or it is over."""
    leg: Leg | None = bridged.leg(name)
    if leg is None or leg.gone or not (leg.answered or leg.accepted):
        return None
    state = pjsip_guard.dialog_state(leg.getId())
    if state is None or not state["remote_tag"]:
        return None
    return DialogIdentity(
        **state,
        account=leg.account_name,
        expires_s=leg.timer.expires_s,
        we_refresh=leg.timer.we_refresh,
        refreshed_s=leg.refreshed_s,
        bye_headers=bridged.bye_headers(name),
    )
