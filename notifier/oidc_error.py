"""A sign-in that failed, and how long one may take; apart from what loads libraries."""

from __future__ import annotations

#: How long a person may take at the provider.
ATTEMPT_S = 600.0
#: How long the page may take to fetch its token.
TICKET_S = 60.0


class OidcError(Exception):
    """A sign-in failed.

    Args:
        kind: identifier for the problem's type and the log; never what the provider said.
        sentence: for the person.
        status: HTTP status.
    """

    def __init__(self, kind: str, sentence: str, status: int = 403) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.sentence = sentence
        self.status = status
