"""A key on the desk phone ends the agent's own call or calls for help, through a real node."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from callshield.messages import Action, HelperChanged, HoldChanged
from callshield.messages_phones import PhoneKey
from firmware_profiles.phone_tokens import load_tokens
from firmware_profiles.presses import SAME_S
from notifier.board import Board
from notifier.live import Call
from notifier.phone_keys import LATE_S, call_of
from tests.mentions import labelled
from tests.notifier_kit import Bridge, Desk, Process, desk_in_process, free_port
from tests.phone_keys_kit import WITHIN_S, PhonesSide, get, phones_table, until


def table() -> str:
    return phones_table(free_port())


async def answered(desk: Desk, bridge: Bridge, agent_id: str = "1001") -> str:
    """A call that its agent is talking on, as the notifier knows it."""
    call_id = bridge.start_call(agent_id)
    async with desk.http(desk.supervisor) as http, asyncio.timeout(WITHIN_S):
        while True:
            calls = (await http.get("/api/v1/calls")).json()["calls"]
            if any(c["call_id"] == call_id and c["answered_ts"] for c in calls):
                return call_id
            await asyncio.sleep(0.01)


async def test_the_end_key_ends_the_call_as_the_consoles_button_does(tmp_path: Path) -> None:
    """In a real notifier process, with the record of it on its disk."""
    process = Process(tmp_path, table())
    await process.start()
    try:
        desk = process.desk
        async with desk.bridge() as bridge, PhonesSide(desk.settings) as phones:
            call_id = await answered(desk, bridge)
            answer = await phones.press("1001", "end")
            assert (answer.status, answer.text) == (200, "안내 후 종료합니다.")
            (command,) = bridge.commands
            assert (command.call_id, command.action, command.by) == (
                call_id,
                Action.END,
                "agent:phone",
            )
            async with desk.console(desk.agent) as console:
                bridge.ending(call_id)
                assert (await console.until("call.ending"))["call_id"] == call_id
                bridge.end_call(call_id, "agent_ended")
                await console.until("call.ended")
                # Aftercare follows as after the button.
                assert (await phones.press("1001", "help")).text == "통화가 없습니다."
    finally:
        assert await process.end(signal.SIGTERM) == 0


async def test_a_press_goes_through_all_the_processes_of_a_node(tmp_path: Path) -> None:
    """Notifier and phones as `callshield serve` runs them, a phone's request at the port."""
    process = Process(tmp_path, table())
    await process.start()
    settings = process.desk.settings
    phones = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "firmware_profiles.process", "--config", str(process.config)),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert phones.stderr is not None
        async with process.desk.bridge() as bridge:
            async with asyncio.timeout(WITHIN_S):
                while b'"ready"' not in await phones.stderr.readline():
                    pass
            call_id = await answered(process.desk, bridge)
            tokens = load_tokens(settings)
            event, end = tokens.path("1001", "event"), tokens.path("1001", "end")
            assert (await get(settings.phones.port, f"{event}?event=established")).status == 200
            async with asyncio.timeout(WITHIN_S):
                # The bus may not have said hello yet: the phone is told so, and pressed again.
                while (answer := await get(settings.phones.port, end)).status == 503:  # noqa: ASYNC110
                    await asyncio.sleep(1.0)
            assert (answer.status, answer.text) == (200, "안내 후 종료합니다.")
            assert [(c.call_id, c.by) for c in bridge.commands] == [(call_id, "agent:phone")]
        phones.terminate()
        logged = await phones.stderr.read()
        assert await phones.wait() == 0
        assert end.encode() not in logged
        assert tokens.token("1001", "event").encode() not in logged
    finally:
        if phones.returncode is None:
            phones.kill()
        await process.end(signal.SIGTERM)


async def test_the_help_key_raises_the_alert_and_the_bridge_knows(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path, table()) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as supervisor,
        PhonesSide(desk.settings) as phones,
    ):
        call_id = await answered(desk, bridge)
        answer = await phones.press("1001", "help")
        assert (answer.status, answer.text) == (200, "관리자 호출 완료")
        raised = await supervisor.until("alert.raised")
        assert (raised["kind"], raised["call_id"], raised["agent_id"]) == ("help", call_id, "1001")
        assert [c.action for c in bridge.commands] == [Action.HELP]
        # Stored before the phone was told.
        with closing(sqlite3.connect(desk.settings.database_path)) as stored:
            kinds = stored.execute("SELECT kind FROM alerts").fetchall()
        assert kinds == [("help",)]


