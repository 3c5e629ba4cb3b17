"""The store under gevent: nothing that may take long happens in the loop, and waiting for a change costs no thread.

Reads of SQLite stay in the loop, they take less than a switch of threads would. Writes wait for the disk and for other processes, so they
go to a thread of their own; those that wait there together share one transaction, and so one wait for the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, cast

import gevent
from gevent.event import AsyncResult, Event
from gevent.threadpool import ThreadPool

from jobs.errors import Unavailable
from jobs.store.database import Database, Work
from jobs.store.feed import Feed

T = TypeVar("T")

POLL_SECONDS = 0.005
BATCH = 200
WAIT_SECONDS = 4.0
"""A write that waits so long for another process is given up: who called shall come back. One that came meanwhile waits as long again."""


@dataclass(frozen=True)
class Outcome:
    """What a write gave, or raised."""

    value: Any = None
    error: Exception | None = None

    def hand_to(self, result: AsyncResult[Any]) -> None:
        if self.error is None:
            result.set(self.value)
        else:
            result.set_exception(self.error)


class GeventDatabase(Database):
    """Reads with `reader` in the loop and writes with `writer` in a thread. To be used from the loop only.

    They are two databases so that the thread never meets a lock of the loop's connections. `feed` is reopened after trouble of the store.
    """

    def __init__(self, reader: Database, writer: Database, *, feed: Feed) -> None:
        self._reader = reader
        self._writer = writer
        self._feed = feed
        self._threads = ThreadPool(1)
        self._waiting: list[tuple[Work[Any], AsyncResult[Any]]] = []
        self._committing = False

    @property
    def url(self) -> str:
        return self._reader.url

    def read(self, work: Work[T]) -> T:
        return self._reader.read(work)

    def check_ready(self) -> None:
        self._reader.check_ready()

    def feed(self) -> Feed:
        return self._reader.feed()

    def write(self, work: Work[T], *, durable: bool = True) -> T:
        result: AsyncResult[T] = AsyncResult()
        self._waiting.append((work, result))
        if not self._committing:
            self._committing = True
            gevent.spawn(self._commit)
        return cast(T, result.get())

    def close(self) -> None:
        self._reader.close()
        self._threads.kill()
        self._writer.close()

    def _commit(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                outcomes = self._threads.apply(_write_together, (self._writer, [work for work, _ in batch]))
                if any(isinstance(outcome.error, Unavailable) for outcome in outcomes):
                    # All connections of a process share what the first of them opened: as long as one is kept, none gets well.
                    self._reader.close()
                    self._feed.reopen()
                for (_, result), outcome in zip(batch, outcomes, strict=True):
                    outcome.hand_to(result)
        finally:
            self._committing = False


def _write_together(database: Database, works: list[Work[Any]]) -> list[Outcome]:
    """All in one transaction; one that raises makes each go alone, so that it undoes nothing but itself."""
    try:
        values = database.write(lambda connection: [work(connection) for work in works])
    except Unavailable as error:  # none of them caused it, and each alone would wait as long
        return [Outcome(error=error) for _ in works]
    except Exception as error:
        return [_write_alone(database, work) for work in works] if len(works) > 1 else [Outcome(error=error)]
    return [Outcome(value) for value in values]


def _write_alone(database: Database, work: Work[Any]) -> Outcome:
    try:
        return Outcome(database.write(work))
    except Exception as error:
        return Outcome(error=error)


class GeventChanges:
    """Counts the store's changes; looks only while somebody waits for one."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._version = 0
        self._changed = Event()
        self._waiters = 0
        self._looking = False

    @property
    def version(self) -> int:
        return self._version

    def wait(self, seen: int, timeout: float) -> None:
        if self._version != seen:
            return
        self._waiters += 1
        if not self._looking:
            self._looking = True
            gevent.spawn(self._look)
        try:
            self._changed.wait(timeout)
        finally:
            self._waiters -= 1

    def _look(self) -> None:
        try:
            while self._waiters:
                if self._feed.changed():
                    self._version += 1
                    changed, self._changed = self._changed, Event()
                    changed.set()
                gevent.sleep(POLL_SECONDS)
        finally:
            self._looking = False
