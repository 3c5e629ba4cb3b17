"""What clients ask of the store: submit, cancel, delete, read.

What workers and supervisors ask of it is in `leases.py`; logs are in `logs.py` and `log_writer.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import uuid_utils
from sqlalchemy import (
    Connection,
    Select,
    bindparam,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from jobs.clock import now_ms
from jobs.errors import IdempotencyConflict, JobActive, JobEnded, JobNotFound, QueueFull
from jobs.fault_points import reached
from jobs.model import (
    ENDED,
    Job,
    JobEvent,
    Reason,
    Status,
    Submission,
    WorkerInfo,
)
from jobs.store import listing
from jobs.store.database import Database
from jobs.store.listing import JobCounts, JobFilter
from jobs.store.quotas import Quotas
from jobs.store.rows import to_event, to_job, to_worker
from jobs.store.scheduling import PendingJob, Scheduler
from jobs.store.schema import idempotency_keys, in_status, job_events, jobs, workers
from jobs.store.transitions import not_before, transition, write_history


@dataclass(frozen=True)
class NewJob:
    """A submission with what its recipe decides, ready to be stored."""

    submission: Submission
    queue: str
    concurrency_key: str | None
    project: str | None
    submitted_by: str
    retry_of: str | None = None


@dataclass(frozen=True)
class IdempotencyKey:
    owner: str
    key: str
    body_hash: str


@dataclass(frozen=True)
class Submitted:
    job: Job
    replayed: bool


class Store:
    """Reads give jobs as they are now; a deleted job is not found, even while it is still ending."""

    def __init__(self, database: Database, scheduler: Scheduler) -> None:
        self.database = database
        self._scheduler = scheduler

    # -- what clients change ------------------------------------------------------------------------------------------

    def submit(
        self, new: NewJob, *, max_pending: int, quotas: Quotas | None = None, idempotency: IdempotencyKey | None = None
    ) -> Submitted:
        """Store a job, or find the one that the key stands for. Raises QueueFull, QuotaExceeded and IdempotencyConflict."""

        def work(connection: Connection) -> Submitted:
            if idempotency and (earlier := _find_replay(connection, idempotency)):
                return Submitted(self._get(connection, earlier), replayed=True)
            if quotas is not None:
                quotas.check(connection, new.submitted_by)
            _check_room(connection, max_pending)
            job_id = _next_id(connection)
            _insert_job(connection, job_id, new)
            self._scheduler.enqueue(connection, PendingJob(job_id, new.queue, new.submission.priority, new.concurrency_key))
            if idempotency:
                values = {"owner": idempotency.owner, "key": idempotency.key, "body_hash": idempotency.body_hash, "job_id": job_id}
                connection.execute(insert(idempotency_keys), values)
            reached("submit.stored")
            return Submitted(self._get(connection, job_id), replayed=False)

        submitted = self.database.write(work)
        reached("submit.committed")
        return submitted

    def replay(self, idempotency: IdempotencyKey) -> Job | None:
        """The job that the key stands for, if it was used before. Raises IdempotencyConflict."""

        def work(connection: Connection) -> Job | None:
            earlier = _find_replay(connection, idempotency)
            return None if earlier is None else self._get(connection, earlier)

        return self.database.read(work)

    def request_cancel(self, job_id: str, *, by: str, force: bool) -> Job:
        """Request the cancellation of a job. A pending one ends at once. Raises JobNotFound, and JobEnded unless it ended as cancelled."""

        def work(connection: Connection) -> Job:
            job = self._get(connection, job_id)
            if job.status in ENDED and job.status is not Status.CANCELLED:
                raise JobEnded(job_id, job.status)
            _cancel(connection, job, scheduler=self._scheduler, by=by, force=force)
            return self._get(connection, job_id)

        return self.database.write(work)

    def delete(self, job_id: str, *, by: str) -> None:
        """Hide a job from clients; an active one is cancelled as well. Raises JobNotFound.

        `Retention` removes its rows a little later: subscribers still receive the job's end, and removing a large log takes long.
        """

        def work(connection: Connection) -> None:
            _cancel(connection, self._get(connection, job_id), scheduler=self._scheduler, by=by, force=False)
            hidden = update(jobs).where(jobs.c.id == job_id).values(deleted_at=now_ms()).returning(jobs.c.type, jobs.c.status)
            row = connection.execute(hidden).one()
            listing.note_deleted(connection, job_id, type=row.type, status=row.status)
            connection.execute(delete(idempotency_keys).where(idempotency_keys.c.job_id == job_id))

        self.database.write(work)

    def get_ended(self, job_id: str) -> Job:
        """A job that has ended. Raises JobNotFound and JobActive."""
        job = self.get(job_id)
        if not job.ended:
            raise JobActive(job_id, job.status)
        return job

    # -- what clients read --------------------------------------------------------------------------------------------

    def get(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        return self.database.read(lambda connection: self._get(connection, job_id))

    def get_with_cursor(self, job_id: str) -> tuple[Job, int]:
        """The job, and the cursor of the newest status change at the same moment: later ones come after it. Raises JobNotFound."""
        return self.database.read(lambda connection: (self._get(connection, job_id), _last_event(connection)))

    def find(self, job_id: str) -> Job | None:
        """The job even if it was deleted, while its rows exist: for clients that subscribed to it before. None when there is none."""
        return self.database.read(lambda connection: next(iter(self._found(connection, _FIND_ANY, {"job_id": job_id})), None))

    def list_jobs(self, wanted: JobFilter, *, limit: int, cursor: str | None = None) -> list[Job]:
        """Newest first, after `cursor` (the id of the last job seen)."""

        def work(connection: Connection) -> list[Job]:
            ids = listing.page(connection, wanted, limit=limit, cursor=cursor)
            return sorted(self._found(connection, _JOBS.where(jobs.c.id.in_(ids))), key=lambda job: job.id, reverse=True)

        return self.database.read(work)

    def active(self) -> list[Job]:
        """Every running job, deleted or not."""
        query = _JOBS.where(in_status(jobs, Status.RUNNING))
        return self.database.read(lambda connection: self._found(connection, query))

    def events(self, job_id: str) -> list[JobEvent]:
        """A job's history, oldest first. Raises JobNotFound."""

        def work(connection: Connection) -> list[JobEvent]:
            if connection.execute(_EXISTS, {"job_id": job_id}).scalar() is None:
                raise JobNotFound(job_id)
            query = select(job_events).where(job_events.c.job_id == job_id).order_by(job_events.c.cursor)
            return [to_event(row) for row in connection.execute(query)]

        return self.database.read(work)

    def events_after(self, cursor: int, *, limit: int = 1000) -> list[JobEvent]:
        """The status changes of all jobs after `cursor`, oldest first. No change is ever inserted before one that was returned."""
        query = select(job_events).where(job_events.c.cursor > cursor).order_by(job_events.c.cursor).limit(limit)
        return self.database.read(lambda connection: [to_event(row) for row in connection.execute(query)])

    def last_event(self) -> int:
        """The cursor of the newest status change; 0 for none."""
        return self.database.read(_last_event)

    def counts(self) -> JobCounts:
        return self.database.read(listing.counts)

    def workers(self) -> list[WorkerInfo]:
        busy = select(func.count()).where(jobs.c.worker_id == workers.c.id, in_status(jobs, Status.RUNNING)).scalar_subquery()
        query = select(workers, busy.label("busy_slots")).order_by(workers.c.id)
        now = now_ms()
        return self.database.read(lambda connection: [to_worker(row, now) for row in connection.execute(query)])

    def _get(self, connection: Connection, job_id: str) -> Job:
        for job in self._found(connection, _FIND, {"job_id": job_id}):
            return job
        raise JobNotFound(job_id)

    def _found(self, connection: Connection, query: Select[Any], values: Mapping[str, Any] | None = None) -> list[Job]:
        rows = connection.execute(query, values).all()
        pending = [row.id for row in rows if row.status == Status.PENDING]
        reasons = self._scheduler.waiting_for(connection, pending) if pending else {}
        return [to_job(row, reasons.get(row.id)) for row in rows]


