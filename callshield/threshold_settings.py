"""``[detector.thresholds]`` and ``[detector.groups.NAME]``: a site's own thresholds."""

from __future__ import annotations

from pydantic import BaseModel, Field, model_validator

from callshield.settings_base import SECTION


class ThresholdSettings(BaseModel):
    """``[detector.thresholds]``: a site's own; `callshield calibrate` proposes them from judged
    alerts, a person puts them in (docs/calibration.md)."""

    model_config = SECTION

    caution: float | None = Field(None, ge=0.3, le=0.99)
    """Vocal-effort score from which a voice is raised; the model card's when absent."""
    serious: float | None = Field(None, ge=0.3, le=0.99)
    """Vocal-effort score from which it is shouting; the model card's when absent."""
    model: str = Field("", pattern=r"^[0-9a-f]{0,64}$")
    """Beginning of the SHA-256 of the model that they were found with; with another model they
    are not used, and the log says so. Empty: used with any."""

    @model_validator(mode="after")
    def _in_order(self) -> ThresholdSettings:
        if self.caution is not None and self.serious is not None and self.caution > self.serious:
            raise ValueError("a caution that is not above serious")
        return self
