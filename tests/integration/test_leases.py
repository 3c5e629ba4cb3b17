"""Leases: who may write for a job, and what becomes of a job whose lease is lost or which is asked to end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobs.errors import LeaseLost
from jobs.model import Reason, Status
from support.stores import DONE, SUPERVISOR, StoreHarness


def test_a_lease_is_taken_once(kit: StoreHarness) -> None:
    kit.submit()
    (lease,) = kit.claim()
    assert kit.leases.take(lease, supervisor=SUPERVISOR).submission.params == {"task": "x", "inputs": {}}
    with pytest.raises(LeaseLost):
        kit.leases.take(lease, supervisor=SUPERVISOR)


def test_who_lost_the_lease_can_write_nothing_more(kit: StoreHarness) -> None:
    lost = kit.running(max_attempts=2)
    kit.write_log(lost, b"first attempt\n")
    (held,) = kit.leases.held()
    assert kit.leases.lose(held) is Status.PENDING
    (lease,) = kit.claim()
    kit.leases.take(lease, supervisor=SUPERVISOR)
    before = kit.row(lost.job_id)
    writes: dict[str, Callable[[], object]] = {
        "take": lambda: kit.leases.take(lost, supervisor=SUPERVISOR),
        "append": lambda: kit.write_log(lost, b"too late\n"),
        "progress": lambda: kit.leases.update(lost, progress_percent=99.0),
        "sign": lambda: kit.leases.update(lost),
        "end": lambda: kit.leases.end(lost, DONE),
        "read the cancel request": lambda: kit.leases.cancel_request(lost),
    }
    for name, late in writes.items():
        with pytest.raises(LeaseLost):
            late()
        assert kit.row(lost.job_id) == before, name
    assert kit.raw_log(lost.job_id) == b"first attempt\n"
    assert kit.leases.lose(held) is None, "nor can it be given up twice"
    kit.write_log(lease, b"second attempt\n", resume=True)
    kit.leases.end(lease, DONE)
    assert kit.raw_log(lost.job_id) == b"first attempt\nsecond attempt\n"
    with pytest.raises(LeaseLost):
        kit.leases.update(lease)


def test_a_lost_job_without_attempts_left_has_failed(kit: StoreHarness) -> None:
    lease = kit.running()
    (held,) = kit.leases.held()
    assert kit.leases.lose(held) is Status.FAILED
    job = kit.store.get(lease.job_id)
    assert (job.reason, job.error and job.error["type"]) == (Reason.WORKER_LOST, "urn:runcast:problem:job-failed")


def test_a_job_that_was_never_started_outlasts_a_stop_but_no_cancel(kit: StoreHarness) -> None:
    stopped, cancelled = kit.submit(), kit.submit()
    kit.claim()
    kit.leases.cancel_all(kit.leases_of_worker(), force=True)
    kit.store.request_cancel(cancelled, by="tester", force=False)
    losses = {held.job_id: kit.leases.lose(held) for held in kit.leases.held()}
    assert losses == {stopped: Status.PENDING, cancelled: Status.CANCELLED}
    job = kit.store.get(stopped)
    assert (job.cancel_requested_at, job.cancel_forced, job.attempt) == (None, False, 0)
    (again,) = kit.claim()
    assert kit.leases.take(again, supervisor=SUPERVISOR) and kit.leases.cancel_request(again) is None
    assert "before it was started" in kit.store.events(cancelled)[-1].cause


def test_a_lease_that_is_taken_while_it_is_given_up_stays(kit: StoreHarness) -> None:
    kit.submit()
    (lease,) = kit.claim()
    (held,) = kit.leases.held()
    kit.leases.take(lease, supervisor=SUPERVISOR)
    assert kit.leases.lose(held) is None
    assert kit.store.get(lease.job_id).status is Status.RUNNING
    (held,) = kit.leases.held()
    kit.leases.update(lease)
    assert kit.leases.lose(held) is None, "nor one that has just given a sign"


def test_a_stopping_server_asks_its_own_jobs_to_end(kit: StoreHarness) -> None:
    mine, asked = kit.running(), kit.running()
    kit.store.request_cancel(asked.job_id, by="me", force=False)
    kit.submit()
    (other,) = kit.claim(worker="another")
    kit.leases.cancel_all(kit.leases_of_worker())
    request = kit.leases.cancel_request(mine)
    assert request is not None and (request.reason, request.by) == (Reason.SERVER_SHUTDOWN, None)
    request = kit.leases.cancel_request(asked)
    assert request is not None and request.reason is Reason.CANCELLED_BY_CLIENT, "who asked first is the reason"
    assert kit.leases.cancel_request(other) is None
