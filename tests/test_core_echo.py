"""The one bit of the phone's side: what may be the agent's echo on the caller's line."""

from __future__ import annotations

import numpy as np

from callshield import g711
from callshield.tap import CallerFrame
from tests.core_kit import AGENT, CALLER, G722, HELPER, PCMA, PCMU, CallInCore


def voice(dbfs: float, law: int = PCMU, seed: int = 1) -> bytes:
    """20 ms of noise at an RMS level."""
    noise = np.random.default_rng(seed).standard_normal(160) * 32768 * 10 ** (dbfs / 20)
    pcm = np.clip(noise, -32768, 32767).astype(np.int16)
    return g711.encode(pcm, PCMA if law == PCMA else PCMU)


def talk(call: CallInCore, agent: float | None, caller: float, frames: int = 20) -> list[bool]:
    """Both sides speak at these levels; the bit of each of the caller's frames."""
    call.core.tapped()
    for n in range(frames):
        if agent is not None:
            call.say(AGENT, voice(agent, call.types.get(AGENT, PCMU), n), after=0.01)
        call.say(CALLER, voice(caller, call.types.get(CALLER, PCMU), n), after=0.01)
    call.run(0.03)
    found: list[CallerFrame] = call.tapped()
    assert len(found) == frames
    return [frame.echo for frame in found]


def test_the_agents_echo_of_20_db_is_marked_whatever_the_law() -> None:
    for law in (PCMU, PCMA):
        for level in (-12.0, -20.0, -28.0):
            call = CallInCore(types={CALLER: law, AGENT: PCMU})
            assert all(talk(call, level, level - 20.0)), (law, level)


def test_a_caller_who_speaks_while_the_agent_does_is_not_marked() -> None:
    """Control: the mark is about levels, not about the agent speaking."""
    for below in (-6.0, 0.0, 6.0, 12.0):
        assert not any(talk(CallInCore(), -20.0, -20.0 - below)), below


def test_the_soft_sounds_of_a_caller_who_speaks_are_not_cut_out() -> None:
    call = CallInCore()
    call.core.tapped()
    for n in range(20):
        call.say(AGENT, voice(-18.0, seed=n), after=0.01)
        call.say(CALLER, voice(-20.0 if n % 5 == 0 else -40.0, seed=n), after=0.01)
    call.run(0.03)
    assert not any(frame.echo for frame in call.tapped())


def test_a_quiet_caller_is_not_marked_while_nobody_speaks_on_the_phones_side() -> None:
    assert not any(talk(CallInCore(), None, -50.0))
    assert not any(talk(CallInCore(), -60.0, -80.0)), "line noise is no voice"


def test_the_mark_ends_half_a_second_after_the_agents_last_word() -> None:
    call = CallInCore()
    assert all(talk(call, -15.0, -35.0))
    after = talk(call, None, -35.0, frames=30)
    assert after[0], "an echo comes late"
    assert not any(after[int(0.4 / 0.01) :])
    assert not after[-1]


def test_a_codec_without_levels_is_never_marked() -> None:
    for types in ({CALLER: G722}, {AGENT: G722}):
        assert not any(talk(CallInCore(types=types), -12.0, -40.0))


def test_the_helpers_voice_echoes_too() -> None:
    call = CallInCore(legs=(CALLER, AGENT, HELPER))
    call.core.tapped()
    for n in range(10):
        call.say(HELPER, voice(-15.0, seed=n), after=0.01)
        call.say(CALLER, voice(-35.0, seed=n), after=0.01)
    call.run(0.03)
    assert all(frame.echo for frame in call.tapped())


def test_nothing_is_measured_while_nothing_is_tapped() -> None:
    call = CallInCore()
    call.allow(tap=False)
    for n in range(10):
        call.say(AGENT, voice(-12.0, seed=n), after=0.02)
    call.allow(tap=True)
    call.core.tapped()
    call.say(CALLER, voice(-40.0), after=0.0)
    call.run(0.03)
    assert [frame.echo for frame in call.tapped() if frame.payload] == [False]
