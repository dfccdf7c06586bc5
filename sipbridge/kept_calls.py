"""The calls of a bridge that died, in the hands of the one that follows it.

The shell of :mod:`sipbridge.kept_call`: restores dialogs in PJSIP (``pjsip_kept.c``), carries what
comes in them to the call, and the call's steps out. What a later bridge must know is kept with the
media worker as before (:mod:`sipbridge.keeping`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import pjsip_guard
import structlog

from callshield.messages import Action, Event, LegName, MediaSilent
from callshield.messages_media import (
    CloseSession,
    CodePressed,
    DialogIdentity,
    KeepCall,
    KeepDialog,
    KeptCall,
    KeptInvite,
    MediaMessage,
    MediaTimeout,
    PlayFinished,
    Told,
)
from sipbridge.call_steps import CallSupervisor, Emit, Outcome, ToMedia
from sipbridge.kept_call import KeptMachine
from sipbridge.kept_steps import Answer, Drop, KeptStep, Over, Request, Say
from sipbridge.media_link import MediaLink
from sipbridge.sip_message import SipHeaders, body_of

log = structlog.get_logger()

#: The media worker has so long to answer before the SIP ports open.
FETCH_S = 1.0


class KeptCalls:
    """All of them.

    Args:
        send: to the media worker.
        emit: an event for the notifier.
        call_supervisor: *help* keyed on the phone: call id and who.
        accounts: pjsua2 accounts by name; what a dialog's requests go by.
        codes: what each feature code asks for.
        settled: to be called after each call into PJSIP.
    """

    def __init__(
        self,
        send: Callable[[MediaMessage], None],
        emit: Callable[[Event], None],
        call_supervisor: Callable[[str, str], str],
        accounts: Mapping[str, Any],
        codes: Mapping[str, Action],
        settled: Callable[[], None],
    ) -> None:
        self._send, self._emit = send, emit
        self._call_supervisor = call_supervisor
        self._accounts, self._codes = accounts, codes
        self._settled = settled
        self.calls: dict[str, KeptMachine] = {}
        self.idle = asyncio.Event()
        self.idle.set()
        self._handles: dict[tuple[str, LegName], int] = {}
        self._legs: dict[int, tuple[str, LegName]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._fetching: asyncio.Task[list[KeptCall]] | None = None
        self._told: dict[str, tuple[KeepCall, dict[LegName, DialogIdentity]]] = {}

    # -------------------------------------------------------------------------- the beginning

    async def fetch(self, media: MediaLink) -> None:
        """Ask the media worker what there is, and wait a moment: before the SIP ports are open,
        so that a BYE that is repeated finds its dialog."""
        self._fetching = asyncio.create_task(media.fetch_kept())
        await asyncio.wait({self._fetching}, timeout=FETCH_S)

    async def adopt_fetched(self) -> None:
        """Take over what :meth:`fetch` asked for; waits for a worker that is not there yet."""
        assert self._fetching is not None
        with contextlib.suppress(ConnectionError):  # its calls went with the worker
            self.adopt(await self._fetching)

    def adopt(self, found: Iterable[KeptCall]) -> None:
        """Take them over: no packet has been read meanwhile, or none that PJSIP answered by itself
        stays unheard."""
        unknown = [SipHeaders(bye.decode("utf-8", "replace")) for bye in _unknown_byes()]
        count = 0
        for kept in found:
            call_id = kept.kept.call_id
            machine = KeptMachine(kept, time.time, time.monotonic)
            self.calls[call_id] = machine
            self._told[call_id] = (kept.kept, dict(kept.dialogs))
            self.idle.clear()
            count += 1
            lost = [name for name in list(machine.legs) if not self._restore(call_id, name)]
            gone = [name for name in machine.legs if _hung_up(machine.legs[name].dialog, unknown)]
            steps = machine.begin()
            for name in gone:
                steps += machine.on_answer(name, "OPTIONS", 481, SipHeaders(""))
            for name in lost:
                steps += machine.unrestored(name)
            self._run(call_id, steps)
        if count:
            log.warning("calls_kept", calls=count)
        self._settled()

    def _restore(self, call_id: str, name: LegName) -> bool:
        dialog = self.calls[call_id].legs[name].dialog
        account = self._account(dialog.account)
        if account is None:
            log.error("dialog_not_restored", call_id=call_id, leg=name.value, error="no transport")
            return False
        contact = dialog.contact if dialog.contact.startswith("<") else f"<{dialog.contact}>"
        try:
            handle = pjsip_guard.kept_open(
                account=account.getId(),
                call_id=dialog.call_id,
                local_uri=dialog.local_uri,
                local_tag=dialog.local_tag,
                remote_uri=dialog.remote_uri,
                remote_tag=dialog.remote_tag,
                target=dialog.target,
                contact=contact,
                routes=dialog.routes,
                local_cseq=dialog.local_cseq,
                remote_cseq=dialog.remote_cseq,
                uac=dialog.uac,
            )
        except ValueError as error:
            log.error("dialog_not_restored", call_id=call_id, leg=name.value, error=str(error))
            return False
        self._handles[call_id, name] = handle
        self._legs[handle] = (call_id, name)
        return True

    # ---------------------------------------------------------------------- what comes to pass

    def take(self) -> None:
        """What came in their dialogs; to be called after each of PJSIP's events."""
        for handle, token, status, method, message in pjsip_guard.take_kept():
            call_id, name = self._legs.get(handle, ("", LegName.CALLER))
            machine = self.calls.get(call_id)
            if machine is None:
                continue
            text = message.decode("utf-8", "replace")
            headers = SipHeaders(text)
            try:
                if token:
                    method = headers.start_line.split(" ", 1)[0]
                    steps = machine.on_request(name, token, method, headers, body_of(text))
                    log.info("kept_request", call_id=call_id, leg=name.value, method=method)
                else:
                    steps = machine.on_answer(name, method, status, headers)
                    log.info(
                        "kept_answer", call_id=call_id, leg=name.value, method=method, status=status
                    )
                self._run(call_id, steps)
            except Exception:  # one odd call must not take others with it
                log.exception("kept_call_failed", call_id=call_id)
                self._run(call_id, machine.shut_down())

    def on_media(self, message: MediaMessage) -> bool:
        """What the media worker says; False when it is not about one of these calls."""
        machine = self.calls.get(getattr(message, "call_id", ""))
        if machine is None:
            return False
        match message:
            case MediaSilent():
                self._run(machine.call_id, machine.on_silent(message.leg, silent=message.silent))
                return False  # people are told, too
            case MediaTimeout():
                self._run(machine.call_id, machine.on_media_timeout())
            case PlayFinished():
                self._run(machine.call_id, machine.on_played(message))
            case CodePressed():
                action = self._codes.get(message.code)
                if message.leg is LegName.AGENT and action is not None:
                    outcome, _, steps = machine.act(action, "agent:dtmf")
                    log.info(
                        "agent_code",
                        call_id=machine.call_id,
                        action=action.value,
                        outcome=outcome,
                    )
                    self._run(machine.call_id, steps)
            case _:
                return False
        return True

    def act(self, call_id: str, action: Action, by: str) -> tuple[Outcome, str]:
        """A command of the notifier's."""
        outcome, detail, steps = self.calls[call_id].act(action, by)
        self._run(call_id, steps)
        return outcome, detail

    def on_media_lost(self) -> None:
        """Their audio is gone, too."""
        self.shut_down("media_lost")
        for call_id, machine in list(self.calls.items()):
            self._run(call_id, machine.never_told())

    def shut_down(self, reason: str = "shutdown") -> None:
        """End all of them."""
        for call_id, machine in list(self.calls.items()):
            self._run(call_id, machine.shut_down(reason))

    def live(self) -> list[KeptMachine]:
        """Those whose end nobody was told."""
        return [m for m in self.calls.values() if not m.over and m.kept.stage != "transferred"]

    # ------------------------------------------------------------------------------------ steps

    def _run(self, call_id: str, steps: list[KeptStep]) -> None:
        machine = self.calls.get(call_id)
        if machine is None:
            return
        for step in steps:
            match step:
                case Answer(token, status, headers, sdp):
                    pjsip_guard.kept_answer(token, status, list(headers), sdp)
                case Request(leg, method, headers, skip):
                    handle = self._handles.get((call_id, leg), 0)
                    if not pjsip_guard.kept_request(handle, method, list(headers), skip):
                        # No way there: as if nothing had come back.
                        answered = machine.on_answer(leg, method, 408, SipHeaders(""))
                        self._run(call_id, answered)
                case Say(about, message, delay_s):
                    asyncio.get_running_loop().call_later(delay_s, self._say, about, message)
                case Drop(leg):
                    self._drop(call_id, leg)
                case Over():
                    self._forget(call_id)
                case ToMedia(message):
                    self._send(message)
                case Emit(event):
                    if isinstance(event, Told) and self._told[call_id][0].may_record:
                        # For the recording's own metadata, without who the agent is.
                        self._send(msgspec.structs.replace(event, agent_id="", pbx_call_id=""))
                    self._emit(event)
                case CallSupervisor(by):
                    self._call_supervisor(call_id, by)
        if call_id in self.calls:
            self._keep(machine)
            self._schedule(machine)
        self._settled()

    def _account(self, name: str) -> Any | None:
        """With the configuration changed meanwhile, the side's own transport is the next best."""
        plain = " ".join(name.split(" ")[:2])
        return self._accounts.get(name) or self._accounts.get(plain)

    def _say(self, about: KeptInvite, message: str) -> None:
        account = self._account(about.account)
        if account is not None:
            data = message.encode("utf-8", "surrogateescape")
            pjsip_guard.send_raw(account.getId(), about.address, about.port, data)

    def _drop(self, call_id: str, leg: LegName) -> None:
        handle = self._handles.pop((call_id, leg), 0)
        self._legs.pop(handle, None)
        if handle:
            pjsip_guard.kept_close(handle)

    def _forget(self, call_id: str) -> None:
        for leg in LegName:
            self._drop(call_id, leg)
        if timer := self._timers.pop(call_id, None):
            timer.cancel()
        self._told.pop(call_id, None)
        del self.calls[call_id]
        if not self.calls:
            self.idle.set()

    def _schedule(self, machine: KeptMachine) -> None:
        if timer := self._timers.pop(machine.call_id, None):
            timer.cancel()
        due = machine.due()
        if due != float("inf"):
            delay_s = max(due - time.monotonic(), 0.0)
            self._timers[machine.call_id] = asyncio.get_running_loop().call_later(
                delay_s, self._time, machine.call_id
            )

    def _time(self, call_id: str) -> None:
        if machine := self.calls.get(call_id):
            self._run(call_id, machine.on_time())

    def _keep(self, machine: KeptMachine) -> None:
        """Should this bridge die, too."""
        if machine.over:
            return
        kept, dialogs = self._told[machine.call_id]
        if machine.kept != kept:
            self._send(machine.kept)
        now: dict[LegName, DialogIdentity] = {}
        for name, dialog in machine.dialogs().items():
            state = pjsip_guard.kept_state(self._handles.get((machine.call_id, name), 0))
            now[name] = dialog if state is None else msgspec.structs.replace(dialog, **state)
        for name in LegName:
            if now.get(name) != dialogs.get(name):
                self._send(KeepDialog(call_id=machine.call_id, leg=name, dialog=now.get(name)))
        self._told[machine.call_id] = (machine.kept, now)

    def close(self) -> None:
        """Let go of all of them without a word."""
        if self._fetching is not None:
            self._fetching.cancel()
        for call_id, machine in list(self.calls.items()):
            if not machine.over:  # else it was said
                self._send(CloseSession(call_id=call_id))
            self._forget(call_id)


def _unknown_byes() -> list[bytes]:
    return pjsip_guard.take_unknown_byes()


def _hung_up(dialog: DialogIdentity, byes: Iterable[SipHeaders]) -> bool:
    """Whether one of these BYEs, which PJSIP answered before the dialog was restored, ended it."""
    for bye in byes:
        if (
            bye.first("Call-ID") == dialog.call_id
            and _tag(bye.first("To")) == dialog.local_tag
            and _tag(bye.first("From")) == dialog.remote_tag
        ):
            return True
    return False


def _tag(value: str) -> str:
    return value.rpartition(";tag=")[2].split(";", 1)[0].strip()
