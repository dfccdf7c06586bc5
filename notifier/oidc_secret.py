"""Our secret at the OpenID Connect provider: from the environment, or from a private file."""

from __future__ import annotations

import os

from callshield.errors import SetupError
from callshield.private_file import read_private
from callshield.settings_oidc import OidcSettings

#: Goes before the file.
SECRET_VARIABLE = "CALLSHIELD_OIDC_SECRET"  # noqa: S105 # the variable's name


def load_oidc_secret(settings: OidcSettings) -> str:
    """Our secret at the provider.

    Raises:
        SetupError: there is none, or it lies open to others.
    """
    text = os.environ.get(SECRET_VARIABLE) or read_private(
        settings.secret_file,
        "oidc.secret_file",
        SetupError,
        missing=(
            f"there is no secret for the sign-in service: write it into {settings.secret_file} "
            f"(oidc.secret_file) with mode 0600, or set {SECRET_VARIABLE}"
        ),
    )
    secret = text.strip()
    if not secret or not secret.isprintable():
        raise SetupError(f"oidc.secret_file {settings.secret_file} must hold one line, the secret")
    return secret
