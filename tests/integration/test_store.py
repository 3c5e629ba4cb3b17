"""The store on a real SQLite file: transitions, submissions, claims, retention, the schema, and two processes that write at once."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, suppress
from itertools import product
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, select

from jobs.bootstrap import open_database
from jobs.clock import now_ms
from jobs.errors import IdempotencyConflict, JobActive, JobEnded, JobNotFound, OperatorError, QueueFull, Unavailable
from jobs.model import ENDED, TRANSITIONS, JobType, Reason, Status, Submission, WaitingFor
from jobs.store.jobs import IdempotencyKey, NewJob
from jobs.store.leases import Outcome
from jobs.store.listing import JobFilter
from jobs.store.retention import Retention
from jobs.store.schema import jobs, metadata
from jobs.store.transitions import transition
from support.stores import DONE, SUPERVISOR, StoreHarness

# -- transitions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "target"), list(product(Status, Status)))
def test_every_transition(harness: StoreHarness, source: Status, target: Status) -> None:
    job_id = harness.submit()
    harness.set(job_id, status=source, attempt=1)
    before = harness.row(job_id), harness.store.events(job_id)

    def move(connection: Connection) -> bool:
        return transition(connection, job_id, target, scheduler=harness.engine, cause="a test", reason=Reason.TIMEOUT, exit_code=7)

    moved = harness.database.write(move)
    assert moved == (target in TRANSITIONS[source])
    if not moved:
        assert (harness.row(job_id), harness.store.events(job_id)) == before, "an illegal one changes nothing"
        return
    job = harness.store.get(job_id)
    assert (job.status, job.reason, job.exit_code) == (target, Reason.TIMEOUT, 7)
    event = harness.store.events(job_id)[-1]
    assert (event.previous, event.status, event.reason, event.attempt, event.cause) == (source, target, Reason.TIMEOUT, 1, "a test")


def test_a_transition_that_fails_halfway_leaves_no_trace(harness: StoreHarness) -> None:
    job_id = harness.submit()

    def work(connection: Connection) -> None:
        assert transition(connection, job_id, Status.CANCELLED, scheduler=harness.engine, cause="a test")
        raise ZeroDivisionError

    with suppress(ZeroDivisionError):
        harness.database.write(work)
    assert harness.store.get(job_id).status is Status.PENDING
    assert len(harness.store.events(job_id)) == 1


def test_a_life_in_the_history(harness: StoreHarness) -> None:
    job_id = harness.ended()
    events = harness.store.events(job_id)
    assert [(event.previous, event.status) for event in events] == [
        (None, Status.PENDING),
        (Status.PENDING, Status.RUNNING),
        (Status.RUNNING, Status.COMPLETED),
    ]
    assert [event.cause for event in events] == ["submitted by tester", "claimed by worker w", "exited with code 0"]
    assert harness.store.events_after(events[0].cursor) == events[1:]
    assert harness.store.last_event() == events[-1].cursor


# -- submitting -----------------------------------------------------------------------------------------------------------


def test_the_same_key_and_body_give_the_same_job(harness: StoreHarness) -> None:
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


def test_listing(harness: StoreHarness) -> None:
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


# -- cancelling and deleting ----------------------------------------------------------------------------------------------


def test_a_pending_job_is_cancelled_at_once_and_a_running_one_is_asked(harness: StoreHarness) -> None:
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


def test_a_deleted_job_is_gone_for_clients_and_its_rows_go_when_it_has_ended(harness: StoreHarness) -> None:
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
    assert keep_all(harness).run() == 1
    with closing(sqlite3.connect(harness.database.url.removeprefix("sqlite:///"))) as connection:
        for table in ("jobs", "job_events", "job_labels", "log_chunks", "idempotency_keys"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


# -- claiming -------------------------------------------------------------------------------------------------------------


def test_higher_priority_first_then_oldest(harness: StoreHarness) -> None:
    ids = [harness.submit(priority=priority) for priority in (0, 5, -5, 0, 5)]
    assert [lease.job_id for lease in harness.claim()] == [ids[1], ids[4], ids[0], ids[3], ids[2]]


def test_no_more_than_there_are_slots(harness: StoreHarness) -> None:
    for _ in range(5):
        harness.submit()
    assert len(harness.claim(slots=2)) == 2
    assert harness.claim(slots=2) == []
    assert len(harness.claim(slots=3)) == 1
    assert len(harness.claim(slots=1, worker="another")) == 1, "each worker has slots of its own"
    assert harness.leases.running(harness.leases_of_worker()) == 3


def test_one_of_each_key_at_a_time_in_the_order_of_submission(harness: StoreHarness) -> None:
    first, second = harness.submit(key="k"), harness.submit(key="k", priority=10)
    free = harness.submit()
    leases = harness.claim()
    assert {lease.job_id for lease in leases} == {first, free}
    assert harness.store.get(second).waiting_for is WaitingFor.CONCURRENCY_KEY
    assert harness.claim() == []
    (held,) = [lease for lease in leases if lease.job_id == first]
    harness.leases.end(held, DONE)
    assert [lease.job_id for lease in harness.claim()] == [second]


def test_a_worker_serves_its_queues_only(harness: StoreHarness) -> None:
    gpu, default = harness.submit(queue="gpu"), harness.submit()
    assert harness.store.get(gpu).waiting_for is WaitingFor.WORKER
    harness.leases.register_worker(worker_id="w", host="h", pid=1, slots=1, queues=["default"])
    assert harness.store.get(default).waiting_for is WaitingFor.SLOT
    assert harness.store.get(gpu).waiting_for is WaitingFor.WORKER
    assert [lease.job_id for lease in harness.claim()] == [default]
    assert [lease.job_id for lease in harness.claim(queues=("other", "gpu"), worker="v")] == [gpu]


def test_a_worker_that_gives_no_sign_serves_nobody(harness: StoreHarness) -> None:
    job_id = harness.submit()
    harness.leases.register_worker(worker_id="w", host="h", pid=1, slots=1, queues=["default"])
    assert [worker.alive for worker in harness.store.workers()] == [True]
    with closing(sqlite3.connect(harness.database.url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE workers SET heartbeat_at = heartbeat_at - 60000")
    assert [worker.alive for worker in harness.store.workers()] == [False]
    assert harness.store.get(job_id).waiting_for is WaitingFor.WORKER
    harness.leases.worker_alive("w")
    assert harness.store.get(job_id).waiting_for is WaitingFor.SLOT
    harness.leases.worker_gone("w")
    assert harness.store.workers() == []


def test_a_clock_that_is_set_back_changes_no_order(harness: StoreHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


# -- retention ------------------------------------------------------------------------------------------------------------


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


def test_retention_with_no_room_at_all_keeps_what_is_active(harness: StoreHarness, active: set[str]) -> None:
    for _ in range(3):
        harness.ended()
    assert keep_all(harness, max_age_ms=-10_000, max_jobs=0, max_bytes=0).run() == 3
    assert ids(harness) == active


def test_whatever_the_limits_those_who_watch_have_the_time_to_see_the_end(harness: StoreHarness, active: set[str]) -> None:
    seen, deleted, fresh = (harness.ended() for _ in range(3))
    harness.store.delete(deleted, by="me")
    for job_id, ended_at, deleted_at in ((seen, now_ms() - 6000, None), (deleted, now_ms() - 6000, now_ms() - 6000)):
        harness.set(job_id, ended_at=ended_at, deleted_at=deleted_at)
    nothing = Retention(harness.database, max_age_ms=0, max_jobs=0, max_bytes=0)
    assert nothing.run() == 2
    assert ids(harness) == {fresh, *active}
    harness.set(fresh, ended_at=now_ms() - 6000)
    assert nothing.run() == 1


# -- the schema, and the file ---------------------------------------------------------------------------------------------


def test_the_migrations_make_the_tables_of_the_schema(harness: StoreHarness) -> None:
    def differences(connection: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_server_default": True}), metadata))

    assert harness.database.read(differences) == []

    def indexes(connection: Connection) -> set[str | None]:
        return {index["name"] for table in metadata.tables for index in inspect(connection).get_indexes(table)}

    assert harness.database.read(indexes) == {index.name for table in metadata.tables.values() for index in table.indexes}


def test_migrating_again_changes_nothing(harness: StoreHarness) -> None:
    job_id = harness.submit()
    harness.database.migrate()
    assert harness.store.get(job_id).status is Status.PENDING


def test_a_database_of_a_newer_version_is_refused(harness: StoreHarness) -> None:
    with closing(sqlite3.connect(harness.database.url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(OperatorError, match="newer version"):
        harness.database.migrate()


def test_durable_writes_are_synced_and_others_are_not(harness: StoreHarness) -> None:
    def level(connection: Connection) -> int:
        return int(connection.exec_driver_sql("PRAGMA synchronous").scalar_one())

    assert harness.database.write(level) == 2
    assert harness.database.write(level, durable=False) == 1
    assert harness.database.read(lambda connection: connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()) == "wal"


def test_a_read_sees_one_moment(harness: StoreHarness) -> None:
    """A job that ends while its answer is put together is seen as it was or as it is, never as a mixture."""
    job_id = harness.submit()
    other = StoreHarness(harness.database.url)

    def work(connection: Connection) -> tuple[str, str]:
        query = select(jobs.c.status).where(jobs.c.id == job_id)
        before = connection.execute(query).scalar_one()
        other.store.request_cancel(job_id, by="me", force=False)
        return before, connection.execute(query).scalar_one()

    assert harness.database.read(work) == ("pending", "pending")
    assert harness.store.get(job_id).status is Status.CANCELLED
    other.database.close()


def test_a_store_that_does_not_answer_is_unavailable(tmp_path: Path, database_url: str) -> None:
    impatient = open_database(database_url, busy_seconds=0.01)
    impatient.migrate()
    with closing(sqlite3.connect(tmp_path / "runcast.db", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable):
            impatient.write(lambda connection: None)
        connection.execute("ROLLBACK")
    impatient.close()


COUNT_UP = """
import sys
from sqlalchemy import select, update
from jobs.bootstrap import open_database
from jobs.store.schema import jobs
database = open_database(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
def work(connection):
    # Reads first and writes later: what would be lost, or fail, without BEGIN IMMEDIATE.
    seen = connection.execute(select(jobs.c.heartbeat).where(jobs.c.id == sys.argv[2])).scalar_one()
    connection.execute(update(jobs).where(jobs.c.id == sys.argv[2]).values(heartbeat=seen + 1))
for _ in range(150):
    database.write(work, durable=False)
"""


def test_two_processes_that_write_at_once_lose_nothing(harness: StoreHarness) -> None:
    job_id = harness.submit()
    arguments = [sys.executable, "-c", COUNT_UP, harness.database.url, job_id]
    writers = [subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.communicate("go\n", timeout=30)
        assert writer.returncode == 0
    assert harness.row(job_id)["heartbeat"] == 300


def test_two_workers_that_claim_at_once_never_get_the_same_job(harness: StoreHarness) -> None:
    submitted = {harness.submit(key=f"k{number % 10}") for number in range(40)}
    claimed: list[str] = []
    start = threading.Barrier(2)

    def work(name: str) -> None:
        own = StoreHarness(harness.database.url)
        start.wait()
        while leases := own.claim(worker=name):
            for lease in leases:
                own.leases.take(lease, supervisor=SUPERVISOR)
                claimed.append(lease.job_id)
                own.leases.end(lease, DONE)
        own.database.close()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("left", "right")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while leases := harness.claim():  # what a key still held back when the last of the two looked
        claimed += [lease.job_id for lease in leases]
        for lease in leases:
            harness.leases.end(lease, DONE)
    assert sorted(claimed) == sorted(submitted)


def test_every_ended_status_is_final() -> None:
    assert {Status.COMPLETED, Status.FAILED, Status.CANCELLED} == ENDED
