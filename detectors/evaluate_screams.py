"""Screams, which no corpus here has: made from held-out calm speech, so only a hint.

A vowel of each neutral clip is held for two seconds and re-spoken as a scream with the WORLD
vocoder, as training does with other speakers; needs the training packages.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors import corpora, shouting, telephone
from detectors.acoustic import AcousticModel
from detectors.evaluate import auc, peak, verdicts
from detectors.resample import RATE, to_8k

_HELD_S = 2.0


def made_screams(model: AcousticModel, clips: list[corpora.Clip], seed: int = 3) -> dict[str, Any]:
    """One scream from each neutral clip, every other one over a clean line.

    Args:
        model: the loaded model.
        clips: of which the neutral ones are taken.
        seed: of screams and lines.

    Returns:
        ``n``; ``auc`` of the screams' peak sustained score against that of the clips themselves;
        the share ``unheard`` (no window scored) and those that reach each level, ``L1``, ``L2``.
    """
    screams, calm, levels = [], [], []
    for i, clip in enumerate(c for c in clips if c.emotion == "neutral"):
        rng = np.random.default_rng([seed, i])
        audio, rate = corpora.read_clip(clip.path)
        voice = shouting.analyse(audio, rate)
        made = shouting.respeak(shouting.held(voice, _HELD_S), shouting.screamed(rng))
        before, after = (np.zeros(int(s * RATE), np.float32) for s in (0.25, 0.5))
        scream = np.concatenate([before, to_8k(made, voice.rate), after])
        line = telephone.CLEAN if i % 2 else telephone.random_line(rng)
        score, level = peak(verdicts(model, telephone.transmit(scream, line, rng)))
        screams.append(score)
        levels.append(level)
        own = telephone.transmit(to_8k(audio, rate), line, rng)
        calm.append(peak(verdicts(model, own))[0])
    return {
        "n": len(screams),
        "auc": round(auc(np.array(screams), np.array(calm)), 3),
        "unheard": round(float(np.mean([score == 0 for score in screams])), 3),
        "L1": round(float(np.mean([level >= 1 for level in levels])), 3),
        "L2": round(float(np.mean([level >= 2 for level in levels])), 3),
    }
