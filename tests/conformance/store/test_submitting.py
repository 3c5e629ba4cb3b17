"""Submitting, listing, cancelling and deleting jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select

from jobs.clock import now_ms
from jobs.errors import IdempotencyConflict, JobActive, JobEnded, JobNotFound, QueueFull
from jobs.model import JobType, Reason, Status, Submission
from jobs.store.jobs import IdempotencyKey, NewJob
from jobs.store.leases import Outcome
from jobs.store.listing import JobFilter
from jobs.store.retention import Retention
from jobs.store.schema import idempotency_keys, job_events, job_labels, jobs, log_chunks
from support.stores import DONE, SUPERVISOR, StoreHarness


def test_same_idempotency_key_and_body_give_the_same_job(harness: StoreHarness) -> None:
    new = NewJob(Submission(JobType.TASK, {"task": "x"}), "default", None, None, "tester")
    key = IdempotencyKey("tester", "k", "hash")
    first = harness.store.submit(new, max_pending=1, idempotency=key)
    again = harness.store.submit(new, max_pending=1, idempotency=key)
    assert (first.replayed, again.replayed) == (False, True), "not refused although the queue is full"
    assert again.job.id == first.job.id
    with pytest.raises(IdempotencyConflict):
        harness.store.submit(new, max_pending=9, idempotency=IdempotencyKey("tester", "k", "another"))
    other = harness.store.submit(new, max_pending=9, idempotency=IdempotencyKey("somebody else", "k", "another"))
    assert other.job.id != first.job.id
    assert len(harness.store.list_jobs(JobFilter(), limit=10)) == 2
    harness.store.delete(first.job.id, by="tester")
    assert not harness.store.submit(new, max_pending=9, idempotency=key).replayed, "a deleted job frees its key"


def test_the_queue_has_a_limit(harness: StoreHarness) -> None:
    for _ in range(3):
        harness.submit(max_pending=3)
    with pytest.raises(QueueFull):
        harness.submit(max_pending=3)
    assert len(harness.store.list_jobs(JobFilter(), limit=10)) == 3
    harness.claim(slots=1)
    harness.submit(max_pending=3)


def test_a_submission_comes_back_as_it_was(harness: StoreHarness) -> None:
    job_id = harness.submit(priority=3, labels=("a", "b"), timeout_seconds=9, max_attempts=4, key="k", queue="gpu")
    job = harness.store.get(job_id)
    assert (job.priority, job.labels, job.timeout_seconds, job.max_attempts) == (3, ("a", "b"), 9, 4)
    assert (job.concurrency_key, job.queue) == ("k", "gpu")
    assert Submission.from_json(job.submission).labels == ("a", "b")
    assert (job.status, job.attempt, job.started_at, job.ended) == (Status.PENDING, 0, None, False)


def test_lists_are_filtered_and_paged(harness: StoreHarness) -> None:
    ids = [harness.submit(labels=("even",) if number % 2 == 0 else ()) for number in range(6)]
    harness.store.request_cancel(ids[0], by="me", force=False)
    harness.store.delete(ids[5], by="me")

    def listed(wanted: JobFilter, **options: Any) -> list[str]:
        return [job.id for job in harness.store.list_jobs(wanted, **{"limit": 10, **options})]

    assert listed(JobFilter()) == ids[4::-1]
    assert listed(JobFilter(), limit=2) == [ids[4], ids[3]]
    assert listed(JobFilter(), cursor=ids[3]) == [ids[2], ids[1], ids[0]]
    assert listed(JobFilter(labels=["even"])) == [ids[4], ids[2], ids[0]]
    assert listed(JobFilter(status=["cancelled"])) == [ids[0]]
    assert listed(JobFilter(status=["cancelled", "pending"], labels=["even"])) == [ids[4], ids[2], ids[0]]
    created = harness.store.get(ids[2]).created_at
    assert ids[2] in listed(JobFilter(since=created)) and ids[2] not in listed(JobFilter(until=created))
    assert listed(JobFilter(type=["build"])) == []


def test_cancel_ends_pending_jobs_and_asks_running_ones(harness: StoreHarness) -> None:
    lease = harness.running()
    pending = harness.submit()
    assert harness.store.request_cancel(pending, by="me", force=False).status is Status.CANCELLED
    assert harness.leases.cancel_request(lease) is None
    asked = harness.store.request_cancel(lease.job_id, by="me", force=False)
    assert (asked.status, asked.cancel_forced) == (Status.RUNNING, False)
    again = harness.store.request_cancel(lease.job_id, by="you", force=True)
    assert again.cancel_requested_at == asked.cancel_requested_at
    request = harness.leases.cancel_request(lease)
    assert request is not None
    assert (request.reason, request.by, request.forced) == (Reason.CANCELLED_BY_CLIENT, "me", True)
    harness.leases.end(lease, Outcome(Status.CANCELLED, "cancelled by me", Reason.CANCELLED_BY_CLIENT))
    assert harness.store.request_cancel(lease.job_id, by="me", force=False).status is Status.CANCELLED, "again: the same"
    with pytest.raises(JobEnded):
        harness.store.request_cancel(harness.ended(), by="me", force=False)


def test_a_deleted_job_is_hidden_and_removed_after_its_end(harness: StoreHarness) -> None:
    lease = harness.running()
    harness.write_log(lease, b"line\n")
    harness.store.delete(lease.job_id, by="me")
    for call in (harness.store.get, harness.store.events, harness.store.get_ended):
        with pytest.raises(JobNotFound):
            call(lease.job_id)
    with pytest.raises(JobNotFound):
        harness.store.delete(lease.job_id, by="me")
    assert harness.store.list_jobs(JobFilter(), limit=10) == []
    assert harness.leases.cancel_request(lease) is not None
    retention = Retention(harness.database, max_age_ms=1 << 60, max_jobs=0, max_bytes=0)
    assert retention.run() == 0, "nothing active is ever removed"
    harness.leases.end(lease, Outcome(Status.CANCELLED, "x"))
    found = harness.store.find(lease.job_id)
    assert found is not None and found.ended, "those who watched it still see its end"
    harness.set(lease.job_id, deleted_at=now_ms() - 6000, ended_at=now_ms() - 6000)
    assert Retention(harness.database, max_age_ms=1 << 60, max_jobs=9, max_bytes=1 << 60).run() == 1
    assert harness.store.find(lease.job_id) is None
    assert harness.chunks_of(lease.job_id) == []


def test_an_ended_job_is_deleted_with_all_its_rows(harness: StoreHarness) -> None:
    lease = harness.running(labels=("a",))
    harness.write_log(lease, b"line\n")
    with pytest.raises(JobActive):
        harness.store.get_ended(lease.job_id)
    harness.leases.end(lease, DONE)
    assert harness.store.get_ended(lease.job_id).id == lease.job_id
    harness.store.delete(lease.job_id, by="me")
    assert harness.store.list_jobs(JobFilter(), limit=10) == []
    assert set(harness.store.counts().by_status.values()) == {0}
    found = harness.store.find(lease.job_id)
    assert found is not None and found.status is Status.COMPLETED, "those who watched it still see its end"
    harness.set(lease.job_id, deleted_at=now_ms() - 6000, ended_at=now_ms() - 6000)
    everything = 1 << 40
    assert Retention(harness.database, max_age_ms=everything, max_jobs=everything, max_bytes=everything).run() == 1
    for table in (jobs, job_events, job_labels, log_chunks, idempotency_keys):
        count = select(func.count()).select_from(table)
        assert harness.database.read(lambda connection, count=count: connection.execute(count).scalar_one()) == 0, table.name  # type: ignore[misc]


def test_a_clock_set_back_does_not_change_the_order(harness: StoreHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (offset := tmp_path / "offset").write_text("0")
    monkeypatch.setattr("jobs.clock._OFFSET_FILE", str(offset))
    submitted = [harness.submit() for _ in range(50)]
    offset.write_text("-3600000")
    submitted += [harness.submit() for _ in range(50)]
    assert submitted == sorted(submitted)
    assert {UUID(job_id).version for job_id in submitted} == {7}
    ended = [harness.store.request_cancel(submitted[-1], by="tester", force=False).id]
    for lease in harness.claim():
        harness.leases.take(lease, supervisor=SUPERVISOR)
        harness.leases.end(lease, DONE)
        ended.append(lease.job_id)
    assert [job.id for job in harness.store.list_jobs(JobFilter(), limit=100)] == submitted[::-1]
    for job in map(harness.store.get, ended):
        times = [at for at in (job.created_at, job.started_at, job.ended_at) if at is not None]
        assert times == sorted(times)
