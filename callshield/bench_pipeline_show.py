"""How `callshield bench pipeline` shows what it measured."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from callshield.bench_pipeline import PipelineLoad, measure


def _ms(alerts: dict[str, Any]) -> str:
    if not alerts["expected"]:
        return "-"
    if alerts["p50"] is None:
        return f"none of {alerts['expected']} alerts"
    return (
        f"p50 {alerts['p50']:.0f}, p95 {alerts['p95']:.0f} ms "
        f"({alerts['raised']} of {alerts['expected']} alerts)"
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} %"


def _part(one: dict[str, float]) -> str:
    return (
        f"{one['rss_mib']:.0f} MiB (at most {one['peak_mib']:.0f}), "
        f"{one['cpu_core_pct']:.0f} % of a core"
    )


def table(result: dict[str, Any]) -> Any:
    """The result for a person."""
    from rich.table import Table

    words = bool(result["transcribers"])
    with_ms, without_ms = result["added_latency_ms"], result["added_latency_without_ms"]
    shown = Table(
        title=f"{result['calls']} calls for {result['seconds']:g} s, callers speak "
        f"{result['caller_speech_pct']:.0f} % of the time",
        caption="Acoustic: from a shout's first packet to level 2 on the bus. Words: from the last "
        f"packet of a sentence. Load average before {result['load_average']:.2f}.",
        show_header=False,
    )
    alerts = result["alerts"]
    rows = [
        ("level 2 after a shout", _ms(alerts["acoustic"])),
        ("first step up after a shout", _ms(alerts["caution"])),
    ]
    if words:
        rows += [
            ("words, who shouted before", _ms(alerts["words_aroused"])),
            ("words, who did not", _ms(alerts["words_calm"])),
            (
                "speech written down, aroused callers",
                _percent(result["asr_coverage_pct"]["aroused"]),
            ),
            ("speech written down, all", _percent(result["asr_coverage_pct"]["all"])),
        ]
    rows += [
        ("audio that was not analysed", _percent(result["analysis_dropped_pct"])),
        (
            "relay's added p99, with and without analysis",
            f"{with_ms['p99']:.3f} and {without_ms['p99']:.3f} ms: {result['p99_ratio']:.2f}",
        ),
        ("packets lost", f"{result['lost']} of {result['sent']}"),
        ("media worker", f"{result['rss_mib']:.0f} MiB, {result['cpu_core_pct']:.0f} % of a core"),
        ("detector", _part(result["detector"])),
        *(
            (f"transcriber {number}", _part(one))
            for number, one in enumerate(result["transcribers"], 1)
        ),
    ]
    for row in rows:
        shown.add_row(*row)
    return shown


def run(load: PipelineLoad, *, as_json: bool) -> int:
    """The command `callshield bench pipeline`; prints, and returns the exit status.

    Raises:
        SetupError: a process did not start or died, or a model is missing.
    """
    from rich.console import Console

    from sipbridge.bench_show import progress_bars

    with progress_bars() as progress:
        result = asyncio.run(measure(load, progress=progress))
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        Console().print(table(result))
    return 0
