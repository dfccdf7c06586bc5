"""RTCP of the relay in C, field by field against RFC 3550, and what it believes of others."""

from __future__ import annotations

import itertools
import random
import struct
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core_kit import ADDRESSES, AGENT, CALLER, FRAME, OPUS, STRANGER, CallInCore, clip, rtp
from tests.core_rtcp import (
    Report,
    block,
    decode,
    description,
    ntp_now,
    receiver_report,
    sender_report,
)

RTCP = {leg: (host, port + 1) for leg, (host, port) in ADDRESSES.items()}


def reports(call: CallInCore) -> list[tuple[int, tuple[str, int], Report]]:
    return [(leg, to, decode(data)) for leg, to, data in call.rtcp_sent()]


def report_to(call: CallInCore, leg: int) -> Report:
    """Wait for the next report on a leg; what else was sent is lost."""
    for _ in range(800):
        call.run(0.01)
        for to_leg, _, report in reports(call):
            if to_leg == leg:
                return report
    raise AssertionError("no report within eight seconds")


def talk(call: CallInCore, frames: int = 50) -> None:
    for _ in range(frames):
        call.say(CALLER, after=0.0)
        call.run(0.02)


# ------------------------------------------------------------------------------------ our own


def test_a_report_comes_every_five_seconds_to_the_port_above_media() -> None:
    call = CallInCore()
    at: dict[int, list[float]] = {CALLER: [], AGENT: []}
    begin = call.now
    for _ in range(50 * 30):
        call.say(CALLER, after=0.0)
        call.run(0.02)
        for leg, to, _ in reports(call):
            assert to == RTCP[leg]
            at[leg].append(call.now - begin)
    for moments in at.values():
        assert 2.4 <= moments[0] <= 5.2
        steps = [b - a for a, b in itertools.pairwise(moments)]
        assert len(steps) >= 4
        assert all(4.9 <= step <= 5.2 for step in steps)


def test_first_reports_come_at_no_common_moment() -> None:
    first = set()
    for _ in range(20):
        call = CallInCore()
        begin = call.now
        call.say(CALLER)
        report_to(call, AGENT)
        first.add(round(call.now - begin, 1))
    assert len(first) > 4
    assert max(first) - min(first) > 0.8


def test_nobody_who_neither_heard_nor_said_anything_is_written_to() -> None:
    call = CallInCore()
    call.run(12)
    assert call.rtcp_sent() == []


def test_a_sender_report_says_what_was_sent() -> None:
    call = CallInCore()
    talk(call, 10)
    call.say(CALLER, b"\x11" * 80)
    sent = call.sent(AGENT)
    stream_began = call.now
    call.core.sent()
    begin = time.time()
    report = report_to(call, AGENT)
    over = time.time()
    assert report.kind == 200
    assert report.ssrc == sent[0].ssrc
    assert (report.packets, report.octets) == (11, 10 * 160 + 80)
    # The wall clock, and the RTP timestamp of the same moment: the newest packet's, and what has
    # gone by since.
    assert begin - 0.001 <= report.at_s <= over + 0.001
    gone = (report.timestamp - sent[-1].timestamp) & 0xFFFFFFFF
    assert gone == pytest.approx((call.now - stream_began) * 8000, abs=200)
    assert report.blocks == []
    assert len(report.cname) == 16
    assert int(report.cname, 16) >= 0


def test_each_leg_has_a_cname_of_its_own() -> None:
    names = set()
    for _ in range(5):
        call = CallInCore()
        call.say(CALLER)
        call.say(AGENT)
        names |= {report_to(call, leg).cname for leg in (CALLER, AGENT)}
    assert len(names) == 10


@pytest.mark.parametrize("codec", [0, OPUS])
def test_the_timestamp_goes_on_by_the_codecs_clock(codec: int) -> None:
    clock, samples = (48_000, 960) if codec == OPUS else (8000, 160)
    call = CallInCore(types={CALLER: codec, AGENT: codec})
    for _ in range(50):
        call.inject(CALLER, call.source[CALLER].packet(b"\x11" * 160, samples=samples))
        call.run(0.02)
    newest = call.sent(AGENT)[-1]
    at = call.now - 0.02
    report = report_to(call, AGENT)
    gone = (report.timestamp - newest.timestamp) & 0xFFFFFFFF
    assert gone == pytest.approx((call.now - at) * clock, rel=0.01)


