"""A store as clients, workers and supervisors use it, for tests without a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, update

from jobs.bootstrap import make_engine, open_database
from jobs.clock import now_ms
from jobs.execution.process_table import host_id
from jobs.model import JobType, Status, Submission
from jobs.store.database import Database
from jobs.store.jobs import NewJob, Store
from jobs.store.leases import Lease, Leases, Outcome
from jobs.store.log_writer import LogWriter
from jobs.store.logs import Logs
from jobs.store.schema import jobs, log_chunks
from support.logs import append

DONE = Outcome(Status.COMPLETED, "exited with code 0", exit_code=0)
SUPERVISOR = {"pid": 1, "start_time": 0.0, "boot_id": "x"}


def claim(database: Database, *, worker_id: str, host: str, queues: Sequence[str], slots: int) -> list[Lease]:
    """The jobs that a worker is to start now, by the engine of this database."""
    return make_engine(database.url).claim(database, worker_id=worker_id, host=host, queues=queues, slots=slots)


class StoreHarness:
    """One database, what works on it, and short ways to put jobs into it."""

    def __init__(self, url: str) -> None:
        self.database = open_database(url)
        self.engine = make_engine(url)
        self.store = Store(self.database, self.engine)
        self.leases = Leases(self.database, self.engine)
        self.logs = Logs(self.database)

    def submit(self, *, key: str | None = None, queue: str = "default", max_pending: int = 1000, **options: Any) -> str:
        submission = Submission(JobType.TASK, {"task": "x", "inputs": {}}, **options)
        new = NewJob(submission, queue=queue, concurrency_key=key, project=None, submitted_by="tester")
        return self.store.submit(new, max_pending=max_pending).job.id

    def claim(self, *, slots: int = 100, worker: str = "w", queues: tuple[str, ...] = ("default",), host: str | None = None) -> list[Lease]:
        """By a worker of this machine, unless `host` is another one."""
        return self.engine.claim(self.database, worker_id=worker, host=host or host_id(), queues=queues, slots=slots)

    def running(self, **options: Any) -> Lease:
        """A job that a supervisor has taken."""
        job_id = self.submit(**options)
        (lease,) = [lease for lease in self.claim() if lease.job_id == job_id]
        self.leases.take(lease, supervisor=SUPERVISOR)
        return lease

    def ended(self, **options: Any) -> str:
        lease = self.running(**options)
        self.leases.end(lease, DONE)
        return lease.job_id

    def set(self, job_id: str, **values: Any) -> None:
        self.database.write(lambda connection: connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values)))

    def row(self, job_id: str) -> dict[str, Any]:
        query = select(jobs).where(jobs.c.id == job_id)
        return self.database.read(lambda connection: dict(connection.execute(query).one()._mapping))

    def leases_of_worker(self, worker: str = "w") -> list[str]:
        return [held.lease for held in self.leases.held() if held.worker_id == worker]

    def write_log(self, lease: Lease, *parts: bytes, resume: bool = False) -> None:
        writer = LogWriter(lease, cap=1 << 20)
        if resume:
            self.database.read(writer.resume)
        append(self.database, writer, *parts, at=now_ms())

    def chunks_of(self, job_id: str) -> list[Any]:
        query = select(log_chunks).where(log_chunks.c.job_id == job_id).order_by(log_chunks.c.first_seq)
        return self.database.read(lambda connection: list(connection.execute(query)))

    def raw_log(self, job_id: str) -> bytes:
        return b"".join(chunk.data for chunk in self.logs.chunks(job_id))
