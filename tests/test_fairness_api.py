"""Draws, openings, marks, verdicts and reports over a running notifier's API, bus and console."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sqlite3
import sys
import textwrap
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from callshield.errors import CallshieldError
from callshield.fairness_commands import quality_verify, report_shadow, report_weekly, ringback_list
from callshield.messages import AlertRaised, CommandResult, CrisisHint, Reason, RiskChanged
from callshield.messages_fairness import (
    CallerEnded,
    OpenRecording,
    RemoveMark,
    RingbackSeen,
)
from callshield.notifier_request import _ask, request_id
from callshield.settings import Settings, load_settings
from notifier import fairness, quality, weekly
from notifier.calibration import JudgedCall
from notifier.database import migrate, transact
from notifier.fairness_store import FairnessStore
from notifier.judged import read_judged
from notifier.retention_run import delete_due
from notifier.schema import tokens
from notifier.store import Store
from notifier.tokens import create_token, token_row
from tests.mentions import mentioned
from tests.notifier_kit import (
    WITHIN_S,
    Bridge,
    Desk,
    Process,
    desk_in_process,
    new_call_id,
    write_config,
)
from tests.test_verdicts import analysed

SECRET = bytes(range(32))
ZONE = "Asia/Seoul"
QUALITY = "[quality]\nper_agent = 2\n"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is due is done now: the clock counts as steady, and the notifier looks often."""
    monkeypatch.setattr(fairness, "STEADY_S", 0.0)
    monkeypatch.setattr(fairness, "TICK_S", 0.1)


def last_month() -> str:
    """The newest month that is over for good."""
    month = quality.month_of(time.time() - 40 * 86_400, ZONE)
    assert time.time() > quality.bounds(month, ZONE)[1] + quality.GRACE_S
    return month


def put(settings: Settings, table: str, **values: Any) -> None:
    with closing(sqlite3.connect(settings.database_path)) as stored, stored:
        names = ", ".join(f'"{name}"' for name in values)
        marks = ", ".join("?" for _ in values)
        stored.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(values.values()))


def rows(settings: Settings, query: str) -> list[Any]:
    with closing(sqlite3.connect(settings.database_path)) as stored:
        return stored.execute(query).fetchall()


def event(
    settings: Settings, number: int, ts: float, body: dict[str, Any], agent: str = ""
) -> None:
    put(
        settings,
        "events",
        id=number,
        ts=ts,
        type=body["type"],
        call_id=body.get("call_id", ""),
        agent_id=agent,
        body=json.dumps({"ts": ts, **body}),
    )


def past_call(settings: Settings, agent: str, started: float, **changed: Any) -> str:
    call_id = new_call_id()
    values = {
        "call_id": call_id,
        "agent_id": agent,
        "pbx_call_id": "x",
        "pbx": "",
        "started_ts": started,
        "answered_ts": started + 5,
        "notice": "played",
        "tapped": 1,
        "level": 0,
        "peak_level": 0,
        "alerted_level": 0,
        "categories": "[]",
        "reasons": "[]",
        "warnings": 0,
        "ending_ts": None,
        "ended_ts": started + 305,
        "end_reason": "caller_hangup",
        "duration_s": 300.0,
        "acoustic_only": 0,
        "words_confirmed": 0,
        "may_trigger": 0,
        "crisis_ts": None,
        "purposes": '["quality", "recording"]',
    }
    put(settings, "calls", **{**values, **changed})
    return call_id


def a_month(folder: Path, agents: dict[str, int], extra: str = QUALITY) -> tuple[Settings, str]:
    """A node whose seed for the last month was fixed in time, and so many calls of each agent."""
    settings = load_settings(write_config(folder, 1, extra))
    migrate(settings.database_path)
    month = last_month()
    begin, end = quality.bounds(month, ZONE)
    fixed = {
        "month": month,
        "time_zone": ZONE,
        "begin_ts": begin,
        "end_ts": end,
        "per_agent": 2,
        "min_call_s": 30.0,
        "recorded_only": False,
    }
    put(settings, "quality_months", **fixed, secret=SECRET.hex(), drawn_ts=None)
    seeded = {"type": "quality.seeded", **fixed, "commitment": quality.commitment(month, SECRET)}
    event(settings, 1, begin - 1000, seeded)
    for agent, count in agents.items():
        for n in range(count):
            past_call(settings, agent, begin + 3600 * (n + 1))
    return settings, month


async def say(
    desk: Desk, token: str, method: str, path: str, body: Any = None
) -> tuple[int, dict[str, Any]]:
    async with desk.http(token) as http:
        answer = await http.request(method, f"/api/v1{path}", json=body)
        return answer.status_code, answer.json()


async def until(found: Any) -> Any:
    async with asyncio.timeout(WITHIN_S):
        while not (value := await found()):  # noqa: ASYNC110 (nothing outside tells us)
            await asyncio.sleep(0.05)
    return value


async def opens(
    desk: Desk, call_id: str, token: str, why: Any = "complaint", ref: str = "C-1", reason: str = ""
) -> CommandResult:
    asked = OpenRecording(
        request_id=request_id(), call_id=call_id, token=token, why=why, ref=ref, reason=reason
    )
    return await _ask(desk.settings.bus_path, asked)


def verify(settings: Settings, folder: Path, month: str, capsys: Any) -> tuple[int, str]:
    """``callshield quality verify MONTH``: exit status and what it said."""
    from typer import Exit

    capsys.readouterr()
    with pytest.raises(Exit) as ended:
        quality_verify(month, folder / "callshield.toml")
    said = capsys.readouterr()
    return ended.value.exit_code, said.out + said.err


# --------------------------------------------------------------------------------------- quality

GOOD = {"greeting": 4, "understanding": 3, "solution": 5, "closing": 2}
POOR = dict.fromkeys(GOOD, 1)


async def test_a_month_is_drawn_opened_scored_contested_and_scored_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, month = a_month(tmp_path, {"1001": 5, "1002": 1})
    async with desk_in_process(tmp_path, QUALITY) as desk:
        async with desk.console(desk.agent, 0) as console:
            drawn = [await console.until("quality.drawn") for _ in range(2)]
            assert {event["agent_id"] for event in drawn} == {"1001"}
        # The reviewer gets the calls, without the agent and without what others gave.
        code, found = await say(desk, desk.supervisor, "GET", "/quality/draws")
        assert (code, len(found["draws"])) == (200, 3)
        assert not mentioned("1001", json.dumps(found))
        draw_id, call_id = drawn[0]["draw_id"], drawn[0]["call_id"]
        score = {"draw_id": draw_id, "points": POOR}
        code, problem = await say(desk, desk.supervisor, "POST", "/quality/scores", score)
        assert (code, problem["type"].rsplit(":")[-1]) == (409, "not_opened")
        opened = await opens(desk, call_id, desk.supervisor, "draw", draw_id)
        assert opened.status == "done"
        code, answer = await say(desk, desk.supervisor, "POST", "/quality/scores", score)
        assert (code, answer) == (200, {"draw_id": draw_id, "review": 1})
        again = await say(desk, desk.second, "POST", "/quality/scores", score)
        assert again[0] == 409, "one score"
        # Only this agent sees it, and who opened the recording and why.
        _, own = await say(desk, desk.agent, "GET", "/me/quality")
        mine = next(draw for draw in own["draws"] if draw["draw_id"] == draw_id)
        assert (mine["counts"], mine["reviews"][0]["points"]) == (4, POOR)
        _, others = await say(desk, desk.other, "GET", "/me/quality")
        assert draw_id not in json.dumps(others)
        assert (await say(desk, desk.supervisor, "GET", "/me/quality"))[0] == 403
        _, seen = await say(desk, desk.agent, "GET", "/me/opened")
        (opening,) = seen["openings"]
        assert opening["call_id"] == call_id
        assert (opening["why"], opening["ref"]) == ("draw", draw_id)
        assert (opening["by_role"], opening["by_name"]) == ("supervisor", "first")
        assert (await say(desk, desk.other, "GET", "/me/opened"))[1] == {"openings": []}
        # Contested: by this agent alone, once.
        contest = f"/quality/scores/{draw_id}/contest"
        assert (await say(desk, desk.other, "POST", contest))[0] == 404
        assert (await say(desk, desk.supervisor, "POST", contest))[0] == 403
        code, answer = await say(desk, desk.agent, "POST", contest)
        assert code == 200
        assert answer["due_ts"] == pytest.approx(time.time() + 14 * 86_400, abs=60)
        assert (await say(desk, desk.agent, "POST", contest))[0] == 409
        # Another person, who sees nothing of the first score.
        code, _ = await say(desk, desk.supervisor, "POST", "/quality/scores", score)
        assert code == 403
        namesake = await asyncio.to_thread(create_token, desk.settings, "supervisor", " First ")
        assert (await say(desk, namesake, "POST", "/quality/scores", score))[0] == 403
        _, left = await say(desk, desk.supervisor, "GET", "/quality/draws")
        assert draw_id not in json.dumps(left)
        _, open_to_second = await say(desk, desk.second, "GET", "/quality/draws")
        (item,) = [d for d in open_to_second["draws"] if d["draw_id"] == draw_id]
        assert item.keys() == {"draw_id", "month", "call_id", "due_ts"}
        better = {"draw_id": draw_id, "points": GOOD}
        code, answer = await say(desk, desk.second, "POST", "/quality/scores", better)
        assert (code, answer["review"]) == (200, 2)
        _, own = await say(desk, desk.agent, "GET", "/me/quality")
        mine = next(draw for draw in own["draws"] if draw["draw_id"] == draw_id)
        assert mine["counts"] == 14, "the better of the two"
        _, told = await say(desk, desk.agent, "GET", "/quality/months")
        assert told["months"][0]["secret"] == SECRET.hex()
        assert told["months"][1]["secret"] == "", "this month's is not told yet"
    assert await asyncio.to_thread(verify, settings, tmp_path, month, capsys) == (
        0,
        f"{month}: 3 of 6 calls, drawn as the seed says; 6 of those calls are still known and "
        "were looked at again. `callshield audit verify` looks after the log itself.\n",
    )
    with closing(sqlite3.connect(settings.database_path)) as stored, stored:
        stored.execute(
            "UPDATE quality_draws SET call_id = (SELECT call_id FROM quality_pool WHERE call_id "
            "NOT IN (SELECT call_id FROM quality_draws)) WHERE draw_id = ?",
            (draw_id,),
        )
    code, said = await asyncio.to_thread(verify, settings, tmp_path, month, capsys)
    assert code == 1
    assert "the draws in use are not the ones" in said
    # What retention deleted is nobody's fraud.
    keep_log = settings.retention.model_copy(update={"events_days": 3000})
    settings = settings.model_copy(update={"retention": keep_log})
    await asyncio.to_thread(delete_due, settings, time.time() + 400 * 86_400)
    with pytest.raises(CallshieldError, match=f"retention has deleted calls of {month}"):
        await asyncio.to_thread(quality_verify, month, tmp_path / "callshield.toml")