def test_prompts_and_digits_count_as_sent() -> None:
    call = CallInCore()
    call.core.play(call.handle, CALLER, 1, [clip(1600)], False, False)
    call.run(0.3)
    call.core.digit(call.handle, AGENT, "5")
    call.run(0.3)
    report = report_to(call, CALLER)
    assert report.kind == 200
    assert (report.packets, report.octets) == (10 + 7, 1600 + 7 * 4)


def test_who_only_listens_gets_sender_reports_and_who_only_speaks_receiver_reports() -> None:
    call = CallInCore()
    for _ in range(300):
        call.say(CALLER, after=0.0)
        call.run(0.02)
    by_leg = {leg: report for leg, _, report in reports(call)}
    assert by_leg[AGENT].kind == 200
    assert by_leg[AGENT].blocks == []
    assert by_leg[CALLER].kind == 201
    assert len(by_leg[CALLER].blocks) == 1


def test_a_report_block_counts_loss_and_the_highest_number() -> None:
    call = CallInCore()
    dice = random.Random(9)
    source = call.source[CALLER]
    source.sequence = 65_400
    first = report = None
    lost_before = lost_since = expected_since = 0
    highest = 65_399
    while report is None:
        data = source.packet()
        highest += 1
        expected_since += 1
        # The first packets and the newest one arrive, so that what is lost in between is known.
        if dice.random() < 0.2 and highest > 65_405:
            lost_since += 1
            pending = 1
        else:
            call.inject(CALLER, data)
            pending = 0
        call.run(0.02)
        for leg, _, one in reports(call):
            if leg != CALLER:
                continue
            (told,) = one.blocks
            assert told.ssrc == source.ssrc
            newest = highest - pending
            if told.highest != newest:
                # The newest was lost and the one before it too.
                pending = highest - told.highest
            assert told.total_lost == lost_before + lost_since - pending
            assert told.fraction_lost == (lost_since - pending) * 256 // (expected_since - pending)
            lost_before += lost_since - pending
            lost_since = expected_since = pending
            if first is None:
                first = one
            else:
                report = one
    # The count went through the wrap: 1 in the upper half.
    assert report.blocks[0].highest >> 16 == 1


