"""The weekly report: figures of five or more, whatever anybody subtracts from what."""

from __future__ import annotations

import json
from collections import Counter
from itertools import chain, combinations
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier import weekly
from notifier.weekly import FEWEST, REST, CallFact, Event, Withheld
from notifier.weekly_page import page, shadow_text, text

groups = st.dictionaries(
    st.integers(1, 40).map(lambda n: f"a{n}"),
    st.sampled_from(["", "a", "b", "c", "d"]),
    max_size=40,
)


def fact(agent_id: str, **changed: Any) -> CallFact:
    whole: dict[str, Any] = {
        "duration_s": 600.0,
        "peak_level": 0,
        "ended_by_person": False,
        "turned_bad": False,
    }
    return CallFact(agent_id=agent_id, **{**whole, **changed})


def team(name: str, size: int, first: int = 0) -> dict[str, str]:
    return {f"{name}{first + n}": name for n in range(size)}


def test_weeks_begin_on_monday_where_the_agents_are() -> None:
    begin, end = weekly.bounds("2026-W47", "Asia/Seoul")
    assert end - begin == 7 * 86_400
    assert weekly.week_of(begin, "Asia/Seoul") == "2026-W47"
    assert weekly.week_of(begin - 1, "Asia/Seoul") == "2026-W46"
    assert weekly.week_of(begin, "UTC") == "2026-W46"
    # The first days of January may belong to the last week of the year before.
    assert weekly.week_of(weekly.bounds("2026-W53", "UTC")[1] - 1, "UTC") == "2026-W53"
    with pytest.raises(ValueError, match="week"):
        weekly.bounds("2025-W53", "UTC")


# --------------------------------------------------------------------------- nobody is singled out


@given(groups)
def test_no_sum_or_difference_of_rows_and_total_is_of_fewer_than_five(
    agents: dict[str, str],
) -> None:
    row_of = weekly.rows_of(agents)
    sizes = Counter(row_of.values())
    assert set(row_of) in (set(), set(agents)), "the total leaves nobody out, or there is none"
    rows = list(sizes)
    for chosen in chain.from_iterable(combinations(rows, n) for n in range(1, len(rows) + 1)):
        together = sum(sizes[row] for row in chosen)
        assert together >= FEWEST
        left = sum(sizes.values()) - together
        assert left == 0 or left >= FEWEST
    assert bool(row_of) == (len(agents) >= FEWEST)


@given(groups)
def test_a_group_is_shown_whole_or_not_by_itself(agents: dict[str, str]) -> None:
    row_of = weekly.rows_of(agents)
    for group in set(agents.values()):
        members = {row_of[agent] for agent in row_of if agents[agent] == group}
        assert len(members) <= 1
        if members and members != {REST}:
            assert members == {group}
            assert sum(g == group for g in agents.values()) >= FEWEST


def test_one_small_group_takes_the_smallest_large_one_with_it() -> None:
    """Negative control of the rule: 4 agents, alone under "others", would be total minus rows."""
    agents = team("big", 9) | team("mid", 5) | team("tiny", 4)
    row_of = weekly.rows_of(agents)
    assert Counter(row_of.values()) == {"big": 9, REST: 9}


def test_small_groups_that_are_five_together_leave_the_large_ones_alone() -> None:
    agents = team("big", 6) | team("one", 2) | team("two", 3)
    assert Counter(weekly.rows_of(agents).values()) == {"big": 6, REST: 5}


def test_four_agents_are_no_report() -> None:
    agents = team("big", 4)
    body = weekly.report("2026-W47", [fact(a) for a in agents], {}, agents)
    assert body == {"week": "2026-W47", "rows": [], "total": None}


def test_who_took_no_calls_does_not_fill_a_group_up() -> None:
    agents = team("big", 9)
    calls = [fact("big0"), fact("big1")]
    assert weekly.report("2026-W47", calls, {}, agents)["rows"] == []


# -------------------------------------------------------------------------------------- figures


