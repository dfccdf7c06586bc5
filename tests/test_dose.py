"""The dose meter: energies add up, eight hours are the yardstick, and an estimate says so."""

from __future__ import annotations

import math

import pytest

from sipbridge.dose import (
    TYPICAL_DB_SPL_AT_0DBFS,
    Exposure,
    allowed_s,
    dose,
)

HOUR = 3600 * 8000


def heard(level_dbfs: float, hours: float) -> Exposure:
    """Sound at an even A-weighted level."""
    samples = int(hours * HOUR)
    return Exposure(samples * 10.0 ** (level_dbfs / 10.0), samples)


def test_eight_hours_at_a_level_are_that_exposure() -> None:
    result = dose(heard(-20.0, 8.0), 105.0)
    assert result.laeq_dba == pytest.approx(85.0)
    assert result.lex_8h_dba == pytest.approx(85.0)
    assert result.niosh_pct == pytest.approx(100.0)
    assert result.left_s == pytest.approx(0.0, abs=1e-6)


def test_half_the_time_allows_three_decibels_more() -> None:
    """The 3 dB exchange rate of ISO 1999 (5 dB, as in OSHA's rule, would give 86.2 here)."""
    result = dose(heard(-20.0, 4.0), 105.0)
    assert result.laeq_dba == pytest.approx(85.0)
    assert result.lex_8h_dba == pytest.approx(85.0 - 10.0 * math.log10(2.0))
    assert result.niosh_pct == pytest.approx(50.0)
    assert result.left_s == pytest.approx(4 * 3600.0)
    # NIOSH 98-126 table 1-1: 88 dB(A) four hours, 94 dB(A) one hour, 100 dB(A) a quarter.
    for level, minutes in ((85, 480), (88, 240), (94, 60), (100, 15)):
        assert allowed_s(level, 85.0) / 60 == pytest.approx(minutes, rel=0.02)


def test_action_values_of_the_directive() -> None:
    assert dose(heard(-25.01, 8.0), 105.0).action == "none"
    assert dose(heard(-24.99, 8.0), 105.0).action == "lower"
    assert dose(heard(-20.01, 8.0), 105.0).action == "lower"
    assert dose(heard(-19.99, 8.0), 105.0).action == "upper"


def test_calls_of_a_shift_add_up_by_energy_not_by_level() -> None:
    loud, soft = heard(-10.0, 0.5), heard(-40.0, 3.5)
    together = dose(loud + soft, 105.0)
    assert together.heard_s == pytest.approx(4 * 3600.0)
    assert together.lex_8h_dba == pytest.approx(dose(loud, 105.0).lex_8h_dba, abs=0.05)
    assert together.laeq_dba == pytest.approx(95.0 - 9.0, abs=0.05)  # one eighth of the time


def test_without_calibration_it_is_an_estimate() -> None:
    measured, guessed = dose(heard(-26.0, 8.0), 90.0), dose(heard(-26.0, 8.0), None)
    assert not measured.estimate
    assert guessed.estimate
    assert guessed.lex_8h_dba == pytest.approx(TYPICAL_DB_SPL_AT_0DBFS - 26.0)


def test_silence_and_nothing_at_all() -> None:
    for nothing in (Exposure(), Exposure(0.0, HOUR)):
        result = dose(nothing, 105.0)
        assert result.lex_8h_dba == -math.inf
        assert result.action == "none"
        assert result.niosh_pct == 0.0
        assert result.left_s == math.inf


@pytest.mark.parametrize(("total", "samples"), [(-1.0, 1), (math.nan, 1), (math.inf, 1), (1.0, -1)])
def test_sums_that_cannot_be_are_refused(total: float, samples: int) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        Exposure(total, samples)
