"""``callshield doctor --pbx`` as an operator runs it, against PBXs good and bad on 127.0.44.x."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from callshield.free_ports import free_port, free_range
from tests.peers.echo_pbx import EchoPbx, Habits, running_echo_pbx
from tests.peers.sipp import running_sipp

PBX, OURS, PHONES, ELSEWHERE = "127.0.44.1", "127.0.44.2", "127.0.44.3", "127.0.44.4"
NOBODY = "127.0.44.9"


def configuration(folder: Path, peers: str, extra: str = "") -> Path:
    first, last = free_range(OURS, 20)
    path = folder / "callshield.toml"
    path.write_text(
        f"""
[node]
state_dir = "{folder}/state"
runtime_dir = "{folder}/run"
[sip.pbx]
bind = "{OURS}"
port = {free_port(OURS)}
rtp_ports = [{first}, {last}]
{extra}
[sip.phone]
bind = "{PHONES}"
[agents.1001]
uri = "sip:1001@127.0.44.5"
{peers}
[transcriber]
workers = 0
""",
        encoding="utf-8",
    )
    return path


def peer(pbx: EchoPbx) -> str:
    # A Contact in these networks is used; one outside never is.
    networks = f'["{PBX}", "{NOBODY}"]'
    return f'[[peers]]\nname = "pbx"\nnetworks = {networks}\necho_uri = "{pbx.echo_uri}"\n'


class Told:
    """What a run of doctor said."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.err = status, err
        self.object: dict[str, Any] = json.loads(out)
        self._by_name = {found["name"]: found for found in self.object["findings"]}

    def __call__(self, name: str) -> dict[str, str]:
        return self._by_name[name]

    @property
    def problems(self) -> list[str]:
        return [f["name"] for f in self.object["findings"] if f["verdict"] == "problem"]


async def doctor(path: Path, *options: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "callshield.cli", "doctor", "--pbx", "--config", str(path)),
        *options,
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
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def told(folder: Path, pbx: EchoPbx, extra: str = "") -> Told:
    return Told(*await doctor(configuration(folder, peer(pbx), extra), "--json"))


async def test_a_good_pbx_gives_no_problem_and_every_check_a_line(tmp_path: Path) -> None:
    async with running_echo_pbx(PBX, Habits(reports=True)) as pbx:
        seen = await told(tmp_path, pbx)
    assert (seen.status, seen.problems) == (0, [])
    assert seen.object["ok"] is True
    findings = [f for f in seen.object["findings"] if f["subject"] == "peer pbx"]
    notes = [f["name"] for f in findings if f["verdict"] == "note"]
    assert notes == ["reachable over TCP"]  # it speaks UDP only
    # Without [ami] the PBX is not asked how it can listen: what to look for by hand is listed.
    assert "[ami] is not configured" in seen("not asked")["detail"]
    assert "ChanSpy" in seen("ChanSpy, ExtenSpy")["advice"]
    assert "200 Said" in seen("reachable over UDP")["detail"]
    assert seen("our address as the PBX sees it")["detail"].startswith(OURS)
    assert seen("test call")["detail"].startswith("answered after")
    assert seen("codec")["detail"].startswith("PCMA of PCMU, PCMA, G722, OPUS")
    assert "packets of 20 ms came" in seen("packet length")["detail"]
    assert seen("audio both ways")["detail"].endswith("(fit 1.00)")
    assert seen("loss and jitter")["detail"].startswith("0.0 %")
    assert "the PBX reports 0.0 % lost" in seen("loss and jitter")["detail"]
    assert "came back as an event" in seen("digits (DTMF)")["detail"]
    assert seen("session timer")["detail"] == "1800 s, we refresh"
    assert "signalling over UDP" in seen("encryption")["detail"]
    assert "asking 127.0.44.1 by OPTIONS" in seen.err  # progress, not on standard output
    assert pbx.methods().count("BYE") == 1


async def test_lines_for_people_name_the_peer_and_what_to_do(tmp_path: Path) -> None:
    async with running_echo_pbx(PBX, Habits(invite_status=488)) as pbx:
        status, out, _ = await doctor(configuration(tmp_path, peer(pbx)))
    assert status == 1
    lines = out.splitlines()
    assert "peer pbx" in lines
    at = next(i for i, line in enumerate(lines) if line.startswith("PROBLEM test call: refused"))
    assert "→ no codec in common: we offer PCMU, PCMA, G722, OPUS" in lines[at + 1]


@dataclass(frozen=True)
class Case:
    """A fault, and the line that must name it."""

    what: str
    habits: Habits
    name: str
    verdict: str
    detail: str
    advice: str = ""


