"""The monthly draw: nobody can choose, before or after; months, marks, small populations."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifier import quality
from notifier.quality import Finished, Pick, Rules, Told

MONTH = "2026-11"
SECRET = bytes(range(32))
BEGIN, END = quality.bounds(MONTH, "Asia/Seoul")
RULES = Rules(MONTH, BEGIN, END, 3, 30.0, recorded_only=True, purpose="quality")

call_ids = st.integers(0, 2**128 - 1).map(lambda n: f"{n:032x}")
pools = st.dictionaries(call_ids, st.sampled_from(["1001", "1002", "1003"]), max_size=60)


def call(call_id: str = "0" * 32, agent_id: str = "1001", **changed: Any) -> Finished:
    whole = Finished(
        call_id=call_id,
        agent_id=agent_id,
        started_ts=BEGIN + 1000,
        answered=True,
        ended=True,
        duration_s=120.0,
        notice="played",
        peak_level=1,
        ended_by_person=False,
        recorded=True,
        marked=False,
        purposes=frozenset({"recording", "quality"}),
    )
    return replace(whole, **changed)


# -------------------------------------------------------------------------------------- months


def test_a_month_begins_at_midnight_where_the_agents_are() -> None:
    assert datetime.fromtimestamp(BEGIN, UTC).isoformat() == "2026-10-31T15:00:00+00:00"
    assert END - BEGIN == 30 * 86_400
    assert quality.month_of(BEGIN, "Asia/Seoul") == MONTH
    assert quality.month_of(BEGIN - 0.001, "Asia/Seoul") == "2026-10"
    assert quality.month_of(BEGIN, "UTC") == "2026-10"


def test_a_month_with_a_change_of_clocks_loses_no_hour() -> None:
    begin, end = quality.bounds("2026-03", "Europe/Berlin")
    assert end - begin == 31 * 86_400 - 3600
    assert quality.bounds("2026-04", "Europe/Berlin")[0] == end


@given(st.integers(2020, 2090), st.integers(1, 12), st.sampled_from(["Asia/Seoul", "UTC"]))
def test_months_follow_each_other_without_gap(year: int, month: int, zone: str) -> None:
    name = f"{year}-{month:02}"
    assert quality.MONTH.fullmatch(name)
    assert quality.bounds(name, zone)[1] == quality.bounds(quality.next_month(name), zone)[0]


@pytest.mark.parametrize("bad", ["2026-13", "2026-1", "2026", "1999-01", "2026-11x", ""])
def test_what_is_no_month(bad: str) -> None:
    assert quality.MONTH.fullmatch(bad) is None


# --------------------------------------------------------------------------------- who is drawn


@given(pools, st.integers(1, 6), st.randoms(use_true_random=False))
def test_the_order_of_the_calls_changes_nothing(
    pool: dict[str, str], per_agent: int, shuffler: Any
) -> None:
    ordered = list(pool.items())
    shuffled = ordered.copy()
    shuffler.shuffle(shuffled)
    assert quality.draw(shuffled, MONTH, SECRET, per_agent) == quality.draw(
        ordered, MONTH, SECRET, per_agent
    )
    assert quality.pool_digest(shuffled) == quality.pool_digest(ordered)


@given(pools, st.integers(1, 6))
def test_each_agent_gets_n_or_all_that_there_are(pool: dict[str, str], per_agent: int) -> None:
    picks = quality.draw(pool.items(), MONTH, SECRET, per_agent)
    had, drawn = Counter(pool.values()), Counter(pick.agent_id for pick in picks)
    assert drawn == Counter({agent: min(per_agent, n) for agent, n in had.items()})
    assert all(pool[pick.call_id] == pick.agent_id for pick in picks)
    assert len({pick.draw_id for pick in picks}) == len(picks)


@given(pools, st.integers(1, 4))
def test_leaving_a_call_out_moves_nobody_elses(pool: dict[str, str], per_agent: int) -> None:
    """To mark a call as abusive, or to add one, chooses no other call of anybody else."""
    before = quality.draw(pool.items(), MONTH, SECRET, per_agent)
    for gone in before:
        left = {call_id: agent for call_id, agent in pool.items() if call_id != gone.call_id}
        after = quality.draw(left.items(), MONTH, SECRET, per_agent)
        assert {p for p in before if p != gone} <= set(after)
        assert {p for p in after if p.agent_id != gone.agent_id} == {
            p for p in before if p.agent_id != gone.agent_id
        }


@settings(max_examples=20)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_another_secret_draws_others(one: bytes, other: bytes) -> None:
    pool = [(f"{n:032x}", "1001") for n in range(200)]
    same = quality.draw(pool, MONTH, one, 10) == quality.draw(pool, MONTH, other, 10)
    assert same == (one == other)


def test_every_call_has_the_same_chance() -> None:
    pool = [(f"{n:032x}", "1001") for n in range(20)]
    drawn: Counter[str] = Counter()
    rounds = 3000
    for n in range(rounds):
        secret = n.to_bytes(32, "big")
        drawn.update(pick.call_id for pick in quality.draw(pool, MONTH, secret, 5))
    expected = rounds * 5 / 20
    # Chi-square with 19 degrees of freedom: above 43.8 in one case of a thousand. The variance of
    # drawing without putting back is smaller by 15/19.
    chi = sum((drawn[call_id] - expected) ** 2 / expected for call_id, _ in pool) * 19 / 15
    assert chi < 43.8


def test_without_calls_nothing_is_drawn() -> None:
    assert quality.draw([], MONTH, SECRET, 3) == []


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({}, ""),
        ({"started_ts": BEGIN}, ""),
        ({"started_ts": BEGIN - 1}, "another month"),
        ({"started_ts": END}, "another month"),
        ({"answered": False}, "no whole call"),
        ({"ended": False}, "no whole call"),
        ({"notice": "internal"}, "no notice"),
        ({"notice": "skipped"}, "no notice"),
        ({"duration_s": 29.9}, "too short"),
        ({"marked": True}, "abusive"),
        ({"peak_level": 3}, "abusive"),
        ({"ended_by_person": True}, "abusive"),
        ({"recorded": False}, "not recorded"),
        ({"purposes": frozenset({"recording"})}, "the notice did not name this use"),
    ],
)
def test_which_calls_can_be_drawn(changed: dict[str, Any], why: str) -> None:
    assert quality.left_out(call(**changed), RULES) == why


# ------------------------------------------------------------------------------ done again


def whole_month(**rules: Any) -> tuple[dict[str, Finished], Told, list[tuple[str, str]]]:
    """A month as the log would tell it: nine good calls of two agents, one abusive one."""
    calls = [call(f"{n:032x}", f"100{1 + n % 2}") for n in range(9)]
    calls.append(call("f" * 32, marked=True))
    fixed = replace(RULES, **rules)
    pool = [(c.call_id, c.agent_id) for c in calls if not quality.left_out(c, fixed)]
    picks = quality.draw(pool, MONTH, SECRET, fixed.per_agent)
    seeded = {
        "ts": BEGIN - 86_400,
        "month": MONTH,
        "commitment": quality.commitment(MONTH, SECRET),
        "begin_ts": BEGIN,
        "end_ts": END,
        "per_agent": fixed.per_agent,
        "min_call_s": fixed.min_call_s,
        "recorded_only": True,
    }
    closed = {
        "ts": END + quality.GRACE_S,
        "month": MONTH,
        "secret": SECRET.hex(),
        "pool_sha256": quality.pool_digest(pool),
        "calls": len(pool),
        "drawn": len(picks),
        "purpose": fixed.purpose,
    }
    drawn = [{"draw_id": p.draw_id, "call_id": p.call_id, "agent_id": p.agent_id} for p in picks]
    return {c.call_id: c for c in calls}, Told([seeded], [closed], drawn), pool


def check(
    calls: dict[str, Finished],
    told: Told,
    pool: list[tuple[str, str]],
    kept: list[Pick] | None = None,
) -> list[str]:
    if kept is None:
        kept = quality.draw(pool, MONTH, SECRET, 3)
    return quality.check(MONTH, told, pool, kept, calls)


def test_a_good_draw_is_good() -> None:
    calls, told, pool = whole_month()
    assert len(pool) == 9
    assert check(calls, told, pool) == []


def test_a_month_of_before_the_purpose_was_asked_for_is_checked_as_it_was_drawn() -> None:
    calls, told, pool = whole_month(purpose="")
    silent = {call_id: replace(one, purposes=frozenset()) for call_id, one in calls.items()}
    closed = {name: value for name, value in told.closed[0].items() if name != "purpose"}
    assert check(silent, replace(told, closed=[closed]), pool) == []
    # Negative control: drawn since, the same calls should not have been in it.
    found = check(silent, replace(told, closed=[{**closed, "purpose": "quality"}]), pool)
    assert "did not name this use" in found[0]


def test_calls_that_were_deleted_meanwhile_are_no_fault() -> None:
    _, told, pool = whole_month()
    assert check({}, told, pool) == []


def test_each_way_of_cheating_is_seen() -> None:
    calls, told, pool = whole_month()
    kept = quality.draw(pool, MONTH, SECRET, 3)
    drawn = {pick.call_id for pick in kept}
    other = next(c for c, agent in pool if c not in drawn and agent == kept[0].agent_id)
    swapped = Pick(quality.draw_id(MONTH, SECRET, other), other, kept[0].agent_id)
    exchanged = [swapped, *kept[1:]]
    assert "in use" in check(calls, told, pool, exchanged)[0]
    as_logged = [
        {"draw_id": p.draw_id, "call_id": p.call_id, "agent_id": p.agent_id} for p in exchanged
    ]
    assert len(check(calls, replace(told, drawn=as_logged), pool, exchanged)) == 2
    # A call was kept out of the pool, and the pool's hash made to fit.
    smaller = [item for item in pool if item != pool[0]]
    closed = {**told.closed[0], "pool_sha256": quality.pool_digest(smaller)}
    again = quality.draw(smaller, MONTH, SECRET, 3)
    logged = [{"draw_id": p.draw_id, "call_id": p.call_id, "agent_id": p.agent_id} for p in again]
    found = check(calls, Told(told.seeded, [closed], logged), smaller, again)
    assert found == [f"call {pool[0][0]} should have been among those that could be drawn"]
    # A secret that was looked for until it drew the right ones.
    other_secret = {**told.closed[0], "secret": bytes(32).hex()}
    assert any(
        "hash was told" in s for s in check(calls, replace(told, closed=[other_secret]), pool)
    )
    # Drawn a second time, or the seed fixed anew.
    assert "2 draws" in check(calls, replace(told, closed=[*told.closed, *told.closed]), pool)[0]
    assert "2 times" in check(calls, replace(told, seeded=[*told.seeded, *told.seeded]), pool)[0]
    # Too early, or a seed fixed when calls were known.
    early = {**told.closed[0], "ts": END}
    assert any("over for good" in s for s in check(calls, replace(told, closed=[early]), pool))
    late = {**told.seeded[0], "ts": BEGIN + 5000}
    assert any("fixed after" in s for s in check(calls, replace(told, seeded=[late]), pool))
    # An abusive call was let in.
    with_abusive = {**calls, pool[0][0]: replace(calls[pool[0][0]], marked=True)}
    assert any("should not have been: abusive" in s for s in check(with_abusive, told, pool))
