"""Connections and transactions; knows no table but the one that holds the schema's version.

On SQLite every write begins with `BEGIN IMMEDIATE`: a transaction that reads first and writes later fails at once when another one wrote
in between, busy timeout or not. Durable writes are on disk when they return; the others (log chunks, signs of life) survive the end of
any process, but the last moments of them not that of the machine.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, exc, make_url, text
from sqlalchemy.pool import QueuePool

from jobs.errors import OperatorError, StoreReplaced, Unavailable

T = TypeVar("T")
Work = Callable[[Connection], T]

BUSY_SECONDS = 10.0
_RAISED = (exc.DatabaseError, exc.TimeoutError, sqlite3.DatabaseError)
"""What the store raises; before SQLAlchemy has a hand in it, too."""
_CALLER_ERRORS = (exc.IntegrityError, exc.ProgrammingError, exc.DataError, exc.NotSupportedError)
"""Of these, the errors in what the caller asked for. All others are trouble of the store: the disk is full or broken, the file is no
database any more, another process holds its lock for too long."""
HEAD_REVISION = "0003"
"""The newest of `migrations/versions`; kept here because importing Alembic costs more than all else at start."""


class Database:
    """One database. Its connections are not to be carried across a fork: `close` before."""

    def __init__(self, url: str, *, busy_seconds: float = BUSY_SECONDS, file: _File | None = None) -> None:
        self.url = url
        self.is_sqlite = make_url(url).get_backend_name() == "sqlite"
        self._file = file or (_File(make_url(url).database) if self.is_sqlite else None)
        self._engine = create_engine(url, pool_pre_ping=True) if self._file is None else _sqlite_engine(url, self._file, busy_seconds)
        self._rehearsing: Connection | None = None

    def sibling(self) -> Database:
        """Another one, with connections of its own, that knows the same file by the same inode."""
        return Database(self.url, file=self._file)

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Whatever is read and written inside is undone. What it is for: compiled statements are kept, and a fork inherits them.

        Raises Unavailable.
        """
        try:
            with self._trouble(), self._engine.connect() as connection:
                connection = connection.execution_options(writes=True)
                with connection.begin() as transaction:
                    self._rehearsing = connection
                    try:
                        yield
                    finally:
                        self._rehearsing = None
                        transaction.rollback()
        finally:
            self.close()

    def read(self, work: Work[T]) -> T:
        """Run `work` in one consistent view. Raises Unavailable."""
        if self._rehearsing is not None:
            return work(self._rehearsing)
        with self._trouble(), self._engine.connect() as connection:
            return work(connection)

    def write(self, work: Work[T], *, durable: bool = True) -> T:
        """Run `work` in one transaction, undone when it raises. Raises Unavailable."""
        if self._rehearsing is not None:
            return work(self._rehearsing)
        self.check_file()
        with self._trouble(), self._engine.connect() as connection:
            if self.is_sqlite:
                # Outside of any transaction, where SQLite takes no notice of it.
                connection.connection.dbapi_connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")  # type: ignore[union-attr]
            connection = connection.execution_options(writes=True)
            with connection.begin():
                return work(connection)

    def check_file(self) -> None:
        """Raises Unavailable when the file of the database is gone, since what is written into a removed one is lost; StoreReplaced when
        there is another one in its place."""
        if self._file is not None and not self._file.is_there():
            raise (StoreReplaced if self._file.is_another() else Unavailable)(f"The store does not answer: {self._file.complaint}.")

    def close(self) -> None:
        self._engine.dispose()

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
            # What was opened while the folder was read-only stays so, and no connection is to be trusted after a failure of the disk.
            self._engine.dispose()
        return Unavailable(f"The store does not answer: {cause}.")

    def revision(self) -> str | None:
        """The schema's version; None for a database without one."""
        try:
            return self.read(lambda connection: connection.execute(text("SELECT version_num FROM alembic_version")).scalar())
        except (exc.DatabaseError, Unavailable):
            return None

    def migrate(self) -> None:
        """Bring the schema up to date. Raises OperatorError when it is newer than this version of runcast."""
        if self.revision() == HEAD_REVISION:
            return
        from alembic import command, config, script, util

        settings = config.Config()
        settings.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        known = {revision.revision for revision in script.ScriptDirectory.from_config(settings).walk_revisions()}
        found = self.revision()
        if found is not None and found not in known:
            raise OperatorError(
                f"The database belongs to a newer version of runcast (its schema is {found}, this version knows {HEAD_REVISION})."
            )
        try:
            with self._engine.connect() as connection:
                settings.attributes["connection"] = connection.execution_options(writes=True)
                command.upgrade(settings, "head")
                connection.commit()
        except (exc.DatabaseError, util.CommandError) as error:
            raise OperatorError(f"The database cannot be brought up to date: {getattr(error, 'orig', error)}.") from error


class _File:
    """The file of a database, known again by its inode. Before it is there, and in memory, there is nothing to be said of it."""

    def __init__(self, path: str | None) -> None:
        # Absolute, because who runs a job has left the folder that it was started in.
        self.path = os.path.abspath(path) if path and path != ":memory:" else None  # noqa: PTH100  # links stay as they are
        self._known: tuple[int, int] | None = None

    @property
    def complaint(self) -> str:
        return f"its file {self.path} was removed or replaced while it was used; put it back, or start again"

    def is_another(self) -> bool:
        return self.path is not None and self._known is not None and Path(self.path).exists() and not self.is_there()

    def is_there(self) -> bool:
        """Costs one call of the system."""
        if self.path is None:
            return True
        try:
            status = os.stat(self.path)  # noqa: PTH116  # at every write, and a third of what a path object costs
        except OSError:
            return self._known is None
        if self._known is None:
            self._known = (status.st_dev, status.st_ino)
        return self._known == (status.st_dev, status.st_ino)


def _sqlite_engine(url: str, file: _File, busy_seconds: float) -> Engine:
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
