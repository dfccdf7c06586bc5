"""``callshield prompts``: look at announcements before callers hear them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from callshield.errors import SetupError
from callshield.findings import Finding, note, ok, problem
from callshield.settings import Settings, load_settings

prompts_app = typer.Typer(help="What callers hear from Callshield.", no_args_is_help=True)

DEFAULT_CONFIG = Path("callshield.toml")


@prompts_app.command("check")
def prompts_check(
    folder: Annotated[
        Path | None, typer.Argument(help="Prompt folder; notice.prompt_dir if none.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Is it enough for this configuration? Read by default without FOLDER."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check announcements: format, level, clipping, length, silence; exit status 1 if one fails."""
    from callshield.doctor_report import Report

    report = Report(as_json=as_json)
    for finding in examine(folder, config):
        report.show(finding)
    raise typer.Exit(report.finish())


def examine(folder: Path | None, config: Path | None) -> Iterator[Finding]:
    """Everything in a prompt folder, then whether it is enough for a configuration.

    Args:
        folder: None: the configured one.
        config: None: the default one, unless a folder is named.
    """
    from sipbridge.prompt_catalogue import SHIPPED

    settings = None
    if config is not None or folder is None:
        settings = load_settings(config or DEFAULT_CONFIG)
        folder = folder or settings.notice.prompt_dir or SHIPPED
        notice = settings.notice.model_copy(
            update={"prompt_dir": None if folder.resolve() == SHIPPED else folder.resolve()}
        )
        settings = settings.model_copy(update={"notice": notice})
    assert folder is not None
    yield from examine_folder(folder)
    if settings is not None:
        yield _enough(settings)


def examine_folder(path: Path) -> Iterator[Finding]:
    """Each announcement of a folder, and what its manifest says."""
    from sipbridge.prompt_catalogue import PromptFolder
    from sipbridge.prompt_check import measure, misplaced, missing_files, prompt_faults
    from sipbridge.wav_file import read_wav

    if not path.is_dir():
        yield problem("folder", f"there is no folder {path}", "name another, or make it")
        return
    try:
        folder = PromptFolder(path)
    except SetupError as error:
        yield problem("manifest", str(error), "")
        return
    for sentence in (*misplaced(path), *missing_files(path, folder.manifest)):
        yield problem("folder", sentence, "")
    found = folder.found()
    if not found:
        yield problem("folder", f"{path} holds no announcement", "put LANGUAGE/ID.wav into it")
    for language, prompt_id in found:
        name = f"{language}/{prompt_id}"
        try:
            prompt = folder.load(language, prompt_id)
        except SetupError as error:
            yield problem(name, str(error), "")
            continue
        faults = prompt_faults(prompt)
        for sentence in faults:
            yield problem(name, sentence, "")
        if faults:
            continue
        rates = "8 and 16 kHz" if prompt.wide else f"{prompt.rate_hz // 1000} kHz"
        lufs = measure(read_wav(prompt.path)).lufs
        length = f"{prompt.duration_s:.1f} s, {lufs:.1f} LUFS"
        yield ok(name, f"{length}, {rates}, version {prompt.version}")
        if language != "common" and not prompt.text:
            yield note(
                name,
                "no text in manifest.toml: nobody can look up what callers of a call were told",
                "write id, language, version and text into a [[prompt]]",
            )


def _enough(settings: Settings) -> Finding:
    from callshield.doctor_prompts import check_prompts, check_recording_is_said

    try:
        detail = check_prompts(settings)
        if settings.recording.enabled:
            check_recording_is_said(settings)
    except SetupError as error:
        return problem("configuration", str(error), "")
    return ok("configuration", detail)