NO_EVENTS = {"formats": "8", "attributes": "a=rtpmap:8 PCMA/8000\r\n"}
AUDIO, DIGITS = "audio both ways", "digits (DTMF)"
CASES = [
    # The slow ones first. A-law of a loud square wave: audible, and not ours.
    Case(
        "announcement instead of an echo",
        Habits(announcement=(b"\x25" * 8 + b"\xa5" * 8) * 10),
        AUDIO,
        "problem",
        "something else at",
        "is echo_uri really an echo extension",
    ),
    Case(
        "rings for ever",
        Habits(options_status=0, invite_status=0),
        "test call",
        "problem",
        "no answer to the INVITE (180 after",
        "does the extension exist, and answer by itself?",
    ),
    Case("no audio", Habits(echo=False), AUDIO, "problem", "0 came", "either direction may be"),
    Case(
        "nothing comes back, but the PBX hears us",
        Habits(echo=False, reports=True),
        AUDIO,
        "problem",
        "reports by RTCP that it gets our packets",
        "does not reach us",
    ),
    Case(
        "wrong media port",
        Habits(sdp_port=9),
        AUDIO,
        "problem",
        "nothing listens on that port",
        "in the PBX's SDP is wrong",
    ),
    Case(
        "media address of another machine",
        Habits(sdp_address=ELSEWHERE),
        "media address",
        "note",
        f"SDP {ELSEWHERE}, signalling from {PBX}",
    ),
    Case(
        "private media address",
        Habits(sdp_address="10.77.0.9"),
        "media address",
        "problem",
        "a private address",
        "external_media_address",
    ),
    Case(
        "private Contact",
        Habits(contact_host="192.168.7.7"),
        "media address",
        "problem",
        "Contact says 192.168.7.7, but the answer came from 127.0.44.1",
        "external_signaling_address",
    ),
    Case(
        "we are behind NAT",
        Habits(seen_as="203.0.113.9"),
        "our address as the PBX sees it",
        "problem",
        f"we say {OURS}, the PBX sees 203.0.113.9",
        'sip.pbx.advertised = "203.0.113.9"',
    ),
    Case(
        "one packet in 20 lost",
        Habits(lose_every=20),
        "loss and jitter",
        "problem",
        "% of the echo's packets lost",
        "more than 1 %",
    ),
    Case(
        "not known as a trunk",
        Habits(options_status=401),
        "reachable over UDP",
        "problem",
        "401 Said",
        f"match={OURS}",
    ),
    Case(
        "no such extension",
        Habits(invite_status=404),
        "test call",
        "problem",
        "refused: 404",
        "mend echo_uri",
    ),
    Case(
        "422 first",
        Habits(min_se_s=3600, headers=("Session-Expires: 3600;refresher=uas",)),
        "session timer",
        "ok",
        "3600 s, the PBX refreshes; it first wanted at least 3600 s (422)",
    ),
    Case(
        "a Contact that nobody answers at",
        Habits(contact_host=NOBODY),
        "end of the call",
        "problem",
        f"requests inside the call go to the Contact, {NOBODY}:",
        "must be reachable at its Contact",
    ),
    Case(
        "G.722",
        Habits(formats="9 101", attributes="a=rtpmap:101 telephone-event/8000\r\n"),
        "codec",
        "note",
        "G722 of PCMU, PCMA, G722, OPUS: not G.711",
        "put alaw or ulaw first",
    ),
    Case(
        "Opus",
        Habits(
            formats="111 102",
            attributes="a=rtpmap:111 opus/48000/2\r\na=rtpmap:102 telephone-event/48000\r\n",
        ),
        AUDIO,
        "ok",
        "our signal came back",
    ),
    Case("digit kept", Habits(digits="swallow"), DIGITS, "note", "our digit did not come back"),
    Case("digit by INFO", Habits(digits="info"), DIGITS, "note", "our digit came back as INFO"),
    Case("tones only, INFO", Habits(**NO_EVENTS), DIGITS, "note", "the PBX takes INFO"),
    Case(
        "tones only, no INFO",
        Habits(**NO_EVENTS, info_status=415),
        DIGITS,
        "note",
        "the PBX does not take INFO",
    ),
]


#: Each half has the time of a test of its own: together they need nearly all of it.
@pytest.mark.parametrize("cases", [CASES[::2], CASES[1::2]], ids=["one half", "other half"])
async def test_each_fault_is_named_with_what_to_do(tmp_path: Path, cases: list[Case]) -> None:
    few = asyncio.Semaphore(4)  # calls last seconds, and need little

    async def call(case: Case) -> Told:
        folder = tmp_path / case.what.replace(" ", "_")
        folder.mkdir()
        async with few, running_echo_pbx(PBX, case.habits) as pbx:
            seen = await told(folder, pbx)
            # Nothing is left ringing or open.
            over = "CANCEL" if case.habits.invite_status == 0 else "BYE"
            if case.habits.invite_status < 300 and case.habits.contact_host != NOBODY:
                assert over in pbx.methods(), case.what
            return seen

    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(call(case)) for case in cases]
    for case, seen in zip(cases, [run.result() for run in runs], strict=True):
        found = seen(case.name)
        assert (found["verdict"], case.detail in found["detail"]) == (case.verdict, True), found
        assert case.advice in found["advice"], found
        assert (seen.status == 1) is bool(seen.problems), case.what
        # The one fault is the one problem; a wrong media address costs the audio too.
        wrong_address = {"media address", AUDIO} if case.habits.sdp_address else {case.name}
        if case.name != AUDIO and case.habits.options_status:
            # A busy machine makes jitter of its own.
            assert set(seen.problems) - {"loss and jitter"} <= wrong_address, case.what


