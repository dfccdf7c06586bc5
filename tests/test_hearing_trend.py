"""The noise trend: of five agents and more, and nothing of one by any subtraction."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier import hearing_trend
from notifier.hearing_page import text
from notifier.hearing_trend import Dose, report, shifts
from notifier.weekly import FEWEST, REST, parts

HOUR = 3600.0


def dose(agent_id: str, pct: float = 20.0, ts: float = 1000.0, **changed: Any) -> Dose:
    fields: dict[str, Any] = {
        "heard_s": 4 * HOUR,
        "lex_8h_dba": 76.0,
        "estimate": True,
        **changed,
    }
    return Dose(agent_id=agent_id, ts=ts, dose_pct=pct, **fields)


def team(name: str, size: int) -> dict[str, str]:
    return {f"{name}{n}": name for n in range(size)}


# ------------------------------------------------------------------------------------- shifts


def test_of_a_shift_the_last_word_counts() -> None:
    said = [dose("a", 5.0, 1000.0, heard_s=100.0), dose("a", 9.0, 5000.0, heard_s=900.0)]
    assert shifts(said, 0.0, 1e6) == [said[1]]
    assert shifts(reversed(said), 0.0, 1e6) == [said[1]]


def test_a_night_or_a_meter_that_began_anew_ends_a_shift() -> None:
    evening = dose("a", 9.0, 1000.0, heard_s=900.0)
    morning = dose("a", 9.5, 1000.0 + 9 * HOUR, heard_s=950.0)
    lost = dose("a", 1.0, 1000.0 + 9 * HOUR + 60, heard_s=10.0)
    assert shifts([evening, morning, lost], 0.0, 1e6) == [evening, morning, lost]


def test_a_shift_over_midnight_on_sunday_is_one_weeks() -> None:
    before, after = dose("a", 5.0, 990.0, heard_s=1.0), dose("a", 6.0, 1010.0, heard_s=2.0)
    assert shifts([before, after], 0.0, 1000.0) == []
    assert shifts([before, after], 1000.0, 2000.0) == [after]


def test_who_heard_nothing_had_no_shift() -> None:
    assert shifts([dose("a", 0.0, heard_s=0.0)], 0.0, 1e6) == []


# ------------------------------------------------------------------------------------ figures


def test_a_group_of_five_is_shown_and_one_of_four_is_not() -> None:
    groups = team("sales", 5) | team("care", 4)
    found = [dose(agent) for agent in groups]
    assert [row["group"] for row in report(found, groups, 80.0)["rows"]] == [REST]
    groups = team("sales", 5) | team("care", 5)
    body = report([dose(agent) for agent in groups], groups, 80.0)
    assert [(row["group"], row["agents"]) for row in body["rows"]] == [("care", 5), ("sales", 5)]
    assert body["total"]["agents"] == 10
    assert report([dose(agent) for agent in team("care", 4)], groups, 80.0) == {
        "threshold_pct": 80.0,
        "rows": [],
        "total": None,
    }


def test_levels_are_averaged_by_energy_and_doses_by_the_middle_one() -> None:
    groups = team("a", 5)
    levels = [70.0, 70.0, 70.0, 70.0, 80.0]
    found = [
        dose(agent, pct, lex_8h_dba=level)
        for agent, level, pct in zip(groups, levels, (1, 2, 3, 4, 99), strict=True)
    ]
    [row] = report(found, groups, 80.0)["rows"]
    assert row["mean_lex_8h_dba"] == pytest.approx(74.5, abs=0.05)
    assert row["median_dose_pct"] == 3
    assert row["heard_hours"] == 20.0


def test_one_agent_over_the_threshold_is_not_counted_out() -> None:
    """Nor is the one who is not, nor by the total, of which the other rows are known."""
    groups = team("a", 6) | team("b", 12)
    found = [dose(agent, 90.0 if agent == "a0" else 20.0) for agent in groups]
    body = report(found, groups, 80.0)
    assert [row["agents_warned"] for row in body["rows"]] == [None, 0]
    assert body["total"]["agents_warned"] is None
    # Control: five of ten are counted, nobody of twelve too, and then the total is.
    groups = team("a", 10) | team("b", 12)
    found = [
        dose(agent, 90.0 if agent in {f"a{n}" for n in range(5)} else 20.0) for agent in groups
    ]
    body = report(found, groups, 80.0)
    assert [row["agents_warned"] for row in body["rows"]] == [5, 0]
    assert body["total"]["agents_warned"] == 5


shift = st.builds(
    dose,
    st.integers(0, 30).map(lambda n: f"g{n}"),
    st.floats(0, 300),
    st.floats(0, 5e5),
    lex_8h_dba=st.floats(40, 95),
    estimate=st.booleans(),
)


def small(count: int) -> bool:
    return 0 < count < FEWEST


@given(
    st.lists(shift, max_size=80),
    st.dictionaries(
        st.integers(0, 30).map(lambda n: f"g{n}"), st.sampled_from(["", "a", "b", "c"])
    ),
)
def test_no_figure_and_no_difference_is_of_one_to_four(
    found: list[Dose], groups: dict[str, str]
) -> None:
    body = report(found, groups, 80.0)
    rows, total = body["rows"], body["total"]
    for row in rows:
        assert row["agents"] >= FEWEST
        for column in hearing_trend._COUNTS:
            if row[column] is not None:
                assert not small(row[column])
                assert not small(row["agents"] - row[column])
    if total is None:
        assert not rows
        return
    assert total["agents"] == sum(row["agents"] for row in rows) == len({d.agent_id for d in found})
    for column in hearing_trend._COUNTS:
        if total[column] is not None:
            # The rows tell the total anyway: it adds nothing.
            assert total[column] == sum(row[column] for row in rows)
    assert not {"max", "min", "agent_id"} & set(total)


def test_no_agent_id_is_in_it() -> None:
    groups = {f"agent-{n}": "sales" for n in range(7)}
    said = json.dumps(report([dose(agent) for agent in groups], groups, 80.0))
    assert "agent-" not in said


def test_the_weekly_report_for_everybody_has_no_hearing_in_it() -> None:
    kept = json.dumps({"week": "2026-W47", "rows": [], "total": None, "hearing": {"rows": []}})
    everybody, hearing = parts(kept)
    assert everybody == {"week": "2026-W47", "rows": [], "total": None}
    assert hearing == {"week": "2026-W47", "rows": []}
    assert parts('{"week": "2026-W01"}')[1] is None, "a report of an older version"


@pytest.mark.parametrize("language", ["ko", "en", "zh", "ja"])
def test_the_page_says_what_it_does_not_show(language: str) -> None:
    groups = team("sales", 6) | team("care", 5)
    found = [dose(agent, 90.0 if agent == "sales0" else 20.0) for agent in groups]
    week = {"week": "2026-W47", **report(found, groups, 80.0)}
    said = text([week], language)
    assert "2026-W47" in said
    assert "sales" in said
    hidden = {"ko": "비공개", "en": "not shown", "zh": "不公开", "ja": "非表示"}[language]
    assert said.count(hidden) == 2, "the row and the total"
    assert text([], language).strip()
    assert text([{"week": "2026-W48", "threshold_pct": 80, "rows": [], "total": None}], language)
