"""``callshield doctor`` and ``callshield law check``: the preset of law that is in force."""

from __future__ import annotations

from collections.abc import Iterator

from callshield.errors import CallshieldError
from callshield.findings import Finding, note, ok, problem
from callshield.law_presets import Preset, shown, unanswered, values_of
from callshield.settings import Settings


def examine_law(settings: Settings) -> Iterator[Finding]:
    """Which preset is in force, what the operator changed of it, what he still has to name.

    What a preset *forbids* is not looked for here: such a configuration cannot be loaded.
    """
    preset = settings.law.chosen
    if preset is None:
        yield note(
            "law",
            "no preset: only the product's own principles are looked after",
            "choose one for [law] preset: callshield law list",
        )
        return
    law = [rule for rule in preset.rules if rule.kind != "chosen"]
    read = sum(rule.read_in_original for rule in law)
    pinned = "pinned" if settings.law.version else "not pinned by law.version"
    yield ok(
        "law",
        f"{preset.id} version {preset.version} ({pinned}), checked {preset.checked}: "
        f"{len(law)} rules of law, {read} of them read in the original, and "
        f"{len(preset.rules) - len(law)} of ours; no legal advice",
    )
    changed = changed_defaults(preset, settings)
    if changed:
        yield ok("law defaults", "changed here: " + "; ".join(changed))
    for ask in unanswered(preset, settings):
        yield problem(
            "law",
            f"{ask.key} is empty (rule {ask.rule} of the preset {preset.id})",
            f"set {ask.key}: {ask.what}",
        )
    yield from _risk_file(settings)


def changed_defaults(preset: Preset, settings: Settings) -> list[str]:
    """Each default of the preset that the operator set otherwise, in words."""
    changed = []
    for key, default in preset.defaults.items():
        changed += [
            f"{name} = {shown(value)} (the preset's is {shown(default)})"
            for name, value in values_of(settings, key)
            if value != default
        ]
    return changed


def _risk_file(settings: Settings) -> Iterator[Finding]:
    """The operator's risk file is there, and of the acoustic model that runs."""
    path = settings.law.risk_file
    if path is None or not settings.detector.enabled or not settings.detector.acoustic:
        return
    from detectors.acoustic import CARD_FILE, SHIPPED, load_card

    name = "risk file"
    try:
        sha256 = load_card((settings.detector.model_dir or SHIPPED) / CARD_FILE).sha256
        text = path.read_text(encoding="utf-8")
    except CallshieldError as error:
        yield problem(name, str(error), "mend the model first")
        return
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        yield problem(
            name, f"{path} cannot be read ({reason})", "copy docs/eu-risk-file.md there, fill it in"
        )
        return
    if sha256 not in text:
        yield problem(
            name,
            f"{path} does not name the model in use ({sha256[:12]}…): it is about another one",
            "look at the risks anew, with docs/eu-risk-file.md of this version, and write the "
            f"model's sha256 into the file: {sha256}",
        )
        return
    yield ok(name, f"{path}, of the model {sha256[:12]}…")
