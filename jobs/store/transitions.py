"""The one place that writes a job's status.

`transition` checks that the move is legal, writes its row of the history, keeps the counts, and tells the scheduler: all in the
transaction of the caller.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, case, insert, update

from jobs.clock import now_ms
from jobs.model import ENDED, Reason, Status, sources
from jobs.store import listing
from jobs.store.scheduling import PendingJob, Scheduler
from jobs.store.schema import job_events, jobs


def transition(
    connection: Connection,
    job_id: str,
    target: Status,
    *,
    scheduler: Scheduler,
    cause: str,
    reason: Reason | None = None,
    held_by: str | None = None,
    **values: Any,
) -> bool:
    """Move a job to `target` if that is legal from where it is (and, with `held_by`, if that lease still holds it); write its history and
    tell the scheduler.

    False when another writer was faster; nothing has changed then.
    """
    guard = [jobs.c.id == job_id, jobs.c.status.in_(sorted(sources(target)))]
    if held_by is not None:
        guard.append(jobs.c.lease == held_by)
    changed = update(jobs).where(*guard).values(status=target, previous_status=jobs.c.status, reason=reason, **values)
    told = (
        *(jobs.c.previous_status, jobs.c.attempt, jobs.c.type, jobs.c.labels, jobs.c.deleted_at),
        *(jobs.c.queue, jobs.c.priority, jobs.c.concurrency_key),
    )
    row = connection.execute(changed.returning(*told)).one_or_none()
    if row is None:
        return False
    if row.deleted_at is None:
        listing.note_status(connection, job_id, type=row.type, previous=row.previous_status, status=target, labelled=bool(row.labels))
    write_history(connection, job_id, status=target, previous=row.previous_status, reason=reason, attempt=row.attempt, cause=cause)
    if target in ENDED:
        scheduler.forget(connection, job_id)
    elif target is Status.PENDING:
        scheduler.requeue(connection, PendingJob(job_id, row.queue, row.priority, row.concurrency_key))
    return True


def write_history(
    connection: Connection, job_id: str, *, status: Status, previous: str | None, reason: Reason | None, attempt: int, cause: str
) -> None:
    """Add a row to the history of a job."""
    values = {
        "job_id": job_id,
        "at": now_ms(),
        "status": status,
        "previous": previous,
        "reason": reason,
        "attempt": attempt,
        "cause": cause,
    }
    connection.execute(insert(job_events), values)


def not_before(earlier: ColumnElement[int], now: int) -> ColumnElement[int]:
    """`now`, or `earlier` if that is later because the clock was set back meanwhile (both Unix milliseconds)."""
    return case((earlier > now, earlier), else_=now)
