"""When a phone's screen is sent, updated, taken away, retried and left alone: a fake clock."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from callshield.messages import (
    AlertRaised,
    CallEnded,
    CallEnding,
    CallSnapshot,
    CallStarted,
    CrisisHint,
    HelperChanged,
    RiskChanged,
    WarningPlayed,
)
from callshield.messages_escalation import AlertAcknowledged, AlertUnanswered
from firmware_profiles import screens as core
from firmware_profiles.screen_text import Screen
from firmware_profiles.screens import (
    CALM_S,
    CLEARS,
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    MOST_CALLS,
    RENEW_AT,
    Outcome,
    Push,
    Screens,
)

CALL = "c" * 32


def started(call_id: str = CALL, agent_id: str = "1001") -> CallStarted:
    return CallStarted(ts=0, call_id=call_id, agent_id=agent_id, pbx_call_id="")


def risk(level: int, *categories: str, call_id: str = CALL, **more: Any) -> RiskChanged:
    return RiskChanged(
        ts=0,
        call_id=call_id,
        level=level,
        previous=0,
        categories=list(categories),
        score=0.5,
        **more,
    )


def ended(call_id: str = CALL) -> CallEnded:
    return CallEnded(ts=0, call_id=call_id, agent_id="1001", reason="caller_hangup")


def asked(call_id: str = CALL) -> AlertRaised:
    return AlertRaised(ts=0, alert_id="a1", call_id=call_id, agent_id="1001", kind="help", level=0)


def phone(hold_s: float | None = None, from_level: int = 2) -> Screens:
    """One agent's phone, whose agent has a call."""
    screens = Screens(from_level)
    screens.set_phones({"1001": hold_s})
    assert not screens.feed(started(), 0.0)
    return screens


def one(pushes: list[Push]) -> Push:
    assert len(pushes) == 1
    return pushes[0]


def took(screens: Screens, push: Push, now_s: float, outcome: Outcome = "taken") -> list[Push]:
    return screens.done(push, outcome, now_s)


def test_warning_update_and_clear_of_one_call() -> None:
    screens = phone()
    assert not screens.feed(risk(1, "shouting"), 1.0)  # under from_level
    warning = one(screens.feed(risk(2, "shouting"), 2.0))
    assert (warning.kind, warning.screen) == ("warning", Screen(2, ("shouting",)))
    assert not took(screens, warning, 2.1)
    update = one(screens.feed(risk(3, "threat", "shouting"), 3.0))
    assert (update.kind, update.screen) == ("update", Screen(3, ("threat", "shouting")))
    assert not took(screens, update, 3.1)
    clear = one(screens.feed(ended(), 9.0))
    assert (clear.kind, clear.screen) == ("clear", None)
    assert not took(screens, clear, 9.1)
    assert screens.next_due(9.1) is None


def test_nothing_is_sent_twice_for_the_same_state() -> None:
    screens = phone()
    took(screens, one(screens.feed(risk(2, "shouting"), 1.0)), 1.1)
    assert not screens.feed(risk(2, "shouting"), 2.0)
    assert not screens.tick(500.0)


def test_the_newest_state_wins_over_all_that_came_while_one_was_under_way() -> None:
    screens = phone()
    first = one(screens.feed(risk(2, "shouting"), 1.0))
    for level, category in ((3, "threat"), (2, "insult"), (3, "hate")):
        assert not screens.feed(risk(level, category), 1.2)  # one under way, none queued
    following = one(took(screens, first, 1.5))
    assert following.screen == Screen(3, ("hate",))


def test_a_call_that_ends_while_its_warning_is_under_way_is_cleared_after_it() -> None:
    screens = phone()
    first = one(screens.feed(risk(3, "threat"), 1.0))
    assert not screens.feed(ended(), 1.2)
    assert one(took(screens, first, 1.5)).kind == "clear"


def test_level_0_clears_only_when_it_lasts() -> None:
    screens = phone()
    took(screens, one(screens.feed(risk(2, "shouting"), 1.0)), 1.1)
    assert not screens.feed(risk(0), 2.0)
    assert screens.next_due(2.0) == 2.0 + CALM_S
    assert not screens.tick(2.0 + CALM_S - 0.1)
    assert not screens.feed(risk(2, "shouting"), 4.0)  # up again: as if nothing had been
    assert not screens.tick(2.0 + CALM_S)
    assert not screens.feed(risk(0), 10.0)
    assert one(screens.tick(10.0 + CALM_S)).kind == "clear"