async def test_who_signed_in_twice_is_one_reviewer_and_two_who_signed_in_are_two(
    tmp_path: Path,
) -> None:
    path = tmp_path / "node.sqlite3"
    migrate(path)
    made = {
        "kim": ("", "kim", "", ""),
        "kim again": ("", " Kim ", "", ""),
        "lee": ("", "lee", "l", ""),
        "account 1": ("oidc", "signed in", "", "s1"),
        "account 1 again": ("oidc", "signed in", "", "s1"),
        "account 2": ("oidc", "signed in", "", "s2"),
        "account of lee": ("oidc", "signed in", "l", "s3"),
        "named so": ("", "signed in", "", ""),
    }
    ids = {}

    def put(connection: Connection) -> None:
        for who, (source, name, supervisor_id, subject) in made.items():
            _, row = token_row("supervisor", name, "", 1.0, 10.0, supervisor_id)
            ids[who] = row["token_id"]
            more = {"source": source, "subject_sha256": subject}
            connection.execute(insert(tokens).values(**row, **more))

    transact(path, put)
    store = Store(path)
    same = {
        (one, other)
        for one, other in itertools.combinations(made, 2)
        if await FairnessStore(store.rows).same_person(ids[one], ids[other])
    }
    await store.close()
    assert same == {
        ("kim", "kim again"),
        ("account 1", "account 1 again"),
        ("lee", "account of lee"),
    }


async def test_a_draw_is_void_when_its_call_is_marked_later_and_nothing_takes_its_place(
    tmp_path: Path,
) -> None:
    settings, _ = a_month(tmp_path, {"1001": 6})
    async with (
        desk_in_process(tmp_path, QUALITY) as desk,
        desk.console(desk.agent, 0) as console,
    ):
        drawn = [await console.until("quality.drawn") for _ in range(2)]
    draw_id, call_id = drawn[0]["draw_id"], drawn[0]["call_id"]
    marked = {"type": "call.marked", "call_id": call_id, "exclude": ["quality"], "by": "agent"}
    survey = {**marked, "call_id": drawn[1]["call_id"], "exclude": ["survey"]}
    event(settings, 900, time.time(), marked, "1001")
    event(settings, 901, time.time(), survey, "1001")
    async with desk_in_process(tmp_path, QUALITY) as desk:
        async with desk.console(desk.agent, 900) as console:
            void = await console.until("score.void")
            assert (void["draw_id"], void["reason"]) == (draw_id, "marked_abusive")
        _, own = await say(desk, desk.agent, "GET", "/me/quality")
        assert {d["draw_id"]: d["void_reason"] for d in own["draws"]} == {
            draw_id: "marked_abusive",
            drawn[1]["draw_id"]: "",
        }
        score = {"draw_id": draw_id, "points": GOOD}
        code, problem = await say(desk, desk.supervisor, "POST", "/quality/scores", score)
        assert (code, "marked as abusive" in problem["detail"]) == (409, True)
        refused = await opens(desk, call_id, desk.supervisor, "draw", draw_id)
        assert refused.status == "not_now"
        assert "void" in refused.detail


async def test_a_contest_that_nobody_reviews_in_time_makes_the_score_void(tmp_path: Path) -> None:
    settings, _ = a_month(tmp_path, {"1001": 1})
    async with desk_in_process(tmp_path, QUALITY) as desk:
        async with desk.console(desk.agent, 0) as console:
            draw = await console.until("quality.drawn")
            await opens(desk, draw["call_id"], desk.supervisor, "draw", draw["draw_id"])
            score = {"draw_id": draw["draw_id"], "points": POOR}
            await say(desk, desk.supervisor, "POST", "/quality/scores", score)
            await say(desk, desk.agent, "POST", f"/quality/scores/{draw['draw_id']}/contest")
            with closing(sqlite3.connect(settings.database_path)) as stored, stored:
                stored.execute("UPDATE quality_draws SET due_ts = 1")
            void = await console.until("score.void")
            assert void["reason"] == "no_second_review"
        _, own = await say(desk, desk.agent, "GET", "/me/quality")
        assert own["draws"][0]["counts"] is None
        code, _ = await say(desk, desk.second, "POST", "/quality/scores", {**score, "points": GOOD})
        assert code == 409


