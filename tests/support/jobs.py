"""Jobs in a store without a server: submitted, started, with a log, ended."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, update

from jobs.bootstrap import make_engine
from jobs.model import JobType, Status, Submission
from jobs.store.database import OwnedDatabase
from jobs.store.jobs import NewJob, Store
from jobs.store.leases import Lease, Leases, Outcome
from jobs.store.log_writer import LogWriter
from jobs.store.schema import jobs, log_chunks
from support.logs import append
from support.stores import claim


def submit(database: OwnedDatabase, *, key: str | None = None) -> str:
    submission = Submission(JobType.TASK, {"task": "any"})
    return Store(database, make_engine(database.url)).submit(NewJob(submission, "default", key, None, "tests"), max_pending=1000).job.id


def start(database: OwnedDatabase, *, slots: int = 1) -> Lease:
    """The next pending job, claimed and taken."""
    leases = Leases(database, make_engine(database.url))
    (lease,) = claim(leases.database, worker_id="worker", host="here", queues=["default"], slots=slots)
    leases.take(lease, supervisor={})
    return lease


def log(database: OwnedDatabase, writer: LogWriter, text: bytes) -> None:
    append(database, writer, text)


def end(database: OwnedDatabase, lease: Lease) -> str:
    Leases(database, make_engine(database.url)).end(lease, Outcome(Status.COMPLETED, "done"))
    return lease.job_id


def change(database: OwnedDatabase, job_id: str, **values: Any) -> None:
    database.write(lambda connection: connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values)))


def lose_the_end(database: OwnedDatabase) -> str:
    """An ended job of three lines, of which the last two were dropped: there were such logs."""
    job_id = submit(database)
    lease = start(database)
    writer = LogWriter(lease, cap=1 << 20)
    for text in (b"one\n", b"two\n", b"three\n"):
        log(database, writer, text)
    end(database, lease)
    gone = delete(log_chunks).where(log_chunks.c.job_id == job_id, log_chunks.c.first_seq > 1)
    database.write(lambda connection: connection.execute(gone))
    change(database, job_id, dropped_first=2, dropped_last=3)
    return job_id
