"""The pure core: who is heard, who is dead, whose a call is, what is newer."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import pytest

from callshield.messages_cluster import (
    AlertState,
    Batch,
    Beat,
    CallState,
    Snapshot,
    decode_beat,
)
from notifier.cluster.peers import (
    RANK_S,
    STARTS_WITHIN_S,
    VANISHED_AFTER_S,
    Changed,
    Finding,
    Peers,
    RaiseAway,
    Vanished,
    away_alert_id,
)
from notifier.cluster.proof import GOOD_S, Once, is_proof, proof

BOOT, LATER = "a" * 16, "b" * 16
DEAD_S, STOPPED_S = 8.0, 900.0
CALL, OTHER, ALERT = "1" * 32, "2" * 32, "3" * 32


def beat(node: str, **fields: Any) -> Beat:
    given = {"boot": BOOT, "epoch": 1, "ts": 1000.0, "last_id": 0, "sent_id": 0, "outbox": 0}
    given |= {"dropped": 0, "position": 0, "calls": 0, "alerts": 0}
    return Beat(node=node, **{**given, **fields})


def call(call_id: str = CALL, level: int = 0, **fields: Any) -> CallState:
    given: dict[str, Any] = {
        "agent_id": "1001", "pbx_call_id": "", "direction": "inbound", "started_ts": 1.0,
        "answered_ts": None, "notice": "", "tapped": True, "categories": [],
        "acoustic_only": False, "words_confirmed": False, "crisis": False, "ending": False,
        "help_asked": False,
    }  # fmt: skip
    return CallState(call_id=call_id, level=level, **{**given, **fields})


def alert(alert_id: str = ALERT, taken: bool = False) -> AlertState:
    return AlertState(
        alert_id=alert_id,
        call_id=CALL,
        agent_id="1001",
        kind="help",
        level=0,
        categories=[],
        reason="help",
        raised_ts=1.0,
        acknowledged_ts=2.0 if taken else None,
        acknowledged_by="",
        how="",
        supervisor_id="",
        verdict="",
    )


def batch(as_of: int, **fields: Any) -> Batch:
    given: dict[str, Any] = {"epoch": 1, "first": 0, "last": as_of, "events": []}
    return Batch(node="b", boot=BOOT, as_of=as_of, **{**given, **fields})


def snapshot(as_of: int, calls: list[CallState], alerts: list[AlertState]) -> Snapshot:
    return Snapshot(node="b", boot=BOOT, epoch=1, as_of=as_of, calls=calls, alerts=alerts)


def peers(own: str = "a", names: str = "abc") -> Peers:
    made = Peers(own, names, DEAD_S, STOPPED_S)
    made.bus_answers(0.0)
    return made


def raised(findings: list[Finding]) -> list[str]:
    return [one.peer.name for one in findings if isinstance(one, RaiseAway)]


def states(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(one.peer.name, one.peer.state) for one in findings if isinstance(one, Changed)]


def pass_time(one: Peers, begin: float, end: float) -> list[Finding]:
    """Tick and hear the bus answer four times a second."""
    found: list[Finding] = []
    for step in range(int(begin * 4), int(end * 4) + 1):
        one.bus_answers(step / 4)
        found += one.tick(step / 4)
    return found


def test_silence_is_an_alert_of_one_node_alone() -> None:
    a, c = peers("a"), peers("c")
    for one in (a, c):
        for name in "abc":
            if name != one.own:
                one.heard(beat(name), 0.0, 1000.0)
    # b falls silent; a and c hear each other.
    for step in range(60):
        now = step / 4
        a.heard(beat("c"), now, 1000.0)
        c.heard(beat("a"), now, 1000.0)
    found_a: list[Finding] = []
    found_c: list[Finding] = []
    for step in range(80):
        now = step / 4
        for one, found, other in ((a, found_a, "c"), (c, found_c, "a")):
            one.bus_answers(now)
            one.heard(beat(other), now, 1000.0)
            if raised(found_a):
                # What a raised comes over the bus.
                c.saw_alert(away_alert_id("b", BOOT))
            found += one.tick(now)
    assert ("b", "away") in states(found_a)
    assert ("b", "away") in states(found_c)
    assert raised(found_a) == ["b"]
    assert raised(found_c) == [], "a stands before c and did it"
    silent_s = next(one.silent_s for one in found_a if isinstance(one, RaiseAway))
    assert DEAD_S <= silent_s < DEAD_S + 0.5


def test_the_next_one_raises_it_when_the_first_does_not() -> None:
    c = peers("c")
    c.heard(beat("a"), 0.0, 1000.0)
    c.heard(beat("b"), 0.0, 1000.0)
    found = []
    for step in range(80):
        now = step / 4
        c.bus_answers(now)
        c.heard(beat("a"), now, 1000.0)
        found += c.tick(now)
    silent_s = next(one.silent_s for one in found if isinstance(one, RaiseAway))
    assert DEAD_S + RANK_S <= silent_s < DEAD_S + RANK_S + 0.5


def test_the_same_death_has_the_same_alert_and_the_next_one_another() -> None:
    a = peers()
    a.heard(beat("b"), 0.0, 1000.0)
    a.heard(beat("c"), 0.0, 1000.0)
    first = [one for one in pass_time(a, 0, 20) if isinstance(one, RaiseAway)]
    assert {one.alert_id for one in first} == {away_alert_id("b", BOOT), away_alert_id("c", BOOT)}
    a.heard(beat("b", boot=LATER), 20.0, 1000.0)
    again = [one for one in pass_time(a, 20, 40) if isinstance(one, RaiseAway)]
    assert [one.alert_id for one in again] == [away_alert_id("b", LATER)]


@pytest.mark.parametrize(("state", "limit_s"), [("up", DEAD_S), ("stopped", STOPPED_S)])
def test_a_goodbye_is_no_death_for_a_while(state: str, limit_s: float) -> None:
    a = peers(names="ab")
    a.heard(beat("b", state=state), 0.0, 1000.0)
    assert raised(pass_time(a, 0, limit_s - 1)) == []
    assert raised(pass_time(a, limit_s - 1, limit_s + 1)) == ["b"]


def test_who_was_never_heard_has_time_to_start() -> None:
    a = peers(names="ab")
    assert raised(pass_time(a, 0, STARTS_WITHIN_S - 1)) == []
    assert raised(pass_time(a, STARTS_WITHIN_S - 1, STARTS_WITHIN_S + 1)) == ["b"]


def test_who_hears_nothing_of_the_bus_buries_nobody() -> None:
    a = peers(names="ab")
    a.heard(beat("b"), 0.0, 1000.0)
    # The bus stands still: no round trip ends.
    assert [one for now in range(1, 200) for one in a.tick(float(now))] == []
    # It answers again: b has its whole time from now on.
    assert raised(pass_time(a, 200, 200 + DEAD_S - 0.5)) == []
    a.heard(beat("b"), 207.5, 1000.0)
    # Control: with a bus that answers, the same silence is a death.
    assert raised(pass_time(a, 207.5, 230)) == ["b"]
    a.deaf()
    a.heard(beat("b"), 240.0, 1000.0)
    assert a.tick(400.0) == []


def test_of_one_call_the_older_never_overwrites_the_newer() -> None:
    a = peers()
    a.heard(beat("b"), 0.0, 1000.0)
    b = a.all["b"]
    assert a.needs_snapshot(b)
    a.apply(batch(7, calls=[call(level=3)]))
    a.learn([snapshot(5, [call(level=1), call(OTHER)], [alert()])], 0.0)
    assert not a.needs_snapshot(b)
    assert {one.call_id: one.level for one in b.calls.values()} == {CALL: 3, OTHER: 0}
    a.apply(batch(9, ended=[CALL], alerts=[alert(taken=True)]))
    # A snapshot that was taken before, and comes after.
    a.learn([snapshot(8, [call(level=3), call(OTHER)], [alert()])], 0.0)
    assert set(b.calls) == {OTHER}
    assert b.alerts == {}
    assert a.owner(CALL) is b
    assert a.owner(ALERT) is b
    assert a.owner("4" * 32) is None


def test_what_a_snapshot_has_no_more_is_believed_after_a_while() -> None:
    a = peers()
    a.heard(beat("b"), 0.0, 1000.0)
    a.apply(batch(5, calls=[call(), call(OTHER)], alerts=[alert()]))
    a.learn([snapshot(9, [], [])], 0.0)
    assert not a.all["b"].calls
    # The event of one end was under way.
    a.told("b", OTHER)
    early = pass_time(a, 0, VANISHED_AFTER_S - 1)
    assert not [one for one in early if isinstance(one, Vanished)]
    late = pass_time(a, VANISHED_AFTER_S - 1, VANISHED_AFTER_S + 1)
    gone = [one.what for one in late if isinstance(one, Vanished)]
    assert [getattr(one, "alert_id", one.call_id) for one in gone] == [CALL, ALERT]


def test_numbers_of_another_epoch_begin_anew() -> None:
    a = peers()
    a.heard(beat("b"), 0.0, 1000.0)
    a.took("b", 1, 100)
    assert not a.is_news("b", 1, 100)
    assert a.is_news("b", 1, 101)
    a.learn([snapshot(100, [call()], [])], 0.0)
    assert a.is_news("b", 2, 1)
    a.took("b", 2, 1)
    assert a.needs_snapshot(a.all["b"])
    assert not a.is_news("b", 1, 200)


def test_other_numbers_in_heartbeats_ask_for_a_snapshot() -> None:
    a = peers()
    a.heard(beat("b"), 0.0, 1000.0)
    a.learn([snapshot(1, [call()], [])], 0.0)
    for _ in range(9):
        a.heard(beat("b", calls=3), 0.0, 1000.0)
    assert not a.needs_snapshot(a.all["b"])
    a.heard(beat("b", calls=3), 0.0, 1000.0)
    assert a.needs_snapshot(a.all["b"])


def test_supervisors_of_a_node_that_lives_can_be_asked() -> None:
    a = peers()
    a.heard(beat("b", supervisors=["kim"], busy=["lee"]), 0.0, 1000.0)
    assert (sorted(a.supervisors()), sorted(a.busy())) == (["kim"], ["lee"])
    a.deaf()
    assert a.supervisors() == frozenset(), "nobody waits for who cannot be told"
    a.bus_answers(0.0)
    assert sorted(a.supervisors()) == ["kim"]
    pass_time(a, 0, 20)
    assert a.supervisors() == frozenset()


def test_a_clock_is_judged_by_the_quickest_of_the_last_heartbeats() -> None:
    a = peers()
    for late_s in (0.1, 9.0, 0.2):
        a.heard(beat("b", ts=1000.0), 0.0, 1000.0 + late_s)
    assert a.all["b"].clock_offset_s == pytest.approx(-0.1)


def test_a_proof_is_of_one_message_for_one_node_and_once() -> None:
    given = proof("f" * 64, "callshield.ask.b.a", b"{}")
    assert is_proof(given, "f" * 64, "callshield.ask.b.a", b"{}")
    assert not is_proof(given, "e" * 64, "callshield.ask.b.a", b"{}")
    assert not is_proof(given, "f" * 64, "callshield.ask.c.a", b"{}")
    assert not is_proof(given, "f" * 64, "callshield.ask.b.a", b"{ }")
    assert not is_proof("\udcff", "f" * 64, "callshield.ask.b.a", b"{}")
    once = Once()
    assert once.is_new("x", 1000.0, 1000.0)
    assert not once.is_new("x", 1000.0, 1000.0 + GOOD_S - 1)
    assert not once.is_new("y", 1000.0, 1000.0 + GOOD_S + 1), "too old"
    assert not once.is_new("y", 1000.0 + GOOD_S + 1, 1000.0), "from a time to come"
    assert once.is_new("z", 1000.0 + GOOD_S - 1, 1000.0)


@pytest.mark.parametrize(
    "broken",
    [
        {"node": "a.b"},
        {"node": ""},
        {"node": "x" * 33},
        {"boot": "zz"},
        {"v": 2},
        {"last_id": -1},
        {"last_id": 2**63},
        {"state": "on fire"},
        {"supervisors": ["x" * 65]},
        {"supervisors": ["x"] * 2001},
        {"ts": "now"},
    ],
)
def test_a_heartbeat_that_does_not_fit_is_none(broken: dict[str, Any]) -> None:
    good = msgspec.to_builtins(beat("b"))
    assert decode_beat(msgspec.json.encode({**good, "new_in_v9": 1})).node == "b", "control"
    with pytest.raises(msgspec.ValidationError):
        decode_beat(msgspec.json.encode({**good, **broken}))


def test_a_node_without_others_loads_nothing_of_the_bus() -> None:
    base = "import callshield.doctor, sys, notifier.app"
    for more, loaded in (("", False), (", notifier.cluster.floor", True)):
        run = subprocess.run(
            [sys.executable, "-c", f"{base}{more}; print('nats' in sys.modules)"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout == f"{loaded}\n"