def test_duplicates_do_not_hide_a_loss() -> None:
    call = CallInCore()
    for number in range(20):
        if number not in (5, 6):
            for _ in range(3):
                call.inject(CALLER, rtp(sequence=number, timestamp=160 * number))
        call.run(0.02)
    (told,) = report_to(call, CALLER).blocks
    assert (told.total_lost, told.fraction_lost) == (2, 2 * 256 // 20)


def test_another_source_begins_with_nothing_lost() -> None:
    call = CallInCore()
    for number in (0, 1, 9, 10):
        call.inject(CALLER, rtp(sequence=number, timestamp=160 * number, ssrc=5), after=0.02)
    (told,) = report_to(call, CALLER).blocks
    assert (told.ssrc, told.total_lost) == (5, 7)
    for number in range(4):
        call.inject(CALLER, rtp(sequence=40_000 + number, timestamp=160 * number, ssrc=6))
        call.run(0.02)
    (told,) = report_to(call, CALLER).blocks
    assert (told.ssrc, told.total_lost, told.fraction_lost) == (6, 0, 0)
    assert told.highest == 40_003
    # The call's own figures know of both.
    stats = call.stats(CALLER)
    assert (stats["received"], stats["expected"]) == (8, 15)


def test_jitter_is_that_of_the_appendix() -> None:
    call = CallInCore()
    dice = random.Random(4)
    source = call.source[CALLER]
    begin = call.now
    arrivals = []
    for number in range(100):
        at = begin + 0.02 * number + dice.uniform(0, 0.03)
        arrivals.append((at, source.timestamp, source.packet()))
    jitter, transit = 0.0, None
    for at, timestamp, data in sorted(arrivals, key=lambda row: row[0]):
        call.now = at
        call.inject(CALLER, data)
        # RFC 3550 section 6.4.1 and appendix A.8, in floating point; reordered packets too.
        now = at * 8000 - timestamp
        if transit is not None:
            jitter += (abs(now - transit) - jitter) / 16
        transit = now
    assert call.stats(CALLER)["jitter_ms"] == pytest.approx(jitter / 8, abs=0.2)
    (told,) = report_to(call, CALLER).blocks
    assert told.jitter == pytest.approx(jitter, abs=2)
    assert jitter > 50


def test_the_last_senders_report_is_named_with_its_age() -> None:
    call = CallInCore()
    talk(call, 5)
    (told,) = report_to(call, CALLER).blocks
    assert (told.last_sr, told.delay) == (0, 0)
    ntp = 0x0123456789ABCDEF
    ours = sender_report(call.source[CALLER].ssrc, ntp=ntp) + description(1)
    call.inject(CALLER, ours, source=RTCP[CALLER], rtcp=True)
    came = call.now
    (told,) = report_to(call, CALLER).blocks
    assert told.last_sr == 0x456789AB
    assert told.delay == pytest.approx((call.now - came) * 65536, abs=2)
    # A report of another source says nothing about this one's delay.
    call.inject(CALLER, sender_report(999, ntp=ntp), source=RTCP[CALLER], rtcp=True)
    (told,) = report_to(call, CALLER).blocks
    assert (told.ssrc, told.last_sr, told.delay) == (call.source[CALLER].ssrc, 0, 0)


# --------------------------------------------------------------------------- the far end's


def figures(call: CallInCore, leg: int = AGENT) -> dict[str, Any]:
    stats = call.stats(leg)
    names = ("reports", "rtcp_malformed", "rtt_ms", "reported_loss_pct", "wrong_source")
    return {name: stats[name] for name in names}


UNKNOWN = {
    "reports": 0, "rtcp_malformed": 0, "rtt_ms": -1.0, "reported_loss_pct": -1.0, "wrong_source": 0
}  # fmt: skip


def test_round_trip_and_loss_come_from_the_far_ends_block_about_us() -> None:
    call = CallInCore()
    talk(call, 5)
    ours = report_to(call, AGENT)
    assert figures(call) == UNKNOWN
    # The far end heard our report 0.25 s after it left and answers 2 s later: as if it had left
    # 2.25 s before now.
    begun = time.monotonic()
    told = block(
        ours.ssrc,
        fraction_lost=64,
        last_sr=((ntp_now() >> 16) - int(2.25 * 65536)) & 0xFFFFFFFF,
        delay=2 * 65536,
    )
    call.inject(AGENT, receiver_report(5, told) + description(5), source=RTCP[AGENT], rtcp=True)
    told_us = figures(call)
    # And what the machine took between the two lines.
    assert 249 < told_us.pop("rtt_ms") < 251 + 1000 * (time.monotonic() - begun)
    assert told_us == {
        "reports": 1,
        "rtcp_malformed": 0,
        "reported_loss_pct": 25.0,
        "wrong_source": 0,
    }


@pytest.mark.parametrize(
    ("last_sr_ago_s", "delay_s"), [(1.0, 5.0), (60.0, 0.0)], ids=["negative", "a minute"]
)
def test_a_round_trip_that_cannot_be_is_not_believed(last_sr_ago_s: float, delay_s: float) -> None:
    call = CallInCore()
    talk(call, 5)
    ours = report_to(call, AGENT)
    last_sr = ((ntp_now() >> 16) - int(last_sr_ago_s * 65536)) & 0xFFFFFFFF
    told = block(ours.ssrc, last_sr=last_sr, delay=int(delay_s * 65536))
    call.inject(AGENT, receiver_report(5, told), source=RTCP[AGENT], rtcp=True)
    assert figures(call)["rtt_ms"] == -1


def test_a_block_about_somebody_else_is_not_about_us() -> None:
    call = CallInCore()
    talk(call, 5)
    call.inject(
        AGENT, receiver_report(5, block(12345, fraction_lost=255)), source=RTCP[AGENT], rtcp=True
    )
    assert figures(call) == {**UNKNOWN, "reports": 1}


def test_a_stranger_is_refused_and_counted() -> None:
    call = CallInCore()
    talk(call, 5)
    ours = report_to(call, AGENT)
    lie = receiver_report(5, block(ours.ssrc, fraction_lost=255))
    call.inject(AGENT, lie, source=STRANGER, rtcp=True)
    assert figures(call) == {**UNKNOWN, "wrong_source": 1}
    # Nor does he get our reports.
    for _, to, _ in reports(call):
        assert to[0] != STRANGER[0]


def test_reports_go_where_the_far_end_said_or_sends_from() -> None:
    call = CallInCore(rtcp_ports={AGENT: 7777}, signalling={AGENT: "198.51.100.7"})
    talk(call, 5)
    call.core.sent()

    def destination() -> tuple[str, int]:
        talk(call, 300)
        return [to for leg, to, _ in reports(call) if leg == AGENT][-1]

    assert destination() == (ADDRESSES[AGENT][0], 7777)
    call.inject(AGENT, receiver_report(5), source=(ADDRESSES[AGENT][0], 8888), rtcp=True)
    assert destination() == (ADDRESSES[AGENT][0], 8888)
    # Media latched to an address behind NAT: what the SDP said is of no use there.
    call.negotiate(AGENT)
    call.inject(AGENT, call.source[AGENT].packet(), source=("198.51.100.7", 61_000))
    assert destination() == ("198.51.100.7", 61_001)


def test_no_reports_on_hold() -> None:
    call = CallInCore()
    talk(call, 5)
    call.negotiate(AGENT, ("", 0))
    call.core.sent()
    call.run(11)
    assert {leg for leg, _, _ in reports(call)} == {CALLER}


GOOD = receiver_report(5, block(0, fraction_lost=255)) + description(5)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        GOOD[:7],
        GOOD[:-1],
        GOOD[:-4],
        b"\x40" + GOOD[1:],
        b"\xa0" + GOOD[1:],
        description(5) + receiver_report(5),
        receiver_report(5) + b"\x80\xc7\x00\x01" + bytes(4) + b"\x80\x10\x00\x00",
        b"\x9f" + receiver_report(5)[1:],
        b"\x82" + GOOD[1:],
        GOOD[:2] + b"\xff\xff" + GOOD[4:],
        GOOD + b"\x00\x00\x00\x00",
        struct.pack(">BBHI", 0x80, 200, 1, 5),
        bytes(1500),
    ],
)
def test_half_a_lie_is_a_lie(data: bytes) -> None:
    call = CallInCore()
    talk(call, 5)
    ours = report_to(call, AGENT)
    # It would be about us.
    data = data.replace(GOOD[8:12], ours.ssrc.to_bytes(4, "big"), 1) if len(data) > 12 else data
    call.inject(AGENT, data, source=RTCP[AGENT], rtcp=True)
    assert figures(call) == {**UNKNOWN, "rtcp_malformed": 1}


