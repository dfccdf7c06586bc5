"""The judges of soak and load: slopes with confidence, Erlang's formulas, the ledger of events."""

from __future__ import annotations

import dataclasses
import gc
import math
import mmap
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.load.erlang import erlang_b, erlang_c, servers_for_loss, waits_longer
from tests.load.ledger import EXPECTED, REASONS, Media, Stored, judge
from tests.load.plan import Costs, Site, plan
from tests.load.processes import core_pct, datagrams_lost, descriptor_kinds, sample, usage
from tests.load.ramp import culprit, per_call, signs
from tests.load.trend import trend

# ------------------------------------------------------------------------------------ slopes


def memory(
    growth_per_hour: float, *, noise: float = 1.0, seed: int = 1
) -> tuple[list[float], list[float]]:
    """An hour of a process' memory, MiB: noise that remembers itself, as an allocator does."""
    rng = np.random.default_rng(seed)
    hours = np.arange(720) / 720
    wander = np.zeros(720)
    for at in range(1, 720):
        wander[at] = 0.9 * wander[at - 1] + rng.normal(0, noise * math.sqrt(1 - 0.9**2))
    return list(hours), list(100 + growth_per_hour * hours + wander)


def test_what_is_flat_is_shown_to_be_flat_and_a_leak_is_found() -> None:
    flat = trend(*memory(0.0))
    assert flat.grows_less_than(2.0)
    assert not flat.grows_more_than(0.0)
    leak = trend(*memory(10.0))
    assert leak.grows_more_than(8.0)
    assert leak.low < 10.0 < leak.high
    assert leak.last - leak.first == pytest.approx(10.0, abs=1.5)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    held = sum(
        (found := trend(*memory(3.0, seed=seed))).low <= 3.0 <= found.high for seed in range(200)
    )
    # 95 %, less what is left of the dependence between neighbouring blocks.
    assert held >= 180


def test_neither_an_outlier_nor_a_step_before_the_time_makes_a_slope() -> None:
    hours, mib = memory(0.0, noise=0.1)
    mib[300] += 500
    assert trend(hours, mib).grows_less_than(0.5)


def test_too_short_a_run_says_so() -> None:
    with pytest.raises(ValueError, match="measure for longer"):
        trend([0.0, 1.0, 2.0], [1.0, 2.0, 3.0])


# ------------------------------------------------------------------------------------ Erlang


def test_erlang_b_agrees_with_the_published_tables() -> None:
    # ITU-D SG 2/16, "Teletraffic engineering handbook": 10 lines, 5 erlang: 1.84 %.
    assert erlang_b(10, 5.0) == pytest.approx(0.0184, abs=5e-5)
    assert erlang_b(1, 1.0) == pytest.approx(0.5)
    # The usual table of traffic at 1 % loss: 100 lines carry 84.06 erlang, 20 lines 12.03.
    assert erlang_b(100, 84.06) == pytest.approx(0.01, abs=1e-4)
    assert servers_for_loss(12.0, 0.01) == 20
    assert servers_for_loss(12.1, 0.01) == 21


def test_erlang_c_agrees_with_what_can_be_written_down() -> None:
    assert erlang_c(1, 0.6) == pytest.approx(0.6)  # M/M/1: rho
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)  # M/M/2: 2 rho^2 / (1 + rho)
    assert erlang_c(4, 4.0) == 1.0
    assert waits_longer(1, 0.5, 2.0, 4.0) == pytest.approx(0.5 * math.exp(-1))


# ------------------------------------------------------------------------------------ events


def story(kind: str, call: str, first: int, agent: str = "1001") -> list[Stored]:
    """All events of a call, in order."""
    types = [name for name, count in EXPECTED[kind].items() for _ in range(count)]
    return [
        Stored(
            first + step,
            name,
            f"id-{call}",
            call,
            agent,
            REASONS[kind] * (name == "call.ended"),
            "",
        )
        for step, name in enumerate(types)
    ]


