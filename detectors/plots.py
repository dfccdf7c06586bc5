"""The plots of ``docs/detection.md``, drawn by :mod:`detectors.report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np

from detectors.acoustic import Card

if TYPE_CHECKING:
    from detectors.evaluate import Outcome

mpl.use("Agg")
from matplotlib import pyplot as plt

_CORPORA = {"emodb_dev": "EmoDB, dev speakers", "nemo": "nEMO (never trained on)"}


def _scores(found: list[Outcome], angry: bool) -> Any:
    return np.array([o.score for o in found if (o.clip.emotion == "anger") == angry])


def _roc(outcomes: dict[str, list[Outcome]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(5, 5))
    for name, title in _CORPORA.items():
        for line in ("clean", "random"):
            found = outcomes[f"{name}_{line}_line"]
            positive, negative = _scores(found, True), _scores(found, False)
            cuts = np.concatenate([[np.inf], np.sort(np.unique([*positive, *negative]))[::-1]])
            hits = [(positive >= c).mean() for c in cuts]
            alarms = [(negative >= c).mean() for c in cuts]
            axes.plot(
                alarms, hits, label=f"{title}, {line} line", ls="-" if line == "clean" else "--"
            )
    axes.plot([0, 1], [0, 1], color="0.8", lw=1)
    axes.set(xlabel="other clips flagged", ylabel="angry clips flagged", title="ROC, whole clips")
    axes.legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _precision(outcomes: dict[str, list[Outcome]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(5, 4))
    for name, title in _CORPORA.items():
        found = outcomes[f"{name}_random_line"]
        positive, negative = _scores(found, True), _scores(found, False)
        cuts = np.sort(np.unique(positive))[::-1]
        hits = np.array([(positive >= c).sum() for c in cuts])
        alarms = np.array([(negative >= c).sum() for c in cuts])
        axes.plot(hits / len(positive), hits / (hits + alarms), label=f"{title}, random line")
    axes.set(xlabel="recall of angry clips", ylabel="precision", ylim=(0, 1.02))
    axes.legend(fontsize=8, loc="lower left")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _calibration(outcomes: dict[str, list[Outcome]], path: Path) -> None:
    """Share of angry clips by peak score, an eighth of the clips a point."""
    figure, axes = plt.subplots(figsize=(5, 4))
    for name, title in _CORPORA.items():
        found = sorted(outcomes[f"{name}_random_line"], key=lambda o: o.score)
        parts = [found[i * len(found) // 8 : (i + 1) * len(found) // 8] for i in range(8)]
        axes.plot(
            [float(np.mean([o.score for o in part])) for part in parts],
            [float(np.mean([o.clip.emotion == "anger" for o in part])) for part in parts],
            marker="o",
            label=f"{title}, random line",
        )
    axes.plot([0, 1], [0, 1], color="0.8", lw=1)
    axes.set(xlabel="peak sustained score (eighths of the clips)", ylabel="share of angry clips")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _histogram(outcomes: dict[str, list[Outcome]], card: Card, path: Path) -> None:
    figure, rows = plt.subplots(2, 1, figsize=(7, 6), sharex=True)
    for axes, (name, title) in zip(rows, _CORPORA.items(), strict=True):
        found = outcomes[f"{name}_random_line"]
        for emotion in sorted({o.clip.emotion for o in found}):
            scores = np.sort([o.score for o in found if o.clip.emotion == emotion])
            share = 1.0 - np.arange(len(scores)) / len(scores)
            axes.step(scores, share, where="pre", label=f"{emotion} ({len(scores)})")
        axes.axvline(card.caution, color="0.5", ls=":")
        axes.axvline(card.serious, color="0.2", ls=":")
        axes.set(ylabel="share of clips above", title=f"{title}, random line", xlim=(0, 1))
        axes.legend(fontsize=8)
    rows[-1].set_xlabel("peak sustained vocal-effort score (dotted: caution, serious)")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _delays(delays: dict[int, list[float]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(6, 3.5))
    for level, values in delays.items():
        known = [v for v in values if not np.isnan(v)]
        label = f"level {level} ({len(known)} of {len(values)} calls)"
        axes.hist(known, bins=np.arange(0, 8.25, 0.25).tolist(), alpha=0.6, label=label)
    axes.set(xlabel="seconds from the first angry word", ylabel="calls", title="Onset to level")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw(
    outcomes: dict[str, list[Outcome]], delays: dict[int, list[float]], card: Card, folder: Path
) -> None:
    """Write ``roc.png``, ``precision.png``, ``calibration.png``, ``scores.png``, ``delay.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    _roc(outcomes, folder / "roc.png")
    _precision(outcomes, folder / "precision.png")
    _calibration(outcomes, folder / "calibration.png")
    _histogram(outcomes, card, folder / "scores.png")
    _delays(delays, folder / "delay.png")