def test_a_lower_level_stays_on_the_screen_and_is_told() -> None:
    screens = phone()
    took(screens, one(screens.feed(risk(3, "threat"), 1.0)), 1.1)
    assert one(screens.feed(risk(1, "shouting"), 2.0)).screen == Screen(1, ("shouting",))


def test_a_failure_is_tried_once_more_and_then_left_until_something_changes() -> None:
    screens = phone()
    first = one(screens.feed(risk(2, "shouting"), 1.0))
    again = one(took(screens, first, 3.0, "failed"))
    assert (first.tries, again.tries, again.screen) == (1, 2, first.screen)
    assert not took(screens, again, 5.0, "failed")
    assert screens.next_due(5.0) is None
    assert not screens.tick(1000.0)  # the same state is never tried a third time
    changed = one(screens.feed(risk(3, "threat"), 1000.0))
    assert changed.tries == 1


def test_what_the_phone_refused_is_not_tried_again() -> None:
    screens = phone()
    first = one(screens.feed(risk(2, "shouting"), 1.0))
    assert not took(screens, first, 1.1, "refused")
    assert not screens.tick(1000.0)


def test_the_retry_is_of_the_newest_state() -> None:
    screens = phone()
    first = one(screens.feed(risk(2, "shouting"), 1.0))
    assert not screens.feed(risk(3, "threat"), 2.0)
    again = one(took(screens, first, 3.0, "failed"))
    assert (again.tries, again.screen) == (2, Screen(3, ("threat",)))


def test_pauses_after_failures_grow_and_end_with_the_first_success() -> None:
    screens = phone()
    now, pauses, level = 1.0, [], 2
    for _ in range(8):
        level = 5 - level  # 2, 3, 2, …
        pushes = screens.feed(risk(level, "shouting"), now)
        if not pushes:
            due = screens.next_due(now)
            assert due is not None
            pauses.append(due - now)
            pushes = screens.tick(due)
            now = due
        again = one(took(screens, one(pushes), now, "failed"))
        took(screens, again, now, "failed")
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert max(pauses) == LONGEST_PAUSE_S
    assert not screens.feed(risk(5 - level, "hate"), now)
    due = screens.next_due(now)
    assert due is not None
    assert not took(screens, one(screens.tick(due)), due)
    assert one(screens.feed(risk(3, "threat"), due)).tries == 1  # at once again


def test_a_request_that_failed_on_the_way_may_have_been_shown_and_is_cleared() -> None:
    screens = phone()
    first = one(screens.feed(risk(2, "shouting"), 1.0))
    took(screens, one(took(screens, first, 3.0, "failed")), 5.0, "failed")
    assert not screens.feed(ended(), 6.0)  # paused
    due = screens.next_due(6.0)
    assert due is not None
    assert one(screens.tick(due)).kind == "clear"


def test_a_screen_that_goes_by_itself_is_sent_again_in_time() -> None:
    screens = phone(hold_s=60.0)
    took(screens, one(screens.feed(risk(2, "shouting"), 1.0)), 1.0)
    due = screens.next_due(1.0)
    assert due == 1.0 + RENEW_AT * 60
    assert not screens.tick(due - 0.1)
    renewed = one(screens.tick(due))
    assert (renewed.kind, renewed.screen) == ("update", Screen(2, ("shouting",)))
    took(screens, renewed, due)
    assert screens.next_due(due) == due + RENEW_AT * 60


def test_a_renewal_that_fails_is_no_endless_loop() -> None:
    screens = phone(hold_s=60.0)
    took(screens, one(screens.feed(risk(2, "shouting"), 1.0)), 1.0)
    renewed = one(screens.tick(50.0))
    took(screens, one(took(screens, renewed, 52.0, "failed")), 54.0, "failed")
    assert screens.next_due(54.0) is None
    assert not screens.tick(10_000.0)


def test_what_becomes_of_a_request_for_help_is_told() -> None:
    screens = phone()
    told = []

    def feed(event: Any) -> None:
        for push in screens.feed(event, 1.0):
            assert push.screen is not None
            told.append(push.screen.status)
            took(screens, push, 1.0)

    feed(asked())  # the agent's word counts: shown at level 0, too
    feed(AlertUnanswered(ts=0, alert_id="a1", call_id=CALL, offers=["end"]))
    feed(AlertAcknowledged(ts=0, alert_id="a1", call_id=CALL, by="t", how="join"))
    for state in ("calling", "joined"):
        feed(HelperChanged(ts=0, call_id=CALL, agent_id="1001", state=state, role="supervisor"))
    assert told == ["asked", "nobody", "coming", "joined"]
    left = HelperChanged(ts=0, call_id=CALL, agent_id="1001", state="left", role="supervisor")
    assert one(screens.feed(left, 2.0)).kind == "clear"