def both() -> list[Stored]:
    return [*story("talk", "a", 1), *story("cancel", "b", 9, "1002")]


DONE = {"talk": ["a"], "cancel": ["b"]}
#: A supervisor sees all of it but the quality of the media.
SEEN = [event.id for event in both() if event.type != "media.quality"]


def test_a_whole_ledger_has_no_faults() -> None:
    own = [event.id for event in both() if event.agent_id == "1001"]
    found = judge(DONE, [], both(), {"floor": (None, SEEN), "desk": ("1001", own)})
    assert (found.faults, found.lost, found.calls, found.events) == ([], 0, 2, 10)


@pytest.mark.parametrize("gone", ["call.started", "notice.finished", "tap.started", "call.ended"])
def test_an_event_that_is_not_in_the_store_is_missed(gone: str) -> None:
    stored = [event for event in both() if not (event.type == gone and event.pbx_call_id == "a")]
    found = judge(DONE, [], stored, {})
    assert found.lost >= 1
    assert any(f"has 0 of 1 {gone}" in sentence for sentence in found.faults)
    # Its number is missing, too.
    assert any("the store goes from" in sentence for sentence in found.faults) == (
        gone != "call.started"
    )


def test_a_console_that_misses_repeats_or_confuses_is_told_on() -> None:
    def faults(seen: list[int]) -> list[str]:
        return judge(DONE, [], both(), {"floor": (None, seen)}).faults

    assert faults(SEEN) == []
    assert faults(SEEN[1:]) == ["floor never got event 1 (call.started)"]
    assert faults([*SEEN, SEEN[-1]]) == [f"floor got event {SEEN[-1]} more than once"]
    assert faults([SEEN[1], SEEN[0], *SEEN[2:]]) == ["floor got events out of order"]
    assert faults([*SEEN, 99]) == ["floor got event 99 (unknown)"]


def test_calls_that_failed_must_have_an_end_and_strangers_are_noticed() -> None:
    stored = both()[:-1]  # the second call never ended
    assert "has 1 begin and 0 end" in judge({"talk": ["a"]}, ["b"], stored, {}).faults[0]
    assert "nobody made the call b" in judge({"talk": ["a"]}, [], both(), {}).faults[0]
    wrong = [
        Stored(e.id, e.type, e.call_id, e.pbx_call_id, e.agent_id, "lost" * bool(e.reason), "")
        for e in both()
    ]
    assert any("ended by lost" in sentence for sentence in judge(DONE, [], wrong, {}).faults)


def test_a_call_that_ended_before_its_notice_has_no_tap_and_another_must_have_one() -> None:
    whole = story("talk", "a", 1)
    short = [e for e in whole if e.type not in ("tap.started", "notice.finished", "media.quality")]
    short = [dataclasses.replace(event, id=number) for number, event in enumerate(short, 1)]
    untapped, tapped = Media(tapped=False, legs_heard=0), Media(tapped=True, legs_heard=2)

    def lost(stored: list[Stored], media: Media) -> int:
        return judge({"talk": ["a"]}, [], stored, {}, {"id-a": media}).lost

    assert lost(short, untapped) == 0
    assert lost(short, tapped) == 4
    assert lost(whole, tapped) == 0
    found = judge({"talk": ["a"]}, [], short, {}, {"id-a": untapped})
    assert (found.cut_short, found.faults) == (1, [])
    # What was never tapped must not say that it was.
    assert judge({"talk": ["a"]}, [], whole, {}, {"id-a": untapped}).faults


def test_an_alert_that_nobody_took_is_a_fault() -> None:
    raised = Stored(11, "alert.raised", "id-a", "a", "1001", "", "alert-1")
    taken = Stored(12, "alert.acknowledged", "id-a", "a", "1001", "", "alert-1")
    assert "never acknowledged" in judge(DONE, [], [*both(), raised], {}).faults[0]
    assert judge(DONE, [], [*both(), raised, taken], {}).faults == []


