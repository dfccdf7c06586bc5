"""The plot of ``docs/detection.md``, part "Voice activity", drawn by detectors.evaluate_vad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from detectors.evaluate_vad import METHODS, SNR_DB

mpl.use("Agg")
from matplotlib import pyplot as plt


def draw(found: dict[str, Any], path: Path) -> None:
    """F1 over noise, and what is taken for speech although it is none, as one PNG."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), width_ratios=(1, 1.2))
    places = range(len(SNR_DB) + 1)
    for color, method in zip(("C7", "C1", "C0"), METHODS, strict=True):
        for kind, style in (("white", "--"), ("real", "-")):
            names = ["clean", *(f"{kind} {snr} dB" for snr in SNR_DB)]
            values = [found["labelled"][name][method]["auc"] for name in names]
            left.plot(places, values, style, color=color, label=f"{method}, {kind} noise")
    left.set_xticks(list(places), ["clean", *(f"{snr} dB" for snr in SNR_DB)])
    left.set(ylabel="AUC per frame", title="Speech or pause, by noise", ylim=(0.45, 1.0))
    left.legend(fontsize=7)
    families = list(found["no_speech"])
    at = np.arange(len(families))
    for k, (color, method) in enumerate(zip(("C7", "C1", "C0"), METHODS, strict=True)):
        shares = [100 * found["no_speech"][family][method] for family in families]
        right.barh(at + 0.27 * (k - 1), shares, 0.27, color=color, label=method)
    right.set_yticks(at, families, fontsize=8)
    right.invert_yaxis()
    right.set(xlabel="% of frames taken for speech", title="Sounds without speech")
    right.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
