"""`callshield bench stall`: the media worker's Python stands still while calls go on.

The real worker runs as a process with one thread more, which on demand keeps Python's lock to
itself in a busy loop. The relay's thread in C needs no Python: nothing may be lost, nothing be
late, and a prompt that plays must go on.

``python -m sipbridge.bench_stall --config FILE`` is that worker. The judge takes any relay that can
be told to stand still, so that the tests can show what it says about one that does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import threading
import time
import wave
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from callshield import g711
from callshield.errors import CallshieldError
from sipbridge.bench_load import loud_speech
from sipbridge.bench_worker import (
    PBX_SIDE,
    PHONE_SIDE,
    Ends,
    FarEnds,
    Helper,
    StandIn,
    WorkerProcess,
)

_WARM_UP_S = 1.0
#: Of the load after the relay works again.
_AFTER_S = 2.0


# -------------------------------------------------------------------------- who stands still


def stand_still(seconds: float) -> tuple[int, int]:
    """Keep every other Python thread of this process waiting, busily.

    Returns:
        Begin and end, wall clock in ns.
    """
    usual_s = sys.getswitchinterval()
    # A thread that wants to run asks for the lock after this time: never, here.
    sys.setswitchinterval(seconds + 60)
    from_ns = time.time_ns()
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        pass
    to_ns = time.time_ns()
    sys.setswitchinterval(usual_s)
    return from_ns, to_ns


def obey() -> None:
    """Stand still for every number of seconds that standard input brings, and say when it was."""
    for line in sys.stdin:
        from_ns, to_ns = stand_still(float(json.loads(line)["stand_still_s"]))
        sys.stdout.write(json.dumps({"from_ns": from_ns, "to_ns": to_ns}) + "\n")
        sys.stdout.flush()


# ---------------------------------------------------------------------------------- the judge


class Relay(Protocol):
    """What is judged."""

    async def set_up(self, callers: Ends, agents: Ends) -> tuple[Ends, Ends]:
        """Where callers and agents have to send to."""

    async def stall(self, seconds: float) -> tuple[int, int]:
        """Stand still; begin and end, wall clock in ns."""


@dataclass(frozen=True, slots=True)
class Part:
    """The packets that were sent in one part of the time."""

    sent: int
    lost: int
    p50_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Part:
        """From the load generator's answer."""
        added = answer["added_ms"]
        lost = answer["sent"] - answer["received"]
        return cls(answer["sent"], lost, added["p50"], added["p99"], added["max"])


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happened to the calls."""

    calls: int
    stalled_s: float
    before: Part
    during: Part
    after: Part
    prompts: list[dict[str, float]]
    """What each prompted caller heard: packets, missing, longest_gap_ms."""


async def judge(
    relay: Relay, *, calls: int, stall_s: float, before_s: float, prompted: int = 0
) -> Verdict:
    """Let a relay carry calls and stand still meanwhile.

    Args:
        relay: to be judged.
        calls: two directions each, G.711, 20 ms.
        stall_s: how long it shall stand still.
        before_s: how long it is watched before.
        prompted: so many callers hear a prompt (which ``relay.stall`` begins).

    Raises:
        SetupError: a process died.
    """
    far_ends = await FarEnds.open(calls)
    try:
        targets = await relay.set_up(far_ends.callers, far_ends.agents)
        seconds = before_s + stall_s + _AFTER_S
        await far_ends.talk(targets, warm_up_s=_WARM_UP_S, seconds=seconds, prompted=prompted)
        await far_ends.hear()
        await asyncio.sleep(before_s)
        from_ns, to_ns = await relay.stall(stall_s)
        await far_ends.hear()
        report = await far_ends.hear()
        return Verdict(
            calls=calls,
            stalled_s=round((to_ns - from_ns) / 1e9, 2),
            before=Part.of(await far_ends.between(0, from_ns)),
            during=Part.of(await far_ends.between(from_ns, to_ns)),
            after=Part.of(await far_ends.between(to_ns, 1 << 62)),
            prompts=report["prompts"],
        )
    finally:
        await far_ends.finish()


# --------------------------------------------------------------------------------- the worker


class StallingWorker:
    """The real media worker, and a prompt for the last ``prompted`` calls.

    Args:
        folder: for its files.
        calls: all of them.
        prompted: calls whose caller hears a prompt.
        prompt_s: length of the prompt.
    """

    def __init__(self, folder: Path, *, calls: int, prompted: int, prompt_s: float) -> None:
        (folder / "run").mkdir(mode=0o700)
        self._worker = WorkerProcess(folder, calls, module="sipbridge.bench_stall")
        self.bridge = StandIn(self._worker.media_path, PBX_SIDE, PHONE_SIDE)
        self._reader: Helper | None = None
        self._prompted = prompted
        self._prompt = folder / "prompt.wav"
        samples = g711.decode(loud_speech(prompt_s), g711.PCMU).astype(np.int16)
        with wave.open(str(self._prompt), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(g711.SAMPLE_RATE_HZ)
            file.writeframes(samples.astype("<i2").tobytes())

    async def set_up(self, callers: Ends, agents: Ends) -> tuple[Ends, Ends]:
        """Start it, and a reader for its tap; see :class:`Relay`."""
        await self._worker.start()
        await self.bridge.connect()
        self._reader = await Helper.start("sipbridge.bench_load", "tap", str(self._worker.tap_path))
        await self._reader.hear()
        return await self.bridge.set_up(callers, agents, tap=True)

    async def stall(self, seconds: float) -> tuple[int, int]:
        """Begin the prompts and stand still; see :class:`Relay`."""
        for call_id in self.bridge.call_ids[len(self.bridge.call_ids) - self._prompted :]:
            self.bridge.play(call_id, self._prompt)
        await asyncio.sleep(0.2)
        assert self._worker.process is not None
        await self._worker.process.say(stand_still_s=seconds)
        answer = await self._worker.process.hear()
        return answer["from_ns"], answer["to_ns"]

    @property
    def python_gap_s(self) -> float:
        """The longest time without a sign of life of the worker's Python (one a second else)."""
        times = self.bridge.stats_at
        return max(after - before for before, after in pairwise(times))

    async def tap_delivered_pct(self) -> float:
        """Close the calls; how much of the callers' audio the tap's reader got."""
        assert self._reader is not None
        accepted = await self.bridge.close_calls()
        self._reader.end_input()
        frames = int((await self._reader.hear())["frames"])
        return round(100.0 * frames / max(accepted, 1), 3)

    async def stop(self) -> None:
        """End everything."""
        await self.bridge.close()
        if self._reader is not None:
            await self._reader.finish()
        await self._worker.stop()


