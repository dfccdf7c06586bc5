"""Nothing automatic follows from sound alone, or in a crisis; a person's press always counts."""

from __future__ import annotations

import pytest

from callshield.messages import Action
from tests.test_call import connected

AUTOMATIC = (Action.WARN, Action.END, Action.HAND_OVER)


@pytest.mark.parametrize("action", AUTOMATIC)
def test_an_automatic_step_takes_a_level_that_may_trigger_one(action: Action) -> None:
    call = connected()
    call.on_risk(2)
    outcome, why, steps = call.act(action, "policy")
    assert (outcome, steps) == ("not_now", [])
    assert why == "Nothing automatic follows from sound alone."
    call.on_risk(3, may_trigger=True)
    call.on_risk(2)
    assert call.act(action, "policy")[0] == "not_now", "it is the level of now that counts"


@pytest.mark.parametrize("action", [Action.WARN, Action.END])
def test_confirmed_words_may_trigger_it(action: Action) -> None:
    """Control of the test above."""
    call = connected()
    call.on_risk(2, may_trigger=True)
    assert call.act(action, "policy")[0] == "done"


@pytest.mark.parametrize("action", AUTOMATIC)
def test_in_a_crisis_nothing_automatic_warns_or_ends(action: Action) -> None:
    call = connected()
    call.on_crisis()
    call.on_risk(3, may_trigger=True)
    outcome, why, steps = call.act(action, "policy")
    assert (outcome, steps) == ("not_now", [])
    assert why == "The caller may be in danger: a person decides."


def test_a_call_that_lasted_too_long_may_end_without_a_level_but_not_in_a_crisis() -> None:
    call = connected()
    assert call.act(Action.WARN, "policy:length")[0] == "not_now"
    assert call.act(Action.END, "policy:length")[0] == "done"
    crisis = connected()
    crisis.on_crisis()
    assert crisis.act(Action.END, "policy:length")[0] == "not_now"


@pytest.mark.parametrize("action", [Action.WARN, Action.END])
def test_the_agent_can_do_what_he_wants_at_every_level_and_in_a_crisis(action: Action) -> None:
    calm, crisis = connected(), connected()
    crisis.on_crisis()
    for call in (calm, crisis):
        assert call.act(action, "agent:console")[0] == "done"
