"""`callshield bench pipeline`: from a caller's shout to the alert, under load.

The real media worker carries calls whose callers talk (:mod:`callshield.bench_speech`), sent by a
process of its own. For a first while nothing is tapped: that is the relay without analysis. Then
the tap of all calls opens, and the real detector and transcribers, loaded before, hear everybody
until the end. The load notes when it sent each shout and each abusive sentence; this process
stands where the notifier would and notes when each ``risk.changed`` arrived. Both on one clock.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from callshield.bench_alerts import Arrived, Cause, delays_ms, summary
from callshield.bench_processes import Analysis
from callshield.bench_speech import ROUNDS_PER_S, Said, script, shipped_clips, speech_share
from callshield.errors import SetupError
from sipbridge.bench_relay import Progress
from sipbridge.bench_worker import (
    PBX_SIDE,
    PHONE_SIDE,
    FarEnds,
    StandIn,
    WorkerProcess,
    cpu_s,
    rss_mib,
)

_WARM_UP_S = 2.0
#: Without analysis: a third of the measured time, within these bounds, seconds.
_BEFORE_S = (5.0, 30.0)
#: The taps open one after the other over this time: the detector judges a call every half second
#: from its own beginning, and calls begin at different moments.
_OPENING_S = 0.5
#: After the load's end alerts still count for so long, seconds; a second of it is the load's own.
_LATE_S = 2.5
#: So long before the end a shout must have begun, and a sentence have ended, to be expected.
_SHOUT_MARGIN_S, _WORDS_MARGIN_S = 2.5, 3.0


@dataclass(frozen=True, slots=True)
class PipelineLoad:
    """What is measured."""

    calls: int
    seconds: float
    """With analysis; a third of it before without."""
    transcribers: int = 0
    """0: no words."""
    speech_model: Path | None = None
    """Folder of the recogniser's model; None: the one that is installed."""
    seed: int = 1
    """Who says what when: the same one makes the same callers."""

    @property
    def before_s(self) -> float:
        """Seconds of measuring without analysis."""
        return min(max(self.seconds / 3, _BEFORE_S[0]), _BEFORE_S[1])

    @property
    def first(self) -> int:
        """The round in which the tap opens."""
        return int((_WARM_UP_S + self.before_s) * ROUNDS_PER_S)

    @property
    def rounds(self) -> int:
        """Of the whole load."""
        return int(_WARM_UP_S * ROUNDS_PER_S) + int((self.before_s + self.seconds) * ROUNDS_PER_S)


@dataclass(frozen=True, slots=True)
class _Relayed:
    """What the load saw."""

    before: dict[str, Any]
    during: dict[str, Any]
    report: dict[str, Any]
    sent_ns: dict[tuple[int, int], int]
    opened_ns: list[int]
    """When each call's tap was opened, wall clock."""
    cpu_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class _Expected:
    """Something that has to make an alert."""

    caller: int
    kind: Literal["acoustic", "words"]
    begins: int
    """Round of its first audible packet."""
    ends: int
    """Of its last, or of the load's."""
    aroused: bool
    """The caller had shouted before."""


def _expected(load: PipelineLoad, scripts: list[list[Said]]) -> list[_Expected]:
    found = []
    latest_shout = load.rounds - int(_SHOUT_MARGIN_S * ROUNDS_PER_S)
    latest_words = load.rounds - int(_WORDS_MARGIN_S * ROUNDS_PER_S)
    for caller, said in enumerate(scripts):
        roused = False
        for one in said:
            if (one.clip.kind == "shout" and one.begins <= latest_shout) or (
                one.clip.kind == "abuse" and one.ends <= latest_words
            ):
                kind: Literal["acoustic", "words"] = (
                    "acoustic" if one.clip.kind == "shout" else "words"
                )
                ends = min(one.ends, load.rounds - 1)
                found.append(_Expected(caller, kind, one.begins, ends, roused))
            roused = roused or one.clip.kind == "shout"
    return found


