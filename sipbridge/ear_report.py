"""Figures and pictures for docs/hearing.md: ``python -m sipbridge.ear_report``.

Tables go to standard output, PNGs to ``--out``. With ``--data`` (the folder of the measuring data)
acted shouting is measured besides our own prompts. matplotlib draws and pystoi rates
intelligibility; neither belongs to the product, and what one of them is needed for is left out,
with a line saying so, where it is not installed.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import platform
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from callshield import g711
from callshield.settings import EarSettings
from sipbridge.ear_measure import (
    RATE,
    Samples,
    active_level_dbfs,
    at_active_level,
    hear,
    level_dbfs,
    load,
    mixed,
    noise,
    over_g711,
    pauses,
    short_time_dbfs,
    tones,
    whistle,
)
from sipbridge.relay_core import Ear

PROMPTS = Path(__file__).parent / "prompts"
CALM_DBFS, SHOUT_DBFS = -26.0, -12.0
SAFE_DBFS = -38.0
TONES: dict[str, tuple[list[float], list[float]]] = {
    "400 Hz": ([400.0], [1.0]),
    "1100 Hz (fax calling, CNG)": ([1100.0], [1.0]),
    "2100 Hz (fax answer, CED)": ([2100.0], [1.0]),
    "3000 Hz": ([3000.0], [1.0]),
    "DTMF 1": ([697.0, 1209.0], [1.0, 1.0]),
    "DTMF D": ([941.0, 1633.0], [1.0, 1.0]),
    "dial tone 350 + 440 Hz": ([350.0, 440.0], [1.0, 1.0]),
    "ringing 440 + 480 Hz": ([440.0, 480.0], [1.0, 1.0]),
    "howl, 900 Hz and overtones": ([900.0, 1800.0, 2700.0], [1.0, 0.3, 0.1]),
    "howl, clipped 500 Hz": ([500.0, 1500.0, 2500.0, 3500.0], [1.0, 1 / 3, 1 / 5, 1 / 7]),
}


def recordings(data: Path, corpus: str, emotions: set[str], most: int = 120) -> list[Samples]:
    """Clips of a corpus, as they come over the line; both splits (nothing is learnt here)."""
    with (data / "audio" / "manifest.tsv").open(encoding="utf-8") as lines:
        rows = [r for r in csv.DictReader(lines, delimiter="\t") if r["corpus"] == corpus]
    paths = [r["path"] for r in rows if r["emotion"] in emotions or not emotions]
    return [load(data / "audio" / path) for path in paths[:most]]


def prompts() -> list[Samples]:
    """Every shipped prompt that is speech."""
    return [load(path) for path in sorted(PROMPTS.glob("??/*.wav"))]


def joined(clips: Iterable[Samples], gap_s: float = 0.6) -> Samples:
    """Clips one after the other with silence between."""
    gap = np.zeros(int(gap_s * RATE), np.int16)
    return np.concatenate([part for clip in clips for part in (clip, gap)])


def table(title: str, head: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table."""
    print(f"\n### {title}\n")
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(row) + " |")


# ------------------------------------------------------------------ figures


def _us(call: Callable[[bytes], object], packets: list[bytes]) -> float:
    best = float("inf")
    for _ in range(15):
        begin = time.thread_time()
        for packet in packets:
            call(packet)
        best = min(best, (time.thread_time() - begin) / len(packets) * 1e6)
    return best


def cost() -> None:
    """CPU time of one packet of 20 ms, the call from Python taken off."""
    rows = []
    packets_of = {
        name: [sound[i : i + 160] for i in range(0, len(sound) - 160, 160)]
        for name, sound in {
            "calm speech (-33 dBFS)": joined(at_active_level(p, -33.0) for p in prompts()[:4]),
            "shouting (-12 dBFS)": joined(at_active_level(p, -12.0) for p in prompts()[:4]),
        }.items()
    }
    translation = g711.transcoding_table(g711.PCMU, g711.PCMA)
    for name, packets in packets_of.items():
        raw = [p.astype("<i2").tobytes() for p in packets]
        empty = _us(Ear().process, [b""] * len(raw))
        payloads = [g711.encode(p, g711.PCMU) for p in packets]
        transcoding = _us(lambda payload: payload.translate(translation), payloads)
        for soften in (False, True):
            for levelling in (False, True):
                ear = Ear(soften=soften, levelling=levelling)
                spent = _us(ear.process, raw) - empty
                count = ear.counters()
                rows.append(
                    [
                        name,
                        "on" if soften else "off",
                        "on" if levelling else "off",
                        f"{spent:.2f}",
                        f"{100 * count['packets_changed'] / count['packets']:.0f}",
                        f"{transcoding:.2f}",
                    ]
                )
    head = ["sound", "softening", "levelling", "µs a packet", "packets changed, %"]
    table(
        f"Cost on {platform.machine()}, {platform.system()}",
        [*head, "beside it: bytes.translate, µs"],
        rows,
    )


