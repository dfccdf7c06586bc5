"""The bit behind the hint to rest the voice: how long somebody spoke on the agent's leg."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from callshield import g711
from callshield.heard import read_wav
from tests.core_kit import AGENT, CALLER, G722, HELPER, PCMA, PCMU, CallInCore

PROMPTS = Path(__file__).parent.parent / "sipbridge" / "prompts" / "ko"
Pcm = NDArray[np.int16]


def at(pcm: Pcm, dbfs: float) -> Pcm:
    """The same sound at an RMS level."""
    loud = pcm.astype(float)
    scaled = loud / np.sqrt(np.mean(loud**2)) * 32768 * 10 ** (dbfs / 20)
    return np.asarray(np.clip(scaled, -32768, 32767), dtype=np.int16)


def noise(dbfs: float, seconds: float) -> Pcm:
    random = np.random.default_rng(1).standard_normal(int(seconds * 8000))
    return np.asarray(np.clip(random * 32768 * 10 ** (dbfs / 20), -32768, 32767), dtype=np.int16)


def speech() -> Pcm:
    """Some 17 s of a talker who hardly pauses."""
    names = ("abuse_prevention", "recording", "closing")
    parts = [read_wav(PROMPTS / f"{name}.wav") * 32768 for name in names]
    return np.asarray(np.concatenate(parts), dtype=np.int16)


def spoken_s(call: CallInCore, pcm: Pcm, leg: int = AGENT) -> float:
    """What the bit says after a leg was fed with this, and half a second of nothing."""
    law = PCMA if call.types.get(leg) == PCMA else PCMU
    for first in range(0, len(pcm) // 160 * 160, 160):
        call.say(leg, g711.encode(pcm[first : first + 160], law))
        call.core.sent()
        call.core.tapped()
    call.run(0.5)
    call.say(leg, g711.encode(np.zeros(160, np.int16), law))
    return call.core.take_voice(call.handle) / 1000


@pytest.mark.parametrize("level", [-20.0, -30.0])
@pytest.mark.parametrize("law", [PCMU, PCMA])
def test_a_talker_is_counted_by_the_second(level: float, law: int) -> None:
    pcm = at(speech(), level)
    length_s = len(pcm) / 8000
    found = spoken_s(CallInCore(types={AGENT: law}), pcm)
    assert 0.8 * length_s < found <= length_s


def test_it_is_taken_once() -> None:
    call = CallInCore()
    assert spoken_s(call, at(speech(), -25.0)) > 0
    assert call.core.take_voice(call.handle) == 0


@pytest.mark.parametrize("level", [-70.0, -60.0, -50.0])
def test_a_quiet_room_is_no_voice(level: float) -> None:
    assert spoken_s(CallInCore(), noise(level, 20.0)) == 0.0


@pytest.mark.parametrize(("level", "most_s"), [(-45.0, 5.0), (-40.0, 10.0), (-30.0, 18.0)])
def test_a_loud_room_is_known_for_what_it_is_after_a_while(level: float, most_s: float) -> None:
    call = CallInCore()
    assert spoken_s(call, noise(level, 30.0)) < most_s
    assert spoken_s(call, noise(level, 30.0)) == 0.0
    # Control: who speaks up in it is heard.
    pcm = at(speech(), level + 15.0)
    room = noise(level, len(pcm) / 8000)[: len(pcm)]
    mixed = np.clip(pcm.astype(int) + room, -32768, 32767).astype(np.int16)
    assert spoken_s(call, mixed) > 0.5 * len(pcm) / 8000


def test_whoever_listens_rests() -> None:
    call = CallInCore()
    assert spoken_s(call, at(speech(), -20.0), CALLER) == 0.0


def test_nothing_is_measured_where_nothing_is_analysed() -> None:
    """No tap, no bit: a call between colleagues, a notice that was skipped, card data."""
    pcm = at(speech(), -20.0)[:40_000]
    for state in ({"tap": False}, {"paused": True}):
        call = CallInCore()
        call.allow(**state)
        assert spoken_s(call, pcm) == 0.0
        call.allow(tap=True, paused=False)
        assert spoken_s(call, pcm) > 0.0, "the control"


def test_a_codec_without_levels_counts_nothing() -> None:
    assert spoken_s(CallInCore(types={AGENT: G722}), at(speech(), -20.0)[:40_000]) == 0.0


def test_the_helper_is_somebody_else_before_and_after_a_hand_over() -> None:
    call = CallInCore(legs=(CALLER, AGENT, HELPER))
    pcm = at(speech(), -20.0)[:40_000]
    assert spoken_s(call, pcm, HELPER) == 0.0
    for first in range(0, 16_000, 160):
        call.say(AGENT, g711.encode(pcm[first : first + 160], PCMU))
    call.core.remove_leg(call.handle, AGENT)
    call.core.promote(call.handle)
    assert call.core.take_voice(call.handle) == 0, "nothing of the agent is the manager's"


def test_of_no_call_there_is_no_bit() -> None:
    call = CallInCore()
    call.core.close_call(call.handle)
    with pytest.raises(KeyError):
        call.core.take_voice(call.handle)
