"""The part of ``callshield doctor`` that looks at what evidence packages need."""

from __future__ import annotations

from callshield.errors import EvidenceError
from callshield.findings import Finding, note, ok, problem
from callshield.settings import Settings

_NAME = "evidence"


def examine_evidence(settings: Settings) -> Finding:
    """Could a package be made, and whom may an agent turn to?"""
    from notifier.evidence_font import find_faces
    from notifier.evidence_key import load_signing_key

    wanted = settings.evidence
    try:
        faces = find_faces(wanted.font, settings.node.language)
        if not wanted.key_file.exists():
            return note(
                _NAME,
                f"there is no signing key {wanted.key_file}",
                "make one with `callshield evidence key`, and give its public half to whoever "
                "will check packages",
            )
        key = load_signing_key(wanted.key_file).public
    except EvidenceError as error:
        sentence, _, advice = str(error).partition(": ")
        return problem(_NAME, sentence, advice or "see docs/evidence.md")
    found = f"key {key.key_id[:16]}…, font {faces.regular.path.name}"
    if not settings.law.grievance_contact:
        return note(
            _NAME,
            f"{found}; an agent whose request is refused is told of nobody to turn to",
            "set law.grievance_contact",
        )
    return ok(_NAME, found)
