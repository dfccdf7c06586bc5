"""Both sides of a session timer (RFC 4028): one that refreshes, one that is refreshed."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from callshield.free_ports import free_range
from tests.peers.node import PBX_SIDE, Node
from tests.peers.sip_ua import Audio, Dialog, Message, Ua


@dataclass
class Session:
    """A call through the node whose two legs are kept alive; times are monotonic seconds.

    Args:
        node, pbx, phone: who takes part; the phone has the agent's URI.
        agent: agent's id.
        pbx_refreshes: the PBX refreshes its leg; otherwise the node does.
        phone_refreshes: the phone refreshes its leg; otherwise the node does.
        expires_s: Session-Expires on both legs.
    """

    node: Node
    pbx: Ua
    phone: Ua
    agent: str
    pbx_refreshes: bool
    phone_refreshes: bool
    expires_s: int = 90
    by_us: list[float] = field(default_factory=list)
    """When our refreshes came, on the legs that we refresh."""
    by_them: list[float] = field(default_factory=list)
    """When refreshes of the far ends were answered."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """A BYE came."""
    silence_s: float = 0.0
    """Half seconds in which the phone heard nothing of the caller, while :meth:`talk` ran."""
    _audio: Audio = field(default_factory=Audio)
    _ours: tuple[str, int] = ("", 0)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _legs: list[Dialog] = field(default_factory=list)

    async def start(self) -> None:
        """Set the call up, and begin to refresh."""
        # The PBX carries several calls: each has a media socket of its own.
        port = free_range(self.pbx.address, 4)[0]
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(
            lambda: self._audio, local_addr=(self.pbx.address, port)
        )
        caller = self.pbx.begin(self.node.uri(self.agent), PBX_SIDE, self.node.pbx_port)
        refresher = "uac" if self.pbx_refreshes else "uas"
        asking = asyncio.create_task(
            caller.invite(
                body=self.pbx.sdp(port=port),
                headers=(
                    "Supported: timer",
                    "Allow: INVITE, ACK, BYE, CANCEL, UPDATE",
                    f"Session-Expires: {self.expires_s};refresher={refresher}",
                ),
            )
        )
        invite = await self.phone.request("INVITE")
        assert "timer" in invite["Supported"]
        assert invite["Session-Expires"].split(";")[0] == str(self.expires_s), invite.text
        refresher = "uas" if self.phone_refreshes else "uac"
        # No UPDATE in Allow: we must refresh this leg by re-INVITE.
        phone = self.phone.accept(
            invite,
            headers=(
                "Require: timer",
                "Allow: INVITE, ACK, BYE, CANCEL",
                f"Session-Expires: {self.expires_s};refresher={refresher}",
            ),
        )
        await self.phone.request("ACK")
        answer = await asking
        assert answer.status == 200
        wanted = "uac" if self.pbx_refreshes else "uas"
        assert answer["Session-Expires"] == f"{self.expires_s};refresher={wanted}", answer.text
        self._legs = [caller, phone]
        self._ours = (answer.media_address, answer.media_port)
        for ua, dialog, far_end in (
            (self.pbx, caller, self.pbx_refreshes),
            (self.phone, phone, self.phone_refreshes),
        ):
            work = self._refresh(dialog) if far_end else self._be_refreshed(ua, dialog)
            self._tasks.append(asyncio.create_task(work))
            self._tasks.append(asyncio.create_task(self._watch_bye(ua, dialog)))
            self._tasks.append(asyncio.create_task(self._live(ua, dialog)))

    async def talk(self) -> None:
        """The caller speaks until this is cancelled; what the phone hears is watched."""
        await self._audio.speak(0x22, self._ours, 50)
        while True:
            before, at = len(self.phone.audio.heard), time.monotonic()
            await self._audio.speak(0x22, self._ours, 25)
            if len(self.phone.audio.heard) == before:
                self.silence_s += time.monotonic() - at

    async def _refresh(self, dialog: Dialog) -> None:
        """What a far end does that promised to refresh: half way through the interval."""
        while True:
            await asyncio.sleep(self.expires_s / 2)
            headers = ("Supported: timer", f"Session-Expires: {self.expires_s};refresher=uac")
            answer = await dialog.ask("UPDATE", headers=headers)
            assert answer.status == 200, answer.text
            assert answer["Session-Expires"] == f"{self.expires_s};refresher=uac", answer.text
            self.by_them.append(time.monotonic())

    async def _be_refreshed(self, ua: Ua, dialog: Dialog) -> None:
        def refresh(message: Message) -> bool:
            return message.method in ("UPDATE", "INVITE") and self._of(dialog, message)

        while True:
            request = await ua.expect(refresh, "a refresh of ours", self.expires_s)
            self.by_us.append(time.monotonic())
            expires = request["Session-Expires"].split(";")[0]
            assert expires == str(self.expires_s), request.text
            headers = ("Require: timer", f"Session-Expires: {expires};refresher=uac")
            body = ua.sdp() if request.method == "INVITE" else ""
            ua.reply(request, 200, headers=headers, body=body)
            if request.method == "INVITE":
                await ua.expect(
                    lambda m: m.method == "ACK" and self._of(dialog, m), "ACK of a refresh"
                )

    async def _watch_bye(self, ua: Ua, dialog: Dialog) -> None:
        bye = await ua.expect(
            lambda m: m.method == "BYE" and self._of(dialog, m), "BYE", timeout_s=1e6
        )
        ua.reply(bye, 200)
        self.ended.set()

    async def _live(self, ua: Ua, dialog: Dialog) -> None:
        """Nobody speaks here: the node asks whether the call is still known (RFC 3261, 11)."""
        while True:
            asked = await ua.expect(
                lambda m: m.method == "OPTIONS" and self._of(dialog, m), "OPTIONS", timeout_s=1e6
            )
            ua.reply(asked, 200)

    @staticmethod
    def _of(dialog: Dialog, message: Message) -> bool:
        return not message.status and message["Call-ID"] == dialog.call_id

    def check(self) -> None:
        """Raise what went wrong in the background."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def hang_up(self) -> None:
        """End it from the PBX's side."""
        caller = self._legs[0]
        assert (await caller.ask("BYE")).status == 200
        async with asyncio.timeout(30):
            await self.ended.wait()

    async def stop(self) -> None:
        self._audio.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
