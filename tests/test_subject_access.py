"""What a caller is given: by the inventory alone, and nobody of the staff is named in it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, insert

from callshield.messages import (
    AlertAcknowledged,
    CallAnswered,
    CallEnding,
    CallStarted,
    CrisisHint,
    Event,
    HelperChanged,
    NoticeFinished,
    RestChanged,
)
from callshield.messages_care import AgentSaid
from callshield.messages_notice import PromptStamp
from callshield.privacy_inventory import inventory
from callshield.settings import load_settings
from notifier.database import Place, transact
from notifier.live import Entry
from notifier.schema import metadata, tokens
from notifier.store import Store
from notifier.subject_access import NEUTRAL, Neutral, collect
from notifier.subject_text import kept_lines, line, page, readme
from notifier.subject_words import (
    CATEGORIES,
    DAYS,
    EVENTS,
    KEPT,
    LEVELS,
    README,
    STARTED,
    VALUES,
    WORDS,
)
from notifier.tokens import token_row
from tests.notifier_kit import write_config
from tests.store_kit import T0, fill, story

CONSOLE = Path(__file__).parents[1] / "notifier" / "console"
CALL = "a" * 32
SUPERVISORS = """
[supervisors.kim-7]
uri = "sip:77@192.0.2.9"
"""


def told() -> list[Event]:
    """A call in which much happens, all of it by somebody with an id."""
    first, *others = story(T0, CALL)
    stamp = PromptStamp(
        prompt_id="recording",
        version="3",
        sha256="0" * 64,
        started_ts=T0,
        finished_ts=T0 + 1,
        complete=True,
        language="ko",
        purposes=["recording", "quality"],
    )
    more: list[Event] = [
        CallAnswered(ts=T0, call_id=CALL, agent_id="1001", phone_user_agent="Yealink T54 of 1001"),
        NoticeFinished(
            ts=T0 + 1, call_id=CALL, agent_id="1001", source="played", prompts=[stamp], tapped=True
        ),
        HelperChanged(
            ts=T0 + 2,
            call_id=CALL,
            agent_id="1001",
            state="joined",
            role="supervisor",
            by="supervisor:0123456789abcdef",
            helper_id="kim-7",
        ),
        CrisisHint(
            ts=T0 + 2, call_id=CALL, detail="heard of 1001", words=["1001번 상담사 김민수씨 살려줘"]
        ),
        CallEnding(ts=T0 + 3, call_id=CALL, agent_id="1001", by="agent:console"),
    ]
    assert isinstance(first, CallStarted)
    started = msgspec.structs.replace(first, pbx_channel="PJSIP/1001-0001", pbx_call_id="1001.77")
    return [started, *more, *others]


async def past(place: Place) -> None:
    await fill(place, told())
    store = Store(place)
    await store.take()
    number = await store.last_event_id()
    own: list[tuple[Event, str]] = [
        (
            AgentSaid(
                ts=T0, call_id=CALL, agent_id="1001", request_id="1" * 32, kind="note",
                choice="threat",
            ),
            "1001",
        ),
        (
            RestChanged(
                ts=T0, agent_id="1001", call_id=CALL, state="resting", until_ts=T0, reason="level"
            ),
            "1001",
        ),
        (
            AlertAcknowledged(
                ts=T0, alert_id="b" * 32, call_id=CALL, by="0123456789abcdef",
                supervisor_id="kim-7",
            ),
            "1001",
        ),
    ]  # fmt: skip
    entries = [Entry(event, audience) for event, audience in own]
    for entry in entries:
        entry.event_id = number = number + 1
    await store.write(entries)
    await store.close()

    def put(connection: Connection) -> None:
        _, row = token_row("supervisor", "김민수", "", 1.0, 2e9, "kim-7")
        connection.execute(insert(tokens).values(**{**row, "token_id": "0123456789abcdef"}))

    transact(place, put)


async def given_of(place: Place, folder: Path, language: str = "ko") -> dict[str, Any]:
    settings = load_settings(write_config(folder, 8080, SUPERVISORS))
    return transact(place, lambda c: collect(c, settings, [CALL], language=language))


HIDDEN = ("1001", "kim-7", "김민수", "0123456789abcdef", "Yealink", "PJSIP", "resting", "note")


@pytest.mark.parametrize("language", ["ko", "en", "zh", "ja"])
async def test_nobody_of_the_staff_is_named_wherever_he_stands(
    place: Place, tmp_path: Path, language: str
) -> None:
    await past(place)
    held = await given_of(place, tmp_path, language)
    (call,) = held["calls"]
    text = json.dumps(held, ensure_ascii=False) + page(call, language, "Asia/Seoul", [])
    for hidden in HIDDEN:
        assert hidden not in text, hidden
    agent, staff = NEUTRAL[language]
    kinds = {event["type"]: event for event in call["events"]}
    assert kinds["call.started"]["agent_id"] == agent
    assert kinds["call.started"]["pbx_call_id"] == f"{agent}.77"
    assert kinds["helper.changed"]["helper_id"] == staff
    assert kinds["crisis.hint"]["words"] == [f"{agent}번 상담사 {staff}씨 살려줘"]
    assert kinds["call.ending"]["by"] == "agent:console", "a role"
    assert call["rows"]["calls"][0]["agent_id"] == agent
    assert call["call_id"] == CALL, "ids of ours are whole"
    assert call["events_about_others"] == 2


async def test_the_control_of_that_finds_them_where_nothing_is_taken_out(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: without the look through texts, and without the inventory's word."""
    await past(place)
    monkeypatch.setattr(Neutral, "text", lambda self, value: value)
    text = json.dumps(await given_of(place, tmp_path), ensure_ascii=False)
    assert "김민수" in text
    assert "1001번" in text
    assert "kim-7" not in text, "by the inventory"


