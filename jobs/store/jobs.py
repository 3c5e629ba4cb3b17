"""Where jobs are kept: what clients ask of the store. What workers and supervisors ask of it is in `leases.py`, logs are in `logs.py`.

Every change of a job's status goes through `transition`, so that it is legal and has its row in the history.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import uuid_utils
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    bindparam,
    case,
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
    JobType,
    LogStats,
    Progress,
    Reason,
    Status,
    Submission,
    WaitingFor,
    WorkerInfo,
    sources,
)
from jobs.store import listing
from jobs.store.database import Database
from jobs.store.listing import JobCounts, JobFilter
from jobs.store.quotas import Quotas
from jobs.store.scheduling import WORKER_ALIVE_MS, PendingJob, Scheduler, queue_names
from jobs.store.schema import idempotency_keys, in_status, job_events, jobs, workers


@dataclass(frozen=True)
class NewJob:
    """A submission with what its recipe decides: ready to be stored."""

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
        """Ask for the end of a job; a pending one ends at once. Raises JobNotFound, and JobEnded when it ended otherwise than cancelled."""

        def work(connection: Connection) -> Job:
            job = self._get(connection, job_id)
            if job.status in ENDED and job.status is not Status.CANCELLED:
                raise JobEnded(job_id, job.status)
            _cancel(connection, job, scheduler=self._scheduler, by=by, force=force)
            return self._get(connection, job_id)

        return self.database.write(work)

    def delete(self, job_id: str, *, by: str) -> None:
        """Make a job disappear; an active one is cancelled too. Raises JobNotFound.

        Its rows go a little later, by `Retention`: those who watch the job still see its end, and to remove a large log takes long.
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
        """The job even if it was deleted, as long as its rows are there: for those who watched it."""
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
            return [_to_event(row) for row in connection.execute(query)]

        return self.database.read(work)

    def events_after(self, cursor: int, *, limit: int = 1000) -> list[JobEvent]:
        """The status changes of all jobs after `cursor`, oldest first; none is ever inserted before one that was seen."""
        query = select(job_events).where(job_events.c.cursor > cursor).order_by(job_events.c.cursor).limit(limit)
        return self.database.read(lambda connection: [_to_event(row) for row in connection.execute(query)])

    def last_event(self) -> int:
        """The cursor of the newest status change; 0 for none."""
        return self.database.read(_last_event)

    def counts(self) -> JobCounts:
        return self.database.read(listing.counts)

    def workers(self) -> list[WorkerInfo]:
        busy = select(func.count()).where(jobs.c.worker_id == workers.c.id, in_status(jobs, Status.RUNNING)).scalar_subquery()
        query = select(workers, busy.label("busy_slots")).order_by(workers.c.id)
        now = now_ms()
        return self.database.read(lambda connection: [_to_worker(row, now) for row in connection.execute(query)])

    def _get(self, connection: Connection, job_id: str) -> Job:
        for job in self._found(connection, _FIND, {"job_id": job_id}):
            return job
        raise JobNotFound(job_id)

    def _found(self, connection: Connection, query: Select[Any], values: Mapping[str, Any] | None = None) -> list[Job]:
        rows = connection.execute(query, values).all()
        pending = [row.id for row in rows if row.status == Status.PENDING]
        reasons = self._scheduler.waiting_for(connection, pending) if pending else {}
        return [to_job(row, reasons.get(row.id)) for row in rows]


# -- writes ---------------------------------------------------------------------------------------------------------------


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

    False when another writer was there first: nothing has changed then.
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
    _write_history(connection, job_id, status=target, previous=row.previous_status, reason=reason, attempt=row.attempt, cause=cause)
    if target in ENDED:
        scheduler.forget(connection, job_id)
    elif target is Status.PENDING:
        scheduler.requeue(connection, PendingJob(job_id, row.queue, row.priority, row.concurrency_key))
    return True


def not_before(earlier: ColumnElement[int], now: int) -> ColumnElement[int]:
    """The time for a column: now, but not before the time that it follows, if the clock was set back since."""
    return case((earlier > now, earlier), else_=now)


