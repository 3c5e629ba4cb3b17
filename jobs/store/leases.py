"""The execution side of the store: which worker and which supervisor run which job.

A lease is a random word that a worker writes when it claims a job, and hands to one supervisor. Every update here is guarded by the lease:
a supervisor whose lease was given to another one cannot write for the job any more.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, select, update

from jobs.clock import now_ms
from jobs.errors import LeaseLost
from jobs.fault_points import reached
from jobs.model import Json, Reason, Status, Submission
from jobs.store.database import Database
from jobs.store.scheduling import Scheduler
from jobs.store.schema import in_status, jobs, workers
from jobs.store.transitions import not_before, transition

FORGOTTEN_MS = 24 * 3600 * 1000
DETAIL_CHARACTERS = 4000
"""The longest detail that the contract allows in a problem."""


@dataclass(frozen=True)
class Lease:
    job_id: str
    word: str
    attempt: int

    @property
    def marker(self) -> str:
        """What every process of the job carries in its environment."""
        return f"{self.job_id}:{self.word}"

    @property
    def folder(self) -> str:
        """The prefix of the names of the job's temporary folders."""
        return f"runcast-job-{self.job_id}-{self.word}-"


@dataclass(frozen=True)
class TakenJob:
    """What a supervisor is to run, and since when the job counts as running."""

    submission: Submission
    started_at: int


@dataclass(frozen=True)
class CancelRequest:
    reason: Reason
    by: str | None
    forced: bool


@dataclass(frozen=True)
class Outcome:
    """How a job ended. `error` is a sentence that says why it failed; it may quote what a client sent, of any length."""

    status: Status
    cause: str
    reason: Reason | None = None
    error: str | None = None
    exit_code: int | None = None
    signal: str | None = None


@dataclass(frozen=True)
class HeldLease:
    """A running job as its worker's sweep sees it."""

    job_id: str
    lease: str
    attempt: int
    worker_id: str
    host: str
    heartbeat: int
    supervisor: Mapping[str, Json] | None
    process_group: int | None

    @property
    def taken(self) -> Lease:
        """The lease as its supervisor had it."""
        return Lease(self.job_id, self.lease, self.attempt)