def reaction_ms(tone: Samples, before: Samples, packet: int) -> float:
    """Worst time, over starts within a packet, until a tone stays at a safe level."""
    worst = 0.0
    for offset in range(0, packet, 13):
        start = len(before) + offset
        sound = np.concatenate((before, np.zeros(offset, np.int16), tone))
        out = hear(Ear(), over_g711(sound), packet)[start:] / 32768.0
        power = np.convolve(np.square(out), np.ones(80) / 80.0)[: len(out)]
        above = np.flatnonzero(power > 10.0 ** (SAFE_DBFS / 10.0))
        if len(above):
            worst = max(worst, (float(above[-1]) - 78.0) / 8.0)
    return worst


def shock(data: Path | None) -> None:
    """How fast tones go, what a burst becomes, and how often speech is taken for either."""
    before = at_active_level(prompts()[0], CALM_DBFS)[:16000]
    rows = []
    sounds: dict[str, Callable[[float], Samples]] = {
        name: partial(tones, of, seconds=0.6, amplitudes=weights)
        for name, (of, weights) in TONES.items()
    }
    sounds["pea whistle, 2800 Hz"] = partial(whistle, seconds=0.6)
    for name, sound in sounds.items():
        row = [name]
        for level in (-6.2, -12.0, -22.0):
            tone = sound(level)
            row.append(f"{max(reaction_ms(tone, before, packet) for packet in (80, 160, 480)):.0f}")
        rows.append([*row, f"{level_dbfs(hear(Ear(), sound(-6.2))[2400:]):.1f}"])
    head = ["at -6.2 dBFS", "-12", "-22", "what is left, dBFS"]
    table(f"Tones: ms until below {SAFE_DBFS:.0f} dBFS (worst start)", ["tone", *head], rows)

    rows = []
    for talker in (-26.0, -36.0):
        calm = at_active_level(joined(prompts()[:2]), talker)
        for name, burst in {
            "noise, 100 ms at -7 dBFS": noise(-7.0, 0.1, seed=3),
            "noise, 5 ms at -4 dBFS": noise(-4.0, 0.005, seed=3),
            "click, 2 ms at full scale": np.full(16, 32767, np.int16),
        }.items():
            out = hear(Ear(), np.concatenate((calm, burst)))[len(calm) :]
            peak = 20.0 * np.log10(np.max(np.abs(out.astype(float))) / 32768.0)
            rows.append([f"{talker:.0f}", name, f"{level_dbfs(out):.1f}", f"{peak:.1f}"])
    table("Bursts", ["talker, dBFS", "burst", "heard, RMS dBFS", "peak dBFS"], rows)

    sources = {"our prompts, four languages": prompts()}
    if data:
        sources["EmoDB, anger and fear (acted)"] = recordings(data, "emodb", {"anger", "fear"}, 999)
        others = {"neutral", "happiness", "sadness"}
        sources["EmoDB, neutral, happy, sad"] = recordings(data, "emodb", others, 999)
        sources["nEMO, anger (acted)"] = recordings(data, "nemo", {"anger"}, 999)
        sources["Mycroft, single words"] = recordings(data, "mycroft", set(), 999)
    rows = []
    for name, clips in sources.items():
        for level in (-26.0, -16.0):
            ear = Ear()
            for clip in clips:
                hear(ear, over_g711(at_active_level(clip, level)))
            minutes = sum(map(len, clips)) / RATE / 60.0
            count = ear.counters()
            found = [count["shock_tones"], count["shock_bursts"]]
            rows.append(
                [name, f"{minutes:.1f}", f"{level:.0f}", *(f"{n / minutes:.2f}" for n in found)]
            )
    table("False alarms on speech", ["speech", "min", "dBFS", "tones/min", "bursts/min"], rows)


