"""``callshield train`` and ``callshield eval``: rebuild and measure the detectors' models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from callshield.errors import SetupError
from callshield.language_names import LanguageName

train_app = typer.Typer(no_args_is_help=True, help="Rebuild a model from recordings or texts.")
eval_app = typer.Typer(no_args_is_help=True, help="Measure a detector on data it never saw.")

Data = Annotated[Path, typer.Option(help="Folder of the data: its audio/manifest.tsv names all.")]
Texts = Annotated[Path, typer.Option(help="Folder of the data: its text/ holds the texts.")]


@contextmanager
def _explained(data: Path, first: str = "audio/manifest.tsv") -> Iterator[None]:
    """Turn what is not there into a sentence that says what to do."""
    if not (data / first).is_file():
        raise SetupError(f"--data: {data / first} is not there; give the folder that holds it")
    try:
        yield
    except ModuleNotFoundError as error:
        raise SetupError(
            f"the package {error.name} is not installed: training and plots need the packages of "
            "deploy/requirements-train.lock, see docs/detection.md"
        ) from None


@train_app.command("acoustic")
def train_acoustic(
    data: Data,
    out: Annotated[Path | None, typer.Option(help="Folder; the shipped model's if absent.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 20261121,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Processes.")] = 2,
    without: Annotated[str, typer.Option(help="A corpus to leave out.")] = "",
) -> None:
    """Rebuild the vocal-effort model and its card."""
    with _explained(data):
        from detectors.train import train

        train(data, out, seed=seed, jobs=jobs, without=without)


@train_app.command("text")
def train_text(
    data: Texts,
    out: Annotated[Path | None, typer.Option(help="Folder; the shipped models' if absent.")] = None,
    lang: Annotated[list[LanguageName] | None, typer.Option(help="Several; all if none.")] = None,
) -> None:
    """Rebuild the word models and their cards."""
    with _explained(data, "text/train.tsv.gz"):
        from detectors.words.train import run

        for line in run(data, out, [name.value for name in lang or []]):
            print(line, flush=True)


@eval_app.command("acoustic")
def eval_acoustic(
    data: Data,
    report: Annotated[Path, typer.Option(help="Folder for the table and the plots.")],
    model_dir: Annotated[Path | None, typer.Option(help="Another acoustic model.")] = None,
    seed: Annotated[int, typer.Option(help="Of lines and calls.")] = 7,
    minutes: Annotated[float, typer.Option(min=1, help="Calm calls made a corpus.")] = 60.0,
    card: Annotated[bool, typer.Option("--card", help="Write the figures into the card.")] = False,
) -> None:
    """Measure the vocal-effort model on recordings it was not trained on."""
    with _explained(data):
        from detectors.report import report as measure

        measure(data, report, model_dir, seed=seed, minutes=minutes, card=card)


@eval_app.command("asr")
def eval_asr(
    data: Annotated[Path, typer.Option(help="Folder with manifest.tsv and recordings of 8 kHz.")],
    report: Annotated[Path, typer.Option(help="Folder for the table and the plot.")],
    model_dir: Annotated[Path | None, typer.Option(help="Another Whisper model.")] = None,
    seed: Annotated[int, typer.Option(help="Of noise and intervals.")] = 7,
) -> None:
    """Measure how well speech is read, and how much abuse is still found behind it."""
    with _explained(data, "manifest.tsv"):
        from detectors.asr.report import report as measure

        measure(data, report, model_dir, seed=seed)


@eval_app.command("calls")
def eval_calls(
    data: Data,
    report: Annotated[Path, typer.Option(help="Folder for the table and the plots.")],
    model_dir: Annotated[Path | None, typer.Option(help="Another acoustic model.")] = None,
    seed: Annotated[int, typer.Option(help="Of the calls.")] = 11,
    minutes: Annotated[float, typer.Option(min=1, help="Of each kind and source.")] = 30.0,
    card: Annotated[
        bool, typer.Option("--card", help="Write the headline into the model's card.")
    ] = False,
) -> None:
    """Count false alarms an agent-hour, hits and delays in calls made of recordings."""
    with _explained(data):
        from detectors.calls_report import report as measure

        measure(data, report, model_dir, seed=seed, minutes=minutes, card=card)


@eval_app.command("text")
def eval_text(
    data: Texts,
    report: Annotated[Path, typer.Option(help="Folder for the tables and the plots.")],
    lang: Annotated[list[LanguageName] | None, typer.Option(help="Several; all if none.")] = None,
    left_out: Annotated[
        bool, typer.Option("--left-out", help="Train without each source in turn, too.")
    ] = False,
) -> None:
    """Measure the word judge on texts that were held back, each source apart."""
    with _explained(data, "text/dev.tsv.gz"):
        from detectors.words.report import report as measure

        measure(data, report, [name.value for name in lang or LanguageName], left_out=left_out)


@eval_app.command("vad")
def eval_vad(
    data: Data,
    report: Annotated[Path, typer.Option(help="Folder for the table and the plot.")],
    seed: Annotated[int, typer.Option(help="Of lines and noises.")] = 7,
) -> None:
    """Measure what is taken for speech: labelled recordings, noise, tones, fax, music."""
    with _explained(data):
        from detectors.evaluate_vad import report as measure

        measure(data, report, seed=seed)