def _causes(expected: list[_Expected], seen: _Relayed, call_ids: list[str]) -> list[Cause]:
    causes = []
    for one in expected:
        begun_ns = seen.sent_ns[one.caller, one.begins]
        ended_ns = seen.sent_ns[one.caller, one.ends]
        if begun_ns and ended_ns:
            causes.append(
                Cause(
                    kind=one.kind,
                    call_id=call_ids[one.caller],
                    begun_ns=begun_ns,
                    ended_ns=ended_ns,
                    audio_s=(begun_ns - seen.opened_ns[one.caller]) / 1e9,
                    aroused=one.aroused,
                )
            )
    return causes


def judged(causes: list[Cause], arrived: list[Arrived]) -> dict[str, dict[str, Any]]:
    """Alerts by what made them: ``all``, ``acoustic`` (level 2), ``words``, and of the words those
    of callers who had shouted and of those who had not; ``caution``: the first step up that a
    shout made, no alert yet and not in ``all``."""
    steps = [replace(one, kind="caution") for one in causes if one.kind == "acoustic"]
    every = [*causes, *steps]
    found = list(zip(every, delays_ms(every, arrived), strict=True))
    groups: dict[str, Callable[[Cause], bool]] = {
        "all": lambda one: one.kind != "caution",
        "acoustic": lambda one: one.kind == "acoustic",
        "caution": lambda one: one.kind == "caution",
        "words": lambda one: one.kind == "words",
        "words_aroused": lambda one: one.kind == "words" and one.aroused,
        "words_calm": lambda one: one.kind == "words" and not one.aroused,
    }
    return {
        name: summary([delay for cause, delay in found if belongs(cause)])
        for name, belongs in groups.items()
    }


async def _tick(name: str, seconds: float, progress: Progress) -> None:
    began_s = time.monotonic()
    while (passed_s := time.monotonic() - began_s) < seconds:
        progress(name, passed_s / seconds)
        await asyncio.sleep(0.5)
    progress(name, 1.0)


async def _under_load(
    load: PipelineLoad,
    far_ends: FarEnds,
    bridge: StandIn,
    worker: WorkerProcess,
    analysis: Analysis,
    scripts: list[list[Said]],
    progress: Progress,
) -> tuple[_Relayed, dict[str, Any]]:
    clips = sorted({str(one.clip.path) for said in scripts for one in said})
    numbers = {path: number for number, path in enumerate(clips)}
    targets = await bridge.set_up(far_ends.callers, far_ends.agents, tap=False)
    await far_ends.talk(
        targets,
        warm_up_s=_WARM_UP_S,
        seconds=load.before_s + load.seconds,
        clips=clips,
        said=[[(numbers[str(one.clip.path)], one.at) for one in said] for said in scripts],
    )
    await far_ends.hear()
    await _tick("relay, nothing analysed", load.before_s, progress)
    begun_ns, begun_s, cpu_before_s = time.time_ns(), time.monotonic(), cpu_s(worker.pid)
    analysis.begin()
    opened_ns = []
    for call_id in bridge.call_ids:
        bridge.tap(call_id)
        opened_ns.append(time.time_ns())
        await asyncio.sleep(_OPENING_S / load.calls)
    ticker = asyncio.create_task(_tick("relay, all analysed", load.seconds, progress))
    try:
        await far_ends.hear()
        took_s = time.monotonic() - begun_s
        took_cpu_s = cpu_s(worker.pid) - cpu_before_s
        report = await far_ends.hear()
        late_s = load.seconds + _LATE_S - (time.monotonic() - begun_s)
        await asyncio.sleep(max(0.0, late_s))
    finally:
        ticker.cancel()
    cost = {
        "detector": analysis.detector.cost(time.monotonic() - begun_s),
        "transcribers": [one.cost(time.monotonic() - begun_s) for one in analysis.transcribers],
        "rss_mib": round(rss_mib(worker.pid), 1),
    }
    wanted = [(one.caller, at) for one in _expected(load, scripts) for at in (one.begins, one.ends)]
    sent_ns = dict(zip(wanted, await far_ends.when(wanted), strict=True))
    seen = _Relayed(
        before=await far_ends.between(0, begun_ns),
        during=await far_ends.between(begun_ns, 1 << 62),
        report=report,
        sent_ns=sent_ns,
        opened_ns=opened_ns,
        cpu_s=took_cpu_s,
        seconds=took_s,
    )
    return seen, cost


