"""What a token has used up is told by indexes alone, however many jobs there are."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, event, insert

from jobs.errors import QuotaExceeded
from jobs.model import Status
from jobs.store.database import OwnedDatabase
from jobs.store.quotas import Quotas
from jobs.store.schema import jobs
from jobs.store.sqlite import SqliteDatabase

CAP = 1000


def add(database: OwnedDatabase, number: int, owner: str, status: Status, *, log_bytes: int = 0, deleted: bool = False) -> None:
    values = {
        "id": f"{number:08}",
        "type": "task",
        "submission": {},
        "status": status,
        "max_attempts": 1,
        "priority": 0,
        "queue": "default",
    }
    times = {"created_at": 1, "ended_at": 2 if status not in ("pending", "running") else None, "deleted_at": 3 if deleted else None}
    more = {"labels": [], "submitted_by": owner, "log_bytes": log_bytes}
    database.write(lambda connection: connection.execute(insert(jobs), {**values, **times, **more}))


def refusal(database: OwnedDatabase, quotas: Quotas, owner: str) -> str:
    try:
        database.read(lambda connection: quotas.check(connection, owner))
    except QuotaExceeded as error:
        return str(error)
    return ""


def plan(database: OwnedDatabase, statement: str, parameters: Any) -> list[str]:
    rows = database.read(lambda connection: connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all())
    return [row[3] for row in rows]


def test_only_pending_jobs_of_the_same_token_count(database: OwnedDatabase) -> None:
    for number, (owner, status) in enumerate(
        [("a", Status.PENDING)] * 2 + [("a", Status.RUNNING), ("a", Status.FAILED), ("b", Status.PENDING)]
    ):
        add(database, number, owner, status)
    assert "pending" in refusal(database, Quotas(max_pending=2), "a")
    assert not refusal(database, Quotas(max_pending=3), "a")
    assert not refusal(database, Quotas(max_pending=2), "b")
    assert not refusal(database, Quotas(), "a")


def test_only_kept_lines_of_logs_count(database: OwnedDatabase) -> None:
    add(database, 1, "a", Status.COMPLETED, log_bytes=5 * CAP)  # of which CAP is kept
    add(database, 2, "a", Status.RUNNING, log_bytes=300)
    add(database, 3, "a", Status.FAILED, log_bytes=700, deleted=True)
    add(database, 4, "b", Status.FAILED, log_bytes=9000)
    assert "logs" in refusal(database, Quotas(max_log_bytes=CAP + 300, log_cap=CAP), "a")
    assert not refusal(database, Quotas(max_log_bytes=CAP + 301, log_cap=CAP), "a")


def test_log_sizes_are_not_summed_for_each_submission(database: OwnedDatabase) -> None:
    quotas = Quotas(max_log_bytes=100)
    assert not refusal(database, quotas, "a")
    add(database, 1, "a", Status.COMPLETED, log_bytes=100)
    assert not refusal(database, quotas, "a")
    assert refusal(database, Quotas(max_log_bytes=100), "a")


def test_the_quota_check_reads_no_job(database: OwnedDatabase) -> None:
    asked: list[tuple[str, Any]] = []

    def note(_: Connection, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        asked.append((statement, parameters))

    assert isinstance(database, SqliteDatabase)
    event.listen(database._engine, "before_cursor_execute", note)
    database.read(lambda connection: Quotas(max_pending=5, max_log_bytes=5).check(connection, "a"))
    event.remove(database._engine, "before_cursor_execute", note)
    plans = {line for question in asked if question[0].startswith("SELECT") for line in plan(database, *question) if "jobs" in line}
    assert plans == {
        "SEARCH jobs USING INDEX jobs_pending_by_token (submitted_by=?)",  # up to the limit
        "SEARCH jobs USING COVERING INDEX jobs_logs_by_token (submitted_by=? AND deleted_at=? AND ended_at>?)",
        "SEARCH jobs USING INDEX jobs_listed (status=?)",  # those that run: as many as there are slots
    }
