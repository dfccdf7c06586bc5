"""What each agent's headset gave in this shift: the dose that the law limits.

Kept by agent, over calls and restarts, until the agent has heard nothing for eight hours: then a
new shift begins. Shown to the agent alone, who is warned once a shift at each threshold.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from callshield.messages import EarDose, EarWarning
from callshield.messages_hearing import SHIFT_GAP_S as SHIFT_GAP_S
from sipbridge.dose import Exposure, dose


class _Shift(msgspec.Struct):
    a_weighted_sum_sq: float
    samples: int
    last_ts: float
    warned_pct: float = 0.0
    """The highest threshold at which the agent was warned."""


class DoseMeter:
    """The running sums of one node.

    Args:
        path: where they are kept over a restart.
        calibration_db_spl_at_0dbfs: see :class:`callshield.settings.EarSettings`.
        own_calibrations: by agent id, of those whose headset was measured (``[headsets.NAME]``).
        thresholds_pct: ``hearing.dose_warnings_pct``.
    """

    def __init__(
        self,
        path: Path,
        calibration_db_spl_at_0dbfs: float | None,
        own_calibrations: Mapping[str, float] | None = None,
        thresholds_pct: Sequence[float] = (),
    ) -> None:
        self._thresholds = tuple(thresholds_pct)
        self._path = path
        self._calibration = calibration_db_spl_at_0dbfs
        self._own = dict(own_calibrations or {})
        self._shifts: dict[str, _Shift] = {}
        # An unreadable file costs the sums of a shift, never a call.
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            self._shifts = msgspec.json.decode(path.read_bytes(), type=dict[str, _Shift])

    def add(
        self,
        agent_id: str,
        call_id: str,
        a_weighted_sum_sq: float,
        samples: int,
        now: float,
        *,
        last_of_call: bool = False,
    ) -> EarDose:
        """Add what a call gave, and say where the shift stands.

        Args:
            agent_id: whose headset.
            call_id: the call.
            a_weighted_sum_sq: sum of squares of A-weighted samples, full scale 1.
            samples: their number, at 8 kHz.
            now: seconds since the epoch.
            last_of_call: the agent hears no more of it.
        """
        shift = self._shifts.get(agent_id)
        if shift is None or now - shift.last_ts > SHIFT_GAP_S:
            shift = self._shifts[agent_id] = _Shift(0.0, 0, now)
        shift.a_weighted_sum_sq += a_weighted_sum_sq
        shift.samples += samples
        shift.last_ts = now
        so_far = dose(
            Exposure(shift.a_weighted_sum_sq, shift.samples),
            self._own.get(agent_id, self._calibration),
        )
        return EarDose(
            ts=now,
            call_id=call_id,
            agent_id=agent_id,
            heard_s=round(so_far.heard_s, 1),
            level_dba=_finite(so_far.laeq_dba),
            lex_8h_dba=_finite(so_far.lex_8h_dba),
            dose_pct=round(so_far.niosh_pct, 1),
            action_value=so_far.action,
            estimate=so_far.estimate,
            last_of_call=last_of_call,
        )

    def warning(self, said: EarDose) -> EarWarning | None:
        """What the agent is to be warned of after that dose; each threshold once a shift."""
        shift = self._shifts.get(said.agent_id)
        reached = [pct for pct in self._thresholds if pct <= said.dose_pct]
        if shift is None or not reached or max(reached) <= shift.warned_pct:
            return None
        shift.warned_pct = max(reached)
        return EarWarning(
            ts=said.ts,
            call_id=said.call_id,
            agent_id=said.agent_id,
            dose_pct=said.dose_pct,
            threshold_pct=shift.warned_pct,
            lex_8h_dba=said.lex_8h_dba,
            estimate=said.estimate,
        )

    def save(self, now: float) -> None:
        """Write the sums of running shifts; blocks for one small file."""
        self._shifts = {
            agent_id: shift
            for agent_id, shift in self._shifts.items()
            if now - shift.last_ts <= SHIFT_GAP_S
        }
        partial = self._path.with_suffix(".part")
        with contextlib.suppress(OSError):
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(self._shifts))
            partial.replace(self._path)


def _finite(level_dba: float) -> float:
    """0 dB(A) for silence: infinity has no place in JSON."""
    return round(level_dba, 1) if math.isfinite(level_dba) and level_dba > 0 else 0.0
