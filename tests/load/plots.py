"""Pictures for docs/, drawn by matplotlib, which no other part needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from callshield.errors import SetupError
from tests.load.processes import Sample, core_pct

#: The same process has the same colour in every picture.
_COLOURS = {
    "bridge": "tab:blue",
    "media": "tab:orange",
    "detector": "tab:green",
    "transcriber": "tab:red",
    "notifier": "tab:purple",
    "supervisor": "tab:gray",
    "phones": "tab:brown",
    "load": "black",
}


def pyplot() -> Any:
    """matplotlib, without a screen.

    Raises:
        SetupError: it is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise SetupError(
            "pictures are drawn by matplotlib, which is not installed: pip install matplotlib, "
            "or leave out --plot; the numbers are in the JSON"
        ) from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def need_pyplot(path: Path | None) -> None:
    """Before hours of measuring: say that there can be no picture at their end, and stop."""
    if path is None:
        return
    try:
        pyplot()
    except SetupError as error:
        raise SystemExit(str(error)) from None


def colour(part: str) -> str:
    """Of a process."""
    return _COLOURS.get(part.rstrip("-0123456789"), "tab:cyan")


def _finish(plt: Any, figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_soak(
    samples: Sequence[Sample], parts: Sequence[str], path: Path, result: Mapping[str, Any]
) -> None:
    """Memory, descriptors and processor time of each process over the time of a soak."""
    plt = pyplot()
    figure, (memory, descriptors, cpu) = plt.subplots(3, 1, figsize=(9, 9), sharex=True)
    began_s = samples[0].at_s
    for part in parts:
        own = [one for one in samples if part in one.parts]
        minutes = [(one.at_s - began_s) / 60 for one in own]
        memory.plot(
            minutes, [one.parts[part].anon_mib for one in own], color=colour(part), label=part
        )
        descriptors.plot(
            minutes, [one.parts[part].descriptors for one in own], color=colour(part), label=part
        )
        step = max(1, len(own) // 90)
        coarse = own[::step]
        cpu.plot(
            [(one.at_s - began_s) / 60 for one in coarse[1:]],
            [core_pct(one, two, [part])[part] for one, two in pairwise(coarse)],
            color=colour(part),
            label=part,
        )
    memory.set_ylabel("memory of no file, MiB")
    descriptors.set_ylabel("descriptors")
    descriptors.set_yscale("symlog")
    cpu.set_ylabel("% of a core")
    cpu.set_xlabel("minutes")
    memory.set_title(
        f"{result['live']} calls at once, {result['calls']} calls, {result['events']} events, "
        f"{result['events_lost']} lost; load average {result['load_average']}"
    )
    memory.legend(ncols=4, fontsize=8)
    for axes in (memory, descriptors, cpu):
        axes.grid(alpha=0.3)
        axes.set_ylim(bottom=0)
    _finish(plt, figure, path)


def draw_cost(
    rows: Sequence[Mapping[str, Any]], relay: Sequence[Mapping[str, Any]], path: Path
) -> None:
    """What a call costs as calls grow.

    Args:
        rows: of :mod:`tests.load.ramp`: ``live`` and ``core_pct`` by process.
        relay: of the relay alone: ``calls``, ``us_per_packet``, ``reference_us_per_packet``.
        path: a ``.png``.
    """
    plt = pyplot()
    columns = 2 if relay else 1
    figure, axes = plt.subplots(1, columns, figsize=(6.5 * columns, 4.5), squeeze=False)
    left = axes[0][0]
    parts = list(dict.fromkeys(part for row in rows for part in row["core_pct"]))
    for part in parts:
        own = [row for row in rows if row["core_pct"].get(part)]
        left.plot(
            [row["live"] for row in own],
            [row["core_pct"][part] / row["live"] for row in own],
            "o-",
            color=colour(part),
            label=part,
        )
    left.set_xscale("log")
    left.set_yscale("log")
    left.xaxis.set_major_formatter("{x:g}")
    left.yaxis.set_major_formatter("{x:g}")
    left.set_xlabel("calls at once")
    left.set_ylabel("% of a core a call")
    left.set_title("a whole node, by process")
    left.legend(fontsize=8)
    left.grid(alpha=0.3, which="both")
    if relay:
        right = axes[0][1]
        calls = [row["calls"] for row in relay]
        right.plot(calls, [row["us_per_packet"] for row in relay], "o-", label="our relay, tap on")
        right.plot(
            calls,
            [row["reference_us_per_packet"] for row in relay],
            "s--",
            label="rtpengine, same minute",
        )
        right.set_xscale("log")
        right.xaxis.set_major_formatter("{x:g}")
        right.set_xlabel("calls at once")
        right.set_ylabel("µs of CPU a packet")
        right.set_ylim(bottom=0)
        right.set_title("the relay alone, and the reference")
        right.legend(fontsize=8)
        right.grid(alpha=0.3, which="both")
    _finish(plt, figure, path)


def draw_budget(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Share of words within the goal by transcribers and calls.

    Args:
        rows: of :mod:`tests.load.transcriber_budget`.
        path: a ``.png``.
    """
    plt = pyplot()
    figure, panels = plt.subplots(1, 2, figsize=(12, 4.5), sharey=True)
    for axes, key, title in (
        (panels[0], "aroused_in_time_pct", "callers who gave cause"),
        (panels[1], "all_in_time_pct", "all callers"),
    ):
        for calls in sorted({row["calls"] for row in rows}):
            own = sorted(
                (row for row in rows if row["calls"] == calls), key=lambda row: row["transcribers"]
            )
            axes.plot(
                [row["transcribers"] for row in own],
                [row[key] for row in own],
                "o-",
                label=f"{calls} calls",
            )
        axes.set_xlabel("transcribers, a core each")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_title(title)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("speech with words within 2.5 s, %")
    panels[1].legend(fontsize=8)
    _finish(plt, figure, path)
