"""The manager interface of a real Asterisk, with the shipped user and its rights."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from callshield.errors import AmiError
from callshield.heard import read_growing_wav
from callshield.messages import PauseChanged
from callshield.settings import AmiSettings
from notifier.ami_client import AmiClient
from notifier.ami_protocol import Message
from notifier.ami_secret import VARIABLE
from notifier.pjsip_notify import send_notify
from notifier.queue_pause import REASONS
from notifier.tokens import create_token
from tests.notifier_kit import desk_in_process
from tests.pbx.ami import Ami
from tests.pbx.asterisk import DEPLOY, Asterisk
from tests.pbx.floor import floor
from tests.peers.sound import blocks, tone_db

pytestmark = [pytest.mark.asterisk, pytest.mark.timeout(120)]

ADDRESS, US, PSTN, PHONE = "127.0.45.2", "127.0.45.3", "127.0.45.4", "127.0.45.5"
MEMBER = "Local/1001@callshield-agents/n"
DEVICE = "DEVICE_STATE(Custom:agent1001)"
SECRET = "test-only"
REASON = REASONS["ko"]
WITHIN_S = 15.0
#: A recorded channel; 1004 Hz.
DIALPLAN = """
[ami-test]
exten => tone,1,Answer()
 same => n,MixMonitor(/srv/spool/mix.wav)
 same => n,Milliwatt()
"""
#: The handler that the shipped dialplan pushes before its Dial, on a call that stays up.
PUSH = " same => n,Set(CHANNEL(hangup_handler_push)=callshield-free,s,1(${EXTEN}))\n"
FREE = "\n[ami-agents]\nexten => _X.,1,NoOp()\n" + PUSH + " same => n,Wait(60)\n"
AGENT = f"""
[agents.1003]
uri = "sip:1003@192.0.2.22:5060"
queue_member = "{MEMBER}"
device_state = "Custom:agent1001"
"""


def asterisk(
    folder: Path, root: Path, *, write: str = "", phone_port: int = 5060, port: int = 5060
) -> Asterisk:
    """An Asterisk with the shipped manager user; ``write``: other rights than shipped."""
    replace = {
        "secret=CHANGE-ME": f"secret={SECRET}",
        "permit=192.0.2.10/": "permit=127.0.0.1/",
        # As manager_callshield.conf asks for.
        "autoload=yes": "autoload=yes\nnoload=res_monitor.so",
    }
    if write:
        replace["\nwrite=agent,call\n"] = f"\nwrite={write}\n"
    return Asterisk(
        folder,
        root,
        pstn=f"{PSTN}:{phone_port}",
        callshield=f"{US}:{port}",
        address=ADDRESS,
        dialplan=DIALPLAN + FREE,
        replace=replace,
    )


@contextlib.asynccontextmanager
async def running(pbx: Asterisk) -> AsyncIterator[Ami]:
    try:
        await pbx.start()
        async with pbx.ami() as tester:
            yield tester
    finally:
        await pbx.stop()


def configuration(pbx: Asterisk, folder: Path) -> str:
    secret = folder / "ami.secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    return (
        f'{AGENT}[ami]\nhost = "{ADDRESS}"\nport = {pbx.ami_port}\nping_s = 1\n'
        f'secret_file = "{secret}"\n[aftercare]\nrest_s = 600\n'
    )


@contextlib.asynccontextmanager
async def client(pbx: Asterisk) -> AsyncIterator[tuple[AmiClient, list[Message]]]:
    """Our own client as the shipped user."""
    up = asyncio.Event()
    events: list[Message] = []
    link = AmiClient(
        AmiSettings.model_validate({"host": ADDRESS, "port": pbx.ami_port}),
        SECRET,
        on_up=up.set,
        on_event=events.append,
    )
    link.start()
    try:
        async with asyncio.timeout(WITHIN_S):
            await up.wait()
        yield link, events
    finally:
        await link.close()


async def until(asked: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not await asked():  # noqa: ASYNC110  Asterisk is asked, it does not tell
            await asyncio.sleep(0.1)


async def device(tester: Ami) -> str:
    return (await tester.action("Getvar", Variable=DEVICE))["Value"]


async def reasons(tester: Ami) -> list[str]:
    """Of the agent's pauses, ``-`` where there is none."""
    tester.events.clear()
    await tester.action("QueueStatus", Member=MEMBER)
    await tester.wait("QueueStatusComplete")
    members = [e for e in tester.events if e["Event"] == "QueueMember"]
    return [e["PausedReason"] if e["Paused"] == "1" else "-" for e in members]


