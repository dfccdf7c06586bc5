"""An alert finds somebody: the steps, refusals, people who go, ended calls, restarts, clocks."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from callshield.messages import CallEnded, CallStarted, CrisisHint
from callshield.messages_escalation import AlertEscalated, AlertRefused, AlertUnanswered
from callshield.settings import Settings
from notifier.board import Board
from notifier.commands import Commands
from notifier.escalating import Escalating
from notifier.escalation import AGAIN_S, GONE_AFTER_S, Escalation, Moment, Request, Said
from notifier.live import Alert
from tests.escalation_kit import CALL, alert, escalation, settings

ALERT = "f" * 32


class Scene:
    """One escalation, a clock that only this moves, and who has a console open."""

    def __init__(self, kind: Escalation | None = None, connected: str = "abc") -> None:
        self.escalation = kind or escalation()
        self.now, self.ts = 1000.0, 1.8e9
        self.connected = set(connected)
        self.busy: set[str] = set()
        self.said: list[Said] = []

    @property
    def moment(self) -> Moment:
        return Moment(self.now, self.ts, frozenset(self.connected), frozenset(self.busy))

    def note(self, said: list[Said] | None) -> list[tuple[str, list[str]]]:
        self.said += said or []
        return steps(said or [])

    def raised(self, one: Alert | None = None, **options: Any) -> list[tuple[str, list[str]]]:
        one = one or alert(ts=self.ts)
        return self.note(self.escalation.raised(one, self.moment, **options))

    def after(self, seconds: float) -> list[tuple[str, list[str]]]:
        """What is said until then, looked at every second as the node does."""
        found = []
        for _ in range(int(seconds)):
            self.now += 1
            self.ts += 1
            found += self.note(self.escalation.tick(self.moment))
        return found

    def refuse(self, by: str, reason: str = "in a meeting") -> list[tuple[str, list[str]]]:
        return self.note(self.escalation.refused(ALERT, by, reason, self.moment))

    @property
    def request(self) -> Request:
        return self.escalation.requests[ALERT]


def steps(said: list[Said]) -> list[tuple[str, list[str]]]:
    """The steps alone, as (stage, whom)."""
    return [(s.event.stage, s.event.to) for s in said if isinstance(s.event, AlertEscalated)]


def offers(said: list[Said]) -> list[list[str]]:
    return [list(s.event.offers) for s in said if isinstance(s.event, AlertUnanswered)]


def test_one_after_the_other_then_all_then_the_manager_then_the_agent_is_offered_the_end() -> None:
    scene = Scene()
    assert scene.raised() == [("person", ["a"])]
    assert scene.after(14) == []
    assert scene.after(1) == [("person", ["b"])]
    assert scene.after(15) == [("person", ["c"])]
    assert scene.after(15) == [("all", ["a", "b", "c"])]
    assert scene.after(20) == [("manager", ["m"])]
    assert offers(scene.said) == []
    assert scene.after(25) == [("nobody", [])]
    assert offers(scene.said) == [["end", "promise_call_back"]]
    assert [s.event.step for s in scene.said if isinstance(s.event, AlertEscalated)] == [
        1, 2, 3, 4, 5, 6,
    ]  # fmt: skip


def test_while_the_call_lasts_everybody_is_told_again_and_the_offer_is_made_once() -> None:
    scene = Scene()
    scene.raised()
    scene.after(90)
    again = ("nobody", ["a", "b", "c", "m"])
    assert scene.after(3 * AGAIN_S) == [again, again, again]
    assert len(offers(scene.said)) == 1


def test_a_refusal_goes_to_the_next_at_once_is_kept_and_closes_nothing() -> None:
    scene = Scene()
    scene.raised()
    assert scene.refuse("a", "in a call myself") == [("person", ["b"])]
    assert scene.refuse("b") == [("person", ["c"])]
    assert [(one.by, one.reason) for one in scene.request.refusals] == [
        ("a", "in a call myself"),
        ("b", "in a meeting"),
    ]
    refused = [s.event for s in scene.said if isinstance(s.event, AlertRefused)]
    assert [(one.by, one.reason) for one in refused] == [
        ("a", "in a call myself"),
        ("b", "in a meeting"),
    ]
    # All have refused: the manager at once, nobody is asked in vain.
    assert scene.refuse("c") == [("manager", ["m"])]
    assert offers(scene.said) == []
    # The manager too: the agent need not wait for a limit that nobody will beat.
    assert scene.refuse("m") == [("nobody", [])]
    assert offers(scene.said) == [["end", "promise_call_back"]]
    assert ALERT in scene.escalation.requests
    assert scene.after(AGAIN_S) == [("nobody", ["a", "b", "c", "m"])]
    assert ALERT in scene.escalation.requests


def test_a_refusal_of_somebody_who_is_not_asked_now_only_takes_him_out_of_the_turn() -> None:
    scene = Scene()
    scene.raised()
    assert scene.refuse("b") == []
    assert scene.request.person == "a"
    assert scene.after(15) == [("person", ["c"])]


def test_the_second_refusal_of_the_same_person_is_none() -> None:
    scene = Scene()
    scene.raised()
    scene.refuse("a")
    assert scene.escalation.refused(ALERT, "a", "again", scene.moment) == []
    assert len(scene.request.refusals) == 1


def test_an_unknown_or_accepted_request_cannot_be_refused() -> None:
    scene = Scene()
    assert scene.escalation.refused(ALERT, "a", "no", scene.moment) is None
    scene.raised()
    assert scene.escalation.closed(ALERT) is not None
    assert scene.escalation.refused(ALERT, "a", "no", scene.moment) is None
    assert scene.after(300) == []


def test_who_has_no_console_open_is_not_waited_for() -> None:
    scene = Scene(connected="bc")
    assert scene.raised() == [("person", ["b"])]
    assert scene.after(30) == [("person", ["c"]), ("all", ["b", "c", "a"])]


def test_with_no_console_open_everybody_is_told_at_once() -> None:
    assert Scene(connected="").raised() == [("all", ["a", "b", "c"])]


def test_who_goes_while_he_is_asked_is_passed_over_who_only_reloads_is_not() -> None:
    scene = Scene()
    scene.raised()
    scene.connected.discard("a")
    assert scene.after(GONE_AFTER_S - 2) == []
    scene.connected.add("a")
    assert scene.after(3) == []
    scene.connected.discard("a")
    assert scene.after(GONE_AFTER_S + 1) == [("person", ["b"])]


def test_the_limit_holds_however_many_there_are_to_ask_in_turn() -> None:
    scene = Scene(escalation(settings(north={"next_after_s": 40.0, "limit_s": 60.0})))
    scene.raised()
    assert scene.after(59) == [("person", ["b"])]
    # Whoever was not told yet is told before the agent reads that nobody came.
    assert scene.after(1) == [("all", ["a", "b", "c"]), ("manager", ["m"]), ("nobody", [])]


def test_a_severe_level_and_a_crisis_tell_everybody_at_once() -> None:
    assert Scene().raised(alert(kind="risk", level=2)) == [("person", ["a"])]
    assert Scene().raised(alert(kind="risk", level=3)) == [("all", ["a", "b", "c"])]
    assert Scene().raised(alert(kind="crisis")) == [("all", ["a", "b", "c"])]
    both = Scene(escalation(settings(north={"policy": {"help": "manager"}})))
    assert both.raised() == [("all", ["a", "b", "c"]), ("manager", ["m"])]


def test_to_the_agent_of_a_caller_in_danger_no_end_is_offered() -> None:
    scene = Scene()
    scene.raised(alert(kind="crisis"))
    scene.after(90)
    assert offers(scene.said) == [["promise_call_back"]]


def test_a_fault_of_the_node_is_told_and_offers_the_agent_nothing() -> None:
    scene = Scene()
    assert scene.raised(alert(kind="notice_failed")) == [("all", ["a", "b", "c"])]
    scene.after(500)
    assert scene.request.stage == "nobody"
    assert offers(scene.said) == []


def test_help_of_an_ended_call_goes_on_until_all_know_and_then_stays_open_in_silence() -> None:
    scene = Scene()
    scene.raised()
    scene.escalation.call_over(CALL)
    assert scene.after(90)[-3:] == [("all", ["a", "b", "c"]), ("manager", ["m"]), ("nobody", [])]
    assert scene.after(600) == []
    assert offers(scene.said) == []
    assert ALERT in scene.escalation.requests


def test_two_requests_do_not_go_to_the_same_person_while_another_is_free() -> None:
    scene = Scene()
    scene.busy = {"b"}
    assert scene.raised() == [("person", ["a"])]
    assert scene.raised(alert("e" * 32, call_id="1" * 32)) == [("person", ["c"])]
    assert scene.raised(alert("d" * 32, call_id="2" * 32)) == [("person", ["a"])]


def test_two_requests_of_one_call_go_to_the_same_person() -> None:
    fair = Scene(escalation(settings(north={"order": "fair"})))
    assert fair.raised() == [("person", ["a"])]
    assert fair.raised(alert("e" * 32, kind="risk", level=2)) == [("person", ["a"])]
    # Unless that person has refused this one.
    assert fair.after(15) == [("person", ["b"]), ("person", ["b"])]


def test_a_fair_rotation_begins_with_who_was_called_longest_ago() -> None:
    fair = Scene(escalation(settings(north={"order": "fair"})))
    called = []
    for number in range(4):
        [(_, [one])] = fair.raised(alert(f"{number:032x}"))
        called.append(one)
        fair.escalation.closed(f"{number:032x}")
    assert called == ["a", "b", "c", "a"]
    fixed = Scene()
    for number in range(3):
        assert fixed.raised(alert(f"{number:032x}")) == [("person", ["a"])]
        fixed.escalation.closed(f"{number:032x}")


def test_a_fair_rotation_goes_on_after_a_restart() -> None:
    fair = Scene(escalation(settings(north={"order": "fair"})))
    fair.escalation.recall(["b", "a"])
    assert fair.raised() == [("person", ["c"])]
    fair.escalation.closed(ALERT)
    assert fair.raised() == [("person", ["b"])]


def test_whose_phone_did_not_answer_is_not_asked_first_again() -> None:
    scene = Scene()
    assert scene.raised(without="a") == [("person", ["b"])]


def test_an_agent_without_a_team_has_everybody_at_once_as_ever() -> None:
    scene = Scene()
    assert scene.raised(alert(agent_id="1003")) == [("all", ["a", "b", "c", "d"])]
    assert scene.after(20) == [("manager", ["m"])]


def test_without_any_supervisor_configured_the_steps_are_said_all_the_same() -> None:
    scene = Scene(escalation(Settings(agents={})), connected="")
    assert scene.raised(alert(agent_id="gone")) == [("all", [])]
    assert scene.after(90) == [("manager", []), ("nobody", [])]
    assert offers(scene.said) == [["end", "promise_call_back"]]


def test_a_console_that_is_tied_to_nobody_refuses_and_the_others_may_still_come() -> None:
    scene = Scene(escalation(Settings(agents={})), connected="")
    scene.connected = {"token:t1", "token:t2"}
    scene.raised(alert(agent_id="gone"))
    assert scene.refuse("t1") == []
    assert scene.refuse("t2") == [("manager", [])]


def restarted(scene: Scene, *, ts: float | None = None, over: str = "") -> Scene:
    """A new process that has the stored rows and nothing else."""
    rows: dict[str, dict[str, Any]] = {}
    for said in scene.said:
        rows[said.request.alert_id] = said.request.row()
    again = Scene(escalation(), connected="abc")
    again.ts = scene.ts if ts is None else ts
    again.escalation.restore([Request.of_row(row) for row in rows.values()], [over], again.moment)
    return again


def test_a_restart_goes_on_where_it_was() -> None:
    scene = Scene()
    scene.raised()
    scene.refuse("a", "세미나 중")
    scene.after(10)
    again = restarted(scene)
    assert again.request == scene.request
    assert again.after(4) == []
    assert again.after(1) == [("person", ["c"])]
    assert again.request.step == 3
    assert again.after(15) == [("all", ["b", "c"])]


@pytest.mark.parametrize(("jump_s", "wait_s"), [(1e6, 1), (-1e6, 15)])
def test_a_clock_that_jumps_between_two_processes_costs_at_most_one_step(
    jump_s: float, wait_s: int
) -> None:
    scene = Scene()
    scene.raised()
    scene.after(10)
    again = restarted(scene, ts=scene.ts + jump_s)
    assert len(again.after(wait_s)) >= 1


def test_a_clock_that_jumps_in_one_process_changes_nothing() -> None:
    for jump_s in (1e6, -1e6):
        scene = Scene()
        scene.raised()
        scene.ts += jump_s
        assert scene.after(14) == []
        assert scene.after(1) == [("person", ["b"])]


def test_after_a_restart_the_offer_that_was_made_is_not_made_again() -> None:
    scene = Scene()
    scene.raised()
    scene.after(95)
    again = restarted(scene)
    assert again.after(AGAIN_S) == [("nobody", ["a", "b", "c", "m"])]
    assert offers(again.said) == []
    ended = restarted(scene, over=CALL)
    assert ended.after(AGAIN_S) == []


def test_an_old_alert_from_before_there_were_steps_stays_open_and_calls_nobody() -> None:
    scene = Scene()
    scene.escalation.known_before(alert(), scene.moment)
    assert scene.after(300) == []
    assert ALERT in scene.escalation.requests
    assert scene.refuse("a") == []
    assert scene.request.refusals[0].by == "a"


# --------------------------------------------------------------------------- any order of events

WHO = st.sampled_from(["a", "b", "c", "d", "m", "token:t1"])
LIMIT_S = 90.0


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order, no request is lost, closed by a refusal, or unheard."""

    kind: type[Escalation] = Escalation
    alerts = Bundle("alerts")

    @initialize()
    def begin(self) -> None:
        self.now, self.ts = 1000.0, 1.8e9
        self.subject = escalation(kind=self.kind)
        self.connected: set[str] = set()
        self.open: dict[str, Alert] = {}
        self.since: dict[str, float] = {}
        """When the limit of each began to run, at the latest."""
        self.rows: dict[str, dict[str, Any]] = {}
        self.refused: dict[str, list[tuple[str, str]]] = {}
        self.steps: dict[str, int] = {}
        self.offered: dict[str, int] = {}
        self.over: set[str] = set()
        self.count = 0

    @property
    def moment(self) -> Moment:
        return Moment(self.now, self.ts, frozenset(self.connected))

    def take(self, said: list[Said] | None) -> None:
        for one in said or []:
            event = one.event
            self.rows[event.alert_id] = one.request.row()
            assert event.alert_id in self.open
            match event:
                case AlertEscalated():
                    assert event.step == self.steps.get(event.alert_id, 0) + 1
                    self.steps[event.alert_id] = event.step
                case AlertUnanswered():
                    self.offered[event.alert_id] = self.offered.get(event.alert_id, 0) + 1
                    assert event.call_id not in self.over

    @rule(
        target=alerts,
        kind=st.sampled_from(["help", "risk", "crisis", "notice_failed", "node"]),
        agent=st.sampled_from(["1001", "1002", "1003"]),
        level=st.integers(0, 3),
    )
    def somebody_is_needed(self, kind: Any, agent: str, level: int) -> str:
        self.count += 1
        new = alert(f"{self.count:032x}", kind, agent, level, f"{self.count:032x}", self.ts)
        self.open[new.alert_id] = new
        self.since[new.alert_id] = self.now
        self.take(self.subject.raised(new, self.moment))
        assert self.steps[new.alert_id] >= 1
        return new.alert_id

    @rule(alert_id=alerts, who=WHO, reason=st.text(max_size=5))
    def somebody_refuses(self, alert_id: str, who: str, reason: str) -> None:
        who = who.removeprefix("token:")
        said = self.subject.refused(alert_id, who, reason, self.moment)
        assert (said is None) == (alert_id not in self.open)
        if said:
            self.refused.setdefault(alert_id, []).append((who, reason))
            self.take(said)
            assert self.subject.requests[alert_id].person != who

    @rule(target=alerts, alert_id=consumes(alerts))
    def somebody_accepts(self, alert_id: str) -> Any:
        self.open.pop(alert_id, None)
        self.subject.closed(alert_id)
        return multiple(alert_id)

    @rule(alert_id=alerts)
    def the_call_ends(self, alert_id: str) -> None:
        self.over.add(alert_id)
        self.subject.call_over(alert_id)

    @rule(seconds=st.sampled_from([1, 7, 20, 40, 100]))
    def time_passes(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            self.ts += 1
            self.take(self.subject.tick(self.moment))
            # Each second, not only where a rule happens to end.
            self.at_the_limit_all_were_told_and_the_agent_knows()

    @rule(jump_s=st.sampled_from([-1e6, -30.0, 30.0, 1e6]))
    def the_wall_clock_jumps(self, jump_s: float) -> None:
        self.ts += jump_s

    @rule(who=WHO)
    def somebody_comes_or_goes(self, who: str) -> None:
        self.connected ^= {who}

    @rule(away_s=st.integers(0, 30))
    def the_notifier_is_killed(self, away_s: int) -> None:
        self.ts += away_s
        self.now = 5000.0 + self.count  # another boot, another beginning of this clock
        self.connected.clear()
        self.subject = escalation(kind=self.kind)
        stored = [Request.of_row(row) for row_id, row in self.rows.items() if row_id in self.open]
        self.subject.restore(stored, self.over, self.moment)
        self.since = dict.fromkeys(self.open, self.now)

    @invariant()
    def every_open_alert_is_on_its_way(self) -> None:
        assert set(self.subject.requests) == set(self.open)

    @invariant()
    def somebody_was_told_of_every_one(self) -> None:
        for alert_id in self.open:
            request = self.subject.requests[alert_id]
            assert request.told, alert_id
            allowed = {"1001": {*"abcm"}, "1002": {*"dm"}, "1003": {*"abcdm"}}[request.agent_id]
            assert set(request.told) <= allowed

    @invariant()
    def every_refusal_is_kept(self) -> None:
        for alert_id in self.open:
            kept = self.subject.requests[alert_id].refusals
            assert [(one.by, one.reason) for one in kept] == self.refused.get(alert_id, [])

    @invariant()
    def at_the_limit_all_were_told_and_the_agent_knows(self) -> None:
        for alert_id in self.open:
            request = self.subject.requests[alert_id]
            if self.now - self.since[alert_id] < LIMIT_S:
                continue
            assert request.stage == "nobody"
            refused = {one.by for one in request.refusals}
            team = {"1001": {*"abc"}, "1002": {*"d"}, "1003": {*"abcd"}}[request.agent_id]
            assert team | {"m"} <= set(request.told) | refused
            if request.kind in ("help", "risk", "crisis") and alert_id not in self.over:
                assert self.offered.get(alert_id) == 1

    @invariant()
    def while_the_call_lasts_it_is_never_silent(self) -> None:
        for alert_id in self.open:
            due_s = self.subject.due_in_s(alert_id, self.now)
            people = self.open[alert_id].kind in ("help", "risk", "crisis")
            if people and alert_id not in self.over:
                assert due_s is not None
                assert due_s <= LIMIT_S


MANY = hypothesis_settings(max_examples=60, stateful_step_count=30, deadline=None)
#: Until a fault is found, which is not made smaller. Some take a hundred days on average, so that
#: sixty without them are no proof of anything.
FIRST = hypothesis_settings(MANY, max_examples=5000, phases=[Phase.generate], database=None)


def test_in_any_order_no_request_is_lost_refused_to_closure_or_told_to_nobody() -> None:
    run_state_machine_as_test(AnyOrder, settings=MANY)


class _ClosesOnRefusal(Escalation):
    def refused(self, alert_id: str, by: str, reason: str, moment: Moment) -> list[Said] | None:
        said = super().refused(alert_id, by, reason, moment)
        self.closed(alert_id)
        return said


class _Forgets(Escalation):
    def restore(self, requests: Any, over: Any, moment: Moment) -> None:
        super().restore(list(requests)[:1], over, moment)


class _TellsNobody(Escalation):
    def _tell_all(self, request: Request, moment: Moment) -> list[Said]:
        return self._tell("all", [], request, moment)


class _TakesItsTime(Escalation):
    def tick(self, moment: Moment) -> list[Said]:
        return super().tick(dataclasses.replace(moment, now=moment.now - 20))


@pytest.mark.parametrize("broken", [_ClosesOnRefusal, _Forgets, _TellsNobody, _TakesItsTime])
def test_the_machine_finds_what_is_broken(broken: type[Escalation]) -> None:
    """Negative control."""
    machine = type("Broken", (AnyOrder,), {"kind": broken})
    with pytest.raises((AssertionError, KeyError)):
        run_state_machine_as_test(machine, settings=FIRST)


@pytest.mark.parametrize("live", [False, True])
def test_a_danger_heard_in_the_last_words_offers_an_ended_call_nothing(live: bool) -> None:
    now = [1000.0]
    board = Board(2)
    escalating = Escalating(
        settings(),
        board,
        lambda: now[0],
        lambda: now[0],
        frozenset,
        Commands(lambda command: True).ask,
    )
    board.apply(CallStarted(ts=1000.0, call_id=CALL, agent_id="1001", pbx_call_id="x"))
    if not live:
        over = CallEnded(ts=1001.0, call_id=CALL, agent_id="1001", reason="bye", duration_s=1.0)
        escalating.feed(board.apply(over))
    entries = board.apply(CrisisHint(ts=1002.0, call_id=CALL))
    told = [*entries, *escalating.feed(entries)]
    for _ in range(600):
        now[0] += 1.0
        told += escalating.tick()
    steps = [entry.event for entry in told if isinstance(entry.event, AlertEscalated)]
    offers = [entry for entry in told if isinstance(entry.event, AlertUnanswered)]
    # Everybody was told once; only of a live call again and again, and its agent is offered.
    assert {"all", "manager", "nobody"} <= {step.stage for step in steps}
    assert (len(steps) > 5, bool(offers)) == (live, live)
