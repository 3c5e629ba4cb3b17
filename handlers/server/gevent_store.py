"""The store under gevent: nothing that may take long runs in the event loop, and waiting for a change costs no thread.

Reads of SQLite stay in the loop, because they take less time than a switch of threads. Writes wait for the disk and for other processes,
so they go to a thread of their own. Writes that wait there together share one transaction, and so one wait for the disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import gevent
from gevent.event import AsyncResult, Event
from gevent.threadpool import ThreadPool

from jobs.errors import Unavailable
from jobs.store.database import Database, Work
from jobs.store.feed import Feed

T = TypeVar("T")

FEED_POLL_INTERVAL_SECONDS = 0.005
BATCH = 200
WRITE_TIMEOUT_SECONDS = 4.0
"""How long a batch may wait for the lock of another process before its writes fail, so that callers get an answer. Writes that arrived
meanwhile may wait as long again."""


@dataclass(frozen=True)
class Write:
    """A write that waits for the thread, and where its caller waits for the outcome."""

    work: Work[Any]
    durable: bool
    result: AsyncResult[Any]


@dataclass(frozen=True)
class Outcome:
    """What a write returned or raised."""

    value: Any = None
    error: Exception | None = None

    def hand_to(self, result: AsyncResult[Any]) -> None:
        if self.error is None:
            result.set(self.value)
        else:
            result.set_exception(self.error)


class GeventDatabase(Database):
    """Reads with `reader` in the event loop, and writes with `writer` in a thread. To be used from the loop only.

    They are two databases so that the thread never waits for locks of the loop's connections. `feed` is reopened when the store was in
    trouble.
    """

    def __init__(self, reader: Database, writer: Database, *, feed: Feed) -> None:
        self._reader = reader
        self._writer = writer
        self._feed = feed
        self._threads = ThreadPool(1)
        self._waiting: list[Write] = []
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
        self._waiting.append(Write(work, durable, result))
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
                outcomes = self._threads.apply(_write_together, (self._writer, batch))
                if any(isinstance(outcome.error, Unavailable) for outcome in outcomes):
                    # SQLite shares state between all connections of a process. As long as one stays open, none recovers.
                    self._reader.close()
                    self._feed.reopen()
                for write, outcome in zip(batch, outcomes, strict=True):
                    outcome.hand_to(write.result)
        finally:
            self._committing = False


def _write_together(database: Database, batch: Sequence[Write]) -> list[Outcome]:
    """All in one transaction, which is durable if one of the writes is. When one of them raises, each runs alone, so that only that one is
    undone."""
    durable = any(write.durable for write in batch)
    try:
        values = database.write(lambda connection: [write.work(connection) for write in batch], durable=durable)
    except Unavailable as error:  # none of the writes caused it, and each alone would wait as long
        return [Outcome(error=error) for _ in batch]
    except Exception as error:
        return [_write_alone(database, write) for write in batch] if len(batch) > 1 else [Outcome(error=error)]
    return [Outcome(value) for value in values]


def _write_alone(database: Database, write: Write) -> Outcome:
    try:
        return Outcome(database.write(write.work, durable=write.durable))
    except Exception as error:
        return Outcome(error=error)


class GeventChanges:
    """Counts the store's changes. Polls the feed only while somebody waits for a change."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._version = 0
        self._changed = Event()
        self._waiters = 0
        self._polling = False

    @property
    def version(self) -> int:
        return self._version

    def wait(self, seen: int, timeout: float) -> None:
        if self._version != seen:
            return
        self._waiters += 1
        if not self._polling:
            self._polling = True
            gevent.spawn(self._poll)
        try:
            self._changed.wait(timeout)
        finally:
            self._waiters -= 1

    def _poll(self) -> None:
        try:
            while self._waiters:
                if self._feed.changed():
                    self._version += 1
                    changed, self._changed = self._changed, Event()
                    changed.set()
                gevent.sleep(FEED_POLL_INTERVAL_SECONDS)
        finally:
            self._polling = False
