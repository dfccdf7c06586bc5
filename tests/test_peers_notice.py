"""The caller's key in a real call: what is said, what the agent sees, what is never tapped."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from callshield.heard import find, read_growing_wav, read_wav
from sipbridge.prompt_catalogue import SHIPPED
from tests.peers.baresip import running_baresip
from tests.peers.node import running_node
from tests.peers.sound import write_tone

CALLER, PHONE = "127.0.0.98", "127.0.0.99"
#: Where nobody presses the key that decides, the window is waited for in full; one in which it is
#: pressed may be as long as a busy machine takes to press it.
WINDOW_S, LONG_WINDOW_S = 2.0, 30.0


async def call_with(
    folder: Path, notice: str, digit: str, *, when: str
) -> tuple[list[dict[str, Any]], dict[str, Any], Any]:
    """One call in which the caller presses a key; the agent's events, the log's figures, and what
    the caller heard."""
    said = write_tone(folder / "said.wav", 700.0, 90, -30)
    window_s = LONG_WINDOW_S if f'"{digit}"' in notice else WINDOW_S
    keyed = f'[notice]\nprompts = ["recording"]\nkey_window_s = {window_s}\n'
    async with (
        running_baresip(folder / "agent", PHONE, "1001", said) as agent,
        running_baresip(folder / "caller", CALLER, "01000000000", said) as caller,
        running_node(
            folder / "node", {"1001": agent.uri}, peer=CALLER, extra=keyed + notice
        ) as node,
        node.watch("1001") as console,
    ):
        await caller.command("dial", node.uri("1001"))
        await console.wait("notice.started")
        if when == "during":
            await asyncio.sleep(1.0)  # the caller hears the beginning
            await caller.press(digit)
        finished = await console.wait("notice.finished")
        if when == "after":
            await caller.press(digit)
        if finished["waits"]:
            await console.wait("protection.changed")
        if f'objection_key = "{digit}"' in notice:
            await console.wait("prompt.played")  # that the objection counts
        await asyncio.sleep(5.0)  # a conversation, in which something may be said or analysed
        await caller.command("hangup")
        await console.wait("call.ended")
        (closed,) = await node.wait_for_log("media_closed")
        told = list(console.events)
    return told, closed, read_growing_wav(caller.recording())


def one(events: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (event,) = [event for event in events if event["type"] == kind]
    return event


@pytest.mark.parametrize("when", ["during", "after"])
async def test_an_objection_is_accepted_aloud_and_nothing_is_ever_tapped(
    tmp_path: Path, when: str
) -> None:
    events, closed, heard = await call_with(tmp_path, 'objection_key = "9"\n', "9", when=when)
    finished = one(events, "notice.finished")
    if when == "during":
        assert (finished["source"], finished["key"]) == ("objected", "9")
    else:
        assert finished["source"] == "played"
        changed = one(events, "protection.changed")
        assert (changed["protected"], changed["reason"]) == (False, "objection")
    assert not [event for event in events if event["type"] == "tap.started"]
    assert closed["tapped"] + closed["tap_dropped"] == 0
    accepted = find(read_wav(SHIPPED / "ko" / "objection_accepted.wav"), heard)
    assert accepted is not None
    assert accepted.whole
    stamp = one(events, "prompt.played")["stamp"]
    assert (stamp["prompt_id"], stamp["complete"]) == ("objection_accepted", True)


async def test_another_key_changes_nothing_and_the_tap_begins_after_the_window(
    tmp_path: Path,
) -> None:
    """Negative control of the test above."""
    events, closed, heard = await call_with(tmp_path, 'objection_key = "9"\n', "8", when="during")
    finished, tapped = one(events, "notice.finished"), one(events, "tap.started")
    assert finished["source"] == "played"
    assert tapped["ts"] - finished["prompts"][-1]["finished_ts"] >= WINDOW_S - 0.1
    assert closed["tapped"] > 0
    accepted = find(read_wav(SHIPPED / "ko" / "objection_accepted.wav"), heard)
    assert accepted is None or accepted.share < 0.2


@pytest.mark.parametrize(("digit", "protected"), [("1", True), ("2", False)])
async def test_analysis_waits_for_the_key_of_consent(
    tmp_path: Path, digit: str, protected: bool
) -> None:
    events, closed, _ = await call_with(tmp_path, 'consent_key = "1"\n', digit, when="after")
    changed = one(events, "protection.changed")
    assert changed["protected"] is protected
    assert changed["reason"] == ("consent" if protected else "no_consent")
    assert (closed["tapped"] > 0) is protected
