"""What the tests of evidence packages share: a call with a past, a recording, and the command."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from callshield import g711
from callshield.messages import (
    Action,
    CallAnswered,
    CallEnded,
    CallEnding,
    CallStarted,
    NoticeFinished,
    NoticeStarted,
    PromptStamp,
    Reason,
    RecordingChanged,
    RiskChanged,
    TapStarted,
    WarningPlayed,
)
from callshield.notifier_request import TOKEN_VARIABLE
from callshield.settings import RecordingSettings
from sipbridge.recorder import Recorder
from tests.notifier_kit import Bridge, Console, Desk, desk_in_process, new_call_id
from tests.recording_kit import Changes, record, settings_in
from tests.test_aftercare import get, post, say

RATE = 8000
FRAME = 160
PROMPTS = Path(__file__).parent.parent / "sipbridge" / "prompts"
SPOKEN = "warning_1"
"""The prompt that the caller of these tests says: real speech with a known text."""
QUOTE = "죽여버린다"


def speech(name: str = SPOKEN, language: str = "ko") -> NDArray[np.int16]:
    """A prompt as somebody's voice, 8 kHz."""
    samples, rate = soundfile.read(PROMPTS / language / f"{name}.wav", dtype="int16")
    step = rate // RATE
    return np.asarray(samples[::step], np.int16)


def record_call(
    settings: RecordingSettings, call_id: str, caller: NDArray[np.int16], agent: NDArray[np.int16]
) -> float:
    """Record both sides as the media worker hands them over; gives when it began."""
    changes = Changes()
    recorder = Recorder(settings, changes)
    recorder.start(call_id)
    changes.expect(call_id, "recording")
    began_ns = time.time_ns()
    for channel, samples in ((0, caller), (1, agent)):
        for n in range(len(samples) // FRAME):
            payload = g711.encode(samples[n * FRAME : (n + 1) * FRAME], g711.PCMU)
            at_ns = began_ns + n * 20_000_000
            recorder.feed(record(call_id, channel, payload, timestamp=n * FRAME, at_ns=at_ns))
    recorder.stop(call_id)
    recorder.close()
    return began_ns / 1e9


def tell_call(bridge: Bridge, call_id: str, began_ts: float, length_s: float) -> None:
    """A call that got bad, told by the bridge from its beginning to its end."""
    agent, ids = {"agent_id": "1001", "call_id": call_id}, {"call_id": call_id}
    start = began_ts - 9.0
    stamps = [
        PromptStamp(
            prompt_id=name,
            version="2026-10-01",
            sha256=f"{n}" * 64,
            started_ts=start + 2 + 3 * n,
            finished_ts=start + 5 + 3 * n,
            complete=True,
            language="ko",
        )
        for n, name in enumerate(("recording", "abuse_prevention"))
    ]
    reason = Reason(kind="words", score=0.97, rule="abusive_words", words=[QUOTE])
    end = began_ts + length_s
    told = [
        CallStarted(ts=start, pbx_call_id="1763.7", **agent),
        CallAnswered(ts=start + 2, **agent),
        NoticeStarted(ts=start + 2, **agent),
        NoticeFinished(
            ts=start + 9, source="played", prompts=stamps, tapped=True, key="1", **agent
        ),
        TapStarted(ts=start + 9, **ids),
        RecordingChanged(ts=began_ts, state="recording", **ids),
        RiskChanged(
            ts=began_ts + 1, level=1, previous=0, categories=["shouting"], score=0.6, **ids
        ),
        RiskChanged(
            ts=began_ts + 2,
            level=3,
            previous=1,
            categories=["threat", "profanity"],
            score=0.9,
            reasons=[reason],
            words_confirmed=True,
            **ids,
        ),
        WarningPlayed(ts=began_ts + 3, grade=1, complete=True, **agent),
        CallEnding(ts=end - 1, by="agent:console", **agent),
        CallEnded(ts=end, reason="ended_with_announcement", duration_s=end - start - 2, **agent),
        RecordingChanged(ts=end, state="stopped", **ids),
    ]
    for message in told:
        bridge.send(message)


@dataclass
class Case:
    """A running notifier, and a call whose agent asked for the evidence."""

    desk: Desk
    bridge: Bridge
    agent: Console
    recording: RecordingSettings
    config: Path
    folder: Path
    admin: str
    call_id: str
    request_id: str
    caller: NDArray[np.int16]
    other: NDArray[np.int16]
    """What the agent said."""
    began_ts: float
    """When both began to speak."""

    async def approve(self) -> None:
        await post(self.desk, f"/requests/{self.request_id}/approve", self.desk.supervisor)

    async def run(
        self, *words: str, token: str | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """``callshield evidence …`` as a person types it."""
        return await asyncio.to_thread(
            evidence, self.config, *words, token=self.admin if token is None else token, **variables
        )

    async def export(self, *words: str, name: str = "package.zip") -> Path:
        """Make a package; it must work."""
        out = self.folder / name
        done = await self.run("export", self.call_id, "-o", str(out), *words)
        assert done.returncode == 0, done.stderr
        return out

    async def public_key(self) -> Path:
        path = self.folder / "node.pem"
        done = await self.run("key", "--out", str(path))
        assert done.returncode == 0, done.stderr
        return path


def evidence(
    config: Path | None, *words: str, token: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """``callshield evidence …``, in a process of its own."""
    return command(config, "evidence", *words, token=token, **variables)


def command(
    config: Path | None, *words: str, token: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """``callshield …``, in a process of its own."""
    where = () if config is None else ("--config", str(config))
    return subprocess.run(
        [sys.executable, "-m", "callshield.cli", *words, *where],
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, TOKEN_VARIABLE: token, **variables},
    )


@asynccontextmanager
async def case(
    folder: Path, extra: str = "", *, recorded: bool = True, ask: bool = True
) -> AsyncIterator[Case]:
    """A call that is over, and recorded, and asked for."""
    recording = settings_in(folder)
    toml = (
        f'[recording]\nenabled = true\ndirectory = "{recording.directory}"\n'
        f'key_file = "{recording.key_file}"\nmin_free_mib = 1\n'
        f'[evidence]\nkey_file = "{folder / "evidence.key"}"\n'
        '[law]\ngrievance_contact = "고충처리위원회"\n'
    )
    caller, other = speech(), speech("recording", "ko") // 4
    async with (
        desk_in_process(folder, toml + extra) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
    ):
        call_id = new_call_id()
        began = time.time()
        if recorded:
            began = await asyncio.to_thread(record_call, recording, call_id, caller, other)
        tell_call(bridge, call_id, began, len(caller) / RATE)
        await agent.until("call.ended", call_id=call_id)
        # In a process of its own, as ever: this one's closing the database's file would take the
        # running notifier's locks on it away (fcntl(2)), for they are in one process here.
        words = ("token", "create", "--role", "admin", "--name", "boss")
        made = await asyncio.to_thread(command, folder / "callshield.toml", *words)
        admin = made.stdout.strip()
        said: dict[str, Any] = {"request_id": ""}
        if ask:
            said = await say(desk, call_id, action="evidence")
        yield Case(
            desk=desk,
            bridge=bridge,
            agent=agent,
            recording=recording,
            config=folder / "callshield.toml",
            folder=folder,
            admin=admin,
            call_id=call_id,
            request_id=said["request_id"],
            caller=caller,
            other=other,
            began_ts=began,
        )


__all__ = ["QUOTE", "RATE", "Action", "Case", "case", "evidence", "get", "post", "say", "speech"]