class Leases:
    def __init__(self, database: Database, scheduler: Scheduler) -> None:
        self.database = database
        self._scheduler = scheduler

    # -- the worker -----------------------------------------------------------------------------------------------------

    def register_worker(self, *, worker_id: str, host: str, pid: int, slots: int, queues: Sequence[str]) -> None:
        now = now_ms()
        values = {"host": host, "pid": pid, "slots": slots, "queues": f",{','.join(queues)},", "started_at": now, "heartbeat_at": now}

        def work(connection: Connection) -> None:
            connection.execute(delete(workers).where(workers.c.id == worker_id))
            connection.execute(insert(workers).values(id=worker_id, **values))

        self.database.write(work)

    def worker_alive(self, worker_id: str) -> None:
        """Record a heartbeat, and remove workers that gave none for a day."""
        alive = update(workers).where(workers.c.id == worker_id).values(heartbeat_at=now_ms())
        forgotten = delete(workers).where(workers.c.heartbeat_at < now_ms() - FORGOTTEN_MS)

        def work(connection: Connection) -> None:
            connection.execute(alive)
            connection.execute(forgotten)

        self.database.write(work, durable=False)

    def worker_gone(self, worker_id: str) -> None:
        self.database.write(lambda connection: connection.execute(delete(workers).where(workers.c.id == worker_id)))

    def held(self) -> list[HeldLease]:
        """Every running job."""
        query = select(jobs).where(in_status(jobs, Status.RUNNING))
        return self.database.read(lambda connection: [_to_held(row) for row in connection.execute(query)])

    def lose(self, held: HeldLease) -> Status | None:
        """End or requeue a job whose supervisor was lost and of which no process is left. None when its lease changed meanwhile."""

        def work(connection: Connection) -> Status | None:
            status = _lose(connection, held, self._scheduler)
            reached("sweep.stored")
            return status

        return self.database.write(work)

    def cancel_all(self, leases: Collection[str], *, force: bool = False) -> None:
        """Request the cancellation of the jobs under these leases, because the server stops; with `force`, without a grace period."""
        values: dict[str, Any] = {
            "cancel_requested_at": func.coalesce(jobs.c.cancel_requested_at, now_ms()),
            "cancel_reason": func.coalesce(jobs.c.cancel_reason, Reason.SERVER_SHUTDOWN.value),
        }
        if force:
            values["cancel_forced"] = True
        query = update(jobs).where(jobs.c.lease.in_(leases), in_status(jobs, Status.RUNNING)).values(**values)
        self.database.write(lambda connection: connection.execute(query))

    def running(self, leases: Collection[str]) -> int:
        """How many of these leases still hold a running job."""
        query = select(func.count()).where(jobs.c.lease.in_(leases), in_status(jobs, Status.RUNNING))
        return self.database.read(lambda connection: connection.execute(query).scalar_one())

    def worker_ids(self) -> set[str]:
        """The workers that are registered: they have not stopped in order."""
        return self.database.read(lambda connection: set(connection.execute(select(workers.c.id)).scalars()))

    # -- the supervisor -------------------------------------------------------------------------------------------------

    def take(self, lease: Lease, *, supervisor: Mapping[str, Json]) -> TakenJob:
        """Begin to supervise. A lease can be taken once, before a process of the job is started. Raises LeaseLost."""

        def work(connection: Connection) -> TakenJob:
            guard = (*_held_by(lease), jobs.c.supervisor.is_(None))
            taken = update(jobs).where(*guard).values(supervisor=supervisor, heartbeat=jobs.c.heartbeat + 1)
            row = connection.execute(taken.returning(jobs.c.submission, jobs.c.started_at)).one_or_none()
            if row is None:
                raise LeaseLost(f"The lease of job {lease.job_id} is gone.")
            return TakenJob(Submission.from_json(row.submission), row.started_at)

        return self.database.write(work, durable=False)

    def update(self, lease: Lease, *, durable: bool = False, **values: Any) -> None:
        """Write columns of the job, which also renews the lease. Raises LeaseLost."""
        self.database.write(lambda connection: update_held(connection, lease, values), durable=durable)

    def cancel_request(self, lease: Lease) -> CancelRequest | None:
        """The request to cancel this running job, if there is one. Raises LeaseLost."""
        columns = (jobs.c.cancel_requested_at, jobs.c.cancel_reason, jobs.c.cancelled_by, jobs.c.cancel_forced)
        query = select(*columns).where(*_held_by(lease))
        row = self.database.read(lambda connection: connection.execute(query).one_or_none())
        if row is None:
            raise LeaseLost(f"The lease of job {lease.job_id} is gone.")
        if row.cancel_requested_at is None:
            return None
        return CancelRequest(Reason(row.cancel_reason), row.cancelled_by, row.cancel_forced)

    def end(self, lease: Lease, outcome: Outcome, *, at: int | None = None) -> None:
        """End the job and its lease. `at` is the time by the supervisor's steady clock (Unix milliseconds). Raises LeaseLost."""

        def work(connection: Connection) -> None:
            if not end_job(connection, lease.job_id, lease.word, outcome, scheduler=self._scheduler, at=at):
                raise LeaseLost(f"The lease of job {lease.job_id} is gone.")
            reached("end.stored")

        self.database.write(work)


def update_held(connection: Connection, lease: Lease, values: Mapping[str, Any]) -> None:
    """Write columns of a running job under its lease. Raises LeaseLost."""
    query = update(jobs).where(*_held_by(lease)).values(heartbeat=jobs.c.heartbeat + 1, **values)
    if connection.execute(query).rowcount != 1:
        raise LeaseLost(f"The lease of job {lease.job_id} is gone.")