def test_an_alert_of_the_machine_that_somebody_takes_promises_nobody() -> None:
    screens = phone()
    took(screens, one(screens.feed(risk(3, "threat"), 1.0)), 1.0)
    taken = AlertAcknowledged(ts=0, alert_id="other", call_id=CALL, by="t", how="join")
    assert not screens.feed(taken, 2.0)


def test_a_caller_in_danger_is_shown_at_any_level() -> None:
    screens = phone()
    shown = one(screens.feed(CrisisHint(ts=0, call_id=CALL), 1.0)).screen
    assert shown is not None
    assert shown.crisis


def test_a_warning_that_was_played_is_told_where_a_screen_is_up() -> None:
    screens = phone()
    played = WarningPlayed(ts=0, call_id=CALL, agent_id="1001", grade=1, complete=True)
    assert not screens.feed(played, 1.0)
    shown = one(screens.feed(risk(2, "insult"), 2.0)).screen
    assert shown == Screen(2, ("insult",), False, "warned", 1)


def test_two_calls_of_one_agent_show_the_worse_one() -> None:
    screens = phone()
    screens.feed(started("d" * 32), 0.0)
    took(screens, one(screens.feed(risk(2, "shouting"), 1.0)), 1.0)
    worse = one(screens.feed(risk(3, "threat", call_id="d" * 32), 2.0))
    assert worse.screen == Screen(3, ("threat",))
    took(screens, worse, 2.0)
    assert not screens.feed(risk(2, "hate"), 3.0)  # the other call is still the worse one
    back = one(screens.feed(ended("d" * 32), 4.0))
    assert back.screen == Screen(2, ("hate",))


def test_the_screen_goes_when_the_agent_is_released_not_when_the_caller_is() -> None:
    screens = phone()
    took(screens, one(screens.feed(risk(3, "threat"), 1.0)), 1.0)
    ending = CallEnding(ts=0, call_id=CALL, agent_id="1001", by="agent:dtmf")
    assert one(screens.feed(ending, 2.0)).kind == "clear"


def test_a_level_that_was_understood_after_the_call_is_no_warning() -> None:
    assert not phone().feed(risk(3, "threat", late=True), 1.0)


def test_calls_that_ended_while_the_notifier_was_away_are_cleared() -> None:
    screens = phone()
    took(screens, one(screens.feed(risk(3, "threat"), 1.0)), 1.0)
    assert not screens.feed(CallSnapshot(ts=0, calls=[started()]), 2.0)
    assert one(screens.feed(CallSnapshot(ts=0, calls=[]), 3.0)).kind == "clear"


def helper(state: Any) -> HelperChanged:
    return HelperChanged(ts=0, call_id=CALL, agent_id="1001", state=state, role="manager")


def test_a_call_that_was_handed_over_leaves_the_agents_screen() -> None:
    """The manager's phone is no agent's, and the agent is not in the call any more."""
    screens = phone()
    took(screens, one(screens.feed(risk(3, "threat"), 1.0)), 1.0)
    said = one(screens.feed(helper("took_over"), 2.0))
    assert said.screen == Screen(0, status="took_over")
    took(screens, said, 2.0)
    assert not screens.feed(risk(3, "threat"), 3.0)
    assert not screens.feed(CrisisHint(ts=0, call_id=CALL), 3.0)
    assert screens.next_due(3.0) == 2.0 + CALM_S
    assert one(screens.tick(2.0 + CALM_S)).kind == "clear"


def test_a_clear_that_is_lost_is_tried_until_the_phone_is_back() -> None:
    screens = phone()
    took(screens, one(screens.feed(risk(3, "threat"), 1.0)), 1.0)
    push, now_s = one(screens.feed(ended(), 2.0)), 2.0
    for _ in range(3):
        again = one(took(screens, push, now_s, "failed"))
        assert not took(screens, again, now_s, "failed")
        due = screens.next_due(now_s)
        assert due is not None
        assert due > now_s
        now_s = due
        push = one(screens.tick(now_s))
        assert push.kind == "clear"
    assert not took(screens, push, now_s)
    assert screens.showing("1001") is None
    assert screens.next_due(now_s) is None


def test_a_clear_that_never_arrives_costs_little() -> None:
    screens = phone()
    took(screens, one(screens.feed(risk(3, "threat"), 1.0)), 1.0)
    pushes, now_s, sent = screens.feed(ended(), 2.0), 2.0, 0
    while True:
        while pushes:
            sent += 1
            pushes = took(screens, one(pushes), now_s, "failed")
        due = screens.next_due(now_s)
        if due is None:
            break
        now_s = due
        pushes = screens.tick(now_s)
    assert sent == 2 * (CLEARS + 1)
    assert now_s < 600


