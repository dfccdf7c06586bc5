"""What the agent's speaking bit costs: CPU of one packet in the relay with and without it.

``python -m tests.voice_cost`` compiles the relay twice (gcc, libsrtp2) and runs both in turn.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
CORE = ROOT / "sipbridge" / "relay_core"
TURNS = 10


def build(folder: Path, *, voice: bool) -> Path:
    """The relay less its Python module, with ``voice_cost.c`` in front."""
    python = ("Python.h", "module_parts.h")
    sources = [
        path
        for path in CORE.glob("*.c")
        if not any(one in path.read_text() for one in python) and (voice or path.stem != "voice")
    ]
    flags = () if voice else ("-DWITHOUT_VOICE",)
    made = folder / f"voice-{voice}"
    subprocess.run(
        [
            *(os.environ.get("CC", "gcc"), "-std=c11", "-D_GNU_SOURCE", "-O2", f"-I{CORE}", *flags),
            *(str(ROOT / "tests" / "voice_cost.c"), *map(str, sources)),
            *("-o", str(made), "-lsrtp2", "-lpthread", "-lm"),
        ],
        check=True,
    )
    return made


def main() -> None:
    """Print the least of each, and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        programs = [build(Path(folder), voice=voice) for voice in (True, False)]
        least = [float("inf")] * 2
        for _ in range(TURNS):
            for n, program in enumerate(programs):
                said = subprocess.run([program], capture_output=True, text=True, check=True)
                least[n] = min(least[n], float(said.stdout))
        print(f"with {least[0]} ns, without {least[1]} ns: {least[0] / least[1]:.3f}")


if __name__ == "__main__":
    main()
