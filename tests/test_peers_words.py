"""Spoken Korean through a whole node: abuse raises the right alert, its innocent neighbours none.

The sentences are synthetic (tests/speech); everything between the caller's telephone and the
supervisor's screen is what runs at a site: SIP, G.711, tap, speech model, judge, redaction, fusion.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.peers.baresip import running_baresip
from tests.peers.node import running_node
from tests.peers.sound import RATE, write_tone, write_wav
from tests.speech_kit import sentences, speech_model

pytestmark = [pytest.mark.peers, pytest.mark.timeout(240)]

CALLER, PHONE = "127.0.0.4", "127.0.0.5"
#: Silence before the speech: longer than ringing and the one notice that is played here.
LEAD_S = 9.0
PAUSE_S = 1.5
EXTRA = '[notice]\nprompts = ["recording"]\n[transcriber]\nworkers = 1\nniceness = 0\n'
CALM = ("calm_07f", "calm_07m", "calm_08f", "calm_08m", "calm_05f")


def voice(folder: Path, *names: str) -> Path:
    """A caller who says these sentences, a pause after each."""
    parts = [np.zeros(int(LEAD_S * RATE))]
    for name in names:
        parts += [sentences()[name].samples / 32768, np.zeros(int(PAUSE_S * RATE))]
    return write_wav(folder / "caller.wav", np.concatenate([*parts, np.zeros(60 * RATE)]))


@pytest.mark.parametrize(
    ("name", "category", "level"),
    [
        ("bad_04f", "threat", 3),
        ("bad_12f", "profanity", 2),
        ("bad_06m", "insult", 2),
        ("bad_09m", "sexual_harassment", 3),
    ],
)
async def test_a_callers_abuse_raises_an_alert_of_its_kind(
    tmp_path: Path, name: str, category: str, level: int
) -> None:
    speech_model()
    async with (
        running_baresip(
            tmp_path / "agent", PHONE, "1001", write_tone(tmp_path / "agent.wav", 425, 90, 0.0)
        ) as agent,
        running_baresip(
            tmp_path / "caller", CALLER, "01000000000", voice(tmp_path, "calm_12f", name)
        ) as caller,
        running_node(tmp_path / "node", {"1001": agent.uri}, peer=CALLER, extra=EXTRA) as node,
        node.watch("supervisor") as supervisor,
        node.watch("1001") as console,
    ):
        await caller.command("dial", node.uri("1001"))
        alert = await supervisor.wait("alert.raised", timeout_s=90)
        assert (alert["kind"], alert["level"]) == ("risk", level)
        assert category in alert["categories"]
        assert "shouting" not in alert["categories"]
        # The agent reads why; a supervisor whom nobody called does not.
        told = await console.wait("risk.changed", lambda event: event["level"] == level)
        assert told["words_confirmed"]
        assert not told["acoustic_only"]
        assert told["reasons"][0]["words"]
        seen = await supervisor.wait("risk.changed", lambda event: event["level"] == level)
        assert not seen.get("reasons")
        # No word of it stands in any log.
        log = node.log_path.read_text(encoding="utf-8")
        assert all(word not in log for word in told["reasons"][0]["words"])


async def test_words_that_only_look_like_abuse_raise_nothing(tmp_path: Path) -> None:
    """시발점 and 새끼손가락 among them, however the recogniser spells them."""
    speech_model()
    async with (
        running_baresip(
            tmp_path / "agent", PHONE, "1001", write_tone(tmp_path / "agent.wav", 425, 90, 0.0)
        ) as agent,
        running_baresip(
            tmp_path / "caller", CALLER, "01000000000", voice(tmp_path, *CALM)
        ) as caller,
        running_node(tmp_path / "node", {"1001": agent.uri}, peer=CALLER, extra=EXTRA) as node,
        node.watch("1001") as console,
    ):
        await caller.command("dial", node.uri("1001"))
        await console.wait("tap.started")
        said_s = LEAD_S + sum(len(sentences()[n].samples) / RATE + PAUSE_S for n in CALM)
        with pytest.raises(AssertionError, match=r"no risk\.changed"):
            await console.wait("risk.changed", timeout_s=said_s + 5)
        # Not because nobody listened: every sentence was written down and judged.
        heard = await node.wait_for_log("words_heard", count=len(CALM))
        assert not any(line["abusive"] or line["crisis"] for line in heard)
        assert not console.seen("alert.raised")
