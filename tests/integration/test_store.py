"""The store on a real SQLite file: transitions, claims, leases, logs, retention, the schema, and two processes that write at once."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import pairwise, product
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, select, update

from jobs.bootstrap import make_engine, open_database
from jobs.clock import now_ms
from jobs.errors import IdempotencyConflict, JobActive, JobEnded, JobNotFound, LeaseLost, OperatorError, QueueFull, Unavailable
from jobs.execution.dispatcher import LostJobDetector, host_id
from jobs.execution.process import Identity, boot_id, pid_namespace
from jobs.model import ENDED, TRANSITIONS, JobType, LogChunk, Reason, Status, Stream, Submission, WaitingFor
from jobs.store.jobs import IdempotencyKey, NewJob, Store, transition
from jobs.store.leases import Lease, Leases, Outcome
from jobs.store.listing import JobFilter
from jobs.store.logs import Logs, LogWriter, cut
from jobs.store.retention import Retention
from jobs.store.schema import jobs, log_chunks, metadata

DONE = Outcome(Status.COMPLETED, "exited with code 0", exit_code=0)
SUPERVISOR = {"pid": 1, "start_time": 0.0, "boot_id": "x"}


def watch(seconds: float, *, worker_id: str = "w") -> LostJobDetector:
    return LostJobDetector(seconds, worker_id=worker_id)


class House:
    """One database with all that works on it."""

    def __init__(self, url: str) -> None:
        self.database = open_database(url)
        self.engine = make_engine(url)
        self.store = Store(self.database, self.engine)
        self.leases = Leases(self.database, self.engine)
        self.logs = Logs(self.database)

    def submit(self, *, key: str | None = None, queue: str = "default", max_pending: int = 1000, **options: Any) -> str:
        submission = Submission(JobType.TASK, {"task": "x", "inputs": {}}, **options)
        new = NewJob(submission, queue=queue, concurrency_key=key, project=None, submitted_by="tester")
        return self.store.submit(new, max_pending=max_pending).job.id

    def claim(self, *, slots: int = 100, worker: str = "w", queues: tuple[str, ...] = ("default",)) -> list[Lease]:
        return self.engine.claim(self.database, worker_id=worker, host=host_id(), queues=queues, slots=slots)

    def running(self, **options: Any) -> Lease:
        """A job that a supervisor has taken."""
        job_id = self.submit(**options)
        (lease,) = [lease for lease in self.claim() if lease.job_id == job_id]
        self.leases.take(lease, supervisor=SUPERVISOR)
        return lease

    def ended(self, **options: Any) -> str:
        lease = self.running(**options)
        self.leases.end(lease, DONE)
        return lease.job_id

    def set(self, job_id: str, **values: Any) -> None:
        self.database.write(lambda connection: connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values)))

    def row(self, job_id: str) -> dict[str, Any]:
        query = select(jobs).where(jobs.c.id == job_id)
        return self.database.read(lambda connection: dict(connection.execute(query).one()._mapping))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(f"sqlite:///{tmp_path / 'runcast.db'}")
    house.database.migrate()
    yield house
    house.database.close()


# -- transitions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "target"), list(product(Status, Status)))
def test_every_transition(house: House, source: Status, target: Status) -> None:
    job_id = house.submit()
    house.set(job_id, status=source, attempt=1)
    before = house.row(job_id), house.store.events(job_id)

    def move(connection: Connection) -> bool:
        return transition(connection, job_id, target, scheduler=house.engine, cause="a test", reason=Reason.TIMEOUT, exit_code=7)

    moved = house.database.write(move)
    assert moved == (target in TRANSITIONS[source])
    if not moved:
        assert (house.row(job_id), house.store.events(job_id)) == before, "an illegal one changes nothing"
        return
    job = house.store.get(job_id)
    assert (job.status, job.reason, job.exit_code) == (target, Reason.TIMEOUT, 7)
    event = house.store.events(job_id)[-1]
    assert (event.previous, event.status, event.reason, event.attempt, event.cause) == (source, target, Reason.TIMEOUT, 1, "a test")


def test_a_transition_that_fails_halfway_leaves_no_trace(house: House) -> None:
    job_id = house.submit()

    def work(connection: Connection) -> None:
        assert transition(connection, job_id, Status.CANCELLED, scheduler=house.engine, cause="a test")
        raise ZeroDivisionError

    with suppress(ZeroDivisionError):
        house.database.write(work)
    assert house.store.get(job_id).status is Status.PENDING
    assert len(house.store.events(job_id)) == 1


def test_a_life_in_the_history(house: House) -> None:
    job_id = house.ended()
    events = house.store.events(job_id)
    assert [(event.previous, event.status) for event in events] == [
        (None, Status.PENDING),
        (Status.PENDING, Status.RUNNING),
        (Status.RUNNING, Status.COMPLETED),
    ]
    assert [event.cause for event in events] == ["submitted by tester", "claimed by worker w", "exited with code 0"]
    assert house.store.events_after(events[0].cursor) == events[1:]
    assert house.store.last_event() == events[-1].cursor


# -- submitting -----------------------------------------------------------------------------------------------------------


def test_the_same_key_and_body_give_the_same_job(house: House) -> None:
    new = NewJob(Submission(JobType.TASK, {"task": "x"}), "default", None, None, "tester")
    key = IdempotencyKey("tester", "k", "hash")
    first = house.store.submit(new, max_pending=1, idempotency=key)
    again = house.store.submit(new, max_pending=1, idempotency=key)
    assert (first.replayed, again.replayed) == (False, True), "not refused although the queue is full"
    assert again.job.id == first.job.id
    with pytest.raises(IdempotencyConflict):
        house.store.submit(new, max_pending=9, idempotency=IdempotencyKey("tester", "k", "another"))
    other = house.store.submit(new, max_pending=9, idempotency=IdempotencyKey("somebody else", "k", "another"))
    assert other.job.id != first.job.id
    assert len(house.store.list_jobs(JobFilter(), limit=10)) == 2
    house.store.delete(first.job.id, by="tester")
    assert not house.store.submit(new, max_pending=9, idempotency=key).replayed, "a deleted job frees its key"


def test_the_queue_has_a_limit(house: House) -> None:
    for _ in range(3):
        house.submit(max_pending=3)
    with pytest.raises(QueueFull):
        house.submit(max_pending=3)
    assert len(house.store.list_jobs(JobFilter(), limit=10)) == 3
    house.claim(slots=1)
    house.submit(max_pending=3)


def test_a_submission_comes_back_as_it_was(house: House) -> None:
    job_id = house.submit(priority=3, labels=("a", "b"), timeout_seconds=9, max_attempts=4, key="k", queue="gpu")
    job = house.store.get(job_id)
    assert (job.priority, job.labels, job.timeout_seconds, job.max_attempts) == (3, ("a", "b"), 9, 4)
    assert (job.concurrency_key, job.queue) == ("k", "gpu")
    assert Submission.from_json(job.submission).labels == ("a", "b")
    assert (job.status, job.attempt, job.started_at, job.ended) == (Status.PENDING, 0, None, False)


def test_listing(house: House) -> None:
    ids = [house.submit(labels=("even",) if number % 2 == 0 else ()) for number in range(6)]
    house.store.request_cancel(ids[0], by="me", force=False)
    house.store.delete(ids[5], by="me")

    def listed(wanted: JobFilter, **options: Any) -> list[str]:
        return [job.id for job in house.store.list_jobs(wanted, **{"limit": 10, **options})]

    assert listed(JobFilter()) == ids[4::-1]
    assert listed(JobFilter(), limit=2) == [ids[4], ids[3]]
    assert listed(JobFilter(), cursor=ids[3]) == [ids[2], ids[1], ids[0]]
    assert listed(JobFilter(labels=["even"])) == [ids[4], ids[2], ids[0]]
    assert listed(JobFilter(status=["cancelled"])) == [ids[0]]
    assert listed(JobFilter(status=["cancelled", "pending"], labels=["even"])) == [ids[4], ids[2], ids[0]]
    created = house.store.get(ids[2]).created_at
    assert ids[2] in listed(JobFilter(since=created)) and ids[2] not in listed(JobFilter(until=created))
    assert listed(JobFilter(type=["build"])) == []


# -- cancelling and deleting ----------------------------------------------------------------------------------------------


def test_a_pending_job_is_cancelled_at_once_and_a_running_one_is_asked(house: House) -> None:
    lease = house.running()
    pending = house.submit()
    assert house.store.request_cancel(pending, by="me", force=False).status is Status.CANCELLED
    assert house.leases.cancel_request(lease) is None
    asked = house.store.request_cancel(lease.job_id, by="me", force=False)
    assert (asked.status, asked.cancel_forced) == (Status.RUNNING, False)
    again = house.store.request_cancel(lease.job_id, by="you", force=True)
    assert again.cancel_requested_at == asked.cancel_requested_at
    request = house.leases.cancel_request(lease)
    assert request is not None
    assert (request.reason, request.by, request.forced) == (Reason.CANCELLED_BY_CLIENT, "me", True)
    house.leases.end(lease, Outcome(Status.CANCELLED, "cancelled by me", Reason.CANCELLED_BY_CLIENT))
    assert house.store.request_cancel(lease.job_id, by="me", force=False).status is Status.CANCELLED, "again: the same"
    with pytest.raises(JobEnded):
        house.store.request_cancel(house.ended(), by="me", force=False)


def test_a_deleted_job_is_gone_for_clients_and_its_rows_go_when_it_has_ended(house: House) -> None:
    lease = house.running()
    write(house, lease, b"line\n")
    house.store.delete(lease.job_id, by="me")
    for call in (house.store.get, house.store.events, house.store.get_ended):
        with pytest.raises(JobNotFound):
            call(lease.job_id)
    with pytest.raises(JobNotFound):
        house.store.delete(lease.job_id, by="me")
    assert house.store.list_jobs(JobFilter(), limit=10) == []
    assert house.leases.cancel_request(lease) is not None
    retention = Retention(house.database, max_age_ms=1 << 60, max_jobs=0, max_bytes=0)
    assert retention.run() == 0, "nothing active is ever removed"
    house.leases.end(lease, Outcome(Status.CANCELLED, "x"))
    found = house.store.find(lease.job_id)
    assert found is not None and found.ended, "those who watched it still see its end"
    house.set(lease.job_id, deleted_at=now_ms() - 6000, ended_at=now_ms() - 6000)
    assert Retention(house.database, max_age_ms=1 << 60, max_jobs=9, max_bytes=1 << 60).run() == 1
    assert house.store.find(lease.job_id) is None
    assert chunks_of(house, lease.job_id) == []


def test_an_ended_job_is_deleted_with_all_its_rows(house: House) -> None:
    lease = house.running(labels=("a",))
    write(house, lease, b"line\n")
    with pytest.raises(JobActive):
        house.store.get_ended(lease.job_id)
    house.leases.end(lease, DONE)
    assert house.store.get_ended(lease.job_id).id == lease.job_id
    house.store.delete(lease.job_id, by="me")
    assert house.store.list_jobs(JobFilter(), limit=10) == []
    assert set(house.store.counts().by_status.values()) == {0}
    found = house.store.find(lease.job_id)
    assert found is not None and found.status is Status.COMPLETED, "those who watched it still see its end"
    house.set(lease.job_id, deleted_at=now_ms() - 6000, ended_at=now_ms() - 6000)
    assert keep_all(house).run() == 1
    with closing(sqlite3.connect(house.database.url.removeprefix("sqlite:///"))) as connection:
        for table in ("jobs", "job_events", "job_labels", "log_chunks", "idempotency_keys"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


# -- claiming -------------------------------------------------------------------------------------------------------------


def test_higher_priority_first_then_oldest(house: House) -> None:
    ids = [house.submit(priority=priority) for priority in (0, 5, -5, 0, 5)]
    assert [lease.job_id for lease in house.claim()] == [ids[1], ids[4], ids[0], ids[3], ids[2]]


def words(house: House) -> list[str]:
    """The leases of the worker `w`."""
    return [held.lease for held in house.leases.held() if held.worker_id == "w"]


def test_no_more_than_there_are_slots(house: House) -> None:
    for _ in range(5):
        house.submit()
    assert len(house.claim(slots=2)) == 2
    assert house.claim(slots=2) == []
    assert len(house.claim(slots=3)) == 1
    assert len(house.claim(slots=1, worker="another")) == 1, "each worker has slots of its own"
    assert house.leases.running(words(house)) == 3


def test_one_of_each_key_at_a_time_in_the_order_of_submission(house: House) -> None:
    first, second = house.submit(key="k"), house.submit(key="k", priority=10)
    free = house.submit()
    leases = house.claim()
    assert {lease.job_id for lease in leases} == {first, free}
    assert house.store.get(second).waiting_for is WaitingFor.CONCURRENCY_KEY
    assert house.claim() == []
    (held,) = [lease for lease in leases if lease.job_id == first]
    house.leases.end(held, DONE)
    assert [lease.job_id for lease in house.claim()] == [second]


def test_a_worker_serves_its_queues_only(house: House) -> None:
    gpu, default = house.submit(queue="gpu"), house.submit()
    assert house.store.get(gpu).waiting_for is WaitingFor.WORKER
    house.leases.register_worker(worker_id="w", host="h", pid=1, slots=1, queues=["default"])
    assert house.store.get(default).waiting_for is WaitingFor.SLOT
    assert house.store.get(gpu).waiting_for is WaitingFor.WORKER
    assert [lease.job_id for lease in house.claim()] == [default]
    assert [lease.job_id for lease in house.claim(queues=("other", "gpu"), worker="v")] == [gpu]


def test_a_worker_that_gives_no_sign_serves_nobody(house: House) -> None:
    job_id = house.submit()
    house.leases.register_worker(worker_id="w", host="h", pid=1, slots=1, queues=["default"])
    assert [worker.alive for worker in house.store.workers()] == [True]
    with closing(sqlite3.connect(house.database.url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE workers SET heartbeat_at = heartbeat_at - 60000")
    assert [worker.alive for worker in house.store.workers()] == [False]
    assert house.store.get(job_id).waiting_for is WaitingFor.WORKER
    house.leases.worker_alive("w")
    assert house.store.get(job_id).waiting_for is WaitingFor.SLOT
    house.leases.worker_gone("w")
    assert house.store.workers() == []


# -- leases ---------------------------------------------------------------------------------------------------------------


def test_a_lease_is_taken_once(house: House) -> None:
    house.submit()
    (lease,) = house.claim()
    assert house.leases.take(lease, supervisor=SUPERVISOR).submission.params == {"task": "x", "inputs": {}}
    with pytest.raises(LeaseLost):
        house.leases.take(lease, supervisor=SUPERVISOR)


def test_who_lost_the_lease_can_write_nothing_more(house: House) -> None:
    lost = house.running(max_attempts=2)
    write(house, lost, b"first attempt\n")
    (held,) = house.leases.held()
    assert house.leases.lose(held) is Status.PENDING
    (lease,) = house.claim()
    house.leases.take(lease, supervisor=SUPERVISOR)
    before = house.row(lost.job_id)
    writes: dict[str, Callable[[], object]] = {
        "take": lambda: house.leases.take(lost, supervisor=SUPERVISOR),
        "append": lambda: write(house, lost, b"too late\n"),
        "progress": lambda: house.leases.update(lost, progress_percent=99.0),
        "sign": lambda: house.leases.update(lost),
        "end": lambda: house.leases.end(lost, DONE),
        "read the cancel request": lambda: house.leases.cancel_request(lost),
    }
    for name, late in writes.items():
        with pytest.raises(LeaseLost):
            late()
        assert house.row(lost.job_id) == before, name
    assert raw(house, lost.job_id) == b"first attempt\n"
    assert house.leases.lose(held) is None, "nor can it be given up twice"
    write(house, lease, b"second attempt\n", resume=True)
    house.leases.end(lease, DONE)
    assert raw(house, lost.job_id) == b"first attempt\nsecond attempt\n"
    with pytest.raises(LeaseLost):
        house.leases.update(lease)


def test_a_lost_job_without_attempts_left_has_failed(house: House) -> None:
    lease = house.running()
    (held,) = house.leases.held()
    assert house.leases.lose(held) is Status.FAILED
    job = house.store.get(lease.job_id)
    assert (job.reason, job.error and job.error["type"]) == (Reason.WORKER_LOST, "urn:runcast:problem:job-failed")


class Clock:
    """Stands in for `time` where a lease is measured."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("jobs.execution.dispatcher.time", clock)
    return clock


