"""Letters: when one is tried again, when it is put aside, and what of the past is told."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from notifier import outbox_store
from notifier.database import migrate, open_async
from notifier.outbox import (
    FIRST_RETRY_S,
    LONGEST_RETRY_S,
    LONGEST_WISH_S,
    Letter,
    Undelivered,
    fate,
    matches,
    retry_delay_s,
)
from notifier.outbox_store import DEAD_KEPT_S, OutboxStore

LETTER = Letter("0" * 32, "webhook:crm", 7, "alert.raised", 1000.0, "{}")


def test_delays_double_with_jitter_up_to_a_bound() -> None:
    for attempts in range(1, 40):
        whole = min(FIRST_RETRY_S * 2 ** (attempts - 1), LONGEST_RETRY_S)
        assert retry_delay_s(attempts, 0.0) == whole / 2
        assert retry_delay_s(attempts, 1.0) == whole
    assert retry_delay_s(10_000, 1.0) == LONGEST_RETRY_S


def test_a_wish_of_the_far_end_counts_within_bounds() -> None:
    assert retry_delay_s(1, 0.0, 60.0) == 60.0
    assert retry_delay_s(1, 0.0, 1e9) == LONGEST_WISH_S
    assert retry_delay_s(9, 1.0, 0.0) == retry_delay_s(9, 1.0)


def test_a_letter_is_put_aside_when_it_is_too_old_or_unwanted() -> None:
    failed, gone = Undelivered("x"), Undelivered("x", permanent=True)
    assert not fate(LETTER, failed, 1099.0, 0.5, 100.0).dead
    assert fate(LETTER, failed, 1100.0, 0.5, 100.0).dead
    assert fate(LETTER, gone, 1000.0, 0.5, 100.0).dead
    again = fate(replace(LETTER, attempts=3), failed, 1000.0, 1.0, 1e6)
    assert again.next_ts == 1000.0 + FIRST_RETRY_S * 8


def test_families_of_events() -> None:
    assert matches("alert.raised", ["alert.*"])
    assert matches("alert.raised", ["call.ended", "alert.raised"])
    assert not matches("alerting.x", ["alert.*"])
    assert not matches("alert.raised", ["call.*", "alert.raise"])


@pytest.fixture
async def store(tmp_path: Path) -> OutboxStore:
    path = tmp_path / "node.sqlite3"
    migrate(path)
    return OutboxStore(open_async(path))


def _letter(event_id: int, channel: str = "webhook:crm", ts: float = 1000.0) -> Letter:
    return Letter(uuid.uuid4().hex, channel, event_id, "alert.raised", ts, "{}")


async def test_a_new_channel_does_not_tell_the_past(store: OutboxStore) -> None:
    assert await store.cursors(["mail"], 40) == {"mail": 40}
    await store.put("mail", [_letter(41, "mail")], 41)
    assert await store.cursors(["mail", "webhook:crm"], 50) == {"mail": 41, "webhook:crm": 50}


async def test_a_channel_that_left_the_configuration_begins_anew(store: OutboxStore) -> None:
    await store.cursors(["webhook:crm"], 10)
    await store.put("webhook:crm", [_letter(11)], 11)
    await store.cursors([], 500)
    [left] = await store.letters("dead", 10)
    assert "configured" in left["failure"]
    assert await store.cursors(["webhook:crm"], 900) == {"webhook:crm": 900}


async def test_letters_come_in_order_when_due_and_are_gone_when_delivered(
    store: OutboxStore,
) -> None:
    letters = [_letter(1), _letter(2), _letter(3)]
    await store.cursors(["webhook:crm"], 0)
    await store.put("webhook:crm", letters, 3)
    assert await store.due("webhook:crm", 1000.0, 2) == letters[:2]
    await store.failed(letters[0], dead=False, next_ts=2000.0, reason="r")
    await store.delivered([letters[1]])
    assert await store.due("webhook:crm", 1999.0, 9) == [letters[2]]
    assert await store.due("webhook:crm", 2000.0, 9) == [
        letters[2],
        replace(letters[0], attempts=1),
    ]
    assert await store.next_ts("webhook:crm") == 1000.0
    assert await store.waiting("webhook:crm") == 2


async def test_dead_letters_are_retried_or_dropped_and_live_ones_are_not(
    store: OutboxStore,
) -> None:
    dead, live = _letter(1), _letter(2)
    await store.cursors(["webhook:crm"], 0)
    await store.put("webhook:crm", [dead, live], 2)
    await store.failed(dead, dead=True, next_ts=0.0, reason="the far end answered 410")
    assert not await store.retry(live.letter_id)
    assert not await store.drop(live.letter_id)
    assert await store.retry(dead.letter_id)
    assert await store.counts() == {("webhook:crm", "waiting"): 2}
    await store.failed(dead, dead=True, next_ts=0.0, reason="r")
    assert await store.drop(dead.letter_id)
    assert await store.counts() == {("webhook:crm", "waiting"): 1}


async def test_the_heap_of_dead_letters_is_bounded(
    store: OutboxStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_store, "DEAD_KEPT", 20)
    now = DEAD_KEPT_S + 5000.0
    letters = [_letter(n, ts=now - 5.0) for n in range(2, 32)]
    old = _letter(1, ts=1.0)
    await store.cursors(["webhook:crm"], 0)
    await store.put("webhook:crm", [old, *letters], 9999)
    for letter in (old, *letters):
        await store.failed(letter, dead=True, next_ts=0.0, reason="r")
    assert await store.forget_dead("webhook:crm", now) == 11
    left = await store.letters("dead", 5000)
    assert len(left) == 20
    assert left[0]["event_id"] == 31, "the newest are kept"
    assert await store.forget_dead("webhook:crm", now) == 0
