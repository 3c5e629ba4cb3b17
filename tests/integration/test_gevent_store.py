"""Writes of the store under gevent: those that wait together share a transaction, which is as durable as its writes need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from sqlalchemy import Connection, text

from handlers.server.gevent_store import GeventDatabase
from jobs.bootstrap import open_database

NORMAL, FULL = 1, 2


@pytest.fixture
def gevent_database(database_url: str) -> Iterator[GeventDatabase]:
    reader = open_database(database_url)
    feed = reader.feed()
    database = GeventDatabase(reader, open_database(database_url), feed=feed)
    yield database
    database.close()
    feed.close()


def synchronous(connection: Connection) -> Any:
    """How SQLite commits the transaction: FULL waits for the disk, NORMAL does not."""
    return connection.execute(text("PRAGMA synchronous")).scalar_one()


def together(gevent_database: GeventDatabase, *durable: bool) -> list[Any]:
    """What writes see that wait for the thread at the same time."""
    writes = [gevent.spawn(gevent_database.write, synchronous, durable=each) for each in durable]
    gevent.joinall(writes, raise_error=True)
    return [write.value for write in writes]


def test_a_write_is_as_durable_as_it_asks_to_be(gevent_database: GeventDatabase) -> None:
    assert together(gevent_database, True) == [FULL]
    assert together(gevent_database, False) == [NORMAL]
    assert gevent_database.write(synchronous) == FULL


def test_a_batch_is_durable_if_one_of_its_writes_is(gevent_database: GeventDatabase) -> None:
    assert together(gevent_database, False, False, True) == [FULL, FULL, FULL]
    assert together(gevent_database, False, False) == [NORMAL, NORMAL]


def test_writes_run_alone_after_an_error_keep_their_durability(gevent_database: GeventDatabase) -> None:
    def fail(_: Connection) -> None:
        raise ZeroDivisionError

    failing = gevent.spawn(gevent_database.write, fail)
    writes = [gevent.spawn(gevent_database.write, synchronous, durable=durable) for durable in (False, True)]
    failing.join()
    gevent.joinall(writes, raise_error=True)
    assert isinstance(failing.exception, ZeroDivisionError)
    assert [write.value for write in writes] == [NORMAL, FULL]
