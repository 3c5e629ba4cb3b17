"""SQLite: the database of one machine, and its feed.

Every write begins with `BEGIN IMMEDIATE`: a transaction that reads first and writes later fails at once when another one wrote in between,
busy timeout or not. Durable writes use `synchronous=FULL`, others `NORMAL`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, exc, make_url
from sqlalchemy.pool import QueuePool

from jobs.errors import StoreReplaced, Unavailable
from jobs.store import migrate
from jobs.store.database import T, Work
from jobs.store.feed import Feed

BUSY_SECONDS = 10.0
_RAISED = (exc.DatabaseError, exc.TimeoutError, sqlite3.DatabaseError)
"""What a store in trouble raises, through SQLAlchemy or past it."""
_CALLER_ERRORS = (exc.IntegrityError, exc.ProgrammingError, exc.DataError, exc.NotSupportedError)
"""Of these, the errors in what the caller asked for. All others are trouble of the store: the disk is full or broken, the file is no
database any more, another process holds its lock for too long."""


class SqliteDatabase:
    """A `jobs.store.database.OwnedDatabase`. `busy_seconds` is how long a call waits for other processes' writes."""

    def __init__(self, url: str, *, busy_seconds: float = BUSY_SECONDS, file: _File | None = None) -> None:
        self.url = url
        self._file = file or _File(make_url(url).database)
        self._engine = _make_engine(url, self._file, busy_seconds)
        self._dry_run: Connection | None = None

    def sibling(self) -> SqliteDatabase:
        # With the same file object, so that both know the file by the same inode.
        return SqliteDatabase(self.url, file=self._file)

    @contextmanager
    def dry_run(self) -> Iterator[None]:
        try:
            with self._trouble(), self._engine.connect() as connection:
                connection = connection.execution_options(writes=True)
                with connection.begin() as transaction:
                    self._dry_run = connection
                    try:
                        yield
                    finally:
                        self._dry_run = None
                        transaction.rollback()
        finally:
            self.close()

    def read(self, work: Work[T]) -> T:
        if self._dry_run is not None:
            return work(self._dry_run)
        with self._trouble(), self._engine.connect() as connection:
            return work(connection)

    def write(self, work: Work[T], *, durable: bool = True) -> T:
        if self._dry_run is not None:
            return work(self._dry_run)
        self.check_ready()
        with self._trouble(), self._engine.connect() as connection:
            # Outside of any transaction, because SQLite ignores it inside one.
            connection.connection.dbapi_connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")  # type: ignore[union-attr]
            connection = connection.execution_options(writes=True)
            with connection.begin():
                return work(connection)

    def check_ready(self) -> None:
        """What is written into a removed file is lost, and SQLite would not notice."""
        if not self._file.is_there():
            raise (StoreReplaced if self._file.is_another() else Unavailable)(f"The store does not answer: {self._file.complaint}.")

    def migrate(self) -> None:
        migrate.upgrade(self._engine, found=self._revision())

    def feed(self) -> SqliteFeed:
        return SqliteFeed(self.url)

    def close(self) -> None:
        self._engine.dispose()

    def _revision(self) -> str | None:
        try:
            return self.read(migrate.revision)
        except (exc.DatabaseError, Unavailable):
            return None

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        """Turns trouble of the store into Unavailable; the caller's own errors pass."""
        try:
            yield
        except _CALLER_ERRORS:
            raise
        except _RAISED as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> Unavailable:
        cause = getattr(error, "orig", None) or error
        if getattr(cause, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY:
            # A connection opened while the folder was read-only stays read-only, and none can be trusted after the disk failed.
            self._engine.dispose()
        return Unavailable(f"The store does not answer: {cause}.")


class _File:
    """The file of a database, known again by its inode. Before it exists, and in memory, it counts as there."""

    def __init__(self, path: str | None) -> None:
        self.path = _absolute(path) if path and path != ":memory:" else None
        self._known: tuple[int, int] | None = None

    @property
    def complaint(self) -> str:
        return f"its file {self.path} was removed or replaced while it was used; put it back, or start again"

    def is_another(self) -> bool:
        return self.path is not None and self._known is not None and Path(self.path).exists() and not self.is_there()

    def is_there(self) -> bool:
        """Costs one system call."""
        if self.path is None:
            return True
        try:
            status = os.stat(self.path)  # noqa: PTH116  # at every write, and a third of what a path object costs
        except OSError:
            return self._known is None
        if self._known is None:
            self._known = (status.st_dev, status.st_ino)
        return self._known == (status.st_dev, status.st_ino)


def _absolute(path: str) -> str:
    """Absolute, because a supervisor leaves the folder that it was started in; links stay as they are."""
    return os.path.abspath(path)  # noqa: PTH100


def _make_engine(url: str, file: _File, busy_seconds: float) -> Engine:
    def connect() -> sqlite3.Connection:
        if not file.is_there():  # SQLite would make a new one in its place
            raise sqlite3.OperationalError(file.complaint)
        return sqlite3.connect(file.path or ":memory:", timeout=busy_seconds, check_same_thread=False)

    engine = create_engine(url, poolclass=QueuePool, creator=connect)

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        # Transactions are begun below, by hand: the driver's own would begin deferred.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "foreign_keys=ON", "wal_autocheckpoint=4000", "cache_size=-8000"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


class SqliteFeed(Feed):
    """Asks SQLite's own change counter, which costs about 5 µs: nothing is read and no lock is taken."""

    def __init__(self, url: str) -> None:
        self._path = _absolute(make_url(url).database or "")
        self._connection: sqlite3.Connection | None = None
        self._version: int | None = None

    def changed(self) -> bool:
        try:
            if self._connection is None:
                # Mode rw, so that SQLite makes no new file in place of one that is gone.
                self._connection = sqlite3.connect(f"file:{quote(self._path)}?mode=rw", uri=True, isolation_level=None)
            version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:
            return True  # what is wrong is for the store to say, which is asked next
        changed = version != self._version
        self._version = version
        return bool(changed)

    def reopen(self) -> None:
        """A connection opened in a read-only folder would keep others from writing: all of one process share what it opened."""
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = self._version = None
