"""What says of a page or a record that it names nobody: it finds who is named, and nothing else."""

from __future__ import annotations

import json

import pytest

from tests.mentions import labelled, mentioned


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"agent_id": "1001"}),
        json.dumps({"of": ["sip:1001@192.0.2.1"]}),
        json.dumps({"agent": 1001}),
        "상담원 1001번입니다",
        "It is agent 1001.",
        "PJSIP/1001-000000a3",
        "agent=1001,",
        "/api/v1/agents/1001/rest",
    ],
)
def test_who_is_named_is_found(text: str) -> None:
    assert mentioned("1001", text)


@pytest.mark.parametrize(
    "text",
    [
        "process_start_time_seconds 1.7639100144e+09",
        "lag_seconds_sum 0.0031001",
        json.dumps({"ts": 1763910010.01, "at_s": 1001.5}),
        json.dumps({"call_id": "7f1001c4d0e64a1bb7ab0d1001fe0142"}),
        json.dumps({"call_id": "1001c4d0e64a1bb7ab0d10f1fe01421f"}),
    ],
)
def test_digits_of_a_time_a_figure_or_an_id_name_nobody(text: str) -> None:
    """What plain ``in`` took for a person."""
    assert not mentioned("1001", text)


def test_a_person_in_a_label_would_be_seen() -> None:
    """Negative control: an agent's id as a label is found, the same figure as a count is not."""
    assert "1001" in labelled('calls_total{agent="1001"} 4.0\n')
    assert "1001" not in labelled('calls_total{type="risk"} 1001.0\n')