@pytest.mark.parametrize(
    ("points", "refused"),
    [
        ({**GOOD, "greeting": 6}, 409),
        ({**GOOD, "greeting": -1}, 422),
        ({**GOOD, "greeting": 1.5}, 422),
        ({**GOOD, "greeting": "good"}, 422),
        ({**GOOD, "note": 1}, 409),
        ({"greeting": 1}, 409),
        ({}, 409),
        ("she was rude", 422),
    ],
)
async def test_a_score_is_numbers_by_the_form_and_nothing_else(
    tmp_path: Path, points: Any, refused: int
) -> None:
    a_month(tmp_path, {"1001": 1})
    async with desk_in_process(tmp_path, QUALITY) as desk:
        async with desk.console(desk.agent, 0) as console:
            draw = await console.until("quality.drawn")
        await opens(desk, draw["call_id"], desk.supervisor, "draw", draw["draw_id"])
        body = {"draw_id": draw["draw_id"], "points": points}
        code, _ = await say(desk, desk.supervisor, "POST", "/quality/scores", body)
        assert code == refused
        assert (await say(desk, desk.agent, "POST", "/quality/scores", body))[0] == 403


async def test_two_reviewers_at_the_same_moment_are_one_score(tmp_path: Path) -> None:
    a_month(tmp_path, {"1001": 1})
    async with desk_in_process(tmp_path, QUALITY) as desk:
        async with desk.console(desk.agent, 0) as console:
            draw = await console.until("quality.drawn")
        await opens(desk, draw["call_id"], desk.supervisor, "draw", draw["draw_id"])
        body = {"draw_id": draw["draw_id"], "points": GOOD}
        answers = await asyncio.gather(
            *(say(desk, token, "POST", "/quality/scores", body)
              for token in (desk.supervisor, desk.second) * 4)
        )  # fmt: skip
        assert sorted(code for code, _ in answers) == [200, *[409] * 7]


SEEDS_AT_ONCE = """
    import sys
    from notifier import fairness
    fairness.STEADY_S, fairness.TICK_S = 0.0, 0.1
    from notifier.process import main
    sys.exit(main())
"""


async def test_a_seed_is_fixed_once_also_when_the_process_is_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notifier = Process(tmp_path, QUALITY)
    command = (sys.executable, "-c", textwrap.dedent(SEEDS_AT_ONCE))
    month = quality.month_of(time.time(), ZONE)
    seen = []
    for _ in range(3):
        await notifier.start(*command)

        async def seeded() -> Any:
            _, told = await say(notifier.desk, notifier.desk.agent, "GET", "/quality/months")
            return told["months"]

        seen.append((await until(seeded))[0]["commitment"])
        await notifier.end(signal.SIGKILL)
    assert len(set(seen)) == 1
    settings = notifier.desk.settings
    stored = rows(settings, "SELECT body FROM events WHERE type = 'quality.seeded' ORDER BY id")
    bodies = [json.loads(body) for (body,) in stored]
    assert bodies[0]["month"] == month
    assert len({b["month"] for b in bodies}) == len(bodies)
    # Who was called before the seed was fixed cannot be drawn.
    assert bodies[0]["begin_ts"] == pytest.approx(time.time(), abs=120)
    code, said = await asyncio.to_thread(verify, settings, tmp_path, month, capsys)
    assert (code, "not drawn yet" in said, seen[0] in said) == (0, True, True)
    with pytest.raises(CallshieldError, match="no seed was fixed"):
        await asyncio.to_thread(quality_verify, "2020-01", tmp_path / "callshield.toml")


async def test_without_quality_nothing_is_seeded_or_drawn(tmp_path: Path) -> None:
    async with desk_in_process(tmp_path) as desk:
        await asyncio.sleep(0.5)
        assert (await say(desk, desk.agent, "GET", "/quality/months"))[1] == {"months": []}


def test_a_clock_that_was_set_is_not_trusted_for_a_while() -> None:
    wall, machine = [1000.0], [0.0]
    clock = fairness.SteadyClock(lambda: wall[0], lambda: machine[0])
    wall[0], machine[0] = 1100.0, 100.0
    assert clock.steady_s() == 100.0
    wall[0], machine[0] = 9_000_000.0, 101.0
    assert clock.steady_s() == 0.0
    wall[0], machine[0] = 9_000_059.0, 160.0
    assert clock.steady_s() == 59.0
    wall[0], machine[0] = 1160.0, 161.0
    assert clock.steady_s() == 0.0


# ------------------------------------------------------------------------------------ recordings