async def test_media_from_another_address_than_the_sdp_says(tmp_path: Path) -> None:
    async with running_echo_pbx(PBX, Habits(), rtp_at=ELSEWHERE) as pbx:
        # What Asterisk does without bind_rtp_to_media_address: SDP says one, source is another.
        object.__setattr__(pbx.habits, "sdp_address", ELSEWHERE)
        seen = await told(tmp_path, pbx)
    assert seen("audio both ways")["verdict"] == "ok"
    assert seen("media address")["verdict"] == "note"


async def test_a_pbx_that_moves_its_media_is_followed(tmp_path: Path) -> None:
    habits = Habits(sdp_address=NOBODY, moves_media_to=ELSEWHERE)
    async with running_echo_pbx(PBX, habits, rtp_at=ELSEWHERE) as pbx:
        seen = await told(tmp_path, pbx)
    # Our answer to the re-INVITE keeps what was agreed.
    assert pbx.reoffer_status == 200
    assert f"c=IN IP4 {OURS}" in pbx.reoffer_answer
    assert " RTP/AVP 8 101" in pbx.reoffer_answer
    assert seen("audio both ways")["verdict"] == "ok", seen.object
    assert f"the PBX moved the media to {ELSEWHERE}" in seen("media address")["detail"]
    assert seen("media address")["verdict"] == "note"


async def test_silence_and_refusal_are_two_things(tmp_path: Path) -> None:
    async with running_echo_pbx(PBX, Habits(options_status=0)) as pbx:
        peers = (
            f'[[peers]]\nname = "mute"\nnetworks = ["{PBX}"]\n'
            f'options_uri = "sip:{PBX}:{pbx.port}"\n'
        )
        mute = Told(*await doctor(configuration(tmp_path, peers), "--json"))
    assert "no answer at all to 4 requests" in mute("reachable over UDP")["detail"]
    assert "silence is a firewall" in mute("reachable over UDP")["advice"]
    gone = Told(*await doctor(configuration(tmp_path, peer(pbx)), "--json"))
    assert "nothing listens on this port" in gone("reachable over UDP")["detail"]
    # Nobody waits for a call that cannot get there.
    assert gone("test call")["detail"] == "left out: see above"
    assert mute.status == gone.status == 1


@pytest.mark.peers
async def test_sipp_echo_beside_a_taken_port_of_a_running_node(tmp_path: Path) -> None:
    """A real peer, and what a running node holds is left alone."""
    async with (
        running_echo_pbx(PBX) as pbx,
        running_sipp(tmp_path / "sipp", ELSEWHERE, "uas_echo", echo=True) as sipp,
    ):
        path = configuration(
            tmp_path,
            f'[[peers]]\nname = "real"\nnetworks = ["{PBX}", "{ELSEWHERE}"]\n'
            f'options_uri = "sip:{PBX}:{pbx.port}"\n'
            f'echo_uri = "sip:603@{ELSEWHERE}:{sipp.port}"\n',
        )
        text = path.read_text()
        port = int(text.partition("port = ")[2].partition("\n")[0])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind((OURS, port))
            seen = Told(*await doctor(path, "--json"))
        assert await sipp.finish() == 0
    assert seen.status == 0, seen.object
    assert seen("audio both ways")["detail"].endswith("(fit 1.00)")
    assert seen("codec")["detail"].startswith("PCMA")


async def test_without_an_echo_extension_only_options_is_asked(tmp_path: Path) -> None:
    async with running_echo_pbx(PBX) as pbx:
        path = configuration(
            tmp_path,
            f'[[peers]]\nname = "pbx"\nnetworks = ["{PBX}"]\n'
            f'options_uri = "sip:{PBX}:{pbx.port}"\n'
            '[[peers]]\nname = "net"\nnetworks = ["127.0.44.128/25"]\n',
        )
        status, out, _ = await doctor(path, "--json")
    findings = json.loads(out)["findings"]
    assert status == 0
    assert [f["subject"] for f in findings if f["name"] == "test call"] == ["peer pbx", "peer net"]
    assert any("this peer has only networks" in f["detail"] for f in findings)
    assert set(pbx.methods()) == {"OPTIONS"}
