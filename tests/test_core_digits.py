"""Feature codes in the relay in C: the caller never hears them, and hears all other digits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core_kit import (
    AGENT,
    CALLER,
    EVENTS,
    FEATURE_CODES,
    FRAME,
    HELPER,
    Packet,
    clip,
    codes_told,
    gate,
    heard,
    one_ssrc,
    steps,
)

# ---------------------------------------------------------------------------- feature codes


@pytest.mark.parametrize(("code", "index"), [("**9", 0), ("*12", 1)])
def test_a_code_is_told_and_no_packet_of_it_reaches_the_caller(code: str, index: int) -> None:
    call = gate()
    call.press(AGENT, code)
    call.run(3.0)
    assert call.sent() == []
    assert codes_told(call) == [(AGENT, index)]


def test_a_code_whose_ends_are_lost_is_still_one() -> None:
    call = gate()
    call.press(AGENT, "**9", ends=0)
    call.run(0.3)
    assert codes_told(call) == [(AGENT, 0)]
    call.run(3.0)
    assert call.sent() == []


def test_the_callers_code_is_only_digits() -> None:
    call = gate()
    call.press(CALLER, "**9")
    assert heard(call.sent(AGENT), AGENT) == "**9"
    assert call.events() == []


def test_what_the_caller_presses_is_told_only_while_a_key_is_asked_for() -> None:
    call = gate()
    call.press(CALLER, "1")
    assert call.events() == []
    call.allow(keys=True)
    call.press(CALLER, "92")
    call.press(CALLER, "5", ends=0)
    call.run(0.5)
    assert [event[0::3] for event in call.events()] == [("key", d) for d in "925"]
    assert heard(call.sent(AGENT), AGENT)[:3] == "192", "the agent hears them as ever"
    call.press(CALLER, "6", updates=2, ends=0)
    assert [event[0::3] for event in call.events()] == [("key", "6")], "in time, however long"
    call.allow(keys=False)
    call.run(0.5)
    assert call.events() == [], "and once"
    call.allow(keys=True)
    call.allow(paused=True)
    call.press(CALLER, "4")
    call.core.digit(call.handle, CALLER, "4")
    assert call.events() == [], "card data is nobody's business"
    call.allow(paused=False)
    call.core.digit(call.handle, CALLER, "7")
    assert [event[0::3] for event in call.events()] == [("key", "7")]
    call.press(AGENT, "3")
    assert call.events() == [], "the agent's are not the caller's"


def test_a_code_works_while_nothing_may_pass() -> None:
    # The notice plays to the caller, the agent already wants out.
    call = gate(open_gates=False)
    call.core.play(call.handle, CALLER, 1, [clip(160 * 200)], False, False)
    call.press(AGENT, "**9")
    assert codes_told(call) == [(AGENT, 0)]
    call.press(AGENT, "*3")
    call.run(2.0)
    assert heard(call.sent(CALLER)) == ""
    # What was pressed before the gate opened does not come out after it.
    call.press(AGENT, "*")
    call.allow(agent_to_caller=True)
    call.press(AGENT, "1")
    call.run(0.1)
    assert heard(call.sent(CALLER)) == ""


def test_a_mismatch_is_replayed_in_order_as_fresh_events() -> None:
    call = gate()
    call.say(AGENT)
    got = call.sent(CALLER)
    call.press(AGENT, "*")
    assert call.sent(CALLER) == []
    call.press(AGENT, "5")
    call.run(0.5)
    got += call.sent(CALLER)
    call.say(AGENT)
    got += call.sent(CALLER)
    assert heard(got) == "*5"
    assert codes_told(call) == []
    assert one_ssrc(got)
    assert {step[0] for step in steps(got)} == {1}
    events = [one for one in got if one.payload_type == EVENTS[CALLER]]
    for digit in (10, 5):
        press = [one for one in events if one.payload[0] == digit]
        # RFC 4733 sections 2.3, 2.5: a growing duration, one timestamp, three ends, a marker.
        assert [int.from_bytes(one.payload[2:4], "big") for one in press] == [
            160, 320, 480, 640, 800, 800, 800
        ]  # fmt: skip
        assert [one.payload[1] for one in press] == [10] * 4 + [0x8A] * 3
        assert len({one.timestamp for one in press}) == 1
        assert [one.marker for one in press] == [True] + [False] * 6
    # The second begins after the first one's end, and the voice after both.
    first, second = events[0].timestamp, events[7].timestamp
    assert 800 <= (second - first) & 0xFFFFFFFF <= 8000
    assert (got[-1].timestamp - second) & 0xFFFFFFFF >= 800


def test_the_replays_packets_are_twenty_milliseconds_apart() -> None:
    call = gate()
    for digit in "*4":
        call.core.digit(call.handle, AGENT, digit)
    at: list[float] = []
    for _ in range(60):
        call.run(0.01)
        at += [call.now] * len(call.sent(CALLER))
    begin = [moment - at[0] for moment in at[:7]]
    assert begin == pytest.approx([0, 0.02, 0.04, 0.06, 0.08, 0.08, 0.08], abs=0.011)
    assert at[7] - at[6] == pytest.approx(0.06, abs=0.011)


def test_half_a_code_goes_on_its_way_after_a_second_and_a_half() -> None:
    call = gate()
    call.press(AGENT, "**")
    # The last end came 20 ms ago.
    call.run(1.4)
    assert call.sent(CALLER) == []
    call.run(0.7)
    assert heard(call.sent(CALLER)) == "**"
    assert codes_told(call) == []


def test_a_long_press_keeps_what_is_held() -> None:
    call = gate()
    call.press(AGENT, "**")
    call.press(AGENT, "9", updates=150)
    assert codes_told(call) == [(AGENT, 0)]
    call.run(2.0)
    assert call.sent(CALLER) == []


def test_a_code_may_begin_within_a_mismatch() -> None:
    call = gate()
    call.press(AGENT, "***9")
    call.run(1.0)
    assert heard(call.sent(CALLER)) == "*"
    assert codes_told(call) == [(AGENT, 0)]
    call.press(AGENT, "**9#")
    call.run(1.0)
    assert heard(call.sent(CALLER)) == "#"
    assert codes_told(call) == [(AGENT, 0)]


def test_digits_pressed_while_a_replay_waits_keep_their_order() -> None:
    call = gate()
    call.press(AGENT, "*5", after=0.005)
    call.press(AGENT, "678", after=0.005)
    call.run(2.0)
    assert heard(call.sent(CALLER)) == "*5678"


def test_voice_waits_for_a_replay_and_goes_on_after_it() -> None:
    call = gate()
    call.press(AGENT, "*5")
    got: list[Packet] = []
    for _ in range(40):
        call.say(AGENT, after=0.0)
        call.run(0.02)
        got += call.sent(CALLER)
    kinds = [one.payload_type for one in got]
    assert heard(got) == "*5"
    assert kinds.count(0) > 15
    assert {step[0] for step in steps(got)} == {1}
    # No voice between the packets of one event.
    for digit in (10, 5):
        at = [
            n for n, one in enumerate(got) if kinds[n] == EVENTS[CALLER] and one.payload[0] == digit
        ]
        assert at == list(range(at[0], at[0] + 7))


def test_too_many_digits_for_the_queue_are_counted() -> None:
    call = gate()
    for _ in range(40):
        call.core.digit(call.handle, AGENT, "5")
    assert call.stats(CALLER)["digits_dropped"] == 8
    call.run(40 * 0.2)
    assert heard(call.sent(CALLER)) == "5" * 32


# ------------------------------------------------------------------------------------- INFO


def test_a_digit_by_info_becomes_an_event_on_the_other_leg() -> None:
    call = gate()
    call.core.digit(call.handle, CALLER, "7")
    call.core.digit(call.handle, AGENT, "8")
    call.run(0.3)
    got = call.sent()
    assert heard([one for one in got if one.leg == AGENT], AGENT) == "7"
    assert heard([one for one in got if one.leg == CALLER]) == "8"


def test_a_code_by_info_is_a_code_and_half_of_it_is_not() -> None:
    call = gate()
    for digit in "**9":
        call.core.digit(call.handle, AGENT, digit)
    assert codes_told(call) == [(AGENT, 0)]
    for digit in "**":
        call.core.digit(call.handle, AGENT, digit)
    call.run(1.45)
    assert call.sent() == []
    call.run(1.0)
    assert heard(call.sent(CALLER)) == "**"


def test_a_code_may_come_half_by_info_and_half_by_event() -> None:
    call = gate()
    call.core.digit(call.handle, AGENT, "*")
    call.press(AGENT, "*")
    call.core.digit(call.handle, AGENT, "9")
    assert codes_told(call) == [(AGENT, 0)]
    call.run(2.0)
    assert call.sent() == []


def test_info_without_telephone_events_on_the_other_side_is_undelivered() -> None:
    call = gate(events_types={CALLER: -1, AGENT: -1, HELPER: -1})
    call.core.digit(call.handle, CALLER, "7")
    call.core.digit(call.handle, AGENT, "*")
    call.core.digit(call.handle, AGENT, "5")
    call.core.digit(call.handle, AGENT, "x")
    call.core.digit(call.handle, AGENT, "é")
    assert call.events() == [
        ("undelivered", call.handle, CALLER, "7"),
        ("undelivered", call.handle, AGENT, "*"),
        ("undelivered", call.handle, AGENT, "5"),
    ]


# ------------------------------------------------------------------------------ card data


def test_while_paused_the_callers_digits_are_neither_relayed_nor_reported() -> None:
    for agent_type in (96, -1):
        call = gate(events_types={CALLER: 101, AGENT: agent_type, HELPER: -1})
        call.allow(paused=True)
        call.press(CALLER, "4111")
        call.core.digit(call.handle, CALLER, "2")
        call.press(CALLER, "3", ends=0)
        call.run(1.0)
        assert call.sent(AGENT) == []
        assert call.events() == []
        # The agent's are: a code to end the pause, say.
        for digit in "**95":
            call.core.digit(call.handle, AGENT, digit)
        assert codes_told(call) == [(AGENT, 0)]
        call.run(0.5)
        assert heard(call.sent(CALLER)) == "5"


@pytest.mark.parametrize("agent_type", [96, -1])
@pytest.mark.parametrize("ends", [0, 3])
def test_a_press_across_the_beginning_or_end_of_a_pause_is_not_reported(
    agent_type: int, ends: int
) -> None:
    for first in (False, True):
        call = gate(events_types={CALLER: 101, AGENT: agent_type, HELPER: -1})
        call.allow(paused=first)
        packets = call.source[CALLER].press("4", 101, ends=ends)
        for packet in packets[:3]:
            call.inject(CALLER, packet, after=0.02)
        call.allow(paused=not first)
        for packet in packets[3:]:
            call.inject(CALLER, packet, after=0.02)
        call.run(0.5)
        assert heard(call.sent(AGENT), AGENT) == ("" if first or agent_type < 0 else "?")
        assert call.events() == []
        # The control: the next press without a pause goes through.
        call.allow(paused=False)
        call.press(CALLER, "5")
        if agent_type < 0:
            assert call.events() == [("undelivered", call.handle, CALLER, "5")]
        else:
            assert heard(call.sent(AGENT), AGENT) == "5"


def test_a_pause_takes_back_what_waits_for_the_agent_and_the_next_digit_is_whole() -> None:
    call = gate()
    for digit in "411":
        call.core.digit(call.handle, CALLER, digit)
    call.run(0.05)
    call.sent()
    call.allow(paused=True)
    call.run(1.0)
    assert call.sent(AGENT) == []
    call.allow(paused=False)
    call.core.digit(call.handle, CALLER, "5")
    call.run(0.5)
    got = call.sent(AGENT)
    assert heard(got, AGENT) == "5"
    assert len(got) == 7
    assert got[0].marker


# ------------------------------------------------------------- beside a prompt or a conference


@pytest.mark.parametrize("how", ["relayed", "info"])
@pytest.mark.parametrize("sounds", ["prompt", "mixed tone", "conference"])
def test_a_digit_beside_our_own_sounds_is_one_digit(how: str, sounds: str) -> None:
    call = gate(legs=(CALLER, AGENT, HELPER))
    if sounds != "conference":
        mix = sounds == "mixed tone"
        call.core.play(call.handle, CALLER, 1, [clip(160 * 100)], False, mix)
    else:
        call.allow(conference=True)
    call.run(0.105)
    for digit in "56":
        if how == "info":
            call.core.digit(call.handle, AGENT, digit)
            call.run(0.4)
        else:
            call.press(AGENT, digit, after=0.02)
    call.run(0.1)
    got = call.sent(CALLER)
    assert heard(got) == "56"
    assert {step[0] for step in steps(got)} == {1}
    voice = [one for one in got if one.payload_type == 0]
    if sounds == "prompt":
        assert {step[1] for step in steps(voice)} == {160}
        assert len([one for one in voice if one.marker]) == 1
    for press in (5, 6):
        packets = [one for one in got if one.payload_type == 101 and one.payload[0] == press]
        assert len(packets) in (7, 8)
        assert [one.marker for one in packets] == [True] + [False] * (len(packets) - 1)


def test_a_prompt_that_begins_or_ends_within_a_press_leaves_it_one_digit() -> None:
    call = gate()
    call.say(CALLER)
    packets = call.source[CALLER].press("5", 101, updates=30)
    for number, packet in enumerate(packets):
        if number == 5:
            assert call.core.play(call.handle, AGENT, 1, [clip(160 * 10)], False, False)
        call.inject(CALLER, packet)
        call.run(0.02)
    got = call.sent(AGENT)
    assert call.events("played")
    assert heard(got, AGENT) == "5"
    assert {step[0] for step in steps(got)} == {1}
    call.say(CALLER)
    assert call.sent(AGENT)[0].payload == FRAME


def test_half_a_code_of_an_agent_who_leaves_is_forgotten() -> None:
    call = gate(legs=(CALLER, AGENT, HELPER))
    call.press(AGENT, "**")
    call.core.remove_leg(call.handle, AGENT)
    call.core.promote(call.handle)
    call.events_types[AGENT] = EVENTS[HELPER]
    for packet in call.source[HELPER].press("9", EVENTS[HELPER]):
        call.inject(AGENT, packet, source=("192.0.2.30", 6000), after=0.02)
    call.run(2.0)
    assert codes_told(call) == []
    assert heard(call.sent(CALLER)) == "9"


# ------------------------------------------------------------------------------------ anything


@given(st.lists(st.sampled_from("*912#5"), min_size=1, max_size=25), st.data())
def test_every_digit_is_in_a_code_or_heard_by_the_caller_once_and_in_order(
    pressed: list[str], data: st.DataObject
) -> None:
    call = gate()
    told: list[int] = []
    got: list[Packet] = []
    for digit in pressed:
        if data.draw(st.booleans()):
            call.core.digit(call.handle, AGENT, digit)
        else:
            call.press(AGENT, digit, ends=data.draw(st.sampled_from([1, 3])))
        call.run(data.draw(st.sampled_from([0.05, 0.3, 1.0])))
        told += [index for _, index in codes_told(call)]
        got += call.sent(CALLER)
    call.run(10.0)
    told += [index for _, index in codes_told(call)]
    got += call.sent(CALLER)
    # The judge: codes are taken out from left to right.
    text, codes, rest = "".join(pressed), [], ""
    while text:
        for index, code in enumerate(FEATURE_CODES):
            if text.startswith(code):
                codes.append(index)
                text = text[len(code) :]
                break
        else:
            rest += text[0]
            text = text[1:]
    assert told == codes
    assert heard(got) == rest
    assert {step[0] for step in steps(got)} <= {1}