async def test_no_recording_opens_without_a_good_reason(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
        desk.console(desk.supervisor) as supervisor,
    ):
        call_id = bridge.start_call()
        await agent.until("call.started", call_id=call_id)
        bridge.end_call(call_id)
        await agent.until("call.ended")
        why = "the caller wrote that she was insulted"
        for token, call, kind, ref, reason, sentence in (
            (desk.agent, call_id, "complaint", "C-1", why, "token of a supervisor"),
            ("cs_forged", call_id, "complaint", "C-1", why, "token of a supervisor"),
            (desk.supervisor, new_call_id(), "complaint", "C-1", why, "does not know the call"),
            (desk.supervisor, call_id, "complaint", "C-1", "because", "10 to 500"),
            (desk.supervisor, call_id, "complaint", "C-1", " " * 40, "10 to 500"),
            (desk.supervisor, call_id, "complaint", "C-1", "x" * 501, "10 to 500"),
            (desk.supervisor, call_id, "complaint", "?", why, "name the complaint"),
            (desk.supervisor, call_id, "draw", "ab" * 16, "", "not drawn"),
            (desk.supervisor, call_id, "request", "ab" * 16, "", "no request"),
        ):
            answer = await opens(desk, call, token, kind, ref, reason)
            assert answer.status != "done"
            assert sentence in answer.detail
        assert (await say(desk, desk.agent, "GET", "/me/opened"))[1] == {"openings": []}
        assert (await opens(desk, call_id, desk.supervisor, reason=why)).status == "done"
        told = await agent.until("recording.opened")
        assert (told["why"], told["ref"], told["reason"]) == ("complaint", "C-1", why)
        _, seen = await say(desk, desk.agent, "GET", "/me/opened")
        assert seen["openings"][0]["reason"] == why
        # Neither a colleague nor a supervisor's screen is told whose recording it was.
        assert (await say(desk, desk.supervisor, "GET", "/me/opened"))[0] == 403
        bridge.start_call("1002")
        await supervisor.until("call.started", agent_id="1002")
        assert "recording.opened" not in {e["type"] for e in supervisor.seen}
        # Auditors and representatives: who and through what, neither call nor agent.
        admin = await asyncio.to_thread(create_token, desk.settings, "admin", "boss")
        code, all_of_them = await say(desk, admin, "GET", "/quality/opened")
        assert code == 200
        assert all_of_them["openings"][0].keys() == {"ts", "by_role", "by", "why", "ref"}
        assert (await say(desk, desk.supervisor, "GET", "/quality/opened"))[0] == 403
        assert (await say(desk, desk.agent, "GET", "/quality/opened"))[0] == 403


async def test_the_agents_own_request_opens_that_call_alone_once_approved(tmp_path: Path) -> None:
    settings = load_settings(write_config(tmp_path, 1))
    migrate(settings.database_path)
    asked, other = (past_call(settings, "1001", time.time() - 999) for _ in range(2))
    async with desk_in_process(tmp_path) as desk:
        path = f"/calls/{asked}/after"
        code, said = await say(desk, desk.agent, "POST", path, {"action": "evidence"})
        assert code == 200
        ref = said["request_id"]
        refused = await opens(desk, asked, desk.supervisor, "request", ref)
        assert refused.status != "done"
        assert "not approved" in refused.detail
        assert (await say(desk, desk.supervisor, "POST", f"/requests/{ref}/approve"))[0] == 200
        assert (await opens(desk, asked, desk.supervisor, "request", ref)).status == "done"
        assert (await opens(desk, other, desk.supervisor, "request", ref)).status != "done"
        assert (await opens(desk, asked, desk.supervisor, "request", "r" * 32)).status != "done"


# -------------------------------------------------------------------------------------- ringback

RINGBACK = "[ringback]\nenabled = true\n"
MARK = "ab" * 32


async def ended_by_agent(bridge: Bridge, console: Any, mark: str = MARK) -> str:
    call_id = bridge.start_call()
    bridge.words(call_id, 2, "…")
    bridge.ending(call_id)
    bridge.send(CallerEnded(ts=time.time(), call_id=call_id, mark=mark, key_id="cafe0001"))
    bridge.end_call(call_id)
    await console.until("call.ended", call_id=call_id)
    return call_id


