"""The agent shouts, and the caller's line brings it back 20 dB lower: that is nobody's abuse."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from callshield import g711
from detectors.acoustic import AcousticModel
from detectors.engine import Detector
from detectors.levels import Levels
from detectors.resample import RATE, to_int16
from tests.core_kit import AGENT, CALLER, CallInCore
from tests.detector_sounds import shouting_voice
from tests.test_detector_engine import AlwaysShouting

FRAME = 160


@pytest.fixture(scope="module")
def model() -> AcousticModel:
    return AlwaysShouting()


def coded(audio: NDArray[np.float32]) -> list[bytes]:
    payload = g711.encode(to_int16(audio), g711.PCMU)
    return [payload[at : at + FRAME] for at in range(0, len(payload) // FRAME * FRAME, FRAME)]


def highest_level(
    model: AcousticModel, agent: NDArray[np.float32] | None, caller: NDArray[np.float32]
) -> int:
    """Both legs through the relay in C, its tap through the detector."""
    call = CallInCore()
    detector, levels = Detector(model), Levels("ko")
    spoken = coded(agent) if agent is not None else []
    highest = 0
    for number, payload in enumerate(coded(caller)):
        if number < len(spoken):
            call.say(AGENT, spoken[number], after=0.0)
        call.say(CALLER, payload, after=0.0)
        call.run(0.02)
        now_s = 0.02 * number
        detector.feed(call.tapped(), now_s)
        for verdict in detector.step(now_s):
            levels.hear_voice(verdict, now_s)
        news = levels.news.get(bytes(range(16)).hex(), {})
        highest = max(highest, *(getattr(message, "level", 0) for message in news.values()), 0)
    return highest


def test_the_agents_own_shouting_on_the_callers_line_stays_level_0(model: AcousticModel) -> None:
    for gain in (2.0, 1.0, 0.25):
        agent = np.clip(gain * shouting_voice(8.0), -1.0, 1.0)
        for delay_s in (0.0, 0.05, 0.2):
            echo = 0.1 * np.concatenate([np.zeros(int(delay_s * RATE), np.float32), agent])
            assert highest_level(model, agent, echo) == 0, (gain, delay_s)


def test_the_same_sound_without_the_agent_is_the_callers_own(model: AcousticModel) -> None:
    """Control: it is the bit of the agent's leg that keeps the level down, and only while he
    speaks."""
    echo = 0.1 * shouting_voice(8.0)
    assert highest_level(model, None, echo) == 2
    assert highest_level(model, shouting_voice(2.0), 0.1 * shouting_voice(8.0)) == 2


def test_a_caller_who_shouts_over_the_agent_is_heard(model: AcousticModel) -> None:
    assert highest_level(model, shouting_voice(8.0), 0.7 * np.roll(shouting_voice(8.0), 999)) == 2
