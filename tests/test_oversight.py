"""Totals for the workers' representative: no group below five, and none by subtraction."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from notifier.oversight import MIN_AGENTS, figures


def totals(sizes: dict[str, int], without_group: int = 0) -> dict[str, int]:
    group_of, calls = {}, []
    for group, size in sizes.items():
        for number in range(size):
            group_of[f"{group}{number}"] = group
            calls.append({"agent_id": f"{group}{number}", "peak_level": 1, "end_reason": "x"})
    calls += [
        {"agent_id": f"?{number}", "peak_level": 1, "end_reason": "x"}
        for number in range(without_group)
    ]
    return {item.group: len(item.agents) for item in figures(calls, [], group_of)}


def test_small_groups_are_folded_together() -> None:
    assert totals({"a": 9, "b": 4, "c": 3}) == {"a": 9, "other": 7}


def test_one_small_group_takes_the_smallest_with_it() -> None:
    assert totals({"a": 9, "b": 6, "c": 2}) == {"a": 9, "other": 8}
    assert totals({"a": 9, "b": 6}, without_group=1) == {"a": 9, "other": 7}


def test_too_few_altogether_are_not_shown() -> None:
    assert totals({"a": 2, "b": 2}) == {}
    assert totals({"a": 4}) == {}


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 12)), st.integers(0, 12))
def test_nothing_shown_and_nothing_hidden_is_small(sizes: dict[str, int], rest: int) -> None:
    shown = totals(sizes, rest)
    assert all(size >= MIN_AGENTS for size in shown.values())
    hidden = sum(sizes.values()) + rest - sum(shown.values())
    assert hidden == 0 or not shown, "what is hidden is no remainder of what is shown"


def test_people_are_those_who_had_calls() -> None:
    group_of = {str(number): "a" for number in range(20)}
    one = [{"agent_id": "1", "peak_level": 3, "end_reason": ""}]
    assert figures(one * 50, [], group_of) == []