async def measure(
    load: PipelineLoad,
    *,
    progress: Progress = lambda _name, _done: None,
    on_detector: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Run the benchmark; the result is the black-box interface (docs/performance.md).

    Args:
        load: what to measure.
        progress: told now and then.
        on_detector: told the detector's process id once it is ready; tests stop it.

    Raises:
        SetupError: a process did not start or died, or a model is missing.
    """
    clips = shipped_clips()
    words = bool(load.transcribers)
    scripts = [
        script(clips, call, load.first, load.rounds, words=words, seed=load.seed)
        for call in range(load.calls)
    ]
    with tempfile.TemporaryDirectory(prefix="callshield-bench-") as name:
        folder = Path(name)
        (folder / "run").mkdir(mode=0o700)
        worker = WorkerProcess(folder, load.calls)
        bridge = StandIn(worker.media_path, PBX_SIDE, PHONE_SIDE)
        analysis = Analysis(folder, load.transcribers, load.speech_model)
        far_ends: FarEnds | None = None
        try:
            await worker.start()
            await bridge.connect()
            progress("loading models", 0.0)
            await analysis.start()
            progress("loading models", 1.0)
            if on_detector is not None:
                on_detector(analysis.detector.pid)
            far_ends = await FarEnds.open(load.calls)
            load_average = os.getloadavg()[0]
            try:
                seen, cost = await _under_load(
                    load, far_ends, bridge, worker, analysis, scripts, progress
                )
            except FileNotFoundError:
                raise SetupError(
                    "the media worker died under load: its log is on standard error"
                ) from None
            await analysis.stop()
            await bridge.close_calls()
            alerts = judged(
                _causes(_expected(load, scripts), seen, bridge.call_ids), analysis.arrived
            )
            return {
                **_body(load, seen, bridge.tapped, analysis, alerts),
                **cost,
                "load_average": round(load_average, 2),
                "caller_speech_pct": round(100 * speech_share(scripts, load.rounds), 1),
            }
        finally:
            if far_ends is not None:
                await far_ends.finish()
            await analysis.stop()
            await bridge.close()
            await worker.stop()


def _body(
    load: PipelineLoad,
    seen: _Relayed,
    tapped: int,
    analysis: Analysis,
    alerts: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    before, during, whole = seen.before, seen.during, seen.report
    received = max(during["received"], 1)
    every = max(tapped, 1)
    return {
        "calls": load.calls,
        "seconds": load.seconds,
        "cpu_core_pct": round(100 * seen.cpu_s / seen.seconds, 1),
        "us_per_packet": round(1e6 * seen.cpu_s / received, 2),
        "added_latency_ms": during["added_ms"],
        "lost": whole["sent"] - whole["received"],
        "sent": whole["sent"],
        "tap_delivered_pct": round(100 * analysis.frames_taken() / every, 3),
        "sender_late_p99_ms": round(whole["late_p99_ms"], 3),
        "alert_latency_ms": {name: alerts["all"][name] for name in ("p50", "p95")},
        "analysis_dropped_pct": round(100 * max(0, tapped - analysis.frames_analysed()) / every, 3),
        "asr_coverage_pct": analysis.coverage_pct(),
        "alerts": {name: one for name, one in alerts.items() if name != "all"},
        "added_latency_without_ms": before["added_ms"],
        "p99_ratio": round(during["added_ms"]["p99"] / before["added_ms"]["p99"], 3),
        "speech_model": analysis.model_name,
    }
