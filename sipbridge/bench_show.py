"""How `callshield bench` shows what it measured: on a terminal, as Markdown, as a picture."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from callshield import __version__
from callshield.errors import SetupError
from sipbridge.bench_relay import (
    HISTOGRAM_STEP_MS,
    Load,
    Measurement,
    Progress,
    RelayBench,
    measure,
)
from sipbridge.rtpengine_process import rtpengine_binary


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """One bar for each thing that reports progress, gone in the end."""
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def progress(name: str, done: float) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=1.0)
            bars.update(tasks[name], completed=done)

        yield progress


# ----------------------------------------------------------------------------- one measurement


def run(load: Load, *, as_json: bool, histogram: Path | None = None) -> int:
    """The command `callshield bench relay`; prints, and returns the exit status.

    Args:
        load: what to measure.
        as_json: print one JSON object.
        histogram: where to draw the latencies (``.png``), or write them (``.json``).

    Raises:
        SetupError: a process of the benchmark did not start, or there is nothing to draw with.
    """
    from rich.console import Console

    if histogram is not None:
        _check_drawing(histogram)
    if as_json:
        result = asyncio.run(measure(load))
        sys.stdout.write(json.dumps(result.as_json()) + "\n")
    else:
        with progress_bars() as progress:
            result = asyncio.run(measure(load, progress=progress))
        Console().print(_table(result))
    if histogram is not None:
        draw_histogram(result, histogram)
    return 0


def _named(result: RelayBench) -> list[tuple[str, Measurement]]:
    named = [("media worker", result.worker)]
    if result.reference is not None:
        named.append(("rtpengine", result.reference))
    return named


def _table(result: RelayBench) -> Any:
    from rich.table import Table

    first, named = result.worker, _named(result)
    table = Table(
        title=f"{first.calls} calls, both ways, G.711, 20 ms",
        caption="Added latency: less the median of direct loopback flows "
        f"({first.direct_ms['p50']:.3f} ms; their p99 {first.direct_ms['p99']:.3f} ms). "
        f"The sender was {first.sender_late_p99_ms:.2f} ms (p99) behind its schedule; "
        f"load average before {first.load_average:.2f}.",
    )
    table.add_column("")
    for name, _ in named:
        table.add_column(name, justify="right")
    rows: list[tuple[str, Callable[[Measurement], str]]] = [
        ("CPU, % of one core", lambda one: f"{one.cpu_core_pct:.1f}"),
        ("CPU a packet, µs", lambda one: f"{one.us_per_packet:.2f}"),
        ("of it the relay's thread, µs", lambda one: _or_dash(one.relay_us_per_packet, ".2f")),
        ("added latency p50, ms", lambda one: f"{one.added_latency_ms['p50']:.3f}"),
        ("added latency p99, ms", lambda one: f"{one.added_latency_ms['p99']:.3f}"),
        ("added latency max, ms", lambda one: f"{one.added_latency_ms['max']:.3f}"),
        ("packets lost", lambda one: f"{one.lost} of {one.sent}"),
        ("resident memory, MiB", lambda one: f"{one.rss_mib:.0f}"),
        ("of it a call, MiB", lambda one: f"{one.mib_per_call:.3f}"),
        ("tapped frames delivered, %", lambda one: _or_dash(one.tap_delivered_pct, ".2f")),
    ]
    for label, show in rows:
        table.add_row(label, *(show(one) for _, one in named))
    if result.reference is not None:
        ratio = first.us_per_packet / result.reference.us_per_packet
        table.add_row("CPU a packet, of rtpengine's", f"{ratio:.2f}", "1")
    return table


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


# --------------------------------------------------------------------------------- the matrix

_COLUMNS = (
    "calls | tap | recorder | load average | CPU, % of a core | µs a packet | relay's thread alone "
    "| rtpengine | ratio | added p50 ms | p99 ms | max ms | sender late p99 ms | lost "
    "| tap delivered % | MiB a call"
)


def machine() -> list[str]:
    """The machine and the versions, a line each."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    lines = [
        f"{os.cpu_count()} cores of {model.group(1) if model else platform.machine()}",
        f"Linux {platform.release()}",
        f"Python {platform.python_version()}, uvloop {version('uvloop')}",
        f"Callshield {__version__}",
    ]
    if (binary := rtpengine_binary()) is not None:
        # It prints its version on standard error.
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
        lines.append(f"rtpengine {(said.stdout + said.stderr).removeprefix('Version:').strip()}")
    return lines


