"""Emergency lines, vulnerable customers, relay services: no way past a person (``[callers]``).

The bridge refuses every automatic step with them (``test_call_notice``); here nothing asks it to,
nothing says that it would happen, and the agent sees why.
"""

from __future__ import annotations

import ast
import asyncio
import re
import time
from pathlib import Path
from typing import get_args

import pytest

from callshield.messages import Action, CallStarted
from callshield.messages_fairness import CallerEnded
from callshield.messages_notice import Spared
from notifier.call_length import Prompt
from notifier.policy import Advisor, may_act, may_act_by_length
from notifier.views import call_view
from tests.notifier_kit import WITHIN_S, Bridge, desk_in_process, new_call_id
from tests.test_policy import MIN, call, policies, public

ROOT = Path(__file__).parent.parent
KINDS = tuple(kind for kind in get_args(Spared) if kind)


def test_there_are_three_kinds() -> None:
    assert set(KINDS) == {"never_automatic", "vulnerable", "relay_service"}


@pytest.mark.parametrize("spared", KINDS)
def test_no_policy_of_length_ends_their_calls_or_says_that_it_will(spared: str) -> None:
    one = call(0, spared=spared)
    lengths = public(length_end_automatically=True)
    # The agent is offered the end, as with everybody, and no time stands beside it.
    assert lengths.due(one, 20 * MIN) == ([Prompt("end_offered", 20, 0.0)], False)
    assert not any(lengths.due(one, minute * MIN)[1] for minute in range(21, 300))
    assert not may_act_by_length(one)
    assert may_act_by_length(call(0)), "the control"


@pytest.mark.parametrize("spared", KINDS)
def test_no_warning_plays_to_them_by_itself(spared: str) -> None:
    wanted = policies(policy={"automatic_warnings": True})
    confirmed = {"may_trigger": True, "words_confirmed": True}
    assert not Advisor(wanted).warns_now(call(3, "threat", spared=spared, **confirmed), 1.0)
    assert not may_act(call(3, "threat", spared=spared, **confirmed))
    assert Advisor(wanted).warns_now(call(3, "threat", **confirmed), 1.0), "the control"


@pytest.mark.parametrize("spared", KINDS)
def test_the_agent_sees_it_in_every_language_and_a_supervisor_does_not(spared: str) -> None:
    one = call(0, spared=spared)
    assert call_view(one, to_agent=True)["spared"] == spared
    assert "spared" not in call_view(one, to_agent=False, help_asked=True)
    for language in ("ko", "en", "zh", "ja"):
        path = ROOT / "notifier" / "console" / f"strings.{language}.js"
        assert re.search(rf'"spared\.{spared}": "[^"]+"', path.read_text(encoding="utf-8"))


def start(bridge: Bridge, agent_id: str, spared: str) -> str:
    call_id = new_call_id()
    started = CallStarted(
        ts=time.time(), call_id=call_id, agent_id=agent_id, pbx_call_id="x", pbx="pbx",
        spared=spared,  # type: ignore[arg-type]
    )  # fmt: skip
    bridge.calls[call_id] = started
    bridge.send(started)
    bridge.answer_call(call_id)
    return call_id


async def test_with_automatic_warnings_on_the_bridge_is_asked_for_others_alone(
    tmp_path: Path,
) -> None:
    """And nobody's number is marked after a person ended such a call: a relay's number is that of
    all who need it."""
    extra = """
[ringback]
enabled = true
[supervisors.a]
uri = "sip:a@192.0.2.30"
[teams.north]
supervisors = ["a"]
[teams.north.policy]
automatic_warnings = true
"""
    async with (
        desk_in_process(tmp_path, extra, 'team = "north"') as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as console,
    ):
        spared = {kind: start(bridge, "1001", kind) for kind in KINDS}
        other = start(bridge, "1002", "")
        for call_id in (*spared.values(), other):
            bridge.words(call_id, 3, "욕*")
            await console.until("risk.changed", call_id=call_id)
        async with asyncio.timeout(WITHIN_S):
            while not bridge.commands:
                bridge.asked.clear()
                await bridge.asked.wait()
        for number, call_id in enumerate((*spared.values(), other)):
            bridge.ending(call_id)
            mark = f"{number:02x}" * 32
            bridge.send(CallerEnded(ts=time.time(), call_id=call_id, mark=mark, key_id="k"))
            bridge.end_call(call_id)
            await console.until("call.ended", call_id=call_id)
        async with asyncio.timeout(WITHIN_S):
            while not bridge.recent_ends:
                bridge.asked.clear()
                await bridge.asked.wait()
        # The control: the other caller was warned, and is known again.
        assert [(c.call_id, c.action, c.by) for c in bridge.commands] == [
            (other, Action.WARN, "policy")
        ]
        assert [mark.mark for mark in bridge.recent_ends] == [f"{len(KINDS):02x}" * 32]


# ------------------------------------------------------------------ who says "automatic", and how


def steps_by(source: str) -> set[str]:
    """What calls of ``_act``, ``ask`` and ``act`` say about who wanted a step, as it is written."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            named = [ast.unparse(one) for one in node.args]
            if node.func.attr in ("_act", "ask", "_ask", "act") and any(
                one.startswith("Action.") or one == "action" for one in named
            ):
                found.update(named[2:3])
    return found


def test_whatever_a_process_does_by_itself_says_so() -> None:
    """The bridge knows an automatic step by its name; a person's has the person's."""
    found: dict[str, set[str]] = {}
    for folder in ("notifier", "firmware_profiles", "callshield"):
        for path in sorted((ROOT / folder).glob("*.py")):
            said = steps_by(path.read_text(encoding="utf-8"))
            if said:
                found[f"{folder}/{path.name}"] = said
    # There ``by`` is handed on by ``_act`` itself.
    assert found.pop("notifier/escalating.py") == {"'policy'", "'policy:length'", "by"}
    # The rest are presses: of a screen, with its token's role, and of a phone's key.
    assert found == {
        "notifier/routes.py": {"by"},
        "notifier/aftercare.py": {"by"},  # the call-back that the agent promises
        "notifier/phone_keys.py": {"BY_PHONE"},
    }
    # Negative control.
    added = "def f(self):\n    self._act(call_id, Action.END, 'agent:timer')\n"
    assert steps_by(added) == {"'agent:timer'"}