# --------------------------------------------------------------------------------- processes


@pytest.fixture
def nothing_collected() -> Iterator[None]:
    """What earlier tests left behind is not closed and freed while a test compares."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("nothing_collected")
def test_a_process_is_seen_as_the_kernel_sees_it(tmp_path: Path) -> None:
    me = {"me": os.getpid()}
    before = sample(me)
    kept = [(tmp_path / "open").open("w") for _ in range(20)]
    # From the kernel itself: the allocator would give what earlier tests have given back.
    block = mmap.mmap(-1, 32 * 1024 * 1024, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for _ in range(32):
        block.write(bytes([1]) * 1024 * 1024)
    ends_s = time.process_time() + 0.2
    while time.process_time() < ends_s:
        pass
    after = sample(me)
    was, now = before.parts["me"], after.parts["me"]
    assert now.descriptors == was.descriptors + 20
    assert now.anon_mib - was.anon_mib == pytest.approx(32, abs=4)
    assert now.cpu_s - was.cpu_s >= 0.15
    share = 100 * (now.cpu_s - was.cpu_s) / (after.at_s - before.at_s)
    assert core_pct(before, after, ["me", "gone"]) == {"me": pytest.approx(share, abs=0.01)}
    assert descriptor_kinds(os.getpid())[str(tmp_path / "open")] == 20
    for one in kept:
        one.close()
    block.close()
    assert sample({"gone": 2**22 - 1}).parts == {}
    assert usage(os.getpid()).threads >= 1


def test_what_a_full_socket_loses_is_counted_for_its_own_process() -> None:
    deaf = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.bind(("127.0.0.1", 0))
    before = sum(datagrams_lost([os.getpid()]).values())
    for _ in range(200):
        deaf.sendto(bytes(1000), deaf.getsockname())
    assert sum(datagrams_lost([os.getpid()]).values()) - before > 100
    assert datagrams_lost([2**22 - 1]) == {}
    deaf.close()


# ---------------------------------------------------------------------------------- the limit


def step(**changed: Any) -> dict[str, Any]:
    """A step of a ramp at which all is well."""
    return {
        "live": 100,
        "reached": True,
        "core_pct": {"bridge": 5.0, "media": 10.0, "detector": 15.0, "transcriber-1": 99.0},
        "waited_pct": {"bridge": 1.0, "media": 0.1, "detector": 3.0, "transcriber-1": 40.0},
        "anon_mib": {"bridge": 60.0, "media": 45.0, "detector": 60.0},
        "node_core_pct": 129.0,
        "generator_core_pct": 20.0,
        "bench_core_pct": 1.0,
        "machine_pct": 80.0,
        "foreign_cores": 0.4,
        "udp_lost": 0,
        "setup_ms": {"p50": 10.0, "p95": 40.0, "p99": 60.0, "max": 80.0},
        "retransmitted": 0,
        "failed": 0,
        "probe": {
            "sent": 1000,
            "lost": 0,
            "failed": [],
            "rtp_ms": {"p50": 0.3, "p95": 0.5, "p99": 0.8, "max": 5.0},
        },
        "analysis": {"dropped_pct": 0.0, "aroused_heard_pct": 100.0},
        **changed,
    }


def test_every_sign_of_an_overload_is_named_and_none_where_there_is_none() -> None:
    # A transcriber that is always busy is what it is for: no sign.
    assert signs(step()) == []
    probe = step()["probe"]
    for changed, word in (
        ({"setup_ms": {**step()["setup_ms"], "p95": 700.0}}, "set-up p95 is 700 ms"),
        ({"retransmitted": 3}, "sent again"),
        ({"failed": 1}, "1 calls failed"),
        ({"reached": False}, "only 100 calls"),
        ({"probe": {**probe, "rtp_ms": {**probe["rtp_ms"], "p99": 30.0}}}, "30.0 ms late"),
        ({"probe": {**probe, "lost": 2}}, "2 of 1000"),
        ({"probe": {**probe, "failed": ["no answer"]}}, "no answer"),
        ({"udp_lost": 7}, "threw 7 datagrams"),
        ({"analysis": {"dropped_pct": 5.0}}, "not judged"),
        ({"analysis": {"lost_before_detector": 1.0}}, "with holes"),
        ({"analysis": {"aroused_heard_pct": 70.0}}, "written down"),
        ({"core_pct": {"bridge": 95.0}}, "bridge takes 95 %"),
    ):
        (sentence,) = signs(step(**changed))
        assert word in sentence


def test_the_culprit_is_a_full_thread_before_a_full_machine() -> None:
    full = {**step()["core_pct"], "transcriber-1": 20.0, "bridge": 97.0}
    assert culprit(step(core_pct=full, machine_pct=99.0)).startswith("bridge: its one thread")
    calm = {**step()["core_pct"], "transcriber-1": 20.0}
    assert culprit(step(core_pct=calm, machine_pct=99.0)).startswith("the machine: 99.0 % busy")
    assert "neither" in culprit(step(core_pct=calm))


def test_what_a_call_costs_is_a_line_through_the_steps() -> None:
    rows = [
        step(
            live=live,
            core_pct={"bridge": 2 + 0.05 * live},
            anon_mib={"bridge": 60 + 0.1 * live},
        )
        for live in (1, 50, 100, 300)
    ]
    # A process that did not get its core says nothing of what it needs.
    rows.append(step(live=450, core_pct={"bridge": 3.0}, waited_pct={"bridge": 80.0}))
    found = per_call(rows)["bridge"]
    assert found["base_core_pct"] == pytest.approx(2.0, abs=0.01)
    assert found["core_pct_per_100_calls"] == pytest.approx(5.0, abs=0.01)
    assert found["calls_at_one_core"] == 1960
    assert found["kib_per_call"] == pytest.approx(102.4, abs=0.1)


# ---------------------------------------------------------------------------------- the plan


COSTS = Costs(
    base_core_pct={"bridge": 1.0, "media": 2.0},
    core_pct_per_100_calls={"bridge": 2.0, "media": 8.0},
    setup_core_ms={"bridge": 20.0, "media": 1.0},
    base_mib={"bridge": 60.0, "media": 45.0},
    kib_per_call={"bridge": 100.0, "media": 40.0},
    transcriber_mib=350.0,
    store_kib_per_call=6.0,
    log_kib_per_call=1.0,
    recording_kib_per_minute=1037.0,
    sip_bytes_per_call=12_000.0,
    mbit_s_each_way_per_100_calls=19.0,
)


def test_a_plan_is_the_measured_costs_times_the_traffic() -> None:
    found = plan(Site(), COSTS)
    assert found["erlang"] == 6800.0  # 10 000 agents, 85 % busy, of that four fifths in calls
    assert 6800 < found["places"] < 7200
    assert erlang_b(found["places"], 6800.0) <= 1e-4 < erlang_b(found["places"] - 1, 6800.0)
    assert found["nodes"] == math.ceil(found["places"] / 300)
    assert found["setups_per_s"] == pytest.approx(6800 / 240, abs=0.01)
    rate, calls = found["setups_per_s"] / found["nodes"], found["calls_per_node"]
    assert found["core_pct"]["bridge"] == pytest.approx(1 + 2 * calls / 100 + 2 * rate, abs=0.1)
    assert found["recordings_gib_a_day"] == pytest.approx(6800 * 9 * 60 * 1037 / 1024**2, rel=0.01)
    # Small sites cannot have more calls than agents.
    assert plan(Site(agents=10), COSTS)["places"] <= 10


def test_a_plan_that_one_thread_cannot_carry_is_refused() -> None:
    with pytest.raises(ValueError, match="media would take"):
        plan(Site(calls_per_node=1000), COSTS)
