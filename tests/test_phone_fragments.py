"""Provisioning fragments: golden files, nothing escapes, no secret unless it was given."""

from __future__ import annotations

import os
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from callshield.errors import SetupError
from firmware_profiles.catalogue import shipped
from firmware_profiles.conformance import recognise
from firmware_profiles.reading import read
from firmware_profiles.rendering import VARIABLES, entries_of, render
from firmware_profiles.writing import Entry, write
from tests.phones_kit import FRAGMENTS, NASTY, SITE, URL_FRAGMENTS

IDS = sorted(shipped().phones)
WITH_SECRETS = [
    id_ for id_ in IDS if any(setting.secret for setting in shipped().phones[id_].setting)
]
BY_URL = [id_ for id_ in IDS if "action_url" in shipped().phones[id_].end.ways]
XML = ("attributes", "cnf_xml", "flat_profile", "p_values", "snom", "fanvil")


@pytest.mark.parametrize("id_", IDS)
def test_the_fragment_is_the_golden_file(id_: str) -> None:
    """``UPDATE_FRAGMENTS=1`` writes them anew; look at the difference before it is committed."""
    made = render(shipped().phones[id_], SITE)
    golden = FRAGMENTS / f"{id_}.txt"
    if os.environ.get("UPDATE_FRAGMENTS"):
        golden.write_text(made, encoding="utf-8")
    assert made == golden.read_text(encoding="utf-8")
    assert made == render(shipped().phones[id_], SITE)


@pytest.mark.parametrize("id_", BY_URL)
def test_keys_that_call_us_are_in_a_golden_file_of_their_own(id_: str) -> None:
    profile = shipped().phones[id_]
    made = render(profile, replace(SITE, keys="url"))
    golden = URL_FRAGMENTS / f"{id_}.txt"
    if os.environ.get("UPDATE_FRAGMENTS"):
        golden.write_text(made, encoding="utf-8")
    assert made == golden.read_text(encoding="utf-8")
    found = read(profile.provisioning.format, made.encode())
    for address in (SITE.end_url, SITE.help_url):
        assert any(address in value for value in found.values())
    # A key does one or the other.
    assert not any(SITE.end_code in value for value in found.values())
    assert SITE.end_url not in render(profile, SITE)


def test_keys_send_codes_unless_the_phone_can_only_call() -> None:
    """A code needs no network between, and no address that somebody could read."""
    profile = shipped().phones["snom-d7"]
    assert "dtmf *9#" in render(profile, SITE)
    only = profile.model_copy(
        update={"end": profile.end.model_copy(update={"ways": ["action_url", "typed_dtmf"]})}
    )
    assert f"url {SITE.end_url}" in render(only, SITE)
    assert "dtmf *9#" in render(only, replace(SITE, end_url="", help_url=""))
    assert "dtmf *9#" in render(only, replace(SITE, keys="dtmf"))


def test_keys_that_cannot_call_are_a_sentence() -> None:
    with pytest.raises(SetupError, match=r"phones\.port"):
        render(shipped().phones["snom-d7"], replace(SITE, keys="url", end_url=""))
    with pytest.raises(SetupError, match="no key of Poly"):
        render(shipped().phones["poly-vvx"], replace(SITE, keys="url"))


def test_there_is_no_golden_file_without_a_profile() -> None:
    assert sorted(path.stem for path in URL_FRAGMENTS.iterdir()) == BY_URL
    assert sorted(path.stem for path in FRAGMENTS.iterdir()) == IDS


@pytest.mark.parametrize("id_", IDS)
def test_what_is_written_is_read_back(id_: str) -> None:
    """Nasty characters in every value that a site chooses come back as they were."""
    profile = shipped().phones[id_]
    nasty = NASTY if profile.provisioning.format in XML else "s&c'r=e:t"
    values = replace(SITE, password=nasty, push_password=nasty + "2")
    if profile.provisioning.format == "account":
        values = replace(values, password="s&c'r:et")
    found = read(profile.provisioning.format, render(profile, values).encode())
    for entry in entries_of(profile, values):
        assert found[entry.key] == entry.value, entry.key


@pytest.mark.parametrize("id_", IDS)
def test_no_secret_is_printed_unless_it_was_given(id_: str) -> None:
    profile = shipped().phones[id_]
    secret = [setting.key for setting in profile.setting if setting.secret]
    without = read(profile.provisioning.format, render(profile, SITE).encode())
    assert not set(secret) & set(without) or profile.provisioning.format == "by_hand"
    given = render(profile, replace(SITE, password="given-1", push_password="given-2"))
    assert ("given-1" in given or "given-2" in given) == bool(secret)
    assert "given" not in repr(replace(SITE, password="given-1"))


@pytest.mark.parametrize("id_", WITH_SECRETS)
@pytest.mark.parametrize("evil", ["a\nb = 1", "a\r", "\x00", "\u2028", "\ud800", "\x85"])
def test_a_control_character_is_refused_everywhere(id_: str, evil: str) -> None:
    profile = shipped().phones[id_]
    with pytest.raises(SetupError, match="control character"):
        render(profile, replace(SITE, password=evil, push_password=evil))


def test_xml_stays_well_formed_whatever_is_in_it() -> None:
    for id_ in IDS:
        profile = shipped().phones[id_]
        if profile.provisioning.format in XML:
            text = render(profile, replace(SITE, user='"><x y="', password="]]>--&", agent="--"))
            ElementTree.fromstring(text)


def test_formats_of_lines_refuse_what_they_cannot_carry() -> None:
    with pytest.raises(SetupError, match='holds a "'):
        write("colon", "", [Entry("sip line1 password", 'a"b')], [])
    for evil in ("a;b", "a b", "a>b"):
        with pytest.raises(SetupError, match="refused"):
            write("account", "", [Entry("address", "sip:a@b"), Entry("auth_pass", evil)], [])
    with pytest.raises(SetupError, match="address holds"):
        write("account", "", [Entry("address", "sip:a@b>;x=<y")], [])


@pytest.mark.parametrize("id_", [id_ for id_ in IDS if id_ != "generic"])
def test_a_file_is_recognised_by_its_keys(id_: str) -> None:
    made = render(shipped().phones[id_], replace(SITE, password="p", push_password="p"))
    assert recognise(shipped(), made.encode()).id == id_


def test_codecs_come_in_the_order_that_is_wanted() -> None:
    profile = shipped().phones["yealink-t"]
    found = read("cfg", render(profile, replace(SITE, codecs=("PCMA", "G722"))).encode())
    assert found["account.1.codec.pcma.priority"] == "1"
    assert found["account.1.codec.g722.priority"] == "2"
    assert found["account.1.codec.pcmu.enable"] == "0"


def test_without_a_common_codec_nothing_is_written() -> None:
    with pytest.raises(SetupError, match=r"sip\.phone\.codecs"):
        render(shipped().phones["mitel-6800"], replace(SITE, codecs=("OPUS",)))


def test_ipv6_is_bracketed_where_a_port_follows() -> None:
    values = replace(SITE, proxy="2001:db8::1")
    made = render(shipped().phones["grandstream"], values)
    assert "<P47>[2001:db8::1]:5062</P47>" in made
    assert "sip_server.1.address = 2001:db8::1\n" in render(shipped().phones["yealink-t"], values)


def test_every_template_names_what_exists() -> None:
    for profile in shipped().phones.values():
        for transport in ("udp", "tcp", "tls"):
            render(profile, replace(SITE, transport=transport, password="p", push_password="p"))
    assert {"password", "push_password"} <= set(VARIABLES)
