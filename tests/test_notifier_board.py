"""The board's rules: what raises an alert, what ends a call, what a supervisor may see."""

from __future__ import annotations

import itertools

import msgspec

from callshield.messages import (
    AlertRaised,
    CallAnswered,
    CallEnded,
    CallSnapshot,
    CallStarted,
    Event,
    NodeDegraded,
    NoticeFinished,
    Reason,
    RiskChanged,
    WarningPlayed,
)
from notifier.board import LOST_AFTER_S, Board, Entry
from notifier.views import for_supervisor

CALL, OTHER = "a" * 32, "b" * 32


def board_with_call(level: int = 2) -> Board:
    numbers = itertools.count(1)
    board = Board(level, lambda: f"alert-{next(numbers)}")
    board.apply(started(CALL))
    return board


def started(call_id: str, agent_id: str = "1001", ts: float = 100.0) -> CallStarted:
    return CallStarted(ts=ts, call_id=call_id, agent_id=agent_id, pbx_call_id="x")


def ended(call_id: str, reason: str = "caller_hangup") -> CallEnded:
    return CallEnded(ts=130.0, call_id=call_id, agent_id="1001", reason=reason)


def risk(level: int, ts: float = 110.0) -> RiskChanged:
    return RiskChanged(
        ts=ts,
        call_id=CALL,
        level=level,
        previous=0,
        categories=["shouting"],
        score=0.8,
        reasons=[Reason(kind="words", score=0.7, detail="insult")],
    )


def alerts(entries: list[Entry]) -> list[AlertRaised]:
    return [entry.event for entry in entries if isinstance(entry.event, AlertRaised)]


def levels_alerted(board: Board, *events: Event) -> list[int]:
    return [alert.level for event in events for alert in alerts(board.apply(event))]


def test_an_alert_is_raised_once_at_the_configured_level_and_once_at_each_higher_one() -> None:
    board = board_with_call(level=2)
    assert levels_alerted(board, risk(1), risk(2), risk(1), risk(2), risk(3), risk(2)) == [2, 3]


def test_the_configured_level_decides() -> None:
    assert levels_alerted(board_with_call(level=1), risk(1)) == [1]
    assert levels_alerted(board_with_call(level=3), risk(2), risk(3)) == [3]


def test_after_somebody_acknowledged_only_a_new_rise_raises_again() -> None:
    board = board_with_call()
    [first] = alerts(board.apply(risk(2)))
    board.acknowledge(first.alert_id, "t1", 111.0)
    assert levels_alerted(board, risk(2), risk(1)) == []
    assert levels_alerted(board, risk(2)) == [2]


def test_an_alert_is_stored_in_the_same_batch_right_after_what_caused_it() -> None:
    entries = board_with_call().apply(risk(2))
    assert [type(entry.event) for entry in entries] == [RiskChanged, AlertRaised]
    assert entries[1].is_alert
    assert not entries[0].is_alert


def test_risk_of_a_call_that_is_unknown_or_over_is_dropped() -> None:
    board = board_with_call()
    board.apply(ended(CALL))
    assert board.apply(risk(3)) == []
    assert Board(2).apply(risk(3)) == []
    assert board.ignored == 1
    assert board.alerts == {}


def test_a_notice_that_failed_is_an_alarm() -> None:
    failed = NoticeFinished(
        ts=105.0, call_id=CALL, agent_id="1001", source="failed", prompts=[], tapped=False
    )
    played = msgspec.structs.replace(failed, source="played", tapped=True)
    assert [alert.kind for alert in alerts(board_with_call().apply(failed))] == ["notice_failed"]
    assert alerts(board_with_call().apply(played)) == []


def test_help_works_at_level_0_and_twice_is_one_alert_until_it_is_taken() -> None:
    board = board_with_call()
    first = board.ask_for_help(CALL, 105.0)
    again = board.ask_for_help(CALL, 106.0)
    assert first is not None
    assert again is not None
    assert first[0] is again[0]
    assert (len(first[1]), len(again[1])) == (1, 0)
    board.acknowledge(first[0].alert_id, "t1", 107.0)
    third = board.ask_for_help(CALL, 108.0)
    assert third is not None
    assert third[0] is not first[0]
    assert board.ask_for_help(OTHER, 105.0) is None


def test_exactly_one_acknowledgement_wins() -> None:
    board = board_with_call()
    [raised] = alerts(board.apply(risk(2)))
    winner = board.acknowledge(raised.alert_id, "t1", 111.0)
    loser = board.acknowledge(raised.alert_id, "t2", 112.0)
    assert winner is not None
    assert loser is not None
    assert len(winner[1]) == 1
    assert loser[1] == []
    assert loser[0].acknowledged_by == "t1"
    assert board.acknowledge("unknown", "t1", 111.0) is None


def test_a_call_that_the_snapshot_does_not_name_is_lost_after_a_while() -> None:
    board = board_with_call()
    board.apply(CallAnswered(ts=102.0, call_id=CALL, agent_id="1001"))
    assert board.apply(CallSnapshot(ts=120.0, calls=[])) == []
    assert board.end_lost(120.0 + LOST_AFTER_S / 2) == []
    [entry] = board.end_lost(120.0 + LOST_AFTER_S)
    assert isinstance(entry.event, CallEnded)
    assert (entry.event.reason, entry.event.duration_s) == ("lost", 18.0)
    assert board.calls == {}
    assert not board.has_missing


def test_an_end_that_was_still_queued_at_the_bridge_keeps_its_true_reason() -> None:
    board = board_with_call()
    board.apply(CallSnapshot(ts=120.0, calls=[]))
    [entry] = board.apply(ended(CALL))
    assert isinstance(entry.event, CallEnded)
    assert entry.event.reason == "caller_hangup"
    assert board.end_lost(999.0) == []


def test_a_snapshot_brings_calls_that_began_while_we_were_away() -> None:
    board = board_with_call()
    entries = board.apply(
        CallSnapshot(ts=120.0, calls=[started(CALL), started(OTHER)], answered=[OTHER])
    )
    assert [type(entry.event) for entry in entries] == [CallStarted, CallAnswered]
    assert set(board.calls) == {CALL, OTHER}
    # What the bridge had queued says the same once more.
    assert board.apply(started(OTHER)) == []


def test_a_part_that_is_down_is_told_once_and_its_return_too() -> None:
    board = Board(2)
    down = NodeDegraded(ts=1.0, component="detector", degraded=True, reason="killed")
    up = NodeDegraded(ts=2.0, component="detector", degraded=False)
    assert [len(board.apply(event)) for event in (down, down, up, up)] == [1, 0, 1, 0]
    [entry] = board.apply(down)
    assert entry.audience is None


def test_events_of_a_call_are_for_its_own_agent() -> None:
    board = board_with_call()
    assert {entry.audience for entry in board.apply(risk(3))} == {"1001"}


def test_a_supervisor_sees_level_and_category_but_no_evidence() -> None:
    body = msgspec.to_builtins(risk(2))
    seen = for_supervisor(body)
    assert seen is not None
    assert (seen["level"], seen["categories"]) == (2, ["shouting"])
    assert not {"reasons", "score"} & seen.keys()
    assert body["reasons"], "the agent's copy keeps them"


def test_a_supervisor_does_not_see_what_the_agent_did() -> None:
    warning = WarningPlayed(ts=1.0, call_id=CALL, agent_id="1001", grade=1, complete=True)
    assert for_supervisor(msgspec.to_builtins(warning)) is None
