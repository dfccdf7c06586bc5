"""Ear and voice: told to that agent at once, to nobody else, and only what must be is stored."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from callshield.cli import app
from callshield.messages import EarDose, EarWarning, VoiceTalk
from callshield.settings import load_settings
from notifier import fairness, weekly
from notifier.database import migrate
from notifier.outside import may_be_told
from notifier.tokens import create_token
from notifier.views import SUPERVISOR_TYPES
from sipbridge.dose_meter import SHIFT_GAP_S, DoseMeter
from tests.mentions import mentioned
from tests.notifier_kit import Bridge, Desk, desk_in_process, write_config
from tests.test_fairness_api import ZONE, event, past_call, until

CALL = "0" * 32
#: An hour at -20 dBFS: with 105 dB at full scale that is 85 dB(A), an eighth of a day's dose.
HOUR = (3600 * 8000 * 10 ** (-20 / 10), 3600 * 8000)
#: No time of the log ends like this.
MARK = 61.71828182


# ------------------------------------------------------------------------- the warning, once


def meter(folder: Path, thresholds: tuple[float, ...] = (80.0, 100.0)) -> DoseMeter:
    return DoseMeter(folder / "dose.json", 105.0, None, thresholds)


def warned(of: DoseMeter, hours: int, begin: float = 1000.0) -> list[EarWarning]:
    said = [of.add("1001", CALL, *HOUR, now=begin + 3600 * n) for n in range(hours)]
    return [one for one in map(of.warning, said) if one is not None]


def test_the_agent_is_warned_at_four_fifths_of_a_days_dose_and_at_a_whole_one(
    tmp_path: Path,
) -> None:
    of = meter(tmp_path)
    assert warned(of, 6) == [], "75 %"
    [first] = warned(of, 1)
    assert (first.threshold_pct, first.dose_pct) == (80.0, pytest.approx(87.5, abs=0.5))
    [second] = warned(of, 3)
    assert second.threshold_pct == 100.0
    assert warned(of, 5) == [], "each once a shift"


def test_who_passes_both_at_once_is_warned_of_the_higher_alone(tmp_path: Path) -> None:
    of = meter(tmp_path)
    loud = of.add("1001", CALL, HOUR[0] * 20, HOUR[1], now=1000.0)
    warning = of.warning(loud)
    assert warning is not None
    assert warning.threshold_pct == 100.0
    assert of.warning(of.add("1001", CALL, *HOUR, now=1001.0)) is None


def test_a_restart_does_not_warn_again_and_the_next_shift_does(tmp_path: Path) -> None:
    of = meter(tmp_path, (80.0,))
    assert len(warned(of, 7)) == 1
    of.save(1000.0 + 3600 * 7)
    later = meter(tmp_path, (80.0,))
    assert warned(later, 1, 1000.0 + 3600 * 7) == []
    assert len(warned(later, 7, 1000.0 + 3600 * 8 + SHIFT_GAP_S)) == 1


def test_sums_of_an_older_version_are_taken_over(tmp_path: Path) -> None:
    old = {"1001": {"a_weighted_sum_sq": HOUR[0] * 7, "samples": HOUR[1] * 7, "last_ts": 1000.0}}
    (tmp_path / "dose.json").write_text(json.dumps(old))
    assert len(warned(meter(tmp_path), 1)) == 1


def test_without_thresholds_nobody_is_warned(tmp_path: Path) -> None:
    assert warned(meter(tmp_path, ()), 20) == []


# -------------------------------------------------------------------------------- whom it reaches


def dose(call_id: str, pct: float, *, last: bool = False, agent_id: str = "1001") -> EarDose:
    return EarDose(
        ts=time.time(),
        call_id=call_id,
        agent_id=agent_id,
        heard_s=600.0,
        level_dba=76.0,
        lex_8h_dba=70.0,
        dose_pct=pct,
        action_value="none",
        estimate=True,
        last_of_call=last,
    )


def warning(call_id: str) -> EarWarning:
    return EarWarning(
        ts=time.time(),
        call_id=call_id,
        agent_id="1001",
        dose_pct=81.0,
        threshold_pct=80.0,
        lex_8h_dba=84.1,
        estimate=True,
    )


def talk(talked_s: float, *, rest: bool = False) -> VoiceTalk:
    return VoiceTalk(ts=time.time(), agent_id="1001", talked_s=talked_s, rest=rest, pause_s=60.0)


async def flushed(bridge: Bridge, screen: Any) -> None:
    """Whatever was said before has arrived."""
    marker = bridge.start_call("1001")
    await screen.until("call.started", call_id=marker)


def stored(desk: Desk) -> list[str]:
    with closing(sqlite3.connect(desk.settings.database_path)) as database:
        return [row[0] for row in database.execute("SELECT type FROM events ORDER BY id")]


async def test_a_running_dose_and_the_talking_time_reach_that_agent_and_no_store(
    tmp_path: Path,
) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as own,
        desk.console(desk.other) as other,
        desk.console(desk.supervisor) as supervisor,
        desk.http(desk.agent) as http,
    ):
        assert (await http.get("/api/v1/me/hearing")).json() == {"dose": None, "voice": None}
        call_id = bridge.start_call()
        bridge.send(dose(call_id, 12.0))
        bridge.send(talk(MARK, rest=True))
        told = await own.until("ear.dose")
        assert "id" not in told
        assert told["dose_pct"] == 12.0
        told = await own.until("voice.talk")
        assert "id" not in told
        assert (told["talked_s"], told["rest"]) == (MARK, True)
        shown = (await http.get("/api/v1/me/hearing")).json()
        assert (shown["dose"]["dose_pct"], shown["dose"]["warned_pct"]) == (12.0, 0.0)
        assert shown["voice"] == {
            "ts": told["ts"], "talked_s": MARK, "rest": True, "pause_s": 60.0
        }  # fmt: skip
        # What is numbered and stored: the end of the call, and the warning.
        bridge.send(warning(call_id))
        bridge.end_call(call_id)
        bridge.send(dose(call_id, 81.0, last=True))
        for kind in ("ear.warning", "ear.dose"):
            assert (await own.until(kind))["id"] > 0
        await flushed(bridge, own)
        assert stored(desk).count("ear.dose") == 1
        assert stored(desk).count("ear.warning") == 1
        assert "voice.talk" not in stored(desk)
        assert (await http.get("/api/v1/me/hearing")).json()["dose"]["warned_pct"] == 80.0
        await supervisor.until("call.ended")
        private = {"ear.dose", "ear.warning", "voice.talk"}
        assert not private & {message["type"] for message in other.seen + supervisor.seen}
        async with desk.http(desk.supervisor) as watching:
            assert (await watching.get("/api/v1/me/hearing")).status_code == 403
        async with desk.http(desk.other) as colleague:
            assert (await colleague.get("/api/v1/me/hearing")).json()["dose"] is None
        figures = (await http.get("/metrics")).text
        assert "voice" not in figures
        # A screen that was away: the warning is told again, the talking time is not.
        async with desk.console(desk.agent, last_id=0) as back:
            await back.until("ear.warning")
            await flushed(bridge, back)
            assert "voice.talk" not in {message["type"] for message in back.seen}
    # Nowhere on the disk, log of the database included.
    for path in (tmp_path / "state").rglob("*"):
        if path.is_file():
            assert b"voice.talk" not in path.read_bytes(), path
            assert str(MARK).encode() not in path.read_bytes(), path
    # Control: the search finds what is there.
    assert any(
        b"ear.warning" in path.read_bytes() for path in (tmp_path / "state").glob("*sqlite*")
    )


async def test_only_the_bridge_says_so(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.bridge("detector") as stranger,
        desk.console(desk.agent) as own,
    ):
        call_id = bridge.start_call()
        await own.until("call.started")
        stranger.send(dose(call_id, 99.0))
        stranger.send(talk(900.0))
        stranger.risk(call_id, 2)
        await own.until("risk.changed")
        assert not {"ear.dose", "voice.talk"} & {message["type"] for message in own.seen}


async def test_a_bridge_that_begins_anew_takes_the_hint_away(tmp_path: Path) -> None:
    async with desk_in_process(tmp_path) as desk, desk.console(desk.agent) as own:
        async with desk.bridge() as bridge:
            bridge.send(talk(900.0, rest=True))
            await own.until("voice.talk", rest=True)
        async with desk.bridge():
            told = await own.until("voice.talk")
            assert (told["talked_s"], told["rest"]) == (0.0, False)


async def test_a_notifier_that_begins_anew_knows_the_dose_of_the_last_call(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as own,
    ):
        call_id = bridge.start_call()
        bridge.end_call(call_id)
        bridge.send(dose(call_id, 85.0, last=True))
        await own.until("ear.dose")
    async with desk_in_process(tmp_path) as desk, desk.http(desk.agent) as http:
        shown = (await http.get("/api/v1/me/hearing")).json()
        assert (shown["dose"]["dose_pct"], shown["dose"]["warned_pct"]) == (85.0, 80.0)
        assert shown["voice"] is None


def test_no_supervisor_no_webhook_and_no_mail_is_told() -> None:
    for kind in ("ear.dose", "ear.warning", "voice.talk"):
        assert kind not in SUPERVISOR_TYPES
        assert not may_be_told(kind)
    assert may_be_told("alert.raised"), "the control"


# ------------------------------------------------------------------------------------- the trend


async def test_the_trend_of_a_week_is_for_oversight_and_names_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fairness, "STEADY_S", 0.0)
    monkeypatch.setattr(fairness, "TICK_S", 0.1)
    week = weekly.week_of(time.time() - 15 * 86_400, ZONE)
    begin, _ = weekly.bounds(week, ZONE)
    agents = {f"30{n:02}": group for n, group in enumerate(["desk"] * 6 + ["trial"] * 7)}
    tables = "".join(
        f'[agents.{id_}]\nuri = "sip:{id_}@192.0.2.20"\ngroup = "{group}"\n'
        for id_, group in agents.items()
    )
    settings = load_settings(write_config(tmp_path, 1, tables))
    migrate(settings.database_path)
    for number, agent_id in enumerate(agents, 1):
        call_id = past_call(settings, agent_id, begin + 100 * number)
        loud = agent_id in ("3000", "3001") or agents[agent_id] == "trial"
        said = {
            "type": "ear.dose",
            "call_id": call_id,
            "agent_id": agent_id,
            "heard_s": 3600.0,
            "level_dba": 76.0,
            "lex_8h_dba": 84.5 if loud else 70.0,
            "dose_pct": 90.0 if loud else 10.0,
            "action_value": "none",
            "estimate": True,
        }
        event(settings, number, begin + 100 * number + 400, said, agent_id)
    async with desk_in_process(tmp_path, tables) as desk:
        token = await asyncio.to_thread(create_token, desk.settings, "representative", "council")
        async with desk.http(token) as http:

            async def there() -> Any:
                return (await http.get("/api/v1/reports/hearing")).json()["weeks"]

            [found] = await until(there)
            everybody = (await http.get("/api/v1/reports/weekly")).json()
        assert "hearing" not in everybody
        assert found["week"] == week == everybody["week"]
        assert [(row["group"], row["agents_warned"]) for row in found["rows"]] == [
            ("desk", None),
            ("trial", 7),
        ]
        assert found["total"]["agents_warned"] is None
        assert not any(mentioned(id_, json.dumps(found)) for id_ in agents)
        for other in (desk.agent, desk.supervisor):
            async with desk.http(other) as http:
                assert (await http.get("/api/v1/reports/hearing")).status_code == 403
    config = str(tmp_path / "callshield.toml")

    async def run(*more: str) -> str:
        command = ["report", "hearing", *more, "--config", config]
        return (await asyncio.to_thread(CliRunner().invoke, app, command)).stdout

    assert json.loads(await run("--json"))["weeks"] == [found]
    page = await run()
    assert "80% 경고를 받은 상담사: 비공개" in page
    assert "80% 경고를 받은 상담사: 7" in page
