"""``callshield doctor --pbx`` beside a real Asterisk: all right, and not."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from callshield.free_ports import free_port, free_range
from tests.pbx.asterisk import Asterisk

pytestmark = [pytest.mark.asterisk, pytest.mark.timeout(180)]

PBX, OURS, PHONES = "127.0.44.1", "127.0.44.2", "127.0.44.3"
SPY = """
[supervisors]
exten => _*55X.,1,ChanSpy(PJSIP/${EXTEN:3},qw)
"""
#: Where the kit says which address Asterisk writes into its SDP towards us.
MEDIA = "[callshield](+type=endpoint)\nmedia_address="
#: What an operator changes who wants nobody to listen: no ChanSpy, no plain recording, no
#: almighty manager user, no Monitor for the everyday one (write=call).
CLEAN = {
    "autoload=yes": "autoload=yes\nnoload=app_chanspy.so\nnoload=res_stasis_snoop.so"
    "\nnoload=res_monitor.so",
    " same => n,MixMonitor(/srv/spool/mix.wav,"
    "r(/srv/spool/mix-caller.wav)t(/srv/spool/mix-agent.wav))\n": "",
    "read=all\nwrite=all": "read=all\nwrite=agent",
}
#: The manager user that we propose for doctor, switched on.
DOCTOR = {
    ";[callshield-doctor]\n;secret=CHANGE-ME\n;deny=0.0.0.0/0.0.0.0\n;permit=192.0.2.10/"
    "255.255.255.255\n;read=\n;write=system,reporting": "[callshield-doctor]\n"
    "secret=CHANGE-ME\npermit=127.0.0.1/255.255.255.255\nread=\nwrite=system,reporting"
}


class Told(dict[str, dict[str, str]]):
    """Findings by name."""

    status: int

    @property
    def problems(self) -> list[str]:
        return [name for name, found in self.items() if found["verdict"] == "problem"]


@asynccontextmanager
async def running(
    folder: Path, root: Path, replace: dict[str, str] | None = None, **options: Any
) -> AsyncIterator[Asterisk]:
    pbx = Asterisk(
        folder / "asterisk",
        root,
        pstn=f"127.0.44.4:{free_port('127.0.44.4')}",
        address=PBX,
        callshield=f"{OURS}:5060",
        # On one machine the manager interface is reached from 127.0.0.1.
        replace={**(replace or {}), "permit=192.0.2.10/": "permit=127.0.0.1/"},
        **options,
    )
    (folder / "asterisk").mkdir()
    try:
        await pbx.start()
        yield pbx
    finally:
        await pbx.stop()


async def doctor(folder: Path, pbx: Asterisk, *, user: str = "callshield-doctor") -> Told:
    first, last = free_range(OURS, 20)
    secret = folder / "secret"
    secret.write_text("CHANGE-ME\n")
    secret.chmod(0o600)
    path = folder / "callshield.toml"
    path.write_text(
        f"""
