"""What the store tells an engine: each verb once, and inside the transaction that changes the job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import pytest
from sqlalchemy import Connection

from jobs.bootstrap import make_engine
from jobs.execution.engines import Engine
from jobs.model import JobType, Status, Submission, WaitingFor
from jobs.store.jobs import NewJob, Store
from jobs.store.leases import Lease, Leases, claim_job
from jobs.store.scheduling import PendingJob, Scheduler
from support.stores import DONE, SUPERVISOR, StoreHarness

NEW = NewJob(Submission(JobType.TASK, {"task": "x"}, priority=3), "gpu", "key", None, "tester")


class Recorder(Scheduler):
    """Passes everything on to the engine, and keeps what it was told."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.told: list[tuple[str, object]] = []

    def enqueue(self, connection: Connection, job: PendingJob) -> None:
        assert connection.in_transaction()
        self.told.append(("enqueue", job))
        self._engine.enqueue(connection, job)

    def requeue(self, connection: Connection, job: PendingJob) -> None:
        assert connection.in_transaction()
        self.told.append(("requeue", job))
        self._engine.requeue(connection, job)

    def forget(self, connection: Connection, job_id: str) -> None:
        assert connection.in_transaction()
        self.told.append(("forget", job_id))
        self._engine.forget(connection, job_id)

    def waiting_for(self, connection: Connection, job_ids: Sequence[str]) -> Mapping[str, WaitingFor]:
        return self._engine.waiting_for(connection, job_ids)


@pytest.fixture
def recorder(harness: StoreHarness) -> Recorder:
    recorder = Recorder(make_engine(harness.database.url))
    harness.store = Store(harness.database, recorder)
    harness.leases = Leases(harness.database, recorder)
    return recorder


def test_a_submission_is_enqueued(harness: StoreHarness, recorder: Recorder) -> None:
    job = harness.store.submit(NEW, max_pending=1).job
    assert recorder.told == [("enqueue", PendingJob(job.id, "gpu", 3, "key"))]


def test_a_submission_that_fails_leaves_nothing_to_claim(harness: StoreHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(point: str) -> None:
        if point == "submit.stored":
            raise ZeroDivisionError

    monkeypatch.setattr("jobs.store.jobs.reached", fail)
    with suppress(ZeroDivisionError):
        harness.submit()
    assert harness.claim() == []


def test_a_cancelled_pending_job_is_forgotten(harness: StoreHarness, recorder: Recorder) -> None:
    job = harness.store.submit(NEW, max_pending=1).job
    harness.store.request_cancel(job.id, by="me", force=False)
    harness.store.request_cancel(job.id, by="me", force=False)
    assert recorder.told[1:] == [("forget", job.id)]
    assert harness.claim(queues=("gpu",)) == []


def test_a_deleted_pending_job_is_forgotten(harness: StoreHarness, recorder: Recorder) -> None:
    job = harness.store.submit(NEW, max_pending=1).job
    harness.store.delete(job.id, by="me")
    assert recorder.told[1:] == [("forget", job.id)]
    assert harness.claim(queues=("gpu",)) == []


def test_an_ended_job_is_forgotten(harness: StoreHarness, recorder: Recorder) -> None:
    lease = harness.running()
    del recorder.told[:]
    harness.store.request_cancel(lease.job_id, by="me", force=False)
    assert recorder.told == [], "it still runs"
    harness.leases.end(lease, DONE)
    assert recorder.told == [("forget", lease.job_id)]


def test_a_lost_job_is_requeued_while_attempts_are_left(harness: StoreHarness, recorder: Recorder) -> None:
    lease = harness.running(max_attempts=2, priority=4, key="k")
    del recorder.told[:]
    assert harness.leases.lose(harness.leases.held()[0]) is Status.PENDING
    assert recorder.told == [("requeue", PendingJob(lease.job_id, "default", 4, "k"))]
    (again,) = harness.claim()
    harness.leases.take(again, supervisor=SUPERVISOR)
    assert harness.leases.lose(harness.leases.held()[0]) is Status.FAILED
    assert recorder.told[1:] == [("forget", lease.job_id)]


def test_only_a_pending_job_can_be_claimed(harness: StoreHarness) -> None:
    running, cancelled, pending = harness.running().job_id, harness.submit(), harness.submit()
    harness.store.request_cancel(cancelled, by="me", force=False)

    def claim(job_id: str) -> bool:
        def work(connection: Connection) -> Lease | None:
            return claim_job(connection, job_id, attempt=1, worker_id="w", host="here", scheduler=harness.engine)

        return harness.database.write(work) is not None

    assert [claim(job_id) for job_id in (running, cancelled, pending, pending)] == [False, False, True, False]


def test_why_a_job_waits(harness: StoreHarness) -> None:
    harness.leases.register_worker(worker_id="w", host="here", pid=1, slots=1, queues=["default"])
    running = harness.running(key="k").job_id
    slot, key, worker = harness.submit(), harness.submit(key="k"), harness.submit(queue="gpu")
    ids = [running, slot, key, worker]
    found = harness.database.read(lambda connection: harness.engine.waiting_for(connection, ids))
    assert found == {slot: WaitingFor.SLOT, key: WaitingFor.CONCURRENCY_KEY, worker: WaitingFor.WORKER}
    assert [harness.store.get(job_id).waiting_for for job_id in ids] == [None, *found.values()]