def test_a_job_that_was_claimed_but_never_started_does_not_lose_an_attempt(house: House, clock: Clock) -> None:
    job_id = house.submit()
    (lease,) = house.claim()
    assert house.store.get(job_id).attempt == 1
    watching = watch(10)
    assert watching.lost(house.leases.held()) == [], "a worker that has just claimed it may be about to start it"
    for _ in range(3):
        clock.now += 1
        assert watching.lost(house.leases.held()) == []
    clock.now += 1
    (held,) = watching.lost(house.leases.held())
    assert house.leases.lose(held) is Status.PENDING
    job = house.store.get(job_id)
    assert (job.attempt, job.started_at) == (0, None)
    with pytest.raises(LeaseLost):
        house.leases.take(lease, supervisor=SUPERVISOR)
    (again,) = house.claim()
    assert (again.job_id, again.attempt) == (job_id, 1)
    assert "never started" in house.store.events(job_id)[-2].cause


def test_a_job_that_was_never_started_outlasts_a_stop_but_no_cancel(house: House) -> None:
    stopped, cancelled = house.submit(), house.submit()
    house.claim()
    house.leases.cancel_all(words(house), force=True)
    house.store.request_cancel(cancelled, by="tester", force=False)
    losses = {held.job_id: house.leases.lose(held) for held in house.leases.held()}
    assert losses == {stopped: Status.PENDING, cancelled: Status.CANCELLED}
    job = house.store.get(stopped)
    assert (job.cancel_requested_at, job.cancel_forced, job.attempt) == (None, False, 0)
    (again,) = house.claim()
    assert house.leases.take(again, supervisor=SUPERVISOR) and house.leases.cancel_request(again) is None
    assert "before it was started" in house.store.events(cancelled)[-1].cause


