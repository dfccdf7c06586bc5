"""Who is on duty, in which order they are asked, and the sentences about a table that is wrong."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callshield.errors import ConfigurationError
from callshield.settings import load_settings
from callshield.settings_teams import DAYS, ShiftSettings, TeamSettings, hours
from notifier.rota import Teams, covers, duty, on_duty
from tests.escalation_kit import PHONE, settings

MONDAY = 16  # of November 2026


def at(day: int, clock: str) -> datetime:
    hour, minute = clock.split(":")
    return datetime(2026, 11, MONDAY + day, int(hour), int(minute))  # noqa: DTZ001 (wall clock)


def shift(span: str, *days: str) -> ShiftSettings:
    return ShiftSettings.model_validate(
        {"supervisors": ["a"], "hours": span, "days": list(days or DAYS)}
    )


@pytest.mark.parametrize(
    ("span", "days", "day", "clock", "runs"),
    [
        ("09:00-18:00", ["mon"], 0, "09:00", True),
        ("09:00-18:00", ["mon"], 0, "17:59", True),
        ("09:00-18:00", ["mon"], 0, "18:00", False),
        ("09:00-18:00", ["mon"], 1, "12:00", False),
        ("22:00-06:00", ["fri"], 4, "23:30", True),
        ("22:00-06:00", ["fri"], 5, "05:59", True),
        ("22:00-06:00", ["fri"], 5, "06:00", False),
        ("22:00-06:00", ["fri"], 4, "03:00", False),
        ("22:00-06:00", ["sun"], 0, "01:00", True),  # from Sunday into Monday
        ("00:00-24:00", ["wed"], 2, "23:59", True),
        ("00:00-24:00", ["wed"], 3, "00:00", False),
    ],
)
def test_a_shift_runs_from_to_also_over_midnight(
    span: str, days: list[str], day: int, clock: str, runs: bool
) -> None:
    assert covers(shift(span, *days), at(day, clock)) is runs


@given(st.integers(0, 1439), st.integers(0, 1439), st.sets(st.sampled_from(DAYS), min_size=1))
def test_a_shift_and_its_complement_share_the_week(begin: int, end: int, days: set[str]) -> None:
    """Every minute of a week of daily shifts is in exactly one of the two halves of the day."""
    if begin == end:
        return
    one, other = (f"{b // 60:02}:{b % 60:02}" for b in (begin, end))
    first, second = shift(f"{one}-{other}"), shift(f"{other}-{one}")
    for day in range(7):
        for minute in (0, begin, end, (begin - 1) % 1440, (end - 1) % 1440, 720):
            now = at(day, f"{minute // 60}:{minute % 60}")
            assert covers(first, now) is not covers(second, now)


@pytest.mark.parametrize(
    "span", ["", "9:00-18:00", "09:00", "09:00-25:00", "09:00-24:30", "09:00-09:00", "24:00-06:00"]
)
def test_hours_that_are_none_are_refused(span: str) -> None:
    with pytest.raises(ValueError, match="hours"):
        hours(span)


def test_only_who_is_on_duty_is_asked_and_a_gap_means_the_whole_team() -> None:
    teams = Teams(
        settings(
            north={
                "shifts": [
                    {"supervisors": ["b"], "hours": "09:00-18:00", "days": ["mon"]},
                    {"supervisors": ["c", "b"], "hours": "12:00-20:00", "days": ["mon"]},
                ]
            }
        )
    )
    north = teams.named("north")
    assert on_duty(north, at(0, "10:00")) == ("b",)
    assert on_duty(north, at(0, "13:00")) == ("b", "c")
    assert on_duty(north, at(0, "19:00")) == ("c", "b")
    assert on_duty(north, at(1, "10:00")) == ("a", "b", "c")
    assert duty(north, at(0, "10:00"), "abc", {}).off == ("a", "c")


def test_connected_then_free_then_the_language_then_the_rotation() -> None:
    table = {"order": "fair", "languages": {"a": ["ko"], "b": ["ko", "en"]}}
    north = Teams(settings(north=table)).named("north")
    now = at(0, "10:00")
    assert duty(north, now, "abc", {}).connected == ("a", "b", "c")
    assert duty(north, now, "abc", {"a": 2.0, "c": 1.0}).connected == ("b", "c", "a")
    # c has no entry: all languages.
    assert duty(north, now, "abc", {}, "en").connected == ("b", "c", "a")
    assert duty(north, now, "abc", {}, "detect").connected == ("a", "b", "c")
    assert duty(north, now, "abc", {}, "en", busy="b").connected == ("c", "a", "b")
    assert duty(north, now, "c", {}).connected == ("c",)
    assert duty(north, now, "c", {}).others == ("a", "b")


def test_a_fixed_order_is_the_list() -> None:
    north = Teams(settings()).named("north")
    assert duty(north, at(0, "10:00"), "cba", {"a": 9.0}).connected == ("a", "b", "c")


def test_a_supervisor_sees_the_own_team_and_agents_without_one_managers_see_all() -> None:
    teams = Teams(settings())
    assert teams.hidden_from("a") == {"1002"}
    assert teams.hidden_from("d") == {"1001"}
    assert teams.hidden_from("m") == frozenset()
    assert teams.hidden_from("") == frozenset()
    assert teams.hidden_from("somebody who left") == {"1001", "1002"}
    assert [team.name for team in teams.all()] == ["north", "south", ""]


BASE = f"""
[agents.1001]
uri = "{PHONE}"
team = "north"
[supervisors.a]
uri = "{PHONE}"
[supervisors.m]
uri = "{PHONE}"
role = "manager"
[teams.north]
supervisors = ["a"]
"""


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        (BASE.replace('supervisors = ["a"]', 'supervisors = ["x"]'), "(file)", "[supervisors.x]"),
        (BASE + 'manager = "a"', "(file)", "teams.north.manager"),
        (BASE.replace('team = "north"', 'team = "nord"'), "(file)", "[teams.nord]"),
        (BASE + "shifts = [{supervisors = ['a'], hours = '9-18'}]", "teams.north.shifts.0.hours",
         'hours like "09:00-18:00"'),
        (BASE + "shifts = [{supervisors = ['m']}]", "teams.north", "m among the team's"),
        (BASE + "shifts = [{supervisors = ['a'], days = ['Monday']}]",
         "teams.north.shifts.0.days.0", "'mon'"),
        (BASE + "next_after_s = 100", "teams.north", "shorter than limit_s"),
        (BASE + "next_after = 100", "teams.north.next_after", "did you mean next_after_s"),
        (BASE + "order = 'random'", "teams.north.order", "'fixed' or 'fair'"),
        (BASE + "[teams.north.policy]\nhelp = 'nobody'", "teams.north.policy.help", "'in_turn'"),
        (BASE + "[teams.north.policy.end_after_warnings]\ncough = 1",
         "teams.north.policy.end_after_warnings.cough.[key]", "'profanity'"),
        (BASE + "[teams.north.policy]\nhide_end = true", "teams.north.policy.hide_end",
         "a known key"),
    ],
)  # fmt: skip
def test_a_fault_in_the_tables_is_a_sentence(
    tmp_path: Path, text: str, key: str, expected: str
) -> None:
    path = tmp_path / "callshield.toml"
    path.write_text(BASE)
    load_settings(path)
    path.write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        load_settings(path)
    [fault] = raised.value.faults
    assert fault[1] == key
    assert expected in fault[3]


def test_every_key_of_a_team_is_described() -> None:
    models: list[Any] = [TeamSettings, ShiftSettings]
    for model in models:
        assert all(field.description for field in model.model_fields.values())
