"""Plots of made calls; needs matplotlib, of the training packages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np

from detectors.calls_eval import Share
from detectors.tradeoff import Point, front

if TYPE_CHECKING:
    from detectors.calls_report import Group

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def _false_alarms(tables: Mapping[str, Sequence[Group]], path: Path) -> None:
    rows = [row for title in ("by kind of call", "by source") for row in tables.get(title, ())]
    rates = [row.rate for row in rows]
    middle = np.array([rate.per_hour for rate in rates])
    ends = np.array([[rate.low for rate in rates], [rate.high for rate in rates]])
    figure, axes = plt.subplots(figsize=(7, 0.4 * len(rows) + 1.2))
    places = np.arange(len(rows))
    axes.errorbar(middle, places, xerr=np.abs(ends - middle), fmt="o", capsize=3)
    axes.set_yticks(places, [f"{row.name} ({row.rate.hours:.1f} h)" for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set(xlabel="false alarms (level 2) an hour, 95 %", title="Made calls")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _delays(found: Mapping[str, Share], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(6, 3.5))
    for name in ("emodb", "nemo"):
        share = found.get(name)
        if share is None:
            continue
        label = f"{name}: {share.hits} of {share.calls} calls"
        axes.hist(share.delays_s, bins=np.arange(0, 12.5, 0.5).tolist(), alpha=0.6, label=label)
    axes.set(xlabel="seconds from the first angry word to level 2", ylabel="calls")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_tradeoff(points: Sequence[Point], folder: Path) -> None:
    """Write ``delay_tradeoff.png``: each point one choice of rules, the line those on the front."""
    figure, axes = plt.subplots(figsize=(6.5, 4))
    for rising in sorted({point.rules.rising for point in points}, reverse=True):
        some = [p for p in points if p.rules.rising == rising and np.isfinite(p.delay_s())]
        best = front(some)
        (line,) = axes.plot(
            [p.delay_s() for p in best],
            [p.per_hour for p in best],
            "-",
            label=f"a rising voice counts {100 * rising:.0f} % at once",
        )
        colour = line.get_color()
        axes.plot([p.delay_s() for p in some], [p.per_hour for p in some], ".", color=colour)
    shipped = points[0]
    axes.plot(shipped.delay_s(), shipped.per_hour, "k*", ms=12, label="in force")
    axes.axvline(1.0, color="0.5", ls=":", label="goal: 1 s")
    axes.set(
        xlabel="median seconds from the first angry clip to level 2",
        ylabel="false alarms (level 2) an agent-hour",
        title="Made calls: other rules on the same scores",
    )
    axes.set_xlim(left=0.5)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(folder / "delay_tradeoff.png", dpi=110)
    plt.close(figure)


def draw(tables: Mapping[str, Sequence[Group]], found: Mapping[str, Share], folder: Path) -> None:
    """Write ``calls_false_alarms.png`` and ``calls_delay.png``."""
    _false_alarms(tables, folder / "calls_false_alarms.png")
    _delays(found, folder / "calls_delay.png")
