"""The PBX pages' samples are what they claim: configurations that load, XML that FreeSWITCH can
read and that names only what is there. Whether a PBX then does it, only a PBX can tell."""

from __future__ import annotations

import re
import tomllib
import xml.etree.ElementTree as ET  # the samples are our own files, not a stranger's
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callshield.errors import ConfigurationError
from callshield.settings import Settings, load_settings

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs" / "pbx").glob("*.md"))
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)

#: What every sample is a part of: enough for a node.
BASE = """
[sip.pbx]
bind = "192.0.2.10"
[sip.phone]
bind = "192.0.2.10"
[[peers]]
name = "base"
networks = ["192.0.2.5"]
[agents.1099]
uri = "sip:1099@192.0.2.199:5060"
[trunks.base]
host = "192.0.2.5"
[outbound]
patterns = ["0[0-9]{8,10}"]
"""

#: FreeSWITCH's hangup causes that the pages use (src/switch_channel.c, CAUSE_CHART).
CAUSES = {
    "GATEWAY_DOWN",
    "INVALID_GATEWAY",
    "NORMAL_TEMPORARY_FAILURE",
    "RECOVERY_ON_TIMER_EXPIRE",
}
#: Gateways and contexts that the operator has already.
THEIRS = {"carrier"}


def blocks(language: str, pages: list[Path] = PAGES) -> Iterator[tuple[str, str]]:
    """Name and text of each fenced block in a language."""
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            if match[2] == language:
                line = text.count("\n", 0, match.start()) + 1
                yield f"{page.name}:{line}", match[3]


def params(language: str) -> pytest.MarkDecorator:
    found = list(blocks(language))
    return pytest.mark.parametrize("text", [t for _, t in found], ids=[n for n, _ in found])


def merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Tables are joined, everything else replaced."""
    result = dict(base)
    for key, value in more.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            result[key] = merged(old, value)
        else:
            result[key] = value
    return result


def dumped(value: Any) -> str:
    """A value as TOML, tables inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{k}" = {dumped(v)}' for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(dumped(v) for v in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else str(value)


def loaded(tmp_path: Path, *samples: str) -> Settings:
    whole: dict[str, Any] = {}
    for sample in samples:
        whole = merged(whole, tomllib.loads(sample))
    path = tmp_path / "callshield.toml"
    text = "\n".join(f'"{key}" = {dumped(value)}' for key, value in whole.items())
    path.write_text(text, encoding="utf-8")
    return load_settings(path)


def test_every_page_has_samples() -> None:
    assert {"README.md", "freeswitch.md", "generic-trunk.md"} <= {page.name for page in PAGES}
    assert sum(1 for _ in blocks("toml")) >= 8
    assert sum(1 for _ in blocks("xml")) >= 9


@params("toml")
def test_sample_loads_as_part_of_a_whole_configuration(tmp_path: Path, text: str) -> None:
    settings = loaded(tmp_path, BASE, text)
    assert settings.peers
    for uri in settings.phone_uris:
        assert "192.0.2." in uri, "documentation addresses only (RFC 5737)"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_all_samples_of_a_page_load_together(tmp_path: Path, page: Path) -> None:
    samples = [text for _, text in blocks("toml", [page])]
    if samples:
        assert loaded(tmp_path, BASE, *samples).agents


def test_a_misspelt_key_in_a_sample_would_be_found(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="did you mean"):
        loaded(tmp_path, BASE, "[sip]\npbx_callid_header = 'X-PBX-Call-ID'")


@params("xml")
def test_sample_is_well_formed(text: str) -> None:
    ET.fromstring(text)


def test_malformed_xml_would_be_found() -> None:
    with pytest.raises(ET.ParseError):
        ET.fromstring('<profile name="x"><param name="y"></profile>')


def freeswitch() -> list[ET.Element]:
    pages = [page for page in PAGES if page.name == "freeswitch.md"]
    return [ET.fromstring(text) for _, text in blocks("xml", pages)]


def actions(application: str) -> list[str]:
    """The data of every action that runs this application."""
    found = [
        action.get("data", "")
        for root in freeswitch()
        for kind in ("action", "anti-action")
        for action in root.iter(kind)
        if action.get("application") == application
    ]
    assert found, application
    return found


