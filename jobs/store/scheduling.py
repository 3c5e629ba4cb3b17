"""Which pending job may run next, and why another one waits: the rules, as SQL over the table of jobs.

`Scheduler` is what the store tells an engine (`jobs/execution/engines/`); the rules below are those of the local one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, bindparam, case, exists, func, or_, select

from jobs.clock import now_ms
from jobs.model import Status, WaitingFor
from jobs.store.schema import in_status, jobs, workers

WORKER_ALIVE_MS = 15_000
"""A worker that has given no sign of life for so long counts as gone."""


@dataclass(frozen=True)
class PendingJob:
    """What an engine needs to know of a job to hand it out."""

    id: str
    queue: str
    priority: int
    concurrency_key: str | None


class Scheduler(Protocol):
    """What the store tells an engine. Each method runs inside the transaction that changes the job, so that both sides stay equal."""

    def enqueue(self, connection: Connection, job: PendingJob) -> None:
        """A new job is pending."""

    def requeue(self, connection: Connection, job: PendingJob) -> None:
        """A job that ran is pending again, for another attempt."""

    def forget(self, connection: Connection, job_id: str) -> None:
        """A job has ended: it is not to be handed out any more, and blocks no other one."""

    def waiting_for(self, connection: Connection, job_ids: Sequence[str]) -> Mapping[str, WaitingFor]:
        """Why each of these pending jobs does not run yet."""


def next_job(connection: Connection, *, queues: Sequence[str]) -> Row[Any] | None:
    """The next job to run (`id`, `attempt`, `priority`): higher priority first, then the oldest. None when there is none, or all wait."""
    served = sorted(served_queues(connection).union(queues))
    found = [connection.execute(_NEXT, {"queue": queue, "served": served}).one_or_none() for queue in queues]
    return min((row for row in found if row is not None), key=lambda row: (-row.priority, row.id), default=None)


def busy_slots(connection: Connection, worker_id: str) -> int:
    """How many jobs the worker runs."""
    return connection.execute(_BUSY, {"worker_id": worker_id}).scalar_one()


def waiting_for(connection: Connection, job_ids: Sequence[str]) -> dict[str, WaitingFor]:
    """Why each of these pending jobs does not run yet; jobs that are not pending are left out."""
    if not job_ids:
        return {}
    rows = connection.execute(_WAITING, {"job_ids": job_ids, "served": sorted(served_queues(connection))})
    return {row.id: WaitingFor(row.waiting_for) for row in rows}


def served_queues(connection: Connection) -> set[str]:
    """The queues that have a worker that is alive."""
    now = now_ms()
    rows = connection.execute(_ALIVE, {"first": now - WORKER_ALIVE_MS, "last": now + WORKER_ALIVE_MS}).scalars()
    return {queue for queues in rows for queue in queue_names(queues)}


def queue_names(queues: str) -> list[str]:
    """The names in the column `queues` of a worker: `,default,gpu,`."""
    return queues.strip(",").split(",")


def _blocked() -> ColumnElement[bool]:
    """Whether a pending job waits for another one of its concurrency key: one that runs, or an earlier one that can run.

    `served` names the queues that have a worker: a job in another queue cannot run, and so blocks no other.
    """
    other, ahead = jobs.alias("other"), jobs.alias("ahead")
    running = select(other.c.concurrency_key).where(in_status(other, Status.RUNNING), other.c.concurrency_key.is_not(None))
    before = exists().where(
        in_status(ahead, Status.PENDING),
        ahead.c.concurrency_key == jobs.c.concurrency_key,
        ahead.c.queue.in_(bindparam("served", expanding=True)),
        ahead.c.id < jobs.c.id,
    )
    return and_(jobs.c.concurrency_key.is_not(None), or_(jobs.c.concurrency_key.in_(running), before))


# Built once: they are asked after every change of the store, and building such a statement costs more than running it.
# One queue at a time, so that the index gives the jobs in their order.
_NEXT: Select[Any] = (
    select(jobs.c.id, jobs.c.attempt, jobs.c.priority)
    .where(in_status(jobs, Status.PENDING), jobs.c.queue == bindparam("queue"), ~_blocked())
    .order_by(jobs.c.priority.desc(), jobs.c.id)
    .limit(1)
)
_BUSY = select(func.count()).where(jobs.c.worker_id == bindparam("worker_id"), in_status(jobs, Status.RUNNING))
_ALIVE = select(workers.c.queues).where(workers.c.heartbeat_at.between(bindparam("first"), bindparam("last")))
_WAITING: Select[Any] = select(
    jobs.c.id,
    case(
        (_blocked(), WaitingFor.CONCURRENCY_KEY.value),
        (jobs.c.queue.not_in(bindparam("served", expanding=True)), WaitingFor.WORKER.value),
        else_=WaitingFor.SLOT.value,
    ).label("waiting_for"),
).where(jobs.c.id.in_(bindparam("job_ids", expanding=True)), in_status(jobs, Status.PENDING))
