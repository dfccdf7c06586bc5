"""Who decides on a request for evidence, what the agent reads of it, and what stays meanwhile."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from callshield.doctor_evidence import examine_evidence
from callshield.findings import Finding, Verdict
from callshield.messages_evidence import EvidenceAnswer, EvidenceMade
from callshield.notifier_request import ask_bus
from callshield.settings import Settings, load_settings
from notifier import evidence_desk
from notifier.evidence import DAY_S
from notifier.evidence_key import make_signing_key
from notifier.outside import told as told_outside
from notifier.tokens import create_token
from tests.notifier_kit import Bridge, Desk, desk_in_process, write_config
from tests.test_aftercare import PEOPLE, get, past_call, post, say

CONTACT = """
[law]
grievance_contact = "고충처리위원회 · 1350"
[evidence]
hold_after_refusal_days = 30
"""
WHY = "녹취를 확인했으나 폭언이 없는 통화입니다. 문의 02-1234-5678"


async def token(desk: Desk, role: str, name: str, **more: Any) -> str:
    return await asyncio.to_thread(create_token, desk.settings, role, name, **more)


async def asked(desk: Desk, bridge: Bridge) -> tuple[str, str]:
    """A call that is over, whose agent asked for its evidence: ids of both."""
    async with desk.console(desk.supervisor) as watching:
        call_id = past_call(bridge, 7200, 3600)
        await watching.until("call.ended")
    return call_id, str((await say(desk, call_id, action="evidence"))["request_id"])


async def mine(desk: Desk) -> dict[str, Any]:
    found = await get(desk, "/me/requests")
    (one,) = [one for one in found["requests"] if one["action"] == "evidence"]
    return {**one, "contact": found["grievance_contact"]}


async def test_a_refusal_needs_a_reason_and_the_agent_reads_it_with_whom_to_turn_to(
    tmp_path: Path,
) -> None:
    async with (
        desk_in_process(tmp_path, PEOPLE + CONTACT) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
    ):
        call_id, request_id = await asked(desk, bridge)
        assert (await mine(desk))["state"] == "requested"
        refuse = f"/requests/{request_id}/refuse"
        for reason in ("", "no", "          ", "x" * 501):
            await post(desk, refuse, desk.supervisor, status=422, reason=reason)
        await post(desk, refuse, desk.supervisor, status=422)
        await post(desk, refuse, desk.agent, status=403, reason=WHY)
        await post(desk, refuse, desk.supervisor, reason=WHY)
        told = await agent.until("evidence.changed")
        assert told["state"] == "refused"
        assert told["reason"] == WHY.replace("02-1234-5678", "***"), "no number of anybody"
        seen = await mine(desk)
        assert (seen["state"], seen["reason"]) == ("refused", told["reason"])
        assert seen["contact"] == "고충처리위원회 · 1350"
        assert seen["held_until_ts"] == pytest.approx(time.time() + 30 * DAY_S, abs=60)
        # Refused is not over: the call is still held, and a grievance can turn it.
        assert bridge.held[-1].call_ids == [call_id]
        (one,) = (await get(desk, "/requests", desk.supervisor))["requests"]
        assert one["state"] == "refused"
        await post(desk, refuse, desk.second, reason=WHY)  # the same word twice: no fault
        approve = f"/requests/{request_id}/approve"
        assert (await post(desk, approve, desk.second))["status"] == "done"
        assert (await mine(desk))["state"] == "approved"
        # An approval is the agent's: nobody takes it back.
        await post(desk, refuse, desk.supervisor, status=409, reason=WHY)
        # Outside of the node nobody reads who wrote what.
        outside = told_outside({**told, "type": "evidence.changed"})
        assert outside is not None
        assert not {"reason", "by"} & outside.keys()


async def test_only_approvers_decide_and_nobody_on_an_own_request(tmp_path: Path) -> None:
    extra = PEOPLE + '[evidence]\napprovers = ["kim"]\n'
    async with desk_in_process(tmp_path, extra) as desk, desk.bridge() as bridge:
        _, request_id = await asked(desk, bridge)
        approve = f"/requests/{request_id}/approve"
        lee = await token(desk, "supervisor", "lee", supervisor_id="lee")
        kim = await token(desk, "supervisor", "kim", supervisor_id="kim")
        auditor = await token(desk, "auditor", "auditor")
        # The agent has another token, too: by its name the two are one person.
        one = await token(desk, "admin", "One ")
        for who, code in ((lee, "not_an_approver"), (one, "own_request")):
            assert (await post(desk, approve, who, status=403))["type"].endswith(code)
            (seen,) = (await get(desk, "/requests", who))["requests"]
            assert seen["may_decide"] is False
        for who in (auditor, desk.agent, desk.other):
            await post(desk, approve, who, status=403)
        (seen,) = (await get(desk, "/requests", kim))["requests"]
        assert seen["may_decide"] is True
        await post(desk, approve, kim)
        assert (await mine(desk))["state"] == "approved"


async def test_a_request_is_not_settled_before_anything_was_handed_out(tmp_path: Path) -> None:
    """Else approving and settling would together refuse, with no reason and nothing kept."""
    async with desk_in_process(tmp_path, PEOPLE) as desk, desk.bridge() as bridge:
        call_id, request_id = await asked(desk, bridge)
        done = f"/requests/{request_id}/done"
        await post(desk, f"/requests/{request_id}/approve", desk.supervisor)
        assert (await post(desk, done, desk.second, status=409))["type"].endswith("not_handed_out")
        assert bridge.held[-1].call_ids == [call_id], "the hold goes on"
        # A package that nobody began is not believed, whosever token it bears.
        message = EvidenceMade(
            request_id="1" * 32, call_id=call_id, token=desk.supervisor, package_id="9" * 32,
            package_sha256="0" * 64, manifest_sha256="0" * 64, key_id="0" * 64,
            unredacted=False, whole=True, encryption="none",
        )  # fmt: skip
        path = desk.settings.bus_path
        answer = await ask_bus(path, message, EvidenceAnswer, 10.0, "no answer")
        assert "does not know that this package" in answer.refusal
        await post(desk, done, desk.second, status=409)
        await desk.hand_out(call_id)
        # The agent by another token of the same name does not settle the own request.
        one = await token(desk, "admin", "One ")
        assert (await post(desk, done, one, status=403))["type"].endswith("own_request")
        assert (await post(desk, done, desk.second))["status"] == "done"
        assert (await mine(desk))["state"] == "done"


async def test_a_refusal_that_nobody_turned_lets_go_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_desk, "DAY_S", 0.05)
    async with (
        desk_in_process(tmp_path, PEOPLE + CONTACT) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
    ):
        call_id, request_id = await asked(desk, bridge)
        await post(desk, f"/requests/{request_id}/refuse", desk.supervisor, reason=WHY)
        until_ts = (await mine(desk))["held_until_ts"]
        assert [call_id] in [message.call_ids for message in bridge.held]
        lapsed = await agent.until("evidence.changed", state="lapsed")
        assert lapsed["ts"] >= until_ts, "not before its time"
        async with asyncio.timeout(30):
            while bridge.held[-1].call_ids:
                bridge.asked.clear()
                await bridge.asked.wait()
        seen = await mine(desk)
        assert (seen["state"], seen["reason"] != "") == ("lapsed", True)
        await post(desk, f"/requests/{request_id}/approve", desk.second, status=409)


def test_an_approver_must_be_somebody(tmp_path: Path) -> None:
    config = write_config(tmp_path, 8080, PEOPLE + '[evidence]\napprovers = ["nobody"]\n')
    with pytest.raises(Exception, match=r"evidence\.approvers"):
        load_settings(config)
    assert isinstance(load_settings(write_config(tmp_path, 8080, PEOPLE + CONTACT)), Settings)


def test_doctor_says_what_a_package_would_lack(tmp_path: Path) -> None:
    key = tmp_path / "evidence.key"
    base = f'[evidence]\nkey_file = "{key}"\n'

    def found(more: str = "") -> Finding:
        return examine_evidence(load_settings(write_config(tmp_path, 8080, base + more)))

    missing = found()
    assert missing.verdict is Verdict.NOTE
    assert "callshield evidence key" in missing.advice
    make_signing_key(key)
    assert found().advice == "set law.grievance_contact"
    contact = '[law]\ngrievance_contact = "고충처리위원회"\n'
    assert found(contact).verdict is Verdict.OK
    no_font = found(f'font = "{tmp_path / "none.ttc"}"\n{contact}')
    assert no_font.verdict is Verdict.PROBLEM
    key.chmod(0o644)
    assert "chmod 600" in found(contact).advice
