"""Dialogs that go wrong: forks, late CANCELs, BYE without ACK, ACK that never comes, silence."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from callshield.messages import CallEnded, CallStarted, LegName, MediaSilent
from tests.sip.half_node import HalfNode

pytestmark = [
    pytest.mark.peers,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="session"),
]


async def play(half: HalfNode, folder: Path, phone: str, pbx: str, **values: str) -> CallEnded:
    """Play two scenarios against each other to their ends; how the call ended."""
    agent = half.agent()
    async with (
        half.phone(folder, agent, phone, values=values) as desk,
        half.pbx(folder, agent, pbx, values=values) as caller,
    ):
        assert await caller.finish(40) == 0, caller.messages()
        assert await desk.finish(40) == 0, desk.messages()
    ended = await half.event(CallEnded, lambda event: event.agent_id == agent)
    await half.judge(folder)
    assert len(half.of_agent(CallEnded, agent)) == 1
    return ended


async def test_the_second_of_two_200s_is_acknowledged_and_ended(
    half: HalfNode, tmp_path: Path
) -> None:
    ended = await play(half, tmp_path, "phone_forks", "pbx_talks")
    assert ended.reason == "caller_hangup"


async def test_a_cancel_that_wins(half: HalfNode, tmp_path: Path) -> None:
    ended = await play(half, tmp_path, "phone_rings", "pbx_cancels")
    assert ended.reason == "cancelled"


async def test_a_cancel_that_crosses_our_200(half: HalfNode, tmp_path: Path) -> None:
    """The call stands (RFC 3261 9.2); the PBX ends it by BYE."""
    ended = await play(half, tmp_path, "phone_answers", "pbx_cancels_late")
    assert ended.reason == "caller_hangup"


async def test_a_phone_picked_up_while_our_cancel_was_on_its_way(
    half: HalfNode, tmp_path: Path
) -> None:
    """Its 200 is acknowledged and the dialog ended (RFC 3261 9.1): no phone stays off hook."""
    ended = await play(half, tmp_path, "phone_answers_the_cancel", "pbx_cancels")
    assert ended.reason == "cancelled"


async def test_bye_instead_of_ack(half: HalfNode, tmp_path: Path) -> None:
    ended = await play(half, tmp_path, "phone_answers", "pbx_bye_before_ack")
    assert ended.reason == "caller_hangup"


async def test_a_pbx_that_never_acknowledges(half: HalfNode, tmp_path: Path) -> None:
    """The 200 is repeated, and after 64·T1 the dialog is ended by BYE (RFC 3261 13.3.1.4)."""
    agent = half.agent()
    async with (
        half.phone(tmp_path, agent, "phone_answers") as desk,
        half.pbx(tmp_path, agent, "pbx_never_acks") as caller,
    ):
        assert await caller.finish(40) == 0, caller.messages()
        assert await desk.finish(40) == 0, desk.messages()
        assert len(caller.received("SIP/2.0 200", repeated=True)) >= 4
        assert len(desk.received("BYE")) == 1
    # The telephones may have seen the end before the news of it is here.
    ended = await half.event(CallEnded, lambda event: event.agent_id == agent)
    assert ended.duration_s >= 1.2
    await half.judge(tmp_path)


async def test_silence_is_told_and_then_ends_the_call(half: HalfNode, tmp_path: Path) -> None:
    """A phone that sends no RTP: told after 3 s; when the caller is silent too, the end."""
    audio = tmp_path / "audio.pcma"
    audio.write_bytes(b"\xd5" * 8000)
    agent = half.agent()
    async with (
        half.phone(tmp_path, agent, "phone_answers") as desk,
        half.pbx(
            tmp_path, agent, "pbx_talks_then_falls_silent", values={"audio": str(audio)}
        ) as caller,
    ):
        started = await half.event(CallStarted, lambda event: event.agent_id == agent)
        told = await half.event(MediaSilent, lambda event: event.call_id == started.call_id)
        assert (told.leg, told.silent) == (LegName.AGENT, True)
        assert not half.of_agent(CallEnded, agent)
        assert await caller.finish(40) == 0, caller.messages()
        assert await desk.finish(40) == 0, desk.messages()
    ended = await half.event(CallEnded, lambda event: event.agent_id == agent)
    assert ended.reason == "media_timeout"
    await half.judge(tmp_path)


async def test_memory_stays_flat_over_a_hundred_of_them(half: HalfNode, tmp_path: Path) -> None:
    """Fifty calls whose ACK never comes before the BYE, five at once, and fifty more.

    PJSIP's pools and Python's arenas grow with the most calls at once, not with their number; and
    how many are at once, those that still wait for a timer among them, is the machine's affair. So
    fifty are tried again: what each call leaves behind is there in every fifty.
    """
    used: list[int] = []

    def ended_of(agent: str) -> list[CallEnded]:
        return half.of_agent(CallEnded, agent)

    for batch in ("warm", "first", "second", "third", "fourth"):
        agents = [half.agent() for _ in range(5)]
        folder = tmp_path / batch

        async def ten(agent: str, folder: Path) -> None:
            async with (
                half.phone(folder, agent, "phone_answers", calls=10) as desk,
                half.pbx(folder, agent, "pbx_bye_before_ack", calls=10, at_once=1) as caller,
            ):
                assert await caller.finish(40) == 0, caller.messages()
                assert await desk.finish(40) == 0, desk.messages()

        await asyncio.gather(*(ten(agent, folder) for agent in agents))
        for agent in agents:
            # The last BYE was answered before its event came here.
            await half.event(CallEnded, lambda _, name=agent: len(ended_of(name)) == 10)  # type: ignore[misc]
        await half.judge(folder)
        used.append(int((await half.held())["rss_kib"]))
        if len(used) > 2 and used[-1] - used[-2] < 512:
            return
    raise AssertionError(f"KiB after each fifty: {used}")
