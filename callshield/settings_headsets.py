"""``[headsets.NAME]``: what was measured at one kind of headset, for limiter and dose meter.

The level at the ear depends on headset, phone and volume together, so that it is the site's own
measurement (docs/hearing.md); makers publish no such number (docs/phones.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import BaseModel, Field, model_validator

from callshield.settings_base import SECTION

#: The limiter goes no further down than this (``ear.limit_peak_dbfs``).
_LOWEST_DBFS = -30.0


class HeadsetSettings(BaseModel):
    """``[headsets.NAME]``: one kind of headset on one kind of phone, with its volume fixed."""

    model_config = SECTION

    profile: str = Field("", pattern=r"^([a-z0-9][a-z0-9-]{0,47})?$")
    """Id of the maker's profile (`callshield profiles list`); empty: none of them."""
    calibration_db_spl_at_0dbfs: float | None = Field(None, ge=60, le=160)
    """As ``ear.calibration_db_spl_at_0dbfs``, for these headsets."""
    maximum_db_spl: float | None = Field(None, ge=60, le=140)
    """Level at the ear, related like the calibration, that the limiter keeps these headsets under;
    the limiter of the whole node is turned down for it."""

    @property
    def limit_dbfs(self) -> float | None:
        """Signal level that gives ``maximum_db_spl``; ``None``: none is asked for."""
        if self.calibration_db_spl_at_0dbfs is None or self.maximum_db_spl is None:
            return None
        return self.maximum_db_spl - self.calibration_db_spl_at_0dbfs

    @model_validator(mode="after")
    def _can_be_kept(self) -> HeadsetSettings:
        if self.maximum_db_spl is not None and self.calibration_db_spl_at_0dbfs is None:
            raise ValueError("calibration_db_spl_at_0dbfs, without which no level is known")
        limit = self.limit_dbfs
        if limit is not None and limit < _LOWEST_DBFS:
            raise ValueError(
                f"maximum_db_spl at most {-_LOWEST_DBFS:g} dB under calibration_db_spl_at_0dbfs: "
                "turn the headset's volume down instead"
            )
        return self


def turned_down(profile: Mapping[str, float], used: Iterable[HeadsetSettings]) -> dict[str, float]:
    """The limiter's keys so that no headset in use gets more than its maximum.

    No mean of a signal exceeds its peak, so both ceilings at ``limit_dbfs`` keep any sound under
    it, whatever its form.

    Args:
        profile: ``[ear]`` as the signal processing takes it.
        used: the headsets of all agents.
    """
    limits = [limit for headset in used if (limit := headset.limit_dbfs) is not None]
    found = dict(profile)
    for key in ("limit_peak_dbfs", "limit_rms_dbfs"):
        found[key] = min([found[key], *limits])
    return found
