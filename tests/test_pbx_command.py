"""``callshield pbx``: what an operator sees of the PBX's manager interface."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.ami_double import AmiDouble, Member
from tests.notifier_kit import write_config
from tests.test_pbx import AGENTS, ONE


def configured(folder: Path, double: AmiDouble, secret: str = "") -> Path:
    path = folder / "ami.secret"
    path.write_text(secret or double.secret)
    path.chmod(0o600)
    return write_config(folder, 8080, AGENTS + double.settings(path))


async def pbx(config: Path, *arguments: str, typed: str = "") -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "callshield.cli", "pbx", *arguments, "--config", str(config)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate(typed.encode())
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_check_names_what_is_there_and_changes_nothing(tmp_path: Path) -> None:
    double = AmiDouble(members=[Member("support", ONE, True, "lunch"), Member("sales", ONE)])
    double.contacts.append(("phone-1003", "Yealink SIP-T54W"))
    async with double:
        status, said = await pbx(configured(tmp_path, double), "check")
        assert (status, "PROBLEM" in said) == (0, False), said
        assert "in support, sales" in said
        assert "Yealink SIP-T54W" in said
        assert [(m.paused, m.reason) for m in double.members] == [(True, "lunch"), (False, "")]
        assert double.devices == {}


async def test_check_names_every_right_and_name_that_is_missing(tmp_path: Path) -> None:
    denied = "Permission denied"
    double = AmiDouble(refuse={"QueuePause": denied, "PJSIPShowContacts": denied})
    async with double:
        status, said = await pbx(configured(tmp_path, double), "check")
    assert status == 1
    failed = [line for line in said.splitlines() if line.startswith("PROBLEM")]
    assert len(failed) == 3, said
    assert "'agent'" in failed[0]
    assert ONE in failed[1]
    assert "'system'" in failed[2]


async def test_a_refused_login_is_one_sentence(tmp_path: Path) -> None:
    async with AmiDouble() as double:
        status, said = await pbx(configured(tmp_path, double, secret="wrong"), "check")
    assert status == 2
    assert "ami.username" in said
    assert len(said.strip().splitlines()) == 1


async def test_notify_carries_a_body_line_by_line(tmp_path: Path) -> None:
    async with AmiDouble() as double:
        config = configured(tmp_path, double)
        arguments = ("notify", "phone-1003", "check-sync", "--content-type", "application/xml")
        body = "<a>\n1,2</a>\n"
        status, said = await pbx(config, *arguments, "--body", "-", typed=body)
        assert status == 0, said
        (action,) = double.asked("PJSIPNotify")
        assert action["endpoint"] == ["phone-1003"]
        assert action["variable"] == [
            "Event=check-sync",
            "Content-type=application/xml",
            "Content=<a>",
            "Content=1\\,2</a>",
        ]
        status, said = await pbx(config, "notify", "phone-1003", "x\r\nAction: Originate")
        assert status == 2
        assert "line break" in said
        assert len(double.asked("PJSIPNotify")) == 1
