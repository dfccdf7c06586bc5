"""Traps in a phone's configuration: each one made, each one found, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callshield.errors import SetupError
from callshield.findings import Finding, Verdict
from firmware_profiles.catalogue import shipped
from firmware_profiles.conformance import check, check_file, recognise
from firmware_profiles.reading import LARGEST_BYTES, formats_of, read
from firmware_profiles.rendering import entries_of, render
from firmware_profiles.writing import Entry, write
from tests.phones_kit import SITE

VALUES = replace(SITE, password="p", push_password="p")
IDS = sorted(shipped().phones)


def problems(findings: list[Finding]) -> list[str]:
    return [finding.name for finding in findings if finding.verdict is Verdict.PROBLEM]


def made(id_: str, **changes: str | None) -> bytes:
    """A whole configuration of a family with some keys changed, or (``None``) left out."""
    profile = shipped().phones[id_]
    entries = [
        Entry(entry.key, changes.get(entry.key, entry.value), entry.attributes)
        for entry in entries_of(profile, VALUES)
        if changes.get(entry.key, "") is not None
    ]
    assert set(changes) <= {entry.key for entry in entries_of(profile, VALUES)}
    provisioning = profile.provisioning
    return write(provisioning.format, provisioning.root, entries, []).encode()


def checked(id_: str, **changes: str | None) -> list[Finding]:
    return check_file(shipped().phones[id_], VALUES, made(id_, **changes))


@pytest.mark.parametrize("id_", IDS)
def test_what_we_write_has_no_trap(id_: str) -> None:
    """Negative control: without a made fault nothing is found."""
    assert problems(checked(id_)) == []


@pytest.mark.parametrize(
    ("id_", "key", "value"),
    [
        ("yealink-t", "push_xml.block_in_calling", "1"),
        ("yealink-t", "push_xml.sip_notify", "0"),
        ("yealink-t", "push_xml.sip_notify", None),
        ("yealink-t", "features.action_uri_limit_ip", "198.51.100.7"),
        ("yealink-t", "features.action_uri_limit_ip", ""),
        ("yealink-t", "features.action_uri_limit_ip", None),
        ("yealink-t", "push_xml.server", "198.51.100.7"),
        ("yealink-t", "account.1.dtmf.type", "0"),
        ("yealink-t", "account.1.codec.g722.enable", "1"),
        ("yealink-t", "softkey.1.action", "*1#$Tdtmf$"),
        ("fanvil", "phone/BlockXMLWhenCall", "1"),
        ("fanvil", "phone/BlockXMLWhenCall", None),
        ("fanvil", "phone/PushXMLIP", ""),
        ("poly-vvx", "apps.push.messageType", "0"),
        ("poly-vvx", "apps.push.messageType", "1"),
        ("poly-vvx", "apps.push.messageType", None),
        ("poly-vvx", "apps.push.password", ""),
        ("poly-vvx", "apps.push.secureTunnelRequired", "1"),
        ("cisco-enterprise", "authenticationURL", ""),
        ("cisco-enterprise", "authenticationURL", None),
        ("cisco-enterprise", "vendorConfig/webAccess", "1"),
        ("cisco-mpp", "CISCO_XML_EXE_Enable", "No"),
        ("cisco-mpp", "CISCO_XML_EXE_Auth_Mode", "Trusted"),
        ("cisco-mpp", "DTMF_Tx_Mode_1_", "Strict"),
        ("snom-d7", "phone-settings/mb_trusted_hosts", ""),
        ("snom-d7", "phone-settings/mb_trusted_hosts", "198.51.100.7 pbx.example"),
        ("snom-d7", "phone-settings/mb_trusted_hosts", None),
        ("snom-d7", "functionKeys/fkey[idx=2]", "line"),
        ("mitel-6800", "sip xml notify event", "0"),
        ("mitel-6800", "xml application post list", None),
        ("mitel-6800", "softkey1 value", "*1#"),
        ("grandstream", "P47", "198.51.100.7:5060"),
        ("baresip", "audio_codecs", "opus"),
        ("microsip", "Account1/server", "198.51.100.7"),
    ],
)
def test_each_trap_is_found_and_no_other(id_: str, key: str, value: str | None) -> None:
    findings = checked(id_, **{key: value})
    assert problems(findings) == [key]
    (found,) = (finding for finding in findings if finding.name == key)
    setting = next(item for item in shipped().phones[id_].setting if item.trap in found.detail)
    assert setting.trap in found.detail
    assert found.advice.startswith("write ")


def test_every_trap_can_be_found() -> None:
    """No trap of any profile is unreachable: a wrong value of each key is a problem."""
    for id_ in IDS:
        profile = shipped().phones[id_]
        written = {entry.key: entry.value or "" for entry in entries_of(profile, VALUES)}
        trapped = [finding.name for finding in check(profile, VALUES, written)]
        for key in trapped:
            if key in written:
                wrong = {**written, key: "" if written[key] else "x"}
                assert problems(check(profile, VALUES, wrong)) == [key], (id_, key)


def test_an_absent_key_whose_default_differs_is_a_note() -> None:
    findings = checked("yealink-t", **{"push_xml.block_in_calling": None})
    assert problems(findings) == []
    (found,) = (item for item in findings if item.name == "push_xml.block_in_calling")
    assert found.verdict is Verdict.NOTE
    assert "perhaps no warning is shown" in found.detail


@pytest.mark.parametrize("value", ["any", "192.0.*.*", "10.0.0.1, 192.0.2.10", "192.0.2.0/24"])
def test_lists_of_addresses_as_vendors_write_them(value: str) -> None:
    findings = checked("yealink-t", **{"features.action_uri_limit_ip": value})
    assert problems(findings) == []
    (found,) = (item for item in findings if item.name == "features.action_uri_limit_ip")
    assert (found.verdict is Verdict.NOTE) == (value == "any")


def test_what_no_key_is_known_of_is_told_to_be_looked_at() -> None:
    notes = [item.advice for item in checked("grandstream") if item.verdict is Verdict.NOTE]
    assert any("192.0.2.10" in advice for advice in notes)


def test_a_secret_in_the_file_is_not_repeated() -> None:
    findings = checked("poly-vvx", **{"apps.push.password": "hunter2"})
    assert "hunter2" not in repr(findings)


def test_without_an_agent_only_what_holds_everywhere_is_compared() -> None:
    profile = shipped().phones["yealink-t"]
    raw = made("yealink-t", **{"account.1.sip_server.1.address": "198.51.100.7"})
    assert problems(check_file(profile, None, raw)) == []
    raw = made("yealink-t", **{"push_xml.block_in_calling": "1"})
    assert problems(check_file(profile, None, raw)) == ["push_xml.block_in_calling"]


#: Each as its vendor's phone or server writes it, not as we do.
EXPORTED = {
    "yealink-t": b"#!version:1.0.0.1\r\npush_xml.sip_notify=1\r\npush_xml.block_in_calling =1\r\n",
    "poly-vvx": b"""<?xml version="1.0"?><polycomConfig xmlns:x="y"><reg reg.1.address="1"/><apps>
        <push apps.push.messageType="0" apps.push.username="u" apps.push.password="p"/></apps>
        </polycomConfig>""",
    "snom-d7": b"""<?xml version="1.0"?>
        <settings><phone-settings e="2"><user_host idx="1" perm="RW">p</user_host>
        <mb_trusted_hosts perm=''></mb_trusted_hosts></phone-settings></settings>""",
    "fanvil": b"""<sysConf><Version>2.0</Version>
        <sip><line index='1'><RegisterAddr>x</RegisterAddr></line></sip>
        <phone><PushXMLIP></PushXMLIP><BlockXMLWhenCall>1</BlockXMLWhenCall></phone></sysConf>""",
    "mitel-6800": b"# startup.cfg\nsip proxy ip: 1.2.3.4\nSIP XML notify event: 0 # off\n",
    "cisco-mpp": b"""<flat-profile><Proxy_1_ ua="na">x</Proxy_1_>
        <CISCO_XML_EXE_Enable ua="na">No</CISCO_XML_EXE_Enable></flat-profile>""",
    "cisco-enterprise": b"""<?xml version="1.0"?><device xsi:type="axl:XIPPhone" xmlns:xsi="z">
        <sipProfile><preferredCodec>g711ulaw</preferredCodec></sipProfile>
        <authenticationURL></authenticationURL></device>""",
    "grandstream": b"# Account 1\nP47 = 198.51.100.1   # SIP server\nP57 = 18\nP130 = 0\n",
}


@pytest.mark.parametrize("id_", EXPORTED)
def test_files_as_others_write_them(id_: str) -> None:
    raw = EXPORTED[id_]
    profile = recognise(shipped(), raw)
    assert profile.id == id_
    wanted = {
        "yealink-t": "push_xml.block_in_calling",
        "poly-vvx": "apps.push.messageType",
        "snom-d7": "phone-settings/mb_trusted_hosts",
        "fanvil": "phone/BlockXMLWhenCall",
        "mitel-6800": "sip xml notify event",
        "cisco-mpp": "CISCO_XML_EXE_Enable",
        "cisco-enterprise": "authenticationURL",
        "grandstream": "P57",
    }
    assert wanted[id_] in problems(check_file(profile, VALUES, raw))


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]><settings>&b;</settings>", "document type"),
        (b"<settings><phone-settings>", "well-formed"),
        (b"P47=\x00\x01", "no text"),
        (b"a" * (LARGEST_BYTES + 1), "more than"),
        (b"<settings>" + b"<a>" * 40 + b"</a>" * 40 + b"</settings>", "deeper"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_configuration_is_refused(raw: bytes, sentence: str) -> None:
    format_ = "snom" if raw.startswith(b"<") else "p_values"
    with pytest.raises(SetupError, match=sentence):
        read(format_, raw)


def test_a_file_of_nobody_is_refused_with_advice() -> None:
    with pytest.raises(SetupError, match="--model"):
        recognise(shipped(), b"hello = world\n")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(sorted(EXPORTED)))
def test_any_bytes_are_read_or_refused_with_a_sentence(noise: bytes, id_: str) -> None:
    raw = EXPORTED[id_]
    for data in (noise, raw[: len(noise)] + noise, raw + noise):
        for format_ in formats_of(data):
            try:
                found = read(format_, data)
            except SetupError:
                continue
            check(shipped().phones[id_], VALUES, found)


def test_rendering_and_checking_agree_on_every_family() -> None:
    for id_ in IDS:
        profile = shipped().phones[id_]
        assert problems(check_file(profile, VALUES, render(profile, VALUES).encode())) == [], id_
