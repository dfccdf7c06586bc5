"""The board's rules: what raises an alert, what ends a call, what a supervisor may see."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from callshield.messages import (
    AlertRaised,
    CallAnswered,
    CallEnded,
    CallSnapshot,
    CallStarted,
    CrisisHint,
    Event,
    NodeDegraded,
    NoticeFinished,
    Reason,
    RiskChanged,
    WarningPlayed,
)
from notifier.board import LATE_S, LOST_AFTER_S, Board
from notifier.live import Alert, AlertKind, Entry
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


def test_risk_of_a_call_that_is_unknown_or_long_over_is_dropped() -> None:
    board = board_with_call()
    board.apply(ended(CALL))
    assert board.apply(risk(3, 131.0 + LATE_S)) == []
    assert board.ignored == 1
    assert Board(2).apply(risk(3)) == []
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


def test_a_notifier_that_was_away_learns_what_a_caller_chose_or_may_still_choose() -> None:
    board = board_with_call()  # as the store gives it back: it keeps neither
    board.apply(CallSnapshot(ts=120.0, calls=[started(CALL)], waits=[CALL]))
    assert (board.calls[CALL].waits, board.calls[CALL].choice) == (True, "")
    board.apply(CallSnapshot(ts=121.0, calls=[started(CALL)], choices={CALL: "objection"}))
    assert (board.calls[CALL].waits, board.calls[CALL].choice) == (False, "objection")


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


def spoken(level: int = 2, **more: bool) -> RiskChanged:
    reason = Reason(kind="words", rule="abusive_words", score=0.9, detail="폭언", words=["이 새끼"])
    return RiskChanged(
        ts=111.0,
        call_id=CALL,
        level=level,
        previous=0,
        categories=["profanity"],
        score=0.1,
        reasons=[reason],
        **more,
    )


def crisis(ts: float = 112.0) -> CrisisHint:
    return CrisisHint(ts=ts, call_id=CALL, detail="위험할 수 있습니다", words=["죽어버릴 거예요"])


def seen_by_supervisor(entry: Entry) -> dict[str, object]:
    seen = for_supervisor(entry.body(), help_asked=entry.words_for_supervisors)
    assert seen is not None
    return seen


def test_a_supervisor_sees_words_only_once_the_agent_asked_for_help() -> None:
    board = board_with_call()
    before = board.apply(spoken(2))[0]
    assert "reasons" not in seen_by_supervisor(before)
    assert "새끼" not in str(seen_by_supervisor(before))
    board.ask_for_help(CALL, 112.0)
    after = board.apply(spoken(3))[0]
    assert "새끼" in str(seen_by_supervisor(after))
    other = started(OTHER)
    board.apply(other)
    [entry, *_] = board.apply(msgspec.structs.replace(spoken(3), call_id=OTHER))
    assert "새끼" not in str(seen_by_supervisor(entry)), "another call's agent asked for nothing"


def test_no_alert_carries_words() -> None:
    board = board_with_call()
    entries = [*board.apply(spoken(3)), *board.apply(crisis())]
    said = [str(msgspec.to_builtins(alert)) for alert in alerts(entries)]
    assert len(said) == 2
    assert not any("새끼" in text or "죽어" in text for text in said)


def test_the_same_level_for_new_reasons_is_news_and_its_repetition_is_not() -> None:
    board = board_with_call()
    board.apply(risk(2))
    assert len(board.apply(spoken(2, words_confirmed=True, may_trigger=True))) == 1
    assert board.apply(spoken(2, words_confirmed=True, may_trigger=True)) == []
    call = board.calls[CALL]
    assert (call.categories, call.words_confirmed, call.may_trigger) == (["profanity"], True, True)


@pytest.mark.parametrize("by_sound", [True, False])
def test_words_beside_a_level_that_sound_made_alone_are_not_behind_its_alert(
    by_sound: bool,
) -> None:
    """Else calibration would call it an alert by words, which no threshold could keep away."""
    board = board_with_call()
    loud = Reason(kind="vocal_effort", score=0.8, rule="sustained_effort")
    said = spoken(2)
    board.apply(
        msgspec.structs.replace(said, reasons=[loud, *said.reasons], acoustic_only=by_sound)
    )
    [alert] = board.alerts.values()
    assert alert.effort_score == 0.8
    assert (alert.word_score == 0.0) is by_sound


def test_a_crisis_is_no_abuse_calls_a_supervisor_and_keeps_automatic_steps_back() -> None:
    numbers = itertools.count(1)
    board = Board(2, lambda: f"alert-{next(numbers)}", ("109", "자살예방 상담전화"))
    board.apply(started(CALL))
    hint, raised = board.apply(crisis())
    assert isinstance(hint.event, CrisisHint)
    assert (hint.event.number, hint.event.name) == ("109", "자살예방 상담전화")
    assert isinstance(raised.event, AlertRaised)
    assert (raised.event.kind, raised.event.level) == ("crisis", 0)
    assert board.calls[CALL].level == 0
    assert "죽어" not in str(seen_by_supervisor(hint))
    board.apply(spoken(3, words_confirmed=True, may_trigger=True))
    call = board.calls[CALL]
    assert (call.level, call.words_confirmed, call.may_trigger) == (3, True, False)
    assert board.apply(crisis()) == [], "repeated after a reconnect"
    assert len(board.apply(crisis(140.0))) == 1, "said again: no second alert while one is open"


def test_without_a_crisis_the_same_level_may_trigger() -> None:
    """Control of the test above."""
    board = board_with_call()
    board.apply(spoken(3, words_confirmed=True, may_trigger=True))
    assert board.calls[CALL].may_trigger


# ---------------------------------------------------------------------- words of a call that ended


def late(level: int, ts: float, previous: int = 0, rule: str = "abusive_words") -> RiskChanged:
    return msgspec.structs.replace(
        risk(level, ts),
        previous=previous,
        categories=["profanity"],
        reasons=[Reason(kind="words", score=0.9, rule=rule, words=["…"])],
        words_confirmed=True,
    )


def test_words_understood_after_the_end_are_put_on_record_and_raise_nothing() -> None:
    board = board_with_call()
    board.apply(ended(CALL))
    [entry] = board.apply(late(2, 130.0 + LATE_S))
    assert isinstance(entry.event, RiskChanged)
    assert entry.event.late
    assert entry.audience == "1001", "the call's own agent"
    assert entry.call is board.ended[CALL], "whose row is written"
    assert (entry.call.peak_level, entry.call.categories) == (2, ["profanity"])
    assert board.alerts == {}
    assert "reasons" not in str(seen_by_supervisor(entry))
    assert board.apply(late(2, 130.0 + LATE_S)) == [], "repeated after a reconnect"


def test_a_live_call_gets_its_alert_from_the_same_words() -> None:
    """Control of the test above."""
    board = board_with_call()
    entry, raised = board.apply(late(2, 120.0))
    assert isinstance(entry.event, RiskChanged)
    assert not entry.event.late
    assert isinstance(raised.event, AlertRaised)


def test_after_the_end_neither_falls_nor_sound_nor_very_late_words_count() -> None:
    board = board_with_call()
    board.apply(late(2, 120.0))
    board.apply(ended(CALL))
    sound = msgspec.structs.replace(
        risk(2, 131.0), reasons=[Reason(kind="vocal_effort", score=0.9, rule="sustained_effort")]
    )
    assert board.apply(sound) == []
    assert board.apply(late(1, 140.0, 2, "no_more_words")) == []
    assert board.apply(late(3, 131.0 + LATE_S)) == []
    assert board.ignored == 3
    assert board.ended[CALL].peak_level == 2


def test_a_level_that_fell_meanwhile_takes_nothing_back_on_record() -> None:
    board = board_with_call()
    board.apply(late(3, 120.0))
    board.apply(ended(CALL))
    assert len(board.apply(late(2, 140.0, 1))) == 1
    call = board.ended[CALL]
    assert (call.level, call.peak_level) == (3, 3)


def test_a_caller_in_danger_is_told_of_even_after_the_call() -> None:
    board = board_with_call()
    board.apply(ended(CALL))
    hint, raised = board.apply(crisis(135.0))
    assert isinstance(hint.event, CrisisHint)
    assert isinstance(raised.event, AlertRaised)
    assert raised.event.kind == "crisis"
    assert board.apply(crisis(131.0 + LATE_S)) == []


# ------------------------------------------------------------------------------- the agent's press


def test_an_alert_that_the_agent_pressed_for_says_so() -> None:
    board = board_with_call()
    pressed = msgspec.structs.replace(
        risk(3), categories=[], reasons=[Reason(kind="agent", score=1.0, rule="agent_press")]
    )
    [alert] = alerts(board.apply(pressed))
    assert (alert.kind, alert.level, alert.reason) == ("risk", 3, "agent_press")
    [machine] = alerts(board_with_call().apply(risk(3)))
    assert machine.reason == "shouting", "the control"


def test_a_long_calls_request_for_help_outlives_thousands_of_others() -> None:
    board = board_with_call()
    board.ask_for_help(CALL, 101.0)
    board.acknowledge("alert-1", "a", 102.0)
    for number in range(2100):
        call_id = f"{number:032x}"
        board.apply(started(call_id))
        asked = board.ask_for_help(call_id, 103.0)
        assert asked is not None
        board.acknowledge(asked[0].alert_id, "a", 104.0)
        board.apply(ended(call_id))
    assert board.help_was_asked(CALL)
    assert not board.help_was_asked(f"{0:032x}")
    assert not board.help_was_asked(OTHER)


SIX: list[tuple[AlertKind, str]] = [
    ("help", "1001"),
    ("risk", "1001"),
    ("risk", "1002"),
    ("crisis", "1001"),
    ("risk", "1001"),
    ("risk", "1001"),
]


def test_of_too_many_open_alerts_calls_for_help_are_shown_before_all_others() -> None:
    board = board_with_call()
    board.alerts = {
        str(n): Alert(str(n), CALL, agent, kind, 2, ["threat"], "words", float(n))
        for n, (kind, agent) in enumerate(SIX)
    }

    def shown(limit: int, *agents: str) -> list[str]:
        return [a.alert_id for a in board.open_alerts(limit, lambda id_: id_ in agents)]

    assert shown(9, "1001", "1002") == ["0", "1", "2", "3", "4", "5"], "oldest first"
    assert shown(3, "1001", "1002") == ["0", "3", "5"]
    assert shown(1, "1002") == ["2"], "only of whom the reader may see"
