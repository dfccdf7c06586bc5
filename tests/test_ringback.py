"""Callers who ring back: numbers, keyed hashes, marks, and the bridge's part of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callshield.caller_mark import (
    MarkKeys,
    e164,
    is_never_marked,
    key_id,
    load_mark_keys,
    mark_of,
    write_new_key,
)
from callshield.doctor_fairness import check_ringback, check_shadow
from callshield.errors import SetupError
from callshield.messages import CallEnding, Direction
from callshield.messages_fairness import RingbackMarks
from callshield.settings import Settings, load_settings
from callshield.settings_fairness import RingbackSettings
from notifier.ringback import CATEGORIES, LONGEST_DAYS, UNNAMED, Marks, category_of
from sipbridge.ringback import Ringback, SeenEnd, shown_number
from sipbridge.sip_message import SipHeaders

DAY_S = 86_400.0


def settings(**keys: Any) -> RingbackSettings:
    return RingbackSettings(**keys)


# --------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    "written",
    [
        "01012345678",
        "010-1234-5678",
        "+821012345678",
        "+82 10 1234 5678",
        "+82 (0)10-1234-5678",
        "821012345678",
        "00821012345678",
    ],
)
def test_one_caller_however_the_number_is_written(written: str) -> None:
    assert e164(written, settings()) == "+821012345678"


@pytest.mark.parametrize(
    "written",
    ["", "anonymous", "Restricted", "unknown", "1001", "107", "119", "*98", "+", "+0123456789",
     "+82", "12345678901234567890", "010-1234-567x", "sip:1@x", "٠١٠١٢٣٤٥٦٧٨"],
)  # fmt: skip
def test_what_is_no_subscribers_number(written: str) -> None:
    assert e164(written, settings()) == ""


def test_a_country_without_national_prefix_and_carriers_prefixes() -> None:
    nanp = settings(country_code="1", national_prefix="", international_prefixes=["011"])
    assert e164("2125550100", nanp) == "+12125550100"
    assert e164("011821012345678", nanp) == "+821012345678"
    korea = settings(international_prefixes=["00", "001", "00700"])
    assert e164("00112125550100", korea) == "+12125550100"
    assert e164("0070012125550100", korea) == "+12125550100"


@given(st.text(max_size=40))
def test_any_text_is_a_number_or_nothing(text: str) -> None:
    number = e164(text, settings())
    assert number == "" or (number[0] == "+" and number[1:].isdigit() and 9 <= len(number) <= 16)
    assert e164(number, settings()) == number, "it is its own form"


def test_relay_services_are_never_marked() -> None:
    listed = settings(never=["+82215881234", "02-120*", "1588*"])
    assert is_never_marked("+82215881234", listed)
    assert is_never_marked("+8221205555", listed)
    assert not is_never_marked("+821012345678", listed)
    with pytest.raises(ValueError, match="numbers like"):
        settings(never=["relay service"])


# ------------------------------------------------------------------------------------------ keys


def test_a_key_file_is_made_rotated_and_read(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "ringback.keys"
    first = write_new_key(path, keep_old=False)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(SetupError, match="--rotate"):
        write_new_key(path, keep_old=False)
    second = write_new_key(path, keep_old=True)
    keys = load_mark_keys(path)
    assert [key_id(key) for key in keys.keys] == [second, first]
    for _ in range(5):
        write_new_key(path, keep_old=True)
    assert len(load_mark_keys(path).keys) == 4


def test_a_key_file_that_others_can_read_or_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "ringback.keys"
    with pytest.raises(SetupError, match="new-key"):
        load_mark_keys(path)
    path.write_text("ab" * 32)
    path.chmod(0o644)
    with pytest.raises(SetupError, match="chmod 600"):
        load_mark_keys(path)
    path.chmod(0o600)
    assert load_mark_keys(path).keys == (bytes.fromhex("ab" * 32),)
    path.write_text("secret words")
    with pytest.raises(SetupError, match="64 small hexadecimal") as failed:
        load_mark_keys(path)
    assert "secret words" not in str(failed.value)


def test_a_mark_says_nothing_without_the_key() -> None:
    one, other = bytes(32), bytes([1]) * 32
    assert mark_of("+821012345678", one) == mark_of("+821012345678", one)
    assert mark_of("+821012345678", one) != mark_of("+821012345678", other)
    assert mark_of("+821012345678", one) != mark_of("+821012345679", one)
    assert "1012345678" not in mark_of("+821012345678", one)


# ----------------------------------------------------------------------------------------- marks


def test_a_mark_lasts_its_days_and_no_longer() -> None:
    marks = Marks(14)
    marks.ended("a" * 64, "k", ["insult", "threat"], 0.0)
    assert marks.expire(14 * DAY_S - 1) == []
    (gone,) = marks.expire(14 * DAY_S)
    assert gone.category == "threat"
    assert marks.told() == []


def test_whatever_is_configured_no_mark_lasts_over_thirty_days() -> None:
    marks = Marks(400)
    marks.ended("a" * 64, "k", [], 0.0)
    assert len(marks.expire(LONGEST_DAYS * DAY_S)) == 1


def test_a_clock_that_was_set_back_makes_no_mark_eternal() -> None:
    marks = Marks(14)
    marks.ended("a" * 64, "k", [], 1_000 * DAY_S)
    assert len(marks.expire(10 * DAY_S)) == 1


def test_another_end_replaces_the_mark_and_review_removes_it() -> None:
    marks = Marks(14)
    first = marks.ended("a" * 64, "k", ["insult"], 0.0)
    second = marks.ended("a" * 64, "k", [], 5 * DAY_S)
    assert (second.mark_id, second.category) == (first.mark_id, UNNAMED)
    marks.ended("b" * 64, "k", [], 0.0)
    assert len(marks) == 2
    assert marks.remove("nothing") == []
    assert marks.remove(first.mark_id) == [second]
    assert [mark.mark for mark in marks.remove("", ["b" * 64, "c" * 64])] == ["b" * 64]
    assert len(marks) == 0


@given(st.lists(st.sampled_from([*CATEGORIES, "crisis", "something new"])))
def test_one_word_of_a_known_list_is_told(categories: list[str]) -> None:
    assert category_of(categories) in (*CATEGORIES, UNNAMED)


# ------------------------------------------------------------------------------------ the bridge


def invite(caller: str = "<sip:01012345678@192.0.2.1>", *more: str) -> SipHeaders:
    lines = ["INVITE sip:1001@192.0.2.9 SIP/2.0", f"From: {caller};tag=1", *more]
    return SipHeaders("\r\n".join(lines) + "\r\n\r\n")


@pytest.mark.parametrize(
    ("headers", "number"),
    [
        (invite(), "01012345678"),
        (invite('"A" <sip:+821012345678;phone-context=x@h>'), "+821012345678"),
        (invite("<tel:+82-10-1234-5678>"), "+82-10-1234-5678"),
        (invite("<sip:1@h>", "P-Asserted-Identity: <sip:+821012345678@h>"), "+821012345678"),
        (invite("<sip:1@h>", "P-Asserted-Identity: <tel:+821012345678>"), "+821012345678"),
        (invite("<sip:anonymous@anonymous.invalid>"), ""),
        (
            invite(
                "<sip:anonymous@anonymous.invalid>", "P-Asserted-Identity: <sip:+821012345678@h>"
            ),
            "",
        ),
        (invite("<sip:01012345678@h>", "Privacy: id"), ""),
        (invite("<sip:01012345678@h>", "Privacy: session;User"), ""),
        (invite("<sip:01012345678@h>", "Privacy: none"), "01012345678"),
        (invite("<sip:192.0.2.1>"), ""),
    ],
)
def test_which_number_an_invite_shows(headers: SipHeaders, number: str) -> None:
    assert shown_number(headers) == number


def ending(by: str = "agent:console") -> CallEnding:
    return CallEnding(ts=1.0, call_id="c" * 32, agent_id="1001", by=by)


class Desk:
    """The bridge's part and the notifier's, back to back."""

    def __init__(self, folder: Path, **keys: Any) -> None:
        self.now = 1_000_000.0
        self.path = folder / "ringback.keys"
        self.troubles: list[str] = []
        self.settings = settings(enabled=True, key_file=self.path, **keys)
        self.bridge = Ringback(self.settings, lambda: self.now, self.troubles.append)
        self.marks = Marks(self.settings.days)

    def end(self, headers: SipHeaders, by: str = "agent:console") -> bool:
        told = self.bridge.ended(ending(by), headers, Direction.INBOUND)
        if told is not None:
            self.marks.ended(told.mark, told.key_id, ["insult"], self.now)
            self.bridge.take(RingbackMarks(marks=self.marks.told()))
        return told is not None

    def rings(self, headers: SipHeaders) -> SeenEnd | None:
        return self.bridge.recent_end(headers, Direction.INBOUND)


def test_who_was_ended_is_known_when_he_rings_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    write_new_key(desk.path, keep_old=False)
    assert desk.rings(invite()) is None
    assert desk.end(invite())
    desk.now += 3.5 * DAY_S
    seen = desk.rings(invite("<sip:+82-10-1234-5678@other>"))
    assert seen is not None
    assert (seen.category, seen.ended_days_ago) == ("insult", 3)
    assert desk.rings(invite("<sip:01012345679@192.0.2.1>")) is None, "somebody else"
    assert desk.bridge.recent_end(invite(), Direction.INTERNAL) is None
    assert desk.bridge.recent_end(invite(), Direction.OUTBOUND) is None
    desk.now += 11 * DAY_S
    assert desk.rings(invite()) is None, "over, also before the notifier said so"


def test_switched_off_it_needs_no_key_and_complains_of_none(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    off = Ringback(
        settings(enabled=False, key_file=desk.path), lambda: desk.now, desk.troubles.append
    )
    off.look_at_keys()
    assert off.ended(ending(), invite(), Direction.INBOUND) is None
    assert desk.troubles == []
    assert not desk.end(invite())
    assert len(desk.troubles) == 1, "negative control: switched on it is missed"


@pytest.mark.parametrize("by", ["policy", "", "detector"])
def test_only_a_persons_end_marks(tmp_path: Path, by: str) -> None:
    desk = Desk(tmp_path)
    write_new_key(desk.path, keep_old=False)
    assert not desk.end(invite(), by)
    assert desk.end(invite(), "supervisor:ab12"), "negative control"
    assert desk.end(invite(), "agent:dtmf")


def test_withheld_listed_and_outgoing_calls_are_never_marked(tmp_path: Path) -> None:
    desk = Desk(tmp_path, never=["010-9999*"])
    write_new_key(desk.path, keep_old=False)
    assert not desk.end(invite("<sip:anonymous@anonymous.invalid>"))
    assert not desk.end(invite("<sip:01012345678@h>", "Privacy: id"))
    assert not desk.end(invite("<sip:01099991234@h>"))
    assert not desk.end(invite("<sip:1002@h>"))
    for direction in (Direction.OUTBOUND, Direction.INTERNAL):
        assert desk.bridge.ended(ending(), invite(), direction) is None
    assert desk.end(invite()), "negative control"


def test_after_a_rotation_old_marks_are_found_until_their_key_is_gone(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    write_new_key(desk.path, keep_old=False)
    desk.end(invite())
    write_new_key(desk.path, keep_old=True)
    assert desk.rings(invite()) is not None
    lines = desk.path.read_text().splitlines()
    desk.path.write_text(lines[0] + "\n")
    os.utime(desk.path, ns=(1, 1))
    assert desk.rings(invite()) is None
    desk.end(invite())
    assert desk.rings(invite()) is not None


def test_without_a_key_nobody_is_marked_and_it_is_said_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.bridge.look_at_keys()
    assert not desk.end(invite())
    assert not desk.end(invite())
    assert len(desk.troubles) == 1
    assert "new-key" in desk.troubles[0]
    write_new_key(desk.path, keep_old=False)
    assert desk.end(invite())
    assert desk.troubles[1:] == [""]


def test_switched_off_nothing_is_hashed(tmp_path: Path) -> None:
    path = tmp_path / "ringback.keys"
    write_new_key(path, keep_old=False)
    bridge = Ringback(settings(key_file=path), lambda: 0.0, lambda reason: None)
    assert bridge.ended(ending(), invite(), Direction.INBOUND) is None


@given(st.text(max_size=60))
def test_a_strange_from_header_does_no_harm(value: str) -> None:
    text = value.replace("\r", "").replace("\n", "")
    number = shown_number(invite(text))
    assert e164(number, settings()) == "" or MarkKeys((bytes(32),)).marks(e164(number, settings()))


# ----------------------------------------------------------------------------------- the doctor


def node_settings(folder: Path, more: str) -> Settings:
    path = folder / "callshield.toml"
    agents = "".join(
        f'[agents.{n}]\nuri = "sip:{n}@192.0.2.1"\ngroup = "trial"\n' for n in range(3)
    )
    path.write_text(f"{agents}{more}", encoding="utf-8")
    return load_settings(path)


def test_the_doctor_looks_at_keys_and_at_groups_that_nobody_has(tmp_path: Path) -> None:
    off = node_settings(tmp_path, "")
    assert (check_ringback(off), check_shadow(off)) == ("off", "off")
    path = tmp_path / "ringback.keys"
    on = node_settings(
        tmp_path,
        f'[ringback]\nenabled = true\nkey_file = "{path}"\n[shadow]\ngroups = ["trial"]\n',
    )
    with pytest.raises(SetupError, match="new-key"):
        check_ringback(on)
    write_new_key(path, keep_old=False)
    assert check_ringback(on) == "1 keys, marks last 14 days"
    assert "nothing will be reported of trial" in check_shadow(on)
    with pytest.raises(SetupError, match="claims"):
        check_shadow(node_settings(tmp_path, '[shadow]\ngroups = ["trial", "claims"]\n'))
