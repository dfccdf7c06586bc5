"""The desk between what is to be shown and who sends it: nothing of a sender stops it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from callshield.messages import CallStarted, RiskChanged
from callshield.messages_phones import ScreenPushed
from callshield.settings import load_settings
from firmware_profiles import desk as under_test
from firmware_profiles.catalogue import shipped
from firmware_profiles.choosing import Plan
from firmware_profiles.desk import Desk
from firmware_profiles.push_result import Result
from firmware_profiles.screen_keys import LIVES_S
from firmware_profiles.screens import RENEW_AT

CONFIG = """
[node]
state_dir = "{folder}"
runtime_dir = "{folder}"
[agents.yealink]
uri = "sip:1@192.0.2.20"
phone_model = "yealink-t"
[agents.snom]
uri = "sip:2@192.0.2.21"
phone_model = "snom-d7"
"""


class Sender:
    """Does what a test says, and remembers what it was given."""

    def __init__(self, do: Callable[[], Result] = lambda: Result("taken")) -> None:
        self.do = do
        self.sent: list[tuple[str, str]] = []

    async def send(self, plan: Plan, body: bytes) -> Result:
        self.sent.append((plan.agent_id, body.decode()))
        return self.do()


class Site:
    def __init__(self, folder: Path, sender: Sender, *, keys: bool = False) -> None:
        path = folder / "callshield.toml"
        path.write_text(CONFIG.format(folder=folder))
        self.told: list[ScreenPushed] = []
        self.now = 100.0
        self.desk = Desk(
            load_settings(path),
            shipped(),
            {},
            sender,
            sender,
            self.told.append,
            keys=(lambda agent_id: ("http://a/end", "http://a/help")) if keys else None,
            clock=lambda: self.now,
        )

    async def level(self, agent_id: str, level: int) -> None:
        call = agent_id.ljust(32, "0")
        self.desk.feed(CallStarted(ts=0, call_id=call, agent_id=agent_id, pbx_call_id=""))
        self.desk.feed(
            RiskChanged(
                ts=0, call_id=call, level=level, previous=0, categories=["threat"], score=0.5
            )
        )
        await self.idle()

    async def idle(self) -> None:
        while self.desk._tasks:
            await asyncio.gather(*self.desk._tasks)


async def test_a_sender_that_raises_leaves_no_phone_marked_as_busy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Result:
        raise RuntimeError("http://192.0.2.20/k/secret")

    sender = Sender(broken)
    site = Site(tmp_path, sender)
    await site.level("yealink", 2)
    assert [(told.ok, told.reason) for told in site.told] == [
        (False, "it failed here: see the log")
    ]
    assert "secret" not in capsys.readouterr().out
    sender.do = lambda: Result("taken")
    site.now += 60
    await site.level("yealink", 3)
    assert site.told[-1].ok
    await site.desk.close()


async def test_a_document_that_cannot_be_made_is_a_failure_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> bytes:
        raise ValueError

    site = Site(tmp_path, Sender())
    with monkeypatch.context() as patch:
        patch.setattr(under_test, "text_document", broken)
        await site.level("yealink", 2)
    assert [told.ok for told in site.told] == [False]
    site.now += 60
    await site.level("yealink", 3)
    assert site.told[-1].ok
    await site.desk.close()


async def test_keys_on_a_screen_that_stays_are_renewed_before_they_die(tmp_path: Path) -> None:
    sender = Sender()
    site = Site(tmp_path, sender, keys=True)
    await site.level("snom", 3)
    due = site.desk._screens.next_due(site.now)
    assert due == site.now + RENEW_AT * LIVES_S
    site.now = due
    site.desk._tick()
    await site.idle()
    assert len(sender.sent) == 2
    assert "http://a/end" in sender.sent[1][1]
    await site.desk.close()


async def test_the_answer_to_a_key_goes_and_what_it_covered_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "ANSWER_S", 0.0)
    sender = Sender()
    site = Site(tmp_path, sender)

    async def pressed(agent_id: str) -> list[str]:
        before = len(sender.sent)
        assert site.desk.answer(agent_id, "통화가 없습니다.") is not None
        while site.desk._answers:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await site.idle()
        return [body for _, body in sender.sent[before:]]

    (body,) = await pressed("snom")
    assert "mb_exit" in body
    assert not await pressed("yealink"), "this one goes by itself"
    for agent_id in ("snom", "yealink"):
        await site.level(agent_id, 3)
        (body,) = await pressed(agent_id)
        assert "심각" in body
    await site.desk.close()


async def test_without_keys_a_screen_that_stays_is_sent_once(tmp_path: Path) -> None:
    site = Site(tmp_path, Sender())
    await site.level("snom", 3)
    assert site.desk._screens.next_due(site.now) is None
    await site.desk.close()


async def test_what_went_well_is_logged_without_the_agent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path, Sender())
    capsys.readouterr()
    await site.level("yealink", 3)
    written = capsys.readouterr().out
    assert "screen_pushed" in written
    assert "agent" not in written.partition("screen_pushed")[2]
    await site.desk.close()
