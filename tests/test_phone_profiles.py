"""Firmware profiles: what is broken is refused, by file and key; who is meant by a User-Agent."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callshield.errors import ConfigurationError
from firmware_profiles.catalogue import load, shipped
from firmware_profiles.matching import match
from firmware_profiles.page import page
from firmware_profiles.patterns import both_match, compile_pattern
from tests.phones_kit import folder, profile

SETTING = '[[setting]]\nkey = "a"\npurpose = "push"\nsource = "manual"\n'
PUSH = '[[push]]\nid = "p"\ntransport = "{}"\npath = "/p"\nneeds = ["k"]\nsource = "manual"'


def faults(path: Path) -> list[tuple[str, str, str, str]]:
    with pytest.raises(ConfigurationError) as raised:
        load(path)
    return raised.value.faults


def test_the_shipped_profiles_are_whole() -> None:
    catalogue = shipped()
    desks = "yealink-t poly-vvx cisco-enterprise cisco-mpp snom-d7 grandstream fanvil mitel-6800"
    softs = "linphone baresip microsip zoiper jabber"
    assert {*desks.split(), *softs.split(), "generic"} <= set(catalogue.phones)
    assert set(catalogue.headsets) == {"jabra", "poly", "epos", "yealink"}


def test_every_example_comes_back_to_its_own_family() -> None:
    for profile_ in shipped().phones.values():
        for agent in profile_.user_agent:
            assert match(shipped(), agent.example).profile.id == profile_.id, agent.example


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        (profile(extra="speed = 1"), "user_agent.0.speed", "a known key"),
        (profile().replace("version = 1", "version = 1\nspeed = 1"), "speed", "a known key"),
        (profile().replace("version = 1", "version = 2"), "version", "1"),
        (profile(firmware='min = "9.0", max = "8.2"'), "firmware", "not above max"),
        (profile(firmware='min = "eight"'), "firmware.min", 'a version like "84.0.15"'),
        (profile(pattern="Made [0-9"), "user_agent.0.pattern", "a ']' for the '['"),
        (profile(pattern="Made [9-0]*"), "user_agent.0.pattern", "ranges go up"),
        (profile(example="Other 1"), "user_agent.0", "an example that matches"),
        (profile(extra=SETTING.replace("manual", "none")), "(file)", "a NAME of [sources]"),
        (profile(extra=SETTING * 2), "(file)", "each key of [[setting]] once"),
        (profile(extra=PUSH.format("sip_notify")), "push.0", "a path for HTTP"),
        (profile(extra=PUSH.format("http_get")), "(file)", "'k', which is needed"),
        (profile().replace('vendor = "Made"', 'vendor = "Ma\\nde"'), "vendor", "match pattern"),
        ("version = ", "(file)", "a profile in TOML"),
    ],
)
def test_a_broken_profile_is_refused_by_file_and_key(
    tmp_path: Path, text: str, key: str, expected: str
) -> None:
    ((file, found_key, _, wanted),) = faults(folder(tmp_path, made=text))
    assert (file, found_key) == ("made.toml", key)
    assert expected in wanted


def test_the_same_profile_unbroken_is_taken(tmp_path: Path) -> None:
    """Negative control of the table above."""
    assert set(load(folder(tmp_path, made=profile())).phones) == {"made", "generic"}


def test_two_families_may_not_claim_a_user_agent_alike(tmp_path: Path) -> None:
    path = folder(tmp_path, one=profile(), other=profile("other", "Made [5-9]*", "Made 7.1"))
    ((file, key, found, expected),) = faults(path)
    assert (file, key, found) == ("other.toml", "user_agent.0.pattern", "'Made [5-9]*'")
    assert "'Made [0-9]*' of one.toml" in expected


def test_disjoint_firmware_or_a_more_specific_pattern_is_no_overlap(tmp_path: Path) -> None:
    old = profile("old", firmware='max = "4.9"')
    new = profile("new", firmware='min = "5"')
    special = profile("special", "Made [0-9]* pro", "Made 7.1 pro")
    catalogue = load(folder(tmp_path, old=old, new=new, special=special))
    assert match(catalogue, "Made 4.9.3").profile.id == "old"
    assert match(catalogue, "Made 5.0").profile.id == "new"
    found = match(catalogue, "Made 5.0 pro")
    assert found.profile.id == "special"
    assert "most specific of 3 families" in found.reason


def test_no_generic_profile_is_a_fault(tmp_path: Path) -> None:
    path = folder(tmp_path, made=profile())
    (path / "generic.toml").unlink()
    assert faults(path)[0][1:] == ("kind", "none", 'one profile with kind = "generic"')


def test_the_user_agent_of_the_manual(tmp_path: Path) -> None:
    found = match(shipped(), "Yealink SIP-T46S 66.85.0.5")
    assert (found.profile.id, found.model, found.firmware) == ("yealink-t", "T46S", "66.85.0.5")
    assert "Yealink SIP-T4[0-9]*" in found.reason


def test_firmware_out_of_range_is_generic_and_says_whose_it_would_be() -> None:
    found = match(shipped(), "Yealink SIP-T46S 66.70.0.5")
    assert found.profile.kind == "generic"
    assert found.reason.startswith("Yealink")
    assert "70.0.5 is outside 82.0" in found.reason


@pytest.mark.parametrize(
    "text",
    ["", " ", "\x00\n", "FPBX-16.0.40(18.20)", "Asterisk PBX 18.2", "Yealink", "*", "é" * 1000],
)
def test_what_nobody_claims_is_generic_with_a_reason(text: str) -> None:
    found = match(shipped(), text)
    assert found.profile.kind == "generic"
    assert found.reason


@pytest.mark.parametrize(
    ("text", "id_"),
    [("T46S", "yealink-t"), ("vvx450", "poly-vvx"), ("Snom D785", "snom-d7"), ("fanvil", "fanvil")],
)
def test_an_operator_may_just_name_the_model(text: str, id_: str) -> None:
    assert match(shipped(), text).profile.id == id_


words = st.text("ab1 *?[]-", min_size=1, max_size=12)


@settings(max_examples=300, deadline=None)
@given(words, words, st.text("abB1 ", max_size=12))
def test_two_patterns_that_both_match_something_are_said_to(
    one: str, other: str, text: str
) -> None:
    try:
        left, right = compile_pattern(one), compile_pattern(other)
    except ValueError:
        return
    if left.matches(text) and right.matches(text):
        assert both_match(left, right)
    assert both_match(left, right) == both_match(right, left)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("ab*", "a*c", True),
        ("ab*", "b*", False),
        ("*a", "*b", False),
        ("*a*", "*b*", True),
        ("a[0-4]*", "a[5-9]*", False),
        ("a?c", "abc", True),
        ("a", "a*", True),
        ("ab", "a", False),
        ("*", "", None),
    ],
)
def test_overlap_of_patterns(one: str, other: str, expected: bool | None) -> None:
    if expected is None:
        with pytest.raises(ValueError, match="printable"):
            compile_pattern(other)
    else:
        assert both_match(compile_pattern(one), compile_pattern(other)) is expected


def test_a_long_user_agent_costs_no_time() -> None:
    """No pattern backtracks: time is text times pattern."""
    assert not compile_pattern("a*a*a*a*a*a*a*a*a*a*a*b").matches("a" * 20_000)


def test_the_page_in_docs_is_the_one_that_the_profiles_make() -> None:
    shown = Path(__file__).parent.parent / "docs" / "phones.md"
    assert shown.read_text(encoding="utf-8") == page(), (
        "run: python -m firmware_profiles.page > docs/phones.md"
    )


def test_the_page_marks_what_was_not_seen_written() -> None:
    row = next(line for line in page().splitlines() if line.startswith("| [Fanvil"))
    assert "HTTP POST **?**" in row
    for profile_ in shipped().phones.values():
        for source in profile_.sources.values():
            assert source.section.replace("<", "&lt;") in page()
