"""Retention: what it removes and, above all, what it keeps."""

from __future__ import annotations

import pytest

from jobs.clock import now_ms
from jobs.store.listing import JobFilter
from jobs.store.retention import Retention
from support.stores import StoreHarness


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
