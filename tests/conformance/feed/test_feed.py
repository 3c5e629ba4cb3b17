"""The feed of a database: it reports each commit of another connection, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from sqlalchemy import Connection

from jobs.store.feed import Feed
from support.stores import StoreHarness
from support.waiting import eventually


@pytest.fixture
def feed(harness: StoreHarness) -> Iterator[Feed]:
    feed = harness.database.feed()
    assert feed.changed(), "the first call says yes"
    yield feed
    feed.close()


def test_a_quiet_store_is_unchanged(harness: StoreHarness, feed: Feed) -> None:
    assert not feed.changed()
    harness.store.counts()
    harness.database.read(lambda connection: None)
    assert not feed.changed()


def test_a_commit_is_reported_once(harness: StoreHarness, feed: Feed) -> None:
    for _ in range(3):
        harness.submit()
        eventually(feed.changed, "the submission is reported")
        assert not feed.changed()


def test_several_commits_may_be_one_report(harness: StoreHarness, feed: Feed) -> None:
    for _ in range(5):
        harness.submit()
    eventually(feed.changed, "the submissions are reported")


def test_writes_that_are_not_durable_are_reported(harness: StoreHarness, feed: Feed) -> None:
    lease = harness.running()
    eventually(feed.changed, "the start is reported")
    harness.leases.update(lease, progress_percent=5.0)
    eventually(feed.changed, "the progress is reported")


def test_a_failed_transaction_is_not_reported(harness: StoreHarness, feed: Feed) -> None:
    job_id = harness.submit()
    eventually(feed.changed, "the submission is reported")

    def work(connection: Connection) -> None:
        connection.exec_driver_sql("UPDATE jobs SET attempt = 7")
        raise ZeroDivisionError

    with suppress(ZeroDivisionError):
        harness.database.write(work)
    assert not feed.changed()
    assert harness.store.get(job_id).attempt == 0


def test_feeds_are_independent(harness: StoreHarness, feed: Feed) -> None:
    second = harness.database.feed()
    assert second.changed()
    harness.submit()
    eventually(feed.changed, "the first feed reports")
    eventually(second.changed, "the second feed reports, too")
    second.close()


def test_a_reopened_feed_goes_on(harness: StoreHarness, feed: Feed) -> None:
    feed.reopen()
    harness.submit()
    eventually(feed.changed, "the submission is reported")
    harness.submit()
    eventually(feed.changed, "the next one is reported, too")


def test_another_process_is_reported(harness: StoreHarness, feed: Feed) -> None:
    other = StoreHarness(harness.database.url)
    other.submit()
    eventually(feed.changed, "its submission is reported")
    other.database.close()