async def test_a_mark_is_kept_told_to_every_bridge_and_taken_away_on_review(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "callshield.toml"
    async with (
        desk_in_process(tmp_path, RINGBACK) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as supervisor,
    ):
        await ended_by_agent(bridge, supervisor)
        await until(lambda: _is(len(bridge.recent_ends) == 1))
        (mark,) = bridge.recent_ends
        assert (mark.mark, mark.key_id, mark.category) == (MARK, "cafe0001", "profanity")
        assert mark.until_ts - mark.ended_ts == 14 * 86_400
    async with (
        desk_in_process(tmp_path, RINGBACK) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
        desk.console(desk.other) as other,
        desk.console(desk.supervisor) as supervisor,
    ):
        await until(lambda: _is(bridge.recent_ends == [mark]))
        call_id = bridge.start_call(answer=False)
        seen = RingbackSeen(
            ts=time.time(),
            call_id=call_id,
            agent_id="1001",
            category="profanity",
            ended_days_ago=2,
            mark_id=mark.mark_id,
        )
        bridge.send(seen)
        told = await agent.until("ringback.seen")
        assert (told["category"], told["ended_days_ago"]) == ("profanity", 2)
        assert "call.answered" not in {e["type"] for e in agent.seen}, "before answering"
        bridge.end_call(call_id)
        for console in (supervisor, agent):
            await console.until("call.ended")
        assert not {"ringback.seen", "ringback.marked"} & {e["type"] for e in supervisor.seen}
        assert not other.seen
        await asyncio.to_thread(ringback_list, config, True)
        (shown,) = json.loads(capsys.readouterr().out.splitlines()[-1])["marks"]
        assert shown["mark_id"] == mark.mark_id
        assert "mark" not in shown
        nothing = RemoveMark(request_id=request_id(), mark_id="0" * 12)
        assert (await _ask(desk.settings.bus_path, nothing)).status == "already"
        removal = RemoveMark(request_id=request_id(), marks=["cd" * 32, MARK])
        assert (await _ask(desk.settings.bus_path, removal)).status == "done"
        await until(lambda: _is(bridge.recent_ends == []))
        assert rows(desk.settings, "SELECT * FROM ringback_marks") == []
    logged = rows(desk.settings, "SELECT body FROM events WHERE type LIKE 'ringback.%' ORDER BY id")
    kinds = [json.loads(body)["type"] for (body,) in logged]
    assert kinds == ["ringback.marked", "ringback.seen", "ringback.removed"], "every use"
    everything = rows(desk.settings, "SELECT group_concat(body) FROM events")[0][0]
    assert MARK not in everything, "a log that nobody can delete from holds no hash"


async def _is(value: bool) -> bool:
    return value


async def test_nobody_is_marked_without_an_end_in_danger_or_where_it_is_off(
    tmp_path: Path,
) -> None:
    async with (
        desk_in_process(tmp_path, RINGBACK) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as console,
    ):
        scored = bridge.start_call()
        bridge.risk(scored, 3)
        bridge.send(CallerEnded(ts=time.time(), call_id=scored, mark="aa" * 32, key_id="k"))
        danger = bridge.start_call("1002")
        bridge.send(CrisisHint(ts=time.time(), call_id=danger))
        bridge.ending(danger)
        bridge.send(CallerEnded(ts=time.time(), call_id=danger, mark="bb" * 32, key_id="k"))
        unknown = CallerEnded(ts=time.time(), call_id=new_call_id(), mark="cc" * 32, key_id="k")
        bridge.send(unknown)
        await ended_by_agent(bridge, console)
        await until(lambda: _is(bool(bridge.recent_ends)))
        assert [mark.mark for mark in bridge.recent_ends] == [MARK]
    (tmp_path / "off").mkdir()
    async with (
        desk_in_process(tmp_path / "off") as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as console,
    ):
        await ended_by_agent(bridge, console)
        assert rows(desk.settings, "SELECT * FROM ringback_marks") == []


async def test_a_mark_whose_time_is_over_is_deleted(tmp_path: Path) -> None:
    settings = load_settings(write_config(tmp_path, 1, RINGBACK))
    migrate(settings.database_path)
    old = {"key_id": "k", "category": "threat", "ended_ts": 1.0}
    now = time.time()
    put(settings, "ringback_marks", mark="aa" * 32, mark_id="a" * 12, until_ts=now - 1, **old)
    put(settings, "ringback_marks", mark="bb" * 32, mark_id="b" * 12, until_ts=now + 999, **old)
    async with desk_in_process(tmp_path, RINGBACK) as desk, desk.bridge() as bridge:
        await until(lambda: _is([m.mark_id for m in bridge.recent_ends] == ["b" * 12]))

        async def one_row() -> bool:
            return len(rows(desk.settings, "SELECT * FROM ringback_marks")) == 1

        await until(one_row)


# ---------------------------------------------------------------------------------- shadow mode


SHADOW = """
[agents.2001]
uri = "sip:2001@192.0.2.30:5060"
group = "trial"
[shadow]
groups = ["trial"]
"""


def risk(call_id: str, level: int) -> RiskChanged:
    reason = Reason(kind="words", score=0.9, rule="confirmed_words", words=["…"])
    return RiskChanged(
        ts=time.time(),
        call_id=call_id,
        level=level,
        previous=0,
        categories=["threat"],
        score=0.2,
        reasons=[reason],
        words_confirmed=True,
        may_trigger=True,
    )


async def test_shadow_mode_tells_the_agent_and_nobody_else_until_help_is_asked(
    tmp_path: Path,
) -> None:
    async with desk_in_process(tmp_path, SHADOW) as desk:
        own = await asyncio.to_thread(create_token, desk.settings, "agent", "trial", "2001")
        async with (
            desk.bridge() as bridge,
            desk.bridge("detector") as detector,
            desk.console(own) as agent,
            desk.console(desk.supervisor) as supervisor,
        ):
            tried, normal = bridge.start_call("2001"), bridge.start_call("1001")
            await supervisor.until("call.started", call_id=normal)
            for call_id in (tried, normal):
                detector.send(risk(call_id, 3))
            changed = await agent.until("risk.changed")
            assert (changed["level"], changed["may_trigger"]) == (3, True)
            detector.send(CrisisHint(ts=time.time(), call_id=tried, detail="…"))
            await agent.until("crisis.hint")
            alert = await supervisor.until("alert.raised")
            assert alert["call_id"] == normal, "negative control: another group is alerted"
            heard = [e for e in supervisor.seen if e.get("call_id") == tried]
            # Not that it may not be scored either: that comes at the moment of level 3.
            assert {e["type"] for e in heard} <= {"call.started", "call.answered"}
            assert "alert.raised" not in {e["type"] for e in agent.seen}
            # Nothing automatic: the bridge is told the level, for the agent's ear, and no more.
            await until(lambda: _is(len(bridge.levels) == 2))
            assert {m.call_id: m.may_trigger for m in bridge.levels} == {
                tried: False,
                normal: True,
            }
            _, live = await say(desk, desk.supervisor, "GET", "/calls")
            levels = {c["call_id"]: (c["level"], c["crisis"]) for c in live["calls"]}
            assert levels == {tried: (0, False), normal: (3, False)}
            _, mine = await say(desk, own, "GET", "/calls")
            assert (mine["calls"][0]["level"], mine["calls"][0]["crisis"]) == (3, True)
            # Also who connects later, and a level that flickers counts once.
            for level in (1, 3, 1, 3):
                detector.send(risk(tried, level))
            async with desk.console(desk.supervisor, 0) as late:
                await late.until("alert.raised", call_id=normal)
            # Help is a person's word.
            await say(desk, own, "POST", f"/calls/{tried}/actions", {"action": "help"})
            asked = await supervisor.until("alert.raised", call_id=tried)
            assert asked["kind"] == "help"
            detector.send(risk(tried, 2))
            seen = await supervisor.until("risk.changed", call_id=tried)
            assert seen["level"] == 2
            assert seen["reasons"]
        kept = rows(desk.settings, "SELECT kind, level, categories, rules FROM withheld_alerts")
        assert kept == [
            ("risk", 3, '["threat"]', '["confirmed_words"]'),
            ("crisis", 3, '["threat"]', "[]"),
        ]


async def test_in_shadow_mode_no_other_alert_tells_the_level_and_the_agents_word_triggers_nothing(
    tmp_path: Path,
) -> None:
    async with desk_in_process(tmp_path, SHADOW) as desk:
        own = create_token(desk.settings, "agent", "trial", "2001")
        async with desk.bridge() as bridge, desk.console(desk.supervisor) as supervisor:
            alerts = {}
            for agent_id in ("2001", "1001"):
                call_id = bridge.start_call(agent_id)
                bridge.send(risk(call_id, 3))
                bridge.send(
                    AlertRaised(
                        ts=time.time(),
                        alert_id="",
                        call_id=call_id,
                        agent_id=agent_id,
                        kind="node",
                        level=3,
                        reason="recorder",
                    )
                )
                raised = await supervisor.until("alert.raised", call_id=call_id, reason="recorder")
                alerts[agent_id] = (raised["level"], raised["categories"])
            assert alerts == {"2001": (0, []), "1001": (3, ["threat"])}
            tried = bridge.start_call("2001")
            bridge.levels.clear()
            await say(desk, own, "POST", f"/calls/{tried}/after", {"action": "abusive"})
            await until(lambda: _is(len(bridge.levels) > 0))
            assert {(one.level, one.may_trigger) for one in bridge.levels} == {(3, False)}


async def test_alerts_about_callers_in_danger_may_be_let_through(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path, f"{SHADOW}crisis_alerts = true\n") as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as supervisor,
    ):
        call_id = bridge.start_call("2001")
        bridge.send(CrisisHint(ts=time.time(), call_id=call_id))
        assert (await supervisor.until("alert.raised"))["kind"] == "crisis"


