"""``callshield law`` and ``callshield compliance``: what law is looked after, and the papers."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from callshield.errors import CallshieldError
from callshield.law_presets import Limit, Rule, load_preset, preset_ids, shown
from callshield.settings import load_settings

law_app = typer.Typer(
    help="Presets of law (docs/compliance.md); no legal advice.", no_args_is_help=True
)
compliance_app = typer.Typer(help="Papers from the configuration in force.", no_args_is_help=True)

Config = Annotated[Path, typer.Option(help="The node's configuration (TOML).")]
DEFAULT_CONFIG = Path("callshield.toml")


@law_app.command("list")
def law_list() -> None:
    """List the presets."""
    for preset_id in preset_ids():
        preset = load_preset(preset_id)
        print(
            f"{preset.id:14} version {preset.version:3} {preset.title}: {len(preset.rules)} rules, "
            f"checked {preset.checked}"
        )


@law_app.command("show")
def law_show(preset_id: Annotated[str, typer.Argument(metavar="PRESET")]) -> None:
    """Show a preset: its rules with their sources, its defaults, what it refuses and asks for."""
    preset = load_preset(preset_id)
    print(f"{preset.id}, version {preset.version}: {preset.title}")
    print(preset.about)
    print("Documentation, not legal advice.")
    for rule in preset.rules:
        print("\n" + "\n".join(_rule_lines(rule)))
    print("\nDefaults, where the configuration does not set the key:")
    for key, value in preset.defaults.items():
        print(f"  {key} = {shown(value)}")
    if preset.limits:
        print("\nRefused otherwise:")
        for limit in preset.limits:
            print(f"  {limit.key} is {condition(limit)}: {limit.why} ({limit.rule})")
    if preset.asks:
        print("\nTo be named by you:")
        for ask in preset.asks:
            print(f"  {ask.key}: {ask.what} ({ask.rule})")


def _rule_lines(rule: Rule) -> list[str]:
    read = "read in the original" if rule.read_in_original else "not read in the original"
    lines = [
        f"{rule.id} ({rule.kind})",
        f"  {rule.says}",
        f"  source: {rule.source}",
        f"  checked {rule.checked}, {read}: {rule.looked_up}",
    ]
    if rule.settings:
        lines.append(f"  settings: {', '.join(rule.settings)}")
    if rule.places:
        lines.append(f"  enforced in: {', '.join(rule.places)}")
    if rule.operator:
        lines.append(f"  yours: {rule.operator}")
    return lines


def condition(limit: Limit) -> str:
    """What a key has to be, in a few words."""
    if limit.equals is not None:
        return shown(limit.equals)
    if limit.empty:
        return "empty"
    if limit.not_empty:
        return "set"
    if limit.not_one_of:
        return "other than " + " or ".join(shown(one) for one in limit.not_one_of)
    if limit.at_least is not None:
        return f"at least {limit.at_least:g}"
    if limit.above is not None:
        return f"more than {limit.above}"
    return "a table with an entry that has " + ", ".join(
        f"{k} = {shown(v)}" for k, v in limit.some.items()
    )


@law_app.command("check")
def law_check(
    config: Config = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a configuration and its notices against its preset; exit status 1 if anything lacks,
    2 if the preset forbids it."""
    from callshield.doctor_law import examine_law
    from callshield.doctor_report import Report
    from callshield.findings import ok, problem
    from sipbridge.prompt_catalogue import Prompts

    settings = load_settings(config)
    report = Report(as_json=as_json)
    for finding in examine_law(settings):
        report.show(finding)
    try:
        prompts = Prompts(settings)
    except CallshieldError as error:
        report.show(problem("notice", str(error), "callshield doctor says the same"))
    else:
        ids = ", ".join(prompt.prompt_id for prompt in prompts.usual.notice)
        report.show(ok("notice", f"{', '.join(settings.notice.spoken)}: {ids}"))
    raise typer.Exit(report.finish())


@compliance_app.command("works-council")
def works_council(
    config: Config = DEFAULT_CONFIG,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A file instead of standard output.")
    ] = None,
) -> None:
    """Write the paper that explains this node to the works council (노사협의회), in Korean.

    It is made from the configuration in force and nothing else: the same configuration gives the
    same paper.
    """
    from callshield.works_council import paper

    text = paper(load_settings(config))
    if output is None:
        print(text, end="")
        return
    write_whole(output, text)
    print(f"{output}: written; fill in what stands as (기재 필요)")


def write_whole(path: Path, text: str) -> None:
    """Write a file all at once, or not at all.

    Raises:
        CallshieldError: it cannot be written; nothing was changed.
    """
    try:
        descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise CallshieldError(
            f"{path} cannot be written ({error.strerror}): name another"
        ) from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except OSError as error:
        Path(beside).unlink(missing_ok=True)
        raise CallshieldError(
            f"{path} cannot be written ({error.strerror}): name another"
        ) from None
