"""The local engine: the table of jobs is the queue, and workers take pending jobs straight from it. One machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row

from jobs.execution.engines import Engine
from jobs.fault_points import reached
from jobs.model import WaitingFor
from jobs.store import scheduling
from jobs.store.database import Database
from jobs.store.leases import Lease, claim_job
from jobs.store.scheduling import PendingJob


class LocalEngine(Engine):
    """Keeps no records of its own, so there is nothing to enqueue or forget."""

    def enqueue(self, connection: Connection, job: PendingJob) -> None:
        pass

    def requeue(self, connection: Connection, job: PendingJob) -> None:
        pass

    def forget(self, connection: Connection, job_id: str) -> None:
        pass

    def waiting_for(self, connection: Connection, job_ids: Sequence[str]) -> Mapping[str, WaitingFor]:
        return scheduling.waiting_for(connection, job_ids)

    def claim(self, database: Database, *, worker_id: str, host: str, queues: Sequence[str], slots: int) -> list[Lease]:
        def find(connection: Connection) -> Row[Any] | None:
            if scheduling.busy_slots(connection, worker_id) >= slots:
                return None
            return scheduling.next_job(connection, queues=queues)

        def work(connection: Connection) -> list[Lease]:
            claimed: list[Lease] = []
            # One by one: each claim takes a slot, and may block the jobs that share its concurrency key.
            while (found := find(connection)) is not None:
                lease = claim_job(connection, found.id, attempt=found.attempt + 1, worker_id=worker_id, host=host, scheduler=self)
                if lease is None:  # another worker was faster; the next look no longer finds the job
                    continue
                claimed.append(lease)
            reached("claim.stored")
            return claimed

        # Usually there is nothing to claim, and then no other writer has to wait for us.
        return database.write(work) if database.read(find) is not None else []
