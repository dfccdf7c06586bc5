"""One notifier for one PostgreSQL database (of several nodes: for one schema in it), from whichever
machine: an advisory lock.

The server holds it for as long as our connection lives, and no longer: no lock is left behind by a
machine that lost its power.
"""

from __future__ import annotations

import contextlib
from typing import Any

from sqlalchemy.exc import OperationalError

from notifier.database import Place, connector


class ServerLock:
    """The lock, on a connection of its own.

    Args:
        place: a PostgreSQL database.
    """

    def __init__(self, place: Place) -> None:
        self._connect = connector(place)
        self._key = place.notifier_lock
        self._connection: Any = None

    async def hold(self) -> bool:
        """Take the lock, or see that we still have it; False while somebody else does.

        Raises:
            sqlalchemy.exc.OperationalError: the server is away.
        """
        if self._connection is not None and not self._connection.is_closed():
            return True
        self._connection = None
        connection = await self._connect()
        try:
            got = await connection.fetchval("SELECT pg_try_advisory_lock($1)", self._key)
        except BaseException as error:
            connection.terminate()
            if isinstance(error, Exception):
                raise OperationalError("lock", {}, error) from None
            raise
        if not got:
            await connection.close()
            return False
        self._connection = connection
        return True

    async def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                await self._connection.close(timeout=1.0)