def _intelligibility() -> Callable[[Samples, Samples], float] | None:
    try:
        stoi = importlib.import_module("pystoi").stoi
    except ImportError:
        print("\n(pystoi is not installed: no STOI. `pip install pystoi` in a venv of your own.)")
        return None
    return lambda clean, heard: float(stoi(clean / 32768.0, heard / 32768.0, RATE))


def softening(data: Path | None) -> None:
    """Calm speech and the same or acted shouting, limited only and softened."""
    rate = _intelligibility()
    sources = {"our prompts": (prompts(), prompts())}
    if data:
        calm, shout = (recordings(data, "emodb", {e}, 60) for e in ("neutral", "anger"))
        sources["EmoDB: neutral, anger"] = (calm, shout)
    rows = []
    for name, (calm, shout) in sources.items():
        for clips, level in ((calm, CALM_DBFS), (shout, -18.0), (shout, SHOUT_DBFS)):
            for switches in ({}, {"soften": True}, {"soften": True, "levelling": True}):
                heard, loudest, words, loud = [], [], [], []
                for clip in clips:
                    sound = over_g711(at_active_level(clip, level))
                    ear = Ear(**switches)
                    hear(ear, sound)  # the call has been going on for a while
                    out = over_g711(hear(ear, sound))
                    heard.append(active_level_dbfs(out))
                    times = short_time_dbfs(out)
                    loudest.append(float(np.max(times)))
                    loud.append(float(np.mean(times[times > heard[-1] - 15.0] > -18.0)))
                    if rate and len(sound) > RATE:
                        words.append(rate(sound, out))
                rows.append(
                    [
                        f"{name}, {level:.0f} dBFS",
                        " + ".join(switches) or "limiter only",
                        f"{np.mean(heard):.1f}",
                        f"{np.max(loudest):.1f}",
                        f"{100.0 * np.mean(loud):.0f}",
                        f"{np.mean(words):.3f} ({np.min(words):.3f})" if words else "-",
                    ]
                )
    head = ["speech", "switched on", "active level", "loudest 20 ms", "of the speech above -18, %"]
    table("Softening (dBFS)", [*head, "STOI against the input, mean (least)"], rows)


def levelling() -> None:
    """Levels after the first two seconds, and what becomes of noise in pauses."""
    clean = joined(prompts())[: 40 * RATE]
    rows = []
    for level in (-45.0, -40.0, -35.0, -30.0, -25.0, -20.0, -15.0):
        row = [f"{level:.0f}"]
        for snr in (None, 30.0, 20.0, 15.0, 10.0):
            sound = speech = at_active_level(clean, level)
            if snr is not None:
                sound = mixed(speech, noise(level - snr, len(speech) / RATE))
            out = hear(Ear(levelling=True), over_g711(sound))
            text = f"{active_level_dbfs(out[2 * RATE :]):.1f}"
            if snr is not None:
                found = [p for p in pauses(speech, level - 30.0, 500.0) if p[0] > 2 * RATE]
                rests = [slice(a + 3200, b) for a, b in found]
                change = [level_dbfs(out[r]) - level_dbfs(sound[r]) for r in rests]
                text += f" / {np.mean(change):+.1f}"
            row.append(text)
        rows.append(row)
    head = ["no noise", "SNR 30 dB", "20", "15", "10"]
    table(
        "Levelling to -26 dBFS: active level after 2 s / change of noise in pauses",
        ["talker, dBFS", *head],
        rows,
    )


# ------------------------------------------------------------------ pictures