def test_a_clock_that_is_set_back_changes_no_order(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (offset := tmp_path / "offset").write_text("0")
    monkeypatch.setattr("jobs.clock._OFFSET_FILE", str(offset))
    submitted = [house.submit() for _ in range(50)]
    offset.write_text("-3600000")
    submitted += [house.submit() for _ in range(50)]
    assert submitted == sorted(submitted)
    assert {UUID(job_id).version for job_id in submitted} == {7}
    ended = [house.store.request_cancel(submitted[-1], by="tester", force=False).id]
    for lease in house.claim():
        house.leases.take(lease, supervisor=SUPERVISOR)
        house.leases.end(lease, DONE)
        ended.append(lease.job_id)
    assert [job.id for job in house.store.list_jobs(JobFilter(), limit=100)] == submitted[::-1]
    for job in map(house.store.get, ended):
        times = [at for at in (job.created_at, job.started_at, job.ended_at) if at is not None]
        assert times == sorted(times)


def test_signs_of_life_keep_a_lease_and_a_dead_supervisor_is_known_at_once(house: House, clock: Clock) -> None:
    lease = house.running()
    child = subprocess.Popen(["sleep", "600"])
    try:
        house.set(lease.job_id, supervisor=Identity.of(child.pid).__dict__)
        watching = watch(10)
        for _ in range(4):
            assert watching.lost(house.leases.held()) == []
            clock.now += 6
            house.leases.update(lease)
    finally:
        child.kill()
        child.wait()
    assert [held.job_id for held in watching.lost(house.leases.held())] == [lease.job_id]


def test_time_in_which_nobody_could_give_a_sign_does_not_count(house: House, clock: Clock) -> None:
    house.set(house.running().job_id, host="elsewhere")
    watching = watch(10, worker_id="another")
    for _ in range(2):
        # The watcher itself was held up: by a locked store, or because the machine slept.
        assert watching.lost(house.leases.held()) == []
        clock.now += 3600
    for _ in range(5):
        clock.now += 1
        assert watching.lost(house.leases.held()) == []
    watching.forget()  # the store took no writes
    for _ in range(11):
        assert watching.lost(house.leases.held()) == []
        clock.now += 1
    assert len(watching.lost(house.leases.held())) == 1


def test_a_machine_that_got_another_name_still_knows_its_supervisors(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = house.running()
    house.set(lease.job_id, supervisor={**Identity.of(1).__dict__, "start_time": -1.0})
    monkeypatch.setattr("socket.gethostname", lambda: "renamed")
    assert [held.job_id for held in watch(60).lost(house.leases.held())] == [lease.job_id]


def test_a_recycled_pid_is_no_sign_of_life(house: House) -> None:
    lease = house.running()
    own = Identity.of(1)
    house.set(lease.job_id, supervisor={**own.__dict__, "start_time": own.start_time + 1})
    assert [held.job_id for held in watch(60).lost(house.leases.held())] == [lease.job_id]
    for machine in (boot_id(), f"{boot_id()}pid:[1]", socket.gethostname()):
        house.set(lease.job_id, supervisor=own.__dict__, host=machine)
        assert watch(60).lost(house.leases.held()) == [], "nor does a pid of another container, on the same machine"
    house.set(lease.job_id, supervisor=own.__dict__, host="elsewhere")
    assert watch(60).lost(house.leases.held()) == [], "a pid of another machine says nothing here"


def test_a_machine_that_was_started_anew_knows_what_ran_before(house: House) -> None:
    lease = house.running()
    before = {**Identity.of(1).__dict__, "boot_id": "another"}
    house.set(lease.job_id, supervisor=before, host=f"another{pid_namespace()}")
    assert watch(60, worker_id="another").lost(house.leases.held()) == [], "a worker of another name may be on another machine"
    assert [held.job_id for held in watch(60).lost(house.leases.held())] == [lease.job_id]


def test_a_lease_that_is_taken_while_it_is_given_up_stays(house: House) -> None:
    house.submit()
    (lease,) = house.claim()
    (held,) = house.leases.held()
    house.leases.take(lease, supervisor=SUPERVISOR)
    assert house.leases.lose(held) is None
    assert house.store.get(lease.job_id).status is Status.RUNNING
    (held,) = house.leases.held()
    house.leases.update(lease)
    assert house.leases.lose(held) is None, "nor one that has just given a sign"


def test_a_stopping_server_asks_its_own_jobs_to_end(house: House) -> None:
    mine, asked = house.running(), house.running()
    house.store.request_cancel(asked.job_id, by="me", force=False)
    house.submit()
    (other,) = house.claim(worker="another")
    house.leases.cancel_all(words(house))
    request = house.leases.cancel_request(mine)
    assert request is not None and (request.reason, request.by) == (Reason.SERVER_SHUTDOWN, None)
    request = house.leases.cancel_request(asked)
    assert request is not None and request.reason is Reason.CANCELLED_BY_CLIENT, "who asked first is the reason"
    assert house.leases.cancel_request(other) is None


# -- logs -----------------------------------------------------------------------------------------------------------------


def write(house: House, lease: Lease, *parts: bytes, resume: bool = False) -> None:
    writer = LogWriter(lease, cap=1 << 20)
    if resume:
        house.database.read(writer.resume)
    append(house, writer, *parts)


def append(house: House, writer: LogWriter, *parts: bytes, last: bool = False) -> None:
    """Each part in a transaction of its own, as whole lines."""
    for part in parts:
        step = writer.step(writer.chunks(lines=part.count(b"\n"), at=now_ms(), stream=Stream.STDOUT, data=part))
        store_step(house, writer, step)
    if last:
        store_step(house, writer, writer.step((), last=True))


def store_step(house: House, writer: LogWriter, step: Any) -> None:
    house.database.write(lambda connection: writer.write(connection, step, {}))
    writer.written(step)


def chunks_of(house: House, job_id: str) -> list[Any]:
    query = select(log_chunks).where(log_chunks.c.job_id == job_id).order_by(log_chunks.c.first_seq)
    return house.database.read(lambda connection: list(connection.execute(query)))


def raw(house: House, job_id: str) -> bytes:
    return b"".join(chunk.data for chunk in house.logs.chunks(job_id))


def numbered(first: int, last: int, *, width: int = 0) -> list[bytes]:
    return [(b"line %d " % number).ljust(width - 1, b"x") + b"\n" for number in range(first, last + 1)]


def test_chunks_can_be_read_after_any_line(house: House) -> None:
    lease = house.running()
    every = [b"one\n", b"two\r\n", b"\n", b"\xff\xfe\n", "vier ü\n".encode(), b"five\n", b"six"]
    writer = LogWriter(lease, cap=1 << 20)
    append(house, writer, every[0] + every[1] + every[2], every[3], every[4] + every[5])
    step = writer.step(writer.chunks(lines=1, at=0, stream=Stream.STDERR, data=every[6]))
    store_step(house, writer, step)
    for after in range(len(every) + 2):
        chunks = house.logs.chunks(lease.job_id, after_seq=after)
        assert b"".join(chunk.data for chunk in chunks) == b"".join(every[after:])
        if chunks:
            assert chunks[0].first_seq == after + 1
            assert all(before.next_seq == behind.first_seq for before, behind in pairwise(chunks))
    texts = [text for chunk in house.logs.chunks(lease.job_id) for text in chunk.texts()]
    assert texts == ["one", "two", "", "\ufffd\ufffd", "vier ü", "five", "six"]
    assert house.logs.chunks(lease.job_id)[-1].stream is Stream.STDERR
    small = house.logs.chunks(lease.job_id, max_bytes=1)
    assert [chunk.first_seq for chunk in small] == [1], "as many as were asked for, but one at least"
    assert house.logs.tail(lease.job_id, 2) == 5
    job = house.store.get(lease.job_id)
    assert (job.log.lines, job.log.bytes, job.log.dropped_lines) == (7, sum(map(len, every)), 0)


def test_cutting_a_chunk() -> None:
    chunk = LogChunk("j", 10, 3, 0, Stream.STDOUT, b"a\nb\nc")
    assert cut(chunk, 9) is chunk
    assert (cut(chunk, 11).first_seq, cut(chunk, 11).lines, cut(chunk, 11).data) == (12, 1, b"c")


def test_a_log_over_its_cap_keeps_head_and_tail(house: House) -> None:
    cap, width, count = 64_000, 100, 3000
    lease = house.running()
    writer = LogWriter(lease, cap=cap)
    writer.READ_SECONDS = 0.0  # nobody watches
    every = numbered(1, count, width=width)
    for start in range(0, count, 50):
        append(house, writer, b"".join(every[start : start + 50]))
        assert sum(len(chunk.data) for chunk in chunks_of(house, lease.job_id)) <= cap * 1.25
    append(house, writer, last=True)
    state = house.logs.state(lease.job_id)
    assert state.lines == count and state.dropped is not None
    first, last = state.dropped
    assert raw(house, lease.job_id) == b"".join(every[: first - 1] + every[last:])
    head, tail = (first - 1) * width, (count - last) * width
    assert cap / 2 <= head <= cap / 2 + cap / 16
    assert cap / 2 - cap / 8 <= tail <= cap / 2
    assert head + tail <= cap, "what the head has too much, the tail has less"
    job = house.store.get(lease.job_id)
    assert (job.log.lines, job.log.bytes, job.log.dropped_lines) == (count, count * width, last - first + 1)
    after_the_gap = house.logs.chunks(lease.job_id, after_seq=first + 10)
    assert after_the_gap[0].first_seq == last + 1


def test_nothing_is_removed_before_those_who_watch_had_the_time_to_read_it(house: House) -> None:
    writer = LogWriter(house.running(), cap=64_000)
    append(house, writer, b"".join(numbered(1, 5000, width=100)))
    assert house.logs.state(writer.lease.job_id).dropped is None
    step = writer.step((), last=True)
    assert step.doomed is not None
    assert 0 < step.wait <= LogWriter.READ_SECONDS
    big = writer.step(writer.chunks(lines=1, at=0, stream=Stream.STDOUT, data=b"x" * LogWriter.SLACK))
    assert big.doomed is not None and big.wait > 0, "but it does not outgrow its cap by more than the slack"


def test_the_log_of_a_second_attempt_goes_on_below_the_same_cap(house: House) -> None:
    cap, width = 64_000, 100
    every = numbered(1, 4000, width=width)
    first = house.running(max_attempts=2)
    writer = LogWriter(first, cap=cap)
    writer.READ_SECONDS = 0.0
    for start in range(0, 2000, 100):
        append(house, writer, b"".join(every[start : start + 100]))
    earlier = house.logs.state(first.job_id).dropped
    house.leases.lose(house.leases.held()[0])
    (second,) = house.claim()
    house.leases.take(second, supervisor=SUPERVISOR)
    writer = LogWriter(second, cap=cap)
    writer.READ_SECONDS = 0.0
    house.database.read(writer.resume)
    for start in range(2000, 4000, 100):
        append(house, writer, b"".join(every[start : start + 100]))
    append(house, writer, last=True)
    dropped = house.logs.state(first.job_id).dropped
    assert earlier is not None and dropped is not None
    assert dropped[0] == earlier[0] and dropped[1] > earlier[1]
    kept = raw(house, first.job_id)
    assert kept == b"".join(every[: dropped[0] - 1] + every[dropped[1] :])
    assert len(kept) <= cap


@pytest.mark.parametrize("cap", [8_000, 640_000], ids=["smaller", "larger"])
def test_a_second_attempt_under_another_cap_has_one_gap_and_keeps_the_end(house: House, cap: int) -> None:
    width = 100
    every = numbered(1, 2000, width=width)
    first = house.running(max_attempts=2)
    writer = LogWriter(first, cap=64_000)
    writer.READ_SECONDS = 0.0
    append(house, writer, *(b"".join(every[start : start + 100]) for start in range(0, 1000, 100)), last=True)
    house.leases.lose(house.leases.held()[0])
    (second,) = house.claim()
    house.leases.take(second, supervisor=SUPERVISOR)
    writer = LogWriter(second, cap=cap)
    writer.READ_SECONDS = 0.0
    house.database.read(writer.resume)
    append(house, writer, *(b"".join(every[start : start + 100]) for start in range(1000, 2000, 100)), last=True)
    dropped = house.logs.state(first.job_id).dropped
    assert dropped is not None and dropped[1] < 2000
    assert raw(house, first.job_id) == b"".join(every[: dropped[0] - 1] + every[dropped[1] :])


def test_a_log_write_that_failed_may_be_repeated(house: House) -> None:
    writer = LogWriter(house.running(), cap=1 << 20)
    step = writer.step(writer.chunks(lines=2, at=0, stream=Stream.STDOUT, data=b"a\nb\n"))

    def failing(connection: Connection) -> None:
        writer.write(connection, step, {"progress_percent": 5.0})
        raise ZeroDivisionError

    with suppress(ZeroDivisionError):
        house.database.write(failing)
    assert chunks_of(house, writer.lease.job_id) == []
    store_step(house, writer, step)
    append(house, writer, b"c\n")
    assert raw(house, writer.lease.job_id) == b"a\nb\nc\n"


# -- retention ------------------------------------------------------------------------------------------------------------


def ids(house: House) -> set[str]:
    return {job.id for job in house.store.list_jobs(JobFilter(), limit=200)}


def keep_all(house: House, **limits: int) -> Retention:
    """But for the limits. Negative, because what ends here has ended in this very millisecond."""
    return Retention(house.database, **{"max_age_ms": 1 << 40, "max_jobs": 1 << 40, "max_bytes": 1 << 40, "seen_ms": -1000, **limits})


@pytest.fixture
def active(house: House) -> set[str]:
    """A pending and a running job, both older than all others and with a large log."""
    running, pending = house.running(), house.submit()
    for job_id in (running.job_id, pending):
        house.set(job_id, created_at=1, started_at=1, log_bytes=1 << 50)
    return {running.job_id, pending}


def test_retention_by_age(house: House, active: set[str]) -> None:
    old, young = house.ended(key="x"), house.ended(key="y")
    house.set(old, created_at=now_ms() - 200_000, ended_at=now_ms() - 100_000)
    assert keep_all(house, max_age_ms=50_000).run() == 1
    assert ids(house) == {young, *active}


def test_retention_by_count(house: House, active: set[str]) -> None:
    ended = [house.ended() for _ in range(4)]
    assert keep_all(house, max_jobs=2).run() == 2
    assert ids(house) == {*ended[2:], *active}


def test_retention_by_bytes_removes_the_oldest(house: House, active: set[str]) -> None:
    ended = [house.ended() for _ in range(4)]
    for job_id in ended:
        house.set(job_id, log_bytes=100)
    assert keep_all(house, max_bytes=250).run() == 2
    assert ids(house) == {*ended[2:], *active}
    assert keep_all(house, max_bytes=250).run() == 0


def test_retention_with_no_room_at_all_keeps_what_is_active(house: House, active: set[str]) -> None:
    for _ in range(3):
        house.ended()
    assert keep_all(house, max_age_ms=-10_000, max_jobs=0, max_bytes=0).run() == 3
    assert ids(house) == active


def test_whatever_the_limits_those_who_watch_have_the_time_to_see_the_end(house: House, active: set[str]) -> None:
    seen, deleted, fresh = (house.ended() for _ in range(3))
    house.store.delete(deleted, by="me")
    for job_id, ended_at, deleted_at in ((seen, now_ms() - 6000, None), (deleted, now_ms() - 6000, now_ms() - 6000)):
        house.set(job_id, ended_at=ended_at, deleted_at=deleted_at)
    nothing = Retention(house.database, max_age_ms=0, max_jobs=0, max_bytes=0)
    assert nothing.run() == 2
    assert ids(house) == {fresh, *active}
    house.set(fresh, ended_at=now_ms() - 6000)
    assert nothing.run() == 1


# -- the schema, and the file ---------------------------------------------------------------------------------------------


def test_the_migrations_make_the_tables_of_the_schema(house: House) -> None:
    def differences(connection: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_server_default": True}), metadata))

    assert house.database.read(differences) == []

    def indexes(connection: Connection) -> set[str | None]:
        return {index["name"] for table in metadata.tables for index in inspect(connection).get_indexes(table)}

    assert house.database.read(indexes) == {index.name for table in metadata.tables.values() for index in table.indexes}


def test_migrating_again_changes_nothing(house: House) -> None:
    job_id = house.submit()
    house.database.migrate()
    assert house.store.get(job_id).status is Status.PENDING


def test_a_database_of_a_newer_version_is_refused(house: House) -> None:
    with closing(sqlite3.connect(house.database.url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(OperatorError, match="newer version"):
        house.database.migrate()


def test_durable_writes_are_synced_and_others_are_not(house: House) -> None:
    def level(connection: Connection) -> int:
        return int(connection.exec_driver_sql("PRAGMA synchronous").scalar_one())

    assert house.database.write(level) == 2
    assert house.database.write(level, durable=False) == 1
    assert house.database.read(lambda connection: connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()) == "wal"


def test_a_read_sees_one_moment(house: House) -> None:
    """A job that ends while its answer is put together is seen as it was or as it is, never as a mixture."""
    job_id = house.submit()
    other = House(house.database.url)

    def work(connection: Connection) -> tuple[str, str]:
        query = select(jobs.c.status).where(jobs.c.id == job_id)
        before = connection.execute(query).scalar_one()
        other.store.request_cancel(job_id, by="me", force=False)
        return before, connection.execute(query).scalar_one()

    assert house.database.read(work) == ("pending", "pending")
    assert house.store.get(job_id).status is Status.CANCELLED
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


def test_two_processes_that_write_at_once_lose_nothing(house: House) -> None:
    job_id = house.submit()
    arguments = [sys.executable, "-c", COUNT_UP, house.database.url, job_id]
    writers = [subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.communicate("go\n", timeout=30)
        assert writer.returncode == 0
    assert house.row(job_id)["heartbeat"] == 300


def test_two_workers_that_claim_at_once_never_get_the_same_job(house: House) -> None:
    submitted = {house.submit(key=f"k{number % 10}") for number in range(40)}
    claimed: list[str] = []
    start = threading.Barrier(2)

    def work(name: str) -> None:
        own = House(house.database.url)
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
    while leases := house.claim():  # what a key still held back when the last of the two looked
        claimed += [lease.job_id for lease in leases]
        for lease in leases:
            house.leases.end(lease, DONE)
    assert sorted(claimed) == sorted(submitted)


def test_every_ended_status_is_final() -> None:
    assert {Status.COMPLETED, Status.FAILED, Status.CANCELLED} == ENDED
