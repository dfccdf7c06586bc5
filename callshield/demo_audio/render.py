"""Render the demo's voices from ``texts.toml`` into WAV files and ``manifest.toml``.

Run by hand, in the environment of ``sipbridge/prompts/requirements-render.lock``::

    python -m callshield.demo_audio.render --voices FOLDER --cache FOLDER [calm_1 …]
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path
from typing import Any

from callshield.demo_audio import effort
from sipbridge.prompts import loudness
from sipbridge.prompts.loudness import RATE, Samples
from sipbridge.prompts.render import describe, write_manifest, write_wav
from sipbridge.prompts.voices import RATE as ENGINE_RATE
from sipbridge.prompts.voices import Speaker

HERE = Path(__file__).parent

#: Highest peak, dBFS: a shout may use nearly all of the scale, as it does on a real line.
PEAK_DBFS = -1.0
#: How far a shouting voice overdrives the handset, dB.
DRIVE_DB = 4.0


def render_line(entry: dict[str, Any], speaker: Speaker) -> Samples:
    """One line, ready to be written: 8 kHz, in the telephone band, at its level."""
    x = speaker.say(entry["language"], entry["said"], entry["voice"], entry["speed"])
    x = loudness.shorten_pauses(x, ENGINE_RATE, entry["pause_s"])
    x = loudness.change_tempo(x, ENGINE_RATE, entry["tempo"])
    if entry["effort"] > 0:
        x = effort.shout(x, ENGINE_RATE, entry["effort"])
    x = loudness.to_telephone_band(x, ENGINE_RATE)
    if entry["effort"] > 0:
        x = effort.overdrive(x, DRIVE_DB)
    x = loudness.level_speech(x, entry["level"], PEAK_DBFS)
    return loudness.frame_in_silence(x, 0.1, 0.1)


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--voices", type=Path, required=True, help="voices of kokoro-js")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the joined model")
    parser.add_argument("only", nargs="*", help="calm_1 …; nothing = every line")
    args = parser.parse_args()
    texts = tomllib.loads((HERE / "texts.toml").read_text("utf-8"))
    manifest = HERE / "manifest.toml"
    known = tomllib.loads(manifest.read_text("utf-8"))["prompt"] if manifest.exists() else []
    done = {e["id"]: e for e in known}
    speaker = Speaker(args.voices, args.cache)
    for own in texts["prompt"]:
        if args.only and own["id"] not in args.only:
            continue
        entry = {"version": "1", **texts["defaults"][own["language"]], **own}
        x = render_line(entry, speaker)
        path = HERE / f"{entry['id']}.wav"
        write_wav(path, x)
        done[entry["id"]] = {**describe(entry, path, x), "simulated_effort": entry["effort"]}
        sys.stdout.write(f"{entry['id']}: {len(x) / RATE:.2f} s\n")
        sys.stdout.flush()
        write_manifest(manifest, [done[e["id"]] for e in texts["prompt"] if e["id"] in done])
    return 0


if __name__ == "__main__":
    sys.exit(main())
