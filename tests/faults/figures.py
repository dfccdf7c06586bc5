"""What the tests of faults measured, for docs/faults.md: a JSON object a line.

``./run test-faults`` names the file in ``CALLSHIELD_FAULT_FIGURES`` and the number of calls in
``CALLSHIELD_FAULT_CALLS``; without them the tests run with a few calls and keep nothing.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

CALLS = int(os.environ.get("CALLSHIELD_FAULT_CALLS", "10"))


def measured(fault: str, **figures: Any) -> None:
    """Keep the figures of one fault."""
    row = {"fault": fault, "calls": CALLS, "load": round(os.getloadavg()[0], 1), **figures}
    if place := os.environ.get("CALLSHIELD_FAULT_FIGURES"):
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def main() -> int:
    """``python -m tests.faults.figures FILE``: print them."""
    for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        fault, calls, load = row.pop("fault"), row.pop("calls"), row.pop("load")
        said = ", ".join(f"{name} {value}" for name, value in row.items())
        sys.stdout.write(f"{fault} ({calls} calls, load average {load}): {said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
