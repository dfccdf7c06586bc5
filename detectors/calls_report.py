"""``callshield eval calls``: false alarms an agent-hour, hits and delays in made calls.

Without the ``callshield`` command: ``python -m detectors.calls_report --data … --report …``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from detectors import corpora, tradeoff
from detectors.acoustic import SHIPPED, AcousticModel
from detectors.calls_eval import (
    Outcome,
    Played,
    Rate,
    Share,
    false_alarms,
    hit_share,
    played,
)
from detectors.card import read_card, write_card
from detectors.evaluate import onset_calls
from detectors.made_calls import (
    NOISE_DB,
    ORDINARY,
    Audio,
    Kind,
    MadeCall,
    Voices,
    abusive,
    empty,
    peaceful,
)
from detectors.resample import to_8k
from detectors.thresholds import card_policy

#: Corpora with calm speech, with lively speech, with anger.
CALM_CORPORA = ("emodb", "nemo", "fsdd", "speech_commands", "mycroft")
LIVELY_CORPORA = ("emodb", "nemo")
ANGRY_CORPORA = ("emodb", "nemo")
#: Calls that turn angry, for the delay of other rules.
ONSETS = 80
_SOUNDS = ("signal ", "background ", "nobody speaks, ")
#: How much is made of each kind of calm speech, of ``minutes``: most callers stand in no kennel.
PARTS = {Kind.CALM: 1.0, Kind.NOISY: 0.5, Kind.BACKGROUND: 0.25, Kind.SIGNALS: 0.25}
#: What no recording here can answer.
NOT_TESTED = (
    "Korean, Chinese and Japanese speech: the recordings are German, Polish and English",
    "real callers: anger and joy here are acted, calm speech is read",
    "words: these calls go through the voice's part of the detector; `eval text` and `eval asr` "
    "measure the rest",
    "age groups: the only known ages are 21 to 35 years; no child and no old person",
    "dialects: no recording names one",
    "voice sex of nEMO, Speech Commands and Mycroft: the data do not say; of FSDD only men are "
    "known, so women are EmoDB's two dev speakers",
    "second-language speech: one FSDD speaker saying digits, calm; none angry",
    "screaming and crying; two people at the caller's end; television behind the caller",
)


@dataclass(frozen=True, slots=True)
class Group:
    """One row of the report."""

    name: str
    rate: Rate
    rate_1: Rate
    """Rises to level 1."""


def made(data: Path, seed: int, minutes: float) -> Iterator[tuple[str, Iterator[MadeCall]]]:
    """All calls by what they are made of; each corpus gives :data:`PARTS` of ``minutes``.

    Args:
        data: folder with ``audio/manifest.tsv``.
        seed: of order, turns and lines.
        minutes: of calls.
    """
    held = [clip for clip in corpora.read_manifest(data) if clip.held_out]
    voices = Voices(held)
    noises: dict[str, list[Audio]] = {}
    for clip in held:
        if clip.corpus == "esc10":
            name = clip.emotion.removeprefix("noise_")
            noises.setdefault(name, []).append(to_8k(*corpora.read_clip(clip.path)))
    for kind, part in PARTS.items():
        for corpus in CALM_CORPORA:
            yield f"{kind} {corpus}", peaceful(voices, kind, corpus, part * minutes, seed, noises)
    yield "empty", empty(minutes, seed, noises)
    for corpus in LIVELY_CORPORA:
        yield f"raised {corpus}", peaceful(voices, Kind.RAISED, corpus, minutes, seed)
    for corpus in ANGRY_CORPORA:
        yield f"abusive {corpus}", abusive(voices, corpus, max(4, round(minutes)), seed)


def play(
    model: AcousticModel,
    data: Path,
    seed: int,
    minutes: float,
    say: Callable[[str], None] = lambda _: None,
) -> list[Played]:
    """Make all calls and play them to a detector."""
    found: list[Played] = []
    for name, calls in made(data, seed, minutes):
        found += played(model, calls)
        say(name)
    return found


def measure(model: AcousticModel, data: Path, seed: int, minutes: float) -> list[Outcome]:
    """What a detector does in all calls."""
    return [one.outcome for one in play(model, data, seed, minutes)]


def _group(name: str, found: Sequence[Outcome], seed: int) -> Group:
    return Group(name, false_alarms(found, seed), false_alarms(found, seed, level=1))


def ordinary(found: Iterable[Outcome]) -> list[Outcome]:
    """Calls of which the headline is made."""
    return [one for one in found if one.kind in ORDINARY]


def groups(found: Sequence[Outcome], seed: int) -> dict[str, list[Group]]:
    """Tables of false alarms: by kind of call, source, voice, noise and line."""
    usual = ordinary(found)
    spoken = [one for one in usual if one.kind is not Kind.EMPTY]

    def having(trait: str, among: Sequence[Outcome]) -> list[Outcome]:
        return [one for one in among if trait in one.traits]

    lines = sorted({t for one in found for t in one.traits if t.startswith("codec ")})
    lines += ["mobile (GSM)", "packet loss", "clipped", "hands-free room"]
    known = ["women", "men", "21 to 35 years", "first-language", "second-language"]
    noise = [f"noise {snr_db:g} dB under the voice" for snr_db in NOISE_DB]
    others = sorted({t for one in found for t in one.traits if t.startswith(_SOUNDS)})
    tables = {
        "by kind of call": [(kind.value, [o for o in found if o.kind is kind]) for kind in Kind],
        "by source": [(c, [o for o in spoken if o.corpus == c]) for c in CALM_CORPORA],
        "raised but calm, by source": [
            (c, [o for o in found if o.kind is Kind.RAISED and o.corpus == c])
            for c in LIVELY_CORPORA
        ],
        "by voice, where it is known": [(t, having(t, spoken)) for t in known],
        "by line noise": [(t, having(t, spoken)) for t in noise],
        "by what else is on the line": [(t, having(t, usual)) for t in others],
        "by line": [(t, having(t, spoken)) for t in lines],
    }
    return {
        title: [_group(name, some, seed) for name, some in rows if some]
        for title, rows in tables.items()
    }


def shares(found: Sequence[Outcome], seed: int) -> dict[str, Share]:
    """Hit rates: all, by source and by voice."""
    angry = [one for one in found if one.hit is not None]
    rows = {"all": angry}
    rows |= {c: [o for o in angry if o.corpus == c] for c in ANGRY_CORPORA}
    # Not by line: a dozen calls on bad lines are mostly of one source, and would tell of that.
    for trait in ("women", "men"):
        rows[trait] = [o for o in angry if trait in o.traits]
    return {name: hit_share(some, seed) for name, some in rows.items() if some}


def _mixture(usual: Sequence[Outcome]) -> str:
    hours = sum(one.hours for one in usual)
    parts = {kind: sum(o.hours for o in usual if o.kind is kind) / hours for kind in ORDINARY}
    return ", ".join(f"{100 * part:.0f} % {kind}" for kind, part in parts.items() if part)


def _per_hour(rate: Rate) -> str:
    return f"{rate.per_hour:.2f} ({rate.low:.2f} to {rate.high:.2f})"


def _delay(share: Share, percent: float) -> str:
    return f"{np.percentile(share.delays_s, percent):.2f} s" if share.delays_s else "–"


def markdown(found: Sequence[Outcome], seed: int, model_version: str) -> Iterator[str]:
    """The report; the headline first."""
    head = _group("", ordinary(found), seed)
    calm = false_alarms([one for one in found if one.kind in (Kind.CALM, Kind.NOISY)], seed)
    usual = ordinary(found)
    density = sum(o.speech_s for o in usual) / 3600 / head.rate.hours
    yield "# Made calls, measured"
    yield ""
    yield (
        f"**False alarms an agent-hour: {_per_hour(head.rate)}** ({head.rate.events} in "
        f"{head.rate.hours:.1f} hours of {head.rate.calls} ordinary calls of {head.rate.speakers} "
        f"voices, model {model_version}; rises to level 1: {_per_hour(head.rate_1)}). "
        f"Without signals and recorded noises: **{_per_hour(calm)}** in {calm.hours:.1f} hours."
    )
    yield ""
    yield (
        "An agent-hour is an hour on the telephone; the caller speaks "
        f"{100 * density:.0f} % of it. A false alarm is a rise to level 2 where nobody is angry. "
        "Intervals are 95 %, the wider of exact Poisson (shares: Wilson) and a bootstrap by "
        f"speaker. The hour is made of {_mixture(usual)}."
    )
    for title, rows in groups(found, seed).items():
        yield ""
        yield f"## False alarms {title}"
        yield ""
        yield "| calls | number | voices | hours | level 2 an hour | level 1 an hour |"
        yield "|---|---|---|---|---|---|"
        for row in rows:
            yield (
                f"| {row.name} | {row.rate.calls} | {row.rate.speakers} | {row.rate.hours:.2f} "
                f"| {_per_hour(row.rate)} | {_per_hour(row.rate_1)} |"
            )
    yield ""
    yield "## Angry passages that reach level 2"
    yield ""
    yield "| calls | number | voices | reached | median delay | 95th percentile |"
    yield "|---|---|---|---|---|---|"
    for name, share in shares(found, seed).items():
        part = f"{100 * share.hits / share.calls:.0f} % ({100 * share.low:.0f}"
        yield (
            f"| {name} | {share.calls} | {share.speakers} "
            f"| {part} to {100 * share.high:.0f} %) | {_delay(share, 50)} | {_delay(share, 95)} |"
        )
    yield ""
    yield "Delay: from the beginning of the first angry clip, of the passages that reached level 2."
    yield ""
    yield "## Not tested, for want of recordings"
    yield ""
    for line in NOT_TESTED:
        yield f"* {line}"


def _rate(rate: Rate) -> dict[str, Any]:
    return {
        "calls": rate.calls,
        "speakers": rate.speakers,
        "hours": round(rate.hours, 3),
        "events": rate.events,
        "per_hour": round(rate.per_hour, 3),
        "interval": [round(rate.low, 3), round(rate.high, 3)],
    }


def figures(found: Sequence[Outcome], seed: int) -> dict[str, Any]:
    """The report as plain values."""
    return {
        "false_alarms_per_agent_hour": _rate(false_alarms(ordinary(found), seed)),
        "false_alarms": {
            title: {row.name: _rate(row.rate) for row in rows}
            for title, rows in groups(found, seed).items()
        },
        "hits": {
            name: {
                "calls": share.calls,
                "speakers": share.speakers,
                "hits": share.hits,
                "interval": [round(share.low, 3), round(share.high, 3)],
                "delays_s": [round(delay, 2) for delay in share.delays_s],
            }
            for name, share in shares(found, seed).items()
        },
        "not_tested": list(NOT_TESTED),
    }


def card_figures(found: Sequence[Outcome], seed: int) -> dict[str, Any]:
    """What the model's card says of made calls."""
    rate = false_alarms(ordinary(found), seed)
    table: dict[str, Any] = {
        "hours": round(rate.hours, 2),
        "level_2_per_hour": round(rate.per_hour, 2),
        "level_2_per_hour_interval": [round(rate.low, 2), round(rate.high, 2)],
        "level_1_per_hour": round(false_alarms(ordinary(found), seed, level=1).per_hour, 2),
    }
    for name, share in shares(found, seed).items():
        if name in ANGRY_CORPORA:
            table[f"{name}_passages_reach_2"] = round(share.hits / share.calls, 3)
    return table


