"""Retention: what it removes and, above all, what it keeps."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection

from jobs.bootstrap import open_database
from jobs.clock import now_ms
from jobs.errors import Unavailable
from jobs.store.database import OwnedDatabase
from jobs.store.listing import JobFilter
from jobs.store.retention import Retention
from support.jobs import change, end, start, submit
from support.stores import StoreHarness, claim


def ids(harness: StoreHarness) -> set[str]:
    return {job.id for job in harness.store.list_jobs(JobFilter(), limit=200)}


def keep_all(harness: StoreHarness, **limits: int) -> Retention:
    """But for the limits. Negative, because what ends here has ended in this very millisecond."""
    return Retention(harness.database, **{"max_age_ms": 1 << 40, "max_jobs": 1 << 40, "max_bytes": 1 << 40, "seen_ms": -1000, **limits})


@pytest.fixture
def active(harness: StoreHarness) -> set[str]:
    """A pending and a running job, both older than all others and with a large log."""
    running, pending = harness.running(), harness.submit()
    for job_id in (running.job_id, pending):
        harness.set(job_id, created_at=1, started_at=1, log_bytes=1 << 50)
    return {running.job_id, pending}


def test_retention_by_age(harness: StoreHarness, active: set[str]) -> None:
    old, young = harness.ended(key="x"), harness.ended(key="y")
    harness.set(old, created_at=now_ms() - 200_000, ended_at=now_ms() - 100_000)
    assert keep_all(harness, max_age_ms=50_000).run() == 1
    assert ids(harness) == {young, *active}


def test_retention_by_count(harness: StoreHarness, active: set[str]) -> None:
    ended = [harness.ended() for _ in range(4)]
    assert keep_all(harness, max_jobs=2).run() == 2
    assert ids(harness) == {*ended[2:], *active}


def test_retention_by_bytes_removes_the_oldest(harness: StoreHarness, active: set[str]) -> None:
    ended = [harness.ended() for _ in range(4)]
    for job_id in ended:
        harness.set(job_id, log_bytes=100)
    assert keep_all(harness, max_bytes=250).run() == 2
    assert ids(harness) == {*ended[2:], *active}
    assert keep_all(harness, max_bytes=250).run() == 0


def test_retention_without_room_keeps_active_jobs(harness: StoreHarness, active: set[str]) -> None:
    for _ in range(3):
        harness.ended()
    assert keep_all(harness, max_age_ms=-10_000, max_jobs=0, max_bytes=0).run() == 3
    assert ids(harness) == active


def test_rows_stay_long_enough_for_subscribers_to_see_the_end(harness: StoreHarness, active: set[str]) -> None:
    seen, deleted, fresh = (harness.ended() for _ in range(3))
    harness.store.delete(deleted, by="me")
    for job_id, ended_at, deleted_at in ((seen, now_ms() - 6000, None), (deleted, now_ms() - 6000, now_ms() - 6000)):
        harness.set(job_id, ended_at=ended_at, deleted_at=deleted_at)
    nothing = Retention(harness.database, max_age_ms=0, max_jobs=0, max_bytes=0)
    assert nothing.run() == 2
    assert ids(harness) == {fresh, *active}
    harness.set(fresh, ended_at=now_ms() - 6000)
    assert nothing.run() == 1


def test_dropped_lines_do_not_count_as_stored_bytes(database: OwnedDatabase) -> None:
    for _ in range(3):
        submit(database)
        change(database, end(database, start(database)), log_bytes=1 << 40)
    limits = {"max_age_ms": 1 << 40, "max_jobs": 1 << 40, "log_cap": 1000, "seen_ms": -1000}
    assert Retention(database, max_bytes=3000, **limits).run() == 0
    assert Retention(database, max_bytes=2999, **limits).run() == 1


def test_a_batch_of_removals_is_bounded_in_bytes(database: OwnedDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Retention, "BATCH_BYTES", 250)
    for _ in range(4):
        submit(database)
        change(database, end(database, start(database)), log_bytes=100)
    retention = Retention(database, max_age_ms=1 << 40, max_jobs=0, max_bytes=1 << 40, seen_ms=-1000)
    assert [retention.run() for _ in range(3)] == [3, 1, 0]


def test_claims_without_a_free_slot_and_retention_need_no_write_lock(database: OwnedDatabase) -> None:
    submit(database)
    start(database)
    submit(database)
    impatient = open_database(database.url, busy_seconds=0.01)
    retention = Retention(impatient, max_age_ms=1 << 40, max_jobs=1 << 40, max_bytes=1 << 40)

    def work(_: Connection) -> None:
        assert claim(impatient, worker_id="worker", host="here", queues=["default"], slots=1) == []
        assert retention.run() == 0
        with pytest.raises(Unavailable):
            claim(impatient, worker_id="worker", host="here", queues=["default"], slots=2)

    database.write(work)
    impatient.close()
