"""Where jobs are kept: what clients ask of the store. What workers and supervisors ask of it is in `leases.py`, logs are in `logs.py`.

Every change of a job's status goes through `transition`, so that it is legal and has its row in the history.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import uuid_utils
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    update,
)

from jobs.clock import now_ms
from jobs.database import Database
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
    Worker,
    sources,
)
from jobs.schema import idempotency_keys, job_events, job_labels, jobs, workers

WORKER_ALIVE_MS = 15_000
"""A worker that gave no sign for so long counts as gone."""


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


@dataclass(frozen=True)
class JobFilter:
    status: Sequence[str] = ()
    type: Sequence[str] = ()
    project: str | None = None
    labels: Sequence[str] = ()
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True)
class JobCounts:
    by_status: Mapping[str, int]
    by_type: Mapping[str, int]
    oldest_pending_ms: int | None


class Store:
    """Reads give jobs as they are now; a deleted job is not found, even while it is still ending."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._pending = PendingCount()

    # -- what clients change ------------------------------------------------------------------------------------------

    def submit(self, new: NewJob, *, max_pending: int, idempotency: IdempotencyKey | None = None) -> Submitted:
        """Store a job, or find the one that the key stands for. Raises QueueFull and IdempotencyConflict."""
        job_id = str(uuid_utils.uuid7())

        def work(connection: Connection) -> Submitted:
            if idempotency and (earlier := _find_replay(connection, idempotency)):
                return Submitted(_get(connection, earlier), replayed=True)
            self._pending.add(connection, max_pending)
            _insert_job(connection, job_id, new)
            if idempotency:
                values = {"owner": idempotency.owner, "key": idempotency.key, "body_hash": idempotency.body_hash, "job_id": job_id}
                connection.execute(insert(idempotency_keys), values)
            reached("submit.stored")
            return Submitted(_get(connection, job_id), replayed=False)

        submitted = self.database.write(work)
        reached("submit.committed")
        return submitted

    def replay(self, idempotency: IdempotencyKey) -> Job | None:
        """The job that the key stands for, if it was used before. Raises IdempotencyConflict."""

        def work(connection: Connection) -> Job | None:
            earlier = _find_replay(connection, idempotency)
            return None if earlier is None else _get(connection, earlier)

        return self.database.read(work)

    def request_cancel(self, job_id: str, *, by: str, force: bool) -> Job:
        """Ask for the end of a job; a pending one ends at once. Raises JobNotFound, and JobEnded when it ended otherwise than cancelled."""

        def work(connection: Connection) -> Job:
            job = _get(connection, job_id)
            if job.status in ENDED and job.status is not Status.CANCELLED:
                raise JobEnded(job_id, job.status)
            _cancel(connection, job, by=by, force=force)
            return _get(connection, job_id)

        return self.database.write(work)

    def delete(self, job_id: str, *, by: str) -> None:
        """Make a job disappear; an active one is cancelled too. Raises JobNotFound.

        Its rows go a little later, by `Retention`: those who watch the job still see its end, and to remove a large log takes long.
        """

        def work(connection: Connection) -> None:
            _cancel(connection, _get(connection, job_id), by=by, force=False)
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(deleted_at=now_ms()))
            connection.execute(delete(idempotency_keys).where(idempotency_keys.c.job_id == job_id))

        self.database.write(work)

    def retry(self, job_id: str) -> Job:
        """The job whose submission is to be repeated. Raises JobNotFound and JobActive."""
        job = self.get(job_id)
        if not job.ended:
            raise JobActive(job_id, job.status)
        return job

    # -- what clients read --------------------------------------------------------------------------------------------

    def get(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        return self.database.read(lambda connection: _get(connection, job_id))

    def find(self, job_id: str) -> Job | None:
        """The job even if it was deleted, as long as its rows are there: for those who watched it."""
        row = self.database.read(lambda connection: connection.execute(_FIND_ANY, {"job_id": job_id, **_alive()}).one_or_none())
        return None if row is None else to_job(row)

    def list_jobs(self, wanted: JobFilter, *, limit: int, cursor: str | None = None) -> list[Job]:
        """Newest first, after `cursor` (the id of the last job seen)."""
        query = _filtered(wanted).order_by(jobs.c.id.desc()).limit(limit)
        if cursor:
            query = query.where(jobs.c.id < cursor)
        return self.database.read(lambda connection: [to_job(row) for row in connection.execute(query, _alive())])

    def active(self) -> list[Job]:
        """Every running job, deleted or not."""
        query = _JOBS.where(jobs.c.status == Status.RUNNING)
        return self.database.read(lambda connection: [to_job(row) for row in connection.execute(query, _alive())])

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
        return self.database.read(lambda connection: connection.execute(select(func.max(job_events.c.cursor))).scalar() or 0)

    def counts(self) -> JobCounts:
        def work(connection: Connection) -> JobCounts:
            oldest = select(func.min(jobs.c.created_at)).where(jobs.c.status == Status.PENDING)
            return JobCounts(
                by_status=_counted(connection, jobs.c.status, Status),
                by_type=_counted(connection, jobs.c.type, JobType),
                oldest_pending_ms=connection.execute(oldest).scalar(),
            )

        return self.database.read(work)

    def workers(self) -> list[Worker]:
        busy = select(func.count()).where(jobs.c.worker_id == workers.c.id, jobs.c.status == Status.RUNNING).scalar_subquery()
        query = select(workers, busy.label("busy_slots")).order_by(workers.c.id)
        alive_since = now_ms() - WORKER_ALIVE_MS
        return self.database.read(lambda connection: [_to_worker(row, alive_since) for row in connection.execute(query)])


# -- writes ---------------------------------------------------------------------------------------------------------------


def transition(
    connection: Connection,
    job_id: str,
    target: Status,
    *,
    cause: str,
    reason: Reason | None = None,
    held_by: str | None = None,
    **values: Any,
) -> bool:
    """Move a job to `target` if that is legal from where it is (and, with `held_by`, if that lease still holds it), and write its history.

    False when another writer was there first: nothing has changed then.
    """
    guard = [jobs.c.id == job_id, jobs.c.status.in_(sorted(sources(target)))]
    if held_by is not None:
        guard.append(jobs.c.lease == held_by)
    changed = update(jobs).where(*guard).values(status=target, previous_status=jobs.c.status, reason=reason, **values)
    row = connection.execute(changed.returning(jobs.c.previous_status, jobs.c.attempt)).one_or_none()
    if row is None:
        return False
    _write_history(connection, job_id, status=target, previous=row.previous_status, reason=reason, attempt=row.attempt, cause=cause)
    return True


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
        "created_at": now_ms(),
    }
    connection.execute(insert(jobs), values)
    if wanted.labels:
        connection.execute(insert(job_labels), [{"label": label, "job_id": job_id} for label in wanted.labels])
    cause = f"retry of {new.retry_of} by {new.submitted_by}" if new.retry_of else f"submitted by {new.submitted_by}"
    _write_history(connection, job_id, status=Status.PENDING, previous=None, reason=None, attempt=0, cause=cause)