def test_figures_of_a_week() -> None:
    agents = team("desk", 5) | team("few", 2)
    calls = [fact(a) for a in agents]
    calls.append(fact("desk0", peak_level=3, ended_by_person=True, turned_bad=True))
    calls.append(fact("desk1", peak_level=2, help_after_s=(8.0, None)))
    calls.append(fact("desk2", help_after_s=(30.0,)))
    body = weekly.report("2026-W47", calls, {"desk0": 1800.0, "away": 900.0}, agents)
    (row,) = body["rows"]
    assert row["group"] == REST, "with a group of two beside it, five are not shown alone"
    del row["group"]
    assert row == body["total"]
    assert row == {
        "agents": 7,
        "calls": 10,
        "hours": 1.67,
        "calls_by_level": [8, 0, 1, 1],
        "ended_by_person": 1,
        "rest_hours": 0.5,
        "help_asked": 3,
        "help_unanswered": 1,
        "help_median_s": 8.0,
        "help_p90_s": 30.0,
        "bad_after_failed_hand_over": 1,
    }
    told = json.dumps(body)
    assert not any(agent in told for agent in agents), "no agent's id is in it"


def test_shadow_figures_only_of_a_group_that_is_shown() -> None:
    agents = team("trial", 6) | team("old", 6)
    kept = Withheld(2, ["shouting"], ["sustained_effort"])
    calls = [fact(a) for a in agents]
    calls += [fact("trial0", withheld=[kept, kept], verdict="refuted")]
    body = weekly.report("2026-W47", calls, {}, agents, ["trial"])
    old, trial = body["rows"]
    assert "shadow" not in old
    assert trial["shadow"] == {
        "alerts": 2,
        "alerts_per_day": 0.29,
        "by_level": {"2": 2},
        "by_category": {"shouting": 2},
        "by_rule": {"sustained_effort": 2},
        "verdicts": {"refuted": 1},
    }
    few = weekly.report(
        "2026-W47", calls, {}, {**agents, **dict.fromkeys(team("trial", 3), "x")}, ["trial"]
    )
    assert "shadow" not in json.dumps(few)


def test_rest_is_counted_from_its_first_moment_also_when_it_became_longer() -> None:
    changes = [
        ("1", 0.0, "resting"),
        ("1", 300.0, "resting"),
        ("2", 10.0, "over"),
        ("1", 900.0, "over"),
        ("1", 2000.0, "resting"),
    ]
    assert weekly.rest_taken(changes) == {"1": 900.0}


def test_only_what_comes_after_a_failed_hand_over_is_its_consequence() -> None:
    assert weekly.turned_bad([Event(1, "unreachable"), Event(2, "risk")])
    assert weekly.turned_bad([Event(2, "ending"), Event(1, "unreachable")])
    assert not weekly.turned_bad([Event(1, "risk"), Event(2, "unreachable")])
    assert not weekly.turned_bad([Event(1, "risk"), Event(2, "ending")])


# ----------------------------------------------------------------------------------------- pages


@pytest.mark.parametrize("language", ["ko", "en", "zh", "ja"])
def test_the_page_is_whole_and_fetches_nothing(language: str) -> None:
    agents = team("상담<1>", 6) | team("b", 7)
    calls = [fact(a, peak_level=n % 4) for n, a in enumerate(agents)]
    body = weekly.report("2026-W47", calls, {}, agents)
    made = page(body, language)
    assert "상담&lt;1&gt;" in made
    assert "상담<1>" not in made
    assert "http" not in made
    svg = made[made.index("<svg") : made.index("</svg>") + 6]
    bars = ElementTree.fromstring(svg).findall("rect")
    assert len(bars) == 8
    widths = [float(bar.get("width", "0")) for bar in bars]
    assert sum(widths[4:]) == pytest.approx(560 * 6 / 7, abs=1)
    assert "13" in text(body, language)
    empty = weekly.report("2026-W47", [], {}, {})
    assert "<svg" not in page(empty, language)
    assert text(empty, language)


def test_the_shadow_text_says_that_there_is_nothing_to_show() -> None:
    assert "5 agents" in shadow_text("2026-W47", [])
