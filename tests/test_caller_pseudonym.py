"""A number is found again by a keyed hash; without the key nothing is found."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callshield.caller_mark import MarkKeys
from callshield.caller_pseudonym import (
    MAX_KEYS,
    CallerKeys,
    caller_number,
    forget_caller_keys,
    load_caller_keys,
    rotate_caller_keys,
)
from callshield.doctor_fairness import check_pseudonyms, kept_beyond_calls
from callshield.errors import CallshieldError, SetupError
from callshield.messages import Direction
from callshield.messages_notice import Spared
from callshield.settings import Settings, load_settings
from sipbridge.call_plan import CallPlan
from sipbridge.caller_number import CallerNumbers
from sipbridge.prompt_catalogue import Prompt
from sipbridge.sip_message import SipHeaders
from tests.notifier_kit import write_config

KEYS = CallerKeys((bytes(range(32)), bytes(32)))
CALL, OTHER = "a" * 32, "b" * 32
NUMBER = "+821098765432"
EXTRA = '[ringback]\nnever = ["1588*", "02-123-4567"]\n[callers]\nrelay_services = ["107"]\n'


def settings_in(folder: Path, extra: str = EXTRA) -> Settings:
    return load_settings(write_config(folder, 8080, extra))


# --------------------------------------------------------------------------------------- hashes


def test_all_ways_to_write_a_number_are_one_caller(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    for shown in ("010-9876-5432", "+82 10 9876 5432", "821098765432", "0082 10-9876-5432"):
        assert caller_number(shown, settings) == NUMBER
    pseudonym, key_id = KEYS.pseudonym(NUMBER)
    assert (len(pseudonym), key_id) == (64, KEYS.ids()[0])
    assert KEYS.pseudonym("+821098765433")[0] != pseudonym
    assert "98765432" not in pseudonym


@pytest.mark.parametrize(
    "shown", ["", "anonymous", "1001", "112", "107", "15881234", "+8221234567", "02-123-4567"]
)
def test_who_has_no_number_of_his_own_has_no_pseudonym(tmp_path: Path, shown: str) -> None:
    assert caller_number(shown, settings_in(tmp_path)) == ""


@given(st.binary(min_size=32, max_size=32), st.integers(10**7, 10**14))
def test_without_the_key_nothing_is_found(key: bytes, digits: int) -> None:
    number = f"+{digits}"
    other = CallerKeys((key,))
    assert (other.pseudonym(number) == KEYS.pseudonym(number)) == (key == KEYS.keys[0])


def test_a_mark_of_ring_back_and_a_pseudonym_cannot_be_joined() -> None:
    """Also where somebody used one key for both."""
    assert MarkKeys(KEYS.keys).mark(NUMBER)[0] != KEYS.pseudonym(NUMBER)[0]
    assert MarkKeys(KEYS.keys).mark(NUMBER)[1] != KEYS.pseudonym(NUMBER)[1]


def test_a_number_is_sealed_for_one_call() -> None:
    sealed = KEYS.seal(NUMBER, CALL)
    assert "98765432" not in sealed
    assert len(sealed) <= 160, "the column's width"
    assert KEYS.seal(NUMBER, CALL) != sealed, "two seals of one number look different"
    assert KEYS.open(sealed, CALL) == NUMBER
    older = CallerKeys((bytes(range(32, 64)), *KEYS.keys))
    assert older.open(sealed, CALL) == NUMBER, "after a rotation"
    for keys, text, call_id in (
        (KEYS, sealed, OTHER),
        (KEYS, sealed[:-6] + "AAAAAA", CALL),
        (KEYS, sealed[:20], CALL),
        (KEYS, "no key id", CALL),
        (CallerKeys((bytes(range(32, 64)),)), sealed, CALL),
    ):
        with pytest.raises(CallshieldError, match="cannot be read"):
            keys.open(text, call_id)


# ----------------------------------------------------------------------------------------- keys


def test_the_first_start_makes_a_key_that_nobody_else_can_read(tmp_path: Path) -> None:
    path = tmp_path / "state" / "caller.keys"
    keys = load_caller_keys(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert load_caller_keys(path) == keys
    assert os.listdir(path.parent) == ["caller.keys"]
    path.chmod(0o640)
    with pytest.raises(SetupError, match="chmod 600"):
        load_caller_keys(path)


def test_a_file_that_holds_something_else_is_refused_and_not_quoted(tmp_path: Path) -> None:
    path = tmp_path / "caller.keys"
    for text in ("", "secret words\n", "a" * 63, "\n".join(["ab" * 32] * (MAX_KEYS + 1))):
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(SetupError, match="64 small hexadecimal") as failed:
            load_caller_keys(path)
        assert "secret" not in str(failed.value)
    with pytest.raises(SetupError, match="start the node once"):
        load_caller_keys(tmp_path / "no", make=False)


def test_rotation_finds_older_calls_until_their_key_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "caller.keys"
    first = load_caller_keys(path)
    old = first.pseudonym(NUMBER)
    name = rotate_caller_keys(path)
    both = load_caller_keys(path)
    assert both.ids() == [name, *first.ids()]
    assert both.pseudonyms(NUMBER)[1] == old[0] != both.pseudonym(NUMBER)[0]
    assert forget_caller_keys(path, frozenset(first.ids())) == []
    assert forget_caller_keys(path, frozenset()) == first.ids()
    assert load_caller_keys(path).ids() == [name], "the current one stays"
    assert old[0] not in load_caller_keys(path).pseudonyms(NUMBER)
    for _ in range(MAX_KEYS - 1):
        rotate_caller_keys(path)
    with pytest.raises(SetupError, match="--forget-unused"):
        rotate_caller_keys(path)


# ----------------------------------------------------------------------------------- the bridge


def plan(
    direction: Direction = Direction.INBOUND, spared: Spared = "", dialled: str = ""
) -> CallPlan:
    prompt = Prompt("closing", "ko", Path("/x.wav"), "1", "00", 1.0)
    watched = direction is not Direction.INTERNAL
    return CallPlan(
        call_id=CALL,
        agent_id="1001",
        pbx_call_id="1.2",
        pbx="pbx",
        offer=None,
        pbx_address="127.0.0.1",
        phone_address="127.0.0.1",
        notice=(),
        closing=prompt,
        warnings=(prompt,),
        notice_tone=prompt,
        tap_allowed=watched,
        spared=spared,
        direction=direction,
        dialled=dialled,
        call_back=prompt if watched else None,
    )


def invite(sender: str = "<sip:01098765432@pbx>", *more: str) -> SipHeaders:
    lines = ["INVITE sip:1001@x SIP/2.0", f"From: {sender};tag=1", *more, "", ""]
    return SipHeaders("\r\n".join(lines))


def test_the_notifier_is_told_a_pseudonym_and_no_number(tmp_path: Path) -> None:
    said: list[str] = []
    settings = settings_in(tmp_path)
    numbers = CallerNumbers(settings, said.append)
    told = numbers.of(plan(), invite())
    assert told is not None
    keys = load_caller_keys(settings.caller_keys_path, make=False)
    assert (told.pseudonym, told.key_id) == keys.pseudonym(NUMBER)
    assert told.sealed == "", "no call-back keeps numbers here"
    assert "98765432" not in repr(told)
    out = numbers.of(plan(Direction.OUTBOUND, dialled="01098765432"), invite("<sip:1001@x>"))
    assert out is not None
    assert out.pseudonym == told.pseudonym, "whoever is called is the caller of an outgoing call"
    assert said == [""]


def test_of_whom_it_is_told_nothing(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    numbers = CallerNumbers(settings, lambda _: None)
    assert numbers.of(plan(), invite()) is not None, "control"
    assert numbers.of(plan(Direction.INTERNAL), invite()) is None
    assert numbers.of(plan(spared="relay_service"), invite()) is None
    for headers in (
        invite("<sip:anonymous@anonymous.invalid>"),
        invite("<sip:01098765432@pbx>", "Privacy: id"),
        invite("<sip:1002@pbx>"),
        invite("<sip:15881234@pbx>"),
    ):
        assert numbers.of(plan(), headers) is None
    (tmp_path / "off").mkdir()
    off = settings_in(tmp_path / "off", "[privacy]\nfind_by_number = false\n")
    assert CallerNumbers(off, lambda _: None).of(plan(), invite()) is None
    assert not off.caller_keys_path.exists(), "no key is made"


def test_a_number_is_sealed_only_where_somebody_may_call_back(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, "[callbacks]\nkeep_number = true\n")
    numbers = CallerNumbers(settings, lambda _: None)
    told = numbers.of(plan(), invite())
    assert told is not None
    keys = load_caller_keys(settings.caller_keys_path, make=False)
    assert keys.open(told.sealed, CALL) == NUMBER
    nobody = numbers.of(dataclasses.replace(plan(), call_back=None), invite())
    assert nobody is not None
    assert nobody.sealed == ""


def test_keys_that_cannot_be_used_cost_the_pseudonym_and_are_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    settings = settings_in(tmp_path)
    numbers = CallerNumbers(settings, said.append)
    numbers.look_at_keys()
    settings.caller_keys_path.chmod(0o644)
    os.utime(settings.caller_keys_path, ns=(1, 1))
    for _ in range(3):
        assert numbers.of(plan(), invite()) is None
    settings.caller_keys_path.chmod(0o600)
    os.utime(settings.caller_keys_path, ns=(2, 2))
    assert numbers.of(plan(), invite()) is not None
    assert [bool(sentence) for sentence in said] == [False, True, False]


def test_doctor_says_whether_the_keys_can_be_used(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    assert "made at the first start" in check_pseudonyms(settings)
    load_caller_keys(settings.caller_keys_path)
    assert "1 key;" in check_pseudonyms(settings)
    settings.caller_keys_path.chmod(0o644)
    with pytest.raises(SetupError, match="chmod 600"):
        check_pseudonyms(settings)
    (tmp_path / "off").mkdir()
    off = settings_in(tmp_path / "off", "[privacy]\nfind_by_number = false\n")
    assert check_pseudonyms(off).startswith("off")


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("", []),
        ("[retention]\ncalls_days = 30\n", ["calls_days = 30", "events_days = 365"]),
        ("[retention]\ncalls_days = 30\n[privacy]\nfind_by_number = false\n", []),
        ("[retention]\ncalls_days = 60\nevents_days = 60\nalerts_days = 60\n", []),
        (
            "[retention]\ncalls_days = 60\nevents_days = 60\nalerts_days = 60\n"
            "[recording]\nenabled = true\nretention_days = 90\n",
            ["recording.retention_days = 90"],
        ),
    ],
)
def test_doctor_says_what_is_kept_and_found_by_no_number(
    tmp_path: Path, toml: str, said: list[str]
) -> None:
    sentence = kept_beyond_calls(settings_in(tmp_path, toml))
    assert bool(sentence) == bool(said)
    assert all(one in sentence for one in said)
