"""The hint to rest the voice: seconds of one bit, gone with a pause and kept nowhere."""

from __future__ import annotations

import builtins
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callshield.messages import Event, NodeMessage, VoiceTalk
from callshield.settings_hearing import HearingSettings
from sipbridge.voice_meter import LEAST_S, STEP_S, VoiceMeter


def meter(hint_after_s: float = 300.0, pause_s: float = 60.0) -> VoiceMeter:
    return VoiceMeter(HearingSettings(voice_hint_after_s=hint_after_s, voice_pause_s=pause_s))


def talk(of: VoiceMeter, begin: float, seconds: float, share: float = 1.0) -> list[VoiceTalk]:
    """Reports every five seconds; what the agent was told."""
    told = []
    for n in range(int(seconds / 5)):
        told += of.add({"1001": 5.0 * share}, begin + 5.0 * (n + 1))
    return told


def test_the_screen_is_told_each_minute_and_the_hint_when_it_is_time() -> None:
    told = talk(meter(), 0.0, 400.0)
    assert [one.talked_s for one in told] == [60.0, 120.0, 180.0, 240.0, 300.0, 360.0]
    assert [one.rest for one in told] == [False] * 4 + [True] * 2
    assert all(one.agent_id == "1001" and one.pause_s == 60.0 for one in told)


def test_who_speaks_half_of_the_time_is_told_after_twice_as_long() -> None:
    """Listening to a caller for less than a pause is no rest, and is no speech either."""
    of = meter()
    assert not any(one.rest for one in talk(of, 0.0, 590.0, 0.5))
    assert any(one.rest for one in talk(of, 590.0, 30.0, 0.5))


def test_a_pause_ends_the_sum_and_takes_the_hint_away() -> None:
    of = meter()
    assert talk(of, 0.0, 320.0)[-1].rest
    assert of.add({}, 320.0 + 59.0) == []
    [over] = of.add({}, 320.0 + 60.0)
    assert (over.talked_s, over.rest) == (0.0, False)
    assert of.add({}, 1000.0) == [], "said once"
    assert not any(one.rest for one in talk(of, 1000.0, 290.0))


def test_speech_right_after_a_pause_that_nobody_reported_begins_anew() -> None:
    of = meter()
    talk(of, 0.0, 320.0)
    [told] = of.add({"1001": 5.0}, 320.0 + 60.0)
    assert (told.talked_s, told.rest) == (5.0, False), "the old hint is taken away"


def test_a_cough_is_no_speech_and_ends_no_pause() -> None:
    of = meter()
    talk(of, 0.0, 320.0)
    for n in range(11):
        assert of.add({"1001": LEAST_S - 0.1}, 325.0 + 5 * n) == []
    [over] = of.add({"1001": LEAST_S - 0.1}, 380.0)
    assert over.talked_s == 0.0


def test_agents_are_timed_apart() -> None:
    of = meter()
    talk(of, 0.0, 295.0)
    told = of.add({"1001": 5.0, "1002": 5.0}, 300.0)
    assert [(one.agent_id, one.rest) for one in told] == [("1001", True)]


@given(st.lists(st.floats(0, 5), max_size=400), st.floats(30, 900), st.floats(15, 600))
def test_whatever_comes_the_sum_is_that_of_the_speech_since_the_last_pause(
    reports: list[float], hint_after_s: float, pause_s: float
) -> None:
    of = meter(hint_after_s, pause_s)
    run, last, shown = 0.0, -1e9, 0.0
    for n, spoken in enumerate(reports):
        now = 1000.0 + 5 * n
        if spoken >= LEAST_S:
            run = (0.0 if now - last >= pause_s else run) + spoken
            last = now
        for told in of.add({"1001": spoken}, now):
            assert told.talked_s == pytest.approx(run if now - last < pause_s else 0.0, abs=0.06)
            assert told.rest == (told.talked_s > 0 and run >= hint_after_s)
            shown = told.talked_s
        alive = run if now - last < pause_s else 0.0
        assert -0.06 <= alive - shown < STEP_S + 5, "shown to a tenth of a second"


# ---------------------------------------------------------------------------- never stored


def test_it_touches_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("the talking time is kept nowhere")

    for module, name in ((builtins, "open"), (os, "open"), (Path, "write_bytes")):
        monkeypatch.setattr(module, name, refused)
    of = meter()
    talk(of, 0.0, 400.0)
    of.add({}, 1000.0)


def test_no_journal_could_take_it() -> None:
    """What is stored is an :data:`Event`, and this is none: the type checker holds it, too."""
    assert VoiceTalk in NodeMessage.__args__  # type: ignore[attr-defined]
    assert VoiceTalk not in Event.__args__  # type: ignore[attr-defined]
