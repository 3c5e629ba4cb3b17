"""The dispatcher of a worker: its periodic tasks, and how it ends when the store or the worker is gone."""

from __future__ import annotations

import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobs.bootstrap import make_engine, open_database
from jobs.execution.dispatcher import Dispatcher, PeriodicTask, receive
from jobs.execution.signals import OURS
from jobs.model import JobType, Submission
from jobs.settings import Settings
from jobs.store.jobs import NewJob, Store
from jobs.store.leases import Leases
from support.stores import claim

LEASE = b'{"job_id": "019ab0c4-5e00-7a61-8c2d-0f6a7d3b9e11", "word": "0123456789abcdef", "attempt": 1}'


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """The handlers of signals are as before afterwards."""
    before = {signum: signal.getsignal(signum) for signum in OURS}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


# -- parts ----------------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_a_periodic_task_runs_when_due_and_at_once_when_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.execution.dispatcher.time", clock := Clock())
    done: list[float] = []
    task = PeriodicTask(5.0, lambda: done.append(clock.now))
    for _ in range(12):
        task.do_when_due()
        clock.now += 1
    assert done == [1000, 1005, 1010], "at the start, and then every so many seconds"
    task.due = 0.0
    for _ in range(7):
        task.do_when_due()
        clock.now += 1
    assert done[3:] == [1012, 1017]


def test_a_periodic_task_that_failed_waits_for_its_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.execution.dispatcher.time", clock := Clock())
    tries: list[float] = []

    def fail() -> None:
        tries.append(clock.now)
        raise ZeroDivisionError

    task = PeriodicTask(5.0, fail)
    with pytest.raises(ZeroDivisionError):
        task.do_when_due()
    task.do_when_due()
    assert tries == [1000]


def test_a_closed_channel_reads_as_empty() -> None:
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        theirs.sendall(b"..")
        assert receive(ours) == b".."
        ours.sendall(b"unread")
        theirs.close()
        assert receive(ours) == b"", "a connection that was reset is at its end, too"


# -- its end --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unread", [b"", LEASE + b"\n"], ids=["read", "unread"])
def test_a_dispatcher_without_its_worker_exits_and_leaves_jobs_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, unread: bytes
) -> None:
    """Whether or not the worker had still read what it was told, which the system says in another way."""
    settings = Settings(data_dir=tmp_path)
    database = open_database(settings.url)
    database.migrate()
    Store(database, make_engine(database.url)).submit(
        NewJob(Submission(JobType.TASK, {"task": "x"}), "default", None, None, "tester"), max_pending=1
    )
    (lease,) = claim(database, worker_id=settings.worker_id, host="here", queues=["default"], slots=1)
    ours, theirs = socket.socketpair()
    with closing(theirs), closing(database):
        theirs.sendall(unread)
        ours.close()
        Dispatcher(settings, database=database, engine=make_engine(settings.url), hand_over=lambda lease: None, channel=theirs).run()
        assert Leases(database, make_engine(database.url)).cancel_request(lease) is None
    assert not [record for record in caplog.records if "Stopping" in record.message]


@pytest.fixture
def gone(tmp_path: Path) -> Settings:
    """Settings of a worker whose database is no more."""
    settings = Settings(data_dir=tmp_path)
    (tmp_path / "runcast.db").write_bytes(b"x" * 5000)
    return settings


def test_a_dispatcher_that_is_told_to_stop_does_not_wait_for_ever(
    gone: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("jobs.execution.dispatcher.STORE_TIMEOUT_SECONDS", 0.2)
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        engine = make_engine(gone.url)
        dispatcher = Dispatcher(gone, database=open_database(gone.url), engine=engine, hand_over=lambda lease: None, channel=theirs)
        dispatcher._stopping = True
        assert dispatcher.run() is False
    assert "What runs was not ended" in caplog.text and "not a database" in caplog.text


def test_a_stop_ends_when_the_store_accepts_nothing_any_more(gone: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading goes on, so that the jobs are seen to run, but none of them can say that it has ended."""
    monkeypatch.setattr("jobs.execution.dispatcher.STORE_TIMEOUT_SECONDS", 0.5)
    (gone.data_dir / "runcast.db").unlink()
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs), closing(open_database(gone.url)) as database:
        database.migrate()
        Store(database, make_engine(database.url)).submit(
            NewJob(Submission(JobType.TASK, {"task": "x"}), "default", None, None, "tester"), max_pending=1
        )
        claim(database, worker_id=gone.worker_id, host="here", queues=["default"], slots=1)
        engine = make_engine(gone.url)
        impatient = open_database(gone.url, busy_seconds=0.2)  # or each refused write would take ten seconds
        dispatcher = Dispatcher(gone, database=impatient, engine=engine, hand_over=lambda lease: None, channel=theirs)
        dispatcher._stopping = True
        full = sqlite3.connect(gone.data_dir / "runcast.db", isolation_level=None)
        cancelled = dispatcher._cancel

        def cancel_and_fill(*, force: bool) -> None:
            cancelled(force=force)
            full.execute("BEGIN IMMEDIATE")

        monkeypatch.setattr(dispatcher, "_cancel", cancel_and_fill)
        monkeypatch.setattr("jobs.execution.dispatcher.HEARTBEAT_INTERVAL_SECONDS", 0.1)
        database.close()
        with closing(full), closing(impatient):
            assert dispatcher.run() is False
