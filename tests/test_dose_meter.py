"""The dose of a shift: over calls and restarts, by agent, for the agent alone."""

from __future__ import annotations

import stat
from pathlib import Path

import msgspec
import pytest

from notifier.views import for_supervisor
from sipbridge.dose_meter import SHIFT_GAP_S, DoseMeter

CALL = "0" * 32
#: An hour at -20 dBFS: with 105 dB at full scale that is 85 dB(A).
HOUR = (3600 * 8000 * 10 ** (-20 / 10), 3600 * 8000)


def meter(folder: Path, calibration: float | None = 105.0) -> DoseMeter:
    return DoseMeter(folder / "dose.json", calibration)


def test_hours_add_up_to_the_laws_values(tmp_path: Path) -> None:
    made = meter(tmp_path)
    said = [made.add("1001", CALL, *HOUR, now=1000.0 + 3600 * n) for n in range(8)]
    assert said[0].level_dba == pytest.approx(85.0, abs=0.1)
    # Three decibels less for each halving of the eight hours.
    assert said[0].lex_8h_dba == pytest.approx(85 - 9.03, abs=0.1)
    assert [event.action_value for event in said[:4]] == ["none", "none", "lower", "lower"]
    assert said[7].lex_8h_dba == pytest.approx(85.0, abs=0.1)
    assert said[7].dose_pct == pytest.approx(100.0, abs=0.5)
    assert not said[7].estimate


def test_each_agent_has_a_headset_of_ones_own(tmp_path: Path) -> None:
    made = meter(tmp_path)
    made.add("1001", CALL, *HOUR, now=1000.0)
    assert made.add("1002", CALL, *HOUR, now=1000.0).heard_s == 3600


def test_a_restart_goes_on_with_the_shift_and_a_night_ends_it(tmp_path: Path) -> None:
    before = meter(tmp_path)
    before.add("1001", CALL, *HOUR, now=1000.0)
    before.save(1000.0)
    assert stat.S_IMODE((tmp_path / "dose.json").stat().st_mode) == 0o600
    assert meter(tmp_path).add("1001", CALL, *HOUR, now=2000.0).heard_s == 7200
    rested = 1000.0 + SHIFT_GAP_S + 1
    assert meter(tmp_path).add("1001", CALL, *HOUR, now=rested).heard_s == 3600
    # What is over is not kept.
    later = meter(tmp_path)
    later.save(rested)
    assert b"1001" not in (tmp_path / "dose.json").read_bytes()


@pytest.mark.parametrize("content", [b"", b"{", b'{"1001": 5}', b"\xff\xfe"])
def test_an_unreadable_file_costs_a_shift_and_no_call(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "dose.json").write_bytes(content)
    assert meter(tmp_path).add("1001", CALL, *HOUR, now=1000.0).heard_s == 3600


def test_silence_and_a_headset_without_calibration_are_said_plainly(tmp_path: Path) -> None:
    said = meter(tmp_path, None).add("1001", CALL, 0.0, 8000, now=1000.0)
    assert said.estimate
    assert (said.level_dba, said.lex_8h_dba, said.dose_pct) == (0.0, 0.0, 0.0)
    msgspec.json.encode(said)  # infinity would have no place there


def test_no_supervisor_sees_it(tmp_path: Path) -> None:
    said = msgspec.to_builtins(meter(tmp_path).add("1001", CALL, *HOUR, now=1000.0))
    assert said["type"] == "ear.dose"
    assert for_supervisor(said) is None
