"""What the PBX is told of calls, rests and pauses: a whole notifier, a bridge, and a PBX double."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from callshield.messages import HelperChanged, HoldChanged, PauseChanged
from notifier import ami_client, pbx, settling
from notifier.queue_pause import REASONS
from notifier.tokens import create_token
from tests.ami_double import WITHIN_S, AmiDouble, Member
from tests.notifier_kit import Bridge, Console, Desk, Process, desk_in_process

ONE, TWO = "Local/1001@callshield-agents/n", "Local/1002@callshield-agents/n"
DEVICE = "DEVICE_STATE(Custom:agent1001)"
#: A rest that ends by itself. One that is over before it is known of is none at all: so long may
#: the machine stand still.
SHORT_REST_S = 5.0
REASON = REASONS["ko"]
"""The reason code of our pauses at a Korean node: 보호휴식."""
CHANNEL = "PJSIP/trunk-0000002a"

#: Appended to the agents' tables of the kit's configuration.
AGENTS = f"""
[agents.1003]
uri = "sip:1003@192.0.2.22:5060"
queue_member = "{ONE}"
device_state = "Custom:agent1001"
endpoint = "phone-1003"
"""


def extra(double: AmiDouble, folder: Path, rest_s: float = 600.0, more: str = "") -> str:
    secret = folder / "ami.secret"
    secret.write_text(double.secret)
    secret.chmod(0o600)
    return AGENTS + double.settings(secret) + f"[aftercare]\nrest_s = {rest_s}\n{more}"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ami_client, "FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(ami_client, "LAST_RETRY_S", 0.2)
    monkeypatch.setattr(settling, "RETRY_S", 0.2)


@pytest.fixture
async def double() -> AsyncIterator[AmiDouble]:
    members = [Member("support", ONE), Member("sales", ONE), Member("support", TWO)]
    async with AmiDouble(members=members) as server:
        yield server


class Scene:
    """A notifier beside a PBX, with agent 1003 at the console."""

    def __init__(self, desk: Desk, bridge: Bridge, console: Console, token: str) -> None:
        self.desk = desk
        self.bridge = bridge
        self.console = console
        self.token = token

    def call(self, *, answer: bool = True, channel: str = "") -> str:
        return self.bridge.start_call("1003", answer=answer, pbx_channel=channel)

    def bad_call(self, level: int = 2) -> str:
        call_id = self.call()
        self.bridge.risk(call_id, level)
        return call_id

    async def ready(self) -> dict[str, Any]:
        async with self.desk.http(self.token) as http:
            answer = await http.post("/api/v1/agents/1003/ready")
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            return found

    def pause(self, call_id: str, *, paused: bool) -> None:
        self.bridge.send(
            PauseChanged(ts=time.time(), call_id=call_id, agent_id="1003", paused=paused)
        )


@contextlib.asynccontextmanager
async def scene(folder: Path, configuration: str) -> AsyncIterator[Scene]:
    async with desk_in_process(folder, configuration) as desk:
        token = await asyncio.to_thread(create_token, desk.settings, "agent", "three", "1003")
        async with desk.bridge() as bridge, desk.console(token) as console:
            yield Scene(desk, bridge, console, token)


# --------------------------------------------------------------------------------- device state


async def test_the_device_state_follows_two_calls_at_once(
    tmp_path: Path, double: AmiDouble
) -> None:
    async with scene(tmp_path, extra(double, tmp_path)) as at:
        await double.until(lambda: double.devices.get(DEVICE) == "NOT_INUSE")
        first = at.call(answer=False)
        await double.until(lambda: double.devices[DEVICE] == "RINGING")
        at.bridge.answer_call(first)
        await double.until(lambda: double.devices[DEVICE] == "INUSE")
        second = at.call(answer=False)
        await double.until(lambda: double.devices[DEVICE] == "RINGINUSE")
        at.bridge.answer_call(second)
        await double.until(lambda: double.devices[DEVICE] == "INUSE")
        for call_id in (first, second):
            at.bridge.send(HoldChanged(ts=time.time(), call_id=call_id, agent_id="1003", held=True))
        await double.until(lambda: double.devices[DEVICE] == "ONHOLD")
        at.bridge.end_call(second)
        at.bridge.send(HoldChanged(ts=time.time(), call_id=first, agent_id="1003", held=False))
        await double.until(lambda: double.devices[DEVICE] == "INUSE")
        at.bridge.ending(first)
        await double.until(lambda: double.devices[DEVICE] == "NOT_INUSE")


async def test_a_manager_who_took_over_frees_the_agents_device(
    tmp_path: Path, double: AmiDouble
) -> None:
    async with scene(tmp_path, extra(double, tmp_path)) as at:
        call_id = at.call()
        await double.until(lambda: double.devices.get(DEVICE) == "INUSE")
        at.bridge.send(
            HelperChanged(
                ts=time.time(),
                call_id=call_id,
                agent_id="1003",
                state="took_over",
                role="manager",
            )
        )
        await double.until(lambda: double.devices[DEVICE] == "NOT_INUSE")


async def test_a_restarted_pbx_learns_every_state_anew(tmp_path: Path, double: AmiDouble) -> None:
    async with scene(tmp_path, extra(double, tmp_path)) as at:
        at.call()
        await double.until(lambda: double.devices.get(DEVICE) == "INUSE")
        await double.restart()
        await double.until(lambda: double.devices.get(DEVICE) == "INUSE")


# ----------------------------------------------------------------------------------------- rest


def paused(double: AmiDouble, interface: str = ONE) -> list[tuple[bool, str]]:
    return [(m.paused, m.reason) for m in double.members if m.interface == interface]


RESTING = [(True, REASON)] * 2
FREE = [(False, "")] * 2


async def test_a_bad_call_is_followed_by_rest_that_the_agent_ends(
    tmp_path: Path, double: AmiDouble
) -> None:
    async with scene(tmp_path, extra(double, tmp_path)) as at:
        call_id = at.bad_call()
        at.bridge.end_call(call_id)
        rest = await at.console.until("rest.changed")
        assert (rest["state"], rest["reason"], rest["call_id"]) == ("resting", "level", call_id)
        assert 595 < rest["until_ts"] - time.time() <= 600
        await double.until(lambda: paused(double) == RESTING)
        assert paused(double, TWO) == [(False, "")]
        async with at.desk.http(at.token) as http:
            shown = (await http.get("/api/v1/agents/1003/rest")).json()
            assert (shown["resting"], shown["until_ts"]) == (True, rest["until_ts"])
        assert await at.ready() == {"status": "done"}
        over = await at.console.until("rest.changed", state="over")
        assert over["by"] == "agent"
        await double.until(lambda: paused(double) == FREE)
        assert await at.ready() == {"status": "already"}


async def test_the_pause_comes_before_the_device_is_free(tmp_path: Path, double: AmiDouble) -> None:
    async with scene(tmp_path, extra(double, tmp_path)) as at:
        call_id = at.bad_call()
        await double.until(lambda: double.devices.get(DEVICE) == "INUSE")
        seen: list[list[tuple[bool, str]]] = []
        double.on_action = lambda kind: seen.append(paused(double)) if kind == "Setvar" else None
        at.bridge.ending(call_id)
        await double.until(lambda: double.devices[DEVICE] == "NOT_INUSE")
        assert seen == [RESTING]


async def test_rest_ends_by_itself(tmp_path: Path, double: AmiDouble) -> None:
    async with scene(tmp_path, extra(double, tmp_path, rest_s=SHORT_REST_S)) as at:
        at.bridge.end_call(at.bad_call())
        await double.until(lambda: paused(double) == RESTING)
        over = await at.console.until("rest.changed", state="over")
        assert over["by"] == "timer"
        await double.until(lambda: paused(double) == FREE)


async def test_a_calm_call_a_missed_one_and_a_call_below_the_level_give_no_rest(
    tmp_path: Path, double: AmiDouble
) -> None:
    """And a call ended with announcement does, at whatever level."""
    async with scene(tmp_path, extra(double, tmp_path)) as at:
        at.bridge.end_call(at.call())
        at.bridge.end_call(at.call(answer=False), "no_answer")
        at.bridge.end_call(at.bad_call(level=1))
        ended = at.call()
        at.bridge.ending(ended)
        at.bridge.end_call(ended, "ended_with_announcement")
        rest = await at.console.until("rest.changed")
        assert (rest["call_id"], rest["reason"]) == (ended, "ended")
        assert [m["type"] for m in at.console.seen].count("rest.changed") == 1


async def test_lunch_is_neither_overwritten_nor_ended(tmp_path: Path, double: AmiDouble) -> None:
    async with scene(tmp_path, extra(double, tmp_path)) as at:
        sales = double.member(ONE, "sales")
        sales.paused, sales.reason = True, "lunch"
        at.bridge.end_call(at.bad_call())
        await double.until(lambda: double.member(ONE).paused)
        await at.ready()
        await double.until(lambda: not double.member(ONE).paused)
        assert (sales.paused, sales.reason) == (True, "lunch")


async def test_lunch_that_begins_during_rest_outlasts_it(tmp_path: Path, double: AmiDouble) -> None:
    async with scene(tmp_path, extra(double, tmp_path)) as at:
        at.bridge.end_call(at.bad_call())
        await double.until(lambda: paused(double) == RESTING)
        await double.person(ONE, paused=True, reason="lunch")
        asked = len(double.asked("QueueStatus"))
        await at.ready()
        await at.console.until("rest.changed", state="over")
        await double.until(lambda: len(double.asked("QueueStatus")) > asked)
        pinged = len(double.asked("Ping"))
        # Two: the first may have been on its way before.
        await double.until(lambda: len(double.asked("Ping")) > pinged + 1)
        assert paused(double) == [(True, "lunch")] * 2


async def test_nobody_at_the_pbx_ends_the_rest(
    tmp_path: Path, double: AmiDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supervisor makes the resting agent available there: the pause comes back."""
    monkeypatch.setattr(pbx, "_PAUSED_AGAIN_S", 0.05)
    async with scene(tmp_path, extra(double, tmp_path)) as at:
        at.bridge.end_call(at.bad_call())
        await double.until(lambda: paused(double) == RESTING)
        await double.person(ONE, paused=False)
        assert paused(double) == FREE
        await double.until(lambda: paused(double) == RESTING)
        assert (await at.ready())["status"] == "done"
        await double.until(lambda: paused(double) == FREE)
        # The first end of it that anybody is told of is the agent's own.
        assert (await at.console.until("rest.changed", state="over"))["by"] == "agent"


