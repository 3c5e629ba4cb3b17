"""Leases: who may write for a job, and what becomes of a job whose lease is lost or which is asked to end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import update

from jobs.bootstrap import make_engine
from jobs.clock import now_ms
from jobs.errors import LeaseLost
from jobs.model import JobType, Progress, Reason, Status, Submission
from jobs.store.database import OwnedDatabase
from jobs.store.jobs import NewJob, Store
from jobs.store.leases import Leases
from jobs.store.schema import workers
from support.jobs import start
from support.stores import DONE, SUPERVISOR, StoreHarness


def test_a_lease_is_taken_once(harness: StoreHarness) -> None:
    harness.submit()
    (lease,) = harness.claim()
    assert harness.leases.take(lease, supervisor=SUPERVISOR).submission.params == {"task": "x", "inputs": {}}
    with pytest.raises(LeaseLost):
        harness.leases.take(lease, supervisor=SUPERVISOR)


def test_a_supervisor_that_lost_its_lease_can_write_nothing(harness: StoreHarness) -> None:
    lost = harness.running(max_attempts=2)
    harness.write_log(lost, b"first attempt\n")
    (held,) = harness.leases.held()
    assert harness.leases.lose(held) is Status.PENDING
    (lease,) = harness.claim()
    harness.leases.take(lease, supervisor=SUPERVISOR)
    before = harness.row(lost.job_id)
    writes: dict[str, Callable[[], object]] = {
        "take": lambda: harness.leases.take(lost, supervisor=SUPERVISOR),
        "append": lambda: harness.write_log(lost, b"too late\n"),
        "progress": lambda: harness.leases.update(lost, progress_percent=99.0),
        "sign": lambda: harness.leases.update(lost),
        "end": lambda: harness.leases.end(lost, DONE),
        "read the cancel request": lambda: harness.leases.cancel_request(lost),
    }
    for name, late in writes.items():
        with pytest.raises(LeaseLost):
            late()
        assert harness.row(lost.job_id) == before, name
    assert harness.raw_log(lost.job_id) == b"first attempt\n"
    assert harness.leases.lose(held) is None, "nor can it be given up twice"
    harness.write_log(lease, b"second attempt\n", resume=True)
    harness.leases.end(lease, DONE)
    assert harness.raw_log(lost.job_id) == b"first attempt\nsecond attempt\n"
    with pytest.raises(LeaseLost):
        harness.leases.update(lease)


def test_a_lost_job_without_attempts_left_has_failed(harness: StoreHarness) -> None:
    lease = harness.running()
    (held,) = harness.leases.held()
    assert harness.leases.lose(held) is Status.FAILED
    job = harness.store.get(lease.job_id)
    assert job.reason is Reason.WORKER_LOST
    assert job.error == "The process that supervised the job was lost; what was left of the job was ended."


def test_an_unstarted_job_survives_a_stop_but_not_a_cancel(harness: StoreHarness) -> None:
    stopped, cancelled = harness.submit(), harness.submit()
    harness.claim()
    harness.leases.cancel_all(harness.leases_of_worker(), force=True)
    harness.store.request_cancel(cancelled, by="tester", force=False)
    losses = {held.job_id: harness.leases.lose(held) for held in harness.leases.held()}
    assert losses == {stopped: Status.PENDING, cancelled: Status.CANCELLED}
    job = harness.store.get(stopped)
    assert (job.cancel_requested_at, job.cancel_forced, job.attempt) == (None, False, 0)
    (again,) = harness.claim()
    assert harness.leases.take(again, supervisor=SUPERVISOR) and harness.leases.cancel_request(again) is None
    assert "before it was started" in harness.store.events(cancelled)[-1].cause


def test_a_lease_with_a_new_sign_of_life_is_not_lost(harness: StoreHarness) -> None:
    harness.submit()
    (lease,) = harness.claim()
    (held,) = harness.leases.held()
    harness.leases.take(lease, supervisor=SUPERVISOR)
    assert harness.leases.lose(held) is None
    assert harness.store.get(lease.job_id).status is Status.RUNNING
    (held,) = harness.leases.held()
    harness.leases.update(lease)
    assert harness.leases.lose(held) is None, "nor one that has just given a sign"


def test_a_stopping_server_asks_its_own_jobs_to_end(harness: StoreHarness) -> None:
    mine, asked = harness.running(), harness.running()
    harness.store.request_cancel(asked.job_id, by="me", force=False)
    harness.submit()
    (other,) = harness.claim(worker="another")
    harness.leases.cancel_all(harness.leases_of_worker())
    request = harness.leases.cancel_request(mine)
    assert request is not None and (request.reason, request.by) == (Reason.SERVER_SHUTDOWN, None)
    request = harness.leases.cancel_request(asked)
    assert request is not None and request.reason is Reason.CANCELLED_BY_CLIENT, "who asked first is the reason"
    assert harness.leases.cancel_request(other) is None


def test_a_worker_that_was_silent_for_a_day_is_forgotten(database: OwnedDatabase) -> None:
    leases = Leases(database, make_engine(database.url))
    for name in ("gone", "away", "here"):
        leases.register_worker(worker_id=name, host="h", pid=1, slots=1, queues=["default"])
    for name, hours in (("gone", 25), ("away", 23)):
        seen = now_ms() - hours * 3600 * 1000
        query = update(workers).where(workers.c.id == name).values(heartbeat_at=seen)
        database.write(lambda connection, query=query: connection.execute(query))  # type: ignore[misc]
    leases.worker_alive("here")
    assert [(worker.id, worker.alive) for worker in Store(database, make_engine(database.url)).workers()] == [
        ("away", False),
        ("here", True),
    ]


def test_a_job_that_is_pending_again_keeps_nothing_of_its_lost_attempt(database: OwnedDatabase) -> None:
    submission = Submission(JobType.TASK, {"task": "any"}, max_attempts=2)
    job_id = Store(database, make_engine(database.url)).submit(NewJob(submission, "default", None, None, "tests"), max_pending=10).job.id
    leases, lease = Leases(database, make_engine(database.url)), start(database)
    leases.update(lease, progress_percent=40.0, progress_message="linking", ready_at=1, result={"url": "http://127.0.0.1:1"})
    (held,) = leases.held()
    assert leases.lose(held) is Status.PENDING
    job = Store(database, make_engine(database.url)).get(job_id)
    assert (job.progress, job.ready_at, job.result, job.started_at) == (Progress(), None, None, None)
