"""The notifier as a process: start, refusals, clean stop, sudden death."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import textwrap
from pathlib import Path

import pytest
import websockets

from callshield.messages import Action
from tests.notifier_kit import WITHIN_S, Desk, Process, free_port, write_config


async def _fails(config: Path) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "notifier.process",
        "--config",
        str(config),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_sigterm_stops_it_cleanly_with_consoles_open(tmp_path: Path) -> None:
    notifier = Process(tmp_path)
    await notifier.start()
    async with notifier.desk.console(notifier.desk.agent) as console:
        assert await notifier.end(signal.SIGTERM) == 0
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await console.next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012


async def test_a_taken_port_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        status, said = await _fails(write_config(tmp_path, other.getsockname()[1]))
    assert status == 2
    assert "web.bind" in said
    assert "web.port" in said
    assert len(said.strip().splitlines()) == 1


async def test_a_second_notifier_on_the_same_database_is_refused(tmp_path: Path) -> None:
    notifier = Process(tmp_path)
    await notifier.start()
    try:
        status, said = await _fails(write_config(tmp_path, free_port()))
        assert status == 2
        assert "node.state_dir" in said
        assert len(said.strip().splitlines()) == 1
    finally:
        await notifier.end(signal.SIGTERM)


async def test_a_file_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    config = write_config(tmp_path, free_port())
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "callshield.sqlite3").write_text("not a database" * 100)
    status, said = await _fails(config)
    assert status == 2
    assert "callshield.sqlite3" in said
    assert len(said.strip().splitlines()) == 1


DIES_BETWEEN_STORE_AND_SEND = """
    import os, signal, sys
    from callshield.messages import AlertRaised
    from notifier.hub import Hub
    from notifier.process import main

    published = Hub.publish

    def die(self, entries):
        if any(isinstance(entry.event, AlertRaised) for entry in entries):
            os.kill(os.getpid(), signal.SIGKILL)
        published(self, entries)

    Hub.publish = die
    main()
"""


async def test_an_alert_survives_kill_9_between_store_and_send(tmp_path: Path) -> None:
    notifier = Process(tmp_path)
    desk = notifier.desk
    await notifier.start(sys.executable, "-c", textwrap.dedent(DIES_BETWEEN_STORE_AND_SEND))
    async with desk.bridge() as bridge:
        async with desk.console(desk.supervisor) as console:
            call_id = bridge.start_call()
            await console.until("call.started")
            bridge.risk(call_id, 3)
            with contextlib.suppress(websockets.ConnectionClosed):
                while True:
                    await console.next()
        assert await notifier.end(signal.SIGKILL) == -signal.SIGKILL
        assert "alert.raised" not in [m["type"] for m in console.seen]
        await notifier.start()
        try:
            async with desk.console(desk.supervisor, console.last_id) as again:
                raised = await again.until("alert.raised")
                assert raised["call_id"] == call_id
                assert raised["level"] == 3
            async with desk.http(desk.supervisor) as http:
                alerts = (await http.get("/api/v1/alerts")).json()["alerts"]
                assert [a["alert_id"] for a in alerts] == [raised["alert_id"]]
                calls = (await http.get("/api/v1/calls")).json()["calls"]
                assert [(c["call_id"], c["level"]) for c in calls] == [(call_id, 3)]
        finally:
            await notifier.end(signal.SIGTERM)


async def test_calls_that_ended_while_it_was_away_are_ended_as_lost(tmp_path: Path) -> None:
    notifier = Process(tmp_path)
    desk = notifier.desk
    await notifier.start()
    async with desk.bridge() as bridge, desk.console(desk.supervisor) as console:
        gone, kept = bridge.start_call(), bridge.start_call("1002")
        await console.until("call.answered", call_id=kept)
    await notifier.end(signal.SIGKILL)
    await notifier.start()
    try:
        restarted = desk.bridge()
        restarted.calls, restarted.answered = {kept: bridge.calls[kept]}, {kept}
        async with restarted:
            async with desk.console(desk.supervisor, console.last_id) as again:
                ended = await again.until("call.ended")
                assert (ended["call_id"], ended["reason"]) == (gone, "lost")
            async with desk.http(desk.supervisor) as http:
                calls = (await http.get("/api/v1/calls")).json()["calls"]
                assert [c["call_id"] for c in calls] == [kept]
    finally:
        await notifier.end(signal.SIGTERM)


async def _do(desk: Desk, token: str, path: str, body: dict[str, str] | None = None) -> int:
    async with desk.http(token) as http:
        return (await http.post(f"/api/v1{path}", json=body)).status_code


@pytest.mark.parametrize("taken", [False, True])
async def test_a_request_for_help_survives_kill_9_taken_or_not(tmp_path: Path, taken: bool) -> None:
    notifier = Process(tmp_path)
    desk = notifier.desk
    await notifier.start()
    async with desk.bridge() as bridge:
        async with desk.console(desk.supervisor) as console:
            call_id, other = bridge.start_call(), bridge.start_call()
            await console.until("call.answered", call_id=other)
            actions = f"/calls/{call_id}/actions"
            assert await _do(desk, desk.agent, actions, {"action": "help"}) == 200
            alert_id = (await console.until("alert.raised"))["alert_id"]
            if taken:
                accept = f"/alerts/{alert_id}/acknowledge"
                assert await _do(desk, desk.supervisor, accept) == 200
        await notifier.end(signal.SIGKILL)
        before = list(bridge.commands)
        await notifier.start()
        try:
            async with asyncio.timeout(WITHIN_S), desk.http() as http:
                while not (await http.get("/readyz")).json()["bridge"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)  # nothing outside tells us: ask again
            assert await _do(desk, desk.supervisor, actions, {"action": "join"}) == 200
            # Negative control: the other call's agent never asked.
            elsewhere = f"/calls/{other}/actions"
            assert await _do(desk, desk.supervisor, elsewhere, {"action": "join"}) == 409
            after = bridge.commands[len(before) :]
            assert after[-1].action is Action.JOIN
            # Said again under the id that the bridge knows: no second request.
            repeated = [c.command_id for c in after if c.action is Action.HELP]
            assert repeated == ([] if taken else [alert_id])
        finally:
            await notifier.end(signal.SIGTERM)


BREAKS_AT_ONE_EVENT = """
    import sys
    from notifier.hub import Hub
    from notifier.process import main

    def break_it(self, entries):
        raise ValueError("broken on purpose")

    Hub.publish = break_it
    sys.exit(main())
"""


async def test_a_notifier_whose_writer_died_ends_with_status_1_to_be_restarted(
    tmp_path: Path,
) -> None:
    notifier = Process(tmp_path)
    await notifier.start(sys.executable, "-c", textwrap.dedent(BREAKS_AT_ONE_EVENT))
    async with notifier.desk.bridge() as bridge:
        bridge.start_call()
        assert notifier.process is not None
        async with asyncio.timeout(WITHIN_S):
            assert await notifier.process.wait() == 1