def pictures(data: Path | None, out: Path) -> None:
    """softening.png, levelling.png and shock.png."""
    try:
        plot: Any = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        print("\n(matplotlib is not installed: no pictures. Use a venv of your own that has it.)")
        return
    profile = EarSettings.model_validate({})
    calm, shout, source = prompts()[0], prompts()[1], "our own prompts"
    if data:
        path = data / "audio" / "emodb"
        names = ("16b03Nb", "16b03Wb")
        if all((path / f"{name}.flac").exists() for name in names):
            calm, shout = (load(path / f"{name}.flac") for name in names)
            source = f"EmoDB {names[0]} (neutral) and {names[1]} (anger), one speaker"
    parts = [(calm, CALM_DBFS), (shout, SHOUT_DBFS), (calm, CALM_DBFS), (shout, SHOUT_DBFS)]
    levelled = [at_active_level(clip, level) for clip, level in parts]
    sound = over_g711(joined(levelled))
    heard = {
        "as it comes": ("0.55", sound),
        "limiter and shock guard only": ("tab:blue", hear(Ear(), sound)),
        "with softening": ("tab:red", hear(Ear(soften=True), sound)),
    }
    figure, axis = plot.subplots(figsize=(11, 5.2), dpi=110)
    for name, (colour, samples) in heard.items():
        times = np.arange(len(samples) // 160) * 0.02
        width = 1.0 if colour == "0.55" else 1.3
        axis.plot(times, short_time_dbfs(samples), color=colour, label=name, linewidth=width)
    starts = np.cumsum([0, *(len(part) + int(0.6 * RATE) for part in levelled)])
    for index, part in enumerate(levelled):
        span = slice(int(starts[index]), int(starts[index]) + len(part))
        for colour, samples in heard.values():
            active = active_level_dbfs(samples[span])
            ends = (span.start / RATE, span.stop / RATE)
            axis.plot(ends, (active, active), color=colour, linewidth=5, alpha=0.35)
        word = "calm" if index % 2 == 0 else "shouting"
        axis.text((span.start + span.stop) / 2 / RATE, -62.5, word, ha="center", va="bottom")
    for level, style, text in (
        (profile.limit_peak_dbfs, "-", "peak ceiling"),
        (profile.limit_rms_dbfs, "--", "RMS ceiling"),
        (profile.soften_target_dbfs, ":", "normal level"),
    ):
        axis.axhline(level, color="black", linewidth=0.9, linestyle=style)
        axis.text(
            len(sound) / RATE + 0.15, level, f"{text}\n{level:.0f} dBFS", va="center", fontsize=8
        )
    axis.set(xlabel="s", ylabel="level of 20 ms, dBFS", ylim=(-63, 1), xlim=(0, len(sound) / RATE))
    axis.set_title(f"What the agent hears of a shout. Thick: active level. {source}", fontsize=10)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncol=3, fontsize=9, frameon=False)
    _save(figure, out / "softening.png")

    figure, axes = plot.subplots(1, 2, figsize=(11, 4.2), dpi=110, sharey=True)
    talkers = [over_g711(at_active_level(calm, level)) for level in (-15.0, -30.0, -45.0)]
    quiet = joined([np.concatenate([t] * 2) for t in talkers])
    quiet = mixed(quiet, noise(-55.0, len(quiet) / RATE)[: len(quiet)])
    ear = Ear(levelling=True)
    for axis, (name, samples) in zip(
        axes, {"as it comes": quiet, "levelled": hear(ear, quiet)}.items(), strict=True
    ):
        axis.plot(np.arange(len(samples) // 160) * 0.02, short_time_dbfs(samples), linewidth=0.9)
        axis.axhline(profile.target_rms_dbfs, color="black", linestyle=":", linewidth=0.9)
        axis.set(title=name, xlabel="s", ylim=(-85, 0))
    axes[0].set_ylabel("level of 20 ms, dBFS")
    figure.suptitle("Talkers at -15, -30, -45 dBFS over noise at -55 dBFS", fontsize=10)
    _save(figure, out / "levelling.png")

    figure, axis = plot.subplots(figsize=(11, 4.2), dpi=110)
    tone = tones([2100.0], -10.0, 0.3)
    burst = noise(-7.0, 0.1, seed=3)
    start = at_active_level(calm, CALM_DBFS)[:8000]
    sound = over_g711(np.concatenate((start, tone, start, burst, start)))
    for name, samples in {
        "as it comes": sound,
        "as the agent hears it": hear(Ear(), sound),
    }.items():
        times = np.arange(len(samples) // 40) * 0.005
        axis.plot(times, short_time_dbfs(samples, 5.0), linewidth=1.0, label=name)
    axis.set(xlabel="s", ylabel="level of 5 ms, dBFS", ylim=(-75, 0))
    axis.set_title("A fax answer tone and a burst of noise in a talker at -26 dBFS", fontsize=10)
    axis.legend(loc="lower right", fontsize=8)
    _save(figure, out / "shock.png")


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})
    print(f"\nwrote {path}")


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(prog="python -m sipbridge.ear_report", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the measuring data")
    parser.add_argument("--out", type=Path, default=Path("docs/img"), help="folder of the PNGs")
    parser.add_argument("--pictures-only", action="store_true", help="no tables")
    options = parser.parse_args()
    if not options.pictures_only:
        cost()
        shock(options.data)
        softening(options.data)
        levelling()
    pictures(options.data, options.out)


if __name__ == "__main__":
    main()
