"""The part of ``callshield doctor`` that looks at the store and at signing in."""

from __future__ import annotations

from callshield.errors import SetupError
from callshield.settings import Settings


def examine_store(settings: Settings) -> str:
    """A sentence about the database.

    Raises:
        SetupError: it cannot be reached or used; the message says what to do.
    """
    from sqlalchemy import Connection
    from sqlalchemy.exc import SQLAlchemyError

    from notifier.database import place_of, reason_of, transact

    place = place_of(settings)
    if place.path is not None:
        state = "is made at the first start" if not place.path.exists() else "is there"
        return f"{place.path} {state}"

    def ask(connection: Connection) -> tuple[str, str]:
        version = str(connection.exec_driver_sql("SHOW server_version").scalar())
        return version, str(connection.exec_driver_sql("SHOW synchronous_commit").scalar())

    try:
        version, synchronous = transact(place, ask)
    except SQLAlchemyError as error:
        raise SetupError(
            f"{place} cannot be used ({reason_of(error)}): see that the server runs, and [store] "
            "and its password are right"
        ) from None
    if synchronous == "off":
        raise SetupError(
            f"{place} has synchronous_commit = off: a power cut would take back events that "
            "screens have seen; switch it on for this database"
        )
    return f"{place}, version {version}"


def examine_sign_in(settings: Settings) -> str:
    """A sentence about ``[oidc]``.

    Raises:
        SetupError: our secret there cannot be read.
    """
    if not settings.oidc.enabled:
        return "off: consoles take tokens of `callshield token create`"
    from notifier.oidc_secret import load_oidc_secret

    load_oidc_secret(settings.oidc)
    return f"by {settings.oidc.issuer}, for {settings.oidc.session_s / 3600:g} hours"