def _cancel(connection: Connection, job: Job, *, by: str, force: bool) -> None:
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
        transition(connection, job.id, Status.CANCELLED, cause=f"cancelled by {by}", reason=Reason.CANCELLED_BY_CLIENT, ended_at=now_ms())


def _find_replay(connection: Connection, wanted: IdempotencyKey) -> str | None:
    query = select(idempotency_keys).where(idempotency_keys.c.owner == wanted.owner, idempotency_keys.c.key == wanted.key)
    found = connection.execute(query).one_or_none()
    if found is None:
        return None
    if found.body_hash != wanted.body_hash:
        raise IdempotencyConflict(wanted.key)
    return str(found.job_id)


class PendingCount:
    """How many jobs are pending: counted anew when the last count is old or near the limit, else known from what was submitted since."""

    SECONDS = 0.25

    def __init__(self) -> None:
        self._count = 0
        self._counted = -math.inf

    def add(self, connection: Connection, limit: int) -> None:
        """One more. Raises QueueFull."""
        now = time.monotonic()
        if now > self._counted + self.SECONDS or self._count > limit * 0.9 - 100:
            self._count = connection.execute(select(func.count()).where(jobs.c.status == Status.PENDING)).scalar_one()
            self._counted = now
        if self._count >= limit:
            raise QueueFull(self._count)
        self._count += 1


