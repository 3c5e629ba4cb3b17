"""The schema, consistent reads, and processes that write at the same time."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, select, text

from jobs.errors import OperatorError
from jobs.model import Status
from jobs.store.schema import jobs, metadata
from support.stores import StoreHarness


def test_migrations_create_the_tables_of_the_schema(harness: StoreHarness) -> None:
    def differences(connection: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_server_default": True}), metadata))

    assert harness.database.read(differences) == []

    def indexes(connection: Connection) -> set[str | None]:
        return {index["name"] for table in metadata.tables for index in inspect(connection).get_indexes(table)}

    assert harness.database.read(indexes) == {index.name for table in metadata.tables.values() for index in table.indexes}


def test_migrating_again_changes_nothing(harness: StoreHarness) -> None:
    job_id = harness.submit()
    harness.database.migrate()
    assert harness.store.get(job_id).status is Status.PENDING


def test_a_database_of_a_newer_version_is_refused(harness: StoreHarness) -> None:
    newer = text("UPDATE alembic_version SET version_num = '9999'")
    harness.database.write(lambda connection: connection.execute(newer))
    with pytest.raises(OperatorError, match="newer version"):
        harness.database.migrate()


def test_a_read_is_consistent(harness: StoreHarness) -> None:
    """A job that ends while its answer is put together is seen as it was or as it is, never as a mixture."""
    job_id = harness.submit()
    other = StoreHarness(harness.database.url)

    def work(connection: Connection) -> tuple[str, str]:
        query = select(jobs.c.status).where(jobs.c.id == job_id)
        before = connection.execute(query).scalar_one()
        other.store.request_cancel(job_id, by="me", force=False)
        return before, connection.execute(query).scalar_one()

    assert harness.database.read(work) == ("pending", "pending")
    assert harness.store.get(job_id).status is Status.CANCELLED
    other.database.close()


COUNT_UP = """
import sys
from sqlalchemy import select, update
from jobs.bootstrap import open_database
from jobs.store.schema import jobs
database = open_database(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
def work(connection):
    # Reads first and writes later: what would be lost, or fail, without BEGIN IMMEDIATE.
    seen = connection.execute(select(jobs.c.heartbeat).where(jobs.c.id == sys.argv[2])).scalar_one()
    connection.execute(update(jobs).where(jobs.c.id == sys.argv[2]).values(heartbeat=seen + 1))
for _ in range(150):
    database.write(work, durable=False)
"""


def test_two_processes_writing_at_once_lose_no_update(harness: StoreHarness) -> None:
    job_id = harness.submit()
    arguments = [sys.executable, "-c", COUNT_UP, harness.database.url, job_id]
    writers = [subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.communicate("go\n", timeout=30)
        assert writer.returncode == 0
    assert harness.row(job_id)["heartbeat"] == 300