def _next_id(connection: Connection) -> str:
    """A UUIDv7 greater than all others, because the order of ids is the order of submission: also within one millisecond, and after the
    clock was set back."""
    newest = connection.execute(_NEWEST).scalar()
    now = now_ms()
    if newest is None or now > (last := UUID(newest).int) >> 80:
        return str(uuid_utils.uuid7(nanoseconds=now * 1_000_000))
    following = last + 1 + secrets.randbits(32)
    if following >> 62 != last >> 62:  # the random part has overflowed
        return str(uuid_utils.uuid7(nanoseconds=((last >> 80) + 1) * 1_000_000))
    return str(UUID(int=following))


_NEWEST = select(func.max(jobs.c.id))


def _insert_job(connection: Connection, job_id: str, new: NewJob) -> None:
    wanted = new.submission
    values = {
        "id": job_id,
        "type": wanted.type,
        "submission": wanted.to_json(),
        "status": Status.PENDING,
        "max_attempts": wanted.max_attempts,
        "priority": wanted.priority,
        "queue": new.queue,
        "concurrency_key": new.concurrency_key,
        "labels": list(wanted.labels),
        "timeout_seconds": wanted.timeout_seconds,
        "project": new.project,
        "submitted_by": new.submitted_by,
        "retry_of": new.retry_of,
        # The time in the id, so that ids and times have the same order, and a time can be looked up by id.
        "created_at": listing.created_ms(job_id),
    }
    connection.execute(insert(jobs), values)
    listing.note_new(connection, job_id, type=wanted.type, project=new.project, labels=wanted.labels)
    cause = f"retry of {new.retry_of} by {new.submitted_by}" if new.retry_of else f"submitted by {new.submitted_by}"
    write_history(connection, job_id, status=Status.PENDING, previous=None, reason=None, attempt=0, cause=cause)