def _row(load: Load, result: RelayBench) -> str:
    one = result.worker
    reference_us = result.reference.us_per_packet if result.reference is not None else None
    ratio = one.us_per_packet / reference_us if reference_us else None
    cells = [
        str(load.calls),
        "on" if load.tap else "off",
        "on" if load.record else "off",
        f"{one.load_average:.1f}",
        f"{one.cpu_core_pct:.1f}",
        f"{one.us_per_packet:.2f}",
        _or_dash(one.relay_us_per_packet, ".2f"),
        _or_dash(reference_us, ".2f"),
        _or_dash(ratio, ".2f"),
        *(f"{one.added_latency_ms[name]:.2f}" for name in ("p50", "p99", "max")),
        f"{one.sender_late_p99_ms:.1f}",
        f"{one.lost} of {one.sent}",
        _or_dash(one.tap_delivered_pct, ".2f"),
        f"{one.mib_per_call:.3f}",
    ]
    return "| " + " | ".join(cells) + " |"


def run_table(calls: list[int], seconds: float, out: Path | None) -> int:
    """The command `callshield bench table`; prints Markdown, and returns the exit status.

    Args:
        calls: numbers of calls, each with tap and recorder on and off.
        seconds: of measuring, each.
        out: a file for the Markdown; standard output when None.

    Raises:
        SetupError: a process of the benchmark did not start.
    """
    loads = [
        Load(number, seconds, tap=tap, record=record)
        for number in calls
        for record in (False, True)
        for tap in (False, True)
    ]
    begun = datetime.now(UTC)
    lines = [f"| {_COLUMNS} |", "|" + "---|" * (_COLUMNS.count("|") + 1)]
    with progress_bars() as progress:
        for number, load in enumerate(loads):
            progress("table", number / len(loads))
            lines.append(_row(load, asyncio.run(measure(load, progress=progress))))
    head = f"Measured on {begun:%Y-%m-%d %H:%M} UTC, {seconds:g} s each: {'; '.join(machine())}."
    text = "\n".join([head, "", *lines, ""])
    if out is None:
        sys.stdout.write(text)
    else:
        out.write_text(text, encoding="utf-8")
    return 0


# --------------------------------------------------------------------------------- the picture


def _check_drawing(path: Path) -> None:
    if path.suffix == ".json":
        return
    if path.suffix != ".png":
        raise SetupError(f"a histogram is a .png or a .json file, not {path.name}")
    try:
        import matplotlib as mpl
    except ImportError:
        raise SetupError(
            "the histogram is drawn by matplotlib, which is not installed: pip install matplotlib, "
            "or give a .json file to have the numbers"
        ) from None
    mpl.use("Agg")


def draw_histogram(result: RelayBench, path: Path) -> None:
    """Write the latencies of a run that counted them (:attr:`Load.histogram`).

    Args:
        result: of the run.
        path: a ``.png``, drawn by matplotlib, or a ``.json`` with the counts.
    """
    named = _named(result)
    if path.suffix == ".json":
        counts = {name: one.histogram for name, one in named}
        path.write_text(json.dumps({"step_ms": HISTOGRAM_STEP_MS, "counts": counts}) + "\n")
        return
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.2))
    longest_ms = 0.0
    for (name, one), colour in zip(named, ("tab:blue", "tab:orange"), strict=False):
        edges_ms = [step * HISTOGRAM_STEP_MS for step in range(len(one.histogram) + 1)]
        added_ms = one.added_latency_ms
        label = (
            f"{name}: p50 {added_ms['p50']:.2f}, p99 {added_ms['p99']:.2f}, "
            f"max {added_ms['max']:.2f} ms; {one.lost} of {one.sent:,} lost"
        )
        axes.stairs(one.histogram, edges_ms, fill=True, alpha=0.5, color=colour, label=label)
        axes.axvline(added_ms["p99"], color=colour, ls=":", lw=1.2)
        longest_ms = max(longest_ms, added_ms["max"])
    axes.set(
        xlabel="added latency, ms (dotted: p99)",
        ylabel=f"packets in {1000 * HISTOGRAM_STEP_MS:.0f} µs",
        title=f"{result.worker.calls} calls, tap on",
        yscale="log",
        xlim=(0, min(max(1.2, 1.05 * longest_ms), len(named[0][1].histogram) * HISTOGRAM_STEP_MS)),
        ylim=(0.7, None),
    )
    axes.axvline(1.0, color="0.3", lw=1)
    axes.text(1.01, axes.get_ylim()[1] * 0.3, "the limit for p99", color="0.3", fontsize=8)
    axes.legend(fontsize=8, loc="upper right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