async def test_where_only_agents_can_unpausing_at_the_pbx_is_ready(
    tmp_path: Path, double: AmiDouble
) -> None:
    async with scene(tmp_path, extra(double, tmp_path, more="ready_at_pbx = true\n")) as at:
        at.bridge.end_call(at.bad_call())
        await double.until(lambda: paused(double) == RESTING)
        await double.person(ONE, paused=False)
        over = await at.console.until("rest.changed", state="over")
        assert over["by"] == "pbx"


async def test_a_restarted_pbx_is_told_again_that_the_agent_rests(
    tmp_path: Path, double: AmiDouble
) -> None:
    async with scene(tmp_path, extra(double, tmp_path)) as at:
        at.bridge.end_call(at.bad_call())
        await double.until(lambda: paused(double) == RESTING)
        await double.restart()
        assert paused(double) == FREE
        await double.until(lambda: paused(double) == RESTING)
        assert (await at.ready())["status"] == "done"
        # The first end of it that anybody is told of is the agent's own.
        assert (await at.console.until("rest.changed", state="over"))["by"] == "agent"


async def test_rest_while_the_pbx_is_away_is_rest(tmp_path: Path, double: AmiDouble) -> None:
    async with scene(tmp_path, extra(double, tmp_path)) as at:
        await double.until(lambda: DEVICE in double.devices)
        await double.stop()
        await at.console.until("node.degraded", component="pbx", degraded=True)
        at.bridge.end_call(at.bad_call())
        assert (await at.console.until("rest.changed"))["state"] == "resting"
        await double.start()
        await at.console.until("node.degraded", component="pbx", degraded=False)
        await double.until(lambda: paused(double) == RESTING)