# -------------------------------------------------------------------------------------- verdicts


async def test_one_tap_on_any_call_says_what_was_missed(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.bridge("detector") as detector,
        desk.console(desk.agent) as agent,
    ):
        call_id = bridge.start_call()
        await agent.until("call.started")
        bridge.notice(call_id, purposes=["calibration"])
        path = f"/calls/{call_id}/verdict"
        missed = {"verdict": "missed"}
        assert (await say(desk, desk.other, "POST", path, missed))[0] == 404
        assert (await say(desk, desk.agent, "POST", path, {"verdict": "guilty"}))[0] == 422
        assert (await say(desk, desk.supervisor, "POST", path, {"verdict": "refuted"}))[0] == 200
        code, answer = await say(desk, desk.agent, "POST", path, missed)
        assert (code, answer) == (200, {"call_id": call_id, "verdict": "missed"})
        await say(desk, desk.agent, "POST", path, missed)
        detector.send(analysed(call_id, 0.5))
        bridge.end_call(call_id)
        await agent.until("call.ended")
        assert (await say(desk, desk.agent, "POST", path, missed))[0] == 200, "also later"
        assert not {"call.judged"} & {e["type"] for e in agent.seen}
        stored = rows(desk.settings, "SELECT body FROM events WHERE type = 'call.judged'")
        bodies = [json.loads(body) for (body,) in stored]
        assert len(bodies) == 2, "the same word a second time is no event"
        assert all(b.keys() == {"type", "ts", "call_id", "verdict", "by"} for b in bodies)
        await asyncio.sleep(0.2)
    (call,) = read_judged(desk.settings.database_path, 2, {}).calls
    assert isinstance(call, JudgedCall)
    assert (call.missed, call.alerted, call.reached) == (True, False, 0.5)