def report(
    data: Path, out: Path, folder: Path | None, *, seed: int, minutes: float, card: bool = False
) -> None:
    """Measure a model; write ``calls.md``, ``calls.json`` and the plots into ``out``.

    The last section and ``delay_tradeoff.png`` say what other rules would have done.

    Args:
        data: folder with ``audio/manifest.tsv``.
        out: made if it is not there.
        folder: of the model; the shipped one when None.
        seed: of the calls.
        minutes: of calls made of each kind and source.
        card: write the headline into the model's card too.

    Raises:
        ModuleNotFoundError: matplotlib, of the training packages, is not installed.
    """
    # Asked for first: a quarter of an hour of measuring should not end without its plots.
    from detectors.calls_plots import draw, draw_tradeoff

    model = AcousticModel(folder or SHIPPED)
    console = Console(stderr=True)
    calls = play(model, data, seed, minutes, lambda name: console.print(f"{name}: done"))
    angry = [c for c in corpora.read_manifest(data) if c.held_out and c.corpus == "emodb"]
    onsets = tradeoff.scored(model, onset_calls(angry, seed, ONSETS))
    found = [one.outcome for one in calls]
    version = f"{model.card.version} ({model.card.sha256[:12]})"
    points = tradeoff.points(calls, onsets, card_policy(model.card))
    out.mkdir(parents=True, exist_ok=True)
    lines = [*markdown(found, seed, version), *tradeoff.markdown(points)]
    (out / "calls.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / "calls.json").write_text(
        json.dumps(figures(found, seed), indent=1) + "\n", encoding="utf-8"
    )
    draw(groups(found, seed), shares(found, seed), out)
    draw_tradeoff(points, out)
    if card:
        content = read_card(folder or SHIPPED)
        content.setdefault("figures", {})["made_calls"] = card_figures(found, seed)
        write_card(folder or SHIPPED, content)
    Console().print(f"{out / 'calls.md'} and plots written")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure the detector in made calls.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--minutes", type=float, default=30.0, help="of each kind and source")
    parser.add_argument("--card", action="store_true", help="write the headline into the card")
    a = parser.parse_args()
    report(a.data, a.report, a.model, seed=a.seed, minutes=a.minutes, card=a.card)


if __name__ == "__main__":
    main()