async def test_a_rest_that_ended_while_the_pbx_was_away_is_taken_back(
    tmp_path: Path, double: AmiDouble
) -> None:
    async with scene(tmp_path, extra(double, tmp_path)) as at:
        at.bridge.end_call(at.bad_call())
        await double.until(lambda: paused(double) == RESTING)
        await double.stop()
        await at.console.until("node.degraded", component="pbx", degraded=True)
        await at.ready()
        await double.start()
        await double.until(lambda: paused(double) == FREE)


async def test_a_pause_of_ours_that_nobody_remembers_is_taken_back(
    tmp_path: Path, double: AmiDouble
) -> None:
    """Whatever happened to our database; somebody else's pause is left alone."""
    for member in double.members:
        member.paused, member.reason = True, REASON
    double.member(ONE, "sales").reason = "lunch"
    async with scene(tmp_path, extra(double, tmp_path)):
        await double.until(lambda: not double.member(ONE).paused)
        assert double.member(ONE, "sales").reason == "lunch"
        assert double.member(TWO).paused, "not an agent of this node's configuration"


async def test_a_login_to_a_queue_does_not_end_the_rest(tmp_path: Path, double: AmiDouble) -> None:
    async with scene(tmp_path, extra(double, tmp_path)) as at:
        at.bridge.end_call(at.bad_call())
        await double.until(lambda: paused(double) == RESTING)
        double.members.append(Member("night", ONE))
        double.event("QueueMemberAdded", Queue="night", Interface=ONE, Paused="0")
        await double.until(lambda: double.member(ONE, "night").paused)


