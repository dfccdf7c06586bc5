"""Is a short number said somewhere? A count, a time or an id may hold its digits by chance.

``"1001" in page`` is true of a page with ``0.0031001`` seconds in it, so that ``not in`` fails one
run in some hundreds. A long number is as good as never there by chance, and needs none of this.
"""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families


def mentioned(number: str, text: str) -> bool:
    """Whether ``number`` stands in ``text`` by itself: not within a longer number, fraction or id.

    Between punctuation and other scripts it does: ``sip:1001@``, ``1001번``, ``PJSIP/1001-0000a3``.
    """
    return (
        re.search(rf"(?<![0-9A-Za-z.]){re.escape(number)}(?![0-9A-Za-z]|\.[0-9])", text) is not None
    )


def labelled(page: str) -> set[str]:
    """Values of all labels of a page of metrics: a person could be named there, and nowhere else.

    Figures may be any number, also somebody's extension.
    """
    return {
        value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        for value in sample.labels.values()
    }