# --------------------------------------------------------------------------------------- reports


def groups(names: Sequence[str]) -> str:
    return "".join(
        f'[agents.{3000 + n}]\nuri = "sip:{3000 + n}@192.0.2.40:5060"\ngroup = "{name}"\n'
        for n, name in enumerate(names)
    )


async def test_a_week_is_reported_once_by_group(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    week = weekly.week_of(time.time() - 15 * 86_400, ZONE)
    begin, _ = weekly.bounds(week, ZONE)
    before = groups(["desk"] * 5 + ["trial"] * 6) + '[shadow]\ngroups = ["trial"]\n'
    settings = load_settings(write_config(tmp_path, 1, before))
    migrate(settings.database_path)
    calls = [past_call(settings, str(3000 + n), begin + 100 * n) for n in range(11)]
    bad = calls[0]
    manager = {"type": "helper.changed", "call_id": bad, "state": "unreachable", "role": "manager"}
    event(settings, 1, begin + 50, manager)
    rose = {"type": "risk.changed", "call_id": bad, "level": 2, "previous": 0}
    event(settings, 2, begin + 60, rose)
    for number, (ts, state) in enumerate(((begin + 70, "resting"), (begin + 970, "over")), 3):
        rest = {"type": "rest.changed", "agent_id": "3000", "call_id": bad, "state": state}
        event(settings, number, ts, rest, "3000")
    put(
        settings,
        "withheld_alerts",
        alert_id="a" * 32,
        ts=begin + 650,
        call_id=calls[6],
        kind="risk",
        level=2,
        categories='["insult"]',
        rules='["abusive_words"]',
    )
    async with desk_in_process(tmp_path, before) as desk:

        async def there() -> Any:
            code, body = await say(desk, desk.agent, "GET", f"/reports/weekly?week={week}")
            return body if code == 200 else None

        body = await until(there)
        names = [row["group"] for row in body["rows"]]
        assert names == ["desk", "trial"]
        desk_row, trial = body["rows"]
        assert (desk_row["calls"], desk_row["rest_hours"]) == (5, 0.25)
        assert desk_row["bad_after_failed_hand_over"] == 1
        assert trial["shadow"]["by_rule"] == {"abusive_words": 1}
        assert body["total"]["calls"] == 11
        for bad_week in ("2026-W60", "x", "2026-W4"):
            assert (await say(desk, desk.agent, "GET", f"/reports/weekly?week={bad_week}"))[
                0
            ] == 422
        assert (await say(desk, desk.agent, "GET", "/reports/weekly?week=2020-W01"))[0] == 404
    # Somebody moves one agent to another group: the week that is told stays as it is.
    after = groups(["trial"] + ["desk"] * 4 + ["trial"] * 6)
    async with desk_in_process(tmp_path, after) as desk:
        await asyncio.sleep(0.5)
        assert (await say(desk, desk.agent, "GET", f"/reports/weekly?week={week}"))[1] == body
    write_config(tmp_path, 1, before)
    config = tmp_path / "callshield.toml"
    await asyncio.to_thread(report_weekly, week, config, as_json=True)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == body
    await asyncio.to_thread(report_weekly, week, config, html=tmp_path / "week.html")
    assert "<svg" in (tmp_path / "week.html").read_text()
    capsys.readouterr()
    await asyncio.to_thread(report_shadow, week, config)
    assert "trial: 0.14 alerts a day in a week of 6 calls" in capsys.readouterr().out
    with pytest.raises(CallshieldError, match="no report of such a week"):
        await asyncio.to_thread(report_weekly, "2020-W01", config)


async def test_marks_and_commands_are_no_business_of_a_stranger_on_the_bus(tmp_path: Path) -> None:
    """What only we say is not taken from others: no forged draw, opening or verdict."""
    from callshield.messages_fairness import QualityClosed, RecordingOpened

    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
    ):
        call_id = bridge.start_call()
        bridge.send(
            RecordingOpened(
                ts=1.0,
                call_id=call_id,
                agent_id="1001",
                what="audio",
                by_role="admin",
                by="x",
                why="draw",
                ref="x",
            )
        )
        bridge.send(
            QualityClosed(ts=1.0, month="2026-01", secret="", pool_sha256="", calls=0, drawn=0)
        )
        bridge.end_call(call_id)
        await agent.until("call.ended")
        kinds = {kind for (kind,) in rows(desk.settings, "SELECT type FROM events")}
        assert not {"recording.opened", "quality.closed"} & kinds
