"""``callshield eval acoustic``: the tables and plots of ``docs/detection.md``.

Without the ``callshield`` command: ``python -m detectors.report --data DATA --report FOLDER``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from detectors import corpora
from detectors.acoustic import SHIPPED, AcousticModel
from detectors.card import read_card, write_card
from detectors.evaluate import (
    EMODB_WOMEN,
    Outcome,
    Unacquainted,
    auc_interval,
    calm_calls,
    known_caller_outcomes,
    onset_delays,
    outcomes,
    reached,
    short_shouts,
)


def _calm(
    model: AcousticModel, clips: list[corpora.Clip], seed: int, minutes: float
) -> dict[str, Any]:
    calm = calm_calls(model, clips, seed, minutes)
    return {
        "clips": len(clips),
        "hours": round(calm.hours, 2),
        "to_level_1_per_hour": round(calm.level_1 / calm.hours, 2),
        "to_level_2_per_hour": round(calm.level_2 / calm.hours, 2),
    }


def figures(folder: Path, data: Path, seed: int, minutes: float) -> dict[str, Any]:
    """All figures of the card of the model in ``folder``, and what the plots are drawn from.

    Returns:
        ``{"figures": tables for the card, "outcomes": {name: [Outcome]}, "delays": …}``
    """
    model = AcousticModel(folder)
    held = [c for c in corpora.read_manifest(data) if c.held_out]
    sets = {
        "emodb_dev": [c for c in held if c.corpus == "emodb"],
        "nemo": [c for c in held if c.corpus == "nemo"],
        "noise": [c for c in held if c.corpus == "esc10"],
    }
    neutral = frozenset({"neutral"})
    found: dict[str, list[Outcome]] = {}
    tables: dict[str, Any] = {}
    for name in track(list(sets), "clips"):
        for clean in (True, False):
            kind = f"{name}_{'clean' if clean else 'random'}_line"
            found[kind] = outcomes(model, sets[name], seed, clean=clean)
            table: dict[str, Any] = {"clips": len(found[kind])}
            if name != "noise":
                for key, against in (("auc_angry_vs_all", None), ("auc_angry_vs_neutral", neutral)):
                    value, low, high = auc_interval(found[kind], against, seed)
                    table[key] = round(value, 3)
                    table[f"{key}_interval"] = [round(low, 3), round(high, 3)]
            for emotion in sorted({o.clip.emotion for o in found[kind]}):
                for level in (1, 2):
                    share = reached(found[kind], frozenset({emotion}), level)
                    table[f"{emotion}_reaches_{level}"] = round(share, 3)
            tables[kind] = table
    calm_sets = {
        "fsdd_dev": [c for c in held if c.corpus == "fsdd"],
        "emodb_dev_neutral": [c for c in sets["emodb_dev"] if c.emotion == "neutral"],
        "speech_commands_held_out": [c for c in held if c.corpus == "speech_commands"],
        "mycroft_held_out": [c for c in held if c.corpus == "mycroft"],
        "nemo_neutral": [c for c in sets["nemo"] if c.emotion == "neutral"],
    }
    stranger = Unacquainted(folder)
    for name in track(list(calm_sets), "calm calls"):
        tables[f"calm_{name}"] = _calm(model, calm_sets[name], seed, minutes)
    # Mycroft's calls are made of many voices: none of them is the caller's own.
    mixed = "mycroft_held_out"
    tables[f"calm_{mixed}_first_voice_learnt"] = tables[f"calm_{mixed}"]
    tables[f"calm_{mixed}"] = _calm(stranger, calm_sets[mixed], seed, minutes)
    for name in track(["emodb_dev", "nemo"], "known callers"):
        for kind, judge in (("known", model), ("unknown", stranger)):
            after = known_caller_outcomes(judge, sets[name], seed)
            table = {"clips": len(after)}
            for key, against in (("auc_angry_vs_all", None), ("auc_angry_vs_neutral", neutral)):
                value, low, high = auc_interval(after, against, seed)
                table[key] = round(value, 3)
                table[f"{key}_interval"] = [round(low, 3), round(high, 3)]
            for emotion in ("anger", "happiness", "neutral"):
                share = reached(after, frozenset({emotion}), 2)
                table[f"{emotion}_reaches_2"] = round(share, 3)
            tables[f"{name}_after_calm_{kind}_caller"] = table
    for sex, women in (("women", True), ("men", False)):
        chosen = [
            o
            for o in found["emodb_dev_clean_line"] + found["emodb_dev_random_line"]
            if (o.clip.speaker in EMODB_WOMEN) == women
        ]
        value, low, high = auc_interval(chosen, None, seed)
        tables[f"emodb_dev_{sex}"] = {
            "clips": len(chosen),
            "speakers": len({o.clip.speaker for o in chosen}),
            "auc_angry_vs_all": round(value, 3),
            "auc_angry_vs_neutral": round(auc_interval(chosen, neutral, seed)[0], 3),
            "anger_reaches_2": round(reached(chosen, frozenset({"anger"}), 2), 3),
            "neutral_reaches_1": round(reached(chosen, neutral, 1), 3),
        }
    delays = onset_delays(model, sets["emodb_dev"], seed, 80)
    shouts = short_shouts(model, sets["emodb_dev"], seed, 80)
    tables["onset"] = {"calls": 80}
    for level, of in delays.items():
        reached_share = float(np.mean(~np.isnan(of.from_clip)))
        tables["onset"][f"to_level_{level}_share"] = round(reached_share, 3)
        for name, values in (
            ("", of.from_clip),
            ("_from_first_sound", of.from_voice),
            ("_from_first_raised_moment", of.from_raised),
        ):
            for q in (50, 95):
                late = float(np.nanpercentile(values, q)) if reached_share else -1.0
                tables["onset"][f"to_level_{level}{name}_s_p{q}"] = round(late, 2)
    tables["one_shout_of_0_6_s"] = {
        "calls": len(shouts),
        **{f"stays_at_{n}": round(shouts.count(n) / len(shouts), 3) for n in (0, 1, 2)},
    }
    # The vocoder, like the plots, comes with the training packages.
    from detectors.evaluate_screams import made_screams

    tables["made_screams"] = made_screams(model, sets["emodb_dev"])
    return {
        "figures": tables,
        "outcomes": found,
        "delays": {level: of.from_clip for level, of in delays.items()},
    }


def kept_figures(card: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    """Figures for the card: what was measured now, and after it the card's tables that this report
    does not measure (recorded hold music; made calls, which ``eval calls --card`` writes).

    Training writes a card without figures, so what stands there belongs to the same model.
    """
    before: dict[str, Any] = card.get("figures", {})
    return {**measured, **{name: t for name, t in before.items() if name not in measured}}


def markdown(tables: dict[str, Any], version: str) -> Iterator[str]:
    """The tables of one report; false alarms first, because they decide what is switched off."""
    yield f"# Vocal effort, measured (model version {version})"
    yield ""
    yield "## False alarms an hour of dense calm speech"
    yield ""
    yield "| calm speech | hours | rises to level 1 an hour | rises to level 2 an hour |"
    yield "|---|---|---|---|"
    for name, table in tables.items():
        if name.startswith("calm_"):
            yield (
                f"| {name.removeprefix('calm_')} | {table['hours']:.2f} "
                f"| {table['to_level_1_per_hour']:.1f} | {table['to_level_2_per_hour']:.1f} |"
            )
    for name, table in tables.items():
        if name.startswith("calm_"):
            continue
        yield ""
        yield f"## {name}"
        yield ""
        yield "| figure | value |"
        yield "|---|---|"
        for key, value in table.items():
            yield f"| {key} | {value} |"


def report(
    data: Path, out: Path, folder: Path | None, *, seed: int, minutes: float, card: bool
) -> None:
    """Measure a model; write ``acoustic.md``, ``acoustic.json`` and the plots into ``out``.

    Args:
        data: folder with ``audio/manifest.tsv``.
        out: made if it is not there.
        folder: of the model; the shipped one when None.
        seed: of lines and calls.
        minutes: calm speech made of each corpus.
        card: write the figures into the model's card too.

    Raises:
        ModuleNotFoundError: matplotlib, of the training packages, is not installed.
    """
    # Asked for first: half an hour of measuring should not end without its plots.
    from detectors.plots import draw

    folder = folder or SHIPPED
    version = AcousticModel(folder).card.version
    measured = figures(folder, data, seed, minutes)
    out.mkdir(parents=True, exist_ok=True)
    tables = measured["figures"]
    (out / "acoustic.md").write_text("\n".join(markdown(tables, version)) + "\n", encoding="utf-8")
    (out / "acoustic.json").write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")
    draw(measured["outcomes"], measured["delays"], AcousticModel(folder).card, out)
    if card:
        content = read_card(folder)
        content["figures"] = kept_figures(content, tables)
        write_card(folder, content)
    Console().print(f"{out / 'acoustic.md'} and plots written")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure the acoustic detector of Callshield.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--minutes", type=float, default=60.0, help="calm audio made a corpus")
    parser.add_argument("--card", action="store_true", help="write the figures into the card")
    a = parser.parse_args()
    report(a.data, a.report, a.model, seed=a.seed, minutes=a.minutes, card=a.card)


if __name__ == "__main__":
    main()
