"""``callshield serve`` with the test's transcribers: ``python -m tests.listening_node --config F``.

``--leaking`` also runs a notifier with holes (:mod:`tests.leaking_notifier`).
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import uvloop

from callshield import serve
from callshield.logs import configure_logs
from callshield.settings import Settings, load_settings

_REAL = serve.parts_of


def _parts(leaking: bool) -> None:
    instead = {"detectors.transcriber": "tests.listening_transcriber"}
    if leaking:
        instead["notifier.process"] = "tests.leaking_notifier"

    def parts_of(settings: Settings) -> list[serve.Part]:
        return [
            dataclasses.replace(part, module=instead.get(part.module, part.module))
            for part in _REAL(settings)
        ]

    serve.parts_of = parts_of


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--leaking", action="store_true")
    arguments = parser.parse_args()
    _parts(arguments.leaking)
    settings = load_settings(arguments.config)
    configure_logs("supervisor")
    sys.exit(uvloop.run(serve.serve(settings, arguments.config)))