async def test_a_refused_pause_is_said_tried_again_and_the_device_is_free_meanwhile(
    tmp_path: Path, double: AmiDouble
) -> None:
    double.refuse["QueuePause"] = "Permission denied"
    async with scene(tmp_path, extra(double, tmp_path)) as at:
        call_id = at.bad_call()
        await double.until(lambda: double.devices.get(DEVICE) == "INUSE")
        at.bridge.end_call(call_id)
        told = await at.console.until("node.degraded", component="pbx_actions", degraded=True)
        assert "Permission denied" in told["reason"]
        await double.until(lambda: double.devices[DEVICE] == "NOT_INUSE")
        double.refuse.clear()
        await double.until(lambda: paused(double) == RESTING)
        await at.console.until("node.degraded", component="pbx_actions", degraded=False)


async def test_nobody_but_the_agent_sees_or_ends_the_rest(
    tmp_path: Path, double: AmiDouble
) -> None:
    async with scene(tmp_path, extra(double, tmp_path)) as at:
        async with (
            at.desk.console(at.desk.supervisor) as supervisor,
            at.desk.console(at.desk.agent) as colleague,
        ):
            at.bridge.end_call(at.bad_call())
            await at.console.until("rest.changed")
            at.call()
            theirs = at.bridge.start_call("1001")
            for other in (supervisor, colleague):
                await other.until("call.started", call_id=theirs)
                assert "rest.changed" not in [m["type"] for m in other.seen]
        for token, status in ((at.desk.supervisor, 403), (at.desk.agent, 404)):
            async with at.desk.http(token) as http:
                assert (await http.post("/api/v1/agents/1003/ready")).status_code == status
                assert (await http.get("/api/v1/agents/1003/rest")).status_code == status
        await double.until(lambda: paused(double) == RESTING)


async def test_rest_without_a_pbx_is_a_timer(tmp_path: Path) -> None:
    configuration = AGENTS + f"[aftercare]\nrest_s = {SHORT_REST_S}\n"
    async with scene(tmp_path, configuration) as at:
        at.bridge.end_call(at.bad_call())
        assert (await at.console.until("rest.changed"))["state"] == "resting"
        assert (await at.console.until("rest.changed", state="over"))["by"] == "timer"


async def test_no_rest_is_the_default(tmp_path: Path, double: AmiDouble) -> None:
    async with scene(tmp_path, extra(double, tmp_path, rest_s=0)) as at:
        at.bridge.end_call(at.bad_call(level=3))
        marker = at.call()
        await at.console.until("call.started", call_id=marker)
        await double.until(lambda: double.devices.get(DEVICE) == "INUSE")
        assert "rest.changed" not in [m["type"] for m in at.console.seen]
        assert double.asked("QueuePause") == []


