"""``callshield eval text``: tables and plots of the word judge on texts it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console


def report(data: Path, out: Path, languages: Sequence[str], *, left_out: bool) -> None:
    """Measure the shipped judge; write ``text.md`` and ``text_LANGUAGE.png`` into ``out``.

    Args:
        data: folder with ``text/dev.tsv.gz``.
        out: made if it is not there.
        languages: of the texts.
        left_out: train once more for each source, without it, and judge it then; minutes.

    Raises:
        ModuleNotFoundError: scikit-learn or matplotlib, of the training packages, is missing.
    """
    from detectors.words.evaluate import LEFT_OUT, judge_dev, shipped
    from detectors.words.evaluate import left_out as without
    from detectors.words.plots import draw

    out.mkdir(parents=True, exist_ok=True)
    lines = ["# Words, on texts that were held back"]
    for language in languages:
        judged = judge_dev(data, language)
        lines += ["", f"## {language}", "", *shipped(judged)]
        if judged.rows:
            draw(judged, out / f"text_{language}.png")
        if left_out and language in LEFT_OUT:
            lines += ["Each source left out of training:", "", *without(data, language)]
    (out / "text.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    Console().print(f"{out / 'text.md'} and plots written")
