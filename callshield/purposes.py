"""What a notice tells the caller that a call is used for, and what may be done with it then.

A use that the caller was not told of does not begin: PIPA art. 3(1) and (2) and 18(1) (Korea), GDPR
art. 5(1)(b), APPI art. 17 and 18 (Japan), PIPL art. 6 (China) bind a use to the purpose that was
named (not read in the original). Which prompt names what stands in the prompts' ``manifest.toml``
(``sipbridge/prompt_manifest.py``); what a caller heard of it is stamped on each call.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from callshield.messages_notice import PromptStamp

#: Calls are drawn and scored for the quality of the service.
QUALITY: Final = "quality"
#: Thresholds are found from what people said of past calls.
CALIBRATION: Final = "calibration"


def heard(stamps: Iterable[PromptStamp], before: Iterable[str] = ()) -> list[str]:
    """Every purpose that a caller was told of, by announcements heard to their end.

    Args:
        stamps: of announcements, played by us or attested.
        before: purposes that the caller had been told of already.

    Returns:
        Each once, in the order of the alphabet.
    """
    named = {purpose for stamp in stamps if stamp.complete for purpose in stamp.purposes}
    return sorted(named.union(before))