async def _rest_then_kill(
    double: AmiDouble, folder: Path, rest_s: float
) -> tuple[Process, dict[str, Any]]:
    """A notifier that is killed with an agent at rest, and what it said of that rest."""
    notifier = Process(folder, extra(double, folder, rest_s))
    await notifier.start()
    token = await asyncio.to_thread(create_token, notifier.desk.settings, "agent", "three", "1003")
    async with notifier.desk.bridge() as bridge, notifier.desk.console(token) as console:
        call_id = bridge.start_call("1003")
        bridge.risk(call_id, 3)
        bridge.end_call(call_id)
        rest = await console.until("rest.changed")
        await double.until(lambda: paused(double) == RESTING)
        assert await notifier.end(signal.SIGKILL) == -signal.SIGKILL
    return notifier, rest


async def test_kill_9_loses_no_rest(tmp_path: Path, double: AmiDouble) -> None:
    notifier, _ = await _rest_then_kill(double, tmp_path, rest_s=600)
    await double.restart()  # so that only the stored rest can bring the pause back
    assert paused(double) == FREE
    await notifier.start()
    try:
        await double.until(lambda: paused(double) == RESTING)
    finally:
        await notifier.end(signal.SIGTERM)


async def test_kill_9_leaves_nobody_paused_for_ever(tmp_path: Path, double: AmiDouble) -> None:
    notifier, rest = await _rest_then_kill(double, tmp_path, rest_s=2 * SHORT_REST_S)
    # The rest is over while nobody is there to end it.
    await asyncio.sleep(max(0.0, rest["until_ts"] - time.time()))
    assert paused(double) == RESTING
    await notifier.start()
    try:
        await double.until(lambda: paused(double) == FREE)
    finally:
        await notifier.end(signal.SIGTERM)


# ------------------------------------------------------------------------- the PBX's recording


async def test_a_pause_mutes_the_pbxs_recording_and_resume_unmutes_it(
    tmp_path: Path, double: AmiDouble
) -> None:
    double.recording[CHANNEL] = False
    async with scene(tmp_path, extra(double, tmp_path)) as at:
        call_id = at.call(channel=CHANNEL)
        at.pause(call_id, paused=True)
        await double.until(lambda: double.recording[CHANNEL])
        assert double.asked("MixMonitorMute")[0]["direction"] == ["both"]
        at.pause(call_id, paused=False)
        await double.until(lambda: not double.recording[CHANNEL])


async def test_a_pause_that_the_pbx_cannot_hear_is_an_alarm_for_both(
    tmp_path: Path, double: AmiDouble
) -> None:
    double.recording[CHANNEL] = False
    async with (
        scene(tmp_path, extra(double, tmp_path)) as at,
        at.desk.console(at.desk.supervisor) as supervisor,
    ):
        call_id = at.call(channel=CHANNEL)
        await double.until(lambda: double.devices.get(DEVICE) == "INUSE")
        await double.stop()
        await at.console.until("node.degraded", component="pbx", degraded=True)
        at.pause(call_id, paused=True)
        told = await at.console.until("node.degraded", component="pbx_recording")
        assert (told["degraded"], told["call_id"]) == (True, call_id)
        alert = await supervisor.until("alert.raised", call_id=call_id)
        assert (alert["kind"], alert["reason"]) == ("node", "pbx_recording_goes_on")
        await double.start()
        await double.until(lambda: double.recording[CHANNEL])
        await at.console.until("node.degraded", component="pbx_recording", degraded=False)


async def test_a_mute_is_said_again_to_a_pbx_that_lost_it(
    tmp_path: Path, double: AmiDouble
) -> None:
    double.recording[CHANNEL] = False
    async with scene(tmp_path, extra(double, tmp_path)) as at:
        at.pause(at.call(channel=CHANNEL), paused=True)
        await double.until(lambda: double.recording[CHANNEL])
        double.recording[CHANNEL] = False
        double.drop()
        await double.until(lambda: double.recording[CHANNEL])