async def test_two_presses_within_a_second_are_one(tmp_path: Path) -> None:
    """By a clock of our own: the second must not be over before the next call is there."""
    now = [1000.0]
    async with (
        desk_in_process(tmp_path, table()) as desk,
        desk.bridge() as bridge,
        PhonesSide(desk.settings, clock=lambda: now[0]) as phones,
    ):
        first = await answered(desk, bridge)
        one, two = await asyncio.gather(*(phones.press("1001", "end") for _ in range(2)))
        bridge.ending(first)
        bridge.end_call(first)
        # The queue gives the next call at once, while the finger still shakes.
        now[0] += SAME_S - 0.01
        second = await answered(desk, bridge)
        three = await phones.press("1001", "end")
        assert one.text == two.text == three.text == "안내 후 종료합니다."
        assert [c.call_id for c in bridge.commands] == [first]
        # The control: a press of its own ends the new call.
        now[0] += 0.01
        assert (await phones.press("1001", "end")).status == 200
        assert [c.call_id for c in bridge.commands] == [first, second]


async def test_a_key_reaches_nobody_elses_call(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path, table()) as desk,
        desk.bridge() as bridge,
        PhonesSide(desk.settings) as phones,
    ):
        other = await answered(desk, bridge, "1002")
        for action in ("end", "help"):
            answer = await phones.press("1001", action)
            assert (answer.status, answer.text) == (200, "통화가 없습니다.")
        assert bridge.commands == []
        # The control: its own agent's key does.
        await phones.press("1002", "end")
        assert [c.call_id for c in bridge.commands] == [other]


async def test_no_token_but_the_right_one_presses(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path, table()) as desk,
        desk.bridge() as bridge,
        PhonesSide(desk.settings) as phones,
    ):
        call_id = await answered(desk, bridge)
        good, port = phones.tokens.token("1001", "end"), phones.listener.port
        forged = [
            "a" * 32,
            good[:-1] + ("a" if good[-1] != "a" else "b"),
            good.upper(),
            good + "=",
            good[:-1],
            "",
            "%00",
            phones.tokens.token("1001", "help"),
            phones.tokens.token("1001", "event"),
            phones.tokens.token("9999", "end"),
        ]
        for token in forged:
            answer = await get(port, f"/p/{token}/end")
            assert answer.status == 404, token
            assert answer.body == b""
        assert (await get(port, f"/p/{good}/event")).status == 404
        assert (await get(port, f"/p/{good}/warn")).status == 404
        assert (await get(port, f"/x/../p/{good}/end")).status == 404
        assert bridge.commands == []
        # The control.
        assert (await get(port, f"/p/{good}/end?ignored=1")).status == 200
        assert [c.call_id for c in bridge.commands] == [call_id]


async def test_a_call_that_rings_is_not_ended_and_one_being_ended_is_said_so(
    tmp_path: Path,
) -> None:
    async with (
        desk_in_process(tmp_path, table()) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as console,
        PhonesSide(desk.settings) as phones,
    ):
        ringing = bridge.start_call(answer=False)
        await console.until("call.started")
        assert (await phones.press("1001", "end")).text == "통화가 없습니다."
        assert bridge.commands == []
        bridge.answer_call(ringing)
        await console.until("call.answered")
        bridge.ending(ringing)
        await console.until("call.ending")
        await asyncio.sleep(1.0)
        assert (await phones.press("1001", "end")).text == "이미 종료 중입니다."
        assert (await phones.press("1001", "help")).text == "통화가 없습니다."
        assert bridge.commands == []


async def test_of_two_calls_the_one_off_hold_is_meant(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path, table()) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as console,
        PhonesSide(desk.settings) as phones,
    ):
        first, second = await answered(desk, bridge), await answered(desk, bridge)
        bridge.send(HoldChanged(ts=time.time(), call_id=second, agent_id="1001", held=True))
        await console.until("hold.changed")
        await phones.press("1001", "end")
        assert [c.call_id for c in bridge.commands] == [first]


async def test_a_call_that_a_manager_took_over_is_not_the_agents_to_end(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path, table()) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as console,
        PhonesSide(desk.settings) as phones,
    ):
        call_id = await answered(desk, bridge)
        bridge.send(
            HelperChanged(
                ts=time.time(), call_id=call_id, agent_id="1001", state="took_over", role="manager"
            )
        )
        await console.until("helper.changed")
        assert (await phones.press("1001", "end")).text == "통화가 없습니다."
        assert bridge.commands == []


async def test_a_bridge_that_is_away_is_said_on_the_phone_with_the_code(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path, table()) as desk,
        PhonesSide(desk.settings) as phones,
    ):
        async with desk.bridge() as bridge:
            await answered(desk, bridge)
        async with desk.http(desk.supervisor) as http, asyncio.timeout(WITHIN_S):
            while True:
                if not (await http.get("/api/v1/node")).json()["connected"]["bridge"]:
                    break
                await asyncio.sleep(0.01)
        answer = await phones.press("1001", "end")
        assert answer.status == 503
        assert answer.text == "전달 실패: 다시 누름 또는 *9#"