def test_the_control_the_same_bytes_unspoilt_are_believed() -> None:
    call = CallInCore()
    talk(call, 5)
    ours = report_to(call, AGENT)
    good = receiver_report(5, block(ours.ssrc, fraction_lost=255)) + description(5)
    call.inject(AGENT, good, source=RTCP[AGENT], rtcp=True)
    assert figures(call)["reported_loss_pct"] == pytest.approx(99.6, abs=0.1)
    # A compound may hold more: BYE, application data (section 6.6, 6.7).
    more = (
        good + struct.pack(">BBHI", 0x81, 203, 1, 5) + struct.pack(">BBHI4s", 0x80, 204, 2, 5, b"")
    )
    call.inject(AGENT, more, source=RTCP[AGENT], rtcp=True)
    assert figures(call)["reports"] == 2


@given(st.binary(max_size=200), st.integers(0, 255), st.data())
def test_malformed_compounds_are_never_believed(
    noise: bytes, value: int, data: st.DataObject
) -> None:
    call = CallInCore()
    talk(call, 2)
    call.inject(AGENT, noise, source=RTCP[AGENT], rtcp=True)
    # A good one with one byte changed in what tells its form: either form is still right, or
    # nothing of it counts.
    spoilt = bytearray(receiver_report(5, block(0)) + sender_report(6) + description(5))
    heads = (0, 1, 2, 3, 32, 33, 34, 35, 60, 61, 62, 63)
    spoilt[data.draw(st.sampled_from(heads))] = value
    call.inject(AGENT, bytes(spoilt), source=RTCP[AGENT], rtcp=True)
    told = figures(call)
    assert told["reports"] + told["rtcp_malformed"] == 2
    assert (told["rtt_ms"], told["reported_loss_pct"]) == (-1, -1)
    # Nothing of it is media.
    assert call.stats(AGENT)["received"] == 0
    call.say(CALLER)
    assert [one.payload for one in call.sent(AGENT)][-1] == FRAME