[node]
state_dir = "{folder}/state"
runtime_dir = "{folder}/run"
[sip.pbx]
bind = "{OURS}"
rtp_ports = [{first}, {last}]
[sip.phone]
bind = "{PHONES}"
[agents.1001]
uri = "sip:phone-1001@{PBX}:{pbx.port}"
[[peers]]
name = "pbx"
networks = ["{PBX}"]
echo_uri = "{pbx.uri("echo")}"
[transcriber]
workers = 0
"""
        + (
            f'[ami]\nhost = "{PBX}"\nport = {pbx.ami_port}\nsecret_file = "{secret}"\n'
            f'username = "{user}"\n'
            if user
            else ""
        ),
        encoding="utf-8",
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "callshield.cli", "doctor", "--pbx", "--json"),
        *("--config", str(path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(100):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert out, err.decode()
    told = Told({found["name"]: found for found in json.loads(out)["findings"]})
    assert process.returncode is not None
    told.status = process.returncode
    return told


async def test_a_clean_asterisk_has_nothing_to_mend(tmp_path: Path, asterisk_root: Path) -> None:
    """Codec, audio both ways, digits, timers and addresses; and nobody can listen."""
    async with running(tmp_path, asterisk_root, replace=CLEAN | DOCTOR) as pbx:
        told = await doctor(tmp_path, pbx)
        assert "0 active calls" in await pbx.cli("core show channels")
    assert (told.status, told.problems) == (0, []), told
    assert told["audio both ways"]["verdict"] == "ok"
    assert (
        "fit 1.00" in told["audio both ways"]["detail"]
        or "fit 0.9" in told["audio both ways"]["detail"]
    )
    assert told["codec"]["detail"].startswith(("PCMA of", "PCMU of"))
    assert "came back as an event" in told["digits (DTMF)"]["detail"]
    assert told["session timer"]["verdict"] == "ok"
    assert "the PBX reports 0.0 % lost" in told["loss and jitter"]["detail"]
    assert told["media address"]["detail"] == f"SDP, Contact and source agree: {PBX}"
    assert told["reachable over TCP"]["verdict"] == "ok"
    assert told["listening and recording at the PBX"]["verdict"] == "ok", told


@pytest.mark.parametrize(
    ("replace", "name", "detail"),
    [
        pytest.param(
            {"allow=alaw,ulaw\n; Callshield": "allow=gsm\n; Callshield"},
            "test call",
            "refused: 488",
            id="no common codec",
        ),
        pytest.param(
            {"dtmf_mode=rfc4733": "dtmf_mode=inband"},
            "digits (DTMF)",
            "no telephone-event in the answer",
            id="digits as tones",
        ),
        pytest.param(
            {"timers=yes": "timers=no"}, "session timer", "no session timers", id="no timers"
        ),
        pytest.param(
            {"aors=callshield\n; What": "aors=callshield\nauth=1001\n; What"},
            "test call",
            "refused: 401",
            id="wants a password",
        ),
    ],
)
async def test_what_is_wrong_with_an_asterisk_is_named(
    tmp_path: Path, asterisk_root: Path, replace: dict[str, str], name: str, detail: str
) -> None:
    async with running(tmp_path, asterisk_root, replace=replace) as pbx:
        told = await doctor(tmp_path, pbx, user="")
    assert detail in told[name]["detail"], told
    assert told[name]["verdict"] != "ok"
    assert told[name]["advice"]
    assert told["not asked"]["verdict"] == "note"  # no [ami]: the list to go through by hand


async def test_asterisk_told_a_wrong_media_address_is_one_way(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """Its SDP names an address where it does not listen: our audio goes astray, no echo comes."""
    wrong = {
        f"{MEDIA}192.0.2.5\nbind_rtp_to_media_address=yes": f"{MEDIA}10.77.0.9",
        "rtp_symmetric=yes": "rtp_symmetric=no",
    }
    async with running(tmp_path, asterisk_root, replace=wrong) as pbx:
        told = await doctor(tmp_path, pbx, user="")
    assert told.status == 1
    assert "the SDP says 10.77.0.9, a private address" in told["media address"]["detail"]
    audio = told["audio both ways"]
    assert audio["verdict"] == "problem"
    # From a loopback address this machine refuses to send there at all.
    assert "cannot send to 10.77.0.9" in audio["detail"] or "no echo" in audio["detail"]


async def test_chanspy_in_the_dialplan_is_found_by_the_manager_user_we_propose(
    tmp_path: Path, asterisk_root: Path
) -> None:
    async with running(tmp_path, asterisk_root, dialplan=SPY, replace=DOCTOR) as pbx:
        told = await doctor(tmp_path, pbx)
    spy = told["ChanSpy, ExtenSpy"]
    assert spy["verdict"] == "problem"
    assert "dialplan supervisors,_*55X.,1 ChanSpy" in spy["detail"]
    assert "nobody hears a live call in secret" in spy["detail"]
    assert "from-pstn,602,2 MixMonitor" in told["MixMonitor"]["detail"]
    assert "tester: write=all" in told["manager users (AMI)"]["detail"]
    assert told["audio both ways"]["verdict"] == "ok"
    assert told.status == 1


async def test_the_everyday_manager_user_may_not_ask_and_is_told_so(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """It has write=agent,call: each thing that could not be asked is named."""
    async with running(tmp_path, asterisk_root) as pbx:
        told = await doctor(tmp_path, pbx, user="callshield")
    unread = told["not asked"]["detail"]
    for action in ("ModuleCheck", "CoreShowChannels", "GetConfig", "ShowDialPlan"):
        assert f"{action} is refused to this manager user" in unread
    assert "dialplan show" in told["ChanSpy, ExtenSpy"]["advice"]
    assert "listening and recording at the PBX" not in told
