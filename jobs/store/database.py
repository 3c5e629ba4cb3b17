"""What the rest of runcast asks of a database: transactions, the schema, readiness and the feed. Knows no table.

`jobs.bootstrap` chooses the implementation from the URL: `jobs/store/sqlite.py` for one machine. Each passes `tests/conformance/`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, Self, TypeVar

from sqlalchemy import Connection

from jobs.store.feed import Feed

T = TypeVar("T")
Work = Callable[[Connection], T]
"""What is done inside one transaction. It may run more than once, so it changes nothing but the database."""


class Database(Protocol):
    """One database. Its connections are not carried across a fork: `close` before."""

    @property
    def url(self) -> str:
        """The SQLAlchemy URL."""

    def read(self, work: Work[T]) -> T:
        """Run `work` in one consistent view. Raises Unavailable."""

    def write(self, work: Work[T], *, durable: bool = True) -> T:
        """Run `work` in one transaction, which is undone when it raises. Raises Unavailable.

        A durable write is on disk when this returns. Any other survives the end of every process, but its last moments do not survive a
        power cut.
        """

    def check_ready(self) -> None:
        """Raises Unavailable when what is written now would be lost; StoreReplaced when another database took this one's place."""

    def feed(self) -> Feed:
        """A feed of this database, with a connection of its own."""

    def close(self) -> None:
        """Close all connections; the next call opens new ones."""


class OwnedDatabase(Database, Protocol):
    """A database as the process that prepares or forks has it."""

    def migrate(self) -> None:
        """Bring the schema up to date. Raises OperatorError when it is newer than this version of runcast."""

    def sibling(self) -> Self:
        """The same database with connections of its own, for a forked process."""

    def dry_run(self) -> AbstractContextManager[None]:
        """Undo whatever is read and written inside. Compiled statements are kept, and a fork inherits them. Raises Unavailable."""
