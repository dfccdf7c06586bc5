"""Announcements of two seconds each, so that a test with many of them takes no minutes.

Cut out of the shipped Korean ones: real speech, which can be found again in a recording.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from callshield.heard import read_wav
from sipbridge.prompt_catalogue import SHIPPED
from tests.peers.sound import RATE, write_wav

SECONDS = 2.0
#: Silence in front, as the shipped ones have (158 ms and more): behind a PBX our answer and our
#: first packets race to the caller's telephone, and what comes before the answer is not heard.
LEAD_S = 0.15
#: What each is cut out of.
_FROM = {
    "recording": "recording",
    "closing": "closing",
    "warning_1": "warning_1",
    "warning_2": "warning_2",
    "warning_3": "warning_3",
}


class Prompts:
    """A prompt folder.

    Args:
        folder: made here.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "ko"
        self._folder.mkdir(parents=True)
        self.toml = f'[notice]\nprompt_dir = "{folder}"\nprompts = ["recording"]\n'
        """The configuration that plays them."""
        for name, source in _FROM.items():
            whole = read_wav(SHIPPED / "ko" / f"{source}.wav")
            begin = int(np.argmax(np.abs(whole) > 0.05))  # behind the silence in front
            part = np.zeros(int(SECONDS * RATE))
            # Silence at the end, as the shipped ones have: a phone's jitter buffer dies with BYE.
            speech = int((SECONDS - 0.4 - LEAD_S) * RATE)
            lead = int(LEAD_S * RATE)
            part[lead : lead + speech] = whole[begin : begin + speech]
            write_wav(self._folder / f"{name}.wav", part)

    def samples(self, name: str) -> NDArray[np.float32]:
        """One of them, shape ``(16000,)``, full scale ±1."""
        return read_wav(self._folder / f"{name}.wav")