def test_dialplan_names_only_gateways_and_contexts_that_exist() -> None:
    roots = freeswitch()
    gateways = {g.get("name") for root in roots for g in root.iter("gateway")} | THEIRS
    contexts = {c.get("name") for root in roots for c in root.iter("context")}
    for data in actions("bridge"):
        for gateway in re.findall(r"sofia/gateway/([\w-]+)/", data):
            assert gateway in gateways, data
        assert "|" not in data, "a phone behind | rings again after busy"
    assert contexts == {"callshield", "callshield-agents", "callshield-queue"}
    for data in actions("transfer"):
        _, dialplan, context = data.split()
        assert dialplan == "XML"
        assert context in contexts
    profile = next(root for root in roots if root.tag == "profile")
    settings = {p.get("name"): p.get("value") for p in profile.iter("param")}
    assert settings["context"] in contexts
    assert settings["apply-inbound-acl"] in {r.get("name") for r in roots if r.tag == "list"}
    contact = next(a.get("contact", "") for root in roots for a in root.iter("agent"))
    assert re.search(r"loopback/(\d+)/([\w-]+)/XML$", contact).group(2) in contexts  # type: ignore[union-attr]


def test_phone_is_rung_directly_only_where_callshield_is_down() -> None:
    lists = [d.partition("=")[2] for d in actions("set") if d.startswith("continue_on_fail=")]
    inbound, outgoing = (set(names.split(",")) for names in lists)
    assert inbound == CAUSES  # not USER_BUSY, CALL_REJECTED, true
    # Not 503: whoever keeps Callshield busy must not have the PBX dial what the rules forbid.
    assert outgoing == {"GATEWAY_DOWN", "INVALID_GATEWAY"}


def test_callshields_number_for_the_phone_is_not_the_agents_own() -> None:
    """The two expressions never match the same number, or a call would go round."""
    found = {}
    for root in freeswitch():
        for extension in root.iter("extension"):
            for condition in extension.iter("condition"):
                if condition.get("field") == "destination_number":
                    found[extension.get("name")] = re.compile(condition.get("expression", ""))
    assert found["agent"].search("1001")
    assert found["phone"].search("phone-1001")
    assert not found["phone"].search("1001")
    assert not found["agent"].search("phone-1001")
    for number in ("112", "119"):
        assert found["emergency"].search(number)
        assert not found["outgoing-of-agents"].search(number)


def test_notice_is_attested_only_after_both_files_were_played() -> None:
    for root in freeswitch():
        for condition in root.iter("condition"):
            data = " ".join(action.get("data", "") for action in condition.findall("action"))
            if "sip_h_X-Callshield-Notice=" in data:
                heard = re.compile(condition.get("expression", ""))
                assert heard.search("FILE PLAYED,FILE PLAYED")
                assert not heard.search("FILE PLAYED,FILE NOT FOUND")
                assert not heard.search(",")
    assert "playback_terminators=none" in actions("set")


def test_no_sample_records_or_listens() -> None:
    for _, text in blocks("xml"):
        assert not re.search(r"record_session|eavesdrop|userspy|three_way|record-template", text)


def test_forged_headers_are_taken_away_by_name() -> None:
    """Every header of ours that a page tells the operator to set is among those removed."""
    removed = {data.removeprefix("sip_h_") for data in actions("unset")}
    used = set(re.findall(r"sip_h_(X-Callshield-[A-Za-z-]+)", " ".join(actions("set"))))
    assert used <= removed
    assert "X-Callshield-Call-ID" in removed


def test_pages_name_only_headers_that_the_code_knows() -> None:
    code = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("callshield", "sipbridge")
        for path in (ROOT / folder).glob("*.py")
    )
    for page in PAGES:
        for header in set(re.findall(r"X-Callshield-[A-Z][A-Za-z-]*\w", page.read_text("utf-8"))):
            assert header in code, f"{page.name}: {header}"


def test_pages_say_how_they_were_checked() -> None:
    for name in ("freeswitch.md", "generic-trunk.md"):
        head = (ROOT / "docs" / "pbx" / name).read_text(encoding="utf-8")[:300]
        assert "**Checked by reading only" in head