def _cancel(connection: Connection, job: Job, *, scheduler: Scheduler, by: str, force: bool) -> None:
    if job.ended:
        return
    connection.execute(
        update(jobs)
        .where(jobs.c.id == job.id)
        .values(
            cancel_requested_at=func.coalesce(jobs.c.cancel_requested_at, now_ms()),
            cancel_reason=func.coalesce(jobs.c.cancel_reason, Reason.CANCELLED_BY_CLIENT.value),
            cancelled_by=func.coalesce(jobs.c.cancelled_by, by),
            cancel_forced=or_(jobs.c.cancel_forced, literal(force)),
        )
    )
    if job.status is Status.PENDING:
        ended_at = not_before(jobs.c.created_at, now_ms())
        # False when a worker claimed the job meanwhile. Its supervisor finds the request then.
        transition(
            connection,
            job.id,
            Status.CANCELLED,
            scheduler=scheduler,
            cause=f"cancelled by {by}",
            reason=Reason.CANCELLED_BY_CLIENT,
            ended_at=ended_at,
        )


def _find_replay(connection: Connection, wanted: IdempotencyKey) -> str | None:
    query = select(idempotency_keys).where(idempotency_keys.c.owner == wanted.owner, idempotency_keys.c.key == wanted.key)
    found = connection.execute(query).one_or_none()
    if found is None:
        return None
    if found.body_hash != wanted.body_hash:
        raise IdempotencyConflict(wanted.key)
    return str(found.job_id)


def _check_room(connection: Connection, limit: int) -> None:
    """Raises QueueFull."""
    if (count := listing.pending(connection)) >= limit:
        raise QueueFull(count)


_LAST_EVENT = select(func.max(job_events.c.cursor))
_JOBS: Select[Any] = select(jobs)
_FIND_ANY = _JOBS.where(jobs.c.id == bindparam("job_id"))
_FIND = _FIND_ANY.where(jobs.c.deleted_at.is_(None))
_EXISTS = select(jobs.c.id).where(jobs.c.id == bindparam("job_id"), jobs.c.deleted_at.is_(None))


def _last_event(connection: Connection) -> int:
    return connection.execute(_LAST_EVENT).scalar() or 0
