"""What the PBX refuses is tried again and again, and said once."""

from __future__ import annotations

import asyncio

import pytest

from callshield.errors import AmiError
from notifier import settling
from notifier.ami_client import AmiAway
from notifier.settling import Key, Settling

ONE, OTHER = ("agent", "1001"), ("phones", "")


class Pbx:
    """Refuses each key for the reason that it has; counts the rounds."""

    def __init__(self) -> None:
        self.reasons: dict[Key, Exception] = {}
        self.rounds = 0
        self.said: list[str | None] = []
        self.settling = Settling(self.settle, self.said.append)
        self._more = asyncio.Condition()

    async def settle(self, key: Key) -> None:
        self.rounds += 1
        async with self._more:
            self._more.notify_all()
        if key in self.reasons:
            raise self.reasons[key]

    async def until(self, rounds: int) -> None:
        async with asyncio.timeout(30), self._more:
            await self._more.wait_for(lambda: self.rounds >= rounds)
        await asyncio.sleep(0)  # the task that was counted has its answer


@pytest.fixture
def pbx(monkeypatch: pytest.MonkeyPatch) -> Pbx:
    monkeypatch.setattr(settling, "RETRY_S", 0.0)
    return Pbx()


async def test_two_refusals_that_stay_are_said_once_and_not_in_turn(pbx: Pbx) -> None:
    """Each change is an event that is stored and sent to every supervisor."""
    pbx.reasons = {ONE: AmiError("no right"), OTHER: AmiError("no phones")}
    pbx.settling.kick(ONE)
    pbx.settling.kick(OTHER)
    await pbx.until(20)
    assert pbx.said == ["no right", "no phones; no right"]
    assert pbx.settling.failing == ["no phones", "no right"]
    await pbx.settling.close()


async def test_what_is_taken_at_last_is_no_trouble_any_more(pbx: Pbx) -> None:
    pbx.reasons = {ONE: AmiError("no right"), OTHER: AmiError("no phones")}
    pbx.settling.kick(ONE)
    pbx.settling.kick(OTHER)
    await pbx.until(4)
    del pbx.reasons[OTHER]
    await pbx.until(pbx.rounds + 4)
    assert pbx.said[-1] == "no right"
    pbx.reasons.clear()
    await pbx.until(pbx.rounds + 1)
    while pbx.settling.failing:  # noqa: ASYNC110 -- a property, which tells nobody
        await asyncio.sleep(0)
    assert pbx.said[2:] == ["no right", None]
    await pbx.settling.close()


async def test_a_pbx_that_is_away_is_not_asked_again_and_again(pbx: Pbx) -> None:
    pbx.reasons = {ONE: AmiAway("away")}
    pbx.settling.kick(ONE)
    await pbx.until(1)
    for _ in range(20):
        await asyncio.sleep(0)
    assert (pbx.rounds, pbx.said) == (1, [])
    await pbx.settling.close()


async def test_an_error_of_ours_is_told_and_tried_again(pbx: Pbx) -> None:
    pbx.reasons = {ONE: KeyError("1001")}
    pbx.settling.kick(ONE)
    await pbx.until(3)
    assert pbx.said == ["an error of ours: see the log"]
    await pbx.settling.close()


async def test_a_hundred_kicks_while_it_is_settled_cost_one_more_round(pbx: Pbx) -> None:
    pbx.settling.kick(ONE)
    await asyncio.sleep(0)  # it has begun
    for _ in range(100):
        pbx.settling.kick(ONE)
    await pbx.until(2)
    for _ in range(20):
        await asyncio.sleep(0)
    assert pbx.rounds == 2
    await pbx.settling.close()