async def test_device_state_and_rest_survive_a_restart_of_asterisk(
    tmp_path: Path, asterisk_root: Path
) -> None:
    pbx = asterisk(tmp_path / "pbx", asterisk_root)
    async with contextlib.AsyncExitStack() as stack:
        tester = await stack.enter_async_context(running(pbx))
        desk = await stack.enter_async_context(
            desk_in_process(tmp_path, configuration(pbx, tmp_path))
        )
        token = create_token(desk.settings, "agent", "three", "1003")
        bridge = await stack.enter_async_context(desk.bridge())
        console = await stack.enter_async_context(desk.console(token))

        async def is_paused(wanted: str, asked: Ami) -> None:
            async def same() -> bool:
                return await reasons(asked) == [wanted]

            await until(same)

        await until_device(tester, "NOT_INUSE")
        call_id = bridge.start_call("1003", answer=False)
        await until_device(tester, "RINGING")
        bridge.answer_call(call_id)
        await until_device(tester, "INUSE")
        bridge.risk(call_id, 2)
        bridge.end_call(call_id)
        await is_paused(REASON, tester)
        await until_device(tester, "NOT_INUSE")
        # The member's state, as app_queue sees it, followed.
        second = bridge.start_call("1003")
        await until_device(tester, "INUSE")

        await pbx.stop()
        await console.until("node.degraded", component="pbx", degraded=True)
        await pbx.start()
        await console.until("node.degraded", component="pbx", degraded=False)
        async with pbx.ami() as after:
            await is_paused(REASON, after)
            await until_device(after, "INUSE")
            bridge.end_call(second)
            await until_device(after, "NOT_INUSE")
            async with desk.http(token) as http:
                assert (await http.post("/api/v1/agents/1003/ready")).json()["status"] == "done"
            await is_paused("-", after)
        assert not [m for m in console.seen if m.get("component") == "pbx_actions"]