def end_job(connection: Connection, job_id: str, word: str, outcome: Outcome, *, scheduler: Scheduler, at: int | None = None) -> bool:
    return transition(
        connection,
        job_id,
        outcome.status,
        scheduler=scheduler,
        cause=outcome.cause,
        reason=outcome.reason,
        held_by=word,
        # An object, because earlier versions kept a whole problem here; its detail is read in the same way.
        error=None if outcome.error is None else {"detail": outcome.error[:DETAIL_CHARACTERS]},
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        ended_at=not_before(jobs.c.started_at, now_ms() if at is None else at),
        **_RELEASED,
    )


_RELEASED: Mapping[str, Any] = {"lease": None, "supervisor": None, "process_group": None}
_ANEW: Mapping[str, Any] = {
    "started_at": None,
    "progress_percent": None,
    "progress_message": None,
    "ready_at": None,
    "result": None,
    "cancel_requested_at": None,
    "cancel_reason": None,
    "cancel_forced": False,
}
"""What is reset for a new attempt: what the lost one reported of itself, and the stopping server's request to cancel."""


def _held_by(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return (jobs.c.id == lease.job_id, jobs.c.lease == lease.word, jobs.c.status == Status.RUNNING)


def claim_job(connection: Connection, job_id: str, *, attempt: int, worker_id: str, host: str, scheduler: Scheduler) -> Lease | None:
    """Claim a pending job for a worker. None when it is not pending any more."""
    word = secrets.token_hex(8)
    claimed = transition(
        connection,
        job_id,
        Status.RUNNING,
        scheduler=scheduler,
        cause=f"claimed by worker {worker_id}",
        attempt=attempt,
        worker_id=worker_id,
        host=host,
        **{**_RELEASED, "lease": word, "started_at": not_before(jobs.c.created_at, now_ms())},
    )
    return Lease(job_id, word, attempt) if claimed else None


def _lose(connection: Connection, held: HeldLease, scheduler: Scheduler) -> Status | None:
    # A job that was taken, or whose lease was renewed, since it was read is not lost.
    unchanged = (jobs.c.id == held.job_id, jobs.c.lease == held.lease, jobs.c.heartbeat == held.heartbeat)
    row = connection.execute(select(jobs).where(*unchanged)).one_or_none()
    if row is None:
        return None
    started = row.supervisor is not None
    # A stopping server cancels running jobs; a job that was never started stays for the next start, like every pending job.
    if row.cancel_requested_at is not None and (started or row.cancelled_by is not None):
        when = "after its supervisor was lost" if started else "before it was started"
        outcome = Outcome(Status.CANCELLED, f"cancelled by {row.cancelled_by or 'the server'}, {when}", Reason(row.cancel_reason))
    elif not started or row.attempt < row.max_attempts:
        # Without a supervisor on record nothing was ever started, so this attempt does not count.
        attempt = row.attempt if started else row.attempt - 1
        cause = "its supervisor was lost; another attempt" if started else "it was claimed, but never started"
        values = {"attempt": attempt, **_ANEW, **_RELEASED}
        back = transition(connection, held.job_id, Status.PENDING, scheduler=scheduler, cause=cause, held_by=held.lease, **values)
        return Status.PENDING if back else None
    else:
        detail = "The process that supervised the job was lost; what was left of the job was ended."
        outcome = Outcome(Status.FAILED, "its supervisor was lost", Reason.WORKER_LOST, error=detail)
    return outcome.status if end_job(connection, held.job_id, held.lease, outcome, scheduler=scheduler) else None


def _to_held(row: Row[Any]) -> HeldLease:
    return HeldLease(
        job_id=row.id,
        lease=row.lease,
        attempt=row.attempt,
        worker_id=row.worker_id,
        host=row.host,
        heartbeat=row.heartbeat,
        supervisor=row.supervisor,
        process_group=row.process_group,
    )
