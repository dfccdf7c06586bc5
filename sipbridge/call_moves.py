"""Who takes whose place in a call: transfers, and somebody else at the caller's end.

Part of :class:`sipbridge.call.Call`. Whoever comes has not heard the notice, and none is repeated
within a call: tap and recording close for as long as somebody else is there, or for good.
"""

from __future__ import annotations

from callshield.messages import LegName
from sipbridge.announcer import Announcer
from sipbridge.call_back import CallBackTalk
from sipbridge.call_setup import CallSetup, CallState
from sipbridge.call_steps import Emit, StartTimer, Step, ToMedia
from sipbridge.help_request import HelpRequest, Stage
from sipbridge.notice_talk import NoticeTalk
from sipbridge.sdp import Negotiated, SessionDescription

#: Who asked for a transfer that came about should hang up within this time (RFC 5589).
TRANSFER_BYE_S = 5.0


class CallMoves(CallSetup):
    """The part of a call in which its ends change; :class:`sipbridge.call.Call` has the rest."""

    help: HelpRequest
    _plays: Announcer
    _notice: NoticeTalk
    _call_back: CallBackTalk
    _somebody_else: bool
    _caller_replaced: bool
    _phone_gone: bool
    _transferring: bool
    _transferred: bool

    def _finish(self, reason: str, *, status: int = 0, sip_status: int = 0) -> list[Step]:
        """The end of the call."""
        raise NotImplementedError

    def _ended(self, reason: str, sip_status: int) -> Emit:
        """The end of the call, for the notifier."""
        raise NotImplementedError

    @property
    def same_caller(self) -> bool:
        """Whoever the INVITE named is still at the caller's end."""
        return not (self._somebody_else or self._caller_replaced)

    @property
    def transferable(self) -> bool:
        """Both sides speak with each other, and no other transfer is under way."""
        talking = self.state is CallState.CONNECTED and self.help.stage is Stage.NONE
        return talking and not (self._transferring or self._transferred)

    def on_transfer_begun(self) -> list[Step]:
        """The agent's phone asked to move the caller, and may hang up from now on."""
        self._transferring = True
        return []

    def _agent_left(self) -> list[Step]:
        """The phone hung up before the transfer came about, as many do: the caller must wait."""
        self.gate.close()
        return [self._plays.stop(LegName.CALLER), self.flow()]

    def on_transfer_failed(self) -> list[Step]:
        """The target could not be had: agent and caller go on, if the agent is still there."""
        if self.state in (CallState.ENDING, CallState.ENDED):
            return []
        self._transferring = False
        return self._finish("transfer_failed") if self._phone_gone else []

    def on_transferred(self) -> list[Step]:
        """The PBX has moved the caller; it should hang up now, as should the phone."""
        if self.state in (CallState.ENDING, CallState.ENDED):
            return []
        self._transferred = True
        if self._phone_gone:
            return self._finish("transferred")
        return [StartTimer("transfer", TRANSFER_BYE_S)]

    def on_target_joined(
        self, sdp: SessionDescription, negotiated: Negotiated, signalling_address: str
    ) -> list[Step]:
        """The target, called by ourselves, takes the agent's place: this agent's call is over.

        The caller and the target go on through us, and nothing is analysed any more: the notice
        was about this conversation, not about that one.
        """
        if self.state is not CallState.CONNECTED:
            return []
        self.state = CallState.TRANSFERRED
        self._transferring = self._transferred = False
        self._phone_gone = False  # the target's leg stands where the phone's was
        self.gate.unwatch()
        return [
            self._plays.stop(LegName.CALLER),
            self._plays.stop(LegName.AGENT),
            ToMedia(self.leg_update(LegName.AGENT, sdp, negotiated, signalling_address)),
            self.flow(),
            self._ended("transferred", 0),
        ]

    def on_caller_replaced(
        self, sdp: SessionDescription, negotiated: Negotiated, signalling_address: str
    ) -> list[Step]:
        """Somebody else takes the caller's place: tap and recording close for good.

        The new far end has not heard the notice, and none is repeated within a call (principle 3).
        """
        if self.state is not CallState.CONNECTED:
            return []
        before = self.gate.tapped and self.same_caller
        self._caller_replaced = True
        self.gate.unwatch()
        return [
            self._plays.hush(LegName.CALLER, "caller_changed"),
            self._plays.stop(LegName.AGENT),
            self.flow(),  # first: not one frame of the new far end is tapped
            ToMedia(self.leg_update(LegName.CALLER, sdp, negotiated, signalling_address)),
            *self._notice.replaced(),
            *self._notice.caller_changed(before=before),
        ]

    def on_caller_named(self, *, somebody_else: bool) -> list[Step]:
        """The PBX says who is at the caller's end: while it is somebody else, who has heard no
        notice, nothing is tapped or recorded; the caller may come back."""
        if somebody_else == self._somebody_else:
            return []
        before = self.gate.tapped and self.same_caller
        self._somebody_else = somebody_else
        if somebody_else:
            self._plays.unheard("caller_changed")
        self.gate.somebody_else(there=somebody_else)
        if self.state is CallState.NOTICE:
            return [self.flow()]  # what is pressed now is not the caller's word
        if self.state is not CallState.CONNECTED:
            return []
        steps: list[Step] = [self.flow()]  # first: not one frame of somebody else is tapped
        if somebody_else:
            steps += self._notice.unheard()
        steps += self._notice.attention_changed()
        steps += self._notice.caller_changed(before=before)
        return [*steps, *self._notice.tell(), *self.help.tell(), *self._call_back.tell()]
