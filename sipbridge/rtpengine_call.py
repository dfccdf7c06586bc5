"""One call whose audio rtpengine carries: what the bridge wants, and what rtpengine was told.

The bridge's messages change what is *wanted*, at once; :meth:`RtpengineCall._apply` then tells
rtpengine the difference to what it was told before, in an order in which nothing passes too early:
gates shut, session descriptions, gates open, the tap, prompts. What comes while rtpengine is being
told is seen in the next round: nothing queues up. What must not wait for rtpengine, the end of the
tap, is done here and now.

To rtpengine the caller makes the offer and the agent the answer, whoever called whom; either is
told anew (offer and answer again, which keeps ports and prompts) when one of them changes. Before
a far end's address is known it has none (``0.0.0.0``), and nothing is sent to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog

from callshield.errors import CallshieldError, SdpError
from callshield.messages import LegName, NodeDegraded, TapStarted
from callshield.messages_media import (
    CallerPressed,
    CodePressed,
    DigitUndelivered,
    FlowUpdate,
    KeepCall,
    KeepDialog,
    KeptCall,
    LegStats,
    LegUpdate,
    MediaFailed,
    MediaMessage,
    MediaTimeout,
    PlayFinished,
    PlayPrompts,
    SessionClosed,
)
from callshield.tap import TapCodec
from sipbridge.digit_codes import DigitCodes
from sipbridge.kept_by_worker import KeptByWorker
from sipbridge.media_session import media_address
from sipbridge.ng_client import NgRefused, NgUnreachable
from sipbridge.ng_protocol import media_of, session_description
from sipbridge.rtpengine_legs import (
    NOWHERE,
    Plane,
    leg_formats,
    leg_sdp,
    local_end,
    packets_of,
    stream_of,
)
from sipbridge.rtpengine_play import Play
from sipbridge.rtpengine_silence import SilenceWatch
from sipbridge.rtpengine_tap import CallerTap, TapFigures

log = structlog.get_logger()

#: What legs and tap are called in rtpengine.
TAGS = {LegName.CALLER: "caller", LegName.AGENT: "agent"}
TAP_TAG = "tap"
_NAMES = {tag: name for name, tag in TAGS.items()}
#: How soon what rtpengine did not answer is asked again.
_RETRY_S = 0.5
_STATIC = {0: "PCMU", 8: "PCMA", 9: "G722"}
_G711 = ("PCMU", "PCMA")


@dataclass(slots=True)
class _Told:
    """What rtpengine was told."""

    legs: dict[LegName, LegUpdate] = field(default_factory=dict)
    blocked: dict[LegName, bool] = field(default_factory=dict)
    digits_blocked: dict[LegName, bool] = field(default_factory=dict)


class RtpengineCall:
    """A call in rtpengine.

    Args:
        plane: what all calls share.
        call_id: 32 hexadecimal digits.
        say: hands a message to the bridge.
        lost: called once when rtpengine no longer has the call.
    """

    def __init__(
        self,
        plane: Plane,
        call_id: str,
        say: Callable[[MediaMessage], None],
        lost: Callable[[RtpengineCall], None],
    ) -> None:
        self.call_id = call_id
        self.name = plane.prefix + call_id
        self.ports: dict[LegName, int] = {}
        self.silence = SilenceWatch(time.monotonic())
        self._kept = KeptByWorker()
        self._plane = plane
        self._say = say
        self._lost = lost
        self._flow = FlowUpdate(
            call_id=call_id, caller_to_agent=False, agent_to_caller=False, tap=False
        )
        self._allowed = False
        """The bridge has said what may pass."""
        self._legs: dict[LegName, LegUpdate] = {}
        self._plays: dict[LegName, Play] = {}
        self._to_stop: dict[LegName, Play] = {}
        """What rtpengine may play that is not wanted any more."""
        self._told = _Told()
        self._mistrusted: set[LegName] = set()
        """Legs on which a stranger was followed: from then on only the SDP's address counts."""
        self._to_forget: set[LegName] = set()
        """Legs whose learnt address rtpengine is to forget."""
        self._tap: CallerTap | None = None
        self._subscribed: CallerTap | None = None
        """The one to which rtpengine sends, or was asked to."""
        self._tap_figures = TapFigures()
        self._tap_announced = False
        self._codes = DigitCodes(plane.codes)
        self._codes_timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._closed = False

    # ------------------------------------------------------------------------- to rtpengine

    async def _ask(self, command: str, **body: Any) -> dict[str, Any]:
        keys = {name.replace("_", "-"): value for name, value in body.items()}
        return await self._plane.ng.ask(command, {"call-id": self.name, **keys})

    async def _end(self, command: str, **body: Any) -> None:
        """End something that may have ended, or never begun, by itself."""
        try:
            await self._ask(command, **body)
        except NgRefused as refused:
            if refused.unknown_call:
                raise

    async def open(self) -> None:
        """Reserve ports on both sides; nothing passes.

        Raises:
            CallshieldError: rtpengine refuses, or does not answer.
        """
        try:
            await self._negotiate()
            await self._gates(shut=True)
        except BaseException:
            with contextlib.suppress(CallshieldError):
                await self._delete()
            raise
        self._runner = asyncio.create_task(self._run())

    async def _negotiate(self) -> None:
        """Tell rtpengine both legs' session descriptions."""
        forget, self._to_forget = self._to_forget, set()
        if forget:
            # A description without an address, and then the right one again: the same one alone
            # would leave what was learnt.
            await self._describe(
                {name: leg for name, leg in self._legs.items() if name not in forget}
            )
        await self._describe(dict(self._legs))

    async def _describe(self, legs: dict[LegName, LegUpdate]) -> None:
        caller, agent = (legs.get(name) for name in (LegName.CALLER, LegName.AGENT))
        events = self._events
        body: dict[str, Any] = {
            "from_tag": TAGS[LegName.CALLER],
            "ICE": "remove",
            "TOS": self._plane.tos,
        }
        offer = dict(body)
        if self.ports:
            offer["to_tag"] = TAGS[LegName.AGENT]
        if caller is not None and agent is not None and caller.codec != agent.codec:
            # The two laws of G.711: what the caller has is hidden from the agent's side.
            offer["codec"] = {"transcode": [agent.codec], "mask": [caller.codec]}
        offered = await self._ask(
            "offer",
            **offer,
            direction=list(self._plane.interfaces),
            flags=self._flags(LegName.CALLER),
            sdp=leg_sdp(caller, agent, events),
        )
        answered = await self._ask(
            "answer",
            **body,
            to_tag=TAGS[LegName.AGENT],
            flags=self._flags(LegName.AGENT),
            sdp=leg_sdp(agent, caller, events),
        )
        ports = {
            LegName.AGENT: media_of(str(offered.get("sdp", "")))[1],
            LegName.CALLER: media_of(str(answered.get("sdp", "")))[1],
        }
        if self.ports and ports != self.ports:
            raise CallshieldError("rtpengine moved a call's ports: is it older than 10.5?")
        self.ports = ports
        for name, update in ((LegName.CALLER, caller), (LegName.AGENT, agent)):
            if update is not None:
                self._told.legs[name] = update

    def _flags(self, name: LegName) -> list[str]:
        """Whose packets are taken: from the address in the SDP alone, unless phones behind NAT are
        expected on this side; then whoever that address, or else that port, fits best."""
        learns = bool(self._plane.networks[name]) and name not in self._mistrusted
        learning = ["endpoint-learning-heuristic"] if learns else ["asymmetric"]
        return ["trust-address", "port-latching", "strict-source", *learning]

    async def _gates(self, *, shut: bool) -> None:
        """Shut (or open) what is to be, and is not yet."""
        for name, tag in TAGS.items():
            wanted = self._blocked(name)
            if wanted is shut and self._told.blocked.get(name) is not wanted:
                await self._ask("block media" if wanted else "unblock media", from_tag=tag)
                self._told.blocked[name] = wanted
            wanted = self._digits_blocked(name)
            if wanted is shut and self._told.digits_blocked.get(name, False) is not wanted:
                await self._ask("block DTMF" if wanted else "unblock DTMF", from_tag=tag)
                self._told.digits_blocked[name] = wanted

    def _blocked(self, name: LegName) -> bool:
        """Whether this leg's far end is not heard: its gate is shut, or a prompt plays to the other
        one, which would hear both by turns."""
        if name is LegName.CALLER:
            return not self._flow.caller_to_agent or LegName.AGENT in self._plays
        return not self._flow.agent_to_caller or LegName.CALLER in self._plays

    @property
    def _events(self) -> list[int]:
        """Payload types of telephone-event on either leg. Both legs are told all of them: rtpengine
        takes one that only the other side knows for audio, and lets it pass."""
        types = {update.event_payload_type for update in self._legs.values()} - {-1}
        return sorted(types) if self._legs else [101]

    @property
    def _same_events(self) -> bool:
        """The agent's phone takes the caller's key presses as they come."""
        types = {update.event_payload_type for update in self._legs.values()}
        return len(types) == 1 and -1 not in types

    def _digits_blocked(self, name: LegName) -> bool:
        """The agent's keys may be a code: they go on by SIP INFO, when they are known to be none.
        So do the caller's where the phone knows them by another number; they are kept back while
        card data are read out."""
        return name is LegName.AGENT or self._flow.paused or not self._same_events

    # ---------------------------------------------------------------------------- the rounds

    async def _run(self) -> None:
        while not self._closed:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._apply()
            except NgUnreachable as error:
                log.warning("rtpengine_not_told", call_id=self.call_id, error=str(error))
                await asyncio.sleep(_RETRY_S)
                self._wake.set()
            except NgRefused as refused:
                if refused.unknown_call:
                    self._lost(self)
                    return
                self._failed(refused)
            except CallshieldError as error:
                self._failed(error)
            except Exception:  # this task is the call's only way to rtpengine
                log.exception("rtpengine_round_failed", call_id=self.call_id)

    def _failed(self, error: CallshieldError) -> None:
        log.warning("rtpengine_command_failed", call_id=self.call_id, error=str(error))
        self._say(MediaFailed(call_id=self.call_id, command="rtpengine", error=str(error)))

    async def _apply(self) -> None:
        """One round: tell rtpengine what changed."""
        # A prompt that comes while the round is under way waits for the next one, which shuts the
        # other side's gate first.
        plays = list(self._plays.values())
        await self._gates(shut=True)
        while self._to_stop:
            name, play = next(iter(self._to_stop.items()))
            await play.settled()
            await self._end("stop media", from_tag=TAGS[name])
            if self._to_stop.get(name) is play:
                del self._to_stop[name]
        if self._subscribed is not None and self._subscribed is not self._tap:
            await self._end("unsubscribe", to_tag=TAP_TAG)
            self._subscribed = None
        if self._legs != self._told.legs or self._to_forget:
            await self._negotiate()
        await self._gates(shut=False)
        for play in plays:
            play.begin()
        if self._tap is not None and self._subscribed is None:
            await self._subscribe(self._tap)

    async def _subscribe(self, tap: CallerTap) -> None:
        """Have the caller's packets copied to the tap's port; the agent's are never asked for."""
        caller = self._legs[LegName.CALLER]
        self._subscribed = tap
        await self._ask(
            "subscribe request",
            from_tag=TAGS[LegName.CALLER],
            to_tag=TAP_TAG,
            interface=self._plane.interfaces[0],
        )
        # The session description of the answer may have no address: it mirrors an older one.
        source = local_end(await self._ask("query"), TAP_TAG)
        if self._tap is not tap:
            return  # closed meanwhile: the next round unsubscribes
        tap.begin(source, caller)
        await self._ask(
            "subscribe answer",
            to_tag=TAP_TAG,
            sdp=session_description(
                self._plane.tap_address,
                tap.port,
                **leg_formats(caller, self._events),
                direction="recvonly",
            ),
        )

    # ---------------------------------------------------------------------- from the bridge

    def negotiate(self, update: LegUpdate) -> None:
        """A far end's session description is known, or has changed.

        Raises:
            SdpError: it cannot be carried; the leg stays as it was.
        """
        if update.leg not in TAGS:
            raise SdpError("rtpengine carries two legs: nobody can join a call")
        if update.srtp is not None:
            raise SdpError("rtpengine makes SRTP keys of its own: this leg has to be plain RTP")
        codec = update.codec or _STATIC.get(update.payload_type, "")
        if codec not in TapCodec.__members__:
            raise SdpError(
                f"voice payload type {update.payload_type} cannot be relayed: offer PCMU, PCMA, "
                "G722 or opus"
            )
        media_address(update.address, update.port)  # only an address and a port, whatever it says
        update = msgspec.structs.replace(update, codec=codec)
        self._check_types(update)
        before = self._legs.get(update.leg)
        if before is not None and before.codec != codec:
            self.stop(update.leg, "the codec changed while the prompt played")
        self._legs[update.leg] = update
        self.silence.expect(update.leg, time.monotonic(), both=len(self._legs) == len(TAGS))
        self._wake.set()
        # The tap's codec and payload types are those of when it was opened.
        moved = before is not None and leg_formats(before, []) != leg_formats(update, [])
        if update.leg is LegName.CALLER and moved:
            self._reopen_tap()

    def _check_types(self, update: LegUpdate) -> None:
        """rtpengine rewrites no payload types: one codec has one number in a call.

        Raises:
            SdpError: it has two. The call is ended: nobody would hear anybody.
        """
        for other in self._legs.values():
            if other.leg is not update.leg and (
                other.codec == update.codec and other.payload_type != update.payload_type
            ):
                self._say(MediaTimeout(call_id=self.call_id, silent_s=0.0))
                raise SdpError(
                    f"{update.codec} has payload type {update.payload_type} on the "
                    f"{update.leg.value}'s leg and {other.payload_type} on the other: rtpengine "
                    "relays one only, so the call is ended"
                )

    def allow(self, flow: FlowUpdate) -> None:
        """Open and close the gates and the tap.

        Raises:
            CallshieldError: it wants what rtpengine cannot; everything else is done.
        """
        self.silence.hold(flow.on_hold, time.monotonic())
        self._flow, self._allowed = flow, True
        self._wake.set()
        if not self._tap_wanted:
            self._close_tap()
        elif self._tap is None:
            self._open_tap()
        if flow.record or flow.conference:
            raise CallshieldError("rtpengine neither records for this node nor mixes three people")

    def play(self, message: PlayPrompts) -> None:
        """Play prompts to a leg instead of what it would hear."""
        self.stop(message.leg)
        leg = self._legs.get(message.leg)
        refusal = ""
        if not message.files:
            refusal = "no prompt was named"
        elif message.leg not in TAGS or message.mix or message.gain_db:
            refusal = "rtpengine mixes nothing and makes nothing quieter"
        elif leg is None or not media_address(leg.address, leg.port)[0]:
            refusal = (
                f"the {message.leg.value}'s media address is not known: nobody would hear the "
                "prompt"
            )
        if refusal:
            log.error("prompt_not_played", call_id=self.call_id, error=refusal)
            self._say(
                PlayFinished(
                    call_id=self.call_id,
                    play_id=message.play_id,
                    leg=message.leg,
                    complete=False,
                    spans=[],
                    error=refusal,
                )
            )
            return
        assert leg is not None
        key = {"call-id": self.name, "from-tag": TAGS[message.leg]}
        self._plays[message.leg] = Play(
            self._plane.ng, message, TapCodec[leg.codec], key, self._played
        )
        self._wake.set()

    def _played(self, played: PlayFinished) -> None:
        """A prompt ended by itself, or because somebody stopped it."""
        if played.error:
            log.error("prompt_not_played", call_id=self.call_id, error=played.error)
        play = self._plays.get(played.leg)
        if play is not None and play.message.play_id == played.play_id:
            del self._plays[played.leg]
            if not played.complete:
                self._to_stop[played.leg] = play
            self._wake.set()
        self._say(played)

    def stop(self, name: LegName, why: str = "") -> None:
        """Stop what plays on a leg, if anything does."""
        play = self._plays.pop(name, None)
        if play is None:
            return
        if play.begun:
            self._to_stop[name] = play
        play.stop(why)
        self._wake.set()

    # --------------------------------------------------------------------------------- the tap

    @property
    def _tap_wanted(self) -> bool:
        flow = self._flow
        return flow.tap and not (flow.on_hold or flow.paused) and LegName.CALLER in self._legs

    def _reopen_tap(self) -> None:
        self._close_tap()
        if self._tap_wanted:
            self._open_tap()

    def _open_tap(self) -> None:
        self._tap = CallerTap(self._plane.core, self.call_id, self._plane.tap_address)

    def _close_tap(self) -> None:
        """From this moment on nothing of this call is analysed, whatever rtpengine still sends."""
        tap, self._tap = self._tap, None
        if tap is not None:
            tap.figures(self._tap_figures)
            tap.close()

    @property
    def tap_handle(self) -> int:
        """Of the relay's session; 0 when nothing is tapped."""
        return self._tap.handle if self._tap is not None else 0

    def tap_started(self) -> None:
        """The detector was handed the first frame."""
        if not self._tap_announced:
            self._tap_announced = True
            self._say(TapStarted(ts=time.time(), call_id=self.call_id))

    # ---------------------------------------------------------------------------------- digits

    def pressed(self, tag: str, digit: str) -> None:
        """rtpengine heard a key on a leg."""
        name = _NAMES.get(tag)
        if name is not None:
            self.digit(name, digit, by_rtp=True)

    def digit(self, name: LegName, digit: str, *, by_rtp: bool = False) -> None:
        """A key on a leg, by telephone-event or by SIP INFO."""
        if name is LegName.CALLER:
            if self._flow.keys and not self._flow.paused:
                self._say(CallerPressed(call_id=self.call_id, digit=digit))
            passed = by_rtp and self._same_events
            if self._flow.caller_to_agent and not (passed or self._flow.paused):
                self._undelivered(name, digit)
        elif name is LegName.AGENT:
            code, released = self._codes.press(digit, time.monotonic())
            self._release(released)
            if code:
                self._say(CodePressed(call_id=self.call_id, leg=name, code=code))
            self._wait_for_code()

    def _release(self, digits: str) -> None:
        if self._flow.agent_to_caller:
            for digit in digits:
                self._undelivered(LegName.AGENT, digit)

    def _undelivered(self, name: LegName, digit: str) -> None:
        self._say(DigitUndelivered(call_id=self.call_id, leg=name, digit=digit))

    def _wait_for_code(self) -> None:
        if self._codes_timer is not None:
            self._codes_timer.cancel()
            self._codes_timer = None
        if self._codes.deadline:
            delay_s = max(self._codes.deadline - time.monotonic(), 0.0) + 0.01
            self._codes_timer = asyncio.get_running_loop().call_later(delay_s, self._expire)

    def _expire(self) -> None:
        self._release(self._codes.expire(time.monotonic()))

    # ---------------------------------------------------------------------- looking, and the end

    async def look(self) -> None:
        """Ask rtpengine what came on each leg since the last look.

        Raises:
            NgUnreachable: it does not answer.
        """
        try:
            reply = await self._ask("query")
        except NgRefused as refused:
            if refused.unknown_call and not self._closed:
                self._lost(self)
            return
        now = time.monotonic()
        for name, tag in TAGS.items():
            self.silence.count(name, packets_of(reply, tag), now)
            if self._plane.networks[name]:
                self._look_for_stranger(name, stream_of(reply, tag))

    def _look_for_stranger(self, name: LegName, stream: dict[str, Any]) -> None:
        """Whom rtpengine follows on a leg must be somebody whom we would: it knows no networks."""
        leg, endpoint = self._legs.get(name), stream.get("endpoint")
        if leg is None or name in self._mistrusted or not isinstance(endpoint, dict):
            return
        followed = str(endpoint.get("address", ""))
        try:
            address = ipaddress.ip_address(followed)
        except ValueError:
            return
        known = {leg.address, leg.signalling_address, NOWHERE[0]}
        if followed in known or any(address in one for one in self._plane.networks[name]):
            return
        log.error("media_stranger", call_id=self.call_id, leg=name.value)
        self._mistrusted.add(name)
        self._to_forget.add(name)
        self._wake.set()
        self._say(
            NodeDegraded(
                ts=time.time(),
                component="rtpengine",
                degraded=True,
                reason=f"a stranger sent media to the {name.value}'s port and was followed until "
                "now: keep strangers from rtpengine's ports, or set learn_addresses = false",
                call_id=self.call_id,
            )
        )

    def keep(self, message: KeepCall | KeepDialog) -> None:
        """Keep what the bridge says of its side of the call."""
        self._kept.keep(message)

    def kept(self) -> KeptCall | None:
        """As :meth:`sipbridge.media_session.MediaSession.kept`."""
        kept = self._kept.told(self._flow if self._allowed else None, self.silence.silent())
        if kept is not None:
            self.silence.expect_timeout()
        return kept

    def abandon(self) -> None:
        """rtpengine has the call no longer: end what we hold of it."""
        self._closed = True
        if self._runner is not None:
            self._runner.cancel()
        if self._codes_timer is not None:
            self._codes_timer.cancel()
        self._close_tap()
        for name in list(self._plays):
            self.stop(name)

    async def close(self) -> None:
        """Take the call out of rtpengine, and tell the bridge the figures."""
        self.abandon()
        with contextlib.suppress(CallshieldError):
            reply = await self._delete()
            for name, tag in TAGS.items():
                self.silence.count(name, packets_of(reply, tag), time.monotonic())
        self._say(self._figures())

    async def _delete(self) -> dict[str, Any]:
        return await self._ask("delete", from_tag=TAGS[LegName.CALLER], **{"delete delay": 0})

    def _figures(self) -> SessionClosed:
        """What rtpengine counted; of the caller's stream what the tap saw of it."""
        tap = self._tap_figures

        def leg(name: LegName) -> LegStats:
            mine = name is LegName.CALLER
            return LegStats(
                received=self.silence.packets(name),
                sent=0,
                malformed=0,
                wrong_source=0,
                wrong_payload_type=0,
                lost=max(tap.expected - tap.received, 0) if mine else 0,
                jitter_ms=round(tap.jitter_ms, 2) if mine else 0.0,
            )

        return SessionClosed(
            call_id=self.call_id,
            caller=leg(LegName.CALLER),
            agent=leg(LegName.AGENT),
            tapped=tap.tapped,
            tap_dropped=tap.dropped,
        )
