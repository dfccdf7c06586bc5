"""How much sound one headset gave one ear in one shift: LEX,8h, action values, NIOSH dose.

Pure arithmetic on what :c:func:`ear_take_dose` counts: the sum of squares of the A-weighted samples
(full scale is 1) and their number, at 8 kHz. Energies add up, which is the 3 dB exchange rate of
ISO 1999, of Directive 2003/10/EC and of NIOSH 98-126.

What it cannot know: the headset's volume wheel, its fit, and the noise of the room. A level in
dB(A) needs ``calibration_db_spl_at_0dbfs``, measured at the headset with the volume fixed (ISO
11904-1 or -2); without it every figure is an estimate and says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

SAMPLE_RATE_HZ = 8000
#: Eight hours, to which exposures are related (ISO 1999, LEX,8h).
REFERENCE_S = 8 * 3600.0
#: Directive 2003/10/EC article 3: lower and upper exposure action values, dB(A) over 8 hours.
LOWER_ACTION_DBA = 80.0
UPPER_ACTION_DBA = 85.0
#: NIOSH 98-126: the recommended exposure limit that is a dose of 100 %.
NIOSH_LIMIT_DBA = 85.0
#: Used without calibration. Speech at the network's nominal -26 dBFS then reads 78 dB less the two
#: or so that A-weighting takes from it: 76 dB(A), the middle of the exposures of call-centre
#: operators, 66 to 86 dB(A) (10th to 90th percentile; Pawlaczyk-Luszczynska et al., Archives of
#: Acoustics 44(4), 2019, 747-759). One headset can be 10 dB away from it.
TYPICAL_DB_SPL_AT_0DBFS = 104.0

ActionValue = Literal["none", "lower", "upper"]


@dataclass(frozen=True)
class Exposure:
    """Sound energy heard so far; add what is taken from each call."""

    a_weighted_sum_sq: float = 0.0
    """Sum of squares of A-weighted samples, full scale 1."""
    samples: int = 0
    """Their number, at 8 kHz: the time for which audio was heard."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.a_weighted_sum_sq) or self.a_weighted_sum_sq < 0.0:
            raise ValueError("a sum of squares is a finite number, 0 or more")
        if self.samples < 0:
            raise ValueError("a number of samples is 0 or more")

    def __add__(self, other: Exposure) -> Exposure:
        return Exposure(
            self.a_weighted_sum_sq + other.a_weighted_sum_sq, self.samples + other.samples
        )

    @property
    def seconds(self) -> float:
        """Time for which audio was heard."""
        return self.samples / SAMPLE_RATE_HZ

    @property
    def level_dbfs(self) -> float:
        """Mean A-weighted level; -inf for silence or nothing heard."""
        if not self.samples or not self.a_weighted_sum_sq:
            return -math.inf
        return 10.0 * math.log10(self.a_weighted_sum_sq / self.samples)


@dataclass(frozen=True)
class Dose:
    """An exposure in the terms of the law."""

    heard_s: float
    """Time for which audio was heard."""
    laeq_dba: float
    """Mean level at the ear over that time; -inf for silence."""
    lex_8h_dba: float
    """The same energy spread over eight hours (daily noise exposure level)."""
    action: ActionValue
    """The highest action value of Directive 2003/10/EC that is reached."""
    niosh_pct: float
    """NIOSH dose: 100 is 85 dB(A) for eight hours. Levels under 80 dB(A) count, too."""
    left_s: float
    """Time until the upper action value at the mean level so far; inf when there is none."""
    estimate: bool
    """No calibration: :data:`TYPICAL_DB_SPL_AT_0DBFS` was assumed."""


def dose(exposure: Exposure, calibration_db_spl_at_0dbfs: float | None) -> Dose:
    """Work out the dose of a shift.

    Args:
        exposure: what the headset gave since the shift began.
        calibration_db_spl_at_0dbfs: sound pressure level at the ear, related to the diffuse field,
            of a 1 kHz signal whose RMS is full scale; None when it was never measured.
    """
    estimate = calibration_db_spl_at_0dbfs is None
    calibration_db = TYPICAL_DB_SPL_AT_0DBFS
    if calibration_db_spl_at_0dbfs is not None:
        calibration_db = calibration_db_spl_at_0dbfs
    laeq = calibration_db + exposure.level_dbfs
    heard_s = exposure.seconds
    lex = laeq + 10.0 * math.log10(heard_s / REFERENCE_S) if heard_s else -math.inf
    action: ActionValue = "none"
    if lex >= LOWER_ACTION_DBA:
        action = "upper" if lex >= UPPER_ACTION_DBA else "lower"
    return Dose(
        heard_s=heard_s,
        laeq_dba=laeq,
        lex_8h_dba=lex,
        action=action,
        niosh_pct=100.0 * 10.0 ** ((lex - NIOSH_LIMIT_DBA) / 10.0),
        left_s=max(allowed_s(laeq, UPPER_ACTION_DBA) - heard_s, 0.0),
        estimate=estimate,
    )


def allowed_s(level_dba: float, action_dba: float) -> float:
    """Time at a level after which the daily exposure reaches a value: each 3 dB more halve it."""
    if level_dba == -math.inf:
        return math.inf
    return float(REFERENCE_S * 10.0 ** ((action_dba - level_dba) / 10.0))
