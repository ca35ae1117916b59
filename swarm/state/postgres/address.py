"""Where a PostgreSQL store is, and its errors in words that may be shown: without the password."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool

from swarm.errors import StoreError
from swarm.state.postgres.page import Moved
from swarm.state.postgres.schema import prepare

CONNECT_S = 10.0  # how long a server is waited for
CONNECTIONS = 8  # most at once of one program


class Address:
    """`url`: postgresql://USER:PASSWORD@HOST:PORT/DATABASE, as libpq takes it. Raises `StoreError` for another text."""

    def __init__(self, url: str) -> None:
        try:
            parts = conninfo_to_dict(url)
        except psycopg.Error:
            raise StoreError(
                "the store's address cannot be read; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with what is "
                "special in a password as %XX"
            ) from None
        self._url = url
        self._password = str(parts.get("password") or "")
        port = f":{parts['port']}" if parts.get("port") else ""
        self.shown = f"postgresql://{parts.get('host') or ''}{port}/{parts.get('dbname') or ''}"
        self._settings: dict[str, Any] = {"autocommit": True}
        if "connect_timeout" not in parts:
            self._settings["connect_timeout"] = int(CONNECT_S)

    async def connect(self) -> AsyncConnectionPool[psycopg.AsyncConnection[tuple[Any, ...]]]:
        """Connections to a store that is there then. Raises `StoreError`."""
        try:
            async with await psycopg.AsyncConnection.connect(self._url, **self._settings) as db:
                await prepare(db, self.shown)
            pool = AsyncConnectionPool(
                self._url, kwargs=self._settings, min_size=1, max_size=CONNECTIONS, timeout=CONNECT_S, open=False,
                name="store", check=AsyncConnectionPool.check_connection,
            )  # fmt: skip
            await pool.open()
        except (psycopg.Error, OSError) as e:
            raise StoreError(
                f"{self.shown}: the store cannot be opened: {self._told(e)}; see that PostgreSQL runs there and lets "
                "this user in"
            ) from None
        return pool

    def store_error(self, error: Exception) -> StoreError:
        match error:
            case StoreError():
                return error
            case psycopg.IntegrityError():
                return StoreError(f"the ledger refused: {self._told(error)}")
            case psycopg.OperationalError():
                return StoreError(f"{self.shown}: the store cannot be used: {self._told(error)}")
            case Moved():
                return StoreError(f"{self.shown}: too many programs change the same rows; try again")
            case _:
                return StoreError(f"the store cannot do this: {type(error).__name__}: {self._told(error)}")

    def _told(self, error: Exception) -> str:
        text = " ".join(str(error).split())
        return text.replace(self._password, "***") if self._password else text