async def test_a_recording_that_begins_during_a_pause_is_muted_too(
    tmp_path: Path, double: AmiDouble
) -> None:
    async with scene(tmp_path, extra(double, tmp_path)) as at:
        call_id = at.call(channel=CHANNEL)
        at.pause(call_id, paused=True)
        await double.until(lambda: len(double.asked("MixMonitorMute")) == 1)
        double.recording[CHANNEL] = False
        double.event("MixMonitorStart", Channel=CHANNEL)
        await double.until(lambda: double.recording[CHANNEL])
        at.bridge.end_call(call_id)
        await at.console.until("call.ended", call_id=call_id)  # what came before was read, too
        told = [m for m in at.console.seen if m["type"] == "node.degraded"]
        assert not [m for m in told if m["component"] == "pbx_recording"], "nothing was recorded"


async def test_a_channel_that_the_pbx_did_not_name_is_an_alarm(
    tmp_path: Path, double: AmiDouble
) -> None:
    async with scene(tmp_path, extra(double, tmp_path)) as at:
        await double.until(lambda: DEVICE in double.devices)
        at.pause(at.call(), paused=True)
        told = await at.console.until("node.degraded", component="pbx_recording")
        assert "X-Callshield-Channel" in told["reason"]


async def test_a_channel_name_cannot_carry_an_action(tmp_path: Path, double: AmiDouble) -> None:
    async with scene(tmp_path, extra(double, tmp_path)) as at:
        await double.until(lambda: DEVICE in double.devices)
        evil = "PJSIP/x\r\n\r\nAction: Originate"
        at.pause(at.call(channel=evil), paused=True)
        await at.console.until("node.degraded", component="pbx_recording", degraded=True)
        assert double.asked("MixMonitorMute") == []
        assert double.asked("Originate") == []


async def test_a_resume_that_a_killed_notifier_did_not_pass_on_is_passed_on(
    tmp_path: Path, double: AmiDouble
) -> None:
    double.recording[CHANNEL] = False
    configuration = extra(double, tmp_path)
    async with scene(tmp_path, configuration) as at:
        call_id = at.call(channel=CHANNEL)
        at.pause(call_id, paused=True)
        await double.until(lambda: double.recording[CHANNEL])
        started = at.bridge.calls[call_id]
    async with desk_in_process(tmp_path, configuration) as desk:
        bridge = desk.bridge()
        # Its snapshot says that nothing is paused: the mute is a leftover.
        bridge.calls[call_id] = started
        async with bridge:
            await double.until(lambda: not double.recording[CHANNEL])


# --------------------------------------------------------------------------------------- phones


async def test_an_administrator_sees_the_phone_that_the_pbx_hides(
    tmp_path: Path, double: AmiDouble
) -> None:
    double.contacts.append(("phone-1003", "Yealink SIP-T54W 96.86.0.100"))
    more = '[agents.1004]\nuri = "sip:4@192.0.2.4"\nphone_model = "Snom D785"\n'
    async with scene(tmp_path, extra(double, tmp_path, more=more)) as at:
        admin = await asyncio.to_thread(create_token, at.desk.settings, "admin", "root")

        async def model(agent_id: str) -> tuple[str, str]:
            async with at.desk.http(admin) as http:
                state = (await http.get("/api/v1/pbx")).json()
            phones = {phone["agent_id"]: phone for phone in state["phones"]}
            return phones[agent_id]["model"], phones[agent_id]["source"]

        async def becomes(wanted: tuple[str, str]) -> None:
            async with asyncio.timeout(WITHIN_S):
                while await model("1003") != wanted:  # noqa: ASYNC110 - it is asked by HTTP
                    await asyncio.sleep(0.05)

        await becomes(("Yealink SIP-T54W 96.86.0.100", "pbx"))
        assert await model("1004") == ("Snom D785", "configuration")
        double.contacts[:] = [("phone-1003", "Grandstream GRP2615 1.0.9")]
        double.event("ContactStatus", EndpointName="phone-1003", ContactStatus="Updated")
        await becomes(("Grandstream GRP2615 1.0.9", "pbx"))
        async with at.desk.http(at.desk.supervisor) as http:
            assert (await http.get("/api/v1/pbx")).status_code == 403
