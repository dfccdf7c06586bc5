"""Everything that the caller hears is on record, and how much of it: told by the pure call."""

from __future__ import annotations

import pytest

from callshield.messages import Action, LegName, NoticeFinished, WarningPlayed
from callshield.messages_media import FlowUpdate, PlayFinished, PlayPrompts
from callshield.messages_notice import PromptPlayed, PromptStamp
from sipbridge.announcer import Announcer
from sipbridge.call import Call
from sipbridge.call_steps import Emit, Step, ToMedia
from sipbridge.notice_stamps import played_stamps
from tests.test_call import (
    connected,
    events,
    hold,
    in_notice,
    make_plan,
    media,
    only_stamped,
    played,
    prompt,
)
from tests.test_notifier_board import CALL, OTHER, board_with_call, ended

AGENT = "agent:console"


def stamps(steps: list[Step]) -> list[PromptStamp]:
    return [event.stamp for event in events(steps, PromptPlayed)]


def kept(stamp: PromptStamp) -> tuple[str, bool, str]:
    return stamp.prompt_id, stamp.complete, stamp.stopped_by


def warned() -> tuple[Call, list[Step]]:
    call = connected()
    outcome, _, steps = call.act(Action.WARN, AGENT)
    assert outcome == "done"
    return call, steps


def test_a_warning_and_the_closing_are_stamped_like_the_notice() -> None:
    call, warning = warned()
    (stamp,) = stamps(played(call, warning))
    assert kept(stamp) == ("warning_1", True, "")
    assert (stamp.version, stamp.sha256, stamp.length_s) == ("1", "00", 1.0)
    closing = call.act(Action.END, AGENT)[2]
    assert [kept(one) for one in stamps(played(call, closing))] == [("closing", True, "")]


def test_a_warning_that_the_end_cuts_off_is_stamped_as_far_as_it_got() -> None:
    call, warning = warned()
    call.act(Action.END, AGENT)
    late = only_stamped(played(call, warning, complete=False))
    assert [kept(one) for one in late] == [("warning_1", False, "superseded")]


def test_what_was_over_before_it_could_be_stopped_was_heard() -> None:
    call, warning = warned()
    call.act(Action.END, AGENT)  # the worker's report is on its way
    assert [kept(one) for one in only_stamped(played(call, warning))] == [("warning_1", True, "")]


def test_a_caller_on_hold_was_not_warned_and_can_be_again() -> None:
    call, warning = warned()
    held = hold(call, True)
    assert [event.complete for event in events(held, WarningPlayed)] == [False]
    # Whatever the worker says: music on hold was in the caller's ear.
    late = only_stamped(played(call, warning, complete=True))
    assert [kept(one) for one in late] == [("warning_1", False, "hold")]
    hold(call, False)
    assert call.act(Action.WARN, AGENT)[0] == "done"


def test_a_closing_to_a_caller_on_hold_was_heard_by_nobody() -> None:
    call = connected()
    closing = call.act(Action.END, AGENT)[2]
    hold(call, True)
    assert [kept(one) for one in stamps(played(call, closing))] == [("closing", False, "hold")]


def test_somebody_else_on_the_line_is_not_the_one_who_was_told() -> None:
    call, notice = in_notice()
    call.on_caller_named(somebody_else=True)
    (finished,) = events(played(call, notice), NoticeFinished)
    assert not finished.tapped
    assert [kept(one) for one in finished.prompts][-1] == ("recording", False, "caller_changed")


@pytest.mark.parametrize("who", ["caller", "agent"])
def test_a_hang_up_in_the_notice_is_told_after_the_end(who: str) -> None:
    call, notice = in_notice()
    over = call.on_caller_gone(200) if who == "caller" else call.on_phone_gone(200)
    assert stamps(over) == []
    assert call.plays_untold
    late = only_stamped(played(call, notice, complete=False))
    assert [kept(one) for one in late] == [
        ("abuse_prevention", True, ""),
        ("recording", False, "hangup"),
    ]
    assert not call.plays_untold


def test_a_dead_media_worker_tells_nothing_and_is_not_waited_for() -> None:
    call, _ = in_notice()
    call.on_media_lost()
    assert not call.plays_untold


def test_what_failed_says_so() -> None:
    call, notice = in_notice()
    steps = played(call, notice, complete=False, error="the route is gone")
    (finished,) = events(steps, NoticeFinished)
    assert kept(finished.prompts[-1]) == ("recording", False, "fault")


@pytest.mark.parametrize(("lasted_s", "whole"), [(0.7, False), (0.99, True), (3.5, True)])
def test_what_is_repeated_was_heard_when_it_was_heard_once(lasted_s: float, whole: bool) -> None:
    report = PlayFinished(
        call_id="c", play_id=1, leg=LegName.CALLER, complete=False, spans=[(10.0, 10.0 + lasted_s)]
    )
    (stamp,) = played_stamps([prompt("hold_on")], report, "superseded", repeated=True)
    assert kept(stamp) == ("hold_on", whole, "" if whole else "superseded")


def test_the_proof_is_told_before_anything_may_begin() -> None:
    """A recording begins with what made it lawful."""
    call, notice = in_notice(record_allowed=True)
    steps = played(call, notice)
    order = [
        "proof" if isinstance(step, Emit) and isinstance(step.event, NoticeFinished) else "begins"
        for step in steps
        if (isinstance(step, Emit) and isinstance(step.event, NoticeFinished))
        or (
            isinstance(step, ToMedia)
            and isinstance(step.message, FlowUpdate)
            and step.message.record
        )
    ]
    assert order == ["proof", "begins"]


def test_the_tone_of_a_ringing_phone_is_no_announcement() -> None:
    plays = Announcer(make_plan())
    steps = [plays.to_caller("ringing", [prompt("ringing")])]
    (play,) = media(list(steps), PlayPrompts)
    assert play.loop
    assert not plays.untold


def test_each_report_is_stamped_once() -> None:
    call, warning = warned()
    assert len(stamps(played(call, warning))) == 1
    assert played(call, warning) == []


def test_the_record_takes_a_stamp_that_comes_after_the_end_and_of_a_stranger_none() -> None:
    board = board_with_call()
    board.apply(ended(CALL))
    stamp = PromptStamp(
        prompt_id="closing", version="1", sha256="0", started_ts=1.0, finished_ts=2.0,
        complete=False, stopped_by="hangup",
    )  # fmt: skip
    late = PromptPlayed(ts=3.0, call_id=CALL, agent_id="1001", stamp=stamp)
    (entry,) = board.apply(late)
    assert entry.event is late
    assert entry.audience == "1001"
    other = PromptPlayed(ts=3.0, call_id=OTHER, agent_id="1001", stamp=stamp)
    assert board.apply(other) == []
    assert CALL not in board.calls, "the call stays over"