def _next_id(connection: Connection) -> str:
    """A UUIDv7 that follows all others, because their order is that of submission: also within a millisecond, and when the clock was set
    back."""
    newest = connection.execute(_NEWEST).scalar()
    now = now_ms()
    if newest is None or now > (last := UUID(newest).int) >> 80:
        return str(uuid_utils.uuid7(nanoseconds=now * 1_000_000))
    following = last + 1 + secrets.randbits(32)
    if following >> 62 != last >> 62:  # its random part is used up
        return str(uuid_utils.uuid7(nanoseconds=((last >> 80) + 1) * 1_000_000))
    return str(UUID(int=following))


_NEWEST = select(func.max(jobs.c.id))


def _write_history(
    connection: Connection, job_id: str, *, status: Status, previous: str | None, reason: Reason | None, attempt: int, cause: str
) -> None:
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
        # What the id says, so that a list is in the order of both and times are looked up by ids.
        "created_at": listing.created_ms(job_id),
    }
    connection.execute(insert(jobs), values)
    listing.note_new(connection, job_id, type=wanted.type, project=new.project, labels=wanted.labels)
    cause = f"retry of {new.retry_of} by {new.submitted_by}" if new.retry_of else f"submitted by {new.submitted_by}"
    _write_history(connection, job_id, status=Status.PENDING, previous=None, reason=None, attempt=0, cause=cause)


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


# -- reads ----------------------------------------------------------------------------------------------------------------


_LAST_EVENT = select(func.max(job_events.c.cursor))
_JOBS: Select[Any] = select(jobs)
_FIND_ANY = _JOBS.where(jobs.c.id == bindparam("job_id"))
_FIND = _FIND_ANY.where(jobs.c.deleted_at.is_(None))
_EXISTS = select(jobs.c.id).where(jobs.c.id == bindparam("job_id"), jobs.c.deleted_at.is_(None))


def _last_event(connection: Connection) -> int:
    return connection.execute(_LAST_EVENT).scalar() or 0


def to_job(row: Row[Any], waiting_for: WaitingFor | None) -> Job:
    """A row of `jobs`, as the domain knows it."""
    dropped = row.dropped_last - row.dropped_first + 1 if row.dropped_first is not None else 0
    return Job(
        id=row.id,
        type=JobType(row.type),
        params=row.submission["params"],
        status=Status(row.status),
        reason=row.reason and Reason(row.reason),
        error=row.error,
        waiting_for=waiting_for,
        progress=Progress(row.progress_percent, row.progress_message),
        result=row.result,
        exit_code=row.exit_code,
        signal=row.signal,
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        priority=row.priority,
        queue=row.queue,
        concurrency_key=row.concurrency_key,
        labels=tuple(row.labels),
        timeout_seconds=row.timeout_seconds,
        project=row.project,
        submitted_by=row.submitted_by,
        retry_of=row.retry_of,
        created_at=row.created_at,
        started_at=row.started_at,
        ready_at=row.ready_at,
        ended_at=row.ended_at,
        cancel_requested_at=row.cancel_requested_at,
        cancel_forced=row.cancel_forced,
        log=LogStats(lines=row.log_lines, bytes=row.log_bytes, dropped_lines=dropped),
        submission=row.submission,
    )


def _to_event(row: Row[Any]) -> JobEvent:
    return JobEvent(
        cursor=row.cursor,
        job_id=row.job_id,
        at=row.at,
        status=Status(row.status),
        previous=row.previous and Status(row.previous),
        reason=row.reason and Reason(row.reason),
        attempt=row.attempt,
        cause=row.cause,
    )


def _to_worker(row: Row[Any], now: int) -> WorkerInfo:
    return WorkerInfo(
        id=row.id,
        host=row.host,
        pid=row.pid,
        slots=row.slots,
        busy_slots=row.busy_slots,
        queues=tuple(queue_names(row.queues)),
        started_at=row.started_at,
        heartbeat_at=row.heartbeat_at,
        # A sign from the future is one from before the clock was set back.
        alive=abs(now - row.heartbeat_at) < WORKER_ALIVE_MS,
    )
