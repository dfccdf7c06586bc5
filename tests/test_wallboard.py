"""What hangs on the wall: counts without anybody's id; and what an agent's page knows after a
reload."""

from __future__ import annotations

from callshield.messages import (
    AlertRaised,
    CallAnswered,
    CallSnapshot,
    CallStarted,
    CrisisHint,
    Direction,
    EarChanged,
    HoldChanged,
    NodeDegraded,
    NoticeFinished,
    PauseChanged,
    RiskChanged,
)
from notifier.board import Board
from notifier.routes_wallboard import picture
from notifier.views import call_view


def board_with(*calls: tuple[str, int], direction: Direction = Direction.INBOUND) -> Board:
    """A board with a live, listened-to call for every (agent, level)."""
    board = Board(alert_level=2)
    for place, (agent_id, level) in enumerate(calls):
        call_id = f"{place:032x}"
        board.apply(
            CallStarted(
                ts=1.0,
                call_id=call_id,
                agent_id=agent_id,
                pbx_call_id="x",
                direction=direction,
            )
        )
        board.apply(CallAnswered(ts=2.0, call_id=call_id, agent_id=agent_id))
        board.apply(
            NoticeFinished(
                ts=3.0,
                call_id=call_id,
                agent_id=agent_id,
                source="played",
                prompts=[],
                tapped=direction is not Direction.INTERNAL,
            )
        )
        if level:
            board.apply(
                RiskChanged(
                    ts=4.0, call_id=call_id, level=level, previous=0, categories=["threat"], score=1
                )
            )
    return board


def test_calls_are_counted_by_level() -> None:
    seen = picture(board_with(("a", 0), ("b", 0), ("c", 1), ("d", 3)), 5.0, analysis=True)
    assert (seen.calls, seen.calls_by_level, seen.calls_without_level) == (4, [2, 1, 0, 1], 0)


def test_a_call_that_nobody_listens_to_is_not_called_calm() -> None:
    board = board_with(("a", 0), ("b", 2))
    assert picture(board, 5.0, analysis=False).calls_without_level == 2
    board.apply(NodeDegraded(ts=5.0, component="detector", degraded=True))
    seen = picture(board, 5.0, analysis=True)
    assert (seen.calls_by_level, seen.calls_without_level) == ([0, 0, 0, 0], 2)
    assert seen.degraded == ["detector"]


def test_a_group_in_shadow_mode_shows_no_level() -> None:
    board = board_with(("a", 1), ("b", 3))
    assert picture(board, 5.0, analysis=True).calls_by_level == [0, 1, 0, 1], "control"
    [_, tried] = board.calls.values()
    tried.shadow = True
    seen = picture(board, 5.0, analysis=True)
    assert (seen.calls_by_level, seen.calls_without_level) == ([0, 1, 0, 0], 1)


def test_calls_between_colleagues_are_nobodys_business() -> None:
    board = board_with(("a", 0), direction=Direction.INTERNAL)
    assert picture(board, 5.0, analysis=True).calls == 0


def test_calls_for_somebody_stand_there_oldest_first_and_what_the_machine_raised_does_not() -> None:
    board = board_with(("a", 2), ("b", 0))
    board.apply(CrisisHint(ts=9.0, call_id=f"{1:032x}"))
    board.ask_for_help(f"{0:032x}", 8.0)
    board.apply(
        AlertRaised(ts=9.5, alert_id="", call_id=f"{1:032x}", agent_id="b", kind="node", level=0)
    )
    seen = picture(board, 10.0, analysis=True)
    assert [(one.kind, one.level) for one in seen.requests] == [("help", 2), ("crisis", 0)]
    assert seen.alerts_open == 4
    assert not {"a", "b", "threat"} & set(seen.model_dump_json().split('"')), "nobody is named"


def test_other_teams_are_not_counted_and_overdue_call_backs_are() -> None:
    board = board_with(("a", 3), ("b", 1))
    board.ask_for_help(f"{0:032x}", 8.0)
    seen = picture(board, 100.0, analysis=True, due_ts=[99.0, 101.0], hidden={"a"})
    assert (seen.calls, seen.calls_by_level, seen.requests) == (1, [0, 1, 0, 0], [])
    assert (seen.callbacks_open, seen.callbacks_overdue) == (2, 1)


def test_a_page_that_is_loaded_in_the_call_knows_pause_hold_and_ear() -> None:
    board = board_with(("a", 0))
    call_id = f"{0:032x}"
    board.apply(PauseChanged(ts=5.0, call_id=call_id, agent_id="a", paused=True))
    board.apply(HoldChanged(ts=5.0, call_id=call_id, agent_id="a", held=True))
    board.apply(EarChanged(ts=5.0, call_id=call_id, softening=True, levelling=False))
    view = call_view(board.calls[call_id], to_agent=True)
    assert (view["paused"], view["held"], view["softening"]) == (True, True, True)
    theirs = call_view(board.calls[call_id], to_agent=False)
    assert not {"paused", "held", "softening"} & theirs.keys()
    # A notifier that was away is told both by the bridge, which has them.
    started = CallStarted(ts=1.0, call_id=call_id, agent_id="a", pbx_call_id="x")
    other = Board(alert_level=2)
    other.apply(CallSnapshot(ts=6.0, calls=[started], answered=[call_id], held=[call_id]))
    assert (other.calls[call_id].held, other.calls[call_id].paused) == (True, False)
