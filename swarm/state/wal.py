"""A connection to a file in WAL mode: how it is opened, and who copies its log back into the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw

BUSY_S = 10.0  # how long another program's transaction is waited for
PAGES = 1000  # of the log, before it is copied back


class Log:
    """The write-ahead log of one connection. SQLite would copy it back within a commit, where somebody waits for it."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db
        self._pages = 0
        db.set_wal_hook(self._grown)

    @property
    def is_long(self) -> bool:
        return self._pages >= PAGES

    def copy_back(self) -> None:
        """As much as no reader needs; what fails or is left is done next time. Not within a transaction."""
        with suppress(apsw.Error):
            self._pages = 0
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _grown(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK


def opened(path: Path | str, prepare: Callable[[apsw.Connection], None]) -> apsw.Connection:
    """A connection on which `prepare` has been done. Raises `apsw.Error`, and what `prepare` raises."""
    if path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + BUSY_S
    while True:
        try:
            return _prepared(path, prepare)
        except apsw.BusyError:  # another program is just making it; SQLite itself does not wait for that
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


@contextmanager
def patient(db: apsw.Connection) -> Iterator[None]:
    """Other programs' transactions are waited for, which otherwise fail at once with `apsw.BusyError`."""
    db.set_busy_timeout(int(BUSY_S * 1000))
    try:
        yield
    finally:
        db.set_busy_timeout(0)


def _prepared(path: Path | str, prepare: Callable[[apsw.Connection], None]) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    try:
        with patient(connection):
            connection.pragma("journal_mode", "wal")
            connection.pragma("synchronous", "full")
            connection.pragma("foreign_keys", True)
            prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection
