"""Feature codes on the agent's phone."""

from __future__ import annotations

from callshield.messages import Action
from sipbridge.digits import MAX_GAP_S, FeatureCodes

CODES = {"*9#": Action.END, "*8#": Action.HELP, "*0#": Action.SKIP_NOTICE}


def press(codes: FeatureCodes, digits: str, gap_s: float = 0.2) -> list[Action]:
    actions = [codes.press(digit, index * gap_s) for index, digit in enumerate(digits)]
    return [action for action in actions if action is not None]


def test_code_is_found_wherever_it_stands() -> None:
    assert press(FeatureCodes(CODES), "123*9#45*8#") == [Action.END, Action.HELP]


def test_part_of_a_code_is_nothing() -> None:
    assert press(FeatureCodes(CODES), "9#*9*#*") == []


def test_a_slow_code_is_no_code() -> None:
    assert press(FeatureCodes(CODES), "*9#", gap_s=MAX_GAP_S + 0.1) == []


def test_one_code_acts_once() -> None:
    assert press(FeatureCodes(CODES), "*9##") == [Action.END]
