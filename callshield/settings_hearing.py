"""``[hearing]``: what the agent is told of the own ear and voice, and nobody else."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from callshield.settings_base import SECTION

Percentage = Annotated[float, Field(ge=10, le=1000)]


class HearingSettings(BaseModel):
    """``[hearing]``: what the agent is told of the own ear and voice (docs/hearing.md)."""

    model_config = SECTION

    dose_warnings_pct: list[Percentage] = Field([80.0, 100.0], max_length=8)
    """Share of the daily dose at which the agent is warned, each once a shift; 100 is 85 dB(A) for
    eight hours. Empty: no warning."""
    voice_hint_after_s: float = Field(900.0, ge=0, le=14400)
    """Own speech without a pause after which the agent is told to rest the voice; 0: nobody's
    speech is timed."""
    voice_pause_s: float = Field(60.0, ge=15, le=1800)
    """Silence of the agent that counts as a pause: the timing begins anew after it."""

    @property
    def times_speech(self) -> bool:
        """The media core's bit is asked for at all."""
        return self.voice_hint_after_s > 0
