"""What only SQLite has: its levels of durability, and its one lock."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection

from jobs.bootstrap import open_database
from jobs.errors import Unavailable
from support.stores import StoreHarness


def test_only_durable_writes_are_synced(harness: StoreHarness) -> None:
    def level(connection: Connection) -> int:
        return int(connection.exec_driver_sql("PRAGMA synchronous").scalar_one())

    assert harness.database.write(level) == 2
    assert harness.database.write(level, durable=False) == 1
    assert harness.database.read(lambda connection: connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()) == "wal"


def test_a_locked_database_is_unavailable(tmp_path: Path, database_url: str) -> None:
    impatient = open_database(database_url, busy_seconds=0.01)
    impatient.migrate()
    with closing(sqlite3.connect(tmp_path / "runcast.db", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable):
            impatient.write(lambda connection: None)
        connection.execute("ROLLBACK")
    impatient.close()