async def test_a_press_that_comes_late_or_twice_or_from_another_peer_does_nothing(
    tmp_path: Path,
) -> None:
    async with (
        desk_in_process(tmp_path, table()) as desk,
        desk.bridge() as bridge,
        PhonesSide(desk.settings) as phones,
    ):
        call_id = await answered(desk, bridge)

        async def outcome(key: PhoneKey, count: int) -> str:
            phones.client.send(key)
            await until(lambda: len(phones.done) >= count)
            return phones.done[-1].outcome

        late = PhoneKey(ts=time.time() - LATE_S - 1, agent_id="1001", action="end", key_id="k1")
        assert await outcome(late, 1) == "unreached"
        unknown = PhoneKey(ts=time.time(), agent_id="nobody", action="end", key_id="k2")
        assert await outcome(unknown, 2) == "no_call"
        # The bridge speaks for no phone.
        bridge.send(PhoneKey(ts=time.time(), agent_id="1001", action="end", key_id="k0"))
        help_first = PhoneKey(ts=time.time(), agent_id="1001", action="help", key_id="k3")
        assert await outcome(help_first, 3) == "done"
        assert [c.action for c in bridge.commands] == [Action.HELP]
        # The control: in time, once.
        good = PhoneKey(ts=time.time(), agent_id="1001", action="end", key_id="k4")
        phones.client.send(good)
        assert await outcome(good, 4) == "done"
        assert await outcome(
            PhoneKey(ts=time.time(), agent_id="1001", action="help", key_id="k5"), 5
        )
        ends = [c.call_id for c in bridge.commands if c.action is Action.END]
        assert ends == [call_id]


async def test_a_press_while_the_notifier_is_away_is_not_kept_for_another_call(
    tmp_path: Path,
) -> None:
    process = Process(tmp_path, table())
    await process.start()
    desk = process.desk
    async with desk.bridge() as bridge, PhonesSide(desk.settings) as phones:
        await answered(desk, bridge)
        await process.end(signal.SIGKILL)
        await until(lambda: not phones.client.connected.is_set())
        answer = await phones.press("1001", "end")
        assert answer.status == 503
        assert phones.sent == []
        await process.start()
        async with asyncio.timeout(WITHIN_S):
            await phones.client.connected.wait()
        await answered(desk, bridge)
        assert bridge.commands == []
    await process.end(signal.SIGTERM)


async def test_presses_and_what_came_of_them_are_counted_without_an_agent(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path, table()) as desk,
        desk.bridge() as bridge,
        PhonesSide(desk.settings) as phones,
    ):
        await answered(desk, bridge)
        await phones.press("1001", "end")
        async with desk.http() as http:
            page = (await http.get("/metrics")).text
        assert 'callshield_actions_total{action="end",status="done"} 1.0' in page
        assert not [value for value in labelled(page) if "1001" in value]


def board_with(*calls: Call) -> Board:
    board = Board(2)
    board.calls = {call.call_id: call for call in calls}
    return board


def call(
    id_: str,
    answered_ts: float | None,
    *,
    held: bool = False,
    ending: bool = False,
    left: bool = False,
) -> Call:
    ending_ts = 1.0 if ending else None
    return Call(id_, "1001", "", "pbx", 0.0, answered_ts, held=held, ending_ts=ending_ts, left=left)


@pytest.mark.parametrize(
    ("calls", "meant"),
    [
        ([], None),
        ([call("a", None)], None),
        ([call("a", 1.0)], "a"),
        ([call("a", 1.0), call("b", 2.0)], "b"),
        ([call("a", 1.0), call("b", 2.0, held=True)], "a"),
        ([call("a", 1.0, held=True)], "a"),
        ([call("a", 1.0, ending=True)], "a"),
        ([call("a", 1.0, ending=True), call("b", 2.0, held=True)], "b"),
        # Answered after the press.
        ([call("a", 1.0), call("b", 11.0)], "a"),
        ([call("a", 11.0)], None),
        # A manager took it over.
        ([call("a", 1.0, left=True)], None),
        ([call("a", 1.0, held=True), call("b", 2.0, left=True)], "a"),
    ],
)
def test_which_call_a_press_means(calls: list[Call], meant: str | None) -> None:
    found = call_of(board_with(*calls), "1001", 10.0)
    assert (found.call_id if found else None) == meant
    assert call_of(board_with(*calls), "1002", 10.0) is None
