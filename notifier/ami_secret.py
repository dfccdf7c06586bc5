"""The manager user's secret: from the environment, or from a file that only its owner may read."""

from __future__ import annotations

import os

from callshield.errors import SetupError
from callshield.private_file import read_private
from callshield.settings import AmiSettings

#: Goes before the file.
VARIABLE = "CALLSHIELD_AMI_SECRET"


def load_secret(settings: AmiSettings) -> str:
    """The secret of ``ami.username``.

    Raises:
        SetupError: there is none, it lies open to others, or is no single line.
    """
    text = os.environ.get(VARIABLE) or read_private(
        settings.secret_file,
        "ami.secret_file",
        SetupError,
        missing=(
            "there is no secret for the PBX's manager interface: write it into "
            f"{settings.secret_file} (ami.secret_file) with mode 0600, or set {VARIABLE}"
        ),
    )
    secret = text.strip()
    if not secret or any(not character.isprintable() for character in secret):
        raise SetupError(
            f"ami.secret_file {settings.secret_file} must hold one line, the secret of the PBX's "
            f"manager user {settings.username}"
        )
    return secret
