"""The plots of ``callshield eval text``; needs matplotlib, of the training packages."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from detectors.words.evaluate import Floats, Judged, by_source

mpl.use("Agg")
from matplotlib import pyplot as plt

#: Sources with fewer texts of either kind make no curve.
_ENOUGH = 30
_PARTS = 10


def draw(judged: Judged, path: Path) -> None:
    """ROC, precision and recall, calibration and confusion of one language, by source."""
    figure, ((roc, precision), (calibration, confusion)) = plt.subplots(2, 2, figsize=(11, 9))
    names, shares = [], []
    for name, own in by_source(judged.rows):
        labels, scores = judged.labels[own], judged.scores[own]
        if "/" in name:
            continue
        names.append(name)
        flagged = judged.flagged[own]
        shares.append([_share(flagged[labels]), _share(flagged[~labels])])
        if min(labels.sum(), (~labels).sum()) < _ENOUGH:
            continue
        alarms, hits, _ = roc_curve(labels, scores)
        roc.plot(np.maximum(alarms, 1e-4), hits, label=name)
        right, found, _ = precision_recall_curve(labels, scores)
        precision.plot(found, right, label=name)
        calibration.plot(*_calibration(labels.astype(np.float64), scores), marker="o", label=name)
    roc.set(xscale="log", xlabel="clean texts flagged", ylabel="abusive texts flagged", title="ROC")
    precision.set(xlabel="recall", ylabel="precision", ylim=(0, 1.02), title="Precision and recall")
    calibration.plot([0, 1], [0, 1], color="0.8", lw=1)
    calibration.set(xlabel="score (tenths of the texts)", ylabel="abusive", title="Calibration")
    confusion.barh([f"{name}: abusive" for name in names], [share[0] for share in shares])
    confusion.barh([f"{name}: clean" for name in names], [share[1] for share in shares])
    confusion.set(xlim=(0, 1), xlabel="share flagged", title="Flagged, by source")
    for axes in (roc, precision, calibration):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _share(flagged: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float:
    return float(flagged.mean()) if len(flagged) else 0.0


def _calibration(labels: Floats, scores: Floats) -> tuple[list[float], list[float]]:
    order = np.argsort(scores, kind="stable")
    parts = [part for part in np.array_split(order, _PARTS) if len(part)]
    return (
        [float(scores[part].mean()) for part in parts],
        [float(labels[part].mean()) for part in parts],
    )