@dataclass(frozen=True, slots=True)
class StallBench:
    """What `callshield bench stall` prints."""

    verdict: Verdict
    python_gap_s: float
    """How long the worker's Python really gave no sign of life."""
    tap_delivered_pct: float
    prompts_complete: int
    """Prompts of which the worker said afterwards that they were played to their end."""


async def measure(
    calls: int, stall_s: float, *, prompted: int = 20, before_s: float = 3.0
) -> StallBench:
    """Let the worker's Python stand still under load.

    Args:
        calls: on the relay.
        stall_s: how long.
        prompted: so many callers hear a prompt over the whole time.
        before_s: how long it is watched before.

    Raises:
        SetupError: a process died.
    """
    with tempfile.TemporaryDirectory(prefix="callshield-bench-") as name:
        worker = StallingWorker(
            Path(name), calls=calls, prompted=prompted, prompt_s=stall_s + _AFTER_S / 2
        )
        try:
            verdict = await judge(
                worker, calls=calls, stall_s=stall_s, before_s=before_s, prompted=prompted
            )
            gap_s = round(worker.python_gap_s, 2)
            tapped = await worker.tap_delivered_pct()
            complete = sum(one.complete for one in worker.bridge.played)
            return StallBench(verdict, gap_s, tapped, complete)
        finally:
            await worker.stop()


def run(calls: int, stall_s: float, *, as_json: bool) -> int:
    """The command `callshield bench stall`; prints, and returns the exit status.

    Raises:
        SetupError: a process died.
    """
    result = asyncio.run(measure(calls, stall_s))
    if as_json:
        sys.stdout.write(json.dumps(asdict(result)) + "\n")
        return 0
    verdict = result.verdict
    lines = [
        f"{verdict.calls} calls; the media worker's Python stood still for "
        f"{verdict.stalled_s:.1f} s (no sign of life for {result.python_gap_s:.1f} s)",
    ]
    for name in ("before", "during", "after"):
        part: Part = getattr(verdict, name)
        lines.append(
            f"  {name:<7} {part.lost} of {part.sent} packets lost; added p50 {part.p50_ms:.3f}, "
            f"p99 {part.p99_ms:.3f}, max {part.max_ms:.3f} ms"
        )
    missing = sum(one["missing"] for one in verdict.prompts)
    gap_ms = max(one["longest_gap_ms"] for one in verdict.prompts)
    lines += [
        f"  {result.prompts_complete} of {len(verdict.prompts)} prompts played to their end; "
        f"{missing:.0f} packets missing, longest gap between two {gap_ms:.1f} ms",
        f"  tap delivered {result.tap_delivered_pct:.2f} %",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def main() -> int:
    """The media worker, with a thread that makes its Python stand still on demand."""
    from sipbridge import media_worker

    threading.Thread(target=obey, name="stall", daemon=True).start()
    try:
        return media_worker.main(sys.argv[1:])
    except CallshieldError as error:
        sys.stderr.write(f"{error}\n")
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
