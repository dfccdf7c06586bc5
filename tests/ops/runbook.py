"""The commands of docs/operations.md, as they stand there.

A block of shell is one that begins with a line ``# run: NAME``; the page shows that line too, so
that a reader sees what is tried. Nothing in it is replaced: what differs from site to site is in
variables that the page names.
"""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def blocks(text: str | None = None) -> dict[str, str]:
    """Blocks by name, in the page's order.

    Raises:
        ValueError: two have the same name.
    """
    page = PAGE.read_text(encoding="utf-8") if text is None else text
    found: dict[str, str] = {}
    for fence in re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        first, _, rest = fence.partition("\n")
        if match := re.fullmatch(r"# run: ([a-z-]+)", first):
            if match[1] in found:
                raise ValueError(f"two blocks are called {match[1]}")
            found[match[1]] = rest
    return found