async def test_what_the_inventory_does_not_know_is_given_to_nobody(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody forgot a field, a message, a table: it is not in the answer."""
    await past(place)
    whole = await given_of(place, tmp_path)
    known = inventory()
    calls = known.tables["calls"]
    fields = {name: one for name, one in calls.fields.items() if name != "peak_level"}
    less = dataclasses.replace(
        known,
        tables={
            **{name: one for name, one in known.tables.items() if name != "alerts"},
            "calls": dataclasses.replace(calls, fields=fields),
        },
        messages={name: one for name, one in known.messages.items() if name != "risk.changed"},
    )
    monkeypatch.setattr("notifier.subject_access.inventory", lambda: less)
    part = await given_of(place, tmp_path)
    (one,), (other,) = whole["calls"], part["calls"]
    assert "peak_level" in one["rows"]["calls"][0]
    assert "peak_level" not in other["rows"]["calls"][0]
    assert "alerts" in one["rows"]
    assert "alerts" not in other["rows"]
    assert "risk.changed" in {event["type"] for event in one["events"]}
    assert "risk.changed" not in {event["type"] for event in other["events"]}


async def test_every_row_of_a_given_table_is_in_the_answer(place: Place, tmp_path: Path) -> None:
    """One row in each table that has a call's id: those that are given are there, no other is."""

    def put(connection: Connection) -> None:
        for name, table in metadata.tables.items():
            if "call_id" not in table.c or name in ("events", "held_events"):
                continue
            values: dict[str, Any] = {}
            for column in table.c:
                kind = column.type.python_type
                values[column.name] = {str: f"v{column.name}", float: T0, int: 1, bool: True}[kind]
                if kind is str:
                    length = getattr(column.type, "length", None) or 64
                    values[column.name] = values[column.name][:length]
            for listed in ("categories", "reasons", "rules", "purposes"):
                if listed in values:
                    values[listed] = "[]"
            connection.execute(insert(table).values(**{**values, "call_id": CALL}))

    transact(place, put)
    held = await given_of(place, tmp_path)
    (call,) = held["calls"]
    known = inventory()
    given = {
        name
        for name, holding in known.tables.items()
        if holding.given and "call_id" in holding.fields and name not in ("events", "held_events")
    }
    assert set(call["rows"]) == given
    for name in given:
        (row,) = call["rows"][name]
        for column, category in known.tables[name].fields.items():
            if category.given != "nested":
                assert (column in row) == (category.given != "no"), (name, column)


@given(
    st.text(alphabet="ab1 7.가나", max_size=40),
    st.sampled_from(["1", "17", "a7", "가나", "b b"]),
)
def test_an_id_goes_where_it_is_a_word_and_only_there(text: str, name: str) -> None:
    neutral = Neutral("en", [name], [])
    found = neutral.text(text)
    if len(name) == 1:
        assert found == text, "one sign stands everywhere"
    elif name not in text:
        assert found == text
    elif name.isascii():
        assert f" {name} " not in f" {found} ".replace("agent", "")
    else:
        assert name not in found


# ---------------------------------------------------------------------------------------- words


def test_every_event_that_is_given_has_its_words_in_four_languages() -> None:
    known = inventory()
    given = {name for name, one in known.messages.items() if one.given and "." in name}
    for language, words in EVENTS.items():
        assert set(words) == given, language
    same = [EVENTS, STARTED, LEVELS, CATEGORIES, WORDS, KEPT, DAYS, README, NEUTRAL, VALUES]
    assert all(set(one) == {"ko", "en", "zh", "ja"} for one in same)
    assert len({frozenset(words) for words in WORDS.values()}) == 1
    assert len({frozenset(words) for words in KEPT.values()}) == 1


@pytest.mark.parametrize("language", ["ko", "en", "zh", "ja"])
async def test_a_person_can_read_it(place: Place, tmp_path: Path, language: str) -> None:
    await past(place)
    held = await given_of(place, tmp_path, language)
    text = page(held["calls"][0], language, "Asia/Seoul", ["caller.wav"], "written down")
    assert "2023-11-15 07:13:20 KST" in text
    assert LEVELS[language][2] in text
    said = VALUES[language]
    purposes = ", ".join(said.get(one, one) for one in ("recording", "quality"))
    assert f"recording 3 ({purposes})" in text
    assert "caller_hangup" not in text
    times = [row[:19] for row in text.splitlines() if row.startswith("20")][1:]
    assert times == sorted(times)
    assert "caller.wav" in text
    assert text.rstrip().endswith("written down")
    for event in held["calls"][0]["events"]:
        if event["type"] == "call.started":
            sentence = STARTED[language][event["direction"]]
        else:
            sentence = EVENTS[language][event["type"]]
        assert sentence in line(event, language, "UTC")
    kept = kept_lines({"calls": 365, "words": 30, "hearing": None}, language)
    about = readme(language, made="now", reference="R-1", calls=1, kept=kept)
    assert "R-1" in about
    assert DAYS[language].format(365) in about
    assert "{" not in about


@pytest.mark.parametrize("language", ["ko", "en", "zh", "ja"])
def test_a_call_that_was_made_is_not_said_to_have_come_in(language: str) -> None:
    """Nor is one between two that nobody told the direction of."""
    said = {
        way: line({"type": "call.started", "direction": way}, language, "UTC")
        for way in ("inbound", "outbound", "internal", "")
    }
    assert STARTED[language]["outbound"] in said["outbound"]
    assert STARTED[language]["inbound"] not in said["outbound"]
    assert STARTED[language]["inbound"] in said["inbound"]
    assert EVENTS[language]["call.started"] in said["internal"]
    assert said["internal"] == said[""]
    if language == "ja":
        assert "着信" not in said["outbound"] + said["internal"]


def test_chinese_words_are_those_of_the_console_and_the_evidence() -> None:
    shown = (CONSOLE / "strings.zh.js").read_text(encoding="utf-8")
    ours = repr([EVENTS["zh"], VALUES["zh"], WORDS["zh"], README["zh"], STARTED["zh"]])
    for theirs, not_this in (("主管", "管理人员"), ("证据资料", "证据材料"), ("客户", "来电者")):
        assert theirs in shown
        assert theirs in ours
        assert not_this not in shown + ours
    assert NEUTRAL["zh"][1] == "主管"
