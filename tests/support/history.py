"""A large past, put straight into a store: jobs that ended long ago, as the service itself would have left them.

Filling takes seconds where running the jobs would take hours; what is measured on it is asked of a real service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import uuid_utils
from sqlalchemy import Connection, Table, delete, func, insert, select

from jobs.clock import now_ms
from jobs.model import JobType, Reason, Status, Stream, Submission
from jobs.store.database import OwnedDatabase
from jobs.store.leases import Lease
from jobs.store.log_writer import LogWriter
from jobs.store.schema import job_counts, job_events, job_labels, jobs
from support.logs import append

BATCH = 2000
SECOND = 1000


@dataclass(frozen=True)
class Past:
    """How often what occurs: one job in so many has it. What is rare is the oldest, so that a list has the longest way to it."""

    count: int
    days: float = 20.0

    def job(self, number: int) -> dict[str, Any]:
        """The `number`th job, counted from the oldest."""
        rare = number < 10
        kind = JobType.CREATE if rare else (JobType.BUILD, JobType.TASK, JobType.LAUNCH)[number % 3]
        status, reason = self._end(number)
        project = "rare" if rare else f"project_{number % 7}" if kind is not JobType.TASK else None
        labels = ["all", *(["rare"] if rare else []), *(["even"] if number % 2 == 0 else [])]
        at = now_ms() - int(self.days * 24 * 3600 * SECOND * (self.count - number) / self.count)
        submission = Submission(kind, {"project": project} if project else {"task": "true", "inputs": {}}, labels=tuple(labels))
        return {
            "id": str(uuid_utils.uuid7(nanoseconds=at * 1_000_000)),
            "type": kind,
            "submission": submission.to_json(),
            "status": status,
            "previous_status": Status.RUNNING,
            "reason": reason,
            "exit_code": 0 if status is Status.COMPLETED else 1 if status is Status.FAILED else None,
            "attempt": 1,
            "max_attempts": 1,
            "priority": 0,
            "queue": "default",
            "concurrency_key": project and f"project:{project}",
            "labels": labels,
            "project": project,
            "submitted_by": "admin",
            "created_at": at,
            "started_at": at + 1,
            "ended_at": at + 1 * SECOND,
            "worker_id": "past",
            "log_lines": 0,
            "log_bytes": 0,
        }

    def _end(self, number: int) -> tuple[Status, Reason | None]:
        if number < 20 and number % 2:
            return Status.CANCELLED, Reason.CANCELLED_BY_CLIENT
        if number % 4 == 0:
            return Status.FAILED, Reason.EXIT_CODE
        return Status.COMPLETED, None


def fill_history(database: OwnedDatabase, past: Past) -> None:
    """Ended jobs, each with the three rows of its life, in the order of their ids."""
    made = (past.job(number) for number in range(past.count))
    while rows := [row for row, _ in zip(made, range(BATCH), strict=False)]:
        _insert(database, jobs, rows)
        _insert(database, job_labels, [label for row in rows for label in _labels(row)])
        _insert(database, job_events, [event for row in rows for event in _life(row)])
    database.write(_count)


def _insert(database: OwnedDatabase, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    database.write(lambda connection: connection.execute(insert(table), rows), durable=False)


def _count(connection: Connection) -> None:
    connection.execute(delete(job_counts))
    kinds = select(jobs.c.status, jobs.c.type, func.count()).where(jobs.c.deleted_at.is_(None)).group_by(jobs.c.status, jobs.c.type)
    connection.execute(insert(job_counts).from_select(["status", "type", "jobs"], kinds))


def _labels(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for label in row["labels"]:
        yield {"label": label, "job_id": row["id"], "status": row["status"], "type": row["type"], "project": row["project"]}


def _life(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    steps = (
        (None, Status.PENDING, row["created_at"], "submitted by admin"),
        (Status.PENDING, Status.RUNNING, row["started_at"], "claimed by worker past"),
        (Status.RUNNING, row["status"], row["ended_at"], "it ended"),
    )
    for previous, status, at, cause in steps:
        reason = row["reason"] if status == row["status"] else None
        attempt = 0 if previous is None else 1
        yield {"job_id": row["id"], "at": at, "status": status, "previous": previous, "reason": reason, "attempt": attempt, "cause": cause}


def fill_log(database: OwnedDatabase, lease: Lease, lines: int) -> None:
    """A log of numbered lines, every tenth of them on the other stream, written as a supervisor writes it."""
    writer = LogWriter(lease, cap=1 << 30)
    for first in range(1, lines + 1, 1000):
        last = min(lines, first + 999)
        stream = Stream.STDERR if first // 1000 % 10 == 9 else Stream.STDOUT
        data = b"".join(b"line %d\n" % number for number in range(first, last + 1))
        append(database, writer, data, stream=stream, at=now_ms())
