"""``state.js``, the pages' pure core, in the browser that runs it: events in, state out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.console_kit import chromium, screen
from tests.notifier_kit import desk_in_process

pytestmark = pytest.mark.browser

CALL, ALERT, PROMISE = "c" * 32, "a" * 32, "b" * 32
NODE = {"agent_id": "1001", "degraded": [], "analysis": True, "warnings": 3}


def event(event_type: str, ts: float, **fields: Any) -> dict[str, Any]:
    return {"type": event_type, "ts": ts, "call_id": CALL, **fields}


#: A call in which everything happens.
STORY: list[dict[str, Any]] = [
    event("call.started", 1, agent_id="1001", direction="inbound"),
    event("ringback.seen", 1, category="threat", ended_days_ago=2),
    event("call.answered", 2),
    event("notice.started", 2),
    event("notice.finished", 3, source="played", tapped=True),
    event("tap.started", 3),
    event(
        "risk.changed",
        4,
        level=3,
        previous=0,
        categories=["threat"],
        reasons=[{"words": ["[이름]"]}],
        acoustic_only=False,
        words_confirmed=True,
    ),
    event("policy.advice", 4, warn_grade=1, end_highlighted=True, category="threat"),
    event("warning.played", 5, grade=1, complete=True),
    event("alert.raised", 6, alert_id=ALERT, agent_id="1001", kind="help", level=3, categories=[]),
    event("alert.escalated", 6, alert_id=ALERT, step=1, stage="person", to=["lee"]),
    event("alert.refused", 7, alert_id=ALERT, by="lee", reason="in_call"),
    event("alert.escalated", 7, alert_id=ALERT, step=2, stage="all", to=["lee", "choi"]),
    event("alert.unanswered", 9, alert_id=ALERT, offers=["end", "promise_call_back"]),
    event("callback.changed", 9, callback_id=PROMISE, state="promised", owner="kim", due_ts=99),
    event("alert.acknowledged", 10, alert_id=ALERT, by="token", how="join"),
    event("helper.changed", 11, state="joined", role="supervisor"),
    event("hold.changed", 12, held=True),
    event("pause.changed", 12, paused=True),
    event("ear.changed", 12, softening=True, levelling=False),
    event("call.length", 13, minutes=15, step="notice", until_ts=0),
    event("crisis.hint", 14, words=["…"]),
    {"type": "node.degraded", "ts": 15, "component": "detector", "degraded": True, "reason": "x"},
    event("evidence.requested", 15, request_id=PROMISE, agent_id="1001"),
    event("evidence.changed", 15, request_id=PROMISE, agent_id="1001", state="done"),
    event("call.ending", 16),
    event("call.ended", 17, reason="ended_with_announcement", duration_s=15),
    event("callback.changed", 18, callback_id=PROMISE, state="overdue", owner="kim", due_ts=99),
]
#: The state after each event, applied so many times.
PLAY = """async ([node, story, times]) => {
  const { apply, loaded } = await import("/console/state.js");
  const state = loaded(node, [], []);
  const flat = (key, value) => value instanceof Map ? [...value] : value;
  return story.map((event) => {
    for (let n = 0; n < times; n += 1) apply(state, structuredClone(event));
    return JSON.parse(JSON.stringify(state, flat));
  });
}"""


async def test_an_event_that_comes_twice_changes_nothing_the_second_time(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        chromium() as browser,
        screen(browser, desk.address, "/agent", "") as one,
    ):
        once = await one.page.evaluate(PLAY, [NODE, STORY, 1])
        assert await one.page.evaluate(PLAY, [NODE, STORY, 2]) == once
        changed = [
            told["type"]
            for told, before, after in zip(STORY[1:], once, once[1:], strict=False)
            if before == after
        ]
        assert changed == ["tap.started"], "every other event of the story says something new"


async def test_the_whole_way_of_a_call_for_help_is_kept(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        chromium() as browser,
        screen(browser, desk.address, "/agent", "") as one,
    ):
        states = await one.page.evaluate(PLAY, [NODE, STORY, 1])
        after = {told["type"]: state for told, state in zip(STORY, states, strict=True)}
        alert = dict(after["alert.unanswered"]["alerts"])[ALERT]
        assert (alert["stage"], alert["step"], alert["to"]) == ("all", 2, ["lee", "choi"])
        assert [(no["by"], no["reason"]) for no in alert["refusals"]] == [("lee", "in_call")]
        assert alert["offers"] == ["end", "promise_call_back"]
        ended = after["call.ended"]["ended"]
        assert (ended["help"], ended["peak"], ended["warnings"]) == ("taken", 3, 1)
        assert ended["guard"] == "down", "protection as it was when the call ended"
        assert after["call.ended"]["calls"] == []
        # What is asked of the API later says the same as what the events said.
        told = {
            "alert_id": ALERT,
            "call_id": CALL,
            "kind": "help",
            "level": 3,
            "categories": [],
            "raised_ts": 6,
            "acknowledged_ts": None,
            "acknowledged_by": "",
            "escalation": {
                "step": 2,
                "stage": "all",
                "asking": "",
                "told": ["lee", "choi"],
                "refusals": alert["refusals"],
                "next_in_s": None,
                "unanswered": True,
            },
        }
        loaded = await one.page.evaluate(
            """async ([node, alert]) => {
              const { loaded } = await import("/console/state.js");
              return loaded(node, [], [alert]).alerts.get(alert.alert_id);
            }""",
            [NODE, told],
        )
        for key in ("stage", "step", "refusals", "unanswered", "offers"):
            assert loaded[key] == alert[key], key


async def test_a_call_of_a_node_that_is_not_heard_is_no_calm_one(tmp_path: Path) -> None:
    def at(event_type: str, ts: float, **fields: Any) -> dict[str, Any]:
        return event(event_type, ts, node="node-b", **fields)

    def silent(part: str, degraded: bool) -> dict[str, Any]:
        told = {"type": "node.degraded", "ts": 9, "component": part}
        return {**told, "degraded": degraded, "reason": "x"}

    story = [
        at("call.started", 1, agent_id="1001"),
        at("notice.finished", 2, source="played", tapped=True),
        at("alert.raised", 3, alert_id=ALERT, agent_id="1001", kind="risk", level=3, categories=[]),
        silent("node:node-b", True),
        silent("node:node-b", False),
        silent("detector", True),
        silent("detector", False),
        silent("node-b/detector", True),
        silent("node-b/detector", False),
        silent("cluster", True),
    ]
    async with (
        desk_in_process(tmp_path) as desk,
        chromium() as browser,
        screen(browser, desk.address, "/supervisor", "") as one,
    ):
        seen = await one.page.evaluate(
            """async ([node, story, call]) => {
              const { apply, loaded, openAlerts, protection } = await import("/console/state.js");
              const { downText } = await import("/console/strings.js");
              const state = loaded(node, [], []);
              return story.map((event) => {
                apply(state, event);
                const down = [...state.degraded.keys()].map(downText).join();
                return [protection(state, state.calls.get(call)), openAlerts(state).length, down];
              });
            }""",
            [NODE, story, CALL],
        )
    assert [(guard, alerts) for guard, alerts, _ in seen] == [
        ("wait", 0), ("on", 0), ("on", 1),
        ("down", 0), ("on", 1),  # nobody can take its alert while it is not heard
        ("on", 1), ("on", 1),  # our own detector does not hear its calls
        ("down", 1), ("on", 1), ("down", 1),
    ]  # fmt: skip
    assert "node-b" in seen[3][2]
    assert "node-b" in seen[7][2]