def test_what_an_earlier_process_left_on_a_phone_goes() -> None:
    screens = Screens(2)
    screens.set_phones({"1001": None, "1002": None})
    assert one(screens.left_on(["1001", "nobody"], 1.0)).kind == "clear"
    assert screens.next_due(1.0) is None


def test_what_is_still_true_is_not_taken_away() -> None:
    screens = phone()
    push = one(screens.feed(risk(3, "threat"), 1.0))
    assert not screens.left_on(["1001"], 1.0)
    assert push.screen == Screen(3, ("threat",))
    assert not took(screens, push, 1.0)


def test_help_that_is_said_again_takes_nobody_away() -> None:
    screens = phone()
    took(screens, one(screens.feed(asked(), 1.0)), 1.0)
    took(screens, one(screens.feed(helper("joined"), 2.0)), 2.0)
    assert not screens.feed(asked(), 3.0)


def test_a_phone_that_becomes_known_during_the_call_is_told() -> None:
    screens = Screens(2)
    screens.feed(started(), 0.0)
    assert not screens.feed(risk(3, "threat"), 1.0)
    screens.set_phones({"1001": None})
    assert one(screens.tick(2.0)).screen == Screen(3, ("threat",))


def test_other_phones_hear_nothing_of_it() -> None:
    screens = Screens(2)
    screens.set_phones({"1001": None, "1002": None})
    screens.feed(started(), 0.0)
    assert [push.agent_id for push in screens.feed(risk(3, "threat"), 1.0)] == ["1001"]
    assert not screens.tick(100.0)


def test_calls_are_kept_within_bounds() -> None:
    screens = Screens(2)
    for number in range(MOST_CALLS + 100):
        screens.feed(started(f"{number:032x}"), 0.0)
    assert len(screens._calls) == MOST_CALLS


EVENTS = st.one_of(
    st.builds(
        lambda level, call: risk(level, "shouting", call_id=call * 32),
        st.integers(0, 3),
        st.sampled_from("cd"),
    ),
    st.builds(lambda call: started(call * 32), st.sampled_from("cd")),
    st.builds(lambda call: ended(call * 32), st.sampled_from("cd")),
    st.builds(lambda call: asked(call * 32), st.sampled_from("cd")),
    st.builds(lambda call: CrisisHint(ts=0, call_id=call * 32), st.sampled_from("cd")),
)
STEPS = st.lists(
    st.tuples(
        st.one_of(EVENTS, st.sampled_from(["taken", "failed", "refused", "tick"])),
        st.floats(0, 20),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.sampled_from([None, 30.0]))
def test_whatever_happens_one_request_is_under_way_and_the_screen_ends_true(
    steps: list[tuple[Any, float]], hold_s: float | None
) -> None:
    screens = Screens(2)
    screens.set_phones({"1001": hold_s})
    now = 0.0
    under_way: list[core.Push] = []
    for step, pause in steps:
        now += pause
        if isinstance(step, str) and step != "tick":
            new = screens.done(under_way.pop(), step, now) if under_way else []  # type: ignore[arg-type]
        else:
            new = screens.tick(now) if step == "tick" else screens.feed(step, now)
        under_way += new
        assert len(under_way) <= 1
        due = screens.next_due(now)
        assert due is None or not under_way
    # From here on the phone takes everything, all calls end, and pauses pass: it must be dark.
    new = []
    for call in "cd":
        new += screens.feed(ended(call * 32), now)
    under_way += new
    for _ in range(20):
        now += LONGEST_PAUSE_S + 1
        while under_way:
            under_way += screens.done(under_way.pop(), "taken", now)
        under_way += screens.tick(now)
    assert screens.showing("1001") is None
    assert screens.next_due(now) is None


def test_a_core_that_queued_would_be_noticed(monkeypatch: Any) -> None:
    """Negative control of the test above: without the rule two requests are under way."""
    monkeypatch.setattr(core.Screens, "_next", _next_without_the_rule)
    screens = phone()
    first = screens.feed(risk(2, "shouting"), 1.0)
    assert len(first + screens.feed(risk(3, "threat"), 1.1)) == 2


def _next_without_the_rule(self: Screens, phone: Any, now_s: float, tries: int = 1) -> list[Push]:
    wanted, call_id = self._wanted(phone, now_s)
    return [Push(phone.agent_id, call_id, 0, "warning", wanted, tries)]