async def test_a_pause_silences_mixmonitor_and_nothing_else_does(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """The recording itself is the judge: tone, silence, tone."""
    pbx = asterisk(tmp_path / "pbx", asterisk_root)
    async with contextlib.AsyncExitStack() as stack:
        tester = await stack.enter_async_context(running(pbx))
        desk = await stack.enter_async_context(
            desk_in_process(tmp_path, configuration(pbx, tmp_path))
        )
        bridge = await stack.enter_async_context(desk.bridge())
        await pbx.cli("channel originate Local/tone@ami-test application Wait 60")
        channel = (await tester.wait("MixMonitorStart"))["Channel"]
        call_id = bridge.start_call("1003", pbx_channel=channel)
        await asyncio.sleep(1.5)

        async def pause(paused: bool) -> None:
            tester.events.clear()
            bridge.send(
                PauseChanged(ts=time.time(), call_id=call_id, agent_id="1003", paused=paused)
            )
            told = await tester.wait("MixMonitorMute")
            assert (told["Channel"], told["State"]) == (channel, str(int(paused)))

        asked = time.monotonic()
        await pause(True)
        silent = time.monotonic()
        await asyncio.sleep(1.5)
        least_s = time.monotonic() - silent
        await pause(False)
        most_s = time.monotonic() - asked
        await asyncio.sleep(1.5)
        await pbx.cli("channel request hangup all")
        await pbx.until_cli("core show channels count", "0 active channels")
        heard = read_growing_wav(pbx.folder / "spool/mix.wav")
    loud = np.array([tone_db(part, 1004.0) > -40 for part in blocks(heard)])
    changes = np.flatnonzero(np.diff(loud.astype(int)))
    assert loud[0], "before the pause there is the tone"
    assert len(changes) == 2, loud.astype(int)
    silent_s = (changes[1] - changes[0]) / len(loud) * len(heard) / 8000
    assert least_s - 0.3 < silent_s < most_s + 0.5, (least_s, silent_s, most_s)


async def test_a_marked_call_says_so_in_its_call_record(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """Level 3 marks; the calm call beside it is the control."""
    pbx = asterisk(tmp_path / "pbx", asterisk_root)
    async with contextlib.AsyncExitStack() as stack:
        tester = await stack.enter_async_context(running(pbx))
        desk = await stack.enter_async_context(
            desk_in_process(tmp_path, configuration(pbx, tmp_path))
        )
        bridge = await stack.enter_async_context(desk.bridge())
        channels = []
        for _ in range(2):
            tester.events.clear()
            await pbx.cli("channel originate Local/tone@ami-test application Wait 60")
            channels.append((await tester.wait("MixMonitorStart"))["Channel"])

        async def field(channel: str) -> str:
            asked = {"Channel": channel, "Variable": "CDR(callshield_exclude)"}
            return (await tester.action("Getvar", **asked))["Value"]

        calm, bad = (bridge.start_call("1003", pbx_channel=channel) for channel in channels)
        bridge.risk(calm, 2)
        bridge.risk(bad, 3)

        async def marked() -> bool:
            return await field(channels[1]) == "quality,handling_time,survey"

        await until(marked)
        assert await field(channels[0]) == ""


async def test_a_real_calls_pause_and_end_reach_asterisk(
    tmp_path: Path, asterisk_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue's call recorded by MixMonitor: the agent keys the pause, and then ends the call."""
    for key, value in (("QUEUE_MEMBER", MEMBER), ("DEVICE_STATE", "Custom:agent1001")):
        monkeypatch.setenv(f"CALLSHIELD_AGENTS__1001__{key}", value)
    monkeypatch.setenv(VARIABLE, SECRET)

    def ami(pbx: Asterisk) -> str:
        return f'[ami]\nhost = "{pbx.address}"\nport = {pbx.ami_port}\n[aftercare]\nrest_s = 600\n'

    replace = {"secret=CHANGE-ME": f"secret={SECRET}", "permit=192.0.2.10/": "permit=127.0.0.1/"}
    async with floor(tmp_path, asterisk_root, extra=ami, replace=replace) as all_:
        assert all_.node is not None
        started = await all_.connect("602")
        await until_device(all_.ami, "INUSE")
        await all_.agent.press("*7#")
        muted = await all_.ami.wait("MixMonitorMute")
        assert (muted["Channel"], muted["State"]) == (await all_.channel("pstn"), "1")
        assert (await all_.events.wait("pause.changed"))["paused"]
        await all_.agent.press("*7#")
        await all_.ami.wait("MixMonitorMute", lambda event: event["State"] == "0")
        path = f"/calls/{started['call_id']}/actions"
        assert (await all_.node.post(path, "1001", {"action": "end"})).status_code == 200
        rest = await all_.events.wait("rest.changed")
        assert (rest["state"], rest["reason"]) == ("resting", "ended")
        paused = await all_.ami.wait("QueueMemberPause", lambda e: e["Interface"] == MEMBER)
        assert (paused["Paused"], paused["PausedReason"]) == ("1", REASON)
        await until_device(all_.ami, "NOT_INUSE")
        assert not [e for e in all_.events.seen("node.degraded") if e["component"] != "bridge"]
        await all_.no_channels()
        assert (await all_.node.post("/agents/1001/ready", "1001")).status_code == 200
        await all_.ami.wait(
            "QueueMemberPause", lambda e: (e["Interface"], e["Paused"]) == (MEMBER, "0")
        )


async def until_device(tester: Ami, state: str) -> None:
    async def same() -> bool:
        return await device(tester) == state

    await until(same)


async def test_the_shipped_rights_are_enough_and_no_more(
    tmp_path: Path, asterisk_root: Path
) -> None:
    pbx = asterisk(tmp_path / "pbx", asterisk_root)
    async with running(pbx) as tester, client(pbx) as (link, events):
        refused = {}
        for action in (
            "Originate",
            "Command",
            "GetConfig",
            "UpdateConfig",
            "ModuleLoad",
            "MixMonitor",
            "Monitor",
            "DBPut",
            "CoreShowChannels",
            "UserEvent",
            "PJSIPNotify",
            "PJSIPShowContacts",
        ):
            refused[action] = (await link.request(action)).text
        # As modules.conf shall have it: res_monitor is not loaded.
        assert refused.pop("Monitor").startswith("Invalid/unknown command"), refused
        assert set(refused.values()) == {"Permission denied"}, refused
        # And its events: calls happen, and it hears of none of them but a recording's beginning.
        await pbx.cli("channel originate Local/tone@ami-test application Wait 1")
        await tester.wait("Newchannel")
        await pbx.until_cli("core show channels count", "0 active channels")
        await tester.action("QueuePause", Interface=MEMBER, Paused="true", Reason="lunch")
        await tester.action("Setvar", Variable=DEVICE, Value="BUSY")
        async with asyncio.timeout(WITHIN_S):
            # Asterisk tells of it when it gets to it.
            while "QueueMemberPause" not in [event.event for event in events]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert (await link.request("Ping")).ok
        # Besides what the filter lets through whenever it happens.
        heard = {event.event for event in events} - {"ContactStatus", "FullyBooted"}
        assert heard == {"MixMonitorStart", "QueueMemberPause"}


@pytest.mark.parametrize("alive", [False, True])
async def test_an_agent_is_free_again_when_callshield_died_in_the_call(
    tmp_path: Path, asterisk_root: Path, alive: bool
) -> None:
    """The shipped handler; while Callshield answers it leaves the state to it."""
    shipped = (DEPLOY / "extensions_callshield.conf").read_text(encoding="utf-8")
    assert PUSH + " same => n,Dial(PJSIP/${EXTEN}@callshield," in shipped
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as callshield:
        callshield.bind((US, 0))
        pbx = asterisk(tmp_path / "pbx", asterisk_root, port=callshield.getsockname()[1])
        async with running(pbx) as tester, answering(callshield, alive):
            await pbx.until_cli("pjsip show aor callshield", "Avail" if alive else "Unavail")
            await tester.action("Setvar", Variable=DEVICE, Value="INUSE")
            await pbx.cli("channel originate Local/1001@ami-agents application Wait 60")
            await pbx.until_cli("core show channels count", "2 active channels")
            tester.events.clear()
            await pbx.cli("channel request hangup all")
            await pbx.until_cli("core show channels count", "0 active channels")
            assert await device(tester) == ("INUSE" if alive else "NOT_INUSE")


@contextlib.asynccontextmanager
async def answering(callshield: socket.socket, alive: bool) -> AsyncIterator[None]:
    """200 to every OPTIONS of the PBX, or silence."""

    def answer() -> None:
        data, source = callshield.recvfrom(4000)
        head = data.decode().split("\r\n\r\n")[0].split("\r\n")[1:]
        kept = [h for h in head if h.split(":")[0] in ("Via", "From", "To", "Call-ID", "CSeq")]
        text = "\r\n".join(["SIP/2.0 200 OK", *kept, "Content-Length: 0"])
        callshield.sendto(f"{text}\r\n\r\n".encode(), source)

    callshield.setblocking(False)
    loop = asyncio.get_running_loop()
    if alive:
        loop.add_reader(callshield, answer)
    try:
        yield
    finally:
        loop.remove_reader(callshield)


async def test_a_notify_reaches_the_phone_whole(tmp_path: Path, asterisk_root: Path) -> None:
    """With the ``system`` right; commas, quotes and Korean come as they were written."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.bind((PSTN, 0))
        phone.setblocking(False)
        pbx = asterisk(
            tmp_path / "pbx",
            asterisk_root,
            write="agent,call,system",
            phone_port=phone.getsockname()[1],
        )
        body = "<a b=\"c,d\" e='(x)'>\n한글, [q] {z} \\ ; ${EXTEN}\n</a>\n"
        async with running(pbx), client(pbx) as (link, _):
            await send_notify(
                link, "pstn", "check-sync", "application/xml", body, {"X-Note": 'a,b;c="d"'}
            )
            async with asyncio.timeout(WITHIN_S):
                datagram = await asyncio.get_running_loop().sock_recv(phone, 4000)
            with pytest.raises(AmiError, match="nobody"):
                await send_notify(link, "nobody", "check-sync")
    head, _, got = datagram.decode().partition("\r\n\r\n")
    lines = head.split("\r\n")
    assert lines[0].startswith("NOTIFY sip:")
    assert "Event: check-sync" in lines
    assert 'X-Note: a,b;c="d"' in lines
    assert "Content-Type: application/xml" in lines
    assert got.split("\r\n") == body.rstrip("\n").split("\n")


async def test_a_phone_behind_asterisk_shows_its_model(tmp_path: Path, asterisk_root: Path) -> None:
    """By its registration there; a new one is noticed without being asked for."""
    pbx = asterisk(tmp_path / "pbx", asterisk_root, write="agent,call,system")
    more = 'endpoint = "1001"\n[ami]'
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(running(pbx))
        text = configuration(pbx, tmp_path).replace("[ami]", more)
        desk = await stack.enter_async_context(desk_in_process(tmp_path, text))
        admin = create_token(desk.settings, "admin", "root")

        async def is_model(wanted: str) -> None:
            async def same() -> bool:
                async with desk.http(admin) as http:
                    phones = (await http.get("/api/v1/pbx")).json()["phones"]
                return wanted in [phone["model"] for phone in phones]

            await until(same)

        await is_model("")
        for model in ("Yealink SIP-T54W 96.86.0.100", "Grandstream GRP2615 1.0.9.135"):
            await asyncio.to_thread(register, pbx, model)
            await is_model(model)


def register(pbx: Asterisk, user_agent: str) -> None:
    """A phone registers as 1001 (RFC 3261 section 10.2, digest by RFC 2617)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.bind((PHONE, 0))
        phone.settimeout(WITHIN_S)
        host, port = phone.getsockname()
        home = f"sip:{ADDRESS}:{pbx.port}"

        def ask(number: int, authorization: str) -> str:
            lines = [
                f"REGISTER {home} SIP/2.0",
                f"Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK-{port}-{number}",
                f"From: <sip:1001@{ADDRESS}>;tag=t{port}",
                f"To: <sip:1001@{ADDRESS}>",
                f"Call-ID: call-{port}",
                f"CSeq: {number} REGISTER",
                f"Contact: <sip:1001@{host}:{port}>",
                f"User-Agent: {user_agent}",
                "Expires: 300",
                "Max-Forwards: 70",
                "Content-Length: 0",
            ]
            text = "\r\n".join([*lines, *([authorization] if authorization else [])])
            phone.sendto(f"{text}\r\n\r\n".encode(), (ADDRESS, pbx.port))
            while True:
                answer = phone.recv(4000).decode()
                if answer.startswith("SIP/2.0") and not answer.startswith("SIP/2.0 1"):
                    return answer

        def digest(text: str) -> str:
            return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

        challenge = dict(re.findall(r'(realm|nonce|opaque)="([^"]*)"', ask(1, "")))
        realm, nonce = challenge["realm"], challenge["nonce"]
        secret = digest(f"1001:{realm}:pw1001")
        response = digest(f"{secret}:{nonce}:00000001:abcdef:auth:{digest(f'REGISTER:{home}')}")
        answer = ask(
            2,
            f'Authorization: Digest username="1001", realm="{realm}", nonce="{nonce}", '
            f'uri="{home}", response="{response}", algorithm=MD5, cnonce="abcdef", qop=auth, '
            f'nc=00000001, opaque="{challenge.get("opaque", "")}"',
        )
        assert answer.startswith("SIP/2.0 200"), answer
