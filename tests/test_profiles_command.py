"""``callshield profiles``: what a person types and reads."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from callshield.cli import app
from callshield.errors import CallshieldError
from tests.ami_double import AmiDouble
from tests.test_pbx_command import configured
from tests.test_phone_online import HERE, head, phone, says

CONFIG = """
[[peers]]
name = "pbx"
networks = ["192.0.2.1"]
[sip.phone]
bind = "192.0.2.10"
networks = ["192.0.2.0/24", "127.0.0.9"]
codecs = ["PCMA", "PCMU", "G722"]
[agents.1001]
uri = "sip:1001@192.0.2.20"
phone_model = "Yealink SIP-T46S 66.85.0.5"
headset = "desk"
[agents.1002]
uri = "sip:1002@192.0.2.21"
phone_model = "VVX 450"
[agents.1003]
uri = "sip:1003@192.0.2.22"
phone_model = "Wonderphone 3"
[headsets.desk]
profile = "nobody"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "callshield.toml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["profiles", *map(str, arguments)])


def refused(*arguments: object) -> str:
    """The sentence that `main` prints, with status 2."""
    result = run(*arguments)
    assert isinstance(result.exception, CallshieldError), result.output
    return str(result.exception)


def test_match_says_who_and_why() -> None:
    result = run("match", "Yealink SIP-T46S 66.85.0.5")
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "yealink-t: Yealink T3x/T4x/T5x, model T46S, firmware 66.85.0.5",
        "because the User-Agent matches 'Yealink SIP-T4[0-9]*'",
    ]
    assert run("match", "FPBX-16").output.startswith("generic: ")


def test_list_names_every_family() -> None:
    output = run("list").output
    assert "snom-d7" in output
    assert "USB 0x0b0e" in output


def test_render_then_check_is_a_round(tmp_path: Path, config: Path) -> None:
    made = run("render", "T46S", "--agent", "1001", "--config", config)
    assert made.exit_code == 0
    assert "account.1.sip_server.1.address = 192.0.2.10\n" in made.output
    assert "account.1.codec.pcma.priority = 1\n" in made.output
    assert "account.1.codec.g722.enable = 0\n" in made.output
    assert "# account.1.password: a secret, left out" in made.output
    path = tmp_path / "phone.cfg"
    path.write_text(made.output, encoding="utf-8")
    checked = run("check", path, "--agent", "1001", "--config", config)
    assert checked.exit_code == 0, checked.output
    trap = made.output.replace("block_in_calling = 0", "block_in_calling = 1")
    path.write_text(trap, encoding="utf-8")
    caught = run("check", path, "--json", "--config", tmp_path / "absent.toml")
    assert caught.exit_code == 1
    found = json.loads(caught.output)["findings"]
    assert [item["name"] for item in found if item["verdict"] == "problem"] == [
        "push_xml.block_in_calling"
    ]


def test_behind_a_pbx_the_phone_trusts_that(config: Path) -> None:
    made = run("render", "T46S", "--agent", 1001, "--proxy", "192.0.2.1:5070", "--config", config)
    assert "account.1.sip_server.1.address = 192.0.2.1\n" in made.output
    assert "account.1.sip_server.1.port = 5070\n" in made.output
    assert "push_xml.server = 192.0.2.10\n" in made.output


def test_secrets_come_from_private_files_only(tmp_path: Path, config: Path) -> None:
    path = tmp_path / "password"
    path.write_text("hunter2\n", encoding="utf-8")
    path.chmod(0o644)
    command = ("render", "T46S", "--agent", "1001", "--password-file", path, "--config", config)
    sentence = refused(*command)
    assert "chmod 600" in sentence
    assert "hunter2" not in sentence
    path.chmod(0o600)
    assert "account.1.password = hunter2\n" in run(*command).output
    path.write_text("a\nlinekey.1.type = 0\n", encoding="utf-8")
    assert "control character" in refused(*command)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("render", "Wonderphone", "--agent", "1001"), "no profile's pattern or model"),
        (("render", "T46S", "--agent", "9999"), "no agent '9999'"),
        (("render", "T46S", "--agent", "1001", "--proxy", "a b"), "HOST[:PORT]"),
        (("render", "T46S", "--agent", "1001", "--proxy", "a:99999"), "HOST[:PORT]"),
        (("render", "T46S", "--agent", "1001", "--action-url", "file:///etc"), "--action-url"),
        (("check", "--phone", "198.51.100.1", "--model", "T46S"), "outside the phones' networks"),
        (("check", "--phone", "192.0.2.20"), "which phone is it"),
        (("check", "nowhere.cfg"), "cannot be read"),
    ],
)
def test_what_cannot_be_is_a_sentence(
    config: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    assert sentence in refused(*arguments, "--config", config)


def test_an_unspecified_address_is_not_written_into_phones(tmp_path: Path) -> None:
    path = tmp_path / "callshield.toml"
    path.write_text(CONFIG.replace('bind = "192.0.2.10"', 'bind = "0.0.0.0"'), encoding="utf-8")
    assert "sip.phone.advertised" in refused("render", "T46S", "--agent", "1001", "--config", path)


def test_a_key_with_brackets_is_shown_whole(tmp_path: Path, config: Path) -> None:
    made = run("render", "D785", "--agent", "1001", "--config", config).output
    path = tmp_path / "snom.xml"
    path.write_text(made.replace("dtmf *9#", "line"), encoding="utf-8")
    checked = run("check", path, "--agent", "1001", "--config", config)
    assert checked.exit_code == 1
    assert "PROBLEM functionKeys/fkey[idx=2]: 'line'" in checked.output


def test_check_alone_looks_at_every_agent(config: Path) -> None:
    result = run("check", "--config", config, "--json")
    assert result.exit_code == 1
    found = {item["name"]: item["verdict"] for item in json.loads(result.output)["findings"]}
    assert found == {
        "agent 1001": "ok",
        "agent 1002": "ok",
        "agent 1003": "note",
        "headset desk": "problem",
    }


async def test_behind_a_pbx_the_pbx_says_which_phone_it_is(tmp_path: Path) -> None:
    double = AmiDouble()
    double.contacts.append(("phone-1003", "Yealink SIP-T54W 96.86.0.23"))
    async with double:
        path = configured(tmp_path, double)
        asked = await asyncio.to_thread(run, "check", "--pbx", "--json", "--config", path)
        alone = await asyncio.to_thread(run, "check", "--json", "--config", path)
        double.refuse["PJSIPShowContacts"] = "Permission denied"
        with_no_right = await asyncio.to_thread(run, "check", "--pbx", "--config", path)
    (found,) = (item for item in json.loads(asked.output)["findings"] if "1003" in item["name"])
    assert found["verdict"] == "ok"
    assert found["detail"].startswith("Yealink T3x/T4x/T5x, says the pbx")
    (found,) = (item for item in json.loads(alone.output)["findings"] if "1003" in item["name"])
    assert found["detail"] == "no phone_model: the PBX (--pbx) says what it is"
    assert "Permission denied" in str(with_no_right.exception)


async def test_check_asks_a_phone(config: Path) -> None:
    challenge = 'WWW-Authenticate: Digest realm="PUSH", nonce="1"'
    async with phone(says(head("401 Unauthorized", challenge))) as (port, _):
        arguments = ("check", "--phone", HERE, "--port", port, "--agent", "1002")
        result = await asyncio.to_thread(run, *arguments, "--config", config)
    assert result.exit_code == 0, result.output
    assert "asks for digest" in result.output
