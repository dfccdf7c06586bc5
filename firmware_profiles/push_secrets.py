"""Passwords for pushing to phones: from the environment or a private file, never in a log."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from callshield.errors import SetupError
from callshield.private_file import read_private
from callshield.settings import Settings


def password_variable(profile_id: str) -> str:
    """The environment variable of a family: ``CALLSHIELD_PHONES_PASSWORD_POLY_VVX``."""
    return f"CALLSHIELD_PHONES_PASSWORD_{re.sub('[^A-Za-z0-9]', '_', profile_id)}".upper()


def load_passwords(
    settings: Settings, environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Passwords by profile, of the families that have one.

    Raises:
        SetupError: a file cannot be used, or holds more than a line.
    """
    found: dict[str, str] = {}
    for profile_id, family in settings.phones.families.items():
        password = environment.get(password_variable(profile_id), "")
        key = f"phones.families.{profile_id}.password_file"
        if not password and family.password_file is not None:
            text = read_private(family.password_file, key, SetupError)
            password = text.removesuffix("\n").removesuffix("\r")
            if not password or not password.isprintable():
                raise SetupError(f"{key}: one line with the password is needed, and nothing else")
        if password:
            found[profile_id] = password
    return found