# -- reads ----------------------------------------------------------------------------------------------------------------


def _waiting_for() -> ColumnElement[Any]:
    ahead = jobs.alias("ahead")
    blocked = exists().where(
        ahead.c.concurrency_key == jobs.c.concurrency_key,
        or_(ahead.c.status == Status.RUNNING, and_(ahead.c.status == Status.PENDING, ahead.c.id < jobs.c.id)),
    )
    served = exists().where(workers.c.heartbeat_at > bindparam("alive_since"), workers.c.queues.like(literal("%,") + jobs.c.queue + ",%"))
    return case(
        (jobs.c.status != Status.PENDING, null()),
        (and_(jobs.c.concurrency_key.is_not(None), blocked), WaitingFor.CONCURRENCY_KEY.value),
        (~served, WaitingFor.WORKER.value),
        else_=WaitingFor.SLOT.value,
    ).label("waiting_for")


_JOBS: Select[Any] = select(jobs, _waiting_for())
_FIND_ANY = _JOBS.where(jobs.c.id == bindparam("job_id"))
_FIND = _FIND_ANY.where(jobs.c.deleted_at.is_(None))
_EXISTS = select(jobs.c.id).where(jobs.c.id == bindparam("job_id"), jobs.c.deleted_at.is_(None))


def _alive() -> dict[str, int]:
    return {"alive_since": now_ms() - WORKER_ALIVE_MS}


def _get(connection: Connection, job_id: str) -> Job:
    row = connection.execute(_FIND, {"job_id": job_id, **_alive()}).one_or_none()
    if row is None:
        raise JobNotFound(job_id)
    return to_job(row)


def _filtered(wanted: JobFilter) -> Select[Any]:
    query = _JOBS.where(jobs.c.deleted_at.is_(None))
    if wanted.status:
        query = query.where(jobs.c.status.in_(wanted.status))
    if wanted.type:
        query = query.where(jobs.c.type.in_(wanted.type))
    if wanted.project is not None:
        query = query.where(jobs.c.project == wanted.project)
    for label in wanted.labels:
        query = query.where(jobs.c.id.in_(select(job_labels.c.job_id).where(job_labels.c.label == label)))
    if wanted.since is not None:
        query = query.where(jobs.c.created_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(jobs.c.created_at < wanted.until)
    return query


def to_job(row: Row[Any]) -> Job:
    """A row of `jobs` with `waiting_for`, as the domain knows it."""
    dropped = row.dropped_last - row.dropped_first + 1 if row.dropped_first is not None else 0
    return Job(
        id=row.id,
        type=JobType(row.type),
        params=row.submission["params"],
        status=Status(row.status),
        reason=row.reason and Reason(row.reason),
        error=row.error,
        waiting_for=row.waiting_for and WaitingFor(row.waiting_for),
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


def _counted(connection: Connection, column: Column[Any], names: Iterable[str]) -> dict[str, int]:
    """How many jobs have each value, without those that were deleted: the few of them are subtracted, so that indexes are all it reads."""
    counts = {str(name): 0 for name in names}
    for name, count in connection.execute(select(column, func.count()).group_by(column)):
        counts[name] += count
    for name in connection.execute(select(column).where(jobs.c.deleted_at.is_not(None))).scalars():
        counts[name] -= 1
    return counts


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


def _to_worker(row: Row[Any], alive_since: int) -> Worker:
    return Worker(
        id=row.id,
        host=row.host,
        pid=row.pid,
        slots=row.slots,
        busy_slots=row.busy_slots,
        queues=tuple(row.queues.strip(",").split(",")),
        started_at=row.started_at,
        heartbeat_at=row.heartbeat_at,
        alive=row.heartbeat_at > alive_since,
    )
